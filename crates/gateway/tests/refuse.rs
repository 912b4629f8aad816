//! Requests that could be read in two ways are refused, and never reach a service.

mod common;

use common::{HOST, Server, World, replica};

/// What is sent, and the status that it is answered with. `HOST` stands for the host of the service.
const CORPUS: &[(&str, u16)] = &[
    ("GET / HTTP/1.1\r\n\r\n", 400),
    ("GET / HTTP/1.1\r\nHost: HOST\r\nHost: HOST\r\n\r\n", 400),
    ("GET / HTTP/1.1\r\nHost: HOST\r\nHost: other\r\n\r\n", 400),
    ("GET / HTTP/1.1\r\nHost: a b\r\n\r\n", 400),
    ("GET / HTTP/1.1\r\nHost: a/b\r\n\r\n", 400),
    ("GET / HTTP/1.1\r\nHost: user@HOST\r\n\r\n", 400),
    ("GET / HTTP/1.1\r\nHost:\r\n\r\n", 400),
    ("GET / HTTP/1.1\r\nHost : HOST\r\n\r\n", 400),
    ("GET / HTTP/1.1\r\n Host: HOST\r\n\r\n", 400),
    ("GET / HTTP/1.1\r\nHost: HOST\r\nX: a\r\n b\r\n\r\n", 400),
    ("GET / HTTP/1.1\r\nHost: HOST\r\nX: a\r\n\tb\r\n\r\n", 400),
    ("GET / HTTP/1.1\nHost: HOST\n\n", 400),
    ("GET / HTTP/1.1\r\nHost: HOST\nX: 1\r\n\r\n", 400),
    ("GET / HTTP/1.1\r\nHost: HOST\r\nX: a\rb\r\n\r\n", 400),
    ("GET / HTTP/1.1\rHost: HOST\r\n\r\n", 400),
    ("GET / HTTP/1.1\r\nHost: HOST\r\nX: a\0b\r\n\r\n", 400),
    ("GET / HTTP/1.1\r\nHost: HOST\r\nX\r\n\r\n", 400),
    ("GET / HTTP/1.1\r\nHost: HOST\r\n: x\r\n\r\n", 400),
    ("GET / HTTP/1.1\r\nHost: HOST\r\nA(b): x\r\n\r\n", 400),
    ("GET  / HTTP/1.1\r\nHost: HOST\r\n\r\n", 400),
    ("GET /a b HTTP/1.1\r\nHost: HOST\r\n\r\n", 400),
    ("GET noslash HTTP/1.1\r\nHost: HOST\r\n\r\n", 400),
    ("GET * HTTP/1.1\r\nHost: HOST\r\n\r\n", 400),
    ("GET ftp://HOST/ HTTP/1.1\r\nHost: HOST\r\n\r\n", 400),
    ("GET http:// HTTP/1.1\r\nHost: HOST\r\n\r\n", 400),
    ("GET http://user@HOST/ HTTP/1.1\r\nHost: HOST\r\n\r\n", 400),
    ("GET / HTTP/2.0\r\nHost: HOST\r\n\r\n", 505),
    ("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505),
    ("GET / HTTP/1.2\r\nHost: HOST\r\n\r\n", 505),
    ("GET /\r\n\r\n", 400),
    ("CONNECT HOST:80 HTTP/1.1\r\nHost: HOST\r\n\r\n", 501),
    (
        "POST / HTTP/1.1\r\nHost: HOST\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\na",
        400,
    ),
    (
        "POST / HTTP/1.1\r\nHost: HOST\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\na",
        400,
    ),
    (
        "POST / HTTP/1.1\r\nHost: HOST\r\nContent-Length: 1, 1\r\n\r\na",
        400,
    ),
    (
        "POST / HTTP/1.1\r\nHost: HOST\r\nContent-Length: +1\r\n\r\na",
        400,
    ),
    (
        "POST / HTTP/1.1\r\nHost: HOST\r\nContent-Length: -1\r\n\r\na",
        400,
    ),
    (
        "POST / HTTP/1.1\r\nHost: HOST\r\nContent-Length: 0x1\r\n\r\na",
        400,
    ),
    (
        "POST / HTTP/1.1\r\nHost: HOST\r\nContent-Length:\r\n\r\na",
        400,
    ),
    (
        "POST / HTTP/1.1\r\nHost: HOST\r\nContent-Length: 99999999999999999999\r\n\r\na",
        400,
    ),
    (
        "POST / HTTP/1.1\r\nHost: HOST\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        400,
    ),
    (
        "POST / HTTP/1.1\r\nHost: HOST\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n",
        400,
    ),
    (
        "POST / HTTP/1.1\r\nHost: HOST\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        400,
    ),
    (
        "POST / HTTP/1.1\r\nHost: HOST\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
        501,
    ),
    (
        "POST / HTTP/1.1\r\nHost: HOST\r\nTransfer-Encoding: identity\r\n\r\n",
        501,
    ),
    (
        "POST / HTTP/1.1\r\nHost: HOST\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
        501,
    ),
    (
        "POST / HTTP/1.1\r\nHost: HOST\r\nTransfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n",
        501,
    ),
    (
        "POST / HTTP/1.1\r\nHost: HOST\r\nTransfer-Encoding : chunked\r\n\r\n0\r\n\r\n",
        400,
    ),
    (
        "POST / HTTP/1.1\r\nHost: HOST\r\nTransfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n",
        400,
    ),
    (
        "POST / HTTP/1.0\r\nHost: HOST\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        400,
    ),
    (
        "POST / HTTP/1.1\r\nHost: HOST\r\nTransfer-Encoding: chunked\r\n\r\nz\r\n\r\n",
        400,
    ),
    (
        "POST / HTTP/1.1\r\nHost: HOST\r\nTransfer-Encoding: chunked\r\n\r\n-1\r\n\r\n",
        400,
    ),
    (
        "POST / HTTP/1.1\r\nHost: HOST\r\nTransfer-Encoding: chunked\r\n\r\n0x1\r\na\r\n0\r\n\r\n",
        400,
    ),
    (
        "POST / HTTP/1.1\r\nHost: HOST\r\nTransfer-Encoding: chunked\r\n\r\n1\na\r\n0\r\n\r\n",
        400,
    ),
    (
        "POST / HTTP/1.1\r\nHost: HOST\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nabc\r\n0\r\n\r\n",
        400,
    ),
    (
        "POST / HTTP/1.1\r\nHost: HOST\r\nTransfer-Encoding: chunked\r\n\r\nfffffffffffffffff\r\n",
        400,
    ),
    (
        "POST / HTTP/1.1\r\nHost: HOST\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nX : 1\r\n\r\n",
        400,
    ),
    (
        "POST / HTTP/1.1\r\nHost: HOST\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n folded\r\n\r\n",
        400,
    ),
    (
        "POST / HTTP/1.1\r\nHost: HOST\r\nTransfer-Encoding: chunked\r\n\r\n1;a=\n\r\nb\r\n0\r\n\r\n",
        400,
    ),
];

#[test]
fn what_could_be_read_in_two_ways_is_refused_and_never_forwarded() {
    let server = Server::echo();
    let world = World::serving(&[(replica(1), server.addr)]);
    for (text, status) in CORPUS {
        let mut client = world.client();
        client.send(&text.replace("HOST", HOST));
        let response = client.response();
        assert_eq!(
            response.status,
            *status,
            "{text:?} gave {}",
            response.text()
        );
        assert_eq!(response.header("connection"), Some("close"), "{text:?}");
        assert!(client.is_closed(), "{text:?}");
    }
    assert_eq!(server.seen(), 0);
}

#[test]
fn a_body_that_turns_out_malformed_ends_both_connections() {
    let server = Server::echo();
    let world = World::serving(&[(replica(1), server.addr)]);
    let mut client = world.client();
    client.send(&format!(
        "POST / HTTP/1.1\r\nHost: {HOST}\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhel"
    ));
    client.send("lo\r\nGET /smuggled HTTP/1.1\r\n\r\n");
    assert_eq!(client.response().status, 400);
    assert!(client.is_closed());
    assert_eq!(server.seen(), 0);
}

#[test]
fn what_frames_a_body_goes_on_even_if_connection_names_it() {
    let server = Server::echo();
    let world = World::serving(&[(replica(1), server.addr)]);
    let mut client = world.client();
    client.send(&format!(
        "POST / HTTP/1.1\r\nHost: {HOST}\r\nConnection: content-length, host\r\nContent-Length: 5\r\n\r\nhello"
    ));
    let response = client.response();
    assert!(
        response.text().ends_with("\r\n\r\nhello"),
        "{}",
        response.text()
    );
}

#[test]
fn heads_that_are_too_large_are_answered_431() {
    let server = Server::echo();
    let world = World::serving(&[(replica(1), server.addr)]);
    let many: String = (0..150).map(|at| format!("X-{at}: 1\r\n")).collect();
    let long = format!("X: {}\r\n", "a".repeat(70_000));
    for headers in [many, long] {
        let mut client = world.client();
        client.send(&format!("GET / HTTP/1.1\r\nHost: {HOST}\r\n{headers}\r\n"));
        assert_eq!(client.response().status, 431);
    }
    let fits = format!("X: {}\r\n", "a".repeat(40_000));
    let mut client = world.client();
    client.send(&format!("GET / HTTP/1.1\r\nHost: {HOST}\r\n{fits}\r\n"));
    assert_eq!(client.response().status, 200);
}

#[test]
fn empty_lines_before_a_request_are_passed_over() {
    let server = Server::echo();
    let world = World::serving(&[(replica(1), server.addr)]);
    let mut client = world.client();
    client.send(&format!("\r\n\r\nGET / HTTP/1.1\r\nHost: {HOST}\r\n\r\n"));
    let response = client.response();
    assert!(
        response.text().starts_with("GET / HTTP/1.1\r\n"),
        "{}",
        response.text()
    );
}
