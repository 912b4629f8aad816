//! The API: every endpoint answers, its document is current, and errors are problems.

mod common;
#[path = "api/fuzz.rs"]
mod fuzz;
#[path = "api/hosts.rs"]
mod hosts;
#[path = "api/network.rs"]
mod network;
#[path = "../../image/tests/image/peer.rs"]
#[allow(dead_code, reason = "the tests of image use the rest")]
mod peer;
#[path = "api/reach.rs"]
mod reach;
#[path = "api/state.rs"]
mod state;

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use common::{Deployed, PATIENCE, World, compose, tar};
use layby_control::api::ConfigView;
use layby_control::api::types::{
    AdviceView, DiffView, EventView, FileView, ImageView, JobView, KeptSecret, LogView, LoginView,
    ManifestView, NetworkView, NewToken, Outcome, PowerView, Problem, PruneView, RemovedView,
    RevisionView, RunView, ScaleView, ServiceDetail, ServiceView, StateView, TokenView,
    TransferEvent, UsageView, VersionView, VolumeView,
};
use layby_control::api::{self, AuditView};
use layby_model::State;

#[test]
fn the_committed_document_is_the_one_that_the_code_makes() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("openapi.json");
    let made = api::openapi();
    if std::env::var_os("UPDATE_OPENAPI").is_some() {
        std::fs::write(&path, &made).expect("to write it");
    }
    let committed = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        committed == made,
        "crates/control/openapi.json is not current: run the test once with UPDATE_OPENAPI=1"
    );
}

#[test]
fn no_two_endpoints_of_the_document_have_one_name() {
    let document: serde_json::Value = serde_json::from_str(&api::openapi()).expect("JSON");
    let paths = document["paths"].as_object().expect("paths");
    let methods = paths
        .values()
        .flat_map(|path| path.as_object().expect("methods").values());
    let mut seen = BTreeSet::new();
    for name in methods.filter_map(|method| method["operationId"].as_str()) {
        assert!(seen.insert(name), "{name} is there twice");
    }
    assert!(!seen.is_empty());
}

/// Calls, remembering which endpoint of the document each is.
struct Caller {
    world: World,
    called: BTreeSet<String>,
}

impl Caller {
    async fn call<T: serde::de::DeserializeOwned>(
        &mut self,
        endpoint: &str,
        path: &str,
        body: Vec<u8>,
    ) -> T {
        let bytes = self.raw(endpoint, path, body).await;
        serde_json::from_slice(&bytes)
            .unwrap_or_else(|e| panic!("{endpoint}: {e}: {}", String::from_utf8_lossy(&bytes)))
    }

    async fn raw(&mut self, endpoint: &str, path: &str, body: Vec<u8>) -> Vec<u8> {
        let method = endpoint.split(' ').next().expect("a method");
        let (status, body) = self.world.ask(method, path, body).await;
        let text = String::from_utf8_lossy(&body);
        assert!(status.is_success(), "{endpoint}: {status}: {text}");
        self.called.insert(endpoint.to_owned());
        body.to_vec()
    }
}

#[tokio::test]
async fn every_endpoint_of_the_document_answers() {
    let world = World::new().await;
    let mut api = Caller {
        world,
        called: BTreeSet::new(),
    };
    let version: VersionView = api.call("GET /v1/version", "/v1/version", vec![]).await;
    assert_eq!(
        (version.version.as_str(), version.http.as_str()),
        ("0.0.0-test", "127.0.0.1:8080")
    );
    assert_eq!(version.pid, std::process::id());

    let manifest = compose("fake/ok", "colour: red");
    let files = tar(&[("compose.yaml", manifest.as_bytes())]);
    let path = "/v1/manifests?app=shop&folder=x";
    let view: ManifestView = api.call("POST /v1/manifests", path, files).await;
    assert_eq!(
        (view.app.as_str(), &view.services[..]),
        ("shop", &["web".to_owned()][..])
    );
    assert_eq!(view.contexts, []);
    assert!(
        view.warnings.iter().any(|w| w.contains("compose.yaml:4")),
        "{:?}",
        view.warnings
    );

    let parts = tar(&[
        ("compose.yaml", b"include: [../common.yaml]"),
        (".layby/files.json", br#"["../common.yaml","../.env"]"#),
        (".layby/file/0", manifest.as_bytes()),
    ]);
    let without = tar(&[("compose.yaml", b"include: [../common.yaml]")]);
    let view: ManifestView = api.call("POST /v1/manifests", path, without).await;
    assert_eq!(view.more, ["../.env", "../common.yaml"]);
    let config = "/v1/manifests/config?app=shop&folder=x";
    let view: ConfigView = api.call("POST /v1/manifests/config", config, parts).await;
    assert!(
        view.text.starts_with("name: shop\nservices:\n  web:\n"),
        "{}",
        view.text
    );
    assert_eq!(
        (&*view.services, &*view.images),
        (&["web".to_owned()][..], &["fake/ok".to_owned()][..])
    );

    let files = tar(&[("manifest/compose.yaml", manifest.as_bytes())]);
    let events = api
        .raw("POST /v1/apps", "/v1/apps?app=shop&folder=x", files)
        .await;
    let up = Deployed::of(axum::http::StatusCode::OK, &events);
    assert_eq!(up.outcomes(), [("web".into(), Outcome::Live)]);

    let started = tokio::time::Instant::now();
    loop {
        let path = "/v1/events?service=shop/web&kind=live";
        let events = api.raw("GET /v1/events", path, vec![]).await;
        if events.ends_with(b"\n") {
            let event: EventView = serde_json::from_slice(&events).expect("one event");
            assert_eq!(event.text, "revision 1 is live");
            break;
        }
        assert!(started.elapsed() < PATIENCE, "it is never written down");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }

    let services: Vec<ServiceView> = api.call("GET /v1/services", "/v1/services", vec![]).await;
    assert_eq!(services.len(), 1);
    let one = "/v1/services/{app}/{service}";
    let at = "/v1/services/shop/web";
    let detail: ServiceDetail = api.call(&format!("GET {one}"), at, vec![]).await;
    assert_eq!(detail.view, services[0]);
    assert!(detail.replicas[0].containers[0].pid.is_some());
    let lines = [
        ("scale", r#"{"replicas":1}"#),
        ("power", r#"{"power":null}"#),
    ];
    for (what, body) in lines {
        let endpoint = format!("POST {one}/{what}");
        api.raw(&endpoint, &format!("{at}/{what}"), body.into())
            .await;
    }
    let scale: ScaleView = api
        .call(&format!("GET {one}/scale"), &format!("{at}/scale"), vec![])
        .await;
    assert_eq!(
        (scale.replicas, scale.by_hand, scale.policy),
        (1, Some(1), None)
    );
    let advice: AdviceView = api
        .call(&format!("GET {one}/power"), &format!("{at}/power"), vec![])
        .await;
    assert_eq!((advice.samples, advice.proposed), (0, None));
    let preset = br#"{"cpu_milli":1500,"memory_bytes":3221225472}"#.to_vec();
    let made: PowerView = api
        .call("PUT /v1/powers/{name}", "/v1/powers/batch", preset)
        .await;
    let powers: Vec<PowerView> = api.call("GET /v1/powers", "/v1/powers", vec![]).await;
    assert_eq!((powers.len(), &powers[4]), (7, &made));
    api.raw("DELETE /v1/powers/{name}", "/v1/powers/batch", vec![])
        .await;
    for what in ["doze", "sleep", "wake"] {
        let endpoint = format!("POST {one}/{what}");
        let _: ServiceView = api.call(&endpoint, &format!("{at}/{what}"), vec![]).await;
    }
    let events = api
        .raw(
            &format!("POST {one}/deploy"),
            &format!("{at}/deploy"),
            vec![],
        )
        .await;
    let same = Deployed::of(axum::http::StatusCode::OK, &events);
    assert_eq!(same.outcomes(), [("web".into(), Outcome::Unchanged)]);
    let events = api
        .raw(
            &format!("GET {one}/rollout"),
            &format!("{at}/rollout"),
            vec![],
        )
        .await;
    let followed = Deployed::of(axum::http::StatusCode::OK, &events);
    assert_eq!(followed.outcomes(), [("web".into(), Outcome::Live)]);
    let log = api
        .raw(
            &format!("GET {one}/logs"),
            &format!("{at}/logs?tail=1"),
            vec![],
        )
        .await;
    let line: LogView = serde_json::from_slice(&log).expect("one line");
    assert_eq!(
        (line.text.as_str(), line.stream.as_str()),
        ("ready", "stdout")
    );

    let path = "/v1/logs?app=shop&service=shop/web&tail=1&since_ms=1";
    let log = api.raw("GET /v1/logs", path, vec![]).await;
    let line: LogView = serde_json::from_slice(&log).expect("one line");
    assert_eq!((&*line.service, &*line.text), ("shop/web", "ready"));
    let files = tar(&[("greeting", b"hello")]);
    let path = format!("{at}/files?path=/etc");
    api.raw(&format!("PUT {one}/files"), &path, files).await;
    let path = format!("{at}/files?path=/etc/greeting");
    let file = api.raw(&format!("GET {one}/files"), &path, vec![]).await;
    assert!(String::from_utf8_lossy(&file).contains("hello"));
    let path = format!("{at}/files/stat?path=/etc/../etc/greeting");
    let found: FileView = api
        .call(&format!("GET {one}/files/stat"), &path, vec![])
        .await;
    assert_eq!((&*found.path, found.is_dir), ("/etc/greeting", false));
    let usage: Vec<UsageView> = api.call("GET /v1/usage", "/v1/usage", vec![]).await;
    assert_eq!((&*usage[0].service, usage[0].pids), ("web", 1));
    // These two take over their connections: see tests/access.rs.
    for what in ["exec?command=true", "forward?port=1", "run?command=true"] {
        let path = format!("{at}/{what}");
        let (status, body) = api.world.ask("GET", &path, vec![]).await;
        assert_eq!(status, 426, "{}", String::from_utf8_lossy(&body));
        let what = what.split('?').next().expect("a word");
        api.called.insert(format!("GET {one}/{what}"));
    }
    // And so does this one: see tests/e2e/agents.rs.
    let (status, _) = api.world.ask("GET", "/v1/agents", vec![]).await;
    assert_eq!(status, 426);
    api.called.insert("GET /v1/agents".to_owned());

    let images: Vec<ImageView> = api.call("GET /v1/images", "/v1/images", vec![]).await;
    let named = |name: &str| {
        images
            .iter()
            .any(|i| i.references.iter().any(|r| r == name))
    };
    assert!(
        named("fake/ok:latest") && named("checked:latest"),
        "{images:#?}"
    );
    for format in ["oci", "docker"] {
        let path = format!("/v1/images/save?reference=checked&format={format}");
        let archive = api.raw("GET /v1/images/save", &path, vec![]).await;
        let loaded: Vec<ImageView> = api
            .call("POST /v1/images/load", "/v1/images/load", archive)
            .await;
        let names = &loaded[0].references;
        assert!(
            names.contains(&"checked:latest".to_owned()),
            "{format}: {names:?}"
        );
    }
    api.raw("DELETE /v1/images", "/v1/images?reference=checked", vec![])
        .await;
    let images: Vec<ImageView> = api.call("GET /v1/images", "/v1/images", vec![]).await;
    assert!(
        !images
            .iter()
            .any(|i| i.references.contains(&"checked:latest".to_owned()))
    );

    let what = br#"{"folder":".","tags":["built:1"],"secrets":["s"],"labels":{"a":"b"}}"#;
    let files = tar(&[
        ("build.json", what),
        ("secret/0", b"hunter2"),
        ("context/0/Dockerfile", b"FROM scratch\nCOPY f /\n"),
        ("context/0/f", b"F"),
    ]);
    let lines = api.raw("POST /v1/builds", "/v1/builds", files).await;
    let lines = String::from_utf8(lines).expect("text");
    assert!(
        lines.contains(r#""type":"built","names":["built:1"]"#),
        "{lines}"
    );
    assert!(
        lines.ends_with("{\"type\":\"done\",\"code\":0}\n"),
        "{lines}"
    );
    assert!(!lines.contains("hunter2"));
    let built = api.world.images.resolve("built:1").expect("the image");
    assert_eq!(built.config.labels["a"], "b");
    let list = br#"{"contexts":[{"key":"k","entries":[
        {"path":"Dockerfile","mode":420,"mtime_ns":1,"size_bytes":22,"stamp":"1"},
        {"path":"f","mode":420,"mtime_ns":1,"size_bytes":1,"stamp":"1"}]}]}"#;
    for lacking in [vec![0, 1], vec![]] {
        let view: layby_control::api::types::ContextsView = api
            .call("POST /v1/contexts", "/v1/contexts", list.to_vec())
            .await;
        let offer = view.contexts[0].as_ref().expect("it is kept");
        assert_eq!(offer.lacks, lacking);
        let kept = format!(r#"{{"key":"k","id":"{}"}}"#, offer.id);
        let mut files = vec![
            ("build.json", &br#"{"folder":".","tags":["built:2"]}"#[..]),
            ("kept/0", kept.as_bytes()),
            ("context/0/Dockerfile", b"FROM scratch\nCOPY f /\n"),
            ("context/0/f", b"F"),
        ];
        files.truncate(2 + lacking.len());
        let (status, lines) = api.world.ask("POST", "/v1/builds", tar(&files)).await;
        let lines = String::from_utf8_lossy(&lines);
        assert!(status.is_success() && lines.contains("built:2"), "{lines}");
    }
    let peer = peer::Peer::start();
    let there = format!("{}/team/ok", peer.addr);
    let detail: serde_json::Value = api
        .call(
            "GET /v1/images/inspect",
            "/v1/images/inspect?reference=fake/ok",
            vec![],
        )
        .await;
    assert!(
        detail["config"]["rootfs"]["diff_ids"].is_array(),
        "{detail}"
    );
    let path = format!("/v1/images/tag?reference=fake/ok&to={there}");
    api.raw("POST /v1/images/tag", &path, vec![]).await;
    let path = format!("/v1/images/push?reference={there}");
    let pushed = api.raw("POST /v1/images/push", &path, vec![]).await;
    let path = format!("/v1/images/pull?reference={there}");
    let pulled = api.raw("POST /v1/images/pull", &path, vec![]).await;
    for lines in [pushed, pulled] {
        let text = String::from_utf8(lines).expect("text");
        let last: TransferEvent =
            serde_json::from_str(text.lines().last().expect("a line")).expect("JSON");
        match last {
            TransferEvent::Done { digest, .. } => assert_eq!(digest, detail["digest"]),
            other => panic!("{other:?}"),
        }
    }
    let digest = detail["digest"].as_str().expect("a digest");
    let origin = api.world.images.origin(digest);
    assert_eq!(
        origin,
        Some(format!("{there}:latest")),
        "it can be pulled again"
    );
    let body =
        serde_json::json!({"registry": peer.addr.to_string(), "user": "me", "password": "s3cret"});
    let login: LoginView = api
        .call(
            "POST /v1/registries",
            "/v1/registries",
            body.to_string().into(),
        )
        .await;
    let logins: Vec<LoginView> = api
        .call("GET /v1/registries", "/v1/registries", vec![])
        .await;
    assert_eq!(
        (logins, login.user.as_deref()),
        (vec![login.clone()], Some("me"))
    );
    let path = format!("/v1/registries?registry={}", peer.addr);
    api.raw("DELETE /v1/registries", &path, vec![]).await;
    let logins: Vec<LoginView> = api
        .call("GET /v1/registries", "/v1/registries", vec![])
        .await;
    assert_eq!(logins, []);

    let body = br#"{"name": "proxy", "apps": ["shop"]}"#.to_vec();
    let made: NetworkView = api.call("POST /v1/networks", "/v1/networks", body).await;
    assert_eq!(
        (made.apps.join(" "), made.limited),
        ("shop".to_owned(), true)
    );
    let all: Vec<NetworkView> = api.call("GET /v1/networks", "/v1/networks", vec![]).await;
    assert_eq!(all, std::slice::from_ref(&made));
    let inspected: NetworkView = api
        .call("GET /v1/networks/{name}", "/v1/networks/proxy", vec![])
        .await;
    assert_eq!(inspected, made);
    api.raw("DELETE /v1/networks/{name}", "/v1/networks/proxy", vec![])
        .await;

    let body = br#"{"name": "spare", "labels": {"a": "b"}}"#.to_vec();
    let made: VolumeView = api.call("POST /v1/volumes", "/v1/volumes", body).await;
    let volumes: Vec<VolumeView> = api.call("GET /v1/volumes", "/v1/volumes", vec![]).await;
    assert_eq!(volumes, std::slice::from_ref(&made));
    let spare: VolumeView = api
        .call("GET /v1/volumes/{name}", "/v1/volumes/spare", vec![])
        .await;
    assert_eq!((spare.labels.len(), &spare), (1, &made));
    api.raw("DELETE /v1/volumes/{name}", "/v1/volumes/spare", vec![])
        .await;
    let body = br#"{"dry_run":true}"#.to_vec();
    let pruned: PruneView = api
        .call("POST /v1/images/prune", "/v1/images/prune", body)
        .await;
    assert_eq!(pruned.names, [] as [String; 0]);
    let body = br#"{"name":"ci","pull":true}"#.to_vec();
    let made: NewToken = api.call("POST /v1/tokens", "/v1/tokens", body).await;
    let tokens: Vec<TokenView> = api.call("GET /v1/tokens", "/v1/tokens", vec![]).await;
    assert_eq!(tokens, [made.token]);
    api.raw("DELETE /v1/tokens/{name}", "/v1/tokens/ci", vec![])
        .await;

    revisions_and_switches(&mut api, one, at).await;
    let set = br#"{"app": "shop", "values": {"db": "aHVudGVyMg=="}}"#.to_vec();
    api.raw("POST /v1/secrets", "/v1/secrets", set).await;
    let secrets: Vec<KeptSecret> = api.call("GET /v1/secrets", "/v1/secrets", vec![]).await;
    assert_eq!((secrets[0].name.as_str(), secrets[0].version), ("db", 1));
    let rotate = "POST /v1/secrets/rotate-key";
    api.raw(rotate, "/v1/secrets/rotate-key", vec![]).await;
    let path = "/v1/secrets/db?app=shop";
    api.raw("DELETE /v1/secrets/{name}", path, vec![]).await;
    jobs_and_runs(&mut api, one, at).await;

    let removed: RemovedView = api
        .call("DELETE /v1/apps/{app}", "/v1/apps/shop", vec![])
        .await;
    assert_eq!(removed.removed, ["shop/web"]);
    let mut audit: Vec<AuditView> = Vec::new();
    while !audit.iter().any(|record| record.verb == "down") {
        audit = api
            .call("GET /v1/audit", "/v1/audit?limit=1000&who=root", vec![])
            .await;
    }
    let up = (audit.iter()).find(|record| record.verb == "up" && record.target == "shop");
    let up = up.expect("a record of the deploy");
    assert_eq!((&*up.who, &*up.from, up.status), ("root", "local", 200));
    assert!(
        audit
            .iter()
            .all(|record| !format!("{record:?}").contains("s3cret"))
    );
    // What is in a file, and what is not put back: see state.rs.
    let state: StateView = api.call("GET /v1/state", "/v1/state", vec![]).await;
    assert_eq!(state.services, [] as [String; 0]);
    for (what, status) in [("export", 200), ("import", 422)] {
        let path = format!("/v1/state/{what}");
        let body = b"no file of a state".to_vec();
        let said = api.world.ask_with("POST", &path, &state::OPENS, body).await;
        assert_eq!(said.0, status, "{}", String::from_utf8_lossy(&said.1));
        api.called.insert(format!("POST {path}"));
    }
    // Operations that are there, and what they tell: see network.rs.
    let (status, _) = api.world.ask("GET", "/v1/operations/0-0", vec![]).await;
    assert_eq!(status, 404);
    api.called.insert("GET /v1/operations/{id}".to_owned());
    api.raw("POST /v1/node/stop", "/v1/node/stop", vec![]).await;
    assert!(!api.world.control().stop_requested().await.all);

    let document = api
        .raw("GET /v1/openapi.json", "/v1/openapi.json", vec![])
        .await;
    api.called.remove("GET /v1/openapi.json");
    let document: serde_json::Value = serde_json::from_slice(&document).expect("JSON");
    let mut described = BTreeSet::new();
    for (path, methods) in document["paths"].as_object().expect("paths") {
        for method in methods.as_object().expect("methods").keys() {
            described.insert(format!("{} {path}", method.to_uppercase()));
        }
    }
    assert_eq!(api.called, described);
}

/// The endpoints of jobs and of one-off commands; the job comes and goes.
async fn jobs_and_runs(api: &mut Caller, one: &str, at: &str) {
    let manifest = "services: {web: {image: fake/ok}, tidy: {image: fake/ok, entrypoint: ['true'], x-layby: {schedule: '@yearly'}}}";
    api.world.up(manifest).await;
    let (job, tidy) = ("/v1/jobs/{app}/{job}", "/v1/jobs/shop/tidy");
    let jobs: Vec<JobView> = api.call("GET /v1/jobs", "/v1/jobs", vec![]).await;
    let view: JobView = api.call(&format!("GET {job}"), tidy, vec![]).await;
    assert_eq!((jobs.len(), &jobs[0]), (1, &view));
    for what in ["suspend", "resume"] {
        let path = format!("{tidy}/{what}");
        let view: JobView = api.call(&format!("POST {job}/{what}"), &path, vec![]).await;
        assert_eq!(view.suspended, what == "suspend");
    }
    let path = format!("{tidy}/runs");
    let begun: RunView = api.call(&format!("POST {job}/runs"), &path, vec![]).await;
    let path = format!("{at}/runs");
    let body = br#"{"command":["sleep","1m"]}"#.to_vec();
    let command: RunView = api.call(&format!("POST {one}/runs"), &path, body).await;
    assert_eq!((begun.run, command.run), (1, 1));
    let path = "/v1/jobs/shop/web/runs/1";
    let endpoint = format!("DELETE {job}/runs/{{run}}");
    let stopped: RunView = api.call(&endpoint, path, vec![]).await;
    assert_eq!(stopped.stopped_by.as_deref(), Some("root"));
    let endpoint = format!("GET {job}/runs/{{run}}");
    let _: RunView = api.call(&endpoint, path, vec![]).await;
    let path = format!("{tidy}/runs");
    let runs: Vec<RunView> = api.call(&format!("GET {job}/runs"), &path, vec![]).await;
    assert_eq!(runs.len(), 1);
    let path = format!("{tidy}/runs/1/logs?follow=true");
    let endpoint = format!("GET {job}/runs/{{run}}/logs");
    let log = api.raw(&endpoint, &path, vec![]).await;
    assert!(log.ends_with(b"\n"));
    api.raw(&format!("DELETE {job}"), tidy, vec![]).await;
}

/// The endpoints of a service's history, and those that switch it; a second service comes and goes.
async fn revisions_and_switches(api: &mut Caller, one: &str, at: &str) {
    for (what, outcome) in [
        ("redeploy", Outcome::Live),
        ("restart", Outcome::Restarted),
        ("rollback?to=1", Outcome::Unchanged),
    ] {
        let endpoint = format!("POST {one}/{}", what.split('?').next().expect("a word"));
        let events = api.raw(&endpoint, &format!("{at}/{what}"), vec![]).await;
        let done = Deployed::of(axum::http::StatusCode::OK, &events);
        assert_eq!(done.outcomes(), [("web".into(), outcome)]);
    }
    let held = api.world.first_line(&format!("{at}/hold")).await;
    let held: ServiceDetail = serde_json::from_str(&held).expect("a service");
    assert_eq!(held.view.service, "web");
    api.called.insert(format!("GET {one}/hold"));
    let path = format!("{at}/history");
    let history: Vec<RevisionView> = api.call(&format!("GET {one}/history"), &path, vec![]).await;
    assert_eq!((history.len(), history[0].active), (2, true));
    let path = format!("{at}/diff?from=1");
    let diff: DiffView = api.call(&format!("GET {one}/diff"), &path, vec![]).await;
    assert_eq!((diff.to, diff.changes.len()), (2, 0));
    let path = format!("{at}/disable");
    let off: ServiceView = api
        .call(&format!("POST {one}/disable"), &path, vec![])
        .await;
    assert_eq!((off.state, off.replicas_wanted), (State::Disabled, 0));
    let path = format!("{at}/enable");
    let events = api.raw(&format!("POST {one}/enable"), &path, vec![]).await;
    let on = Deployed::of(axum::http::StatusCode::OK, &events);
    assert_eq!(on.outcomes(), [("web".into(), Outcome::Live)]);
    let other = api.world.up_as("other", &compose("fake/ok", ""), "").await;
    assert_eq!(other.code(), 0);
    canaries(api, one, "/v1/services/other/web").await;
    let removed: RemovedView = api
        .call(&format!("DELETE {one}"), "/v1/services/other/web", vec![])
        .await;
    assert_eq!(removed.removed, ["other/web"]);
}

/// The ways in which a canary ends.
async fn canaries(api: &mut Caller, one: &str, at: &str) {
    for (image, way) in [("fake/ok:2", "promote"), ("fake/ok", "abort")] {
        let manifest = compose(image, "");
        let up = api.world.up_as("other", &manifest, "&canary=50%25");
        assert_eq!(up.await.outcomes(), [("web".into(), Outcome::Canary)]);
        let path = format!("{at}/{way}");
        api.raw(&format!("POST {one}/{way}"), &path, vec![]).await;
        let view: ServiceView = api.call(&format!("GET {one}"), at, vec![]).await;
        assert_eq!((view.revision, view.canary), (2, None));
    }
}

#[tokio::test]
async fn errors_are_problems() {
    let world = World::new().await;
    let big = vec![b'#'; 3 << 20];
    let cases: Vec<(&str, &str, Vec<u8>, u16, &str)> = vec![
        ("GET", "/v1/nothing", vec![], 404, "not-found"),
        ("PUT", "/v1/services", vec![], 405, "bad-request"),
        ("GET", "/v1/services/shop/web", vec![], 404, "not-found"),
        ("GET", "/v1/services/Shop/web", vec![], 400, "bad-request"),
        (
            "GET",
            "/v1/services/shop/web/logs",
            vec![],
            404,
            "not-found",
        ),
        ("DELETE", "/v1/apps/shop", vec![], 404, "not-found"),
        ("DELETE", "/v1/images", vec![], 400, "bad-request"),
        (
            "DELETE",
            "/v1/images?reference=none",
            vec![],
            404,
            "image-not-found",
        ),
        (
            "GET",
            "/v1/images/save?reference=none",
            vec![],
            404,
            "image-not-found",
        ),
        (
            "GET",
            "/v1/images/save?reference=plain&format=zip",
            vec![],
            400,
            "bad-request",
        ),
        (
            "POST",
            "/v1/images/load",
            b"no archive".to_vec(),
            422,
            "bad-image",
        ),
        (
            "POST",
            "/v1/builds",
            tar(&[("context/0/Dockerfile", b"FROM scratch")]),
            400,
            "bad-request",
        ),
        (
            "POST",
            "/v1/builds",
            tar(&[("kept/0", br#"{"key":"k","id":"sha256:1"}"#)]),
            409,
            "context-gone",
        ),
        (
            "POST",
            "/v1/contexts",
            br#"{"contexts":[{"key":"k","entries":[{"path":"../a","mode":0,"mtime_ns":0}]}]}"#
                .to_vec(),
            400,
            "bad-request",
        ),
        (
            "POST",
            "/v1/manifests",
            b"no tar".repeat(100),
            400,
            "bad-request",
        ),
        (
            "POST",
            "/v1/manifests",
            tar(&[("compose.yaml", b"a: [")]),
            422,
            "bad-manifest",
        ),
        (
            "POST",
            "/v1/manifests",
            tar(&[("compose.yaml", &big)]),
            413,
            "too-large",
        ),
        (
            "POST",
            "/v1/services/shop/web/deploy",
            b"{".to_vec(),
            400,
            "bad-request",
        ),
        (
            "POST",
            "/v1/services/shop/web/deploy",
            vec![],
            404,
            "not-found",
        ),
    ];
    for (method, path, body, status, code) in cases {
        let (got, answer) = world.ask(method, path, body).await;
        let problem: Problem = serde_json::from_slice(&answer).unwrap_or_else(|e| {
            panic!("{method} {path}: {e}: {}", String::from_utf8_lossy(&answer))
        });
        assert_eq!(
            (got.as_u16(), problem.status, problem.code.as_str()),
            (status, status, code),
            "{method} {path}: {problem:?}"
        );
        assert!(!problem.detail.is_empty(), "{method} {path}");
    }
}

#[tokio::test]
async fn an_image_that_runs_cannot_be_removed() {
    let world = World::new().await;
    world.up(&compose("fake/ok", "")).await;
    let (status, body) = world
        .ask("DELETE", "/v1/images?reference=fake/ok", vec![])
        .await;
    assert_eq!(status, 409, "{}", String::from_utf8_lossy(&body));
}

/// Deploys an app whose only image is built from a file with this text, and gives the image's digest.
async fn build(world: &World, text: &str) -> String {
    let manifest = "services:\n  web:\n    build: .\n    image: built\n";
    let files = tar(&[
        ("manifest/compose.yaml", manifest.as_bytes()),
        (
            "context/0/Dockerfile",
            b"FROM scratch\nCOPY it /it\nCMD [\"/it\"]\n",
        ),
        ("context/0/it", text.as_bytes()),
    ]);
    let (status, body) = world.ask("POST", "/v1/apps?app=shop&build=1", files).await;
    let up = Deployed::of(status, &body);
    assert_eq!(up.code(), 0, "{up:#?}");
    let image = world.images.resolve("built").expect("it was built");
    image.digest
}

#[tokio::test]
async fn an_image_that_nothing_needs_is_removed_and_one_of_an_old_revision_stays() {
    let world = World::new().await;
    let spare = world.images.resolve("checked").expect("it is there").digest;
    let first = build(&world, "one").await;
    let second = build(&world, "two").await;
    assert_ne!(first, second);
    let names = ["checked", "fake/exits:4"];
    for name in names {
        let path = format!("/v1/images?reference={name}");
        let (status, _) = world.ask("DELETE", &path, vec![]).await;
        assert_eq!(status, 204);
    }
    world.until_collected(&spare).await;
    // The name went on to the second image; the first is in the history all the same.
    for digest in [&first, &second] {
        let image = world.images.get(digest).expect("it stays");
        world.images.layers(&image.digest).expect("whole");
    }
    // With the app goes its history.
    let (status, _) = world.ask("DELETE", "/v1/apps/shop", vec![]).await;
    assert_eq!(status, 200);
    world.until_collected(&first).await;
    world.images.get(&second).expect("it has a name");
}

#[test]
fn clients_that_stall_leave_threads_for_the_others() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .max_blocking_threads(6)
        .enable_all()
        .build()
        .expect("a runtime");
    runtime.block_on(async {
        let world = World::new().await;
        world.up(&compose("fake/ok", "")).await;
        for path in ["/v1/apps?app=x", "/v1/manifests", "/v1/images/load"].repeat(4) {
            world.stall(path);
        }
        // Looking images up is work for such a thread, as freezing is.
        let body = br#"{"image":"fake/ok:2"}"#.to_vec();
        let deploy = world.ask("POST", "/v1/services/shop/web/deploy", body);
        // Well before those who stall are given up.
        let deploy = tokio::time::timeout(common::PATIENCE / 2, deploy).await;
        let (status, body) = deploy.expect("no wait for those who stall");
        let deployed = Deployed::of(status, &body);
        assert_eq!(deployed.code(), 0, "{deployed:#?}");
        let images: Vec<ImageView> = world.get("/v1/images").await;
        assert!(!images.is_empty());
    });
    runtime.shutdown_background();
}
