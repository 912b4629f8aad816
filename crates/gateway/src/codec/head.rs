//! What request and response heads have in common: where they end, which headers concern one hop only.

use std::mem::MaybeUninit;
use std::ops::Range;

use super::Refusal;

/// The longest head that is taken.
pub const MAX_HEAD_BYTES: usize = 64 * 1024;
/// The most headers that are taken.
pub const MAX_HEADERS: usize = 100;
/// So many bytes of empty lines may stand before a request (RFC 9112, section 2.2, asks for one line).
const MAX_EMPTY_BYTES: usize = 16;

/// Finds the end of a head while its bytes arrive, looking at each byte once.
///
/// Lines of a request end with CRLF and nothing else: whoever takes less reads other requests than the next one on the
/// way. In a response a line feed alone is a line end too (RFC 9112, section 2.2, allows it; CGI scripts write it).
#[derive(Debug, Clone, Copy)]
pub struct HeadFinder {
    /// A line feed alone ends a line.
    takes_bare_lf: bool,
    /// One did.
    bare_lf: bool,
    /// Where the line begins that is looked at.
    line: usize,
    /// Up to where the bytes were looked at.
    seen: usize,
    /// Whether a line that is not empty was seen.
    begun: bool,
}

impl HeadFinder {
    /// For a request.
    pub fn request() -> Self {
        Self {
            takes_bare_lf: false,
            bare_lf: false,
            line: 0,
            seen: 0,
            begun: false,
        }
    }

    /// For a response.
    pub fn response() -> Self {
        Self {
            takes_bare_lf: true,
            ..Self::request()
        }
    }

    /// Whether a line ended with a line feed alone, so that the head is one for [`super::parse_bare_response`].
    pub fn has_bare_lf(&self) -> bool {
        self.bare_lf
    }

    /// The length of the head that `bytes` begins with, its empty line included; `None`: not there yet.
    ///
    /// `bytes` must begin with what it began with at the last call, and may have grown since.
    ///
    /// # Errors
    /// In a request a line feed without a carriage return before it; a head that is too large.
    pub fn find(&mut self, bytes: &[u8]) -> Result<Option<usize>, Refusal> {
        for at in memchr::memchr_iter(b'\n', &bytes[self.seen..]) {
            let lf = self.seen + at;
            let bare = lf == self.line || bytes[lf - 1] != b'\r';
            if bare && !self.takes_bare_lf {
                return Err(Refusal::Malformed("a line ends without a carriage return"));
            }
            self.bare_lf |= bare;
            let empty = lf - usize::from(!bare) == self.line;
            self.line = lf + 1;
            if !empty {
                self.begun = true;
            } else if self.begun {
                return if lf < MAX_HEAD_BYTES {
                    Ok(Some(lf + 1))
                } else {
                    Err(Refusal::TooLarge)
                };
            } else if self.line > MAX_EMPTY_BYTES {
                return Err(Refusal::Malformed(
                    "too many empty lines before the request",
                ));
            }
        }
        self.seen = bytes.len();
        if bytes.len() > MAX_HEAD_BYTES {
            return Err(Refusal::TooLarge);
        }
        Ok(None)
    }
}

/// Room for the headers of one head, not cleared before use: that would cost as much as parsing them.
pub(super) type Room<'b> = [MaybeUninit<httparse::Header<'b>>; MAX_HEADERS];

/// What a header means to a proxy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// Passed on as it is.
    EndToEnd,
    /// Left out: it concerns this hop only (RFC 9110, section 7.6.1), or is written anew.
    Dropped,
    Connection,
    ContentLength,
    Expect,
    Accept,
    ForwardedFor,
    Host,
    TransferEncoding,
    Upgrade,
}

/// What the header called `name` means.
pub(super) fn kind(name: &[u8]) -> Kind {
    let (known, kind): (&[u8], Kind) = match name.len() {
        2 => (b"te", Kind::Dropped),
        4 => (b"host", Kind::Host),
        6 if name[0] | 0x20 == b'e' => (b"expect", Kind::Expect),
        6 => (b"accept", Kind::Accept),
        7 => (b"upgrade", Kind::Upgrade),
        10 if name[0] | 0x20 == b'c' => (b"connection", Kind::Connection),
        10 => (b"keep-alive", Kind::Dropped),
        14 => (b"content-length", Kind::ContentLength),
        15 => (b"x-forwarded-for", Kind::ForwardedFor),
        16 if name[0] | 0x20 == b'x' => (b"x-forwarded-host", Kind::Dropped),
        16 => (b"proxy-connection", Kind::Dropped),
        17 if name[0] | 0x20 == b'x' => (b"x-forwarded-proto", Kind::Dropped),
        17 => (b"transfer-encoding", Kind::TransferEncoding),
        18 => (b"proxy-authenticate", Kind::Dropped),
        19 => (b"proxy-authorization", Kind::Dropped),
        _ => return Kind::EndToEnd,
    };
    if name.eq_ignore_ascii_case(known) {
        kind
    } else {
        Kind::EndToEnd
    }
}

/// The items of a comma-separated header value, trimmed, without empty ones (RFC 9110, section 5.6.1).
pub(super) fn items(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    value
        .split(|b| *b == b',')
        .map(<[u8]>::trim_ascii)
        .filter(|item| !item.is_empty())
}

/// What the `Connection` headers of a head say.
#[derive(Debug, Default)]
pub(super) struct ConnectionOptions {
    pub(super) close: bool,
    pub(super) keep_alive: bool,
    pub(super) upgrade: bool,
    /// It names headers that are to be left out too.
    pub(super) names_headers: bool,
}

impl ConnectionOptions {
    /// Adds what one `Connection` header says.
    pub(super) fn add(&mut self, value: &[u8]) {
        for item in items(value) {
            match item.len() {
                5 if item.eq_ignore_ascii_case(b"close") => self.close = true,
                10 if item.eq_ignore_ascii_case(b"keep-alive") => self.keep_alive = true,
                7 if item.eq_ignore_ascii_case(b"upgrade") => self.upgrade = true,
                _ => self.names_headers = true,
            }
        }
    }
}

/// Whether one of the `Connection` headers names `name`.
pub(super) fn is_named(headers: &[httparse::Header<'_>], name: &str) -> bool {
    headers
        .iter()
        .filter(|h| kind(h.name.as_bytes()) == Kind::Connection)
        .flat_map(|h| items(h.value))
        .any(|item| item.eq_ignore_ascii_case(name.as_bytes()))
}

/// Reads a `Content-Length` (RFC 9110, section 8.6): digits only, one value only.
pub(super) fn content_length(value: &[u8]) -> Result<u64, Refusal> {
    const WRONG: Refusal = Refusal::Malformed("Content-Length is not one whole number");
    if value.is_empty() || value.len() > 19 {
        return Err(WRONG);
    }
    value.iter().try_fold(0u64, |sum, b| match b {
        b'0'..=b'9' => Ok(sum * 10 + u64::from(b - b'0')),
        _ => Err(WRONG),
    })
}

/// Where `part`, a slice of `whole`, lies in it.
pub(super) fn span(whole: &[u8], part: &[u8]) -> Range<usize> {
    let start = part.as_ptr() as usize - whole.as_ptr() as usize;
    start..start + part.len()
}

/// Copies header lines to `out`, as few runs as possible: most heads lose one line or none.
pub(super) struct Lines<'b> {
    head: &'b [u8],
    run: Range<usize>,
}

impl<'b> Lines<'b> {
    /// Header lines of `head`, the first of which begins at `start`.
    pub(super) fn new(head: &'b [u8], start: usize) -> Self {
        Self {
            head,
            run: start..start,
        }
    }

    /// The line up to `end` is left out.
    pub(super) fn skip(&mut self, line: Range<usize>, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.head[self.run.start..line.start]);
        self.run = line.end..line.end;
    }

    /// Copies what is left, up to `end`.
    pub(super) fn finish(self, end: usize, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.head[self.run.start..end]);
    }
}
