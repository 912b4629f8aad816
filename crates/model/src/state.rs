//! The state of a service: a function of what is wanted and what is seen, stored nowhere.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::plan::{Desired, Observed, Replica, has_ended, is_unhealthy};
use crate::replica::Phase;

/// How awake a replica or a service is wanted to be. Ordered: asleep < dozing < awake.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Wakefulness {
    /// Stopped, but prepared.
    Asleep,
    /// Frozen in memory.
    Dozing,
    /// Running.
    Awake,
}

impl fmt::Display for Wakefulness {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Asleep => "asleep",
            Self::Dozing => "dozing",
            Self::Awake => "awake",
        })
    }
}

/// The state of a service.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum State {
    /// Switched off.
    Disabled,
    /// Its first revision rolls.
    Deploying,
    /// Nothing is live and nothing rolls.
    Ready,
    /// A further revision rolls.
    Updating,
    /// Live, and this awake; [`Showing::Waking`] if it is wanted awake and no replica is ready.
    Running,
}

/// How awake a running service shows itself. `Waking` is derived, never wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Showing {
    /// Stopped, but prepared.
    Asleep,
    /// Frozen in memory.
    Dozing,
    /// Wanted awake, and no replica is ready yet.
    Waking,
    /// A replica is ready.
    Awake,
    /// Its replicas run, and none answers its probe any more.
    Unhealthy,
    /// Its replicas ended, and its restart policy leaves them so.
    Ended,
}

/// What is shown of a service: its state and, while it runs, how awake it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shown {
    /// The state.
    pub state: State,
    /// How awake; `None` unless the state is [`State::Running`].
    pub wakefulness: Option<Showing>,
}

/// The state of a service: the first rule that fits.
///
/// Health ("2 of 3 ready") and the last failure are conditions beside the state, not states.
pub fn state(d: &Desired, o: &Observed) -> Shown {
    let ready = |r: &Replica| Some(r.revision) == d.live && r.phase == Phase::Ready;
    let awake = || o.replicas.iter().any(ready);
    let (state, wakefulness) = match (d.live, d.wanted) {
        // Switched off: nothing is to run.
        _ if !d.enabled => (State::Disabled, None),
        // Nothing was ever live, and the first revision is on its way.
        (None, _) if d.rolling() => (State::Deploying, None),
        // Nothing was ever live: not deployed yet, or what was deployed failed.
        (None, _) => (State::Ready, None),
        // Live serves on, or rests, while the next revision is on its way.
        (Some(_), _) if d.rolling() => (State::Updating, None),
        // Nobody waits for it, however awake it is wanted: requests are refused.
        (Some(_), _) if has_ended(d, o) => (State::Running, Some(Showing::Ended)),
        // What rests shows as it is wanted: requests are held from that moment.
        (Some(_), Wakefulness::Asleep) => (State::Running, Some(Showing::Asleep)),
        (Some(_), Wakefulness::Dozing) => (State::Running, Some(Showing::Dozing)),
        // Wanted awake: one ready replica is enough to serve.
        (Some(_), Wakefulness::Awake) if awake() => (State::Running, Some(Showing::Awake)),
        (Some(_), Wakefulness::Awake) if is_unhealthy(d, o) => {
            (State::Running, Some(Showing::Unhealthy))
        }
        (Some(_), Wakefulness::Awake) => (State::Running, Some(Showing::Waking)),
    };
    Shown { state, wakefulness }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::names::{ReplicaId, RevisionId};
    use crate::route::Version;
    use crate::spec::{RestartPolicy, SleepPolicy};

    fn shown(change: impl Fn(&mut Desired), phase: Phase) -> (State, Option<Showing>) {
        let mut d = Desired {
            enabled: true,
            target: Some(RevisionId(1)),
            live: Some(RevisionId(1)),
            target_failed: false,
            retries: 0,
            failed_attempts: 0,
            deadline_ms: 1,
            deadline_max_ms: 1,
            share: None,
            stop_first: false,
            replicas: 1,
            wanted: Wakefulness::Awake,
            ladder: SleepPolicy::default(),
            drain_ms: 1,
            generation: 1,
        };
        change(&mut d);
        let replica = Replica {
            id: ReplicaId(1),
            revision: RevisionId(1),
            phase,
            failed_starts: 0,
            crashed: false,
            ended: None,
            restart: RestartPolicy::Always,
            unhealthy: false,
            stale: false,
        };
        let o = Observed {
            now_ms: 0,
            replicas: vec![replica],
            vacancies: Vec::new(),
            published: None,
            base: Version::default(),
            named: BTreeMap::new(),
            gateway: None,
            hopeless: None,
            progress: 0,
            blocked: None,
            since: BTreeMap::new(),
        };
        let Shown { state, wakefulness } = state(&d, &o);
        (state, wakefulness)
    }

    #[test]
    fn the_state_is_the_first_rule_that_fits() {
        use Phase::{Frozen, Ready, Starting};
        let table = [
            (shown(|d| d.enabled = false, Ready), (State::Disabled, None)),
            (shown(|d| d.live = None, Ready), (State::Deploying, None)),
            (
                shown(|d| (d.live, d.target_failed) = (None, true), Ready),
                (State::Ready, None),
            ),
            (
                shown(|d| (d.live, d.target) = (None, None), Ready),
                (State::Ready, None),
            ),
            (
                shown(|d| d.target = Some(RevisionId(2)), Ready),
                (State::Updating, None),
            ),
            (
                shown(|d| d.wanted = Wakefulness::Asleep, Ready),
                (State::Running, Some(Showing::Asleep)),
            ),
            (
                shown(|d| d.wanted = Wakefulness::Dozing, Ready),
                (State::Running, Some(Showing::Dozing)),
            ),
            (shown(|_| {}, Ready), (State::Running, Some(Showing::Awake))),
            (
                shown(|_| {}, Starting),
                (State::Running, Some(Showing::Waking)),
            ),
            (
                shown(|_| {}, Frozen),
                (State::Running, Some(Showing::Waking)),
            ),
        ];
        for (row, (is, should)) in table.into_iter().enumerate() {
            assert_eq!(is, should, "row {row}");
        }
    }

    #[test]
    fn a_failed_update_shows_live_running_on() {
        let failed = |d: &mut Desired| (d.target, d.target_failed) = (Some(RevisionId(2)), true);
        assert_eq!(
            shown(failed, Phase::Ready),
            (State::Running, Some(Showing::Awake))
        );
    }
}
