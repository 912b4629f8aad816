//! Descriptors that come with messages from another process (unix(7), `SCM_RIGHTS`).

use std::io::{self, IoSliceMut};
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd, RawFd};

use nix::sys::socket::{ControlMessageOwned, MsgFlags, recvmsg};

use crate::sys;

/// So many may come with one message; the kernel closes those beyond.
const MAX_ENDS: usize = 16;

/// Reads the next message on a socket into `buffer`: its length, and the descriptors that came with it, which are
/// closed on exec.
///
/// # Errors
/// What the kernel says; [`io::ErrorKind::WouldBlock`] where there is no message and the socket does not wait.
pub fn receive(socket: BorrowedFd<'_>, buffer: &mut [u8]) -> io::Result<(usize, Vec<OwnedFd>)> {
    let mut space = nix::cmsg_space!([RawFd; MAX_ENDS]);
    let mut into = [IoSliceMut::new(buffer)];
    let flags = MsgFlags::MSG_CMSG_CLOEXEC;
    let message = recvmsg::<()>(socket.as_raw_fd(), &mut into, Some(&mut space), flags)?;
    let mut ends = Vec::new();
    for control in message.cmsgs()? {
        if let ControlMessageOwned::ScmRights(received) = control {
            ends.extend(received.into_iter().map(sys::received));
        }
    }
    Ok((message.bytes, ends))
}
