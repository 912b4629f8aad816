//! Where a body ends (RFC 9112, sections 6 and 7). Bodies are passed on as they are framed.

use super::Refusal;

/// The longest chunk-size line, and the longest trailer section, that is taken.
const MAX_LINE_BYTES: u32 = 4096;
const MAX_TRAILER_BYTES: u32 = 16 * 1024;

/// How a body is framed, and how much of it is still to come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Framing {
    /// So many bytes are left; none: there is no (more) body.
    Length(u64),
    /// Chunks, then trailers.
    Chunked(Chunks),
    /// All until the peer closes; only in responses.
    UntilClose,
}

/// A run of bytes of a body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Piece {
    /// How many bytes.
    pub len: usize,
    /// Whether they are content, not framing.
    pub content: bool,
}

/// Where in a chunked body the next byte stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum At {
    /// In a chunk's size; whether a digit was seen.
    Size(bool),
    /// In a chunk's extensions, which are passed on and mean nothing here.
    Extension,
    SizeLf,
    Content,
    ContentCr,
    ContentLf,
    TrailerStart,
    TrailerName,
    TrailerValue,
    TrailerLf,
    EndLf,
    End,
}

/// A chunked body, part of the way through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Chunks {
    at: At,
    /// Bytes left of this chunk.
    left: u64,
    /// Bytes seen of this line, or of the trailers.
    line: u32,
}

impl Framing {
    /// No body.
    pub const NONE: Self = Self::Length(0);

    /// A chunked body, of which nothing was seen yet.
    pub fn chunked() -> Self {
        Self::Chunked(Chunks {
            at: At::Size(false),
            left: 0,
            line: 0,
        })
    }

    /// Whether all of it was taken.
    pub fn is_done(&self) -> bool {
        match self {
            Self::Length(left) => *left == 0,
            Self::Chunked(chunks) => chunks.at == At::End,
            Self::UntilClose => false,
        }
    }

    /// Whether it ends when the peer closes.
    pub fn ends_by_close(&self) -> bool {
        matches!(self, Self::UntilClose)
    }

    /// How many bytes at the front of `bytes` belong to this body; what follows is another message.
    ///
    /// # Errors
    /// Chunks that are not well formed.
    pub fn take(&mut self, bytes: &[u8]) -> Result<usize, Refusal> {
        let mut taken = 0;
        while taken < bytes.len() && !self.is_done() {
            taken += self.take_piece(&bytes[taken..])?.len;
        }
        Ok(taken)
    }

    /// The first run of bytes in `bytes`, either all content or all framing; empty when the body is done.
    ///
    /// # Errors
    /// Chunks that are not well formed.
    pub fn take_piece(&mut self, bytes: &[u8]) -> Result<Piece, Refusal> {
        match self {
            Self::Length(left) => {
                let len = usize::try_from(*left).map_or(bytes.len(), |left| left.min(bytes.len()));
                *left -= len as u64;
                Ok(Piece { len, content: true })
            }
            Self::UntilClose => Ok(Piece {
                len: bytes.len(),
                content: true,
            }),
            Self::Chunked(chunks) => chunks.take_piece(bytes),
        }
    }
}

impl Chunks {
    fn take_piece(&mut self, bytes: &[u8]) -> Result<Piece, Refusal> {
        if self.at == At::Content {
            let len = usize::try_from(self.left).map_or(bytes.len(), |left| left.min(bytes.len()));
            self.left -= len as u64;
            if self.left == 0 {
                self.at = At::ContentCr;
            }
            return Ok(Piece { len, content: true });
        }
        let mut len = 0;
        while len < bytes.len() && self.at != At::Content && self.at != At::End {
            self.step(bytes[len])?;
            len += 1;
        }
        Ok(Piece {
            len,
            content: false,
        })
    }

    /// Takes one byte of framing.
    fn step(&mut self, byte: u8) -> Result<(), Refusal> {
        self.line += 1;
        self.at = match (self.at, byte) {
            (At::Size(_), b'0'..=b'9' | b'a'..=b'f' | b'A'..=b'F') => {
                let digit = char::from(byte).to_digit(16).unwrap_or(0);
                if self.left >> 59 != 0 {
                    return Err(Refusal::Malformed("a chunk is too large"));
                }
                self.left = self.left << 4 | u64::from(digit);
                At::Size(true)
            }
            (At::Size(true) | At::Extension, b'\r') => At::SizeLf,
            (At::Size(true), b';' | b' ' | b'\t') => At::Extension,
            (At::Extension, b'\t' | 0x20..=0x7e | 0x80..) => At::Extension,
            (At::SizeLf, b'\n') => {
                self.line = 0;
                if self.left == 0 {
                    At::TrailerStart
                } else {
                    At::Content
                }
            }
            (At::ContentCr, b'\r') => At::ContentLf,
            (At::ContentLf, b'\n') => {
                self.line = 0;
                At::Size(false)
            }
            (At::TrailerStart, b'\r') => At::EndLf,
            (At::TrailerStart | At::TrailerName, byte) if is_token(byte) => At::TrailerName,
            (At::TrailerName, b':') => At::TrailerValue,
            (At::TrailerValue, b'\r') => At::TrailerLf,
            (At::TrailerValue, b'\t' | 0x20..=0x7e | 0x80..) => At::TrailerValue,
            (At::TrailerLf, b'\n') => At::TrailerStart,
            (At::EndLf, b'\n') => At::End,
            _ => return Err(Refusal::Malformed("the chunks are not well formed")),
        };
        let limit = match self.at {
            At::Size(_) | At::Extension => MAX_LINE_BYTES,
            _ => MAX_TRAILER_BYTES,
        };
        if self.line > limit {
            return Err(Refusal::Malformed(
                "a chunk line or the trailers are too long",
            ));
        }
        Ok(())
    }
}

/// Whether `byte` may stand in a header's name (RFC 9110, section 5.6.2).
fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}
