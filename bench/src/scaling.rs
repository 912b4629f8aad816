//! `layby-bench scaling`: a service that takes one request at a time goes from asleep to four replicas under a crowd, and back.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

use crate::app;
use crate::args::Args;
use crate::figures::line;
use crate::http::Connection;
use crate::node::Node;

/// The service, and where it is.
const NAME: &str = "scaling/web";
const HOST: &str = "web.scaling.localhost";
const COMPOSE: &str = "name: scaling
services:
  web:
    build: .
    image: scaling-web:1
    environment: {REV: \"1\"}
    x-layby:
      port: 8000
      scale: {min: 0, max: 4, concurrency: 1, stable_window: 10s, panic_window: 1s}
      sleep: {doze_after: never, sleep_after: 15s}
";
/// What the policy aims at: the most that it may have.
const MOST: u64 = 4;
/// From the first request of the crowd to all replicas ready: what is promised, in milliseconds.
const READY_MS: f64 = 1_000.0;
/// How often it is looked.
const LOOK: Duration = Duration::from_millis(20);
/// How long it may take to be asleep again.
const REST: Duration = Duration::from_secs(90);

/// What was seen, and when.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Seen {
    ready: u64,
    wanted: u64,
    is_asleep: bool,
}

/// What one client of the crowd got.
#[derive(Default)]
struct Got {
    answered: u32,
    failed: Vec<String>,
}

/// Measures and prints the time line.
pub(crate) fn run(args: &mut Args) -> Result<()> {
    let layby: PathBuf = args.need::<PathBuf>("layby")?.canonicalize()?;
    let clients: usize = args.get("clients")?.unwrap_or(8);
    let seconds: f64 = args.get("seconds")?.unwrap_or(15.0);
    let takes_ms: u32 = args.get("takes-ms")?.unwrap_or(200);
    args.finish()?;
    let app = app::App::patient(COMPOSE)?;
    let node = Node::start(&layby)?;
    node.run(app.path(), &["up"])?;
    node.run(Path::new("/"), &["sleep", NAME])?;
    let gateway = node.gateway()?;
    println!("{clients} clients, each one request after another of {takes_ms} ms, for {seconds} s");
    let begun = Instant::now();
    let over = AtomicBool::new(false);
    let (line_of, got) = std::thread::scope(|scope| {
        let crowd: Vec<_> = (0..clients)
            .map(|_| scope.spawn(|| ask(gateway, takes_ms, &over)))
            .collect();
        let mut seen = Vec::new();
        let followed = follow(&node, begun, &mut seen, |_| {
            begun.elapsed().as_secs_f64() >= seconds
        });
        over.store(true, Ordering::SeqCst);
        let got: Vec<Got> = (crowd.into_iter())
            .map(|client| client.join().unwrap_or_default())
            .collect();
        followed.map(|()| (seen, got))
    })?;
    let mut seen = line_of;
    let ended = begun.elapsed();
    let deadline = Instant::now() + REST;
    follow(&node, begun, &mut seen, |last| {
        last.is_asleep || Instant::now() > deadline
    })?;
    tell(&seen, ended, &got)
}

/// Asks again and again until it is over.
fn ask(gateway: SocketAddr, takes_ms: u32, over: &AtomicBool) -> Got {
    let mut got = Got::default();
    let path = format!("/slow?{takes_ms}");
    while !over.load(Ordering::SeqCst) {
        let asked = Connection::open(gateway).and_then(|mut one| one.get(HOST, &path));
        match asked {
            Ok(_) => got.answered += 1,
            Err(error) => got.failed.push(format!("{error:#}")),
        }
    }
    got
}

/// Notes each change of the service, until something holds of it.
fn follow(
    node: &Node,
    begun: Instant,
    seen: &mut Vec<(Duration, Seen)>,
    until: impl Fn(&Seen) -> bool,
) -> Result<()> {
    loop {
        let status = node.json(&["status", "--json", NAME])?;
        let number = |key: &str| status[key].as_u64().unwrap_or_default();
        let now = Seen {
            ready: number("replicas_ready"),
            wanted: number("replicas_wanted"),
            is_asleep: status["wakefulness"] == "asleep",
        };
        if seen.last().is_none_or(|(_, last)| *last != now) {
            seen.push((begun.elapsed(), now));
        }
        if until(&now) {
            return Ok(());
        }
        std::thread::sleep(LOOK);
    }
}

fn tell(seen: &[(Duration, Seen)], ended: Duration, got: &[Got]) -> Result<()> {
    let is_over = |at: &Duration| *at > ended;
    for (number, (at, now)) in seen.iter().enumerate() {
        if is_over(at) && (number == 0 || !is_over(&seen[number - 1].0)) {
            println!("{:>8.2} s  the crowd is over", ended.as_secs_f64());
        }
        let rests = if now.is_asleep { ", asleep" } else { "" };
        println!(
            "{:>8.2} s  {} of {} ready{rests}",
            at.as_secs_f64(),
            now.ready,
            now.wanted
        );
    }
    let reached = seen.iter().find(|(_, now)| now.ready == MOST);
    let ready_ms = reached.map_or(f64::INFINITY, |(at, _)| at.as_secs_f64() * 1_000.0);
    line(
        "the first request to 4 replicas ready",
        ready_ms,
        "ms",
        READY_MS,
    );
    let answered: u32 = got.iter().map(|client| client.answered).sum();
    let failed: Vec<&String> = got.iter().flat_map(|client| &client.failed).collect();
    line("requests that failed", failed.len() as f64, "", 0.0);
    println!("  {answered} were answered");
    if let Some((_, last)) = seen.last()
        && !last.is_asleep
    {
        bail!("it was not asleep {REST:?} after the crowd");
    }
    match failed.first() {
        None => Ok(()),
        Some(first) => bail!("{} requests failed, such as: {first}", failed.len()),
    }
}
