//! Durations, sizes and shares of a core, as the two formats write them.
//!
//! Read exactly, without floating point: `0.1` of a core is 100 thousandths and not 100.000000001.

use crate::fields::Expected;

/// The longest duration: ten years. Longer ones are taken for a mistake.
const MAX_DURATION_MS: u64 = 10 * 365 * 24 * 3_600_000;
/// The smallest memory limit that a program can live in; a smaller one is a wrong unit.
const MIN_MEMORY_BYTES: u64 = 1 << 20;

/// A duration as Go writes it (`time.ParseDuration`), such as `1h30m` or `1.5s`, in milliseconds, rounded up.
pub(crate) fn duration_ms(text: &str) -> Result<u64, Expected> {
    let expected = || "a duration such as 500ms, 30s, 10m or 1h30m".to_owned();
    let mut rest = text.trim();
    if rest == "0" {
        return Ok(0);
    }
    if rest.is_empty() {
        return Err(expected());
    }
    let mut total_ms = 0_u64;
    while !rest.is_empty() {
        let (number, after) = split_number(rest);
        let unit_end = after
            .find(|c: char| c.is_ascii_digit() || c == '.')
            .unwrap_or(after.len());
        let (unit, after) = after.split_at(unit_end);
        let nanoseconds: u128 = match unit {
            "ns" => 1,
            "us" | "µs" | "μs" => 1_000,
            "ms" => 1_000_000,
            "s" => 1_000_000_000,
            "m" => 60_000_000_000,
            "h" => 3_600_000_000_000,
            _ => return Err(expected()),
        };
        let part_ms = scaled(number, nanoseconds, 1_000_000).ok_or_else(expected)?;
        total_ms = total_ms.saturating_add(part_ms);
        rest = after;
    }
    if total_ms > MAX_DURATION_MS {
        return Err("a duration of at most ten years (87600h)".to_owned());
    }
    Ok(total_ms)
}

/// A duration, or `never`, of the sleep settings: milliseconds, at least 1.
pub(crate) fn sleep_after_ms(text: &str) -> Result<Option<u64>, Expected> {
    if text == "never" {
        return Ok(None);
    }
    match duration_ms(text) {
        Ok(0) => Err("more than 0, or `never`".to_owned()),
        Ok(duration_ms) => Ok(Some(duration_ms)),
        Err(expected) => Err(format!("{expected}, or `never`")),
    }
}

/// A size as Compose writes it, such as `64M`, `1.5gb` or `1024`, in bytes. All units are powers of 1024.
pub(crate) fn compose_bytes(text: &str) -> Result<u64, Expected> {
    let expected = || "a size such as 64m, 512mb or 1g".to_owned();
    let (number, unit) = split_number(text.trim());
    let power = match unit.trim().to_ascii_lowercase().as_str() {
        "" | "b" => 0,
        "k" | "kb" | "kib" => 1,
        "m" | "mb" | "mib" => 2,
        "g" | "gb" | "gib" => 3,
        "t" | "tb" | "tib" => 4,
        _ => return Err(expected()),
    };
    scaled(number, 1024_u128.pow(power), 1).ok_or_else(expected)
}

/// Memory of a Compose file: as [`compose_bytes`]; 0 is no limit.
pub(crate) fn compose_memory(text: &str) -> Result<Option<u64>, Expected> {
    enough(compose_bytes(text)?, "1m")
}

/// CPU of a Compose file, such as `0.5`, in thousandths of a core; 0 is no limit.
pub(crate) fn compose_cpu_milli(text: &str) -> Result<Option<u64>, Expected> {
    let expected = || "a number of cores such as 0.5 or 2".to_owned();
    let milli = scaled(text.trim(), 1000, 1).ok_or_else(expected)?;
    Ok((milli > 0).then_some(milli))
}

/// A quantity of Kubernetes (`resource.Quantity`), times `thousand` (1 or 1000), rounded up.
fn quantity(text: &str, thousand: u128) -> Option<u64> {
    let (number, suffix) = split_number(text.trim());
    let (multiplier, divisor) = match suffix {
        "" => (1, 1),
        "n" => (1, 1_000_000_000),
        "u" => (1, 1_000_000),
        "m" => (1, 1000),
        "k" => (1000, 1),
        "M" => (1_000_000, 1),
        "G" => (1_000_000_000, 1),
        "T" => (1_000_000_000_000, 1),
        "P" => (1_000_000_000_000_000, 1),
        "E" => (1_000_000_000_000_000_000, 1),
        "Ki" => (1 << 10, 1),
        "Mi" => (1 << 20, 1),
        "Gi" => (1 << 30, 1),
        "Ti" => (1_u128 << 40, 1),
        "Pi" => (1_u128 << 50, 1),
        "Ei" => (1_u128 << 60, 1),
        _ => {
            let exponent: i32 = suffix.strip_prefix(['e', 'E'])?.parse().ok()?;
            let power = 10_u128.checked_pow(exponent.unsigned_abs())?;
            if exponent < 0 { (1, power) } else { (power, 1) }
        }
    };
    scaled(number, thousand.checked_mul(multiplier)?, divisor)
}

/// Memory of Kubernetes, such as `64Mi`, in bytes; 0 is no limit.
pub(crate) fn kubernetes_memory(text: &str) -> Result<Option<u64>, Expected> {
    let bytes = quantity(text, 1).ok_or_else(|| "a quantity such as 64Mi or 1Gi".to_owned())?;
    enough(bytes, "1Mi")
}

/// A quantity of bytes of Kubernetes, however small.
pub(crate) fn kubernetes_bytes(text: &str) -> Result<Option<u64>, Expected> {
    let bytes = quantity(text, 1).ok_or_else(|| "a quantity such as 1Mi".to_owned())?;
    Ok((bytes > 0).then_some(bytes))
}

/// CPU of Kubernetes, such as `250m` or `0.5`, in thousandths of a core; 0 is no limit.
pub(crate) fn kubernetes_cpu_milli(text: &str) -> Result<Option<u64>, Expected> {
    let expected = || "a quantity such as 250m, 0.5 or 2".to_owned();
    let milli = quantity(text, 1000).ok_or_else(expected)?;
    Ok((milli > 0).then_some(milli))
}

fn enough(bytes: u64, least: &str) -> Result<Option<u64>, Expected> {
    match bytes {
        0 => Ok(None),
        bytes if bytes < MIN_MEMORY_BYTES => Err(format!(
            "at least {least} (it comes to {bytes} bytes: is the unit right?)"
        )),
        bytes => Ok(Some(bytes)),
    }
}

/// Splits `1.5GB` into `1.5` and `GB`.
fn split_number(text: &str) -> (&str, &str) {
    let end = text
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .unwrap_or(text.len());
    text.split_at(end)
}

/// `number` (digits with at most one point) times `multiplier` by `divisor`, rounded up. `None` if it
/// is no such number, or too large.
fn scaled(number: &str, multiplier: u128, divisor: u128) -> Option<u64> {
    const MAX_DIGITS: usize = 18;
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let digits = format!("{whole}{fraction}");
    if digits.is_empty() || digits.len() > MAX_DIGITS || fraction.contains('.') {
        return None;
    }
    let digits: u128 = digits.parse().ok()?;
    let divisor = divisor.checked_mul(10_u128.checked_pow(u32::try_from(fraction.len()).ok()?)?)?;
    let product = digits.checked_mul(multiplier)?;
    u64::try_from(product.div_ceil(divisor)).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_as_go_writes_them() {
        let good = [
            ("0", 0),
            ("30s", 30_000),
            ("1h30m", 5_400_000),
            ("1.5s", 1_500),
            ("300ms", 300),
            ("100us", 1),
            ("1m1ms", 60_001),
            (".5s", 500),
        ];
        for (text, ms) in good {
            assert_eq!(duration_ms(text), Ok(ms), "{text}");
        }
        for bad in [
            "",
            "5",
            "s",
            "-1s",
            "1d",
            "1 s",
            "1.2.3s",
            "10s5",
            "999999999h",
            "1e3s",
        ] {
            assert!(duration_ms(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn sleep_can_be_never_but_not_at_once() {
        assert_eq!(sleep_after_ms("never"), Ok(None));
        assert_eq!(sleep_after_ms("10m"), Ok(Some(600_000)));
        assert!(sleep_after_ms("0s").is_err());
        assert!(sleep_after_ms("Never").is_err());
    }

    #[test]
    fn sizes_are_read_as_docker_writes_them() {
        let good = [
            ("1024", 1024),
            ("64M", 64 << 20),
            ("1.5gb", 3 << 29),
            ("512 mb", 512 << 20),
            ("0", 0),
        ];
        for (text, bytes) in good {
            assert_eq!(compose_bytes(text), Ok(bytes), "{text}");
        }
        for bad in [
            "",
            "m",
            "-1m",
            "1x",
            "1.2.3m",
            "99999999999999999999",
            "999999999999t",
        ] {
            assert!(compose_bytes(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn quantities_are_read_as_kubernetes_writes_them() {
        assert_eq!(kubernetes_memory("64Mi"), Ok(Some(64 << 20)));
        assert_eq!(kubernetes_memory("128M"), Ok(Some(128_000_000)));
        assert_eq!(kubernetes_memory("1e9"), Ok(Some(1_000_000_000)));
        assert_eq!(kubernetes_memory("0.5Gi"), Ok(Some(1 << 29)));
        assert_eq!(kubernetes_memory("0"), Ok(None));
        assert!(kubernetes_memory("128m").is_err(), "a thousandth of a byte");
        assert!(kubernetes_memory("64mb").is_err());
        assert_eq!(kubernetes_cpu_milli("250m"), Ok(Some(250)));
        assert_eq!(kubernetes_cpu_milli("0.5"), Ok(Some(500)));
        assert_eq!(kubernetes_cpu_milli("2"), Ok(Some(2000)));
        assert_eq!(kubernetes_cpu_milli("0.0001"), Ok(Some(1)));
        assert_eq!(kubernetes_cpu_milli("1e-3"), Ok(Some(1)));
        assert!(kubernetes_cpu_milli("-1").is_err());
        assert!(kubernetes_cpu_milli("1e999").is_err());
    }
}
