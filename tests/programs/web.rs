//! A small web server for whole-binary tests: std alone, linked statically, put on `scratch`.
//!
//! `web serve` answers HTTP/1.1 on PORT (8000), and echoes TCP and, behind its GREETING, datagrams on ECHO_PORT (7000), all on
//! the address LISTEN (any); other words misbehave on purpose:
//! `web exit N` says so and ends, `web last MS` ends well after so long, `web mute` never listens, `web eat` uses memory
//! until it is stopped. `GET /read?PATH`, `POST /write?PATH` and `GET /stat?PATH` are about files,
//! `GET /resolve?NAME`, `GET /fetch?HOST:PORT/PATH` and `GET /ask?HOST:PORT/TEXT` (a datagram; `/ask-briefly`) about others. For commands in its container: `web pass` copies its
//! input, `web say WORDS`, `web env`, `web tty` says what terminal it has, and again whenever that changes, until it is told
//! something.
//! Build steps use `web write PATH TEXT`, `web length PATH TO`, `web missing PATH` and `web fail N TEXT`.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream, ToSocketAddrs, UdpSocket};
use std::os::unix::fs::MetadataExt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

#[path = "../../crates/runtime/tests/programs/winsize.rs"]
mod winsize;

static ANSWERED: AtomicU64 = AtomicU64::new(0);
/// Slow requests that have begun.
static STARTED: AtomicU64 = AtomicU64::new(0);

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    match args.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [] | ["serve"] => serve(),
        ["exit", code] => {
            println!("about to exit with {code}");
            std::process::exit(code.parse().expect("a number"));
        }
        ["last", ms] => thread::sleep(Duration::from_millis(ms.parse().expect("a number"))),
        ["mute"] => loop {
            thread::sleep(Duration::from_secs(3600));
        },
        ["eat"] => eat(),
        ["pass"] => {
            std::io::copy(&mut std::io::stdin().lock(), &mut std::io::stdout().lock()).expect("copied");
        }
        ["say", ref words @ ..] => println!("{}", words.join(" ")),
        ["env"] => std::env::vars().for_each(|(name, value)| println!("{name}={value}")),
        ["tty"] => tty(),
        ["write", path, text] => std::fs::write(path, text).expect("to write"),
        ["length", path, to] => {
            let length = std::fs::metadata(path).expect("a file").len();
            std::fs::write(to, length.to_string()).expect("to write");
        }
        ["missing", path] => assert!(!std::path::Path::new(path).exists(), "{path} is there"),
        ["fail", code, text] => {
            println!("{text}");
            std::process::exit(code.parse().expect("a number"));
        }
        ["health"] => std::process::exit(i32::from(TcpStream::connect(("127.0.0.1", port())).is_err())),
        ref other => panic!("what is {other:?}?"),
    }
}

fn tty() {
    if winsize::winsize().is_none() {
        println!("no terminal");
        return;
    }
    thread::spawn(|| {
        let _ = std::io::stdin().read(&mut [0; 1]);
        std::process::exit(3)
    });
    let mut before = (0, 0);
    loop {
        let now = winsize::winsize().unwrap_or(before);
        if now != before {
            println!("terminal of {}x{}", now.0, now.1);
            before = now;
        }
        thread::sleep(Duration::from_millis(10));
    }
}

fn port() -> u16 {
    std::env::var("PORT").ok().and_then(|text| text.parse().ok()).unwrap_or(8000)
}

fn echo_port() -> u16 {
    std::env::var("ECHO_PORT").ok().and_then(|text| text.parse().ok()).unwrap_or(7000)
}

fn greeting() -> String {
    std::env::var("GREETING").unwrap_or_else(|_| "world".to_owned())
}

fn serve() {
    let slow = std::env::var("BOOT_MS").ok().and_then(|text| text.parse().ok()).unwrap_or(0);
    thread::sleep(Duration::from_millis(slow));
    let ip = std::env::var("LISTEN").unwrap_or_else(|_| "0.0.0.0".to_owned());
    let datagrams = UdpSocket::bind((&*ip, echo_port())).expect("the port for datagrams");
    thread::spawn(move || echo_datagrams(&datagrams));
    let echo = TcpListener::bind((&*ip, echo_port())).expect("the port that echoes");
    thread::spawn(move || echo.incoming().flatten().for_each(|stream| drop(thread::spawn(|| copy(stream)))));
    let listener = TcpListener::bind((&*ip, port())).expect("the port");
    println!("listening on {}", port());
    listener.incoming().flatten().for_each(|stream| drop(thread::spawn(|| answer_all(stream))));
}

fn echo_datagrams(socket: &UdpSocket) {
    let mut buffer = [0; 2048];
    while let Ok((n, from)) = socket.recv_from(&mut buffer) {
        let answer = [greeting().as_bytes(), b" ", &buffer[..n]].concat();
        let _ = socket.send_to(&answer, from);
    }
}

fn copy(stream: TcpStream) {
    let mut writer = stream.try_clone().expect("a second handle");
    let mut buffer = [0; 4096];
    let mut reader = stream;
    while let Ok(n @ 1..) = reader.read(&mut buffer) {
        if writer.write_all(&buffer[..n]).is_err() {
            return;
        }
    }
}

fn answer_all(stream: TcpStream) {
    let _ = stream.set_nodelay(true);
    let mut writer = stream.try_clone().expect("a second handle");
    let mut reader = BufReader::new(stream);
    while let Some((path, length)) = read_head(&mut reader) {
        let mut body = vec![0; length];
        if reader.read_exact(&mut body).is_err() {
            return;
        }
        let (status, text) = respond(&path, &body);
        let head = format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\n\r\n", text.len());
        if writer.write_all(&[head.as_bytes(), text.as_bytes()].concat()).is_err() {
            return;
        }
    }
}

fn read_head(reader: &mut impl BufRead) -> Option<(String, usize)> {
    let mut line = String::new();
    reader.read_line(&mut line).ok()?;
    let path = line.split(' ').nth(1)?.to_owned();
    let mut length = 0;
    loop {
        line.clear();
        if reader.read_line(&mut line).ok()? == 0 {
            return None;
        }
        if line == "\r\n" {
            return Some((path, length));
        }
        if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().ok()?;
        }
    }
}

fn respond(path: &str, body: &[u8]) -> (&'static str, String) {
    let (path, query) = path.split_once('?').unwrap_or((path, ""));
    match path {
        "/healthz" => ("200 OK", "ok".to_owned()),
        "/count" => ("200 OK", ANSWERED.load(Ordering::SeqCst).to_string()),
        "/started" => ("200 OK", STARTED.load(Ordering::SeqCst).to_string()),
        "/slow" => {
            STARTED.fetch_add(1, Ordering::SeqCst);
            thread::sleep(Duration::from_millis(query.parse().unwrap_or(1000)));
            ("200 OK", "slow".to_owned())
        }
        "/crash" => {
            println!("crashing as asked");
            std::process::exit(7);
        }
        "/read" => told(std::fs::read_to_string(query)),
        "/write" => told(std::fs::write(query, body).map(|()| "written".to_owned())),
        "/stat" => told(std::fs::metadata(query).map(|m| format!("{} {} {:o}", m.uid(), m.gid(), m.mode() & 0o7777))),
        "/resolve" => told(resolve(query)),
        "/fetch" => told(fetch(query)),
        "/ask" => told(ask(query, Duration::from_secs(60))),
        "/ask-briefly" => told(ask(query, Duration::from_millis(500))),
        "/whoami" => ("200 OK", std::fs::read_to_string("/proc/self/status").unwrap_or_default()),
        "/echo" => ("200 OK", String::from_utf8_lossy(body).into_owned()),
        _ => {
            ANSWERED.fetch_add(1, Ordering::SeqCst);
            ("200 OK", format!("hello {}", greeting()))
        }
    }
}

fn resolve(name: &str) -> std::io::Result<String> {
    let found = (name, 0).to_socket_addrs()?;
    Ok(found.map(|addr| addr.ip().to_string()).collect::<Vec<_>>().join(" "))
}

/// The body that another server answers with, or the first line of what is no HTTP.
fn fetch(url: &str) -> std::io::Result<String> {
    let (host, path) = url.split_once('/').unwrap_or((url, ""));
    let addr = host.to_socket_addrs()?.next().ok_or(std::io::ErrorKind::NotFound)?;
    let mut stream = TcpStream::connect_timeout(&addr, Duration::from_secs(2))?;
    stream.set_read_timeout(Some(Duration::from_secs(60)))?;
    write!(stream, "GET /{path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n")?;
    let mut reader = BufReader::new(stream);
    let (mut first, mut length) = (String::new(), 0);
    reader.read_line(&mut first)?;
    if !first.starts_with("HTTP/") {
        return Ok(first); // it only echoes
    }
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line)? == 0 || line == "\r\n" {
            break;
        }
        if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().unwrap_or(0);
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body)?;
    Ok(String::from_utf8_lossy(&body).into_owned())
}

/// What a datagram is answered with by whom it was sent to.
fn ask(url: &str, patience: Duration) -> std::io::Result<String> {
    let (host, text) = url.split_once('/').unwrap_or((url, ""));
    let addr = host.to_socket_addrs()?.next().ok_or(std::io::ErrorKind::NotFound)?;
    let socket = UdpSocket::bind("0.0.0.0:0")?;
    socket.connect(addr)?; // what comes from anywhere else is no answer
    socket.set_read_timeout(Some(patience))?;
    socket.send(text.as_bytes())?;
    let mut buffer = [0; 2048];
    let n = socket.recv(&mut buffer)?;
    Ok(String::from_utf8_lossy(&buffer[..n]).into_owned())
}

fn told(result: std::io::Result<String>) -> (&'static str, String) {
    match result {
        Ok(text) => ("200 OK", text),
        Err(error) => ("409 Conflict", error.to_string()),
    }
}

fn eat() {
    println!("eating memory");
    let mut kept: Vec<Vec<u8>> = Vec::new();
    loop {
        kept.push(vec![1; 1 << 20]);
        if kept.len() > 1 << 14 {
            return;
        }
    }
}
