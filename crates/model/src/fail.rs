//! Fail points: the named places at which `cargo xtask chaos` lets a node fail.
//!
//! Nothing happens at them unless the program said at its start what shall; asking costs one load. What happens is the
//! program's business: here are only the names, and the way to it.

use std::sync::OnceLock;

/// A place at which a node can be let fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Point {
    /// The control plane's store is about to read or write.
    BeforeStore,
    /// It has, and nobody was told yet.
    AfterStore,
    /// A routing table is on its way to the gateway.
    AfterPublish,
    /// The gateway serves by a table that is not on the disk yet.
    AfterSwap,
    /// The engine has accepted an order.
    AfterApply,
    /// The record of a new replica is written, and nothing else of it.
    AfterRecord,
    /// A new replica has its files and its place in the network.
    AfterAttach,
    /// A new replica's shim runs, and nobody is connected with it yet.
    AfterSpawn,
    /// A replica was started.
    AfterStart,
    /// A replica was frozen.
    AfterFreeze,
    /// A replica was thawed.
    AfterThaw,
    /// A replica was stopped.
    AfterStop,
    /// A replica's shim has ended, and what it left is still there.
    BeforeRemove,
    /// All of a replica was removed, and the engine does not say so yet.
    AfterRemove,
    /// A run of a job is written, and nobody was told yet.
    AfterRun,
    /// An attempt of a run is written, and its replica is not ordered yet.
    AfterAttempt,
    /// The engine has taken the order for an attempt, which is not written yet.
    AfterOrder,
    /// It is written that an attempt was ordered.
    AfterLaunch,
    /// It is written how an attempt ended; its replica is still there.
    AfterSettle,
    /// Versions of secrets are written, and nobody was told yet.
    AfterKeep,
    /// Secrets got their newest versions, and what names them is not written yet.
    AfterPin,
    /// The values for a new replica are in the node's memory alone.
    AfterReveal,
    /// The next master key lies beside the one that all is encrypted with.
    AfterNextKey,
    /// All is encrypted with the next master key, which is not in its place yet.
    AfterRekey,
}

impl Point {
    /// All of them: in the order of a life, then those of jobs, then those of secrets.
    pub const ALL: [Self; 24] = [
        Self::BeforeStore,
        Self::AfterStore,
        Self::AfterPublish,
        Self::AfterSwap,
        Self::AfterApply,
        Self::AfterRecord,
        Self::AfterAttach,
        Self::AfterSpawn,
        Self::AfterStart,
        Self::AfterFreeze,
        Self::AfterThaw,
        Self::AfterStop,
        Self::BeforeRemove,
        Self::AfterRemove,
        Self::AfterRun,
        Self::AfterAttempt,
        Self::AfterOrder,
        Self::AfterLaunch,
        Self::AfterSettle,
        Self::AfterKeep,
        Self::AfterPin,
        Self::AfterReveal,
        Self::AfterNextKey,
        Self::AfterRekey,
    ];

    /// What it is called, as in `LAYBY_FAIL_AT`.
    pub fn name(self) -> &'static str {
        match self {
            Self::BeforeStore => "before-store",
            Self::AfterStore => "after-store",
            Self::AfterPublish => "after-publish",
            Self::AfterSwap => "after-swap",
            Self::AfterApply => "after-apply",
            Self::AfterRecord => "after-record",
            Self::AfterAttach => "after-attach",
            Self::AfterSpawn => "after-spawn",
            Self::AfterStart => "after-start",
            Self::AfterFreeze => "after-freeze",
            Self::AfterThaw => "after-thaw",
            Self::AfterStop => "after-stop",
            Self::BeforeRemove => "before-remove",
            Self::AfterRemove => "after-remove",
            Self::AfterRun => "after-run",
            Self::AfterAttempt => "after-attempt",
            Self::AfterOrder => "after-order",
            Self::AfterLaunch => "after-launch",
            Self::AfterSettle => "after-settle",
            Self::AfterKeep => "after-keep",
            Self::AfterPin => "after-pin",
            Self::AfterReveal => "after-reveal",
            Self::AfterNextKey => "after-next-key",
            Self::AfterRekey => "after-rekey",
        }
    }
}

/// What happens.
#[derive(Debug, Clone, Copy)]
pub struct Hooks {
    /// Called at each point; it may not come back.
    pub at: fn(Point),
    /// How far the wall clock is to be off, in seconds.
    pub clock_shift_s: fn() -> i64,
}

static HOOKS: OnceLock<Hooks> = OnceLock::new();

/// Says what happens from now on. To be called once, before anything else runs; later calls change nothing.
pub fn install(hooks: Hooks) {
    let _ = HOOKS.set(hooks);
}

/// A place at which a node can be let fail.
pub fn at(point: Point) {
    if let Some(hooks) = HOOKS.get() {
        (hooks.at)(point);
    }
}

/// How far the wall clock is off, in seconds: 0 unless a chaos test says otherwise.
pub fn clock_shift_s() -> i64 {
    HOOKS.get().map_or(0, |hooks| (hooks.clock_shift_s)())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_point_has_a_name_of_its_own_and_nothing_happens_at_it() {
        let names: BTreeSet<&str> = Point::ALL.into_iter().map(Point::name).collect();
        assert_eq!(names.len(), Point::ALL.len());
        Point::ALL.into_iter().for_each(at);
        assert_eq!(clock_shift_s(), 0);
    }
}
