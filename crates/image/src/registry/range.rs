//! The `Range` of a request (RFC 9110, 14.2) and the `Content-Range` of a chunk (distribution-spec 1.1).

/// What a `Range` asks of a blob.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Asked {
    /// All of it: there is none, or one that is to be ignored (another unit, several ranges).
    All,
    /// From the first to the last byte, both included.
    Part(u64, u64),
    /// Bytes that there are none of.
    Nothing,
}

/// Reads a `Range` for a blob of this size.
pub(super) fn asked(header: Option<&str>, size_bytes: u64) -> Asked {
    let Some(range) = header.and_then(|text| text.trim().strip_prefix("bytes=")) else {
        return Asked::All;
    };
    let Some((first, last)) = range.split_once('-') else {
        return Asked::All;
    };
    let number = |text: &str| -> Option<Option<u64>> {
        match text.trim() {
            "" => Some(None),
            digits if digits.bytes().all(|b| b.is_ascii_digit()) => digits.parse().ok().map(Some),
            _ => None,
        }
    };
    let (Some(first), Some(last)) = (number(first), number(last)) else {
        return Asked::All;
    };
    let end = size_bytes.saturating_sub(1);
    let (first, last) = match (first, last) {
        (Some(first), last) => (first, last.unwrap_or(end).min(end)),
        (None, Some(0)) => return Asked::Nothing,
        (None, Some(suffix)) => (size_bytes.saturating_sub(suffix), end),
        (None, None) => return Asked::All,
    };
    if size_bytes == 0 || first > last {
        Asked::Nothing
    } else {
        Asked::Part(first, last)
    }
}

/// Reads the `Content-Range` of a chunk: `<first>-<last>`, as the specification has it, or as HTTP has it
/// (`bytes <first>-<last>/<size>`). `None`: it is neither.
pub(super) fn of_chunk(header: &str) -> Option<(u64, u64)> {
    let text = header.trim();
    let text = text.strip_prefix("bytes ").unwrap_or(text);
    let text = text.split_once('/').map_or(text, |(range, _)| range);
    let (first, last) = text.split_once('-')?;
    let (first, last) = (first.trim().parse().ok()?, last.trim().parse().ok()?);
    (first <= last).then_some((first, last))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_read_as_http_has_them() {
        for (text, asked_for) in [
            ("bytes=500-1499", Asked::Part(500, 1499)),
            ("bytes=500-", Asked::Part(500, 2047)),
            ("bytes=-500", Asked::Part(1548, 2047)),
            ("bytes=-5000", Asked::Part(0, 2047)),
            ("bytes=2000-5000", Asked::Part(2000, 2047)),
            ("bytes=500-0", Asked::Nothing),
            ("bytes=2048-", Asked::Nothing),
            ("bytes=-0", Asked::Nothing),
            ("bytes=1-2,4-5", Asked::All),
            ("bytes=-", Asked::All),
            ("bytes=x-2", Asked::All),
            ("items=1-2", Asked::All),
        ] {
            assert_eq!(asked(Some(text), 2048), asked_for, "{text}");
        }
        assert_eq!(asked(None, 1), Asked::All);
        assert_eq!(asked(Some("bytes=0-0"), 0), Asked::Nothing);
    }

    #[test]
    fn chunks_say_where_they_belong() {
        assert_eq!(of_chunk("0-9"), Some((0, 9)));
        assert_eq!(of_chunk("bytes 10-19/*"), Some((10, 19)));
        for bad in ["", "9-0", "0", "a-b", "-5", "5-"] {
            assert_eq!(of_chunk(bad), None, "{bad}");
        }
    }
}
