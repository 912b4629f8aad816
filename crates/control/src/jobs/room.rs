//! What runs that have not begun wait for. The room that there is is worked out once for all that ask for it in one look.

use std::sync::Arc;

use layby_model::ServiceId;
use layby_model::capacity::{Claim, Holder, Machine, shortage};
use layby_model::job::{self, Made, Waiting};

use super::Shelves;
use crate::capacity;
use crate::plane::Plane;

/// What a run waits for, in words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Awaited {
    /// That others take less.
    Room(String),
    /// Something else: no room is to be kept free for it.
    Other(String),
}

impl Awaited {
    pub(super) fn is_room(&self) -> bool {
        match self {
            Self::Room(_) => true,
            Self::Other(_) => false,
        }
    }

    pub(super) fn text(self) -> String {
        match self {
            Self::Room(text) | Self::Other(text) => text,
        }
    }
}

/// The room that there is for runs.
pub(super) struct Room {
    machine: Machine,
    /// What services and runs that have begun keep to themselves; after those, what is kept free.
    claims: Vec<Claim>,
    /// For whom something is kept free, in the order of their coming.
    kept_for: Vec<Made>,
}

impl Room {
    /// The room as it is now. `leaving`: the runs of this job make room.
    pub(super) fn new(
        plane: &Plane,
        shelves: &Shelves,
        waiting: Vec<Waiting>,
        leaving: Option<&ServiceId>,
    ) -> Self {
        let drivers = plane.all_drivers();
        let shown: Vec<_> = drivers
            .iter()
            .map(|(_, driver)| Arc::clone(&driver.status.borrow()))
            .collect();
        let machine = plane.config.machine;
        let services = capacity::claims(shown.iter().map(|status| &status.row));
        let kept_free = job::kept_free(&machine, &services, waiting);
        let stays = |claim: &Claim| match &claim.holder {
            Holder::Run(id, _) => Some(id) != leaving,
            Holder::Service(_) => true,
        };
        let mut claims = services;
        claims.extend(capacity::runs(shelves).into_iter().filter(stays));
        Self::of(
            machine,
            claims,
            kept_free.into_iter().filter(|kept| stays(&kept.claim)),
        )
    }

    fn of(
        machine: Machine,
        mut claims: Vec<Claim>,
        kept_free: impl Iterator<Item = Waiting>,
    ) -> Self {
        let (kept_for, kept): (Vec<Made>, Vec<Claim>) =
            kept_free.map(|kept| (kept.made, kept.claim)).unzip();
        claims.extend(kept);
        Self {
            machine,
            claims,
            kept_for,
        }
    }

    /// Why there is none for a run beside what services and other runs keep to themselves, and what is kept free for those that
    /// came before it; `None`: there is.
    pub(super) fn shortage(&self, run: Claim, made: &Made) -> Option<String> {
        let later = self.kept_for.iter().filter(|kept| *kept >= made).count();
        let beside = &self.claims[..self.claims.len() - later];
        shortage(&self.machine, beside, &[run])
    }
}

#[cfg(test)]
mod tests {
    use layby_model::job::RunId;

    use super::*;

    const MACHINE: Machine = Machine {
        memory_bytes: 10,
        cpu_milli: 1_000,
        addresses: 253,
    };

    /// A run that wants 4 bytes.
    fn waiting(number: u32) -> Waiting {
        let id: ServiceId = "shop/task".parse().expect("an id");
        let run = RunId(number);
        Waiting {
            made: (u64::from(number), id.clone(), run),
            claim: Claim {
                holder: Holder::Run(id, Some(run)),
                replicas: 1,
                memory_bytes: 4,
                cpu_milli: 0,
                network: Some("shop".to_owned()),
                beside: 0,
            },
            waits_ms: job::PASSED_MS,
        }
    }

    #[test]
    fn a_run_has_the_room_that_is_kept_for_itself_and_for_those_after_it() {
        let begun = vec![waiting(1).claim];
        let room = Room::of(MACHINE, begun, (2..=3).map(waiting));
        let is_short = |number| {
            let run = waiting(number);
            room.shortage(run.claim, &run.made).is_some()
        };
        let short: Vec<bool> = (2..=4).map(is_short).collect();
        assert_eq!(short, [false, true, true]);
    }
}
