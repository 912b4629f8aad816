//! The policy: the larger of what requests and CPU ask for, within what was allowed, and never less than is busy.

use super::history::History;
use super::{Autoscale, concurrency, cpu};

/// From one lowering to the next, in milliseconds.
const LOWER_EVERY_MS: u64 = 1_000;

/// How many replicas there are to be, and why.
#[derive(Debug, Clone, PartialEq)]
pub struct Decision {
    /// So many.
    pub replicas: u32,
    /// In words that follow the number.
    pub why: String,
    /// What it was made of.
    pub seen: Seen,
}

/// What a decision was made of.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Seen {
    /// Requests in flight or held on average in the stable window.
    pub stable: Option<f64>,
    /// The same in the panic window.
    pub panic: Option<f64>,
    /// A burst is not over: nothing is taken away.
    pub is_burst: bool,
    /// What a replica used of the CPU that it asks for on average, in per cent.
    pub cpu_percent: Option<u32>,
    /// Requests in flight now.
    pub in_flight: u32,
    /// Requests held now.
    pub held: u32,
    /// Replicas that are ready.
    pub ready: u32,
}

/// When there was so much to do.
pub(super) enum Text {
    Now,
    /// In a window of so many milliseconds.
    Average(u64),
}

/// How many replicas a service is to have that has `replicas` now; `history` is what was sampled of it, `now_ms` on the clock of
/// its samples.
pub fn desired(policy: &Autoscale, history: &mut History, replicas: u32, now_ms: u64) -> Decision {
    let newest = history.newest.unwrap_or_default();
    let by_requests = concurrency::ask(policy, history, replicas, now_ms);
    let by_cpu = cpu::ask(policy, &mut history.cpu, newest.ready, replicas, now_ms);
    let seen = Seen {
        stable: by_requests.as_ref().map(|asked| asked.stable),
        panic: by_requests.as_ref().map(|asked| asked.panic),
        is_burst: by_requests.as_ref().is_some_and(|asked| asked.is_burst),
        cpu_percent: by_cpu.as_ref().map(|asked| asked.percent),
        in_flight: newest.in_flight,
        held: newest.held,
        ready: newest.ready,
    };
    let busy = by_requests.as_ref().map_or(0, |asked| asked.busy);
    let requests = by_requests.map(|asked| (asked.replicas, asked.why));
    let cpu = by_cpu.map(|asked| (asked.replicas, asked.why));
    let largest = match (requests, cpu) {
        (Some(requests), Some(cpu)) if cpu.0 > requests.0 => Some(cpu),
        (requests, cpu) => requests.or(cpu),
    };
    let nothing = || (replicas, "nothing was measured yet".to_owned());
    let (mut asked, mut why) = largest.unwrap_or_else(nothing);
    if asked < replicas && busy > asked {
        asked = busy.min(replicas);
        why = format!("{busy} are busy with what is in flight and held now");
    }
    let within = policy.clamp(asked);
    if within < asked {
        why = format!("the most that it may have; {why}");
    } else if within > asked {
        why = format!("the fewest that it is to have; {why}");
    }
    let again_ms = |lowered: u64| lowered.saturating_add(LOWER_EVERY_MS);
    let is_early = history.lowered_ms.is_some_and(|at| again_ms(at) > now_ms);
    if within < replicas && is_early && replicas <= policy.max {
        let why = "some were taken away a moment ago".to_owned();
        return Decision {
            replicas,
            why,
            seen,
        };
    }
    if within < replicas {
        history.lowered_ms = Some(now_ms);
    }
    Decision {
        replicas: within,
        why,
        seen,
    }
}

/// `0.35`, `4`: an average for people.
pub(super) fn figure(number: f64) -> String {
    let text = format!("{number:.2}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// `6 s`, `1.5 s`.
pub(super) fn seconds(ms: u64) -> String {
    format!("{} s", figure(ms as f64 / 1_000.0))
}
