//! Tables of cases, and what holds of all.

use proptest::prelude::*;

use super::*;
use crate::names::ServiceName;
use crate::spec::ContainerSpec;

fn one_each(max: u32) -> Autoscale {
    Autoscale {
        max,
        concurrency: Some(1),
        ..Autoscale::default()
    }
}

/// A service under a policy, as control sees it.
struct World {
    policy: Autoscale,
    history: History,
    replicas: u32,
    now_ms: u64,
}

impl World {
    fn new(policy: Autoscale, replicas: u32) -> Self {
        let now_ms = 1_000_000;
        Self {
            history: History::new(replicas, now_ms),
            policy,
            replicas,
            now_ms,
        }
    }

    /// For so long there is so much in flight and held, and all replicas are ready; what is decided then.
    fn step(&mut self, span_ms: u64, in_flight: u32, held: u32) -> Decision {
        self.step_with(span_ms, in_flight, held, self.replicas, None)
    }

    fn step_with(
        &mut self,
        span_ms: u64,
        in_flight: u32,
        held: u32,
        ready: u32,
        cpu_percent: Option<u32>,
    ) -> Decision {
        self.now_ms += span_ms;
        let sample = Sample {
            at_ms: self.now_ms,
            span_ms,
            in_flight_ms: u64::from(in_flight) * span_ms,
            held_ms: u64::from(held) * span_ms,
            in_flight,
            held,
            ready,
            cpu_percent,
        };
        self.history.add(&self.policy, sample);
        let decision = desired(&self.policy, &mut self.history, self.replicas, self.now_ms);
        self.replicas = decision.replicas;
        decision
    }

    /// Second by second; what there is at the end.
    fn seconds(&mut self, seconds: u64, in_flight: u32, held: u32) -> u32 {
        (0..seconds).for_each(|_| {
            self.step(1_000, in_flight, held);
        });
        self.replicas
    }

    /// The same with the use of CPU.
    fn cpu(&mut self, seconds: u64, percent: u32) -> u32 {
        for _ in 0..seconds {
            self.step_with(1_000, 0, 0, self.replicas, Some(percent));
        }
        self.replicas
    }
}

#[test]
fn the_default_scales_nothing_and_is_well() {
    let policy = Autoscale::default();
    let (floor, none, many) = (policy.floor(), policy.clamp(0), policy.clamp(9));
    assert_eq!((floor, none, many), (1, 1, 1));
    assert_eq!(policy.refuse(), None);
    let mut world = World::new(policy, 1);
    assert_eq!(world.seconds(100, 1_000, 1_000), 1);
}

#[test]
fn what_makes_no_sense_is_refused_with_the_figure() {
    let change = |change: fn(&mut Autoscale)| {
        let mut policy = Autoscale::default();
        change(&mut policy);
        policy.refuse().expect("refused")
    };
    for (told, should) in [
        (change(|p| p.max = 0), "its max is 0: it can be 1 to 1000"),
        (change(|p| p.min = 2), "its min is 2 and its max only 1"),
        (
            change(|p| (p.target, p.concurrency) = (Some(9), Some(8))),
            "its target is 9, and a replica gets 8 at once at most",
        ),
        (
            change(|p| p.concurrency = Some(0)),
            "its concurrency is 0: it can be 1 to 100000",
        ),
        (
            change(|p| p.stable_window_ms = 10),
            "its stable window is 0.01 s: it can be 1 s to 3600 s",
        ),
        (
            change(|p| p.panic_window_ms = 61_000),
            "its panic window is 61 s: it can be 1 s to 60 s",
        ),
        (
            change(|p| p.down_times = 1),
            "its down rate is 1: it can be 2 to 100000",
        ),
        (
            change(|p| p.cpu_up.steps[0].period_ms = 1),
            "a period of its policies is not 1 to 1800 seconds",
        ),
    ] {
        assert_eq!(told, should);
    }
}

#[test]
fn what_is_aimed_at_is_what_was_said_and_else_what_is_usual() {
    let policy = |target, concurrency, cpu_percent| Autoscale {
        target,
        concurrency,
        cpu_percent,
        ..Autoscale::default()
    };
    for (policy, aim) in [
        (policy(None, None, None), Some(TARGET)),
        (policy(None, Some(2), None), Some(2)),
        (policy(Some(1), Some(2), Some(80)), Some(1)),
        (policy(None, None, Some(80)), None),
    ] {
        assert_eq!(policy.aim(), aim, "{policy:?}");
    }
}

#[test]
fn who_is_held_gets_replicas_with_the_first_sample_that_is_long_enough() {
    let mut world = World::new(one_each(4), 1);
    assert_eq!(world.seconds(30, 0, 0), 1, "it is idle");
    let begins = world.step(10, 1, 7);
    assert_eq!(begins.replicas, 1, "too short to say");
    let burst = world.step(100, 1, 7);
    assert_eq!((burst.replicas, burst.seen.is_burst), (4, true));
    assert_eq!(
        burst.why,
        "the most that it may have; 8 requests at a time now, and 1 for each replica"
    );
}

#[test]
fn what_is_held_for_a_moment_needs_no_replica() {
    let mut world = World::new(one_each(4), 1);
    world.seconds(30, 0, 0);
    // Eight requests of a millisecond, one after another, in a tenth of a second.
    world.now_ms += 100;
    let sample = Sample {
        at_ms: world.now_ms,
        span_ms: 100,
        in_flight_ms: 8,
        held_ms: 28,
        ready: 1,
        ..Sample::default()
    };
    world.history.add(&world.policy, sample);
    let decision = desired(&world.policy, &mut world.history, 1, world.now_ms);
    assert_eq!((decision.replicas, decision.seen.is_burst), (1, false));
}

#[test]
fn a_burst_is_held_for_a_stable_window_and_then_halved_second_by_second() {
    let mut world = World::new(one_each(8), 1);
    world.seconds(30, 0, 0);
    world.step(100, 1, 7);
    assert_eq!(world.replicas, 8);
    let kept = world.step(1_000, 0, 0);
    assert_eq!(kept.replicas, 8);
    assert_eq!(
        kept.why,
        "so many were needed last; nothing is taken away for another 59 s"
    );
    assert_eq!(world.seconds(55, 0, 0), 8);
    let mut way = Vec::new();
    for _ in 0..12 {
        world.step(1_000, 0, 0);
        if way.last() != Some(&world.replicas) {
            way.push(world.replicas);
        }
    }
    assert_eq!(way, [8, 4, 2, 1]);
}

#[test]
fn a_burst_begins_by_what_is_needed_and_not_by_what_may_be_added_at_once() {
    let policy = Autoscale {
        up_times: 2,
        panic_percent: 300,
        ..one_each(16)
    };
    let mut world = World::new(policy, 2);
    world.seconds(120, 2, 0);
    let below = world.step(6_000, 5, 0);
    assert!(!below.seen.is_burst, "{below:?}");
    let mut world = World::new(world.policy, 2);
    world.seconds(120, 2, 0);
    let over = world.step(6_000, 8, 0);
    assert_eq!((over.seen.is_burst, over.replicas), (true, 4), "{over:?}");
}

#[test]
fn a_steady_load_gets_as_many_as_it_keeps_busy_and_no_more() {
    for load in 1..=4 {
        let mut world = World::new(one_each(4), 1);
        assert_eq!(world.seconds(200, load, 0), load, "{load} at a time");
    }
    // A load that grows by and by makes no burst.
    let mut world = World::new(
        Autoscale {
            target: Some(10),
            max: 10,
            ..Autoscale::default()
        },
        1,
    );
    assert_eq!(world.seconds(120, 12, 0), 2);
    assert_eq!(world.seconds(120, 33, 0), 4);
    assert_eq!(world.seconds(300, 9, 0), 1);
}

#[test]
fn what_is_busy_now_is_not_taken_away() {
    let mut world = World::new(one_each(4), 4);
    // Idle on average, but four have just begun.
    world.seconds(70, 0, 0);
    let mut busy = World::new(one_each(4), 4);
    busy.seconds(58, 0, 0);
    busy.now_ms += 1_000;
    let sample = Sample {
        at_ms: busy.now_ms,
        span_ms: 1_000,
        in_flight_ms: 3,
        in_flight: 3,
        ready: 4,
        ..Sample::default()
    };
    busy.history.add(&busy.policy, sample);
    busy.now_ms += 1_000;
    let sample = Sample {
        at_ms: busy.now_ms,
        ..sample
    };
    busy.history.add(&busy.policy, sample);
    let decision = desired(&busy.policy, &mut busy.history, 4, busy.now_ms);
    assert_eq!(decision.replicas, 3);
    assert_eq!(
        decision.why,
        "3 are busy with what is in flight and held now"
    );
}

#[test]
fn after_a_start_nothing_is_taken_away_before_a_window_was_seen() {
    let mut world = World::new(one_each(4), 3);
    assert_eq!(world.seconds(59, 0, 0), 3);
    assert_eq!(world.seconds(5, 0, 0), 1);
}

#[test]
fn a_delay_keeps_the_number_for_as_long() {
    let policy = Autoscale {
        stable_window_ms: 2_000,
        panic_window_ms: 1_000,
        down_delay_ms: 10_000,
        ..one_each(4)
    };
    let mut world = World::new(policy, 1);
    world.seconds(3, 4, 0);
    assert_eq!(world.replicas, 4);
    assert_eq!(world.seconds(9, 0, 0), 4);
    // Each half of them, for it is asked for after the other.
    assert_eq!(world.seconds(8, 0, 0), 2);
    assert_eq!(world.seconds(12, 0, 0), 1);
}

fn by_cpu() -> Autoscale {
    Autoscale {
        min: 1,
        max: 10,
        cpu_percent: Some(50),
        ..Autoscale::default()
    }
}

#[test]
fn cpu_gets_as_many_as_bring_it_to_what_is_aimed_at() {
    for (percent, replicas) in [(50, 2), (54, 2), (46, 2), (56, 3), (100, 4), (200, 6)] {
        let mut world = World::new(by_cpu(), 2);
        world.cpu(1, percent);
        assert_eq!(world.replicas, replicas, "{percent} %");
    }
    // In each 15 seconds no more than 4 or as many again.
    let mut world = World::new(by_cpu(), 1);
    assert_eq!(world.cpu(10, 1_000), 5);
    assert_eq!(world.cpu(10, 1_000), 10);
}

#[test]
fn cpu_takes_away_only_what_was_not_needed_for_five_minutes() {
    let mut world = World::new(by_cpu(), 4);
    assert_eq!(world.cpu(299, 1), 4);
    assert_eq!(world.cpu(3, 1), 1);
    let mut world = World::new(by_cpu(), 4);
    world.cpu(200, 1);
    world.cpu(30, 50);
    assert_eq!(world.cpu(250, 1), 4, "it was needed since");
}

#[test]
fn cpu_follows_its_paces() {
    let step = |amount| Step {
        amount,
        period_ms: 60_000,
    };
    let pace = |select, stabilization_ms| Pace {
        stabilization_ms,
        select,
        steps: vec![step(Amount::Replicas(1)), step(Amount::Percent(50))],
    };
    let policy = |up, down| Autoscale {
        cpu_up: up,
        cpu_down: down,
        ..by_cpu()
    };
    let mut slow = World::new(policy(pace(Select::Min, 0), pace(Select::Min, 0)), 4);
    assert_eq!(slow.cpu(30, 100), 5);
    let mut fast = World::new(policy(pace(Select::Max, 0), pace(Select::Max, 0)), 4);
    assert_eq!(fast.cpu(30, 100), 6);
    assert_eq!(slow.cpu(62, 50), 5);
    assert_eq!(slow.cpu(30, 5), 4, "one in a minute");
    let mut never = World::new(
        policy(pace(Select::Disabled, 0), pace(Select::Disabled, 0)),
        4,
    );
    assert_eq!(never.cpu(100, 100), 4);
    assert_eq!(never.cpu(100, 1), 4);
    let mut waits = World::new(policy(pace(Select::Max, 30_000), pace(Select::Max, 0)), 4);
    assert_eq!(waits.cpu(20, 100), 4, "it has to last");
    assert_eq!(waits.cpu(40, 100), 6);
}

#[test]
fn replicas_that_start_are_no_reason_to_ask_for_fewer_or_for_more_again() {
    let mut world = World::new(by_cpu(), 1);
    assert_eq!(world.step_with(1_000, 0, 0, 1, Some(200)).replicas, 4);
    for _ in 0..20 {
        let decision = world.step_with(1_000, 0, 0, 1, Some(200));
        assert_eq!(decision.replicas, 4);
    }
}

#[test]
fn of_requests_and_cpu_the_one_counts_that_asks_for_more() {
    let policy = Autoscale {
        target: Some(10),
        ..by_cpu()
    };
    let mut world = World::new(policy, 1);
    let decision = world.step_with(1_000, 35, 0, 1, Some(50));
    assert_eq!(decision.replicas, 4);
    let decision = world.step_with(1_000, 35, 0, 4, Some(90));
    assert_eq!(
        (decision.replicas, decision.seen.cpu_percent),
        (5, Some(70))
    );
    assert!(
        decision.why.contains("70 % of CPU used"),
        "{}",
        decision.why
    );
}

#[test]
fn a_use_of_what_is_asked_for_is_a_hundred_per_cent() {
    let spec = |limits: &[(Option<u64>, Option<u64>)]| {
        let mut spec = ServiceSpec::new(ServiceName::new("web").expect("a label"));
        for (request, limit) in limits {
            let mut container = ContainerSpec::new("main", "image");
            container.resources.cpu_request_milli = *request;
            container.resources.cpu_limit_milli = *limit;
            spec.containers.push(container);
        }
        cpu_asked_milli(&spec)
    };
    assert_eq!(spec(&[(None, None)]), 1_000);
    assert_eq!(spec(&[(Some(100), Some(500))]), 100);
    assert_eq!(spec(&[(None, Some(500)), (Some(100), None)]), 600);
}

#[test]
fn windows_average_over_what_of_them_was_seen() {
    let mut world = World::new(one_each(9), 1);
    assert_eq!(world.history.average(60_000), None);
    world.step(2_000, 3, 0);
    assert_eq!(world.history.average(60_000), Some(3.0));
    world.step(1_000, 0, 0);
    assert_eq!(world.history.average(60_000), Some(2.0));
    // A window cuts the sample that it begins in.
    assert_eq!(world.history.average(2_000), Some(1.5));
    world.seconds(60, 0, 0);
    assert_eq!(world.history.average(60_000), Some(0.0));
}

proptest! {
    #[test]
    fn the_number_is_always_one_that_it_may_have_and_never_below_what_is_busy(
        min in 0_u32..4,
        more in 0_u32..12,
        concurrency in 1_u32..5,
        begins in 1_u32..16,
        steps in prop::collection::vec((50_u64..3_000, 0_u32..30, 0_u32..30, 0_u32..4), 1..120),
    ) {
        let policy = Autoscale {
            min,
            max: min.max(1) + more,
            concurrency: Some(concurrency),
            stable_window_ms: 10_000,
            panic_window_ms: 2_000,
            ..Autoscale::default()
        };
        prop_assert_eq!(policy.refuse(), None);
        let mut world = World::new(policy.clone(), begins);
        let mut lowered_ms: Option<u64> = None;
        for (span_ms, in_flight, held, late) in steps {
            let before = world.replicas;
            let ready = before.saturating_sub(late);
            let decision = world.step_with(span_ms, in_flight, held, ready, None);
            let now = decision.replicas;
            prop_assert!((policy.floor()..=policy.max).contains(&now) || now == before);
            if now < before && before <= policy.max {
                let busy = (in_flight + held).div_ceil(concurrency);
                prop_assert!(now >= busy.min(before), "{} of {} busy, now {}", busy, before, now);
                let at = lowered_ms.replace(world.now_ms);
                prop_assert!(at.is_none_or(|at| at + 1_000 <= world.now_ms), "twice in a second");
            }
            prop_assert!(!decision.why.is_empty());
        }
    }

    #[test]
    fn a_load_that_does_not_change_settles_and_stays(
        load in 0_u32..40,
        concurrency in 1_u32..5,
        begins in 1_u32..20,
    ) {
        let policy = Autoscale {
            max: 20,
            concurrency: Some(concurrency),
            stable_window_ms: 5_000,
            panic_window_ms: 1_000,
            ..Autoscale::default()
        };
        let mut world = World::new(policy.clone(), begins);
        // What does not fit into those that are there is held.
        let step = |world: &mut World| {
            let room = world.replicas * concurrency;
            world.step(500, load.min(room), load.saturating_sub(room));
        };
        (0..60).for_each(|_| step(&mut world));
        let settled = world.replicas;
        prop_assert_eq!(settled, policy.clamp(load.div_ceil(concurrency)));
        for _ in 0..40 {
            step(&mut world);
            prop_assert_eq!(world.replicas, settled);
        }
    }

    #[test]
    fn any_history_is_bounded(samples in 1_000_usize..6_000) {
        let policy = Autoscale { stable_window_ms: 60_000, ..one_each(4) };
        let mut world = World::new(policy, 1);
        for at in 0..samples {
            world.step(100, (at % 3) as u32, 0);
        }
        prop_assert!(world.history.len() <= 62, "{}", world.history.len());
    }
}
