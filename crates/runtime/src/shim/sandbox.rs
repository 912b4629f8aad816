//! What a shim holds: the containers of one sandbox and their life, without any sockets.
//!
//! ```text
//! Stopped --start--> Starting --its steps are taken--> Running --stop, or it is over--> Stopping
//! Stopping --the last has ended--> Stopped
//! ```
//!
//! A start takes its steps at once ([`super::starting`]), but for those that have to end first: containers that run before
//! the others, and hooks. Those run once in the life of the sandbox; what they left behind stays as long as it does,
//! also while it sleeps.
//!
//! A container that ends by itself ends the others too, unless its [`AgainConfig`](crate::AgainConfig) says more: then it alone
//! is started again, after a pause ([`super::again`]), node or no node; and the sandbox is over when all that it is there for have
//! ended for good.
//!
//! Some moments after it has stopped, the next containers are created: their inits wait, so that a start need not
//! wait for the kernel (moving a process into a cgroup can take some 20 ms, a grace period of RCU).
//!
//! Nothing here waits, but for starting a container (some ms) and for the kernel to kill what a failed start left.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use nix::unistd::Pid;

use crate::attach::{self, Attached, Client, Place};
use crate::cgroup::Group;
use crate::error::{Error, Result};
use crate::exec::{self, Exec};
use crate::freezer;
use crate::idmap::Stage;
use crate::protocol::{Attach, CopyRequest, Ended, SandboxState, Trouble, VERSION};
use crate::pump::Pump;
use crate::spec::{Bundle, SandboxSpec};
use crate::values::Values;

use super::cell::Cell;
use super::steps::{self, Step};

/// What was killed and still is there is killed again after this: it may have been frozen just then.
pub(super) const KILL_AGAIN: Duration = Duration::from_millis(500);

/// How long after a stop, or after being prepared, the next containers are created: what is started at once
/// need not be, and what is to be removed should not be.
pub(super) const CREATE_AFTER: Duration = Duration::from_millis(50);

/// One that ends unasked after it ran for so long had started well.
pub(super) const HOLDS_AFTER: Duration = Duration::from_secs(10);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    Stopped,
    Starting,
    Running,
    Stopping,
}

/// The sandbox.
pub(super) struct Sandbox {
    pub(super) bundle: Bundle,
    pub(super) spec: SandboxSpec,
    /// What `secret_env` refers to; here alone, for as long as there are starts.
    pub(super) values: Values,
    pub(super) group: Group,
    pub(super) stage: Stage,
    pub(super) cells: Vec<Cell>,
    /// The containers in the order in which they are started.
    pub(super) order: Vec<usize>,
    /// Those that run before the others.
    pub(super) init: Vec<Cell>,
    /// So many of these have ended well.
    pub(super) done: usize,
    pub(super) phase: Phase,
    /// What is still to be done of a start.
    pub(super) steps: VecDeque<Step>,
    pub(super) run: u64,
    pub(super) trouble: Option<Trouble>,
    pub(super) ended: Option<Ended>,
    /// Ends in a row that were unasked and came too soon.
    pub(super) ended_in_a_row: u32,
    pub(super) started: Option<Instant>,
    /// Since when it stops.
    pub(super) ending_since: Option<Instant>,
    /// When to create the next containers.
    pub(super) create_at: Option<Instant>,
}

impl Sandbox {
    pub(super) fn new(
        bundle: Bundle,
        spec: SandboxSpec,
        values: Values,
        group: Group,
        stage: Stage,
        cells: Vec<Cell>,
        init: Vec<Cell>,
    ) -> Self {
        let order = steps::order(&spec);
        Self {
            bundle,
            spec,
            values,
            group,
            stage,
            cells,
            order,
            init,
            done: 0,
            phase: Phase::Stopped,
            steps: VecDeque::new(),
            run: 0,
            trouble: None,
            ended: None,
            ended_in_a_row: 0,
            started: None,
            ending_since: None,
            create_at: Some(Instant::now() + CREATE_AFTER),
        }
    }

    pub(super) fn spec(&self) -> &SandboxSpec {
        &self.spec
    }

    /// What writes to logs, to poll.
    pub(super) fn pumps(&self) -> impl Iterator<Item = &Pump> {
        let all = self.cells.iter().chain(&self.init);
        all.flat_map(Cell::pumps)
    }

    pub(super) fn is_stopped(&self) -> bool {
        self.phase == Phase::Stopped
    }

    pub(super) fn is_running(&self) -> bool {
        self.phase == Phase::Running
    }

    /// Why a start came to nothing that was on its way.
    pub(super) fn why_not_started(&self) -> Error {
        match &self.trouble {
            Some(Trouble {
                fatal: true,
                message,
            }) => Error::Fatal(message.clone()),
            Some(trouble) => Error::Failed(trouble.message.clone()),
            None => Error::Failed("it was stopped while it started".to_owned()),
        }
    }

    pub(super) fn state(&self) -> SandboxState {
        SandboxState {
            version: VERSION,
            running: self.is_running(),
            run: self.run,
            containers: self.cells.iter().map(|cell| cell.state.clone()).collect(),
            init: self.init.iter().map(|cell| cell.state.clone()).collect(),
            trouble: self.trouble.clone(),
            ended: self.ended.clone(),
            ended_in_a_row: self.ended_in_a_row,
        }
    }

    /// Moves output to the logs.
    pub(super) fn turn(&mut self) {
        for cell in self.cells.iter_mut().chain(&mut self.init) {
            cell.turn();
        }
    }

    /// Starts a command in a container; empty: the first.
    pub(super) fn exec(&self, name: &str, argv: &[String]) -> Result<Exec> {
        let (cell, pid) = self.running_cell(name)?;
        exec::start(pid, &self.bundle, &cell.state.name, argv)
    }

    /// Starts a command with a client at its other end.
    pub(super) fn attach(&self, request: &Attach, client: &Client<'_>) -> Result<Attached> {
        let (cell, init) = self.running_cell(&request.container)?;
        attach::command(&self.place(cell, init), request, client)
    }

    /// Starts a copy. Where the container has ended, the next one stands created, and has the same files.
    pub(super) fn copy(&self, request: &CopyRequest, client: &Client<'_>) -> Result<Attached> {
        let name = &request.container;
        let meant = |cell: &&Cell| name.is_empty() || cell.state.name == *name;
        let cell = self.cells.iter().find(meant).filter(|_| self.is_stopped());
        let at_rest = cell.and_then(|cell| Some((cell, cell.next.as_ref()?.pid())));
        let (cell, init) = match at_rest {
            Some(at_rest) => at_rest,
            None => self.running_cell(name)?,
        };
        attach::copy(&self.place(cell, init), &request.copy, client)
    }

    pub(super) fn place<'a>(&'a self, cell: &'a Cell, init: Pid) -> Place<'a> {
        let mut configs = self.spec.containers.iter();
        let config = configs.find(|config| config.name == cell.state.name);
        Place {
            init,
            bundle: &self.bundle,
            name: &cell.state.name,
            rootfs: &cell.parts.rootfs,
            home_is_set: config.is_some_and(|config| config.sets("HOME")),
        }
    }

    /// A container that can be entered, and its init; empty: the first.
    pub(super) fn running_cell(&self, name: &str) -> Result<(&Cell, Pid)> {
        let cell = if name.is_empty() {
            self.cells.first()
        } else {
            self.cells.iter().find(|c| c.state.name == name)
        };
        let cell = cell.ok_or_else(|| {
            let runs_before = self.init.iter().any(|c| c.state.name == name);
            Error::Fatal(match runs_before {
                true => {
                    format!("container {name} runs before the others, and is not to be entered")
                }
                false => format!("there is no container {name:?} in this sandbox"),
            })
        })?;
        let pid = cell
            .pid()
            .filter(|_| self.is_running())
            .ok_or_else(|| Error::Failed(format!("container {} does not run", cell.state.name)))?;
        if freezer::is_frozen(&self.spec.cgroup)? {
            return Err(Error::Failed(format!(
                "container {} is frozen: thaw it first",
                cell.state.name
            )));
        }
        Ok((cell, pid))
    }
}

/// An error as clients hear it.
pub(super) fn trouble(error: &Error) -> Trouble {
    Trouble {
        fatal: error.fatal(),
        message: error.sentence(),
    }
}
