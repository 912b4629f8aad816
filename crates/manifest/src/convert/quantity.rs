//! Amounts and texts as Kubernetes writes them.

/// Bytes by the largest power of 1024 that they are a multiple of (`resource.Quantity`).
pub(super) fn bytes(bytes: u64) -> String {
    let units = [(40, "Ti"), (30, "Gi"), (20, "Mi"), (10, "Ki")];
    let fits = |(shift, _): &&(u32, &str)| bytes > 0 && bytes.is_multiple_of(1 << shift);
    match units.iter().find(fits) {
        Some((shift, unit)) => format!("{}{unit}", bytes >> shift),
        None => bytes.to_string(),
    }
}

/// Thousandths of a core.
pub(super) fn cpu(milli: u64) -> String {
    match milli % 1_000 {
        0 => (milli / 1_000).to_string(),
        _ => format!("{milli}m"),
    }
}

/// Whole seconds, at least one.
pub(super) fn seconds(ms: u64) -> u64 {
    ms.div_ceil(1_000).max(1)
}

/// A duration as Layby's annotations take it.
pub(super) fn duration(ms: u64) -> String {
    match ms {
        ms if ms > 0 && ms.is_multiple_of(3_600_000) => format!("{}h", ms / 3_600_000),
        ms if ms > 0 && ms.is_multiple_of(60_000) => format!("{}m", ms / 60_000),
        ms if ms.is_multiple_of(1_000) => format!("{}s", ms / 1_000),
        ms => format!("{ms}ms"),
    }
}

/// Text that the kubelet, which fills in `$(NAME)` and takes `$$` for `$`, leaves as it is.
pub(super) fn literal(text: &str) -> String {
    let mut literal = String::with_capacity(text.len());
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        literal.push(c);
        if c == '$' && matches!(chars.peek(), Some('$' | '(')) {
            literal.push('$');
        }
    }
    literal
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kubernetes::expand::{Variables, word};
    use crate::units::{duration_ms, kubernetes_bytes, kubernetes_cpu_milli};

    #[test]
    fn amounts_are_read_as_they_were() {
        for amount in [1, 1023, 1024, 3 << 20, 1 << 30, 1_500_000_000, 5 << 40] {
            assert_eq!(kubernetes_bytes(&bytes(amount)), Ok(Some(amount)));
        }
        for milli in [1, 250, 1_000, 1_500, 64_000] {
            assert_eq!(kubernetes_cpu_milli(&cpu(milli)), Ok(Some(milli)));
        }
        for ms in [0, 1, 1_500, 20_000, 300_000, 3_600_000, 5_400_000] {
            assert_eq!(duration_ms(&duration(ms)), Ok(ms));
        }
        assert_eq!(bytes(512 << 20), "512Mi");
        assert_eq!((seconds(0), seconds(1_001)), (1, 2));
    }

    #[test]
    fn the_kubelet_leaves_texts_as_they_are() {
        let none = Variables::new();
        for text in [
            "$HOME", "$(HOME)", "$$", "$$(x)", "$$$a", "a$", "${X}", "$$$$", "",
        ] {
            let read = word(&literal(text), &none);
            assert_eq!(read.as_deref(), Ok(text), "{}", literal(text));
        }
        assert_eq!(literal("$HOME"), "$HOME");
    }
}
