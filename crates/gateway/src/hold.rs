//! Phase 3: hold. What cannot be served now waits, bounded in number and in time, and says so.

use std::collections::{BTreeMap, HashMap};
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use layby_model::route::{Demand, Limits, UNHEALTHY_HOLD_MS, WakeTiming};
use layby_model::{ReplicaId, ServiceId};
use tokio::net::TcpStream;
use tokio::sync::watch;

use crate::balance::{self, Choice, Claim};
use crate::io::{Departure, Leaving};
use crate::service::ServiceState;
use crate::snapshot::{Service, Snapshot, Way};
use crate::watchdog::Pulse;
use crate::worker::{View, Worker};

/// When all replicas that the table names refuse connections, they are tried again after this.
const RETRY: Duration = Duration::from_millis(50);

/// Why a request gets no replica.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unserved {
    /// The table says that the service is disabled.
    Disabled,
    /// The table says to refuse it.
    Refused,
    /// As many wait as may.
    Full,
    /// It waited as long as it may for a replica to be there.
    Late,
    /// It waited as long as it may for a place at replicas that are all full.
    Busy,
    /// It waited as long as it may for replicas that run, and do not answer their probe.
    Unhealthy,
    /// The client went away.
    ClientGone,
    /// The gateway stops.
    Stopping,
}

/// The tasks of a worker that wait for a table, by service and in the order of their coming.
#[derive(Debug, Default)]
pub(crate) struct Waiters {
    next: u64,
    wakers: HashMap<ServiceId, BTreeMap<u64, Waker>>,
}

impl Waiters {
    /// Wakes all.
    pub(crate) fn wake_all(&self) {
        let wakers = self.wakers.values().flat_map(BTreeMap::values);
        wakers.for_each(Waker::wake_by_ref);
    }

    /// Wakes those whose service need not wait by `snapshot`. The others sleep on.
    pub(crate) fn wake(&self, snapshot: &Snapshot) {
        for (service, wakers) in &self.wakers {
            let holds = snapshot
                .service(service)
                .is_some_and(|s| s.way == Way::Hold);
            if !holds {
                wakers.values().for_each(Waker::wake_by_ref);
            }
        }
    }
}

/// One place in the queue of a service; left when dropped.
#[derive(Debug)]
pub(crate) struct Place<'w> {
    worker: &'w Worker,
    state: Arc<ServiceState>,
    key: u64,
    /// Its number in the line, in which it stands if the service is scaled.
    number: Option<u64>,
}

impl<'w> Place<'w> {
    /// Takes a place, and says that something waits; `None`: all `limit` places are taken.
    pub(crate) fn take(
        worker: &'w Worker,
        state: &Arc<ServiceState>,
        limit: u32,
        number: Option<u64>,
    ) -> Option<Self> {
        let waiting = state.waiting.raise();
        if waiting > limit {
            state.waiting.lower();
            return None;
        }
        if waiting.is_power_of_two() {
            tell(&worker.shared.demand, state);
        }
        let mut waiters = worker.waiters.borrow_mut();
        waiters.next += 1;
        Some(Self {
            worker,
            state: Arc::clone(state),
            key: waiters.next,
            number,
        })
    }

    /// Has this task woken when a table comes that concerns it.
    pub(crate) fn set_waker(&self, cx: &Context<'_>) {
        let mut waiters = self.worker.waiters.borrow_mut();
        if !waiters.wakers.contains_key(&self.state.id) {
            waiters
                .wakers
                .insert(self.state.id.clone(), BTreeMap::new());
        }
        if let Some(wakers) = waiters.wakers.get_mut(&self.state.id) {
            wakers.entry(self.key).or_insert_with(|| cx.waker().clone());
        }
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        let mut waiters = self.worker.waiters.borrow_mut();
        if let Some(wakers) = waiters.wakers.get_mut(&self.state.id) {
            wakers.remove(&self.key);
            if wakers.is_empty() {
                waiters.wakers.remove(&self.state.id);
            }
        }
        drop(waiters);
        if let Some(number) = self.number {
            self.state.line.leave(number);
        }
        let left = self.state.waiting.lower();
        if left == 0 || left.is_power_of_two() {
            tell(&self.worker.shared.demand, &self.state);
        }
    }
}

/// Publishes how many wait for a service: always when that turns to some or to none, else now and then.
/// The count is read under the watch's lock, so that of two who
/// publish at once the last one tells the truth.
fn tell(demand: &watch::Sender<Demand>, state: &ServiceState) {
    demand.send_if_modified(|demand| {
        let waiting = match state.waiting.count() {
            0 => None,
            count => Some(count),
        };
        let before = match waiting {
            None => demand.waiting.remove(&state.id),
            Some(count) => demand.waiting.insert(state.id.clone(), count),
        };
        before != waiting
    });
}

/// How long a request has been held.
#[derive(Debug)]
pub(crate) struct Held {
    since: Instant,
    state: Arc<ServiceState>,
    held_ms: f64,
}

impl Held {
    fn new(state: &Arc<ServiceState>) -> Self {
        Self {
            since: Instant::now(),
            state: Arc::clone(state),
            held_ms: 0.0,
        }
    }

    fn elapsed_ms(&self) -> f64 {
        self.since.elapsed().as_secs_f64() * 1000.0
    }

    /// The first byte of its answer came.
    pub(crate) fn answered(&self) {
        self.state.held(WakeTiming {
            held_ms: self.held_ms,
            answered_ms: self.elapsed_ms(),
        });
    }
}

/// The search for a replica, for one request or one connection.
#[derive(Debug, Default)]
pub(crate) struct Search {
    pub(crate) choice: Choice,
    /// Set once it has waited.
    pub(crate) held: Option<Held>,
    /// Its number in the line: it keeps its place there, however often it is tried.
    number: Option<u64>,
}

impl Search {
    /// Begins anew, for a request that was sent to `replica` in vain: it goes to another one, or is held as if it had just come.
    pub(crate) fn move_on(&mut self, replica: ReplicaId) {
        self.choice.avoid.push(replica);
        self.held = None;
    }
}

/// Who waits: to notice that it went away, and to wake it at its deadline.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Waiter<'c> {
    /// `None`: nobody can tell when it goes away, as of one that sends datagrams.
    pub(crate) client: Option<&'c TcpStream>,
    /// What its request begins with: by it a canary may be chosen. Empty where no HTTP is spoken.
    pub(crate) head: &'c [u8],
    /// When it is taken to have gone.
    pub(crate) leaving: Leaving,
    pub(crate) pulse: &'c Pulse,
}

/// Claims a replica for the service with index `service`; waits for one if it must.
pub(crate) async fn claim(
    worker: &Rc<Worker>,
    view: &Rc<View>,
    service: usize,
    waiter: Waiter<'_>,
    search: &mut Search,
) -> Result<Claim, Unserved> {
    let must_wait = is_behind(&view.services[service]);
    if !must_wait
        && let Some(claim) = balance::claim(worker, view, service, waiter.head, &mut search.choice)
    {
        return Ok(claim);
    }
    let service = &view.services[service];
    // Boxed: few requests wait, and those that do not need not carry the room for it.
    let wait = wait(worker, &service.state, service.limits, waiter, search);
    Box::pin(wait).await
}

async fn wait(
    worker: &Rc<Worker>,
    state: &Arc<ServiceState>,
    limits: Limits,
    waiter: Waiter<'_>,
    search: &mut Search,
) -> Result<Claim, Unserved> {
    if let Some(answer) = try_now(worker, &state.id, waiter.head, &mut search.choice, None) {
        return answer;
    }
    let held = search.held.get_or_insert_with(|| Held::new(state));
    let waited_ms = held.elapsed_ms() as u64;
    let Some(left_ms) = limits.hold_deadline_ms.checked_sub(waited_ms) else {
        return Err(Unserved::Late);
    };
    let number = *search.number.get_or_insert_with(|| state.line.draw());
    let place = Place::take(worker, state, limits.hold_queue, Some(number));
    let place = place.ok_or(Unserved::Full)?;
    waiter.pulse.expire_in(left_ms);
    let begun = worker.view().generation;
    let mut retry = pin!(tokio::time::sleep(RETRY));
    let client = waiter.client;
    let mut departure = client.map(|client| Departure::of(client, waiter.leaving));
    let mut is_brief = false;
    let answer = poll_fn(|cx| {
        place.set_waker(cx);
        waiter.pulse.set_waker(cx);
        if !search.choice.avoid.is_empty()
            && (worker.view().generation != begun || retry.as_mut().poll(cx).is_ready())
        {
            search.choice.avoid.clear();
        }
        let stand = Some((number, cx.waker()));
        if let Some(answer) = try_now(worker, &state.id, waiter.head, &mut search.choice, stand) {
            return Poll::Ready(answer);
        }
        let is_unhealthy = way(worker, &state.id) == Some(Way::Unhealthy);
        match (is_unhealthy, is_brief) {
            (true, false) => waiter.pulse.expire_in_at_most(UNHEALTHY_HOLD_MS),
            // Somebody is on the way again.
            (false, true) => {
                let waited_ms = held.elapsed_ms() as u64;
                let left_ms = limits.hold_deadline_ms.saturating_sub(waited_ms);
                waiter.pulse.expire_in(left_ms);
            }
            (true, true) | (false, false) => {}
        }
        is_brief = is_unhealthy;
        if waiter.pulse.is_expired() {
            let all_refuse = !search.choice.avoid.is_empty();
            let late = match way(worker, &state.id) {
                Some(Way::Unhealthy) => Unserved::Unhealthy,
                Some(Way::Serve(_)) if !all_refuse => Unserved::Busy,
                Some(Way::Ending) => Unserved::Stopping,
                Some(Way::Serve(_) | Way::Hold | Way::Refuse | Way::Disabled) | None => {
                    Unserved::Late
                }
            };
            return Poll::Ready(Err(late));
        }
        if worker.grace_over.get() {
            return Poll::Ready(Err(Unserved::Stopping));
        }
        match &mut departure {
            Some(departure) => departure.poll(cx).map(|()| Err(Unserved::ClientGone)),
            None => Poll::Pending,
        }
    })
    .await;
    waiter.pulse.rest();
    held.held_ms = held.elapsed_ms();
    answer // the place is left only now: at every moment the request waits or is in flight
}

/// What the newest table says to do with requests for a service.
fn way(worker: &Rc<Worker>, id: &ServiceId) -> Option<Way> {
    let view = worker.view();
    let at = view.service_index(id)?;
    Some(view.services[at].way.clone())
}

/// Others wait for a place at the replicas of a service: whoever comes now is after them.
fn is_behind(service: &Service) -> bool {
    service.is_scaled && !service.state.line.is_empty()
}

/// What the newest table says; `None`: wait. `stand`: its number in the line, if it stands there, and who is woken.
fn try_now(
    worker: &Rc<Worker>,
    id: &ServiceId,
    head: &[u8],
    choice: &mut Choice,
    stand: Option<(u64, &Waker)>,
) -> Option<Result<Claim, Unserved>> {
    loop {
        let view = worker.view();
        let Some(service) = view.service_index(id) else {
            return Some(Err(Unserved::Refused));
        };
        match view.services[service].way {
            Way::Disabled => return Some(Err(Unserved::Disabled)),
            Way::Refuse => return Some(Err(Unserved::Refused)),
            Way::Ending => return Some(Err(Unserved::Stopping)),
            // In line already: who came first is to be the first then, too.
            Way::Hold | Way::Unhealthy => {
                let entry = &view.services[service];
                if let Some((number, waker)) = stand.filter(|_| entry.is_scaled) {
                    entry.state.line.is_first(number, false, waker);
                }
                return None;
            }
            Way::Serve(_) => {}
        }
        let entry = &view.services[service];
        let is_next = match stand {
            Some((number, waker)) if entry.is_scaled => {
                let canary = balance::falls_to_canary(&view, service, head, choice);
                entry.state.line.is_first(number, canary, waker)
            }
            Some(_) => true,
            None => !is_behind(entry),
        };
        if !is_next {
            return None;
        }
        if let Some(claim) = balance::claim(worker, &view, service, head, choice) {
            return Some(Ok(claim));
        }
        if worker.shared.generation() == view.generation {
            return None; // all are to be avoided, or full
        }
    }
}
