//! A command or a copy with a client at its other end.
//!
//! The helper hands the client its ends over the client's own connection, and then lets go of them: so the shim has
//! nothing to move, and what the one closes the other sees.

use std::convert::Infallible;
use std::fs::File;
use std::io::{IoSlice, Read};
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::path::Path;

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::signal::Signal;
use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};
use nix::unistd::{ForkResult, Gid, Pid, Uid, fchown, pipe2};

use crate::copying;
use crate::entry::{Entry, Said, say};
use crate::error::{Error, Result, Trying};
use crate::exec::{self, Wanted};
use crate::executor::{self, Refusal};
use crate::protocol::{Attach, Copy, ExecResult, Message};
use crate::spec::Bundle;
use crate::sys;
use crate::tty;
use crate::user::Root;

/// The exit code of a helper that came to nothing; its report says why.
const FAILED: i32 = 125;

/// The exit code of a helper that did not find what it was to copy.
pub(crate) const NO_SUCH_PATH: i32 = 124;

/// A container to enter.
pub(crate) struct Place<'a> {
    pub(crate) init: Pid,
    pub(crate) bundle: &'a Bundle,
    pub(crate) name: &'a str,
    /// Its root file system, as the shim sees it.
    pub(crate) rootfs: &'a Path,
    /// Whether HOME of its environment was set by its image or manifest, and not by its user.
    pub(crate) home_is_set: bool,
}

/// Who gets the ends.
pub(crate) struct Client<'a> {
    pub(crate) stream: BorrowedFd<'a>,
    /// The request's id.
    pub(crate) id: u64,
}

/// One under way.
pub(crate) struct Attached {
    helper: Pid,
    report: File,
    is_command: bool,
}

/// Starts a command.
pub(crate) fn command(
    place: &Place<'_>,
    request: &Attach,
    client: &Client<'_>,
) -> Result<Attached> {
    let attached = fork(|report| {
        run_command(place, request, client, report)
            .map(|never| match never {})
            .map_err(failed)
    })?;
    Ok(Attached {
        is_command: true,
        ..attached
    })
}

/// Starts a copy.
pub(crate) fn copy(place: &Place<'_>, copy: &Copy, client: &Client<'_>) -> Result<Attached> {
    fork(|report| copying::help(place, copy, client, report))
}

pub(crate) fn failed(sentence: String) -> Refusal {
    Refusal {
        code: FAILED,
        sentence,
    }
}

fn fork(help: impl FnOnce(&OwnedFd) -> std::result::Result<i32, Refusal>) -> Result<Attached> {
    let what = || "start a helper in the container".to_owned();
    let (report, report_end) = pipe2(OFlag::O_CLOEXEC).trying(what)?;
    fcntl(&report, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).trying(what)?;
    match sys::fork().trying(what)? {
        ForkResult::Parent { child } => Ok(Attached {
            helper: child,
            report: report.into(),
            is_command: false,
        }),
        ForkResult::Child => {
            let fd = report_end.as_raw_fd();
            match help(&report_end) {
                Ok(code) => sys::exit_now(code),
                Err(refusal) => executor::fail(fd, &refusal),
            }
        }
    }
}

impl Attached {
    /// The process to wait for.
    pub(crate) fn helper(&self) -> Pid {
        self.helper
    }

    /// After the helper has ended with `code`, perhaps by a signal: what came of it.
    pub(crate) fn finish(mut self, code: i32, signal: Option<Signal>) -> Result<ExecResult> {
        let mut text = Vec::new();
        // Nothing more comes: the end is there, or reading would block.
        let _ = (&mut self.report).take(16 * 1024).read_to_end(&mut text);
        let mut output = String::from_utf8_lossy(&text).into_owned();
        // Whoever kills all that is in a container kills the helper, too, perhaps before it could say so of the command.
        if let Some(signal) = signal.filter(|_| self.is_command && output.is_empty()) {
            output = exec::ended_by(signal).unwrap_or_default();
        }
        match (code, output.is_empty()) {
            (FAILED, false) => Err(Error::Failed(output)),
            (NO_SUCH_PATH, false) => Err(Error::Fatal(output)),
            _ => Ok(ExecResult {
                code,
                timed_out: false,
                output,
            }),
        }
    }
}

/// Hands `ends` over to the client. The helper's own copies are to be closed after that.
pub(crate) fn hand_over(client: &Client<'_>, ends: &[RawFd]) -> Said<()> {
    let message = Message::Attached {
        attached: client.id,
    };
    let mut line = serde_json::to_vec(&message).map_err(|e| say("tell the client")(&e))?;
    line.push(b'\n');
    let socket = client.stream.as_raw_fd();
    let rights = [ControlMessage::ScmRights(ends)];
    let sent = sendmsg::<()>(
        socket,
        &[IoSlice::new(&line)],
        &rights,
        MsgFlags::MSG_NOSIGNAL,
        None,
    )
    .map_err(|e| say("hand the client its ends")(&e))?;
    if sent == line.len() {
        Ok(())
    } else {
        Err("exec: the client does not listen".to_owned())
    }
}

fn run_command(
    place: &Place<'_>,
    request: &Attach,
    client: &Client<'_>,
    report: &OwnedFd,
) -> Said<Infallible> {
    let entry = Entry::find(place.init, place.bundle, place.name)?;
    let user = match &request.user {
        Some(text) => {
            let root = Root::open(place.rootfs).map_err(|e| e.sentence())?;
            Some(root.user(text).map_err(|e| e.sentence())?)
        }
        None => None,
    };
    let owner = match (&user, entry.spec.process()) {
        (Some(user), _) => user.uid,
        (None, Some(process)) => process.user().uid(),
        (None, None) => 0,
    };
    let mut env = Vec::new();
    if let Some(user) = user.as_ref().filter(|_| !place.home_is_set) {
        env.push(("HOME".to_owned(), user.home.clone()));
    }
    if request.tty.is_some() && !has_term(&entry, &request.env) {
        env.push(("TERM".to_owned(), "xterm".to_owned()));
    }
    env.extend(request.env.iter().cloned());
    let wanted = Wanted {
        argv: request.argv.clone(),
        env,
        cwd: request.cwd.clone(),
        user,
        terminal: request.tty.is_some(),
        privileged: false,
        attended: true,
    };
    let (ends, stdio) = match request.tty {
        Some((columns, rows)) => {
            entry.join(exec::namespaces())?;
            terminal_ends(columns, rows, owner)?
        }
        None => {
            let made = pipe_ends(request.stdin, entry.first_id() + owner)?;
            entry.join(exec::namespaces())?;
            made
        }
    };
    let raw: Vec<RawFd> = ends.iter().map(AsRawFd::as_raw_fd).collect();
    hand_over(client, &raw)?;
    let kept = stdio.iter().chain([report]).map(AsRawFd::as_raw_fd);
    sys::close_all_but(&kept.collect::<Vec<_>>());
    std::mem::forget(ends);
    exec::run(&entry, &wanted, stdio, report)
}

fn has_term(entry: &Entry, more: &[(String, String)]) -> bool {
    let process = entry.spec.process().as_ref();
    let own = process.and_then(|process| process.env().as_ref());
    let own = own.is_some_and(|env| env.iter().any(|pair| pair.starts_with("TERM=")));
    own || more.iter().any(|(name, _)| name == "TERM")
}

/// The client's end and the command's.
type Ends = (Vec<OwnedFd>, [OwnedFd; 3]);

/// A terminal of the container's own devpts, so that programs find its name.
fn terminal_ends(columns: u16, rows: u16, owner: u32) -> Said<Ends> {
    let copy = |fd: &OwnedFd| fd.try_clone().map_err(|e| say("copy a descriptor")(&e));
    let (holder, runner) =
        tty::make(columns, rows).map_err(|e| say("make a terminal in the container")(&e))?;
    fchown(&runner, Some(Uid::from_raw(owner)), None)
        .map_err(|e| say("give the terminal to its user")(&e))?;
    let stdio = [copy(&runner)?, copy(&runner)?, runner];
    Ok((vec![holder], stdio))
}

/// Pipes that belong to `owner` (a number of the host), who may open them again through /dev/stdout.
fn pipe_ends(stdin: bool, owner: u32) -> Said<Ends> {
    let pipe = || -> Said<(OwnedFd, OwnedFd)> {
        let (read, write) = pipe2(OFlag::O_CLOEXEC).map_err(|e| say("make a pipe")(&e))?;
        let (uid, gid) = (Uid::from_raw(owner), Gid::from_raw(owner));
        fchown(&read, Some(uid), Some(gid)).map_err(|e| say("give a pipe to its user")(&e))?;
        Ok((read, write))
    };
    let (input, input_end) = pipe()?;
    let (output_end, output) = pipe()?;
    let (errors_end, errors) = pipe()?;
    let input = if stdin {
        input
    } else {
        let null = File::open("/dev/null").map_err(|e| say("open /dev/null")(&e))?;
        null.into()
    };
    Ok((
        vec![input_end, output_end, errors_end],
        [input, output, errors],
    ))
}
