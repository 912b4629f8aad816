//! The number by requests in flight and held, after Knative's pod autoscaler (KPA).

use super::history::{History, Sample};
use super::policy::Text;
use super::{Autoscale, policy};

/// What is less than so much of a replica more is not worth one: of a request that is let through the end of being held and
/// the beginning of being in flight overlap, and a load of exactly four is never measured as that.
const TOLERANCE: f64 = 0.1;
/// A sample shorter than this, in milliseconds, says nothing of a burst.
const BURST_MIN_MS: u64 = 50;

/// A burst that is not over: until then the number only goes up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Panic {
    /// When more was asked for than was there, for the last time.
    pub(super) last_ms: u64,
    /// The largest number since it began.
    pub(super) most: u32,
}

/// What requests ask for.
#[derive(Debug, Clone)]
pub(super) struct Asked {
    pub(super) replicas: u32,
    pub(super) why: String,
    pub(super) stable: f64,
    pub(super) panic: f64,
    /// So many replicas keep what is in flight and held now busy.
    pub(super) busy: u32,
    pub(super) is_burst: bool,
}

/// The number by requests; `None`: it is not scaled by them, or nothing was sampled yet.
pub(super) fn ask(
    policy: &Autoscale,
    history: &mut History,
    replicas: u32,
    now_ms: u64,
) -> Option<Asked> {
    let aim = policy.aim()?;
    let newest = history.newest?;
    let stable = history.average(policy.stable_window_ms)?;
    let panic = history.average(policy.panic_window_ms)?;
    let ready = newest.ready.min(replicas).max(1);
    let most = ready.saturating_mul(policy.up_times);
    let least = ready / policy.down_times.max(1);
    let by_stable = needed(stable, aim).clamp(least, most);
    let needed_now = needed(panic, aim);
    let by_panic = needed_now.clamp(least, most);
    let by_held = waits(&newest).map(|average| needed(average, aim).min(most));

    // What is needed, and not what may be added at once: a threshold beyond that would never be reached.
    let is_over = u64::from(needed_now) * 100 >= u64::from(ready) * u64::from(policy.panic_percent)
        || by_held > Some(ready);
    if is_over {
        let most = history.panic.map_or(replicas, |panic| panic.most);
        let last_ms = now_ms;
        history.panic = Some(Panic { last_ms, most });
    } else if (history.panic)
        .is_some_and(|panic| panic.last_ms.saturating_add(policy.stable_window_ms) <= now_ms)
    {
        history.panic = None;
    }
    let (mut asked, mut why) = (
        by_stable,
        text(stable, Text::Average(policy.stable_window_ms), aim),
    );
    if let Some(burst) = &mut history.panic {
        if by_panic > asked {
            (asked, why) = (
                by_panic,
                text(panic, Text::Average(policy.panic_window_ms), aim),
            );
        }
        if let Some(by_held) = by_held.filter(|by_held| *by_held > asked) {
            (asked, why) = (by_held, text(newest.average(), Text::Now, aim));
        }
        if asked > burst.most {
            (burst.most, burst.last_ms) = (asked, now_ms);
        } else if asked < burst.most {
            let left_ms = (burst.last_ms + policy.stable_window_ms).saturating_sub(now_ms);
            let left = policy::seconds(left_ms);
            (asked, why) = (
                burst.most,
                format!("so many were needed last; nothing is taken away for another {left}"),
            );
        }
    }
    history.asked.add(now_ms, asked, policy.down_delay_ms);
    let delayed = history.asked.within(now_ms, policy.down_delay_ms).max();
    if let Some(delayed) = delayed.filter(|delayed| *delayed > asked) {
        let delay = policy::seconds(policy.down_delay_ms);
        (asked, why) = (
            delayed,
            format!("so many were asked for in the last {delay}"),
        );
    }
    let now = newest.in_flight.saturating_add(newest.held);
    Some(Asked {
        replicas: asked,
        why,
        stable,
        panic,
        busy: now.div_ceil(aim.max(1)),
        is_burst: history.panic.is_some(),
    })
}

/// How much there was to do on average in a sample in which requests were held; `None`: none was, or it was too short.
fn waits(newest: &Sample) -> Option<f64> {
    (newest.held_ms > 0 && newest.span_ms >= BURST_MIN_MS).then(|| newest.average())
}

/// So many replicas take so many requests.
fn needed(requests: f64, aim: u32) -> u32 {
    let replicas = (requests / f64::from(aim.max(1)) - TOLERANCE).ceil();
    replicas.clamp(0.0, f64::from(u32::MAX)) as u32
}

fn text(requests: f64, when: Text, aim: u32) -> String {
    let requests = policy::figure(requests);
    let when = match when {
        Text::Now => "now".to_owned(),
        Text::Average(ms) => format!("in the last {}", policy::seconds(ms)),
    };
    format!("{requests} requests at a time {when}, and {aim} for each replica")
}
