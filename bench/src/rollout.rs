//! `layby-bench rollout`: requests at a steady rate while a service is rolled out, rolled back, given other powers, scaled, and
//! the node killed; then long requests and tunnels over rollouts.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::app;
use crate::args::Args;
use crate::figures::{Samples, line};
use crate::lasting;
use crate::load::{Load, Sent};
use crate::node::Node;

/// The service, and where it is.
const NAME: &str = "rollout/web";
pub(crate) const HOST: &str = "web.rollout.localhost";
const COMPOSE: &str = "name: rollout
services:
  web:
    build: .
    image: rollout-web:1
    environment: {REV: \"1\"}
    deploy: {replicas: 2}
    x-layby: {port: 8000, sleep: {doze_after: never, sleep_after: never}}
";
/// From `layby deploy` to served, beyond the app's own boot: what is promised, in milliseconds.
const SERVED_MS: f64 = 50.0;
/// How much slower the slowest hundredth may be than when nothing happens.
const P99_TIMES: f64 = 3.0;
/// How long nothing happens first.
const QUIET: Duration = Duration::from_secs(10);
/// Between two things that happen.
const PAUSE: Duration = Duration::from_millis(200);
/// How long the node may take to be back.
const BACK: Duration = Duration::from_secs(30);

/// How often what happens.
struct Options {
    layby: PathBuf,
    rate: u32,
    rollouts: u32,
    rollbacks: u32,
    powers: u32,
    scales: u32,
    kills: u32,
    lasting: bool,
}

/// Measures and prints the table.
pub(crate) fn run(args: &mut Args) -> Result<()> {
    let options = Options {
        layby: args.need::<PathBuf>("layby")?.canonicalize()?,
        rate: args.get("rate")?.unwrap_or(2000),
        rollouts: args.get("rollouts")?.unwrap_or(50),
        rollbacks: args.get("rollbacks")?.unwrap_or(10),
        powers: args.get("powers")?.unwrap_or(10),
        scales: args.get("scales")?.unwrap_or(10),
        kills: args.get("kills")?.unwrap_or(5),
        lasting: args.get("lasting")?.unwrap_or(true),
    };
    args.finish()?;
    let app = app::App::patient(COMPOSE)?;
    let node = Node::kept(&options.layby)?;
    node.run(app.path(), &["up"])?;
    let mut bench = Bench {
        node,
        revision: 1,
        phases: Vec::new(),
        kills: Vec::new(),
    };
    let boot = bench.boot()?;
    let quiet_served = bench.served_when_quiet(10)?;
    let gateway = bench.node.gateway()?;
    println!(
        "{} requests/s, half of them on connections that stay open, half on one each",
        options.rate
    );
    let load = Load::start(gateway, HOST, options.rate);
    let loaded_served = bench.phases(&load, &options)?;
    let sent = load.finish()?;
    let good = bench.report(&sent);
    let beyond = |served: &Samples| served.median() - boot.median();
    line(
        "deploy to served, beyond the app's own boot",
        beyond(&quiet_served),
        "ms",
        SERVED_MS,
    );
    println!(
        "  the app's own boot {:.1} ms; under load, deploy to served beyond it {:.1} ms (p90 {:.1} ms)",
        boot.median(),
        beyond(&loaded_served),
        loaded_served.quantile(0.9) - boot.median()
    );
    let lasting = match options.lasting {
        true => lasting::measure(&bench.node, gateway, || bench.revision + 1)?,
        false => true,
    };
    match good && lasting {
        true => Ok(()),
        false => bail!("requests failed: see above"),
    }
}

/// A span of time in which one kind of thing happens.
struct Phase {
    what: &'static str,
    times: u32,
    from: Instant,
    until: Instant,
}

struct Bench {
    node: Node,
    /// What the service says of itself.
    revision: u32,
    phases: Vec<Phase>,
    /// From the call until the process was gone.
    kills: Vec<(Instant, Instant)>,
}

impl Bench {
    fn layby(&self, args: &[&str]) -> Result<String> {
        self.node.run(Path::new("/"), args)
    }

    fn deploy(&mut self) -> Result<Instant> {
        self.revision += 1;
        let rev = format!("REV={}", self.revision);
        let started = Instant::now();
        self.layby(&["deploy", NAME, "--env", &rev])?;
        Ok(started)
    }

    /// How long the bare program takes from its start to its first answer.
    fn boot(&self) -> Result<Samples> {
        let mut boot = Samples::default();
        for _ in 0..10 {
            boot.push(app::bare_patient()?);
        }
        Ok(boot)
    }

    /// From `layby deploy` until the new revision answers, with nobody else around.
    fn served_when_quiet(&mut self, times: u32) -> Result<Samples> {
        let mut served = Samples::default();
        let gateway = self.node.gateway()?;
        for _ in 0..times {
            let load = Load::start(gateway, HOST, 200);
            std::thread::sleep(PAUSE);
            let started = self.deploy()?;
            served.push(load.until_answered_by(self.revision)? - started);
            load.finish()?;
        }
        Ok(served)
    }

    /// All that happens under load; gives how long deploys took to be served.
    fn phases(&mut self, load: &Load, options: &Options) -> Result<Samples> {
        let mut served = Samples::default();
        self.phase("quiet", 1, |_, _| {
            std::thread::sleep(QUIET);
            Ok(())
        })?;
        self.phase("rollouts", options.rollouts, |bench, _| {
            let started = bench.deploy()?;
            served.push(load.until_answered_by(bench.revision)? - started);
            Ok(())
        })?;
        self.phase("rollbacks", options.rollbacks, |bench, _| {
            bench.layby(&["rollback", NAME]).map(drop)
        })?;
        self.phase("powers", options.powers, |bench, n| {
            let power = if n.is_multiple_of(2) { "nano" } else { "micro" };
            bench.layby(&["power", NAME, power]).map(drop)
        })?;
        self.phase("scalings", options.scales, |bench, n| {
            let scale = ["3", "1", "2"][n as usize % 3];
            bench.layby(&["scale", NAME, scale]).map(drop)
        })?;
        self.phase("kills", options.kills, |bench, n| bench.kill(n))?;
        Ok(served)
    }

    fn phase(
        &mut self,
        what: &'static str,
        times: u32,
        mut happen: impl FnMut(&mut Self, u32) -> Result<()>,
    ) -> Result<()> {
        let from = Instant::now();
        for n in 0..times {
            happen(self, n).with_context(|| format!("{what}, number {}", n + 1))?;
            std::thread::sleep(PAUSE);
        }
        let until = Instant::now();
        let phase = Phase {
            what,
            times,
            from,
            until,
        };
        self.phases.push(phase);
        Ok(())
    }

    /// Kills the node, every second time in the middle of a rollout, and waits until another one answers.
    fn kill(&mut self, n: u32) -> Result<()> {
        let pid = self.node_pid()?;
        if !n.is_multiple_of(2) {
            self.revision += 1;
            let rev = format!("REV={}", self.revision);
            self.layby(&["deploy", NAME, "--env", &rev, "--detach"])?;
        }
        let called = Instant::now();
        kill(Pid::from_raw(pid), Signal::SIGKILL)?;
        while Path::new(&format!("/proc/{pid}")).exists() {
            if called.elapsed() > BACK {
                bail!("the node does not end");
            }
            std::thread::sleep(Duration::from_micros(100));
        }
        self.kills.push((called, Instant::now()));
        while self.node_pid().is_ok_and(|now| now == pid) || self.node_pid().is_err() {
            if called.elapsed() > BACK {
                bail!("no other node answers");
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        println!(
            "  kill {}: another node answers after {:.0} ms",
            n + 1,
            ms(called.elapsed())
        );
        self.layby(&["deploy", NAME, "--follow"]).map(drop) // the rollout that it was in
    }

    fn node_pid(&self) -> Result<i32> {
        let version = self.node.json(&["version", "--json"])?;
        let pid = version["node"]["pid"].as_i64().context("no node answers")?;
        Ok(i32::try_from(pid)?)
    }

    /// Prints what became of the requests; false: some failed that should not have.
    fn report(&self, sent: &[Sent]) -> bool {
        println!(
            "{:<14} {:>8} {:>7} {:>9} {:>8} {:>8} {:>8} {:>8} {:>8}",
            "", "requests", "failed", "cut", "p50 ms", "p99 ms", "p99.9 ms", "max ms", "to quiet"
        );
        let mut failed = 0;
        let mut quiet = f64::NAN;
        let mut changing = Samples::default();
        for phase in &self.phases {
            let mine = Outcome::of(phase, sent, |sent| self.was_on_the_wire(sent));
            let p99 = mine.took.quantile(0.99);
            match phase.what {
                "quiet" => quiet = p99,
                // What waits while no node runs is slow, and that is the point of it.
                "kills" => {}
                _ => changing.extend(&mine.took),
            }
            println!(
                "{:<14} {:>8} {:>7} {:>9} {:>8.2} {p99:>8.2} {:>8.2} {:>8.2} {:>6.2} x",
                format!("{} {}", phase.times, phase.what),
                mine.requests,
                mine.failed,
                mine.cut,
                mine.took.median(),
                mine.took.quantile(0.999),
                mine.took.quantile(1.0),
                p99 / quiet
            );
            failed += mine.failed;
        }
        line(
            "p99 of all changes, to the quiet one",
            changing.quantile(0.99) / quiet,
            "x",
            P99_TIMES,
        );
        failed == 0
    }

    /// It had been sent when a node was killed: it went with that one.
    fn was_on_the_wire(&self, sent: &Sent) -> bool {
        let mut kills = self.kills.iter();
        kills.any(|(called, gone)| sent.begun <= *gone && sent.ended >= *called)
    }
}

fn ms(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}

/// What became of the requests that were due in one phase.
#[derive(Default)]
struct Outcome {
    requests: u32,
    failed: u32,
    /// On the wire when a node was killed.
    cut: u32,
    /// From when each was due until it ended.
    took: Samples,
}

impl Outcome {
    /// Counts them, and prints the first few that failed.
    fn of(phase: &Phase, sent: &[Sent], was_on_the_wire: impl Fn(&Sent) -> bool) -> Self {
        let mut outcome = Self::default();
        let span = phase.from..phase.until;
        for sent in sent.iter().filter(|sent| span.contains(&sent.due)) {
            outcome.requests += 1;
            outcome.took.push(sent.ended - sent.due);
            match &sent.answer {
                Ok(_) => {}
                Err(_) if was_on_the_wire(sent) => outcome.cut += 1,
                Err(why) => {
                    outcome.failed += 1;
                    if outcome.failed <= 5 {
                        println!(
                            "  failed at {:.0} ms on a {} connection, after {:.1} ms: {why}",
                            ms(sent.begun - phase.from),
                            if sent.kept { "kept" } else { "new" },
                            ms(sent.ended - sent.begun)
                        );
                    }
                }
            }
        }
        outcome
    }
}
