//! The record of revisions, ways back and anew, and services that are switched off and on.

mod common;

use layby_control::api::types::{DiffView, Outcome, RevisionOutcome, RevisionView, ServiceView};
use layby_model::State;
use layby_model::replica::Phase;
use layby_model::route::Mode;
use layby_model::state::Showing;

use common::{Deployed, World, compose};

const WEB: &str = "shop/web";

async fn history(world: &World) -> Vec<RevisionView> {
    world.get("/v1/services/shop/web/history").await
}

async fn post(world: &World, what: &str) -> Deployed {
    let path = format!("/v1/services/shop/web/{what}");
    let (status, body) = world.ask("POST", &path, Vec::new()).await;
    Deployed::of(status, &body)
}

fn one(outcome: Outcome) -> Vec<(String, Outcome)> {
    vec![("web".to_owned(), outcome)]
}

/// `(revision, outcome, active)` of each, the newest first.
fn told(history: &[RevisionView]) -> Vec<(u32, RevisionOutcome, bool)> {
    let all = history.iter();
    all.map(|r| (r.revision, r.outcome, r.active)).collect()
}

#[tokio::test]
async fn each_revision_is_kept_with_who_made_it_and_why_and_what_became_of_it() {
    use RevisionOutcome::{Failed, Live, Superseded};
    let world = World::new().await;
    assert_eq!(world.up(&compose("fake/ok", "")).await.code(), 0);
    assert_eq!(world.up(&compose("fake/no-command", "")).await.code(), 3);
    let hangs = compose("fake/hangs", "");
    let hung = world.up_as("shop", &hangs, "&detach=1").await;
    assert_eq!(hung.outcomes(), one(Outcome::Pending));
    assert_eq!(world.up(&compose("fake/ok:2", "")).await.code(), 0);

    let history = history(&world).await;
    assert_eq!(
        told(&history),
        [
            (4, Live, true),
            (3, Superseded, false),
            (2, Failed, false),
            (1, Live, false)
        ]
    );
    for revision in &history {
        assert_eq!(revision.made_by.as_deref(), Some("root"));
        assert_eq!(revision.cause.as_deref(), Some("deployed with `layby up`"));
        assert!(
            revision.ended_at >= Some(revision.made_at.clone()),
            "{revision:#?}"
        );
        assert!(revision.digest.is_some() && revision.image.starts_with("fake/"));
        let failed = revision.outcome == Failed;
        assert_eq!(revision.failure.is_some(), failed, "{revision:#?}");
    }
}

#[tokio::test]
async fn a_rollback_brings_settings_and_image_of_what_was_live_before() {
    let world = World::new().await;
    let first = compose("fake/ok", "environment:\n  LOG: debug");
    assert_eq!(world.up(&first).await.code(), 0);
    assert_eq!(world.up(&compose("fake/ok:2", "")).await.code(), 0);

    let back = post(&world, "rollback").await;
    assert_eq!(back.outcomes(), one(Outcome::Live));
    let kept = history(&world).await;
    let (new, old) = (&kept[0], &kept[2]);
    assert_eq!((new.revision, old.revision), (3, 1));
    assert_eq!((&new.image, &new.digest), (&old.image, &old.digest));
    assert_eq!(new.cause.as_deref(), Some("rolled back to revision 1"));

    let diff: DiffView = world.get("/v1/services/shop/web/diff?from=2").await;
    let paths: Vec<&str> = diff.changes.iter().map(|c| &*c.path).collect();
    let all = ["containers.web.env.LOG", "containers.web.image"];
    assert_eq!((diff.to, &paths[..]), (3, &all[..]));
    let same: DiffView = world.get("/v1/services/shop/web/diff?from=1&to=3").await;
    assert_eq!(same.changes, []);

    // And forth again.
    assert_eq!(
        post(&world, "rollback").await.outcomes(),
        one(Outcome::Live)
    );
    assert_eq!(history(&world).await[0].image, "fake/ok:2");
    let to = post(&world, "rollback?to=2").await;
    assert_eq!(to.outcomes(), one(Outcome::Unchanged));
}

#[tokio::test]
async fn while_a_revision_rolls_a_rollback_is_back_to_the_one_that_is_live() {
    let world = World::new().await;
    assert_eq!(world.up(&compose("fake/ok", "")).await.code(), 0);
    let hangs = compose("fake/hangs", "");
    world.up_as("shop", &hangs, "&detach=1").await;
    assert_eq!(
        post(&world, "rollback").await.outcomes(),
        one(Outcome::Live)
    );
    let history = history(&world).await;
    assert_eq!(
        history[0].cause.as_deref(),
        Some("rolled back to revision 1")
    );
    assert_eq!(history[1].outcome, RevisionOutcome::Superseded);
}

#[tokio::test]
async fn a_deploy_that_another_overtakes_or_somebody_calls_off_has_not_failed() {
    let world = World::new().await;
    assert_eq!(world.up(&compose("fake/ok", "")).await.code(), 0);
    let rolls = async || {
        world
            .until(WEB, |now| now.view.state == State::Updating)
            .await
    };
    let overtakes = async {
        rolls().await;
        world.up(&compose("fake/ok:2", "")).await
    };
    let hangs = compose("fake/hangs", "");
    let (overtaken, newer) = tokio::join!(world.up(&hangs), overtakes);
    assert_eq!(
        (overtaken.outcomes(), overtaken.code()),
        (one(Outcome::Overtaken), 6)
    );
    let reason = overtaken.failure().reason;
    assert_eq!(reason, "overtaken by revision 3, deployed by root");
    assert_eq!((newer.outcomes(), newer.code()), (one(Outcome::Live), 0));

    let calls_off = async {
        rolls().await;
        world
            .ask("POST", "/v1/services/shop/web/abort", vec![])
            .await
    };
    let (aborted, (status, _)) = tokio::join!(world.up(&hangs), calls_off);
    assert_eq!(status, 200);
    assert_eq!(
        (aborted.outcomes(), aborted.code()),
        (one(Outcome::Aborted), 6)
    );
    let failure = aborted.failure();
    assert_eq!(failure.aborted_by.as_deref(), Some("root"));
    use RevisionOutcome::{Aborted, Live, Superseded};
    assert_eq!(
        told(&history(&world).await),
        [
            (4, Aborted, false),
            (3, Live, true),
            (2, Superseded, false),
            (1, Live, false)
        ]
    );
}

#[tokio::test]
async fn revisions_that_the_policy_does_not_keep_go_when_there_is_a_newer_one() {
    let mut world = World::new().await;
    world.kill();
    world.prune.keep_revisions = Some(1);
    world.start().await;
    for image in ["fake/ok", "fake/ok:2", "fake/ok", "fake/ok:2"] {
        assert_eq!(world.up(&compose(image, "")).await.code(), 0);
    }
    let started = tokio::time::Instant::now();
    while told(&history(&world).await).len() > 3 {
        assert!(started.elapsed() < common::PATIENCE, "they stay");
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    // What was live when the last one was made, and one more.
    let left: Vec<u32> = history(&world).await.iter().map(|r| r.revision).collect();
    assert_eq!(left, [4, 3, 2]);
}

#[tokio::test]
async fn there_is_not_always_a_way_back() {
    let world = World::new().await;
    assert_eq!(world.up(&compose("fake/ok", "")).await.code(), 0);
    let refused = post(&world, "rollback").await;
    assert_eq!(refused.status, 409);
    let text = &refused.problem().detail;
    assert!(text.contains("no earlier revision of shop/web"), "{text}");
    let unknown = post(&world, "rollback?to=9").await;
    assert_eq!(unknown.status, 404);
    // What failed was never live, and what serves is not to be left for it.
    assert_eq!(world.up(&compose("fake/no-command", "")).await.code(), 3);
    let refused = post(&world, "rollback").await;
    assert_eq!(refused.status, 409);
    let text = &refused.problem().detail;
    assert!(text.contains("revision 1 was kept"), "{text}");
    // Who says so may have it all the same.
    let back = post(&world, "rollback?to=2").await;
    let told = back.warnings();
    assert!(
        told[0].starts_with("revision 2 was never live: it failed ("),
        "{told:?}"
    );
    assert_eq!(back.outcomes(), one(Outcome::Kept));
}

#[tokio::test]
async fn a_redeploy_makes_the_same_anew() {
    let world = World::new().await;
    assert_eq!(world.up(&compose("fake/ok", "")).await.code(), 0);
    let before = world.replicas().await;
    assert_eq!(
        post(&world, "redeploy").await.outcomes(),
        one(Outcome::Live)
    );
    world
        .until_replicas(|now| now.len() == 1 && now[0].id != before[0].id)
        .await;
    let diff: DiffView = world.get("/v1/services/shop/web/diff?from=1").await;
    assert_eq!((diff.to, diff.changes.len()), (2, 0));
}

#[tokio::test]
async fn a_deploy_sets_and_unsets_variables_and_says_so_without_their_values() {
    let world = World::new().await;
    let first = compose("fake/ok", "environment:\n  LOG: debug\n  OLD: x");
    assert_eq!(world.up(&first).await.code(), 0);
    let path = "/v1/services/shop/web/deploy";
    let body = br#"{"image":"fake/ok:2","env":{"KEY":"hunter2"},"unset":["OLD"]}"#.to_vec();
    let (status, body) = world.ask("POST", path, body).await;
    assert_eq!(Deployed::of(status, &body).code(), 0);
    let cause = history(&world).await[0].cause.clone().expect("a cause");
    assert_eq!(
        cause,
        "deployed with `layby deploy`: image fake/ok:2, KEY set, OLD unset"
    );
    let diff: DiffView = world.get("/v1/services/shop/web/diff?from=1").await;
    let old = diff.changes.iter().find(|c| c.path.ends_with(".OLD"));
    assert_eq!(old.and_then(|c| c.after.clone()), None);
    for wrong in [
        r#"{"unset":["NONE"]}"#,
        r#"{"env":{"A":"1"},"unset":["A"]}"#,
    ] {
        let (status, _) = world.ask("POST", path, wrong.into()).await;
        assert_eq!(status, 400, "{wrong}");
    }
}

#[tokio::test]
async fn a_disabled_service_costs_nothing_and_comes_back_as_it_was() {
    let mut world = World::new().await;
    assert_eq!(world.up(&compose("fake/ok", "")).await.code(), 0);
    let (status, _) = world
        .ask("POST", "/v1/services/shop/web/doze", vec![])
        .await;
    assert_eq!(status, 200);
    let (status, body) = world
        .ask("POST", "/v1/services/shop/web/disable", vec![])
        .await;
    assert_eq!(status, 200);
    let view: ServiceView = serde_json::from_slice(&body).expect("a view");
    assert_eq!(view.state, State::Disabled);
    assert!(world.replicas().await.is_empty());
    let web = WEB.parse().expect("an id");
    let table = world.until_table(|t| t.services[&web].mode == Mode::Disabled);
    assert!(table.await.hosts.contains_key("web.shop.localhost"));
    let (status, _) = world
        .ask("POST", "/v1/services/shop/web/wake", vec![])
        .await;
    assert_eq!(status, 409);

    world.restart().await;
    world
        .until(WEB, |now| now.view.state == State::Disabled)
        .await;
    world.gateway.ask(WEB, 1);
    assert_eq!(history(&world).await.len(), 1);
    assert!(
        world.replicas().await.is_empty(),
        "though somebody asked for it"
    );
    world.gateway.ask(WEB, 0);

    assert_eq!(post(&world, "enable").await.outcomes(), one(Outcome::Live));
    let now = world.detail(WEB).await.view;
    assert_eq!((now.revision, now.wakefulness), (1, Some(Showing::Dozing)));
    assert_eq!(world.replicas().await[0].phase, Phase::Frozen);
    assert_eq!(
        post(&world, "enable").await.outcomes(),
        one(Outcome::Unchanged)
    );
}

#[tokio::test]
async fn what_somebody_has_disabled_only_a_command_that_names_it_enables() {
    let world = World::new().await;
    assert_eq!(world.up(&compose("fake/ok", "")).await.code(), 0);
    world
        .ask("POST", "/v1/services/shop/web/disable", vec![])
        .await;
    for image in ["fake/ok", "fake/ok:2"] {
        let up = world.up(&compose(image, "")).await;
        assert_eq!((up.outcomes(), up.code()), (one(Outcome::Disabled), 0));
        assert!(world.replicas().await.is_empty());
    }
    let deployed = post(&world, "deploy").await;
    assert_eq!(deployed.outcomes(), one(Outcome::Live));
    assert_eq!(world.detail(WEB).await.view.revision, 2);
}

#[tokio::test]
async fn a_rollout_ends_when_its_service_is_disabled_and_goes_on_when_it_is_enabled() {
    let world = World::new().await;
    assert_eq!(world.up(&compose("fake/ok", "")).await.code(), 0);
    let slow = compose("fake/slow:300ms", "");
    let rolls = world.up(&slow);
    let disables = async {
        world
            .until(WEB, |now| now.view.state == State::Updating)
            .await;
        world
            .ask("POST", "/v1/services/shop/web/disable", vec![])
            .await
    };
    let (up, (status, _)) = tokio::join!(rolls, disables);
    assert_eq!((status.as_u16(), up.code()), (200, 3));
    assert_eq!(up.failure().reason, "it was disabled meanwhile");
    assert!(world.replicas().await.is_empty());
    assert_eq!(history(&world).await[0].outcome, RevisionOutcome::Rolling);
    assert_eq!(post(&world, "enable").await.outcomes(), one(Outcome::Live));
    assert_eq!(world.detail(WEB).await.view.revision, 2);
}

#[tokio::test]
async fn no_replicas_in_the_manifest_means_disabled() {
    let world = World::new().await;
    let none = compose("fake/ok", "scale: 0");
    let up = world.up(&none).await;
    assert_eq!((up.outcomes(), up.code()), (one(Outcome::Disabled), 0));
    assert!(world.replicas().await.is_empty());
    assert_eq!(post(&world, "enable").await.outcomes(), one(Outcome::Live));
    assert_eq!(world.up(&none).await.outcomes(), one(Outcome::Unchanged));
    assert_eq!(world.replicas().await.len(), 1);
    // The manifest has the last word when it says something else than before.
    let up = world.up(&compose("fake/ok", "scale: 2")).await;
    assert_eq!(up.outcomes(), one(Outcome::Live));
    assert_eq!(world.up(&none).await.outcomes(), one(Outcome::Disabled));
    world.until_replicas(|now| now.is_empty()).await;
}

#[tokio::test]
async fn a_removed_service_takes_its_history_along_and_leaves_the_others() {
    let world = World::new().await;
    let two = "services:\n  web:\n    image: fake/ok\n  db:\n    image: fake/ok\n";
    assert_eq!(world.up(two).await.code(), 0);
    let (status, _) = world.ask("DELETE", "/v1/services/shop/web", vec![]).await;
    assert_eq!(status, 200);
    let left: Vec<String> = world.list().await.into_iter().map(|v| v.service).collect();
    assert_eq!(left, ["db"]);
    let (status, _) = world
        .ask("GET", "/v1/services/shop/web/history", vec![])
        .await;
    assert_eq!(status, 404);
    let (status, _) = world.ask("DELETE", "/v1/services/shop/web", vec![]).await;
    assert_eq!(status, 404);
}

#[tokio::test]
async fn of_two_changes_at_once_none_is_lost() {
    let world = World::new().await;
    assert_eq!(world.up(&compose("fake/ok", "")).await.code(), 0);
    let set = |body: &str| {
        let path = "/v1/services/shop/web/deploy?detach=1";
        world.ask("POST", path, body.as_bytes().to_vec())
    };
    let (one, other) = tokio::join!(
        set(r#"{"env": {"ONE": "1"}}"#),
        set(r#"{"env": {"OTHER": "1"}}"#)
    );
    assert_eq!((one.0.as_u16(), other.0.as_u16()), (200, 200));
    let diff: DiffView = world.get("/v1/services/shop/web/diff?from=1&to=3").await;
    let paths: Vec<&str> = diff.changes.iter().map(|c| &*c.path).collect();
    for name in ["ONE", "OTHER"] {
        assert!(paths.iter().any(|path| path.ends_with(name)), "{paths:?}");
    }
}
