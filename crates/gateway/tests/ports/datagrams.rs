//! UDP: ports of the machine and of virtual addresses, one flow for each client.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::thread;
use std::time::Duration;

use layby_model::route::{Protocol, VirtualRoute};

use crate::common::{World, lonely_ip, replica, service, wait_for};

/// How long a datagram may take that is on its way for sure.
const PATIENCE: Duration = Duration::from_secs(30);

/// A replica that answers each datagram with its tag, the sender's port and what it said.
struct Echo {
    addr: SocketAddr,
    socket: UdpSocket,
}

impl Echo {
    fn at(addr: SocketAddr, tag: &'static str) -> Self {
        let socket = UdpSocket::bind(addr).expect("a free port");
        let addr = socket.local_addr().expect("its address");
        let own = socket.try_clone().expect("another handle");
        thread::spawn(move || {
            let mut buffer = [0; 2048];
            while let Ok((len, from)) = own.recv_from(&mut buffer) {
                if &buffer[..len] == b"end" {
                    return;
                }
                let said = String::from_utf8_lossy(&buffer[..len]).into_owned();
                let answer = format!("{tag} {} {said}", from.port());
                let _ = own.send_to(answer.as_bytes(), from);
            }
        });
        Self { addr, socket }
    }

    fn new(tag: &'static str) -> Self {
        Self::at(SocketAddr::new(lonely_ip(), 0), tag)
    }

    /// Nobody listens there any more.
    fn end(self) {
        let addr = self.addr;
        self.socket.send_to(b"end", addr).expect("sent");
        drop(self.socket);
        wait_for("a port that is free again", || UdpSocket::bind(addr).ok());
    }
}

/// A client of `addr`.
struct Client(UdpSocket);

impl Client {
    fn of(addr: SocketAddr) -> Self {
        let socket = UdpSocket::bind((lonely_ip(), 0)).expect("a free port");
        // What comes from anywhere else than where it sent to is no answer.
        socket.connect(addr).expect("an address");
        let patience = Some(PATIENCE);
        socket.set_read_timeout(patience).expect("a timeout");
        Self(socket)
    }

    fn send(&self, text: &str) {
        self.0.send(text.as_bytes()).expect("sent");
    }

    fn answer(&self) -> String {
        let mut buffer = [0; 2048];
        let len = self.0.recv(&mut buffer).expect("an answer");
        String::from_utf8_lossy(&buffer[..len]).into_owned()
    }

    fn ask(&self, text: &str) -> String {
        self.send(text);
        self.answer()
    }
}

fn udp_world(server: SocketAddr) -> (World, SocketAddr) {
    let mut world = World::new();
    world.serve(&[(replica(1), server)]);
    let addr = world.listen_anywhere(server.port(), Protocol::Udp);
    (world, addr)
}

#[test]
fn each_client_has_a_flow_of_its_own() {
    let server = Echo::new("one");
    let (world, addr) = udp_world(server.addr);
    let clients = [Client::of(addr), Client::of(addr)];
    let ports: Vec<String> = clients
        .iter()
        .map(|client| {
            let first = client.ask("a");
            assert_eq!(client.ask("a"), first, "the replica knows it again");
            first
        })
        .collect();
    assert_ne!(ports[0], ports[1]);
    let traffic = world.traffic();
    assert!(traffic.uses >= 2, "{traffic:?}");
    assert_eq!(traffic.open[&replica(1)], 2);
    wait_for("a flow that is silent", || {
        world.traffic().in_flight.is_empty().then_some(())
    });
    assert_eq!(clients[0].ask("a"), ports[0], "and after a silence");
}

#[test]
fn the_first_datagrams_of_a_client_wait_for_a_service_that_wakes() {
    let server = Echo::new("one");
    let (mut world, addr) = udp_world(server.addr);
    world.hold();
    world.confirm();
    let client = Client::of(addr);
    for n in 0..40 {
        client.send(&n.to_string());
    }
    wait_for("demand", || (world.waiting() == 1).then_some(()));
    world.serve(&[(replica(1), server.addr)]);
    let answers: Vec<String> = (0..16).map(|_| client.answer()).collect();
    for (n, answer) in answers.iter().enumerate() {
        assert!(answer.ends_with(&format!(" {n}")), "{answers:?}");
    }
    // More were dropped, as in the queue of a socket.
    assert!(client.ask("next").ends_with("next"));
    assert_eq!(world.waiting(), 0);
}

#[test]
fn a_replica_that_woke_and_does_not_listen_yet_gets_them_a_moment_later() {
    let placeholder = UdpSocket::bind((lonely_ip(), 0)).expect("a free port");
    let server = placeholder.local_addr().expect("its address");
    drop(placeholder);
    let (_world, addr) = udp_world(server);
    let client = Client::of(addr);
    client.send("early");
    thread::sleep(Duration::from_millis(150)); // it starts, and it takes as long as that
    let _server = Echo::at(server, "late");
    assert!(client.answer().ends_with("early"));
}

#[test]
fn a_flow_goes_on_to_the_next_replica_when_its_own_is_replaced() {
    let old = Echo::new("old");
    let port = old.addr.port();
    let (mut world, addr) = udp_world(old.addr);
    let new = Echo::at(SocketAddr::new(lonely_ip(), port), "new");
    let (client, quiet) = (Client::of(addr), Client::of(addr));
    assert!(client.ask("a").starts_with("old"));
    assert!(quiet.ask("a").starts_with("old"));
    world.serve(&[(replica(2), new.addr)]);
    world.confirm();
    assert!(client.ask("b").starts_with("old"), "it drains");
    assert!(Client::of(addr).ask("c").starts_with("new"));
    old.end();
    // The first one finds out that nobody is there any more.
    wait_for("the other replica", || {
        client
            .0
            .set_read_timeout(Some(Duration::from_millis(50)))
            .expect("a timeout");
        client.send("d");
        let mut buffer = [0; 64];
        let len = client.0.recv(&mut buffer).ok()?;
        buffer[..len].starts_with(b"new").then_some(())
    });
    // One that is silent leaves by itself: so it holds up nobody who waits for the old one's end.
    wait_for("no flow to the old replica", || {
        (!world.traffic().open.contains_key(&replica(1))).then_some(())
    });
    assert!(quiet.ask("e").starts_with("new"));
}

#[test]
fn a_client_that_never_falls_silent_leaves_a_replica_that_says_nothing_more() {
    let old = Echo::new("old");
    let port = old.addr.port();
    let (mut world, addr) = udp_world(old.addr);
    let new = Echo::at(SocketAddr::new(lonely_ip(), port), "new");
    let client = Client::of(addr);
    assert!(client.ask("a").starts_with("old"));
    world.serve(&[(replica(2), new.addr)]);
    world.confirm();
    assert!(client.ask("b").starts_with("old"), "it drains");
    // Its socket stays: nothing tells that what comes to it is lost, as where a whole network namespace went.
    old.socket.send_to(b"end", old.addr).expect("sent");
    let often = Some(Duration::from_millis(100));
    client.0.set_read_timeout(often).expect("a timeout");
    wait_for("the other replica", || {
        client.send("c");
        let mut buffer = [0; 64];
        let len = client.0.recv(&mut buffer).ok()?;
        buffer[..len].starts_with(b"new").then_some(())
    });
}

#[test]
fn a_udp_port_of_a_virtual_address_answers_from_there() {
    let server = Echo::new("one");
    let mut world = World::new();
    world.serve(&[(replica(1), server.addr)]);
    let IpAddr::V4(ip) = lonely_ip() else {
        panic!("it is of IPv4");
    };
    let route = VirtualRoute {
        service: service(),
        ports: BTreeMap::new(),
        datagrams: BTreeMap::from([(5353, server.addr.port())]),
    };
    world.table.virtuals.insert(ip, route);
    world.publish();
    assert!(world.confirm().failed_listeners.is_empty());
    let client = Client::of(SocketAddr::from((ip, 5353)));
    assert!(client.ask("a").ends_with(" a"));
    world.table.virtuals.clear();
    world.publish();
    world.confirm();
    wait_for("a closed port", || {
        UdpSocket::bind((ip, 5353)).ok() // else it is taken
    });
}

#[test]
fn a_udp_port_that_somebody_has_is_reported_and_a_tcp_port_of_the_same_number_is_another() {
    let server = Echo::new("one");
    let (mut world, addr) = udp_world(server.addr);
    world.listen(addr, server.addr.port(), Protocol::Tcp);
    let taken = UdpSocket::bind((lonely_ip(), 0)).expect("a free port");
    let taken = (taken.local_addr().expect("its address"), taken);
    world.listen(taken.0, server.addr.port(), Protocol::Udp);
    world.publish();
    let failed = world.confirm().failed_listeners;
    assert_eq!(failed.len(), 1, "{failed:?}");
    assert!(failed[0].1.contains("UDP port"), "{failed:?}");
    std::net::TcpStream::connect(addr).expect("TCP is open as well");
    assert!(Client::of(addr).ask("a").ends_with(" a"));
}
