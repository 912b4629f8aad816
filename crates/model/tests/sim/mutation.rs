//! The deliberate mistakes. Each must be caught: a property that no mistake breaks proves nothing.

use crate::properties::Property;

macro_rules! mutations {
    ($($variant:ident: $runs:literal, $property:ident, $what:literal;)*) => {
        /// A deliberate mistake.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub(crate) enum Mutation {
            $(#[doc = $what] $variant,)*
        }

        impl Mutation {
            pub(crate) const ALL: &[Mutation] = &[$(Mutation::$variant,)*];

            /// Within how many runs it must break its property.
            pub(crate) fn runs(self) -> u64 {
                match self {
                    $(Mutation::$variant => $runs,)*
                }
            }

            /// The property that it must break.
            pub(crate) fn breaks(self) -> Property {
                match self {
                    $(Mutation::$variant => Property::$property,)*
                }
            }

            /// What is done wrong.
            pub(crate) fn what(self) -> &'static str {
                match self {
                    $(Mutation::$variant => $what,)*
                }
            }
        }
    };
}

mutations! {
    FreezeUnconfirmed: 3000, RoutedIsLowered, "a replica is lowered before the gateway has confirmed anything";
    StaleConfirm: 3000, RoutedIsLowered, "any confirmed table without the replica counts as letting go, also an old one";
    VersionsRestart: 3000, RoutedIsLowered, "table versions begin again with each life of the control plane";
    ConfirmBeforeDisk: 3000, RoutedIsLowered, "the gateway confirms a table that is not on disk yet";
    SwapWaitsForDisk: 3000, WakingWaits, "the gateway turns to a new table only when the last one is on disk";
    TableNotKept: 3000, LiveRefused, "the gateway opens without its last table";
    ClaimUnchecked: 20000, CutBeforeDrained, "a claim does not look at the table again";
    InflightBeforeConfirm: 20000, CutBeforeDrained, "the in-flight counts are older than the confirmed version they come with";
    FreezeInFlight: 3000, CutBeforeDrained, "a replica is lowered with requests in flight";
    DrainNotRestarted: 3000, CutBeforeDrained, "a drain that was broken off goes on where it was";
    NoDrainDeadline: 3000, UnsettledReplicas, "a drain may take for ever";
    StaleFacts: 3000, RouteLost, "facts are older than the last orders";
    OrdersOutlive: 20000, RoutedIsLowered, "an order lands after the death of its giver";
    AddressReused: 3000, SentToAnother, "the address of a lost replica is given away before it is removed";
    ForgetFrozen: 3000, UnsettledReplicas, "after a restart, frozen and stopped replicas are not seen";
    PersistBeforeAct: 3000, WakingWaits, "waking waits for the disk";
    ReloadWakefulness: 3000, Needless, "the stored wakefulness wins over the newer unwritten one";
    EngineChooses: 3000, RoutedIsLowered, "the engine is told how many to remove, not which";
    DrainFromUnwanted: 3000, CutBeforeDrained, "the drain deadline counts from unwanted, not from let go";
    DemandEdge: 3000, WakingWaits, "demand is told once, not as long as it lasts";
    WakeTarget: 3000, WakingWaits, "demand does not wake live while a target rolls";
    RouteWhenDozing: 3000, SentIntoFrozen, "a ready replica is routed although wanted dozing";
    RefuseNotHold: 3000, RefusePublished, "with no ready replica, requests are refused";
    LiveOnStart: 3000, LiveNeverReady, "started counts as ready";
    GoLiveUnchecked: 3000, LiveNeverReady, "a decision is written although the row has changed since";
    RetireOldFirst: 3000, RouteLost, "start-first gives up live before the target is ready";
    KeepNewest: 3000, RouteLost, "of too many replicas, the newest are kept";
    StopFirstKeepsLive: 3000, UnsettledState, "stop-first keeps live while a target rolls";
    StopFirstOverlap: 3000, TwoRevisions, "stop-first starts live beside what is left of a failed target";
    NoDeadline: 3000, BadImageRolls, "a target never fails for want of time";
    DeadlineFromDeploy: 3000, FailedEarly, "the deadline counts from the deploy, waiting and restarts included";
    WallClock: 3000, FailedEarly, "ages are measured on the wall clock";
    RetryAfterSend: 3000, AnsweredTwice, "a request that was sent is sent again";
    // Crash loops.
    BackoffIgnored: 3000, LoopTooFast, "a crashed replica is started again at once";
    BackoffFlat: 3000, LoopTooFast, "the wait between two starts does not grow";
    BackoffForever: 3000, UnsettledSteps, "a replica in backoff is never started again";
    DemandSkipsBackoff: 3000, LoopTooFast, "demand starts a crashed replica at once";
    CrashLoopRollsOn: 3000, LoopRolls, "a target in a crash loop rolls on until its deadline";
    CrashLoopUncounted: 3000, FourthStart, "a target's failed starts are not counted past the second";
    ReadyForgives: 3000, LoopTooFast, "what gets ready and ends soon after is started again at once";
    DeadReplacedAtOnce: 3000, LoopTooFast, "what fails its liveness probe again and again is replaced at once each time";
    HopelessRollsOn: 3000, HopelessRolls, "a target that cannot succeed rolls on until its deadline";
    FailBeforeLive: 3000, FailedReady, "a target that is ready fails for being late";
    // Restart policies.
    NeverRestarts: 3000, EndedStarted, "what is never to be restarted is started again";
    EndedWellRestarts: 3000, EndedStarted, "what was to be restarted on failure is started again after it ended well";
    RetriesUncounted: 3000, EndedStarted, "a replica is started again more often than its policy has it";
    EndedIsHeld: 3000, EndedHeld, "requests are held for what has ended";
    EndedRollsOn: 3000, EndedRolls, "a target that ended badly and stays so rolls on until its deadline";
    EndedWellFails: 3000, FailedReady, "a target that was to end, and ended well, fails";
    // Attempts and what is between them.
    HopelessIsRetried: 3000, HopelessRetried, "a target that cannot succeed is tried again";
    EndedIsRetried: 3000, HopelessRetried, "a target that ended badly and stays so is tried again";
    RetriesUnbounded: 3000, TriedTooOften, "a target is tried again without end";
    RetryForgotten: 3000, TriedTooSeldom, "a target is given up at its first failure";
    PauseSkipped: 3000, PauseTooShort, "an attempt follows the last one at once";
    PauseFlat: 3000, PauseTooShort, "the pauses between attempts do not grow";
    PauseForever: 3000, UnsettledState, "a pause between attempts never ends";
    LiveLoweredInPause: 3000, WakingWaits, "stop-first keeps live down while its target rests";
    AbortedRollsOn: 3000, AbortedGoesOn, "a target that a user aborted rolls on";
    // Other services to wait for.
    BlockedIgnored: 3000, BlockedStarts, "a target does not wait for other services";
    DeadlineWhileBlocked: 3000, FailedEarly, "the deadline counts while the target waits for another service";
    LiveLoweredWhileBlocked: 3000, LiveLowered, "stop-first takes live down while its target waits";
    // Progress.
    ProgressIgnored: 3000, FailedEarly, "the deadline counts although the target moves";
    HardDeadlineIgnored: 3000, BadImageRolls, "what moves rolls on for ever";
    // Canaries.
    CanaryGoesLive: 3000, CanaryLive, "a canary that is ready goes live";
    CanaryUnrouted: 3000, CanaryStarved, "a canary gets no requests";
    CanaryUnready: 3000, CanaryWrong, "a canary gets requests before it is ready";
    CanaryAges: 3000, FailedEarly, "the deadline counts while a canary is ready";
    // Live that answers no more.
    SickIsHeld: 3000, SickHeld, "requests are held for replicas that do not answer any more";
    SickIsLost: 3000, MadeTooMany, "a replica that does not answer for a while is replaced";
    SickCounts: 3000, LoopInvented, "each time that a replica does not answer counts as a failed start";
    BootingIsSick: 3000, BootingTurnedAway, "what boots is taken for sick";
    // For the properties that nothing above breaks for sure.
    TableEdge: 3000, UnsettledTable, "a table that the gateway cannot take at once is missed";
    HoldForever: 3000, HeldTooLong, "a request is held without a deadline";
    IdleNeverAges: 3000, UnsettledIdle, "idleness starts anew with each look";
    DueForgotten: 3000, DueWrong, "time is not awaited";
}
