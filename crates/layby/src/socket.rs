//! The API's socket: for root and the `layby` group, who are as good as root on this node.

use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::PermissionsExt;

use anyhow::{Context, Result};
use tokio::net::UnixListener;

use crate::paths::{Paths, give_to_group};

/// Opens it.
///
/// # Errors
/// It cannot be made, or given to the group.
pub(crate) fn listen(paths: &Paths) -> Result<UnixListener> {
    let socket = paths.socket();
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
    Ok(listener)
}
