//! Restart policies, crash loops, and how ends are told, from the manifest to the API.

mod common;

use common::{World, compose};
use layby_control::api::types::Outcome;
use layby_model::State;
use layby_model::replica::Phase;
use layby_model::route::Mode;
use layby_model::state::Showing;

const ID: &str = "shop/web";

async fn until_refused(world: &World) {
    let id = ID.parse().expect("an id");
    world
        .until_table(|t| t.services.get(&id).map(|s| &s.mode) == Some(&Mode::Refuse))
        .await;
}

#[tokio::test]
async fn a_service_that_is_never_restarted_shows_as_ended_and_refuses_until_it_is_woken() {
    let world = World::new().await;
    let up = world.up(&compose("fake/ok", "restart: 'no'")).await;
    assert_eq!(up.code(), 0, "{up:#?}");
    let replica = world.replicas().await[0].id;
    assert!(world.fake.crash(replica, 3));

    let ended =
        |d: &layby_control::api::types::ServiceDetail| d.view.wakefulness == Some(Showing::Ended);
    let detail = world.until(ID, ended).await;
    assert_eq!(detail.view.state, State::Running);
    let told = &detail.conditions;
    assert!(
        told.iter()
            .any(|c| c.contains("exit code 3") && c.contains("layby wake")),
        "{told:?}"
    );
    until_refused(&world).await;
    let all = world.replicas().await;
    assert_eq!(
        (all.len(), all[0].id, all[0].phase),
        (1, replica, Phase::Stopped)
    );

    let (status, _) = world
        .ask("POST", "/v1/services/shop/web/wake", vec![])
        .await;
    assert_eq!(status, 200);
    let woken = world.detail(ID).await;
    assert_eq!(woken.view.wakefulness, Some(Showing::Awake));
    assert_eq!(world.replicas().await[0].id, replica);
}

#[tokio::test]
async fn a_restarted_node_does_not_start_what_its_policy_leaves_as_it_ended() {
    let mut world = World::new().await;
    world.up(&compose("fake/ok", "restart: 'no'")).await;
    let replica = world.replicas().await[0].id;
    assert!(world.fake.crash(replica, 0));
    until_refused(&world).await;
    world.restart().await;
    let ended = world
        .until(ID, |d| d.view.wakefulness == Some(Showing::Ended))
        .await;
    assert_eq!(ended.replicas[0].id, replica.to_string());
    assert_eq!(world.replicas().await[0].run, 1, "it was started once");
}

#[tokio::test]
async fn a_task_that_ends_well_is_live_and_runs_again_when_it_is_deployed_again() {
    let world = World::new().await;
    let task = compose("fake/exits:0", "restart: on-failure");
    for revision in 1..=2 {
        let up = world.up(&task).await;
        assert_eq!(
            (up.code(), up.outcomes()),
            (0, vec![("web".into(), Outcome::Live)])
        );
        let detail = world
            .until(ID, |d| d.view.wakefulness == Some(Showing::Ended))
            .await;
        assert_eq!(detail.view.revision, revision);
    }
    world
        .until_replicas(|all| all.len() == 1 && all[0].revision.0 == 2)
        .await;
}

#[tokio::test]
async fn a_task_that_ends_badly_fails_at_once() {
    let world = World::new().await;
    let up = world.up(&compose("fake/exits:3", "restart: 'no'")).await;
    assert_eq!(up.code(), 1, "{up:#?}");
    let failure = up.failure();
    assert!(
        failure.reason.contains("restart policy"),
        "{}",
        failure.reason
    );
    assert_eq!(failure.exit.map(|exit| exit.code), Some(3));
    let detail = world.detail(ID).await;
    assert_eq!(
        (detail.view.state, detail.view.failed_revision),
        (State::Ready, Some(1))
    );
    // What there is to find the cause stays to be seen.
    let kept = detail.last_failure.expect("a failure");
    assert_eq!(kept, failure);
    assert!(!kept.log.is_empty());
}

#[tokio::test]
async fn retries_on_failure_are_counted() {
    let world = World::new().await;
    world.up(&compose("fake/ok", "restart: on-failure:2")).await;
    let replica = world.replicas().await[0].id;
    for run in 1..=3 {
        let runs = move |all: &[layby_model::replica::ReplicaReport]| {
            all[0].phase == Phase::Ready && all[0].run == run
        };
        world.until_replicas(runs).await;
        assert!(world.fake.crash(replica, 1));
    }
    world
        .until(ID, |d| d.view.wakefulness == Some(Showing::Ended))
        .await;
    assert_eq!(world.replicas().await[0].run, 3);
}

#[tokio::test]
async fn retries_of_one_container_of_several_are_counted_and_its_replica_is_not_started_for_more() {
    let world = World::new().await;
    let task = "  task:\n    image: fake/exits:0\n    network_mode: service:web\n    restart: on-failure:2\n";
    let both = compose("fake/ok", "restart: on-failure:2") + "\n" + task;
    let up = world.up(&both).await;
    assert_eq!(up.code(), 0, "{up:#?}");
    let replica = world.replicas().await[0].id;
    for starts in 1..=3 {
        let runs = move |all: &[layby_model::replica::ReplicaReport]| {
            let web = &all[0].containers[0];
            web.starts == starts && web.pid.is_some()
        };
        world.until_replicas(runs).await;
        assert!(world.fake.crash(replica, 1));
    }
    world
        .until(ID, |d| d.view.wakefulness == Some(Showing::Ended))
        .await;
    let left = &world.replicas().await[0];
    assert_eq!((left.run, left.containers[0].starts), (1, 3));
}

#[tokio::test]
async fn a_crash_loop_is_told_with_its_cause_and_the_next_try() {
    let world = World::new().await;
    world.up(&compose("fake/ok", "")).await;
    let replica = world.replicas().await[0].id;
    for run in 1..=6 {
        let runs = move |all: &[layby_model::replica::ReplicaReport]| {
            all[0].phase == Phase::Ready && all[0].run == run
        };
        world.until_replicas(runs).await;
        assert!(world.fake.crash(replica, 7));
    }
    let looping = |d: &layby_control::api::types::ServiceDetail| {
        d.conditions.iter().any(|c| {
            c.starts_with("crash loop:")
                && c.contains("exit code 7")
                && c.contains("6 times in a row")
                && c.contains("next try in")
        })
    };
    world.until(ID, looping).await;
}

#[tokio::test]
async fn want_of_memory_is_told_apart_from_an_exit() {
    let world = World::new().await;
    let up = world
        .up(&compose("fake/oom", "mem_limit: 64m\nrestart: 'no'"))
        .await;
    assert_eq!(up.code(), 1);
    let failure = up.failure();
    assert!(
        failure.reason.contains("want of memory"),
        "{}",
        failure.reason
    );
    assert!(failure.exit.is_some_and(|exit| exit.oom));
}
