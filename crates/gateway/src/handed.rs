//! Listening sockets that somebody else holds as well: what comes while no gateway runs waits in them.
//!
//! A parent hands some down (`systemd.socket(5)`). Others are opened here, given to a keeper, and handed down by it at
//! the next start. Either way there is one socket to an address, of which all workers accept.

use std::collections::HashMap;
use std::fmt;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Mutex;

use nix::sys::socket::{getsockopt, sockopt};

use crate::listen::{self, Sockets};
use crate::service::lock;

/// What a keeper is told.
#[derive(Debug)]
pub enum Keep<'s> {
    /// Hold this socket too.
    Hold(SocketAddr, &'s TcpListener),
    /// Let go of the socket of this address.
    LetGo(SocketAddr),
}

/// Whoever holds sockets while no gateway runs.
pub type Keeper = Box<dyn Fn(Keep<'_>) + Send + Sync>;

/// The sockets that were handed down, and the keeper of those to come.
#[derive(Default)]
pub struct Handed {
    held: Mutex<HashMap<SocketAddr, Held>>,
    keeper: Option<Keeper>,
}

/// One socket that somebody else holds, too.
#[derive(Debug)]
struct Held {
    socket: TcpListener,
    /// The keeper has it, and lets go of it when it is no longer needed; else the parent does as it likes.
    kept: bool,
    used: bool,
}

impl Handed {
    /// Sockets of a parent, those that the keeper held since the last run, and the keeper.
    pub fn new(parents: Vec<TcpListener>, kept: Vec<TcpListener>, keeper: Option<Keeper>) -> Self {
        let parents = parents.into_iter().map(|socket| (socket, false));
        let kept = kept.into_iter().map(|socket| (socket, true));
        let held = parents.chain(kept).filter_map(|(socket, kept)| {
            let addr = socket.local_addr().ok()?;
            let used = false;
            Some((addr, Held { socket, kept, used }))
        });
        Self {
            held: Mutex::new(held.collect()),
            keeper,
        }
    }

    /// Opens `addr` for `count` workers: the socket that was handed down for it, or a new one that the keeper is given,
    /// or without a keeper one for each worker.
    pub(crate) fn open(&self, addr: SocketAddr, count: usize) -> io::Result<Sockets> {
        let mut held = lock(&self.held);
        if let Some(held) = find(&mut held, addr) {
            held.used = true;
            return shared(addr, &held.socket, count);
        }
        let Some(keeper) = &self.keeper else {
            return listen::open(addr, count);
        };
        let (addr, socket) = listen::open_one(addr)?;
        let sockets = shared(addr, &socket, count)?;
        keeper(Keep::Hold(addr, &socket));
        let (kept, used) = (true, true);
        held.insert(addr, Held { socket, kept, used });
        Ok(sockets)
    }

    /// The address is no longer listened on. A parent's socket stays: what comes waits until it is again.
    pub(crate) fn close(&self, addr: SocketAddr) {
        let mut held = lock(&self.held);
        if let Some(one) = find(&mut held, addr) {
            one.used = false;
        }
        drop(held);
        self.let_go_of_unused();
    }

    /// Closes what the keeper held and nobody has asked for.
    pub(crate) fn let_go_of_unused(&self) {
        let Some(keeper) = &self.keeper else { return };
        let mut held = lock(&self.held);
        for (addr, _) in held.extract_if(|_, held| held.kept && !held.used) {
            keeper(Keep::LetGo(addr));
        }
    }
}

impl fmt::Debug for Handed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Handed")
            .field("held", &self.held)
            .finish_non_exhaustive()
    }
}

/// The socket that listens on `addr`; one on all addresses of both kinds stands for all of IPv4, too.
fn find(held: &mut HashMap<SocketAddr, Held>, addr: SocketAddr) -> Option<&mut Held> {
    let both = SocketAddr::from(([0; 8], addr.port()));
    let stands = !held.contains_key(&addr) && addr.is_ipv4() && addr.ip().is_unspecified();
    held.get_mut(if stands { &both } else { &addr })
}

/// `count` handles of one socket.
fn shared(addr: SocketAddr, socket: &TcpListener, count: usize) -> io::Result<Sockets> {
    if !getsockopt(socket, sockopt::AcceptConn)? {
        return Err(io::Error::other(
            "the socket that was handed down does not listen",
        ));
    }
    listen::set_options(socket)?;
    socket.set_nonblocking(true)?;
    let sockets = (0..count).map(|_| socket.try_clone());
    Ok(Sockets {
        addr,
        sockets: sockets.collect::<io::Result<_>>()?,
        shared: true,
    })
}
