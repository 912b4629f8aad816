//! The calls to the kernel that Rust cannot check: all `unsafe` of the project.
#![allow(
    unsafe_code,
    reason = "fork, raw system calls and signal handlers have no safe wrapper; each says why it is sound"
)]

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};

use nix::errno::Errno;
use nix::sys::signal::{SigHandler, Signal, signal};
use nix::unistd::{ForkResult, Pid};

/// Forks. Only for processes with one thread: the shim, and what it forks.
pub(crate) fn fork() -> io::Result<ForkResult> {
    // SAFETY: with a single thread no lock can be held by another one, so the child may do anything.
    Ok(unsafe { nix::unistd::fork() }?)
}

/// Ends the process at once, without running what belongs to its parent (buffers, exit handlers).
pub(crate) fn exit_now(code: i32) -> ! {
    // SAFETY: _exit(2) takes any number and does not return.
    unsafe { libc::_exit(code) }
}

/// Closes every descriptor from 3 on.
pub(crate) fn close_inherited() {
    // SAFETY: called first thing in a new program, when nothing owns a descriptor yet.
    unsafe { libc::syscall(libc::SYS_close_range, 3, libc::c_uint::MAX, 0) };
}

/// Every signal as a new program expects it: default action, not blocked.
pub(crate) fn reset_signals() {
    for number in Signal::iterator() {
        if !matches!(number, Signal::SIGKILL | Signal::SIGSTOP) {
            // SAFETY: the default action runs no code of ours.
            let _ = unsafe { signal(number, SigHandler::SigDfl) };
        }
    }
    let _ = nix::sys::signal::SigSet::empty().thread_set_mask();
}

/// A descriptor of a process (pidfd_open(2)), closed on exec.
pub(crate) fn pidfd(pid: Pid) -> io::Result<OwnedFd> {
    // SAFETY: the kernel checks both arguments.
    let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, pid.as_raw(), 0) };
    owned(fd)
}

/// Takes a descriptor that a raw system call returned.
fn owned(fd: libc::c_long) -> io::Result<OwnedFd> {
    let fd = i32::try_from(Errno::result(fd)?).map_err(io::Error::other)?;
    // SAFETY: the call just made it, so nothing else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Brings `lo` of this network namespace up (netdevice(7)).
pub(crate) fn loopback_up() -> io::Result<()> {
    use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};
    let socket = socket(
        AddressFamily::Inet,
        SockType::Datagram,
        SockFlag::SOCK_CLOEXEC,
        None,
    )?;
    // SAFETY: ifreq is plain data, for which all zeros is a value.
    let mut request: libc::ifreq = unsafe { MaybeUninit::zeroed().assume_init() };
    for (to, from) in request.ifr_name.iter_mut().zip(b"lo") {
        *to = from.cast_signed().into();
    }
    request.ifr_ifru.ifru_flags = i16::try_from(libc::IFF_UP).unwrap_or_default();
    // SAFETY: SIOCSIFFLAGS reads an ifreq, which outlives the call.
    Errno::result(unsafe {
        libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS, &raw const request)
    })?;
    Ok(())
}

/// Gives freed memory back to the kernel.
pub(crate) fn trim_memory() {
    // SAFETY: glibc's allocator is thread safe, and this changes no live allocation.
    #[cfg(target_env = "gnu")]
    unsafe {
        libc::malloc_trim(0);
    }
}

/// Writes to a descriptor that is known by its number only, because it came over a fork. What cannot be
/// written is lost.
pub(crate) fn write_raw(fd: RawFd, bytes: &[u8]) {
    // SAFETY: the pointer and length are a slice's; a number that is no descriptor is refused.
    let _ = unsafe { libc::write(fd, bytes.as_ptr().cast(), bytes.len()) };
}

/// Replaces the environment. Only in a process that is about to execute a program.
pub(crate) fn set_environment<'a>(pairs: impl Iterator<Item = (&'a str, &'a str)>) {
    for (name, _) in std::env::vars_os() {
        // SAFETY: a forked child has one thread, so nobody else reads the environment.
        unsafe { std::env::remove_var(name) };
    }
    for (name, value) in pairs {
        // An empty name, or one with a zero byte, would panic; it cannot be executed with either.
        if !name.is_empty() && !name.contains('\0') && !value.contains('\0') {
            // SAFETY: as above.
            unsafe { std::env::set_var(name, value) };
        }
    }
}
