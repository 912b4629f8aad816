//! Apps of several services: who waits for whom, all or nothing, and what a manifest no longer names.

mod common;

use layby_control::api::types::{Event, NetworkView, Outcome, RevisionView};
use layby_model::State;

use common::{Deployed, World};

/// A Compose file with these services, each with an image and further lines.
fn app(services: &[(&str, &str, &str)]) -> String {
    let mut text = "services:\n".to_owned();
    for (name, image, more) in services {
        text.push_str(&format!("  {name}:\n    image: {image}\n"));
        for line in more.lines() {
            text.push_str(&format!("    {line}\n"));
        }
    }
    text
}

fn outcome(deployed: &Deployed, service: &str) -> Outcome {
    let all = deployed.outcomes().into_iter().rev();
    let mut mine = all.filter(|(name, _)| name == service);
    mine.next()
        .unwrap_or_else(|| panic!("none of {service}: {deployed:#?}"))
        .1
}

/// What was told of a service's rollout.
fn told(deployed: &Deployed, id: &str) -> Vec<String> {
    let text = |event: &Event| match event {
        Event::Progress { service, text, .. } if service == id => Some(text.clone()),
        _ => None,
    };
    deployed.events.iter().filter_map(text).collect()
}

async fn services(world: &World) -> Vec<String> {
    let mut names: Vec<String> = world.list().await.into_iter().map(|v| v.service).collect();
    names.sort();
    names
}

async fn history(world: &World, service: &str) -> Vec<RevisionView> {
    world
        .get(&format!("/v1/services/shop/{service}/history"))
        .await
}

#[tokio::test]
async fn all_that_is_wrong_with_a_manifest_is_told_at_once() {
    let world = World::new().await;
    let text = app(&[("web", "Bad:Ref:x", "imgae: x"), ("db", "also bad", "")]);
    let up = world.up(&text).await;
    assert_eq!(up.status, 422, "{up:#?}");
    let lines: Vec<&str> = up.problem().detail.lines().collect();
    assert!(lines[0].starts_with("compose.yaml:3:12: \"Bad:Ref:x\" is not an image reference: "));
    assert!(lines[1].contains(": \"also bad\" is not an image reference: "));
    assert!(
        lines[2].starts_with("warning: compose.yaml:4:"),
        "{lines:?}"
    );
    assert_eq!(lines.len(), 3);
}

#[tokio::test]
async fn a_hook_that_fails_is_what_failed() {
    let world = World::new().await;
    let hook = "post_start: [{command: [exit, \"5\"]}]\nx-layby: {retries: 0}";
    let up = world.up(&app(&[("web", "fake/ok", hook)])).await;
    assert_eq!(outcome(&up, "web"), Outcome::Failed);
    let reason = up.failure().reason;
    let text =
        "the hook after the start of container web ended with exit code 5 in each of 3 starts";
    assert_eq!(reason, text);
    let texts = told(&up, "shop/web");
    let last = texts.last().expect("something was told");
    assert!(last.ends_with("(start 3 of 3)"), "{texts:?}");
}

const HEALTHY: &str = "depends_on: {db: {condition: service_healthy}}";

#[tokio::test]
async fn what_depends_on_another_is_started_when_that_is_live() {
    let world = World::new().await;
    let both = [("db", "fake/slow:300ms", ""), ("web", "fake/ok", HEALTHY)];
    let up = world.up(&app(&both)).await;
    assert_eq!(up.code(), 0);
    let texts = told(&up, "shop/web");
    assert_eq!(texts[0], "waits: db is not live yet", "{texts:?}");
    // The web's replica was made after the database's.
    let mut replicas = world.replicas().await;
    replicas.sort_by_key(|replica| replica.id);
    let order: Vec<String> = replicas.iter().map(|r| r.service.to_string()).collect();
    assert_eq!(order, ["shop/db", "shop/web"]);

    // It is not held up once it is there: neither by a wake nor by a deploy of its own.
    world
        .ask("POST", "/v1/services/shop/db/sleep", vec![])
        .await;
    for what in ["sleep", "wake"] {
        let (status, _) = world
            .ask("POST", &format!("/v1/services/shop/web/{what}"), vec![])
            .await;
        assert_eq!(status, 200);
    }
    let (status, body) = world
        .ask("POST", "/v1/services/shop/web/redeploy", vec![])
        .await;
    assert_eq!(Deployed::of(status, &body).code(), 0);
}

#[tokio::test]
async fn what_waits_for_one_that_completes_starts_when_that_has_ended_well() {
    let world = World::new().await;
    let needs = "depends_on: {migrate: {condition: service_completed_successfully}}";
    let well = [("migrate", "fake/exits:0", ""), ("web", "fake/ok", needs)];
    assert_eq!(world.up(&app(&well)).await.code(), 0);
    let badly = [("migrate", "fake/exits:3", ""), ("web", "fake/ok:2", needs)];
    let up = world.up(&app(&badly)).await;
    assert_eq!(outcome(&up, "web"), Outcome::Kept);
    let reason = &history(&world, "web").await[0]
        .failure
        .clone()
        .expect("why")
        .reason;
    assert!(
        reason.starts_with("it needs migrate, which failed: "),
        "{reason}"
    );
}

#[tokio::test]
async fn a_dependency_that_fails_fails_what_needs_it_but_not_what_can_do_without() {
    let world = World::new().await;
    let without = "depends_on: {db: {condition: service_healthy, required: false}}";
    let all = [
        ("db", "fake/no-command", ""),
        ("web", "fake/ok", HEALTHY),
        ("worker", "fake/ok", without),
    ];
    let up = world.up(&app(&all)).await;
    assert_eq!(up.code(), 1);
    let found = ["db", "web", "worker"].map(|name| outcome(&up, name));
    assert_eq!(found, [Outcome::Failed, Outcome::Failed, Outcome::Live]);
    let detail = world.detail("shop/web").await;
    let reason = detail.last_failure.expect("why").reason;
    let why = "it needs db, which failed: the image fake/no-command has no such command: /nope";
    assert_eq!(reason, why);
}

#[tokio::test]
async fn what_needs_one_that_is_disabled_fails_and_rolls_out_with_it_when_both_come() {
    let world = World::new().await;
    let both = |scale| [("db", "fake/ok", scale), ("a", "fake/ok", HEALTHY)];
    let up = world.up(&app(&both("scale: 0"))).await;
    assert_eq!(up.code(), 1);
    assert_eq!(outcome(&up, "db"), Outcome::Disabled);
    let detail = world.detail("shop/a").await;
    let reason = detail.last_failure.expect("why").reason;
    assert!(
        reason.starts_with("it needs db, which is disabled"),
        "{reason}"
    );
    // Told before its dependency is, it does not take that for disabled still.
    let up = world.up(&app(&both(""))).await;
    assert_eq!(up.code(), 0, "{up:#?}");
    assert_eq!(outcome(&up, "a"), Outcome::Live);
}

#[tokio::test]
async fn a_dependency_that_fails_leaves_what_needs_it_as_it_was() {
    let world = World::new().await;
    let needs =
        "depends_on: {migrate: {condition: service_completed_successfully}}\nvolumes: ['v:/v']";
    let all = |migrate, a| {
        let services = [("migrate", migrate, ""), ("a", a, needs)];
        format!("{}volumes: {{v: }}\n", app(&services))
    };
    assert_eq!(world.up(&all("fake/exits:0", "fake/ok")).await.code(), 0);
    let of_a = |replicas: Vec<layby_model::replica::ReplicaReport>| {
        let mut mine = replicas
            .into_iter()
            .filter(|r| r.service.service.as_str() == "a");
        mine.next().expect("a replica").id
    };
    let before = of_a(world.replicas().await);
    // It is told first, its dependency goes on from what ended well; and its failure takes time to be written.
    let up = world.up(&all("fake/exits:3", "fake/ok:2")).await;
    assert_eq!(outcome(&up, "a"), Outcome::Kept);
    assert_eq!(of_a(world.replicas().await), before);
    let texts = told(&up, "shop/a");
    let waits = |text: &String| text.starts_with("waits: ") || text.starts_with("gives up: ");
    assert!(texts.iter().all(waits), "{texts:?}");
}

#[tokio::test]
async fn a_new_revision_of_a_dependency_makes_one_of_what_asks_for_that() {
    let world = World::new().await;
    let follows = "depends_on: {db: {condition: service_healthy, restart: true}}";
    let both = |image| [("db", image, ""), ("web", "fake/ok", follows)];
    assert_eq!(world.up(&app(&both("fake/ok"))).await.code(), 0);
    let same = world.up(&app(&both("fake/ok"))).await;
    assert_eq!(outcome(&same, "web"), Outcome::Unchanged);
    let up = world.up(&app(&both("fake/ok:2"))).await;
    assert_eq!((outcome(&up, "web"), up.code()), (Outcome::Live, 0));
    assert_eq!(history(&world, "web").await.len(), 2);
}

#[tokio::test]
async fn what_is_needed_has_to_be_deployed() {
    let world = World::new().await;
    let both = [("db", "fake/ok", ""), ("web", "fake/ok", HEALTHY)];
    assert_eq!(world.up(&app(&both)).await.code(), 0);
    world.ask("DELETE", "/v1/services/shop/db", vec![]).await;
    let (status, body) = world
        .ask("POST", "/v1/services/shop/web/redeploy", vec![])
        .await;
    let refused = Deployed::of(status, &body);
    assert_eq!(refused.status, 409);
    let detail = &refused.problem().detail;
    assert_eq!(detail, "shop/web depends on shop/db, which is not deployed");
}

#[tokio::test]
async fn all_or_nothing_leaves_all_as_it_was_when_one_fails() {
    let world = World::new().await;
    let before = [("db", "fake/ok", ""), ("web", "fake/ok", "")];
    assert_eq!(world.up(&app(&before)).await.code(), 0);
    let after = [
        ("db", "fake/ok:2", ""),
        ("web", "fake/no-command", ""),
        ("new", "fake/ok", ""),
    ];
    let up = world.up_as("shop", &app(&after), "&atomic=1").await;
    assert_eq!(up.code(), 3);
    let found = ["db", "web", "new"].map(|name| outcome(&up, name));
    assert_eq!(
        found,
        [Outcome::RolledBack, Outcome::Kept, Outcome::Removed]
    );
    assert_eq!(services(&world).await, ["db", "web"]);
    for name in ["db", "web"] {
        let view = world.detail(&format!("shop/{name}")).await.view;
        assert_eq!((view.state, &*view.image), (State::Running, "fake/ok"));
    }
    let cause = history(&world, "db").await[0]
        .cause
        .clone()
        .expect("a cause");
    assert_eq!(
        cause,
        "rolled back to revision 1: web failed, and all or nothing was asked for"
    );
    world.until_replicas(|now| now.len() == 2).await;

    let good = [("db", "fake/ok:2", ""), ("web", "fake/ok:2", "")];
    let up = world.up_as("shop", &app(&good), "&atomic=1").await;
    assert_eq!(up.code(), 0);
    let refused = world.up_as("shop", &app(&good), "&atomic=1&detach=1").await;
    assert_eq!(refused.status, 400);
}

#[tokio::test]
async fn all_or_nothing_takes_back_nothing_that_somebody_else_has_deployed_since() {
    let world = World::new().await;
    let all = [("db", "fake/ok", ""), ("web", "fake/hangs", "")];
    let text = app(&all);
    let others = async {
        while world.list().await.iter().all(|v| v.service != "db") {
            tokio::task::yield_now().await;
        }
        world
            .until("shop/db", |d| d.view.state == State::Running)
            .await;
        let path = "/v1/services/shop/db/redeploy";
        let (status, body) = world.ask("POST", path, Vec::new()).await;
        // So the other one fails.
        world
            .ask("POST", "/v1/services/shop/web/abort", Vec::new())
            .await;
        Deployed::of(status, &body)
    };
    let (up, redeployed) = tokio::join!(world.up_as("shop", &text, "&atomic=1"), others);
    assert_eq!((up.code(), redeployed.code()), (1, 0));
    let left = "shop/db was changed by somebody else meanwhile, and is left alone";
    assert!(up.warnings().contains(&left), "{up:#?}");
    assert_eq!(services(&world).await, ["db"]);
    assert_eq!(world.detail("shop/db").await.view.revision, 2);
}

#[tokio::test]
async fn of_an_app_that_never_was_nothing_is_left_when_one_fails() {
    let world = World::new().await;
    let all = [("db", "fake/ok", ""), ("web", "fake/no-command", "")];
    let up = world.up_as("shop", &app(&all), "&atomic=1").await;
    assert_eq!(up.code(), 1);
    assert!(services(&world).await.is_empty());
    assert!(world.replicas().await.is_empty());
}

#[tokio::test]
async fn what_the_manifest_no_longer_names_goes_when_that_is_asked_for() {
    let world = World::new().await;
    let port = "ports: ['31555:8080']";
    assert_eq!(
        world
            .up(&app(&[("old", "fake/ok", port), ("db", "fake/ok", "")]))
            .await
            .code(),
        0
    );
    let new = app(&[("new", "fake/ok", port), ("db", "fake/ok", "")]);
    // It has the port that the new one asks for.
    assert_eq!(world.up(&new).await.status, 409);
    let dry = world
        .up_as("shop", &new, "&remove_orphans=1&dry_run=1")
        .await;
    let text = format!("{:?}", dry.events);
    assert!(text.contains("shop/old"), "{text}");
    assert_eq!(services(&world).await, ["db", "old"]);
    // No canary of this one can be made: what is refused takes nothing away.
    let stop_first = "deploy: {update_config: {order: stop-first}}";
    let refused = app(&[("new", "fake/ok", port), ("db", "fake/ok:2", stop_first)]);
    let up = world.up_as("shop", &refused, "&remove_orphans=1&canary=10%25");
    assert_eq!(up.await.status, 409);
    assert_eq!(services(&world).await, ["db", "old"]);
    let up = world.up_as("shop", &new, "&remove_orphans=1").await;
    assert_eq!(up.code(), 0);
    let found = ["old", "new", "db"].map(|name| outcome(&up, name));
    assert_eq!(found, [Outcome::Removed, Outcome::Live, Outcome::Unchanged]);
    assert_eq!(services(&world).await, ["db", "new"]);
    let alone = app(&[("db", "fake/ok", "")]);
    let warned = world.up(&alone).await;
    assert!(format!("{:?}", warned.events).contains("--remove-orphans"));
    let up = world
        .up_as("shop", &alone, "&remove_orphans=1&atomic=1")
        .await;
    assert_eq!(
        (up.code(), services(&world).await),
        (0, vec!["db".to_owned()])
    );
}

/// Deploys with further words in the query.
async fn up(world: &World, manifest: &str, query: &str) -> Deployed {
    world.up_as("shop", manifest, query).await
}

#[tokio::test]
async fn only_the_services_that_are_named_and_what_they_need_are_deployed() {
    let world = World::new().await;
    let needs = "depends_on: [db]";
    let all = |colour: &str| {
        let env = format!("environment: {{C: {colour}}}");
        let web = format!("{needs}\n{env}");
        app(&[
            ("db", "fake/ok", &env),
            ("web", "fake/ok", &web),
            ("mail", "fake/ok", &env),
        ])
    };
    let first = up(&world, &all("red"), "&service=web").await;
    assert_eq!(first.code(), 0);
    assert_eq!(services(&world).await, ["db", "web"]);
    up(&world, &all("red"), "").await;

    // The others are neither changed nor told of, and are no orphans.
    let second = up(&world, &all("blue"), "&service=db&remove_orphans=true").await;
    assert_eq!(
        (second.outcomes(), second.warnings()),
        (vec![("db".into(), Outcome::Live)], vec![])
    );
    assert_eq!(services(&world).await, ["db", "mail", "web"]);
    let third = up(&world, &all("green"), "&service=web&no_deps=true").await;
    assert_eq!(third.outcomes(), [("web".into(), Outcome::Live)]);
    let revisions = async |name| history(&world, name).await.len();
    assert_eq!(
        (
            revisions("db").await,
            revisions("web").await,
            revisions("mail").await
        ),
        (2, 2, 1)
    );

    // It is the same service, whether it comes alone or not.
    let whole = up(&world, &all("green"), "").await;
    assert_eq!(outcome(&whole, "web"), Outcome::Unchanged);
    let wrong = up(&world, &all("green"), "&service=wbe").await;
    let told = "no service of the manifest is called \"wbe\": did you mean \"web\"?";
    assert_eq!(
        (wrong.status.as_u16(), &*wrong.problem().detail),
        (422, told)
    );
}

#[tokio::test]
async fn a_network_that_is_not_there_is_told_before_anything_is_done_and_by_a_dry_run() {
    let world = World::new().await;
    let networks = "networks: {proxy: {external: true}}\n";
    let manifest = app(&[("web", "fake/ok", "networks: [proxy]")]) + networks;
    for query in ["&dry_run=true", ""] {
        let refused = up(&world, &manifest, query).await;
        let hint = refused.problem().hint.clone().unwrap_or_default();
        assert_eq!(refused.status, 409, "{refused:#?}");
        assert!(hint.contains("layby network create proxy"), "{hint}");
    }
    assert_eq!(services(&world).await, [] as [String; 0]);
}

#[tokio::test]
async fn a_name_that_another_app_has_in_a_network_of_both_is_told_with_the_app_that_it_leads_to() {
    let world = World::new().await;
    let made = world.ask("POST", "/v1/networks", br#"{"name":"proxy"}"#.to_vec());
    assert_eq!(made.await.0, 200);
    let networks = "networks: {proxy: {external: true}}\n";
    let manifest = app(&[("web", "fake/ok", "networks: [proxy]")]) + networks;
    for (app, warned) in [("shop", false), ("blog", true), ("shop", true)] {
        let deployed = world.up_as(app, &manifest, "").await;
        let text = deployed.warnings().join("\n");
        assert_eq!(text.contains("web (blog, shop)"), warned, "{app}: {text}");
    }
    let network: NetworkView = world.get("/v1/networks/proxy").await;
    assert_eq!(network.doubled["web"], ["blog", "shop"]);
}

#[tokio::test]
async fn what_is_not_deployed_is_not_waited_for_without_dependencies() {
    let world = World::new().await;
    let both = app(&[("db", "fake/ok", ""), ("web", "fake/ok", HEALTHY)]);
    let alone = up(&world, &both, "&service=web&no_deps=true").await;
    assert_eq!(alone.outcomes(), [("web".into(), Outcome::Live)]);
    assert_eq!(
        alone.warnings(),
        ["web goes without shop/db, which is not deployed"]
    );
    assert_eq!(services(&world).await, ["web"]);
    assert_eq!(up(&world, &both, "").await.code(), 0);
    assert_eq!(history(&world, "web").await.len(), 2, "now it waits");
}

#[tokio::test]
async fn a_scale_of_an_up_goes_over_the_manifest_and_over_one_by_hand() {
    let world = World::new().await;
    let manifest = app(&[("web", "fake/ok", "scale: 1"), ("db", "fake/ok", "")]);
    let wanted = async || world.detail("shop/web").await.view.replicas_wanted;
    assert_eq!(up(&world, &manifest, "&scale=web=2").await.code(), 0);
    assert_eq!(wanted().await, 2);
    up(&world, &manifest, "").await;
    assert_eq!(wanted().await, 1);
    let body = br#"{"replicas":3}"#.to_vec();
    world.ask("POST", "/v1/services/shop/web/scale", body).await;
    let same = up(&world, &manifest, "&scale=web=1&service=web").await;
    assert_eq!(same.outcomes(), [("web".into(), Outcome::Live)]);
    assert_eq!(wanted().await, 1);
    for bad in ["&scale=web", "&scale=web=x"] {
        assert_eq!(up(&world, &manifest, bad).await.status, 400, "{bad}");
    }
    assert_eq!(up(&world, &manifest, "&scale=wbe=2").await.status, 422);
}
