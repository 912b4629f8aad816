//! Telling whoever started this process how it is, and giving it sockets to hold (sd_notify(3)).

use std::io::{self, IoSlice};
use std::os::fd::{AsFd, AsRawFd};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};

/// Where whoever wants to be told listens.
pub(crate) const SOCKET: &str = "NOTIFY_SOCKET";
/// How long a word may wait for its reader.
const PATIENCE: Duration = Duration::from_secs(1);

/// The way to whoever started this process. Words that cannot be told are lost: nothing here depends on them.
#[derive(Debug, Default)]
pub(crate) struct Notify {
    socket: Option<UnixDatagram>,
}

impl Notify {
    /// As the environment says.
    pub(crate) fn from_env() -> Self {
        let socket = std::env::var_os(SOCKET).and_then(|name| match connect(name.as_bytes()) {
            Ok(socket) => Some(socket),
            Err(error) => {
                tracing::warn!(%error, "{SOCKET} leads nowhere: nobody is told that the node is ready");
                None
            }
        });
        Self { socket }
    }

    /// Whether anybody is told.
    pub(crate) fn is_heard(&self) -> bool {
        self.socket.is_some()
    }

    /// The node serves.
    pub(crate) fn ready(&self) {
        self.say("READY=1", None);
    }

    /// The node ends.
    pub(crate) fn stopping(&self) {
        self.say("STOPPING=1", None);
    }

    /// Hold this socket too, and hand it to the next process.
    pub(crate) fn hold(&self, name: &str, socket: &impl AsFd) {
        let text = format!("FDSTORE=1\nFDNAME={name}");
        self.say(&text, Some(socket.as_fd().as_raw_fd()));
    }

    /// Let go of the socket of this name.
    pub(crate) fn let_go(&self, name: &str) {
        self.say(&format!("FDSTOREREMOVE=1\nFDNAME={name}"), None);
    }

    fn say(&self, text: &str, descriptor: Option<i32>) {
        let Some(socket) = &self.socket else { return };
        let descriptors = descriptor.as_slice();
        let rights = [ControlMessage::ScmRights(descriptors)];
        let rights = if descriptors.is_empty() {
            &[]
        } else {
            &rights[..]
        };
        let bytes = [IoSlice::new(text.as_bytes())];
        let sent = sendmsg::<()>(
            socket.as_raw_fd(),
            &bytes,
            rights,
            MsgFlags::MSG_NOSIGNAL,
            None,
        );
        if let Err(error) = sent {
            tracing::debug!(%error, text, "whoever started the node does not listen");
        }
    }
}

/// A path, or after an `@` the name of an abstract socket.
fn connect(name: &[u8]) -> io::Result<UnixDatagram> {
    let addr = match name.strip_prefix(b"@") {
        Some(name) => SocketAddr::from_abstract_name(name)?,
        None => SocketAddr::from_pathname(std::ffi::OsStr::from_bytes(name))?,
    };
    let socket = UnixDatagram::unbound()?;
    socket.connect_addr(&addr)?;
    socket.set_write_timeout(Some(PATIENCE))?;
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_and_sockets_arrive_by_path_and_by_name() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("notify");
        let by_path = UnixDatagram::bind(&path).expect("a socket");
        let name = format!("layby-test-{}", std::process::id());
        let addr = SocketAddr::from_abstract_name(&name).expect("a name");
        let by_name = UnixDatagram::bind_addr(&addr).expect("a socket");
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        let path = path.into_os_string();
        for (to, heard) in [
            (path.as_bytes(), &by_path),
            (format!("@{name}").as_bytes(), &by_name),
        ] {
            let socket = Some(connect(to).expect("a way"));
            let notify = Notify { socket };
            notify.ready();
            notify.hold("x", &listener);
            let mut words = [0; 256];
            for (text, descriptors) in [("READY=1", 0), ("FDSTORE=1\nFDNAME=x", 1)] {
                let (length, ends) =
                    layby_runtime::receive(heard.as_fd(), &mut words).expect("a word");
                assert_eq!(&words[..length], text.as_bytes());
                assert_eq!(ends.len(), descriptors);
            }
        }
        assert!(connect(b"/nowhere/at/all").is_err());
    }
}
