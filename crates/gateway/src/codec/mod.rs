//! HTTP/1.1 as a pure codec: bytes in, facts and rewritten heads out (RFC 9112). No IO, no clock.
//!
//! What could be read in two ways is refused: a proxy that guesses is how requests are smuggled.

mod body;
mod fields;
mod head;
mod request;
mod response;

pub use body::{Framing, Piece};
pub use fields::{has_cookie, has_header};
pub use head::{HeadFinder, MAX_HEAD_BYTES, MAX_HEADERS};
pub use request::{Hop, Method, RequestHead, parse_request};
pub use response::{ResponseHead, Terms, parse_bare_response, parse_response};

/// Why a message is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// It breaks RFC 9112, or could be read in two ways.
    #[error("{0}")]
    Malformed(&'static str),
    /// The head is over [`MAX_HEAD_BYTES`], or has more than [`MAX_HEADERS`] headers.
    #[error("the head is too large: at most 64 KiB and 100 headers are taken")]
    TooLarge,
    /// Neither HTTP/1.0 nor HTTP/1.1.
    #[error("only HTTP/1.0 and HTTP/1.1 are spoken here")]
    Version,
    /// Well formed, but not done here.
    #[error("{0}")]
    NotImplemented(&'static str),
}

impl Refusal {
    /// The status code to answer a request with that was refused so.
    pub fn status(self) -> u16 {
        match self {
            Self::Malformed(_) => 400,
            Self::TooLarge => 431,
            Self::NotImplemented(_) => 501,
            Self::Version => 505,
        }
    }
}
