//! `layby-bench stack`: an app of 20 services from nothing deployed, its image there, to all of them answering, with
//! docker-compose on dockerd doing the same beside it.
//!
//! Both read one file, which docker-compose 1.29 knows all words of. Both commands end once they take the services for
//! started; then each published port is asked until it answers. Processor time is the whole machine's meanwhile, since
//! it is many processes' on either side: it takes a machine where little else happens.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use crate::app::{App, PORT};
use crate::args::Args;
use crate::beside::{Beside, quiet};
use crate::dockerd::Dockerd;
use crate::figures::{Samples, line};
use crate::http::first_answer;
use crate::node::{Node, PUBLISH_ON};

/// What is promised: Layby's time as a share of the other's.
const AT_MOST: f64 = 0.3;
const SERVICES: u16 = 20;
/// The port that the first of them publishes; the others follow.
const FIRST_PORT: u16 = 18_600;
const APP: &str = "stack";
const IMAGE: &str = "stack:1";
const FILE: &str = "compose.yaml";
/// What goes on behind a command's back is over then, and what it wrote on the disk.
const SETTLED: Duration = Duration::from_secs(1);
/// Kernel clock ticks a second, as `/proc` counts them (`getconf CLK_TCK`; fixed on Linux).
const TICK_MS: u64 = 10;

/// One measurement, of either side.
#[derive(Debug, Clone, Copy)]
struct Round {
    /// From the command's start to the last service's first answer.
    up: Duration,
    /// What the processors worked meanwhile.
    cpu: Duration,
    /// The command that takes all of it down.
    down: Duration,
}

/// Measurements of one side, in milliseconds.
#[derive(Default)]
struct Rounds {
    up: Samples,
    cpu: Samples,
    down: Samples,
}

/// Measures and prints the table.
pub(crate) fn run(args: &mut Args) -> Result<()> {
    let layby = args.need::<PathBuf>("layby")?.canonicalize()?;
    let rounds: usize = args.get("rounds")?.unwrap_or(7);
    let peers = args.get("peers")?.unwrap_or(true);
    args.finish()?;
    let built = App::new(&compose())?;
    let folder = built.path();
    let node = Node::start(&layby)?;
    let context = folder.to_str().context("the folder's name is not UTF-8")?;
    node.run(folder, &["build", context, "-t", IMAGE])?;
    let beside = peers.then(|| start_docker(&node, folder)).transpose()?;
    let (mut ours, mut theirs, mut plan) =
        (Rounds::default(), Rounds::default(), Samples::default());
    // The first round of each fills caches, and is not counted.
    for round in 0..=rounds {
        let planned = timed(|| node.run(folder, &["up", "--app", APP, "--dry-run"]))?;
        let layby = measured(
            IpAddr::from(PUBLISH_ON),
            || node.run(folder, &["up", "--app", APP]),
            || node.run(Path::new("/"), &["down", APP]),
        )?;
        let docker = beside.as_ref().map(Beside::round).transpose()?;
        if round > 0 {
            plan.push(planned);
            ours.push(layby);
            docker.into_iter().for_each(|round| theirs.push(round));
        }
    }
    print(&ours, &theirs, &plan);
    Ok(())
}

/// One image, some that wait for others, one network beside the default one, a published port each.
fn compose() -> String {
    let mut text = "services:\n".to_owned();
    for number in 0..SERVICES {
        text += &format!(
            "  s{number}:\n    image: {IMAGE}\n    ports: [\"{}:{PORT}\"]\n    networks: [inner]\n    restart: unless-stopped\n",
            FIRST_PORT + number
        );
        // Three levels: of each five one is what two wait for, which another one waits for.
        match number % 5 {
            1 | 2 => text += &format!("    depends_on: [s{}]\n", number - number % 5),
            3 => text += &format!("    depends_on: [s{}, s{}]\n", number - 2, number - 1),
            _ => {}
        }
    }
    text + "networks:\n  inner:\n"
}

/// Docker gets the very image that Layby built, and the very file.
fn start_docker(node: &Node, folder: &Path) -> Result<Beside<Round>> {
    let archive = node.data().join("stack.tar");
    let file = archive
        .to_str()
        .context("the data directory's name is not UTF-8")?;
    let save = ["image", "save", IMAGE, "--format", "docker", "-o", file];
    node.run(Path::new("/"), &save)?;
    let file = folder.join(FILE);
    Ok(Beside::start(
        move || {
            let dockerd = Dockerd::start(&archive)?;
            Ok(Composed { dockerd, file })
        },
        Composed::round,
    ))
}

/// The app, as docker-compose runs it.
struct Composed {
    dockerd: Dockerd,
    file: PathBuf,
}

impl Composed {
    fn round(&self) -> Result<Round> {
        measured(
            IpAddr::from(Ipv4Addr::LOCALHOST),
            || self.compose(&["up", "--detach"]),
            || self.compose(&["down", "--timeout", "1"]),
        )
    }

    fn compose(&self, args: &[&str]) -> Result<String> {
        let mut command = Command::new("docker-compose");
        command.env("DOCKER_HOST", self.dockerd.host());
        command.args(["--project-name", APP, "--file"]);
        quiet(command.arg(&self.file).args(args))
    }
}

impl Drop for Composed {
    fn drop(&mut self) {
        let _ = self.compose(&["down", "--timeout", "1"]);
    }
}

/// Brings it up, until all answer at their ports of `ip`, and takes it down.
fn measured(
    ip: IpAddr,
    up: impl Fn() -> Result<String>,
    down: impl Fn() -> Result<String>,
) -> Result<Round> {
    nix::unistd::sync();
    std::thread::sleep(SETTLED);
    let (worked, begun) = (worked()?, Instant::now());
    up()?;
    for port in (FIRST_PORT..).take(SERVICES.into()) {
        first_answer(SocketAddr::new(ip, port), "stack", "/")?;
    }
    let up = begun.elapsed();
    let cpu = self::worked()?.saturating_sub(worked);
    let down = timed(down)?;
    Ok(Round { up, cpu, down })
}

fn timed(command: impl FnOnce() -> Result<String>) -> Result<Duration> {
    let begun = Instant::now();
    command().map(|_| begun.elapsed())
}

/// What all processors of the machine have worked since it was started: proc_stat(5), without what they were idle,
/// waited for the disk, or were lent to other machines. What guests worked is in the first two.
fn worked() -> Result<Duration> {
    let text = fs::read_to_string("/proc/stat")?;
    let all = text
        .lines()
        .next()
        .and_then(|line| line.strip_prefix("cpu"));
    let fields = all.context("an odd /proc/stat")?.split_whitespace();
    let ticks: Vec<u64> = fields.map(str::parse).collect::<Result<_, _>>()?;
    let [user, nice, system, _, _, irq, softirq, ..] = ticks[..] else {
        anyhow::bail!("an odd /proc/stat: {text}");
    };
    let ticks = user + nice + system + irq + softirq;
    Ok(Duration::from_millis(ticks * TICK_MS))
}

impl Rounds {
    fn push(&mut self, round: Round) {
        self.up.push(round.up);
        self.cpu.push(round.cpu);
        self.down.push(round.down);
    }

    fn shown(&self) -> String {
        format!(
            "up {:.0} ms ({:.0} to {:.0}), {:.0} ms of processor time; down {:.0} ms",
            self.up.median(),
            self.up.quantile(0.0),
            self.up.quantile(1.0),
            self.cpu.median(),
            self.down.median()
        )
    }
}

fn print(ours: &Rounds, theirs: &Rounds, plan: &Samples) {
    println!(
        "{SERVICES} services to the last one's first answer, medians of {}: Layby {} (`up --dry-run`: {:.0} ms)",
        ours.up.len(),
        ours.shown(),
        plan.median()
    );
    if theirs.up.len() == 0 {
        return;
    }
    println!("beside it: docker-compose {}", theirs.shown());
    let share = |what: &str, ours: &Samples, theirs: &Samples, at_most: f64| {
        line(what, ours.median() / theirs.median(), "", at_most);
    };
    let what = format!("`up` of {SERVICES} services, of docker-compose's time");
    share(&what, &ours.up, &theirs.up, AT_MOST);
    share(
        "its processor time, of docker-compose's",
        &ours.cpu,
        &theirs.cpu,
        AT_MOST,
    );
    println!(
        "`down`, of docker-compose's time: {:.2}",
        ours.down.median() / theirs.down.median()
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processors_work_while_this_does() {
        let before = worked().unwrap();
        let begun = Instant::now();
        while worked().unwrap() == before {
            assert!(begun.elapsed() < Duration::from_secs(10));
        }
    }
}
