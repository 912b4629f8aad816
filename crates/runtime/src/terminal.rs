//! The terminal of a container's first process: libcontainer makes it inside and hands its other end to the shim.

use std::fs;
use std::io::ErrorKind;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::time::Duration;

use nix::fcntl::{FcntlArg, OFlag, fcntl};

use crate::error::{Result, Trying};
use crate::sys;

/// It is on its way already when it is waited for.
const PATIENCE: Duration = Duration::from_secs(5);

/// Listens for a terminal.
pub(crate) fn listen(path: &Path) -> Result<UnixListener> {
    let what = || format!("listen on {}", path.display());
    match fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(error).trying(what),
        _ => {}
    }
    let listener = UnixListener::bind(path).trying(what)?;
    listener.set_nonblocking(true).trying(what)?;
    Ok(listener)
}

/// The other end of a container's terminal; reading it does not block.
pub(crate) fn receive(listener: &UnixListener) -> Result<OwnedFd> {
    let what = || "get the terminal of a container".to_owned();
    let (stream, _) = listener.accept().trying(what)?;
    stream.set_nonblocking(false).trying(what)?;
    stream.set_read_timeout(Some(PATIENCE)).trying(what)?;
    let terminal = sys::receive_descriptor(stream.as_fd()).trying(what)?;
    fcntl(&terminal, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).trying(what)?;
    Ok(terminal)
}
