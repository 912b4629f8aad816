//! Saturates HTTP proxies and answers as their upstream, in one thread, and measures what the proxies
//! spend on a request.
//!
//! Proxies are compared by their CPU time per request, in rounds that take turns, within one process: on
//! a shared machine throughput says more about the neighbours than about the proxy.

use std::collections::VecDeque;
use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};

use crate::args::Args;
use crate::upstream::{self, Connection};

/// Let the proxy open its upstream connections before counting.
const WARM_UP: Duration = Duration::from_millis(300);

/// A proxy under measurement.
#[derive(Debug)]
pub(crate) struct Gateway {
    name: String,
    addr: SocketAddr,
    /// The process whose threads do the work.
    pid: u32,
    rounds: Vec<Round>,
}

/// What one round measured.
#[derive(Debug, Clone, Copy)]
struct Round {
    requests: u64,
    /// CPU time of the proxy per request, in microseconds.
    cpu_us: f64,
    /// How busy the proxy was: 1.0 is one CPU.
    busy: f64,
}

/// What is sent in a round.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Load {
    /// Connections, each with one request under way at any time.
    pub(crate) clients: usize,
    /// Over how many virtual hosts they are spread.
    pub(crate) hosts: usize,
    /// How long a round takes.
    pub(crate) round: Duration,
}

impl Gateway {
    /// One that was not measured yet.
    pub(crate) fn new(name: &str, addr: SocketAddr, pid: u32) -> Self {
        Self {
            name: name.to_owned(),
            addr,
            pid,
            rounds: Vec::new(),
        }
    }

    fn parse(text: &str) -> anyhow::Result<Self> {
        let parts: Vec<&str> = text.split('=').collect();
        let [name, addr, pid] = parts.as_slice() else {
            bail!("--gateway {text:?} is not NAME=ADDR=PID");
        };
        let addr = addr
            .parse()
            .with_context(|| format!("{addr:?} is not an address"))?;
        let pid = pid
            .parse()
            .with_context(|| format!("{pid:?} is not a process id"))?;
        Ok(Self::new(name, addr, pid))
    }

    /// CPU time per request in microseconds: the median of the rounds.
    pub(crate) fn cpu_us(&self) -> f64 {
        self.median(|round| round.cpu_us)
    }

    fn median(&self, of: impl Fn(&Round) -> f64) -> f64 {
        let mut values: Vec<f64> = self.rounds.iter().map(of).collect();
        values.sort_by(f64::total_cmp);
        values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
    }
}

/// `layby-bench pump`.
pub(crate) fn run(args: &mut Args) -> anyhow::Result<()> {
    let upstream: SocketAddr = args.need("upstream")?;
    let gateways = args.all("gateway");
    let gateways = gateways.iter().map(|text| Gateway::parse(text));
    let mut gateways = gateways.collect::<anyhow::Result<Vec<Gateway>>>()?;
    let rounds = args.get("rounds")?.unwrap_or(10);
    let body_bytes = args.get("body")?.unwrap_or(600);
    let load = Load {
        clients: args.get("clients")?.unwrap_or(64),
        hosts: args.get("hosts")?.unwrap_or(100),
        round: Duration::from_secs_f64(args.get("seconds")?.unwrap_or(1.0)),
    };
    args.finish()?;
    if gateways.is_empty() {
        bail!("--gateway NAME=ADDR=PID is missing");
    }
    measure(&mut gateways, upstream, body_bytes, load, rounds)?;
    print(&gateways);
    Ok(())
}

/// Measures the gateways in turn, `rounds` times, answering at `upstream` with so many bytes of body.
pub(crate) fn measure(
    gateways: &mut [Gateway],
    upstream: SocketAddr,
    body_bytes: usize,
    load: Load,
    rounds: usize,
) -> anyhow::Result<()> {
    let mut pump = Pump::new(upstream, body_bytes)?;
    for _ in 0..rounds {
        for gateway in &mut *gateways {
            let round = pump.round(gateway, load)?;
            gateway.rounds.push(round);
        }
    }
    Ok(())
}

/// Prints what was measured; ratios are to the last gateway.
pub(crate) fn print(gateways: &[Gateway]) {
    let last = gateways.last().map_or(f64::NAN, Gateway::cpu_us);
    println!(
        "{:<12} {:>14} {:>8} {:>12} {:>6}",
        "gateway", "CPU us/request", "ratio", "requests", "busy"
    );
    for gateway in gateways {
        let (cpu_us, busy) = (gateway.cpu_us(), gateway.median(|round| round.busy));
        let requests: u64 = gateway.rounds.iter().map(|round| round.requests).sum();
        let (name, ratio) = (&gateway.name, cpu_us / last);
        println!("{name:<12} {cpu_us:>14.3} {ratio:>8.3} {requests:>12} {busy:>6.2}");
    }
}

/// CPU time that all threads of a process have used, in nanoseconds (proc_pid_schedstat(5)).
fn cpu_ns(pid: u32) -> anyhow::Result<u64> {
    let tasks = fs::read_dir(format!("/proc/{pid}/task"))
        .with_context(|| format!("there is no process {pid}"))?;
    let mut sum = 0;
    for task in tasks.flatten() {
        let text = fs::read_to_string(task.path().join("schedstat")).unwrap_or_default();
        let on_cpu = text.split(' ').next().unwrap_or_default();
        sum += on_cpu.trim().parse::<u64>().unwrap_or(0);
    }
    Ok(sum)
}

/// A client's connection: one request under way at any time.
#[derive(Debug)]
struct Client {
    stream: TcpStream,
    request: Vec<u8>,
    /// Bytes of the answer that have not come yet; learnt from the first answer.
    left: usize,
    answer_bytes: usize,
}

impl Client {
    fn connect(addr: SocketAddr, host: usize) -> anyhow::Result<Self> {
        let stream = TcpStream::connect(addr).with_context(|| format!("cannot reach {addr}"))?;
        stream.set_nodelay(true)?;
        let request = format!(
            "GET /some/path?with=query HTTP/1.1\r\nHost: host-{host}.localhost\r\n\
             User-Agent: Mozilla/5.0 (X11; Linux x86_64)\r\nAccept: */*\r\n\
             Accept-Language: en-GB,en;q=0.5\r\nCookie: session=0123456789abcdef\r\n\r\n"
        );
        Ok(Self {
            stream,
            request: request.into_bytes(),
            left: 0,
            answer_bytes: 0,
        })
    }

    fn send(&mut self) -> anyhow::Result<()> {
        self.left = self.answer_bytes;
        self.stream
            .write_all(&self.request)
            .context("the gateway closed a connection")
    }

    /// Reads what is there; true: the answer is complete.
    fn receive(&mut self, buffer: &mut [u8]) -> anyhow::Result<bool> {
        let len = match self.stream.read(buffer) {
            Ok(0) => bail!("the gateway closed a connection"),
            Ok(len) => len,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(false),
            Err(error) => return Err(error).context("the gateway closed a connection"),
        };
        if self.answer_bytes == 0 {
            // All answers are alike, so the first, which comes in one piece, tells the length of all.
            self.answer_bytes = answer_len(&buffer[..len])?;
            self.left = self.answer_bytes;
        }
        self.left = self
            .left
            .checked_sub(len)
            .context("an answer is longer than the first")?;
        Ok(self.left == 0)
    }
}

/// The length of the answer that `bytes` begin with.
fn answer_len(bytes: &[u8]) -> anyhow::Result<usize> {
    let text = String::from_utf8_lossy(bytes);
    if !text.starts_with("HTTP/1.1 200 ") {
        bail!(
            "the gateway answers {:?}",
            text.lines().next().unwrap_or_default()
        );
    }
    let (head, _) = text
        .split_once("\r\n\r\n")
        .context("the first answer came in pieces")?;
    let length = head.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-length")
            .then(|| value.trim().parse::<usize>())
    });
    Ok(head.len() + 4 + length.context("the answer has no Content-Length")??)
}

/// What an event is about.
enum Socket {
    Client(usize),
    Upstream(usize),
    Listener,
}

impl Socket {
    fn token(&self) -> u64 {
        match self {
            Self::Client(at) => *at as u64,
            Self::Upstream(at) => 1 << 32 | *at as u64,
            Self::Listener => 1 << 33,
        }
    }

    fn of(token: u64) -> Self {
        let at = (token & 0xffff_ffff) as usize;
        match token >> 32 {
            0 => Self::Client(at),
            1 => Self::Upstream(at),
            _ => Self::Listener,
        }
    }
}

/// The load generator with its upstream.
struct Pump {
    epoll: Epoll,
    listener: TcpListener,
    upstreams: Vec<Option<Connection>>,
    free: VecDeque<usize>,
    answer: Vec<u8>,
    buffer: Vec<u8>,
}

impl Pump {
    fn new(upstream: SocketAddr, body_bytes: usize) -> anyhow::Result<Self> {
        let listener =
            TcpListener::bind(upstream).with_context(|| format!("cannot listen on {upstream}"))?;
        listener.set_nonblocking(true)?;
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        let token = Socket::Listener.token();
        epoll.add(
            listener.as_fd(),
            EpollEvent::new(EpollFlags::EPOLLIN, token),
        )?;
        Ok(Self {
            epoll,
            listener,
            upstreams: Vec::new(),
            free: VecDeque::new(),
            answer: upstream::answer(body_bytes),
            buffer: vec![0; 65536],
        })
    }

    /// One round on one gateway, with connections of its own.
    fn round(&mut self, gateway: &Gateway, load: Load) -> anyhow::Result<Round> {
        let mut clients = Vec::with_capacity(load.clients);
        for at in 0..load.clients {
            let mut client = Client::connect(gateway.addr, at % load.hosts)?;
            client.stream.set_nonblocking(true)?;
            let token = Socket::Client(at).token();
            let interest = EpollEvent::new(EpollFlags::EPOLLIN, token);
            self.epoll.add(client.stream.as_fd(), interest)?;
            client.send()?;
            clients.push(client);
        }
        self.turn_until(&mut clients, Instant::now() + WARM_UP)?;
        let (cpu_before, begun) = (cpu_ns(gateway.pid)?, Instant::now());
        let requests = self.turn_until(&mut clients, begun + load.round)?;
        let (cpu_after, elapsed) = (cpu_ns(gateway.pid)?, begun.elapsed());
        let cpu_ns = cpu_after.saturating_sub(cpu_before) as f64;
        Ok(Round {
            requests,
            cpu_us: cpu_ns / 1000.0 / requests as f64,
            busy: cpu_ns / elapsed.as_nanos() as f64,
        })
    }

    /// Keeps every client busy until `end`; returns how many answers came.
    fn turn_until(&mut self, clients: &mut [Client], end: Instant) -> anyhow::Result<u64> {
        let mut events = [EpollEvent::empty(); 256];
        let mut answers = 0;
        while Instant::now() < end {
            let count = self.epoll.wait(&mut events, EpollTimeout::from(100u8))?;
            for event in &events[..count] {
                match Socket::of(event.data()) {
                    Socket::Client(at) => {
                        if clients[at].receive(&mut self.buffer)? {
                            answers += 1;
                            clients[at].send()?;
                        }
                    }
                    Socket::Upstream(at) => self.answer(at),
                    Socket::Listener => self.accept()?,
                }
            }
        }
        Ok(answers)
    }

    fn answer(&mut self, at: usize) {
        if let Some(connection) = &mut self.upstreams[at]
            && !connection.serve(&self.answer, &mut self.buffer)
        {
            self.upstreams[at] = None;
            self.free.push_back(at);
        }
    }

    fn accept(&mut self) -> anyhow::Result<()> {
        while let Ok((stream, _)) = self.listener.accept() {
            let connection = Connection::new(stream)?;
            let at = self.free.pop_front().unwrap_or(self.upstreams.len());
            let token = Socket::Upstream(at).token();
            let interest = EpollEvent::new(EpollFlags::EPOLLIN, token);
            self.epoll.add(connection.as_fd(), interest)?;
            if at == self.upstreams.len() {
                self.upstreams.push(Some(connection));
            } else {
                self.upstreams[at] = Some(connection);
            }
        }
        Ok(())
    }
}
