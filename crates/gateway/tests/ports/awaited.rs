//! TCP connections whose clients wait for an answer: counted until they have it, whatever becomes of the replica.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::sync::{Mutex, mpsc};

use layby_model::route::{Mode, Protocol};
use nix::sys::socket::{Backlog, listen};

use crate::common::{Client, PATIENCE, Server, World, lonely_ip, replica, request, wait_for};
use crate::{is_quiet, mirror, tcp_world};

fn awaited(world: &World) -> u32 {
    let awaited = world.traffic().awaited;
    awaited.get(&replica(1)).copied().unwrap_or(0)
}

/// Answers each request in two parts, the second one when told to.
fn halting() -> (Server, mpsc::Sender<()>) {
    let (go, gone) = mpsc::channel();
    let gone = Mutex::new(gone);
    let server = Server::scripted(move |client| {
        while request(client).is_some() {
            client.send("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nsl");
            gone.lock().expect("no panic").recv().expect("told");
            client.send("ow");
        }
    });
    (server, go)
}

#[test]
fn an_exchange_over_a_tcp_port_is_counted_to_its_end_after_the_replica_was_withdrawn() {
    let (server, go) = halting();
    let (mut world, addr) = tcp_world(&server);
    let mut client = Client::connect(addr);
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    wait_for("the request", || (awaited(&world) == 1).then_some(()));
    wait_for("a quiet connection", || is_quiet(&world));
    world.set(Mode::Refuse, None);
    world.confirm();
    assert_eq!(awaited(&world), 1, "half of the answer is still to come");
    go.send(()).expect("it waits");
    assert_eq!(client.response().text(), "slow");
    wait_for("the end", || (awaited(&world) == 0).then_some(()));
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    assert!(client.is_closed(), "the next request leads nowhere");
}

#[test]
fn of_what_is_no_http_the_last_word_counts_once_it_is_quiet() {
    let (go, gone) = mpsc::channel::<()>();
    let gone = Mutex::new(gone);
    let server = Server::scripted(move |client| {
        while client.read_len(1).is_ok() {
            gone.lock().expect("no panic").recv().expect("told");
            client.send("b");
        }
    });
    let (mut world, addr) = tcp_world(&server);
    let mut client = Client::connect(addr);
    client.send("a");
    wait_for("a quiet connection", || {
        (awaited(&world) == 1).then_some(())?;
        is_quiet(&world)
    });
    world.set(Mode::Disabled, None);
    world.confirm();
    go.send(()).expect("it waits");
    assert_eq!(client.read_len(1).expect("a byte"), b"b");
    wait_for("a quiet moment", || (awaited(&world) == 0).then_some(()));
}

#[test]
fn a_connection_that_is_kept_open_between_answers_is_not_awaited() {
    let server = mirror();
    let (world, addr) = tcp_world(&server);
    let mut client = Client::connect(addr);
    assert_eq!(client.send("a").read_len(1).expect("a byte"), b"a");
    wait_for("a quiet connection", || is_quiet(&world));
    wait_for("a quiet moment", || (awaited(&world) == 0).then_some(()));
    let open = world.traffic().open;
    assert_eq!(open.get(&replica(1)), Some(&1));
}

/// A connection that was held and let go, and whose replica was withdrawn again before it was connected.
#[test]
fn what_was_let_go_to_a_replica_is_answered_there_though_that_was_withdrawn_before_it_was_connected()
 {
    const ASKED: &str = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";
    // It has room for one connection that was not accepted yet, and somebody has that: others connect when they try again.
    let socket = TcpListener::bind((lonely_ip(), 0)).expect("a free port");
    listen(&socket, Backlog::new(0).expect("a length")).expect("it listens");
    let server = socket.local_addr().expect("its address");
    let _first = Client::connect(server);
    let mut world = World::new();
    world.hold();
    let addr = world.listen_anywhere(server.port(), Protocol::Tcp);
    let mut client = Client::connect(addr);
    client.send(ASKED);
    wait_for("demand", || (world.waiting() == 1).then_some(()));
    world.serve(&[(replica(1), server)]);
    wait_for("the claim", || {
        (world.in_flight(replica(1)) == 1).then_some(())
    });
    world.hold();
    world.confirm();
    assert_eq!(world.in_flight(replica(1)), 1, "it is still connecting");
    socket.accept().expect("the first one");
    let (mut stream, _) = socket.accept().expect("the one that was held");
    stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    let mut asked = [0; ASKED.len()];
    stream.read_exact(&mut asked).expect("what it asked");
    assert_eq!(asked, ASKED.as_bytes());
    wait_for("a quiet connection", || is_quiet(&world));
    assert_eq!(awaited(&world), 1, "its answer is still to come");
    let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nslow";
    stream.write_all(answer).expect("it is open");
    assert_eq!(client.response().text(), "slow");
    wait_for("the end", || (awaited(&world) == 0).then_some(()));
    client.send(ASKED);
    wait_for("the next one", || (world.waiting() == 1).then_some(()));
}
