//! How a service is scaled by what it has to do.

use layby_model::scale::{Autoscale, Seen};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// How many replicas a service has and why, as `layby scale NAME` shows it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct ScaleView {
    /// So many it is to have while awake.
    pub replicas: u32,
    /// So many `layby scale` said; `null`: its policy or its manifest says it.
    pub by_hand: Option<u32>,
    /// How it is scaled by what it has to do, once nothing is said by hand; `null`: it is not.
    pub policy: Option<PolicyView>,
    /// What it had to do at the last look; `null`: it rests, or is not scaled by that.
    pub seen: Option<SeenView>,
    /// Why it has so many, for people.
    pub why: String,
    /// Why it has fewer than it takes; `null`: it has as many.
    pub short: Option<String>,
}

/// The fewest and the most replicas of a service that is scaled by what it has to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct RangeView {
    /// The fewest while awake; 0: it may rest.
    pub min: u32,
    /// The most.
    pub max: u32,
}

/// How a service is scaled.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PolicyView {
    /// The fewest replicas while awake; 0 is 1.
    pub min: u32,
    /// The most replicas.
    pub max: u32,
    /// The most requests that a replica is given at once; `null`: as many as come.
    pub concurrency: Option<u32>,
    /// So many requests for each replica, in flight or held, are aimed at; `null`: they do not count.
    pub target: Option<u32>,
    /// The use of CPU that is aimed at, in per cent of what a replica asks for; `null`: it does not count.
    pub cpu_percent: Option<u32>,
    /// Over so many milliseconds requests are averaged.
    pub stable_window_ms: u64,
    /// Over so many to see a burst.
    pub panic_window_ms: u64,
}

/// What a service had to do.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct SeenView {
    /// Requests in flight at the last look, and TCP connections that were open.
    pub in_flight: u32,
    /// Requests and connections that were held.
    pub held: u32,
    /// Replicas that were ready.
    pub ready: u32,
    /// Requests in flight or held on average in the stable window; `null`: they do not count.
    pub stable_average: Option<f64>,
    /// The same in the panic window.
    pub panic_average: Option<f64>,
    /// There was a burst, and nothing is taken away until the stable window has passed without one.
    pub is_burst: bool,
    /// What a replica used of the CPU that it asks for, on average, in per cent; `null`: it does not count.
    pub cpu_percent: Option<u32>,
}

impl From<&Autoscale> for RangeView {
    fn from(policy: &Autoscale) -> Self {
        Self {
            min: policy.min,
            max: policy.max,
        }
    }
}

impl From<&Autoscale> for PolicyView {
    fn from(policy: &Autoscale) -> Self {
        Self {
            min: policy.min,
            max: policy.max,
            concurrency: policy.concurrency,
            target: policy.aim(),
            cpu_percent: policy.cpu_percent,
            stable_window_ms: policy.stable_window_ms,
            panic_window_ms: policy.panic_window_ms,
        }
    }
}

impl From<&Seen> for SeenView {
    fn from(seen: &Seen) -> Self {
        // Hundredths are exact enough, and stay the same on their way through JSON.
        let hundredths = |average: f64| (average * 100.0).round() / 100.0;
        Self {
            in_flight: seen.in_flight,
            held: seen.held,
            ready: seen.ready,
            stable_average: seen.stable.map(hundredths),
            panic_average: seen.panic.map(hundredths),
            is_burst: seen.is_burst,
            cpu_percent: seen.cpu_percent,
        }
    }
}
