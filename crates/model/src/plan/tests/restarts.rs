//! Restarts in place.

use super::*;

const THREE: ReplicaId = ReplicaId(3);

fn stale(id: ReplicaId, phase: Phase) -> Replica {
    Replica {
        stale: true,
        ..replica(id, LIVE, phase)
    }
}

fn serving(ids: &[ReplicaId]) -> Step {
    Step::Publish(Route::Serve {
        live: ids.to_vec(),
        canary: Vec::new(),
    })
}

/// What is seen once the gateway serves these.
fn served(replicas: &[Replica], ids: &[ReplicaId]) -> Observed {
    let mut o = observed(replicas);
    o.published = Some(Route::Serve {
        live: ids.to_vec(),
        canary: Vec::new(),
    });
    o.named = ids.iter().map(|id| (*id, version(9))).collect();
    o
}

fn three() -> Desired {
    Desired {
        replicas: 3,
        ..desired()
    }
}

#[test]
fn replicas_restart_one_after_the_other_each_withdrawn_before_it_is_stopped() {
    let (d, ready) = (three(), Phase::Ready);
    let all = [stale(ONE, ready), stale(TWO, ready), stale(THREE, ready)];
    let o = served(&all, &[ONE, TWO, THREE]);
    assert_eq!(steps(&d, &o), [serving(&[TWO, THREE])]);
    // The gateway has let go of it.
    let o = served(&all, &[TWO, THREE]);
    assert_eq!(steps(&d, &o), [Step::Sleep(ONE)]);
    for (phase, next) in [
        (Phase::Stopping, None),
        (Phase::Stopped, Some(Step::Start(ONE))),
    ] {
        let o = served(
            &[stale(ONE, phase), all[1].clone(), all[2].clone()],
            &[TWO, THREE],
        );
        assert_eq!(steps(&d, &o), next.into_iter().collect::<Vec<_>>());
    }
    // The next one waits until it is ready.
    let starting = replica(ONE, LIVE, Phase::Starting);
    let o = served(&[starting, all[1].clone(), all[2].clone()], &[TWO, THREE]);
    assert_eq!(steps(&d, &o), []);
    let again = replica(ONE, LIVE, ready);
    let o = served(
        &[again.clone(), all[1].clone(), all[2].clone()],
        &[TWO, THREE],
    );
    assert_eq!(steps(&d, &o), [serving(&[ONE, THREE])]);
    let o = served(
        &[again.clone(), replica(TWO, LIVE, ready), all[2].clone()],
        &[ONE, TWO, THREE],
    );
    assert_eq!(steps(&d, &o), [serving(&[ONE, TWO])]);
}

#[test]
fn requests_are_held_while_the_only_replica_restarts_and_what_is_in_flight_is_drained() {
    let only = [stale(ONE, Phase::Ready)];
    let o = served(&only, &[ONE]);
    assert_eq!(steps(&desired(), &o), [Step::Publish(Route::Hold)]);
    let mut o = observed(&only);
    o.published = Some(Route::Hold);
    let gateway = o.gateway.get_or_insert_default();
    gateway.in_flight.insert(ONE, 1);
    assert_eq!(steps(&desired(), &o), []);
}

#[test]
fn quiet_connections_have_their_time_before_a_restart_while_others_serve() {
    let two = Desired {
        replicas: 2,
        ..desired()
    };
    let stop_first = Desired {
        stop_first: true,
        ..two.clone()
    };
    let quiet = |d: &Desired, other, age_ms| {
        let mut o = served(&[stale(ONE, Phase::Ready), other], &[TWO]);
        o.gateway.as_mut().expect("a report").open = [(ONE, 100)].into();
        let o = aged(d, o, age_ms);
        if steps(d, &o).is_empty() {
            let end_ms = o.now_ms - age_ms + d.drain_ms;
            assert_eq!(next_due(d, &o), Some(end_ms), "it is looked at again");
        }
        steps(d, &o)
    };
    for d in [&two, &stop_first] {
        let fresh = || replica(TWO, LIVE, Phase::Ready);
        assert_eq!(quiet(d, fresh(), 0), []);
        assert_eq!(quiet(d, fresh(), d.drain_ms - 1), []);
        assert_eq!(quiet(d, fresh(), d.drain_ms), [Step::Sleep(ONE)]);
        assert_eq!(quiet(d, stale(TWO, Phase::Ready), 0), []);
    }
    // Of the only one, requests would be held as long.
    let mut o = observed(&[stale(ONE, Phase::Ready)]);
    o.gateway.as_mut().expect("a report").open = [(ONE, 100)].into();
    assert_eq!(steps(&desired(), &o), [Step::Sleep(ONE)]);
}

#[test]
fn one_that_serves_nobody_is_restarted_first_and_at_once() {
    for (phase, step) in [
        (Phase::Starting, Step::Sleep(TWO)),
        (Phase::Stopped, Step::Start(TWO)),
    ] {
        let d = Desired {
            replicas: 2,
            ..desired()
        };
        let o = served(&[stale(ONE, Phase::Ready), stale(TWO, phase)], &[ONE]);
        assert_eq!(steps(&d, &o), [step]);
    }
}

#[test]
fn one_that_dozes_is_stopped_and_started_when_it_is_wanted_awake() {
    let mut o = observed(&[stale(ONE, Phase::Frozen)]);
    o.published = Some(Route::Hold);
    assert_eq!(steps(&desired(), &o), [Step::Sleep(ONE)]);
    let dozing = Desired {
        wanted: Dozing,
        ..desired()
    };
    assert_eq!(steps(&dozing, &o), []);
}
