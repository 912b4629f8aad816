//! Takes questions from the sockets, over UDP and TCP, and sends the answers back.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::watch;

use super::Directory;
use super::answer::{Alias, Plan, failure, plan};
use super::forward::{Forwarder, Over, framed};
use super::own::OwnServers;
use super::resolvers::RESOLV_CONF;

/// The longest question that is read, in bytes: a name and a few options.
const LONGEST: usize = 4096;
/// So many TCP connections one bridge may have open.
const CONNECTIONS: usize = 32;
/// How long a TCP connection may rest (RFC 7766, section 6.2.3: of the order of a few seconds).
const IDLE: Duration = Duration::from_secs(10);
/// How long accepting rests when the process is out of file descriptors.
const EXHAUSTED_REST: Duration = Duration::from_millis(100);

type Watched = watch::Receiver<Option<Arc<Directory>>>;

struct Shared {
    directory: Watched,
    forwarder: Forwarder,
    own: Arc<OwnServers>,
    /// Open TCP connections, by bridge.
    connections: Mutex<BTreeMap<u8, usize>>,
}

/// Serves until nobody can send a directory any more.
pub(super) async fn serve(
    udp: std::net::UdpSocket,
    tcp: std::net::TcpListener,
    directory: Watched,
    own: Arc<OwnServers>,
) -> io::Result<()> {
    let udp = Arc::new(UdpSocket::from_std(udp)?);
    let tcp = TcpListener::from_std(tcp)?;
    let mut end = directory.clone();
    if end.wait_for(Option::is_some).await.is_err() {
        return Ok(());
    }
    let shared = Arc::new(Shared {
        directory,
        forwarder: Forwarder::new(PathBuf::from(RESOLV_CONF)),
        own,
        connections: Mutex::default(),
    });
    tokio::select! {
        () = serve_udp(&udp, &shared) => {}
        () = serve_tcp(&tcp, &shared) => {}
        () = async { while end.changed().await.is_ok() {} } => {}
    }
    Ok(())
}

async fn serve_udp(socket: &Arc<UdpSocket>, shared: &Arc<Shared>) {
    let mut buffer = [0; LONGEST];
    loop {
        // An error is of one answer that could not be delivered (an ICMP message), and none of ours.
        let Ok((len, peer)) = socket.recv_from(&mut buffer).await else {
            tokio::task::yield_now().await;
            continue;
        };
        let question = &buffer[..len];
        let answer = match shared.plan(peer, question) {
            Plan::Ignore => None,
            Plan::Answer(answer) => Some(answer),
            Plan::Forward {
                bridge,
                longest,
                alias,
            } => match shared.forwarder.admit(bridge) {
                None => failure(question),
                Some(admission) => {
                    let (socket, shared) = (Arc::clone(socket), Arc::clone(shared));
                    let question = question.to_vec();
                    tokio::spawn(async move {
                        let asked = shared.ask(peer, &question, alias, Over::Udp(longest)).await;
                        if let Some(answer) = asked.or_else(|| failure(&question)) {
                            let _ = socket.send_to(&answer, peer).await; // who has gone need not be told
                        }
                        drop(admission);
                    });
                    None
                }
            },
        };
        if let Some(answer) = answer {
            let _ = socket.send_to(&answer, peer).await; // as above
        }
    }
}

async fn serve_tcp(listener: &TcpListener, shared: &Arc<Shared>) {
    loop {
        match listener.accept().await {
            Ok((stream, peer)) => {
                if let Some(place) = Place::take(shared, peer) {
                    tokio::spawn(async move {
                        // Whatever goes wrong with a connection ends it, and the other side sees that.
                        let _ = converse(stream, peer, &place.shared).await;
                        drop(place);
                    });
                }
            }
            Err(_) => tokio::time::sleep(EXHAUSTED_REST).await,
        }
    }
}

/// Answers one question after another until the client has no more.
async fn converse(mut stream: TcpStream, peer: SocketAddr, shared: &Shared) -> io::Result<()> {
    loop {
        let question = tokio::time::timeout(IDLE, read(&mut stream)).await??;
        let answer = match shared.plan(peer, &question) {
            Plan::Ignore => return Ok(()),
            Plan::Answer(answer) => Some(answer),
            Plan::Forward { bridge, alias, .. } => match shared.forwarder.admit(bridge) {
                None => failure(&question),
                Some(_admission) => {
                    let asked = shared.ask(peer, &question, alias, Over::Tcp).await;
                    asked.or_else(|| failure(&question))
                }
            },
        };
        let Some(answer) = answer else { return Ok(()) };
        tokio::time::timeout(IDLE, stream.write_all(&framed(&answer))).await??;
    }
}

async fn read(stream: &mut TcpStream) -> io::Result<Vec<u8>> {
    let len = usize::from(stream.read_u16().await?);
    if len > LONGEST {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let mut question = vec![0; len];
    stream.read_exact(&mut question).await?;
    Ok(question)
}

impl Shared {
    /// Asks the resolvers of `peer`; where a name stands for another one, for that.
    async fn ask(
        &self,
        peer: SocketAddr,
        question: &[u8],
        alias: Option<Alias>,
        over: Over,
    ) -> Option<Vec<u8>> {
        let own = address(peer).and_then(|from| self.own.of(from));
        let Some(alias) = alias else {
            return self.forwarder.ask(question, over, own.as_deref()).await;
        };
        let asked = self.forwarder.ask(&alias.question, over, own.as_deref());
        let found = asked.await?;
        let longest = match over {
            Over::Udp(longest) => Some(longest),
            Over::Tcp => None,
        };
        alias.answer(question, &found, longest)
    }

    fn plan(&self, peer: SocketAddr, question: &[u8]) -> Plan {
        let directory = self.directory.borrow().clone();
        match (directory, address(peer)) {
            (Some(directory), Some(from)) => plan(&directory, from, question),
            _ => Plan::Ignore,
        }
    }
}

fn address(peer: SocketAddr) -> Option<Ipv4Addr> {
    match peer.ip() {
        IpAddr::V4(address) => Some(address),
        IpAddr::V6(_) => None,
    }
}

/// One of the TCP connections that a bridge may have; given back when dropped.
struct Place {
    shared: Arc<Shared>,
    bridge: u8,
}

impl Place {
    /// `None`: it comes from no bridge, or that has enough.
    fn take(shared: &Arc<Shared>, peer: SocketAddr) -> Option<Self> {
        let node = shared.directory.borrow().as_ref()?.node;
        let bridge = node.bridge_of(address(peer)?)?;
        let mut open = shared
            .connections
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let count = open.entry(bridge).or_default();
        if *count >= CONNECTIONS {
            return None;
        }
        *count += 1;
        Some(Self {
            shared: Arc::clone(shared),
            bridge,
        })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let connections = self.shared.connections.lock();
        let mut open = connections.unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = open.get_mut(&self.bridge) {
            *count = count.saturating_sub(1);
        }
    }
}
