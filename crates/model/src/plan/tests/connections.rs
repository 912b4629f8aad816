//! Connections that speak no HTTP as far as anybody knows, and what they hold back.

use super::*;

#[test]
fn a_quiet_connection_gives_a_replica_that_is_replaced_its_time() {
    let replaced = Desired {
        live: Some(TARGET),
        target: Some(TARGET),
        ..desired()
    };
    let open = |d: &Desired, phase, age_ms| {
        let mut o = observed(&[
            replica(ONE, LIVE, phase),
            replica(TWO, TARGET, Phase::Ready),
        ]);
        o.published = Some(serve(TWO));
        o.gateway.as_mut().expect("a report").open = [(ONE, 1)].into();
        let o = aged(d, o, age_ms);
        assert_eq!(
            drains(d, &o, &o.replicas[0]),
            steps(d, &o).is_empty() || age_ms > 0
        );
        steps(d, &o)
    };
    let remove = [Step::Remove(ONE)];
    assert_eq!(open(&replaced, Phase::Ready, 0), []);
    assert_eq!(open(&replaced, Phase::Ready, replaced.drain_ms), remove);
    assert_eq!(
        open(&replaced, Phase::Frozen, 0),
        remove,
        "nobody is heard in there"
    );
    let stop_first = Desired {
        stop_first: true,
        ..replaced
    };
    assert_eq!(
        open(&stop_first, Phase::Ready, 0),
        remove,
        "the next one waits"
    );
}

#[test]
fn a_client_that_waits_for_an_answer_gives_any_replica_its_time_that_still_runs() {
    let asleep = Desired {
        wanted: Asleep,
        ..desired()
    };
    let dozing = Desired {
        wanted: Dozing,
        ..desired()
    };
    let off = Desired {
        enabled: false,
        ..desired()
    };
    let awaited = |d: &Desired, phase, age_ms| {
        let mut o = observed(&[replica(ONE, LIVE, phase)]);
        o.published = Some(if d.enabled {
            Route::Hold
        } else {
            Route::Refuse
        });
        let gateway = o.gateway.as_mut().expect("a report");
        (gateway.open, gateway.awaited) = ([(ONE, 1)].into(), [(ONE, 1)].into());
        let o = aged(d, o, age_ms);
        next_steps(d, &o, d.wanted)
    };
    for (d, step) in [
        (&asleep, Step::Sleep(ONE)),
        (&dozing, Step::Freeze(ONE)),
        (&off, Step::Remove(ONE)),
    ] {
        assert_eq!(awaited(d, Phase::Ready, 0), []);
        assert_eq!(awaited(d, Phase::Ready, d.drain_ms), [step]);
    }
    assert_eq!(
        awaited(&off, Phase::Frozen, 0),
        [Step::Remove(ONE)],
        "nothing is answered from in there"
    );
}
