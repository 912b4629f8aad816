//! Response heads: read, judged, and written anew for the client.

use std::mem::MaybeUninit;

use super::head::{
    ConnectionOptions, Kind, Lines, MAX_HEADERS, Room, content_length, is_named, items, kind, span,
};
use super::{Framing, Refusal};

/// What each response begins with; what this sends does too.
const STATUS_LINE: &[u8] = b"HTTP/1.";

/// What the request settled for its response.
#[derive(Debug, Clone, Copy)]
pub struct Terms {
    /// It was a `HEAD`: no body, whatever the headers say.
    pub head: bool,
    /// The client speaks HTTP/1.0: no chunks, no 1xx.
    pub http10: bool,
    /// The connection to the client is to stay open.
    pub keep_alive: bool,
    /// The request asked for another protocol: 101 is an answer.
    pub upgrade: bool,
}

/// What is to be known of a response to pass it on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResponseHead {
    /// The status code.
    pub status: u16,
    /// Its body.
    pub body: Framing,
    /// The upstream will take another request on this connection.
    pub reusable: bool,
    /// How long the upstream keeps it open, if it said so, in seconds.
    pub keep_alive_s: Option<u64>,
    /// The client connection may stay open after this response.
    pub keep_alive: bool,
    /// Chunks are to be taken off for an HTTP/1.0 client.
    pub unchunk: bool,
    /// The head may go to the client as it came; nothing was written to `out`.
    pub verbatim: bool,
}

/// Reads `head`, which [`super::HeadFinder`] cut, and appends what the client is to be sent to `out`,
/// unless that is `head` itself (see [`ResponseHead::verbatim`]).
///
/// # Errors
/// What breaks RFC 9112 or could be read in two ways, and a 101 that was not asked for.
pub fn parse_response(
    head: &[u8],
    terms: Terms,
    out: &mut Vec<u8>,
) -> Result<ResponseHead, Refusal> {
    if !head.starts_with(STATUS_LINE) {
        return Err(Refusal::Malformed("it does not begin with a status line"));
    }
    let mut room: Room<'_> = [const { MaybeUninit::uninit() }; MAX_HEADERS];
    let mut response = httparse::Response::new(&mut []);
    let parsed = httparse::ParserConfig::default().parse_response_with_uninit_headers(
        &mut response,
        head,
        &mut room,
    );
    match parsed {
        Ok(httparse::Status::Complete(len)) if len == head.len() => {}
        Ok(_) => return Err(Refusal::Malformed("the head is not well formed")),
        Err(httparse::Error::TooManyHeaders) => return Err(Refusal::TooLarge),
        Err(httparse::Error::Version) => return Err(Refusal::Version),
        Err(_) => return Err(Refusal::Malformed("the head is not well formed")),
    }
    let (Some(status), Some(minor)) = (response.code, response.version) else {
        return Err(Refusal::Malformed("the head is not well formed"));
    };
    let facts = Facts::of(response.headers)?;
    if status < 100 || (status == 101 && !terms.upgrade) {
        return Err(Refusal::Malformed("the status code was not asked for"));
    }
    let body = facts.body(status, minor, terms.head)?;
    let unchunk = terms.http10 && matches!(body, Framing::Chunked(_));
    let interim = status < 200;
    let keep_alive = terms.keep_alive && !unchunk && !body.ends_by_close();
    let connection: &[u8] = match status {
        101 => b"Connection: Upgrade\r\n",
        _ if interim => b"",
        _ if !keep_alive => b"Connection: close\r\n",
        _ if terms.http10 => b"Connection: keep-alive\r\n",
        _ => b"",
    };
    let verbatim = minor == 1 && !facts.drops && !unchunk && connection.is_empty();
    if !verbatim {
        out.reserve(head.len() + 64);
        out.extend_from_slice(STATUS_LINE);
        out.push(b'1');
        let end = head.len() - 2;
        let start = |at: usize| {
            response
                .headers
                .get(at)
                .map_or(end, |h| span(head, h.name.as_bytes()).start)
        };
        let mut lines = Lines::new(head, STATUS_LINE.len() + 1);
        for (at, header) in response.headers.iter().enumerate() {
            if !keeps(header, response.headers, &facts, unchunk, status) {
                lines.skip(start(at)..start(at + 1), out);
            }
        }
        lines.finish(end, out);
        out.extend_from_slice(connection);
        out.extend_from_slice(b"\r\n");
    }
    Ok(ResponseHead {
        status,
        reusable: !body.ends_by_close()
            && !facts.connection.close
            && (minor == 1 || facts.connection.keep_alive),
        body,
        keep_alive_s: facts.keep_alive_s,
        keep_alive,
        unchunk,
        verbatim,
    })
}

/// Reads a `head` in which lines end with a line feed alone, and appends it to `out` with CRLF at the end of each line,
/// rewritten as [`parse_response`] does: the client is sent nothing that could be read in two ways.
///
/// # Errors
/// As [`parse_response`].
pub fn parse_bare_response(
    head: &[u8],
    terms: Terms,
    out: &mut Vec<u8>,
) -> Result<ResponseHead, Refusal> {
    let mut whole = Vec::with_capacity(head.len() + MAX_HEADERS + 2);
    for line in head.split_inclusive(|byte| *byte == b'\n') {
        let line = line.strip_suffix(b"\n").unwrap_or(line);
        whole.extend_from_slice(line.strip_suffix(b"\r").unwrap_or(line));
        whole.extend_from_slice(b"\r\n");
    }
    let mut parsed = parse_response(&whole, terms, out)?;
    if std::mem::take(&mut parsed.verbatim) {
        out.extend_from_slice(&whole);
    }
    Ok(parsed)
}

/// What the headers say, taken together.
#[derive(Debug)]
struct Facts {
    connection: ConnectionOptions,
    length: Option<u64>,
    chunked: bool,
    keep_alive_s: Option<u64>,
    /// Some header is to be left out.
    drops: bool,
}

impl Facts {
    fn of(headers: &[httparse::Header<'_>]) -> Result<Self, Refusal> {
        let mut facts = Self {
            connection: ConnectionOptions::default(),
            length: None,
            chunked: false,
            keep_alive_s: None,
            drops: false,
        };
        for header in headers {
            match kind(header.name.as_bytes()) {
                Kind::EndToEnd | Kind::Expect | Kind::Accept | Kind::Host | Kind::ForwardedFor => {}
                Kind::Upgrade => facts.drops = true,
                Kind::Dropped => {
                    facts.drops = true;
                    if header.name.eq_ignore_ascii_case("keep-alive") {
                        facts.keep_alive_s = timeout_s(header.value);
                    }
                }
                Kind::Connection => {
                    facts.drops = true;
                    facts.connection.add(header.value);
                }
                Kind::ContentLength => {
                    if facts
                        .length
                        .replace(content_length(header.value)?)
                        .is_some()
                    {
                        return Err(Refusal::Malformed("there are two Content-Length headers"));
                    }
                }
                Kind::TransferEncoding => {
                    if facts.chunked || !header.value.eq_ignore_ascii_case(b"chunked") {
                        return Err(Refusal::Malformed(
                            "no Transfer-Encoding but chunked is taken",
                        ));
                    }
                    facts.chunked = true;
                }
            }
        }
        if facts.chunked && facts.length.is_some() {
            return Err(Refusal::Malformed("Transfer-Encoding with Content-Length"));
        }
        Ok(facts)
    }

    /// How the body is framed (RFC 9112, section 6.3).
    fn body(&self, status: u16, minor: u8, head: bool) -> Result<Framing, Refusal> {
        if head || status < 200 || status == 204 || status == 304 {
            return Ok(Framing::NONE);
        }
        if self.chunked && minor == 0 {
            return Err(Refusal::Malformed(
                "Transfer-Encoding in an HTTP/1.0 response",
            ));
        }
        Ok(match (self.chunked, self.length) {
            (true, _) => Framing::chunked(),
            (false, Some(length)) => Framing::Length(length),
            (false, None) => Framing::UntilClose,
        })
    }
}

fn keeps(
    header: &httparse::Header<'_>,
    headers: &[httparse::Header<'_>],
    facts: &Facts,
    unchunk: bool,
    status: u16,
) -> bool {
    match kind(header.name.as_bytes()) {
        Kind::Connection | Kind::Dropped => return false,
        Kind::TransferEncoding => return !unchunk,
        Kind::Upgrade => return status == 101,
        Kind::ContentLength => return true,
        Kind::EndToEnd | Kind::Expect | Kind::Accept | Kind::Host | Kind::ForwardedFor => {}
    }
    !(facts.connection.names_headers && is_named(headers, header.name))
}

/// The timeout in a `Keep-Alive` header.
fn timeout_s(value: &[u8]) -> Option<u64> {
    items(value).find_map(|item| {
        let number = item.strip_prefix(b"timeout=")?;
        std::str::from_utf8(number).ok()?.parse().ok()
    })
}
