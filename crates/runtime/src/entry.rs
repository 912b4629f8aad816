//! Entering a running container: what a helper does that the shim forked, before anything else.
//!
//! The helper runs from sealed memory, cannot be traced from inside, and looks nothing up by a path of the host once it
//! is in. It ends with the shim.

use std::fs;
use std::os::fd::OwnedFd;

use nix::sched::{CloneFlags, setns};
use nix::sys::prctl;
use nix::sys::signal::Signal;
use nix::unistd::{Gid, Pid, Uid, setgroups, setresgid, setresuid, setsid};
use oci_spec::runtime::Spec;

use crate::container;
use crate::hierarchy::Hierarchies;
use crate::oci;
use crate::spec::Bundle;
use crate::sys;

/// A container as its spec has it, and the way in.
pub(crate) struct Entry {
    pub(crate) spec: Spec,
    /// The system call filter of its processes; empty: none.
    pub(crate) filter: Vec<u8>,
    init: Pid,
    process: OwnedFd,
}

/// Why it was not entered, in one sentence.
pub(crate) type Said<T> = std::result::Result<T, String>;

/// Says what could not be done.
pub(crate) fn say(what: &'static str) -> impl Fn(&dyn std::error::Error) -> String {
    move |error| format!("exec: cannot {what}: {error}")
}

impl Entry {
    /// Makes this process a helper, and finds the container `name` of the bundle whose init is `init`.
    pub(crate) fn find(init: Pid, bundle: &Bundle, name: &str) -> Said<Self> {
        sys::reset_signals();
        prctl::set_dumpable(false).map_err(|e| say("hide from the container")(&e))?;
        setsid().map_err(|e| say("make a session")(&e))?;
        let spec = Spec::load(bundle.oci(name).join("config.json"))
            .map_err(|e| say("read the container's spec")(&e))?;
        let filter = match oci::is_unconfined(&spec) {
            true => Vec::new(),
            false => container::read_filter(bundle).map_err(|e| e.sentence())?,
        };
        let process = sys::pidfd(init).map_err(|e| say("find the container's init")(&e))?;
        Ok(Self {
            spec,
            filter,
            init,
            process,
        })
    }

    /// The host's number for root of the container.
    pub(crate) fn first_id(&self) -> u32 {
        let linux = self.spec.linux().as_ref();
        let maps = linux.and_then(|linux| linux.uid_mappings().as_ref());
        maps.and_then(|maps| maps.first())
            .map_or(0, |map| map.host_id())
    }

    /// Joins the container's cgroups and the namespaces `kinds`, its user namespace in any case, as its root. With a
    /// PID namespace among them only children of this process will be in it.
    pub(crate) fn join(&self, kinds: CloneFlags) -> Said<()> {
        let dirs = Hierarchies::get()
            .and_then(|h| h.of_process(self.init))
            .map_err(|e| e.sentence())?;
        for dir in dirs {
            fs::write(dir.join("cgroup.procs"), "0")
                .map_err(|e| say("join the container's cgroup")(&e))?;
        }
        let mut kinds = kinds;
        let linux = self.spec.linux().as_ref();
        let mapped = linux.is_some_and(|linux| linux.uid_mappings().is_some());
        if mapped {
            kinds |= CloneFlags::CLONE_NEWUSER;
        }
        // All in one call: the kernel takes the user namespace first, and checks the others by the rights of before.
        setns(&self.process, kinds).map_err(|e| say("join the container's namespaces")(&e))?;
        if mapped {
            // Nobody in here knows the ids of outside: what they make would belong to nobody.
            let (uid, gid) = (Uid::from_raw(0), Gid::from_raw(0));
            setgroups(&[])
                .and_then(|()| setresgid(gid, gid, gid))
                .and_then(|()| setresuid(uid, uid, uid))
                .map_err(|e| say("become the container's root")(&e))?;
        }
        // Another user clears these.
        prctl::set_dumpable(false).map_err(|e| say("hide from the container")(&e))?;
        prctl::set_pdeathsig(Signal::SIGKILL).map_err(|e| say("tie it to the shim")(&e))
    }
}
