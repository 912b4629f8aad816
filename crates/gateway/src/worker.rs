//! The worker threads, and the little that they share.

use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::ops::Deref;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Mutex, mpsc};
use std::thread::JoinHandle;
use std::time::Duration;

use arc_swap::ArcSwap;
use layby_model::ServiceId;
use layby_model::route::{Demand, RouteTable, Socket, Traffic};
use tokio::runtime::{Builder, LocalOptions, LocalRuntime};
use tokio::sync::{Notify, watch};

use crate::accept::Listeners;
use crate::buffer::Buffers;
use crate::clock::now_ms;
use crate::fatal::FatalPanic;
use crate::hold::Waiters;
use crate::listen;
use crate::parcel::Room;
use crate::pool::Pool;
use crate::route::Entry;
use crate::service::lock;
use crate::snapshot::{Service, Snapshot, States, Way};
use crate::watchdog::Watchdog;
use crate::{Error, Gateway, GatewayConfig, Wires, follow, redirected, table_file};

/// How long requests in flight may go on after [`Gateway::stop`].
const STOP_GRACE_MS: u64 = 5000;
/// How long after that the answers to those still held may take to be sent.
const LAST_WORDS_MS: u64 = 250;
/// How often is looked whether all is done.
const STOP_LOOK: Duration = Duration::from_millis(10);

/// What all threads of a gateway see.
#[derive(Debug)]
pub(crate) struct Shared {
    current: ArcSwap<Snapshot>,
    /// The generation of `current`: stored after it, so that who sees the number sees the table.
    generation: AtomicU64,
    states: Mutex<States>,
    pub(crate) demand: watch::Sender<Demand>,
    mailboxes: Vec<Mailbox>,
    /// Flows of datagrams that have a port of the machine.
    flows: Arc<AtomicU32>,
    /// Told when a worker has taken up a generation.
    pub(crate) taken_up: Notify,
    stopping: AtomicBool,
    /// Nothing is sent to a replica any more. Changed under the lock of `states`, as `current` is.
    turning_away: AtomicBool,
    /// Told when the workers have ended.
    pub(crate) stopped: Notify,
}

/// What one worker is told.
#[derive(Debug, Default)]
struct Mailbox {
    orders: Mutex<Vec<Order>>,
    bell: Notify,
    /// The generation that it has taken up: it holds no idle connection to a replica not named in it.
    taken_up: AtomicU64,
}

/// An order to a worker.
#[derive(Debug)]
pub(crate) enum Order {
    /// Accept from this socket.
    Open(Opening),
    /// Take the datagrams that come to this socket.
    OpenDatagrams(Datagrams),
    /// Take what waits on these sockets, then close them.
    Close(Socket),
}

/// A socket to which datagrams come. One worker has it alone, so that those of one client stay together and in order.
#[derive(Debug)]
pub(crate) struct Datagrams {
    pub(crate) addr: SocketAddr,
    pub(crate) socket: std::net::UdpSocket,
    pub(crate) in_use: InUse,
}

/// A socket to accept from.
#[derive(Debug)]
pub(crate) struct Opening {
    pub(crate) entry: Entry,
    pub(crate) socket: std::net::TcpListener,
    /// Somebody else holds it as well: what is not accepted is not lost.
    pub(crate) shared: bool,
    pub(crate) in_use: InUse,
}

/// Held by all who accept on an address: when only one is left, the address is closed.
pub(crate) type InUse = Arc<()>;

impl Shared {
    pub(crate) fn new(demand: watch::Sender<Demand>, workers: usize) -> Self {
        Self {
            current: ArcSwap::default(),
            generation: AtomicU64::new(0),
            states: Mutex::new(States::new()),
            demand,
            mailboxes: (0..workers).map(|_| Mailbox::default()).collect(),
            flows: Arc::default(),
            taken_up: Notify::new(),
            stopping: AtomicBool::new(false),
            turning_away: AtomicBool::new(false),
            stopped: Notify::new(),
        }
    }

    /// Serves by `table` from now on; returns its generation.
    pub(crate) fn swap(&self, table: &Arc<RouteTable>) -> u64 {
        self.swap_to(table, &mut lock(&self.states))
    }

    /// See [`Gateway::turn_away`].
    pub(crate) fn turn_away(&self) {
        let mut states = lock(&self.states);
        self.turning_away.store(true, SeqCst);
        let table = self.current.load().table();
        self.swap_to(&table, &mut states);
    }

    fn swap_to(&self, table: &Arc<RouteTable>, states: &mut States) -> u64 {
        let before = self.current.load_full();
        let mut next = Snapshot::compile(table, &before, states);
        if self.turning_away.load(SeqCst) {
            next = next.turning_away();
        }
        let next = Arc::new(next);
        let serves = |service: &Service| matches!(service.way, Way::Serve(_));
        for service in next.services.iter().filter(|service| serves(service)) {
            if !before.service(&service.state.id).is_some_and(serves) {
                service.state.woke();
            }
        }
        self.current.store(Arc::clone(&next));
        self.generation.store(next.generation, SeqCst);
        for mailbox in &self.mailboxes {
            mailbox.bell.notify_one();
        }
        states.retain(|id, state| {
            state.forget_others(|replica| next.replica(replica).is_some());
            next.service(id).is_some() || !state.is_quiet()
        });
        next.generation
    }

    /// The newest generation.
    pub(crate) fn generation(&self) -> u64 {
        self.generation.load(SeqCst)
    }

    /// The newest snapshot.
    pub(crate) fn snapshot(&self) -> Arc<Snapshot> {
        self.current.load_full()
    }

    /// Whether every worker has taken up `generation` or a later one.
    pub(crate) fn all_took_up(&self, generation: u64) -> bool {
        let up = |m: &Mailbox| m.taken_up.load(SeqCst) >= generation;
        self.mailboxes.iter().all(up)
    }

    /// Gives each worker its own order.
    pub(crate) fn order(&self, orders: impl IntoIterator<Item = Order>) {
        for (mailbox, order) in self.mailboxes.iter().zip(orders) {
            lock(&mailbox.orders).push(order);
            mailbox.bell.notify_one();
        }
    }

    /// Gives an order to the worker who has the datagrams that come to `addr`.
    pub(crate) fn order_for(&self, addr: SocketAddr, order: Order) {
        let at = usize::from(addr.port()) % self.mailboxes.len().max(1);
        if let Some(mailbox) = self.mailboxes.get(at) {
            lock(&mailbox.orders).push(order);
            mailbox.bell.notify_one();
        }
    }

    /// Counts the flows of datagrams of the node.
    pub(crate) fn flows(&self) -> &Arc<AtomicU32> {
        &self.flows
    }

    /// How many workers there are.
    pub(crate) fn workers(&self) -> usize {
        self.mailboxes.len()
    }

    /// See [`Gateway::traffic`].
    pub(crate) fn traffic(&self, service: &ServiceId) -> Traffic {
        let state = lock(&self.states).get(service).cloned();
        state.map_or_else(Traffic::default, |state| state.traffic())
    }

    /// Asks the workers to end. Tables are followed until they have: those who are held wait for them.
    pub(crate) fn stop(&self) {
        self.stopping.store(true, SeqCst);
        for mailbox in &self.mailboxes {
            mailbox.bell.notify_one();
        }
    }

    /// Whether the gateway was asked to stop.
    pub(crate) fn is_stopping(&self) -> bool {
        self.stopping.load(SeqCst)
    }
}

/// A snapshot as one worker holds it: cloning it touches no memory that other threads touch.
#[derive(Debug)]
pub(crate) struct View(Arc<Snapshot>);

impl Deref for View {
    type Target = Snapshot;
    fn deref(&self) -> &Snapshot {
        &self.0
    }
}

/// What belongs to one worker thread.
#[derive(Debug)]
pub(crate) struct Worker {
    pub(crate) shared: Arc<Shared>,
    index: usize,
    view: RefCell<Rc<View>>,
    pub(crate) pool: RefCell<Pool>,
    pub(crate) buffers: Rc<Buffers>,
    /// Room for the longest datagram, for whoever has one in hand.
    pub(crate) datagram: RefCell<Vec<u8>>,
    /// For datagrams that wait.
    pub(crate) room: Rc<Room>,
    /// When was last told that no datagrams can be sent, in milliseconds.
    pub(crate) told_ms: Cell<u64>,
    pub(crate) watchdog: Rc<Watchdog>,
    pub(crate) waiters: RefCell<Waiters>,
    /// The grace is over: nobody is held any longer.
    pub(crate) grace_over: Cell<bool>,
    /// Where the next search for an upstream begins.
    pub(crate) turn: Cell<usize>,
}

impl Worker {
    /// The worker with number `index`.
    pub(crate) fn new(shared: Arc<Shared>, index: usize) -> Self {
        Self {
            index,
            view: RefCell::new(Rc::new(View(shared.snapshot()))),
            shared,
            pool: RefCell::default(),
            buffers: Rc::default(),
            datagram: RefCell::default(),
            room: Rc::default(),
            told_ms: Cell::new(0),
            watchdog: Rc::default(),
            waiters: RefCell::default(),
            grace_over: Cell::new(false),
            turn: Cell::new(index),
        }
    }

    /// The newest table.
    pub(crate) fn view(&self) -> Rc<View> {
        let view = self.view.borrow();
        if view.generation == self.shared.generation() {
            return Rc::clone(&view);
        }
        drop(view);
        self.take_up()
    }

    /// Takes up the newest table: drops idle connections to replicas that it does not name, before
    /// those may be frozen, and wakes who waited for it.
    fn take_up(&self) -> Rc<View> {
        let view = Rc::new(View(self.shared.snapshot()));
        *self.view.borrow_mut() = Rc::clone(&view);
        self.pool
            .borrow_mut()
            .keep_only(|replica| view.replica(replica).is_some());
        self.waiters.borrow().wake(&view);
        view
    }

    /// Takes up tables and carries out orders, for ever; `stopping` is told when the gateway stops.
    async fn follow(self: &Rc<Self>, stopping: &Notify) {
        let mailbox = &self.shared.mailboxes[self.index];
        let mut listeners = Listeners::default();
        loop {
            mailbox.bell.notified().await;
            let generation = self.view().generation;
            mailbox.taken_up.store(generation, SeqCst);
            self.shared.taken_up.notify_one();
            let orders = std::mem::take(&mut *lock(&mailbox.orders));
            for order in orders {
                listeners.carry_out(self, order);
            }
            if self.shared.is_stopping() {
                listeners.close_all();
                stopping.notify_one();
            }
        }
    }

    /// Lives until the gateway stops and what was in flight is done, or its grace is over.
    async fn run(self: Rc<Self>) {
        let worker = Rc::clone(&self);
        tokio::task::spawn_local(async move {
            let _fatal = FatalPanic("the sweep of a gateway worker");
            let watchdog = Rc::clone(&worker.watchdog);
            watchdog.sweep(|| worker.pool.borrow_mut().sweep()).await;
        });
        let stopping = Notify::new();
        tokio::select! {
            () = self.follow(&stopping) => {}
            () = self.end(&stopping) => {}
        }
    }

    /// Waits until the gateway stops; then until nothing is in flight, or the grace is over. Idle
    /// connections end at once, those that are still held at the end are told that this was it.
    async fn end(&self, stopping: &Notify) {
        stopping.notified().await;
        self.watchdog.expire_idle();
        if !self.done_within(STOP_GRACE_MS).await {
            self.grace_over.set(true);
            self.waiters.borrow().wake_all();
            self.done_within(LAST_WORDS_MS).await;
        }
    }

    /// Waits until no connection is left; false: some are after `ms` milliseconds.
    async fn done_within(&self, ms: u64) -> bool {
        let end = now_ms() + ms;
        loop {
            tokio::time::sleep(STOP_LOOK).await;
            if self.watchdog.len() == 0 {
                return true;
            }
            if now_ms() >= end {
                return false;
            }
        }
    }
}

/// Opens the sockets and starts the threads.
pub(crate) fn start(config: GatewayConfig, wires: Wires) -> Result<Gateway, Error> {
    let workers = config.workers.max(1);
    let failed = |addr: SocketAddr| {
        move |source: std::io::Error| Error::Listen {
            addr,
            why: listen::why(
                Socket {
                    addr,
                    is_udp: false,
                },
                &source,
            ),
            source,
        }
    };
    let handed = Arc::new(config.handed);
    let opened = handed.open(config.http, workers);
    let opened = opened.map_err(failed(config.http))?;
    let addr = opened.addr;
    let any = SocketAddr::from(([0, 0, 0, 0], 0));
    let port_file = config.table_file.with_extension("port");
    let virtuals = redirected::open(&handed, &port_file, workers).map_err(failed(any))?;
    let shared = Arc::new(Shared::new(wires.demand, workers));
    let gateway = Gateway {
        shared: Arc::clone(&shared),
        http: addr,
        virtual_port: virtuals.addr.port(),
        threads: Mutex::default(),
    };
    shared.order(opened.orders(Entry::Hosts(addr), &InUse::default()));
    let entry = Entry::Virtual(virtuals.addr);
    shared.order(virtuals.orders(entry, &InUse::default()));
    let remembered = table_file::read(&config.table_file).map(Arc::new);
    let mut ports = follow::Ports::new(addr, handed);
    if let Some(table) = &remembered {
        shared.swap(table);
        for (listener, why) in ports.follow(&shared, table) {
            tracing::warn!(addr = %listener.socket(), service = %listener.service, "{why}");
        }
    }
    for index in 0..workers {
        let shared = Arc::clone(&shared);
        let thread = spawn(format!("gateway-{index}"), move |runtime| {
            let worker = Rc::new(Worker::new(shared, index));
            runtime.block_on(worker.run());
        })?;
        lock(&gateway.threads).workers.push(thread);
    }
    let follower = follow::Follower {
        shared,
        tables: wires.tables,
        confirmed: wires.confirmed,
        table_file: config.table_file,
        ports,
    };
    let thread = spawn("gateway-table".to_owned(), move |runtime| {
        runtime.block_on(follower.run());
    })?;
    lock(&gateway.threads).follower = Some(thread);
    Ok(gateway)
}

/// Starts a thread with a runtime of its own; returns once that runtime stands.
fn spawn(
    name: String,
    body: impl FnOnce(LocalRuntime) + Send + 'static,
) -> Result<JoinHandle<()>, Error> {
    let (ready, stands) = mpsc::sync_channel(1);
    let thread = std::thread::Builder::new()
        .name(name)
        .spawn(move || {
            let _fatal = FatalPanic("a gateway thread");
            let runtime = Builder::new_current_thread()
                .enable_all()
                .build_local(LocalOptions::default());
            match runtime {
                Ok(runtime) => {
                    let _ = ready.send(Ok(()));
                    body(runtime);
                }
                Err(source) => {
                    let _ = ready.send(Err(source));
                }
            }
        })
        .map_err(|source| Error::Thread { source })?;
    match stands.recv() {
        Ok(Ok(())) => Ok(thread),
        Ok(Err(source)) => Err(Error::Thread { source }),
        Err(_) => Err(Error::Thread {
            source: std::io::ErrorKind::BrokenPipe.into(),
        }),
    }
}
