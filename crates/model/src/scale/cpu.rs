//! The number by CPU, as Kubernetes' HorizontalPodAutoscaler comes to it (autoscaling/v2).

use std::collections::VecDeque;

use super::history::{Numbers, Sample};
use super::{Amount, Autoscale, Pace, Select};

/// The use of CPU is averaged over so many milliseconds: from one look of Kubernetes' to the next.
const AVERAGE_MS: u64 = 15_000;
/// So many per cent more or less than what is aimed at are let be (`--horizontal-pod-autoscaler-tolerance`).
const TOLERANCE_PERCENT: f64 = 10.0;
/// So many changes of the number are remembered.
const CHANGES_MAX: usize = 4_096;
/// For so long, in milliseconds: the longest period of a step.
const CHANGES_MS: u64 = 1_800_000;

/// What is remembered of it.
#[derive(Debug, Clone)]
pub(super) struct CpuHistory {
    /// Ends and lengths of samples, and the use in each, in per cent.
    used: VecDeque<(u64, u64, u32)>,
    /// Numbers that the use asked for.
    asked: Numbers,
    /// When the number was changed, and by how much.
    changes: VecDeque<(u64, i64)>,
    /// What the number was last.
    replicas: u32,
}

/// What CPU asks for.
#[derive(Debug, Clone)]
pub(super) struct Asked {
    pub(super) replicas: u32,
    pub(super) why: String,
    pub(super) percent: u32,
}

impl CpuHistory {
    /// Nothing is known yet: so many replicas are taken for what was asked for.
    pub(super) fn new(replicas: u32, now_ms: u64) -> Self {
        let mut asked = Numbers::default();
        asked.add(now_ms, replicas, 0);
        Self {
            used: VecDeque::new(),
            asked,
            changes: VecDeque::new(),
            replicas,
        }
    }

    /// Adds what a sample says of it.
    pub(super) fn add(&mut self, sample: &Sample) {
        if let Some(percent) = sample.cpu_percent {
            self.used.push_back((sample.at_ms, sample.span_ms, percent));
        }
        let oldest_ms = sample.at_ms.saturating_sub(AVERAGE_MS);
        while self.used.front().is_some_and(|(at, ..)| *at <= oldest_ms) {
            self.used.pop_front();
        }
    }

    /// What was used on average lately, in per cent.
    fn percent(&self) -> Option<f64> {
        let span_ms: u64 = self.used.iter().map(|(_, span, _)| span).sum();
        let each = self.used.iter();
        let sum: f64 = each
            .map(|(_, span, percent)| f64::from(*percent) * *span as f64)
            .sum();
        (span_ms > 0).then(|| sum / span_ms as f64)
    }

    /// What the number was so many milliseconds ago.
    fn before(&self, now_ms: u64, period_ms: u64) -> i64 {
        let oldest_ms = now_ms.saturating_sub(period_ms);
        let lately = self.changes.iter().rev();
        let lately = lately.take_while(|(at_ms, _)| *at_ms > oldest_ms);
        i64::from(self.replicas) - lately.map(|(_, change)| change).sum::<i64>()
    }

    /// Notes what the number is now.
    fn note(&mut self, replicas: u32, now_ms: u64) {
        let change = i64::from(replicas) - i64::from(self.replicas);
        if change != 0 {
            self.changes.push_back((now_ms, change));
            self.replicas = replicas;
        }
        let oldest_ms = now_ms.saturating_sub(CHANGES_MS);
        while let Some((at_ms, _)) = self.changes.front()
            && (*at_ms < oldest_ms || self.changes.len() > CHANGES_MAX)
        {
            self.changes.pop_front();
        }
    }
}

/// The number by CPU; `None`: it is not scaled by that, or none was measured yet.
pub(super) fn ask(
    policy: &Autoscale,
    history: &mut CpuHistory,
    ready: u32,
    replicas: u32,
    now_ms: u64,
) -> Option<Asked> {
    history.note(replicas, now_ms);
    let aim = f64::from(policy.cpu_percent?.max(1));
    let percent = history.percent()?;
    let raw = raw(percent / aim, ready, replicas);
    let (up, down) = (&policy.cpu_up, &policy.cpu_down);
    let longest_ms = up.stabilization_ms.max(down.stabilization_ms);
    history.asked.add(now_ms, raw, longest_ms);
    let asked = &history.asked;
    let up_to = asked.within(now_ms, up.stabilization_ms).min();
    let down_to = asked.within(now_ms, down.stabilization_ms).max();
    let steady = replicas.max(up_to.unwrap_or(raw));
    let steady = steady.min(down_to.unwrap_or(raw));
    let paced = match steady.cmp(&replicas) {
        std::cmp::Ordering::Greater => steady.min(highest(up, history, now_ms)),
        std::cmp::Ordering::Less => steady.max(lowest(down, history, now_ms)),
        std::cmp::Ordering::Equal => steady,
    };
    let percent = percent.round() as u32;
    let mut why = format!(
        "{percent} % of CPU used on average, and {} % are aimed at",
        policy.cpu_percent.unwrap_or_default()
    );
    if steady != raw {
        why.push_str(&format!(
            "; that asks for {raw}, which has to last longer first"
        ));
    } else if paced != steady {
        why.push_str(&format!("; that asks for {raw}, and no step is so large"));
    }
    Some(Asked {
        replicas: paced,
        why,
        percent,
    })
}

/// `ceil(ready x used / aimed at)`; those that start use nothing yet, which is no reason to have fewer.
fn raw(ratio: f64, ready: u32, replicas: u32) -> u32 {
    if (ratio - 1.0).abs() * 100.0 <= TOLERANCE_PERCENT {
        return replicas;
    }
    let needed = (f64::from(ready) * ratio).ceil().min(f64::from(u32::MAX)) as u32;
    match ratio > 1.0 && ready < replicas {
        true => needed.max(replicas),
        false => needed,
    }
}

/// The largest number that the steps up allow now; never less than there are.
fn highest(pace: &Pace, history: &CpuHistory, now_ms: u64) -> u32 {
    let each = pace.steps.iter().map(|step| {
        let before = history.before(now_ms, step.period_ms);
        match step.amount {
            Amount::Replicas(n) => before + i64::from(n),
            Amount::Percent(percent) => {
                before + (before * i64::from(percent)).unsigned_abs().div_ceil(100) as i64
            }
        }
    });
    let limit = match pace.select {
        Select::Max => each.max(),
        Select::Min => each.min(),
        Select::Disabled => None,
    };
    let limit = limit.and_then(|limit| u32::try_from(limit).ok());
    limit.unwrap_or_default().max(history.replicas)
}

/// The smallest number that the steps down allow now; never more than there are.
fn lowest(pace: &Pace, history: &CpuHistory, now_ms: u64) -> u32 {
    let each = pace.steps.iter().map(|step| {
        let before = history.before(now_ms, step.period_ms).max(0);
        match step.amount {
            Amount::Replicas(n) => before - i64::from(n),
            Amount::Percent(percent) => before * (100 - i64::from(percent.min(100))) / 100,
        }
    });
    let limit = match pace.select {
        Select::Max => each.min(),
        Select::Min => each.max(),
        Select::Disabled => None,
    };
    let Some(limit) = limit else {
        return history.replicas;
    };
    u32::try_from(limit.max(0)).map_or(history.replicas, |limit| limit.min(history.replicas))
}
