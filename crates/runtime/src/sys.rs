//! The calls to the kernel that Rust cannot check: all `unsafe` of the project.
#![allow(
    unsafe_code,
    reason = "fork, raw system calls and signal handlers have no safe wrapper; each says why it is sound"
)]

use std::ffi::{CStr, CString};
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::path::Path;

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

/// Whether the working directory lies below this process's root. What the kernel says is taken as it is (getcwd(2)):
/// libraries go on to look for a name of it where there is none below the root.
pub(crate) fn is_inside_root() -> bool {
    let mut path = [0u8; libc::PATH_MAX as usize];
    // SAFETY: the kernel writes no more than the length given.
    let got = unsafe { libc::syscall(libc::SYS_getcwd, path.as_mut_ptr(), path.len()) };
    got > 0 && path[0] == b'/'
}

/// Takes the descriptor that comes with the next message on a socket (unix(7), SCM_RIGHTS); closed on exec.
pub(crate) fn receive_descriptor(socket: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    use nix::sys::socket::{ControlMessageOwned, MsgFlags, recvmsg};
    let mut bytes = [0; 4096];
    let mut room = nix::cmsg_space!([RawFd; 4]);
    let mut parts = [io::IoSliceMut::new(&mut bytes)];
    let message = recvmsg::<()>(
        socket.as_raw_fd(),
        &mut parts,
        Some(&mut room),
        MsgFlags::MSG_CMSG_CLOEXEC,
    )?;
    let mut found = Vec::new();
    for part in message.cmsgs()? {
        if let ControlMessageOwned::ScmRights(numbers) = part {
            for number in numbers {
                // SAFETY: the kernel has just made these descriptors for this process.
                found.push(unsafe { OwnedFd::from_raw_fd(number) });
            }
        }
    }
    let first = found.into_iter().next();
    first.ok_or_else(|| io::Error::other("no descriptor came with the message"))
}

/// Takes a descriptor that came from another process (SCM_RIGHTS): nothing else of this one knows it.
pub(crate) fn received(fd: RawFd) -> OwnedFd {
    // SAFETY: the kernel put it into this process' table just now, for the one who received it.
    unsafe { OwnedFd::from_raw_fd(fd) }
}

/// Closes every descriptor from 3 on but those given. Only in a forked child that drops nothing afterwards.
pub(crate) fn close_all_but(kept: &[RawFd]) {
    let mut kept: Vec<u32> = kept
        .iter()
        .filter_map(|fd| u32::try_from(*fd).ok())
        .collect();
    kept.sort_unstable();
    let mut from = 3;
    for fd in kept.into_iter().filter(|fd| *fd >= 3) {
        if fd > from {
            // SAFETY: what owns these descriptors is never used again in this process.
            unsafe { libc::syscall(libc::SYS_close_range, from, fd - 1, 0) };
        }
        from = from.max(fd + 1);
    }
    // SAFETY: as above.
    unsafe { libc::syscall(libc::SYS_close_range, from, libc::c_uint::MAX, 0) };
}

/// Unlocks the other side of a pseudo terminal and opens it, by descriptor and not by path (TIOCGPTPEER,
/// ioctl_tty(2)).
pub(crate) fn open_peer(terminal: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    let unlock: libc::c_int = 0;
    // SAFETY: TIOCSPTLCK reads an int, which outlives the call.
    Errno::result(unsafe {
        libc::ioctl(terminal.as_raw_fd(), libc::TIOCSPTLCK, &raw const unlock)
    })?;
    let flags = libc::O_RDWR | libc::O_NOCTTY | libc::O_CLOEXEC;
    // SAFETY: TIOCGPTPEER takes flags as its argument.
    let fd = unsafe { libc::ioctl(terminal.as_raw_fd(), libc::TIOCGPTPEER, flags) };
    owned(fd.into())
}

/// Makes the terminal `fd` that of this process' session, which it must lead.
pub(crate) fn take_terminal(fd: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: TIOCSCTTY takes a number.
    Errno::result(unsafe { libc::ioctl(fd.as_raw_fd(), libc::TIOCSCTTY, 0) })?;
    Ok(())
}

/// The size of a terminal: columns, rows.
pub(crate) fn terminal_size(fd: BorrowedFd<'_>) -> io::Result<(u16, u16)> {
    // SAFETY: winsize is plain data, for which all zeros is a value.
    let mut size: libc::winsize = unsafe { MaybeUninit::zeroed().assume_init() };
    // SAFETY: TIOCGWINSZ writes a winsize, which outlives the call.
    Errno::result(unsafe { libc::ioctl(fd.as_raw_fd(), libc::TIOCGWINSZ, &raw mut size) })?;
    Ok((size.ws_col, size.ws_row))
}

/// Sets the size of a terminal; the kernel tells its foreground processes (SIGWINCH).
pub(crate) fn set_terminal_size(fd: BorrowedFd<'_>, columns: u16, rows: u16) -> io::Result<()> {
    let size = libc::winsize {
        ws_row: rows,
        ws_col: columns,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    // SAFETY: TIOCSWINSZ reads a winsize, which outlives the call.
    Errno::result(unsafe { libc::ioctl(fd.as_raw_fd(), libc::TIOCSWINSZ, &raw const size) })?;
    Ok(())
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
        *to = *from as libc::c_char;
    }
    request.ifr_ifru.ifru_flags = i16::try_from(libc::IFF_UP).unwrap_or_default();
    // SAFETY: SIOCSIFFLAGS reads an ifreq, which outlives the call.
    Errno::result(unsafe {
        libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS, &raw const request)
    })?;
    Ok(())
}

/// Gives back to the kernel what is not needed while nothing happens: freed memory, and the program's own pages, which
/// come back from its file when they are touched.
///
/// A shim needs most of its code for a few milliseconds in its life, and a node rests most of the time.
pub fn trim_memory() {
    // Found out before the first goes, and dropped last of all: what runs after that is in memory again.
    let unwritten = unwritten_mappings();
    // SAFETY: glibc's allocator is thread safe, and this changes no live allocation.
    #[cfg(target_env = "gnu")]
    unsafe {
        libc::malloc_trim(0);
    }
    for (start, end) in unwritten {
        // SAFETY: the mapping is of a file, not writable, and no page of it was ever written, so each page reads the
        // same after it was dropped.
        unsafe { libc::madvise(start as *mut libc::c_void, end - start, libc::MADV_DONTNEED) };
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

/// The mappings of the program's file that are as they are in it.
fn unwritten_mappings() -> Vec<(usize, usize)> {
    let text = std::fs::read_to_string("/proc/self/smaps").unwrap_or_default();
    let mut unwritten = Vec::new();
    let mut range = None;
    for line in text.lines() {
        if let Some(found) = clean_candidate(line) {
            range = found;
        } else if let Some(rest) = line.strip_prefix("Anonymous:")
            // What was written to (relocated) has no file to come back from.
            && rest.trim() == "0 kB"
        {
            unwritten.extend(range.take());
        }
    }
    unwritten
}

/// A mapping's first line (proc_pid_maps(5)): its range if it is of a file, private and not writable. `None`:
/// the line is no such line.
fn clean_candidate(line: &str) -> Option<Option<(usize, usize)>> {
    let mut fields = line.split_ascii_whitespace();
    let (start, end) = fields.next()?.split_once('-')?;
    let range = (
        usize::from_str_radix(start, 16).ok()?,
        usize::from_str_radix(end, 16).ok()?,
    );
    let protection = fields.next()?;
    let file = fields.nth(3).is_some_and(|path| path.starts_with('/'));
    let clean =
        protection.starts_with('r') && !protection.contains('w') && protection.ends_with('p');
    Some((clean && file).then_some(range))
}

/// A detached copy of the mount at `path`, below `at` if that is relative (open_tree(2)).
pub(crate) fn open_tree(
    at: Option<BorrowedFd<'_>>,
    path: &Path,
    recursive: bool,
) -> io::Result<OwnedFd> {
    let path = CString::new(path.as_os_str().as_encoded_bytes())?;
    let mut flags = libc::OPEN_TREE_CLONE | libc::OPEN_TREE_CLOEXEC;
    if recursive {
        flags |= libc::AT_RECURSIVE as libc::c_uint;
    }
    if path.is_empty() {
        flags |= libc::AT_EMPTY_PATH as libc::c_uint;
    }
    let at = at.map_or(libc::AT_FDCWD, |fd| fd.as_raw_fd());
    // SAFETY: the kernel reads a string that outlives the call.
    owned(unsafe { libc::syscall(libc::SYS_open_tree, at, path.as_ptr(), flags) })
}

/// Sets attributes of a detached mount (mount_setattr(2)); `users`: its ids are shifted by this user namespace.
pub(crate) fn set_mount(
    tree: BorrowedFd<'_>,
    attributes: u64,
    users: Option<BorrowedFd<'_>>,
    recursive: bool,
) -> io::Result<()> {
    let mut wanted = libc::mount_attr {
        attr_set: attributes,
        attr_clr: 0,
        propagation: 0,
        userns_fd: 0,
    };
    if let Some(users) = users {
        wanted.attr_set |= libc::MOUNT_ATTR_IDMAP;
        wanted.userns_fd = u64::try_from(users.as_raw_fd()).map_err(io::Error::other)?;
    }
    let flags = libc::AT_EMPTY_PATH | if recursive { libc::AT_RECURSIVE } else { 0 };
    // SAFETY: the kernel reads the empty string and a mount_attr of the size given; both outlive the call.
    Errno::result(unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            tree.as_raw_fd(),
            c"".as_ptr(),
            flags,
            &raw const wanted,
            size_of::<libc::mount_attr>(),
        )
    })?;
    Ok(())
}

/// Mounts a detached mount on what `to` is open on (move_mount(2)).
pub(crate) fn attach(tree: BorrowedFd<'_>, to: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: the kernel reads two empty strings.
    Errno::result(unsafe {
        libc::syscall(
            libc::SYS_move_mount,
            tree.as_raw_fd(),
            c"".as_ptr(),
            to.as_raw_fd(),
            c"".as_ptr(),
            libc::MOVE_MOUNT_F_EMPTY_PATH | libc::MOVE_MOUNT_T_EMPTY_PATH,
        )
    })?;
    Ok(())
}

/// Makes a file system and a detached mount of it (fsopen(2), fsconfig(2), fsmount(2)). An option with an empty value is
/// a flag.
pub(crate) fn new_mount(
    kind: &CStr,
    options: &[(&CStr, CString)],
    attributes: u64,
) -> io::Result<OwnedFd> {
    // SAFETY: the kernel reads a string that outlives the call.
    let context =
        owned(unsafe { libc::syscall(libc::SYS_fsopen, kind.as_ptr(), libc::FSOPEN_CLOEXEC) })?;
    for (name, value) in options {
        let (command, value) = match value.is_empty() {
            true => (libc::FSCONFIG_SET_FLAG, std::ptr::null()),
            false => (libc::FSCONFIG_SET_STRING, value.as_ptr()),
        };
        // SAFETY: the kernel reads strings that outlive the call.
        Errno::result(unsafe {
            libc::syscall(
                libc::SYS_fsconfig,
                context.as_raw_fd(),
                command,
                name.as_ptr(),
                value,
                0,
            )
        })?;
    }
    let none = std::ptr::null::<libc::c_char>();
    // SAFETY: this command takes neither name nor value.
    Errno::result(unsafe {
        libc::syscall(
            libc::SYS_fsconfig,
            context.as_raw_fd(),
            libc::FSCONFIG_CMD_CREATE,
            none,
            none,
            0,
        )
    })?;
    // SAFETY: only numbers.
    owned(unsafe {
        libc::syscall(
            libc::SYS_fsmount,
            context.as_raw_fd(),
            libc::FSMOUNT_CLOEXEC,
            attributes,
        )
    })
}

/// Loads a system call filter (seccomp(2)) for this process and what it executes. It must have given up new
/// privileges.
pub(crate) fn load_filter(program: &[u8]) -> io::Result<()> {
    let instructions: Vec<libc::sock_filter> = program
        .chunks_exact(size_of::<libc::sock_filter>())
        .map(|bytes| libc::sock_filter {
            code: u16::from_ne_bytes([bytes[0], bytes[1]]),
            jt: bytes[2],
            jf: bytes[3],
            k: u32::from_ne_bytes([bytes[4], bytes[5], bytes[6], bytes[7]]),
        })
        .collect();
    let filter = libc::sock_fprog {
        len: u16::try_from(instructions.len()).map_err(io::Error::other)?,
        filter: instructions.as_ptr().cast_mut(),
    };
    // SAFETY: the kernel copies the program, checks it, and writes nothing; all outlives the call.
    Errno::result(unsafe {
        libc::syscall(
            libc::SYS_seccomp,
            libc::SECCOMP_SET_MODE_FILTER,
            0,
            &raw const filter,
        )
    })?;
    Ok(())
}

/// Loads a program for devices (bpf(2), BPF_PROG_TYPE_CGROUP_DEVICE) and attaches it to a v2 cgroup, beside those of the
/// groups above.
pub(crate) fn attach_device_program(cgroup: BorrowedFd<'_>, program: &[u8]) -> io::Result<()> {
    const LOAD: libc::c_int = 5;
    const ATTACH: libc::c_int = 8;
    /// The beginning of `union bpf_attr` for loading.
    #[repr(C)]
    struct Load {
        kind: u32,
        count: u32,
        instructions: u64,
        license: u64,
        log: [u32; 2],
        log_buffer: u64,
        version: u32,
        flags: u32,
    }
    /// The same for attaching.
    #[repr(C)]
    struct Attach {
        target: u32,
        program: u32,
        kind: u32,
        flags: u32,
    }
    let load = Load {
        kind: 15, // BPF_PROG_TYPE_CGROUP_DEVICE
        count: u32::try_from(program.len() / 8).map_err(io::Error::other)?,
        instructions: program.as_ptr() as u64,
        license: c"Apache-2.0".as_ptr() as u64,
        log: [0; 2],
        log_buffer: 0,
        version: 0,
        flags: 0,
    };
    // SAFETY: the kernel reads the struct and what it points to, of the sizes given; all outlives the call.
    let loaded =
        owned(unsafe { libc::syscall(libc::SYS_bpf, LOAD, &raw const load, size_of::<Load>()) })?;
    let number = |fd: RawFd| u32::try_from(fd).map_err(io::Error::other);
    let attach = Attach {
        target: number(cgroup.as_raw_fd())?,
        program: number(loaded.as_raw_fd())?,
        kind: 6,  // BPF_CGROUP_DEVICE
        flags: 2, // BPF_F_ALLOW_MULTI
    };
    // SAFETY: the kernel reads a struct of the size given, which outlives the call.
    Errno::result(unsafe {
        libc::syscall(
            libc::SYS_bpf,
            ATTACH,
            &raw const attach,
            size_of::<Attach>(),
        )
    })?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_unwritten_file_mappings_are_dropped() {
        let line = "7f0000001000-7f0000003000 r-xp 00001000 00:01 42   /memfd:layby-shim (deleted)";
        assert_eq!(
            clean_candidate(line),
            Some(Some((0x7f00_0000_1000, 0x7f00_0000_3000)))
        );
        for kept in [
            "7f0000001000-7f0000003000 rw-p 00001000 00:01 42   /memfd:layby-shim (deleted)",
            "7f0000001000-7f0000003000 r--p 00000000 00:00 0 ",
            "7f0000001000-7f0000003000 r-xp 00000000 00:00 0   [vdso]",
            "7f0000001000-7f0000003000 r--s 00000000 00:01 42   /shared",
        ] {
            assert_eq!(clean_candidate(kept), Some(None), "{kept}");
        }
        for other in ["Anonymous:             0 kB", "VmFlags: rd ex mr mw me"] {
            assert_eq!(clean_candidate(other), None, "{other}");
        }
    }
}
