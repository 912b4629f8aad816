//! Which replicas are kept when there are too many.

use super::*;

#[test]
fn of_too_many_the_most_awake_and_then_the_oldest_are_kept() {
    let three = ReplicaId(3);
    let o = observed(&[
        replica(ONE, LIVE, Phase::Frozen),
        replica(TWO, LIVE, Phase::Ready),
        replica(three, LIVE, Phase::Ready),
    ]);
    let serve = Step::Publish(serve(TWO));
    assert_eq!(
        steps(&desired(), &o),
        [serve, Step::Remove(ONE), Step::Remove(three)]
    );
}

#[test]
fn of_those_that_serve_the_busiest_are_kept_and_whoever_was_chosen_to_go_goes() {
    let ready = |id| replica(id, LIVE, Phase::Ready);
    let three = ReplicaId(3);
    let mut o = observed(&[ready(ONE), ready(TWO), ready(three)]);
    let all = Route::Serve {
        live: vec![ONE, TWO, three],
        canary: Vec::new(),
    };
    o.published = Some(all);
    let gateway = o.gateway.get_or_insert_default();
    gateway.in_flight = [(ONE, 1), (TWO, 2)].into();
    gateway.open = [(three, 4)].into();
    let one = desired();
    assert_eq!(steps(&one, &o)[0], Step::Publish(serve(three)));
    let two = Desired {
        replicas: 2,
        ..one.clone()
    };
    let route = Route::Serve {
        live: vec![TWO, three],
        canary: Vec::new(),
    };
    assert_eq!(steps(&two, &o)[0], Step::Publish(route.clone()));
    // What it does changes nothing any more: it is on its way out.
    o.published = Some(route);
    let gateway = o.gateway.get_or_insert_default();
    gateway.in_flight = [(ONE, 9)].into();
    gateway.open.clear();
    assert!(
        steps(&two, &o)
            .iter()
            .all(|step| !matches!(step, Step::Publish(_)))
    );
}
