//! Virtual addresses, with a real redirect of the kernel: in a network namespace of the tests' own, which needs root.
//!
//! It has a main of its own, because it moves into that namespace before any thread exists.

mod common;

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::process::{Command, ExitCode};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use common::{Client, Server, World, header, replica, service, wait_for};
use layby_model::route::{Mode, Protocol, Upstream, VirtualPort, VirtualRoute};
use nix::sched::{CloneFlags, unshare};

/// A test: its name, and what it does.
type Test = (&'static str, fn());

const TESTS: &[Test] = &[
    (
        "a_port_that_nobody_declared_leads_to_the_same_port",
        a_port_that_nobody_declared_leads_to_the_same_port,
    ),
    (
        "a_declared_http_port_is_balanced_per_request",
        a_declared_http_port_is_balanced_per_request,
    ),
    (
        "a_connection_to_one_that_sleeps_is_held_until_it_is_awake",
        a_connection_to_one_that_sleeps_is_held_until_it_is_awake,
    ),
    (
        "a_port_that_nobody_listens_on_is_closed_and_not_held",
        a_port_that_nobody_listens_on_is_closed_and_not_held,
    ),
    (
        "what_was_not_redirected_or_is_of_nobody_is_closed",
        what_was_not_redirected_or_is_of_nobody_is_closed,
    ),
    (
        "the_port_and_the_addresses_outlive_a_restart",
        the_port_and_the_addresses_outlive_a_restart,
    ),
];

fn main() -> ExitCode {
    let moved = unshare(CloneFlags::CLONE_NEWNET);
    if let Err(error) = moved {
        println!("SKIPPED: no network namespace of our own: {error}");
        println!("test result: ok. 0 passed; 0 failed; 0 ignored");
        return ExitCode::SUCCESS;
    }
    run("ip", &["link", "set", "lo", "up"]);
    run(
        "ip",
        &["route", "add", "local", "10.9.240.0/20", "dev", "lo"],
    );
    run(
        "nft",
        &["add table ip t; add chain ip t out { type nat hook output priority -100; }"],
    );
    let only = std::env::args().skip(1).find(|arg| !arg.starts_with('-'));
    let (mut passed, mut failed) = (0, 0);
    for (name, test) in TESTS {
        if only.as_ref().is_some_and(|only| !name.contains(only)) {
            continue;
        }
        // A panic is printed by the thread itself.
        if std::thread::spawn(test).join().is_ok() {
            passed += 1;
            println!("test {name} ... ok");
        } else {
            failed += 1;
            println!("test {name} ... FAILED");
        }
    }
    let verdict = if failed == 0 { "ok" } else { "FAILED" };
    println!("test result: {verdict}. {passed} passed; {failed} failed; 0 ignored");
    ExitCode::from(u8::from(failed > 0))
}

fn run(program: &str, args: &[&str]) {
    let output = Command::new(program).args(args).output();
    let output = output.unwrap_or_else(|error| panic!("{program} runs: {error}"));
    assert!(output.status.success(), "{program} {args:?}: {output:?}");
}

/// A virtual address that no other test has.
fn address() -> Ipv4Addr {
    static NEXT: AtomicU8 = AtomicU8::new(1);
    Ipv4Addr::new(10, 9, 240, NEXT.fetch_add(1, Ordering::SeqCst))
}

/// Has the kernel lead connections to `address` to the gateway of `world`.
fn redirect(world: &World, address: Ipv4Addr) {
    let port = world.gateway.as_ref().expect("it runs").virtual_port();
    let rule =
        format!("add rule ip t out ip daddr {address} tcp dport 1-65535 redirect to :{port}");
    run("nft", &[&rule]);
}

/// Gives the service of `world` a virtual address.
fn give(world: &mut World, ports: BTreeMap<u16, VirtualPort>) -> Ipv4Addr {
    let address = address();
    let route = VirtualRoute {
        service: service(),
        ports,
        datagrams: BTreeMap::new(),
    };
    world.table.virtuals.insert(address, route);
    redirect(world, address);
    address
}

fn connect(address: Ipv4Addr, port: u16) -> Client {
    Client::connect(SocketAddr::new(IpAddr::V4(address), port))
}

/// Answers each byte with that byte.
fn mirror() -> Server {
    use std::io::{Read, Write};
    Server::scripted(|client| {
        let mut bytes = [0; 4096];
        while let Ok(len) = client.stream.read(&mut bytes)
            && len > 0
            && client.stream.write_all(&bytes[..len]).is_ok()
        {}
    })
}

fn http(port: u16, target: u16) -> BTreeMap<u16, VirtualPort> {
    let protocol = Protocol::Http;
    BTreeMap::from([(port, VirtualPort { target, protocol })])
}

fn a_port_that_nobody_declared_leads_to_the_same_port() {
    let server = mirror();
    let mut world = World::new();
    let address = give(&mut world, BTreeMap::new());
    world.serve(&[(replica(1), server.addr)]);
    world.confirm();
    let mut client = connect(address, server.addr.port());
    assert_eq!(client.send("hello").read_len(5).expect("bytes"), b"hello");
    assert!(world.traffic().uses > 0, "it counts as a use");
}

fn a_declared_http_port_is_balanced_per_request() {
    let first =
        Server::answering(|_, _| "HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n1".to_owned());
    let other = SocketAddr::new(common::lonely_ip(), first.addr.port());
    let second = Server::answering_on(other, |_, _| {
        "HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n2".to_owned()
    });
    let mut world = World::new();
    let address = give(&mut world, http(80, first.addr.port()));
    let upstream = |n: u32, addr: SocketAddr| Upstream {
        replica: replica(n),
        ip: addr.ip(),
        concurrency: None,
    };
    let upstreams = vec![upstream(1, first.addr), upstream(2, second.addr)];
    world.set(
        Mode::Serve {
            upstreams,
            canary: None,
        },
        None,
    );
    world.confirm();
    let mut client = connect(address, 80);
    let mut answers: Vec<Vec<u8>> = (0..4)
        .map(|_| {
            client
                .send("GET / HTTP/1.1\r\nHost: web\r\n\r\n")
                .response()
                .body
        })
        .collect();
    answers.sort();
    assert_eq!(answers, [b"1", b"1", b"2", b"2"], "on one connection");
}

fn a_connection_to_one_that_sleeps_is_held_until_it_is_awake() {
    let echo = Server::echo();
    let mut world = World::new();
    let address = give(&mut world, http(80, echo.addr.port()));
    world.hold();
    world.confirm();
    let mut client = connect(address, 80);
    client.send("GET / HTTP/1.1\r\nHost: web\r\n\r\n");
    let mut plain = connect(address, echo.addr.port());
    plain.send("GET / HTTP/1.1\r\nHost: plain\r\n\r\n");
    wait_for("demand", || (world.waiting() == 2).then_some(()));
    world.serve(&[(replica(1), echo.addr)]);
    let response = client.response();
    assert_eq!(header(response.text(), "host"), Some("web"));
    assert!(
        header(response.text(), "x-forwarded-for").is_some(),
        "it went as HTTP"
    );
    let response = plain.response();
    assert_eq!(header(response.text(), "host"), Some("plain"));
    assert!(
        header(response.text(), "x-forwarded-for").is_none(),
        "it went as it was"
    );
}

fn a_port_that_nobody_listens_on_is_closed_and_not_held() {
    let nobody = common::Nobody::new();
    let mut world = World::new();
    let address = give(&mut world, BTreeMap::new());
    world.serve(&[(replica(1), nobody.addr)]);
    world.confirm();
    let begun = std::time::Instant::now();
    assert!(connect(address, nobody.addr.port()).is_closed());
    let limit_ms = world.table.services[&service()].limits.hold_deadline_ms;
    assert!(
        begun.elapsed().as_millis() < u128::from(limit_ms),
        "it was held"
    );
}

fn what_was_not_redirected_or_is_of_nobody_is_closed() {
    let server = mirror();
    let mut world = World::new();
    give(&mut world, BTreeMap::new());
    world.serve(&[(replica(1), server.addr)]);
    world.confirm();
    let port = world.gateway.as_ref().expect("it runs").virtual_port();
    assert!(connect(Ipv4Addr::LOCALHOST, port).is_closed());
    let nobody = address();
    redirect(&world, nobody);
    assert!(connect(nobody, server.addr.port()).is_closed());
}

fn the_port_and_the_addresses_outlive_a_restart() {
    let server = mirror();
    let mut world = World::new();
    let address = give(&mut world, BTreeMap::new());
    world.serve(&[(replica(1), server.addr)]);
    world.confirm();
    let dir = Arc::clone(&world.dir);
    world.gateway.take().expect("it runs").stop();
    let _again = World::start(dir, 2, 2);
    let mut client = connect(address, server.addr.port());
    assert_eq!(client.send("a").read_len(1).expect("a byte"), b"a");
}
