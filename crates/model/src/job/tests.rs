//! What is due of jobs: by tables, and by random lives of a run and of a schedule.

use proptest::prelude::*;

use super::*;

const MINUTE: u64 = 60_000;

/// Due at every full minute.
fn minutely(after_ms: u64) -> Option<u64> {
    Some((after_ms / MINUTE + 1) * MINUTE)
}

fn at(minutes: u64) -> u64 {
    minutes * MINUTE
}

#[test]
fn a_schedule_is_due_once_for_each_moment() {
    let spec = JobSpec::default();
    let due_of = |seen, now| due(&spec, seen, now, 0, minutely);
    assert_eq!(due_of(at(1), at(1) + 1), Due::Wait(Some(at(2))));
    assert_eq!(due_of(at(1), at(2)), Due::Run(at(2)));
    assert_eq!(due_of(at(2), at(2)), Due::Wait(Some(at(3))));
    assert_eq!(due(&spec, 0, at(9), 0, |_| None), Due::Wait(None));
}

#[test]
fn of_what_was_missed_the_last_is_made_up_once_and_nothing_where_it_is_too_much() {
    let spec = JobSpec::default();
    assert_eq!(due(&spec, at(1), at(7) + 5, 0, minutely), Due::Run(at(7)));
    let many = due(&spec, at(1), at(101) + 5, 0, minutely);
    assert_eq!(many, Due::Run(at(101)));
    let more = due(&spec, at(1), at(102) + 5, 0, minutely);
    assert_eq!(more, Due::Skip(at(102) + 5, Skipped::TooManyMissed));
    let hasty = JobSpec {
        starting_deadline_ms: Some(10_000),
        ..JobSpec::default()
    };
    let in_time = due(&hasty, at(1), at(500) + 10_000, 0, minutely);
    assert_eq!(in_time, Due::Run(at(500)), "older ones do not count");
    let late = due(&hasty, at(1), at(500) + 10_002, 0, minutely);
    assert!(
        matches!(late, Due::Skip(upto, Skipped::TooLate) if upto >= at(500)),
        "{late:?}"
    );
}

#[test]
fn what_goes_on_is_beside_in_the_way_or_replaced() {
    for (concurrency, active, expected) in [
        (Concurrency::Allow, 9, Due::Run(at(2))),
        (Concurrency::Allow, 10, Due::Skip(at(2), Skipped::TooMany)),
        (Concurrency::Forbid, 0, Due::Run(at(2))),
        (Concurrency::Forbid, 1, Due::Skip(at(2), Skipped::Forbidden)),
        (Concurrency::Replace, 0, Due::Run(at(2))),
        (Concurrency::Replace, 1, Due::Replace(at(2))),
    ] {
        let spec = JobSpec {
            concurrency,
            ..JobSpec::default()
        };
        assert_eq!(
            due(&spec, at(1), at(2), active, minutely),
            expected,
            "{concurrency} {active}"
        );
    }
}

#[test]
fn a_clock_that_was_set_back_far_stops_no_schedule() {
    let spec = JobSpec::default();
    let hour = at(60);
    let back = due(&spec, 10 * hour, 9 * hour, 0, minutely);
    assert_eq!(
        back,
        Due::Wait(Some(10 * hour + MINUTE)),
        "an hour: nothing is done twice"
    );
    let far = due(&spec, 10 * hour, hour, 0, minutely);
    assert_eq!(far, Due::Skip(hour, Skipped::ClockBack));
}

fn run() -> Run {
    Run {
        completions: 1,
        parallelism: 1,
        retries: 0,
        time_limit_ms: None,
        elapsed_ms: 0,
        rested_ms: 0,
        stopping: None,
        waits: false,
        held: None,
        attempts: Vec::new(),
    }
}

fn attempt(n: u64, end: Option<AttemptEnd>, seen: Seen) -> Attempt {
    Attempt {
        replica: ReplicaId(n),
        launched: seen != Seen::Absent,
        end,
        seen,
    }
}

#[test]
fn numbers_are_given_once_for_each_good_end() {
    let next = |ends: &[(u32, Option<AttemptEnd>)]| next_index(ends.iter().copied());
    assert_eq!(next(&[]), 0);
    assert_eq!(next(&[(0, None)]), 1);
    let (well, badly) = (Some(AttemptEnd::Well), Some(AttemptEnd::Badly));
    assert_eq!(next(&[(0, well), (1, badly), (2, None)]), 1);
    assert_eq!(next(&[(0, well), (1, badly), (2, None), (1, None)]), 3);
    assert_eq!(next(&[(0, badly), (0, well), (1, well)]), 2);
}

#[test]
fn a_run_goes_from_its_attempt_to_its_end() {
    let id = ReplicaId(1);
    let mut one = run();
    assert_eq!(next_steps(&one), [Step::Begin]);
    one.attempts = vec![attempt(1, None, Seen::Absent)];
    assert_eq!(next_steps(&one), [Step::Launch(id)]);
    one.attempts = vec![attempt(1, None, Seen::Runs)];
    assert_eq!(next_steps(&one), []);
    one.attempts = vec![attempt(1, None, Seen::Ended)];
    assert_eq!(next_steps(&one), [Step::Settle(id)]);
    one.attempts = vec![attempt(1, Some(AttemptEnd::Well), Seen::Ended)];
    assert_eq!(
        next_steps(&one),
        [Step::Retire(id), Step::End(Outcome::Succeeded)]
    );
    one.attempts = vec![attempt(1, Some(AttemptEnd::Badly), Seen::Leaves)];
    assert_eq!(next_steps(&one), [Step::End(Outcome::Failed)]);
}

#[test]
fn what_is_gone_has_failed_and_is_not_begun_anew() {
    let mut one = run();
    one.attempts = vec![attempt(1, None, Seen::Absent)];
    one.attempts[0].launched = true;
    assert_eq!(next_steps(&one), [Step::Settle(ReplicaId(1))]);
    one.attempts[0].seen = Seen::Made;
    assert_eq!(next_steps(&one), [Step::Launch(ReplicaId(1))]);
}

#[test]
fn what_failed_is_tried_again_after_a_pause_unless_it_is_hopeless() {
    let mut one = run();
    one.retries = 2;
    one.attempts = vec![attempt(1, Some(AttemptEnd::Badly), Seen::Absent)];
    assert_eq!((next_steps(&one), wait_ms(&one)), (vec![], Some(1_000)));
    one.rested_ms = 1_000;
    assert_eq!((next_steps(&one), wait_ms(&one)), (vec![Step::Begin], None));
    one.attempts
        .push(attempt(2, Some(AttemptEnd::Badly), Seen::Absent));
    assert_eq!(
        (next_steps(&one), wait_ms(&one)),
        (vec![], Some(1_000)),
        "then 2 s"
    );
    one.attempts
        .push(attempt(3, Some(AttemptEnd::Badly), Seen::Absent));
    assert_eq!(next_steps(&one), [Step::End(Outcome::Failed)]);
    one.attempts = vec![attempt(1, Some(AttemptEnd::Hopelessly), Seen::Absent)];
    assert_eq!(next_steps(&one), [Step::End(Outcome::Failed)]);
    assert_eq!(pause_ms(40), PAUSE_MAX_MS);
}

#[test]
fn a_run_that_takes_too_long_is_stopped_but_what_came_good_in_time_is_good() {
    let mut one = run();
    one.time_limit_ms = Some(500);
    one.attempts = vec![attempt(1, None, Seen::Runs)];
    one.elapsed_ms = 400;
    assert_eq!((next_steps(&one), wait_ms(&one)), (vec![], Some(100)));
    one.elapsed_ms = 500;
    assert_eq!(next_steps(&one), [Step::Halt(Stop::TimeLimit)]);
    one.attempts = vec![attempt(1, None, Seen::Ended)];
    assert_eq!(next_steps(&one), [Step::Settle(ReplicaId(1))]);
    one.stopping = Some(Stop::TimeLimit);
    one.attempts = vec![attempt(1, None, Seen::Runs)];
    assert_eq!(next_steps(&one), [Step::Stop(ReplicaId(1))]);
    one.attempts = vec![attempt(1, Some(AttemptEnd::Badly), Seen::Absent)];
    assert_eq!(next_steps(&one), [Step::End(Outcome::TimedOut)]);
}

#[test]
fn what_nobody_holds_any_more_ends_and_is_never_begun_again() {
    let id = ReplicaId(1);
    let mut one = run();
    one.held = Some(Held::There);
    one.attempts = vec![attempt(1, None, Seen::Runs)];
    assert_eq!(next_steps(&one), []);
    one.held = Some(Held::Over);
    assert_eq!(next_steps(&one), [Step::Stop(id)]);
    one.held = Some(Held::Gone);
    assert_eq!(next_steps(&one), [Step::Halt(Stop::Lost)]);
    one.attempts = vec![attempt(1, None, Seen::Absent)];
    assert_eq!(next_steps(&one), [Step::Settle(id)]);
    one.attempts = vec![];
    assert_eq!(next_steps(&one), [Step::Halt(Stop::Lost)]);
}

#[test]
fn of_what_is_over_the_newest_of_either_kind_are_kept() {
    let spec = JobSpec {
        keep_succeeded: 2,
        keep_failed: 1,
        ttl_ms: Some(100),
        ..JobSpec::default()
    };
    let past = |run, outcome, age_ms| Past {
        run: RunId(run),
        outcome,
        age_ms,
    };
    use Outcome::{Failed, Stopped, Succeeded, TimedOut};
    let all = [
        past(1, Failed, 50),
        past(2, Succeeded, 40),
        past(3, TimedOut, 30),
        past(4, Succeeded, 20),
        past(5, Succeeded, 10),
        past(6, Stopped, 0),
    ];
    let mut gone = forgotten(&spec, &all);
    gone.sort_unstable();
    assert_eq!(gone, [RunId(1), RunId(2), RunId(3)]);
    assert_eq!(
        forgotten(&spec, &[past(1, Succeeded, 100)]),
        [RunId(1)],
        "its time is over"
    );
}

#[test]
fn the_runs_of_a_service_have_a_name_that_nobody_else_can_have() {
    let id = |text: &str| -> ServiceId { text.parse().expect("an id") };
    let runs = runs_of(&id("shop/web"));
    assert_eq!(runs.to_string(), "shop/web--run");
    assert!(is_reserved(&runs.service) && !is_reserved(&id("shop/web").service));
    let long = format!("shop/{}", "x".repeat(63));
    assert_eq!(runs_of(&id(&long)).service.as_str().len(), 63);
}

/// What becomes of a replica in a random life, one thing for each draw.
#[derive(Debug, Clone, Copy)]
enum Fate {
    Well,
    Badly,
    Lost,
    Never,
}

fn fates() -> impl Strategy<Value = Vec<Fate>> {
    let one = prop_oneof![
        3 => Just(Fate::Well),
        3 => Just(Fate::Badly),
        1 => Just(Fate::Lost),
        1 => Just(Fate::Never),
    ];
    proptest::collection::vec(one, 1..20)
}

fn find(run: &mut Run, id: ReplicaId) -> &mut Attempt {
    let mut attempts = run.attempts.iter_mut();
    attempts
        .find(|attempt| attempt.replica == id)
        .expect("an attempt")
}

proptest! {
    /// A run, carried out step by step, with kills that lose an order here and there: it ends, as it should, and leaves
    /// nothing.
    #[test]
    fn a_run_ends_and_leaves_nothing(
        fates in fates(),
        completions in 1u32..4,
        parallelism in 1u32..4,
        retries in 0u32..4,
        lost_orders in proptest::collection::vec(any::<bool>(), 200),
    ) {
        let mut one = Run { completions, parallelism, retries, time_limit_ms: Some(1_000_000), ..run() };
        let mut fates = fates.into_iter().cycle();
        let mut of = std::collections::BTreeMap::new();
        let mut over = None;
        for lost in lost_orders.iter().cycle().take(2_000) {
            let steps = next_steps(&one);
            if steps.is_empty() {
                // Time passes, and what runs goes on with its life.
                one.elapsed_ms += 100_000;
                one.rested_ms += 100_000;
                for attempt in &mut one.attempts {
                    attempt.seen = match (attempt.seen, of[&attempt.replica]) {
                        (Seen::Runs, Fate::Well | Fate::Badly | Fate::Lost) | (Seen::Stops, _) => Seen::Ended,
                        (Seen::Leaves, _) => Seen::Absent,
                        (seen, _) => seen,
                    };
                }
            }
            let active = one.attempts.iter().filter(|attempt| attempt.end.is_none());
            prop_assert!(active.count() <= parallelism as usize);
            for step in steps {
                match step {
                    Step::Settle(id) => {
                        let stopped = one.stopping.is_some();
                        let attempt = find(&mut one, id);
                        prop_assert!(attempt.end.is_none());
                        attempt.end = Some(match of[&id] {
                            Fate::Well if attempt.seen == Seen::Ended && !stopped => AttemptEnd::Well,
                            _ => AttemptEnd::Badly,
                        });
                        one.rested_ms = 0;
                    }
                    Step::Retire(id) => {
                        prop_assert!(find(&mut one, id).end.is_some(), "its end was not written");
                        find(&mut one, id).seen = Seen::Leaves;
                    }
                    Step::Begin => {
                        let id = ReplicaId(one.attempts.len() as u64 + 1);
                        of.insert(id, fates.next().expect("endless"));
                        one.attempts.push(attempt(id.0, None, Seen::Absent));
                    }
                    Step::Launch(id) => {
                        prop_assert!(one.stopping.is_none());
                        if !lost {
                            let attempt = find(&mut one, id);
                            (attempt.seen, attempt.launched) = (Seen::Runs, true);
                        }
                    }
                    Step::Stop(id) => find(&mut one, id).seen = Seen::Stops,
                    Step::Halt(stop) => {
                        prop_assert!(one.stopping.is_none());
                        one.stopping = Some(stop);
                    }
                    Step::End(outcome) => over = Some(outcome),
                }
            }
            if over.is_some() {
                break;
            }
        }
        let count = |end| one.attempts.iter().filter(|a| a.end == Some(end)).count() as u32;
        prop_assert!(one.attempts.iter().all(|a| a.end.is_some() && a.seen != Seen::Runs));
        match over {
            Some(Outcome::Succeeded) => prop_assert!(count(AttemptEnd::Well) == completions),
            Some(Outcome::Failed) => prop_assert!(count(AttemptEnd::Badly) > retries),
            Some(Outcome::TimedOut) => prop_assert!(one.elapsed_ms >= 1_000_000),
            Some(Outcome::Stopped) | None => prop_assert!(false, "it did not end: {:?}", one),
        }
    }

    /// A schedule, looked at in any rhythm and by a clock that jumps: no moment is due twice, and what is due is not ahead.
    #[test]
    fn no_moment_is_due_twice_whatever_the_clock_does(
        jumps in proptest::collection::vec(-50i64 * 60_000..110 * 60_000, 1..60),
        deadline in proptest::option::of(1_000u64..600_000),
    ) {
        let spec = JobSpec { starting_deadline_ms: deadline, ..JobSpec::default() };
        let (mut now, mut seen) = (at(10_000), at(10_000));
        let mut done = std::collections::BTreeSet::new();
        for jump in jumps {
            now = now.saturating_add_signed(jump);
            for _ in 0..3 {
                match due(&spec, seen, now, 0, minutely) {
                    Due::Run(moment) => {
                        prop_assert!(moment <= now && moment > seen);
                        prop_assert!(deadline.is_none_or(|deadline| moment + deadline >= now));
                        prop_assert!(done.insert(moment), "{} twice", moment);
                        seen = moment;
                    }
                    Due::Skip(upto, Skipped::ClockBack) => {
                        // A clock that was wrong by hours: what it did meanwhile does not count.
                        prop_assert!(seen > now + CLOCK_BACK_MS);
                        done.clear();
                        seen = upto;
                    }
                    Due::Skip(upto, _) => {
                        prop_assert!(upto > seen && upto <= now);
                        seen = upto;
                    }
                    Due::Replace(_) => prop_assert!(false, "nothing goes on"),
                    Due::Wait(ahead) => prop_assert!(ahead.is_some_and(|ahead| ahead > now)),
                }
            }
            let settled = due(&spec, seen, now, 0, minutely);
            prop_assert!(matches!(settled, Due::Wait(_)), "{:?}", settled);
        }
    }
}
