//! The program that shims run: a sealed copy of this one, in memory.
//!
//! A container reaches its shim's program through `/proc/<pid>/exe` at moments; were it the node's own
//! file, a hostile one could overwrite it (CVE-2019-5736). A sealed memfd cannot be written by anyone, and
//! all shims share its pages.

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::PathBuf;

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, SealFlag, fcntl};
use nix::sys::memfd::{MFdFlags, memfd_create};

use crate::error::{Result, Trying};
use crate::seccomp;

/// A sealed copy of the running program, and what else every shim needs. Make it once.
#[derive(Debug)]
pub struct ShimImage {
    memory: OwnedFd,
    filter: Vec<u8>,
}

impl ShimImage {
    /// Copies `/proc/self/exe` to memory and seals it.
    ///
    /// # Errors
    /// When there is no memory for it, or memfds may not be executed on this machine (`vm.memfd_noexec`).
    pub fn of_self() -> Result<Self> {
        let what = || "copy this program to memory for its shims".to_owned();
        let mut from = File::open("/proc/self/exe").trying(what)?;
        let memory = create().trying(what)?;
        let mut to = File::from(memory.try_clone().trying(what)?);
        io::copy(&mut from, &mut to).trying(what)?;
        drop(to);
        let seals = SealFlag::F_SEAL_WRITE
            | SealFlag::F_SEAL_GROW
            | SealFlag::F_SEAL_SHRINK
            | SealFlag::F_SEAL_SEAL;
        fcntl(&memory, FcntlArg::F_ADD_SEALS(seals)).trying(what)?;
        Ok(Self {
            memory,
            filter: seccomp::program()?,
        })
    }

    /// The system call filter of every container, ready for the kernel.
    pub(crate) fn filter(&self) -> &[u8] {
        &self.filter
    }

    /// What to execute, in a process that inherits this one's descriptors.
    pub(crate) fn program(&self) -> PathBuf {
        PathBuf::from(format!("/proc/self/fd/{}", self.memory.as_raw_fd()))
    }
}

fn create() -> nix::Result<OwnedFd> {
    let flags = MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING;
    // Kernels from 6.3 on want to be told that it will be executed; older ones do not know the flag.
    let executable = MFdFlags::from_bits_retain(flags.bits() | libc::MFD_EXEC);
    match memfd_create(c"layby-shim", executable) {
        Err(Errno::EINVAL) => memfd_create(c"layby-shim", flags),
        other => other,
    }
}
