//! The API's socket: for root and the `layby` group, who are as good as root on this node.

use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use anyhow::{Context, Result};
use tokio::net::UnixListener;

use crate::parent::Handed;
use crate::paths::{Paths, give_to_group};

/// The name under which a parent is given it to hold.
const NAME: &str = "api";

/// What becomes of the socket's path when the node ends.
#[derive(Debug)]
pub(crate) struct Path {
    /// `None`: the parent listens there by itself, and goes on.
    own: Option<PathBuf>,
}

impl Path {
    /// Sends nobody here any more.
    pub(crate) fn close(self, handed: &Handed) {
        if let Some(path) = self.own {
            let _ = fs::remove_file(path); // who still finds it is refused
            handed.let_go(NAME);
        }
    }
}

/// Opens it, or takes over the one that was handed down.
///
/// # Errors
/// It cannot be made, or given to the group.
pub(crate) fn listen(paths: &Paths, handed: &mut Handed) -> Result<(UnixListener, Path)> {
    let socket = paths.socket();
    if let Some((listener, parents)) = handed.unix(&socket) {
        listener.set_nonblocking(true)?;
        let own = (!parents).then_some(socket);
        return Ok((UnixListener::from_std(listener)?, Path { own }));
    }
    match fs::remove_file(&socket) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            return Err(error).with_context(|| format!("cannot replace {}", socket.display()));
        }
        _ => {} // left by a node that was killed: the lock says that none runs
    }
    let listener = UnixListener::bind(&socket)
        .with_context(|| format!("cannot listen on {}", socket.display()))?;
    give_to_group(&socket)?;
    fs::set_permissions(&socket, fs::Permissions::from_mode(0o660))?;
    handed.let_go(NAME); // one whose path is gone
    handed.hold(NAME, &listener);
    Ok((listener, Path { own: Some(socket) }))
}
