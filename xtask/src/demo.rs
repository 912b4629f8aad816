//! `cargo xtask demo`: an example, deployed, used, dozing, asleep, awake; on this machine, as it is. [`labels`] has the
//! stack's, and this file the digit classifier's and what both need.

mod http;
mod labels;

use std::fs;
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use crate::command::{cargo, command, run};
use crate::{example, place, setup};

/// Which example is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Which {
    /// The digit classifier.
    Mnist,
    /// The stack that reads product labels.
    Labels,
}

/// The demo's node keeps its data here, apart from a real node's.
const DATA: &str = "/var/lib/layby-demo";
const GATEWAY: &str = "127.0.0.1:8080";
const NODE_PORT: &str = "127.0.0.1:30001";
const HOST: &str = "mnist.mnist.localhost";
/// No step of the demo takes longer.
const PATIENCE: Duration = Duration::from_secs(60);

/// Shows what Layby does; with `once`, takes down all it made.
///
/// # Errors
/// Not root (said before anything is done), or the first step that failed.
pub(crate) fn demo(which: Which, once: bool) -> Result<()> {
    setup::require_root("cargo xtask demo")?;
    setup::setup()?;
    run(&mut cargo(&[
        "build",
        "--release",
        "--workspace",
        "--bin",
        "layby",
    ]))?;
    let (name, ports) = match which {
        Which::Mnist => ("mnist", [GATEWAY, NODE_PORT]),
        Which::Labels => ("labels", [GATEWAY, labels::PORT]),
    };
    example::example(name)?;
    let demo = Demo::new(name, ports)?;
    let shown = match which {
        Which::Mnist => demo.show(),
        Which::Labels => labels::show(&demo),
    };
    if once || shown.is_err() {
        println!("\n## Taking everything down");
        demo.take_down()?;
    } else {
        demo.say_how_to_go_on(which);
    }
    shown
}

struct Demo {
    layby: PathBuf,
    example: PathBuf,
}

impl Demo {
    fn new(example: &str, ports: [&str; 2]) -> Result<Self> {
        let demo = Self {
            layby: place::target().join("release/layby"),
            example: place::root().join("examples").join(example),
        };
        for addr in ports {
            if !demo.answers() && TcpStream::connect(addr).is_ok() {
                bail!(
                    "{addr} is in use by another program, and the demo needs it: stop that program first"
                );
            }
        }
        Ok(demo)
    }

    fn show(&self) -> Result<()> {
        println!("\n## Deploying examples/mnist/deploy.yaml");
        self.layby(&["up", "examples/mnist"])?;

        println!("\n## Real digits, through the gateway and through the node port");
        for (number, picture) in self.pictures()?.iter().enumerate() {
            let (addr, way) = if number % 2 == 0 {
                (GATEWAY, "gateway")
            } else {
                (NODE_PORT, "node port")
            };
            let (answer, taken) = ask(addr, picture)?;
            let name = picture.file_name().unwrap_or_default().to_string_lossy();
            println!("{name:<10} by the {way:<9}  {answer}  in {taken:.2?}");
        }

        println!("\n## Dozing and sleeping, by command; a request wakes it");
        let picture = self.pictures()?.swap_remove(0);
        for verb in ["doze", "sleep"] {
            self.layby(&[verb, "mnist"])?;
            self.wake(&picture)?;
        }

        println!("\n## The same by waiting: dozes after 3 s, sleeps after 8 s");
        let folder = self.with_short_sleep()?;
        self.layby(&["up", "--app", "mnist", &folder.path().to_string_lossy()])?;
        for wakefulness in ["dozing", "asleep"] {
            self.wait_until(wakefulness)?;
            println!("it is {wakefulness}");
            if wakefulness == "asleep" {
                self.wake(&picture)?;
            }
        }
        println!();
        self.layby(&["status", "mnist"])
    }

    /// Asks once and says how long the held request took, beside one that was not held.
    fn wake(&self, picture: &Path) -> Result<()> {
        let (_, held) = ask(GATEWAY, picture)?;
        let (answer, hot) = ask(GATEWAY, picture)?;
        println!(
            "woken by a request: {answer}, answered after {held:.2?}; the next one took {hot:.2?}"
        );
        Ok(())
    }

    /// The example's manifest with annotations for an impatient reader.
    fn with_short_sleep(&self) -> Result<tempfile::TempDir> {
        let manifest = fs::read_to_string(self.example.join("deploy.yaml"))?;
        let build = manifest
            .lines()
            .find(|line| line.trim_start().starts_with("layby.dev/build:"))
            .context(
                "examples/mnist/deploy.yaml has no layby.dev/build annotation to write beside",
            )?;
        let indent = &build[..build.len() - build.trim_start().len()];
        let annotations =
            format!("{indent}layby.dev/doze-after: 3s\n{indent}layby.dev/sleep-after: 8s");
        let folder = tempfile::tempdir()?;
        fs::write(
            folder.path().join("deploy.yaml"),
            manifest.replace(build, &annotations),
        )?;
        Ok(folder)
    }

    fn wait_until(&self, wakefulness: &str) -> Result<()> {
        let started = Instant::now();
        loop {
            let status = self.command(&["status", "--json", "mnist"]).output()?;
            let status: serde_json::Value =
                serde_json::from_slice(&status.stdout).unwrap_or_default();
            if status["wakefulness"] == wakefulness {
                return Ok(());
            }
            if started.elapsed() > PATIENCE {
                bail!("the service is not {wakefulness} after {PATIENCE:?}: {status}");
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// One picture per digit.
    fn pictures(&self) -> Result<Vec<PathBuf>> {
        let folder = self.example.join("digits");
        let mut all: Vec<PathBuf> = fs::read_dir(&folder)?
            .map(|entry| Ok(entry?.path()))
            .collect::<Result<_>>()?;
        all.sort();
        let digit = |path: &PathBuf| {
            path.file_name()
                .map(|name| name.to_string_lossy().chars().next())
        };
        all.dedup_by_key(|path| digit(path));
        if all.is_empty() {
            bail!("{} has no pictures", folder.display());
        }
        Ok(all)
    }

    fn answers(&self) -> bool {
        self.command(&["ls"])
            .output()
            .is_ok_and(|output| output.status.success())
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut layby = command(&self.layby);
        layby.args(arguments).env("LAYBY_DATA", DATA);
        layby
    }

    fn layby(&self, arguments: &[&str]) -> Result<()> {
        run(&mut self.command(arguments))
    }

    fn take_down(&self) -> Result<()> {
        if self.answers() {
            self.layby(&["node", "stop", "--all"])?;
        }
        if Path::new(DATA).exists() {
            fs::remove_dir_all(DATA).with_context(|| format!("cannot remove {DATA}"))?;
        }
        println!(
            "Left: the build in target/, and what the example's image is made of, in its dist/."
        );
        Ok(())
    }

    fn say_how_to_go_on(&self, which: Which) {
        let bin = self.layby.parent().unwrap_or(&self.layby).display();
        println!("\n## Now you\nThe node runs on. To try more:\n");
        println!("  export PATH={bin}:$PATH LAYBY_DATA={DATA}");
        println!("  layby ls");
        match which {
            Which::Mnist => {
                println!("  layby logs mnist -f");
                println!("  xdg-open http://{HOST}:8080/docs\n");
            }
            Which::Labels => {
                println!("  layby logs mapi -f");
                println!("  xdg-open http://{}/\n", labels::PORT);
            }
        }
        println!("To stop it, containers and all, and remove what it keeps:\n");
        println!("  layby node stop --all && rm -r {DATA}");
    }
}

/// Posts a picture: the answer in words, and the time it took.
fn ask(addr: &str, picture: &Path) -> Result<(String, Duration)> {
    let body = serde_json::json!({ "base64": STANDARD.encode(fs::read(picture)?) }).to_string();
    let started = Instant::now();
    let answer = http::post(addr, HOST, "/mnist/", &body)?;
    let taken = started.elapsed();
    let answer: serde_json::Value =
        serde_json::from_slice(&answer).with_context(|| format!("{addr} answered no JSON"))?;
    let digit = answer["digit"]
        .as_u64()
        .context("the answer names no digit")?;
    let sure = answer["probabilities"][digit as usize]
        .as_f64()
        .unwrap_or_default()
        * 100.0;
    Ok((format!("a {digit} ({sure:.1} %)"), taken))
}
