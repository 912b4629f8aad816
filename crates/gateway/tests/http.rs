//! HTTP/1.1 through the gateway: routing, framing, connections.

mod common;

use std::io::Write;
use std::net::SocketAddr;
use std::sync::atomic::Ordering;
use std::sync::{Mutex, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use common::{Client, HOST, Server, World, header, lonely_ip, replica, request, wait_for};
use layby_model::route::{Mode, Served, Share};

fn world() -> (World, Server) {
    let server = Server::echo();
    let world = World::serving(&[(replica(1), server.addr)]);
    (world, server)
}

#[test]
fn a_request_reaches_the_service_of_its_host() {
    let (world, _server) = world();
    let response = world.client().get("/hello?a=b");
    assert_eq!(response.status, 200);
    assert!(response.text().starts_with("GET /hello?a=b HTTP/1.1\r\n"));
    assert_eq!(header(response.text(), "host"), Some(HOST));
}

#[test]
fn a_host_is_found_whatever_its_case_and_port() {
    let (world, _server) = world();
    for host in [
        "WEB.shop.LocalHost",
        "web.shop.localhost:8080",
        "web.shop.localhost.",
    ] {
        let mut client = world.client();
        client.send(&format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n"));
        assert_eq!(client.response().status, 200, "{host}");
    }
}

#[test]
fn an_unknown_host_is_answered_404_naming_it_and_the_connection_lives_on() {
    let (world, _server) = world();
    let mut client = world.client();
    client.send("GET / HTTP/1.1\r\nHost: other.localhost\r\n\r\n");
    let response = client.response();
    assert_eq!(response.status, 404);
    assert!(response.text().contains("\"other.localhost\""));
    client.send("GET / HTTP/1.1\r\nHost: other.localhost\r\nAccept: application/json\r\n\r\n");
    let response = client.response();
    assert_eq!(response.header("content-type"), Some("application/json"));
    assert!(response.text().contains("\"kind\":\"unknown_host\""));
    assert_eq!(client.get("/").status, 200);
}

#[test]
fn a_refused_service_is_answered_503_at_once() {
    let (mut world, _server) = world();
    world.set(Mode::Refuse, Some(80));
    world.confirm();
    let response = world.client().get("/");
    assert_eq!(response.status, 503);
    assert!(response.text().contains("shop/web"));
}

#[test]
fn an_absolute_target_names_the_host_and_goes_on_as_a_path() {
    let (world, _server) = world();
    let mut client = world.client();
    client.send(&format!(
        "GET http://{HOST}/a?b HTTP/1.1\r\nHost: other.localhost\r\n\r\n"
    ));
    let response = client.response();
    assert!(
        response.text().starts_with("GET /a?b HTTP/1.1\r\n"),
        "{}",
        response.text()
    );
    assert_eq!(header(response.text(), "host"), Some(HOST));
}

#[test]
fn hop_by_hop_headers_stay_here_and_forwarded_ones_are_put_in() {
    let (world, _server) = world();
    let mut client = world.client();
    client.send(&format!(
        "GET / HTTP/1.1\r\nHost: {HOST}\r\nConnection: keep-alive, X-Private\r\nX-Private: 1\r\n\
         Keep-Alive: timeout=5\r\nTE: trailers\r\nX-Forwarded-For: 10.1.1.1\r\n\
         X-Forwarded-Proto: https\r\nX-Kept: yes\r\n\r\n"
    ));
    let response = client.response();
    let seen = response.text();
    for gone in ["connection", "x-private", "keep-alive", "te", "via"] {
        assert_eq!(header(seen, gone), None, "{gone} in {seen}");
    }
    assert_eq!(header(seen, "x-kept"), Some("yes"));
    assert_eq!(header(seen, "x-forwarded-for"), Some("10.1.1.1, 127.0.0.1"));
    assert_eq!(header(seen, "x-forwarded-proto"), Some("http"));
    assert_eq!(header(seen, "x-forwarded-host"), Some(HOST));
}

#[test]
fn connections_are_kept_on_both_sides() {
    let (world, server) = world();
    let mut client = world.client();
    for at in 0..50 {
        assert_eq!(client.get(&format!("/{at}")).status, 200);
    }
    assert_eq!(server.connections.load(Ordering::SeqCst), 1);
}

#[test]
fn pipelined_requests_are_answered_in_order() {
    let (world, _server) = world();
    let mut client = world.client();
    let requests: String = (0..20)
        .map(|at| format!("GET /{at} HTTP/1.1\r\nHost: {HOST}\r\n\r\n"))
        .collect();
    client.send(&requests);
    for at in 0..20 {
        let response = client.response();
        assert!(response.text().starts_with(&format!("GET /{at} ")), "{at}");
    }
}

#[test]
fn bodies_of_all_framings_go_through_both_ways() {
    let server = Server::answering(|head, body| {
        if head.starts_with("POST /chunked") {
            let half = body.len() / 2;
            let text = |part: &[u8]| String::from_utf8_lossy(part).into_owned();
            format!(
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{:x}\r\n{}\r\n{:x};x=y\r\n{}\r\n0\r\nX-T: 1\r\n\r\n",
                half,
                text(&body[..half]),
                body.len() - half,
                text(&body[half..])
            )
        } else {
            let text = String::from_utf8_lossy(body);
            format!(
                "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{text}",
                body.len()
            )
        }
    });
    let world = World::serving(&[(replica(1), server.addr)]);
    let mut client = world.client();
    for len in [2, 1000, 20_000, 3_000_000] {
        let body: String = (0..len)
            .map(|at| char::from(b'a' + (at % 23) as u8))
            .collect();
        client.send(&format!(
            "POST /plain HTTP/1.1\r\nHost: {HOST}\r\nContent-Length: {len}\r\n\r\n{body}"
        ));
        assert!(client.response().body == body.as_bytes(), "plain {len}");
        let mut chunked = String::new();
        for part in body.as_bytes().chunks(7001) {
            let part = std::str::from_utf8(part).expect("ASCII");
            chunked.push_str(&format!("{:x}\r\n{part}\r\n", part.len()));
        }
        client.send(&format!(
            "POST /plain HTTP/1.1\r\nHost: {HOST}\r\nTransfer-Encoding: chunked\r\n\r\n{chunked}0\r\n\r\n"
        ));
        assert!(
            client.response().body == body.as_bytes(),
            "from chunks {len}"
        );
        client.send(&format!(
            "POST /chunked HTTP/1.1\r\nHost: {HOST}\r\nContent-Length: {len}\r\n\r\n{body}"
        ));
        assert!(client.response().body == body.as_bytes(), "to chunks {len}");
    }
}

#[test]
fn answers_without_a_body_leave_the_connection_usable() {
    let server = Server::answering(|head, _| {
        let path = head.split(' ').nth(1).unwrap_or_default();
        match path {
            "/204" => "HTTP/1.1 204 No Content\r\n\r\n".to_owned(),
            "/304" => "HTTP/1.1 304 Not Modified\r\nContent-Length: 99\r\n\r\n".to_owned(),
            _ if head.starts_with("HEAD") => {
                "HTTP/1.1 200 OK\r\nContent-Length: 1234\r\n\r\n".to_owned()
            }
            _ => "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n".to_owned(),
        }
    });
    let world = World::serving(&[(replica(1), server.addr)]);
    let mut client = world.client();
    assert_eq!(client.get("/204").status, 204);
    assert_eq!(client.get("/304").status, 304);
    client.send(&format!("HEAD / HTTP/1.1\r\nHost: {HOST}\r\n\r\n"));
    assert_eq!(
        client.head_response().header("content-length"),
        Some("1234")
    );
    assert_eq!(client.get("/").status, 200);
    assert_eq!(server.connections.load(Ordering::SeqCst), 1);
}

#[test]
fn an_answer_that_ends_by_closing_is_passed_on_and_the_client_told() {
    let server = Server::scripted(|client| {
        request(client);
        let _ = client.stream.write_all(b"HTTP/1.0 200 OK\r\n\r\nall of it");
    });
    let world = World::serving(&[(replica(1), server.addr)]);
    let mut client = world.client();
    let response = client.get("/");
    assert!(response.head.starts_with("HTTP/1.1 200"));
    assert_eq!(response.header("connection"), Some("close"));
    assert_eq!(response.text(), "all of it");
}

#[test]
fn answers_with_bare_line_feeds_are_passed_on_with_whole_ones() {
    let server = Server::answering(|head, _| match head.split(' ').nth(1).unwrap_or_default() {
        "/length" => "HTTP/1.1 200 OK\nX-A: b\nContent-Length: 5\n\na\nb\nc".to_owned(),
        "/mixed" => "HTTP/1.1 200 OK\r\nX-A: b\nContent-Length: 1\r\n\nm".to_owned(),
        "/interim" => {
            "HTTP/1.1 103 Early Hints\nX-A: b\n\nHTTP/1.1 200 OK\nContent-Length: 1\n\ni".to_owned()
        }
        _ => "HTTP/1.1 200 OK\nTransfer-Encoding: chunked\n\n1\nc\n0\n\n".to_owned(),
    });
    let world = World::serving(&[(replica(1), server.addr)]);
    let mut client = world.client();
    for (path, text) in [("/length", "a\nb\nc"), ("/mixed", "m")] {
        let response = client.get(path);
        assert_eq!(response.text(), text);
        assert!(!response.head.replace("\r\n", "").contains('\n'));
        assert!(response.head.contains("X-A: b\r\n"), "{}", response.head);
    }
    client.send(&format!("GET /interim HTTP/1.1\r\nHost: {HOST}\r\n\r\n"));
    assert_eq!(client.response().status, 103);
    assert_eq!(client.response().text(), "i");
    // Chunks are framing: there a line feed alone could be read in two ways.
    assert_eq!(client.get("/chunked").status, 502);
}

#[test]
fn a_truncated_answer_is_cut_off_for_the_client_too() {
    let server = Server::scripted(|client| {
        request(client);
        let _ = client
            .stream
            .write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nshort");
    });
    let world = World::serving(&[(replica(1), server.addr)]);
    let mut client = world.client();
    client.send(&format!("GET / HTTP/1.1\r\nHost: {HOST}\r\n\r\n"));
    assert!(client.try_response(false).is_err());
}

#[test]
fn http_1_0_clients_get_no_chunks_and_a_closed_connection() {
    let server = Server::answering(|head, _| {
        assert!(head.contains("HTTP/1.1\r\n"));
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n6\r\n world\r\n0\r\n\r\n".to_owned()
    });
    let world = World::serving(&[(replica(1), server.addr)]);
    let mut client = world.client();
    client.send(&format!("GET / HTTP/1.0\r\nHost: {HOST}\r\n\r\n"));
    let response = client.response();
    assert_eq!(response.header("transfer-encoding"), None);
    assert_eq!(response.text(), "hello world");
}

#[test]
fn the_client_is_told_to_continue_by_the_service() {
    let server = Server::scripted(|client| {
        let head = client.read_until(b"\r\n\r\n").expect("a head");
        let head = String::from_utf8(head).expect("text");
        assert_eq!(header(&head, "expect"), Some("100-continue"));
        client.send("HTTP/1.1 100 Continue\r\n\r\n");
        assert_eq!(client.read_len(5).expect("a body"), b"hello");
        client.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
    });
    let world = World::serving(&[(replica(1), server.addr)]);
    let mut client = world.client();
    client.send(&format!(
        "POST / HTTP/1.1\r\nHost: {HOST}\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n"
    ));
    assert_eq!(client.response().status, 100);
    client.send("hello");
    assert_eq!(client.response().text(), "ok");
}

#[test]
fn an_answer_before_the_body_has_come_reaches_the_client() {
    let server = Server::scripted(|client| {
        let _ = client.read_until(b"\r\n\r\n");
        client.send("HTTP/1.1 413 Content Too Large\r\nContent-Length: 3\r\n\r\nno!");
    });
    let world = World::serving(&[(replica(1), server.addr)]);
    let mut client = world.client();
    client.send(&format!(
        "POST / HTTP/1.1\r\nHost: {HOST}\r\nContent-Length: 1000000000\r\n\r\nbeginning"
    ));
    let response = client.response();
    assert_eq!((response.status, response.text()), (413, "no!"));
    assert!(client.is_closed());
}

#[test]
fn an_upgraded_connection_passes_bytes_both_ways() {
    let server = Server::scripted(|client| {
        let (head, _) = request(client).expect("a request");
        assert_eq!(header(&head, "connection"), Some("Upgrade"));
        assert_eq!(header(&head, "upgrade"), Some("websocket"));
        client.send("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\nfirst");
        let ping = client.read_len(4).expect("bytes");
        client.stream.write_all(&ping).expect("the client reads");
    });
    let world = World::serving(&[(replica(1), server.addr)]);
    let mut client = world.client();
    client.send(&format!(
        "GET / HTTP/1.1\r\nHost: {HOST}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
    ));
    let response = client.response();
    assert_eq!(response.status, 101);
    assert_eq!(response.header("upgrade"), Some("websocket"));
    assert_eq!(client.read_len(5).expect("bytes"), b"first");
    client.send("ping");
    assert_eq!(client.read_len(4).expect("bytes"), b"ping");
    assert!(client.is_closed());
}

#[test]
fn sixty_four_slow_clients_are_served_at_once() {
    let (world, _server) = world();
    let text = format!("GET /slow HTTP/1.1\r\nHost: {HOST}\r\n\r\n");
    let mut clients: Vec<Client> = (0..64).map(|_| world.client()).collect();
    for byte in text.chars() {
        for client in &mut clients {
            client.send(&byte.to_string());
        }
    }
    for client in &mut clients {
        assert_eq!(client.response().status, 200);
    }
}

#[test]
fn a_request_whose_client_reset_the_connection_is_given_up() {
    let server = Server::scripted(|client| {
        let _ = request(client);
        let _ = client.read_to_end(); // never answers; ends when the gateway closes
    });
    let world = World::serving(&[(replica(1), server.addr)]);
    for finishes_first in [false, true] {
        let mut client = world.client();
        client.send(&format!("GET / HTTP/1.1\r\nHost: {HOST}\r\n\r\n"));
        wait_for("the request", || {
            (world.in_flight(replica(1)) == 1).then_some(())
        });
        if finishes_first {
            client.finish();
        }
        client.reset();
        wait_for("nothing in flight", || {
            world.traffic().in_flight.is_empty().then_some(())
        });
    }
}

#[test]
fn a_request_whose_client_will_send_no_more_is_answered_however_long_that_takes() {
    let (go, told) = mpsc::channel();
    let told = Mutex::new(told);
    let server = Server::answering(move |_, _| {
        let () = told.lock().expect("no panic").recv().expect("told");
        "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nlate".to_owned()
    });
    let world = World::serving(&[(replica(1), server.addr)]);
    let mut client = world.client();
    client
        .send(&format!("GET / HTTP/1.1\r\nHost: {HOST}\r\n\r\n"))
        .finish();
    wait_for("the request", || (server.seen() == 1).then_some(()));
    // The gateway begins to watch its client a second after the request.
    let end = Instant::now() + Duration::from_secs(13);
    while Instant::now() < end {
        assert_eq!(world.in_flight(replica(1)), 1);
        thread::sleep(Duration::from_millis(100));
    }
    go.send(()).expect("it waits");
    assert_eq!(client.response().text(), "late");
    assert!(client.is_closed());
}

/// A world with a live replica and one of a canary, which answers as `status` says.
fn with_canary(share: Share, status: &'static str) -> (World, Server, Server) {
    let live = Server::echo();
    let addr = SocketAddr::new(lonely_ip(), live.addr.port());
    let canary = Server::answering_on(addr, move |_, _| {
        format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n")
    });
    let mut world = World::new();
    let (one, two) = (replica(1), replica(2));
    world.serve_beside(&[(one, live.addr)], share, &[(two, canary.addr)]);
    world.confirm();
    (world, live, canary)
}

#[test]
fn a_canary_gets_exactly_its_share_of_requests_over_all_connections() {
    let (world, live, canary) = with_canary(Share::Percent(10), "200 OK");
    let mut clients: Vec<Client> = (0..10).map(|_| world.client()).collect();
    for n in 0..300 {
        assert_eq!(clients[n % 10].get("/").status, 200);
    }
    assert_eq!((live.seen(), canary.seen()), (270, 30));
    for (replica, requests) in [(replica(1), 270), (replica(2), 30)] {
        let errors = 0;
        let served = world.until_served(replica, requests);
        assert_eq!(served, Served { requests, errors });
    }
}

#[test]
fn a_canary_by_header_gets_those_with_it_and_no_others() {
    let share = Share::header("X-Beta=yes").expect("a share");
    let (world, live, canary) = with_canary(share, "200 OK");
    let mut client = world.client();
    for (header, to_canary) in [("x-beta: yes", 1), ("X-Beta: no", 0), ("Beta: yes", 0)] {
        let before = canary.seen();
        client.send(&format!(
            "GET / HTTP/1.1\r\nHost: {HOST}\r\n{header}\r\n\r\n"
        ));
        assert_eq!(client.response().status, 200);
        assert_eq!(canary.seen() - before, to_canary, "{header}");
    }
    assert_eq!(live.seen(), 2);
}

#[test]
fn a_canary_by_cookie_gets_a_request_that_was_held_too() {
    let share = Share::cookie("beta").expect("a share");
    let (mut world, live, canary) = with_canary(share.clone(), "200 OK");
    world.hold();
    world.confirm();
    let mut client = world.client();
    client.send(&format!(
        "GET / HTTP/1.1\r\nHost: {HOST}\r\nCookie: a=b; beta=1\r\n\r\n"
    ));
    wait_for("demand", || (world.waiting() == 1).then_some(()));
    world.serve_beside(
        &[(replica(1), live.addr)],
        share,
        &[(replica(2), canary.addr)],
    );
    assert_eq!(client.response().status, 200);
    assert_eq!((live.seen(), canary.seen()), (0, 1));
}

#[test]
fn errors_of_a_canary_are_counted_apart() {
    let share = Share::Percent(50);
    let (world, _live, _canary) = with_canary(share, "503 Service Unavailable");
    let mut client = world.client();
    let failed = (0..100).filter(|_| client.get("/").status == 503).count();
    assert_eq!(failed, 50);
    let (requests, errors) = (50, 50);
    let served = world.until_served(replica(2), requests);
    assert_eq!(served, Served { requests, errors });
    assert_eq!(world.until_served(replica(1), 50).errors, 0);
}

#[test]
fn what_falls_to_a_canary_that_nobody_reaches_goes_to_live() {
    let live = Server::echo();
    let mut world = World::new();
    let canary = SocketAddr::new(lonely_ip(), live.addr.port()); // nobody listens there
    let (one, two) = (replica(1), replica(2));
    world.serve_beside(&[(one, live.addr)], Share::Percent(50), &[(two, canary)]);
    world.confirm();
    let mut client = world.client();
    assert!((0..100).all(|_| client.get("/").status == 200));
    assert_eq!(world.until_served(one, 100).requests, 100);
    assert_eq!(world.traffic().served[&two], Served::default());
}
