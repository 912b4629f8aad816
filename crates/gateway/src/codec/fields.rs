//! Looks for one header or one cookie in a request's head. Only requests to a service that chooses by them pay for it.

/// Whether the head that `bytes` begin with has a header called `name`, with exactly this value if one is given.
pub fn has_header(bytes: &[u8], name: &str, value: Option<&str>) -> bool {
    values(bytes, name).any(|found| value.is_none_or(|value| found == value.as_bytes()))
}

/// Whether it has a cookie called `name`, with exactly this value if one is given (RFC 6265, section 5.4: pairs apart
/// by `;`, the name up to the first `=`, and quotes belong to the value).
///
/// Browsers send one `Cookie` header; where there are several, all count.
pub fn has_cookie(bytes: &[u8], name: &str, value: Option<&str>) -> bool {
    let pairs = values(bytes, "cookie").flat_map(|cookies| cookies.split(|b| *b == b';'));
    let mut named = pairs.filter_map(|pair| {
        let at = memchr::memchr(b'=', pair)?;
        (pair[..at].trim_ascii() == name.as_bytes()).then(|| pair[at + 1..].trim_ascii())
    });
    named.any(|found| value.is_none_or(|value| found == value.as_bytes()))
}

/// The values of all headers called `name`, up to the empty line.
fn values<'b>(bytes: &'b [u8], name: &str) -> impl Iterator<Item = &'b [u8]> {
    let mut rest = bytes;
    let lines = std::iter::from_fn(move || {
        let end = memchr::memchr(b'\n', rest)?;
        let line = rest[..end].strip_suffix(b"\r").unwrap_or(&rest[..end]);
        rest = &rest[end + 1..];
        (!line.is_empty()).then_some(line)
    });
    lines.skip(1).filter_map(move |line| {
        let (key, value) = line.split_at_checked(name.len())?;
        let value = value.strip_prefix(b":")?;
        (key.eq_ignore_ascii_case(name.as_bytes())).then(|| value.trim_ascii())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: &[u8] = b"GET /x-beta: 1 HTTP/1.1\r\nHost: a\r\nX-Beta:  yes \r\nx-beta-2: no\r\n\
        cookie: a=1; beta=on;c = \"d\" ; =e; f\r\nCookie: late=x=y\r\n\r\nX-Body: 1\r\nCookie: body=1\r\n\r\n";

    #[test]
    fn headers_are_found_by_name_in_any_case_and_by_their_exact_value() {
        assert!(has_header(HEAD, "X-BETA", None));
        assert!(has_header(HEAD, "x-beta", Some("yes")));
        assert!(!has_header(HEAD, "x-beta", Some("Yes")));
        assert!(!has_header(HEAD, "x-beta", Some("ye")));
        assert!(!has_header(HEAD, "x-bet", None) && !has_header(HEAD, "GET /x-beta", None));
        assert!(!has_header(HEAD, "X-Body", None), "that is no header");
        assert!(!has_header(b"", "a", None) && !has_header(b"GET / HTTP/1.1\r\nx", "x", None));
    }

    #[test]
    fn cookies_are_found_as_browsers_send_them() {
        for (name, value) in [("a", "1"), ("beta", "on"), ("c", "\"d\""), ("late", "x=y")] {
            assert!(has_cookie(HEAD, name, None), "{name}");
            assert!(has_cookie(HEAD, name, Some(value)), "{name}");
            assert!(!has_cookie(HEAD, name, Some("other")), "{name}");
        }
        for name in ["Beta", "bet", "f", "e", "body", "x"] {
            assert!(!has_cookie(HEAD, name, None), "{name}");
        }
    }
}
