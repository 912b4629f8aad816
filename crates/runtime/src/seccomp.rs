//! The system calls of a container: what Docker's default profile allows, and no more.
//!
//! Everything not named here fails with EPERM: mounting, loading modules, namespaces, keyrings, BPF,
//! io_uring, the clock, reboot, swap, tracing of the kernel. The names are of all ABIs of the machine;
//! libseccomp leaves out what an ABI does not have.

use std::fs::File;
use std::io::{Read, Seek};

use libseccomp::error::SeccompError;
use libseccomp::{
    ScmpAction, ScmpArch, ScmpArgCompare, ScmpCompareOp, ScmpFilterContext, ScmpSyscall,
};
use nix::sys::memfd::{MFdFlags, memfd_create};

use crate::error::{Error, Result, Trying};

/// Allowed with any arguments, by what they are about.
const ALLOWED: &str = "
    read write readv writev pread64 pwrite64 preadv pwritev preadv2 pwritev2 lseek _llseek
    open openat openat2 creat close close_range dup dup2 dup3 fcntl fcntl64 ioctl
    stat stat64 lstat lstat64 fstat fstat64 fstatat64 newfstatat statx statfs statfs64 fstatfs fstatfs64
    access faccessat faccessat2 chmod fchmod fchmodat fchmodat2
    chown chown32 fchown fchown32 lchown lchown32 fchownat umask
    link linkat symlink symlinkat readlink readlinkat rename renameat renameat2 unlink unlinkat
    mkdir mkdirat rmdir mknod mknodat getcwd chdir fchdir getdents getdents64 chroot
    truncate truncate64 ftruncate ftruncate64 fallocate flock fsync fdatasync sync syncfs sync_file_range
    readahead fadvise64 fadvise64_64 copy_file_range sendfile sendfile64 splice tee vmsplice
    utime utimes utimensat utimensat_time64 futimesat name_to_handle_at cachestat
    getxattr lgetxattr fgetxattr setxattr lsetxattr fsetxattr listxattr llistxattr flistxattr
    removexattr lremovexattr fremovexattr getxattrat setxattrat listxattrat removexattrat
    inotify_init inotify_init1 inotify_add_watch inotify_rm_watch fanotify_mark

    mmap mmap2 munmap mprotect mremap msync mincore madvise brk remap_file_pages memfd_create memfd_secret
    mlock mlock2 mlockall munlock munlockall mseal membarrier map_shadow_stack
    pkey_alloc pkey_free pkey_mprotect process_mrelease process_vm_readv process_vm_writev

    execve execveat exit exit_group fork vfork wait4 waitid waitpid ptrace
    kill tkill tgkill pidfd_open pidfd_send_signal rt_sigaction rt_sigprocmask rt_sigpending rt_sigqueueinfo
    rt_tgsigqueueinfo rt_sigreturn rt_sigsuspend rt_sigtimedwait rt_sigtimedwait_time64 sigaltstack
    signal sigaction sigpending sigprocmask sigreturn sigsuspend signalfd signalfd4 pause
    getpid getppid gettid getpgid getpgrp setpgid getsid setsid
    getuid getuid32 geteuid geteuid32 getgid getgid32 getegid getegid32 getresuid getresuid32 getresgid
    getresgid32 getgroups getgroups32 setuid setuid32 setgid setgid32 setreuid setreuid32 setregid setregid32
    setresuid setresuid32 setresgid setresgid32 setfsuid setfsuid32 setfsgid setfsgid32 setgroups setgroups32
    capget capset prctl arch_prctl seccomp landlock_create_ruleset landlock_add_rule landlock_restrict_self
    getrlimit setrlimit ugetrlimit prlimit64 getrusage getpriority setpriority ioprio_get ioprio_set
    sched_yield sched_getaffinity sched_setaffinity sched_getattr sched_setattr sched_getparam sched_setparam
    sched_getscheduler sched_setscheduler sched_get_priority_max sched_get_priority_min
    sched_rr_get_interval sched_rr_get_interval_time64
    set_tid_address set_robust_list get_robust_list set_thread_area get_thread_area modify_ldt rseq
    restart_syscall uretprobe getcpu sysinfo uname times getrandom
    futex futex_time64 futex_waitv futex_wait futex_wake futex_requeue

    nanosleep clock_nanosleep clock_nanosleep_time64 clock_gettime clock_gettime64 clock_getres
    clock_getres_time64 gettimeofday time adjtimex clock_adjtime clock_adjtime64 alarm getitimer setitimer
    timer_create timer_delete timer_getoverrun timer_gettime timer_gettime64 timer_settime timer_settime64
    timerfd_create timerfd_gettime timerfd_gettime64 timerfd_settime timerfd_settime64

    poll ppoll ppoll_time64 select _newselect pselect6 pselect6_time64 pipe pipe2 eventfd eventfd2
    epoll_create epoll_create1 epoll_ctl epoll_ctl_old epoll_wait epoll_wait_old epoll_pwait epoll_pwait2
    io_setup io_destroy io_submit io_cancel io_getevents io_pgetevents io_pgetevents_time64

    socketpair bind connect listen accept accept4 shutdown getsockname getpeername getsockopt
    setsockopt send sendto sendmsg sendmmsg recv recvfrom recvmsg recvmmsg recvmmsg_time64
    ipc shmget shmat shmctl shmdt msgget msgctl msgrcv msgsnd semget semctl semop semtimedop
    semtimedop_time64 mq_open mq_unlink mq_notify mq_getsetattr mq_timedreceive mq_timedreceive_time64
    mq_timedsend mq_timedsend_time64
";

/// The namespace flags of clone(2): NEWNS, NEWCGROUP, NEWUTS, NEWIPC, NEWUSER, NEWPID, NEWNET.
const CLONE_NAMESPACES: u64 = 0x7e02_0000;

/// The personalities that change nothing of weight: PER_LINUX, PER_LINUX32, both with UNAME26, and "ask".
const PERSONALITIES: [u64; 5] = [0x0, 0x8, 0x2_0000, 0x2_0008, 0xffff_ffff];

/// AF_VSOCK: from a virtual machine it reaches the host, past every network namespace.
const AF_VSOCK: u64 = 40;

/// The bits of a socket's family, an int, that no family sets that Linux knows: AF_MAX is 46.
const NO_FAMILY: u64 = 0xffff_ffc0;

/// The profile as a program for the kernel (classic BPF, as seccomp(2) takes it).
///
/// Making it costs more than all else in a container's start, so it is made once in the life of a node.
pub(crate) fn program() -> Result<Vec<u8>> {
    let context = compile().map_err(|error| {
        Error::Failed(format!("the system call filter cannot be made: {error}"))
    })?;
    let what = || "read the system call filter".to_owned();
    let memory = memfd_create(c"layby-seccomp", MFdFlags::MFD_CLOEXEC).trying(what)?;
    context.export_bpf(&memory).map_err(|error| {
        Error::Failed(format!("the system call filter cannot be written: {error}"))
    })?;
    let mut file = File::from(memory);
    let mut program = Vec::new();
    file.rewind()
        .and_then(|()| file.read_to_end(&mut program))
        .trying(what)?;
    Ok(program)
}

fn compile() -> std::result::Result<ScmpFilterContext, SeccompError> {
    let mut context = ScmpFilterContext::new(ScmpAction::Errno(libc::EPERM))?;
    // A tree of comparisons and not a list: the kernel walks it for each system call number when it is loaded.
    context.set_ctl_optimize(2)?;
    for arch in architectures() {
        context.add_arch(*arch)?;
    }
    let mut allow = |name: &str, conditions: &[ScmpArgCompare]| match ScmpSyscall::from_name(name) {
        Ok(call) => context
            .add_rule_conditional(ScmpAction::Allow, call, conditions)
            .map(drop),
        // Newer than this libseccomp: it stays forbidden, and programs fall back.
        Err(_) => Ok(()),
    };
    for name in ALLOWED.split_ascii_whitespace() {
        allow(name, &[])?;
    }
    let first = |op, value| [ScmpArgCompare::new(0, op, value)];
    for personality in PERSONALITIES {
        allow("personality", &first(ScmpCompareOp::Equal, personality))?;
    }
    // Every family under 64 that differs from it in one of the six low bits. "Not equal" would compare 64 bits, of
    // which the kernel reads 32: with a higher one set, it would pass.
    for bit in (0..6).map(|n| 1 << n) {
        let differs = ScmpCompareOp::MaskedEqual(NO_FAMILY | bit);
        allow("socket", &first(differs, !AF_VSOCK & bit))?;
    }
    allow(
        "clone",
        &first(ScmpCompareOp::MaskedEqual(CLONE_NAMESPACES), 0),
    )?;
    // Their arguments lie in memory, where a filter cannot look: flags that make namespaces, and a family that reaches
    // out of a virtual machine. With ENOSYS libraries fall back to clone, and to the calls for sockets that Linux has
    // had since 4.3 for 32-bit programs too.
    for name in ["clone3", "socketcall"] {
        if let Ok(call) = ScmpSyscall::from_name(name) {
            context.add_rule(ScmpAction::Errno(libc::ENOSYS), call)?;
        }
    }
    Ok(context)
}

/// The machine's own ABI and those it also runs.
fn architectures() -> &'static [ScmpArch] {
    if cfg!(target_arch = "x86_64") {
        &[ScmpArch::X8664, ScmpArch::X86, ScmpArch::X32]
    } else if cfg!(target_arch = "aarch64") {
        &[ScmpArch::Aarch64, ScmpArch::Arm]
    } else {
        &[ScmpArch::Native]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_that_reaches_beyond_a_container_is_allowed() {
        let forbidden = "mount umount2 pivot_root move_mount fsopen open_tree mount_setattr setns unshare
            init_module finit_module delete_module kexec_load reboot swapon swapoff bpf perf_event_open
            keyctl add_key request_key open_by_handle_at userfaultfd io_uring_setup io_uring_enter
            io_uring_register clock_settime settimeofday sethostname acct quotactl iopl ioperm nfsservctl
            lookup_dcookie move_pages mbind set_mempolicy syslog vhangup fanotify_init kcmp clone clone3 socketcall";
        for name in forbidden.split_ascii_whitespace() {
            assert!(
                !ALLOWED
                    .split_ascii_whitespace()
                    .any(|allowed| allowed == name),
                "{name}"
            );
        }
    }

    #[test]
    fn the_program_is_whole_instructions_within_the_kernels_limit() {
        let program = program().expect("a program");
        // BPF_MAXINSNS, of 8 bytes each.
        assert!(
            program.len().is_multiple_of(8) && (100..4096).contains(&(program.len() / 8)),
            "{}",
            program.len()
        );
    }

    #[test]
    fn no_name_stands_twice() {
        let mut names: Vec<&str> = ALLOWED.split_ascii_whitespace().collect();
        let all = names.len();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), all);
    }
}
