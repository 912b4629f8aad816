//! Just enough HTTP for the demo: one request on one connection.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

/// No answer takes longer; a service that sleeps is woken meanwhile.
const PATIENCE: Duration = Duration::from_secs(60);

/// The body of a page.
pub(super) fn get(addr: &str, path: &str) -> Result<Vec<u8>> {
    ask(addr, addr, &format!("GET {path}"), "", &[])
}

/// The answer to a question in JSON, to a service by its host name.
pub(super) fn post(addr: &str, host: &str, path: &str, question: &str) -> Result<Vec<u8>> {
    let headers = "Content-Type: application/json\r\n";
    ask(
        addr,
        host,
        &format!("POST {path}"),
        headers,
        question.as_bytes(),
    )
}

/// Uploads one picture, and gives the answer in JSON.
pub(super) fn upload(addr: &str, name: &str, picture: &[u8]) -> Result<Vec<u8>> {
    let boundary = "a-boundary-that-no-picture-has";
    let part = format!("--{boundary}\r\nContent-Disposition: form-data; name=");
    let mut body =
        format!("{part}\"who\"\r\n\r\nDemo\r\n{part}\"pictures\"; filename=\"{name}\"\r\n\r\n")
            .into_bytes();
    body.extend_from_slice(picture);
    body.extend(format!("\r\n--{boundary}--\r\n").bytes());
    let headers = format!(
        "Accept: application/json\r\nContent-Type: multipart/form-data; boundary={boundary}\r\n"
    );
    ask(addr, addr, "POST /upload", &headers, &body)
}

fn ask(addr: &str, host: &str, what: &str, headers: &str, body: &[u8]) -> Result<Vec<u8>> {
    let mut stream =
        TcpStream::connect(addr).with_context(|| format!("cannot connect to {addr}"))?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let length = body.len();
    write!(
        stream,
        "{what} HTTP/1.1\r\nHost: {host}\r\n{headers}Content-Length: {length}\r\nConnection: close\r\n\r\n"
    )?;
    stream.write_all(body)?;
    let mut answer = Vec::new();
    stream
        .read_to_end(&mut answer)
        .with_context(|| format!("{what} was not answered to its end"))?;
    let end = answer
        .windows(4)
        .position(|bytes| bytes == b"\r\n\r\n")
        .context("the answer has no head")?;
    let head = String::from_utf8_lossy(&answer[..end]).into_owned();
    let status = head.lines().next().unwrap_or_default();
    ensure!(
        status.contains(" 200 "),
        "{what} was answered {status:?} by {addr}"
    );
    let body = answer.split_off(end + 4);
    let is_chunked = head
        .to_ascii_lowercase()
        .contains("transfer-encoding: chunked");
    if is_chunked { unchunk(&body) } else { Ok(body) }
}

/// A body in chunks, as one (RFC 9112, 7.1).
fn unchunk(mut rest: &[u8]) -> Result<Vec<u8>> {
    let mut body = Vec::new();
    loop {
        let end = rest
            .windows(2)
            .position(|bytes| bytes == b"\r\n")
            .context("a chunk has no size")?;
        let size = String::from_utf8_lossy(&rest[..end]);
        let size = usize::from_str_radix(size.split(';').next().unwrap_or_default().trim(), 16)?;
        rest = &rest[end + 2..];
        if size == 0 {
            return Ok(body);
        }
        body.extend_from_slice(rest.get(..size).context("a chunk is cut short")?);
        rest = rest.get(size + 2..).unwrap_or_default();
    }
}

#[cfg(test)]
mod tests {
    use super::unchunk;

    #[test]
    fn chunks_become_one_body() {
        assert_eq!(
            unchunk(b"3\r\nabc\r\n1;x=y\r\nd\r\n0\r\n\r\n").unwrap(),
            b"abcd"
        );
        assert!(unchunk(b"5\r\nabc").is_err());
    }
}
