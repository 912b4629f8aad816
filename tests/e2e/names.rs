//! Services among themselves: by name, while they sleep, and never across apps.

use std::process::Command;

use crate::apps::App;
use crate::node::{Node, PATIENCE, is_root};

/// Two services, `a` to ask from and `b` to be asked; `b` greets.
fn two(app: &str, greeting: &str) -> String {
    format!(
        "\
name: {app}
services:
  a:
    build: .
    x-layby: {{sleep: {{doze_after: never, sleep_after: never}}}}
  b:
    build: .
    environment: {{GREETING: {greeting}}}
    networks: {{default: {{aliases: [bee]}}}}
    x-layby: {{sleep: {{doze_after: never, sleep_after: never}}}}
"
    )
}

/// Has `a` of an app ask, and gives the answer.
fn ask(node: &Node, app: &str, what: &str) -> String {
    let reply = node.get(&format!("a.{app}.localhost"), what);
    assert_ne!(reply.status, 404, "{what}: {}", reply.body);
    reply.body
}

fn address(node: &Node, name: &str, key: &str) -> String {
    let status = node.status(name);
    let found = match key {
        "replica" => &status["replicas"][0]["address"],
        key => &status[key],
    };
    found
        .as_str()
        .unwrap_or_else(|| panic!("no {key} in {status}"))
        .to_owned()
}

#[test]
fn a_service_is_reached_by_its_names_and_woken_by_that() {
    if !is_root() {
        return;
    }
    let node = Node::start();
    let app = App::compose(&two("one", "bee"));
    node.run_in(app.path(), &["up"]).ok();
    let virtual_address = address(&node, "b", "virtual_address");
    for name in ["b", "bee", "b.one", "bee.one"] {
        assert_eq!(
            ask(&node, "one", &format!("/resolve?{name}")),
            virtual_address
        );
        assert_eq!(
            ask(&node, "one", &format!("/fetch?{name}:8000/")),
            "hello bee"
        );
    }
    for depth in ["doze", "sleep"] {
        node.run(&[depth, "b"]).ok();
        assert_eq!(
            ask(&node, "one", "/fetch?b:8000/"),
            "hello bee",
            "after {depth}"
        );
        node.wait_until("b", "awake");
    }
    // What nobody declared: the port that echoes.
    node.run(&["sleep", "b"]).ok();
    let echoed = ask(&node, "one", "/fetch?b:7000/echoed");
    assert!(
        echoed.contains("GET /echoed") || echoed.is_empty(),
        "{echoed}"
    );
    node.wait_until("b", "awake");
    // A service that asks itself.
    assert_eq!(ask(&node, "one", "/fetch?a:8000/healthz"), "ok");
}

#[test]
fn apps_with_the_same_names_do_not_see_each_other() {
    if !is_root() {
        return;
    }
    let node = Node::start();
    let (one, two_) = (
        App::compose(&two("one", "first")),
        App::compose(&two("two", "second")),
    );
    node.run_in(one.path(), &["up"]).ok();
    node.run_in(two_.path(), &["up"]).ok();
    assert_eq!(ask(&node, "one", "/fetch?b:8000/"), "hello first");
    assert_eq!(ask(&node, "two", "/fetch?b:8000/"), "hello second");
    let replica = address(&node, "two/b", "replica");
    let virtual_address = address(&node, "two/b", "virtual_address");
    for other in ["b.two".to_owned(), replica, virtual_address] {
        let reply = node.get("a.one.localhost", &format!("/fetch?{other}:8000/"));
        assert_eq!(reply.status, 409, "{other} was reached: {}", reply.body);
        let reply = node.get("a.two.localhost", &format!("/fetch?{other}:8000/"));
        assert_eq!(reply.body, "hello second", "{other} is its own");
    }
    // Where one went, its names and addresses went too.
    node.run(&["down", "two"]).ok();
    assert_eq!(ask(&node, "one", "/fetch?b:8000/"), "hello first");
}

#[test]
fn services_reach_those_that_share_a_network_with_them_and_no_others() {
    if !is_root() {
        return;
    }
    let node = Node::start();
    let app = App::compose(
        "\
name: nets
services:
  web:
    build: .
    networks: [front]
  api:
    build: .
    networks: [front, back]
  shop_db:
    build: .
    networks: [back]
    environment: {GREETING: kept}
networks:
  front:
  back: {internal: true}
",
    );
    node.run_in(app.path(), &["up"]).ok();
    let from = |service: &str, to: &str| {
        node.get(
            &format!("{service}.nets.localhost"),
            &format!("/fetch?{to}:8000/"),
        )
    };
    for name in ["shop_db", "shop-db", "shop-db.nets"] {
        assert_eq!(from("api", name).body, "hello kept");
    }
    assert_eq!(from("web", "api").status, 200);
    assert_eq!(from("shop-db", "api").status, 200);
    let replica = address(&node, "shop-db", "replica");
    let virtual_address = address(&node, "shop-db", "virtual_address");
    for other in ["shop-db", &replica, &virtual_address] {
        let reply = from("web", other);
        assert_eq!(reply.status, 409, "{other} was reached: {}", reply.body);
    }
    // A request by name wakes it over a network that they share.
    node.run(&["sleep", "shop-db"]).ok();
    assert_eq!(from("api", "shop-db").body, "hello kept");
}

#[test]
fn names_bridges_and_connections_outlive_a_kill_of_the_node() {
    if !is_root() {
        return;
    }
    let mut node = Node::start();
    let app = App::compose(&two("one", "bee"));
    node.run_in(app.path(), &["up"]).ok();
    let before = address(&node, "b", "virtual_address");
    let replica = address(&node, "b", "replica");
    let bridges = || {
        let output = Command::new("ip")
            .args(["-o", "link"])
            .output()
            .expect("ip runs");
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        text.lines()
            .filter(|line| line.contains(": lyb"))
            .map(str::to_owned)
            .collect::<Vec<_>>()
    };
    let pid = node.pids("a")[0];
    let own = |line: &str| {
        line.split(": ")
            .nth(1)
            .is_some_and(|name| name.starts_with("lyb"))
    };
    assert!(bridges().iter().any(|line| own(line)));
    // One container talks to another of its app directly, all the time.
    let talks = {
        let replica = replica.clone();
        move || {
            let mut curl = Command::new("nsenter");
            curl.args([
                "--net",
                "--target",
                &pid.to_string(),
                "--",
                "curl",
                "--silent",
            ]);
            curl.args([
                "--max-time",
                "60",
                &format!("http://{replica}:8000/slow?3000"),
            ]);
            curl.output().expect("nsenter runs")
        }
    };
    let talking = std::thread::spawn(talks);
    node.wait_for("the request to be under way", |_| {
        started(&replica).is_some_and(|count| count > 0)
    });
    node.kill();
    node.serve();
    let said = talking.join().expect("it ended");
    assert_eq!(String::from_utf8_lossy(&said.stdout), "slow", "{said:?}");
    assert_eq!(address(&node, "b", "virtual_address"), before);
    assert_eq!(ask(&node, "one", "/resolve?b"), before);
    assert_eq!(ask(&node, "one", "/fetch?b:8000/"), "hello bee");
}

/// How many slow requests the replica at `address` has begun, asked of itself.
fn started(address: &str) -> Option<u32> {
    let addr = format!("{address}:8000").parse().ok()?;
    let reply = crate::node::get(addr, "b", "/started").ok()?;
    reply.body.parse().ok()
}

#[test]
fn a_container_resolves_by_its_bridge_and_nobody_else_does() {
    if !is_root() {
        return;
    }
    let node = Node::start();
    let app = App::compose(&two("one", "bee"));
    node.run_in(app.path(), &["up"]).ok();
    let resolv = ask(&node, "one", "/read?/etc/resolv.conf");
    let gateway = ask(&node, "one", "/resolve?host.layby.internal");
    assert_eq!(resolv, format!("nameserver {gateway}\noptions ndots:0\n"));
    let replica = address(&node, "a", "replica");
    assert_eq!(
        gateway.rsplit_once('.').map(|g| g.0),
        replica.rsplit_once('.').map(|r| r.0)
    );
    // The name server answers there and nowhere else: not even the machine itself.
    let socket = std::net::UdpSocket::bind("0.0.0.0:0").expect("a socket");
    socket
        .set_read_timeout(Some(PATIENCE / 60))
        .expect("a timeout");
    let question = b"\x00\x07\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x01b\x00\x00\x01\x00\x01";
    socket
        .send_to(question, format!("{gateway}:53"))
        .expect("sent");
    assert!(
        socket.recv(&mut [0; 64]).is_err(),
        "the machine was answered"
    );
}
