//! Places of replicas that failed their liveness probe.

use super::*;

fn vacancy(id: ReplicaId, revision: RevisionId, failed_starts: u32) -> Vacancy {
    Vacancy {
        replica: id,
        revision,
        failed_starts,
    }
}

#[test]
fn an_empty_place_is_filled_after_a_pause_that_grows() {
    let d = desired();
    for (failed_starts, pause_ms) in [(0, 0), (1, 100), (2, 200), (5, 1_600), (99, 60_000)] {
        let mut o = observed(&[]);
        o.vacancies = vec![vacancy(ONE, LIVE, failed_starts)];
        if pause_ms > 0 {
            let early = aged(&d, o.clone(), pause_ms - 1);
            assert_eq!(steps(&d, &early), [], "{failed_starts}");
            assert_eq!(next_due(&d, &early), Some(early.now_ms + 1));
        }
        let o = aged(&d, o, pause_ms);
        assert_eq!(steps(&d, &o), [Step::Create(LIVE)], "{failed_starts}");
    }
}

#[test]
fn places_that_nobody_misses_hold_nothing_up() {
    let mut d = Desired {
        replicas: 3,
        ..desired()
    };
    let mut o = observed(&[replica(TWO, LIVE, Phase::Ready)]);
    o.published = Some(serve(TWO));
    o.vacancies = vec![vacancy(ONE, LIVE, 9)];
    assert_eq!(
        steps(&d, &o),
        [Step::Create(LIVE)],
        "another one is missing"
    );
    d.replicas = 1;
    assert_eq!(steps(&d, &o), []);
    assert_eq!(
        next_due(&d, &aged(&d, o.clone(), 1_000)).map(|_| ()),
        Some(()),
        "idleness alone"
    );
    o.vacancies[0].revision = TARGET;
    d.replicas = 2;
    assert_eq!(steps(&d, &o), [Step::Create(LIVE)]);
}

#[test]
fn a_target_whose_replicas_fail_their_probe_again_and_again_is_in_a_crash_loop() {
    let d = rolling();
    let mut o = observed(&[replica(ONE, LIVE, Phase::Ready)]);
    o.published = Some(serve(ONE));
    o.vacancies = vec![vacancy(TWO, TARGET, CRASH_LOOP_STARTS - 1)];
    assert_eq!(steps(&d, &o), []);
    o.vacancies[0].failed_starts = CRASH_LOOP_STARTS;
    assert_eq!(steps(&d, &o), [Step::Fail(TARGET, FailReason::CrashLoop)]);
}
