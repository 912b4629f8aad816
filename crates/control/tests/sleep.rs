//! Going down the ladder, and waking.

mod common;

use common::{World, compose};
use layby_control::api::types::ServiceView;
use layby_engine::fake::FakeOptions;
use layby_model::replica::Phase;
use layby_model::route::{Mode, Traffic};
use layby_model::state::Showing;
use layby_model::{State, Wakefulness};

const ID: &str = "shop/web";
const NEVER: &str = "x-layby: {sleep: {doze_after: never, sleep_after: never}}";

async fn order(world: &World, what: &str) -> ServiceView {
    let path = format!("/v1/services/{ID}/{what}");
    let (status, body) = world.ask("POST", &path, Vec::new()).await;
    assert_eq!(status, 200, "{what}: {}", String::from_utf8_lossy(&body));
    serde_json::from_slice(&body).expect("a view")
}

fn mode(world: &World) -> Mode {
    let id = ID.parse().expect("an id");
    world.tables.borrow().services[&id].mode.clone()
}

#[tokio::test]
async fn a_service_dozes_sleeps_and_wakes_on_order() {
    let world = World::new().await;
    world.up(&compose("fake/ok", NEVER)).await;
    for (what, showing, phase) in [
        ("doze", Showing::Dozing, Phase::Frozen),
        ("wake", Showing::Awake, Phase::Ready),
        ("sleep", Showing::Asleep, Phase::Stopped),
        ("doze", Showing::Dozing, Phase::Frozen),
        ("sleep", Showing::Asleep, Phase::Stopped),
        ("sleep", Showing::Asleep, Phase::Stopped),
        ("wake", Showing::Awake, Phase::Ready),
    ] {
        let view = order(&world, what).await;
        assert_eq!(
            (view.state, view.wakefulness),
            (State::Running, Some(showing)),
            "{what}"
        );
        let replicas = world.replicas().await;
        assert_eq!(
            replicas.iter().map(|r| r.phase).collect::<Vec<_>>(),
            [phase],
            "{what}"
        );
        assert_eq!(mode(&world) == Mode::Hold, what != "wake", "{what}");
    }
    let wake = world.detail(ID).await.last_wake.expect("it was woken");
    assert_eq!((wake.from, wake.held_ms), (Wakefulness::Asleep, None));
}

/// Lets idleness do its work, wakes by demand, and does both once more.
async fn rest_and_wake_twice(ladder: &str, rests: Showing, phase: Phase) {
    let world = World::new().await;
    world.up(&compose("fake/ok", ladder)).await;
    let id = ID.parse().expect("an id");
    for _ in 0..2 {
        let at = |r: &layby_control::api::types::ReplicaView| r.phase == phase;
        world
            .until(ID, |d| {
                d.view.wakefulness == Some(rests) && d.replicas.iter().all(at)
            })
            .await;
        assert_eq!(mode(&world), Mode::Hold);
        world.gateway.ask(ID, 1);
        world
            .until_table(|t| matches!(t.services[&id].mode, Mode::Serve { .. }))
            .await;
        world
            .until(ID, |d| d.view.wakefulness == Some(Showing::Awake))
            .await;
        world.gateway.ask(ID, 0);
        let wake = world.detail(ID).await.last_wake.expect("it was woken");
        assert!(wake.held_ms.is_some());
    }
}

#[tokio::test]
async fn idleness_makes_it_doze_and_demand_wakes() {
    let ladder = "x-layby: {sleep: {doze_after: 200ms, sleep_after: 1h}}";
    rest_and_wake_twice(ladder, Showing::Dozing, Phase::Frozen).await;
}

#[tokio::test]
async fn idleness_puts_it_to_sleep_and_demand_wakes() {
    let ladder = "x-layby: {sleep: {doze_after: never, sleep_after: 200ms}}";
    rest_and_wake_twice(ladder, Showing::Asleep, Phase::Stopped).await;
}

#[tokio::test]
async fn what_dozes_goes_to_sleep_in_the_end() {
    let world = World::new().await;
    let ladder = "x-layby: {sleep: {doze_after: 50ms, sleep_after: 300ms}}";
    world.up(&compose("fake/ok", ladder)).await;
    world
        .until(ID, |d| d.view.wakefulness == Some(Showing::Asleep))
        .await;
    world
        .until_replicas(|all| all.len() == 1 && all[0].phase == Phase::Stopped)
        .await;
}

#[tokio::test]
async fn what_the_gateway_counts_as_use_keeps_it_awake() {
    let world = World::new().await;
    let ladder = "x-layby: {sleep: {doze_after: 100ms, sleep_after: never}}";
    world.up(&compose("fake/ok", NEVER)).await;
    let replica = world.replicas().await[0].id;
    let in_flight = Traffic {
        uses: 7,
        idle_ms: Some(50_000),
        in_flight: [(replica, 1)].into(),
        ..Traffic::default()
    };
    world.gateway.set_traffic(ID, in_flight.clone());
    world.up(&compose("fake/ok", ladder)).await;
    // The new revision serves; the old one still answers a long request, which keeps both from dozing.
    tokio::time::sleep(std::time::Duration::from_millis(400)).await;
    assert_eq!(
        world.detail(ID).await.view.wakefulness,
        Some(Showing::Awake)
    );
    world.gateway.set_traffic(
        ID,
        Traffic {
            in_flight: Default::default(),
            ..in_flight
        },
    );
    world
        .until(ID, |d| d.view.wakefulness == Some(Showing::Dozing))
        .await;
}

#[tokio::test]
async fn a_request_in_flight_is_not_cut_by_going_to_sleep() {
    let world = World::new().await;
    world.up(&compose("fake/ok", NEVER)).await;
    let replica = world.replicas().await[0].id;
    let traffic = Traffic {
        uses: 1,
        idle_ms: Some(0),
        in_flight: [(replica, 1)].into(),
        ..Traffic::default()
    };
    world.gateway.set_traffic(ID, traffic.clone());
    let sleeping = order(&world, "sleep");
    tokio::pin!(sleeping);
    let id = ID.parse().expect("an id");
    tokio::select! {
        _ = &mut sleeping => panic!("it was stopped under a request"),
        _ = world.until_table(|t| t.services[&id].mode == Mode::Hold) => {}
    }
    let early = tokio::time::timeout(std::time::Duration::from_millis(300), &mut sleeping).await;
    assert!(early.is_err(), "it was stopped under a request");
    assert_eq!(world.replicas().await[0].phase, Phase::Ready);
    assert_eq!(mode(&world), Mode::Hold);
    world.gateway.set_traffic(
        ID,
        Traffic {
            in_flight: Default::default(),
            ..traffic
        },
    );
    sleeping.await;
    assert_eq!(world.replicas().await[0].phase, Phase::Stopped);
}

#[tokio::test]
async fn nothing_is_frozen_before_the_gateway_has_let_go() {
    let world = World::new().await;
    world.up(&compose("fake/ok", NEVER)).await;
    world.gateway.confirms.send_replace(false);
    let dozing = order(&world, "doze");
    tokio::pin!(dozing);
    let early = tokio::time::timeout(std::time::Duration::from_millis(300), &mut dozing).await;
    assert!(early.is_err());
    assert_eq!(world.replicas().await[0].phase, Phase::Ready);
    world.gateway.confirms.send_replace(true);
    dozing.await;
    assert_eq!(world.replicas().await[0].phase, Phase::Frozen);
}

#[tokio::test]
async fn a_service_with_nothing_live_cannot_be_woken() {
    let world = World::new().await;
    world.up(&compose("fake/exits:3", "")).await;
    let (status, _) = world
        .ask("POST", "/v1/services/shop/web/wake", Vec::new())
        .await;
    assert_eq!(status, 409);
    let (status, _) = world
        .ask("POST", "/v1/services/shop/other/wake", Vec::new())
        .await;
    assert_eq!(status, 404);
}

#[tokio::test]
async fn an_engine_that_cannot_freeze_puts_it_to_sleep_instead() {
    let options = FakeOptions {
        can_doze: false,
        ..FakeOptions::default()
    };
    let world = World::with(options).await;
    let ladder = "x-layby: {sleep: {doze_after: 100ms, sleep_after: never}}";
    world.up(&compose("fake/ok", ladder)).await;
    world
        .until(ID, |d| d.view.wakefulness == Some(Showing::Asleep))
        .await;
    world
        .until_replicas(|all| all[0].phase == Phase::Stopped)
        .await;
    let view = order(&world, "doze").await;
    assert_eq!(view.wakefulness, Some(Showing::Asleep));
}

#[tokio::test]
async fn a_crashed_replica_is_started_again_and_a_lost_one_replaced() {
    let world = World::new().await;
    world.up(&compose("fake/ok", NEVER)).await;
    let id = world.replicas().await[0].id;
    assert!(world.fake.crash(id, 7));
    let again = |r: &layby_model::replica::ReplicaReport| r.phase == Phase::Ready && r.run > 1;
    world
        .until_replicas(|all| all.len() == 1 && again(&all[0]))
        .await;
    let detail = world.until(ID, |d| d.view.replicas_ready == 1).await;
    assert_eq!(detail.replicas[0].containers[0].restarts, 1);

    assert!(world.fake.lose(id));
    world
        .until_replicas(|all| all.len() == 1 && all[0].id != id && all[0].phase == Phase::Ready)
        .await;
}

#[tokio::test]
async fn neither_dozing_nor_waking_waits_for_the_disk() {
    let world = World::new().await;
    let ladder = "x-layby: {sleep: {doze_after: 200ms, sleep_after: never}}";
    world.up(&compose("fake/ok", ladder)).await;
    // Another connection holds the write lock: no decision can be written.
    let store = rusqlite::Connection::open(world.dir.path().join("layby.db")).expect("the store");
    store.busy_timeout(common::PATIENCE).expect("a timeout");
    store.execute_batch("BEGIN IMMEDIATE").expect("the lock");
    for _ in 0..2 {
        world
            .until_replicas(|all| all[0].phase == Phase::Frozen)
            .await;
        world.gateway.ask(ID, 1);
        let id = ID.parse().expect("an id");
        world
            .until_table(|t| matches!(t.services[&id].mode, Mode::Serve { .. }))
            .await;
        world.gateway.ask(ID, 0);
    }
    store.execute_batch("ROLLBACK").expect("to let go");
    drop(store);
    // And it is written once it can be.
    world
        .until(ID, |d| d.view.wakefulness == Some(Showing::Dozing))
        .await;
    let written = || {
        let store =
            rusqlite::Connection::open(world.dir.path().join("layby.db")).expect("the store");
        let read = store.query_row("SELECT wanted FROM services", [], |row| {
            row.get::<_, String>(0)
        });
        read.expect("a row")
    };
    let started = std::time::Instant::now();
    while written() != "dozing" {
        assert!(started.elapsed() < common::PATIENCE, "never written");
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
}
