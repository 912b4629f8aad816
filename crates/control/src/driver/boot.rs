//! How long a target takes to be ready, from the moment its first replica is made: the next deadline is learned from it.

use layby_model::RevisionId;

/// One attempt of a target. What began before this life of the control plane is not measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Boot {
    revision: RevisionId,
    failed_attempts: u32,
    began_ms: u64,
    /// How long it took; `None`: it is not ready yet.
    pub(super) took_ms: Option<u64>,
}

impl Boot {
    /// A replica of a target is about to be made: the first of this attempt, or a further one.
    pub(super) fn begin(
        before: Option<Self>,
        revision: RevisionId,
        failed_attempts: u32,
        now_ms: u64,
    ) -> Self {
        let same =
            |boot: &Self| boot.revision == revision && boot.failed_attempts == failed_attempts;
        before.filter(same).unwrap_or(Self {
            revision,
            failed_attempts,
            began_ms: now_ms,
            took_ms: None,
        })
    }

    /// This boot, if it is of `revision`.
    pub(super) fn of(self, revision: RevisionId) -> Option<Self> {
        (self.revision == revision).then_some(self)
    }

    /// As many replicas as are wanted are ready.
    pub(super) fn done(&mut self, now_ms: u64) {
        let took_ms = now_ms.saturating_sub(self.began_ms);
        self.took_ms.get_or_insert(took_ms);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_boot_counts_from_the_first_replica_of_an_attempt_until_all_are_ready() {
        let two = RevisionId(2);
        let boot = Boot::begin(None, two, 0, 100);
        let mut boot = Boot::begin(Some(boot), two, 0, 150);
        boot.done(300);
        boot.done(900);
        assert_eq!(boot.of(two).and_then(|boot| boot.took_ms), Some(200));
        assert_eq!(boot.of(RevisionId(3)), None);
        let again = Boot::begin(Some(boot), two, 1, 1_000);
        assert_eq!((again.began_ms, again.took_ms), (1_000, None));
    }
}
