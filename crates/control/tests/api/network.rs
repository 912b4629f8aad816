//! What holds for every endpoint: tokens and their roles and apps, the audit log, operations, keys, events.

use axum::body::Body;
use axum::extract::ConnectInfo;
use axum::http::{HeaderMap, Request, StatusCode};
use futures_util::StreamExt;
use layby_control::api::types::{
    EventView, ImageView, NewToken, Problem, RevisionView, ServiceView,
};
use layby_control::api::{AuditView, OperationState, OperationView};
use std::net::SocketAddr;
use tower::ServiceExt;

use crate::common::{PATIENCE, World, compose, tar};

/// Somebody at the network's door, or with no token at the socket.
pub(crate) struct Client<'a> {
    world: &'a World,
    /// `None`: at the socket.
    token: Option<String>,
    from: SocketAddr,
}

pub(crate) struct Reply {
    pub(crate) status: StatusCode,
    headers: HeaderMap,
    pub(crate) body: Vec<u8>,
}

impl Reply {
    fn json<T: serde::de::DeserializeOwned>(&self) -> T {
        let text = String::from_utf8_lossy(&self.body);
        serde_json::from_slice(&self.body).unwrap_or_else(|e| panic!("{e}: {text}"))
    }

    fn code(&self) -> String {
        self.json::<Problem>().code
    }
}

impl Client<'_> {
    pub(crate) fn with(&self, token: &str) -> Self {
        Client {
            world: self.world,
            token: Some(token.to_owned()),
            from: self.from,
        }
    }

    async fn send(
        &self,
        line: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> axum::response::Response {
        let (method, path) = line.split_once(' ').expect("a method and a path");
        let mut request = Request::builder().method(method).uri(path);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let control = self.world.control();
        let router = match &self.token {
            None => control.router(),
            Some(token) => {
                if !token.is_empty() {
                    request = request.header("authorization", format!("Bearer {token}"));
                }
                control.network_router()
            }
        };
        let request = request.extension(ConnectInfo(self.from));
        let request = request.body(Body::from(body.to_vec())).expect("a request");
        router.oneshot(request).await.expect("an answer")
    }

    pub(crate) async fn ask(&self, line: &str, headers: &[(&str, &str)], body: &[u8]) -> Reply {
        let answer = self.send(line, headers, body).await;
        let (parts, body) = answer.into_parts();
        let body = tokio::time::timeout(PATIENCE, axum::body::to_bytes(body, 1 << 20)).await;
        Reply {
            status: parts.status,
            headers: parts.headers,
            body: body.expect("in time").expect("a whole body").to_vec(),
        }
    }

    pub(crate) async fn status(&self, line: &str) -> u16 {
        self.ask(line, &[], b"").await.status.as_u16()
    }
}

pub(crate) fn at_socket(world: &World) -> Client<'_> {
    Client {
        world,
        token: None,
        from: ([192, 0, 2, 1], 40_000).into(),
    }
}

pub(crate) async fn token(world: &World, body: &str) -> String {
    let made = at_socket(world)
        .ask("POST /v1/tokens", &[], body.as_bytes())
        .await;
    assert_eq!(made.status, 200, "{}", String::from_utf8_lossy(&made.body));
    made.json::<NewToken>().secret
}

#[tokio::test]
async fn a_token_opens_what_its_role_and_its_apps_say() {
    let world = World::new().await;
    world.up(&compose("fake/ok", "")).await;
    world.up_as("blog", &compose("fake/ok", ""), "").await;
    let root = at_socket(&world);
    let nobody = root.with("");
    let refused = nobody.ask("GET /v1/services", &[], b"").await;
    assert_eq!(
        (refused.status.as_u16(), refused.code()),
        (401, "unauthorized".to_owned())
    );
    let challenge = refused.headers["www-authenticate"].to_str().expect("text");
    assert!(challenge.starts_with("Bearer realm="), "{challenge}");
    let read = root.with(&token(&world, r#"{"name":"eye","role":"read"}"#).await);
    let ci = root.with(&token(&world, r#"{"name":"ci","role":"deploy","apps":["shop"]}"#).await);
    let admin = root.with(&token(&world, r#"{"name":"ann","role":"admin"}"#).await);
    let puller = root.with(&token(&world, r#"{"name":"puller","pull":true}"#).await);
    for (who, line, expected) in [
        (&read, "GET /v1/services", 200),
        (&read, "GET /v1/services/shop/web", 200),
        (&read, "POST /v1/services/shop/web/wake", 403),
        (&read, "GET /v1/services/shop/web/exec?command=env", 403),
        (&read, "GET /v1/audit", 403),
        (&ci, "POST /v1/services/shop/web/wake", 200),
        (&ci, "POST /v1/services/blog/web/wake", 403),
        (&ci, "GET /v1/services/blog/web", 403),
        (&ci, "GET /v1/services/blog/web/logs", 403),
        (&ci, "GET /v1/logs?app=shop&service=blog/web", 403),
        (&ci, "GET /v1/usage?service=blog/web", 403),
        (&ci, "GET /v1/events?app=blog", 403),
        (&ci, "GET /v1/events?service=blog/web", 403),
        (&ci, "GET /v1/secrets?app=blog", 403),
        (&ci, "GET /v1/secrets?app=shop", 200),
        (&ci, "GET /v1/state", 403),
        (&ci, "POST /v1/state/export", 403),
        (&read, "GET /v1/state", 403),
        (&ci, "POST /v1/volumes", 403),
        (&ci, "POST /v1/images/pull?reference=x", 403),
        (&ci, "GET /v1/images/inspect?reference=checked", 404),
        (&ci, "GET /v1/images/inspect?reference=fake/ok", 200),
        (
            &ci,
            "POST /v1/images/tag?reference=fake/ok&to=fake/ok:2",
            403,
        ),
        (&ci, "DELETE /v1/images?reference=checked", 403),
        (&ci, "GET /v1/tokens", 403),
        (&admin, "GET /v1/tokens", 200),
        (&admin, "GET /v1/nothing", 404),
        (&nobody, "GET /v1/nothing", 401),
        (&puller, "GET /v1/services", 403),
        (&puller, "GET /v2/", 200),
        (&nobody, "GET /v2/", 401),
    ] {
        assert_eq!(who.status(line).await, expected, "{line}");
    }
    let seen: Vec<ServiceView> = ci.ask("GET /v1/services", &[], b"").await.json();
    assert!(seen.iter().all(|service| service.app == "shop") && seen.len() == 1);
    let events = ci.ask("GET /v1/events", &[], b"").await.body;
    let events: Vec<EventView> = (events.split(|byte| *byte == b'\n'))
        .filter(|line| !line.is_empty())
        .map(|line| serde_json::from_slice(line).expect("an event"))
        .collect();
    assert!(
        events
            .iter()
            .all(|event| event.app.as_deref() == Some("shop"))
    );
    let files = tar(&[("manifest/compose.yaml", compose("fake/ok", "").as_bytes())]);
    let other = ci.ask("POST /v1/apps?app=blog&folder=x", &[], &files).await;
    assert_eq!(
        (other.status.as_u16(), other.code()),
        (403, "not-allowed".to_owned())
    );
    let bind = compose("fake/ok", "volumes: [\"/srv/x:/x\"]");
    let files = tar(&[("manifest/compose.yaml", bind.as_bytes())]);
    let bind = ci.ask("POST /v1/apps?app=shop&folder=x", &[], &files).await;
    assert_eq!(bind.status, 403, "{}", String::from_utf8_lossy(&bind.body));
}

#[tokio::test]
async fn wrong_tokens_are_slowed_down_and_recorded_and_right_ones_are_not() {
    let world = World::new().await;
    let root = at_socket(&world);
    let wrong = root.with("lyb_wrong");
    let mut last = 0;
    for _ in 0..25 {
        last = wrong.status("GET /v1/services").await;
    }
    assert_eq!(last, 429);
    let right = root.with(&token(&world, r#"{"name":"eye","role":"admin"}"#).await);
    assert_eq!(right.status("GET /v1/services").await, 200);
    let failed = async || -> Vec<AuditView> {
        let audit: Vec<AuditView> = right.ask("GET /v1/audit?limit=1000", &[], b"").await.json();
        let failed = audit
            .into_iter()
            .filter(|record| record.verb == "login-failed");
        failed.collect()
    };
    let begun = tokio::time::Instant::now();
    while failed().await.len() < 20 {
        assert!(begun.elapsed() < PATIENCE, "{:?}", failed().await);
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    let failed = failed().await;
    assert_eq!(
        (failed[0].from.as_str(), failed[0].status),
        ("192.0.2.1", 401)
    );
}

#[tokio::test]
async fn what_takes_time_goes_on_as_an_operation_for_who_does_not_wait() {
    let world = World::new().await;
    let root = at_socket(&world);
    let files = tar(&[("manifest/compose.yaml", compose("fake/ok", "").as_bytes())]);
    let begun = root
        .ask("POST /v1/apps?app=shop&folder=x&detach=true", &[], &files)
        .await;
    assert_eq!(
        begun.status,
        202,
        "{}",
        String::from_utf8_lossy(&begun.body)
    );
    let place = begun.headers["location"].to_str().expect("text").to_owned();
    let line = format!("GET {place}");
    let started = tokio::time::Instant::now();
    let ended = loop {
        let now: OperationView = root.ask(&line, &[], b"").await.json();
        if now.ended_at.is_some() {
            break now;
        }
        assert!(started.elapsed() < PATIENCE, "{now:?}");
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    };
    assert_eq!(
        (ended.state, ended.code, &*ended.verb),
        (OperationState::Done, Some(0), "up")
    );
    assert!(
        ended.events.iter().any(|event| event["outcome"] == "live"),
        "{ended:?}"
    );
    // An error is answered at once, and a stream to who takes one.
    let prefers = [("prefer", "respond-async")];
    let none = root
        .ask("POST /v1/services/shop/none/redeploy", &prefers, b"")
        .await;
    assert_eq!(none.status, 404);
    let streams = [("accept", "application/x-ndjson")];
    let streamed = root
        .ask(
            "POST /v1/services/shop/web/redeploy?detach=true",
            &streams,
            b"",
        )
        .await;
    assert_eq!(streamed.status, 200);
    let eye = root.with(&token(&world, r#"{"name":"x","role":"read","apps":["shop"]}"#).await);
    assert_eq!(eye.status(&line).await, 404, "another's");
}

#[tokio::test]
async fn a_request_with_the_same_key_is_carried_out_once() {
    let world = World::new().await;
    world.up(&compose("fake/ok", "")).await;
    let root = at_socket(&world);
    let key = [
        ("idempotency-key", "k1"),
        ("accept", "application/x-ndjson"),
    ];
    let again = "POST /v1/services/shop/web/redeploy";
    let first = root.ask(again, &key, b"").await;
    let second = root.ask(again, &key, b"").await;
    assert_eq!(
        (first.status, second.status),
        (StatusCode::OK, StatusCode::OK)
    );
    assert_eq!(first.body, second.body);
    assert_eq!(second.headers["idempotency-replayed"], "true");
    assert_eq!(second.headers["content-type"], "application/x-ndjson");
    let history: Vec<RevisionView> = root
        .ask("GET /v1/services/shop/web/history", &[], b"")
        .await
        .json();
    assert_eq!(history.len(), 2, "one deploy, one redeploy");
    let other = root.ask("POST /v1/services/shop/web/wake", &key, b"").await;
    assert_eq!(
        (other.status.as_u16(), other.code()),
        (422, "key-reused".to_owned())
    );
    let key = [("idempotency-key", "k2")];
    let deploy = "POST /v1/volumes";
    let made = root.ask(deploy, &key, br#"{"name":"a","labels":{}}"#).await;
    let same = root.ask(deploy, &key, br#"{"name":"a","labels":{}}"#).await;
    assert_eq!((made.status.as_u16(), &made.body), (200, &same.body));
    let other = root.ask(deploy, &key, br#"{"name":"b","labels":{}}"#).await;
    assert_eq!(other.status, 422);
    // A secret is shown once, whatever key it was asked for with.
    let key = [("idempotency-key", "k3")];
    let body = br#"{"name":"ci","pull":true}"#;
    assert_eq!(root.ask("POST /v1/tokens", &key, body).await.status, 200);
    assert_eq!(root.ask("POST /v1/tokens", &key, body).await.status, 409);
    let failed = root.ask(
        "POST /v1/services/shop/none/wake",
        &[("idempotency-key", "k4")],
        b"",
    );
    assert_eq!(failed.await.status, 404);
    let bad = root.ask(again, &[("idempotency-key", "")], b"").await;
    assert_eq!(bad.status, 400);
    // A token of the same name is somebody else, and a key is of one request also where no body is read.
    let key = [("idempotency-key", "k5")];
    let wake = "POST /v1/services/shop/web/wake";
    let body = r#"{"name":"ann","role":"admin"}"#;
    let ann = root.with(&token(&world, body).await);
    assert_eq!(ann.ask(wake, &key, b"").await.status, 200);
    let doze = "POST /v1/services/shop/web/doze";
    assert_eq!(ann.ask(doze, &key, b"unread").await.status, 422);
    assert_eq!(root.status("DELETE /v1/tokens/ann").await, 204);
    let other = root.with(&token(&world, body).await);
    let first = other.ask(wake, &key, b"").await;
    assert_eq!(first.status, 200);
    assert!(!first.headers.contains_key("idempotency-replayed"));
}

#[tokio::test]
async fn who_hangs_up_finds_the_request_carried_out_once_and_recorded() {
    let world = World::new().await;
    world.up(&compose("fake/ok", "")).await;
    let root = at_socket(&world);
    let again = "POST /v1/services/shop/web/redeploy?detach=true";
    let key = [
        ("idempotency-key", "k1"),
        ("accept", "application/x-ndjson"),
    ];
    // Polled once, and dropped.
    let hung_up =
        tokio::time::timeout(std::time::Duration::ZERO, root.send(again, &key, b"")).await;
    assert!(hung_up.is_err(), "it takes a write to the disk");
    let second = tokio::time::timeout(PATIENCE, async {
        loop {
            let answer = root.ask(again, &key, b"").await;
            if answer.status != 409 {
                return answer;
            }
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
    });
    let second = second.await.expect("in time");
    assert_eq!(second.status, 200);
    assert_eq!(second.headers["idempotency-replayed"], "true");
    let line = "GET /v1/services/shop/web/history";
    let history: Vec<RevisionView> = root.ask(line, &[], b"").await.json();
    assert_eq!(history.len(), 2, "one deploy, one redeploy");
    let recorded = tokio::time::timeout(PATIENCE, async {
        loop {
            let audit: Vec<AuditView> = root.ask("GET /v1/audit", &[], b"").await.json();
            if audit
                .iter()
                .filter(|entry| entry.verb == "redeploy")
                .count()
                >= 2
            {
                return;
            }
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
    });
    recorded.await.expect("both are recorded");
}

#[tokio::test]
async fn status_and_events_come_as_server_sent_events() {
    let world = World::new().await;
    world.up(&compose("fake/ok", "")).await;
    let root = at_socket(&world);
    let accept = ("accept", "text/event-stream");
    for (line, from, to) in [
        ("GET /v1/services", "awake", "dozing"),
        ("GET /v1/services/shop/web", "dozing", "asleep"),
    ] {
        let answer = root.send(line, &[accept], b"").await;
        assert_eq!(answer.headers()["content-type"], "text/event-stream");
        let mut data = answer.into_body().into_data_stream();
        let mut seen = String::new();
        let mut asked = false;
        let changes = async {
            while let Some(piece) = data.next().await {
                seen.push_str(&String::from_utf8_lossy(&piece.expect("no error")));
                if seen.contains(from) && !asked {
                    asked = true;
                    let to = match to {
                        "asleep" => "sleep",
                        _ => "doze",
                    };
                    let turn = format!("POST /v1/services/shop/web/{to}");
                    assert_eq!(root.status(&turn).await, 200);
                }
                if seen.contains(&format!("\"wakefulness\":\"{to}\"")) {
                    return;
                }
            }
        };
        let _ = tokio::time::timeout(PATIENCE, changes).await;
        assert!(
            seen.starts_with("data: ") && seen.contains(&format!("\"wakefulness\":\"{to}\"")),
            "{seen}"
        );
    }
    let all = root.ask("GET /v1/events", &[accept], b"").await;
    let all = String::from_utf8(all.body).expect("text");
    let ids: Vec<&str> = all
        .lines()
        .filter_map(|line| line.strip_prefix("id: "))
        .collect();
    assert!(ids.len() > 1, "{all}");
    let last = ids[ids.len() - 2];
    let rest = root
        .ask("GET /v1/events", &[accept, ("last-event-id", last)], b"")
        .await;
    let rest = String::from_utf8(rest.body).expect("text");
    assert!(
        rest.starts_with(&format!("id: {}\n", ids[ids.len() - 1])),
        "{rest}"
    );
}

#[tokio::test]
async fn a_query_that_the_document_does_not_know_is_refused() {
    let world = World::new().await;
    let root = at_socket(&world);
    for line in [
        "GET /v1/services?sort=name",
        "GET /v1/logs?app=shop&tail=many",
        "GET /v1/logs?app=shop&follow=maybe",
        "GET /v1/images?limit=0",
        "GET /v1/images/inspect",
        "GET /v1/services/%ff/web",
    ] {
        let refused = root.ask(line, &[], b"").await;
        assert_eq!(
            (refused.status.as_u16(), refused.code()),
            (400, "bad-request".to_owned()),
            "{line}"
        );
        assert_eq!(refused.headers["content-type"], "application/problem+json");
    }
    let page = root.ask("GET /v1/images?limit=1", &[], b"").await;
    assert_eq!(page.json::<Vec<serde_json::Value>>().len(), 1);
    let link = page.headers["link"].to_str().expect("text");
    assert!(
        link.starts_with("</v1/images?limit=1&cursor=") && link.ends_with("rel=\"next\""),
        "{link}"
    );
}

#[tokio::test]
async fn what_has_a_folder_of_the_machine_is_an_admins_to_deploy_and_to_reach_into() {
    let world = World::new().await;
    let bound = compose("fake/ok", "volumes: [\"/srv:/srv:ro\"]");
    assert_eq!(world.up(&bound).await.code(), 0);
    let root = at_socket(&world);
    let ci = root.with(&token(&world, r#"{"name":"ci","role":"deploy"}"#).await);
    for (line, body) in [
        (
            "POST /v1/services/shop/web/deploy",
            r#"{"image":"fake/ok:2"}"#,
        ),
        ("POST /v1/services/shop/web/redeploy", ""),
        ("GET /v1/services/shop/web/files?path=/srv", ""),
        ("PUT /v1/services/shop/web/files?path=/srv", ""),
        ("GET /v1/services/shop/web/files/stat?path=/srv", ""),
        ("POST /v1/services/shop/web/runs", r#"{"command":["true"]}"#),
    ] {
        let refused = ci.ask(line, &[], body.as_bytes()).await;
        assert_eq!(refused.status, 403, "{line}");
        let text = refused.json::<Problem>().detail;
        assert!(text.contains("/srv"), "{line}: {text}");
    }
    assert_eq!(
        root.status("POST /v1/services/shop/web/redeploy").await,
        200
    );
}

/// What is sent to deploy a service of which the manifest says only how it is built, and its answer.
async fn build_up(client: &Client<'_>, app: &str, image: &str) -> (StatusCode, String) {
    let manifest = format!("services:\n  web:\n    build: .\n{image}");
    let dockerfile = format!("FROM scratch\nCOPY Dockerfile /it\nCMD [\"/it\"]\nLABEL app={app}\n");
    let files = tar(&[
        ("manifest/compose.yaml", manifest.as_bytes()),
        ("context/0/Dockerfile", dockerfile.as_bytes()),
    ]);
    let line = format!("POST /v1/apps?app={app}&folder=x");
    let reply = client.ask(&line, &[], &files).await;
    (
        reply.status,
        String::from_utf8_lossy(&reply.body).into_owned(),
    )
}

#[tokio::test]
async fn a_token_of_an_app_has_the_images_of_its_app_and_no_others() {
    let world = World::new().await;
    let root = at_socket(&world);
    let ci = root.with(&token(&world, r#"{"name":"ci","role":"deploy","apps":["shop"]}"#).await);
    // An admin deploys an app of somebody else, and what its build makes is that app's.
    let (status, told) = build_up(&root, "blog", "").await;
    assert!(status == 200 && told.contains(r#""code":0"#), "{told}");
    let (status, told) = build_up(&ci, "shop", "").await;
    assert!(status == 200 && told.contains(r#""code":0"#), "{told}");
    let digest = |name: &str| world.images.resolve(name).expect("an image").digest;
    let (blogs, nodes) = (digest("blog-web"), digest("checked"));
    let id = &blogs["sha256:".len()..][..12];

    for other in [
        "blog-web",
        "blog-web:latest",
        "docker.io/library/blog-web",
        id,
        &blogs,
        &format!("shop-web@{blogs}"),
        &format!("registry/shop/web@{blogs}"),
        "checked",
        &nodes,
    ] {
        let line = format!("GET /v1/images/inspect?reference={other}");
        assert_eq!(ci.status(&line).await, 404, "{other}");
        let line = format!("POST /v1/images/tag?reference={other}&to=registry/shop/x:1");
        assert_eq!(ci.status(&line).await, 404, "{other}");
        let line = format!("POST /v1/images/push?reference={other}&to=registry/shop/x:1");
        assert_eq!(ci.status(&line).await, 404, "{other}");
        // All others are asked for at their registry.
        let is_of_node = [&*blogs, &*nodes].contains(&other) || other.starts_with("registry/");
        if is_of_node {
            let body = serde_json::json!({ "image": other }).to_string();
            let deploy = ci
                .ask("POST /v1/services/shop/web/deploy", &[], body.as_bytes())
                .await;
            assert_eq!(deploy.status, 404, "{other}");
        }
        if other != id {
            let never = compose(other, "pull_policy: never");
            let files = tar(&[("manifest/compose.yaml", never.as_bytes())]);
            let up = ci.ask("POST /v1/apps?app=shop&folder=x", &[], &files).await;
            let text = String::from_utf8_lossy(&up.body).into_owned();
            assert_eq!(up.status, 404, "{other}: {text}");
        }
    }
    let typo = ci.ask("GET /v1/images/inspect?reference=blog-wep", &[], b"");
    let typo = typo.await.json::<Problem>().detail;
    assert!(!typo.contains("blog-web"), "{typo}");
    // What is built under a name that a registry has is what others get who mean that.
    for taken in [
        "blog-web",
        "checked",
        "postgres:16",
        "acme/shop-web",
        "a.example/shop-web",
        "shop",
    ] {
        let (status, told) = build_up(&ci, "shop", &format!("    image: {taken}\n")).await;
        assert_eq!(status, 403, "{told}");
    }
    let based = tar(&[
        (
            "build.json",
            br#"{"folder":".","tags":["registry/shop/b:1"]}"#,
        ),
        ("context/0/Dockerfile", b"FROM registry/blog/web\n"),
    ]);
    let based = ci.ask("POST /v1/builds", &[], &based).await;
    let based = String::from_utf8_lossy(&based.body).into_owned();
    assert!(based.contains("not for the image"), "{based}");

    let listed: Vec<ImageView> = ci.ask("GET /v1/images", &[], b"").await.json();
    let names: Vec<&String> = listed.iter().flat_map(|image| &image.references).collect();
    assert_eq!(names, ["shop-web:latest"]);
    for (line, expected) in [
        ("GET /v1/images/inspect?reference=shop-web", 200),
        (
            "POST /v1/images/tag?reference=shop-web&to=registry/shop/w:1",
            204,
        ),
        (
            "POST /v1/images/push?reference=shop-web&to=registry/shop/w:2",
            200,
        ),
        ("GET /v1/images/inspect?reference=registry/shop/w:2", 200),
    ] {
        assert_eq!(ci.status(line).await, expected, "{line}");
    }
    // What it builds for another app that is still to come is not that one's.
    let planted = "    image: shop-two-web\n";
    assert_eq!(build_up(&ci, "shop", planted).await.0, 200);
    let before = digest("shop-two-web");
    assert_eq!(build_up(&root, "shop-two", "").await.0, 200);
    assert_ne!(digest("shop-two-web"), before);
    // It may build its own again, and use what an admin lets it have.
    let (status, told) = build_up(&ci, "shop", "    image: shop-web\n").await;
    assert!(status == 200 && told.contains(r#""code":0"#), "{told}");
    let give = "POST /v1/images/tag?reference=checked&to=registry/shop/base:1";
    assert_eq!(root.status(give).await, 204);
    let body = br#"{"image":"registry/shop/base:1"}"#;
    let deploy = "POST /v1/services/shop/web/deploy";
    assert_eq!(ci.ask(deploy, &[], body).await.status, 200);
    // What an admin has it run, it may run.
    let manifest = compose("fake/ok", "pull_policy: never");
    let files = tar(&[("manifest/compose.yaml", manifest.as_bytes())]);
    let up = "POST /v1/apps?app=shop&folder=x";
    assert_eq!(ci.ask(up, &[], &files).await.status, 404);
    assert_eq!(root.ask(up, &[], &files).await.status, 200);
    assert_eq!(ci.ask(up, &[], &files).await.status, 200);
}

/// An image that is nowhere.
fn absent() -> String {
    format!(r#"{{"image":"sha256:{}"}}"#, "0".repeat(64))
}

#[tokio::test]
async fn the_audit_log_says_how_a_stream_ended_and_events_who_took_something_down() {
    let world = World::new().await;
    world.up(&compose("fake/ok", "")).await;
    let root = at_socket(&world);
    let deploy = "POST /v1/services/shop/web/deploy";
    let streams = [("accept", "application/x-ndjson")];
    let failed = root
        .ask(deploy, &streams, br#"{"image":"fake/no-command"}"#)
        .await;
    assert_eq!(failed.status, 200, "it fails later");
    // The same as an operation, and one that nobody stays to the end of.
    let prefers = [("prefer", "respond-async")];
    let begun = root.ask(deploy, &prefers, absent().as_bytes()).await;
    assert_eq!(begun.status, 404, "an error is no operation");
    let begun = root
        .ask("POST /v1/services/shop/web/redeploy", &prefers, b"")
        .await;
    assert_eq!(begun.status, 202);
    assert_eq!(root.status("DELETE /v1/services/shop/web").await, 200);
    let ended = async || -> Vec<(String, u16, Option<i32>)> {
        let audit: Vec<AuditView> = root.ask("GET /v1/audit", &[], b"").await.json();
        let told = audit.into_iter().map(|r| (r.verb, r.status, r.code));
        told.collect()
    };
    let started = tokio::time::Instant::now();
    let wanted = [
        ("up".to_owned(), 200, Some(0)),
        ("deploy".to_owned(), 200, Some(3)),
        ("deploy".to_owned(), 404, None),
        ("rm".to_owned(), 200, None),
    ];
    loop {
        let now = ended().await;
        if wanted.iter().all(|one| now.contains(one)) {
            let redeploy = now.iter().find(|one| one.0 == "redeploy");
            assert_eq!(redeploy.map(|one| one.1), Some(202));
            break;
        }
        assert!(started.elapsed() < PATIENCE, "{now:?}");
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    let gone = "GET /v1/events?service=shop/web&kind=removed";
    loop {
        let told = root.ask(gone, &[], b"").await.body;
        if told.ends_with(b"\n") {
            let event: EventView = serde_json::from_slice(&told).expect("one event");
            assert_eq!(event.who.as_deref(), Some("root"));
            break;
        }
        assert!(started.elapsed() < PATIENCE, "it is never written down");
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn operations_are_known_after_a_restart_and_one_that_was_cut_says_what_became_of_it() {
    let mut world = World::new().await;
    let prefers = [("prefer", "respond-async")];
    let place = |reply: Reply| reply.headers["location"].to_str().expect("text").to_owned();
    let look = async |world: &World, place: &str| -> OperationView {
        let line = format!("GET {place}");
        at_socket(world).ask(&line, &[], b"").await.json()
    };
    let mut places = Vec::new();
    for image in ["fake/ok", "fake/hangs"] {
        let manifest = compose(image, "");
        let files = tar(&[("manifest/compose.yaml", manifest.as_bytes())]);
        let line = "POST /v1/apps?app=shop&folder=x";
        let begun = at_socket(&world).ask(line, &prefers, &files).await;
        assert_eq!(begun.status, 202);
        let place = place(begun);
        let started = tokio::time::Instant::now();
        while image == "fake/ok" && look(&world, &place).await.ended_at.is_none() {
            assert!(started.elapsed() < PATIENCE);
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
        places.push(place);
    }
    // It is in the store when it is told.
    let started = tokio::time::Instant::now();
    world
        .until("shop/web", |detail| {
            detail.view.state == layby_model::State::Updating
        })
        .await;
    world.restart().await;
    let done = loop {
        let done = look(&world, &places[0]).await;
        if done.code.is_some() || started.elapsed() > PATIENCE {
            break done;
        }
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    };
    assert_eq!((done.state, done.code), (OperationState::Done, Some(0)));
    assert_eq!((&*done.verb, &*done.target), ("up", "shop"));
    assert!(done.events.iter().any(|event| event["outcome"] == "live"));
    assert!(done.revisions.is_empty());
    let cut = look(&world, &places[1]).await;
    assert_eq!((cut.state, cut.code), (OperationState::Interrupted, None));
    assert!(cut.ended_at.is_some());
    let [made] = &cut.revisions[..] else {
        panic!("{cut:?}");
    };
    assert_eq!((&*made.service, made.revision), ("shop/web", 2));
    assert_eq!(
        made.outcome,
        layby_control::api::types::RevisionOutcome::Rolling
    );
    let root = at_socket(&world);
    let eye = root.with(&token(&world, r#"{"name":"x","role":"read","apps":["shop"]}"#).await);
    let line = format!("GET {}", places[1]);
    assert_eq!(eye.status(&line).await, 404, "another's");
}

#[tokio::test]
async fn errors_do_not_send_a_token_to_commands_that_it_may_not_use() {
    let world = World::new().await;
    world.up(&compose("fake/ok", "")).await;
    let root = at_socket(&world);
    let ci = root.with(&token(&world, r#"{"name":"ci","role":"deploy","apps":["shop"]}"#).await);
    let line = "POST /v1/services/shop/web/deploy";
    let body = absent();
    let hint = async |who: &Client<'_>| {
        let reply = who.ask(line, &[], body.as_bytes()).await;
        assert_eq!(reply.code(), "image-not-found");
        reply.json::<Problem>().hint.unwrap_or_default()
    };
    assert!(hint(&root).await.contains("`layby image load`"));
    let other = hint(&ci).await;
    assert!(
        other.contains("ask whoever looks after the node"),
        "{other}"
    );
}
