//! What people do with a running service, over the API: commands, files, figures, ports.

mod common;

use std::time::Duration;

use common::{PATIENCE, World, compose, tar};
use futures_util::{SinkExt, StreamExt};
use layby_control::api::types::{LogView, Problem, StatusView, UsageView};
use layby_model::state::Showing;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_tungstenite::{WebSocketStream, client_async};

const PROTOCOL: &str = "v5.channel.k8s.io";

/// A service that never rests by itself.
const RESTLESS: &str = "x-layby: {sleep: {doze_after: never, sleep_after: never}}";

/// A command with this test at its other end.
struct Command(WebSocketStream<TcpStream>);

impl Command {
    async fn run(world: &World, query: &str) -> Result<Self, Error> {
        let addr = world.serve().await;
        let stream = TcpStream::connect(addr).await.expect("connected");
        let url = format!("ws://{addr}/v1/services/shop/web/exec?{query}");
        let mut request = url.into_client_request().expect("a request");
        let wanted = PROTOCOL.parse().expect("a header");
        request
            .headers_mut()
            .insert("sec-websocket-protocol", wanted);
        let (socket, answer) = client_async(request, stream).await?;
        assert_eq!(answer.headers()["sec-websocket-protocol"], PROTOCOL);
        Ok(Self(socket))
    }

    async fn send(&mut self, stream: u8, bytes: &[u8]) {
        let message = [&[stream], bytes].concat();
        self.0
            .send(Message::Binary(message.into()))
            .await
            .expect("sent");
    }

    /// The next message: its stream and what it says.
    async fn next(&mut self) -> (u8, Vec<u8>) {
        let next = tokio::time::timeout(PATIENCE, self.0.next()).await;
        match next.expect("in time").expect("a message").expect("whole") {
            Message::Binary(bytes) => (bytes[0], bytes[1..].to_vec()),
            other => panic!("{other:?}"),
        }
    }

    /// All output to the end, and how it ended.
    async fn rest(&mut self) -> (String, StatusView) {
        let mut said = Vec::new();
        loop {
            match self.next().await {
                (1 | 2, bytes) => said.extend(bytes),
                (3, json) => {
                    let status = serde_json::from_slice(&json).expect("a status");
                    return (String::from_utf8(said).expect("UTF-8"), status);
                }
                other => panic!("{other:?}"),
            }
        }
    }
}

#[tokio::test]
async fn a_command_is_at_the_other_end_of_a_web_socket() {
    let world = World::new().await;
    world.up(&compose("fake/ok", RESTLESS)).await;
    let mut echo = Command::run(&world, "command=echo&command=hello+there")
        .await
        .expect("run");
    let (said, status) = echo.rest().await;
    assert_eq!((&*said, status.exit_code()), ("hello there\n", Some(0)));
    assert!(matches!(echo.0.next().await, Some(Ok(Message::Close(_)))));

    let mut exit = Command::run(&world, "command=exit&command=7")
        .await
        .expect("run");
    let (_, status) = exit.rest().await;
    assert_eq!(status.reason.as_deref(), Some("NonZeroExitCode"));
    assert_eq!(status.exit_code(), Some(7));

    let mut cat = Command::run(&world, "command=cat&stdin=1")
        .await
        .expect("run");
    let piece = vec![b'x'; 1000];
    for _ in 0..100 {
        cat.send(0, &piece).await;
    }
    cat.send(255, &[0]).await;
    let (said, status) = cat.rest().await;
    assert_eq!((said.len(), status.exit_code()), (100_000, Some(0)));

    let query = "command=size&tty=1&columns=91&rows=17";
    let mut size = Command::run(&world, query).await.expect("run");
    assert_eq!(size.next().await, (1, b"91x17\n".to_vec()));
    size.send(4, br#"{"Width":120,"Height":50}"#).await;
    assert_eq!(size.next().await, (1, b"120x50\n".to_vec()));
    size.send(255, &[0]).await;
    assert_eq!(size.rest().await.1.exit_code(), Some(0));
}

#[tokio::test]
async fn a_command_that_cannot_be_begun_is_refused_before_the_upgrade() {
    let world = World::new().await;
    let refused = async |query: &str| match Command::run(&world, query).await.err() {
        Some(Error::Http(answer)) => {
            let body = answer.body().clone().unwrap_or_default();
            let problem: Problem = serde_json::from_slice(&body).expect("a problem");
            (answer.status().as_u16(), problem.detail)
        }
        other => panic!("{other:?}"),
    };
    let (status, _) = refused("command=true").await;
    assert_eq!(status, 404, "no such service");
    world.up(&compose("fake/ok", RESTLESS)).await;
    for (query, wanted) in [
        ("", 400),
        ("command=true&env=oops", 400),
        ("command=true&tty=1&columns=70000", 400),
        ("command=true&replica=nope", 400),
        ("command=true&replica=000000000099", 404),
        ("command=true&container=other", 404),
    ] {
        let (status, detail) = refused(query).await;
        assert_eq!(status, wanted, "{query}: {detail}");
    }
}

#[tokio::test]
async fn a_command_wakes_a_service_and_keeps_it_awake() {
    let world = World::new().await;
    let ladder = "x-layby: {sleep: {doze_after: 200ms, sleep_after: never}}";
    world.up(&compose("fake/ok", ladder)).await;
    let is = |showing| {
        move |detail: &layby_control::api::types::ServiceDetail| {
            detail.view.wakefulness == Some(showing)
        }
    };
    world.until("shop/web", is(Showing::Dozing)).await;
    let mut cat = Command::run(&world, "command=cat&stdin=1")
        .await
        .expect("run");
    world.until("shop/web", is(Showing::Awake)).await;
    let rested = tokio::time::timeout(
        Duration::from_millis(800),
        world.until("shop/web", is(Showing::Dozing)),
    );
    assert!(rested.await.is_err(), "it is in use");
    let (status, body) = world
        .ask("POST", "/v1/services/shop/web/sleep", vec![])
        .await;
    let problem: Problem = serde_json::from_slice(&body).expect("a problem");
    assert_eq!(status, 409);
    assert!(problem.detail.contains("in use"), "{problem:?}");
    cat.send(0, b"still here").await;
    assert_eq!(cat.next().await, (1, b"still here".to_vec()));
    let ended = std::time::Instant::now();
    drop(cat);
    world.until("shop/web", is(Showing::Dozing)).await;
    assert!(
        ended.elapsed() >= Duration::from_millis(200),
        "it is idle from the end of its use on"
    );
}

#[tokio::test]
async fn a_replica_that_is_not_ready_can_be_looked_into() {
    let world = World::new().await;
    let up = world
        .up_as("shop", &compose("fake/hangs", RESTLESS), "&detach=1")
        .await;
    assert_eq!(up.code(), 0, "{up:#?}");
    world
        .until_replicas(|all| all.iter().any(|r| r.containers[0].pid.is_some()))
        .await;
    let mut echo = Command::run(&world, "command=echo&command=hi")
        .await
        .expect("run");
    assert_eq!(echo.rest().await.0, "hi\n");
}

#[tokio::test]
async fn a_port_of_a_replica_is_carried_over_the_api() {
    let world = World::new().await;
    world.up(&compose("fake/ok", RESTLESS)).await;
    let address = world.replicas().await[0].address.expect("an address");
    let inside = TcpListener::bind((address, 0)).await.expect("bound");
    let port = inside.local_addr().expect("an address").port();
    let (status, _) = world
        .ask("POST", "/v1/services/shop/web/sleep", vec![])
        .await;
    assert_eq!(status, 200);

    let addr = world.serve().await;
    let mut outside = TcpStream::connect(addr).await.expect("connected");
    let request = format!(
        "GET /v1/services/shop/web/forward?port={port} HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n"
    );
    outside
        .write_all(request.as_bytes())
        .await
        .expect("written");
    let (mut inside, _) = inside.accept().await.expect("a connection");
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(outside.read_u8().await.expect("a head"));
    }
    assert!(
        head.starts_with(b"HTTP/1.1 101 "),
        "{}",
        String::from_utf8_lossy(&head)
    );
    outside.write_all(b"ping").await.expect("written");
    outside.shutdown().await.expect("shut");
    let mut said = String::new();
    inside.read_to_string(&mut said).await.expect("read");
    assert_eq!(said, "ping", "an end of one direction is passed on");
    inside.write_all(b"pong").await.expect("written");
    drop(inside);
    said.clear();
    outside.read_to_string(&mut said).await.expect("read");
    assert_eq!(said, "pong");

    let mut refused = TcpStream::connect(addr).await.expect("connected");
    let request = request.replace(&format!("port={port}"), "port=1");
    refused
        .write_all(request.as_bytes())
        .await
        .expect("written");
    let mut start = [0; 12];
    refused.read_exact(&mut start).await.expect("read");
    assert_eq!(&start, b"HTTP/1.1 502");
}

#[tokio::test]
async fn files_go_in_and_out_as_tars() {
    let world = World::new().await;
    world.up(&compose("fake/ok", RESTLESS)).await;
    let (status, _) = world
        .ask("POST", "/v1/services/shop/web/sleep", vec![])
        .await;
    assert_eq!(status, 200);
    let files = tar(&[("dir/one", b"1"), ("dir/two", b"2")]);
    let at = "/v1/services/shop/web/files";
    let (status, body) = world.ask("PUT", &format!("{at}?path=/tmp"), files).await;
    assert_eq!(status, 204, "{}", String::from_utf8_lossy(&body));
    let (status, body) = world
        .ask("GET", &format!("{at}?path=/tmp/dir"), vec![])
        .await;
    assert_eq!(status, 200);
    let mut archive = ::tar::Archive::new(&*body);
    let names = archive.entries().expect("entries").map(|entry| {
        entry
            .expect("whole")
            .path()
            .expect("a path")
            .display()
            .to_string()
    });
    let names: Vec<String> = names.filter(|name| !name.ends_with('/')).collect();
    assert!(
        names.ends_with(&["dir/one".into(), "dir/two".into()]),
        "{names:?}"
    );
    for (method, path) in [
        ("GET", format!("{at}?path=/nowhere")),
        ("GET", format!("{at}/stat?path=/nowhere")),
        ("PUT", format!("{at}?path=/nowhere")),
    ] {
        let (status, body) = world.ask(method, &path, tar(&[])).await;
        let problem: Problem = serde_json::from_slice(&body).expect("a problem");
        assert_eq!(status, 404, "{problem:?}");
        assert!(problem.detail.contains("/nowhere"), "{problem:?}");
    }
    let (status, _) = world.ask("GET", at, vec![]).await;
    assert_eq!(status, 400);
}

#[tokio::test]
async fn figures_come_once_or_again_and_again() {
    let world = World::new().await;
    world.up(&compose("fake/ok", RESTLESS)).await;
    world
        .up_as("other", &compose("fake/ok", RESTLESS), "")
        .await;
    let all: Vec<UsageView> = world.get("/v1/usage").await;
    let apps: Vec<&str> = all.iter().map(|view| view.app.as_str()).collect();
    assert_eq!(apps, ["other", "shop"]);
    let one: Vec<UsageView> = world.get("/v1/usage?service=shop/web").await;
    assert_eq!((one.len(), &*one[0].app), (1, "shop"));

    let addr = world.serve().await;
    let mut stream = TcpStream::connect(addr).await.expect("connected");
    let request = "GET /v1/usage?watch=1&interval_ms=100 HTTP/1.1\r\nHost: x\r\n\r\n";
    stream.write_all(request.as_bytes()).await.expect("written");
    let mut text = String::new();
    while text.matches("\"app\":\"shop\"").count() < 3 {
        let mut buffer = [0; 4096];
        let length = tokio::time::timeout(PATIENCE, stream.read(&mut buffer)).await;
        let length = length.expect("in time").expect("read");
        assert!(length > 0, "{text}");
        text.push_str(&String::from_utf8_lossy(&buffer[..length]));
    }
}

#[tokio::test]
async fn logs_of_several_services_come_as_one_by_time() {
    let world = World::new().await;
    world.up(&compose("fake/ok", RESTLESS)).await;
    world
        .up_as("other", &compose("fake/ok", RESTLESS), "")
        .await;
    let read = async |query: &str| {
        let (status, body) = world.ask("GET", &format!("/v1/logs?{query}"), vec![]).await;
        assert_eq!(status, 200, "{}", String::from_utf8_lossy(&body));
        let lines = body.split(|b| *b == b'\n').filter(|line| !line.is_empty());
        let lines = lines.map(|line| serde_json::from_slice(line).expect("a line"));
        lines.collect::<Vec<LogView>>()
    };
    let lines = read("app=shop&service=other/web").await;
    let services: std::collections::BTreeSet<&str> =
        lines.iter().map(|line| line.service.as_str()).collect();
    assert_eq!(
        services.into_iter().collect::<Vec<_>>(),
        ["other/web", "shop/web"]
    );
    assert!(lines.is_sorted_by_key(|line| line.at_ms), "{lines:#?}");
    let last = lines.last().expect("a line").at_ms;
    assert!(
        read(&format!("app=shop&since_ms={}", last + 1))
            .await
            .is_empty()
    );
    assert_eq!(
        read(&format!("app=shop&app=other&until_ms={}", last + 1)).await,
        lines
    );
    for (query, wanted) in [("", 400), ("app=none", 404), ("service=shop/none", 404)] {
        let (status, _) = world.ask("GET", &format!("/v1/logs?{query}"), vec![]).await;
        assert_eq!(status, wanted, "{query}");
    }
}
