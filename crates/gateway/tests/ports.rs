//! Listeners: HTTP and TCP ports, and what happens to them when tables and processes change.

#[path = "ports/awaited.rs"]
mod awaited;
mod common;
#[path = "ports/datagrams.rs"]
mod datagrams;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use common::{Client, PATIENCE, Server, World, lonely_ip, replica, request, wait_for};
use layby_gateway::{Handed, Keep};
use layby_model::route::{Mode, Protocol, RouteTable, Share};

/// Answers each byte with that byte.
fn mirror() -> Server {
    Server::scripted(|client| {
        let mut bytes = [0; 4096];
        while let Ok(len) = client.stream.read(&mut bytes)
            && len > 0
            && client.stream.write_all(&bytes[..len]).is_ok()
        {}
    })
}

/// A world with a TCP listener on the second address that leads to `server`.
fn tcp_world(server: &Server) -> (World, SocketAddr) {
    let mut world = World::new();
    world.serve(&[(replica(1), server.addr)]);
    let addr = world.listen_anywhere(server.addr.port(), Protocol::Tcp);
    (world, addr)
}

fn is_quiet(world: &World) -> Option<()> {
    world.traffic().in_flight.is_empty().then_some(())
}

#[test]
fn an_http_port_leads_to_its_service_whatever_the_host() {
    let server = Server::echo();
    let mut world = World::new();
    world.serve(&[(replica(1), server.addr)]);
    let addr = world.listen_anywhere(server.addr.port(), Protocol::Http);
    let mut client = Client::connect(addr);
    client.send("GET / HTTP/1.1\r\nHost: 10.0.0.1:30001\r\n\r\n");
    let response = client.response();
    assert_eq!(
        common::header(response.text(), "host"),
        Some("10.0.0.1:30001")
    );
    let mut client = Client::connect(addr);
    client.send("GET / HTTP/1.0\r\n\r\n");
    let host = addr.to_string();
    assert_eq!(
        common::header(client.response().text(), "host"),
        Some(host.as_str())
    );
}

#[test]
fn a_port_opens_and_closes_with_the_tables() {
    let server = mirror();
    let (mut world, addr) = tcp_world(&server);
    assert_eq!(
        Client::connect(addr).send("a").read_len(1).expect("a byte"),
        b"a"
    );
    world.table.listeners.clear();
    world.publish();
    world.confirm();
    wait_for("a closed port", || {
        std::net::TcpStream::connect(addr).is_err().then_some(())
    });
    world.listen(addr, server.addr.port(), Protocol::Tcp);
    world.publish();
    assert!(world.confirm().failed_listeners.is_empty());
    assert_eq!(
        Client::connect(addr).send("b").read_len(1).expect("a byte"),
        b"b"
    );
}

#[test]
fn a_port_that_is_closed_can_be_opened_again_at_once() {
    let server = mirror();
    let (mut world, addr) = tcp_world(&server);
    for _ in 0..20 {
        let listeners = std::mem::take(&mut world.table.listeners);
        world.publish();
        world.confirm();
        world.table.listeners = listeners;
        world.publish();
        let failed = world.confirm().failed_listeners;
        assert!(failed.is_empty(), "{failed:?}");
    }
    let mut client = Client::connect(addr);
    assert_eq!(client.send("b").read_len(1).expect("a byte"), b"b");
}

#[test]
fn a_websocket_survives_a_doze_and_its_new_bytes_wake() {
    let server = Server::scripted(|client| {
        request(client).expect("a request");
        client.send(
            "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
        );
        while let Ok(byte) = client.read_len(1) {
            if client.stream.write_all(&byte).is_err() {
                return;
            }
        }
    });
    let mut world = World::serving(&[(replica(1), server.addr)]);
    let mut client = world.client();
    client.send(&format!(
        "GET / HTTP/1.1\r\nHost: {}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
        common::HOST
    ));
    assert_eq!(client.response().status, 101);
    assert_eq!(client.send("a").read_len(1).expect("a byte"), b"a");
    wait_for("a quiet connection", || is_quiet(&world));
    world.hold();
    world.confirm();
    client.send("b");
    wait_for("demand", || (world.waiting() == 1).then_some(()));
    world.serve(&[(replica(1), server.addr)]);
    assert_eq!(client.read_len(1).expect("a byte"), b"b");
}

#[test]
fn a_port_in_use_is_reported_with_its_owner_and_tried_again() {
    let other = TcpListener::bind((lonely_ip(), 0)).expect("a free port");
    let addr = other.local_addr().expect("its address");
    let server = mirror();
    let mut world = World::new();
    world.listen(addr, server.addr.port(), Protocol::Tcp);
    world.serve(&[(replica(1), server.addr)]);
    let failed = world.confirm().failed_listeners;
    let [(listener, why)] = failed.as_slice() else {
        panic!("one failure was expected: {failed:?}");
    };
    assert_eq!(listener.addr, addr);
    let pid = std::process::id();
    assert!(
        why.starts_with(&format!(
            "port {} on {} is in use by ",
            addr.port(),
            addr.ip()
        )),
        "{why}"
    );
    assert!(why.ends_with(&format!("(pid {pid})")), "{why}");
    drop(other);
    world.publish();
    assert!(world.confirm().failed_listeners.is_empty());
    assert_eq!(
        Client::connect(addr).send("a").read_len(1).expect("a byte"),
        b"a"
    );
}

#[test]
fn a_port_that_is_freed_later_is_opened_without_a_new_table() {
    let other = TcpListener::bind((lonely_ip(), 0)).expect("a free port");
    let addr = other.local_addr().expect("its address");
    let server = mirror();
    let mut world = World::new();
    world.listen(addr, server.addr.port(), Protocol::Tcp);
    world.serve(&[(replica(1), server.addr)]);
    assert_eq!(world.confirm().failed_listeners.len(), 1);
    drop(other);
    wait_for("the port", || {
        let confirmed = world.confirm();
        confirmed.failed_listeners.is_empty().then_some(())
    });
    let mut client = Client::connect(addr);
    assert_eq!(client.send("a").read_len(1).expect("a byte"), b"a");
}

#[test]
fn the_gateways_own_address_in_use_is_an_error_that_names_the_owner() {
    let other = TcpListener::bind((lonely_ip(), 0)).expect("a free port");
    let world = World::new();
    let config = layby_gateway::GatewayConfig {
        http: other.local_addr().expect("its address"),
        workers: 1,
        table_file: world.dir.path().join("other.json"),
        handed: Handed::default(),
    };
    let wires = layby_gateway::Wires {
        tables: tokio::sync::watch::channel(Arc::new(RouteTable::default())).1,
        confirmed: tokio::sync::watch::channel(Default::default()).0,
        demand: tokio::sync::watch::channel(Default::default()).0,
    };
    let error = layby_gateway::Gateway::start(config, wires).expect_err("the port is taken");
    let pid = std::process::id();
    assert!(
        error.to_string().contains(&format!("(pid {pid})")),
        "{error}"
    );
}

#[test]
fn a_held_tcp_connection_is_connected_after_the_wake() {
    let server = mirror();
    let (mut world, addr) = tcp_world(&server);
    world.hold();
    world.confirm();
    let mut client = Client::connect(addr);
    client.send("early");
    wait_for("demand", || (world.waiting() == 1).then_some(()));
    world.serve(&[(replica(1), server.addr)]);
    assert_eq!(client.read_len(5).expect("bytes"), b"early");
    wait_for("no demand", || (world.waiting() == 0).then_some(()));
}

#[test]
fn over_tcp_a_disabled_service_answers_who_asks_in_http_and_closes_on_others() {
    let server = mirror();
    let (mut world, addr) = tcp_world(&server);
    world.set(Mode::Disabled, None);
    world.confirm();
    let mut http = Client::connect(addr);
    http.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    let answer = http.response();
    assert_eq!(answer.status, 503);
    assert!(answer.text().contains("is disabled"), "{}", answer.text());
    assert!(http.is_closed());
    let mut other = Client::connect(addr);
    assert!(other.send("GET key\r\n").is_closed());
}

#[test]
fn what_a_client_said_before_it_closed_a_held_tcp_connection_is_passed_on_after_the_wake() {
    let (heard, hears) = std::sync::mpsc::channel();
    let server = Server::scripted(move |client| {
        let said = client.read_to_end().expect("it ends");
        heard.send(said).expect("the test waits");
    });
    let (mut world, addr) = tcp_world(&server);
    world.hold();
    world.confirm();
    let mut silent = Client::connect(addr);
    let mut client = Client::connect(addr);
    client.send("a line for a log\n");
    wait_for("demand", || (world.waiting() == 2).then_some(()));
    drop(client);
    silent.finish();
    assert_eq!(silent.read_to_end().expect("it is closed"), b"");
    wait_for("one that leaves", || (world.waiting() == 1).then_some(()));
    world.serve(&[(replica(1), server.addr)]);
    let said = hears.recv_timeout(PATIENCE).expect("it was passed on");
    assert_eq!(said, b"a line for a log\n");
}

#[test]
fn an_open_tcp_connection_counts_only_while_bytes_move() {
    let server = mirror();
    let (world, addr) = tcp_world(&server);
    let mut client = Client::connect(addr);
    // A movement counts for a second, and this thread may not run for as long: more bytes then.
    let mut move_and_see = || {
        wait_for("a moving connection", || {
            assert_eq!(client.send("a").read_len(1).expect("a byte"), b"a");
            (world.in_flight(replica(1)) == 1).then_some(())
        });
    };
    move_and_see();
    wait_for("a quiet connection", || is_quiet(&world));
    let before = world.traffic().uses;
    move_and_see();
    assert!(world.traffic().uses > before, "bytes are a use");
    wait_for("a quiet connection", || is_quiet(&world));
    move_and_see();
}

#[test]
fn an_idle_tcp_connection_survives_a_doze_and_its_new_bytes_wake() {
    let server = mirror();
    let (mut world, addr) = tcp_world(&server);
    let mut client = Client::connect(addr);
    assert_eq!(client.send("a").read_len(1).expect("a byte"), b"a");
    wait_for("a quiet connection", || is_quiet(&world));
    world.hold();
    world.confirm();
    client.send("while dozing");
    wait_for("demand", || (world.waiting() == 1).then_some(()));
    let short = Some(Duration::from_millis(100));
    client.stream.set_read_timeout(short).expect("a timeout");
    assert!(
        client.read_len(1).is_err(),
        "no byte reached the dozing replica"
    );
    client
        .stream
        .set_read_timeout(Some(common::PATIENCE))
        .expect("a timeout");
    world.serve(&[(replica(1), server.addr)]);
    assert_eq!(client.read_len(12).expect("bytes"), b"while dozing");
    wait_for("no demand", || (world.waiting() == 0).then_some(()));
}

#[test]
fn a_client_that_closes_or_resets_its_idle_connection_wakes_nobody() {
    let server = mirror();
    let (mut world, addr) = tcp_world(&server);
    let mut closing = Client::connect(addr);
    let mut resetting = Client::connect(addr);
    for client in [&mut closing, &mut resetting] {
        assert_eq!(client.send("a").read_len(1).expect("a byte"), b"a");
    }
    wait_for("a quiet connection", || is_quiet(&world));
    let uses = world.traffic().uses;
    world.hold();
    world.confirm();
    drop(closing);
    resetting.reset();
    let end = Instant::now() + Duration::from_millis(300);
    while Instant::now() < end {
        assert_eq!(world.waiting(), 0);
        thread::sleep(Duration::from_millis(10));
    }
    assert_eq!(world.traffic().uses, uses);
}

#[test]
fn a_quiet_tcp_connection_is_counted_and_goes_on_while_its_replica_is_replaced() {
    let server = mirror();
    let (mut world, addr) = tcp_world(&server);
    let mut client = Client::connect(addr);
    assert_eq!(client.send("a").read_len(1).expect("a byte"), b"a");
    wait_for("a quiet connection", || is_quiet(&world));
    world.serve(&[(replica(2), server.addr)]);
    world.confirm();
    let open = |world: &World| world.traffic().open.get(&replica(1)).copied();
    assert_eq!(open(&world), Some(1));
    assert_eq!(client.send("b").read_len(1).expect("a byte"), b"b");
    assert!(is_quiet(&world).is_some(), "it has no claim to it any more");
    drop(client);
    wait_for("its end", || open(&world).is_none().then_some(()));
    world.set(Mode::Refuse, None);
    wait_for("nothing left", || {
        world.traffic().served.is_empty().then_some(())
    });
}

#[test]
fn much_goes_through_a_tcp_connection_and_each_side_may_end_first() {
    let server = Server::scripted(|client| {
        let mut all = Vec::new();
        let _ = client.stream.read_to_end(&mut all);
        let _ = client.stream.write_all(&all);
    });
    let (_world, addr) = tcp_world(&server);
    let mut client = Client::connect(addr);
    let bytes: Vec<u8> = (0..5_000_000u32).map(|at| (at % 251) as u8).collect();
    client.stream.write_all(&bytes).expect("the gateway reads");
    client
        .stream
        .shutdown(std::net::Shutdown::Write)
        .expect("it is open");
    assert!(client.read_to_end().expect("bytes") == bytes);
}

#[test]
fn a_gateway_that_starts_again_serves_by_the_table_of_the_last_run() {
    let server = Server::echo();
    let mut world = World::new();
    world.serve(&[(replica(1), server.addr)]);
    let port = world.listen_anywhere(server.addr.port(), Protocol::Tcp);
    let dir = Arc::clone(&world.dir);
    world.gateway.take().expect("it runs").stop();
    let again = World::start(dir, 2, 2);
    assert_eq!(again.client().get("/").status, 200);
    let mut client = Client::connect(port);
    assert_eq!(client.get("/").status, 200);
}

#[test]
fn a_gateway_that_starts_again_holds_what_was_held() {
    let mut world = World::new();
    world.hold();
    world.confirm();
    let dir = Arc::clone(&world.dir);
    world.gateway.take().expect("it runs").stop();
    let mut again = World::start(dir, 2, 2);
    let mut client = again.client();
    client.send(&format!("GET / HTTP/1.1\r\nHost: {}\r\n\r\n", common::HOST));
    wait_for("demand", || (again.waiting() == 1).then_some(()));
    let server = Server::echo();
    again.serve(&[(replica(1), server.addr)]);
    assert_eq!(client.response().status, 200);
}

#[test]
fn a_damaged_table_file_is_ignored() {
    let dir = Arc::new(tempfile::tempdir().expect("a directory"));
    std::fs::write(dir.path().join("routes.json"), b"{\"version\": nonsense").expect("written");
    let world = World::start(dir, 1, 1);
    assert_eq!(world.client().get("/").status, 404);
}

/// Stops the gateway of `world` while `during` runs: that begins once the gateway no longer accepts.
fn stop_during(world: &mut World, during: impl FnOnce(&mut World)) {
    let addr = world.addr();
    let gateway = world.gateway.take().expect("it runs");
    let stopping = thread::spawn(move || gateway.stop());
    wait_for("a closed port", || {
        std::net::TcpStream::connect(addr).is_err().then_some(())
    });
    during(world);
    stopping.join().expect("it stops");
}

#[test]
fn a_stopping_gateway_finishes_what_is_in_flight_and_closes_what_is_idle() {
    let server = Server::answering(|_, body| {
        let len = body.len();
        format!("HTTP/1.1 200 OK\r\nContent-Length: {len}\r\n\r\n") + &"y".repeat(len)
    });
    let mut world = World::serving(&[(replica(1), server.addr)]);
    let mut idle = world.client();
    assert_eq!(idle.get("/").status, 200);
    let body = "x".repeat(8_000_000); // more than all the buffers on the way take
    let (half, rest) = body.split_at(body.len() / 2);
    let head = |len| {
        format!(
            "POST / HTTP/1.1\r\nHost: {}\r\nContent-Length: {len}\r\n\r\n",
            common::HOST
        )
    };
    let mut upload = world.client();
    upload.send(&head(body.len())).send(half);
    let mut download = world.client();
    download.send(&head(body.len())).send(&body);
    wait_for(
        "the upload, and the idle client's request and the download at the server",
        || (world.in_flight(replica(1)) == 2 && server.seen() == 2).then_some(()),
    );
    stop_during(&mut world, |_| {
        assert!(idle.is_closed());
        upload.send(rest);
        for client in [&mut upload, &mut download] {
            let response = client.response();
            assert_eq!((response.status, response.body.len()), (200, body.len()));
            assert!(client.is_closed());
        }
    });
}

#[test]
fn a_stopping_gateway_still_serves_what_is_held_when_a_table_comes() {
    let mut world = World::new();
    world.hold();
    world.confirm();
    let mut client = world.client();
    client.send(&format!("GET / HTTP/1.1\r\nHost: {}\r\n\r\n", common::HOST));
    wait_for("demand", || (world.waiting() == 1).then_some(()));
    let server = Server::echo();
    stop_during(&mut world, |world| {
        world.serve(&[(replica(1), server.addr)]);
        assert_eq!(client.response().status, 200);
    });
}

#[test]
fn what_is_held_until_the_gateway_ends_is_told_to_come_again() {
    let mut world = World::new();
    world.hold();
    world.confirm();
    let mut client = world.client();
    client.send(&format!("GET / HTTP/1.1\r\nHost: {}\r\n\r\n", common::HOST));
    wait_for("demand", || (world.waiting() == 1).then_some(()));
    world.gateway.take().expect("it runs").stop();
    let response = client.response();
    assert_eq!(response.status, 503);
    assert_eq!(response.header("retry-after"), Some("1"));
}

#[test]
fn a_canary_gets_its_share_of_connections_and_headers_choose_nothing() {
    for (share, to_canary) in [
        (Share::Percent(25), 25),
        (Share::header("X-Beta").expect("a share"), 0),
    ] {
        let live = mirror();
        let at = SocketAddr::new(lonely_ip(), live.addr.port());
        let canary = Server::on(at, |client| {
            let _ = client.read_len(1);
            let _ = client.stream.write_all(b"!");
        });
        let (mut world, addr) = tcp_world(&live);
        world.serve_beside(
            &[(replica(1), live.addr)],
            share,
            &[(replica(2), canary.addr)],
        );
        world.confirm();
        let ask = || Client::connect(addr).send("a").read_len(1).expect("a byte");
        let answers: Vec<Vec<u8>> = (0..100).map(|_| ask()).collect();
        let by_canary = answers.iter().filter(|answer| *answer == b"!").count();
        assert_eq!(by_canary, to_canary);
        let served = world.until_served(replica(2), to_canary as u64);
        assert_eq!(served.requests, to_canary as u64);
    }
}

#[test]
fn what_comes_to_a_parents_socket_while_no_gateway_runs_is_answered_by_the_next() {
    let server = Server::echo();
    let parents = TcpListener::bind((lonely_ip(), 0)).expect("a free port");
    let addr = parents.local_addr().expect("its address");
    let handed = || Handed::new(vec![parents.try_clone().expect("a handle")], vec![], None);
    let dir = Arc::new(tempfile::tempdir().expect("a directory"));
    let mut world = World::start_on(Arc::clone(&dir), 1, 2, addr, handed());
    world.serve(&[(replica(1), server.addr)]);
    world.confirm();
    assert_eq!(world.addr(), addr);
    assert_eq!(world.client().get("/").status, 200);
    world.gateway = None;
    let mut waiting = Client::connect(addr);
    waiting.send(&format!(
        "GET /late HTTP/1.1\r\nHost: {}\r\n\r\n",
        common::HOST
    ));
    let _world = World::start_on(dir, 2, 2, addr, handed());
    let answer = waiting.response();
    assert!(answer.text().starts_with("GET /late "), "{}", answer.text());
}

#[test]
fn a_keeper_holds_the_ports_that_open_and_lets_go_of_those_that_close() {
    let server = mirror();
    let kept: Arc<Mutex<Vec<TcpListener>>> = Arc::default();
    let keeper = |kept: &Arc<Mutex<Vec<TcpListener>>>| {
        let kept = Arc::clone(kept);
        let keep = move |keep: Keep<'_>| {
            let mut kept = kept.lock().expect("no panic");
            match keep {
                Keep::Hold(addr, socket) => {
                    assert_eq!(socket.local_addr().expect("its address"), addr);
                    kept.push(socket.try_clone().expect("a handle"));
                }
                Keep::LetGo(addr) => kept.retain(|s| s.local_addr().expect("its address") != addr),
            }
        };
        Some(Box::new(keep) as layby_gateway::Keeper)
    };
    let http = SocketAddr::new(lonely_ip(), 0);
    let dir = Arc::new(tempfile::tempdir().expect("a directory"));
    let handed = Handed::new(vec![], vec![], keeper(&kept));
    let mut world = World::start_on(Arc::clone(&dir), 1, 2, http, handed);
    world.serve(&[(replica(1), server.addr)]);
    let http = world.addr();
    let first = world.listen_anywhere(server.addr.port(), Protocol::Tcp);
    let second = world.listen_anywhere(server.addr.port(), Protocol::Tcp);
    let addrs = || -> Vec<SocketAddr> {
        let kept = kept.lock().expect("no panic");
        kept.iter()
            .map(|s| s.local_addr().expect("its address"))
            .collect()
    };
    assert!(
        [http, first, second]
            .iter()
            .all(|addr| addrs().contains(addr))
    );
    world
        .table
        .listeners
        .retain(|listener| listener.addr != first);
    world.publish();
    world.confirm();
    assert!(!addrs().contains(&first) && addrs().contains(&second));
    wait_for("a closed port", || {
        std::net::TcpStream::connect(first).is_err().then_some(())
    });

    // The next gateway takes over what is kept, and gives up what its first table lacks.
    world.gateway = None;
    let mut waiting = Client::connect(second);
    waiting.send("a");
    let sockets = std::mem::take(&mut *kept.lock().expect("no panic"));
    let handles = sockets
        .iter()
        .map(|s| s.try_clone().expect("a handle"))
        .collect();
    *kept.lock().expect("no panic") = sockets;
    let handed = Handed::new(vec![], handles, keeper(&kept));
    let mut world = World::start_on(dir, 2, 2, http, handed);
    assert_eq!(waiting.read_len(1).expect("a byte"), b"a");
    world.serve(&[(replica(1), server.addr)]);
    world.confirm();
    assert!(addrs().contains(&http) && !addrs().contains(&second));
}
