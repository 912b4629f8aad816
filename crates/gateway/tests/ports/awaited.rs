//! TCP connections whose clients wait for an answer: counted until they have it, whatever becomes of the replica.

use std::sync::{Mutex, mpsc};

use layby_model::route::Mode;

use crate::common::{Client, Server, World, replica, request, wait_for};
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
