//! Rollouts under a light load, and one kill -9 of the node below `layby serve --keep`: no request fails but those that
//! were on the wire at that instant.

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::apps::App;
use crate::node::{Node, PATIENCE, Reply, get, is_root, read_reply};

const HOST: &str = "web.shop.localhost";

const MANIFEST: &str = "\
name: shop
services:
  web:
    build: .
    image: shop-web:1
    environment: {GREETING: \"0\"}
    x-layby: {sleep: {doze_after: never, sleep_after: never}}
";

/// So many clients open a connection for each request; one more keeps its own.
const CLIENTS: usize = 3;
/// From the end of one request of a client to its next.
const PAUSE: Duration = Duration::from_millis(10);

/// A request that got no right answer: when it began and ended, and what came instead.
struct Failed {
    began: Instant,
    ended: Instant,
    what: String,
}

/// What the clients saw.
#[derive(Default)]
struct Seen {
    answered: AtomicU64,
    failed: Mutex<Vec<Failed>>,
    over: AtomicBool,
}

impl Seen {
    /// Asks until all is over.
    fn ask(&self, mut request: impl FnMut() -> std::io::Result<Reply>) {
        while !self.over.load(Ordering::SeqCst) {
            let began = Instant::now();
            let what = match request() {
                Ok(reply) if reply.status == 200 && reply.body.starts_with("hello ") => {
                    self.answered.fetch_add(1, Ordering::SeqCst);
                    std::thread::sleep(PAUSE);
                    continue;
                }
                Ok(reply) => format!("{}: {:?}", reply.status, reply.body),
                Err(error) => error.to_string(),
            };
            let ended = Instant::now();
            let mut failed = self.failed.lock().expect("no poison");
            failed.push(Failed { began, ended, what });
        }
    }

    /// So many requests more have got their answers by then.
    fn wait_for(&self, more: u64) {
        let (before, begun) = (self.answered.load(Ordering::SeqCst), Instant::now());
        while self.answered.load(Ordering::SeqCst) < before + more {
            assert!(begun.elapsed() < PATIENCE, "the load gets no answers");
            std::thread::sleep(PAUSE);
        }
    }
}

/// A client that keeps its connection, and opens another one where that was closed before a byte of the answer came: as
/// every client of HTTP does with what can be asked again (RFC 9110, 9.2.2).
struct Lasting {
    gateway: SocketAddr,
    stream: Option<BufReader<TcpStream>>,
}

impl Lasting {
    fn get(&mut self) -> std::io::Result<Reply> {
        if let Some(mut stream) = self.stream.take()
            && send(&mut stream).is_ok()
            && stream.fill_buf().is_ok_and(|bytes| !bytes.is_empty())
        {
            let reply = read_reply(&mut stream)?;
            self.stream = Some(stream);
            return Ok(reply);
        }
        let stream = TcpStream::connect_timeout(&self.gateway, PATIENCE)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        let mut stream = BufReader::new(stream);
        send(&mut stream)?;
        let reply = read_reply(&mut stream)?;
        self.stream = Some(stream);
        Ok(reply)
    }
}

fn send(stream: &mut BufReader<TcpStream>) -> std::io::Result<()> {
    let request = format!("GET / HTTP/1.1\r\nHost: {HOST}\r\n\r\n");
    stream.get_mut().write_all(request.as_bytes())
}

/// The clients, each a thread.
fn clients(gateway: SocketAddr, seen: &Arc<Seen>) -> Vec<JoinHandle<()>> {
    let mut threads = Vec::new();
    for _ in 0..CLIENTS {
        let seen = Arc::clone(seen);
        threads.push(std::thread::spawn(move || {
            seen.ask(|| get(gateway, HOST, "/"));
        }));
    }
    let seen = Arc::clone(seen);
    threads.push(std::thread::spawn(move || {
        let mut lasting = Lasting {
            gateway,
            stream: None,
        };
        seen.ask(|| lasting.get());
    }));
    threads
}

/// The process of the node below its keeper; `None`: it does not answer.
fn pid(node: &Node) -> Option<i32> {
    let version = node.run(&["version", "--json"]).json();
    let pid = version["node"]["pid"].as_i64()?;
    i32::try_from(pid).ok()
}

/// Kills the node below its keeper, and waits for the next one. Gives from when to when it died.
fn kill_node(node: &Node) -> (Instant, Instant) {
    let before = pid(node).expect("a node");
    let from = Instant::now();
    kill(Pid::from_raw(before), Signal::SIGKILL).expect("killed");
    // Its keeper reaps it.
    while std::path::Path::new(&format!("/proc/{before}")).exists() {
        assert!(from.elapsed() < PATIENCE, "process {before} stays");
        std::thread::sleep(Duration::from_millis(1));
    }
    let until = Instant::now();
    node.wait_for("the next node to answer", |node| {
        pid(node).is_some_and(|now| now != before)
    });
    (from, until)
}

#[test]
fn rollouts_and_a_kill_of_the_node_below_its_keeper_lose_no_request() {
    if !is_root() {
        return;
    }
    let node = Node::start_kept();
    let app = App::compose(MANIFEST);
    node.run_in(app.path(), &["up"]).ok();
    let seen = Arc::new(Seen::default());
    let threads = clients(node.gateway(), &seen);
    let deploy = |greeting: &str| {
        node.run(&["deploy", "web", "--env", &format!("GREETING={greeting}")])
            .ok();
        assert_eq!(node.get(HOST, "/").body, format!("hello {greeting}"));
    };
    seen.wait_for(20);
    deploy("1");
    deploy("2");
    node.run(&["rollback", "web"]).ok();
    assert_eq!(node.get(HOST, "/").body, "hello 1");
    node.run(&["power", "web", "micro"]).ok();
    node.run(&["scale", "web", "2"]).ok();
    seen.wait_for(20);
    let (from, until) = kill_node(&node);
    seen.wait_for(20);
    deploy("3");
    node.run(&["scale", "web", "1"]).ok();
    seen.wait_for(20);
    seen.over.store(true, Ordering::SeqCst);
    threads
        .into_iter()
        .for_each(|thread| thread.join().expect("a client"));

    let failed = std::mem::take(&mut *seen.failed.lock().expect("no poison"));
    let (cut, lost): (Vec<Failed>, Vec<Failed>) =
        (failed.into_iter()).partition(|one| one.began <= until && one.ended >= from);
    let lost: Vec<String> = lost.into_iter().map(|one| one.what).collect();
    assert_eq!(lost, Vec::<String>::new(), "lost without a kill");
    assert!(
        cut.len() <= CLIENTS + 1,
        "a client has one on the wire: {:?}",
        cut.iter().map(|one| &one.what).collect::<Vec<_>>()
    );
}
