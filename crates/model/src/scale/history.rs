//! What was sampled of a service, as far as the policy looks back.

use std::collections::VecDeque;

use super::Autoscale;
use super::concurrency::Panic;
use super::cpu::CpuHistory;

/// Samples are kept by the second: as exact as windows are.
const BUCKET_MS: u64 = 1_000;
/// So many seconds are kept at most: the longest window, and one that has begun.
const BUCKETS_MAX: usize = 3_601;

/// What a service had to do between two readings.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Sample {
    /// When it ended, in milliseconds on a monotonic clock.
    pub at_ms: u64,
    /// How long it is, in milliseconds.
    pub span_ms: u64,
    /// The time that requests were in flight in it, summed over all of them, in milliseconds: an integral, so that what came
    /// and went in it counts. An open TCP connection is in flight.
    pub in_flight_ms: u64,
    /// The same of requests that were held.
    pub held_ms: u64,
    /// Requests in flight at its end.
    pub in_flight: u32,
    /// Requests held at its end.
    pub held: u32,
    /// Replicas that were ready at its end.
    pub ready: u32,
    /// What a replica used of the CPU that it asks for, on average, in per cent; `None`: it is not known.
    pub cpu_percent: Option<u32>,
}

impl Sample {
    /// Requests in flight or held in it, on average.
    pub fn average(&self) -> f64 {
        average(self.in_flight_ms.saturating_add(self.held_ms), self.span_ms)
    }
}

/// What was sampled, and what the policy remembers of it.
#[derive(Debug, Clone)]
pub struct History {
    buckets: VecDeque<Bucket>,
    pub(super) newest: Option<Sample>,
    pub(super) panic: Option<Panic>,
    /// Numbers that requests asked for, and when: as long as the delay looks back.
    pub(super) asked: Numbers,
    /// When the number last went down.
    pub(super) lowered_ms: Option<u64>,
    pub(super) cpu: CpuHistory,
}

#[derive(Debug, Clone, Copy, Default)]
struct Bucket {
    begin_ms: u64,
    end_ms: u64,
    requests_ms: u64,
}

impl History {
    /// Nothing is known yet of a service that has so many replicas: they are taken for needed until a whole window was seen.
    pub fn new(replicas: u32, now_ms: u64) -> Self {
        Self {
            buckets: VecDeque::new(),
            newest: None,
            panic: (replicas > 1).then_some(Panic {
                last_ms: now_ms,
                most: replicas,
            }),
            asked: Numbers::default(),
            lowered_ms: None,
            cpu: CpuHistory::new(replicas, now_ms),
        }
    }

    /// Adds the next sample. One that does not end after the last one is left out.
    pub fn add(&mut self, policy: &Autoscale, sample: Sample) {
        let last_ms = self.newest.map(|newest| newest.at_ms);
        if sample.span_ms == 0 || last_ms.is_some_and(|last| sample.at_ms <= last) {
            return;
        }
        let begin_ms = sample.at_ms.saturating_sub(sample.span_ms);
        let requests_ms = sample.in_flight_ms.saturating_add(sample.held_ms);
        match self.buckets.back_mut() {
            Some(last) if last.end_ms == begin_ms && sample.at_ms - last.begin_ms <= BUCKET_MS => {
                last.end_ms = sample.at_ms;
                last.requests_ms = last.requests_ms.saturating_add(requests_ms);
            }
            Some(_) | None => self.buckets.push_back(Bucket {
                begin_ms,
                end_ms: sample.at_ms,
                requests_ms,
            }),
        }
        let oldest_ms = sample.at_ms.saturating_sub(policy.stable_window_ms);
        while let Some(first) = self.buckets.front()
            && (first.end_ms <= oldest_ms || self.buckets.len() > BUCKETS_MAX)
        {
            self.buckets.pop_front();
        }
        self.cpu.add(&sample);
        self.newest = Some(sample);
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.buckets.len()
    }

    /// The newest sample.
    pub fn newest(&self) -> Option<&Sample> {
        self.newest.as_ref()
    }

    /// Requests in flight or held on average, in the last so many milliseconds before the end of the newest sample or in what
    /// of them was seen; `None`: nothing was.
    pub(super) fn average(&self, window_ms: u64) -> Option<f64> {
        let from_ms = self.newest?.at_ms.saturating_sub(window_ms);
        let (mut requests_ms, mut seen_ms) = (0.0, 0);
        for bucket in self.buckets.iter().rev() {
            let within = bucket.end_ms.saturating_sub(bucket.begin_ms.max(from_ms));
            if bucket.end_ms <= from_ms {
                break;
            }
            let whole = bucket.end_ms - bucket.begin_ms;
            // Of one that the window cuts, the same part of what was in it.
            requests_ms += bucket.requests_ms as f64 * within as f64 / whole as f64;
            seen_ms += within;
        }
        (seen_ms > 0).then(|| requests_ms / seen_ms as f64)
    }
}

fn average(sum_ms: u64, span_ms: u64) -> f64 {
    match span_ms {
        0 => 0.0,
        span_ms => sum_ms as f64 / span_ms as f64,
    }
}

/// Numbers, and when each came: the newest last.
#[derive(Debug, Clone, Default)]
pub(super) struct Numbers(VecDeque<(u64, u32)>);

/// So many are remembered at most: four a second for the longest window.
const NUMBERS_MAX: usize = 4 * 3_600;

impl Numbers {
    /// Remembers one more, and none that is older than the window.
    pub(super) fn add(&mut self, now_ms: u64, number: u32, window_ms: u64) {
        self.0.push_back((now_ms, number));
        let oldest_ms = now_ms.saturating_sub(window_ms);
        while let Some((at_ms, _)) = self.0.front()
            && (*at_ms < oldest_ms || self.0.len() > NUMBERS_MAX)
        {
            self.0.pop_front();
        }
    }

    /// Those of the last so many milliseconds.
    pub(super) fn within(&self, now_ms: u64, window_ms: u64) -> impl Iterator<Item = u32> {
        let oldest_ms = now_ms.saturating_sub(window_ms);
        let newest_first = self.0.iter().rev();
        newest_first
            .take_while(move |(at_ms, _)| *at_ms >= oldest_ms)
            .map(|(_, number)| *number)
    }
}
