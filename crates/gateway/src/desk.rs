//! Takes the datagrams of one UDP port, and sorts them into flows: one for each client.

use std::cell::{Cell, RefCell};
use std::collections::{HashMap, VecDeque};
use std::future::poll_fn;
use std::net::SocketAddr;
use std::rc::{Rc, Weak};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use crate::accept::MAX_CLIENTS;
use crate::clock::now_ms;
use crate::datagram::{Ends, Incoming, LONGEST};
use crate::flow;
use crate::service::Counted;
use crate::watchdog::Pulse;
use crate::worker::Worker;

/// The most flows of one service, over all of its ports: for one more, the one of the same port that was silent for longest ends.
pub(crate) const MAX_FLOWS: u32 = 4096;
/// So many flows one worker has at a time at most; connections are to have room as well.
const MAX_FLOWS_OF_WORKER: usize = MAX_CLIENTS / 2;
/// The most datagrams that wait in one flow; more are dropped, as in the queue of a socket.
const MAX_WAITING: usize = 16;
/// The most bytes of them.
const MAX_WAITING_BYTES: usize = 64 * 1024;
/// How often is looked whether all flows have ended.
const CLOSING: Duration = Duration::from_millis(1);

/// What one client has sent and was not passed on yet.
#[derive(Debug, Default)]
pub(crate) struct Inbox {
    waiting: RefCell<VecDeque<Box<[u8]>>>,
    bytes: Cell<usize>,
    /// When the client last sent anything, in milliseconds.
    heard_ms: Cell<u64>,
    closed: Cell<bool>,
    waker: RefCell<Option<Waker>>,
}

impl Inbox {
    fn put(&self, datagram: &[u8]) {
        self.heard_ms.set(now_ms());
        let mut waiting = self.waiting.borrow_mut();
        let bytes = self.bytes.get() + datagram.len();
        if waiting.len() < MAX_WAITING && bytes <= MAX_WAITING_BYTES {
            self.bytes.set(bytes);
            waiting.push_back(datagram.into());
        }
        drop(waiting);
        self.wake();
    }

    /// Takes the first of those that wait.
    pub(crate) fn take(&self) -> Option<Box<[u8]>> {
        let first = self.waiting.borrow_mut().pop_front();
        let len = first.as_ref().map_or(0, |datagram| datagram.len());
        self.bytes.set(self.bytes.get() - len);
        first
    }

    /// Puts one back that could not be passed on, as the first.
    pub(crate) fn put_back(&self, datagram: Box<[u8]>) {
        self.bytes.set(self.bytes.get() + datagram.len());
        self.waiting.borrow_mut().push_front(datagram);
    }

    /// Whether any wait.
    pub(crate) fn is_empty(&self) -> bool {
        self.waiting.borrow().is_empty()
    }

    /// From now on `cx` is woken when one comes, or when it is closed.
    pub(crate) fn set_waker(&self, cx: &Context<'_>) {
        *self.waker.borrow_mut() = Some(cx.waker().clone());
    }

    /// The flow is to end.
    pub(crate) fn is_closed(&self) -> bool {
        self.closed.get()
    }

    fn close(&self) {
        self.closed.set(true);
        self.wake();
    }

    fn wake(&self) {
        if let Some(waker) = &*self.waker.borrow() {
            waker.wake_by_ref();
        }
    }
}

/// The flows of one port.
type Flows = Rc<RefCell<HashMap<Ends, Rc<Inbox>>>>;

/// Takes datagrams until `stop` has expired; then its flows end, too.
pub(crate) async fn serve(worker: Rc<Worker>, socket: Incoming, addr: SocketAddr, stop: &Pulse) {
    let flows = Flows::default();
    let socket = Rc::new(socket);
    let mut buffer = vec![0; LONGEST];
    let stopped = poll_fn(|cx| {
        stop.set_waker(cx);
        match stop.is_expired() {
            true => Poll::Ready(()),
            false => Poll::Pending,
        }
    });
    tokio::pin!(stopped);
    loop {
        let taken = tokio::select! {
            biased;
            () = &mut stopped => break,
            taken = socket.take(&mut buffer) => taken,
        };
        // An error is of an answer that could not be delivered (an ICMP message), and none of ours.
        let Ok((len, ends)) = taken else {
            tokio::task::yield_now().await;
            continue;
        };
        let known = flows.borrow().get(&ends).map(Rc::clone);
        let inbox = known.or_else(|| begin(&worker, &socket, addr, ends, &flows));
        if let Some(inbox) = inbox {
            inbox.put(&buffer[..len]);
        }
    }
    for inbox in flows.borrow().values() {
        inbox.close();
    }
    // The address is free only when the last of them has let go of the socket.
    while Rc::strong_count(&socket) > 1 {
        tokio::time::sleep(CLOSING).await;
    }
}

/// Begins the flow of a client of whom nothing was heard; `None`: there is no room for it, or nobody takes datagrams here.
fn begin(
    worker: &Rc<Worker>,
    socket: &Rc<Incoming>,
    addr: SocketAddr,
    ends: Ends,
    flows: &Flows,
) -> Option<Rc<Inbox>> {
    let view = worker.view();
    let (_, service) = view.datagrams(&addr)?;
    let state = &view.services[service].state;
    if worker.watchdog.len() >= MAX_FLOWS_OF_WORKER {
        return None;
    }
    let counted = Counted::new(state);
    if counted.count() > MAX_FLOWS {
        // It counts until it has ended: at a flood of new clients some are dropped meanwhile.
        let flows = flows.borrow();
        let open = flows.values().filter(|inbox| !inbox.is_closed());
        let oldest = open.min_by_key(|inbox| inbox.heard_ms.get())?;
        oldest.close();
        if counted.count() > MAX_FLOWS + MAX_FLOWS / 8 {
            return None;
        }
    }
    let inbox = Rc::new(Inbox::default());
    flows.borrow_mut().insert(ends, Rc::clone(&inbox));
    let flow = flow::Flow {
        worker: Rc::clone(worker),
        socket: Rc::clone(socket),
        addr,
        ends,
        inbox: Rc::clone(&inbox),
    };
    let open = Open {
        flows: Rc::downgrade(flows),
        ends,
        inbox: Rc::clone(&inbox),
        _counted: counted,
    };
    tokio::task::spawn_local(async move {
        flow.run().await;
        drop(open);
    });
    Some(inbox)
}

/// A flow that is open; dropped, it is forgotten.
struct Open {
    flows: Weak<RefCell<HashMap<Ends, Rc<Inbox>>>>,
    ends: Ends,
    inbox: Rc<Inbox>,
    _counted: Counted,
}

impl Drop for Open {
    fn drop(&mut self) {
        if let Some(flows) = self.flows.upgrade() {
            let mut flows = flows.borrow_mut();
            let now = flows.get(&self.ends);
            if now.is_some_and(|now| Rc::ptr_eq(now, &self.inbox)) {
                flows.remove(&self.ends);
            }
        }
    }
}
