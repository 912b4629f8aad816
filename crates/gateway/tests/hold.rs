//! Holding, waking, balancing, withdrawing, retrying.

mod common;
#[path = "hold/full.rs"]
mod full;

use std::io::Write;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use common::{
    Client, HOST, Nobody, PATIENCE, Server, World, established_to, lonely_ip, replica, request,
    wait_for,
};
use layby_model::route::{Mode, UNHEALTHY_HOLD_MS};

/// A world whose service is held.
fn held() -> World {
    let mut world = World::new();
    world.hold();
    world.confirm();
    world
}

fn ask(world: &World, path: &str) -> Client {
    let mut client = world.client();
    client.send(&format!("GET {path} HTTP/1.1\r\nHost: {HOST}\r\n\r\n"));
    client
}

#[test]
fn held_requests_raise_demand_and_are_answered_once_each_after_the_swap() {
    let mut world = held();
    let mut clients: Vec<Client> = (0..40).map(|at| ask(&world, &format!("/{at}"))).collect();
    wait_for("demand", || (world.waiting() > 0).then_some(()));
    let server = Server::echo();
    world.serve(&[(replica(1), server.addr)]);
    for (at, client) in clients.iter_mut().enumerate() {
        assert!(client.response().text().starts_with(&format!("GET /{at} ")));
    }
    assert_eq!(server.seen(), 40);
    wait_for("no demand", || (world.waiting() == 0).then_some(()));
    let traffic = world.traffic();
    assert_eq!(traffic.uses, 40);
    let wake = traffic.last_wake.expect("requests were held");
    assert!(
        wake.held_ms > 0.0 && wake.answered_ms >= wake.held_ms,
        "{wake:?}"
    );
}

#[test]
fn a_held_body_is_sent_after_the_wake() {
    let mut world = held();
    let body = "x".repeat(2_000_000);
    let addr = world.addr();
    let client = thread::spawn(move || {
        let mut client = Client::connect(addr);
        client.send(&format!(
            "POST / HTTP/1.1\r\nHost: {HOST}\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        ));
        client.response()
    });
    wait_for("demand", || (world.waiting() > 0).then_some(()));
    let server = Server::answering(|_, body| {
        let text = body.len().to_string();
        format!(
            "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{text}",
            text.len()
        )
    });
    world.serve(&[(replica(1), server.addr)]);
    assert_eq!(client.join().expect("no panic").text(), "2000000");
}

#[test]
fn one_more_than_the_queue_holds_is_answered_503_with_retry_after() {
    let mut world = World::new();
    world.limit(4, 60_000);
    world.hold();
    world.confirm();
    let waiting: Vec<Client> = (0..4).map(|_| ask(&world, "/")).collect();
    // How many wait is told when that is a power of two.
    wait_for("a full queue", || (world.waiting() == 4).then_some(()));
    let mut fifth = ask(&world, "/");
    let response = fifth.response();
    assert_eq!(response.status, 503);
    assert_eq!(response.header("retry-after"), Some("1"));
    waiting.into_iter().for_each(Client::reset);
    wait_for("an empty queue", || (world.waiting() == 0).then_some(()));
}

#[test]
fn a_request_for_an_unhealthy_service_is_held_for_a_moment_and_answered_503() {
    let mut world = World::new();
    world.set(Mode::Unhealthy, Some(1));
    world.confirm();
    let begun = Instant::now();
    let (mut given_up, mut patient) = (ask(&world, "/"), ask(&world, "/"));
    let response = given_up.response();
    assert_eq!(response.status, 503);
    assert!(
        response
            .header("x-layby-error")
            .is_some_and(|e| e.starts_with("unhealthy"))
    );
    assert!(
        response
            .text()
            .contains("none of its replicas answers its probe")
    );
    let waited_ms = begun.elapsed().as_millis() as u64;
    assert!(waited_ms >= UNHEALTHY_HOLD_MS, "{waited_ms} ms");
    assert_eq!(patient.response().status, 503);

    // It answers again in time.
    let mut lucky = ask(&world, "/");
    wait_for("demand", || (world.waiting() > 0).then_some(()));
    let server = Server::echo();
    world.serve(&[(replica(1), server.addr)]);
    assert_eq!(lucky.response().status, 200);
}

#[test]
fn a_request_that_waits_too_long_is_answered_504() {
    let mut world = World::new();
    world.limit(10, 300);
    world.hold();
    world.confirm();
    let mut client = ask(&world, "/");
    assert_eq!(client.response().status, 504);
    wait_for("no demand", || (world.waiting() == 0).then_some(()));
    let server = Server::echo();
    world.serve(&[(replica(1), server.addr)]);
    world.confirm();
    assert_eq!(client.get("/again").status, 200);
    assert_eq!(server.seen(), 1);
}

#[test]
fn a_client_that_resets_its_connection_leaves_the_queue() {
    let world = held();
    let client = ask(&world, "/");
    wait_for("demand", || (world.waiting() == 1).then_some(()));
    client.reset();
    wait_for("no demand", || (world.waiting() == 0).then_some(()));
}

#[test]
fn a_client_that_closes_before_its_body_has_come_leaves_the_queue() {
    let world = held();
    let mut client = world.client();
    client.send(&format!(
        "POST / HTTP/1.1\r\nHost: {HOST}\r\nContent-Length: 2\r\n\r\n"
    ));
    wait_for("demand", || (world.waiting() == 1).then_some(()));
    drop(client);
    wait_for("no demand", || (world.waiting() == 0).then_some(()));
}

#[test]
fn a_held_client_that_closes_leaves_the_queue_after_a_while() {
    let world = held();
    let mut before = world.client();
    before
        .send(&format!("GET / HTTP/1.1\r\nHost: {HOST}\r\n\r\n"))
        .finish();
    let mut during = ask(&world, "/");
    wait_for("demand", || (world.waiting() == 2).then_some(()));
    during.finish();
    assert_eq!(before.read_to_end().expect("it is closed"), b"");
    assert_eq!(during.read_to_end().expect("it is closed"), b"");
    wait_for("no demand", || (world.waiting() == 0).then_some(()));
}

#[test]
fn a_held_client_that_will_send_no_more_is_answered_by_a_wake_that_comes_soon() {
    let server = Server::echo();
    let mut world = held();
    let mut client = ask(&world, "/");
    client.finish();
    wait_for("demand", || (world.waiting() == 1).then_some(()));
    world.serve(&[(replica(1), server.addr)]);
    assert_eq!(client.response().status, 200);
}

#[test]
fn a_client_that_will_send_no_more_is_answered_by_a_service_that_is_awake() {
    let server = Server::echo();
    let world = World::serving(&[(replica(1), server.addr)]);
    let mut client = ask(&world, "/");
    client.finish();
    assert_eq!(client.response().status, 200);
}

#[test]
fn a_held_request_is_refused_when_the_service_is_disabled() {
    let mut world = held();
    let mut client = ask(&world, "/");
    wait_for("demand", || (world.waiting() == 1).then_some(()));
    world.set(Mode::Refuse, Some(1));
    assert_eq!(client.response().status, 503);
}

/// A server that answers each request when told to.
fn slow_server() -> (Server, mpsc::Sender<()>) {
    slow_server_on("127.0.0.1:0".parse().expect("an address"))
}

fn slow_server_on(addr: SocketAddr) -> (Server, mpsc::Sender<()>) {
    let (go, gone) = mpsc::channel();
    let gone = std::sync::Mutex::new(gone);
    let server = Server::answering_on(addr, move |_, _| {
        gone.lock().expect("no panic").recv().expect("told");
        "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nslow".to_owned()
    });
    (server, go)
}

#[test]
fn a_withdrawn_replica_finishes_what_is_in_flight_and_gets_nothing_new() {
    let (old, go) = slow_server();
    let mut world = World::serving(&[(replica(1), old.addr)]);
    let mut client = ask(&world, "/");
    wait_for("the request", || (old.seen() == 1).then_some(()));
    assert_eq!(world.in_flight(replica(1)), 1);
    let new = Server::echo();
    world.serve(&[(replica(2), new.addr)]);
    world.confirm();
    assert_eq!(
        world.in_flight(replica(1)),
        1,
        "still counted after it was withdrawn"
    );
    assert_eq!(world.client().get("/").status, 200);
    go.send(()).expect("it waits");
    assert_eq!(client.response().text(), "slow");
    wait_for("nothing in flight", || {
        world.traffic().in_flight.is_empty().then_some(())
    });
    assert_eq!(client.get("/").status, 200);
    assert_eq!((old.seen(), new.seen()), (1, 2));
}

#[test]
fn a_gateway_that_turns_away_finishes_what_is_in_flight_and_answers_all_else_503() {
    let (server, go) = slow_server();
    let mut world = World::new();
    world.concurrency = Some(1);
    world.serve(&[(replica(1), server.addr)]);
    world.confirm();
    let mut first = ask(&world, "/1");
    wait_for("the request", || (server.seen() == 1).then_some(()));
    let mut held = ask(&world, "/2");
    wait_for("demand", || (world.waiting() == 1).then_some(()));
    world.gateway.as_ref().expect("it runs").turn_away();
    let mut new = ask(&world, "/3");
    for client in [&mut held, &mut new] {
        let response = client.response();
        assert_eq!(
            (response.status, response.header("retry-after")),
            (503, Some("1"))
        );
        assert!(response.text().contains("the node ends"), "{response:?}");
    }
    // Whatever is published now.
    world.serve(&[(replica(1), server.addr), (replica(2), server.addr)]);
    world.confirm();
    assert_eq!(world.client().get("/4").status, 503);
    assert_eq!(world.in_flight(replica(1)), 1);
    go.send(()).expect("it waits");
    assert_eq!(first.response().text(), "slow");
    assert_eq!(server.seen(), 1);
}

#[test]
fn idle_connections_to_a_withdrawn_replica_are_closed_when_the_table_is_confirmed() {
    let server = Server::echo();
    let mut world = World::serving(&[(replica(1), server.addr)]);
    let mut clients: Vec<Client> = (0..8).map(|_| world.client()).collect();
    for client in &mut clients {
        assert_eq!(client.get("/").status, 200);
    }
    assert!(established_to(server.addr) > 0, "kept for the next request");
    world.hold();
    world.confirm();
    assert_eq!(established_to(server.addr), 0);
}

#[test]
fn requests_go_to_the_replica_with_the_least_in_flight() {
    let (one, go_one) = slow_server();
    let (two, go_two) = slow_server_on(SocketAddr::new(lonely_ip(), one.addr.port()));
    let world = World::serving(&[(replica(1), one.addr), (replica(2), two.addr)]);
    let mut clients = Vec::new();
    for sent in 1..=6 {
        clients.push(ask(&world, "/"));
        wait_for("the request", || {
            (one.seen() + two.seen() == sent).then_some(())
        });
    }
    assert_eq!((one.seen(), two.seen()), (3, 3));
    for _ in 0..3 {
        go_one.send(()).expect("it waits");
        go_two.send(()).expect("it waits");
    }
    for client in &mut clients {
        assert_eq!(client.response().text(), "slow");
    }
}

#[test]
fn a_replica_that_refuses_connections_is_passed_over_or_waited_for() {
    let nobody = Nobody::new();
    let mut world = World::serving(&[(replica(1), nobody.addr)]);
    let mut client = ask(&world, "/");
    wait_for("demand", || (world.waiting() == 1).then_some(()));
    let beside = SocketAddr::new(lonely_ip(), nobody.addr.port());
    let server = Server::on(beside, |client| {
        while request(client).is_some() {
            client.send("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
        }
    });
    world.serve(&[(replica(1), nobody.addr), (replica(2), server.addr)]);
    assert_eq!(client.response().status, 200);
    for _ in 0..10 {
        assert_eq!(world.client().get("/").status, 200);
    }
}

#[test]
fn a_replica_that_refuses_connections_for_too_long_is_answered_504() {
    let mut world = World::new();
    world.limit(10, 300);
    let nobody = Nobody::new();
    world.serve(&[(replica(1), nobody.addr)]);
    world.confirm();
    assert_eq!(world.client().get("/").status, 504);
}

/// A server that closes each connection on its second request, having read it.
fn forgetful() -> (Server, Arc<AtomicUsize>) {
    let read = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&read);
    let server = Server::scripted(move |client| {
        for at in 0..2 {
            if request(client).is_none() {
                return;
            }
            counter.fetch_add(1, Ordering::SeqCst);
            if at == 0 {
                client.send("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
            }
        }
    });
    (server, read)
}

#[test]
fn an_idempotent_request_on_a_reused_connection_is_sent_again() {
    let (server, read) = forgetful();
    let world = World::serving(&[(replica(1), server.addr)]);
    let mut client = world.client();
    assert_eq!(client.get("/").status, 200);
    assert_eq!(client.get("/").status, 200);
    assert_eq!(read.load(Ordering::SeqCst), 3);
}

#[test]
fn a_request_that_may_have_had_an_effect_is_not_sent_again() {
    let (server, read) = forgetful();
    let world = World::serving(&[(replica(1), server.addr)]);
    let mut client = world.client();
    assert_eq!(client.get("/").status, 200);
    client.send(&format!(
        "POST / HTTP/1.1\r\nHost: {HOST}\r\nContent-Length: 2\r\n\r\nhi"
    ));
    assert_eq!(client.response().status, 502);
    assert_eq!(read.load(Ordering::SeqCst), 2);
}

/// A server that dies under each request that it has read.
fn fatal(addr: Option<SocketAddr>) -> Server {
    let die = |client: &mut Client| {
        request(client);
    };
    match addr {
        Some(addr) => Server::on(addr, die),
        None => Server::scripted(die),
    }
}

fn beside(server: &Server) -> SocketAddr {
    SocketAddr::new(lonely_ip(), server.addr.port())
}

#[test]
fn what_only_reads_is_sent_to_another_replica_when_one_dies_under_it() {
    let dies = fatal(None);
    let lives = Server::on(beside(&dies), |client| {
        while let Some((head, _)) = request(client) {
            let body = if head.starts_with("HEAD") {
                ""
            } else {
                "alive"
            };
            client.send(&format!(
                "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n{body}"
            ));
        }
    });
    let world = World::serving(&[(replica(1), dies.addr), (replica(2), lives.addr)]);
    for method in ["GET", "HEAD", "OPTIONS"] {
        let died = dies.connections.load(Ordering::SeqCst);
        // By turns, on each of two workers: one of three begins at the one that dies.
        for _ in 0..3 {
            let mut client = world.client();
            client.send(&format!("{method} / HTTP/1.1\r\nHost: {HOST}\r\n\r\n"));
            let response = client.try_response(method == "HEAD").expect("an answer");
            assert_eq!(response.status, 200, "{method}");
        }
        assert!(dies.connections.load(Ordering::SeqCst) > died, "{method}");
    }
    let counts = world.until_served(replica(1), 3);
    assert_eq!(counts.errors, counts.requests, "they are its errors");
}

#[test]
fn what_may_have_had_an_effect_is_not_sent_to_another_replica() {
    let dies = fatal(None);
    let also_dies = fatal(Some(beside(&dies)));
    let upstreams = [(replica(1), dies.addr), (replica(2), also_dies.addr)];
    let world = World::serving(&upstreams);
    let sent = || [&dies, &also_dies].map(|s| s.connections.load(Ordering::SeqCst));
    for head in [
        "POST / HTTP/1.1\r\nContent-Length: 0\r\n",
        "PUT / HTTP/1.1\r\nContent-Length: 0\r\n",
        "DELETE / HTTP/1.1\r\n",
        "GET / HTTP/1.1\r\nContent-Length: 2\r\n",
    ] {
        let before: usize = sent().iter().sum();
        let body = if head.starts_with("GET") { "hi" } else { "" };
        let mut client = world.client();
        client.send(&format!("{head}Host: {HOST}\r\n\r\n{body}"));
        assert_eq!(client.response().status, 502, "{head}");
        assert_eq!(sent().iter().sum::<usize>(), before + 1, "{head}");
    }
    // Nor is what only reads sent to a third.
    let before: usize = sent().iter().sum();
    assert_eq!(world.client().get("/").status, 502);
    assert_eq!(sent().iter().sum::<usize>(), before + 2);
}

#[test]
fn a_request_whose_only_replica_dies_is_held_for_the_next() {
    let (read, is_read) = mpsc::channel();
    let (kill, is_killed) = mpsc::channel::<()>();
    let is_killed = std::sync::Mutex::new(is_killed);
    let server = Server::scripted(move |client| {
        if request(client).is_some() {
            read.send(()).expect("the test waits");
            let _ = is_killed.lock().expect("no panic").recv();
        }
    });
    let mut world = World::serving(&[(replica(1), server.addr)]);
    let mut client = ask(&world, "/");
    is_read.recv_timeout(PATIENCE).expect("the request");
    // It is withdrawn, and killed when its drain is over.
    world.hold();
    world.confirm();
    kill.send(()).expect("it waits");
    wait_for("demand", || (world.waiting() == 1).then_some(()));
    let next = Server::echo();
    world.serve(&[(replica(2), next.addr)]);
    assert_eq!(client.response().status, 200);
    assert_eq!(next.seen(), 1);
}

#[test]
fn an_answer_that_has_begun_is_not_asked_for_again() {
    let server = Server::scripted(|client| {
        request(client);
        let _ = client.stream.write_all(b"HTTP/1.1 200 OK\r\n");
    });
    let world = World::serving(&[(replica(1), server.addr)]);
    assert_eq!(world.client().get("/").status, 502);
    assert_eq!(server.connections.load(Ordering::SeqCst), 1);
}

#[test]
fn an_answer_that_is_not_http_is_answered_502() {
    for answer in [
        "SSH-2.0-OpenSSH\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
        "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n",
        "HTTP/2 200\r\n\r\n",
    ] {
        let server = Server::scripted(move |client| {
            request(client);
            let _ = client.stream.write_all(answer.as_bytes());
            let _ = client.read_to_end();
        });
        let world = World::serving(&[(replica(1), server.addr)]);
        assert_eq!(world.client().get("/").status, 502, "{answer:?}");
    }
}

#[test]
fn no_request_is_lost_or_answered_twice_while_tables_change() {
    let server = Server::echo();
    let mut world = World::serving(&[(replica(1), server.addr)]);
    let addr = world.addr();
    let clients: Vec<_> = (0..4)
        .map(|who| {
            thread::spawn(move || {
                let mut client = Client::connect(addr);
                for at in 0..200 {
                    let response = client.get(&format!("/{who}/{at}"));
                    let expected = format!("GET /{who}/{at} ");
                    assert!(
                        response.text().starts_with(&expected),
                        "{}",
                        response.text()
                    );
                }
            })
        })
        .collect();
    let mut round = 0;
    while clients.iter().any(|client| !client.is_finished()) {
        round += 1;
        world.hold();
        thread::yield_now();
        world.serve(&[(replica(1 + round % 2), server.addr)]);
        thread::yield_now();
    }
    for client in clients {
        client.join().expect("every request was answered");
    }
    assert_eq!(server.seen(), 800);
    wait_for("nothing in flight", || {
        world.traffic().in_flight.is_empty().then_some(())
    });
    assert_eq!(world.traffic().uses, 800);
}

#[test]
fn no_request_and_no_connection_reaches_a_replica_that_control_may_freeze() {
    let frozen = Arc::new(AtomicBool::new(false));
    let open = Arc::new(AtomicUsize::new(0));
    let violations = Arc::new(AtomicUsize::new(0));
    let (ice, connections, counter) = (frozen.clone(), open.clone(), violations.clone());
    let server = Server::scripted(move |client| {
        connections.fetch_add(1, Ordering::SeqCst);
        loop {
            let came = request(client).is_some();
            counter.fetch_add(usize::from(ice.load(Ordering::SeqCst)), Ordering::SeqCst);
            if !came {
                break;
            }
            client.send("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
        }
        connections.fetch_sub(1, Ordering::SeqCst);
    });
    let mut world = World::serving(&[(replica(1), server.addr)]);
    let addr = world.addr();
    let done = Arc::new(AtomicBool::new(false));
    let clients: Vec<_> = (0..6)
        .map(|_| {
            let done = Arc::clone(&done);
            thread::spawn(move || {
                let mut client = Client::connect(addr);
                while !done.load(Ordering::SeqCst) {
                    assert_eq!(client.get("/").status, 200);
                }
            })
        })
        .collect();
    for _ in 0..60 {
        let uses = world.traffic().uses;
        world.hold();
        world.confirm();
        wait_for("nothing in flight", || {
            world.traffic().in_flight.is_empty().then_some(())
        });
        assert_eq!(established_to(server.addr), 0);
        wait_for("closed connections", || {
            (open.load(Ordering::SeqCst) == 0).then_some(())
        });
        frozen.store(true, Ordering::SeqCst);
        thread::sleep(Duration::from_millis(2));
        frozen.store(false, Ordering::SeqCst);
        world.serve(&[(replica(1), server.addr)]);
        wait_for("requests", || (world.traffic().uses > uses).then_some(()));
    }
    done.store(true, Ordering::SeqCst);
    for client in clients {
        client.join().expect("every request was answered");
    }
    assert_eq!(violations.load(Ordering::SeqCst), 0);
}
