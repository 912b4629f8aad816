//! Questions that others can answer: passed on to the machine's resolvers, or to those of who asks, and their answers back, as
//! they are.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, UdpSocket};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::own::Own;
use super::resolvers::Resolvers;
use crate::namespace;

/// So many questions may be on their way at a time, of one bridge and of all.
const OF_ONE: usize = 64;
const OF_ALL: usize = 512;
/// How long one resolver may take. Who asks gives up after 5 s (resolv.conf(5)).
const PATIENCE: Duration = Duration::from_millis(1500);
/// A single resolver is asked twice: UDP may lose a packet.
const LEAST_TRIES: usize = 2;
/// The longest answer that is taken over UDP, in bytes.
const LONGEST_UDP: usize = 16 * 1024;
/// Where name servers listen.
const PORT: u16 = 53;
/// A message's header (RFC 1035, section 4.1.1), and in it: the flag TC, and the response codes SERVFAIL and REFUSED.
const HEADER: usize = 12;
const TRUNCATED: u8 = 0x02;
const SERVFAIL: u8 = 2;
const REFUSED: u8 = 5;

/// Passes questions on.
#[derive(Debug)]
pub(crate) struct Forwarder {
    resolvers: Mutex<Resolvers>,
    all: Arc<Semaphore>,
    by_bridge: Mutex<BTreeMap<u8, Arc<Semaphore>>>,
}

/// The right to have one question on its way.
#[derive(Debug)]
pub(crate) struct Admission {
    _of_all: OwnedSemaphorePermit,
    _of_one: OwnedSemaphorePermit,
}

/// How a question came, and how its answer goes back.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Over {
    /// With the longest answer that may be sent, in bytes.
    Udp(usize),
    Tcp,
}

impl Forwarder {
    /// To the resolvers that the file at `resolv_conf` names.
    pub(crate) fn new(resolv_conf: PathBuf) -> Self {
        Self {
            resolvers: Mutex::new(Resolvers::of(resolv_conf)),
            all: Arc::new(Semaphore::new(OF_ALL)),
            by_bridge: Mutex::default(),
        }
    }

    /// Admits a question from a bridge; `None`: too many are on their way.
    pub(crate) fn admit(&self, bridge: u8) -> Option<Admission> {
        let mut bridges = self
            .by_bridge
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let new = || Arc::new(Semaphore::new(OF_ONE));
        let bridge = Arc::clone(bridges.entry(bridge).or_insert_with(new));
        Some(Admission {
            _of_one: bridge.try_acquire_owned().ok()?,
            _of_all: Arc::clone(&self.all).try_acquire_owned().ok()?,
        })
    }

    /// Asks the resolvers in turn, the machine's or somebody's `own`; `None`: none of them answered.
    pub(crate) async fn ask(
        &self,
        question: &[u8],
        over: Over,
        own: Option<&Own>,
    ) -> Option<Vec<u8>> {
        let servers = self.servers(own);
        let tries = servers.len().max(LEAST_TRIES);
        let mut poor = None;
        for server in servers.iter().cycle().take(tries) {
            let answer = match over {
                Over::Udp(longest) => ask_udp(*server, question, longest).await,
                Over::Tcp => ask_tcp(*server, question).await,
            };
            match answer {
                // Another one may know more.
                Ok(answer) if matches!(answer[3] & 0x0f, SERVFAIL | REFUSED) => poor = Some(answer),
                Ok(answer) => return Some(answer),
                Err(error) => {
                    tracing::debug!(server = %server.at, %error, "a resolver did not answer");
                }
            }
        }
        poor
    }

    fn servers<'a>(&self, own: Option<&'a Own>) -> Vec<Server<'a>> {
        let machines = match own {
            Some(own) if !own.servers.after_machines => Vec::new(),
            Some(_) | None => {
                let resolvers = self.resolvers.lock();
                let mut resolvers = resolvers.unwrap_or_else(PoisonError::into_inner);
                resolvers.servers().to_vec()
            }
        };
        let machines = machines.into_iter().map(|at| Server { at, netns: None });
        let own = own.into_iter().flat_map(|own| {
            let addresses = own.servers.addresses.iter();
            addresses.map(|address| Server {
                at: SocketAddr::new(*address, PORT),
                netns: Some(&own.netns),
            })
        });
        machines.chain(own).collect()
    }
}

/// Who is asked, and from where.
#[derive(Debug, Clone, Copy)]
struct Server<'a> {
    at: SocketAddr,
    /// `None`: from the machine.
    netns: Option<&'a Path>,
}

async fn ask_udp(server: Server<'_>, question: &[u8], longest: usize) -> io::Result<Vec<u8>> {
    let at = server.at;
    let any: IpAddr = match at {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    // A socket, and so a port, of its own: with the id of the question it is what a forger would have to guess.
    let made = made_in(server.netns, move || {
        let socket = std::net::UdpSocket::bind((any, 0))?;
        socket.set_nonblocking(true)?;
        socket.connect(at)?;
        Ok(socket)
    });
    let socket = UdpSocket::from_std(made.await?)?;
    socket.send(question).await?;
    let received = tokio::time::timeout(PATIENCE, async {
        let mut answer = vec![0; LONGEST_UDP];
        loop {
            let len = socket.recv(&mut answer).await?;
            if answers(question, &answer[..len]) {
                answer.truncate(len);
                return io::Result::Ok(answer);
            }
        }
    });
    let answer = received.await??;
    if answer[2] & TRUNCATED == 0 {
        return Ok(answer);
    }
    match ask_tcp(server, question).await {
        Ok(whole) if whole.len() <= longest => Ok(whole),
        // Then whoever asked asks again over TCP.
        Ok(_) | Err(_) => Ok(answer),
    }
}

async fn ask_tcp(server: Server<'_>, question: &[u8]) -> io::Result<Vec<u8>> {
    let at = server.at;
    let made = made_in(server.netns, move || match at {
        SocketAddr::V4(_) => TcpSocket::new_v4(),
        SocketAddr::V6(_) => TcpSocket::new_v6(),
    });
    let socket = made.await?;
    let asked = tokio::time::timeout(PATIENCE, async {
        let mut stream = socket.connect(at).await?;
        stream.write_all(&framed(question)).await?;
        let len = stream.read_u16().await?;
        let mut answer = vec![0; usize::from(len)];
        stream.read_exact(&mut answer).await?;
        io::Result::Ok(answer)
    });
    let answer = asked.await??;
    match answers(question, &answer) {
        true => Ok(answer),
        false => Err(io::Error::other("it answered another question")),
    }
}

/// Makes a socket in a network namespace, where it stays (network_namespaces(7)): on a thread of its own, which ends there.
async fn made_in<T: Send + 'static>(
    netns: Option<&Path>,
    make: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    let Some(netns) = netns else {
        return make();
    };
    let (send, receive) = tokio::sync::oneshot::channel();
    let netns = netns.to_owned();
    let thread = std::thread::Builder::new().name("dns-netns".to_owned());
    thread.spawn(move || {
        // An error means that nobody waits for it any more.
        let _ = send.send(namespace::enter(&netns).and_then(|()| make()));
    })?;
    let made = receive.await;
    made.unwrap_or_else(|_| Err(io::Error::other("the thread ended early")))
}

/// A message as it goes over TCP: after its length (RFC 1035, section 4.2.2).
pub(crate) fn framed(message: &[u8]) -> Vec<u8> {
    let len = u16::try_from(message.len()).unwrap_or(u16::MAX);
    let mut framed = len.to_be_bytes().to_vec();
    framed.extend_from_slice(&message[..usize::from(len)]);
    framed
}

/// Whether `answer` is one to `question`: the same id, marked as an answer, and the same name asked for, in whatever
/// case. An answer without the question is taken: some errors come so.
fn answers(question: &[u8], answer: &[u8]) -> bool {
    if answer.len() < HEADER || question.len() < HEADER {
        return false;
    }
    let same_id = answer[..2] == question[..2];
    let is_answer = answer[2] & 0x80 != 0;
    let count = u16::from_be_bytes([answer[4], answer[5]]);
    let end = name_end(question).unwrap_or(question.len());
    let same_name = count == 0
        || answer
            .get(HEADER..end)
            .is_some_and(|name| name.eq_ignore_ascii_case(&question[HEADER..end]));
    same_id && is_answer && same_name
}

/// Where the first question of a message ends: after its name, type and class.
fn name_end(message: &[u8]) -> Option<usize> {
    let mut at = HEADER;
    loop {
        let len = usize::from(*message.get(at)?);
        at += 1 + len;
        if len == 0 {
            return (at + 4 <= message.len()).then_some(at + 4);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A question for `a.b`, type A, with the id 7.
    const QUESTION: &[u8] =
        b"\x00\x07\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x01a\x01b\x00\x00\x01\x00\x01";

    #[test]
    fn only_an_answer_to_the_question_is_taken() {
        let mut answer = QUESTION.to_vec();
        assert!(!answers(QUESTION, &answer), "it is no answer");
        answer[2] |= 0x80;
        assert!(answers(QUESTION, &answer));
        answer[13] = b'A';
        assert!(answers(QUESTION, &answer), "case does not matter");
        answer[13] = b'x';
        assert!(!answers(QUESTION, &answer), "another name");
        answer[13] = b'a';
        answer[1] = 8;
        assert!(!answers(QUESTION, &answer), "another id");
        assert!(!answers(QUESTION, b"\x00\x07\x81"));
    }

    #[test]
    fn so_many_questions_of_a_bridge_are_on_their_way_and_no_more() {
        let forwarder = Forwarder::new(PathBuf::new());
        let admitted: Vec<Admission> = std::iter::from_fn(|| forwarder.admit(1)).collect();
        assert_eq!(admitted.len(), OF_ONE);
        assert!(forwarder.admit(2).is_some(), "another one is not hindered");
        drop(admitted);
        assert!(forwarder.admit(1).is_some());
    }
}
