//! The data plane: accepts connections, holds what must wait, balances and forwards the rest.
//!
//! The gateway serves a snapshot of the newest [`RouteTable`] and never calls the control plane: it tells
//! what it applied ([`Confirmed`]), what waits ([`Demand`]) and what passed ([`Traffic`]), and that is all.
//!
//! Each worker thread is a world of its own: a runtime, `SO_REUSEPORT` listeners, a pool of upstream
//! connections, a free list of buffers. A request is served by one task on one worker from first byte to
//! last, in the order of these phases, one file each: [`accept`], [`route`], [`hold`], [`balance`],
//! [`forward`], [`retry`], [`finish`]. A TCP connection is a [`tunnel`], and the datagrams of one client to one UDP port are a
//! [`flow`], which a [`desk`] keeps apart from those of others.

mod accept;
mod balance;
mod buffer;
mod client;
mod clock;
pub mod codec;
mod datagram;
mod desk;
mod error;
mod errors;
mod exchange;
mod fatal;
mod finish;
mod flow;
mod follow;
mod forward;
mod handed;
mod hold;
mod io;
mod line;
mod link;
mod listen;
mod load;
mod overhear;
mod parcel;
mod path;
mod pool;
mod portowner;
mod redirected;
mod retry;
mod route;
mod service;
mod slot;
mod snapshot;
mod table_file;
mod tcp;
mod tunnel;
mod watchdog;
mod worker;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use layby_model::ServiceId;
use layby_model::route::{Confirmed, Demand, RouteTable, Traffic};
use tokio::sync::watch;

use service::lock;

pub use error::Error;
pub use handed::{Handed, Keep, Keeper};

/// How to run a gateway.
#[derive(Debug)]
pub struct GatewayConfig {
    /// Where to listen for HTTP requests that are routed by host name; port 0 takes a free one.
    pub http: SocketAddr,
    /// How many worker threads; 0 counts as 1.
    pub workers: usize,
    /// Where the newest table is kept, so that the next start opens with it. Beside it, with the extension `port`, the
    /// port for connections to virtual addresses.
    pub table_file: PathBuf,
    /// Sockets to use instead of opening some.
    pub handed: Handed,
}

/// The wires to the control plane. All of them are levels: only the newest value counts.
#[derive(Debug)]
pub struct Wires {
    /// Routing tables in. One with version (0, 0) means "none yet" and is ignored.
    pub tables: watch::Receiver<Arc<RouteTable>>,
    /// Out: the newest table that is served by and on disk.
    pub confirmed: watch::Sender<Confirmed>,
    /// Out: how much is waiting.
    pub demand: watch::Sender<Demand>,
}

/// A running gateway. Dropping it stops it.
#[derive(Debug)]
pub struct Gateway {
    shared: Arc<worker::Shared>,
    http: SocketAddr,
    virtual_port: u16,
    /// Empty once it was stopped.
    threads: Mutex<Threads>,
}

/// The threads of a gateway.
#[derive(Debug, Default)]
struct Threads {
    workers: Vec<JoinHandle<()>>,
    /// Follows the tables, until the workers have ended.
    follower: Option<JoinHandle<()>>,
}

impl Gateway {
    /// Opens the HTTP address, and all that the table of the last run asks for; returns once it accepts.
    ///
    /// A table file that cannot be read is ignored with a warning; so are listeners of it that cannot be
    /// opened, until the first table of this run reports them.
    ///
    /// # Errors
    /// [`Error::Listen`] when the HTTP address is taken, or no port is free for virtual addresses;
    /// [`Error::Thread`] when no thread can be started.
    pub fn start(config: GatewayConfig, wires: Wires) -> Result<Self, Error> {
        worker::start(config, wires)
    }

    /// What went through to `service`, read now: in flight first, then uses.
    pub fn traffic(&self, service: &ServiceId) -> Traffic {
        self.shared.traffic(service)
    }

    /// Where it listens for HTTP: the real port when 0 was asked for.
    pub fn http_addr(&self) -> SocketAddr {
        self.http
    }

    /// The port to which connections to virtual addresses are to be redirected (`SO_ORIGINAL_DST` tells where they were
    /// going). It is open on all addresses of the machine, and closes connections that were not redirected.
    pub fn virtual_port(&self) -> u16 {
        self.virtual_port
    }

    /// From now on nothing is sent to a replica that is not on its way to one already: held requests and new ones are answered
    /// 503, whatever tables come, and connections that speak no HTTP are closed. What is in flight goes on.
    pub fn turn_away(&self) {
        self.shared.turn_away();
    }

    /// Stops accepting, closes idle connections, gives what is in flight or held a moment to finish (5 s,
    /// with new tables if there are any), and ends the threads. Blocks. Once it was stopped, stopping does
    /// nothing.
    pub fn stop(&self) {
        self.shared.stop();
        let Threads { workers, follower } = std::mem::take(&mut *lock(&self.threads));
        // None has panicked: that aborts the process.
        for worker in workers {
            let _ = worker.join();
        }
        self.shared.stopped.notify_one();
        if let Some(follower) = follower {
            let _ = follower.join();
        }
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        self.stop();
    }
}
