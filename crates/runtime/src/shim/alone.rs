//! One container that ends by itself, and is started again, while the others go on.

use std::time::{Duration, Instant};

use crate::container;
use crate::error::Result;
use crate::freezer;
use crate::hook;
use crate::protocol::{Ended, Exit};
use crate::spec::AgainConfig;

use super::again::{self, Standing};
use super::cell::{Cell, Ending};
use super::sandbox::{HOLDS_AFTER, Phase, Sandbox};
use super::starting::how;

/// How long the start of a container is put off for as long as the sandbox is frozen: it would hold the new process too, and
/// this one with it.
const FROZEN_AGAIN: Duration = Duration::from_secs(1);

impl Sandbox {
    /// A container has ended unasked. `in_step`: while a step of the sandbox's start waited for its hook.
    pub(super) fn ended_alone(&mut self, index: usize, exit: Exit, in_step: bool) {
        let cell = &mut self.cells[index];
        cell.state.ended = cell.state.ended.saturating_add(1);
        let again = self.spec.containers[index].again;
        let Some(again) = again.filter(|_| !in_step) else {
            return self.over(index);
        };
        let held = (cell.started).is_some_and(|at| at.elapsed() >= HOLDS_AFTER);
        cell.state.ended_in_a_row = match held {
            true => 0,
            false => cell.state.ended_in_a_row.saturating_add(1),
        };
        // Commands that ran in it, and what its root has mounted.
        cell.parts.group.signal_all();
        cell.parts.binds.detach(&cell.parts.rootfs);
        let _ = container::forget(&self.bundle, &cell.state.name);
        self.lie(index, &again, exit);
    }

    /// A container lies where it ended, until it is to be started again, if it is. If it was the last that anything was to come
    /// of, the sandbox has ended with it.
    fn lie(&mut self, index: usize, again: &AgainConfig, exit: Exit) {
        let cell = &mut self.cells[index];
        let pause = again::pause(again, exit, cell.state.ended_in_a_row);
        cell.state.down = pause.is_some();
        cell.again_at = pause.map(|pause| Instant::now() + pause);
        if self.phase == Phase::Running && again::is_over(self.standings()) {
            let failed = |index: &usize| {
                let exit = self.cells[*index].state.last_exit;
                self.spec.containers[*index].sidecar.is_none() && exit.is_some_and(again::failed)
            };
            let told = (0..self.cells.len()).find(failed);
            self.over(told.unwrap_or(index));
        }
    }

    fn standings(&self) -> impl Iterator<Item = Standing> {
        let all = self.cells.iter().zip(&self.spec.containers);
        all.map(|(cell, config)| Standing {
            sidecar: config.sidecar.is_some(),
            runs: cell.state.pid.is_some(),
            down: cell.state.down,
        })
    }

    /// With the end of a container, the sandbox has ended.
    fn over(&mut self, index: usize) {
        let state = &self.cells[index].state;
        let exit = state.last_exit.unwrap_or_default();
        let container = state.name.clone();
        let message = format!("container {container} {}", how(exit));
        let ended = Ended {
            container,
            exit,
            hook: false,
        };
        self.fail(ended, message);
    }

    /// Starts those again whose pause is over.
    pub(super) fn start_fallen(&mut self, now: Instant) {
        for index in 0..self.cells.len() {
            if self.cells[index].again_at.is_some_and(|at| at <= now) {
                self.start_alone(index);
            }
        }
    }

    fn start_alone(&mut self, index: usize) {
        let frozen = freezer::is_frozen(&self.spec.cgroup);
        if frozen.unwrap_or(false) {
            self.cells[index].again_at = Some(Instant::now() + FROZEN_AGAIN);
            return;
        }
        self.cells[index].again_at = None;
        self.cells[index].alone = true;
        if let Err(error) = self.start_one(index) {
            // As good as one that ended at once.
            let cell = &mut self.cells[index];
            cell.state.trouble = Some(error.sentence());
            cell.state.ended_in_a_row = cell.state.ended_in_a_row.saturating_add(1);
            let unstarted = Exit {
                code: 128,
                oom: false,
            };
            if let Some(again) = self.spec.containers[index].again {
                self.lie(index, &again, unstarted);
            }
            return;
        }
        self.hook_alone(index, 0);
    }

    /// Begins the hook of this number of a container that was started again: until the last of them is over, it is not there.
    fn hook_alone(&mut self, index: usize, number: usize) {
        let config = self.spec.containers[index].post_start.get(number);
        self.cells[index].state.down = config.is_some();
        let Some(config) = config else {
            return;
        };
        match self.hook(index, config, Some(hook::ANSWER)) {
            Ok(begun) => self.cells[index].hook = Some((number, begun)),
            Err(error) => self.hook_alone_failed(index, number, &error.sentence()),
        }
    }

    /// A hook of a container that was started again, or is ended alone, is over.
    pub(super) fn hook_alone_ended(
        &mut self,
        index: usize,
        number: usize,
        failure: Option<String>,
    ) {
        if self.cells[index].ending.is_some() {
            return self.hook_before_stop(index, number + 1);
        }
        match failure {
            None => self.hook_alone(index, number + 1),
            Some(failure) => self.hook_alone_failed(index, number, &failure),
        }
    }

    /// Its container is ended, and what follows is what follows its end.
    pub(super) fn hook_alone_failed(&mut self, index: usize, number: usize, failure: &str) {
        let what = self.spec.containers[index].post_start[number].after_start();
        let cell = &mut self.cells[index];
        let name = &cell.state.name;
        cell.state.trouble = Some(format!("{what} {name} {failure}"));
        cell.state.down = true;
        cell.parts.group.signal_all();
    }

    /// Ends a container as if it had ended by itself; empty: the first.
    pub(super) fn end_alone(&mut self, name: &str, grace_ms: Option<u64>) -> Result<()> {
        let (_, pid) = self.running_cell(name)?;
        let mut cells = self.cells.iter();
        let is_new = |cell: &Cell| cell.pid() == Some(pid) && cell.ending.is_none();
        let Some(index) = cells.position(is_new) else {
            return Ok(()); // it is being ended already
        };
        if let Some((_, hook)) = self.cells[index].hook.take() {
            hook.end();
        }
        let longest = self.spec.containers[index].stop_grace_ms;
        // A year, so that adding it to now cannot fail.
        let grace_ms = grace_ms.unwrap_or(longest).min(365 * 24 * 3600 * 1000);
        self.cells[index].ending = Some(Ending {
            kill_at: Instant::now() + Duration::from_millis(grace_ms),
            signalled: false,
        });
        self.hook_before_stop(index, 0);
        Ok(())
    }
}
