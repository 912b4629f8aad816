//! The name server, asked with `dig`.

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, TcpListener};
use std::path::Path;

use layby_net::{AppNames, Attachment, NameServers, Network};

use crate::kit::*;

pub(crate) fn names_are_answered_to_their_app_over_udp_and_tcp(dir: &Path) {
    if !has_dig() {
        return;
    }
    block_on(async {
        let network = Network::open(config(dir, "pp1")).await.expect("opened");
        network.set_names(names(&network)).await.expect("named");
        let shop = network.attach("shop", SHOP).await.expect("attached");
        let blog = network.attach("blog", BLOG).await.expect("attached");
        let dig = |from: &layby_net::Attachment, words: &str| {
            dig(Some(&from.netns), from.gateway, words).expect("answered")
        };
        for over in ["+notcp", "+tcp"] {
            for (from, n) in [(&shop, 1), (&blog, 2)] {
                let address = format!("{}\n", virtual_address(&network, n));
                assert_eq!(dig(from, &format!("{over} +short web")), address);
            }
            let address = format!("{}\n", virtual_address(&network, 1));
            assert_eq!(dig(&shop, &format!("{over} +short WEB.shop.")), address);
            let other = dig(&shop, &format!("{over} web.blog"));
            assert!(other.contains("status: NXDOMAIN"), "{other}");
            let empty = dig(&shop, &format!("{over} web AAAA"));
            assert!(
                empty.contains("status: NOERROR") && empty.contains("ANSWER: 0"),
                "{empty}"
            );
        }
        assert_eq!(
            dig(&blog, "+short host.docker.internal"),
            format!("{}\n", blog.gateway)
        );
        let reverse = format!("+short -x {}", virtual_address(&network, 1));
        assert_eq!(dig(&shop, &reverse), "web.shop.\n");
        network.set_names(AppNames::new()).await.expect("named");
        assert!(dig(&shop, "web").contains("status: NXDOMAIN"));
        network.close().await.expect("closed");
    });
}

pub(crate) fn the_name_server_is_open_to_nobody_outside_of_the_bridges(dir: &Path) {
    if !has_dig() {
        return;
    }
    block_on(async {
        let network = Network::open(config(dir, "qq1")).await.expect("opened");
        network.set_names(names(&network)).await.expect("named");
        let shop = network.attach("shop", SHOP).await.expect("attached");
        let blog = network.attach("blog", BLOG).await.expect("attached");
        let direct = format!("-p {} web", dns_port(dir, "qq1"));
        for over in ["+notcp", "+tcp"] {
            let ask = |from: Option<&Path>, server: Ipv4Addr, words: &str| {
                dig(from, server, &format!("{over} {words}"))
            };
            assert!(ask(Some(&shop.netns), shop.gateway, "web").is_some());
            // Another app's bridge; the port itself; the machine; and by any other of its addresses.
            assert_eq!(ask(Some(&shop.netns), blog.gateway, "web"), None);
            assert_eq!(ask(Some(&shop.netns), shop.gateway, &direct), None);
            assert_eq!(ask(None, shop.gateway, "web"), None);
            assert_eq!(ask(None, shop.gateway, &direct), None);
            assert_eq!(ask(None, Ipv4Addr::LOCALHOST, &direct), None);
        }
        network.close().await.expect("closed");
    });
}

pub(crate) fn what_the_node_does_not_know_is_asked_of_the_machines_resolver(dir: &Path) {
    if !has_dig() {
        return;
    }
    // It truncates over UDP and answers in full over TCP, each time with what it was asked.
    let udp = std::net::UdpSocket::bind((RESOLVER, 53)).expect("bound");
    let tcp = TcpListener::bind((RESOLVER, 53)).expect("bound");
    std::thread::spawn(move || {
        let mut question = [0; 512];
        while let Ok((len, peer)) = udp.recv_from(&mut question) {
            let answer = answer(&question[..len], true);
            udp.send_to(&answer, peer).expect("sent");
        }
    });
    std::thread::spawn(move || {
        for connection in tcp.incoming() {
            let mut connection = connection.expect("a connection");
            let mut len = [0; 2];
            connection.read_exact(&mut len).expect("a length");
            let mut question = vec![0; usize::from(u16::from_be_bytes(len))];
            connection.read_exact(&mut question).expect("a question");
            let answer = answer(&question, false);
            let len = u16::try_from(answer.len()).expect("short").to_be_bytes();
            connection
                .write_all(&[&len, answer.as_slice()].concat())
                .expect("written");
        }
    });
    block_on(async {
        let network = Network::open(config(dir, "rr1")).await.expect("opened");
        network.set_names(names(&network)).await.expect("named");
        let shop = network.attach("shop", SHOP).await.expect("attached");
        let build = network.attach("build", None).await.expect("attached");
        for from in [&shop, &build] {
            for words in ["+noedns +notcp +ignore", "+noedns +tcp"] {
                let words = format!("{words} +short example.org");
                let said = dig(Some(&from.netns), from.gateway, &words);
                assert_eq!(said.as_deref(), Some("192.0.2.7\n"), "{words}");
            }
        }
        own_servers(&network, &shop).await;
        network.close().await.expect("closed");
    });
}

/// One in `shop` asks a name server of its own, and goes on to find what the node knows.
async fn own_servers(network: &Network, other: &Attachment) {
    let own = network.attach("own", SHOP).await.expect("attached");
    let serve = |at: &'static str| {
        let bound = move || std::net::UdpSocket::bind((at, 53)).expect("bound");
        let udp = within(&own.netns, bound);
        std::thread::spawn(move || {
            let mut question = [0; 512];
            while let Ok((len, peer)) = udp.recv_from(&mut question) {
                let mut answer = answer(&question[..len], false);
                *answer.last_mut().expect("an address") = 9;
                udp.send_to(&answer, peer).expect("sent");
            }
        });
    };
    // Only the container itself reaches it.
    serve("127.0.0.1");
    let ask = |from: &Attachment, name: &str| {
        let words = format!("+noedns +notcp +ignore +short {name}");
        dig(Some(&from.netns), from.gateway, &words).expect("answered")
    };
    let set = |addresses: &[IpAddr], after_machines: bool| {
        let servers = NameServers {
            addresses: addresses.to_vec(),
            after_machines,
        };
        network.set_name_servers("own", servers);
    };
    let mine = IpAddr::from([127, 0, 0, 1]);
    set(&[own.gateway.into(), mine], false);
    assert_eq!(ask(&own, "example.org"), "192.0.2.9\n");
    assert_eq!(ask(other, "example.org"), "192.0.2.7\n");
    let web = format!("{}\n", virtual_address(network, 1));
    assert_eq!((ask(&own, "web"), ask(other, "web")), (web.clone(), web));
    set(&[mine], true);
    assert_eq!(ask(&own, "example.org"), "192.0.2.7\n");
    // A question to the node itself would come back.
    set(&[own.gateway.into()], false);
    let said = dig(Some(&own.netns), own.gateway, "+notcp example.org").expect("answered");
    assert!(said.contains("status: SERVFAIL"), "{said}");
    network.detach("own").await.expect("detached");
}

/// The answer `192.0.2.7` to a question without options, or a truncated one.
fn answer(question: &[u8], truncated: bool) -> Vec<u8> {
    let mut answer = question.to_vec();
    answer[2] |= 0x80;
    answer[3] = 0x80;
    if truncated {
        answer[2] |= 0x02;
    } else {
        answer[7] = 1;
        answer.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 9, 0, 4, 192, 0, 2, 7]);
    }
    answer
}
