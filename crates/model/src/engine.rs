//! The engine: what runs replicas. Seven repeatable methods; everything above sees only this trait.

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;

use futures_core::Stream;
use serde::{Deserialize, Serialize};

use crate::names::{ReplicaId, RevisionId, ServiceId};
use crate::replica::ReplicaReport;
use crate::spec::ServiceSpec;
use crate::state::Wakefulness;

/// A future that may be sent to another thread.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;
/// A stream that may be sent to another thread.
pub type BoxStream<'a, T> = Pin<Box<dyn Stream<Item = T> + Send + 'a>>;

/// What an engine can do: data, so that planning can look at it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct EngineTraits {
    /// It can freeze a replica in memory. If not, dozing is asleep.
    pub can_doze: bool,
    /// Its `Ready` is the probe's word; if not, the control plane probes.
    pub reports_health: bool,
    /// `exec` works.
    pub can_exec: bool,
}

impl EngineTraits {
    /// The level that comes of a wanted one: where the engine cannot freeze, dozing is asleep.
    pub fn possible(self, wanted: Wakefulness) -> Wakefulness {
        match wanted {
            Wakefulness::Dozing if !self.can_doze => Wakefulness::Asleep,
            Wakefulness::Asleep | Wakefulness::Dozing | Wakefulness::Awake => wanted,
        }
    }
}

/// An order: what replicas one revision is to have. Safe to repeat.
///
/// Replicas that are not named are left as they are; an id that is new is created and prepared.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Workload {
    /// The service.
    pub service: ServiceId,
    /// The revision that new replicas are of.
    pub revision: RevisionId,
    /// The service row's generation this was planned with; an older one than seen before is refused.
    pub generation: u64,
    /// What the revision runs, with every image resolved to a digest.
    pub spec: RunSpec,
    /// The replicas to have, each at its depth.
    pub replicas: BTreeMap<ReplicaId, Wakefulness>,
    /// The replicas (of any revision of the service) to stop and remove.
    pub retire: Vec<ReplicaId>,
}

/// A service's settings with its images resolved: all that an engine needs to run it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunSpec {
    /// The settings, as the manifest gave them.
    pub service: ServiceSpec,
    /// For each of [`ServiceSpec::all_containers`], in order: the digest (`sha256:...`) of its image's manifest.
    pub images: Vec<String>,
}

/// Why an engine refused or failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EngineError {
    /// The order is older than one seen before: plan again from fresh facts.
    #[error("an order of generation {given} for {service} came after one of generation {seen}")]
    Stale {
        /// The service.
        service: ServiceId,
        /// The generation of this order.
        given: u64,
        /// The newest generation seen.
        seen: u64,
    },
    /// No such replica or container, or it does not run.
    #[error("{0}")]
    NotFound(String),
    /// It clashes with what is there now, such as a volume that is in use.
    #[error("{0}")]
    Conflict(String),
    /// The engine could not do it; trying again may help.
    #[error("{0}")]
    Failed(String),
}

/// Which lines of a replica's log to read.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct LogQuery {
    /// Only of this container; `None`: the first.
    pub container: Option<String>,
    /// Only so many of the last lines; `None`: all there are.
    pub tail: Option<usize>,
    /// Go on with new lines until the replica is gone.
    pub follow: bool,
    /// Only lines from this moment on, in milliseconds since 1970-01-01T00:00:00Z.
    pub since_ms: Option<u64>,
    /// Only lines before this moment.
    pub until_ms: Option<u64>,
}

/// One line of a container's output.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogLine {
    /// When it was read, in milliseconds since 1970-01-01T00:00:00Z.
    pub at_ms: u64,
    /// `stdout` or `stderr`.
    pub stream: String,
    /// The text, without its line end.
    pub text: String,
}

/// What a command in a container did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExecOutput {
    /// Its exit code.
    pub code: i32,
    /// The first 64 KiB of what it wrote to both outputs.
    pub output: Vec<u8>,
}

/// What runs replicas.
pub trait Engine: Send + Sync + 'static {
    /// What it can do.
    fn traits(&self) -> EngineTraits;

    /// Accepts an order and returns; what it brings shows in [`Engine::observe`] from then on.
    fn apply<'a>(&'a self, workload: &'a Workload) -> BoxFuture<'a, Result<(), EngineError>>;

    /// The replicas there are, of one service or of all, whoever ordered them.
    fn observe<'a>(
        &'a self,
        service: Option<&'a ServiceId>,
    ) -> BoxFuture<'a, Result<Vec<ReplicaReport>, EngineError>>;

    /// Hints that the replicas of a service (`None`: of any) may have changed; nothing more is in it.
    fn changes(&self) -> BoxStream<'static, Option<ServiceId>>;

    /// The log of a replica, the oldest line first; ends at its end unless followed.
    fn logs<'a>(
        &'a self,
        replica: ReplicaId,
        query: LogQuery,
    ) -> BoxFuture<'a, Result<BoxStream<'static, LogLine>, EngineError>>;

    /// Runs a command in a container (`None`: the first) and waits for it, at most `timeout_ms`.
    fn exec<'a>(
        &'a self,
        replica: ReplicaId,
        container: Option<&'a str>,
        argv: &'a [String],
        timeout_ms: u64,
    ) -> BoxFuture<'a, Result<ExecOutput, EngineError>>;

    /// Ends a container of a running replica as if it had ended by itself, by its hooks and its signal; it is killed after
    /// `grace_ms` (`None`: as its spec says). What follows is what follows such an end. Returns when that has begun;
    /// [`EngineError::NotFound`] if it does not run, as one that has ended by itself just now.
    fn end<'a>(
        &'a self,
        replica: ReplicaId,
        container: &'a str,
        grace_ms: Option<u64>,
    ) -> BoxFuture<'a, Result<(), EngineError>>;
}
