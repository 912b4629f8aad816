//! One fake replica: what its task does, and how its time goes by.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::sync::atomic::AtomicUsize;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use layby_model::ReplicaId;
use layby_model::replica::Trouble;
use tokio::sync::{Notify, watch};
use tokio::time::Instant;

use super::files::Files;
use super::log::Log;
use super::script::{Fate, Fault, Script};
use super::{Shared, address_of, start, values};
use crate::lifecycle::{Action, Actual};
use crate::roster::{Entry, Next};
use crate::slots;

/// How long a step takes that is not scripted.
pub(super) const STEP: Duration = Duration::from_millis(2);

/// What a replica is made of.
#[derive(Debug)]
pub(super) struct Body {
    pub(super) script: Script,
    /// What it writes when it is started.
    pub(super) says: Option<String>,
    pub(super) image: String,
    pub(super) address: Ipv4Addr,
    /// Its first container's pid; the others follow.
    pub(super) first_pid: i32,
    pub(super) log: Log,
    /// Counts how often it was stopped: the commands in it end with it.
    pub(super) stops: watch::Sender<u32>,
    pub(super) files: Files,
    /// So many of the containers that run before its own have ended well.
    pub(super) done: AtomicUsize,
    /// The environment of its first container, as the service gives it.
    pub(super) env: Mutex<BTreeMap<String, String>>,
    /// The containers that ended alone, and when each is started again.
    pub(super) lying: Mutex<BTreeMap<usize, Instant>>,
}

impl Body {
    /// A container lies where it ended alone, until then.
    pub(super) fn lies_until(&self, number: usize, at: Instant) {
        self.lying().insert(number, at);
    }

    fn lying(&self) -> MutexGuard<'_, BTreeMap<usize, Instant>> {
        self.lying.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn set_env(&self, env: BTreeMap<String, String>) {
        *self.env.lock().unwrap_or_else(PoisonError::into_inner) = env;
    }

    pub(super) fn variable(&self, name: &str) -> Option<String> {
        let env = self.env.lock().unwrap_or_else(PoisonError::into_inner);
        env.get(name).cloned()
    }
}

/// The time that a replica has run since its last start; it stands still while frozen.
#[derive(Debug, Default)]
struct Lifetime {
    ran_before: Duration,
    running_since: Option<Instant>,
    /// When each container but the first was started.
    others: BTreeMap<usize, Instant>,
}

impl Lifetime {
    /// When it will have run for `length`; `None` while it does not run.
    fn at(&self, length: Duration) -> Option<Instant> {
        Some(self.running_since? + length.saturating_sub(self.ran_before))
    }

    /// That of a container that was just started; the first one's is all of it.
    fn begin(&mut self, number: usize) {
        match number {
            0 => {
                self.ran_before = Duration::ZERO;
                self.running_since = Some(Instant::now());
            }
            _ => {
                self.others.insert(number, Instant::now());
            }
        }
    }

    /// When a container will have run for `length`.
    fn of(&self, number: usize, length: Duration) -> Option<Instant> {
        match number {
            0 => self.at(length),
            _ => Some(*self.others.get(&number)? + length),
        }
    }

    fn pause(&mut self) {
        if let Some(since) = self.running_since.take() {
            self.ran_before += since.elapsed();
        }
    }
}

/// Carries out the orders for one replica, one after another, until it is gone.
pub(super) async fn run(shared: Arc<Shared>, id: ReplicaId, body: Arc<Body>) {
    let mut life = Lifetime::default();
    loop {
        match shared.roster.next(id) {
            Next::Gone => return,
            Next::Wait(wake) => idle(&shared, id, &body, &mut life, &wake).await,
            Next::Do(Action::Remove) => {
                tokio::time::sleep(STEP).await;
                shared.forget(id);
            }
            Next::Do(action) => {
                let outcome = act(&shared, id, &body, &mut life, action).await;
                shared.roster.done(id, outcome);
            }
        }
    }
}

/// Waits for an order, or for what the script has in store for a replica that runs.
async fn idle(shared: &Shared, id: ReplicaId, body: &Body, life: &mut Lifetime, wake: &Notify) {
    let Some(entry) = shared.roster.get(id) else {
        return;
    };
    let runs = matches!(entry.actual, Actual::Running | Actual::Ready);
    let answer = match entry.actual {
        Actual::Running if shared.options.reports_health => {
            body.script.answers_after.and_then(|after| life.at(after))
        }
        _ => None,
    };
    let fate = if runs {
        next_fate(&entry, body, life)
    } else {
        None
    };
    tokio::select! {
        biased;
        () = wake.notified() => {}
        () = until(fate.map(|(at, ..)| at)) => match fate {
            Some((_, number, Some(Fate::Ends(exit)))) => {
                shared.end(id, number, exit);
            }
            Some((_, _, Some(Fate::Vanishes))) => {
                shared.lose(id);
            }
            Some((_, number, None)) => {
                body.lying().remove(&number);
                life.begin(number);
                let pids = body.first_pid..;
                let pid = pids.clone().nth(number + 50).unwrap_or(body.first_pid);
                shared.start_again(id, number, pid);
            }
            None => {}
        },
        () = until(answer) => {
            shared.roster.change(id, |entry| {
                if entry.actual == Actual::Running {
                    entry.actual = Actual::Ready;
                }
            });
            body.log.write("stdout", "ready");
        }
    }
}

/// What happens next to a container of a running replica, and when; without a fate: it is started again.
fn next_fate(
    entry: &Entry,
    body: &Body,
    life: &Lifetime,
) -> Option<(Instant, usize, Option<Fate>)> {
    let lying = body.lying();
    let again = lying.iter().map(|(number, at)| (*at, *number, None));
    let specs = entry.spec.iter().flat_map(|spec| &spec.service.containers);
    let runs = specs.zip(&entry.containers).enumerate();
    let fates = runs.filter_map(|(number, (spec, container))| {
        let script = match number {
            0 => body.script,
            _ => Script::of(spec),
        };
        let (after, fate) = script.fate.filter(|_| container.pid.is_some())?;
        Some((life.of(number, after)?, number, Some(fate)))
    });
    again
        .chain(fates)
        .min_by_key(|(at, number, _)| (*at, *number))
}

/// Waits until `at`, or for ever.
async fn until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}

/// Does one thing, and says what the replica is then.
async fn act(
    shared: &Shared,
    id: ReplicaId,
    body: &Body,
    life: &mut Lifetime,
    action: Action,
) -> Result<Actual, Trouble> {
    let length = match action {
        Action::Stop => body.script.stops_after,
        Action::Thaw => Duration::ZERO,
        Action::Prepare | Action::Start | Action::Freeze | Action::Remove => STEP,
    };
    tokio::time::sleep(length).await;
    match (action, body.script.fault) {
        (Action::Prepare, Some(Fault::MissingImage)) => Err(Trouble {
            fatal: true,
            message: format!("there is no image {}: build or load it first", body.image),
        }),
        (Action::Prepare, Some(Fault::FullDisk)) => Err(Trouble {
            fatal: false,
            message: format!(
                "no space is left for a replica of {}: remove something first",
                body.image
            ),
        }),
        (Action::Start, Some(Fault::MissingCommand)) => Err(Trouble {
            fatal: true,
            message: format!("the image {} has no such command: /nope", body.image),
        }),
        (Action::Prepare, _) => {
            if let Some(entry) = shared.roster.get(id)
                && let Some(spec) = &entry.spec
            {
                shared.volumes.prepare(&entry.service.app, spec)?;
                let known = slots::known(&shared.secrets, &entry.service.app, spec).await?;
                values::give(id, &entry.service.app, body, spec, &known)?;
            }
            shared
                .roster
                .change(id, |entry| entry.address = address_of(body));
            Ok(Actual::Stopped)
        }
        (Action::Start, _) => {
            if let Some(outcome) = start::before(shared, id, body).await {
                return outcome;
            }
            body.lying().clear();
            let count = shared
                .roster
                .get(id)
                .map_or(0, |entry| entry.containers.len());
            (0..count.max(1)).for_each(|number| life.begin(number));
            shared.roster.change(id, |entry| {
                // With its processes, so that who sees those can use it.
                entry.actual = Actual::Running;
                for (container, pid) in entry.containers.iter_mut().zip(body.first_pid..) {
                    container.pid = Some(pid);
                    container.starts += 1;
                    container.down = false;
                    container.ended_in_a_row = 0;
                }
            });
            body.log.write("stdout", "started");
            if let Some(text) = &body.says {
                body.log.write("stdout", text);
            }
            start::after(shared, id, body).await?;
            Ok(Actual::Running)
        }
        (Action::Thaw, _) => {
            life.running_since = Some(Instant::now());
            Ok(Actual::Running)
        }
        (Action::Freeze, _) => {
            life.pause();
            Ok(Actual::Frozen)
        }
        (Action::Stop | Action::Remove, _) => {
            start::before_stop(shared, id, body).await;
            life.pause();
            shared.roster.change(id, |entry| {
                for container in &mut entry.containers {
                    container.pid = None;
                    container.down = false;
                    container.ended_in_a_row = 0;
                }
            });
            body.stops.send_modify(|stops| *stops += 1);
            body.log.write("stdout", "stopped");
            Ok(Actual::Stopped)
        }
    }
}
