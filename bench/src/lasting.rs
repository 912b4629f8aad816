//! Slow requests and tunnels that are in flight while their service is rolled out: each ends by itself, or when its replica has
//! been drained for as long as it may.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::http::Connection;
use crate::node::Node;
use crate::rollout::HOST;

/// How long a slow request takes.
const SLOW_MS: u64 = 10_000;
/// Of each kind.
const EACH: usize = 8;
/// How long what is in flight may go on after its replica was replaced.
const DRAIN: Duration = Duration::from_secs(30);
/// Between the words of a tunnel that talks.
const WORDS: Duration = Duration::from_millis(200);
/// When a tunnel that ends by itself does.
const LEAVES: Duration = Duration::from_secs(15);

/// How a tunnel behaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// It talks all the time, until it is cut.
    Talks,
    /// It says a word at first, and nothing more, until it is cut.
    Quiet,
    /// It talks, and leaves by itself.
    Leaves,
}

/// Measures and prints the lines; false: something ended too early.
pub(crate) fn measure(node: &Node, gateway: SocketAddr, next: impl Fn() -> u32) -> Result<bool> {
    let slow: Vec<JoinHandle<Result<Duration>>> = (0..EACH)
        .map(|_| {
            std::thread::spawn(move || {
                Connection::open(gateway)?.get(HOST, &format!("/slow?{SLOW_MS}"))
            })
        })
        .collect();
    let kinds = [Kind::Talks, Kind::Quiet, Kind::Leaves];
    let tunnels: Vec<(Kind, JoinHandle<Result<Instant>>)> = kinds
        .into_iter()
        .flat_map(|kind| std::iter::repeat_n(kind, EACH))
        .map(|kind| (kind, std::thread::spawn(move || tunnel(gateway, kind))))
        .collect();
    std::thread::sleep(Duration::from_secs(2)); // the quiet ones are quiet by then
    let deployed = Instant::now();
    for n in 0..2 {
        let rev = format!("REV={}", next() + n);
        node.run(Path::new("/"), &["deploy", "rollout/web", "--env", &rev])?;
    }
    let mut good = true;
    let mut failed = 0;
    for one in slow {
        if let Err(error) = one.join().unwrap_or_else(|_| bail!("it broke off")) {
            println!("  a slow request failed: {error:#}");
            failed += 1;
        }
    }
    println!(
        "{EACH} requests of {} s over 2 rollouts: {failed} failed",
        SLOW_MS / 1000
    );
    good &= failed == 0;
    let (mut early, mut late) = (0, 0);
    let mut cut = Vec::new();
    for (kind, one) in tunnels {
        match one.join().unwrap_or_else(|_| bail!("it broke off")) {
            Ok(_) if kind == Kind::Leaves => {}
            Ok(ended) => {
                let after = ended.saturating_duration_since(deployed);
                early += usize::from(after < DRAIN);
                late += usize::from(after > DRAIN * 3 / 2);
                cut.push(after.as_secs_f64());
            }
            Err(error) => {
                println!("  a tunnel that {kind:?} failed: {error:#}");
                early += 1;
            }
        }
    }
    cut.sort_by(f64::total_cmp);
    println!(
        "{} tunnels over 2 rollouts: {EACH} left by themselves; the others were cut after {:.1} s to {:.1} s of {} s; {early} too early, {late} too late",
        3 * EACH,
        cut.first().copied().unwrap_or(f64::NAN),
        cut.last().copied().unwrap_or(f64::NAN),
        DRAIN.as_secs()
    );
    Ok(good && early == 0 && late == 0)
}

/// Opens a tunnel and uses it as its kind does; gives when it ended.
fn tunnel(gateway: SocketAddr, kind: Kind) -> Result<Instant> {
    let mut stream = TcpStream::connect(gateway)?;
    stream.set_read_timeout(Some(DRAIN * 3))?;
    write!(
        stream,
        "GET / HTTP/1.1\r\nHost: {HOST}\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n"
    )?;
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte)?;
        head.extend(byte);
    }
    if !head.starts_with(b"HTTP/1.1 101") {
        bail!("no tunnel: {}", String::from_utf8_lossy(&head));
    }
    let begun = Instant::now();
    loop {
        let said = stream.write_all(b"word").and_then(|()| {
            let mut word = [0; 4];
            stream.read_exact(&mut word)
        });
        match said {
            Ok(()) => {}
            Err(_) if kind == Kind::Leaves => bail!("cut after {:?}", begun.elapsed()),
            Err(_) => return Ok(Instant::now()),
        }
        match kind {
            Kind::Talks => std::thread::sleep(WORDS),
            Kind::Leaves if begun.elapsed() >= LEAVES => return Ok(Instant::now()),
            Kind::Leaves => std::thread::sleep(WORDS),
            Kind::Quiet => {
                return match stream.read(&mut [0]) {
                    Ok(0) => Ok(Instant::now()),
                    Ok(_) => bail!("it heard what nobody said"),
                    Err(error) if error.kind() == ErrorKind::ConnectionReset => Ok(Instant::now()),
                    Err(error) => Err(error).context("a quiet tunnel"),
                };
            }
        }
    }
}
