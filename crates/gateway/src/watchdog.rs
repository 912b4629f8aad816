//! Deadlines without timers: each connection notes one, and a sweep looks at them all now and then.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::task::Context;
use std::task::Waker;
use std::time::Duration;

use tokio::sync::Notify;

use crate::clock::now_ms;

/// How often the sweep looks, while there is anything to look at.
const SWEEP: Duration = Duration::from_millis(250);
/// No deadline.
const NEVER: u64 = u64::MAX;

/// The deadline of one task, and the means to wake it.
#[derive(Debug)]
pub(crate) struct Pulse {
    deadline_ms: Cell<u64>,
    expired: Cell<bool>,
    idle: Cell<bool>,
    waker: RefCell<Option<Waker>>,
}

impl Pulse {
    /// One that never expires by itself.
    pub(crate) fn new() -> Self {
        Self {
            deadline_ms: Cell::new(NEVER),
            expired: Cell::new(false),
            idle: Cell::new(false),
            waker: RefCell::new(None),
        }
    }

    /// From now on `waker` is woken; its task polls with no other.
    pub(crate) fn set_waker(&self, cx: &Context<'_>) {
        let mut waker = self.waker.borrow_mut();
        if !waker.as_ref().is_some_and(|w| w.will_wake(cx.waker())) {
            *waker = Some(cx.waker().clone());
        }
    }

    /// Expires in `ms` milliseconds, and not before.
    pub(crate) fn expire_in(&self, ms: u64) {
        self.deadline_ms.set(now_ms().saturating_add(ms));
        self.expired.set(false);
    }

    /// Expires in `ms` milliseconds, unless it does so sooner.
    pub(crate) fn expire_in_at_most(&self, ms: u64) {
        let deadline_ms = now_ms().saturating_add(ms);
        self.deadline_ms
            .set(self.deadline_ms.get().min(deadline_ms));
    }

    /// Does not expire.
    pub(crate) fn rest(&self) {
        self.deadline_ms.set(NEVER);
        self.expired.set(false);
    }

    /// Notes whether its task is in the middle of nothing: those alone end at once when the gateway stops.
    pub(crate) fn set_idle(&self, idle: bool) {
        self.idle.set(idle);
    }

    /// Whether the deadline has passed.
    pub(crate) fn is_expired(&self) -> bool {
        self.expired.get()
    }

    /// Expires it now.
    pub(crate) fn expire(&self) {
        self.expired.set(true);
        if let Some(waker) = &*self.waker.borrow() {
            waker.wake_by_ref();
        }
    }
}

/// All pulses of a worker.
#[derive(Debug, Default)]
pub(crate) struct Watchdog {
    pulses: RefCell<Vec<Option<Rc<Pulse>>>>,
    free: RefCell<Vec<usize>>,
    first: Notify,
}

impl Watchdog {
    /// Watches a new pulse until the guard is dropped.
    pub(crate) fn watch(self: &Rc<Self>) -> Watched {
        let pulse = Rc::new(Pulse::new());
        let mut pulses = self.pulses.borrow_mut();
        let free = self.free.borrow_mut().pop();
        let at = free.unwrap_or(pulses.len());
        if at == pulses.len() {
            pulses.push(Some(Rc::clone(&pulse)));
        } else {
            pulses[at] = Some(Rc::clone(&pulse));
        }
        if self.len_of(&pulses) == 1 {
            self.first.notify_one();
        }
        Watched {
            pulse,
            at,
            owner: Rc::clone(self),
        }
    }

    /// How many are watched.
    pub(crate) fn len(&self) -> usize {
        self.len_of(&self.pulses.borrow())
    }

    fn len_of(&self, pulses: &[Option<Rc<Pulse>>]) -> usize {
        pulses.len() - self.free.borrow().len()
    }

    /// Wakes each task whose deadline has passed, for ever. Sleeps while nothing is watched and `idle`
    /// says that there is nothing else to look after: then an idle gateway uses no CPU at all.
    pub(crate) async fn sweep(&self, mut also: impl FnMut() -> bool) {
        loop {
            let other = also();
            if self.len() == 0 && !other {
                self.pulses.borrow_mut().clear();
                self.free.borrow_mut().clear();
                self.first.notified().await;
            }
            tokio::time::sleep(SWEEP).await;
            let now = now_ms();
            for pulse in self.pulses.borrow().iter().flatten() {
                if pulse.deadline_ms.get() <= now {
                    pulse.deadline_ms.set(NEVER);
                    pulse.expire();
                }
            }
        }
    }

    /// Expires those that are idle, so that their tasks end; the others go on.
    pub(crate) fn expire_idle(&self) {
        for pulse in self.pulses.borrow().iter().flatten() {
            if pulse.idle.get() {
                pulse.expire();
            }
        }
    }
}

/// A pulse that is watched while this lives.
#[derive(Debug)]
pub(crate) struct Watched {
    pulse: Rc<Pulse>,
    at: usize,
    owner: Rc<Watchdog>,
}

impl std::ops::Deref for Watched {
    type Target = Pulse;
    fn deref(&self) -> &Pulse {
        &self.pulse
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        self.owner.pulses.borrow_mut()[self.at] = None;
        self.owner.free.borrow_mut().push(self.at);
    }
}
