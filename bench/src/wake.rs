//! How long a request waits for a service that dozes or sleeps, and how long `layby up` takes.
//!
//! Everything is interleaved in one run, so that a machine that slows down slows all of it.

use std::net::SocketAddr;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::Result;

use crate::beside::Beside;
use crate::docker::Round;
use crate::figures::{Samples, line, line_at_least};
use crate::http::{Connection, first_answer};
use crate::node::Node;

const HOST: &str = "mnist.mnist.localhost";
const PATH: &str = "/healthz";
/// How long a service has been asleep before it is woken: its next container has been created then.
const SETTLED: Duration = Duration::from_millis(500);
/// Where the bare program listens.
const BARE: &str = "127.77.0.2:18051";

/// What was measured, in milliseconds.
#[derive(Debug)]
pub(crate) struct Wakes {
    /// A request to an awake service.
    pub(crate) hot: Samples,
    /// A request to a dozing one.
    pub(crate) dozing: Samples,
    /// A request to a sleeping one.
    pub(crate) asleep: Samples,
    /// The bare program, from fork and exec to its first answer.
    pub(crate) bare: Samples,
    /// `docker unpause` up to the first answer.
    pub(crate) docker_unpause: Samples,
    /// `docker start` up to the first answer.
    pub(crate) docker_start: Samples,
}

/// Measures `runs` wakes of `examples/mnist`, whose program is `mnist`; with Docker beside it, if given.
pub(crate) fn wakes(
    node: &Node,
    docker: Option<&Beside<Round>>,
    example: &Path,
    mnist: &Path,
    runs: usize,
) -> Result<Wakes> {
    node.run(example, &["up", "--app", "mnist"])?;
    let mut client = Connection::open(node.gateway()?)?;
    client.get(HOST, PATH)?;
    let mut wakes = Wakes {
        hot: Samples::default(),
        dozing: Samples::default(),
        asleep: Samples::default(),
        bare: Samples::default(),
        docker_unpause: Samples::default(),
        docker_start: Samples::default(),
    };
    let root = Path::new("/");
    for _ in 0..runs {
        wakes.hot.push(client.get(HOST, PATH)?);
        node.run(root, &["doze", "mnist/mnist"])?;
        wakes.dozing.push(client.get(HOST, PATH)?);
        node.run(root, &["sleep", "mnist/mnist"])?;
        std::thread::sleep(SETTLED);
        wakes.asleep.push(client.get(HOST, PATH)?);
        wakes.bare.push(bare(mnist)?);
        if let Some(docker) = docker {
            let round = docker.round()?;
            wakes.docker_unpause.push(round.unpause);
            wakes.docker_start.push(round.start);
        }
    }
    node.run(root, &["down", "mnist"])?;
    Ok(wakes)
}

/// From fork and exec of the program to its first answer, with nothing around it.
fn bare(mnist: &Path) -> Result<Duration> {
    let addr: SocketAddr = BARE.parse()?;
    let started = Instant::now();
    let mut child = Command::new(mnist)
        .args(["serve", "--listen", BARE])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()?;
    let answered = first_answer(addr, HOST, PATH);
    let taken = started.elapsed();
    child.kill()?;
    child.wait()?;
    answered.map(|()| taken)
}

/// Measures `layby up` of a service that is not there, its image kept, up to the first answer.
pub(crate) fn ups(node: &Node, example: &Path, runs: usize) -> Result<Samples> {
    node.run(example, &["up", "--app", "mnist"])?;
    let gateway = node.gateway()?;
    let mut samples = Samples::default();
    for _ in 0..runs {
        node.run(Path::new("/"), &["down", "mnist"])?;
        let started = Instant::now();
        node.run(example, &["up", "--app", "mnist"])?;
        first_answer(gateway, HOST, PATH)?;
        samples.push(started.elapsed());
    }
    node.run(Path::new("/"), &["down", "mnist"])?;
    Ok(samples)
}

/// Prints the table.
pub(crate) fn print(wakes: &Wakes, ups: &Samples) {
    let (hot, bare) = (wakes.hot.median(), wakes.bare.median());
    println!(
        "medians of {} interleaved runs; hot request {hot:.2} ms, bare program {bare:.2} ms",
        wakes.hot.len()
    );
    line(
        "wake from dozing, less a hot request",
        wakes.dozing.median() - hot,
        "ms",
        1.0,
    );
    line(
        "wake from asleep, less the bare program",
        wakes.asleep.median() - bare,
        "ms",
        15.0,
    );
    line(
        "layby up to the first answer, less the bare program",
        ups.median() - bare,
        "ms",
        100.0,
    );
    if wakes.docker_start.len() > 0 {
        let (start, unpause) = (wakes.docker_start.median(), wakes.docker_unpause.median());
        println!(
            "docker start {start:.1} ms, docker unpause {unpause:.1} ms, each to the first answer"
        );
        line_at_least(
            "docker start / wake from asleep",
            start / wakes.asleep.median(),
            "x",
            8.0,
        );
        line_at_least(
            "docker unpause / wake from dozing",
            unpause / wakes.dozing.median(),
            "x",
            15.0,
        );
    }
}
