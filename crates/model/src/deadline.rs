//! How long a rollout may take: learned from how long the service took to boot before.

/// The deadline of a service that has never booted here, in milliseconds: 10 minutes. Nothing is known of it yet, and
/// a slow first boot (a model to load, a database to fill) is no failure.
pub const FIRST_DEADLINE_MS: u64 = 600_000;

/// The least that is learned, in milliseconds. A machine that is busy for once must not fail what boots in no time.
const LEAST_DEADLINE_MS: u64 = 30_000;
/// So many times as long as the slowest boot known.
const SLOWEST_TIMES: u64 = 4;
/// What still makes progress gets so many times its deadline, and at most [`MAX_WITH_PROGRESS_MS`].
const PROGRESS_TIMES: u64 = 10;
/// Whatever moves is given up after this, in milliseconds, unless its deadline alone is longer: 30 minutes.
const MAX_WITH_PROGRESS_MS: u64 = 1_800_000;
/// So many boots of a service are remembered.
pub const BOOTS_KEPT: usize = 20;

/// How long a target may take to be ready while nothing of it moves, in milliseconds: what its manifest says
/// (`explicit_ms`), else what is learned of `boots_ms`, the times that its earlier revisions took.
pub fn soft_ms(explicit_ms: Option<u64>, boots_ms: &[u64]) -> u64 {
    let learned = || match boots_ms.iter().max() {
        Some(slowest) => LEAST_DEADLINE_MS.max(slowest.saturating_mul(SLOWEST_TIMES)),
        None => FIRST_DEADLINE_MS,
    };
    explicit_ms.unwrap_or_else(learned)
}

/// How long it may take however much it moves, in milliseconds. What was said is meant: then it is `soft_ms`.
pub fn hard_ms(explicit_ms: Option<u64>, soft_ms: u64) -> u64 {
    match explicit_ms {
        Some(_) => soft_ms,
        None => soft_ms.max(
            soft_ms
                .saturating_mul(PROGRESS_TIMES)
                .min(MAX_WITH_PROGRESS_MS),
        ),
    }
}

/// Adds a boot to those that are remembered, the newest last.
pub fn remember(boots_ms: &mut Vec<u64>, boot_ms: u64) {
    boots_ms.push(boot_ms);
    let too_many = boots_ms.len().saturating_sub(BOOTS_KEPT);
    boots_ms.drain(..too_many);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_deadline_is_what_was_said_or_four_times_the_slowest_boot() {
        for (explicit, boots, soft, hard) in [
            (None, &[][..], 600_000, 1_800_000),
            (None, &[900, 1_200], 30_000, 300_000),
            (None, &[20_000, 9_000], 80_000, 800_000),
            (None, &[1_000_000], 4_000_000, 4_000_000),
            (Some(5_000), &[20_000], 5_000, 5_000),
        ] {
            assert_eq!(soft_ms(explicit, boots), soft, "{explicit:?} {boots:?}");
            assert_eq!(hard_ms(explicit, soft), hard, "{explicit:?} {boots:?}");
        }
    }

    #[test]
    fn only_the_last_boots_are_remembered() {
        let mut boots: Vec<u64> = Vec::new();
        (0..25).for_each(|boot| remember(&mut boots, boot));
        assert_eq!(boots, (5..25).collect::<Vec<u64>>());
    }
}
