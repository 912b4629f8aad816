//! How a sandbox ends: what has hooks does them first, the sidecars end after the others, and what takes too long is killed.

use std::time::{Duration, Instant};

use nix::sys::signal::kill;
use nix::sys::wait::WaitStatus;
use nix::unistd::Pid;

use crate::container::{self, Created};
use crate::freezer;
use crate::hook::Hook;

use super::cell::Ending;
use super::heed::may_hear;
use super::sandbox::{CREATE_AFTER, HOLDS_AFTER, KILL_AGAIN, Phase, Sandbox};
use super::steps;

/// What a container has at least from its signal until it is killed, where its hooks took all of its time, or those did that
/// had to end before it (Kubernetes: 2 seconds once).
const LEAST: Duration = Duration::from_secs(2);

impl Sandbox {
    /// Asks all containers to end; they are killed when their grace is over.
    pub(super) fn stop(&mut self) {
        if self.phase == Phase::Running {
            self.ended_in_a_row = 0;
            for cell in &mut self.cells {
                cell.state.ended_in_a_row = 0;
            }
        }
        self.end_all();
    }

    pub(super) fn end_all(&mut self) {
        if !matches!(self.phase, Phase::Starting | Phase::Running) {
            return;
        }
        self.phase = Phase::Stopping;
        self.steps.clear();
        self.ending_since = Some(Instant::now());
        // A frozen process takes no signal, not even the last one.
        let _ = freezer::thaw_group(&self.group);
        // A hook of the start that is under way has no more sense.
        for cell in &mut self.cells {
            if let Some((_, hook)) = cell.hook.take() {
                hook.end();
            }
            // One that is ended alone begins anew, if it was not sent its signal yet: in its turn.
            cell.ending.take_if(|ending| !ending.signalled);
            cell.stands();
        }
        for number in 0..self.init.len() {
            if let Some(pid) = self.init[number].pid() {
                let config = &self.spec.init[number];
                let grace = Duration::from_millis(config.stop_grace_ms);
                let heard = config.signal().is_ok_and(|signal| {
                    let _ = kill(pid, signal);
                    may_hear(pid, signal)
                });
                let kill_at = Instant::now() + if heard { grace } else { Duration::ZERO };
                self.init[number].ending = Some(Ending {
                    kill_at,
                    signalled: true,
                });
            }
        }
        self.end_next();
        self.settle();
    }

    /// Tells those to end whose turn it is, once all before them have.
    fn end_next(&mut self) {
        let runs = |index: usize| self.cells[index].state.pid.is_some();
        for index in steps::last_started(&self.spec, runs) {
            if self.cells[index].ending.is_none() {
                self.end_one(index);
            }
        }
    }

    fn end_one(&mut self, index: usize) {
        let now = Instant::now();
        let since = self.ending_since.unwrap_or(now);
        let config = &self.spec.containers[index];
        let over = since + Duration::from_millis(config.stop_grace_ms);
        // What ends after others has a moment, though they took all of the time.
        let kill_at = match config.sidecar {
            Some(_) => over.max(now + LEAST),
            None => over,
        };
        self.cells[index].ending = Some(Ending {
            kill_at,
            signalled: false,
        });
        self.hook_before_stop(index, 0);
    }

    /// Begins the hook of this number, or the next that can begin; after the last one the container gets its signal.
    pub(super) fn hook_before_stop(&mut self, index: usize, number: usize) {
        let config = &self.spec.containers[index];
        for number in number..config.pre_stop.len() {
            if let Ok(hook) = self.hook(index, &config.pre_stop[number], None) {
                self.cells[index].hook = Some((number, hook));
                return;
            }
        }
        self.signal(index);
    }

    /// Sends a container the signal that asks it to end.
    fn signal(&mut self, index: usize) {
        // It was checked when the sandbox was prepared.
        let (Some(pid), Ok(signal)) = (
            self.cells[index].pid(),
            self.spec.containers[index].signal(),
        ) else {
            return;
        };
        let _ = kill(pid, signal);
        // What can never arrive needs no time to be heeded.
        let heard = may_hear(pid, signal);
        if let Some(ending) = &mut self.cells[index].ending {
            ending.signalled = true;
            if !heard {
                ending.kill_at = Instant::now();
            }
        }
    }

    /// When [`Sandbox::tick`] has something to do next.
    pub(super) fn due(&self) -> Option<Instant> {
        let cells = self.cells.iter().chain(&self.init);
        let kills = cells.filter_map(|cell| Some(cell.ending?.kill_at));
        let pauses = self
            .cells
            .iter()
            .filter_map(|cell| cell.hook.as_ref()?.1.due());
        let again = self.cells.iter().filter_map(|cell| cell.again_at);
        kills.chain(pauses).chain(again).chain(self.create_at).min()
    }

    /// Ends pauses that are over, kills those whose grace is, and creates the next containers when it is time; whether it did the
    /// latter.
    pub(super) fn tick(&mut self, now: Instant) -> bool {
        for index in 0..self.cells.len() {
            let hook = self.cells[index].hook.as_ref();
            if hook.is_some_and(|(_, hook)| hook.due().is_some_and(|at| at <= now)) {
                self.hook_ended(index, 0);
            }
            let ending = self.cells[index].ending;
            let over = ending.filter(|ending| ending.kill_at <= now);
            if over.is_some_and(|ending| !ending.signalled) {
                // Its hooks have taken all of its time.
                if let Some((_, hook)) = self.cells[index].hook.take() {
                    hook.end();
                }
                if let Some(ending) = &mut self.cells[index].ending {
                    ending.kill_at = now + LEAST;
                }
                self.signal(index);
            }
        }
        for cell in self.cells.iter_mut().chain(&mut self.init) {
            if let Some(ending) = &mut cell.ending
                && ending.signalled
                && ending.kill_at <= now
            {
                let _ = freezer::thaw_group(&self.group);
                cell.parts.group.signal_all();
                ending.kill_at = now + KILL_AGAIN;
            }
        }
        self.start_fallen(now);
        let due = self.create_at.is_some_and(|at| at <= now);
        if due {
            self.create_at = None;
            self.create_in_advance();
        }
        due
    }

    /// Takes note of a process that has ended, if it is one of the sandbox's.
    pub(super) fn ended(&mut self, status: WaitStatus) {
        let (pid, code) = match status {
            WaitStatus::Exited(pid, code) => (pid, code),
            WaitStatus::Signaled(pid, signal, _) => (pid, 128 + signal as i32),
            _ => return,
        };
        // One that stood ready has ended: its number may be another's soon.
        for cell in &mut self.cells {
            cell.next
                .take_if(|created: &mut Created| created.pid() == pid);
        }
        let is_it = |known: Option<Pid>| known == Some(pid);
        if let Some(number) = self.init.iter().position(|cell| is_it(cell.pid())) {
            return self.init_ended(number, code);
        }
        if let Some(index) = self.cells.iter().position(|cell| is_it(cell.pid())) {
            return self.container_ended(index, code);
        }
        let of_hook = |hook: &(usize, Hook)| is_it(hook.1.helper());
        let mut cells = self.cells.iter();
        if let Some(index) = cells.position(|cell| cell.hook.as_ref().is_some_and(of_hook)) {
            self.hook_ended(index, code);
        }
    }

    fn container_ended(&mut self, index: usize, code: i32) {
        let cell = &mut self.cells[index];
        let in_step = cell.hook.is_some() && !cell.alone && self.phase == Phase::Starting;
        let exit = cell.has_ended(code);
        match self.phase {
            Phase::Starting | Phase::Running => self.ended_alone(index, exit, in_step),
            Phase::Stopping | Phase::Stopped => {
                self.end_next();
                self.settle();
            }
        }
    }

    /// The hook of a container is over: its helper ended with `code`, or its pause is.
    fn hook_ended(&mut self, index: usize, code: i32) {
        let Some((number, hook)) = self.cells[index].take_hook() else {
            return;
        };
        let failure = hook.failure(code);
        let cell = &self.cells[index];
        let is_alone = cell.alone || cell.ending.is_some();
        match self.phase {
            Phase::Starting | Phase::Running if is_alone => {
                self.hook_alone_ended(index, number, failure);
            }
            Phase::Starting => self.started_hook_ended(index, number, code, failure),
            // How one of these ended changes nothing.
            Phase::Stopping => self.hook_before_stop(index, number + 1),
            Phase::Running | Phase::Stopped => {}
        }
    }

    /// Counts an end that was unasked.
    pub(super) fn count_end(&mut self) {
        let held = (self.started).is_some_and(|at| at.elapsed() >= HOLDS_AFTER);
        self.ended_in_a_row = match held {
            true => 0,
            false => self.ended_in_a_row.saturating_add(1),
        };
    }

    /// The last container has ended: the sandbox is stopped.
    pub(super) fn settle(&mut self) {
        let mut all = self.cells.iter().chain(&self.init);
        if self.phase == Phase::Stopping && all.all(|cell| cell.state.pid.is_none()) {
            // Helpers of execs are in there too.
            self.group.signal_all();
            for cell in &self.cells {
                cell.parts.binds.detach(&cell.parts.rootfs);
                let _ = container::forget(&self.bundle, &cell.state.name);
            }
            self.phase = Phase::Stopped;
            self.create_at = Some(Instant::now() + CREATE_AFTER);
        }
    }
}
