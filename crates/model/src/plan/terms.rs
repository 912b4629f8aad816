//! What planning takes and what it gives: wants, facts, timers and steps.

use std::collections::BTreeMap;

use crate::names::{ReplicaId, RevisionId};
use crate::replica::Phase;
use crate::route::Version;
use crate::share::Share;
use crate::spec::{RestartPolicy, SleepPolicy};
use crate::state::Wakefulness;

/// What is wanted: one row of the store, but `wanted`, of which memory has the newest value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Desired {
    /// Switched on.
    pub enabled: bool,
    /// The revision last deployed.
    pub target: Option<RevisionId>,
    /// The revision that serves.
    pub live: Option<RevisionId>,
    /// The target was given up.
    pub target_failed: bool,
    /// So many more attempts a target gets that failed in a way that another one may not.
    pub retries: u32,
    /// So many attempts of the target failed already.
    pub failed_attempts: u32,
    /// How long the target may take to be ready while nothing of it moves ([`Observed::progress`]), in milliseconds: a
    /// length, never an instant.
    pub deadline_ms: u64,
    /// How long it may take however much it moves, in milliseconds.
    pub deadline_max_ms: u64,
    /// The target is a canary: beside live it gets this share of the requests, and never goes live by itself. Means
    /// nothing while nothing is live, and with `stop_first`, which has no two revisions run at once.
    pub share: Option<Share>,
    /// No two revisions may run at once.
    pub stop_first: bool,
    /// So many replicas; at least 1.
    pub replicas: u32,
    /// How awake live's replicas are to be.
    pub wanted: Wakefulness,
    /// When idleness makes it doze and sleep.
    pub ladder: SleepPolicy,
    /// How long requests may go on after the gateway let go of their replica, in milliseconds.
    pub drain_ms: u64,
    /// Counts the row's changes: a decision is written only if it is still the one planned with.
    pub generation: u64,
}

impl Desired {
    /// A target is on its way to be live.
    pub fn rolling(&self) -> bool {
        self.target.is_some() && self.target != self.live && !self.target_failed
    }
}

/// One replica, as far as planning cares.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Replica {
    /// Which; a smaller one is older.
    pub id: ReplicaId,
    /// Of which revision.
    pub revision: RevisionId,
    /// Where it is in its life. `Ready` is the probe's word, whoever asks the probe.
    pub phase: Phase,
    /// Starts in a row that came to nothing: each ended before ready, or too soon after. 0 again once one held.
    pub failed_starts: u32,
    /// It stopped unasked since it was last ordered to run: it ended, or could not be started.
    pub crashed: bool,
    /// How it ended since then; `None` also where it could not be started.
    pub ended: Option<Ended>,
    /// What its revision wants done then.
    pub restart: RestartPolicy,
    /// It runs, was ready in this run, and does not answer its probe any more. Its phase is `Starting`.
    pub unhealthy: bool,
    /// A user wants it restarted, and it was not started since.
    pub stale: bool,
}

/// The place of a replica that failed its liveness probe for good: another one is made for it, after a pause that grows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Vacancy {
    /// Who had it.
    pub replica: ReplicaId,
    /// Of which revision.
    pub revision: RevisionId,
    /// Starts in a row that came to nothing in this place, the last one included; 0: it had held.
    pub failed_starts: u32,
}

/// How a replica ended unasked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// With exit code 0.
    Well,
    /// With another one, or for want of memory.
    Badly,
}

/// One report of the gateway. `confirmed` is read first, the rest after it: what is in flight then is all
/// that can still be in flight to a replica of which a confirmed table let go.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct GatewayReport {
    /// The newest table that it serves by and has on disk.
    pub confirmed: Version,
    /// Requests in flight, by replica. Those with none may be left out.
    pub in_flight: BTreeMap<ReplicaId, u32>,
    /// Connections that are open through to a replica and may be quiet, by replica. Those with none may be left out.
    pub open: BTreeMap<ReplicaId, u32>,
    /// Those of them whose clients may wait for an answer, by replica. Those with none may be left out.
    pub awaited: BTreeMap<ReplicaId, u32>,
    /// Requests that wait for a replica: a level, not an edge.
    pub waiting: u32,
    /// Uses ever seen in this life of the gateway.
    pub uses: u64,
}

/// What is seen: facts, in one look.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Observed {
    /// Now, in milliseconds on a monotonic clock; where it begins does not matter.
    pub now_ms: u64,
    /// The engine's replicas of this service, of whatever revision. Never older than the last orders given.
    pub replicas: Vec<Replica>,
    /// The places that are empty since who had them failed its liveness probe, those that are empty for the longest time first.
    /// More than are missing mean nothing.
    pub vacancies: Vec<Vacancy>,
    /// The newest route published in this life of the control plane; `None`: none yet.
    pub published: Option<Route>,
    /// Less than the version of every table of this life.
    pub base: Version,
    /// The version of the last table of this life that named a replica.
    pub named: BTreeMap<ReplicaId, Version>,
    /// The gateway's newest report; `None`: none yet in this life of the control plane.
    pub gateway: Option<GatewayReport>,
    /// Why the target cannot succeed, whatever is tried (its image is missing, ...); one sentence.
    pub hopeless: Option<String>,
    /// Goes up whenever something of the target was seen to move: its log, its image.
    pub progress: u64,
    /// What the target waits for before anything of it is started (another service, ...); one sentence.
    pub blocked: Option<String>,
    /// Since when (on the scale of `now_ms`) each of [`timers`](super::timers) has held without a break; no other keys.
    /// While the timers of this look are asked for, still as of the last one.
    pub since: BTreeMap<Timer, u64>,
}

/// Whom the gateway sends a service's requests to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Route {
    /// Nobody, and no one is expected: disabled, nothing was ever live, or live has ended and is left so.
    Refuse,
    /// Nobody yet: keep them.
    Hold,
    /// Nobody, though replicas run: none answers its probe any more, and none is on its way. Keep them for a moment only.
    Unhealthy,
    /// These, the oldest first.
    Serve {
        /// Of live; never empty.
        live: Vec<ReplicaId>,
        /// Of a canary, for its share ([`Desired::share`]); empty: there is none, or it is not ready.
        canary: Vec<ReplicaId>,
    },
}

impl Route {
    /// All replicas that it names.
    pub fn named(&self) -> impl Iterator<Item = ReplicaId> {
        let (live, canary) = match self {
            Self::Refuse | Self::Hold | Self::Unhealthy => (&[][..], &[][..]),
            Self::Serve { live, canary } => (&live[..], &canary[..]),
        };
        live.iter().chain(canary).copied()
    }
}

/// A condition whose age matters. The key holds what starts the age anew when it changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Timer {
    /// This target rolls and may have replicas, after so many failed attempts; a canary is not ready.
    Roll(RevisionId, u32),
    /// The same, and so much progress of it was ever seen.
    Still(RevisionId, u64),
    /// So many attempts of this target failed, and what they left is gone. It goes on holding while the next one rolls.
    Pause(RevisionId, u32),
    /// Nothing waits, nothing is in flight, and so many uses were ever seen.
    Idle(u64),
    /// This replica is to be lowered, and the gateway has let go of it.
    Drain(ReplicaId),
    /// This replica lies where it crashed, or its place is empty, after so many failed starts.
    Backoff(ReplicaId, u32),
}

/// One thing to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Write, if the generation is still the same: live is this revision, wanted awake. (In memory too.)
    GoLive(RevisionId),
    /// Write, if the generation is still the same: this target failed, and why.
    Fail(RevisionId, FailReason),
    /// Write, if the generation is still the same: one more attempt of this target failed, and why. It gets another.
    Retry(RevisionId, FailReason),
    /// Publish a table with this route.
    Publish(Route),
    /// Make and prepare one more replica of this revision; it is then `Stopped`.
    Create(RevisionId),
    /// Start this stopped replica.
    Start(ReplicaId),
    /// Thaw this frozen replica.
    Thaw(ReplicaId),
    /// Freeze this ready replica.
    Freeze(ReplicaId),
    /// Stop this replica, and keep it prepared.
    Sleep(ReplicaId),
    /// Stop this replica and remove what it was made of.
    Remove(ReplicaId),
    /// Write, if the generation is still the same: so awake is wanted. It has been reached already.
    WriteWakefulness(Wakefulness),
}

/// Why a target failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FailReason {
    /// It was not ready in time: it did not move for [`Desired::deadline_ms`], or [`Desired::deadline_max_ms`] were over.
    Deadline,
    /// It cannot succeed, for this reason.
    Hopeless(String),
    /// A replica of it came to nothing, or failed its liveness probe, [`CRASH_LOOP_STARTS`](super::CRASH_LOOP_STARTS) times in a row.
    CrashLoop,
    /// A replica of it ended badly, and its restart policy leaves it so.
    Ended,
}
