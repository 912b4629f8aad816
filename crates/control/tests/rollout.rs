//! Rollouts, from the API to the routing table.

#[path = "rollout/attempts.rs"]
mod attempts;
mod common;
#[path = "rollout/restart.rs"]
mod restart;
#[path = "rollout/scaling.rs"]
mod scaling;
#[path = "rollout/sizes.rs"]
mod sizes;
#[path = "rollout/unreached.rs"]
mod unreached;

use std::task::Poll;

use common::{World, compose};
use layby_control::api::types::{Event, Outcome};
use layby_model::State;
use layby_model::replica::Phase;
use layby_model::route::{Mode, Protocol};
use layby_model::state::Showing;

const ID: &str = "shop/web";

#[tokio::test]
async fn live_is_said_only_when_the_gateway_has_confirmed_a_table_that_routes_to_it() {
    let world = World::new().await;
    assert_eq!(world.up(&compose("fake/ok", "")).await.code(), 0);
    world.gateway.confirms.send_replace(false);
    let next = compose("fake/ok:2", "");
    let up = world.up(&next);
    tokio::pin!(up);
    tokio::select! {
        up = &mut up => panic!("the gateway knows nothing of it yet: {up:#?}"),
        _ = world.until(ID, |d| d.view.revision == 2) => {}
    }
    let early = tokio::time::timeout(std::time::Duration::from_millis(100), &mut up).await;
    assert!(early.is_err(), "{early:#?}");
    world.gateway.confirms.send_replace(true);
    let up = up.await;
    assert_eq!(
        (up.code(), up.outcomes()),
        (0, vec![("web".into(), Outcome::Live)])
    );
    let applied = std::sync::Arc::clone(&world.gateway.applied.lock().expect("no poison"));
    let replica = world.detail(ID).await.replicas;
    let replica = replica
        .iter()
        .find(|r| r.revision == 2)
        .expect("it is there");
    let mode = &applied.services[&ID.parse().expect("an id")].mode;
    let named: Vec<String> = mode.upstreams().map(|u| u.replica.to_string()).collect();
    assert_eq!(named, std::slice::from_ref(&replica.id));
}

/// Asks for work until it is done, or as many times; whether it is done.
async fn break_off(work: impl Future, mut polls: u32) -> bool {
    let mut work = std::pin::pin!(work);
    std::future::poll_fn(|context| match polls {
        0 => Poll::Ready(false),
        _ => {
            polls -= 1;
            work.as_mut().poll(context).map(|_| true)
        }
    })
    .await
}

#[tokio::test]
async fn a_deploy_whose_client_goes_at_any_moment_leaves_no_service_without_a_driver() {
    let world = World::new().await;
    let text = compose("fake/ok", "");
    let mut apps: Vec<String> = Vec::new();
    let mut is_done = false;
    while !is_done {
        let app = format!("a{}", apps.len());
        let up = world.up_as(&app, &text, "&detach=1");
        let polls = u32::try_from(apps.len()).expect("a few") + 1;
        is_done = break_off(up, polls).await;
        apps.push(app);
    }
    for app in &apps {
        assert_eq!(world.up_as(app, &text, "").await.code(), 0, "{app}");
    }
}

#[tokio::test]
async fn a_first_deploy_goes_live_and_is_routed() {
    let world = World::new().await;
    let up = world.up(&compose("fake/ok", "")).await;
    assert_eq!(
        (up.code(), up.outcomes()),
        (0, vec![("web".into(), Outcome::Live)])
    );

    let detail = world.detail(ID).await;
    assert_eq!(detail.view.state, State::Running);
    assert_eq!(detail.view.wakefulness, Some(Showing::Awake));
    assert_eq!(
        (detail.view.replicas_ready, detail.view.replicas_wanted),
        (1, 1)
    );
    assert_eq!(
        (detail.view.revision, detail.view.image.as_str()),
        (1, "fake/ok")
    );
    assert_eq!(detail.view.urls, ["http://web.shop.localhost:8080"]);
    assert_eq!(detail.conditions, Vec::<String>::new());

    let id = ID.parse().expect("an id");
    let table = world
        .until_table(|t| {
            matches!(
                t.services.get(&id).map(|s| &s.mode),
                Some(Mode::Serve { .. })
            )
        })
        .await;
    // The image's only EXPOSE is the port that requests by name go to.
    assert_eq!(table.services[&id].port, Some(8080));
    for host in ["web.shop.localhost", "shop.localhost"] {
        assert_eq!(table.hosts.get(host), Some(&id), "{host}");
    }
}

#[tokio::test]
async fn the_same_manifest_again_changes_nothing() {
    let world = World::new().await;
    let manifest = compose("fake/ok", "ports: ['8080']");
    world.up(&manifest).await;
    let before = world.replicas().await;
    let urls = world.detail(ID).await.view.urls;
    assert_eq!(urls.len(), 2, "a free port was picked: {urls:?}");

    let again = world.up(&manifest).await;
    assert_eq!(
        (again.code(), again.outcomes()),
        (0, vec![("web".into(), Outcome::Unchanged)])
    );
    let detail = world.detail(ID).await;
    assert_eq!((detail.view.revision, detail.view.urls), (1, urls));
    assert_eq!(world.replicas().await, before);
}

#[tokio::test]
async fn the_next_revision_takes_over_and_the_old_one_goes() {
    let world = World::new().await;
    world.up(&compose("fake/ok", "")).await;
    let up = world
        .up(&compose("fake/ok:2", "deploy: {replicas: 3}"))
        .await;
    assert_eq!(up.code(), 0, "{up:#?}");
    let replicas = world
        .until_replicas(|all| all.len() == 3 && all.iter().all(|r| r.revision.0 == 2))
        .await;
    assert!(replicas.iter().all(|r| r.phase == Phase::Ready));
    let detail = world.until(ID, |d| d.view.replicas_ready == 3).await;
    assert_eq!(
        (detail.view.revision, detail.view.image.as_str()),
        (2, "fake/ok:2")
    );
}

#[tokio::test]
async fn a_bad_image_fails_without_waiting_for_the_deadline_and_live_is_kept() {
    let world = World::new().await;
    world.up(&compose("fake/ok", "")).await;
    let live = world.replicas().await[0].id;

    let up = world.up(&compose("fake/exits:3", "")).await;
    assert_eq!(
        (up.code(), up.outcomes()),
        (3, vec![("web".into(), Outcome::Kept)])
    );
    let failure = up.failure();
    assert_eq!(
        failure.exit.map(|exit| (exit.code, exit.oom)),
        Some((3, false))
    );
    assert!(failure.reason.contains("exit code 3"), "{}", failure.reason);
    assert!(
        failure.log.iter().any(|line| line.contains("code 3")),
        "{:?}",
        failure.log
    );

    let left = world.until_replicas(|all| all.len() == 1).await;
    assert_eq!((left[0].id, left[0].phase), (live, Phase::Ready));
    let detail = world.detail(ID).await;
    assert_eq!(
        (detail.view.state, detail.view.revision),
        (State::Running, 1)
    );
    assert!(
        detail
            .conditions
            .iter()
            .any(|c| c.starts_with("revision 2 failed")),
        "{detail:#?}"
    );

    // Back to what is live: nothing to do.
    let back = world.up(&compose("fake/ok", "")).await;
    assert_eq!(back.outcomes(), [("web".into(), Outcome::Unchanged)]);
    // The bad one again: it is tried again.
    let again = world.up(&compose("fake/exits:3", "")).await;
    assert_eq!(again.failure().revision, 3);
}

#[tokio::test]
async fn a_first_deploy_that_fails_leaves_no_replicas_and_says_why() {
    let world = World::new().await;
    for (image, says) in [
        ("fake/oom", "want of memory"),
        ("fake/no-command", "command"),
        ("fake/full-disk", "full"),
    ] {
        let up = world.up(&compose(image, "")).await;
        assert_eq!(
            (up.code(), up.outcomes()),
            (1, vec![("web".into(), Outcome::Failed)])
        );
        let reason = up.failure().reason;
        assert!(reason.contains(says), "{image}: {reason}");
        world.until_replicas(<[_]>::is_empty).await;
        let detail = world.detail(ID).await;
        assert_eq!(detail.view.state, State::Ready);
    }
    let table = world.tables.borrow().clone();
    assert_eq!(
        table.services[&ID.parse().expect("an id")].mode,
        Mode::Refuse
    );
}

#[tokio::test]
async fn what_is_never_ready_fails_at_its_deadline() {
    let world = World::new().await;
    let manifest = "
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  progressDeadlineSeconds: 1
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      containers:
      - {name: main, image: 'fake/hangs', imagePullPolicy: IfNotPresent, ports: [{containerPort: 80}]}
";
    let tar = common::tar(&[("manifest/deploy.yaml", manifest.as_bytes())]);
    let path = "/v1/apps?app=shop&folder=f&file=deploy.yaml";
    let (status, body) = world.ask("POST", path, tar).await;
    let up = common::Deployed::of(status, &body);
    assert_eq!(up.code(), 1, "{up:#?}");
    assert_eq!(up.failure().reason, "it was not ready within 1 s");
    world.until_replicas(<[_]>::is_empty).await;
}

#[tokio::test]
async fn stop_first_never_runs_two_revisions() {
    let world = World::new().await;
    let stop_first = "deploy: {update_config: {order: stop-first}}";
    world.up(&compose("fake/ok", stop_first)).await;
    let watching = {
        let fake = std::sync::Arc::clone(&world.fake);
        tokio::spawn(async move {
            use layby_model::engine::Engine;
            loop {
                let all = fake.observe(None).await.expect("the fake answers");
                let runs = |r: &&layby_model::replica::ReplicaReport| {
                    matches!(r.phase, Phase::Ready | Phase::Starting)
                };
                let revisions: std::collections::BTreeSet<_> =
                    all.iter().filter(runs).map(|r| r.revision).collect();
                assert!(revisions.len() < 2, "{all:#?}");
                tokio::time::sleep(std::time::Duration::from_millis(1)).await;
            }
        })
    };
    let up = world.up(&compose("fake/ok:2", stop_first)).await;
    assert_eq!(up.code(), 0, "{up:#?}");
    assert!(!watching.is_finished(), "two revisions ran at once");
    watching.abort();
    let replicas = world.replicas().await;
    assert_eq!(
        replicas.iter().map(|r| r.revision.0).collect::<Vec<_>>(),
        [2]
    );
}

#[tokio::test]
async fn a_port_that_cannot_be_opened_fails_the_deploy_that_asked_for_it() {
    let world = World::new().await;
    world
        .gateway
        .taken
        .lock()
        .expect("no poison")
        .insert(31_999);
    let up = world.up(&compose("fake/ok", "ports: ['31999:8080']")).await;
    assert_eq!(up.code(), 1, "{up:#?}");
    let reason = up.failure().reason;
    assert!(
        reason.contains("127.0.0.1:31999") && reason.contains("in use"),
        "{reason}"
    );

    let up = world.up(&compose("fake/ok", "")).await;
    assert_eq!(up.code(), 0);
    let up = world.up(&compose("fake/ok", "ports: ['31999:8080']")).await;
    assert_eq!(
        (up.code(), up.outcomes()),
        (3, vec![("web".into(), Outcome::Kept)])
    );
    let table = world.until_table(|t| t.listeners.is_empty()).await;
    assert!(!table.services.is_empty());
}

#[tokio::test]
async fn published_ports_are_listeners_of_the_table() {
    let world = World::new().await;
    let up = world
        .up(&compose("fake/ok", "ports: ['127.0.0.2:31998:8080']"))
        .await;
    assert_eq!(up.code(), 0, "{up:#?}");
    let table = world.until_table(|t| !t.listeners.is_empty()).await;
    let listener = &table.listeners[0];
    assert_eq!(listener.addr.to_string(), "127.0.0.2:31998");
    assert_eq!((listener.target, listener.protocol), (8080, Protocol::Tcp));
}

#[tokio::test]
async fn two_services_cannot_claim_one_port() {
    let world = World::new().await;
    world
        .up_as("one", &compose("fake/ok", "ports: ['31997:8080']"), "")
        .await;
    let up = world
        .up_as("two", &compose("fake/ok", "ports: ['31997:8080']"), "")
        .await;
    assert_eq!(up.status, 409);
    let detail = &up.problem().detail;
    assert!(
        detail.contains("two/web") && detail.contains("one/web"),
        "{detail}"
    );
    assert!(detail.contains("31997"), "{detail}");
    assert_eq!(world.list().await.len(), 1);

    let up = world
        .up_as("two", &compose("fake/ok", "ports: ['8080:8080']"), "")
        .await;
    assert_eq!(up.status, 409);
    assert!(
        up.problem().detail.contains("gateway"),
        "{:?}",
        up.problem()
    );

    let both = "services:\n  a: {image: fake/ok, ports: ['31996:1']}\n  b: {image: fake/ok, ports: ['31996:1']}\n";
    let up = world.up_as("three", both, "").await;
    assert!(up.status == 409 || up.status == 422, "{up:#?}");
}

#[tokio::test]
async fn an_image_that_is_not_there_is_named_with_what_to_do() {
    let world = World::new().await;
    let up = world.up(&compose("fake/okk", "pull_policy: never")).await;
    assert_eq!(up.status, 404);
    let problem = up.problem();
    assert!(problem.detail.contains("fake/okk"), "{problem:?}");
    assert!(
        problem
            .hint
            .as_ref()
            .is_some_and(|h| h.contains("layby image load")),
        "{problem:?}"
    );
    assert_eq!(world.list().await, []);
}

#[tokio::test]
async fn a_build_is_built_from_the_context_that_was_sent() {
    let world = World::new().await;
    let manifest = "services:\n  web:\n    build: ./app\n";
    let files = [("compose.yaml", manifest.as_bytes())];
    let (_, body) = world
        .ask("POST", "/v1/manifests?app=shop", common::tar(&files))
        .await;
    let view: layby_control::api::types::ManifestView =
        serde_json::from_slice(&body).expect("a view");
    assert_eq!(view.services, ["web"]);
    assert_eq!(view.contexts.len(), 1, "{view:?}");

    let dockerfile = "FROM scratch\nCOPY Dockerfile /it\nCMD [\"/it\"]\nEXPOSE 90\n";
    let tar = common::tar(&[
        ("manifest/compose.yaml", manifest.as_bytes()),
        ("context/0/Dockerfile", dockerfile.as_bytes()),
    ]);
    let (status, body) = world.ask("POST", "/v1/apps?app=shop", tar).await;
    let up = common::Deployed::of(status, &body);
    assert_eq!(up.code(), 0, "{up:#?}");
    assert!(
        up.events
            .iter()
            .any(|e| matches!(e, Event::Build { text, .. } if text.contains("COPY")))
    );
    assert_eq!(world.detail(ID).await.view.image, "shop-web");
    let left: Vec<_> = std::fs::read_dir(world.dir.path().join("tmp"))
        .expect("a folder")
        .collect();
    assert!(left.is_empty(), "the upload is gone: {left:?}");

    // What a build makes is not known before: a dry run says what would come of either.
    let (status, body) = world
        .ask(
            "POST",
            "/v1/apps?app=shop&dry_run=1",
            common::tar(&files_of_manifest(manifest)),
        )
        .await;
    let dry = common::Deployed::of(status, &body);
    let steps: Vec<&str> = dry
        .events
        .iter()
        .filter_map(|event| match event {
            Event::Step { text, .. } => Some(text.as_str()),
            _ => None,
        })
        .collect();
    assert_eq!(
        &steps[..2],
        [
            "build the image shop-web from ./app",
            "nothing more if that image is the one that runs already; else:"
        ],
        "{dry:#?}"
    );

    // Without its context it cannot be built.
    let again = world.up(manifest).await;
    assert_eq!(again.code(), 1);
    assert!(again.events.iter().any(|e| matches!(e, Event::Error { problem } if problem.detail.contains("./app") || problem.detail.contains("app"))), "{again:#?}");
}

fn files_of_manifest(manifest: &str) -> [(&str, &[u8]); 1] {
    [("manifest/compose.yaml", manifest.as_bytes())]
}

#[tokio::test]
async fn files_that_a_manifest_names_are_asked_for_and_must_be_sent() {
    let world = World::new().await;
    let manifest = "services:\n  web:\n    image: fake/ok\n    env_file: ../web.env\n";
    let files = [("compose.yaml", manifest.as_bytes())];
    let (_, body) = world
        .ask("POST", "/v1/manifests?app=shop", common::tar(&files))
        .await;
    let view: layby_control::api::types::ManifestView =
        serde_json::from_slice(&body).expect("a view");
    assert_eq!(view.files, ["../web.env"]);

    let (status, body) = world
        .ask(
            "POST",
            "/v1/apps?app=shop",
            common::tar(&files_of_manifest(manifest)),
        )
        .await;
    let problem: layby_control::api::types::Problem =
        serde_json::from_slice(&body).expect("a problem");
    assert_eq!(status, 422, "{problem:?}");
    assert!(problem.detail.contains("compose.yaml:4"), "{problem:?}");

    for (content, outcome) in [
        ("COLOUR=red\n", Outcome::Live),
        ("COLOUR=red\n", Outcome::Unchanged),
        ("COLOUR=blue\n", Outcome::Live),
    ] {
        let tar = common::tar(&[
            ("manifest/compose.yaml", manifest.as_bytes()),
            ("manifest/.layby/files.json", br#"["../web.env"]"#),
            ("file/0", content.as_bytes()),
        ]);
        let (status, body) = world.ask("POST", "/v1/apps?app=shop", tar).await;
        let up = common::Deployed::of(status, &body);
        assert_eq!(up.outcomes(), [("web".into(), outcome)], "{content}");
    }
}

#[tokio::test]
async fn a_dry_run_tells_the_steps_and_does_none() {
    let world = World::new().await;
    let dry = world
        .up_as("shop", &compose("fake/ok", ""), "&dry_run=1")
        .await;
    assert_eq!(dry.code(), 0);
    let steps = |up: &common::Deployed| -> Vec<String> {
        let step = |event: &Event| match event {
            Event::Step { text, .. } => Some(text.clone()),
            _ => None,
        };
        up.events.iter().filter_map(step).collect()
    };
    assert!(
        steps(&dry).contains(&"let revision 1 go live".to_owned()),
        "{dry:#?}"
    );
    assert_eq!(world.list().await, []);

    world.up(&compose("fake/ok", "")).await;
    let dry = world
        .up_as("shop", &compose("fake/ok", ""), "&dry_run=1")
        .await;
    assert_eq!(steps(&dry), ["nothing: it is as the manifest wants it"]);
    let dry = world
        .up_as("shop", &compose("fake/ok:2", ""), "&dry_run=1")
        .await;
    let steps = steps(&dry);
    assert!(
        steps.contains(&"let revision 2 go live".to_owned()),
        "{steps:?}"
    );
    assert!(
        steps
            .last()
            .is_some_and(|s| s.starts_with("stop and remove")),
        "{steps:?}"
    );
}

#[tokio::test]
async fn down_leaves_nothing() {
    let world = World::new().await;
    let two = "services:\n  a: {image: fake/ok}\n  b: {image: fake/ok}\n";
    assert_eq!(world.up(two).await.code(), 0);
    let (status, body) = world.ask("DELETE", "/v1/apps/shop", Vec::new()).await;
    assert_eq!(status, 200, "{}", String::from_utf8_lossy(&body));
    assert_eq!(world.replicas().await, []);
    assert_eq!(world.list().await, []);
    assert!(world.tables.borrow().services.is_empty());
    let (status, _) = world.ask("DELETE", "/v1/apps/shop", Vec::new()).await;
    assert_eq!(status, 404);
    // And the name is free again.
    assert_eq!(world.up(two).await.code(), 0);
}

#[tokio::test]
async fn a_service_that_left_the_manifest_goes_on_and_is_named() {
    let world = World::new().await;
    let two = "services:\n  a: {image: fake/ok}\n  b: {image: fake/ok}\n";
    world.up(two).await;
    let one = world.up("services:\n  a: {image: fake/ok}\n").await;
    let warned = |e: &Event| matches!(e, Event::Warning { text } if text.contains("shop/b") && text.contains("--remove-orphans"));
    assert!(one.events.iter().any(warned), "{one:#?}");
    assert_eq!(world.list().await.len(), 2);
}

#[tokio::test]
async fn a_changed_image_or_environment_is_a_new_revision() {
    let world = World::new().await;
    world.up(&compose("fake/ok", "environment: {A: '1'}")).await;
    let body = br#"{"image":"fake/ok:2","env":{"B":"2"}}"#.to_vec();
    let (status, body) = world
        .ask("POST", "/v1/services/shop/web/deploy", body)
        .await;
    let deployed = common::Deployed::of(status, &body);
    assert_eq!(deployed.code(), 0, "{deployed:#?}");
    let view = world.detail(ID).await.view;
    assert_eq!((view.revision, view.image.as_str()), (2, "fake/ok:2"));
}

#[tokio::test]
async fn the_log_is_that_of_the_replicas_that_have_one() {
    let world = World::new().await;
    let manifest = |container: &str, image: &str| {
        format!(
            "
apiVersion: apps/v1
kind: Deployment
metadata: {{name: web}}
spec:
  selector: {{matchLabels: {{app: web}}}}
  template:
    metadata: {{labels: {{app: web}}}}
    spec:
      containers:
      - {{name: {container}, image: '{image}', imagePullPolicy: IfNotPresent, ports: [{{containerPort: 80}}]}}
"
        )
    };
    for (container, image, detach) in [("main", "fake/ok", 0), ("other", "fake/hangs", 1)] {
        let manifest = manifest(container, image);
        let tar = common::tar(&[("manifest/deploy.yaml", manifest.as_bytes())]);
        let path = format!("/v1/apps?app=shop&folder=f&file=deploy.yaml&detach={detach}");
        let (status, body) = world.ask("POST", &path, tar).await;
        assert_eq!(common::Deployed::of(status, &body).code(), 0);
    }
    world.until(ID, |d| d.replicas.len() == 2).await;
    // Only the replica of the old revision has this container.
    let path = format!("/v1/services/{ID}/logs?container=main");
    let (status, log) = world.ask("GET", &path, Vec::new()).await;
    let log = String::from_utf8_lossy(&log);
    assert_eq!(status, 200, "{log}");
    assert!(log.contains("ready"), "{log}");
    let (status, _) = world
        .ask(
            "GET",
            &format!("/v1/services/{ID}/logs?container=none"),
            Vec::new(),
        )
        .await;
    assert_eq!(status, 404);
}

#[tokio::test]
async fn progress_is_told_as_it_changes() {
    let world = World::new().await;
    let up = world.up(&compose("fake/slow:300ms", "")).await;
    let text = |event: &Event| match event {
        Event::Progress { text, .. } => Some(text.clone()),
        _ => None,
    };
    let texts: Vec<String> = up.events.iter().filter_map(text).collect();
    assert!(texts.contains(&"1 of 1 starting".into()), "{texts:?}");
    let mut once = texts.clone();
    once.dedup();
    assert_eq!(texts, once);
}

#[tokio::test]
async fn a_build_that_nobody_waits_for_any_more_stops_no_deploy() {
    let world = World::new().await;
    // As its thread holds it until it ends.
    let lock = std::fs::File::open(world.dir.path().join("images/locks/content"));
    let lock = lock.expect("the lock");
    lock.lock_shared().expect("to lock");
    for image in ["fake/ok", "fake/ok:2", "fake/ok"] {
        let up = world.up(&compose(image, "")).await;
        assert_eq!(up.code(), 0, "{up:#?}");
    }
}
