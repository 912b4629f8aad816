//! Another engine doing the same beside Layby, in a network namespace of its own.
//!
//! It is run by one thread that has entered the namespace, as have all programs that this thread starts; nothing of its
//! bridges and rules is seen outside.

use std::process::{Command, Stdio};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;

use anyhow::{Context, Result, anyhow, bail};

/// An engine on a thread of its own; each round is one measurement `R`.
#[derive(Debug)]
pub(crate) struct Beside<R> {
    ask: Option<SyncSender<()>>,
    answers: Receiver<Result<R>>,
    thread: Option<JoinHandle<()>>,
}

impl<R: Send + 'static> Beside<R> {
    /// Starts it by `start`, whose error is the answer to the first round; `round` measures once.
    pub(crate) fn start<D>(
        start: impl FnOnce() -> Result<D> + Send + 'static,
        round: impl Fn(&D) -> Result<R> + Send + 'static,
    ) -> Self {
        let (ask, asked) = sync_channel::<()>(1);
        let (answer, answers) = sync_channel(1);
        let thread = std::thread::spawn(move || match apart().and_then(|()| start()) {
            Ok(engine) => while asked.recv().is_ok() && answer.send(round(&engine)).is_ok() {},
            Err(error) => drop(answer.send(Err(error))),
        });
        Self {
            ask: Some(ask),
            answers,
            thread: Some(thread),
        }
    }

    /// Measures once.
    pub(crate) fn round(&self) -> Result<R> {
        // Where the engine did not start, its error waits among the answers.
        let _ = self.ask.as_ref().map(|ask| ask.send(()));
        self.answers
            .recv()
            .map_err(|_| anyhow!("the engine's thread ended"))?
    }
}

impl<R> Drop for Beside<R> {
    fn drop(&mut self) {
        drop(self.ask.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Puts this thread into a network namespace of its own.
fn apart() -> Result<()> {
    nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET)?;
    quiet(Command::new("ip").args(["link", "set", "lo", "up"]))?;
    Ok(())
}

/// Runs a command to its end; what it wrote, unless it failed.
pub(crate) fn quiet(command: &mut Command) -> Result<String> {
    let output = command.stdin(Stdio::null()).output();
    let program = command.get_program().display().to_string();
    let output = output.with_context(|| format!("cannot run {program}: is it installed?"))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        bail!("{command:?} failed: {said}");
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
