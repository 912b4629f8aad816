//! The network as the kernel sees it. Needs root.
//!
//! It has a main of its own, because it moves into a network and mount namespace of its own before any
//! thread exists: all threads of the tests are then in there, and all that they make vanishes with the process.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use layby_net::{AppNames, Network, NetworkConfig};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, setns, unshare};

const PORT: u16 = 8000;
/// Where connections to virtual addresses are sent; nobody else listens in the tests' own namespace.
const VIRTUAL_PORT: u16 = 7777;
const DEADLINE: Duration = Duration::from_secs(20);
/// How long a connection that must not come about is waited for.
const REFUSED_AFTER: Duration = Duration::from_secs(1);

/// The resolver of the machine in these tests, which a test may have answer.
const RESOLVER: &str = "127.0.0.77";
const SHOP: Option<&str> = Some("shop");
const BLOG: Option<&str> = Some("blog");

/// A test: its name, and what it does in a folder of its own.
type Test = (&'static str, fn(&Path));

const TESTS: &[Test] = &[
    (
        "two_replicas_reach_each_other_and_the_machine_reaches_both",
        two_replicas_reach_each_other_and_the_machine_reaches_both,
    ),
    (
        "replicas_of_two_nodes_do_not_reach_each_other",
        replicas_of_two_nodes_do_not_reach_each_other,
    ),
    (
        "two_nodes_that_start_at_once_take_two_subnets",
        two_nodes_that_start_at_once_take_two_subnets,
    ),
    (
        "a_replica_reaches_another_machine_under_the_address_of_its_own",
        a_replica_reaches_another_machine_under_the_address_of_its_own,
    ),
    (
        "a_firewall_that_drops_by_default_is_opened_and_left_as_it_was",
        a_firewall_that_drops_by_default_is_opened_and_left_as_it_was,
    ),
    (
        "attaching_again_gives_the_same_also_after_a_restart",
        attaching_again_gives_the_same_also_after_a_restart,
    ),
    (
        "a_freed_address_is_not_given_out_at_once",
        a_freed_address_is_not_given_out_at_once,
    ),
    (
        "what_is_half_made_is_removed_at_the_next_start",
        what_is_half_made_is_removed_at_the_next_start,
    ),
    ("closing_leaves_nothing", closing_leaves_nothing),
    (
        "two_apps_do_not_reach_each_other_and_builds_reach_nobody",
        two_apps_do_not_reach_each_other_and_builds_reach_nobody,
    ),
    (
        "a_replica_does_not_pass_for_one_of_another_app",
        a_replica_does_not_pass_for_one_of_another_app,
    ),
    (
        "a_virtual_address_leads_to_the_redirect_for_its_app_alone",
        a_virtual_address_leads_to_the_redirect_for_its_app_alone,
    ),
    (
        "bridges_names_and_doors_outlive_a_restart",
        bridges_names_and_doors_outlive_a_restart,
    ),
    (
        "a_bridge_goes_with_the_last_replica_and_the_last_name",
        a_bridge_goes_with_the_last_replica_and_the_last_name,
    ),
    (
        "the_bridge_of_an_older_layout_is_cleared_away",
        the_bridge_of_an_older_layout_is_cleared_away,
    ),
    (
        "names_are_answered_to_their_app_over_udp_and_tcp",
        names_are_answered_to_their_app_over_udp_and_tcp,
    ),
    (
        "the_name_server_is_open_to_nobody_outside_of_the_bridges",
        the_name_server_is_open_to_nobody_outside_of_the_bridges,
    ),
    (
        "what_the_node_does_not_know_is_asked_of_the_machines_resolver",
        what_the_node_does_not_know_is_asked_of_the_machines_resolver,
    ),
];

fn main() -> ExitCode {
    if !nix::unistd::geteuid().is_root() {
        println!("SKIPPED: the network needs root");
        println!("test result: ok. 0 passed; 0 failed; 0 ignored");
        return ExitCode::SUCCESS;
    }
    if let Err(error) = move_out() {
        println!("SKIPPED: no namespaces of our own: {error}");
        println!("test result: ok. 0 passed; 0 failed; 0 ignored");
        return ExitCode::SUCCESS;
    }
    let only = std::env::args().skip(1).find(|arg| !arg.starts_with('-'));
    let mut failed = 0;
    let mut passed = 0;
    for (name, test) in TESTS {
        if only.as_ref().is_some_and(|only| !name.contains(only)) {
            continue;
        }
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().to_owned();
        let test = *test;
        // A panic is printed by the thread itself.
        if std::thread::spawn(move || test(&path)).join().is_ok() {
            passed += 1;
            println!("test {name} ... ok");
        } else {
            failed += 1;
            println!("test {name} ... FAILED");
        }
        unbind_all(&dir.path().join("run"));
    }
    let verdict = if failed == 0 { "ok" } else { "FAILED" };
    println!("test result: {verdict}. {passed} passed; {failed} failed; 0 ignored");
    if failed == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

/// Moves the process into namespaces of its own; no thread may exist yet.
fn move_out() -> nix::Result<()> {
    unshare(CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS)?;
    let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
    mount(None::<&str>, "/", None::<&str>, private, None::<&str>)?;
    // Nothing is known of the world in here but what the tests put there.
    let resolv = std::env::temp_dir().join(format!("layby-net-resolv-{}", std::process::id()));
    fs::write(&resolv, format!("nameserver {RESOLVER}\n")).map_err(|_| nix::errno::Errno::EIO)?;
    let bound = mount(
        Some(&resolv),
        "/etc/resolv.conf",
        None::<&str>,
        MsFlags::MS_BIND,
        None::<&str>,
    );
    fs::remove_file(&resolv).map_err(|_| nix::errno::Errno::EIO)?;
    bound
}

/// Unmounts what a failed test left, so that its folder can be removed.
fn unbind_all(run: &Path) {
    for node in fs::read_dir(run).into_iter().flatten().flatten() {
        let files = fs::read_dir(node.path().join("netns"));
        for file in files.into_iter().flatten().flatten() {
            // One that is no mount is fine.
            let _ = nix::mount::umount2(&file.path(), nix::mount::MntFlags::MNT_DETACH);
        }
    }
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a runtime")
        .block_on(future)
}

fn config(dir: &Path, node: &str) -> NetworkConfig {
    let data_dir = dir.join("data").join(node);
    fs::create_dir_all(&data_dir).expect("a folder");
    NetworkConfig {
        node: node.to_owned(),
        run_dir: dir.join("run").join(node),
        data_dir,
        virtual_port: VIRTUAL_PORT,
    }
}

/// Runs `act` in the namespace bound to `netns`.
fn within<T: Send + 'static>(netns: &Path, act: impl FnOnce() -> T + Send + 'static) -> T {
    let file = File::open(netns).expect("a namespace");
    let thread = std::thread::spawn(move || {
        setns(&file, CloneFlags::CLONE_NEWNET).expect("entered");
        act()
    });
    thread.join().expect("it ended well")
}

/// Answers every connection with the address of who connects.
fn serve(netns: &Path) {
    let listener = within(netns, || {
        TcpListener::bind(("0.0.0.0", PORT)).expect("bound")
    });
    std::thread::spawn(move || {
        for connection in listener.incoming() {
            let Ok(mut connection) = connection else {
                return;
            };
            let Ok(peer) = connection.peer_addr() else {
                continue;
            };
            // Who has gone need not be told.
            let _ = connection.write_all(peer.ip().to_string().as_bytes());
        }
    });
}

/// Asks the server at `address` who this is.
fn ask(address: Ipv4Addr, timeout: Duration) -> io::Result<String> {
    let address = SocketAddr::new(IpAddr::V4(address), PORT);
    let mut connection = TcpStream::connect_timeout(&address, timeout)?;
    connection.set_read_timeout(Some(timeout))?;
    let mut answer = String::new();
    connection.read_to_string(&mut answer)?;
    Ok(answer)
}

fn devices() -> BTreeSet<String> {
    // Of the namespace of the reading thread.
    let text = fs::read_to_string("/proc/thread-self/net/dev").expect("read");
    let lines = text.lines().skip(2);
    lines
        .filter_map(|line| Some(line.split_once(':')?.0.trim().to_owned()))
        .collect()
}

fn tables() -> String {
    let output = std::process::Command::new("nft")
        .args(["list", "tables"])
        .output()
        .expect("nft runs");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn two_replicas_reach_each_other_and_the_machine_reaches_both(dir: &Path) {
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

fn replicas_of_two_nodes_do_not_reach_each_other(dir: &Path) {
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

fn two_nodes_that_start_at_once_take_two_subnets(dir: &Path) {
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

fn a_replica_reaches_another_machine_under_the_address_of_its_own(dir: &Path) {
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

fn a_firewall_that_drops_by_default_is_opened_and_left_as_it_was(dir: &Path) {
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

fn attaching_again_gives_the_same_also_after_a_restart(dir: &Path) {
    block_on(async {
        let network = Network::open(config(dir, "ee1")).await.expect("opened");
        let first = network.attach("x", SHOP).await.expect("attached");
        assert_eq!(network.attach("x", SHOP).await.expect("attached"), first);
        drop(network);
        let network = Network::open(config(dir, "ee1")).await.expect("opened");
        assert_eq!(network.attach("x", SHOP).await.expect("attached"), first);
        let attached = network.attached();
        assert_eq!(attached, vec![("x".to_owned(), first.address)]);
        serve(&first.netns);
        ask(first.address, DEADLINE).expect("it is still plugged in");
        network.close().await.expect("closed");
    });
}

fn a_freed_address_is_not_given_out_at_once(dir: &Path) {
    block_on(async {
        let network = Network::open(config(dir, "ff1")).await.expect("opened");
        let first = network.attach("x", SHOP).await.expect("attached");
        network.detach("x").await.expect("detached");
        network.detach("x").await.expect("detached twice");
        assert!(!first.netns.exists());
        let second = network.attach("x", SHOP).await.expect("attached");
        assert_ne!(first.address, second.address);
        network.close().await.expect("closed");
    });
}

fn what_is_half_made_is_removed_at_the_next_start(dir: &Path) {
    block_on(async {
        let network = Network::open(config(dir, "gg1")).await.expect("opened");
        let kept = network.attach("kept", SHOP).await.expect("attached");
        let half = network.attach("half", SHOP).await.expect("attached");
        let before = devices();
        drop(network);
        // Its namespace is gone, as after a kill between the steps of a detach.
        nix::mount::umount2(&half.netns, nix::mount::MntFlags::MNT_DETACH).expect("unmounted");
        let network = Network::open(config(dir, "gg1")).await.expect("opened");
        let attached = network.attached();
        assert_eq!(attached, vec![("kept".to_owned(), kept.address)]);
        assert!(!half.netns.exists());
        assert_eq!(devices().len(), before.len() - 1);
        network.close().await.expect("closed");
    });
}

fn closing_leaves_nothing(dir: &Path) {
    block_on(async {
        let before = devices();
        let config = config(dir, "hh1");
        let network = Network::open(config.clone()).await.expect("opened");
        let netns: Vec<PathBuf> =
            futures_util::future::join_all(["a", "b", "c", "d"].map(|id| network.attach(id, SHOP)))
                .await
                .into_iter()
                .map(|attachment| attachment.expect("attached").netns)
                .collect();
        assert!(tables().contains("layby_hh1"));
        network.close().await.expect("closed");
        network.close().await.expect("closed twice");
        assert_eq!(devices(), before);
        assert!(!tables().contains("layby_hh1"));
        assert!(netns.iter().all(|path| !path.exists()));
        assert!(!dir.join("run/subnets/hh1").exists());
        assert!(!config.data_dir.join("network.json").exists());
    });
}

/// The n-th virtual address of a network.
fn virtual_address(network: &Network, n: u32) -> Ipv4Addr {
    Ipv4Addr::from(u32::from(network.virtual_range().0) + n)
}

/// The names of the two apps: `web` is the first virtual address in one and the second in the other.
fn names(network: &Network) -> AppNames {
    let app = |name: &str, n: u32| {
        let address = vec![virtual_address(network, n)];
        BTreeMap::from([
            ("web".to_owned(), address.clone()),
            (format!("web.{name}"), address),
        ])
    };
    ["shop", "blog"]
        .into_iter()
        .zip(1..)
        .map(|(name, n)| (name.to_owned(), app(name, n)))
        .collect()
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

/// Asks with `dig`, and gives what it printed; `None`: nobody answered.
fn dig(netns: Option<&Path>, server: Ipv4Addr, words: &str) -> Option<String> {
    let run = {
        let words: Vec<String> = words.split(' ').map(str::to_owned).collect();
        move || {
            std::process::Command::new("dig")
                .args(["+tries=1", "+time=1", &format!("@{server}")])
                .args(words)
                .output()
                .expect("dig runs")
        }
    };
    let output = match netns {
        Some(netns) => within(netns, run),
        None => run(),
    };
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    output.status.success().then_some(said)
}

fn has_dig() -> bool {
    let found = std::process::Command::new("dig").arg("-v").output().is_ok();
    assert!(found || std::env::var_os("CI").is_none(), "dig is missing");
    if !found {
        println!("SKIPPED: dig is not there (Debian's bind9-dnsutils)");
    }
    found
}

fn two_apps_do_not_reach_each_other_and_builds_reach_nobody(dir: &Path) {
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

fn a_replica_does_not_pass_for_one_of_another_app(dir: &Path) {
    block_on(async {
        let network = Network::open(config(dir, "kk1")).await.expect("opened");
        network.set_names(names(&network)).await.expect("named");
        let shop = network.attach("shop", SHOP).await.expect("attached");
        let blog = network.attach("blog", BLOG).await.expect("attached");
        let machine = std::net::UdpSocket::bind(("0.0.0.0", 9000)).expect("bound");
        machine.set_read_timeout(Some(REFUSED_AFTER)).expect("set");
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
        assert!(
            machine.recv_from(&mut [0]).is_err(),
            "it passed for another"
        );
        network.close().await.expect("closed");
    });
}

fn a_virtual_address_leads_to_the_redirect_for_its_app_alone(dir: &Path) {
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
        // The listener itself is for nobody who was not sent there.
        knock(&shop.netns, shop.gateway, VIRTUAL_PORT).expect_err("it was not redirected");
        let own = SocketAddr::new(IpAddr::V4(of_shop), 80);
        TcpStream::connect_timeout(&own, REFUSED_AFTER).expect_err("the machine has no app");
        network.set_names(AppNames::new()).await.expect("named");
        knock(&shop.netns, of_shop, 80).expect_err("it has no name any more");
        network.close().await.expect("closed");
    });
}

fn bridges_names_and_doors_outlive_a_restart(dir: &Path) {
    block_on(async {
        let network = Network::open(config(dir, "mm1")).await.expect("opened");
        network.set_names(names(&network)).await.expect("named");
        let shop = network.attach("a", SHOP).await.expect("attached");
        let blog = network.attach("b", BLOG).await.expect("attached");
        let range = network.virtual_range();
        let listed = || {
            let output = std::process::Command::new("nft")
                .args(["list", "table", "ip", "layby_mm1"])
                .output()
                .expect("nft runs");
            String::from_utf8_lossy(&output.stdout).into_owned()
        };
        let before = listed();
        drop(network);
        let network = Network::open(config(dir, "mm1")).await.expect("opened");
        assert_eq!(listed(), before, "the doors and all else are as they were");
        assert_eq!(network.virtual_range(), range);
        assert_eq!(network.attach("a", SHOP).await.expect("attached"), shop);
        let again = network.attach("c", BLOG).await.expect("attached");
        assert_eq!(
            again.gateway, blog.gateway,
            "the bridge is known by its app"
        );
        assert_eq!(
            listed(),
            before,
            "who comes before the names closes no door"
        );
        network.close().await.expect("closed");
    });
}

fn a_bridge_goes_with_the_last_replica_and_the_last_name(dir: &Path) {
    block_on(async {
        let network = Network::open(config(dir, "nn1")).await.expect("opened");
        let bridges = || {
            devices()
                .iter()
                .filter(|d| d.starts_with("lybnn1-"))
                .count()
        };
        network.set_names(names(&network)).await.expect("named");
        assert_eq!(bridges(), 0, "a name needs none");
        network.attach("a", SHOP).await.expect("attached");
        network.attach("b", None).await.expect("attached");
        assert_eq!(bridges(), 2);
        network.detach("a").await.expect("detached");
        network.detach("b").await.expect("detached");
        assert_eq!(bridges(), 1, "the app has names");
        network.set_names(AppNames::new()).await.expect("named");
        assert_eq!(bridges(), 0);
        network.close().await.expect("closed");
    });
}

fn the_bridge_of_an_older_layout_is_cleared_away(dir: &Path) {
    for words in [
        "link add lyb-oo1 type bridge",
        "link add lyvold type veth peer name old",
        "link set lyvold master lyb-oo1",
        "address add 10.7.0.1/20 dev lyb-oo1",
    ] {
        let status = std::process::Command::new("ip")
            .args(words.split(' '))
            .status();
        assert!(status.expect("ip runs").success(), "ip {words}");
    }
    block_on(async {
        let config = config(dir, "oo1");
        let memory = config.data_dir.join("network.json");
        fs::write(memory, r#"{"subnet": "10.7.0.0/20"}"#).expect("written");
        let network = Network::open(config).await.expect("opened");
        let left = devices();
        assert!(
            !left.contains("lyb-oo1") && !left.contains("lyvold"),
            "{left:?}"
        );
        network.close().await.expect("closed");
    });
}

fn names_are_answered_to_their_app_over_udp_and_tcp(dir: &Path) {
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

fn the_name_server_is_open_to_nobody_outside_of_the_bridges(dir: &Path) {
    if !has_dig() {
        return;
    }
    block_on(async {
        let network = Network::open(config(dir, "qq1")).await.expect("opened");
        network.set_names(names(&network)).await.expect("named");
        let shop = network.attach("shop", SHOP).await.expect("attached");
        let blog = network.attach("blog", BLOG).await.expect("attached");
        let memory = fs::read_to_string(dir.join("data/qq1/network.json")).expect("read");
        let memory: serde_json::Value = serde_json::from_str(&memory).expect("JSON");
        let port = memory["dns_port"].as_u64().expect("a port");
        let direct = format!("-p {port} web");
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

fn what_the_node_does_not_know_is_asked_of_the_machines_resolver(dir: &Path) {
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
        network.close().await.expect("closed");
    });
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
