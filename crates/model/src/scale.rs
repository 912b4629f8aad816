//! How many replicas a service is to have by what it has to do: the words of it, and the policy.
//!
//! [`desired`] is the policy: a function of the settings, of what was sampled ([`History`]) and of the time. Control samples
//! and carries out, and knows nothing of how a number comes about, so that another policy can take this one's place.

mod concurrency;
mod cpu;
mod history;
mod policy;

use serde::{Deserialize, Serialize};

use crate::spec::{REPLICAS_MAX, Resources, ServiceSpec};

pub use history::{History, Sample};
pub use policy::{Decision, Seen, desired};

/// So many requests for each replica are aimed at where nothing is said of requests or CPU: Knative's default.
pub const TARGET: u32 = 100;
/// The default of [`Autoscale::stable_window_ms`]: a minute, as Knative's.
pub const STABLE_WINDOW_MS: u64 = 60_000;
/// The default of [`Autoscale::panic_window_ms`]: a tenth of that, as Knative's.
pub const PANIC_WINDOW_MS: u64 = 6_000;
/// The default of [`Autoscale::panic_percent`], as Knative's.
pub const PANIC_PERCENT: u32 = 200;
/// The default of [`Autoscale::up_times`], as Knative's.
pub const UP_TIMES: u32 = 1_000;
/// The default of [`Autoscale::down_times`], as Knative's.
pub const DOWN_TIMES: u32 = 2;
/// The use of CPU that is aimed at where a HorizontalPodAutoscaler names no metric, in per cent (Kubernetes, autoscaling/v2).
pub const CPU_PERCENT: u32 = 80;
/// The shortest window, in milliseconds.
pub const WINDOW_MIN_MS: u64 = 1_000;
/// The longest window, delay or period, in milliseconds: an hour.
pub const WINDOW_MAX_MS: u64 = 3_600_000;
/// The most requests that a replica can be said to take at once.
pub const CONCURRENCY_MAX: u32 = 100_000;
/// The longest that a request may be held, in milliseconds: an hour.
pub const HOLD_MAX_MS: u64 = 3_600_000;
/// So many rules of a pace can there be.
pub const STEPS_MAX: usize = 16;

/// How a service is scaled by what it has to do. The default scales nothing: it says "one".
///
/// By requests after Knative's pod autoscaler (KPA), by CPU after Kubernetes' HorizontalPodAutoscaler (autoscaling/v2);
/// where both are said, the larger number counts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Autoscale {
    /// The fewest replicas while awake; 0 is 1. Whether it sleeps, its sleep settings say.
    pub min: u32,
    /// The most replicas.
    pub max: u32,
    /// The most requests that the gateway gives one replica at once, others are held; `None`: as many as come. A TCP
    /// connection counts as one for as long as it is open.
    pub concurrency: Option<u32>,
    /// So many requests for each replica, in flight or held, are aimed at. `None`: [`Autoscale::concurrency`], and where
    /// nothing is said of CPU either, [`TARGET`].
    pub target: Option<u32>,
    /// The use of CPU that is aimed at, in per cent of what a replica asks for.
    pub cpu_percent: Option<u32>,
    /// The time over which requests are averaged, in milliseconds. Nothing is taken away before it has been seen whole.
    pub stable_window_ms: u64,
    /// The time over which they are averaged to see a burst, in milliseconds.
    pub panic_window_ms: u64,
    /// When the short average asks for so many per cent of the replicas that are ready, it is a burst: the number only goes
    /// up until the stable window has passed without one.
    pub panic_percent: u32,
    /// Requests ask for at most so many times the replicas that are ready.
    pub up_times: u32,
    /// They take away so many that at least one in so many stays; at most once a second.
    pub down_times: u32,
    /// A smaller number has to be asked for for so long, in milliseconds.
    pub down_delay_ms: u64,
    /// How long a request may be held, in milliseconds; `None`: as anywhere.
    pub hold_ms: Option<u64>,
    /// How fast CPU adds replicas.
    #[serde(skip_serializing_if = "Pace::is_up")]
    pub cpu_up: Pace,
    /// How fast CPU takes replicas away.
    #[serde(skip_serializing_if = "Pace::is_down")]
    pub cpu_down: Pace,
}

impl Default for Autoscale {
    fn default() -> Self {
        Self {
            min: 0,
            max: 1,
            concurrency: None,
            target: None,
            cpu_percent: None,
            stable_window_ms: STABLE_WINDOW_MS,
            panic_window_ms: PANIC_WINDOW_MS,
            panic_percent: PANIC_PERCENT,
            up_times: UP_TIMES,
            down_times: DOWN_TIMES,
            down_delay_ms: 0,
            hold_ms: None,
            cpu_up: Pace::up(),
            cpu_down: Pace::down(),
        }
    }
}

impl Autoscale {
    /// The fewest replicas while awake.
    pub fn floor(&self) -> u32 {
        self.min.max(1)
    }

    /// The number nearest to `replicas` that it may have.
    pub fn clamp(&self, replicas: u32) -> u32 {
        replicas.min(self.max).max(self.floor())
    }

    /// How many requests are aimed at for each replica; `None`: it is not scaled by requests.
    pub fn aim(&self) -> Option<u32> {
        let said = self.target.or(self.concurrency);
        said.or(self.cpu_percent.is_none().then_some(TARGET))
    }

    /// What is wrong with it, in one sentence, if anything.
    pub fn refuse(&self) -> Option<String> {
        let out_of = |name: &str, is: u64, least: u64, most: u64| {
            (!(least..=most).contains(&is))
                .then(|| format!("its {name} is {is}: it can be {least} to {most}"))
        };
        let (replicas, requests) = (u64::from(REPLICAS_MAX), u64::from(CONCURRENCY_MAX));
        let of = |said: Option<u32>| said.map(u64::from);
        if let Some(wrong) = out_of("max", u64::from(self.max), 1, replicas) {
            return Some(wrong);
        }
        if self.min > self.max {
            let (min, max) = (self.min, self.max);
            return Some(format!("its min is {min} and its max only {max}"));
        }
        if let (Some(target), Some(concurrency)) = (self.target, self.concurrency)
            && target > concurrency
        {
            return Some(format!(
                "its target is {target}, and a replica gets {concurrency} at once at most"
            ));
        }
        let span = |name: &str, is_ms: u64, least_ms: u64, most_ms: u64| {
            let [is, least, most] = [is_ms, least_ms, most_ms].map(policy::seconds);
            (!(least_ms..=most_ms).contains(&is_ms))
                .then(|| format!("its {name} is {is}: it can be {least} to {most}"))
        };
        let stable_ms = self.stable_window_ms;
        of(self.concurrency)
            .and_then(|n| out_of("concurrency", n, 1, requests))
            .or_else(|| of(self.target).and_then(|n| out_of("target", n, 1, requests)))
            .or_else(|| of(self.cpu_percent).and_then(|n| out_of("cpu", n, 1, 10_000)))
            .or_else(|| span("stable window", stable_ms, WINDOW_MIN_MS, WINDOW_MAX_MS))
            .or_else(|| {
                let panic_ms = self.panic_window_ms;
                span("panic window", panic_ms, WINDOW_MIN_MS, stable_ms)
            })
            .or_else(|| {
                out_of(
                    "panic threshold",
                    u64::from(self.panic_percent),
                    110,
                    100_000,
                )
            })
            .or_else(|| out_of("up rate", u64::from(self.up_times), 2, 100_000))
            .or_else(|| out_of("down rate", u64::from(self.down_times), 2, 100_000))
            .or_else(|| span("down delay", self.down_delay_ms, 0, WINDOW_MAX_MS))
            .or_else(|| span("hold", self.hold_ms?, WINDOW_MIN_MS, HOLD_MAX_MS))
            .or_else(|| self.cpu_up.refuse().or_else(|| self.cpu_down.refuse()))
    }
}

/// The CPU that a replica asks for, in thousandths of a core: a use of so much is 100 %. Of a container that asks for none, its
/// limit; where nothing is said at all, one core.
pub fn cpu_asked_milli(spec: &ServiceSpec) -> u64 {
    let each = spec.containers.iter().map(|container| {
        let Resources {
            cpu_request_milli,
            cpu_limit_milli,
            ..
        } = container.resources;
        cpu_request_milli.or(cpu_limit_milli).unwrap_or_default()
    });
    match each.fold(0, u64::saturating_add) {
        0 => 1_000,
        milli => milli,
    }
}

/// How fast CPU changes the number in one direction (`HPAScalingRules` of autoscaling/v2).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pace {
    /// Of all numbers of the last so many milliseconds the one counts that changes the least.
    pub stabilization_ms: u64,
    /// Which of the steps counts.
    pub select: Select,
    /// What each allows.
    pub steps: Vec<Step>,
}

impl Pace {
    /// Kubernetes' default upwards: at once, and in each 15 seconds 4 replicas or twice as many, whichever is more.
    pub fn up() -> Self {
        let step = |amount| Step {
            amount,
            period_ms: 15_000,
        };
        Self {
            stabilization_ms: 0,
            select: Select::Max,
            steps: vec![step(Amount::Percent(100)), step(Amount::Replicas(4))],
        }
    }

    /// Kubernetes' default downwards: what was the most in the last five minutes, then all at once.
    pub fn down() -> Self {
        let step = Step {
            amount: Amount::Percent(100),
            period_ms: 15_000,
        };
        Self {
            stabilization_ms: 300_000,
            select: Select::Max,
            steps: vec![step],
        }
    }

    fn is_up(&self) -> bool {
        *self == Self::up()
    }

    fn is_down(&self) -> bool {
        *self == Self::down()
    }

    fn refuse(&self) -> Option<String> {
        let period = |step: &Step| (1_000..=1_800_000).contains(&step.period_ms);
        if self.stabilization_ms > WINDOW_MAX_MS {
            return Some("its stabilization window is longer than an hour".to_owned());
        }
        if self.steps.len() > STEPS_MAX {
            return Some(format!("it has more than {STEPS_MAX} policies of one pace"));
        }
        (!self.steps.iter().all(period))
            .then(|| "a period of its policies is not 1 to 1800 seconds".to_owned())
    }
}

/// Which step of a pace counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Select {
    /// The one that allows the most.
    Max,
    /// The one that allows the least.
    Min,
    /// None: the number does not go this way.
    Disabled,
}

/// What is allowed within a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Step {
    /// So much.
    pub amount: Amount,
    /// In so many milliseconds.
    pub period_ms: u64,
}

/// How much a number may change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Amount {
    /// By so many replicas.
    Replicas(u32),
    /// By so many per cent of what it was.
    Percent(u32),
}

#[cfg(test)]
mod tests;
