//! Phase 1: accept. One task per listening socket of a worker.

use std::collections::HashMap;
use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use layby_model::route::{Protocol, Socket};
use tokio::net::{TcpListener, TcpStream};

use crate::datagram::Incoming;
use crate::errors::{Answer, Manner};
use crate::fatal::FatalPanic;
use crate::route::Entry;
use crate::watchdog::Pulse;
use crate::worker::{Datagrams, Opening, Order, Worker};
use crate::{client, desk, redirected, tcp};

/// Connections from clients that one worker has at a time; more are turned away.
pub(crate) const MAX_CLIENTS: usize = 32_768;
/// How long accepting rests when the process is out of file descriptors.
const EXHAUSTED_REST: Duration = Duration::from_millis(100);

/// The sockets that a worker accepts from.
#[derive(Debug, Default)]
pub(crate) struct Listeners {
    open: HashMap<Socket, Rc<Pulse>>,
}

impl Listeners {
    /// Carries out an order of the table thread.
    pub(crate) fn carry_out(&mut self, worker: &Rc<Worker>, order: Order) {
        match order {
            Order::Open(opening) => self.open(worker, opening),
            Order::OpenDatagrams(datagrams) => self.open_datagrams(worker, datagrams),
            Order::Close(socket) => {
                if let Some(stop) = self.open.remove(&socket) {
                    stop.expire();
                }
            }
        }
    }

    fn open(&mut self, worker: &Rc<Worker>, opening: Opening) {
        let Opening {
            entry,
            socket,
            shared,
            in_use,
        } = opening;
        let socket = match TcpListener::from_std(socket) {
            Ok(socket) => socket,
            Err(error) => {
                return tracing::error!("cannot accept on {}: {error}", entry.addr());
            }
        };
        let stop = Rc::new(Pulse::new());
        let place = Socket {
            addr: entry.addr(),
            is_udp: false,
        };
        self.open.insert(place, Rc::clone(&stop));
        let worker = Rc::clone(worker);
        tokio::task::spawn_local(async move {
            let _fatal = FatalPanic("a gateway task that accepts");
            accept(worker, socket, shared, entry, stop).await;
            drop(in_use);
        });
    }

    fn open_datagrams(&mut self, worker: &Rc<Worker>, opening: Datagrams) {
        let Datagrams {
            addr,
            socket,
            in_use,
        } = opening;
        let socket = match Incoming::new(socket) {
            Ok(socket) => socket,
            Err(error) => return tracing::error!("cannot read from {addr}/udp: {error}"),
        };
        let stop = Rc::new(Pulse::new());
        let place = Socket { addr, is_udp: true };
        self.open.insert(place, Rc::clone(&stop));
        let worker = Rc::clone(worker);
        tokio::task::spawn_local(async move {
            let _fatal = FatalPanic("a gateway task that takes datagrams");
            desk::serve(worker, socket, addr, &stop).await;
            drop(in_use);
        });
    }

    /// Closes all.
    pub(crate) fn close_all(&mut self) {
        for (_, stop) in self.open.drain() {
            stop.expire();
        }
    }
}

/// `shared`: what is not accepted waits for the next gateway.
async fn accept(
    worker: Rc<Worker>,
    socket: TcpListener,
    shared: bool,
    entry: Entry,
    stop: Rc<Pulse>,
) {
    loop {
        let next = poll_fn(|cx| {
            stop.set_waker(cx);
            if shared && worker.shared.is_stopping() {
                return Poll::Ready(None);
            }
            match socket.poll_accept(cx) {
                Poll::Ready(accepted) => Poll::Ready(Some(accepted)),
                // Only now: connections that the kernel has already taken for us would be reset.
                Poll::Pending if stop.is_expired() => Poll::Ready(None),
                Poll::Pending => Poll::Pending,
            }
        });
        match next.await {
            None => return,
            Some(Ok((stream, peer))) => serve(&worker, stream, peer, entry),
            Some(Err(error)) if is_of_one_connection(&error) => {}
            Some(Err(error)) => {
                tracing::warn!("cannot accept: {error}; raise the limit of open files");
                tokio::time::sleep(EXHAUSTED_REST).await;
            }
        }
    }
}

/// Whether the error concerns only a connection that was gone before it was accepted (accept(2)).
fn is_of_one_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionRefused
            | io::ErrorKind::Interrupted
    )
}

fn serve(worker: &Rc<Worker>, stream: TcpStream, peer: SocketAddr, entry: Entry) {
    let (entry, protocol) = match entry {
        Entry::Hosts(_) => (entry, Protocol::Http),
        Entry::Port(addr) => match worker.view().listener(&addr) {
            Some((listener, _)) => (entry, listener.protocol),
            None => return, // withdrawn since
        },
        Entry::Virtual(_) => {
            let Ok(addr) = redirected::destination(&stream) else {
                return; // gone already
            };
            match worker.view().virtual_port(addr) {
                Some((port, _)) => (Entry::Virtual(addr), port.protocol),
                None => return, // it was not redirected, or its service is gone
            }
        }
    };
    if worker.watchdog.len() >= MAX_CLIENTS {
        if protocol == Protocol::Http {
            let _ = stream.try_write(&Answer::busy().render(Manner::default())); // as far as it goes
        }
        return;
    }
    let worker = Rc::clone(worker);
    match protocol {
        Protocol::Http => tokio::task::spawn_local(client::serve(worker, stream, peer, entry)),
        // No connection comes in on a port for datagrams.
        Protocol::Tcp | Protocol::Udp => {
            tokio::task::spawn_local(tcp::serve(worker, stream, entry))
        }
    };
}
