//! A service that says which revision it is, answers slowly when asked to, and speaks another protocol after an upgrade.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::Result;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::args::Args;

/// What the body of an answer begins with, before the revision.
pub(crate) const MARK: &str = "revision=";
/// The size of a body in bytes.
const BODY: usize = 600;
/// The longest head that is read.
const HEAD: usize = 16 * 1024;

/// `layby-bench patient`: `/` answers at once, `/slow?MS` after so long; an `Upgrade` makes an echo of the connection. The
/// variable `REV` is what it says of itself.
pub(crate) fn run(args: &mut Args) -> Result<()> {
    let listen: SocketAddr = args.need("listen")?;
    args.finish()?;
    let mut body = format!("{MARK}{}\n", std::env::var("REV").unwrap_or_default());
    body.extend(std::iter::repeat_n('x', BODY.saturating_sub(body.len())));
    let answer = format!(
        "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    let answer: &'static str = answer.leak(); // for as long as this runs
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?
        .block_on(serve(listen, answer))
}

async fn serve(listen: SocketAddr, answer: &'static str) -> Result<()> {
    let listener = TcpListener::bind(listen).await?;
    println!("listening on {}", listener.local_addr()?);
    loop {
        if let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                // Clients may leave at any time.
                let _ = answer_all(stream, answer.as_bytes()).await;
            });
        }
    }
}

async fn answer_all(mut stream: TcpStream, answer: &[u8]) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let mut input = Vec::with_capacity(1024);
    loop {
        let end = loop {
            if let Some(at) = input.windows(4).position(|bytes| bytes == b"\r\n\r\n") {
                break at + 4;
            }
            if input.len() > HEAD || stream.read_buf(&mut input).await? == 0 {
                return Ok(());
            }
        };
        let head = String::from_utf8_lossy(&input[..end]).into_owned();
        input.drain(..end);
        if head.to_ascii_lowercase().contains("\r\nupgrade:") {
            let switch: &[u8] =
                b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n";
            stream.write_all(switch).await?;
            let (mut from, mut to) = stream.split();
            tokio::io::copy(&mut from, &mut to).await?;
            return Ok(());
        }
        let path = head.split(' ').nth(1).unwrap_or_default();
        if let Some(ms) = path.strip_prefix("/slow?").and_then(|ms| ms.parse().ok()) {
            tokio::time::sleep(Duration::from_millis(ms)).await;
        }
        stream.write_all(answer).await?;
    }
}
