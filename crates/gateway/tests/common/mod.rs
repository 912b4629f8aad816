//! What the gateway's tests share: a running gateway with its wires, scripted upstreams, raw clients.
#![allow(dead_code, reason = "each test file uses its own part of this")]

use std::io::{Read, Write};
use std::net::{IpAddr, Shutdown, SocketAddr, SocketAddrV4, TcpListener, TcpStream};
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use layby_gateway::{Gateway, GatewayConfig, Handed, Wires};
use layby_model::route::{
    Canary, Confirmed, Demand, Limits, Listener, Mode, Protocol, RouteTable, Served, ServiceRoute,
    Share, Upstream, Version,
};
use layby_model::{ReplicaId, ServiceId};
use nix::sys::socket::{
    AddressFamily, SockFlag, SockType, SockaddrIn, SockaddrStorage, bind, getsockname, socket,
};
use tokio::sync::watch;

/// Long enough for a slow and busy machine; reached only when something is broken.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

pub(crate) const HOST: &str = "web.shop.localhost";

pub(crate) fn service() -> ServiceId {
    "shop/web".parse().expect("a service id")
}

pub(crate) fn replica(counter: u32) -> ReplicaId {
    ReplicaId::new(1, counter)
}

/// Waits until `check` gives something.
pub(crate) fn wait_for<T>(what: &str, mut check: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = check() {
            return found;
        }
        assert!(Instant::now() < end, "timed out waiting for {what}");
        thread::sleep(Duration::from_millis(2));
    }
}

/// A gateway under test, and the other ends of its wires.
pub(crate) struct World {
    pub(crate) gateway: Option<Gateway>,
    pub(crate) tables: watch::Sender<Arc<RouteTable>>,
    pub(crate) confirmed: watch::Receiver<Confirmed>,
    pub(crate) demand: watch::Receiver<Demand>,
    pub(crate) dir: Arc<tempfile::TempDir>,
    pub(crate) table: RouteTable,
    /// What its replicas are given at once, of a service that is scaled.
    pub(crate) concurrency: Option<u32>,
    life: u32,
}

impl World {
    pub(crate) fn new() -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        Self::start(Arc::new(dir), 1, 2)
    }

    pub(crate) fn start(dir: Arc<tempfile::TempDir>, life: u32, workers: usize) -> Self {
        let http = SocketAddr::new(lonely_ip(), 0);
        Self::start_on(dir, life, workers, http, Handed::default())
    }

    pub(crate) fn start_on(
        dir: Arc<tempfile::TempDir>,
        life: u32,
        workers: usize,
        http: SocketAddr,
        handed: Handed,
    ) -> Self {
        let (tables, table_receiver) = watch::channel(Arc::new(RouteTable::default()));
        let (confirmed_sender, confirmed) = watch::channel(Confirmed::default());
        let (demand_sender, demand) = watch::channel(Demand::default());
        let config = GatewayConfig {
            http,
            workers,
            table_file: dir.path().join("routes.json"),
            handed,
        };
        let wires = Wires {
            tables: table_receiver,
            confirmed: confirmed_sender,
            demand: demand_sender,
        };
        let gateway = Gateway::start(config, wires).expect("the gateway starts");
        Self {
            gateway: Some(gateway),
            tables,
            confirmed,
            demand,
            dir,
            table: RouteTable {
                version: Version { life, counter: 0 },
                ..RouteTable::default()
            },
            concurrency: None,
            life,
        }
    }

    /// One service, `shop/web`, at [`HOST`], that serves from `upstreams`.
    pub(crate) fn serving(upstreams: &[(ReplicaId, SocketAddr)]) -> Self {
        let mut world = Self::new();
        world.serve(upstreams);
        world.confirm();
        world
    }

    pub(crate) fn serve(&mut self, upstreams: &[(ReplicaId, SocketAddr)]) {
        let port = upstreams.first().map(|(_, addr)| addr.port());
        let mode = Mode::Serve {
            upstreams: self.as_upstreams(upstreams),
            canary: None,
        };
        self.set(mode, port);
    }

    /// The same, and `share` of the requests go to a canary: on the same port, at another address.
    pub(crate) fn serve_beside(
        &mut self,
        upstreams: &[(ReplicaId, SocketAddr)],
        share: Share,
        canary: &[(ReplicaId, SocketAddr)],
    ) {
        let port = upstreams.first().map(|(_, addr)| addr.port());
        let mode = Mode::Serve {
            upstreams: self.as_upstreams(upstreams),
            canary: Some(Canary {
                share,
                upstreams: self.as_upstreams(canary),
            }),
        };
        self.set(mode, port);
    }

    /// Waits until a replica was given so many requests: they are counted once their answers are on their way.
    pub(crate) fn until_served(&self, replica: ReplicaId, requests: u64) -> Served {
        wait_for("the counts", || {
            let traffic = self.traffic();
            let served = traffic.served.get(&replica).copied();
            served.filter(|served| served.requests >= requests)
        })
    }

    pub(crate) fn hold(&mut self) {
        let port = self.table.services.get(&service()).and_then(|s| s.port);
        self.set(Mode::Hold, port.or(Some(1)));
    }

    pub(crate) fn set(&mut self, mode: Mode, port: Option<u16>) {
        let limits = self.table.services.get(&service()).map(|s| s.limits);
        let route = ServiceRoute {
            mode,
            port,
            limits: limits.unwrap_or_default(),
            is_scaled: self.concurrency.is_some(),
        };
        self.table.hosts.insert(HOST.to_owned(), service());
        self.table.services.insert(service(), route);
        self.publish();
    }

    pub(crate) fn limit(&mut self, hold_queue: u32, hold_deadline_ms: u64) {
        let route = self
            .table
            .services
            .entry(service())
            .or_insert(ServiceRoute {
                mode: Mode::Hold,
                port: Some(1),
                limits: Limits::default(),
                is_scaled: self.concurrency.is_some(),
            });
        route.limits = Limits {
            hold_queue,
            hold_deadline_ms,
        };
    }

    /// Has the gateway listen on an address that is free, and publishes that; waits until it does.
    pub(crate) fn listen_anywhere(&mut self, target: u16, protocol: Protocol) -> SocketAddr {
        for _ in 0..8 {
            let addr = free_addr();
            self.listen(addr, target, protocol);
            self.publish();
            if self.confirm().failed_listeners.is_empty() {
                return addr;
            }
            self.table.listeners.pop(); // somebody else was faster
        }
        panic!("8 free ports were taken one after another");
    }

    pub(crate) fn listen(&mut self, addr: SocketAddr, target: u16, protocol: Protocol) {
        self.table.listeners.push(Listener {
            addr,
            service: service(),
            target,
            protocol,
        });
    }

    /// Publishes the table as it is now, with the next version.
    pub(crate) fn publish(&mut self) {
        self.table.version.counter += 1;
        self.tables.send_replace(Arc::new(self.table.clone()));
    }

    /// Waits until the gateway has confirmed the table published last.
    pub(crate) fn confirm(&self) -> Confirmed {
        wait_for("the confirmation", || {
            let confirmed = self.confirmed.borrow().clone();
            (confirmed.version == self.table.version).then_some(confirmed)
        })
    }

    pub(crate) fn waiting(&self) -> u32 {
        self.demand
            .borrow()
            .waiting
            .get(&service())
            .copied()
            .unwrap_or(0)
    }

    pub(crate) fn traffic(&self) -> layby_model::route::Traffic {
        self.gateway.as_ref().expect("it runs").traffic(&service())
    }

    pub(crate) fn in_flight(&self, replica: ReplicaId) -> u32 {
        self.traffic().in_flight.get(&replica).copied().unwrap_or(0)
    }

    pub(crate) fn addr(&self) -> SocketAddr {
        self.gateway.as_ref().expect("it runs").http_addr()
    }

    pub(crate) fn client(&self) -> Client {
        Client::connect(self.addr())
    }

    fn as_upstreams(&self, upstreams: &[(ReplicaId, SocketAddr)]) -> Vec<Upstream> {
        let upstream = |(replica, addr): &(ReplicaId, SocketAddr)| Upstream {
            replica: *replica,
            ip: addr.ip(),
            concurrency: self.concurrency,
        };
        upstreams.iter().map(upstream).collect()
    }
}

/// A loopback address that no other test uses: a port that is freed there is taken by nobody else but
/// those who listen on all addresses.
pub(crate) fn lonely_ip() -> IpAddr {
    static NEXT: AtomicU8 = AtomicU8::new(1);
    let [high, low] = (std::process::id() as u16).to_be_bytes();
    let last = NEXT.fetch_add(1, Ordering::SeqCst);
    assert!((1..255).contains(&last), "a test binary has 254 of them");
    IpAddr::from([127, high.max(1), low, last])
}

/// An address that a socket is bound to, and that nobody listens on: connecting is refused while it lives.
pub(crate) struct Nobody {
    pub(crate) addr: SocketAddr,
    _socket: OwnedFd,
}

impl Nobody {
    pub(crate) fn new() -> Self {
        let (family, kind) = (AddressFamily::Inet, SockType::Stream);
        let socket = socket(family, kind, SockFlag::SOCK_CLOEXEC, None).expect("a socket");
        let any = SockaddrStorage::from(SocketAddr::new(lonely_ip(), 0));
        bind(socket.as_raw_fd(), &any).expect("a free port");
        let bound: SockaddrIn = getsockname(socket.as_raw_fd()).expect("its address");
        Self {
            addr: SocketAddrV4::from(bound).into(),
            _socket: socket,
        }
    }
}

/// A port that is free at this moment.
fn free_addr() -> SocketAddr {
    let socket = TcpListener::bind((lonely_ip(), 0)).expect("a free port");
    socket.local_addr().expect("its address")
}

/// A raw client.
pub(crate) struct Client {
    pub(crate) stream: TcpStream,
    buffer: Vec<u8>,
}

/// A response as it came.
#[derive(Debug, Clone)]
pub(crate) struct Response {
    pub(crate) status: u16,
    pub(crate) head: String,
    /// The body, unchunked.
    pub(crate) body: Vec<u8>,
}

impl Response {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        header(&self.head, name)
    }
    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(&self.body).expect("text")
    }
}

/// The value of a header in a head.
pub(crate) fn header<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    head.lines().skip(1).find_map(|line| {
        let (key, value) = line.split_once(':')?;
        key.eq_ignore_ascii_case(name).then_some(value.trim())
    })
}

impl Client {
    pub(crate) fn connect(addr: SocketAddr) -> Self {
        let stream = TcpStream::connect(addr).expect("the gateway accepts");
        stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        stream.set_nodelay(true).expect("no delay");
        Self {
            stream,
            buffer: Vec::new(),
        }
    }

    pub(crate) fn send(&mut self, text: &str) -> &mut Self {
        self.stream
            .write_all(text.as_bytes())
            .expect("the gateway reads");
        self
    }

    pub(crate) fn get(&mut self, path: &str) -> Response {
        self.send(&format!("GET {path} HTTP/1.1\r\nHost: {HOST}\r\n\r\n"));
        self.response()
    }

    /// Reads one response to a request that was no `HEAD`.
    pub(crate) fn response(&mut self) -> Response {
        self.try_response(false).expect("a response")
    }

    pub(crate) fn head_response(&mut self) -> Response {
        self.try_response(true).expect("a response")
    }

    pub(crate) fn try_response(&mut self, bodiless: bool) -> std::io::Result<Response> {
        let head = self.read_until(b"\r\n\r\n")?;
        let head = String::from_utf8(head).expect("text");
        let status: u16 = head
            .split(' ')
            .nth(1)
            .and_then(|s| s.parse().ok())
            .expect("a status");
        let mut body = Vec::new();
        if bodiless || status < 200 || status == 204 || status == 304 {
        } else if header(&head, "transfer-encoding").is_some() {
            loop {
                let line = self.read_until(b"\r\n")?;
                let digits = std::str::from_utf8(&line).expect("text").trim();
                let len = usize::from_str_radix(digits.split(';').next().unwrap_or(digits), 16)
                    .expect("a chunk size");
                if len == 0 {
                    while self.read_until(b"\r\n")? != b"\r\n" {}
                    break;
                }
                body.extend(self.read_len(len)?);
                assert_eq!(self.read_len(2)?, b"\r\n");
            }
        } else if let Some(len) = header(&head, "content-length") {
            body = self.read_len(len.parse().expect("a length"))?;
        } else {
            body = self.read_to_end()?;
        }
        Ok(Response { status, head, body })
    }

    pub(crate) fn read_until(&mut self, end: &[u8]) -> std::io::Result<Vec<u8>> {
        loop {
            if let Some(at) = self
                .buffer
                .windows(end.len())
                .position(|window| window == end)
            {
                return Ok(self.buffer.drain(..at + end.len()).collect());
            }
            self.fill()?;
        }
    }

    pub(crate) fn read_len(&mut self, len: usize) -> std::io::Result<Vec<u8>> {
        while self.buffer.len() < len {
            self.fill()?;
        }
        Ok(self.buffer.drain(..len).collect())
    }

    pub(crate) fn read_to_end(&mut self) -> std::io::Result<Vec<u8>> {
        self.stream.read_to_end(&mut self.buffer)?;
        Ok(std::mem::take(&mut self.buffer))
    }

    /// Whether the gateway closed the connection, with nothing more to read.
    pub(crate) fn is_closed(&mut self) -> bool {
        let reset = std::io::ErrorKind::ConnectionReset;
        match self.stream.read(&mut [0]) {
            Ok(len) => len == 0 && self.buffer.is_empty(),
            Err(error) => error.kind() == reset && self.buffer.is_empty(), // not that it took too long
        }
    }

    /// Says that it will send no more; it still reads.
    pub(crate) fn finish(&mut self) -> &mut Self {
        self.stream.shutdown(Shutdown::Write).expect("it is open");
        self
    }

    /// Closes the connection with a reset: that is what a linger time of 0 does (socket(7)).
    pub(crate) fn reset(self) {
        let reset = nix::libc::linger {
            l_onoff: 1,
            l_linger: 0,
        };
        let linger = nix::sys::socket::sockopt::Linger;
        nix::sys::socket::setsockopt(&self.stream, linger, &reset).expect("a socket option");
    }

    fn fill(&mut self) -> std::io::Result<()> {
        let mut bytes = [0; 65536];
        match self.stream.read(&mut bytes)? {
            0 => Err(std::io::ErrorKind::UnexpectedEof.into()),
            len => {
                self.buffer.extend_from_slice(&bytes[..len]);
                Ok(())
            }
        }
    }
}

/// An upstream: a listener on an address of its own, whose connections a closure serves.
pub(crate) struct Server {
    pub(crate) addr: SocketAddr,
    pub(crate) connections: Arc<AtomicUsize>,
    /// The heads of the requests that [`Server::answering`] saw.
    pub(crate) seen: Arc<Mutex<Vec<String>>>,
}

impl Server {
    /// Each connection is served by `serve`, on a thread of its own.
    pub(crate) fn scripted(serve: impl Fn(&mut Client) + Send + Sync + 'static) -> Self {
        Self::on("127.0.0.1:0".parse().expect("an address"), serve)
    }

    pub(crate) fn on(
        addr: SocketAddr,
        serve: impl Fn(&mut Client) + Send + Sync + 'static,
    ) -> Self {
        let socket = TcpListener::bind(addr).expect("a free port");
        let addr = socket.local_addr().expect("its address");
        let connections = Arc::new(AtomicUsize::new(0));
        let counter = Arc::clone(&connections);
        let serve = Arc::new(serve);
        thread::spawn(move || {
            for stream in socket.incoming().flatten() {
                counter.fetch_add(1, Ordering::SeqCst);
                let serve = Arc::clone(&serve);
                thread::spawn(move || {
                    let mut client = Client {
                        stream,
                        buffer: Vec::new(),
                    };
                    serve(&mut client);
                });
            }
        });
        Self {
            addr,
            connections,
            seen: Arc::default(),
        }
    }

    /// Answers each request with its own head and body, and keeps the connection open.
    pub(crate) fn echo() -> Self {
        Self::answering(|head, body| {
            let text = format!("{head}{}", String::from_utf8_lossy(body));
            let len = text.len();
            format!("HTTP/1.1 200 OK\r\nContent-Length: {len}\r\n\r\n{text}")
        })
    }

    /// Answers each request with what `answer` makes of its head and body.
    pub(crate) fn answering(
        answer: impl Fn(&str, &[u8]) -> String + Send + Sync + 'static,
    ) -> Self {
        Self::answering_on("127.0.0.1:0".parse().expect("an address"), answer)
    }

    pub(crate) fn answering_on(
        addr: SocketAddr,
        answer: impl Fn(&str, &[u8]) -> String + Send + Sync + 'static,
    ) -> Self {
        let seen: Arc<Mutex<Vec<String>>> = Arc::default();
        let log = Arc::clone(&seen);
        let server = Self::on(addr, move |client| {
            while let Some((head, body)) = request(client) {
                log.lock().expect("no panic").push(head.clone());
                let text = answer(&head, &body);
                if client.stream.write_all(text.as_bytes()).is_err() {
                    return;
                }
            }
        });
        Self { seen, ..server }
    }

    pub(crate) fn seen(&self) -> usize {
        self.seen.lock().expect("no panic").len()
    }
}

/// Reads one request with a `Content-Length` or chunked body.
pub(crate) fn request(client: &mut Client) -> Option<(String, Vec<u8>)> {
    let head = String::from_utf8(client.read_until(b"\r\n\r\n").ok()?).ok()?;
    let mut body = Vec::new();
    if header(&head, "transfer-encoding").is_some() {
        loop {
            let line = client.read_until(b"\r\n").ok()?;
            let len = usize::from_str_radix(std::str::from_utf8(&line).ok()?.trim(), 16).ok()?;
            if len == 0 {
                while client.read_until(b"\r\n").ok()? != b"\r\n" {}
                break;
            }
            body.extend(client.read_len(len).ok()?);
            client.read_len(2).ok()?;
        }
    } else if let Some(len) = header(&head, "content-length") {
        body = client.read_len(len.parse().ok()?).ok()?;
    }
    Some((head, body))
}

/// How many connections to `addr` are established, as the kernel sees them (proc_net(5), IPv4 only).
pub(crate) fn established_to(addr: SocketAddr) -> usize {
    const ESTABLISHED: &str = "01";
    let IpAddr::V4(ip) = addr.ip() else {
        panic!("the tests use IPv4");
    };
    let remote = format!(
        "{:08X}:{:04X}",
        u32::from_ne_bytes(ip.octets()),
        addr.port()
    );
    let table = std::fs::read_to_string("/proc/net/tcp").expect("Linux");
    let lines = table
        .lines()
        .map(|line| line.split_ascii_whitespace().skip(2).take(2));
    lines
        .filter(|fields| fields.clone().eq([remote.as_str(), ESTABLISHED]))
        .count()
}
