//! The network as the kernel sees it. Needs root.
//!
//! It has a main of its own, because it moves into a network and mount namespace of its own before any
//! thread exists: all threads of the tests are then in there, and all that they make vanishes with the process.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use layby_net::{Network, NetworkConfig};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, setns, unshare};

const PORT: u16 = 8000;
const DEADLINE: Duration = Duration::from_secs(20);
/// How long a connection that must not come about is waited for.
const REFUSED_AFTER: Duration = Duration::from_secs(1);

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
    mount(None::<&str>, "/", None::<&str>, private, None::<&str>)
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
        let one = network.attach("one").await.expect("attached");
        let two = network.attach("two").await.expect("attached");
        assert_ne!(one.address, two.address);
        assert_eq!(one.gateway, network.gateway());
        serve(&one.netns);
        let asked = within(&two.netns, move || ask(one.address, DEADLINE));
        assert_eq!(asked.expect("answered"), two.address.to_string());
        let asked = ask(one.address, DEADLINE).expect("answered");
        assert_eq!(asked, network.gateway().to_string());
        let itself = within(&one.netns, || ask(Ipv4Addr::LOCALHOST, DEADLINE));
        assert_eq!(itself.expect("loopback is up"), "127.0.0.1");
        network.close().await.expect("closed");
    });
}

fn replicas_of_two_nodes_do_not_reach_each_other(dir: &Path) {
    block_on(async {
        let one = Network::open(config(dir, "bb1")).await.expect("opened");
        let two = Network::open(config(dir, "bb2")).await.expect("opened");
        let (a, b) = (one.attach("x").await, two.attach("x").await);
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
        let gateways: BTreeSet<Ipv4Addr> = networks.iter().map(Network::gateway).collect();
        assert_eq!(gateways.len(), names.len(), "{gateways:?}");
        for network in networks {
            network.close().await.expect("closed");
        }
    });
}

fn a_replica_reaches_another_machine_under_the_address_of_its_own(dir: &Path) {
    block_on(async {
        let network = Network::open(config(dir, "dd1")).await.expect("opened");
        let replica = network.attach("x").await.expect("attached");
        // The other machine is a replica of another node, whose fence is taken down and whose bridge is the wire.
        let other = Network::open(config(dir, "dd2")).await.expect("opened");
        let machine = other.attach("machine").await.expect("attached");
        let lowered = std::process::Command::new("nft")
            .args(["delete", "table", "ip", "layby_dd2"])
            .status();
        assert!(lowered.expect("nft runs").success());
        serve(&machine.netns);
        let asked = within(&replica.netns, move || ask(machine.address, DEADLINE));
        assert_eq!(asked.expect("answered"), other.gateway().to_string());
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
    let chain = "list chain ip filter FORWARD";
    let before = nft(chain).lines().count();
    block_on(async {
        let network = Network::open(config(dir, "ii1")).await.expect("opened");
        drop(network);
        let network = Network::open(config(dir, "ii1")).await.expect("opened");
        assert_eq!(nft(chain).lines().count(), before + 2, "{}", nft(chain));
        let replica = network.attach("x").await.expect("attached");
        let other = Network::open(config(dir, "ii2")).await.expect("opened");
        let machine = other.attach("machine").await.expect("attached");
        nft("delete table ip layby_ii2");
        serve(&machine.netns);
        let asked = within(&replica.netns, move || ask(machine.address, DEADLINE));
        assert_eq!(asked.expect("answered"), other.gateway().to_string());
        network.close().await.expect("closed");
        other.close().await.expect("closed");
    });
    assert_eq!(nft(chain).lines().count(), before, "{}", nft(chain));
    nft("delete table ip filter");
}

fn attaching_again_gives_the_same_also_after_a_restart(dir: &Path) {
    block_on(async {
        let network = Network::open(config(dir, "ee1")).await.expect("opened");
        let first = network.attach("x").await.expect("attached");
        assert_eq!(network.attach("x").await.expect("attached"), first);
        drop(network);
        let network = Network::open(config(dir, "ee1")).await.expect("opened");
        assert_eq!(network.attach("x").await.expect("attached"), first);
        let attached = network.attached().expect("known");
        assert_eq!(attached, vec![("x".to_owned(), first.address)]);
        serve(&first.netns);
        ask(first.address, DEADLINE).expect("it is still plugged in");
        network.close().await.expect("closed");
    });
}

fn a_freed_address_is_not_given_out_at_once(dir: &Path) {
    block_on(async {
        let network = Network::open(config(dir, "ff1")).await.expect("opened");
        let first = network.attach("x").await.expect("attached");
        network.detach("x").await.expect("detached");
        network.detach("x").await.expect("detached twice");
        assert!(!first.netns.exists());
        let second = network.attach("x").await.expect("attached");
        assert_ne!(first.address, second.address);
        network.close().await.expect("closed");
    });
}

fn what_is_half_made_is_removed_at_the_next_start(dir: &Path) {
    block_on(async {
        let network = Network::open(config(dir, "gg1")).await.expect("opened");
        let kept = network.attach("kept").await.expect("attached");
        let half = network.attach("half").await.expect("attached");
        let before = devices();
        drop(network);
        // Its namespace is gone, as after a kill between the steps of a detach.
        nix::mount::umount2(&half.netns, nix::mount::MntFlags::MNT_DETACH).expect("unmounted");
        let network = Network::open(config(dir, "gg1")).await.expect("opened");
        let attached = network.attached().expect("known");
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
            futures_util::future::join_all(["a", "b", "c", "d"].map(|id| network.attach(id)))
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
