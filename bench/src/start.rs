//! Starts of a replica up to its first answer, beside `docker start` and `podman start` of the same image.
//!
//! Of Layby, three are measured: the request that wakes a service asleep, its next container created; the same right after
//! it fell asleep, with no container yet; and `layby wake`, the command included. The peers start a container that they have,
//! their command included, since nothing else starts it. `layby up` of a service that is not there stands beside `docker run`
//! and `podman run`, without a promise.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use crate::app::{App, PORT, bare};
use crate::beside::Beside;
use crate::figures::{Samples, line};
use crate::http::Connection;
use crate::node::Node;
use crate::{docker, podman};

/// What is promised: Layby's time as a share of the other's.
const AT_MOST: f64 = 0.15;
const HOST: &str = "tiny.tiny.localhost";
/// How long a service has been asleep before it is woken: its next container has been created then.
const SETTLED: Duration = Duration::from_millis(500);
const IMAGE: &str = "tiny:1";
const COMPOSE: &str = "name: tiny
services:
  tiny:
    build: .
    image: tiny:1
    x-layby: {sleep: {doze_after: never, sleep_after: never}}
";

/// What was measured, in milliseconds.
#[derive(Default)]
struct Starts {
    bare: Samples,
    /// A request to a service asleep.
    asleep: Samples,
    /// A request to one that just fell asleep.
    falling: Samples,
    /// `layby wake` and a request.
    wake: Samples,
    /// `layby up` and a request.
    up: Samples,
    /// A command of Layby's that only asks.
    client: Samples,
    docker: Peer,
    podman: Peer,
}

#[derive(Default)]
struct Peer {
    start: Samples,
    run: Samples,
    client: Samples,
}

/// Measures `runs` starts and prints the lines.
pub(crate) fn starts(layby: &Path, dir: &Path, run: &Path, runs: usize, peers: bool) -> Result<()> {
    let app = App::new(COMPOSE)?;
    let node = Node::start(layby)?;
    node.run(app.path(), &["up"])?;
    let beside = peers.then(|| start_peers(&node, dir, run)).transpose()?;
    let mut client = Connection::open(node.gateway()?)?;
    client.get(HOST, "/")?;
    let mut starts = Starts::default();
    for _ in 0..runs {
        ours(&node, &app, &mut client, &mut starts)?;
        starts.bare.push(bare()?);
        if let Some((docker, podman)) = &beside {
            let round = docker.round()?;
            starts.docker.start.push(round.start);
            starts.docker.run.push(round.run);
            starts.docker.client.push(round.client);
            let round = podman.round()?;
            starts.podman.start.push(round.start);
            starts.podman.run.push(round.run);
            starts.podman.client.push(round.client);
        }
    }
    print(&starts);
    Ok(())
}

/// One of each, ending with the service awake.
fn ours(node: &Node, app: &App, client: &mut Connection, starts: &mut Starts) -> Result<()> {
    let root = Path::new("/");
    let timed = |dir: &Path, args: &[&str]| {
        let begun = Instant::now();
        node.run(dir, args).map(|_| begun.elapsed())
    };
    node.run(root, &["sleep", "tiny/tiny"])?;
    std::thread::sleep(SETTLED);
    starts.asleep.push(client.get(HOST, "/")?);

    node.run(root, &["sleep", "tiny/tiny"])?;
    starts.falling.push(client.get(HOST, "/")?);

    node.run(root, &["sleep", "tiny/tiny"])?;
    std::thread::sleep(SETTLED);
    let woken = timed(root, &["wake", "tiny/tiny"])?;
    starts.wake.push(woken + client.get(HOST, "/")?);

    node.run(root, &["down", "tiny"])?;
    let up = timed(app.path(), &["up"])?;
    starts.up.push(up + client.get(HOST, "/")?);
    starts.client.push(timed(root, &["ls"])?);
    Ok(())
}

/// Both get the very image that Layby built.
fn start_peers(
    node: &Node,
    dir: &Path,
    run: &Path,
) -> Result<(Beside<docker::Round>, Beside<podman::Round>)> {
    let archive = node.data().join("tiny.tar");
    let file = archive
        .to_str()
        .context("the data directory's name is not UTF-8")?;
    let save = ["image", "save", IMAGE, "--format", "docker", "-o", file];
    node.run(Path::new("/"), &save)?;
    Ok((
        docker::start(&archive, IMAGE, PORT),
        podman::start(dir, run, &archive, IMAGE, PORT),
    ))
}

fn print(starts: &Starts) {
    println!(
        "starts to the first answer, medians of {}: bare program {:.1} ms; Layby: request to a service asleep {:.1} ms, \
         to one that just fell asleep {:.1} ms, `layby wake` {:.1} ms, `layby up` of one that is not there {:.1} ms \
         (`layby ls` alone: {:.1} ms)",
        starts.asleep.len(),
        starts.bare.median(),
        starts.asleep.median(),
        starts.falling.median(),
        starts.wake.median(),
        starts.up.median(),
        starts.client.median(),
    );
    for (name, peer) in [("docker", &starts.docker), ("podman", &starts.podman)] {
        if peer.start.len() == 0 {
            continue;
        }
        let start = peer.start.median();
        let share = |what: &str, ours: &Samples| {
            let what = format!("{what}, of `{name} start`");
            line(&what, ours.median() / start, "", AT_MOST);
        };
        share("request to one asleep", &starts.asleep);
        share("request to one just asleep", &starts.falling);
        share("`layby wake`", &starts.wake);
        println!(
            "{name} start {start:.1} ms, {name} run {:.1} ms (`{name} ps` alone: {:.1} ms); `layby up`, of `{name} run`: {:.2}",
            peer.run.median(),
            peer.client.median(),
            starts.up.median() / peer.run.median()
        );
    }
}
