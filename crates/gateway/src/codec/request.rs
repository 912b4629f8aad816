//! Request heads: read, judged, and written anew for the upstream.

use std::mem::MaybeUninit;
use std::ops::Range;

use super::head::{
    ConnectionOptions, Kind, Lines, MAX_HEADERS, Room, content_length, is_named, kind, span,
};
use super::{Framing, Refusal};

/// What a proxy needs to know of a method (RFC 9110, section 9).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Method {
    /// `GET`.
    Get,
    /// `HEAD`: the answer has no body, whatever its headers say.
    Head,
    /// Another method that has no effect: `OPTIONS`, `TRACE`.
    Safe,
    /// Another method that may be repeated without further effect: `PUT`, `DELETE`.
    Idempotent,
    /// Any other method: may be sent only once.
    Other,
}

impl Method {
    /// Whether a request with it may be sent again when its fate is unknown (RFC 9110, section 9.2.2).
    pub fn is_idempotent(self) -> bool {
        match self {
            Self::Get | Self::Head | Self::Safe | Self::Idempotent => true,
            Self::Other => false,
        }
    }

    /// Whether a request with it only reads (RFC 9110, section 9.2.1).
    pub fn is_safe(self) -> bool {
        match self {
            Self::Get | Self::Head | Self::Safe => true,
            Self::Idempotent | Self::Other => false,
        }
    }
}

/// What the hop from the client adds to a request.
#[derive(Debug, Clone, Copy)]
pub struct Hop<'a> {
    /// The client's address, for `X-Forwarded-For`.
    pub client: &'a str,
    /// The `Host` to send when the request bears none (HTTP/1.0): the address it came in by.
    pub host: &'a str,
}

/// What is to be known of a request to route and forward it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestHead {
    /// The method.
    pub method: Method,
    /// The host it is for, port included, as a range of the *rewritten* head; `None`: it named none.
    pub host: Option<Range<usize>>,
    /// Its body.
    pub body: Framing,
    /// The client speaks HTTP/1.0.
    pub http10: bool,
    /// The client will send another request on this connection.
    pub keep_alive: bool,
    /// The client asks to speak another protocol from here on.
    pub upgrade: bool,
    /// The client prefers JSON to text, for answers of the gateway itself.
    pub wants_json: bool,
}

/// Reads `head`, which [`super::HeadFinder`] cut, and appends what the upstream is to be sent to `out`.
///
/// Headers of this hop are left out, `X-Forwarded-For` (appended to), `-Proto` and `-Host` put in.
///
/// # Errors
/// What breaks RFC 9112 or could be read in two ways, and `CONNECT`. `out` is then of no use.
pub fn parse_request(head: &[u8], hop: Hop<'_>, out: &mut Vec<u8>) -> Result<RequestHead, Refusal> {
    let mut room: Room<'_> = [const { MaybeUninit::uninit() }; MAX_HEADERS];
    let mut request = httparse::Request::new(&mut []);
    match request.parse_with_uninit_headers(head, &mut room) {
        Ok(httparse::Status::Complete(len)) if len == head.len() => {}
        Ok(_) => return Err(Refusal::Malformed("the head is not well formed")),
        Err(httparse::Error::TooManyHeaders) => return Err(Refusal::TooLarge),
        Err(httparse::Error::Version) if names_a_version(head) => return Err(Refusal::Version),
        Err(_) => return Err(Refusal::Malformed("the head is not well formed")),
    }
    let (Some(verb), Some(target), Some(minor)) = (request.method, request.path, request.version)
    else {
        return Err(Refusal::Malformed("the head is not well formed"));
    };
    let facts = Facts::of(request.headers, minor == 0)?;
    let (authority, path) = split_target(verb, target)?;
    let host = match (authority, facts.host) {
        (_, None) if minor != 0 => return Err(Refusal::Malformed("there is no Host header")),
        (Some(authority), _) => Some(authority.as_bytes()),
        (None, host) => host,
    };
    if let Some(host) = host {
        check_host(host)?;
    }

    out.reserve(head.len() + 256);
    out.extend_from_slice(verb.as_bytes());
    out.push(b' ');
    if !path.starts_with('/') && path != "*" {
        out.push(b'/'); // "http://host?query" has an empty path
    }
    out.extend_from_slice(path.as_bytes());
    out.extend_from_slice(b" HTTP/1.1\r\n");
    copy_headers(head, request.headers, &facts, authority.is_some(), out);
    if facts.upgrade {
        out.extend_from_slice(b"Connection: Upgrade\r\n");
    }
    if authority.is_some() || facts.host.is_none() {
        out.extend_from_slice(b"Host: ");
        out.extend_from_slice(host.unwrap_or(hop.host.as_bytes()));
        out.extend_from_slice(b"\r\n");
    }
    let host = forwarded(request.headers, &facts, hop, host, out);
    out.extend_from_slice(b"\r\n");

    Ok(RequestHead {
        method: method(verb),
        host,
        body: facts.body,
        http10: minor == 0,
        keep_alive: !facts.connection.close && (minor != 0 || facts.connection.keep_alive),
        upgrade: facts.upgrade,
        wants_json: facts.wants_json,
    })
}

/// Whether the request line is three words, of which the last is a version of HTTP.
fn names_a_version(head: &[u8]) -> bool {
    let line = head.trim_ascii_start().split(|b| *b == b'\r').next();
    let mut words = line.unwrap_or_default().split(|b| *b == b' ').skip(2);
    words
        .next()
        .is_some_and(|version| version.starts_with(b"HTTP/"))
        && words.next().is_none()
}

fn method(verb: &str) -> Method {
    match verb {
        "GET" => Method::Get,
        "HEAD" => Method::Head,
        "OPTIONS" | "TRACE" => Method::Safe,
        "PUT" | "DELETE" => Method::Idempotent,
        _ => Method::Other,
    }
}

/// The authority (of the absolute form) and the path with its query (RFC 9112, section 3.2).
fn split_target<'a>(verb: &str, target: &'a str) -> Result<(Option<&'a str>, &'a str), Refusal> {
    if verb == "CONNECT" {
        return Err(Refusal::NotImplemented("CONNECT is not done here"));
    }
    if target.starts_with('/') || (target == "*" && verb == "OPTIONS") {
        return Ok((None, target));
    }
    let scheme = target.get(..7).unwrap_or_default();
    if !scheme.eq_ignore_ascii_case("http://") {
        return Err(Refusal::Malformed(
            "the target is neither a path nor an http:// address",
        ));
    }
    let rest = &target[7..];
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    Ok((Some(&rest[..end]), &rest[end..]))
}

/// Host names, addresses and a port; above all nothing that would mean more elsewhere.
fn check_host(host: &[u8]) -> Result<(), Refusal> {
    let good = |b: &u8| b.is_ascii_alphanumeric() || b"-._~:[]%".contains(b);
    if host.is_empty() || host.len() > 255 || !host.iter().all(good) {
        return Err(Refusal::Malformed("the Host is not a host name"));
    }
    Ok(())
}

/// What the headers say, taken together.
#[derive(Debug)]
struct Facts<'b> {
    connection: ConnectionOptions,
    host: Option<&'b [u8]>,
    body: Framing,
    upgrade: bool,
    wants_json: bool,
    forwarded_for: bool,
    http10: bool,
}

impl<'b> Facts<'b> {
    fn of(headers: &[httparse::Header<'b>], http10: bool) -> Result<Self, Refusal> {
        let mut connection = ConnectionOptions::default();
        let (mut host, mut length, mut chunked) = (None, None, false);
        let (mut upgrade, mut wants_json, mut forwarded_for) = (false, false, false);
        for header in headers {
            match kind(header.name.as_bytes()) {
                Kind::EndToEnd | Kind::Dropped | Kind::Expect => {}
                Kind::Connection => connection.add(header.value),
                Kind::ContentLength => {
                    if length.replace(content_length(header.value)?).is_some() {
                        return Err(Refusal::Malformed("there are two Content-Length headers"));
                    }
                }
                Kind::TransferEncoding => {
                    if std::mem::replace(&mut chunked, true) {
                        return Err(Refusal::Malformed(
                            "there are two Transfer-Encoding headers",
                        ));
                    }
                    if !header.value.eq_ignore_ascii_case(b"chunked") {
                        return Err(Refusal::NotImplemented(
                            "no Transfer-Encoding but chunked is taken",
                        ));
                    }
                }
                Kind::Host => {
                    if host.replace(header.value).is_some() {
                        return Err(Refusal::Malformed("there are two Host headers"));
                    }
                }
                // HTTP/2 is not passed through: its frames would be requests that are not looked at.
                Kind::Upgrade => upgrade |= !header.value.eq_ignore_ascii_case(b"h2c"),
                Kind::Accept => wants_json |= prefers_json(header.value),
                Kind::ForwardedFor => forwarded_for = true,
            }
        }
        if chunked && (length.is_some() || http10) {
            return Err(Refusal::Malformed(
                "Transfer-Encoding with Content-Length, or from an HTTP/1.0 client",
            ));
        }
        let body = match (chunked, length) {
            (true, _) => Framing::chunked(),
            (false, length) => Framing::Length(length.unwrap_or(0)),
        };
        Ok(Self {
            upgrade: upgrade && connection.upgrade && !http10,
            connection,
            host,
            body,
            wants_json,
            forwarded_for,
            http10,
        })
    }

    /// Whether the header goes on to the upstream. What frames the body, and Host, go on even if
    /// `Connection` names them: to drop those would change what the request means.
    fn keeps(&self, header: &httparse::Header<'_>, headers: &[httparse::Header<'_>]) -> bool {
        let kept = match kind(header.name.as_bytes()) {
            Kind::Host | Kind::ContentLength | Kind::TransferEncoding => return true,
            Kind::Connection | Kind::Dropped | Kind::ForwardedFor => return false,
            Kind::Upgrade => return self.upgrade,
            Kind::Expect => !self.http10,
            Kind::Accept | Kind::EndToEnd => true,
        };
        kept && !(self.connection.names_headers && is_named(headers, header.name))
    }
}

/// Whether JSON is asked for, and a page is not.
fn prefers_json(accept: &[u8]) -> bool {
    let has = |what: &[u8]| memchr::memmem::find(accept, what).is_some();
    has(b"application/json") && !has(b"text/html")
}

fn copy_headers(
    head: &[u8],
    headers: &[httparse::Header<'_>],
    facts: &Facts<'_>,
    other_host: bool,
    out: &mut Vec<u8>,
) {
    let end = head.len() - 2;
    let start = |at: usize| {
        headers.get(at).map_or(end, |h: &httparse::Header<'_>| {
            span(head, h.name.as_bytes()).start
        })
    };
    let mut lines = Lines::new(head, start(0));
    for (at, header) in headers.iter().enumerate() {
        let replaced = other_host && kind(header.name.as_bytes()) == Kind::Host;
        if replaced || !facts.keeps(header, headers) {
            lines.skip(start(at)..start(at + 1), out);
        }
    }
    lines.finish(end, out);
}

/// Appends the `X-Forwarded-*` headers; returns where the host stands in `out`.
fn forwarded(
    headers: &[httparse::Header<'_>],
    facts: &Facts<'_>,
    hop: Hop<'_>,
    host: Option<&[u8]>,
    out: &mut Vec<u8>,
) -> Option<Range<usize>> {
    out.extend_from_slice(b"X-Forwarded-For: ");
    if facts.forwarded_for {
        let earlier = |h: &&httparse::Header<'_>| kind(h.name.as_bytes()) == Kind::ForwardedFor;
        for header in headers.iter().filter(earlier) {
            out.extend_from_slice(header.value);
            out.extend_from_slice(b", ");
        }
    }
    out.extend_from_slice(hop.client.as_bytes());
    out.extend_from_slice(b"\r\nX-Forwarded-Proto: http\r\nX-Forwarded-Host: ");
    let start = out.len();
    out.extend_from_slice(host.unwrap_or(hop.host.as_bytes()));
    let range = start..out.len();
    out.extend_from_slice(b"\r\n");
    host.map(|_| range)
}
