//! Single rules, where one example says more than a run of the simulation; and what holds for any input.

mod connections;
mod kept;
mod restarts;
mod vacancies;

use proptest::prelude::*;

use super::*;
use crate::route::Version;
use crate::share::Share;
use crate::spec::{RestartPolicy, SleepPolicy};

const LIVE: RevisionId = RevisionId(1);
const TARGET: RevisionId = RevisionId(2);
const ONE: ReplicaId = ReplicaId(1);
const TWO: ReplicaId = ReplicaId(2);

/// Revision 1 is live with one replica, awake.
fn desired() -> Desired {
    Desired {
        enabled: true,
        target: Some(LIVE),
        live: Some(LIVE),
        target_failed: false,
        retries: 0,
        failed_attempts: 0,
        deadline_ms: 60_000,
        deadline_max_ms: 60_000,
        share: None,
        stop_first: false,
        replicas: 1,
        wanted: Awake,
        ladder: SleepPolicy {
            doze_after_ms: Some(300_000),
            sleep_after_ms: Some(3_600_000),
        },
        drain_ms: 30_000,
        generation: 7,
    }
}

/// Revision 2 is on its way to replace it.
fn rolling() -> Desired {
    Desired {
        target: Some(TARGET),
        ..desired()
    }
}

fn replica(id: ReplicaId, revision: RevisionId, phase: Phase) -> Replica {
    Replica {
        id,
        revision,
        phase,
        failed_starts: 0,
        crashed: false,
        ended: None,
        restart: RestartPolicy::Always,
        unhealthy: false,
        stale: false,
    }
}

fn ended(id: ReplicaId, revision: RevisionId, ended: Ended, restart: RestartPolicy) -> Replica {
    Replica {
        failed_starts: 1,
        crashed: true,
        ended: Some(ended),
        restart,
        ..replica(id, revision, Phase::Stopped)
    }
}

fn crashed(failed_starts: u32) -> Replica {
    Replica {
        failed_starts,
        crashed: true,
        ..replica(ONE, LIVE, Phase::Stopped)
    }
}

fn version(counter: u64) -> Version {
    Version { life: 3, counter }
}

/// The gateway has confirmed all that was published, which named nobody.
fn observed(replicas: &[Replica]) -> Observed {
    Observed {
        now_ms: 10_000_000,
        replicas: replicas.to_vec(),
        vacancies: Vec::new(),
        published: Some(Route::Hold),
        base: version(0),
        named: BTreeMap::new(),
        gateway: Some(GatewayReport {
            confirmed: version(9),
            ..GatewayReport::default()
        }),
        hopeless: None,
        progress: 0,
        blocked: None,
        since: BTreeMap::new(),
    }
}

/// Every condition that holds has held for so many milliseconds.
fn aged(d: &Desired, mut o: Observed, age_ms: u64) -> Observed {
    o.since = timers(d, &o)
        .into_iter()
        .map(|timer| (timer, o.now_ms - age_ms))
        .collect();
    o
}

fn serve(live: ReplicaId) -> Route {
    Route::Serve {
        live: vec![live],
        canary: Vec::new(),
    }
}

fn steps(d: &Desired, o: &Observed) -> Vec<Step> {
    next_steps(d, o, d.wanted)
}

#[test]
fn a_replica_is_not_frozen_before_the_gateway_has_confirmed_a_newer_table() {
    let d = Desired {
        wanted: Dozing,
        ..desired()
    };
    let mut o = observed(&[replica(ONE, LIVE, Phase::Ready)]);
    o.named.insert(ONE, version(9)); // the confirmed table names it
    assert_eq!(steps(&d, &o), []);
    o.named.insert(ONE, version(8));
    assert_eq!(steps(&d, &o), [Step::Freeze(ONE)]);
    o.gateway = None; // nothing is known yet in this life
    assert_eq!(steps(&d, &o), []);
}

#[test]
fn a_request_in_flight_holds_back_a_freeze_until_the_drain_deadline() {
    let d = Desired {
        wanted: Dozing,
        ..desired()
    };
    let mut o = observed(&[replica(ONE, LIVE, Phase::Ready)]);
    o.gateway
        .as_mut()
        .expect("there is one")
        .in_flight
        .insert(ONE, 1);
    let o = aged(&d, o, d.drain_ms - 1);
    assert_eq!(steps(&d, &o), []);
    assert_eq!(next_due(&d, &o), Some(o.now_ms + 1));
    assert_eq!(steps(&d, &aged(&d, o, d.drain_ms)), [Step::Freeze(ONE)]);
}

#[test]
fn a_dozing_service_wakes_on_demand() {
    let d = Desired {
        wanted: Dozing,
        ..desired()
    };
    let mut o = observed(&[replica(ONE, LIVE, Phase::Frozen)]);
    o.gateway.as_mut().expect("there is one").waiting = 1;
    assert_eq!(wakefulness(&d, &o), Awake);
    let woken = Desired { wanted: Awake, ..d };
    // The store still says dozing, and that is not waited for.
    assert_eq!(next_steps(&woken, &o, Dozing), [Step::Thaw(ONE)]);
}

#[test]
fn wakefulness_is_written_only_once_it_is_reached() {
    let d = desired();
    let starting = observed(&[replica(ONE, LIVE, Phase::Starting)]);
    let steps = next_steps(&d, &starting, Asleep);
    assert_eq!(
        steps,
        [Step::WriteWakefulness(Awake)],
        "starting is on the way to awake already"
    );
    let frozen = observed(&[replica(ONE, LIVE, Phase::Frozen)]);
    assert_eq!(next_steps(&d, &frozen, Asleep), [Step::Thaw(ONE)]);
}

#[test]
fn an_idle_service_goes_down_the_ladder_and_next_due_names_each_rung() {
    let d = desired();
    let o = observed(&[replica(ONE, LIVE, Phase::Ready)]);
    let at = |age_ms| wakefulness(&d, &aged(&d, o.clone(), age_ms));
    assert_eq!(
        [at(299_999), at(300_000), at(3_600_000)],
        [Awake, Dozing, Asleep]
    );
    let o = aged(&d, o.clone(), 0);
    assert_eq!(next_due(&d, &o), Some(o.now_ms + 300_000));
    let dozing = Desired {
        wanted: Dozing,
        ..d.clone()
    };
    assert_eq!(next_due(&dozing, &o), Some(o.now_ms + 3_600_000));
}

#[test]
fn requests_wait_while_the_first_revision_rolls_and_are_refused_when_nothing_is_expected() {
    let route = |d: &Desired| {
        let unpublished = Observed {
            published: None,
            ..observed(&[])
        };
        steps(d, &unpublished)
            .into_iter()
            .find(|step| matches!(step, Step::Publish(_)))
    };
    let first = Desired {
        live: None,
        ..rolling()
    };
    assert_eq!(route(&first), Some(Step::Publish(Route::Hold)));
    let failed = Desired {
        target_failed: true,
        ..first.clone()
    };
    assert_eq!(route(&failed), Some(Step::Publish(Route::Refuse)));
    let off = Desired {
        enabled: false,
        ..first
    };
    assert_eq!(route(&off), Some(Step::Publish(Route::Refuse)));
}

#[test]
fn a_target_that_is_ready_goes_live_even_after_its_deadline() {
    let d = rolling();
    let mut looping = replica(ONE, TARGET, Phase::Stopped);
    looping.failed_starts = CRASH_LOOP_STARTS;
    let ready = replica(TWO, TARGET, Phase::Ready);
    let o = aged(&d, observed(&[looping, ready]), d.deadline_ms);
    assert_eq!(steps(&d, &o).first(), Some(&Step::GoLive(TARGET)));
}

#[test]
fn a_target_fails_at_its_deadline_and_not_before() {
    let d = rolling();
    let o = observed(&[
        replica(ONE, LIVE, Phase::Ready),
        replica(TWO, TARGET, Phase::Starting),
    ]);
    let fails = |o: &Observed| {
        let step = steps(&d, o).into_iter().next();
        step == Some(Step::Fail(TARGET, FailReason::Deadline))
    };
    let early = aged(&d, o.clone(), d.deadline_ms - 1);
    assert!(!fails(&early));
    assert_eq!(next_due(&d, &early), Some(o.now_ms + 1));
    assert!(fails(&aged(&d, o, d.deadline_ms)));
}

#[test]
fn a_target_in_a_crash_loop_fails_at_once_and_is_not_started_again() {
    let mut looping = replica(TWO, TARGET, Phase::Stopped);
    looping.failed_starts = CRASH_LOOP_STARTS;
    looping.crashed = true;
    let o = observed(&[replica(ONE, LIVE, Phase::Ready), looping]);
    let o = aged(&rolling(), o, BACKOFF_MAX_MS);
    let fail = Step::Fail(TARGET, FailReason::CrashLoop);
    assert_eq!(steps(&rolling(), &o), [fail, Step::Publish(serve(ONE))]);
}

#[test]
fn a_target_that_cannot_succeed_fails_at_once_and_says_why() {
    let why = "the image shop:2 is not on this node".to_owned();
    let mut o = observed(&[replica(ONE, LIVE, Phase::Ready)]);
    o.hopeless = Some(why.clone());
    let fail = Step::Fail(TARGET, FailReason::Hopeless(why));
    assert_eq!(steps(&rolling(), &o), [fail, Step::Publish(serve(ONE))]);
}

#[test]
fn a_replica_that_crashed_once_is_started_again_at_once() {
    assert_eq!(
        steps(&desired(), &observed(&[crashed(0)])),
        [Step::Start(ONE)]
    );
}

#[test]
fn a_crash_loop_is_started_slower_and_slower_even_on_demand() {
    let d = desired();
    for (failed_starts, wait_ms) in [
        (1, 100),
        (2, 200),
        (3, 400),
        (7, 6_400),
        (10, 51_200),
        (11, 60_000),
        (99, 60_000),
    ] {
        let mut o = observed(&[crashed(failed_starts)]);
        o.gateway.as_mut().expect("there is one").waiting = 5;
        let early = aged(&d, o.clone(), wait_ms - 1);
        assert_eq!(steps(&d, &early), [], "after {failed_starts}");
        assert_eq!(
            next_due(&d, &early),
            Some(o.now_ms + 1),
            "after {failed_starts}"
        );
        assert_eq!(steps(&d, &aged(&d, o, wait_ms)), [Step::Start(ONE)]);
    }
}

#[test]
fn a_replica_that_was_asleep_for_long_has_no_backoff_left() {
    let asleep = Desired {
        wanted: Asleep,
        ..desired()
    };
    let o = aged(&asleep, observed(&[crashed(2)]), 200);
    assert_eq!(steps(&asleep, &o), []);
    assert_eq!(steps(&desired(), &o), [Step::Start(ONE)]);
}

#[test]
fn stop_first_starts_nothing_beside_a_replica_of_another_revision() {
    let d = Desired {
        stop_first: true,
        ..rolling()
    };
    let old = observed(&[replica(ONE, LIVE, Phase::Ready)]);
    assert_eq!(steps(&d, &old), [Step::Remove(ONE)]);
    let leaving = observed(&[replica(ONE, LIVE, Phase::Removing)]);
    assert_eq!(steps(&d, &leaving), []);
    assert!(
        !timers(&d, &leaving).contains(&Timer::Roll(TARGET, 0)),
        "its time does not run yet"
    );
    assert_eq!(steps(&d, &observed(&[])), [Step::Create(TARGET)]);
}

#[test]
fn a_lost_replica_is_removed_and_replaced() {
    let o = observed(&[replica(ONE, LIVE, Phase::Lost)]);
    assert_eq!(
        steps(&desired(), &o),
        [Step::Create(LIVE), Step::Remove(ONE)]
    );
}

const ONCE_MORE: RestartPolicy = RestartPolicy::OnFailure {
    max_retries: Some(1),
};

#[test]
fn a_restart_policy_says_what_stays_ended() {
    use Ended::{Badly, Well};
    let on_failure = RestartPolicy::OnFailure { max_retries: None };
    for (restart, how, failed_starts, stays) in [
        (RestartPolicy::Always, Well, 1, false),
        (RestartPolicy::Always, Badly, 1, false),
        (RestartPolicy::Never, Well, 1, true),
        (RestartPolicy::Never, Badly, 0, true),
        (on_failure, Well, 0, true),
        (on_failure, Badly, 99, false),
        (ONCE_MORE, Badly, 0, false),
        (ONCE_MORE, Badly, 1, false),
        (ONCE_MORE, Badly, 2, true),
    ] {
        let mut replica = ended(ONE, LIVE, how, restart);
        replica.failed_starts = failed_starts;
        assert_eq!(stays_ended(&replica), stays, "{replica:?}");
        replica.phase = Phase::Starting;
        assert!(!stays_ended(&replica), "it was started again");
    }
}

#[test]
fn what_has_ended_is_not_started_and_requests_for_it_are_refused() {
    let d = desired();
    let over = ended(ONE, LIVE, Ended::Badly, RestartPolicy::Never);
    let o = aged(&d, observed(std::slice::from_ref(&over)), BACKOFF_MAX_MS);
    assert_eq!(steps(&d, &o), [Step::Publish(Route::Refuse)]);
    assert!(has_ended(&d, &o));
    let resting = Desired {
        wanted: Asleep,
        ..d.clone()
    };
    assert_eq!(steps(&resting, &o), [Step::Publish(Route::Refuse)]);

    // What is on its way is waited for.
    let two = Desired { replicas: 2, ..d };
    let other = replica(TWO, LIVE, Phase::Starting);
    let o = observed(&[over.clone(), other]);
    assert_eq!(steps(&two, &o), []);
    let o = observed(&[over, replica(TWO, TARGET, Phase::Starting)]);
    assert_eq!(steps(&rolling(), &o), []);
}

#[test]
fn a_target_that_was_to_end_and_ended_well_goes_live() {
    let d = rolling();
    let o = observed(&[
        replica(ONE, LIVE, Phase::Ready),
        ended(TWO, TARGET, Ended::Well, RestartPolicy::Never),
    ]);
    assert_eq!(steps(&d, &o).first(), Some(&Step::GoLive(TARGET)));
    let o = observed(&[ended(TWO, TARGET, Ended::Well, RestartPolicy::Always)]);
    assert_eq!(steps(&d, &o).first(), Some(&Step::Create(LIVE)));
}

#[test]
fn a_target_that_stays_ended_badly_fails_at_once() {
    let d = rolling();
    let mut over = ended(TWO, TARGET, Ended::Badly, ONCE_MORE);
    let live = replica(ONE, LIVE, Phase::Ready);
    over.failed_starts = 2;
    let o = observed(&[live, over]);
    let fail = Step::Fail(TARGET, FailReason::Ended);
    assert_eq!(steps(&d, &o), [fail, Step::Publish(serve(ONE))]);
}

/// Revision 2 failed once, and may be tried again.
fn failed_once() -> Desired {
    Desired {
        retries: 2,
        failed_attempts: 1,
        ..rolling()
    }
}

#[test]
fn a_failed_attempt_that_may_come_good_is_tried_again_until_none_is_left() {
    let looping = Replica {
        failed_starts: CRASH_LOOP_STARTS,
        ..replica(TWO, TARGET, Phase::Starting)
    };
    let o = observed(&[replica(ONE, LIVE, Phase::Ready), looping]);
    let first = |d: &Desired, o: &Observed| steps(d, o).remove(0);
    let once = Desired {
        failed_attempts: 0,
        ..failed_once()
    };
    assert_eq!(first(&once, &o), Step::Retry(TARGET, FailReason::CrashLoop));
    let hopeless = Observed {
        hopeless: Some("no image".into()),
        ..o.clone()
    };
    let fail = Step::Fail(TARGET, FailReason::Hopeless("no image".into()));
    assert_eq!(first(&once, &hopeless), fail);
    let last = Desired { retries: 0, ..once };
    assert_eq!(first(&last, &o), Step::Fail(TARGET, FailReason::CrashLoop));
}

#[test]
fn an_attempt_begins_when_its_pause_is_over_and_what_the_last_one_left_is_gone() {
    let d = failed_once();
    let live = replica(ONE, LIVE, Phase::Ready);
    let left = replica(TWO, TARGET, Phase::Removing);
    let o = observed(&[live.clone(), left]);
    assert!(!timers(&d, &o).contains(&Timer::Pause(TARGET, 1)));
    let o = observed(std::slice::from_ref(&live));
    let early = aged(&d, o.clone(), RETRY_PAUSE_MS - 1);
    assert!(!steps(&d, &early).contains(&Step::Create(TARGET)));
    assert_eq!(next_due(&d, &early), Some(early.now_ms + 1));
    let due = aged(&d, o, RETRY_PAUSE_MS);
    assert!(steps(&d, &due).contains(&Step::Create(TARGET)));
    // It stays over while the attempt has replicas.
    let mut begun = due;
    begun.replicas.push(replica(TWO, TARGET, Phase::Starting));
    assert!(timers(&d, &begun).contains(&Timer::Pause(TARGET, 1)));
    assert!(timers(&d, &begun).contains(&Timer::Roll(TARGET, 1)));
}

#[test]
fn between_two_attempts_stop_first_has_live_back() {
    let d = Desired {
        stop_first: true,
        ..failed_once()
    };
    assert!(steps(&d, &observed(&[])).contains(&Step::Create(LIVE)));
    let over = aged(&d, observed(&[]), RETRY_PAUSE_MS);
    assert!(steps(&d, &over).contains(&Step::Create(TARGET)));
    assert!(!steps(&d, &over).contains(&Step::Create(LIVE)));
}

#[test]
fn the_pauses_grow_and_have_an_end() {
    let pauses: Vec<u64> = (0..=5).map(pause_ms).collect();
    assert_eq!(pauses, [0, 5_000, 15_000, 45_000, 135_000, 300_000]);
    assert_eq!(pause_ms(u32::MAX), RETRY_PAUSE_MAX_MS);
}

#[test]
fn a_target_that_moves_fails_only_at_its_hard_deadline() {
    let d = Desired {
        deadline_max_ms: 100_000,
        ..rolling()
    };
    let o = observed(&[
        replica(ONE, LIVE, Phase::Ready),
        replica(TWO, TARGET, Phase::Starting),
    ]);
    let fails = |o: &Observed| {
        let fail = Step::Fail(TARGET, FailReason::Deadline);
        steps(&d, o).contains(&fail)
    };
    let mut moved = aged(&d, o, d.deadline_max_ms - 1);
    assert!(fails(&moved), "it did not move for long");
    moved.progress = 1;
    moved.since.insert(Timer::Still(TARGET, 1), moved.now_ms);
    assert!(!fails(&moved));
    moved.now_ms += 1;
    assert!(fails(&moved));
}

#[test]
fn a_target_that_waits_for_another_service_is_not_made_and_what_has_begun_goes_on() {
    let d = Desired {
        stop_first: true,
        ..rolling()
    };
    let live = replica(ONE, LIVE, Phase::Ready);
    let mut o = observed(std::slice::from_ref(&live));
    o.blocked = Some("db is not ready".into());
    assert_eq!(steps(&d, &o), [Step::Publish(serve(ONE))]);
    assert!(!timers(&d, &o).contains(&Timer::Roll(TARGET, 0)));
    o.replicas = vec![replica(TWO, TARGET, Phase::Stopped)];
    assert_eq!(steps(&d, &o), [Step::Start(TWO)]);
}

#[test]
fn live_is_left_alone_by_a_target_that_has_not_begun_and_cannot_succeed() {
    let d = Desired {
        stop_first: true,
        ..rolling()
    };
    let mut o = observed(&[replica(ONE, LIVE, Phase::Ready)]);
    o.published = Some(serve(ONE));
    o.hopeless = Some("it needs db, which failed".into());
    let why = FailReason::Hopeless("it needs db, which failed".into());
    // Also for as long as the store takes to write that.
    assert_eq!(steps(&d, &o), [Step::Fail(TARGET, why)]);
}

#[test]
fn a_canary_gets_its_share_beside_live_until_a_user_decides() {
    let d = Desired {
        share: Some(Share::Percent(10)),
        ..rolling()
    };
    let ready = [
        replica(ONE, LIVE, Phase::Ready),
        replica(TWO, TARGET, Phase::Ready),
    ];
    let o = aged(&d, observed(&ready), d.deadline_max_ms);
    let both = Route::Serve {
        live: vec![ONE],
        canary: vec![TWO],
    };
    assert_eq!(steps(&d, &o), [Step::Publish(both)]);
    assert!(!timers(&d, &o).contains(&Timer::Roll(TARGET, 0)));
    let promoted = Desired { share: None, ..d };
    assert_eq!(steps(&promoted, &o)[0], Step::GoLive(TARGET));
    let aborted = Desired {
        target_failed: true,
        ..promoted
    };
    let route = Step::Publish(serve(ONE));
    assert_eq!(steps(&aborted, &o), [route, Step::Remove(TWO)]);
}

#[test]
fn a_share_means_nothing_while_nothing_is_live() {
    let d = Desired {
        live: None,
        share: Some(Share::Percent(10)),
        ..rolling()
    };
    let o = observed(&[replica(TWO, TARGET, Phase::Ready)]);
    assert_eq!(steps(&d, &o)[0], Step::GoLive(TARGET));
}

#[test]
fn live_is_unhealthy_when_all_of_it_runs_and_none_answers() {
    let sick = |id| Replica {
        unhealthy: true,
        ..replica(id, LIVE, Phase::Starting)
    };
    let d = Desired {
        replicas: 2,
        ..desired()
    };
    let published = |second: Replica| {
        let o = Observed {
            published: None,
            ..observed(&[sick(ONE), second])
        };
        steps(&d, &o).remove(0)
    };
    assert_eq!(published(sick(TWO)), Step::Publish(Route::Unhealthy));
    let booting = replica(TWO, LIVE, Phase::Starting);
    assert_eq!(published(booting), Step::Publish(Route::Hold));
    let ready = replica(TWO, LIVE, Phase::Ready);
    assert_eq!(published(ready), Step::Publish(serve(TWO)));
}

const PHASES: [Phase; 8] = [
    Phase::Ready,
    Phase::Starting,
    Phase::Frozen,
    Phase::Freezing,
    Phase::Stopped,
    Phase::Stopping,
    Phase::Lost,
    Phase::Removing,
];

prop_compose! {
    fn any_desired()(
        enabled in prop::bool::weighted(0.9),
        (target, live) in (prop::option::of(1..4u32), prop::option::of(1..4u32)),
        target_failed in prop::bool::weighted(0.2),
        (deadline_ms, more_ms, drain_ms) in (1..20_000u64, 0..20_000u64, 0..20_000u64),
        (retries, failed_attempts) in (0..3u32, 0..3u32),
        share in prop::option::weighted(0.2, Just(Share::Percent(10))),
        (stop_first, replicas) in (any::<bool>(), 1..4u32),
        wanted in prop::sample::select(vec![Asleep, Dozing, Awake]),
        (doze_after_ms, sleep_after_ms) in (prop::option::of(0..20_000u64), prop::option::of(0..20_000u64)),
    ) -> Desired {
        Desired {
            enabled,
            target: target.map(RevisionId),
            live: live.map(RevisionId),
            target_failed,
            retries,
            failed_attempts,
            deadline_ms,
            deadline_max_ms: deadline_ms + more_ms,
            share,
            stop_first,
            replicas,
            wanted,
            ladder: SleepPolicy { doze_after_ms, sleep_after_ms },
            drain_ms,
            generation: 0,
        }
    }
}

prop_compose! {
    fn any_replica()(
        (id, revision) in (1..9u64, 1..4u32),
        phase in prop::sample::select(PHASES.to_vec()),
        (failed_starts, crashed) in (0..10u32, any::<bool>()),
        ended in prop::sample::select(vec![None, Some(Ended::Well), Some(Ended::Badly)]),
        restart in prop::sample::select(vec![
            RestartPolicy::Always,
            RestartPolicy::Never,
            RestartPolicy::OnFailure { max_retries: None },
            RestartPolicy::OnFailure { max_retries: Some(3) },
        ]),
        (unhealthy, stale) in (any::<bool>(), prop::bool::weighted(0.3)),
    ) -> Replica {
        let (id, revision) = (ReplicaId(id), RevisionId(revision));
        let ended = ended.filter(|_| crashed);
        Replica { id, revision, phase, failed_starts, crashed, ended, restart, unhealthy, stale }
    }
}

prop_compose! {
    fn any_report()(
        confirmed in 0..4u64,
        open in prop::collection::btree_map((1_u64..5).prop_map(ReplicaId), 0_u32..3, 0..3),
        awaited in prop::collection::btree_map((1_u64..5).prop_map(ReplicaId), 0_u32..3, 0..3),
        in_flight in prop::collection::btree_map((1..9u64).prop_map(ReplicaId), 0..3u32, 0..3),
        waiting in prop::sample::select(vec![0, 0, 1]),
        uses in 0..3u64,
    ) -> GatewayReport {
        GatewayReport { confirmed: version(confirmed), in_flight, open, awaited, waiting, uses }
    }
}

prop_compose! {
    /// With each condition that holds for `desired` at some age.
    fn any_look()(
        d in any_desired(),
        mut replicas in prop::collection::vec(any_replica(), 0..6),
        gateway in prop::option::weighted(0.9, any_report()),
        named in prop::collection::btree_map((1..9u64).prop_map(ReplicaId), (1..4u64).prop_map(version), 0..6),
        hopeless in prop::option::weighted(0.1, Just("no image".to_owned())),
        (progress, blocked) in (0..3u64, prop::option::weighted(0.1, Just("db".to_owned()))),
        ages_ms in prop::collection::vec(0..70_000u64, 20),
    ) -> (Desired, Observed) {
        replicas.sort_by_key(|r| r.id);
        replicas.dedup_by_key(|r| r.id);
        let mut o = Observed { named, gateway, hopeless, progress, blocked, ..observed(&replicas) };
        // Twice: a pause that is over lets others begin.
        for _ in 0..2 {
            let ages = ages_ms.iter().cycle();
            o.since = timers(&d, &o).into_iter().zip(ages).map(|(t, age)| (t, o.now_ms - age)).collect();
        }
        (d, o)
    }
}

proptest! {
    #[test]
    fn next_due_names_the_tick_at_which_a_decision_changes((d, o) in any_look()) {
        let at = |now_ms| {
            let o = Observed { now_ms, ..o.clone() };
            (wakefulness(&d, &o), steps(&d, &o), timers(&d, &o))
        };
        let now = at(o.now_ms);
        match next_due(&d, &o) {
            Some(due) => {
                prop_assert!(due > o.now_ms);
                prop_assert_eq!(at(due - 1), now.clone());
                // The end of a pause may show only when the old revision has left.
                let later = Observed { now_ms: due, ..o.clone() };
                prop_assert!(at(due) != now || is_resting(&d, &o) && !is_resting(&d, &later));
            }
            None => prop_assert_eq!(at(o.now_ms + 1_000_000), now),
        }
    }

    #[test]
    fn the_order_in_which_the_engine_lists_replicas_does_not_matter((d, o) in any_look()) {
        let mut turned = o.clone();
        turned.replicas.reverse();
        let sorted = |o: &Observed| {
            let mut steps: Vec<String> = steps(&d, o).iter().map(|step| format!("{step:?}")).collect();
            steps.sort();
            steps
        };
        prop_assert_eq!(sorted(&o), sorted(&turned));
    }

    #[test]
    fn no_replica_gets_two_orders_in_one_plan((d, o) in any_look()) {
        let mut ordered = BTreeSet::new();
        for step in steps(&d, &o) {
            let id = match step {
                Step::Start(id) | Step::Thaw(id) | Step::Freeze(id) | Step::Sleep(id) | Step::Remove(id) => id,
                Step::GoLive(_) | Step::Fail(..) | Step::Retry(..) | Step::Publish(_) | Step::Create(_) | Step::WriteWakefulness(_) => continue,
            };
            prop_assert!(ordered.insert(id), "{:?}", id);
        }
    }
}
