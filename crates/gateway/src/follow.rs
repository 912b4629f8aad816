//! Follows the routing tables: serve by the newest at once, then open its ports, write it down, confirm it.
//!
//! Waking waits for nothing here but the swap. The confirmation waits for the disk, and until no worker
//! holds an idle connection to a replica that was withdrawn, because control freezes replicas by it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use layby_model::fail::{self, Point};
use layby_model::route::{Confirmed, Listener, RouteTable, Socket, Version};
use tokio::sync::watch;

use crate::handed::Handed;
use crate::route::Entry;
use crate::snapshot::listeners;
use crate::worker::{Datagrams, InUse, Order, Shared};
use crate::{datagram, listen, table_file};

/// How long after a failure the table is written again.
const REWRITE: Duration = Duration::from_secs(1);
/// How long after that listeners that could not be opened are tried again.
const REOPEN: Duration = Duration::from_secs(2);
/// How long a worker may take to take up a table before that is warned of.
const SLOW: Duration = Duration::from_secs(5);
/// How often is looked whether a port is closed that is to be opened again.
const CLOSING: Duration = Duration::from_millis(1);

/// The follower: runs on a thread of its own.
pub(crate) struct Follower {
    pub(crate) shared: Arc<Shared>,
    pub(crate) tables: watch::Receiver<Arc<RouteTable>>,
    pub(crate) confirmed: watch::Sender<Confirmed>,
    pub(crate) table_file: PathBuf,
    pub(crate) ports: Ports,
}

/// A table that is served by.
#[derive(Debug, Clone, Default)]
struct Served {
    generation: u64,
    table: Arc<RouteTable>,
}

impl Follower {
    /// Follows until the gateway stops, or nobody can send tables any more.
    pub(crate) async fn run(self) {
        let Self {
            shared,
            mut tables,
            confirmed,
            table_file,
            mut ports,
        } = self;
        let (serve, mut served) = watch::channel(Served::default());
        let swap = async {
            tables.mark_changed(); // look at the value that is there already
            while tables.changed().await.is_ok() {
                let table = Arc::clone(&tables.borrow_and_update());
                if table.version != Version::default() {
                    let generation = shared.swap(&table);
                    serve.send_replace(Served { generation, table });
                }
            }
            std::future::pending::<()>().await;
        };
        let confirm = async {
            let mut newest = Served::default();
            let mut failed: Vec<Failed> = Vec::new();
            loop {
                // A port may be freed at any time, and nobody tells: only while one is missed is it looked.
                let again = tokio::select! {
                    changed = served.changed() => match changed {
                        Ok(()) => false,
                        Err(_) => break,
                    },
                    () = tokio::time::sleep(REOPEN), if !failed.is_empty() => true,
                };
                if !again {
                    newest = served.borrow_and_update().clone();
                }
                let Served { generation, table } = &newest;
                let failed_now;
                (ports, failed_now) = open_ports(ports, &shared, table).await;
                ports.handed.let_go_of_unused(); // what the last run's table had is known to be in use, or gone
                if again {
                    if failed_now == failed {
                        continue;
                    }
                } else {
                    fail::at(Point::AfterSwap);
                    if !write(&table_file, table, &served).await {
                        continue;
                    }
                    taken_up(&shared, *generation).await;
                }
                failed.clone_from(&failed_now);
                confirmed.send_replace(Confirmed {
                    version: table.version,
                    failed_listeners: failed_now,
                });
            }
        };
        tokio::select! {
            () = swap => {}
            () = confirm => {}
            () = shared.stopped.notified() => {}
        }
    }
}

/// A listener that could not be opened, and why.
type Failed = (Listener, String);

/// Opens and closes ports off this thread, where swaps happen: finding out who holds a port takes time.
async fn open_ports(
    mut ports: Ports,
    shared: &Arc<Shared>,
    table: &Arc<RouteTable>,
) -> (Ports, Vec<Failed>) {
    let (shared, table) = (Arc::clone(shared), Arc::clone(table));
    let opening = tokio::task::spawn_blocking(move || {
        let failed = ports.follow(&shared, &table);
        (ports, failed)
    });
    match opening.await {
        Ok(opened) => opened,
        Err(panic) => std::panic::resume_unwind(panic.into_panic()),
    }
}

/// Writes `table` down, trying until it is there; false: a newer one came, this one no longer matters.
async fn write(path: &Path, table: &Arc<RouteTable>, served: &watch::Receiver<Served>) -> bool {
    let mut said = false;
    loop {
        let (to, what) = (path.to_owned(), Arc::clone(table));
        let writing = tokio::task::spawn_blocking(move || table_file::write(&to, &what));
        match writing.await {
            Ok(Ok(())) => return true,
            Ok(Err(_)) if said => {}
            Ok(Err(error)) => {
                let path = path.display();
                tracing::error!(
                    "cannot write the routing table {path}: {error}; nothing is put to sleep until this works"
                );
                said = true;
            }
            Err(panic) => std::panic::resume_unwind(panic.into_panic()),
        }
        tokio::time::sleep(REWRITE).await;
        if served.has_changed().unwrap_or(false) {
            return false;
        }
    }
}

/// Waits until every worker has taken up `generation`.
async fn taken_up(shared: &Shared, generation: u64) {
    while !shared.all_took_up(generation) {
        if tokio::time::timeout(SLOW, shared.taken_up.notified())
            .await
            .is_err()
        {
            tracing::warn!("a gateway worker has not taken up a table for {SLOW:?}");
        }
    }
}

/// The ports that are open beside the gateway's own.
#[derive(Debug)]
pub(crate) struct Ports {
    own: SocketAddr,
    handed: Arc<Handed>,
    open: BTreeMap<Socket, InUse>,
    /// Those that workers were told to close and may not have closed yet.
    closing: BTreeMap<Socket, InUse>,
}

impl Ports {
    /// None yet; `own` is the gateway's own address.
    pub(crate) fn new(own: SocketAddr, handed: Arc<Handed>) -> Self {
        Self {
            own,
            handed,
            open: BTreeMap::new(),
            closing: BTreeMap::new(),
        }
    }

    /// Opens what `table` asks for and closes the rest; returns what could not be opened, and why. Blocks
    /// for a moment when a port is asked for again that is just being closed.
    pub(crate) fn follow(&mut self, shared: &Shared, table: &RouteTable) -> Vec<Failed> {
        let listeners: Vec<Listener> = listeners(table).collect();
        let wanted: BTreeSet<Socket> = listeners.iter().map(Listener::socket).collect();
        self.closing
            .retain(|_, in_use| Arc::strong_count(in_use) > 1);
        for (socket, in_use) in self
            .open
            .extract_if(.., |socket, _| !wanted.contains(socket))
        {
            let Socket { addr, is_udp } = socket;
            match is_udp {
                true => shared.order_for(addr, Order::Close(socket)),
                false => {
                    shared.order((0..shared.workers()).map(|_| Order::Close(socket)));
                    self.handed.close(addr);
                }
            }
            self.closing.insert(socket, in_use);
        }
        let mut failed = Vec::new();
        for listener in listeners {
            let virtual_ =
                matches!(listener.addr.ip(), IpAddr::V4(ip) if table.virtuals.contains_key(&ip));
            if !self.open.contains_key(&listener.socket())
                && let Err(why) = self.open(shared, listener.socket(), virtual_)
            {
                failed.push((listener, why));
            }
        }
        failed
    }

    /// `virtual_`: it is of a virtual address, which the machine may not have yet.
    fn open(&mut self, shared: &Shared, socket: Socket, virtual_: bool) -> Result<(), String> {
        let Socket { addr, is_udp } = socket;
        if addr.port() == 0 {
            return Err("a listener needs a port; 0 is none".to_owned());
        }
        if addr == self.own && !is_udp {
            return Err(format!("{addr} is the gateway's own HTTP address"));
        }
        if shared.is_stopping() {
            return Err("the node ends".to_owned()); // the workers may have ended already
        }
        if let Some(in_use) = self.closing.remove(&socket) {
            let end = Instant::now() + SLOW;
            while Arc::strong_count(&in_use) > 1 && Instant::now() < end {
                std::thread::sleep(CLOSING);
            }
        }
        let in_use = InUse::default();
        if is_udp {
            // Nobody else's, or it is one that is open here already.
            let beside_own = self.open.keys().any(|open| open.collides(socket));
            let opened = datagram::open(addr, beside_own, virtual_);
            let datagrams = Datagrams {
                addr,
                socket: opened.map_err(|error| listen::why(socket, &error))?,
                in_use: InUse::clone(&in_use),
            };
            shared.order_for(addr, Order::OpenDatagrams(datagrams));
        } else {
            let opened = self.handed.open(addr, shared.workers());
            let opened = opened.map_err(|error| listen::why(socket, &error))?;
            shared.order(opened.orders(Entry::Port(addr), &in_use));
        }
        self.open.insert(socket, in_use);
        Ok(())
    }
}
