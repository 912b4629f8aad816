//! How a sandbox starts: one step after another, some of which take their time.

use std::net::{IpAddr, Ipv4Addr};
use std::time::{Duration, Instant};

use nix::unistd::Pid;

use crate::container::{self, Created, Plan, Sink};
use crate::error::{Error, Result};
use crate::freezer;
use crate::hook::{self, Hook, HookConfig};
use crate::protocol::{Ended, Exit, Trouble};
use crate::rootfs;
use crate::spec::ContainerConfig;

use super::cell::Cell;
use super::sandbox::{Phase, Sandbox, trouble};
use super::steps::{self, Step};

impl Sandbox {
    /// Begins to start all containers of a stopped sandbox: it runs when this returns, or is on its way. If one cannot be
    /// started, none is left.
    pub(super) fn start(&mut self) -> Result<()> {
        self.run += 1;
        self.trouble = None;
        self.ended = None;
        self.create_at = None;
        // Left frozen by a node that died meanwhile, it would hold the new processes too, and us with them.
        freezer::thaw_group(&self.group)?;
        self.phase = Phase::Starting;
        self.started = None;
        for cell in &mut self.cells {
            cell.stands();
            cell.state.ended_in_a_row = 0;
        }
        self.steps = steps::steps(&self.spec, self.done);
        self.advance()
    }

    /// Takes the steps that can be taken now.
    ///
    /// # Errors
    /// One could not be; then nothing is left.
    pub(super) fn advance(&mut self) -> Result<()> {
        while self.phase == Phase::Starting {
            let Some(step) = self.steps.pop_front() else {
                self.phase = Phase::Running;
                self.started = Some(Instant::now());
                break;
            };
            let taken = match step {
                Step::Start(index) => self.start_one(index).map(|()| true),
                Step::Init(number) => self.start_init(number).map(|()| false),
                Step::Hook(index, number) => self.begin_hook(index, number).map(|()| false),
            };
            match taken {
                Ok(true) => {}
                Ok(false) => break, // its end takes the next step
                Err(error) => {
                    self.undo_start();
                    self.trouble = Some(trouble(&error));
                    return Err(error);
                }
            }
        }
        Ok(())
    }

    pub(super) fn start_one(&mut self, index: usize) -> Result<()> {
        let name = self.cells[index].state.name.clone();
        let in_advance = self.cells[index].next.take();
        self.cells[index].before_start();
        // One that stood ready and is not well any more says nothing about a new one.
        let started = match in_advance.map(|created| created.execute(&name)) {
            Some(Err(error)) if error.fatal() => return Err(error),
            Some(Ok(started)) => started,
            Some(Err(_)) | None => self.create_one(index)?.execute(&name)?,
        };
        self.cells[index].take(started);
        Ok(())
    }

    /// Starts one of those that run before.
    fn start_init(&mut self, number: usize) -> Result<()> {
        let created = self.create(&self.init[number], &self.spec.init[number], None)?;
        let cell = &mut self.init[number];
        cell.before_start();
        let started = created.execute(&cell.state.name)?;
        cell.take(started);
        Ok(())
    }

    /// One of those that run before has ended with `code`.
    pub(super) fn init_ended(&mut self, number: usize, code: i32) {
        let cell = &mut self.init[number];
        let exit = cell.has_ended(code);
        let name = cell.state.name.clone();
        // Its place is not needed again, unless it is run again.
        cell.parts.group.signal_all();
        cell.parts.binds.detach(&cell.parts.rootfs);
        let _ = cell.parts.group.remove();
        let _ = container::forget(&self.bundle, &name);
        if self.phase != Phase::Starting {
            return self.settle();
        }
        if code == 0 {
            self.done = number + 1;
            // What went wrong is told with the state.
            let _ = self.advance();
            return;
        }
        let cell = &mut self.init[number];
        cell.state.ended = cell.state.ended.saturating_add(1);
        let why = how(exit);
        let message =
            format!("container {name}, which has to end well before the others start, {why}");
        self.fail(
            Ended {
                container: name,
                exit,
                hook: false,
            },
            message,
        );
    }

    /// Begins the hook of this number that follows the start of a container.
    fn begin_hook(&mut self, index: usize, number: usize) -> Result<()> {
        let config = &self.spec.containers[index].post_start[number];
        let begun = self.hook(index, config, Some(hook::ANSWER))?;
        self.cells[index].hook = Some((number, begun));
        Ok(())
    }

    /// Begins a hook of a running container. `patience`: how long a request may take.
    pub(super) fn hook(
        &self,
        index: usize,
        config: &HookConfig,
        patience: Option<Duration>,
    ) -> Result<Hook> {
        let cell = &self.cells[index];
        let init = cell
            .pid()
            .ok_or_else(|| Error::Failed(format!("container {} does not run", cell.state.name)))?;
        Hook::begin(config, &self.place(cell, init), self.address(), patience)
    }

    /// The sandbox's own address: the first line of its `/etc/hosts`.
    fn address(&self) -> IpAddr {
        let first = self.spec.hosts.first();
        let own = first.and_then(|(address, _)| address.parse().ok());
        own.unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST))
    }

    /// A hook that follows a start is over; `failure`: why it did not end well.
    pub(super) fn started_hook_ended(
        &mut self,
        index: usize,
        number: usize,
        code: i32,
        failure: Option<String>,
    ) {
        let Some(failure) = failure else {
            // What goes wrong is told with the state.
            let _ = self.advance();
            return;
        };
        if self.ends_apart(index) {
            self.steps
                .retain(|step| !matches!(step, Step::Hook(of, _) if *of == index));
            self.cells[index].alone = true;
            self.hook_alone_failed(index, number, &failure);
            let _ = self.advance();
            return;
        }
        let name = self.cells[index].state.name.clone();
        let what = self.spec.containers[index].post_start[number].after_start();
        let message = format!("{what} {name} {failure}");
        let exit = Exit { code, oom: false };
        self.fail(
            Ended {
                container: name,
                exit,
                hook: true,
            },
            message,
        );
    }

    /// Whether a container may be ended and started again while the others are started: one that none of them waits for.
    fn ends_apart(&self, index: usize) -> bool {
        let config = &self.spec.containers[index];
        config.again.is_some() && config.sidecar.is_none()
    }

    /// The sandbox has ended unasked: what runs of it is ended too.
    pub(super) fn fail(&mut self, ended: Ended, message: String) {
        self.ended = Some(ended);
        self.trouble = Some(Trouble {
            fatal: false,
            message,
        });
        self.count_end();
        self.end_all();
    }

    pub(super) fn create_one(&self, index: usize) -> Result<Created> {
        let shares = self
            .first_process()
            .filter(|_| Some(&index) != self.order.first());
        self.create(&self.cells[index], &self.spec.containers[index], shares)
    }

    fn create(
        &self,
        cell: &Cell,
        config: &ContainerConfig,
        shares: Option<Pid>,
    ) -> Result<Created> {
        cell.ready_group(config)?;
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

    /// The first process of the container that is started first, which runs or stands ready, where all are to share its
    /// namespace.
    fn first_process(&self) -> Option<Pid> {
        let first = self.order.first().filter(|_| self.spec.share_pid)?;
        let first = &self.cells[*first];
        let ready = first.next.as_ref().map(Created::pid);
        first.pid().or(ready)
    }

    /// Creates the next containers of a stopped sandbox. What fails here will fail again, and be told, at the start.
    pub(super) fn create_in_advance(&mut self) {
        if self.phase != Phase::Stopped || freezer::thaw_group(&self.group).is_err() {
            return;
        }
        for index in self.order.clone() {
            if self.cells[index].next.is_none() {
                self.cells[index].next = self.create_one(index).ok();
            }
        }
    }

    /// Ends what was created in advance.
    pub(super) fn discard_next(&mut self) {
        self.create_at = None;
        for created in self.cells.iter_mut().filter_map(|cell| cell.next.take()) {
            created.discard();
        }
    }

    fn undo_start(&mut self) {
        self.phase = Phase::Stopped;
        self.steps.clear();
        // Whatever does not die now is killed again by the next stop or by who removes the cgroup.
        let _ = self.group.kill_all();
        self.discard_next();
        for cell in self.cells.iter_mut().chain(&mut self.init) {
            if let Some(pid) = cell.pid() {
                let _ = nix::sys::wait::waitpid(pid, None);
                cell.state.pid = None;
            }
            cell.close();
            let _ = container::forget(&self.bundle, &cell.state.name);
        }
    }

    /// Takes all down that a stopped sandbox has outside its bundle.
    pub(super) fn remove(&mut self) -> Result<(), Vec<Error>> {
        let mut errors = Vec::new();
        self.discard_next();
        for cell in self.cells.iter().chain(&self.init) {
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

/// How a container ended, in words that follow its name.
pub(super) fn how(exit: Exit) -> String {
    let Exit { code, oom } = exit;
    match oom {
        true => format!("ran out of its memory and ended with exit code {code}"),
        false => format!("ended by itself with exit code {code}"),
    }
}
