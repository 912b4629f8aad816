//! Carrying out a plan: stages that do not need each other are built side by side, at most one for each core.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{self, RecvTimeoutError, SyncSender};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::draft::Draft;
use super::plan::{Base, Plan, Planned};
use super::stage::{StageBuilder, given_up};
use super::{Build, BuildEvent};
use crate::Error;

/// So many events may wait to be told; then the steps wait.
const EVENTS: usize = 256;
/// How often it is looked whether anybody still wants the image.
const LOOK: Duration = Duration::from_millis(100);

/// What the threads share.
struct Progress {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    /// Places in the plan of the stages that nobody has begun.
    open: Vec<usize>,
    /// By place in the Dockerfile.
    done: BTreeMap<usize, Draft>,
    /// What went wrong first.
    failed: Option<Error>,
}

/// Builds all stages of the plan, and gives the wanted one's image.
pub(super) fn run(
    build: &Build,
    plan: &Plan,
    progress: &mut dyn FnMut(BuildEvent),
) -> Result<Draft, Error> {
    let shared = Progress {
        state: Mutex::new(State {
            open: (0..plan.stages.len()).collect(),
            ..State::default()
        }),
        changed: Condvar::new(),
    };
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let (events, told) = mpsc::sync_channel(EVENTS);
    std::thread::scope(|scope| {
        for _ in 0..cores.min(plan.stages.len()) {
            let (events, shared) = (events.clone(), &shared);
            scope.spawn(move || work(build, plan, shared, &events));
        }
        drop(events);
        loop {
            match told.recv_timeout(LOOK) {
                Ok(event) => progress(event),
                Err(RecvTimeoutError::Disconnected) => return,
                Err(RecvTimeoutError::Timeout) => {}
            }
            if build.options.stop.load(Ordering::Relaxed) {
                build.stop.store(true, Ordering::Relaxed);
            }
        }
    });
    let mut state = shared.state();
    match state.failed.take() {
        Some(error) => Err(error),
        None => (state.done.remove(&plan.target))
            .ok_or_else(|| Error::Build("a stage broke off; please report this".to_owned())),
    }
}

/// Builds one stage after the other, as long as there is one that can be begun or will be.
fn work(build: &Build, plan: &Plan, shared: &Progress, events: &SyncSender<BuildEvent>) {
    while let Some((planned, base)) = shared.next(plan) {
        let tell = |event| {
            // Whoever listens ends last.
            let _ = events.send(event);
        };
        let _broken = Broken(build, shared);
        let earlier = |index| shared.wait_for(index);
        let built = StageBuilder::new(build, plan, planned, base, &earlier, &tell).build();
        let mut state = shared.state();
        match built {
            Ok(draft) => {
                state.done.insert(planned.index, draft);
            }
            Err(error) => {
                // What the others do is of no use any more.
                build.stop.store(true, Ordering::Relaxed);
                state.failed.get_or_insert(error);
            }
        }
        drop(state);
        shared.changed.notify_all();
    }
}

/// Lets the others go when a thread breaks off: they would wait for its stage for ever.
struct Broken<'a>(&'a Build<'a>, &'a Progress);

impl Drop for Broken<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.stop.store(true, Ordering::Relaxed);
            let error = Error::Build("a stage broke off; please report this".to_owned());
            self.1.state().failed.get_or_insert(error);
            self.1.changed.notify_all();
        }
    }
}

impl Progress {
    /// The first stage whose base is there, with that; waits for one. `None`: nothing is left to do.
    ///
    /// Nobody waits for ever: of the stages that are not built yet, the first one's base is built, and so whoever
    /// is free next takes that one.
    fn next<'p>(&self, plan: &'p Plan) -> Option<(&'p Planned, Option<Draft>)> {
        let mut state = self.state();
        loop {
            if state.failed.is_some() || state.open.is_empty() {
                return None;
            }
            let is_ready = |place: &usize| match plan.stages[*place].base {
                Base::Stage(index) => state.done.contains_key(&index),
                Base::Scratch | Base::Image(_) => true,
            };
            if let Some(at) = state.open.iter().position(is_ready) {
                let planned = &plan.stages[state.open.remove(at)];
                let base = match planned.base {
                    Base::Stage(index) => state.done.get(&index).cloned(),
                    Base::Scratch | Base::Image(_) => None,
                };
                return Some((planned, base));
            }
            state = (self.changed.wait(state)).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Another stage, which is built or being built.
    fn wait_for(&self, index: usize) -> Result<Draft, Error> {
        let mut state = self.state();
        loop {
            if let Some(draft) = state.done.get(&index) {
                return Ok(draft.clone());
            }
            if state.failed.is_some() {
                return Err(given_up());
            }
            state = (self.changed.wait(state)).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing panics while it is held.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
