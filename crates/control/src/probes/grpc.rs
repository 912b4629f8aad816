//! The gRPC health check: one call of `grpc.health.v1.Health/Check` (GRPC Core, "GRPC Health Checking Protocol") over HTTP/2
//! without TLS, begun with prior knowledge (RFC 9113, section 3.3).
//!
//! One request on one connection needs little of HTTP/2: its headers go out as literals (RFC 7541, section 6.2.2), and of the
//! answer its data alone is read. What a server says in headers, such as that it knows no such service, comes without data.

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// The only stream of the connection.
const STREAM: u32 = 1;
/// The longest frame that is taken: what a peer may send that was told nothing else (RFC 9113, section 4.2).
const MAX_FRAME_BYTES: usize = 16_384;
/// The most of an answer's data that is read; a status takes 7 bytes.
const MAX_DATA_BYTES: usize = 4_096;
/// The most frames that an answer may come in.
const MAX_FRAMES: u32 = 1_000;

// Types of frames (RFC 9113, section 6).
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
// Their flags; the first is named ACK for settings and pings.
const END_STREAM: u8 = 0x1;
const ACK: u8 = 0x1;
const END_HEADERS: u8 = 0x4;
const PADDED: u8 = 0x8;

/// `ServingStatus.SERVING`.
const SERVING: u64 = 1;

/// Asks for the health of `service` (empty: of the whole server). The error says why it is not well.
pub(super) async fn check(
    stream: &mut (impl AsyncRead + AsyncWrite + Unpin),
    authority: &str,
    service: &str,
) -> Result<(), String> {
    let io = |error: std::io::Error| error.to_string();
    stream
        .write_all(&request(authority, service))
        .await
        .map_err(io)?;
    let mut data = Vec::new();
    for _ in 0..MAX_FRAMES {
        let frame = read(stream).await?;
        match frame.kind {
            SETTINGS if frame.flags & ACK == 0 => {
                let ack = encoded(SETTINGS, ACK, 0, &[]);
                stream.write_all(&ack).await.map_err(io)?;
            }
            PING if frame.flags & ACK == 0 => {
                let ack = encoded(PING, ACK, 0, &frame.payload);
                stream.write_all(&ack).await.map_err(io)?;
            }
            DATA if frame.stream == STREAM => {
                data.extend_from_slice(unpadded(&frame)?);
                if data.len() > MAX_DATA_BYTES {
                    return Err("the answer is too long".to_owned());
                }
                if let Some(status) = status(&data)? {
                    return verdict(status);
                }
            }
            RST_STREAM | GOAWAY => return Err("the server broke the call off".to_owned()),
            // Of another kind, or of another stream: all of these may be passed over (RFC 9113, section 5.5).
            _ => {}
        }
        if frame.stream == STREAM && frame.is_last() {
            return Err("the server knows no such health check, or no such service".to_owned());
        }
    }
    Err("the server sent no answer among all that it sent".to_owned())
}

struct Frame {
    kind: u8,
    flags: u8,
    stream: u32,
    payload: Vec<u8>,
}

impl Frame {
    fn is_last(&self) -> bool {
        matches!(self.kind, DATA | HEADERS) && self.flags & END_STREAM != 0
    }
}

fn request(authority: &str, service: &str) -> Vec<u8> {
    let mut headers = Vec::new();
    for (name, value) in [
        (":method", "POST"),
        (":scheme", "http"),
        (":path", "/grpc.health.v1.Health/Check"),
        (":authority", authority),
        ("te", "trailers"),
        ("content-type", "application/grpc"),
        ("user-agent", "layby-probe"),
    ] {
        headers.push(0); // a literal that is not indexed, with a new name
        for text in [name, value] {
            // All are shorter than 127 bytes, and none is Huffman-coded.
            headers.push(u8::try_from(text.len().min(126)).unwrap_or(126));
            headers.extend(text.bytes().take(126));
        }
    }
    // HealthCheckRequest { string service = 1; }
    let mut message = Vec::new();
    if !service.is_empty() {
        message.push(0x0a);
        varint(&mut message, service.len() as u64);
        message.extend_from_slice(service.as_bytes());
    }
    let length = u32::try_from(message.len()).unwrap_or(u32::MAX);
    let mut body = vec![0]; // not compressed
    body.extend(length.to_be_bytes());
    body.extend(message);

    let mut all = PREFACE.to_vec();
    all.extend(encoded(SETTINGS, 0, 0, &[]));
    all.extend(encoded(HEADERS, END_HEADERS, STREAM, &headers));
    all.extend(encoded(DATA, END_STREAM, STREAM, &body));
    all
}

fn encoded(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len())
        .unwrap_or(u32::MAX)
        .to_be_bytes();
    let mut frame = length[1..].to_vec();
    frame.extend([kind, flags]);
    frame.extend(stream.to_be_bytes());
    frame.extend_from_slice(payload);
    frame
}

async fn read(stream: &mut (impl AsyncRead + Unpin)) -> Result<Frame, String> {
    let mut head = [0; 9];
    let io = |error: std::io::Error| match error.kind() {
        std::io::ErrorKind::UnexpectedEof => {
            "the connection was closed without an answer".to_owned()
        }
        _ => error.to_string(),
    };
    stream.read_exact(&mut head).await.map_err(io)?;
    let [a, b, c, kind, flags, stream_id @ ..] = head;
    let length = u32::from_be_bytes([0, a, b, c]) as usize;
    if length > MAX_FRAME_BYTES {
        return Err("what it sends is no HTTP/2".to_owned());
    }
    let mut payload = vec![0; length];
    stream.read_exact(&mut payload).await.map_err(io)?;
    Ok(Frame {
        kind,
        flags,
        stream: u32::from_be_bytes(stream_id) & 0x7fff_ffff,
        payload,
    })
}

/// The data of a frame without its padding (RFC 9113, section 6.1).
fn unpadded(frame: &Frame) -> Result<&[u8], String> {
    if frame.flags & PADDED == 0 {
        return Ok(&frame.payload);
    }
    let inner = frame.payload.split_first().and_then(|(padding, rest)| {
        let end = rest.len().checked_sub(usize::from(*padding))?;
        rest.get(..end)
    });
    inner.ok_or_else(|| "what it sends is no HTTP/2".to_owned())
}

/// `status` of a HealthCheckResponse, once all of it is there.
fn status(data: &[u8]) -> Result<Option<u64>, String> {
    let strange = || "its answer is no health check's".to_owned();
    let Some((head, rest)) = data.split_at_checked(5) else {
        return Ok(None);
    };
    let length = u32::from_be_bytes([head[1], head[2], head[3], head[4]]) as usize;
    if head[0] != 0 {
        return Err("its answer is compressed, which was not asked for".to_owned());
    }
    if length > MAX_DATA_BYTES {
        return Err(strange());
    }
    let Some(mut message) = rest.get(..length) else {
        return Ok(None);
    };
    let mut status = 0; // what is left out has the value 0: UNKNOWN
    while !message.is_empty() {
        let key = take_varint(&mut message).ok_or_else(strange)?;
        let value = match key & 7 {
            0 => take_varint(&mut message).ok_or_else(strange)?,
            2 => {
                let length = take_varint(&mut message).ok_or_else(strange)?;
                let length = usize::try_from(length).map_err(|_| strange())?;
                message = message.get(length..).ok_or_else(strange)?;
                continue;
            }
            _ => return Err(strange()),
        };
        if key >> 3 == 1 {
            status = value;
        }
    }
    Ok(Some(status))
}

fn verdict(status: u64) -> Result<(), String> {
    match status {
        SERVING => Ok(()),
        0 => Err("UNKNOWN".to_owned()),
        2 => Err("NOT_SERVING".to_owned()),
        3 => Err("SERVICE_UNKNOWN".to_owned()),
        other => Err(format!("status {other}")),
    }
}

/// Writes a number as protocol buffers do: seven bits a byte, the lowest first.
fn varint(into: &mut Vec<u8>, mut number: u64) {
    while number > 0x7f {
        into.push((number & 0x7f) as u8 | 0x80);
        number >>= 7;
    }
    into.push(number as u8);
}

fn take_varint(from: &mut &[u8]) -> Option<u64> {
    let mut number = 0;
    for shift in (0..64).step_by(7) {
        let (byte, rest) = from.split_first()?;
        *from = rest;
        number |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(number);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a call makes of an answer in these frames.
    async fn answered(frames: &[Vec<u8>]) -> (Result<(), String>, Vec<u8>) {
        let (mut client, mut server) = tokio::io::duplex(64 * 1024);
        for frame in frames {
            server.write_all(frame).await.expect("written");
        }
        let result = check(&mut client, "10.0.0.2:50051", "shop.Cart").await;
        drop(client);
        let mut asked = Vec::new();
        server.read_to_end(&mut asked).await.expect("read");
        (result, asked)
    }

    fn answer(status: u8) -> Vec<u8> {
        encoded(DATA, 0, STREAM, &[0, 0, 0, 0, 2, 0x08, status])
    }

    #[tokio::test]
    async fn the_status_is_read_from_the_data() {
        let settings = encoded(SETTINGS, 0, 0, &[0, 3, 0, 0, 0, 100]);
        let headers = encoded(HEADERS, END_HEADERS, STREAM, &[0x88]);
        let (result, asked) = answered(&[settings.clone(), headers.clone(), answer(1)]).await;
        assert_eq!(result, Ok(()));
        assert!(asked.starts_with(PREFACE));
        assert!(
            asked.windows(9).any(|part| part == b"shop.Cart"),
            "{asked:?}"
        );
        let ack = encoded(SETTINGS, ACK, 0, &[]);
        assert!(
            asked.ends_with(&ack),
            "its settings are acknowledged: {asked:?}"
        );
        let (result, _) = answered(&[settings, headers, answer(2)]).await;
        assert_eq!(result, Err("NOT_SERVING".to_owned()));
    }

    #[tokio::test]
    async fn an_answer_may_come_in_pieces_and_padded() {
        let whole = [0, 0, 0, 0, 2, 0x08, 1];
        let mut padded = vec![2];
        padded.extend(&whole[3..]);
        padded.extend([0, 0]);
        let (result, _) = answered(&[
            encoded(DATA, 0, STREAM, &whole[..3]),
            encoded(PING, 0, 0, &[7; 8]),
            encoded(DATA, PADDED | END_STREAM, STREAM, &padded),
        ])
        .await;
        assert_eq!(result, Ok(()));
    }

    #[tokio::test]
    async fn what_is_no_answer_says_so() {
        let trailers = encoded(HEADERS, END_HEADERS | END_STREAM, STREAM, &[0x88]);
        let (result, _) = answered(&[trailers]).await;
        assert!(result.expect_err("no data").contains("no such service"));
        let (result, _) = answered(&[encoded(GOAWAY, 0, 0, &[0; 8])]).await;
        assert!(result.expect_err("gone").contains("broke"));
        let (result, _) = answered(&[b"HTTP/1.1 400 Bad Request\r\n\r\n".to_vec()]).await;
        assert!(result.expect_err("HTTP/1").contains("no HTTP/2"));
    }
}
