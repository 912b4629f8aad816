//! The embedded registry on a node: who may use it, what a push sets off, and how its images are named.

mod common;

use axum::http::{Request, StatusCode};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use common::{Deployed, World, compose};
use layby_control::api::types::{Event, ImageView, NewToken, Outcome, PruneView, RevisionView};
use layby_model::route::Mode;
use sha2::{Digest, Sha256};

fn digest(bytes: &[u8]) -> String {
    let hash = Sha256::digest(bytes);
    let hex: String = hash.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("sha256:{hex}")
}

/// An image without layers whose config says `text`, as config and manifest.
fn image(text: &str) -> (Vec<u8>, Vec<u8>) {
    let config = serde_json::json!({
        "architecture": "amd64", "os": "linux", "config": {"Cmd": [text], "ExposedPorts": {"8080/tcp": {}}},
        "rootfs": {"type": "layers", "diff_ids": []},
    });
    let config = config.to_string().into_bytes();
    let manifest = serde_json::json!({
        "schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": {"mediaType": "application/vnd.oci.image.config.v1+json", "digest": digest(&config), "size": config.len()},
        "layers": [],
    });
    (config, manifest.to_string().into_bytes())
}

struct Client<'a> {
    world: &'a World,
    login: Option<String>,
}

impl Client<'_> {
    async fn ask(&self, method: &str, path: &str, body: &[u8]) -> (StatusCode, String) {
        let mut request = Request::builder().method(method).uri(path);
        if let Some(login) = &self.login {
            request = request.header("authorization", format!("Basic {}", STANDARD.encode(login)));
        }
        let request = request.body(body.to_vec()).expect("a request");
        let answer = self.world.ask_registry(request).await;
        let status = answer.status();
        (status, String::from_utf8_lossy(answer.body()).into_owned())
    }

    async fn push(&self, repository: &str, tag: &str, text: &str) -> String {
        let (config, manifest) = image(text);
        let path = format!("/v2/{repository}/blobs/uploads/?digest={}", digest(&config));
        let (status, body) = self.ask("POST", &path, &config).await;
        assert_eq!(status, 201, "{body}");
        let path = format!("/v2/{repository}/manifests/{tag}");
        let (status, body) = self.ask("PUT", &path, &manifest).await;
        assert_eq!(status, 201, "{body}");
        digest(&manifest)
    }
}

async fn token(world: &World, body: &str) -> String {
    let (status, answer) = world
        .ask("POST", "/v1/tokens", body.as_bytes().to_vec())
        .await;
    assert_eq!(status, 200, "{}", String::from_utf8_lossy(&answer));
    let made: NewToken = serde_json::from_slice(&answer).expect("a token");
    format!("{}:{}", made.token.name, made.secret)
}

async fn pusher(world: &World) -> Client<'_> {
    let login = token(world, r#"{"name":"ci","pull":true,"push":true}"#).await;
    Client {
        world,
        login: Some(login),
    }
}

async fn follow(world: &World) -> Deployed {
    let path = "/v1/services/shop/web/rollout";
    let (status, body) = world.ask("GET", path, Vec::new()).await;
    Deployed::of(status, &body)
}

const ON_PUSH: &str = "x-layby:\n  deploy_on_push: true";

#[tokio::test]
async fn a_pushed_image_is_deployed_by_each_of_its_names_without_being_pulled() {
    let world = World::with_registry().await;
    let digest = pusher(&world).await.push("fake/ok", "1", "a").await;
    for name in [
        "registry/fake/ok:1",
        "registry.localhost/fake/ok:1",
        "registry.localhost:8080/fake/ok:1",
        "localhost:5000/fake/ok:1",
    ] {
        let up = world.up(&compose(name, "")).await;
        assert_eq!(up.code(), 0, "{name}: {up:#?}");
    }
    let images: Vec<ImageView> = world.get("/v1/images").await;
    let pushed = images.iter().find(|image| image.digest == digest);
    let names = &pushed.expect("it is there").references;
    assert_eq!(names, &["registry.localhost/fake/ok:1"]);
    let missing = world.up(&compose("registry/fake/ok:2", "")).await;
    assert_eq!(missing.status, 404, "{missing:#?}");
}

#[tokio::test]
async fn an_image_that_gets_a_name_of_the_registry_is_pushed_there() {
    let world = World::with_registry().await;
    let client = pusher(&world).await;
    let first = client.push("fake/ok", "1", "a").await;
    let second = client.push("fake/ok", "2", "b").await;
    world.up(&compose("registry/fake/ok:1", ON_PUSH)).await;
    let by_up = world.detail("shop/web").await.cause;
    assert_eq!(by_up.as_deref(), Some("deployed with `layby up`"));

    let tag = |from: &str, to: &str| format!("/v1/images/tag?reference={from}&to={to}");
    let path = tag("localhost:5000/fake/ok:2", "plain:2");
    assert_eq!(world.ask("POST", &path, Vec::new()).await.0, 204);
    for to in [
        "registry/fake/ok:1",
        "registry.localhost:8080/team/other:x",
        "localhost:5000/team/other:y",
    ] {
        let (status, body) = world.ask("POST", &tag("plain:2", to), Vec::new()).await;
        assert_eq!(status, 204, "{to}: {}", String::from_utf8_lossy(&body));
    }
    let followed = follow(&world).await;
    assert_eq!(followed.outcomes(), [("web".into(), Outcome::Live)]);
    let detail = world.detail("shop/web").await;
    let cause = detail.cause.expect("it is known");
    assert!(
        cause.starts_with("root pushed registry.localhost/fake/ok:1"),
        "{cause}"
    );
    assert_eq!(detail.view.revision, 2);

    let manifest = String::from_utf8(image("b").1).expect("text");
    for (repository, tag) in [("team/other", "x"), ("team/other", "y"), ("fake/ok", "1")] {
        let path = format!("/v2/{repository}/manifests/{tag}");
        assert_eq!(
            client.ask("GET", &path, b"").await,
            (StatusCode::OK, manifest.clone())
        );
    }
    let config = String::from_utf8(image("b").0).expect("text");
    let path = format!("/v2/team/other/blobs/{}", digest(config.as_bytes()));
    assert_eq!(
        client.ask("GET", &path, b"").await,
        (StatusCode::OK, config)
    );

    // Pushing it there is the same, and every way to name it means one image.
    let path = "/v1/images/push?reference=registry/fake/ok:1&to=registry/fake/ok:3";
    let (status, body) = world.ask("POST", path, Vec::new()).await;
    let said = String::from_utf8_lossy(&body).into_owned();
    assert!(status == 200 && said.contains(&second), "{said}");
    for name in [
        "registry/fake/ok:3",
        "registry.localhost:8080/fake/ok:3",
        "localhost:5000/fake/ok:3",
    ] {
        let path = format!("/v1/images/inspect?reference={name}");
        let (status, body) = world.ask("GET", &path, Vec::new()).await;
        assert!(status == 200 && String::from_utf8_lossy(&body).contains(&second));
        let path = format!("/v1/images/save?reference={name}");
        let (status, body) = world.ask("GET", &path, Vec::new()).await;
        assert_eq!(status, 200, "{name}: {}", String::from_utf8_lossy(&body));
    }
    let path = "/v1/images?reference=localhost:5000/fake/ok:1";
    assert_eq!(
        world.ask("DELETE", path, Vec::new()).await.0,
        409,
        "it runs by this name"
    );
    let path = "/v1/images/save?reference=localhost:5000/team/other:y&format=oci";
    let archive = world.ask("GET", path, Vec::new()).await.1;
    let path = "/v1/images?reference=localhost:5000/team/other:y";
    assert_eq!(
        world.ask("DELETE", path, Vec::new()).await.0,
        204,
        "no manifest names it"
    );
    let at_tag = "/v2/team/other/manifests/y";
    assert_eq!(client.ask("GET", at_tag, b"").await.0, 404);
    let (status, body) = world.ask("POST", "/v1/images/load", archive.to_vec()).await;
    let said = String::from_utf8_lossy(&body).into_owned();
    assert!(status == 200 && said.contains("team/other:y"), "{said}");
    let loaded = client.ask("GET", at_tag, b"").await;
    assert_eq!(loaded, (StatusCode::OK, manifest.clone()));
    let path = tag("nothing", "registry/fake/ok:1");
    assert_eq!(world.ask("POST", &path, Vec::new()).await.0, 404);
    assert_ne!(first, second);
}

#[tokio::test]
async fn a_push_deploys_nothing_that_the_operator_does_not_allow_any_more() {
    let mut world = World::with_registry().await;
    world.allow_privileged = true;
    world.restart().await;
    let login = pusher(&world).await.login;
    let push = async |world: &World, text: &str| {
        let login = login.clone();
        Client { world, login }.push("fake/ok", "1", text).await
    };
    push(&world, "a").await;
    let more = format!("privileged: true\n{ON_PUSH}");
    let up = world.up(&compose("registry/fake/ok:1", &more)).await;
    assert_eq!(up.code(), 0, "{up:#?}");
    world.allow_privileged = false;
    world.restart().await;
    push(&world, "b").await;
    follow(&world).await;
    assert_eq!(world.detail("shop/web").await.view.revision, 1);
}

#[tokio::test]
async fn a_push_deploys_the_services_that_ask_for_it_and_says_who_pushed() {
    let world = World::with_registry().await;
    let client = pusher(&world).await;
    client.push("fake/ok", "1", "a").await;
    world.up(&compose("registry/fake/ok:1", ON_PUSH)).await;
    assert_eq!(world.detail("shop/web").await.view.revision, 1);

    let second = client.push("fake/ok", "1", "b").await;
    let followed = follow(&world).await;
    assert_eq!(followed.code(), 0, "{followed:#?}");
    assert_eq!(followed.outcomes(), [("web".into(), Outcome::Live)]);
    let told = followed.events.iter().find_map(|event| match event {
        Event::Progress { text, .. } => Some(text.as_str()),
        _ => None,
    });
    let text = format!("revision 2: ci pushed registry.localhost/fake/ok:1 ({second})");
    assert_eq!(told, Some(text.as_str()));
    assert_eq!(world.detail("shop/web").await.view.revision, 2);

    // The same again, another tag, another repository: nothing moves.
    client.push("fake/ok", "1", "b").await;
    client.push("fake/ok", "2", "c").await;
    client.push("other", "1", "c").await;
    follow(&world).await;
    assert_eq!(world.detail("shop/web").await.view.revision, 2);
}

#[tokio::test]
async fn a_push_deploys_nothing_that_does_not_ask_for_it() {
    let world = World::with_registry().await;
    let client = pusher(&world).await;
    client.push("fake/ok", "1", "a").await;
    world.up(&compose("registry/fake/ok:1", "")).await;
    client.push("fake/ok", "1", "b").await;
    follow(&world).await;
    assert_eq!(world.detail("shop/web").await.view.revision, 1);
}

#[tokio::test]
async fn a_variable_is_changed_without_the_image_wherever_its_tag_has_gone() {
    let world = World::with_registry().await;
    let client = pusher(&world).await;
    let first = client.push("fake/ok", "1", "a").await;
    world.up(&compose("registry/fake/ok:1", "")).await;
    let second = client.push("fake/ok", "1", "b").await;
    let post = async |what: &str, body: &str| {
        let path = format!("/v1/services/shop/web/{what}");
        let (status, body) = world.ask("POST", &path, body.into()).await;
        assert_eq!(Deployed::of(status, &body).code(), 0, "{what}");
        let path = "/v1/services/shop/web/history";
        let newest: Vec<RevisionView> = world.get(path).await;
        let newest = newest.into_iter().next().expect("a revision");
        (
            newest.digest.expect("a digest"),
            newest.cause.expect("a cause"),
        )
    };
    let set = |n: u32| format!(r#"{{"env":{{"N":"{n}"}}}}"#);
    let kept = "deployed with `layby deploy`: N set".to_owned();
    assert_eq!(post("deploy", &set(1)).await, (first.clone(), kept.clone()));

    let (digest, cause) = post("deploy", "{}").await;
    assert_eq!(digest, second);
    let moved = format!("fake/ok:1 moved to {}", &second["sha256:".len()..][..12]);
    assert!(cause.ends_with(&moved), "{cause}");

    post("rollback", "").await;
    assert_eq!(post("deploy", &set(2)).await, (first.clone(), kept.clone()));
    client.ask("DELETE", "/v2/fake/ok/manifests/1", b"").await;
    assert_eq!(post("deploy", &set(3)).await, (first, kept));
}

#[tokio::test]
async fn a_push_that_a_crash_cut_off_from_its_deploy_is_deployed_at_the_next_start() {
    let mut world = World::with_registry().await;
    let login = token(&world, r#"{"name":"ci","push":true}"#).await;
    let client = |world| Client {
        world,
        login: Some(login.clone()),
    };
    client(&world).push("fake/ok", "1", "a").await;
    world.up(&compose("registry/fake/ok:1", ON_PUSH)).await;
    let (_, manifest) = image("b");
    client(&world).push("fake/ok", "2", "b").await;
    // As if the node had been killed right after the tag was set: nobody is told.
    world.kill();
    let store = std::sync::Arc::clone(&world.images);
    let registry = layby_image::registry::Registry::open(
        store,
        layby_image::registry::RegistryConfig {
            hosts: layby_image::registry::Hosts::new("localhost", None),
            on_move: std::sync::Arc::new(|_| {}),
            unpack: false,
        },
    );
    let body: layby_image::registry::Incoming = http_body_util::BodyExt::boxed_unsync(
        http_body_util::BodyExt::map_err(http_body_util::Full::new(manifest.into()), |never| {
            match never {}
        }),
    );
    let request = Request::put("/v2/fake/ok/manifests/1").body(body);
    let grant = layby_image::registry::Grant::root();
    let answer = registry.expect("a registry");
    let answer = answer.handle(request.expect("a request"), &grant).await;
    assert_eq!(answer.status(), 201);
    world.start().await;
    world
        .until("shop/web", |detail| detail.view.revision == 2)
        .await;
}

#[tokio::test]
async fn a_tag_that_is_deleted_leaves_what_runs() {
    let world = World::with_registry().await;
    let client = pusher(&world).await;
    client.push("fake/ok", "1", "a").await;
    world.up(&compose("registry/fake/ok:1", ON_PUSH)).await;
    let (status, body) = client.ask("DELETE", "/v2/fake/ok/manifests/1", b"").await;
    assert_eq!(status, 202, "{body}");
    follow(&world).await;
    let detail = world.detail("shop/web").await;
    assert_eq!((detail.view.revision, detail.view.replicas_ready), (1, 1));
}

#[tokio::test]
async fn nobody_gets_in_without_a_token_and_a_token_is_good_for_what_it_says() {
    let world = World::with_registry().await;
    let nobody = Client {
        world: &world,
        login: None,
    };
    pusher(&world).await.push("team/app", "1", "a").await;
    let request = Request::get("/v2/").body(Vec::new()).expect("a request");
    let answer = world.ask_registry(request).await;
    assert_eq!(answer.status(), 401);
    let challenge = answer.headers()["www-authenticate"].to_str();
    assert!(challenge.expect("text").starts_with("Basic realm="));
    let manifest = "/v2/team/app/manifests/1";
    assert_eq!(nobody.ask("GET", manifest, b"").await.0, 401);
    assert_eq!(nobody.ask("GET", "/v2/_catalog", b"").await.0, 401);
    assert_eq!(nobody.ask("GET", "/v2/No/manifests/1", b"").await.0, 401);

    let reads = Client {
        login: Some(token(&world, r#"{"name":"r","pull":true,"repository":"team/*"}"#).await),
        world: &world,
    };
    assert_eq!(reads.ask("GET", "/v2/", b"").await.0, 200);
    assert_eq!(reads.ask("GET", manifest, b"").await.0, 200);
    for (method, path) in [
        ("PUT", manifest),
        ("DELETE", manifest),
        ("POST", "/v2/team/app/blobs/uploads/"),
        ("GET", "/v2/other/manifests/1"),
    ] {
        let (status, body) = reads.ask(method, path, b"").await;
        assert_eq!(status, 403, "{method} {path}: {body}");
        assert!(body.contains("DENIED"), "{body}");
    }
    let wrong = Client {
        login: Some("r:lyb_0".into()),
        world: &world,
    };
    let (status, body) = wrong.ask("GET", "/v2/", b"").await;
    assert_eq!(status, 401);
    assert!(body.contains("wrong user name or password"), "{body}");

    let (status, _) = world.ask("DELETE", "/v1/tokens/r", Vec::new()).await;
    assert_eq!(status, 204);
    assert_eq!(reads.ask("GET", "/v2/", b"").await.0, 401);
    let (status, body) = world.ask("GET", "/v2/_catalog", Vec::new()).await;
    assert_eq!(status, 200, "the socket needs no token");
    assert_eq!(&body[..], br#"{"repositories":["team/app"]}"#);
}

#[tokio::test]
async fn tokens_that_make_no_sense_are_refused() {
    let world = World::with_registry().await;
    token(&world, r#"{"name":"ci","pull":true}"#).await;
    for (body, status) in [
        (r#"{"name":"ci","pull":true}"#, 409),
        (r#"{"name":"","pull":true}"#, 400),
        (r#"{"name":"a:b","pull":true}"#, 400),
        (r#"{"name":"root","pull":true}"#, 400),
        (r#"{"name":"x"}"#, 400),
        (r#"{"name":"x","pull":true,"repository":"Team/*"}"#, 400),
        ("{}", 400),
    ] {
        let (found, answer) = world
            .ask("POST", "/v1/tokens", body.as_bytes().to_vec())
            .await;
        let answer = String::from_utf8_lossy(&answer);
        assert_eq!(found, status, "{body}: {answer}");
    }
    let (status, _) = world.ask("DELETE", "/v1/tokens/other", Vec::new()).await;
    assert_eq!(status, 404);
}

#[tokio::test]
async fn pruning_keeps_what_services_and_the_registry_need() {
    let world = World::with_registry().await;
    let client = pusher(&world).await;
    client.push("fake/ok", "1", "a").await;
    world.up(&compose("registry/fake/ok:1", ON_PUSH)).await;
    client.push("fake/ok", "1", "b").await;
    follow(&world).await;
    let prune = async |body: &str| {
        let asked = world.ask("POST", "/v1/images/prune", body.as_bytes().to_vec());
        let (status, answer) = asked.await;
        assert_eq!(status, 200, "{}", String::from_utf8_lossy(&answer));
        serde_json::from_slice::<PruneView>(&answer).expect("what went")
    };
    let all = prune(r#"{"all":true,"untagged":true}"#).await;
    assert!(
        all.names.contains(&"fake/hangs:latest".to_owned()),
        "{all:?}"
    );
    assert_eq!(
        all.untagged,
        [] as [&str; 0],
        "revision 1 may be gone back to"
    );
    let fewer = r#"{"untagged":true,"keep_revisions":0}"#;
    let told = prune(&fewer.replace('}', r#","dry_run":true}"#)).await;
    let done = prune(fewer).await;
    assert_eq!(done.revisions, ["shop/web revision 1"]);
    assert_eq!(done.untagged.len(), 1, "{done:?}");
    assert_eq!(
        (told.revisions, told.untagged),
        (done.revisions, done.untagged)
    );
    let again = world.up(&compose("registry/fake/ok:1", ON_PUSH)).await;
    assert_eq!(again.outcomes(), [("web".into(), Outcome::Unchanged)]);
    let (status, _) = world
        .ask("POST", "/v1/images/prune", br#"{"low_bytes":1}"#.to_vec())
        .await;
    assert_eq!(status, 400);
}

#[tokio::test]
async fn of_a_running_image_only_the_name_that_the_manifest_uses_and_the_last_one_stay() {
    let world = World::with_registry().await;
    world.up(&compose("fake/ok", "")).await;
    let tag = "/v1/images/tag?reference=fake/ok&to=alias:1";
    assert_eq!(world.ask("POST", tag, Vec::new()).await.0, 204);
    let rm = async |name: &str| {
        let path = format!("/v1/images?reference={name}");
        world.ask("DELETE", &path, Vec::new()).await.0
    };
    assert_eq!(rm("fake/ok").await, 409, "the manifest names it");
    assert_eq!(rm("alias:1").await, 204);
    assert_eq!(rm("fake/ok").await, 409);
}

#[tokio::test]
async fn images_are_named_by_the_first_digits_of_their_digests_too() {
    let world = World::with_registry().await;
    world.up(&compose("fake/ok", "")).await;
    let inspect = async |name: &str| {
        let path = format!("/v1/images/inspect?reference={name}");
        let (status, answer) = world.ask("GET", &path, Vec::new()).await;
        let json: serde_json::Value = serde_json::from_slice(&answer).expect("JSON");
        (
            status.as_u16(),
            json["digest"].as_str().unwrap_or_default().to_owned(),
        )
    };
    let (status, digest) = inspect("fake/ok").await;
    assert_eq!(status, 200);
    let hex = digest.strip_prefix("sha256:").expect("a digest");
    for id in [&digest, hex, &hex[..12], &format!("sha256:{}", &hex[..6])] {
        assert_eq!(inspect(id).await, (200, digest.clone()), "{id}");
    }
    assert_eq!(inspect(&hex[..5]).await.0, 404, "it is too short for an id");
    let tag = format!("/v1/images/tag?reference={}&to=alias:1", &hex[..12]);
    assert_eq!(world.ask("POST", &tag, Vec::new()).await.0, 204);
    assert_eq!(inspect("alias:1").await.1, digest);
}

#[tokio::test]
async fn the_gateway_leads_to_the_registry_by_its_name() {
    let world = World::with_registry().await;
    let table = world
        .until_table(|table| table.hosts.contains_key("registry.localhost"))
        .await;
    let service = &table.hosts["registry.localhost"];
    let route = &table.services[service];
    assert_eq!(route.port, Some(5000));
    assert!(matches!(&route.mode, Mode::Serve { upstreams, .. } if upstreams.len() == 1));
    let refused = world.up_as("layby", &compose("fake/ok", ""), "").await;
    assert_eq!(refused.problem().code, "conflict");
}

#[tokio::test]
async fn an_image_that_is_removed_by_its_name_in_the_registry_is_gone_there_too() {
    let world = World::with_registry().await;
    let client = pusher(&world).await;
    client.push("app", "1", "a").await;
    let path = "/v1/images?reference=registry/app:1";
    let (status, body) = world.ask("DELETE", path, Vec::new()).await;
    assert_eq!(status, 204, "{}", String::from_utf8_lossy(&body));
    assert_eq!(client.ask("GET", "/v2/app/manifests/1", b"").await.0, 404);
    let images: Vec<ImageView> = world.get("/v1/images").await;
    assert!(images.iter().all(|image| {
        !image
            .references
            .contains(&"registry.localhost/app:1".into())
    }));
}

#[tokio::test]
async fn an_image_that_is_removed_by_its_digest_is_gone_under_all_of_its_names() {
    let world = World::with_registry().await;
    let client = pusher(&world).await;
    let digest = client.push("app", "1", "a").await;
    client.push("other/app", "2", "a").await;
    let tag = format!("/v1/images/tag?reference={digest}&to=local:1");
    assert_eq!(world.ask("POST", &tag, Vec::new()).await.0, 204);
    let path = format!("/v1/images?reference={digest}");
    let (status, body) = world.ask("DELETE", &path, Vec::new()).await;
    assert_eq!(status, 204, "{}", String::from_utf8_lossy(&body));
    for path in ["/v2/app/manifests/1", "/v2/other/app/manifests/2"] {
        assert_eq!(client.ask("GET", path, b"").await.0, 404, "{path}");
    }
    let images: Vec<ImageView> = world.get("/v1/images").await;
    assert!(images.iter().all(|image| image.digest != digest));
}

#[test]
fn a_secret_is_in_no_debug_output() {
    let made = r#"{"name":"ci","pull":true,"push":false,"repository":"*","created_at":"2026-01-01T00:00:00Z","expires_at":null,"secret":"lyb_hidden"}"#;
    let made: NewToken = serde_json::from_str(made).expect("a token");
    assert!(!format!("{made:?}").contains("hidden"));
}
