//! Jobs: what runs to its end, once, by a schedule, or by hand; and what is due next of it.
//!
//! A job has *runs*. A run is made of *attempts*, each a replica of its own: one after another until one ends well, or
//! several side by side where more than one is to. Times of a schedule are wall time, since people mean that; lengths are
//! monotonic, so that a clock that jumps ends nothing early.

mod room;

use std::collections::BTreeSet;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::names::{AppName, ReplicaId, ServiceId, ServiceName};
use crate::replica::{Phase, ReplicaReport};

pub use room::{Made, PASSED_MS, Waiting, kept_free};

/// The most runs of a node that may have replicas at a time; others wait.
pub const MAX_RUNS: usize = 50;
/// The most runs of one job at a time, where its runs may overlap; a due time beyond that is skipped.
pub const MAX_OVERLAP: usize = 10;
/// The most replicas of one run at a time.
pub const MAX_PARALLELISM: u32 = 100;
/// The most good ends that a run can want.
pub const MAX_COMPLETIONS: u32 = 1_000;
/// The most attempts that may fail.
pub const MAX_RETRIES: u32 = 1_000;
/// The most ended runs that are kept of either kind.
pub const MAX_KEPT: u32 = 100;
/// So many ended runs of either kind are kept where nothing is said.
pub const KEPT_RUNS: u32 = 10;
/// With more due times missed than this, none of them is made up.
pub const MAX_MISSED: u32 = 100;

/// The pause after the first attempt that failed, in milliseconds; each further one doubles it.
const PAUSE_MS: u64 = 1_000;
/// The longest pause, in milliseconds: 6 minutes, as Kubernetes'.
const PAUSE_MAX_MS: u64 = 360_000;
/// A schedule that is further ahead of the clock than this was looked at while the clock was wrong.
const CLOCK_BACK_MS: u64 = 2 * 3_600_000;
/// What the name of a service's runs ends with in the engine.
const RUN_SUFFIX: &str = "--run";

/// The settings of a job (Kubernetes `batch/v1`: JobSpec, CronJobSpec).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct JobSpec {
    /// When it runs; `None`: once, when it is deployed.
    pub schedule: Option<Schedule>,
    /// What happens when it is due while a run of its goes on.
    pub concurrency: Concurrency,
    /// A due time that could not be kept is made up if it is over for no longer than this, in milliseconds. `None`: however
    /// long, unless more than [`MAX_MISSED`] were missed.
    pub starting_deadline_ms: Option<u64>,
    /// It is deployed, but does not run until it is resumed.
    pub suspended: bool,
    /// So many attempts of a run may fail and another one is made.
    pub retries: u32,
    /// A run that takes longer is ended, in milliseconds.
    pub time_limit_ms: Option<u64>,
    /// So many attempts of a run have to end well.
    pub completions: u32,
    /// So many may go on at a time.
    pub parallelism: u32,
    /// Each good end is that of another number, from 0 on, which its attempts are told (Kubernetes `completionMode: Indexed`).
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub indexed: bool,
    /// So many runs that ended well are kept.
    pub keep_succeeded: u32,
    /// So many others are.
    pub keep_failed: u32,
    /// A run that is over for so long is forgotten, in milliseconds.
    pub ttl_ms: Option<u64>,
}

impl Default for JobSpec {
    /// One attempt of one replica, without a schedule.
    fn default() -> Self {
        Self {
            schedule: None,
            concurrency: Concurrency::Allow,
            starting_deadline_ms: None,
            suspended: false,
            retries: 0,
            time_limit_ms: None,
            completions: 1,
            parallelism: 1,
            indexed: false,
            keep_succeeded: KEPT_RUNS,
            keep_failed: KEPT_RUNS,
            ttl_ms: None,
        }
    }
}

/// When a job runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Schedule {
    /// Minute, hour, day of the month, month, day of the week (crontab(5)), or `@daily` and its like.
    pub cron: String,
    /// The time zone that it is meant in (IANA); `None`: the machine's.
    pub time_zone: Option<String>,
}

/// What happens when a job is due while a run of its goes on (Kubernetes `concurrencyPolicy`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Concurrency {
    /// Both go on.
    Allow,
    /// This time is skipped.
    Forbid,
    /// The one that goes on is ended first.
    Replace,
}

impl fmt::Display for Concurrency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Allow => "allow",
            Self::Forbid => "forbid",
            Self::Replace => "replace",
        })
    }
}

/// A run of a job or a service: 1, 2, 3, ... in the order in which they were made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct RunId(pub u32);

impl fmt::Display for RunId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// What the engine knows the runs of a service by: its driver takes all replicas of its name for its own.
pub fn runs_of(service: &ServiceId) -> ServiceId {
    let name = service.service.as_str();
    let room = 63 - RUN_SUFFIX.len();
    let name = name.get(..room.min(name.len())).unwrap_or(name);
    let name = format!("{}{RUN_SUFFIX}", name.trim_end_matches('-'));
    ServiceId::new(
        AppName::clone(&service.app),
        ServiceName::new(&name).unwrap_or_else(|_| service.service.clone()),
    )
}

/// Whether a name is kept for the runs of services: no service or job can have it.
pub fn is_reserved(name: &ServiceName) -> bool {
    name.as_str().ends_with(RUN_SUFFIX)
}

/// What a schedule asks for now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Due {
    /// Nothing until this moment, in milliseconds since 1970; `None`: never.
    Wait(Option<u64>),
    /// A run, for this moment.
    Run(u64),
    /// A run for this moment, and all that go on are to end.
    Replace(u64),
    /// Nothing for all moments up to this one, and why.
    Skip(u64, Skipped),
}

/// Why a due time is skipped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Skipped {
    /// A run goes on, and they are not to overlap.
    Forbidden,
    /// As many go on as may.
    TooMany,
    /// It is over for too long.
    TooLate,
    /// More than [`MAX_MISSED`] were missed.
    TooManyMissed,
    /// The clock was set back: from now on it goes by the clock as it is.
    ClockBack,
}

impl fmt::Display for Skipped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Forbidden => "a run goes on, and its runs are not to overlap",
            Self::TooMany => "ten runs of it go on already",
            Self::TooLate => "it could not be started in time",
            Self::TooManyMissed => "more than 100 due times were missed: none is made up",
            Self::ClockBack => "the clock was set back",
        })
    }
}

/// What is due of a schedule. `seen_ms`: due times up to this moment were seen to; `active`: how many of its scheduled
/// runs go on; `next`: the first due time after a moment. All in milliseconds since 1970.
///
/// Of several due times that were missed only the last is made up, once.
pub fn due(
    spec: &JobSpec,
    seen_ms: u64,
    now_ms: u64,
    active: usize,
    next: impl Fn(u64) -> Option<u64>,
) -> Due {
    if seen_ms > now_ms.saturating_add(CLOCK_BACK_MS) {
        return Due::Skip(now_ms, Skipped::ClockBack);
    }
    let from_ms = match spec.starting_deadline_ms {
        // One due exactly so long ago is in time.
        Some(deadline_ms) => seen_ms.max(now_ms.saturating_sub(deadline_ms).saturating_sub(1)),
        None => seen_ms,
    };
    let (mut last, mut missed) = (None, 0);
    let ahead = loop {
        let at = last.unwrap_or(from_ms);
        match next(at).filter(|due| *due > at) {
            Some(due) if due <= now_ms => last = Some(due),
            ahead => break ahead,
        }
        missed += 1;
        if missed > MAX_MISSED {
            return Due::Skip(now_ms, Skipped::TooManyMissed);
        }
    };
    let Some(due) = last else {
        let late = next(seen_ms).is_some_and(|due| due <= from_ms);
        return match late {
            true => Due::Skip(from_ms, Skipped::TooLate),
            false => Due::Wait(ahead),
        };
    };
    match spec.concurrency {
        Concurrency::Allow if active >= MAX_OVERLAP => Due::Skip(due, Skipped::TooMany),
        Concurrency::Forbid if active > 0 => Due::Skip(due, Skipped::Forbidden),
        Concurrency::Replace if active > 0 => Due::Replace(due),
        Concurrency::Allow | Concurrency::Forbid | Concurrency::Replace => Due::Run(due),
    }
}

/// A run that is not over, with what is seen of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Run {
    /// How many good ends it wants.
    pub completions: u32,
    /// How many attempts may go on at a time.
    pub parallelism: u32,
    /// How many may fail.
    pub retries: u32,
    /// How long it may take, in milliseconds.
    pub time_limit_ms: Option<u64>,
    /// How long it takes already, in milliseconds.
    pub elapsed_ms: u64,
    /// How long the last failure of an attempt is over, in milliseconds.
    pub rested_ms: u64,
    /// Why it is to end early; the first reason stays.
    pub stopping: Option<Stop>,
    /// Nothing of it may start now: too many others go on, or those that it replaces.
    pub waits: bool,
    /// Somebody is to be at its other end.
    pub held: Option<Held>,
    /// Its attempts, in the order in which they were made.
    pub attempts: Vec<Attempt>,
}

/// How it is at the other end of a run that somebody is to hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Held {
    /// Somebody is there.
    There,
    /// The command has ended: only its container is to go.
    Over,
    /// Nobody is there (any more).
    Gone,
}

/// Why a run is to end early.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Stop {
    /// Somebody said so, or whoever was at its other end went.
    Asked,
    /// It took too long.
    TimeLimit,
    /// The next run takes its place.
    Replaced,
    /// Its job is taken down.
    Removed,
    /// Another attempt of it has failed for good.
    Failed,
    /// The node ended while somebody was to be at its other end.
    Lost,
}

/// One attempt of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Attempt {
    /// Its replica.
    pub replica: ReplicaId,
    /// The engine has taken the order for it: if there is no replica, it is gone.
    pub launched: bool,
    /// How it ended, once that is written.
    pub end: Option<AttemptEnd>,
    /// What the engine says of its replica.
    pub seen: Seen,
}

/// How an attempt ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AttemptEnd {
    /// With exit code 0.
    Well,
    /// In any other way.
    Badly,
    /// In a way in which every other attempt would end: the image or the command is not there.
    Hopelessly,
}

/// What is seen of a replica that runs once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Seen {
    /// There is none.
    Absent,
    /// It was made, and never told to run.
    Made,
    /// It runs, or is on its way.
    Runs,
    /// It is being stopped.
    Stops,
    /// It ended, was stopped, is lost, or could not be started.
    Ended,
    /// It is being removed.
    Leaves,
}

impl Seen {
    /// What a report says.
    pub fn of(report: &ReplicaReport) -> Self {
        match report.phase {
            Phase::Ready | Phase::Starting | Phase::Freezing | Phase::Frozen => Self::Runs,
            Phase::Stopped if report.run == 0 => Self::Made,
            Phase::Stopped | Phase::Lost => Self::Ended,
            Phase::Stopping => Self::Stops,
            Phase::Removing => Self::Leaves,
        }
    }
}

/// What came of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// It did what it was to do.
    Succeeded,
    /// Its attempts failed.
    Failed,
    /// It took too long.
    TimedOut,
    /// It was ended before its end.
    Stopped,
}

/// What is to be done about a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Write how this attempt ended, with its log.
    Settle(ReplicaId),
    /// Remove its replica.
    Retire(ReplicaId),
    /// Make a further attempt.
    Begin,
    /// Order its replica, also anew: nobody knows whether the order was taken.
    Launch(ReplicaId),
    /// Stop its replica, with its grace.
    Stop(ReplicaId),
    /// Write that the run is to end early.
    Halt(Stop),
    /// Write that it is over.
    End(Outcome),
}

/// What is to be done about a run now. Nothing: it is waited for facts, or for [`wait_ms`].
pub fn next_steps(run: &Run) -> Vec<Step> {
    let mut steps = Vec::new();
    for attempt in &run.attempts {
        let id = attempt.replica;
        let ends = run.stopping.is_some() || run.held.is_some_and(|held| held != Held::There);
        match (attempt.end, attempt.seen) {
            (Some(_), Seen::Absent | Seen::Leaves) => {}
            (Some(_), Seen::Made | Seen::Runs | Seen::Stops | Seen::Ended) => {
                steps.push(Step::Retire(id));
            }
            (None, Seen::Ended) => steps.push(Step::Settle(id)),
            (None, Seen::Absent) if attempt.launched => steps.push(Step::Settle(id)),
            (None, Seen::Absent | Seen::Made) if ends => steps.push(Step::Settle(id)),
            (None, Seen::Absent | Seen::Made) => steps.push(Step::Launch(id)),
            (None, Seen::Runs) if run.stopping.is_some() || run.held == Some(Held::Over) => {
                steps.push(Step::Stop(id));
            }
            (None, Seen::Runs | Seen::Stops | Seen::Leaves) => {}
        }
    }
    // What has ended counts before anything is decided: what has come good in the last moment is good.
    if !steps.iter().any(|step| matches!(step, Step::Settle(_))) {
        steps.extend(verdict(run));
    }
    steps
}

fn verdict(run: &Run) -> Option<Step> {
    let count = |end: Option<AttemptEnd>| {
        let same = run.attempts.iter().filter(|attempt| attempt.end == end);
        u32::try_from(same.count()).unwrap_or(u32::MAX)
    };
    let (active, well) = (count(None), count(Some(AttemptEnd::Well)));
    let hopeless = count(Some(AttemptEnd::Hopelessly));
    let failed = count(Some(AttemptEnd::Badly)).saturating_add(hopeless);
    if let Some(stop) = run.stopping {
        return (active == 0).then_some(Step::End(outcome_of(stop)));
    }
    if well >= run.completions {
        return (active == 0).then_some(Step::End(Outcome::Succeeded));
    }
    if hopeless > 0 || failed > run.retries {
        return Some(match active {
            0 => Step::End(Outcome::Failed),
            _ => Step::Halt(Stop::Failed),
        });
    }
    if run.held == Some(Held::Gone) {
        return Some(Step::Halt(Stop::Lost));
    }
    if run
        .time_limit_ms
        .is_some_and(|limit| run.elapsed_ms >= limit)
    {
        return Some(Step::Halt(Stop::TimeLimit));
    }
    let wanted = run.parallelism.min(run.completions - well);
    let rested = failed == 0 || run.rested_ms >= pause_ms(failed);
    (active < wanted && rested && !run.waits).then_some(Step::Begin)
}

/// The number of the next attempt of a run whose attempts have numbers: the least that none goes on with, and none has ended well
/// with. `attempts`: those that there are by now, each with its number and how it ended.
pub fn next_index(attempts: impl Iterator<Item = (u32, Option<AttemptEnd>)>) -> u32 {
    let is_taken = |end: &Option<AttemptEnd>| match end {
        None | Some(AttemptEnd::Well) => true,
        Some(AttemptEnd::Badly | AttemptEnd::Hopelessly) => false,
    };
    let taken: BTreeSet<u32> = attempts
        .filter(|(_, end)| is_taken(end))
        .map(|(index, _)| index)
        .collect();
    (0..).find(|index| !taken.contains(index)).unwrap_or(0)
}

/// How long it is until [`next_steps`] may say something else without any new fact, in milliseconds.
pub fn wait_ms(run: &Run) -> Option<u64> {
    let failed = run.attempts.iter();
    let failed = failed.filter(|attempt| matches!(attempt.end, Some(AttemptEnd::Badly)));
    let failed = u32::try_from(failed.count()).unwrap_or(u32::MAX);
    let pause = (failed > 0).then(|| pause_ms(failed));
    let pause = pause.and_then(|pause| pause.checked_sub(run.rested_ms));
    let limit = run.time_limit_ms.filter(|_| run.stopping.is_none());
    let limit = limit.and_then(|limit| limit.checked_sub(run.elapsed_ms));
    let waits = pause.into_iter().chain(limit);
    waits.filter(|ms| *ms > 0).min()
}

/// What comes of a run that is ended early.
pub fn outcome_of(stop: Stop) -> Outcome {
    match stop {
        Stop::Asked | Stop::Replaced | Stop::Removed => Outcome::Stopped,
        Stop::TimeLimit => Outcome::TimedOut,
        Stop::Failed | Stop::Lost => Outcome::Failed,
    }
}

/// The pause before the attempt that follows so many failed ones, in milliseconds.
fn pause_ms(failed: u32) -> u64 {
    (PAUSE_MS << failed.saturating_sub(1).min(16)).min(PAUSE_MAX_MS)
}

/// A run that is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Past {
    /// Which.
    pub run: RunId,
    /// What came of it.
    pub outcome: Outcome,
    /// How long it is over, in milliseconds.
    pub age_ms: u64,
}

/// The runs that are over and are not to be kept, of those given.
pub fn forgotten(spec: &JobSpec, past: &[Past]) -> Vec<RunId> {
    let mut newest: Vec<&Past> = past.iter().collect();
    newest.sort_unstable_by_key(|past| std::cmp::Reverse(past.run));
    let (mut succeeded, mut failed) = (0, 0);
    let mut gone = Vec::new();
    for past in newest {
        let (kept, of) = match past.outcome {
            Outcome::Succeeded => (&mut succeeded, spec.keep_succeeded),
            Outcome::Failed | Outcome::TimedOut | Outcome::Stopped => {
                (&mut failed, spec.keep_failed)
            }
        };
        *kept += 1;
        if *kept > of || spec.ttl_ms.is_some_and(|ttl| past.age_ms >= ttl) {
            gone.push(past.run);
        }
    }
    gone
}

#[cfg(test)]
mod tests;
