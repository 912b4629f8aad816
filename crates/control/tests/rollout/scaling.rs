//! Services that are scaled by what they have to do.

use layby_control::api::types::{EventKind, EventView, Outcome, ScaleView};
use layby_model::ReplicaId;
use layby_model::replica::Phase;
use layby_model::route::{Mode, RouteTable};
use layby_model::state::Showing;

use crate::ID;
use crate::common::{World, compose};

/// One request at a time for each replica, from 0 to 4, by what is a second ago at most.
const SCALE: &str = "min: 0, max: 4, concurrency: 1, stable_window: 1s, panic_window: 1s";

fn scaled(more: &str) -> String {
    let sleep = "sleep: {doze_after: never, sleep_after: never}";
    compose(
        "fake/ok",
        &format!("x-layby: {{scale: {{{SCALE}}}, {sleep}}}\n{more}"),
    )
}

async fn until_wanted(world: &World, replicas: u32) {
    let all = |ready, wanted| (ready, wanted) == (replicas, replicas);
    world
        .until(ID, |d| all(d.view.replicas_ready, d.view.replicas_wanted))
        .await;
}

fn named(table: &RouteTable) -> Vec<(ReplicaId, Option<u32>)> {
    match &table.services[&ID.parse().expect("an id")].mode {
        Mode::Serve { upstreams, .. } => upstreams
            .iter()
            .map(|u| (u.replica, u.concurrency))
            .collect(),
        Mode::Hold | Mode::Refuse | Mode::Disabled | Mode::Unhealthy => Vec::new(),
    }
}

async fn shown(world: &World) -> ScaleView {
    world.get(&format!("/v1/services/{ID}/scale")).await
}

#[tokio::test]
async fn who_is_held_gets_replicas_at_once_and_they_go_when_there_is_nothing_left_to_do() {
    let world = World::new().await;
    world.up(&scaled("")).await;
    until_wanted(&world, 1).await;
    let table = world.until_table(|table| named(table).len() == 1).await;
    assert_eq!(named(&table)[0].1, Some(1), "one at a time");
    assert!(table.services[&ID.parse().expect("an id")].is_scaled);
    let begun = std::time::Instant::now();
    world.gateway.load(ID, 1, 7);
    until_wanted(&world, 4).await;
    assert!(
        begun.elapsed().as_millis() < 900,
        "it waited for the next second"
    );
    let scale = shown(&world).await;
    assert_eq!((scale.replicas, scale.by_hand), (4, None));
    assert!(
        scale.why.starts_with("the most that it may have; "),
        "{}",
        scale.why
    );
    let seen = scale.seen.expect("it was looked at");
    assert_eq!((seen.in_flight, seen.held, seen.is_burst), (1, 7, true));
    let detail = world.detail(ID).await;
    assert_eq!(
        detail.view.scales.map(|range| (range.min, range.max)),
        Some((0, 4))
    );
    assert_eq!(detail.view.revision, 1, "it is no revision");

    // The one that is busy stays, though it is not the oldest.
    let busy = world.replicas().await[2].id;
    world.gateway.load(ID, 1, 0);
    {
        let mut traffic = world.gateway.traffic.lock().expect("no poison");
        let traffic = traffic
            .get_mut(&ID.parse().expect("an id"))
            .expect("it has some");
        traffic.in_flight = [(busy, 1)].into();
    }
    world
        .until_replicas(|all| all.len() == 1 && all[0].id == busy)
        .await;
    world.gateway.load(ID, 0, 0);
    until_wanted(&world, 1).await;
    let (_, events) = world.ask("GET", "/v1/events", vec![]).await;
    let events = events
        .split(|b| *b == b'\n')
        .filter(|line| !line.is_empty());
    let events: Vec<EventView> = events
        .map(|line| serde_json::from_slice(line).expect("an event"))
        .collect();
    let texts: Vec<&str> = (events.iter())
        .filter(|event| event.kind == EventKind::Scaled)
        .map(|event| event.text.as_str())
        .collect();
    assert!(
        matches!(texts[..], [first] if first.starts_with("scaled from 1 to 4 replicas: the most that it may have; ")),
        "not each step is told: {texts:?}"
    );
}

#[tokio::test]
async fn it_is_scaled_as_far_as_it_fits_and_says_so() {
    let world = World::new().await; // it has 8 GB
    world.up(&scaled("mem_reservation: 3G")).await;
    world.gateway.load(ID, 1, 7);
    until_wanted(&world, 2).await;
    let detail = world
        .until(ID, |d| {
            d.conditions.iter().any(|c| c.contains("not scaled"))
        })
        .await;
    let short = "it is not scaled as far as it needs: there is too little memory for shop/web 4 x 3 GB: with the 0 MB of the \
                 others that is 12 GB, and the machine has 8 GB";
    assert!(
        detail.conditions.iter().any(|c| c == short),
        "{:?}",
        detail.conditions
    );
    assert_eq!(world.detail(ID).await.view.replicas_wanted, 2);
    world.gateway.load(ID, 0, 0);
    let detail = world.until(ID, |d| d.view.replicas_wanted == 1).await;
    assert!(detail.conditions.iter().all(|c| !c.contains("not scaled")));
}

#[tokio::test]
async fn a_number_by_hand_holds_until_it_is_let_go() {
    let world = World::new().await;
    world.up(&scaled("")).await;
    let fixed = world.scale("2").await;
    assert_eq!(fixed.outcomes(), [("web".into(), Outcome::Scaled)]);
    world.gateway.load(ID, 2, 9);
    tokio::time::sleep(std::time::Duration::from_millis(400)).await;
    let scale = shown(&world).await;
    assert_eq!((scale.replicas, scale.by_hand), (2, Some(2)));
    assert!(scale.seen.is_none() && scale.policy.is_some());
    assert_eq!(world.detail(ID).await.view.scales, None);
    let auto = world.scale("null").await;
    assert_eq!(auto.code(), 0);
    until_wanted(&world, 4).await;
}

#[tokio::test]
async fn a_rollout_has_as_many_replicas_as_are_needed_now() {
    let world = World::new().await;
    world.up(&scaled("")).await;
    world.gateway.load(ID, 3, 0);
    until_wanted(&world, 3).await;
    let up = world.up(&scaled("environment: {A: b}")).await;
    assert_eq!(up.outcomes(), [("web".into(), Outcome::Live)]);
    let detail = world.detail(ID).await;
    assert_eq!((detail.view.revision, detail.view.replicas_wanted), (2, 3));
    world
        .until_replicas(|all| all.len() == 3 && all.iter().all(|r| r.revision.0 == 2))
        .await;
}

#[tokio::test]
async fn a_node_that_is_killed_takes_nothing_away_that_is_needed() {
    let mut world = World::new().await;
    world.up(&scaled("")).await;
    world.gateway.load(ID, 4, 0);
    until_wanted(&world, 4).await;
    let before: Vec<ReplicaId> = world.replicas().await.iter().map(|r| r.id).collect();
    world.restart().await;
    let end = std::time::Instant::now() + std::time::Duration::from_millis(1_500);
    while std::time::Instant::now() < end {
        let now: Vec<ReplicaId> = world.replicas().await.iter().map(|r| r.id).collect();
        assert_eq!(now, before);
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    until_wanted(&world, 4).await;
}

#[tokio::test]
async fn it_sleeps_with_the_fewest_and_wakes_with_as_many_as_those_who_are_held_take() {
    let world = World::new().await;
    let sleep = "sleep: {doze_after: never, sleep_after: 300ms}";
    let text = compose(
        "fake/ok",
        &format!("x-layby: {{scale: {{{SCALE}}}, {sleep}}}"),
    );
    world.up(&text).await;
    world.gateway.load(ID, 0, 3);
    until_wanted(&world, 3).await;
    world.gateway.load(ID, 0, 0);
    let asleep = Some(Showing::Asleep);
    let rests = world.until(ID, |d| {
        d.view.wakefulness == asleep && d.view.replicas_wanted == 1
    });
    rests.await;
    world
        .until_replicas(|all| all.len() == 1 && all[0].phase == Phase::Stopped)
        .await;
    assert_eq!(
        shown(&world).await.why,
        "it rests: that is what it wakes with"
    );
    world.gateway.load(ID, 0, 2);
    until_wanted(&world, 2).await;
}

#[tokio::test]
async fn it_comes_back_with_the_fewest_after_it_was_off() {
    let world = World::new().await;
    world.up(&scaled("")).await;
    for on in ["enable", "scale"] {
        world.gateway.load(ID, 0, 3);
        until_wanted(&world, 3).await;
        assert_eq!(world.scale("0").await.code(), 0);
        world.gateway.load(ID, 0, 0);
        match on {
            "scale" => assert_eq!(world.scale("null").await.code(), 0),
            _ => {
                let path = format!("/v1/services/{ID}/{on}");
                assert_eq!(world.ask("POST", &path, vec![]).await.0, 200);
            }
        }
        until_wanted(&world, 1).await;
    }
}
