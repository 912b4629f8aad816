//! Devices by the Container Device Interface: `vendor.com/class=name` (CNCF CDI, "SPEC.md").

use crate::fields::Expected;

/// The most devices that one line may ask for by their number.
pub(crate) const MAX_COUNT: u64 = 64;

/// The kind of the devices that a driver of `docker run --gpus` stands for.
pub(crate) fn kind_of_driver(driver: &str) -> Result<String, Expected> {
    match driver {
        "" | "nvidia" => Ok("nvidia.com/gpu".to_owned()),
        "amd" => Ok("amd.com/gpu".to_owned()),
        "intel" => Ok("intel.com/gpu".to_owned()),
        kind if is_kind(kind) => Ok(kind.to_owned()),
        _ => {
            Err("nvidia, amd, intel, cdi, or a kind of devices such as vendor.com/class".to_owned())
        }
    }
}

/// The first `count` devices of a kind; `None`: all.
pub(crate) fn first(kind: &str, count: Option<u64>) -> Vec<String> {
    match count {
        None => vec![format!("{kind}=all")],
        Some(count) => (0..count).map(|n| format!("{kind}={n}")).collect(),
    }
}

/// A device's full name.
pub(crate) fn cdi(text: &str) -> Result<String, Expected> {
    let is_full = text
        .split_once('=')
        .is_some_and(|(kind, name)| is_kind(kind) && is_name(name));
    if is_full {
        Ok(text.to_owned())
    } else {
        Err("a device such as vendor.com/class=name".to_owned())
    }
}

/// A device of a kind.
pub(crate) fn of_kind(kind: &str, name: &str) -> Result<String, Expected> {
    if is_name(name) {
        Ok(format!("{kind}={name}"))
    } else {
        Err("the name of a device, such as 0 or all".to_owned())
    }
}

/// Whether `text` is `vendor.com/class`.
pub(crate) fn is_kind(text: &str) -> bool {
    let is_part = |part: &str, also: &str| {
        part.starts_with(|c: char| c.is_ascii_alphanumeric())
            && part.ends_with(|c: char| c.is_ascii_alphanumeric())
            && part
                .chars()
                .all(|c| c.is_ascii_alphanumeric() || also.contains(c))
    };
    text.split_once('/')
        .is_some_and(|(vendor, class)| is_part(vendor, "-_.") && is_part(class, "-_"))
}

fn is_name(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_alphanumeric())
        && text
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || "-_.:".contains(c))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_has_a_vendor_a_class_and_a_name() {
        for good in ["nvidia.com/gpu=all", "a.b/c-d=0", "vendor.com/net=eth0:1"] {
            assert_eq!(cdi(good).as_deref(), Ok(good));
        }
        for bad in [
            "gpu",
            "nvidia.com/gpu",
            "nvidia.com/gpu=",
            "/dev/x=y",
            "a/b/c=d",
        ] {
            assert!(cdi(bad).is_err(), "{bad}");
        }
        assert_eq!(first("v/c", None), ["v/c=all"]);
        assert_eq!(first("v/c", Some(2)), ["v/c=0", "v/c=1"]);
        assert_eq!(kind_of_driver("amd").as_deref(), Ok("amd.com/gpu"));
        assert!(kind_of_driver("gpu").is_err());
    }
}
