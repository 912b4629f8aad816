//! Exit codes, and the one place where an error becomes a line for the person at the terminal.

use crate::out::tell;
use std::fmt;
use std::process::ExitCode;

/// How a command ended, beside 0 (done) and 2 (usage, which clap answers).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Code {
    /// It failed.
    Failed = 1,
    /// The rollout failed, and what was live is kept.
    Kept = 3,
    /// There is no such service, app, image or node.
    NotFound = 4,
    /// It did not happen in time.
    TimedOut = 5,
    /// What was asked for since took the place of it, as a newer revision does, or somebody called it off.
    Overtaken = 6,
}

/// An error that ends the program with a code of its own. `message` may be empty: all was said before.
#[derive(Debug)]
pub(crate) struct Exit {
    /// The exit code.
    pub(crate) code: Code,
    /// What happened, where, and what to do next.
    pub(crate) message: String,
    /// The node refused since something is in the way now.
    pub(crate) is_conflict: bool,
    /// The kind of problem that the node named; empty: it named none.
    pub(crate) problem: String,
}

impl Exit {
    /// Ends with `code` and says `message`.
    pub(crate) fn new(code: Code, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
            is_conflict: false,
            problem: String::new(),
        }
    }
}

impl fmt::Display for Exit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Exit {}

/// The exit code of a command that was run for the user; all was said before.
#[derive(Debug)]
pub(crate) struct Passed(pub(crate) u8);

impl fmt::Display for Passed {
    fn fmt(&self, _: &mut fmt::Formatter<'_>) -> fmt::Result {
        Ok(())
    }
}

impl std::error::Error for Passed {}

/// Says what went wrong, if anything did, and gives the exit code for it.
pub(crate) fn report(result: anyhow::Result<()>) -> ExitCode {
    let Err(error) = result else {
        return ExitCode::SUCCESS;
    };
    if let Some(Passed(code)) = error.downcast_ref::<Passed>() {
        return ExitCode::from(*code);
    }
    let text = format!("{error:#}");
    if !text.is_empty() {
        tell!("layby: {text}");
    }
    let code = error
        .downcast_ref::<Exit>()
        .map_or(Code::Failed, |exit| exit.code);
    ExitCode::from(code as u8)
}
