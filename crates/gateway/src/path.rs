//! Paths as they are compared: by what they mean, as nginx does it, and not by how they are written.

use std::borrow::Cow;

/// The path with its percent-encodings decoded, `.` and `..` resolved and slashes in a row made one (RFC 3986, sections 6.2.2 and
/// 5.2.4). Otherwise `/%61dmin`, `//admin` or `/x/../admin` would lead elsewhere than `/admin`, to a service that takes
/// them for it. Requests are passed on as they came.
pub(crate) fn normal(path: &str) -> Cow<'_, str> {
    let is_normal = !path.contains('%') && !path.contains("//") && !path.contains("/.");
    if is_normal || !path.starts_with('/') {
        return Cow::Borrowed(path);
    }
    let decoded = decoded(path.as_bytes());
    let mut parts: Vec<&[u8]> = Vec::new();
    let mut is_open = false;
    for part in decoded.split(|byte| *byte == b'/') {
        is_open = matches!(part, b"" | b"." | b"..");
        match part {
            b"" | b"." => {}
            b".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    let end = if is_open && !parts.is_empty() {
        "/"
    } else {
        ""
    };
    let whole = parts.join(&b'/');
    Cow::Owned(format!("/{}{end}", String::from_utf8_lossy(&whole)))
}

/// What is no percent-encoding stays as it is.
fn decoded(mut bytes: &[u8]) -> Vec<u8> {
    let digit = |byte: u8| char::from(byte).to_digit(16);
    let mut decoded = Vec::with_capacity(bytes.len());
    while let [first, rest @ ..] = bytes {
        bytes = rest;
        let byte = match (first, rest) {
            (b'%', [high, low, after @ ..]) => match (digit(*high), digit(*low)) {
                (Some(high), Some(low)) => {
                    bytes = after;
                    u8::try_from(high * 16 + low).unwrap_or(b'%')
                }
                (_, _) => b'%',
            },
            (byte, _) => *byte,
        };
        decoded.push(byte);
    }
    decoded
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_that_mean_the_same_are_the_same() {
        for (written, means) in [
            ("/", "/"),
            ("", ""),
            ("*", "*"),
            ("/admin/", "/admin/"),
            ("/.well-known/x", "/.well-known/x"),
            ("/..a/b...", "/..a/b..."),
            ("/%61dmin", "/admin"),
            ("/%61%64min%2Fx", "/admin/x"),
            ("/caf%C3%a9", "/caf\u{e9}"),
            ("/a%2561", "/a%61"),
            ("/%zz%4", "/%zz%4"),
            ("/100%", "/100%"),
            ("//admin///x//", "/admin/x/"),
            ("/./admin/.", "/admin/"),
            ("/x/../admin", "/admin"),
            ("/x/%2e%2E/admin", "/admin"),
            ("/a/b/..", "/a/"),
            ("/../..", "/"),
        ] {
            assert_eq!(normal(written), means, "{written}");
        }
        assert!(normal("/%ff").starts_with('/'));
    }
}
