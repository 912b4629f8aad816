//! Requests at a steady rate, half of them on connections that stay open, half on one each; every one is written down.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::fd::AsRawFd;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use nix::errno::Errno;
use nix::sys::socket::{MsgFlags, recv};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::task::LocalSet;

use crate::patient::MARK;

/// No answer takes longer, unless it was asked to.
pub(crate) const PATIENCE: Duration = Duration::from_secs(15);
/// Requests that come due while this one looks away are sent at once.
const TICK: Duration = Duration::from_millis(1);
/// From how many addresses clients come, so that none runs out of ports.
const SOURCES: u8 = 32;

/// One request.
#[derive(Debug, Clone)]
pub(crate) struct Sent {
    /// When it was due.
    pub(crate) due: Instant,
    /// When it was sent.
    pub(crate) begun: Instant,
    /// When its answer was there, or it failed.
    pub(crate) ended: Instant,
    /// On a connection that had carried another one before.
    pub(crate) kept: bool,
    /// The revision that answered, or what went wrong.
    pub(crate) answer: Result<u32, String>,
}

/// A load that goes on until it is dropped.
#[derive(Debug)]
pub(crate) struct Load {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<Result<()>>>,
}

#[derive(Debug, Default)]
struct Shared {
    sent: Mutex<Vec<Sent>>,
    /// When each revision answered for the first time.
    first: Mutex<BTreeMap<u32, Instant>>,
    stop: AtomicBool,
}

impl Load {
    /// Sends so many requests a second to `host` at the gateway.
    pub(crate) fn start(gateway: SocketAddr, host: &str, rate: u32) -> Self {
        let shared: Arc<Shared> = Arc::default();
        let (told, host) = (Arc::clone(&shared), host.to_owned());
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()?;
            let tasks = LocalSet::new();
            runtime.block_on(tasks.run_until(pace(told, gateway, host, rate)));
            runtime.block_on(tasks); // those that are on their way
            Ok(())
        });
        let thread = Some(thread);
        Self { shared, thread }
    }

    /// Waits until a revision has answered; gives when that was.
    pub(crate) fn until_answered_by(&self, revision: u32) -> Result<Instant> {
        let started = Instant::now();
        loop {
            if let Some(at) = lock(&self.shared.first).get(&revision) {
                return Ok(*at);
            }
            if started.elapsed() > PATIENCE {
                bail!("revision {revision} never answered");
            }
            std::thread::sleep(TICK);
        }
    }

    /// Ends it, and gives all that was sent.
    pub(crate) fn finish(mut self) -> Result<Vec<Sent>> {
        self.shared.stop.store(true, Relaxed);
        if let Some(thread) = self.thread.take() {
            match thread.join() {
                Ok(ended) => ended?,
                Err(_) => bail!("the load broke off"),
            }
        }
        Ok(std::mem::take(&mut *lock(&self.shared.sent)))
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.shared.stop.store(true, Relaxed);
    }
}

async fn pace(shared: Arc<Shared>, gateway: SocketAddr, host: String, rate: u32) {
    let started = Instant::now();
    let pool = Rc::new(Pool {
        gateway,
        host,
        idle: RefCell::default(),
    });
    let mut ticks = tokio::time::interval(TICK);
    let mut number: u32 = 0;
    while !shared.stop.load(Relaxed) {
        ticks.tick().await;
        let due_now = (started.elapsed().as_secs_f64() * f64::from(rate)) as u32;
        while number < due_now {
            let due = started + Duration::from_secs_f64(f64::from(number) / f64::from(rate));
            let (shared, pool) = (Arc::clone(&shared), Rc::clone(&pool));
            let keep = number.is_multiple_of(2);
            tokio::task::spawn_local(async move {
                let sent = pool.ask(due, keep, number).await;
                if let Ok(revision) = sent.answer {
                    lock(&shared.first).entry(revision).or_insert(sent.ended);
                }
                lock(&shared.sent).push(sent);
            });
            number += 1;
        }
    }
}

/// The connections that wait for their next request.
struct Pool {
    gateway: SocketAddr,
    host: String,
    idle: RefCell<Vec<TcpStream>>,
}

impl Pool {
    async fn ask(&self, due: Instant, keep: bool, number: u32) -> Sent {
        let idle = keep.then(|| self.idle_one()).flatten();
        let kept = idle.is_some();
        let begun = Instant::now();
        let asked = async {
            let mut stream = match idle {
                Some(stream) => stream,
                None => connect(self.gateway, number).await?,
            };
            let connection = if keep { "" } else { "Connection: close\r\n" };
            let request = format!("GET / HTTP/1.1\r\nHost: {}\r\n{connection}\r\n", self.host);
            let answer = ask(&mut stream, request.as_bytes()).await?;
            if keep {
                self.idle.borrow_mut().push(stream);
            }
            Ok(answer)
        };
        let answer = match tokio::time::timeout(PATIENCE, asked).await {
            Ok(answer) => answer.map_err(|error: std::io::Error| error.to_string()),
            Err(_) => Err(format!("no answer within {PATIENCE:?}")),
        };
        Sent {
            due,
            begun,
            ended: Instant::now(),
            kept,
            answer,
        }
    }

    /// One that is still open as far as this side knows.
    fn idle_one(&self) -> Option<TcpStream> {
        let mut idle = self.idle.borrow_mut();
        while let Some(stream) = idle.pop() {
            if is_open(&stream) {
                return Some(stream);
            }
        }
        None
    }
}

/// Asks the kernel, which knows before the runtime has seen it that the other end has closed.
fn is_open(stream: &TcpStream) -> bool {
    let flags = MsgFlags::MSG_PEEK | MsgFlags::MSG_DONTWAIT;
    recv(stream.as_raw_fd(), &mut [0], flags) == Err(Errno::EAGAIN)
}

/// Connects from one of several addresses of this machine.
pub(crate) async fn connect(gateway: SocketAddr, number: u32) -> std::io::Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    let source = (number % u32::from(SOURCES)) as u8;
    socket.bind(SocketAddr::from((Ipv4Addr::new(127, 77, 1, source + 1), 0)))?;
    let stream = socket.connect(gateway).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// Sends a request and reads the whole answer; gives the revision that it is of.
pub(crate) async fn ask(stream: &mut TcpStream, request: &[u8]) -> std::io::Result<u32> {
    let bad = |text: String| std::io::Error::new(ErrorKind::InvalidData, text);
    stream.write_all(request).await?;
    let mut input = Vec::with_capacity(1024);
    let (head, length) = loop {
        if let Some(at) = input.windows(4).position(|bytes| bytes == b"\r\n\r\n") {
            let head = String::from_utf8_lossy(&input[..at]).to_ascii_lowercase();
            let length = head.lines().find_map(|line| {
                line.strip_prefix("content-length:")?
                    .trim()
                    .parse::<usize>()
                    .ok()
            });
            break (head, at + 4 + length.unwrap_or(0));
        }
        if stream.read_buf(&mut input).await? == 0 {
            return Err(std::io::Error::other("closed before the answer"));
        }
    };
    while input.len() < length {
        if stream.read_buf(&mut input).await? == 0 {
            return Err(std::io::Error::other("closed in the middle of the answer"));
        }
    }
    if !head.starts_with("http/1.1 200") {
        let text = String::from_utf8_lossy(&input);
        let last = text.lines().last().unwrap_or_default();
        return Err(bad(format!(
            "{}: {last}",
            head.lines().next().unwrap_or_default()
        )));
    }
    let text = String::from_utf8_lossy(&input);
    let revision = text
        .split(MARK)
        .nth(1)
        .and_then(|rest| rest.lines().next()?.parse().ok());
    revision.ok_or_else(|| bad("it does not say which revision it is".to_owned()))
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
