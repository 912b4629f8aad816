//! What a shim holds: the containers of one sandbox and their life, without any sockets.
//!
//! ```text
//! Stopped --start--> Running --stop, or one ended unasked--> Stopping --the last has ended--> Stopped
//! ```
//!
//! Some moments after it has stopped, the next containers are created: their inits wait, so that a start need not
//! wait for the kernel (moving a process into a cgroup can take some 20 ms, a grace period of RCU).
//!
//! Nothing here waits, but for starting (some ms) and for the kernel to kill what a failed start left.

use std::mem;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use nix::sys::signal::kill;
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::Pid;

use crate::attach::{self, Attached, Client, Place};
use crate::cgroup::Group;
use crate::container::{self, Created, Outputs, Parts, Plan, Sink, Started};
use crate::error::{Error, Result};
use crate::exec::{self, Exec};
use crate::freezer;
use crate::idmap::Stage;
use crate::protocol::{Attach, ContainerState, CopyRequest, Ended, Exit, SandboxState, Trouble};
use crate::pump::{Log, Pump, now_ms};
use crate::rootfs;
use crate::spec::{Bundle, ContainerConfig, SandboxSpec};
use crate::values::Values;

use super::heed::may_hear;

/// What was killed and still is there is killed again after this: it may have been frozen just then.
const KILL_AGAIN: Duration = Duration::from_millis(500);

/// How long after a stop, or after being prepared, the next containers are created: what is started at once
/// need not be, and what is to be removed should not be.
const CREATE_AFTER: Duration = Duration::from_millis(50);

/// One that ends unasked after it ran for so long had started well.
const HOLDS_AFTER: Duration = Duration::from_secs(10);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Stopped,
    Running,
    Stopping,
}

/// One container's place in the sandbox.
pub(super) struct Cell {
    state: ContainerState,
    parts: Parts,
    log: Log,
    pumps: Vec<Pump>,
    /// The OOM kills in its cgroup before it started.
    oom_before: u64,
    /// When to kill it, while it is asked to end.
    kill_at: Option<Instant>,
    /// What the next start is to execute, created in advance.
    next: Option<Created>,
}

impl Cell {
    pub(super) fn new(config: &ContainerConfig, parts: Parts, log: PathBuf) -> Self {
        let state = ContainerState {
            name: config.name.clone(),
            ..ContainerState::default()
        };
        Self {
            state,
            parts,
            log: Log::new(log),
            pumps: Vec::new(),
            oom_before: 0,
            kill_at: None,
            next: None,
        }
    }

    fn pid(&self) -> Option<Pid> {
        self.state.pid.map(Pid::from_raw)
    }

    pub(super) fn pumps(&self) -> &[Pump] {
        &self.pumps
    }

    /// Moves output to the log; an output at its end is dropped.
    fn turn(&mut self) {
        let log = &mut self.log;
        self.pumps.retain_mut(|pump| pump.turn(log));
    }
}

/// The sandbox.
pub(super) struct Sandbox {
    bundle: Bundle,
    spec: SandboxSpec,
    /// What `secret_env` refers to; here alone, for as long as there are starts.
    values: Values,
    group: Group,
    stage: Stage,
    cells: Vec<Cell>,
    phase: Phase,
    run: u64,
    trouble: Option<Trouble>,
    ended: Option<Ended>,
    /// Ends in a row that were unasked and came too soon.
    ended_in_a_row: u32,
    started: Option<Instant>,
    /// When to create the next containers.
    create_at: Option<Instant>,
}

impl Sandbox {
    pub(super) fn new(
        bundle: Bundle,
        spec: SandboxSpec,
        values: Values,
        group: Group,
        stage: Stage,
        cells: Vec<Cell>,
    ) -> Self {
        Self {
            bundle,
            spec,
            values,
            group,
            stage,
            cells,
            phase: Phase::Stopped,
            run: 0,
            trouble: None,
            ended: None,
            ended_in_a_row: 0,
            started: None,
            create_at: Some(Instant::now() + CREATE_AFTER),
        }
    }

    pub(super) fn spec(&self) -> &SandboxSpec {
        &self.spec
    }

    pub(super) fn cells(&self) -> &[Cell] {
        &self.cells
    }

    pub(super) fn is_stopped(&self) -> bool {
        self.phase == Phase::Stopped
    }

    pub(super) fn is_running(&self) -> bool {
        self.phase == Phase::Running
    }

    pub(super) fn state(&self) -> SandboxState {
        SandboxState {
            running: self.is_running(),
            run: self.run,
            containers: self.cells.iter().map(|cell| cell.state.clone()).collect(),
            trouble: self.trouble.clone(),
            ended: self.ended.clone(),
            ended_in_a_row: self.ended_in_a_row,
        }
    }

    /// Starts all containers of a stopped sandbox. If one cannot be started, none is left.
    pub(super) fn start(&mut self) -> Result<()> {
        self.run += 1;
        self.trouble = None;
        self.ended = None;
        self.create_at = None;
        // Left frozen by a node that died meanwhile, it would hold the new processes too, and us with them.
        freezer::thaw_group(&self.group)?;
        let outcome = (0..self.cells.len()).try_for_each(|index| self.start_one(index));
        match outcome {
            Ok(()) => {
                self.phase = Phase::Running;
                self.started = Some(Instant::now());
            }
            Err(error) => {
                self.undo_start();
                self.trouble = Some(trouble(&error));
                return Err(error);
            }
        }
        Ok(())
    }

    fn start_one(&mut self, index: usize) -> Result<()> {
        let name = self.cells[index].state.name.clone();
        let in_advance = self.cells[index].next.take();
        self.cells[index].oom_before = self.cells[index].parts.group.oom_kills();
        // One that stood ready and is not well any more says nothing about a new one.
        let started = match in_advance.map(|created| created.execute(&name)) {
            Some(Err(error)) if error.fatal() => return Err(error),
            Some(Ok(started)) => started,
            Some(Err(_)) | None => self.create_one(index)?.execute(&name)?,
        };
        let Started { pid, outputs } = started;
        let cell = &mut self.cells[index];
        cell.state.pid = Some(pid.as_raw());
        cell.pumps = match outputs {
            Outputs::Pipes { stdout, stderr } => {
                vec![Pump::new(stdout, "stdout"), Pump::new(stderr, "stderr")]
            }
            Outputs::Terminal(terminal) => vec![Pump::new(terminal, "stdout")],
            Outputs::Elsewhere => Vec::new(),
        };
        Ok(())
    }

    fn create_one(&mut self, index: usize) -> Result<Created> {
        let shares = self.first_process().filter(|_| index > 0);
        let (cell, config) = (&mut self.cells[index], &self.spec.containers[index]);
        // libcontainer removes the cgroup of a container that it failed to make.
        if !cell.parts.group.exists() {
            cell.parts.group.create()?;
            cell.parts.group.limit(config, &cell.parts.devices)?;
        }
        let plan = Plan {
            bundle: &self.bundle,
            sandbox: &self.spec,
            config,
            values: &self.values,
            parts: &cell.parts,
            stage: &self.stage,
            shares,
        };
        container::create(&plan, Sink::Caller)
    }

    /// The first process of the first container, which runs or stands ready, where all are to share its namespace.
    fn first_process(&self) -> Option<Pid> {
        let first = self.cells.first().filter(|_| self.spec.share_pid)?;
        let ready = first.next.as_ref().map(Created::pid);
        first.pid().or(ready)
    }

    /// Creates the next containers of a stopped sandbox. What fails here will fail again, and be told, at the start.
    fn create_in_advance(&mut self) {
        if self.phase != Phase::Stopped || freezer::thaw_group(&self.group).is_err() {
            return;
        }
        for index in 0..self.cells.len() {
            if self.cells[index].next.is_none() {
                self.cells[index].next = self.create_one(index).ok();
            }
        }
    }

    /// Ends what was created in advance.
    fn discard_next(&mut self) {
        self.create_at = None;
        for created in self.cells.iter_mut().filter_map(|cell| cell.next.take()) {
            created.discard();
        }
    }

    fn undo_start(&mut self) {
        // Whatever does not die now is killed again by the next stop or by who removes the cgroup.
        let _ = self.group.kill_all();
        self.discard_next();
        for cell in &mut self.cells {
            if let Some(pid) = cell.pid() {
                let _ = waitpid(pid, None);
                cell.state.pid = None;
            }
            for pump in mem::take(&mut cell.pumps) {
                pump.finish(&mut cell.log);
            }
            cell.log.close();
            let _ = container::forget(&self.bundle, &cell.state.name);
        }
    }

    /// Asks all containers to end; they are killed when their grace is over.
    pub(super) fn stop(&mut self) {
        if self.phase == Phase::Running {
            self.ended_in_a_row = 0;
        }
        self.end_all();
    }

    fn end_all(&mut self) {
        if self.phase != Phase::Running {
            return;
        }
        self.phase = Phase::Stopping;
        // A frozen process takes no signal, not even the last one.
        let _ = freezer::thaw_group(&self.group);
        for (cell, config) in self.cells.iter_mut().zip(&self.spec.containers) {
            if let Some(pid) = cell.pid() {
                // It was checked when the sandbox was prepared.
                let Ok(signal) = config.signal() else {
                    continue;
                };
                let _ = kill(pid, signal);
                // What can never arrive needs no time to be heeded.
                let heard = may_hear(pid, signal);
                let grace_ms = if heard { config.stop_grace_ms } else { 0 };
                cell.kill_at = Some(Instant::now() + Duration::from_millis(grace_ms));
            }
        }
        self.settle();
    }

    /// When [`Sandbox::tick`] has something to do next.
    pub(super) fn due(&self) -> Option<Instant> {
        let kills = self.cells.iter().filter_map(|cell| cell.kill_at);
        kills.chain(self.create_at).min()
    }

    /// Kills those whose grace is over, and creates the next containers when it is time; whether it did the latter.
    pub(super) fn tick(&mut self, now: Instant) -> bool {
        for cell in &mut self.cells {
            if cell.kill_at.is_some_and(|at| at <= now) {
                let _ = freezer::thaw_group(&self.group);
                cell.parts.group.signal_all();
                cell.kill_at = Some(now + KILL_AGAIN);
            }
        }
        let due = self.create_at.is_some_and(|at| at <= now);
        if due {
            self.create_at = None;
            self.create_in_advance();
        }
        due
    }

    /// Moves output to the logs.
    pub(super) fn turn(&mut self) {
        for cell in &mut self.cells {
            cell.turn();
        }
    }

    /// Takes note of a process that has ended, if it is the init of a container.
    pub(super) fn ended(&mut self, status: WaitStatus) {
        let (pid, code) = match status {
            WaitStatus::Exited(pid, code) => (pid, code),
            WaitStatus::Signaled(pid, signal, _) => (pid, 128 + signal as i32),
            _ => return,
        };
        // One that stood ready has ended: its number may be another's soon.
        for cell in &mut self.cells {
            cell.next.take_if(|created| created.pid() == pid);
        }
        let unasked = self.phase == Phase::Running;
        let Some(cell) = self.cells.iter_mut().find(|cell| cell.pid() == Some(pid)) else {
            return;
        };
        let oom = cell.parts.group.oom_kills() > cell.oom_before;
        let exit = Exit { code, oom };
        cell.state.pid = None;
        cell.state.last_exit = Some(exit);
        cell.state.last_exit_ms = Some(now_ms());
        cell.kill_at = None;
        // With the init of its PID namespace every writer is gone.
        for pump in mem::take(&mut cell.pumps) {
            pump.finish(&mut cell.log);
        }
        cell.log.close();
        if unasked {
            cell.state.ended = cell.state.ended.saturating_add(1);
            let name = &cell.state.name;
            self.ended = Some(Ended {
                container: name.clone(),
                exit,
            });
            let why = if oom {
                format!("ran out of its memory and ended with exit code {code}")
            } else {
                format!("ended by itself with exit code {code}")
            };
            self.trouble = Some(Trouble {
                fatal: false,
                message: format!("container {name} {why}"),
            });
            let held = (self.started).is_some_and(|at| at.elapsed() >= HOLDS_AFTER);
            self.ended_in_a_row = match held {
                true => 0,
                false => self.ended_in_a_row.saturating_add(1),
            };
            self.end_all();
        } else {
            self.settle();
        }
    }

    /// The last container has ended: the sandbox is stopped.
    fn settle(&mut self) {
        if self.phase == Phase::Stopping && self.cells.iter().all(|cell| cell.state.pid.is_none()) {
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

    fn place<'a>(&'a self, cell: &'a Cell, init: Pid) -> Place<'a> {
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
    fn running_cell(&self, name: &str) -> Result<(&Cell, Pid)> {
        let cell = if name.is_empty() {
            self.cells.first()
        } else {
            self.cells.iter().find(|c| c.state.name == name)
        };
        let cell = cell.ok_or_else(|| {
            Error::Fatal(format!("there is no container {name:?} in this sandbox"))
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

    /// Takes all down that a stopped sandbox has outside its bundle.
    pub(super) fn remove(&mut self) -> Result<(), Vec<Error>> {
        let mut errors = Vec::new();
        self.discard_next();
        for cell in &self.cells {
            errors.extend(rootfs::unmount(&cell.parts.rootfs).err());
        }
        errors.extend(self.group.kill_all().err());
        if let Err(more) = self.group.remove() {
            errors.extend(more);
        }
        if errors.is_empty() {
            Ok(())
        } else {
            Err(errors)
        }
    }
}

/// An error as clients hear it.
pub(super) fn trouble(error: &Error) -> Trouble {
    Trouble {
        fatal: error.fatal(),
        message: error.sentence(),
    }
}
