//! Who reaches whom, and who does not.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::time::Duration;

use layby_net::{AppNames, Network};

use crate::kit::*;

pub(crate) fn two_replicas_reach_each_other_and_the_machine_reaches_both(dir: &Path) {
    block_on(async {
        let network = Network::open(config(dir, "aa1")).await.expect("opened");
        let one = network.attach("one", SHOP).await.expect("attached");
        let two = network.attach("two", SHOP).await.expect("attached");
        assert_ne!(one.address, two.address);
        assert_eq!(one.gateway, two.gateway);
        serve(&one.netns);
        let asked = within(&two.netns, move || ask(one.address, DEADLINE));
        assert_eq!(asked.expect("answered"), two.address.to_string());
        let asked = ask(one.address, DEADLINE).expect("answered");
        assert_eq!(asked, one.gateway.to_string());
        let itself = within(&one.netns, || ask(Ipv4Addr::LOCALHOST, DEADLINE));
        assert_eq!(itself.expect("loopback is up"), "127.0.0.1");
        network.close().await.expect("closed");
    });
}

pub(crate) fn replicas_of_two_nodes_do_not_reach_each_other(dir: &Path) {
    block_on(async {
        let one = Network::open(config(dir, "bb1")).await.expect("opened");
        let two = Network::open(config(dir, "bb2")).await.expect("opened");
        let (a, b) = (one.attach("x", SHOP).await, two.attach("x", SHOP).await);
        let (a, b) = (a.expect("attached"), b.expect("attached"));
        serve(&b.netns);
        let asked = ask(b.address, DEADLINE);
        assert!(asked.is_ok(), "the machine itself reaches it: {asked:?}");
        let asked = within(&a.netns, move || ask(b.address, REFUSED_AFTER));
        assert!(asked.is_err(), "another node's replica must not: {asked:?}");
        one.close().await.expect("closed");
        two.close().await.expect("closed");
    });
}

pub(crate) fn two_nodes_that_start_at_once_take_two_subnets(dir: &Path) {
    block_on(async {
        // The smallest of changes to the name gives another hash; what keeps them apart is the claim, so
        // many are started at once.
        let names: Vec<String> = (0..6).map(|n| format!("cc{n}")).collect();
        let opening = names.iter().map(|name| Network::open(config(dir, name)));
        let networks = futures_util::future::join_all(opening).await;
        let networks: Vec<Network> = networks.into_iter().map(|n| n.expect("opened")).collect();
        let ranges: BTreeSet<Ipv4Addr> = networks.iter().map(|n| n.virtual_range().0).collect();
        assert_eq!(ranges.len(), names.len(), "{ranges:?}");
        for network in networks {
            network.close().await.expect("closed");
        }
    });
}

pub(crate) fn a_replica_reaches_another_machine_under_the_address_of_its_own(dir: &Path) {
    block_on(async {
        let network = Network::open(config(dir, "dd1")).await.expect("opened");
        let replica = network.attach("x", SHOP).await.expect("attached");
        // The other machine is a replica of another node, whose fence is taken down and whose bridge is the wire.
        let other = Network::open(config(dir, "dd2")).await.expect("opened");
        let machine = other.attach("machine", SHOP).await.expect("attached");
        let lowered = std::process::Command::new("nft")
            .args(["delete", "table", "ip", "layby_dd2"])
            .status();
        assert!(lowered.expect("nft runs").success());
        serve(&machine.netns);
        let asked = within(&replica.netns, move || ask(machine.address, DEADLINE));
        assert_eq!(asked.expect("answered"), machine.gateway.to_string());
        serve(&replica.netns);
        let asked = within(&machine.netns, move || ask(replica.address, REFUSED_AFTER));
        assert!(asked.is_err(), "nobody outside reaches in: {asked:?}");
        network.close().await.expect("closed");
        other.close().await.expect("closed");
    });
}

pub(crate) fn a_firewall_that_drops_by_default_is_opened_and_left_as_it_was(dir: &Path) {
    let nft = |script: &str| {
        let output = std::process::Command::new("nft").arg(script).output();
        let output = output.expect("nft runs");
        assert!(output.status.success(), "{script}: {output:?}");
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    nft("table ip filter { chain FORWARD { type filter hook forward priority 0; policy drop; }; }");
    nft("add chain ip filter INPUT { type filter hook input priority 0; policy drop; }");
    nft("add rule ip filter INPUT ct state established accept");
    let chain = "list chain ip filter FORWARD";
    let input = "list chain ip filter INPUT";
    let before = nft(chain).lines().count();
    let input_before = nft(input).lines().count();
    block_on(async {
        let network = Network::open(config(dir, "ii1")).await.expect("opened");
        drop(network);
        let network = Network::open(config(dir, "ii1")).await.expect("opened");
        assert_eq!(nft(chain).lines().count(), before + 2, "{}", nft(chain));
        assert_eq!(
            nft(input).lines().count(),
            input_before + 3,
            "{}",
            nft(input)
        );
        let replica = network.attach("x", SHOP).await.expect("attached");
        let other = Network::open(config(dir, "ii2")).await.expect("opened");
        let machine = other.attach("machine", SHOP).await.expect("attached");
        nft("delete table ip layby_ii2");
        let dropped = network.dropped_ports(&[8100]).await;
        assert_eq!(
            dropped,
            [(8100, "chain INPUT of table ip filter".to_owned())]
        );
        serve(&machine.netns);
        let asked = within(&replica.netns, move || ask(machine.address, DEADLINE));
        assert_eq!(asked.expect("answered"), machine.gateway.to_string());
        // Names and virtual addresses come in by INPUT.
        network.set_names(names(&network)).await.expect("named");
        let web = virtual_address(&network, 1);
        if has_dig() {
            for over in ["+notcp", "+tcp"] {
                let words = format!("{over} +short web");
                let said = dig(Some(&replica.netns), replica.gateway, &words);
                assert_eq!(said, Some(format!("{web}\n")), "{over}");
            }
        }
        let refused = within(&replica.netns, move || ask(web, DEADLINE));
        let error = refused.expect_err("nobody listens on the virtual port");
        assert_eq!(
            error.kind(),
            io::ErrorKind::ConnectionRefused,
            "but it came through"
        );
        network.close().await.expect("closed");
        other.close().await.expect("closed");
    });
    assert_eq!(nft(chain).lines().count(), before, "{}", nft(chain));
    assert_eq!(nft(input).lines().count(), input_before, "{}", nft(input));
    nft("delete table ip filter");
}

pub(crate) fn what_a_firewall_drops_is_told_by_its_rules(dir: &Path) {
    let nft = |script: &str| {
        let output = std::process::Command::new("nft").arg(script).output();
        let output = output.expect("nft runs");
        assert!(output.status.success(), "{script}: {output:?}");
    };
    block_on(async {
        let network = Network::open(config(dir, "tt1")).await.expect("opened");
        let dropped = async |ports: &[u16]| -> Vec<u16> {
            let dropped = network.dropped_ports(ports).await.into_iter();
            dropped.map(|(port, _)| port).collect()
        };
        let ports = [22, 8100, 8200, 8300, 9000];
        assert_eq!(
            dropped(&ports).await,
            [] as [u16; 0],
            "there is no firewall"
        );
        // As Debian's examples have it, with a chain of the administrator's own.
        nft("table inet filter {
            chain own { tcp dport 8300 accept; }
            chain input {
                type filter hook input priority filter; policy drop;
                iif lo accept
                ct state established,related accept
                ct state invalid drop
                ip protocol icmp accept
                tcp dport { 22, 8100-8199 } ct state new accept
                udp dport 9000 accept
                counter jump own
            }
        }");
        assert_eq!(dropped(&ports).await, [8200, 9000]);
        // By a last rule instead of a policy.
        nft("add chain inet filter input { policy accept; }");
        assert_eq!(dropped(&ports).await, [] as [u16; 0]);
        nft("add rule inet filter input counter reject with icmpx type admin-prohibited");
        assert_eq!(dropped(&ports).await, [8200, 9000]);
        // One address may be let in: whether that is whoever asks cannot be told.
        nft("insert rule inet filter input ip saddr 192.0.2.1 tcp dport 8200 accept");
        assert_eq!(dropped(&ports).await, [9000]);
        network.close().await.expect("closed");
    });
    nft("delete table inet filter");
}

pub(crate) fn a_fence_that_somebody_removed_is_put_up_again(dir: &Path) {
    let nft = |script: &str| {
        let output = std::process::Command::new("nft").arg(script).output();
        let output = output.expect("nft runs");
        assert!(output.status.success(), "{script}: {output:?}");
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    block_on(async {
        let network = Network::open(config(dir, "ss1")).await.expect("opened");
        network.attach("shop", SHOP).await.expect("attached");
        network.set_names(names(&network)).await.expect("named");
        let before = nft("list table ip layby_ss1");
        nft("flush ruleset");
        wait_for("the fence", || tables().contains("layby_ss1"));
        assert_eq!(nft("list table ip layby_ss1"), before);
        // A firewall that is started after the node closes what it was not there to have opened.
        nft(
            "table ip filter { chain FORWARD { type filter hook forward priority 0; policy drop; }; }",
        );
        wait_for("an open chain", || {
            nft("list chain ip filter FORWARD").contains("layby_ss1")
        });
        network.close().await.expect("closed");
        nft("delete table ip filter");
        tokio::time::sleep(Duration::from_secs(1)).await; // longer than a watch would take
        assert!(!tables().contains("layby_ss1"), "it came back");
    });
}

pub(crate) fn two_apps_do_not_reach_each_other_and_builds_reach_nobody(dir: &Path) {
    block_on(async {
        let network = Network::open(config(dir, "jj1")).await.expect("opened");
        let shop = network.attach("shop", SHOP).await.expect("attached");
        let blog = network.attach("blog", BLOG).await.expect("attached");
        let build = network.attach("build-1", None).await.expect("attached");
        let other = network.attach("build-2", None).await.expect("attached");
        assert_ne!(shop.gateway, blog.gateway);
        for attached in [&shop, &blog, &build, &other] {
            serve(&attached.netns);
            ask(attached.address, DEADLINE).expect("the machine reaches it");
        }
        for from in [&blog, &build] {
            let asked = within(&from.netns, move || ask(shop.address, REFUSED_AFTER));
            assert!(asked.is_err(), "{from:?} reached {shop:?}");
        }
        let asked = within(&other.netns, move || ask(build.address, REFUSED_AFTER));
        assert!(asked.is_err(), "a build reached another");
        network.close().await.expect("closed");
    });
}

pub(crate) fn a_replica_does_not_pass_for_one_of_another_app(dir: &Path) {
    block_on(async {
        let network = Network::open(config(dir, "kk1")).await.expect("opened");
        network.set_names(names(&network)).await.expect("named");
        let shop = network.attach("shop", SHOP).await.expect("attached");
        let blog = network.attach("blog", BLOG).await.expect("attached");
        let machine = std::net::UdpSocket::bind(("0.0.0.0", 9000)).expect("bound");
        machine.set_read_timeout(Some(DEADLINE)).expect("set");
        let send = move |from: Ipv4Addr, to: Ipv4Addr| {
            let socket = std::net::UdpSocket::bind((from, 0)).expect("bound");
            socket.send_to(b"x", (to, 9000)).expect("sent");
        };
        let to = blog.gateway;
        within(&blog.netns, move || send(blog.address, to));
        machine
            .recv_from(&mut [0])
            .expect("its own address is taken");
        // It gives itself the other's address, which nothing in its namespace keeps it from.
        let status = within(&blog.netns, move || {
            std::process::Command::new("ip")
                .args([
                    "address",
                    "add",
                    &format!("{}/32", shop.address),
                    "dev",
                    "eth0",
                ])
                .status()
        });
        assert!(status.expect("ip runs").success());
        within(&blog.netns, move || send(shop.address, to));
        machine.set_read_timeout(Some(REFUSED_AFTER)).expect("set");
        assert!(
            machine.recv_from(&mut [0]).is_err(),
            "it passed for another"
        );
        network.close().await.expect("closed");
    });
}

pub(crate) fn what_begins_on_the_machine_is_answered_whichever_port_it_has(dir: &Path) {
    block_on(async {
        let network = Network::open(config(dir, "uu1")).await.expect("opened");
        let shop = network.attach("shop", SHOP).await.expect("attached");
        serve(&shop.netns);
        let here = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("bound");
        let local = here.local_addr().expect("it has one");
        // The node ends and its fence stands: the ports that were its own are anybody's.
        drop(network);
        let there = SocketAddr::new(IpAddr::V4(shop.address), PORT);
        for port in [dns_port(dir, "uu1"), VIRTUAL_PORT] {
            for (from, to) in [(Ipv4Addr::LOCALHOST, local), (shop.gateway, there)] {
                let from = SocketAddr::new(IpAddr::V4(from), port);
                wait_for("a port that is given back", || {
                    TcpListener::bind(from).is_ok()
                });
                let socket = tokio::net::TcpSocket::new_v4().expect("a socket");
                socket.set_reuseaddr(true).expect("set");
                socket.bind(from).expect("bound");
                let connected = tokio::time::timeout(REFUSED_AFTER, socket.connect(to)).await;
                connected.expect("it is answered").expect("connected");
            }
        }
        // And a program that has got one is asked from this machine.
        let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, dns_port(dir, "uu1")));
        let taken = taken.expect("bound");
        let addr = taken.local_addr().expect("it has one");
        TcpStream::connect_timeout(&addr, REFUSED_AFTER).expect("connected");
        let network = Network::open(config(dir, "uu1")).await.expect("opened");
        network.close().await.expect("closed");
    });
}

pub(crate) fn a_virtual_address_leads_to_the_redirect_for_its_app_alone(dir: &Path) {
    block_on(async {
        let network = Network::open(config(dir, "ll1")).await.expect("opened");
        let shop = network.attach("shop", SHOP).await.expect("attached");
        network.set_names(names(&network)).await.expect("named");
        let blog = network.attach("blog", BLOG).await.expect("attached");
        let build = network.attach("build", None).await.expect("attached");
        let redirected = listen_for_redirected();
        let knock = |from: &Path, to: Ipv4Addr, port: u16| {
            within(from, move || {
                let to = SocketAddr::new(IpAddr::V4(to), port);
                TcpStream::connect_timeout(&to, REFUSED_AFTER).map(drop)
            })
        };
        let [of_shop, of_blog] = [1, 2].map(|n| virtual_address(&network, n));
        for port in [80, 8000, 65535] {
            knock(&shop.netns, of_shop, port).expect("its own");
            assert_eq!(redirected.recv_timeout(DEADLINE), Ok(of_shop));
        }
        knock(&blog.netns, of_blog, 80).expect("its own");
        assert_eq!(redirected.recv_timeout(DEADLINE), Ok(of_blog));
        for (from, to) in [
            (&shop.netns, of_blog),
            (&blog.netns, of_shop),
            (&build.netns, of_shop),
            (&shop.netns, virtual_address(&network, 9)),
        ] {
            knock(from, to, 80).expect_err("it is not its own");
        }
        // What is no TCP is refused at once.
        let refused = within(&shop.netns, move || {
            let socket = std::net::UdpSocket::bind(("0.0.0.0", 0)).expect("bound");
            socket.set_read_timeout(Some(DEADLINE)).expect("set");
            socket.connect((of_shop, 80)).expect("connected");
            socket.send(b"x").expect("sent");
            socket.recv(&mut [0])
        });
        let error = refused.expect_err("nobody answers");
        assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
        // The listener itself is for nobody who was not sent there.
        knock(&shop.netns, shop.gateway, VIRTUAL_PORT).expect_err("it was not redirected");
        let own = SocketAddr::new(IpAddr::V4(of_shop), 80);
        TcpStream::connect_timeout(&own, REFUSED_AFTER).expect_err("the machine has no app");
        network.set_names(AppNames::new()).await.expect("named");
        knock(&shop.netns, of_shop, 80).expect_err("it has no name any more");
        network.close().await.expect("closed");
    });
}

pub(crate) fn a_datagram_to_a_virtual_address_comes_to_no_socket_of_all_addresses(dir: &Path) {
    block_on(async {
        let network = Network::open(config(dir, "vv1")).await.expect("opened");
        let back = network.attach("back", Some("shop/!back")).await;
        let back = back.expect("attached");
        let address = virtual_address(&network, 1);
        let names = BTreeMap::from([("db".to_owned(), vec![address])]);
        let gaps = BTreeSet::from([(address, 9111)]);
        network.set_datagrams(gaps).await;
        let names = AppNames::from([("shop/!back".to_owned(), names)]);
        network.set_names(names).await.expect("named");
        let table = std::process::Command::new("nft")
            .args(["list", "chain", "ip", "layby_vv1", "input"])
            .output();
        let table = String::from_utf8(table.expect("nft runs").stdout).expect("text");
        let tells = table.contains("@datagrams socket wildcard 0 accept");
        // A program of the machine has the port, so that the gateway cannot open it; then the gateway has.
        for (bound, is_own) in [(Ipv4Addr::UNSPECIFIED, false), (address, true)] {
            let socket = std::net::UdpSocket::bind((bound, 9111)).expect("bound");
            socket.set_read_timeout(Some(REFUSED_AFTER)).expect("set");
            within(&back.netns, move || {
                let socket = std::net::UdpSocket::bind(("0.0.0.0", 0)).expect("bound");
                socket.send_to(b"x", (address, 9111)).expect("sent");
            });
            let came = socket.recv_from(&mut [0]).is_ok();
            assert_eq!(came, is_own || !tells, "to {bound}; {table}");
        }
        if !tells {
            println!("SKIPPED: this kernel has no `socket wildcard` for nft");
        }
        network.close().await.expect("closed");
    });
}

/// Listens on the virtual port, as the gateway does, and says where each connection was going.
fn listen_for_redirected() -> std::sync::mpsc::Receiver<Ipv4Addr> {
    use nix::sys::socket::{getsockopt, sockopt::OriginalDst};
    let listener = TcpListener::bind(("0.0.0.0", VIRTUAL_PORT)).expect("bound");
    let (send, receive) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        for connection in listener.incoming().flatten() {
            let to = getsockopt(&connection, OriginalDst).expect("it was redirected");
            if send
                .send(Ipv4Addr::from(u32::from_be(to.sin_addr.s_addr)))
                .is_err()
            {
                return;
            }
        }
    });
    receive
}

pub(crate) fn who_shares_no_network_is_not_reached_and_an_internal_one_reaches_nothing_outside(
    dir: &Path,
) {
    block_on(async {
        let network = Network::open(config(dir, "tt1")).await.expect("opened");
        let front = network.attach("front", Some("shop/front")).await;
        let back = network.attach("back", Some("shop/!back")).await;
        let (front, back) = (front.expect("attached"), back.expect("attached"));
        // Another machine, as a replica of a node whose fence is down.
        let other = Network::open(config(dir, "tt2")).await.expect("opened");
        let machine = other.attach("machine", SHOP).await.expect("attached");
        let lowered = std::process::Command::new("nft")
            .args(["delete", "table", "ip", "layby_tt2"])
            .status();
        assert!(lowered.expect("nft runs").success());
        for netns in [&front.netns, &back.netns, &machine.netns] {
            serve(netns);
        }
        let asks = |from: &layby_net::Attachment, to: Ipv4Addr| {
            within(&from.netns, move || ask(to, REFUSED_AFTER)).is_ok()
        };
        assert!(asks(&front, machine.address) && !asks(&back, machine.address));
        assert!(!asks(&front, back.address) && !asks(&back, front.address));
        assert!(
            ask(back.address, DEADLINE).is_ok(),
            "the machine reaches it"
        );
        let address = virtual_address(&network, 1);
        let names = BTreeMap::from([("db".to_owned(), vec![address])]);
        let names = AppNames::from([("shop/!back".to_owned(), names)]);
        network.set_names(names).await.expect("named");
        if has_dig() {
            let dig = |from: &layby_net::Attachment, words: &str| {
                dig(Some(&from.netns), from.gateway, words).expect("answered")
            };
            assert_eq!(dig(&back, "+short db"), format!("{address}\n"));
            assert!(dig(&front, "db").contains("status: NXDOMAIN"));
            for name in ["example.org", "host.docker.internal"] {
                assert!(dig(&back, name).contains("status: NXDOMAIN"), "{name}");
            }
        }
        // Whatever listens on the machine would lead on: from the internal network only virtual addresses are come to.
        let _listener = TcpListener::bind(("0.0.0.0", 9100)).expect("bound");
        let knock = |from: &layby_net::Attachment, to: Ipv4Addr, port: u16| {
            let connected = within(&from.netns, move || {
                let to = SocketAddr::new(IpAddr::V4(to), port);
                TcpStream::connect_timeout(&to, REFUSED_AFTER)
            });
            connected.err().map(|error| error.kind())
        };
        assert_eq!(knock(&front, front.gateway, 9100), None);
        for machine in [back.gateway, front.gateway] {
            let error = knock(&back, machine, 9100);
            assert_eq!(error, Some(io::ErrorKind::TimedOut), "a way out: {machine}");
        }
        let error = knock(&back, address, 5432);
        assert_eq!(
            error,
            Some(io::ErrorKind::ConnectionRefused),
            "it came through, and nobody listens on the virtual port"
        );
        network.close().await.expect("closed");
        other.close().await.expect("closed");
    });
}
