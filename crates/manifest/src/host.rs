//! Names and addresses of hosts, as they go into `/etc/hosts` and resolv.conf(5).

use std::net::IpAddr;

use crate::fields::Expected;

/// What stands for the machine's own address.
pub(crate) const GATEWAY: &str = "host-gateway";

/// A host's name (RFC 1123, section 2.1): labels with points, 253 characters at most.
pub(crate) fn hostname(text: &str) -> Result<String, Expected> {
    let is_label = |label: &str| {
        (1..=63).contains(&label.len())
            && label
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    if text.len() <= 253 && text.split('.').all(is_label) {
        Ok(text.to_owned())
    } else {
        Err("a host name (labels of a-z, 0-9 and '-', with points between them)".to_owned())
    }
}

/// What the host itself is called: as [`hostname`], and 64 characters at most (sethostname(2)).
pub(crate) fn own_hostname(text: &str) -> Result<String, Expected> {
    const MAX_CHARS: usize = 64;
    if text.len() > MAX_CHARS {
        return Err(format!("a host name of at most {MAX_CHARS} characters"));
    }
    hostname(text)
}

/// A domain to search names in: as [`hostname`], or `.`, which is none.
pub(crate) fn search(text: &str) -> Result<String, Expected> {
    if text == "." {
        return Ok(text.to_owned());
    }
    hostname(text.strip_suffix('.').unwrap_or(text))
}

/// An IP address, in brackets or not.
pub(crate) fn address(text: &str) -> Result<String, Expected> {
    ip(text).map(|address| address.to_string())
}

/// The same as what it means.
pub(crate) fn ip(text: &str) -> Result<IpAddr, Expected> {
    let bare = text
        .strip_prefix('[')
        .and_then(|text| text.strip_suffix(']'))
        .unwrap_or(text);
    let address = bare.parse();
    address.map_err(|_| "an IP address such as 192.0.2.1".to_owned())
}

/// An IP address, or `host-gateway`.
pub(crate) fn address_or_gateway(text: &str) -> Result<String, Expected> {
    if text == GATEWAY {
        return Ok(text.to_owned());
    }
    address(text).map_err(|expected| format!("{expected}, or {GATEWAY}"))
}

/// A word of `options` in resolv.conf(5).
pub(crate) fn resolver_option(text: &str) -> Result<String, Expected> {
    let is_word = |c: char| c.is_ascii_alphanumeric() || "-_:.".contains(c);
    if !text.is_empty() && text.chars().all(is_word) {
        Ok(text.to_owned())
    } else {
        Err("an option of resolv.conf such as ndots:2".to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_addresses_are_told_from_what_would_break_a_file() {
        for good in ["a", "a.b-c", "Host_1.example.com"] {
            assert!(hostname(good).is_ok(), "{good}");
        }
        for bad in ["", "-a", "a..b", "a b", "a\nb", &"a.".repeat(200)] {
            assert!(hostname(bad).is_err(), "{bad}");
        }
        assert!(own_hostname(&"a".repeat(65)).is_err());
        assert_eq!(address("[::1]").as_deref(), Ok("::1"));
        assert!(address("localhost").is_err());
        assert_eq!(
            address_or_gateway("host-gateway").as_deref(),
            Ok("host-gateway")
        );
        assert_eq!(search("example.org.").as_deref(), Ok("example.org"));
        assert!(resolver_option("ndots:2").is_ok());
        assert!(resolver_option("ndots 2").is_err());
    }
}
