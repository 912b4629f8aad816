//! The control plane killed and started again, over the same engine, store and gateway.

mod common;

use std::time::Duration;

use common::{World, compose};
use layby_control::{Control, ControlConfig, Error, StoreError, Wires};
use layby_engine::fake::{Fake, FakeOptions};
use layby_model::State;
use layby_model::engine::Engine;
use layby_model::replica::Phase;
use layby_model::route::{Mode, Traffic};
use layby_model::state::Showing;

const ID: &str = "shop/web";
const NEVER: &str = "x-layby: {sleep: {doze_after: never, sleep_after: never}}";

#[tokio::test]
async fn what_ran_is_found_again_untouched() {
    let mut world = World::new().await;
    world.up(&compose("fake/ok", NEVER)).await;
    let before = world.replicas().await;
    let version = world.tables.borrow().version;
    let left = world.dir.path().join("tmp").join("upload-cut-short");
    std::fs::create_dir_all(&left).expect("a folder");
    world.restart().await;
    assert!(!left.exists());
    let id = ID.parse().expect("an id");
    let table = world
        .until_table(|t| {
            t.services
                .get(&id)
                .is_some_and(|s| matches!(s.mode, Mode::Serve { .. }))
        })
        .await;
    assert!(
        table.version > version,
        "{:?} after {version:?}",
        table.version
    );
    assert_eq!(world.replicas().await, before);
    assert_eq!(world.up(&compose("fake/ok", NEVER)).await.code(), 0);
}

#[tokio::test]
async fn a_rollout_that_was_cut_short_goes_on() {
    let mut world = World::new().await;
    world.up(&compose("fake/ok", NEVER)).await;
    let up = world
        .up_as("shop", &compose("fake/slow:300ms", NEVER), "&detach=1")
        .await;
    assert_eq!(up.code(), 0);
    world
        .until_replicas(|all| all.iter().any(|r| r.revision.0 == 2))
        .await;
    world.restart().await;
    let detail = world.until(ID, |d| d.view.revision == 2).await;
    assert_eq!(detail.view.image, "fake/slow:300ms");
    world
        .until_replicas(|all| all.len() == 1 && all[0].revision.0 == 2)
        .await;
}

#[tokio::test]
async fn a_rollout_that_was_cut_short_does_not_go_live_before_its_port_was_tried() {
    let mut world = World::new().await;
    world
        .gateway
        .taken
        .lock()
        .expect("no poison")
        .insert(31_995);
    world.gateway.confirms.send_replace(false);
    let manifest = compose("fake/ok", &format!("ports: ['31995:8080']\n{NEVER}"));
    world.up_as("shop", &manifest, "&detach=1").await;
    world
        .until_replicas(|all| all.len() == 1 && all[0].phase == Phase::Ready)
        .await;
    world.restart().await;
    let first = world.until_table(|t| !t.listeners.is_empty()).await;
    assert!(first.version.life > 1);
    world.gateway.confirms.send_replace(true);
    let detail = world.until(ID, |d| d.view.state != State::Deploying).await;
    assert_eq!(detail.view.state, State::Ready, "{detail:#?}");
    assert!(
        detail
            .conditions
            .iter()
            .any(|c| c.contains("cannot be listened on")),
        "{detail:#?}"
    );
}

#[tokio::test]
async fn a_port_that_is_opened_later_is_no_condition_any_more() {
    let mut world = World::new().await;
    let manifest = compose("fake/ok", &format!("ports: ['31994:8080']\n{NEVER}"));
    assert_eq!(world.up(&manifest).await.code(), 0);
    // While the node was down, another program took the port.
    world.kill();
    world
        .gateway
        .taken
        .lock()
        .expect("no poison")
        .insert(31_994);
    world.start().await;
    let failed = |c: &String| c.contains("31994 cannot be listened on");
    let detail = world.until(ID, |d| d.conditions.iter().any(failed)).await;
    assert_eq!(detail.view.state, State::Running);
    world
        .gateway
        .confirmed
        .send_modify(|confirmed| confirmed.failed_listeners.clear());
    world.until(ID, |d| d.conditions.is_empty()).await;
}

#[tokio::test]
async fn why_the_last_deploy_failed_is_still_known() {
    let mut world = World::new().await;
    world.up(&compose("fake/ok", NEVER)).await;
    world.up(&compose("fake/exits:3", NEVER)).await;
    world.restart().await;
    let detail = world
        .until(ID, |d| d.view.wakefulness == Some(Showing::Awake))
        .await;
    assert!(
        detail.conditions.iter().any(|c| c.contains("exit code 3")),
        "{detail:#?}"
    );
    world.until_replicas(|all| all.len() == 1).await;
}

#[tokio::test]
async fn who_sleeps_is_not_woken_by_it_and_who_was_woken_is_not_put_to_sleep() {
    let mut world = World::new().await;
    world.up(&compose("fake/ok", NEVER)).await;
    world
        .ask("POST", "/v1/services/shop/web/doze", Vec::new())
        .await;
    world.restart().await;
    world
        .until(ID, |d| d.view.wakefulness == Some(Showing::Dozing))
        .await;
    assert_eq!(world.replicas().await[0].phase, Phase::Frozen);

    // Woken while nobody looks: the more awake of stored and observed wins.
    world.kill();
    let replica = world.replicas().await[0].clone();
    let order = layby_model::engine::Workload {
        service: replica.service.clone(),
        revision: replica.revision,
        generation: replica.generation,
        spec: layby_model::engine::RunSpec {
            service: spec(),
            images: vec!["sha256:0".into()],
        },
        replicas: [(replica.id, layby_model::Wakefulness::Awake)].into(),
        retire: Vec::new(),
    };
    world.fake.apply(&order).await.expect("the fake obeys");
    world.start().await;
    world
        .until(ID, |d| d.view.wakefulness == Some(Showing::Awake))
        .await;
}

fn spec() -> layby_model::spec::ServiceSpec {
    layby_model::spec::ServiceSpec {
        progress_deadline_ms: Some(1),
        drain_ms: 1,
        ..layby_model::spec::ServiceSpec::new(
            layby_model::ServiceName::new("web").expect("a label"),
        )
    }
}

#[tokio::test]
async fn replicas_of_no_service_are_removed() {
    let mut world = World::new().await;
    world.kill();
    let order = |generation, replica| layby_model::engine::Workload {
        service: "gone/web".parse().expect("an id"),
        revision: layby_model::RevisionId(1),
        generation,
        spec: layby_model::engine::RunSpec {
            service: spec(),
            images: Vec::new(),
        },
        replicas: [(
            layby_model::ReplicaId(replica),
            layby_model::Wakefulness::Awake,
        )]
        .into(),
        retire: Vec::new(),
    };
    // The first is of an older generation than the last order that the engine had for its service.
    for order in [order(1, 8), order(2, 9)] {
        world.fake.apply(&order).await.expect("the fake obeys");
    }
    world.start().await;
    world.until_replicas(<[_]>::is_empty).await;
}

#[tokio::test]
async fn a_removal_that_was_cut_short_goes_on() {
    let mut world = World::new().await;
    world.up(&compose("fake/ok", NEVER)).await;
    world.gateway.confirms.send_replace(false);
    let going = |c: &String| c.contains("taken down");
    tokio::select! {
        _ = world.ask("DELETE", "/v1/apps/shop", Vec::new()) => panic!("the gateway has not let go yet"),
        _ = world.until(ID, |d| d.conditions.iter().any(going)) => {}
    }
    let up = world.up(&compose("fake/ok", NEVER)).await;
    assert_eq!(up.status, 409, "it is on its way out");
    let (status, _) = world
        .ask("POST", "/v1/services/shop/web/wake", Vec::new())
        .await;
    assert_eq!(status, 409);
    world.kill();
    world.gateway.confirms.send_replace(true);
    world.start().await;
    world.until_replicas(<[_]>::is_empty).await;
    world.until_table(|t| t.services.is_empty()).await;
}

#[tokio::test]
async fn stopping_all_removes_the_replicas_and_the_next_start_makes_them_anew() {
    let mut world = World::new().await;
    world.up(&compose("fake/ok", NEVER)).await;
    let (status, _) = world.ask("POST", "/v1/node/stop?all=1", Vec::new()).await;
    assert_eq!(status, 202);
    let asked = world.control().stop_requested().await;
    assert!(asked.all);
    world.take_control().shutdown(asked.all).await;
    assert_eq!(world.replicas().await, []);
    world.kill();
    world.start().await;
    world.until(ID, |d| d.view.replicas_ready == 1).await;
}

#[tokio::test]
async fn stopping_all_leaves_requests_in_flight_their_time() {
    let mut world = World::new().await;
    world.up(&compose("fake/ok", NEVER)).await;
    let replica = world.replicas().await[0].id;
    let counts = [
        Traffic {
            in_flight: [(replica, 1)].into(),
            ..Traffic::default()
        },
        Traffic {
            awaited: [(replica, 1)].into(),
            ..Traffic::default()
        },
    ];
    world.gateway.set_traffic(ID, counts[0].clone());
    let stopping = world.take_control().shutdown(true);
    tokio::pin!(stopping);
    for traffic in counts {
        world.gateway.set_traffic(ID, traffic);
        let early = tokio::time::timeout(Duration::from_millis(200), &mut stopping).await;
        assert!(early.is_err(), "it was stopped under a request");
        assert_eq!(world.replicas().await[0].phase, Phase::Ready);
    }
    world.gateway.set_traffic(ID, Traffic::default());
    stopping.await;
    assert_eq!(world.replicas().await, []);
}

#[tokio::test]
async fn the_data_of_a_newer_layby_is_left_alone() {
    let mut world = World::new().await;
    world.kill();
    let file = world.dir.path().join("layby.db");
    // The store's thread outlives the kill by a moment; the last one who closes the database removes its log.
    world
        .until_gone(&world.dir.path().join("layby.db-wal"))
        .await;
    let left = world.dir.path().join("tmp").join("upload");
    std::fs::create_dir_all(&left).expect("a folder");
    let db = rusqlite::Connection::open(&file).expect("the store");
    db.pragma_update(None, "user_version", 99)
        .expect("to write");
    drop(db);
    let bytes = std::fs::read(&file).expect("the file");
    let (tables, _keep) = tokio::sync::watch::channel(Default::default());
    let wires = Wires {
        tables,
        confirmed: world.gateway.confirmed.subscribe(),
        demand: world.gateway.demand.subscribe(),
        traffic: std::sync::Arc::new(|_| Default::default()),
        names: world.gateway.names.clone(),
        secrets: Default::default(),
        dropped_ports: std::sync::Arc::new(|_| Box::pin(async { Vec::new() })),
    };
    let config = ControlConfig {
        prune: Default::default(),
        registry: Default::default(),
        data_dir: world.dir.path().to_owned(),
        domain: "localhost".into(),
        http: ([127, 0, 0, 1], 8080).into(),
        publish_on: [127, 0, 0, 1].into(),
        allow_privileged: false,
        shifts_ids: true,
        api: None,
        registries: Default::default(),
        master_key: layby_control::MasterKey::File(world.dir.path().join("master.key")),
        forget_secrets: false,
        version: "0.0.0-test".into(),
        virtual_range: ([10, 1, 240, 0].into(), 20),
        machine: layby_model::capacity::Machine {
            memory_bytes: 8 << 30,
            cpu_milli: 4_000,
            addresses: 253,
        },
        sample_every: std::time::Duration::from_secs(15),
    };
    let fake = std::sync::Arc::new(Fake::new(FakeOptions::default()));
    let refused = Control::start(
        config,
        fake.clone(),
        fake,
        world.images.clone(),
        None,
        wires,
    )
    .await;
    match refused.err() {
        Some(Error::Store(error @ StoreError::Newer { found: 99, .. })) => {
            assert!(error.to_string().contains("newer Layby"), "{error}");
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(std::fs::read(&file).expect("the file"), bytes);
    assert!(
        left.exists(),
        "what the newer one left is not ours to remove"
    );
}
