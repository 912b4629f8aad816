//! What the tests share: a network to open, who serves and asks in it, and what the kernel says of it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::time::Duration;

use layby_net::{AppNames, Network, NetworkConfig};
use nix::sched::{CloneFlags, setns};

pub(crate) const PORT: u16 = 8000;

/// Where connections to virtual addresses are sent; nobody else listens in the tests' own namespace.
pub(crate) const VIRTUAL_PORT: u16 = 7777;

pub(crate) const DEADLINE: Duration = Duration::from_secs(20);

/// How long a connection that must not come about is waited for.
pub(crate) const REFUSED_AFTER: Duration = Duration::from_secs(1);

/// The resolver of the machine in these tests, which a test may have answer.
pub(crate) const RESOLVER: &str = "127.0.0.77";

pub(crate) const SHOP: Option<&str> = Some("shop");

pub(crate) const BLOG: Option<&str> = Some("blog");

pub(crate) fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a runtime")
        .block_on(future)
}

pub(crate) fn config(dir: &Path, node: &str) -> NetworkConfig {
    let data_dir = dir.join("data").join(node);
    fs::create_dir_all(&data_dir).expect("a folder");
    NetworkConfig {
        node: node.to_owned(),
        run_dir: dir.join("run").join(node),
        data_dir,
        virtual_port: VIRTUAL_PORT,
    }
}

/// Waits until `check` holds.
pub(crate) fn wait_for(what: &str, check: impl Fn() -> bool) {
    let begun = std::time::Instant::now();
    while !check() {
        assert!(begun.elapsed() < DEADLINE, "waited in vain for {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Runs `act` in the namespace bound to `netns`.
pub(crate) fn within<T: Send + 'static>(
    netns: &Path,
    act: impl FnOnce() -> T + Send + 'static,
) -> T {
    let file = File::open(netns).expect("a namespace");
    let thread = std::thread::spawn(move || {
        setns(&file, CloneFlags::CLONE_NEWNET).expect("entered");
        act()
    });
    thread.join().expect("it ended well")
}

/// Answers every connection with the address of who connects.
pub(crate) fn serve(netns: &Path) {
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
pub(crate) fn ask(address: Ipv4Addr, timeout: Duration) -> io::Result<String> {
    let address = SocketAddr::new(IpAddr::V4(address), PORT);
    let mut connection = TcpStream::connect_timeout(&address, timeout)?;
    connection.set_read_timeout(Some(timeout))?;
    let mut answer = String::new();
    connection.read_to_string(&mut answer)?;
    Ok(answer)
}

/// The port of the name server of a node that was opened by [`config`].
pub(crate) fn dns_port(dir: &Path, node: &str) -> u16 {
    let memory = dir.join("data").join(node).join("network.json");
    let memory = fs::read_to_string(memory).expect("read");
    let memory: serde_json::Value = serde_json::from_str(&memory).expect("JSON");
    let port = memory["dns_port"].as_u64().expect("a port");
    u16::try_from(port).expect("a port")
}

pub(crate) fn devices() -> BTreeSet<String> {
    // Of the namespace of the reading thread.
    let text = fs::read_to_string("/proc/thread-self/net/dev").expect("read");
    let lines = text.lines().skip(2);
    lines
        .filter_map(|line| Some(line.split_once(':')?.0.trim().to_owned()))
        .collect()
}

pub(crate) fn tables() -> String {
    let output = std::process::Command::new("nft")
        .args(["list", "tables"])
        .output()
        .expect("nft runs");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// The n-th virtual address of a network.
pub(crate) fn virtual_address(network: &Network, n: u32) -> Ipv4Addr {
    Ipv4Addr::from(u32::from(network.virtual_range().0) + n)
}

/// The names of the two apps: `web` is the first virtual address in one and the second in the other.
pub(crate) fn names(network: &Network) -> AppNames {
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

/// Asks with `dig`, and gives what it printed; `None`: nobody answered.
pub(crate) fn dig(netns: Option<&Path>, server: Ipv4Addr, words: &str) -> Option<String> {
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

pub(crate) fn has_dig() -> bool {
    let found = std::process::Command::new("dig").arg("-v").output().is_ok();
    assert!(found || std::env::var_os("CI").is_none(), "dig is missing");
    if !found {
        println!("SKIPPED: dig is not there (Debian's bind9-dnsutils)");
    }
    found
}
