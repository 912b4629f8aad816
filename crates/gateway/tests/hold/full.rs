//! Replicas that take only so many requests at once: exact, in line, and counted.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;
use std::time::Duration;

use layby_model::ReplicaId;
use layby_model::route::{Mode, Protocol, Share};

use crate::ask;
use crate::common::{Client, HOST, Server, World, lonely_ip, replica, wait_for};

/// Keeps requests until they are let go, each by one more turn.
#[derive(Default)]
struct Gate {
    turns: Mutex<usize>,
    bell: Condvar,
}

impl Gate {
    fn open(&self, turns: usize) {
        let mut left = self.turns.lock().expect("no panic");
        *left = left.saturating_add(turns);
        self.bell.notify_all();
    }

    fn pass(&self) {
        let mut left = self.turns.lock().expect("no panic");
        while *left == 0 {
            left = self.bell.wait(left).expect("no panic");
        }
        *left -= 1;
    }
}

/// A server whose answers wait for the gate.
fn gated(addr: Option<SocketAddr>) -> (Server, Arc<Gate>) {
    let gate = Arc::new(Gate::default());
    let passed = Arc::clone(&gate);
    let any = "127.0.0.1:0".parse().expect("an address");
    let server = Server::answering_on(addr.unwrap_or(any), move |_, _| {
        passed.pass();
        "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n".to_owned()
    });
    (server, gate)
}

fn scaled(concurrency: u32, upstreams: &[(ReplicaId, SocketAddr)]) -> World {
    let mut world = World::new();
    world.concurrency = Some(concurrency);
    world.serve(upstreams);
    world.confirm();
    world
}

fn until_held(world: &World, held: u32) {
    wait_for("those who are held", || {
        (world.traffic().load.held == held).then_some(())
    });
}

fn paths(server: &Server) -> Vec<String> {
    let seen = server.seen.lock().expect("no panic");
    let path = |head: &String| head.split(' ').nth(1).unwrap_or_default().to_owned();
    seen.iter().map(path).collect()
}

#[test]
fn a_replica_is_given_no_more_at_once_than_it_may_have_whoever_asks() {
    let most = Arc::new(AtomicUsize::new(0));
    let server = |ip: Option<SocketAddr>| {
        let (now, most) = (AtomicUsize::new(0), Arc::clone(&most));
        let any = "127.0.0.1:0".parse().expect("an address");
        Server::answering_on(ip.unwrap_or(any), move |_, _| {
            most.fetch_max(now.fetch_add(1, SeqCst) + 1, SeqCst);
            thread::sleep(Duration::from_micros(300));
            now.fetch_sub(1, SeqCst);
            "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n".to_owned()
        })
    };
    let one = server(None);
    let two = server(Some(SocketAddr::new(lonely_ip(), one.addr.port())));
    let world = scaled(2, &[(replica(1), one.addr), (replica(2), two.addr)]);
    let addr = world.addr();
    let clients = (0..24).map(|_| {
        thread::spawn(move || {
            let mut client = Client::connect(addr);
            (0..20).for_each(|_| assert_eq!(client.get("/").status, 200));
        })
    });
    let clients: Vec<_> = clients.collect();
    for client in clients {
        client.join().expect("all are answered");
    }
    assert_eq!(most.load(SeqCst), 2);
    assert_eq!(one.seen() + two.seen(), 480);
    wait_for("nothing to do", || {
        let load = world.traffic().load;
        ((load.in_flight, load.held) == (0, 0)).then_some(())
    });
}

#[test]
fn who_came_first_is_let_in_first_and_each_that_ends_lets_in_one() {
    let (server, gate) = gated(None);
    let world = scaled(1, &[(replica(1), server.addr)]);
    let mut clients = Vec::new();
    for at in 0..=8 {
        clients.push(ask(&world, &format!("/{at}")));
        wait_for("the next in line", || {
            let load = world.traffic().load;
            (load.in_flight == 1 && load.held == at).then_some(())
        });
    }
    wait_for("demand", || (world.waiting() == 8).then_some(()));
    wait_for("the first", || (server.seen() == 1).then_some(()));
    for left in (0..8).rev() {
        gate.open(1);
        until_held(&world, left);
        assert_eq!(world.traffic().load.in_flight, 1);
    }
    gate.open(1);
    for client in &mut clients {
        assert_eq!(client.response().status, 200);
    }
    let order: Vec<String> = (0..=8).map(|at| format!("/{at}")).collect();
    assert_eq!(paths(&server), order);
}

#[test]
fn those_who_waited_for_the_wake_are_let_in_in_their_order_too() {
    let (server, gate) = gated(None);
    gate.open(100);
    let mut world = World::new();
    world.concurrency = Some(1);
    world.hold();
    world.confirm();
    let mut clients = Vec::new();
    for at in 0..6 {
        clients.push(ask(&world, &format!("/{at}")));
        until_held(&world, at + 1);
    }
    world.serve(&[(replica(1), server.addr)]);
    for client in &mut clients {
        assert_eq!(client.response().status, 200);
    }
    let order: Vec<String> = (0..6).map(|at| format!("/{at}")).collect();
    assert_eq!(paths(&server), order);
}

#[test]
fn what_there_is_to_do_is_summed_up_over_time() {
    let (server, gate) = gated(None);
    let world = scaled(1, &[(replica(1), server.addr)]);
    let before = world.traffic().load;
    let mut clients: Vec<Client> = (0..3).map(|_| ask(&world, "/")).collect();
    until_held(&world, 2);
    let begun = world.traffic().load;
    thread::sleep(Duration::from_millis(60));
    let ended = world.traffic().load;
    let passed_us = ended.at_us - begun.at_us;
    let about = |sum_us: u64, count: u64| {
        let off_us = sum_us.abs_diff(passed_us * count);
        assert!(
            off_us < passed_us / 10,
            "{sum_us} us of {count} x {passed_us} us"
        );
    };
    about(ended.in_flight_us - begun.in_flight_us, 1);
    about(ended.held_us - begun.held_us, 2);
    gate.open(3);
    clients.iter_mut().for_each(|client| {
        client.response();
    });
    until_held(&world, 0);
    let after = world.traffic().load;
    assert!(after.held_us > before.held_us && after.in_flight_us > before.in_flight_us);
}

#[test]
fn whoever_leaves_the_line_is_in_nobodys_way() {
    let (server, gate) = gated(None);
    let world = scaled(1, &[(replica(1), server.addr)]);
    let mut first = ask(&world, "/first");
    wait_for("the first", || (server.seen() == 1).then_some(()));
    let leaves = ask(&world, "/leaves");
    until_held(&world, 1);
    let mut last = ask(&world, "/last");
    until_held(&world, 2);
    leaves.reset();
    until_held(&world, 1);
    gate.open(2);
    assert_eq!(first.response().status, 200);
    assert_eq!(last.response().status, 200);
    assert_eq!(paths(&server), ["/first", "/last"]);
}

#[test]
fn what_clients_that_closed_had_asked_for_is_not_worked_on() {
    let (server, gate) = gated(None);
    let mut world = scaled(1, &[(replica(1), server.addr)]);
    let port = world.listen_anywhere(server.addr.port(), Protocol::Http);
    let mut first = ask(&world, "/first");
    wait_for("the first", || (server.seen() == 1).then_some(()));
    let mut gone: Vec<Client> = (0..3).map(|_| ask(&world, "/gone")).collect();
    let request = format!("GET /gone HTTP/1.1\r\nHost: {HOST}\r\n\r\n");
    let mut by_port = Client::connect(port);
    by_port.send(&request);
    // What it sends beyond its request is not read, and does not hide that it leaves.
    let mut pipelining = world.client();
    pipelining.send(&request).send(&request);
    gone.extend([by_port, pipelining]);
    until_held(&world, 5);
    let mut last = ask(&world, "/last");
    until_held(&world, 6);
    drop(gone);
    until_held(&world, 1);
    gate.open(2);
    assert_eq!(first.response().status, 200);
    assert_eq!(last.response().status, 200);
    assert_eq!(paths(&server), ["/first", "/last"]);
}

#[test]
fn a_connection_that_is_closed_in_line_is_not_passed_on() {
    let server = Server::scripted(|client| {
        while let Ok(line) = client.read_until(b"\n") {
            client.send(std::str::from_utf8(&line).expect("text"));
        }
    });
    let mut world = scaled(1, &[(replica(1), server.addr)]);
    let addr = world.listen_anywhere(server.addr.port(), Protocol::Tcp);
    let mut first = Client::connect(addr);
    first.send("one\n");
    assert_eq!(first.read_until(b"\n").expect("an echo"), b"one\n");
    let mut gone = Client::connect(addr);
    gone.send("two\n");
    until_held(&world, 1);
    drop(gone);
    until_held(&world, 0);
    drop(first);
    let mut last = Client::connect(addr);
    last.send("three\n");
    assert_eq!(last.read_until(b"\n").expect("an echo"), b"three\n");
    assert_eq!(server.connections.load(SeqCst), 2);
}

#[test]
fn a_line_has_an_end_and_waiting_in_it_a_deadline() {
    let (server, gate) = gated(None);
    let mut world = World::new();
    world.concurrency = Some(1);
    world.limit(2, 400);
    world.serve(&[(replica(1), server.addr)]);
    world.confirm();
    let mut first = ask(&world, "/");
    wait_for("the first", || (server.seen() == 1).then_some(()));
    let mut late = [ask(&world, "/"), ask(&world, "/")];
    until_held(&world, 2);
    assert_eq!(ask(&world, "/").response().status, 503);
    for client in &mut late {
        let response = client.response();
        assert_eq!(response.status, 503, "they are ready, and busy");
        assert_eq!(response.header("retry-after"), Some("1"));
        assert!(response.text().contains("were busy for 1 s"));
    }
    gate.open(1);
    assert_eq!(first.response().status, 200);
}

#[test]
fn a_replica_more_is_used_at_once_by_those_who_are_held() {
    let (server, gate) = gated(None);
    let (more, other_gate) = gated(Some(SocketAddr::new(lonely_ip(), server.addr.port())));
    other_gate.open(100);
    let mut world = scaled(1, &[(replica(1), server.addr)]);
    let mut first = ask(&world, "/");
    wait_for("the first", || (server.seen() == 1).then_some(()));
    let mut held: Vec<Client> = (0..3).map(|_| ask(&world, "/")).collect();
    until_held(&world, 3);
    world.serve(&[(replica(1), server.addr), (replica(2), more.addr)]);
    for client in &mut held {
        assert_eq!(client.response().status, 200);
    }
    assert_eq!(more.seen(), 3);
    gate.open(1);
    assert_eq!(first.response().status, 200);
}

#[test]
fn a_full_canary_is_waited_for_and_a_full_live_is_not_in_its_way() {
    let (live, live_gate) = gated(None);
    let (canary, canary_gate) = gated(Some(SocketAddr::new(lonely_ip(), live.addr.port())));
    let mut world = World::new();
    world.concurrency = Some(1);
    let share = Share::header("X-Beta").expect("a header");
    world.serve_beside(
        &[(replica(1), live.addr)],
        share,
        &[(replica(2), canary.addr)],
    );
    world.confirm();
    let beta = |world: &World, path: &str| {
        let mut client = world.client();
        client.send(&format!(
            "GET {path} HTTP/1.1\r\nHost: {HOST}\r\nX-Beta: 1\r\n\r\n"
        ));
        client
    };
    let mut first = ask(&world, "/live");
    wait_for("live", || (live.seen() == 1).then_some(()));
    let mut second = ask(&world, "/live");
    until_held(&world, 1);
    // Live's line is none of its business.
    let mut third = beta(&world, "/beta");
    wait_for("the canary", || (canary.seen() == 1).then_some(()));
    let mut fourth = beta(&world, "/beta");
    until_held(&world, 2);
    // Live is free, and it is not what it falls to.
    live_gate.open(2);
    assert_eq!(first.response().status, 200);
    assert_eq!(second.response().status, 200);
    until_held(&world, 1);
    assert_eq!((live.seen(), canary.seen()), (2, 1));
    // The canary is taken back: live it is.
    world.serve(&[(replica(1), live.addr)]);
    live_gate.open(1);
    assert_eq!(fourth.response().status, 200);
    assert_eq!((live.seen(), canary.seen()), (3, 1));
    canary_gate.open(1);
    assert_eq!(third.response().status, 200);
}

#[test]
fn a_connection_counts_as_one_for_as_long_as_it_is_open() {
    let server = Server::scripted(|client| {
        while let Ok(line) = client.read_until(b"\n") {
            client.send(std::str::from_utf8(&line).expect("text"));
        }
    });
    let mut world = World::new();
    world.concurrency = Some(1);
    let upstreams = vec![layby_model::route::Upstream {
        replica: replica(1),
        ip: server.addr.ip(),
        concurrency: Some(1),
    }];
    let canary = None;
    world.set(Mode::Serve { upstreams, canary }, Some(1));
    let addr = world.listen_anywhere(server.addr.port(), Protocol::Tcp);
    let mut first = Client::connect(addr);
    first.send("one\n");
    assert_eq!(first.read_until(b"\n").expect("an echo"), b"one\n");
    let mut second = Client::connect(addr);
    second.send("two\n");
    until_held(&world, 1);
    // It is quiet for so long that it is no use any more, and still has its place.
    wait_for("no use", || {
        world.traffic().in_flight.is_empty().then_some(())
    });
    let load = world.traffic().load;
    assert_eq!((load.in_flight, load.held), (1, 1));
    first.send("three\n");
    assert_eq!(first.read_until(b"\n").expect("an echo"), b"three\n");
    drop(first);
    assert_eq!(second.read_until(b"\n").expect("an echo"), b"two\n");
}
