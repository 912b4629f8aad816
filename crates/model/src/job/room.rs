//! Whose turn it is when there is room again: a run that waits for long is not passed by newer ones for ever.

use crate::capacity::{Claim, Machine, shortage};
use crate::names::ServiceId;

use super::RunId;

/// So long may newer runs that fit go first, in milliseconds.
pub const PASSED_MS: u64 = 60_000;

/// When a run was made, and which it is: the order of their coming.
pub type Made = (u64, ServiceId, RunId);

/// A run that waits for room.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Waiting {
    /// When it was made, and which it is.
    pub made: Made,
    /// What it is to keep to itself.
    pub claim: Claim,
    /// For how long it has been waiting, in milliseconds.
    pub waits_ms: u64,
}

/// Those of `waiting` that have waited for long and for which room is kept free, in the order of their coming; a run that comes
/// after one of them begins only in what is left beside it. `services`: what services keep to themselves. For one that would not
/// fit were all other runs over, nothing is kept: it waits for something else.
pub fn kept_free(machine: &Machine, services: &[Claim], mut waiting: Vec<Waiting>) -> Vec<Waiting> {
    waiting.retain(|w| w.waits_ms >= PASSED_MS);
    waiting.sort_by(|a, b| a.made.cmp(&b.made));
    let mut beside = services.to_vec();
    waiting.retain(|w| {
        let fits = shortage(machine, &beside, std::slice::from_ref(&w.claim)).is_none();
        if fits {
            beside.push(w.claim.clone());
        }
        fits
    });
    waiting
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::capacity::Holder;

    const MACHINE: Machine = Machine {
        memory_bytes: 10,
        cpu_milli: 1_000,
        addresses: 253,
    };

    fn claim(holder: Holder, memory_bytes: u64) -> Claim {
        Claim {
            holder,
            replicas: 1,
            memory_bytes,
            cpu_milli: 0,
            network: Some("shop".to_owned()),
            beside: 0,
        }
    }

    fn waiting(run: u32, memory_bytes: u64, waits_ms: u64) -> Waiting {
        let id: ServiceId = "shop/job".parse().expect("an id");
        let holder = Holder::Run(id.clone(), Some(RunId(run)));
        Waiting {
            made: (u64::from(run), id, RunId(run)),
            claim: claim(holder, memory_bytes),
            waits_ms,
        }
    }

    /// The memory that is kept free for each run.
    fn kept(service_bytes: u64, all: &[Waiting]) -> Vec<u64> {
        let service = Holder::Service("shop/web".parse().expect("an id"));
        let services = [claim(service, service_bytes)];
        let kept = kept_free(&MACHINE, &services, all.to_vec());
        kept.iter().map(|kept| kept.claim.memory_bytes).collect()
    }

    #[test]
    fn room_is_kept_for_a_run_that_has_waited_for_long() {
        assert_eq!(kept(2, &[waiting(1, 6, PASSED_MS)]), [6]);
        assert_eq!(kept(2, &[waiting(1, 6, PASSED_MS - 1)]), []);
    }

    #[test]
    fn none_is_kept_for_a_run_that_other_runs_are_not_in_the_way_of() {
        assert_eq!(kept(5, &[waiting(1, 6, PASSED_MS)]), []);
        let several = [
            waiting(2, 4, PASSED_MS),
            waiting(1, 5, PASSED_MS),
            waiting(3, 3, PASSED_MS),
        ];
        assert_eq!(
            kept(2, &several),
            [5, 3],
            "those that fit beside each other"
        );
    }
}
