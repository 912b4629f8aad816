//! What an engine reports of a replica. Facts only: what is wanted stands elsewhere.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::names::{ReplicaId, RevisionId, ServiceId};

/// Where a replica is in its life. An order shows here from the moment when the engine accepts it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Phase {
    /// Its containers run and it answered its probe.
    Ready,
    /// It was ordered to run, or runs and has not answered its probe yet. (Engines whose
    /// `reports_health` is false report every running replica so; the control plane probes it.)
    Starting,
    /// Frozen in memory.
    Frozen,
    /// On its way to Frozen.
    Freezing,
    /// Prepared, no process of it runs.
    Stopped,
    /// On its way to Stopped.
    Stopping,
    /// It will never run again; only removing it is left.
    Lost,
    /// On its way out; it disappears from the report when it is gone.
    Removing,
}

/// How a container ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exit {
    /// The exit code; 128 + n if signal n ended it.
    pub code: i32,
    /// The kernel ended it for want of memory within its limit.
    pub oom: bool,
}

/// One container of a replica, as it is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContainerReport {
    /// Its name in the replica.
    pub name: String,
    /// Its init process on the host, while it runs.
    pub pid: Option<i32>,
    /// How often it ended without being asked to, in the replica's life.
    pub ended: u32,
    /// How it ended last.
    pub last_exit: Option<Exit>,
    /// When that was, in milliseconds since 1970.
    #[serde(default)]
    pub last_exit_ms: Option<u64>,
    /// How often it was started, in the replica's life: what a probe said before another start is void.
    #[serde(default)]
    pub starts: u32,
    /// It ended while the others of its replica go on, and is to be started again: by the engine, after a pause. Or it was, and
    /// its hooks after that are not over yet.
    #[serde(default)]
    pub down: bool,
    /// How many of its ends in a row were unasked and came within 10 s of their start, up to the last one; counted for those
    /// that end alone.
    #[serde(default)]
    pub ended_in_a_row: u32,
    /// Why it could not be started again, or its hook after that failed, in one sentence.
    #[serde(default)]
    pub trouble: Option<String>,
}

impl ContainerReport {
    /// One that has not run yet.
    pub fn new(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            ..Self::default()
        }
    }

    /// In a replica that runs: it ended alone, and is left so.
    pub fn is_left(&self) -> bool {
        self.pid.is_none() && !self.down && self.starts > 0
    }

    /// The same, and it did not end well.
    pub fn is_left_failed(&self) -> bool {
        let failed = |exit: &Exit| exit.code != 0 || exit.oom;
        self.is_left() && self.last_exit.as_ref().is_some_and(failed)
    }
}

/// The end of a container that nobody asked for, or of one that was to end well before the others start and did not. Its
/// replica has ended with it. (Where it has several containers, one that ends alone is started again, and the replica ends with
/// the last of those that are not: [`ServiceSpec::ends_apart`](crate::spec::ServiceSpec::ends_apart).)
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct End {
    /// The container.
    pub container: String,
    /// How it ended.
    pub exit: Exit,
    /// It was a hook after the container's start that ended so, and the replica was stopped for it.
    #[serde(default)]
    pub hook: bool,
}

/// What stands in the way of a replica, as its engine sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trouble {
    /// No later try can succeed: the image is missing, the command cannot be executed.
    pub fatal: bool,
    /// What happened, where, and what to do, in one sentence for people.
    pub message: String,
}

/// One replica, as its engine sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReplicaReport {
    /// Which.
    pub id: ReplicaId,
    /// Of which service.
    pub service: ServiceId,
    /// Of which revision.
    pub revision: RevisionId,
    /// The newest generation of the service's row that an order for it was given with.
    pub generation: u64,
    /// Where it is in its life.
    pub phase: Phase,
    /// Its address on the node, once it has one. Free for another replica only after this one is gone.
    pub address: Option<IpAddr>,
    /// Its containers.
    pub containers: Vec<ContainerReport>,
    /// Those that run before them.
    #[serde(default)]
    pub init: Vec<ContainerReport>,
    /// Counts up each time the replica is ordered to run or to thaw: two reports with the same phase but
    /// another `run` saw two different lives of it, so what a probe said of the first is void.
    pub run: u64,
    /// Which container ended unasked and so stopped it; `None` once it is ordered to run again.
    pub ended: Option<End>,
    /// How many of its ends in a row were unasked and came within 10 s of their start, up to the last one. The engine
    /// counts them over restarts of the control plane.
    pub ended_in_a_row: u32,
    /// What stands in its way.
    pub trouble: Option<Trouble>,
}
