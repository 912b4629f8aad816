//! Revisions that are tried out on a part of the requests: from the API to the routing table and back.

mod common;

use std::collections::BTreeMap;

use common::{Deployed, World, compose};
use layby_control::api::types::{GivenView, Outcome, RevisionOutcome, RevisionView, ServiceView};
use layby_model::route::{Canary, Mode, Served, Share, Traffic};
use layby_model::{ReplicaId, ServiceId, State};

const ID: &str = "shop/web";

async fn post(world: &World, what: &str) -> Deployed {
    let (status, body) = world
        .ask("POST", &format!("/v1/services/shop/web/{what}"), Vec::new())
        .await;
    Deployed::of(status, &body)
}

/// A service with a live replica.
async fn live() -> World {
    let world = World::new().await;
    assert_eq!(world.up(&compose("fake/ok", "")).await.code(), 0);
    world
}

/// The same with a canary of revision 2 that gets 10 %.
async fn tried() -> World {
    let world = live().await;
    let up = world
        .up_as("shop", &compose("fake/ok:2", ""), "&canary=10%25")
        .await;
    assert_eq!(
        (up.code(), up.outcomes()),
        (0, vec![("web".into(), Outcome::Canary)])
    );
    world
}

fn mode(world: &World) -> Mode {
    let id: ServiceId = ID.parse().expect("an id");
    world.tables.borrow().services[&id].mode.clone()
}

fn canary(world: &World) -> Option<Canary> {
    match mode(world) {
        Mode::Serve { canary, .. } => canary,
        other => panic!("{other:?}"),
    }
}

async fn until_alone(world: &World, revision: u32) {
    let alone = |all: &[layby_model::replica::ReplicaReport]| {
        all.len() == 1 && all[0].revision.0 == revision
    };
    world.until_replicas(alone).await;
}

#[tokio::test]
async fn a_canary_gets_its_share_beside_live_until_it_is_promoted() {
    let world = tried().await;
    let replicas = world.replicas().await;
    let ids: Vec<ReplicaId> = replicas.iter().map(|r| r.id).collect();
    let Mode::Serve { upstreams, canary } = mode(&world) else {
        panic!("it does not serve");
    };
    let canary = canary.expect("a canary");
    assert_eq!(canary.share, Share::Percent(10));
    assert_eq!(
        (upstreams[0].replica, canary.upstreams[0].replica),
        (ids[0], ids[1])
    );
    let detail = world.detail(ID).await;
    assert_eq!(
        (detail.view.state, detail.view.revision),
        (State::Updating, 1)
    );
    let view = detail.view.canary.expect("a canary");
    assert_eq!(
        (view.revision, view.share.as_str(), view.serves),
        (2, "10 %", true)
    );

    let promoted = post(&world, "promote").await;
    assert_eq!(promoted.outcomes(), [("web".into(), Outcome::Live)]);
    until_alone(&world, 2).await;
    let view = world.detail(ID).await.view;
    assert_eq!(
        (view.state, view.revision, view.canary),
        (State::Running, 2, None)
    );
}

#[tokio::test]
async fn a_canary_keeps_its_limit_beside_a_live_that_has_none() {
    let world = live().await;
    let id: ServiceId = ID.parse().expect("an id");
    assert!(!world.tables.borrow().services[&id].is_scaled);
    let limited = "x-layby: {scale: {max: 2, concurrency: 1}}";
    let up = world
        .up_as("shop", &compose("fake/ok:2", limited), "&canary=10%25")
        .await;
    assert_eq!(up.outcomes(), [("web".into(), Outcome::Canary)], "{up:#?}");
    let limits = canary(&world).expect("a canary").upstreams;
    assert_eq!(limits[0].concurrency, Some(1));
    assert!(world.tables.borrow().services[&id].is_scaled);
    let (status, _) = world
        .ask("POST", "/v1/services/shop/web/abort", Vec::new())
        .await;
    assert_eq!(status, 200);
    world.until_table(|t| !t.services[&id].is_scaled).await;
}

#[tokio::test]
async fn an_aborted_canary_goes_and_live_was_never_touched() {
    let world = tried().await;
    let before = world.replicas().await[0].clone();
    let (status, body) = world
        .ask("POST", "/v1/services/shop/web/abort", Vec::new())
        .await;
    assert_eq!(status, 200);
    let view: ServiceView = serde_json::from_slice(&body).expect("a service");
    assert_eq!(
        (view.revision, view.failed_revision, view.canary),
        (1, None, None)
    );
    let aborted = view.aborted.expect("it was called off");
    assert_eq!((aborted.revision, aborted.by.as_str()), (2, "root"));
    let detail = world.detail(ID).await;
    assert_eq!(detail.last_failure, None, "nothing has failed");
    assert_eq!(detail.conditions, ["revision 2 was aborted by root"]);
    until_alone(&world, 1).await;
    assert_eq!(world.replicas().await, [before]);
    let history: Vec<RevisionView> = world.get("/v1/services/shop/web/history").await;
    assert_eq!(history[0].outcome, RevisionOutcome::Aborted);
    let failure = history[0].failure.as_ref().expect("why");
    assert_eq!(failure.reason, "aborted by root");
    assert_eq!(failure.aborted_by.as_deref(), Some("root"));
    // It is not deployed again by itself, but by another word.
    assert_eq!(
        world.up(&compose("fake/ok:2", "")).await.outcomes(),
        [("web".into(), Outcome::Live)]
    );
}

#[tokio::test]
async fn a_canary_outlives_the_node_and_is_compared_with_live_from_its_beginning_on() {
    let mut world = live().await;
    let given = |requests, errors| Served { requests, errors };
    let one = world.replicas().await[0].id;
    let served = |of: BTreeMap<ReplicaId, Served>| Traffic {
        served: of,
        ..Traffic::default()
    };
    world
        .gateway
        .set_traffic(ID, served([(one, given(1000, 10))].into()));
    world
        .up_as("shop", &compose("fake/ok:2", ""), "&canary_cookie=beta")
        .await;
    let two = world.replicas().await[1].id;
    let now = [(one, given(1090, 11)), (two, given(10, 3))].into();
    world.gateway.set_traffic(ID, served(now));
    for view in [world.detail(ID).await.view, world.list().await.remove(0)] {
        let view = view.canary.expect("a canary");
        let told = |requests, errors| GivenView { requests, errors };
        assert_eq!((view.given, view.given_live), (told(10, 3), told(90, 1)));
    }
    world.restart().await;
    let view = world
        .until(ID, |d| d.view.canary.as_ref().is_some_and(|c| c.serves))
        .await;
    assert_eq!(view.view.canary.expect("a canary").share, "cookie beta");
    let share = canary(&world).expect("a canary").share;
    assert_eq!(share, Share::cookie("beta").expect("a share"));
}

#[tokio::test]
async fn a_canary_that_a_deploy_ends_is_named_in_a_warning_and_before_in_a_dry_run() {
    let world = tried().await;
    let ends = "the canary of shop/web ends: revision 2 was tried out on 10 %, beside revision 1, and a newer one takes its place";
    let same = world.up(&compose("fake/ok:2", "")).await;
    assert_eq!(same.warnings(), [] as [&str; 0], "it goes on");
    let other = compose("fake/ok", "environment: {A: b}");
    let dry = world.up_as("shop", &other, "&dry_run=true").await;
    assert_eq!(dry.warnings(), [ends]);
    assert!(world.detail(ID).await.view.canary.is_some());
    let up = world.up(&other).await;
    assert_eq!((up.code(), up.warnings()), (0, vec![ends]));
    assert_eq!(world.detail(ID).await.view.revision, 3);
}

#[tokio::test]
async fn a_canary_that_comes_to_nothing_fails_and_live_was_never_touched() {
    let world = live().await;
    let before = world.replicas().await;
    let up = world
        .up_as("shop", &compose("fake/exits:3", ""), "&canary=50%25")
        .await;
    assert_eq!(
        (up.code(), up.outcomes()),
        (3, vec![("web".into(), Outcome::Kept)])
    );
    until_alone(&world, 1).await;
    assert_eq!(world.replicas().await, before);
    assert_eq!(canary(&world), None);
}

#[tokio::test]
async fn a_canary_whose_replicas_are_lost_leaves_all_requests_to_live() {
    let world = live().await;
    let vanishes = compose("fake/vanishes-after:300ms", "");
    let up = world.up_as("shop", &vanishes, "&canary=50%25").await;
    assert_eq!(up.outcomes(), [("web".into(), Outcome::Canary)], "{up:#?}");
    let id: ServiceId = ID.parse().expect("an id");
    world
        .until_table(|t| matches!(&t.services[&id].mode, Mode::Serve { canary: None, .. }))
        .await;
}

#[tokio::test]
async fn what_cannot_be_tried_out_promoted_or_aborted_is_refused_with_the_reason() {
    let world = live().await;
    let refused = async |what: &str, because: &str| {
        let answer = post(&world, what).await;
        let problem = answer.problem();
        assert_eq!(problem.status, 409, "{what}: {problem:?}");
        assert!(
            problem.detail.contains(because),
            "{what}: {}",
            problem.detail
        );
    };
    refused(
        "promote",
        "nothing of shop/web is on its way: revision 1 is live",
    )
    .await;
    refused(
        "abort",
        "nothing of shop/web is on its way: revision 1 is live",
    )
    .await;
    let stop_first = compose("fake/ok:2", "deploy: {update_config: {order: stop-first}}");
    let up = world.up_as("shop", &stop_first, "&canary=10%25").await;
    assert!(up.problem().detail.contains("stop-first"), "{up:#?}");
    for (query, because) in [
        ("canary=100%25", "`100%` is no share"),
        ("canary=5%25&canary_cookie=x", "one thing alone"),
        (
            "canary_header=a%20b",
            "`a b` cannot be the name of a header",
        ),
    ] {
        let answer = post(&world, &format!("deploy?{query}")).await;
        assert_eq!(answer.problem().status, 400);
        assert!(answer.problem().detail.contains(because), "{answer:#?}");
    }
    let up = world
        .up_as("shop", &compose("fake/ok:2", ""), "&canary_header=X-Beta")
        .await;
    assert_eq!(up.outcomes(), [("web".into(), Outcome::Canary)]);
    refused("deploy", "revision 2 of shop/web is tried out as a canary").await;
    refused(
        "redeploy",
        "revision 2 of shop/web is tried out as a canary",
    )
    .await;
    // Another canary takes its place, and a whole deploy overtakes it.
    let again = post(&world, "deploy?canary=20%25").await;
    assert_eq!(again.outcomes(), [("web".into(), Outcome::Canary)]);
    assert_eq!(
        world
            .up(&compose("fake/ok", "environment: {A: b}"))
            .await
            .code(),
        0
    );
    refused("promote", "revision").await;
}
