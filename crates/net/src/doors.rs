//! Opens and closes doors by netlink itself: it is done whenever an app comes or goes, and nft(8) takes 10 ms to start and
//! to read what stands there.
//!
//! The messages are those of linux/netfilter/nfnetlink.h and nf_tables.h: a batch, which is carried out whole or not at all.

use std::fmt::{self, Debug, Formatter};
use std::io;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use rtnetlink::sys::protocols::NETLINK_NETFILTER;
use rtnetlink::sys::{AsyncSocket, AsyncSocketExt, SocketAddr, TokioSocket};
use tokio::time::timeout;

use crate::fence::{Datagrams, Door, Gaps};
use crate::names::Names;

const NLMSG_ERROR: u16 = 2;
const NLM_F_REQUEST: u16 = 0x1;
const NLM_F_ACK: u16 = 0x4;
const NLM_F_CREATE: u16 = 0x400;
const NLA_F_NESTED: u16 = 0x8000;

const NFNL_MSG_BATCH_BEGIN: u16 = 0x10;
const NFNL_MSG_BATCH_END: u16 = 0x11;
const NFNL_SUBSYS_NFTABLES: u16 = 10;
const NFT_MSG_NEWSETELEM: u16 = NFNL_SUBSYS_NFTABLES << 8 | 12;
const NFT_MSG_DELSETELEM: u16 = NFNL_SUBSYS_NFTABLES << 8 | 14;
const NFPROTO_IPV4: u8 = 2;

const NFTA_SET_ELEM_LIST_TABLE: u16 = 1;
const NFTA_SET_ELEM_LIST_SET: u16 = 2;
const NFTA_SET_ELEM_LIST_ELEMENTS: u16 = 3;
const NFTA_LIST_ELEM: u16 = 1;
const NFTA_SET_ELEM_KEY: u16 = 1;
const NFTA_DATA_VALUE: u16 = 1;

/// The bytes of a device's name in a key (`IFNAMSIZ`).
const NAME_LEN: usize = 16;
/// Doors in one message: the length of an attribute has 16 bits.
const AT_ONCE: usize = 500;
/// The kernel answers before the request has returned; this is for one that does not.
const PATIENCE: Duration = Duration::from_secs(5);
/// What is read of the kernel's answers at a time.
const ANSWERS: usize = 64 * 1024;

/// A socket by which doors are opened and closed.
pub(crate) struct Doors {
    socket: TokioSocket,
    /// The kernel's name for the socket, and for who makes its changes.
    pub(crate) port: u32,
    /// The number of the last change (`nlmsg_seq`), which its answers bear.
    last: AtomicU32,
}

impl Debug for Doors {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let port = self.port;
        f.debug_struct("Doors").field("port", &port).finish()
    }
}

impl Doors {
    pub(crate) fn connect() -> io::Result<Self> {
        let mut socket = TokioSocket::new(NETLINK_NETFILTER)?;
        let port = socket.socket_mut().bind_auto()?.port_number();
        let last = AtomicU32::new(0);
        Ok(Self { socket, port, last })
    }

    /// Opens and closes what makes `now` of `before`, at one moment. To open what is open is fine; to close what is not is
    /// an error, and then nothing is done.
    pub(crate) async fn change(&self, names: &Names, before: &Gaps, now: &Gaps) -> io::Result<()> {
        let number = self.last.fetch_add(1, Ordering::Relaxed).wrapping_add(1);
        let without = |these: &Gaps, those: &Gaps| {
            let doors = these.doors.difference(&those.doors);
            let doors: Vec<Vec<u8>> = doors.map(|door| door_key(names, door)).collect();
            let datagrams = these.datagrams.difference(&those.datagrams);
            let datagrams: Vec<Vec<u8>> = datagrams.map(datagrams_key).collect();
            [("doors", doors), ("datagrams", datagrams)]
        };
        let close = without(before, now).map(|of| (NFT_MSG_DELSETELEM, of));
        let open = without(now, before).map(|of| (NFT_MSG_NEWSETELEM, of));
        let all = close.into_iter().chain(open);
        let messages: Vec<Vec<u8>> = all
            .flat_map(|(kind, (set, keys))| messages(number, kind, names, set, &keys))
            .collect();
        let mut batch = message(number, NFNL_MSG_BATCH_BEGIN, 0, &[]);
        batch.extend(messages.concat());
        batch.extend(message(number, NFNL_MSG_BATCH_END, 0, &[]));
        let kernel = SocketAddr::new(0, 0);
        self.socket.send_to(&batch, &kernel).await?;
        let answered = timeout(PATIENCE, self.read_answers(number, messages.len()));
        answered.await.unwrap_or_else(|_| {
            let text = "the kernel does not answer";
            Err(io::Error::new(io::ErrorKind::TimedOut, text))
        })
    }

    /// Reads as many answers to the change with this number, or the first that says no.
    async fn read_answers(&self, number: u32, mut wanted: usize) -> io::Result<()> {
        while wanted > 0 {
            let mut answers = Vec::with_capacity(ANSWERS);
            self.socket.recv(&mut answers).await?;
            let mut rest = answers.as_slice();
            while let Some((answer, next)) = first(rest) {
                rest = next;
                // What an earlier change left unread, because it was refused or not waited for, says nothing of this one.
                match answer.filter(|answer| answer.to == number) {
                    None => {}
                    Some(Answer { code: 0, .. }) => wanted = wanted.saturating_sub(1),
                    Some(Answer { code, .. }) => {
                        return Err(io::Error::from_raw_os_error(code.saturating_neg()));
                    }
                }
            }
        }
        Ok(())
    }
}

/// What the kernel says to a message (`struct nlmsgerr`).
#[derive(Debug, PartialEq, Eq)]
struct Answer {
    /// The number that the message bore.
    to: u32,
    /// 0: it is done; else an errno, negated.
    code: i32,
}

/// The first message of `bytes` (`struct nlmsghdr`), if it is an answer, and what comes after it.
fn first(bytes: &[u8]) -> Option<(Option<Answer>, &[u8])> {
    let length = u32::from_ne_bytes(*bytes.first_chunk()?) as usize;
    let kind = u16::from_ne_bytes(*bytes.get(4..)?.first_chunk()?);
    let to = u32::from_ne_bytes(*bytes.get(8..)?.first_chunk()?);
    let payload = bytes.get(16..length)?;
    let code = payload.first_chunk().filter(|_| kind == NLMSG_ERROR);
    let answer = code.map(|code| Answer {
        to,
        code: i32::from_ne_bytes(*code),
    });
    let rest = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
    Some((answer, rest))
}

/// Who made the change that the first message of `bytes` tells of: the port of a socket.
pub(crate) fn changed_by(bytes: &[u8]) -> Option<u32> {
    Some(u32::from_ne_bytes(*bytes.get(12..)?.first_chunk()?))
}

fn messages(number: u32, kind: u16, names: &Names, set: &str, keys: &[Vec<u8>]) -> Vec<Vec<u8>> {
    let elements: Vec<Vec<u8>> = keys.iter().map(|key| element(key)).collect();
    let head = [
        attribute(NFTA_SET_ELEM_LIST_TABLE, &text(&names.table)),
        attribute(NFTA_SET_ELEM_LIST_SET, &text(set)),
    ]
    .concat();
    let chunks = elements.chunks(AT_ONCE).map(<[_]>::concat);
    let message = |elements: Vec<u8>| {
        let elements = attribute(NFTA_SET_ELEM_LIST_ELEMENTS | NLA_F_NESTED, &elements);
        message(
            number,
            kind,
            NFPROTO_IPV4,
            &[head.as_slice(), &elements].concat(),
        )
    };
    chunks.map(message).collect()
}

/// A door as the key of an element: the bridge's name and the address, one after the other.
fn door_key(names: &Names, (number, address): &Door) -> Vec<u8> {
    let mut key = names.bridge(*number).into_bytes();
    key.resize(NAME_LEN, 0);
    key.extend(address.octets());
    key
}

/// A UDP port of an address as the key of an element: each part takes whole words of 32 bits.
fn datagrams_key((address, port): &Datagrams) -> Vec<u8> {
    let mut key = address.octets().to_vec();
    key.extend(port.to_be_bytes());
    key.extend([0; 2]);
    key
}

fn element(key: &[u8]) -> Vec<u8> {
    let value = attribute(NFTA_DATA_VALUE, key);
    let key = attribute(NFTA_SET_ELEM_KEY | NLA_F_NESTED, &value);
    attribute(NFTA_LIST_ELEM | NLA_F_NESTED, &key)
}

fn text(text: &str) -> Vec<u8> {
    [text.as_bytes(), b"\0"].concat()
}

/// `struct nlattr`, and what it says. It must have less than 64 KiB.
fn attribute(kind: u16, payload: &[u8]) -> Vec<u8> {
    let length = u16::try_from(4 + payload.len()).unwrap_or(u16::MAX);
    let mut bytes = [length.to_ne_bytes(), kind.to_ne_bytes()].concat();
    bytes.extend(payload);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
}

/// `struct nlmsghdr`, `struct nfgenmsg`, and what they say. All messages of a change bear its number. What is not a part of the batch's frame asks for an answer.
fn message(number: u32, kind: u16, family: u8, payload: &[u8]) -> Vec<u8> {
    let frame = matches!(kind, NFNL_MSG_BATCH_BEGIN | NFNL_MSG_BATCH_END);
    let (flags, subsystem) = match frame {
        true => (NLM_F_REQUEST, NFNL_SUBSYS_NFTABLES),
        false => (NLM_F_REQUEST | NLM_F_ACK | NLM_F_CREATE, 0),
    };
    let length = u32::try_from(20 + payload.len()).unwrap_or(u32::MAX);
    let mut bytes = Vec::with_capacity(20 + payload.len());
    bytes.extend(length.to_ne_bytes());
    bytes.extend(kind.to_ne_bytes());
    bytes.extend(flags.to_ne_bytes());
    bytes.extend(number.to_ne_bytes());
    // No port: the kernel knows the socket.
    bytes.extend([0; 4]);
    bytes.extend([family, 0]);
    bytes.extend(subsystem.to_be_bytes());
    bytes.extend(payload);
    bytes
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::net::Ipv4Addr;

    use nix::sched::{CloneFlags, unshare};

    use super::*;
    use crate::nft;

    #[tokio::test]
    async fn each_change_gets_its_own_answer_also_after_one_that_was_refused() {
        // The test's thread alone is in there, and all that it starts.
        if let Err(error) = unshare(CloneFlags::CLONE_NEWNET) {
            println!("SKIPPED: no network namespace of our own: {error}");
            return;
        }
        let names = Names::new("doors").expect("a name");
        let table = &names.table;
        let set = format!(
            "table ip {table} {{\nset doors {{\ntype ifname . ipv4_addr\n}}\n\
             set datagrams {{\ntype ipv4_addr . inet_service\n}}\n}}\n"
        );
        nft::run("make a set", &set).await.expect("a set");
        let doors = Doors::connect().expect("a socket");
        let none = Gaps::default();
        let some = |count: usize| -> Gaps {
            let doors: BTreeSet<Door> = (0..count as u32)
                .map(|n| (1, Ipv4Addr::from(0x0a01_0000 + n)))
                .collect();
            let datagrams = doors.iter().map(|(_, address)| (*address, 53)).collect();
            Gaps { doors, datagrams }
        };
        // Several messages, and each of them is refused: more answers than are waited for.
        let many = some(3 * AT_ONCE);
        for _ in 0..2 {
            let refused = doors.change(&names, &many, &none).await;
            assert_eq!(
                refused.map_err(|error| error.raw_os_error()),
                Err(Some(nix::errno::Errno::ENOENT as i32))
            );
            doors.change(&names, &none, &some(1)).await.expect("open");
            doors.change(&names, &some(1), &none).await.expect("shut");
        }
        // One that nobody waited for says nothing of the next.
        let lost = Duration::ZERO;
        let _ = timeout(lost, doors.change(&names, &none, &some(1))).await;
        let twice = doors.change(&names, &many, &none).await;
        assert!(twice.is_err(), "only one of many is open");
        doors.change(&names, &none, &many).await.expect("open all");
        doors.change(&names, &many, &none).await.expect("shut all");
        let two = [
            (Ipv4Addr::new(10, 1, 0, 7), 53),
            (Ipv4Addr::new(10, 1, 0, 9), 5353),
        ];
        let two = Gaps {
            doors: BTreeSet::new(),
            datagrams: two.into(),
        };
        doors.change(&names, &none, &two).await.expect("open two");
        let listed = nft::list(&["set", "ip", table, "datagrams"]).await;
        let shown = serde_json::to_string(&listed).expect("JSON");
        for pair in ["[\"10.1.0.7\",53]", "[\"10.1.0.9\",5353]"] {
            assert!(shown.contains(pair), "{shown}");
        }
    }
}
