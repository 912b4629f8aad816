//! Samples: what two readings of running sums say of the time in between.

use std::collections::BTreeMap;
use std::time::Duration;

use layby_model::ReplicaId;
use layby_model::replica::Phase;
use layby_model::route::Load;
use layby_model::scale::{Sample, cpu_asked_milli};
use tokio::time::Instant;

use crate::driver::{Status, shown_spec};
use crate::plane::Plane;

/// The last readings.
pub(super) struct Readings {
    load: Load,
    cpu: BTreeMap<ReplicaId, (Instant, u64)>,
    /// When CPU was measured last.
    cpu_at: Option<Instant>,
}

/// CPU is not measured more often than this: the kernel counts it by ticks.
const CPU_EVERY: Duration = Duration::from_millis(900);

impl From<Load> for Readings {
    fn from(load: Load) -> Self {
        Self {
            load,
            cpu: BTreeMap::new(),
            cpu_at: None,
        }
    }
}

impl Readings {
    /// What there was to do since the last reading of it.
    pub(super) fn sample(&mut self, load: Load, ready: u32, cpu_percent: Option<u32>) -> Sample {
        let before = std::mem::replace(&mut self.load, load);
        let ms = |us: u64, before_us: u64| us.saturating_sub(before_us) / 1_000;
        let at_ms = load.at_us / 1_000;
        Sample {
            at_ms,
            // Of whole milliseconds: none is in two samples or in none.
            span_ms: at_ms.saturating_sub(before.at_us / 1_000),
            in_flight_ms: ms(load.in_flight_us, before.in_flight_us),
            held_ms: ms(load.held_us, before.held_us),
            in_flight: load.in_flight,
            held: load.held,
            ready,
            cpu_percent,
        }
    }

    /// What the replicas that are ready used of the CPU that they ask for since the last reading of it, in per cent, on average
    /// over them; `None`: it is not known of any, or was measured a moment ago.
    pub(super) async fn cpu_percent(&mut self, plane: &Plane, status: &Status) -> Option<u32> {
        let is_early = |at: Instant| at.elapsed() < CPU_EVERY;
        if self.cpu_at.is_some_and(is_early) {
            return None;
        }
        self.cpu_at = Some(Instant::now());
        let live = status.row.live.as_ref()?.id.0;
        let replicas = status.detail.replicas.iter();
        let ready = replicas.filter(|r| r.revision == live && r.phase == Phase::Ready);
        let ids: Vec<ReplicaId> = ready.filter_map(|r| r.id.parse().ok()).collect();
        let usage = plane.access.usage_of(&ids).await.ok()?;
        let now = Instant::now();
        let asked_milli = cpu_asked_milli(shown_spec(&status.row));
        let before = std::mem::take(&mut self.cpu);
        let mut used = Vec::new();
        for (id, usage) in usage {
            self.cpu.insert(id, (now, usage.cpu_us));
            let Some((at, cpu_us)) = before.get(&id) else {
                continue;
            };
            let us = u64::try_from(now.duration_since(*at).as_micros()).ok()?;
            // One that was made anew begins at 0.
            let milli = usage.cpu_us.checked_sub(*cpu_us)?.saturating_mul(1_000) / us.max(1);
            used.push(milli.saturating_mul(100) / asked_milli.max(1));
        }
        let sum: u64 = used.iter().sum();
        let average = sum.checked_div(used.len() as u64)?;
        u32::try_from(average).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sample_is_what_came_between_two_readings() {
        let load = |at_us, in_flight_us, held_us| Load {
            at_us,
            in_flight: 1,
            held: 2,
            in_flight_us,
            held_us,
        };
        let mut readings = Readings::from(load(1_000_000, 500_000, 0));
        let sample = readings.sample(load(2_000_000, 2_500_000, 1_000_000), 3, None);
        assert_eq!((sample.at_ms, sample.span_ms), (2_000, 1_000));
        assert_eq!((sample.in_flight_ms, sample.held_ms), (2_000, 1_000));
        assert_eq!(sample.average(), 3.0);
        // The gateway began anew: nothing is known of the time in between.
        let sample = readings.sample(load(10, 0, 0), 3, None);
        assert_eq!((sample.span_ms, sample.in_flight_ms), (0, 0));
    }
}
