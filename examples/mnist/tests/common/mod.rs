//! A running service and a small HTTP client, for tests.
#![allow(
    dead_code,
    reason = "each test binary compiles this module and uses a part of it"
)]

use std::io::{Cursor, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::time::Duration;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use image::{DynamicImage, ImageFormat};
use mnist::network::Network;
use mnist::server;
use serde_json::Value;
use tokio::sync::oneshot;

/// A service on a free port of the loopback address; it ends when this is dropped.
pub(crate) struct Service {
    pub(crate) address: SocketAddr,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<std::thread::JoinHandle<std::io::Result<()>>>,
}

impl Service {
    pub(crate) fn start() -> Service {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap();
        let (stop, stopped) = oneshot::channel();
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()?;
            runtime.block_on(async {
                let listener = tokio::net::TcpListener::from_std(listener)?;
                let router = server::router(Network::trained().unwrap());
                server::serve(listener, router, async {
                    let _ = stopped.await;
                })
                .await
            })
        });
        Service {
            address,
            stop: Some(stop),
            thread: Some(thread),
        }
    }

    /// Tells the service to end, as SIGTERM would, and does not wait for it.
    pub(crate) fn ask_to_stop(&mut self) {
        if let Some(stop) = self.stop.take() {
            let _ = stop.send(());
        }
    }

    /// Waits for the service's end.
    pub(crate) fn wait(&mut self) -> std::io::Result<()> {
        match self.thread.take() {
            Some(thread) => thread.join().unwrap(),
            None => Ok(()),
        }
    }

    pub(crate) fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.address).unwrap();
        stream
            .set_read_timeout(Some(Duration::from_secs(60)))
            .unwrap();
        stream
    }

    /// Sends one request and reads the answer to its end: status, head, body.
    pub(crate) fn ask(&self, method: &str, path: &str, body: &[u8]) -> Reply {
        let mut stream = self.connect();
        let length = body.len();
        let head = format!(
            "{method} {path} HTTP/1.1\r\nHost: mnist\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n"
        );
        stream.write_all(head.as_bytes()).unwrap();
        stream.write_all(body).unwrap();
        Reply::read(stream)
    }

    pub(crate) fn get(&self, path: &str) -> Reply {
        self.ask("GET", path, b"")
    }

    pub(crate) fn post(&self, body: &[u8]) -> Reply {
        self.ask("POST", "/mnist/", body)
    }

    /// Posts a picture's bytes as a client would.
    pub(crate) fn post_picture(&self, bytes: &[u8]) -> Reply {
        self.post(&question(bytes))
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        self.ask_to_stop();
        let _ = self.wait();
    }
}

/// An answer of the service.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: Vec<u8>,
}

impl Reply {
    /// Reads until the service closes the connection.
    pub(crate) fn read(mut stream: TcpStream) -> Reply {
        let mut bytes = Vec::new();
        stream.read_to_end(&mut bytes).unwrap();
        let end = bytes
            .windows(4)
            .position(|window| window == b"\r\n\r\n")
            .expect("an answer has a head");
        let head = String::from_utf8(bytes[..end].to_vec()).unwrap();
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        Reply {
            status,
            head: head.to_lowercase(),
            body: bytes[end + 4..].to_vec(),
        }
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }

    pub(crate) fn error(&self) -> String {
        self.json()["error"].as_str().unwrap().to_owned()
    }
}

/// The request's body for a picture.
pub(crate) fn question(bytes: &[u8]) -> Vec<u8> {
    serde_json::json!({ "base64": BASE64_STANDARD.encode(bytes) })
        .to_string()
        .into_bytes()
}

pub(crate) fn encode(picture: &DynamicImage, format: ImageFormat) -> Vec<u8> {
    let mut bytes = Cursor::new(Vec::new());
    picture.write_to(&mut bytes, format).unwrap();
    bytes.into_inner()
}

/// The committed digits: name, the digit it shows, the file's bytes.
pub(crate) fn committed_digits() -> Vec<(String, u8, Vec<u8>)> {
    let mut digits = Vec::new();
    for entry in std::fs::read_dir(folder("digits")).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
        let digit = name.split('-').next().unwrap().parse().unwrap();
        digits.push((name, digit, std::fs::read(path).unwrap()));
    }
    digits.sort();
    digits
}

/// A folder of this package.
pub(crate) fn folder(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(name)
}
