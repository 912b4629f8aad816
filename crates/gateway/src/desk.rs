//! Takes the datagrams of one UDP port, and sorts them into flows: one for each client.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::future::poll_fn;
use std::net::SocketAddr;
use std::rc::{Rc, Weak};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use crate::accept::MAX_CLIENTS;
use crate::clock::now_ms;
use crate::datagram::{Ends, Incoming, LONGEST};
use crate::flow;
use crate::parcel::{Parcel, Queue, Room};
use crate::service::Counted;
use crate::watchdog::Pulse;
use crate::worker::Worker;

/// The most flows of one service, over all of its ports: for one more, those of the same port end that were silent for longest.
const MAX_FLOWS: u32 = 4096;
/// The most flows of a node. Each takes one of the machine's ports, of which there are 28,232 for whoever asks for any: its name
/// server and its clock do so for each question.
const MAX_FLOWS_OF_NODE: u32 = 8192;
/// A worker that has so many connections and flows begins no more flows; connections are to have room as well.
const MAX_FLOWS_OF_WORKER: usize = MAX_CLIENTS / 2;
/// For one more flow, so much of its port's ends at once: who looks through all of them does so for many.
const ENDING_SHARE: usize = 64;
/// So many milliseconds longer a client may be silent who spoke more than once: whoever invents clients is not to end those
/// that are there.
const KNOWN_MS: u64 = 10_000;
/// How often is looked whether all flows have ended.
const CLOSING: Duration = Duration::from_millis(1);

/// What one client has sent and was not passed on yet.
#[derive(Debug)]
pub(crate) struct Inbox {
    waiting: RefCell<Queue>,
    room: Rc<Room>,
    /// When the client last sent anything, in milliseconds; 0: it did not.
    heard_ms: Cell<u64>,
    /// It did so more than once.
    known: Cell<bool>,
    /// Its place among the flows of its service, until it is to end.
    place: RefCell<Option<Counted>>,
    closed: Cell<bool>,
    waker: RefCell<Option<Waker>>,
}

impl Inbox {
    fn new(room: &Rc<Room>, place: Counted) -> Self {
        Self {
            waiting: RefCell::default(),
            room: Rc::clone(room),
            heard_ms: Cell::new(0),
            known: Cell::new(false),
            place: RefCell::new(Some(place)),
            closed: Cell::new(false),
            waker: RefCell::new(None),
        }
    }

    fn put(&self, datagram: &[u8]) {
        let heard_ms = self.heard_ms.replace(now_ms());
        self.known.set(heard_ms > 0);
        self.waiting.borrow_mut().take_in(datagram, &self.room);
        self.wake();
    }

    /// Those for which it is smallest end first.
    fn worth(&self) -> u64 {
        self.heard_ms.get() + if self.known.get() { KNOWN_MS } else { 0 }
    }

    /// Takes the first of those that wait.
    pub(crate) fn take(&self) -> Option<Parcel> {
        self.waiting.borrow_mut().pop_front()
    }

    /// Puts one back that could not be passed on, as the first.
    pub(crate) fn put_back(&self, datagram: Parcel) {
        self.waiting.borrow_mut().put_back(datagram);
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
        drop(self.place.take());
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
    let port = Counted::new(worker.shared.flows());
    if port.count() > MAX_FLOWS_OF_NODE {
        return None;
    }
    let place = Counted::new(state.flows());
    if place.count() > most(port.count()) && !make_place(&flows.borrow()) {
        return None;
    }
    let inbox = Rc::new(Inbox::new(&worker.room, place));
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
        _port: port,
    };
    tokio::task::spawn_local(async move {
        flow.run().await;
        drop(open);
    });
    Some(inbox)
}

/// The most flows that a service may have when the node has so many: as many as the node has left. So one alone gets half of
/// all, two get a third each, and some are always left for those that have none.
fn most(of_node: u32) -> u32 {
    MAX_FLOWS.min(MAX_FLOWS_OF_NODE.saturating_sub(of_node))
}

/// Ends those flows of a port that were silent for longest; false: it has none.
fn make_place(flows: &HashMap<Ends, Rc<Inbox>>) -> bool {
    let open = flows.values().filter(|inbox| !inbox.is_closed());
    let mut open: Vec<&Rc<Inbox>> = open.collect();
    let ending = open.len().div_ceil(ENDING_SHARE);
    if ending == 0 {
        return false;
    }
    open.select_nth_unstable_by_key(ending - 1, |inbox| inbox.worth());
    for inbox in &open[..ending] {
        inbox.close();
    }
    true
}

/// A flow that is open; dropped, it is forgotten.
struct Open {
    flows: Weak<RefCell<HashMap<Ends, Rc<Inbox>>>>,
    ends: Ends,
    inbox: Rc<Inbox>,
    _port: Counted,
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

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU32, Ordering::SeqCst};

    use super::*;

    #[test]
    fn services_share_the_flows_of_a_node_and_leave_some_for_another_one() {
        for (services, each) in [(1, 4096), (2, 2730), (7, 1024), (40, 199)] {
            let mut has = vec![0; services];
            let mut of_node = 0;
            for _ in 0..MAX_FLOWS_OF_NODE {
                for has in &mut has {
                    if *has < most(of_node + 1) {
                        (*has, of_node) = (*has + 1, of_node + 1);
                    }
                }
            }
            let fair = |has: &u32| (each..=each + 1).contains(has);
            assert!(has.iter().all(fair), "{services}: {has:?}");
            assert!(most(of_node + 1) > 0, "none is left");
        }
    }

    #[test]
    fn for_a_new_client_some_end_that_were_silent_for_longest_and_spoke_once() {
        let (room, count) = (Rc::default(), Arc::new(AtomicU32::new(0)));
        let mut flows = HashMap::new();
        assert!(!make_place(&flows));
        let ends = |port| Ends {
            client: (Ipv4Addr::LOCALHOST, port).into(),
            local: None,
        };
        for port in 0..200_u16 {
            let inbox = Inbox::new(&room, Counted::new(&count));
            inbox.put(b"once");
            assert!(!inbox.known.get());
            if port < 3 {
                inbox.put(b"again");
                assert!(inbox.known.get());
            }
            inbox.heard_ms.set(1000 + u64::from(port));
            flows.insert(ends(port), Rc::new(inbox));
        }
        let closed = |flows: &HashMap<Ends, Rc<Inbox>>| {
            let closed = flows.iter().filter(|(_, inbox)| inbox.is_closed());
            let mut ports: Vec<u16> = closed.map(|(ends, _)| ends.client.port()).collect();
            ports.sort_unstable();
            ports
        };
        assert!(make_place(&flows));
        assert_eq!(closed(&flows), [3, 4, 5, 6]);
        assert_eq!(count.load(SeqCst), 196, "their places are free at once");
        assert!(make_place(&flows));
        assert_eq!(closed(&flows), [3, 4, 5, 6, 7, 8, 9, 10]);
    }
}
