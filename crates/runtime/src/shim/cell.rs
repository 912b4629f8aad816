//! One container's place in a sandbox.

use std::mem;
use std::path::PathBuf;
use std::time::Instant;

use nix::unistd::Pid;

use crate::container::{Created, Outputs, Parts, Started};
use crate::error::Result;
use crate::hook::Hook;
use crate::protocol::{ContainerState, Exit};
use crate::pump::{Log, Pump, now_ms};
use crate::spec::ContainerConfig;

/// A container of a sandbox: as it is, and what it is made from.
pub(super) struct Cell {
    pub(super) state: ContainerState,
    pub(super) parts: Parts,
    pub(super) log: Log,
    pumps: Vec<Pump>,
    /// The OOM kills in its cgroup before it started.
    oom_before: u64,
    /// Since when it was told to end: by a hook first, if it has any.
    pub(super) ending: Option<Ending>,
    /// The hook under way, and its number among those of its kind.
    pub(super) hook: Option<(usize, Hook)>,
    /// What the next start is to execute, created in advance.
    pub(super) next: Option<Created>,
    /// When it was started.
    pub(super) started: Option<Instant>,
    /// When it is to be started again, having ended alone.
    pub(super) again_at: Option<Instant>,
    /// It was started again alone, in this run: its hooks are no steps of the sandbox's start.
    pub(super) alone: bool,
}

/// A container that was told to end.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ending {
    /// When to kill it.
    pub(super) kill_at: Instant,
    /// It was sent its signal; not yet while hooks are under way.
    pub(super) signalled: bool,
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
            ending: None,
            hook: None,
            next: None,
            started: None,
            again_at: None,
            alone: false,
        }
    }

    /// Its cgroup, with its limits: libcontainer removes that of a container that it failed to make.
    pub(super) fn ready_group(&self, config: &ContainerConfig) -> Result<()> {
        if !self.parts.group.exists() {
            self.parts.group.create()?;
            self.parts.group.limit(config, &self.parts.devices)?;
        }
        Ok(())
    }

    pub(super) fn pid(&self) -> Option<Pid> {
        self.state.pid.map(Pid::from_raw)
    }

    /// What writes to its log.
    pub(super) fn pumps(&self) -> impl Iterator<Item = &Pump> {
        let of_hook = self.hook.as_ref().and_then(|(_, hook)| hook.pump());
        self.pumps.iter().chain(of_hook)
    }

    /// Takes note of what is to be counted from its start on.
    pub(super) fn before_start(&mut self) {
        self.oom_before = self.parts.group.oom_kills();
    }

    /// Takes a started container in.
    pub(super) fn take(&mut self, started: Started) {
        let Started { pid, outputs } = started;
        self.state.pid = Some(pid.as_raw());
        self.state.starts = self.state.starts.saturating_add(1);
        self.state.down = false;
        self.state.trouble = None;
        self.started = Some(Instant::now());
        self.ending = None;
        self.pumps = match outputs {
            Outputs::Pipes { stdout, stderr } => {
                vec![Pump::new(stdout, "stdout"), Pump::new(stderr, "stderr")]
            }
            Outputs::Terminal(terminal) => vec![Pump::new(terminal, "stdout")],
            Outputs::Elsewhere => Vec::new(),
        };
    }

    /// Moves output to the log; an output at its end is dropped.
    pub(super) fn turn(&mut self) {
        let log = &mut self.log;
        self.pumps.retain_mut(|pump| pump.turn(log));
        if let Some((_, hook)) = &mut self.hook
            && let Some(output) = hook.output()
        {
            output.take_if(|pump| !pump.turn(log));
        }
    }

    /// Its first process has ended with `code`. With the init of its PID namespace every writer is gone.
    pub(super) fn has_ended(&mut self, code: i32) -> Exit {
        let oom = self.parts.group.oom_kills() > self.oom_before;
        let exit = Exit { code, oom };
        self.state.pid = None;
        self.state.last_exit = Some(exit);
        self.state.last_exit_ms = Some(now_ms());
        self.close();
        exit
    }

    /// It is not started again alone any more: all are stopped, or are started anew.
    pub(super) fn stands(&mut self) {
        self.state.down = false;
        self.state.trouble = None;
        self.again_at = None;
        self.alone = false;
    }

    /// Ends what goes with its first process.
    pub(super) fn close(&mut self) {
        self.ending = None;
        if let Some((_, hook)) = self.hook.take() {
            hook.end();
        }
        for pump in mem::take(&mut self.pumps) {
            pump.finish(&mut self.log);
        }
        self.log.close();
    }

    /// Takes the hook off that has ended, with all that it wrote.
    pub(super) fn take_hook(&mut self) -> Option<(usize, Hook)> {
        let (number, mut hook) = self.hook.take()?;
        if let Some(pump) = hook.output().and_then(Option::take) {
            pump.finish(&mut self.log);
        }
        Some((number, hook))
    }
}
