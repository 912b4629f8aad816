//! The life of a replica inside an engine: pure rules from what it is and what was ordered to what is
//! done next and what is reported. Both engines run on these.

use layby_model::Wakefulness;
use layby_model::replica::Phase;

/// What a replica is, as its engine knows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Actual {
    /// Nothing of it is made yet.
    Absent,
    /// Prepared; no process of it runs.
    Stopped,
    /// Its processes run; whether it answers is not known here.
    Running,
    /// Its processes run, and it answered its probe (only engines that probe say so).
    Ready,
    /// Its processes are frozen.
    Frozen,
    /// It cannot be used any more.
    Lost,
}

/// An order that is not carried out yet. The latest depth wins; [`Pending::Retire`] is final.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pending {
    /// Bring it to this depth.
    Depth(Wakefulness),
    /// Stop and remove it.
    Retire,
}

/// One thing that an engine does to a replica; one at a time for each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Make all that it needs but its processes.
    Prepare,
    /// Start its processes.
    Start,
    /// Freeze them.
    Freeze,
    /// Thaw them.
    Thaw,
    /// End them.
    Stop,
    /// End them and remove all that was made.
    Remove,
}

/// What is to be done next to a replica; `None`: the order, if any, is carried out.
///
/// Only what runs can be frozen: a stopped replica that is ordered to doze stays stopped.
pub fn next(actual: Actual, pending: Option<Pending>) -> Option<Action> {
    let depth = match pending? {
        Pending::Retire => return Some(Action::Remove),
        Pending::Depth(depth) => depth,
    };
    match (actual, depth) {
        (Actual::Absent, _) => Some(Action::Prepare),
        (Actual::Stopped, Wakefulness::Awake) => Some(Action::Start),
        (Actual::Stopped, Wakefulness::Dozing | Wakefulness::Asleep) => None,
        (Actual::Running | Actual::Ready, Wakefulness::Awake) => None,
        (Actual::Running | Actual::Ready, Wakefulness::Dozing) => Some(Action::Freeze),
        (Actual::Frozen, Wakefulness::Awake) => Some(Action::Thaw),
        (Actual::Frozen, Wakefulness::Dozing) => None,
        (Actual::Running | Actual::Ready | Actual::Frozen, Wakefulness::Asleep) => {
            Some(Action::Stop)
        }
        (Actual::Lost, _) => None,
    }
}

/// The phase to report. An accepted order shows at once; `doing` is the action under way.
///
/// A replica that is still being prepared reports `Stopped`: an order to start it may be given at once.
pub fn phase(actual: Actual, pending: Option<Pending>, doing: Option<Action>) -> Phase {
    let depth = match pending {
        Some(Pending::Retire) => return Phase::Removing,
        Some(Pending::Depth(depth)) => Some(depth),
        None => None,
    };
    // What is under way is carried out, whatever was ordered since.
    let actual = match doing {
        Some(Action::Start | Action::Thaw) => Actual::Running,
        _ => actual,
    };
    if doing == Some(Action::Stop) && depth != Some(Wakefulness::Awake) {
        return Phase::Stopping;
    }
    // Until an action that goes down is over, `actual` no longer holds.
    let going_down = matches!(doing, Some(Action::Freeze | Action::Stop));
    match (actual, depth) {
        (Actual::Lost, _) => Phase::Lost,
        (Actual::Absent | Actual::Stopped, Some(Wakefulness::Awake)) => Phase::Starting,
        (Actual::Absent | Actual::Stopped, _) => Phase::Stopped,
        (Actual::Ready, Some(Wakefulness::Awake) | None) if !going_down => Phase::Ready,
        (Actual::Running | Actual::Ready, Some(Wakefulness::Awake) | None) => Phase::Starting,
        (Actual::Running | Actual::Ready, Some(Wakefulness::Dozing)) => Phase::Freezing,
        (Actual::Frozen, Some(Wakefulness::Awake)) => Phase::Starting,
        (Actual::Frozen, Some(Wakefulness::Dozing) | None) => Phase::Frozen,
        (Actual::Running | Actual::Ready | Actual::Frozen, Some(Wakefulness::Asleep)) => {
            Phase::Stopping
        }
    }
}

/// Whether an order to be awake begins a new run, rather than repeating what holds or was ordered.
pub fn begins_run(actual: Actual, pending: Option<Pending>) -> bool {
    match pending {
        Some(Pending::Depth(Wakefulness::Awake) | Pending::Retire) => false,
        Some(Pending::Depth(Wakefulness::Dozing | Wakefulness::Asleep)) => true,
        None => !matches!(actual, Actual::Running | Actual::Ready | Actual::Lost),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ACTUAL: [Actual; 6] = [
        Actual::Absent,
        Actual::Stopped,
        Actual::Running,
        Actual::Ready,
        Actual::Frozen,
        Actual::Lost,
    ];
    const DEPTHS: [Wakefulness; 3] = [Wakefulness::Asleep, Wakefulness::Dozing, Wakefulness::Awake];

    fn after(action: Action) -> Actual {
        match action {
            Action::Prepare | Action::Stop => Actual::Stopped,
            Action::Start | Action::Thaw => Actual::Running,
            Action::Freeze => Actual::Frozen,
            Action::Remove => Actual::Absent,
        }
    }

    #[test]
    fn every_order_is_carried_out_in_at_most_two_actions() {
        for mut actual in ACTUAL {
            for depth in DEPTHS {
                let mut actions = 0;
                while let Some(action) = next(actual, Some(Pending::Depth(depth))) {
                    actual = after(action);
                    actions += 1;
                    assert!(actions <= 2, "{actual:?} to {depth}");
                }
            }
        }
    }

    #[test]
    fn retiring_is_the_next_action_whatever_it_is() {
        for actual in ACTUAL {
            assert_eq!(next(actual, Some(Pending::Retire)), Some(Action::Remove));
            assert_eq!(phase(actual, Some(Pending::Retire), None), Phase::Removing);
        }
    }

    #[test]
    fn an_order_shows_before_it_is_carried_out() {
        let awake = Some(Pending::Depth(Wakefulness::Awake));
        let asleep = Some(Pending::Depth(Wakefulness::Asleep));
        let dozing = Some(Pending::Depth(Wakefulness::Dozing));
        assert_eq!(phase(Actual::Stopped, awake, None), Phase::Starting);
        assert_eq!(phase(Actual::Ready, dozing, None), Phase::Freezing);
        assert_eq!(phase(Actual::Frozen, asleep, None), Phase::Stopping);
    }

    #[test]
    fn an_order_shows_while_a_start_that_came_before_it_ends() {
        let asleep = Some(Pending::Depth(Wakefulness::Asleep));
        let dozing = Some(Pending::Depth(Wakefulness::Dozing));
        let start = Some(Action::Start);
        assert_eq!(phase(Actual::Stopped, asleep, start), Phase::Stopping);
        assert_eq!(phase(Actual::Stopped, dozing, start), Phase::Freezing);
        assert_eq!(
            phase(Actual::Frozen, dozing, Some(Action::Stop)),
            Phase::Stopping
        );
    }

    #[test]
    fn a_replica_is_not_ready_while_a_freeze_that_was_called_off_ends() {
        let awake = Some(Pending::Depth(Wakefulness::Awake));
        let phase = phase(Actual::Ready, awake, Some(Action::Freeze));
        assert_eq!(phase, Phase::Starting);
    }

    #[test]
    fn a_repeated_order_to_be_awake_begins_no_new_run() {
        let awake = Some(Pending::Depth(Wakefulness::Awake));
        assert!(begins_run(Actual::Stopped, None));
        assert!(begins_run(Actual::Frozen, None));
        assert!(!begins_run(Actual::Stopped, awake));
        assert!(!begins_run(Actual::Ready, None));
        assert!(begins_run(
            Actual::Ready,
            Some(Pending::Depth(Wakefulness::Dozing))
        ));
    }
}
