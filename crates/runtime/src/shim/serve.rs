//! The shim's loop: clients, signals, output and clocks, one at a time. It sleeps in `poll(2)` with no timer
//! unless a stop or an exec runs, or the next containers are to be created.

use std::fs;
use std::os::fd::AsFd;
use std::os::unix::net::UnixListener;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal, kill};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};

use super::attended::Attended;
use super::connection::{Asked, Connection};
use super::sandbox::{Sandbox, trouble};
use crate::attach::{Attached, Client};
use crate::error::{Error, Result, Trying};
use crate::exec::Exec;
use crate::protocol::{Answer, Do, ExecResult, MAX_CLIENTS, MAX_EXECS, Message, SandboxState};
use crate::sys;

/// How long after a start, a stop or a node's coming its memory is given back: not while the container needs the processor.
const TRIM_AFTER: Duration = Duration::from_secs(1);

/// How many requests may wait for a stop to end.
const MAX_WAITING: usize = 64;

/// What waits for a stop or a start to end.
enum Waiting {
    Stop(Asked),
    Start(Asked),
    /// For the end of the start that it has begun.
    Started(Asked),
    Quit(Asked),
}

/// A command that a client waits for.
struct Running {
    asked: Asked,
    exec: Exec,
    until: Instant,
}

/// The shim at work.
pub(super) struct Server {
    sandbox: Sandbox,
    listener: UnixListener,
    signals: SignalFd,
    clients: Vec<Connection>,
    next_client: u64,
    waiting: Vec<Waiting>,
    execs: Vec<Running>,
    attended: Attended,
    shown: SandboxState,
    /// When to give memory back.
    trim_at: Option<Instant>,
    over: bool,
}

impl Server {
    pub(super) fn new(sandbox: Sandbox, listener: UnixListener) -> Result<Self> {
        let mut mask = SigSet::empty();
        mask.add(Signal::SIGCHLD);
        let signals = SignalFd::with_flags(&mask, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)
            .trying(|| "make a signalfd".into())?;
        let shown = sandbox.state();
        Ok(Self {
            sandbox,
            listener,
            signals,
            clients: Vec::new(),
            next_client: 0,
            waiting: Vec::new(),
            execs: Vec::new(),
            attended: Attended::default(),
            shown,
            trim_at: Some(Instant::now()),
            over: false,
        })
    }

    /// Serves until a client says quit.
    pub(super) fn run(&mut self) -> Result<()> {
        while !self.over {
            self.trim(Instant::now());
            self.wait()?;
            self.accept();
            self.reap();
            self.sandbox.turn();
            self.run_clocks(Instant::now());
            self.read_clients();
            self.serve_waiting();
            self.push_state();
            self.write_clients();
        }
        Ok(())
    }

    /// Gives memory back when it is time; last of all before sleeping, since what runs after it is in memory again.
    fn trim(&mut self, now: Instant) {
        if self.trim_at.is_some_and(|at| at <= now) {
            self.trim_at = None;
            sys::trim_memory();
        }
    }

    /// Sleeps until something can be done. What it is, each step finds out for itself: nothing blocks.
    fn wait(&mut self) -> Result<()> {
        let mut fds = vec![
            PollFd::new(self.listener.as_fd(), PollFlags::POLLIN),
            PollFd::new(self.signals.as_fd(), PollFlags::POLLIN),
        ];
        fds.extend(self.clients.iter().map(Connection::poll_fd));
        let pumps = self.sandbox.pumps();
        fds.extend(pumps.map(|pump| PollFd::new(pump.pipe().as_fd(), PollFlags::POLLIN)));
        let live = self.execs.iter().filter(|running| !running.exec.at_end());
        fds.extend(
            live.map(|running| PollFd::new(running.exec.output().as_fd(), PollFlags::POLLIN)),
        );
        let due = self
            .sandbox
            .due()
            .into_iter()
            .chain(self.execs.iter().map(|running| running.until))
            .chain(self.attended.due())
            .chain(self.trim_at)
            .min();
        let timeout = match due {
            // Rounded up: woken too early it would only turn once more.
            Some(at) => {
                let left = at.saturating_duration_since(Instant::now()) + Duration::from_millis(1);
                PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX)
            }
            None => PollTimeout::NONE,
        };
        match poll(&mut fds, timeout) {
            Ok(_) | Err(Errno::EINTR) => Ok(()),
            Err(error) => Err(error).trying(|| "wait for something to do".into()),
        }
    }

    fn accept(&mut self) {
        while let Ok((stream, _)) = self.listener.accept() {
            // One too many is closed at once: it sees the end of the stream.
            if self.clients.len() < MAX_CLIENTS {
                self.next_client += 1;
                self.clients
                    .extend(Connection::new(self.next_client, stream));
            }
        }
    }

    fn reap(&mut self) {
        while let Ok(Some(_)) = self.signals.read_signal() {}
        loop {
            // Output first: after the end of a helper, what it wrote is read once more and that is all.
            match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
                Ok(WaitStatus::StillAlive) | Err(_) => return,
                Ok(status) => {
                    self.sandbox.ended(status);
                    self.exec_ended(status);
                    if let Some((asked, outcome)) = self.attended.ended(status) {
                        self.reply(asked, outcome.map(Answer::Exec));
                    }
                }
            }
        }
    }

    fn exec_ended(&mut self, status: WaitStatus) {
        let Some(index) = self
            .execs
            .iter()
            .position(|running| Some(running.exec.helper()) == status.pid())
        else {
            return;
        };
        let code = match status {
            WaitStatus::Exited(_, code) => code,
            WaitStatus::Signaled(_, signal, _) => 128 + signal as i32,
            _ => return,
        };
        let Running { asked, exec, .. } = self.execs.swap_remove(index);
        let outcome = exec.finish().map(|output| {
            Answer::Exec(ExecResult {
                code,
                timed_out: false,
                output,
            })
        });
        self.reply(asked, outcome);
    }

    fn run_clocks(&mut self, now: Instant) {
        if self.sandbox.tick(now) {
            self.trim_at = Some(now + TRIM_AFTER);
        }
        for running in &mut self.execs {
            running.exec.turn();
        }
        self.attended.tick(now);
        while let Some(index) = self.execs.iter().position(|running| running.until <= now) {
            let Running { asked, exec, .. } = self.execs.swap_remove(index);
            // The command dies with its helper. In a cgroup frozen meanwhile both wait for the thaw; the
            // client does not.
            let _ = kill(exec.helper(), Signal::SIGKILL);
            let output = exec.finish().unwrap_or_default();
            let code = 128 + Signal::SIGKILL as i32;
            self.reply(
                asked,
                Ok(Answer::Exec(ExecResult {
                    code,
                    timed_out: true,
                    output,
                })),
            );
        }
    }

    fn read_clients(&mut self) {
        let mut requests = Vec::new();
        for client in &mut self.clients {
            client.read(&mut requests);
        }
        for (asked, order) in requests {
            match order {
                Ok(order) => self.serve(asked, order),
                Err(error) => self.reply(asked, Err(error)),
            }
        }
        self.clients.retain(Connection::is_open);
        let here = |client| self.clients.iter().any(|known| known.number == client);
        self.attended.keep(here, Instant::now());
        if self.clients.is_empty() {
            self.clients = Vec::new();
        }
    }

    fn serve(&mut self, asked: Asked, order: Do) {
        match order {
            Do::State => self.reply_state(asked),
            Do::Watch => {
                if let Some(client) = self
                    .clients
                    .iter_mut()
                    .find(|client| client.number == asked.client)
                {
                    client.watches = true;
                }
                // A node watches once in its life: what was touched to serve it is not needed soon again.
                self.trim_at = Some(Instant::now() + TRIM_AFTER);
                self.reply_state(asked);
            }
            Do::End {
                container,
                grace_ms,
            } => match self.sandbox.end_alone(&container, grace_ms) {
                Ok(()) => self.reply_state(asked),
                Err(error) => self.reply(asked, Err(error)),
            },
            Do::Start => self.queue(asked, Waiting::Start(asked)),
            Do::Stop => {
                self.sandbox.stop();
                self.queue(asked, Waiting::Stop(asked));
            }
            Do::Quit => {
                self.sandbox.stop();
                self.queue(asked, Waiting::Quit(asked));
            }
            Do::Exec {
                container,
                argv,
                timeout_ms,
            } => {
                if self.execs.len() >= MAX_EXECS {
                    let message = format!(
                        "{MAX_EXECS} commands run in this sandbox already: wait for one to end"
                    );
                    return self.reply(asked, Err(Error::Failed(message)));
                }
                // A year, so that adding it to now cannot fail.
                let timeout = Duration::from_millis(timeout_ms.min(365 * 24 * 3600 * 1000));
                match self.sandbox.exec(&container, &argv) {
                    Ok(exec) => self.execs.push(Running {
                        asked,
                        exec,
                        until: Instant::now() + timeout,
                    }),
                    Err(error) => self.reply(asked, Err(error)),
                }
            }
            Do::Attach(request) => {
                self.attach(asked, |sandbox, client| sandbox.attach(&request, client))
            }
            Do::Copy(request) => {
                self.attach(asked, |sandbox, client| sandbox.copy(&request, client))
            }
        }
    }

    /// Begins something that a client is at the other end of.
    fn attach(
        &mut self,
        asked: Asked,
        begin: impl FnOnce(&Sandbox, &Client<'_>) -> Result<Attached>,
    ) {
        let mut clients = self.clients.iter();
        let client = clients.find(|client| client.number == asked.client);
        let begun = self.attended.room().and_then(|()| {
            let stream = client
                .and_then(Connection::socket)
                .ok_or_else(|| Error::Failed("this needs a connection of its own".to_owned()))?;
            let id = asked.id;
            begin(&self.sandbox, &Client { stream, id })
        });
        match begun {
            Ok(attached) => self.attended.add(asked, attached),
            Err(error) => self.reply(asked, Err(error)),
        }
    }

    fn queue(&mut self, asked: Asked, what: Waiting) {
        if self.waiting.len() >= MAX_WAITING {
            let message = format!(
                "{MAX_WAITING} requests wait for the sandbox to stop already: ask again later"
            );
            self.reply(asked, Err(Error::Failed(message)));
        } else {
            self.waiting.push(what);
        }
        self.serve_waiting();
    }

    /// Serves what can be served now, in the order of asking: while the sandbox starts or stops, all wait. A stop that waits
    /// behind a start is for the sandbox that this start makes, finished or not.
    fn serve_waiting(&mut self) {
        while !self.over {
            let Some(first) = self.waiting.first() else {
                return;
            };
            let (running, stopped) = (self.sandbox.is_running(), self.sandbox.is_stopped());
            match *first {
                Waiting::Start(asked) if stopped => {
                    // Before its turn, so that it is the first to hear of it.
                    self.waiting[0] = Waiting::Started(asked);
                    if let Err(error) = self.sandbox.start() {
                        self.waiting.remove(0);
                        self.reply(asked, Err(error));
                    }
                }
                Waiting::Start(asked) | Waiting::Started(asked) if running => {
                    self.waiting.remove(0);
                    self.reply_state(asked);
                }
                Waiting::Started(asked) if stopped => {
                    self.waiting.remove(0);
                    let error = self.sandbox.why_not_started();
                    self.reply(asked, Err(error));
                }
                Waiting::Stop(asked) if stopped => {
                    self.waiting.remove(0);
                    self.reply_state(asked);
                }
                Waiting::Quit(asked) if stopped => {
                    self.waiting.remove(0);
                    self.quit(asked);
                }
                Waiting::Stop(_) | Waiting::Quit(_) if running => self.sandbox.stop(),
                Waiting::Started(_) if self.ends_behind() => {
                    self.sandbox.stop();
                    if !self.sandbox.is_stopped() {
                        return;
                    }
                }
                Waiting::Start(_) | Waiting::Started(_) | Waiting::Stop(_) | Waiting::Quit(_) => {
                    return;
                }
            }
        }
    }

    /// Whether somebody waits for an end.
    fn ends_behind(&self) -> bool {
        let mut all = self.waiting.iter();
        all.any(|waiting| matches!(waiting, Waiting::Stop(_) | Waiting::Quit(_)))
    }

    fn quit(&mut self, asked: Asked) {
        let removed = self.sandbox.remove();
        let _ = fs::remove_file(&self.sandbox.spec().socket);
        let answer = match removed {
            Ok(()) => Ok(Answer::State(self.sandbox.state())),
            Err(errors) => {
                let all: Vec<String> = errors.iter().map(Error::sentence).collect();
                Err(Error::Failed(all.join("; ")))
            }
        };
        self.reply(asked, answer);
        self.over = true;
        // The last words go out before the end, to those who listen.
        self.clients.iter_mut().for_each(Connection::flush);
    }

    fn reply_state(&mut self, asked: Asked) {
        let state = self.sandbox.state();
        self.reply(asked, Ok(Answer::State(state)));
    }

    /// A client that is gone hears nothing.
    fn reply(&mut self, asked: Asked, outcome: Result<Answer>) {
        let message = match outcome {
            Ok(ok) => Message::Ok { id: asked.id, ok },
            Err(error) => Message::Error {
                id: asked.id,
                error: trouble(&error),
            },
        };
        // The state goes out before the reply that it comes from.
        self.push_state();
        if let Some(client) = self
            .clients
            .iter_mut()
            .find(|client| client.number == asked.client)
        {
            client.say(&message);
        }
    }

    fn push_state(&mut self) {
        let state = self.sandbox.state();
        if state != self.shown {
            self.shown = state;
            self.trim_at = Some(Instant::now() + TRIM_AFTER);
            let message = Message::State {
                state: self.shown.clone(),
            };
            for client in self.clients.iter_mut().filter(|client| client.watches) {
                client.say(&message);
            }
        }
    }

    fn write_clients(&mut self) {
        for client in &mut self.clients {
            client.write();
        }
        self.clients.retain(Connection::is_open);
    }
}
