//! Datagrams, networks that apps share, and whose network a service is in.

use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::apps::App;
use crate::node::{Node, PATIENCE, get, is_root};

/// A service that echoes datagrams, and one to ask it from.
const TALK: &str = "\
name: talk
services:
  a:
    build: .
    x-layby: {sleep: {doze_after: never, sleep_after: never}}
  echo:
    build: .
    environment: {GREETING: one}
    ports: [\"7100:7000/udp\"]
    x-layby: {sleep: {doze_after: never, sleep_after: never}}
";

/// A client of `addr`; what comes from anywhere else is no answer.
fn client(addr: SocketAddr, patience: Duration) -> UdpSocket {
    let socket = UdpSocket::bind(("127.0.0.1", 0)).expect("a free port");
    socket.connect(addr).expect("an address");
    socket.set_read_timeout(Some(patience)).expect("a timeout");
    socket
}

/// A free port of the machine's loopback.
fn free() -> SocketAddr {
    let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a free port");
    listener.local_addr().expect("an address")
}

/// The next answer; `None`: there was none in time, or the last datagram was refused.
fn heard(client: &UdpSocket) -> Option<String> {
    let mut buffer = [0; 64];
    let len = client.recv(&mut buffer).ok()?;
    Some(String::from_utf8_lossy(&buffer[..len]).into_owned())
}

#[test]
fn a_datagram_wakes_and_a_client_that_never_falls_silent_goes_on_through_a_rollout() {
    if !is_root() {
        return;
    }
    let node = Node::start();
    let app = App::compose(TALK);
    node.run_in(app.path(), &["up"]).ok();
    let addr = SocketAddr::new(node.publish_on.into(), 7100);
    let ask = |text: &str| {
        let client = client(addr, PATIENCE);
        client.send(text.as_bytes()).expect("sent");
        heard(&client).expect("an answer from where it was sent")
    };
    assert_eq!(ask("a"), "one a");
    for depth in ["doze", "sleep"] {
        node.run(&[depth, "echo"]).ok();
        assert_eq!(ask(depth), format!("one {depth}"));
        node.wait_until("echo", "awake");
    }
    // By name, from another container, which takes no answer from anywhere else.
    node.run(&["sleep", "echo"]).ok();
    let by_name = node.get("a.talk.localhost", "/ask?echo:7000/b");
    assert_eq!(by_name.body, "one b");

    let old = node.pids("echo")[0];
    let (tell, told) = mpsc::channel();
    let chatty = client(addr, Duration::from_millis(20));
    let chatting = std::thread::spawn(move || {
        let begun = Instant::now();
        while begun.elapsed() < PATIENCE {
            let _ = chatty.send(b"more"); // it may tell that one before was refused
            if let Some(text) = heard(&chatty)
                && tell.send(text).is_err()
            {
                return; // it has said enough
            }
        }
    });
    assert_eq!(told.recv().expect("an answer"), "one more");
    node.run(&["deploy", "echo", "--env", "GREETING=two"]).ok();
    assert_eq!(ask("c"), "two c");
    // Its replica answers on, and has its time for that; unless it ends.
    let old = Pid::from_raw(i32::try_from(old).expect("a pid"));
    kill(old, Signal::SIGKILL).expect("it drains");
    assert!(
        told.iter().any(|text| text == "two more"),
        "nobody answers any more"
    );
    drop(told);
    chatting.join().expect("it ended");
}

#[test]
fn apps_in_one_network_reach_each_other_and_no_third_one_does() {
    if !is_root() {
        return;
    }
    let node = Node::start();
    let member = |app: &str, networks: &str| {
        App::compose(&format!(
            "\
name: {app}
services:
  web:
    build: .
    environment: {{GREETING: {app}}}
    expose: [\"7000/udp\"]
    networks: [{networks}]
    x-layby: {{sleep: {{doze_after: never, sleep_after: never}}}}
networks:
  own:
  shared: {{external: true}}
"
        ))
    };
    let (one, two, three) = (
        member("one", "shared"),
        member("two", "own, shared"),
        member("three", "own"),
    );
    node.run_in(one.path(), &["up"])
        .exits(1)
        .says("layby network create shared");
    node.run(&[
        "network", "create", "shared", "--app", "one", "--app", "two",
    ])
    .ok();
    for app in [&one, &two, &three] {
        node.run_in(app.path(), &["up"]).ok();
    }
    let from = |app: &str, what: &str| node.get(&format!("web.{app}.localhost"), what);
    assert_eq!(from("one", "/fetch?web.two:8000/").body, "hello two");
    assert_eq!(from("two", "/fetch?web.one:8000/").body, "hello one");
    assert_eq!(from("one", "/fetch?web:8000/").body, "hello one");
    node.run(&["sleep", "two/web"]).ok();
    assert_eq!(from("one", "/ask?web.two:7000/x").body, "two x");
    node.wait_until("two/web", "awake");
    for address in [
        "web.two".to_owned(),
        node.status("two/web")["virtual_address"]
            .as_str()
            .expect("an address")
            .to_owned(),
    ] {
        let reply = from("three", &format!("/fetch?{address}:8000/"));
        assert_eq!(reply.status, 409, "{address} was reached: {}", reply.body);
        let reply = from("three", &format!("/ask-briefly?{address}:7000/x"));
        assert_eq!(reply.status, 409, "{address} was reached: {}", reply.body);
    }
    three.write(
        "compose.yaml",
        "name: three\nservices: {web: {build: ., networks: [shared]}}\nnetworks: {shared: {external: true}}\n",
    );
    node.run_in(three.path(), &["up"])
        .exits(1)
        .says("it is for other apps");
    node.run(&["network", "rm", "shared"])
        .exits(1)
        .says("in use by one/web");
    node.run(&["down", "one"]).ok();
    node.run(&["down", "two"]).ok();
    node.run(&["network", "rm", "shared"]).ok();
}

#[test]
fn a_service_is_in_no_network_in_that_of_another_one_or_in_the_machines() {
    if !is_root() {
        return;
    }
    let mut node = Node::start();
    let app = App::compose(
        "\
name: modes
services:
  web:
    build: .
    environment: {GREETING: host}
  guest:
    build: .
    environment: {GREETING: guest, PORT: 8001, ECHO_PORT: 7001}
    network_mode: service:web
  alone:
    build: .
    network_mode: none
",
    );
    node.run_in(app.path(), &["up"]).ok();
    let ask = |node: &Node, what: &str| node.get("web.modes.localhost", what).body;
    assert_eq!(ask(&node, "/fetch?127.0.0.1:8001/"), "hello guest");
    let and_back = "/fetch?127.0.0.1:8001/fetch?127.0.0.1:8000/";
    assert_eq!(ask(&node, and_back), "hello host");
    let pid = node.pids("alone")[0];
    let devices = std::fs::read_to_string(format!("/proc/{pid}/net/dev")).expect("read");
    let devices: Vec<&str> = devices
        .lines()
        .filter_map(|line| line.split_once(':'))
        .map(|(name, _)| name.trim())
        .collect();
    assert_eq!(devices, ["lo"]);

    let (asked, echoing) = (free(), free());
    let host = App::compose(&format!(
        "\
name: machine
services:
  web:
    build: .
    environment: {{GREETING: machine, LISTEN: 127.0.0.1, PORT: {}, ECHO_PORT: {}}}
    network_mode: host
    x-layby: {{port: {}}}
",
        asked.port(),
        echoing.port(),
        asked.port()
    ));
    node.run_in(host.path(), &["up"])
        .exits(1)
        .says("--allow-privileged");
    node.env.push(("LAYBY_ALLOW_PRIVILEGED", "true".to_owned()));
    node.run(&["node", "stop"]).ok();
    node.serve();
    node.run_in(host.path(), &["up"]).ok();
    let said = get(asked, "any", "/").expect("it is on the machine's loopback");
    assert_eq!(said.body, "hello machine");
    assert_eq!(node.get("web.machine.localhost", "/").body, "hello machine");
    node.run(&["down", "machine"]).ok();
    assert!(TcpListener::bind(asked).is_ok(), "it listens on");
    // The other app was found again by the node that was started anew.
    assert_eq!(ask(&node, "/fetch?127.0.0.1:8001/"), "hello guest");
}
