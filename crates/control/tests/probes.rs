//! Probing, for an engine that does not say itself who is ready.

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use common::{World, compose, tar};
use layby_engine::fake::FakeOptions;
use layby_model::replica::Phase;
use layby_model::route::{Mode, Protocol};
use layby_model::state::Showing;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

const ID: &str = "shop/web";
const UNASKED: FakeOptions = FakeOptions {
    reports_health: false,
    can_doze: true,
    addresses: std::net::Ipv4Addr::new(127, 0, 1, 0),
};

/// An HTTP server on every loopback address, as if it were in every replica.
struct App {
    port: u16,
    healthy: Arc<AtomicBool>,
    asked: Arc<AtomicU32>,
}

impl App {
    async fn new() -> Self {
        let listener = TcpListener::bind("0.0.0.0:0").await.expect("a port");
        let app = Self {
            port: listener.local_addr().expect("an address").port(),
            healthy: Arc::new(AtomicBool::new(true)),
            asked: Arc::default(),
        };
        let (healthy, asked) = (Arc::clone(&app.healthy), Arc::clone(&app.asked));
        tokio::spawn(async move {
            while let Ok((mut socket, _)) = listener.accept().await {
                asked.fetch_add(1, Ordering::SeqCst);
                let healthy = healthy.load(Ordering::SeqCst);
                tokio::spawn(async move {
                    let mut head = [0; 1024];
                    let _ = socket.read(&mut head).await;
                    let status = if healthy { "200 OK" } else { "503 Not Now" };
                    let answer = format!("HTTP/1.1 {status}\r\ncontent-length: 0\r\n\r\n");
                    let _ = socket.write_all(answer.as_bytes()).await;
                });
            }
        });
        app
    }

    /// With time enough to get ready.
    fn kubernetes(&self, more: &str) -> String {
        self.within_s(60, more)
    }

    fn within_s(&self, deadline_s: u32, more: &str) -> String {
        let port = self.port;
        format!(
            "
apiVersion: apps/v1
kind: Deployment
metadata: {{name: web, annotations: {{layby.dev/doze-after: never, layby.dev/sleep-after: never, layby.dev/retries: \"0\"}}}}
spec:
  progressDeadlineSeconds: {deadline_s}
  selector: {{matchLabels: {{app: web}}}}
  template:
    metadata: {{labels: {{app: web}}}}
    spec:
      containers:
      - name: main
        image: fake/ok
        imagePullPolicy: IfNotPresent
        ports: [{{containerPort: {port}}}]
        readinessProbe: {{httpGet: {{path: /healthz, port: {port}}}, periodSeconds: 1, failureThreshold: 1, initialDelaySeconds: 30}}
{more}
---
apiVersion: v1
kind: Service
metadata: {{name: entry}}
spec:
  type: NodePort
  selector: {{app: web}}
  ports: [{{port: {port}, nodePort: 30777}}]
"
        )
    }
}

async fn up(world: &World, manifest: &str) -> common::Deployed {
    let tar = tar(&[("manifest/deploy.yaml", manifest.as_bytes())]);
    let path = "/v1/apps?app=shop&folder=f&file=deploy.yaml";
    let (status, body) = world.ask("POST", path, tar).await;
    common::Deployed::of(status, &body)
}

fn serves(world: &World) -> bool {
    let id = ID.parse().expect("an id");
    matches!(world.tables.borrow().services[&id].mode, Mode::Serve { .. })
}

#[tokio::test]
async fn ready_is_what_the_http_probe_says() {
    let world = World::with(UNASKED).await;
    let app = App::new().await;
    let deployed = up(&world, &app.kubernetes("")).await;
    assert_eq!(deployed.code(), 0, "{deployed:#?}");
    // An HTTP probe on the routed port says what is spoken there.
    assert_eq!(world.tables.borrow().listeners[0].protocol, Protocol::Http);

    app.healthy.store(false, Ordering::SeqCst);
    let fails = |c: &String| c.contains("fails its probe now: GET http://");
    world
        .until(ID, |d| {
            d.view.replicas_ready == 0 && d.conditions.iter().any(fails)
        })
        .await;
    world
        .until_table(|t| t.services[&ID.parse().expect("an id")].mode == Mode::Unhealthy)
        .await;
    let shown = world.detail(ID).await.view.wakefulness;
    assert_eq!(shown, Some(Showing::Unhealthy));
    app.healthy.store(true, Ordering::SeqCst);
    world.until(ID, |d| d.view.replicas_ready == 1).await;
    assert!(serves(&world));
}

#[tokio::test]
async fn what_fails_its_probe_is_shown_with_the_last_answer() {
    let world = World::with(UNASKED).await;
    let app = App::new().await;
    app.healthy.store(false, Ordering::SeqCst);
    let failed = up(&world, &app.within_s(5, "")).await;
    assert_eq!(failed.code(), 1, "{failed:#?}");
    let last_probe = failed.failure().last_probe.expect("it was probed");
    assert!(
        last_probe.contains("/healthz") && last_probe.contains("503 Not Now"),
        "{last_probe}"
    );
}

#[tokio::test]
async fn a_failed_liveness_probe_replaces_the_replica() {
    let world = World::with(UNASKED).await;
    let app = App::new().await;
    let live = format!(
        "        livenessProbe: {{httpGet: {{path: /live, port: {}}}, periodSeconds: 1, failureThreshold: 2}}",
        app.port
    );
    assert_eq!(up(&world, &app.kubernetes(&live)).await.code(), 0);
    let before = world.replicas().await[0].id;
    app.healthy.store(false, Ordering::SeqCst);
    world
        .until_replicas(|all| all.iter().all(|r| r.id != before))
        .await;
    app.healthy.store(true, Ordering::SeqCst);
    world.until(ID, |d| d.view.replicas_ready == 1).await;
}

#[tokio::test]
async fn what_fails_its_liveness_probe_again_and_again_is_counted_and_shown_as_a_crash_loop() {
    let world = World::with(UNASKED).await;
    let app = App::new().await;
    // It never listens there.
    let live =
        "        livenessProbe: {tcpSocket: {port: 1}, periodSeconds: 1, failureThreshold: 1}";
    assert_eq!(up(&world, &app.kubernetes(live)).await.code(), 0);
    let detail = world.until(ID, |d| d.view.crash_loop).await;
    let looping = "crash loop: replica ";
    let said = "failed its liveness probe (";
    let told =
        |c: &String| c.starts_with(looping) && c.contains(said) && c.contains("3 times in a row");
    assert!(
        detail.conditions.iter().any(told),
        "{:?}",
        detail.conditions
    );
    let detail = world
        .until(ID, |d| d.replicas.iter().any(|r| r.deaths >= 3))
        .await;
    let said = detail.replicas.iter().find_map(|r| r.last_death.clone());
    assert!(
        said.is_some_and(|said| said.contains("127.0.1.")),
        "{detail:?}"
    );
}

#[tokio::test]
async fn without_a_probe_ready_is_a_connection_to_the_routed_port() {
    let world = World::with(UNASKED).await;
    let app = App::new().await;
    let manifest = compose("fake/ok", &format!("x-layby: {{port: {}}}", app.port));
    assert_eq!(world.up(&manifest).await.code(), 0);
    assert!(app.asked.load(Ordering::SeqCst) > 0);
}

#[tokio::test]
async fn the_images_healthcheck_is_asked_where_the_manifest_has_no_probe() {
    let world = World::with(UNASKED).await;
    // It has no port at all: only its HEALTHCHECK can have said that it is ready.
    let up = world.up(&compose("checked", "")).await;
    assert_eq!(up.code(), 0, "{up:#?}");
    let failing = compose(
        "checked",
        "healthcheck: {test: [CMD, 'false'], interval: 1s}",
    );
    let up = world.up_as("other", &failing, "&detach=1").await;
    assert_eq!(up.code(), 0);
    let replicas = world.until_replicas(|all| all.len() == 2).await;
    assert!(replicas.iter().all(|r| r.phase == Phase::Starting));
    let says = |c: &String| c.contains(" is not ready yet: command ");
    let detail = world.until("other/web", |d| d.conditions.iter().any(says));
    assert_eq!(detail.await.view.replicas_ready, 0);
}

#[tokio::test]
async fn a_dozing_replica_is_not_probed_and_a_thawed_one_is_ready_at_once() {
    let world = World::with(UNASKED).await;
    let app = App::new().await;
    assert_eq!(up(&world, &app.kubernetes("")).await.code(), 0);
    let (status, _) = world
        .ask("POST", "/v1/services/shop/web/doze", Vec::new())
        .await;
    assert_eq!(status, 200);
    // A probe may have been on its way when it was frozen.
    let mut asked = app.asked.load(Ordering::SeqCst);
    loop {
        tokio::time::sleep(std::time::Duration::from_millis(300)).await;
        let now = app.asked.load(Ordering::SeqCst);
        if now == asked {
            break;
        }
        asked = now;
    }
    tokio::time::sleep(std::time::Duration::from_millis(1_500)).await;
    assert_eq!(app.asked.load(Ordering::SeqCst), asked);

    // It would fail its probe now, but it was ready when it was frozen.
    app.healthy.store(false, Ordering::SeqCst);
    world.gateway.ask(ID, 1);
    world
        .until_table(|t| {
            matches!(
                t.services[&ID.parse().expect("an id")].mode,
                Mode::Serve { .. }
            )
        })
        .await;
    world.gateway.ask(ID, 0);
    world
        .until(ID, |d| d.view.wakefulness == Some(Showing::Unhealthy))
        .await;
}

#[tokio::test]
async fn without_probe_and_port_it_is_ready_when_it_runs_and_does_not_exit_at_once() {
    let world = World::with(UNASKED).await;
    let unasked = "healthcheck: {disable: true}";
    let up = world.up(&compose("checked", unasked)).await;
    assert_eq!(up.code(), 0, "{up:#?}");
    assert_eq!(world.detail(ID).await.view.urls, Vec::<String>::new());
    let up = world.up(&compose("fake/exits:4", unasked)).await;
    assert_eq!(up.code(), 3, "{up:#?}");
    assert_eq!(up.failure().exit.map(|exit| exit.code), Some(4));
    assert_eq!(up.failure().last_probe, None);
}

#[tokio::test]
async fn that_nobody_listens_is_said_where_nobody_ever_did() {
    let world = World::with(UNASKED).await;
    let app = App::new().await;
    let port = app.port;
    let manifest = app.within_s(5, "").replace(&port.to_string(), "9"); // discard: nobody is there
    let failed = up(&world, &manifest).await;
    assert_eq!(failed.code(), 1, "{failed:#?}");
    let last_probe = failed.failure().last_probe.expect("it was probed");
    assert!(
        last_probe.contains(":9") && last_probe.contains("refused"),
        "{last_probe}"
    );
}
