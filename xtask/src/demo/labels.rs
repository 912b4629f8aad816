//! The demo of examples/labels: forty pictures, and what the stack does with them.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use super::{Demo, http};
use crate::command::{command, run};
use crate::place;

/// Where the stack's web application is published.
pub(super) const PORT: &str = "127.0.0.1:8110";

/// How many pictures are uploaded, and how many more while a replica is killed.
const PICTURES: usize = 40;
const MORE: usize = 8;

/// How many of them at once.
const UPLOADERS: usize = 4;

/// How often the time line tells how many pictures are read, while nothing else changes.
const TELL: Duration = Duration::from_secs(5);

/// How often it is looked, and how often somebody looks at a page meanwhile.
const LOOK: Duration = Duration::from_millis(200);

/// Nothing takes longer: forty pictures at two seconds each, on two cores that do other work as well.
const PATIENCE: Duration = Duration::from_secs(900);

/// Brings the stack up from nothing, uploads, watches, and prints the time line.
///
/// # Errors
/// When a request fails, a picture is lost or read badly, or mapi does not come and go.
pub(super) fn show(demo: &Demo) -> Result<()> {
    println!("\n## Deploying examples/labels/compose.yaml");
    demo.layby(&["up", "examples/labels"])?;
    demo.layby(&["ls"])?;

    println!(
        "\n## Drawing {} labels that say what is known",
        PICTURES + MORE
    );
    let folder = tempfile::tempdir()?;
    let labels = place::target().join("release/labels");
    run(command(&labels)
        .args(["samples", "--count", &(PICTURES + MORE).to_string()])
        .arg(folder.path()))?;
    let pictures = pictures(folder.path())?;

    println!("\n## mapi sleeps; then {PICTURES} pictures come");
    wait_for(demo, "asleep")?;
    let line = TimeLine::new();
    line.watch(demo, || {
        upload(&pictures[..PICTURES])?;
        line.say(&format!("all {PICTURES} pictures are uploaded"));
        wait_until_read(PICTURES)?;
        line.say("all of them are read");
        Ok(())
    })?;
    ensure!(
        line.most.load(SeqCst) >= 4,
        "mapi had {} replicas at most, and four were expected",
        line.most.load(SeqCst)
    );

    println!("\n## A replica is killed in the middle of its work");
    line.watch(demo, || {
        upload(&pictures[PICTURES..])?;
        kill_one(demo, &line)?;
        wait_until_read(PICTURES + MORE)?;
        line.say("all of them are read");
        Ok(())
    })?;

    println!("\n## And back to nothing");
    line.watch(demo, || wait_for(demo, "asleep"))?;
    println!(
        "{} pages were looked at meanwhile, and none failed",
        line.looked.load(SeqCst)
    );

    println!("\n## What was read, beside what was drawn");
    let export = folder.path().join("export.json");
    fs::write(&export, http::get(PORT, "/export.json")?)?;
    run(command(&labels)
        .args(["samples", "--compare"])
        .arg(&export)
        .arg(folder.path()))
}

/// What happened, and when.
struct TimeLine {
    begun: Instant,
    /// What was printed last, of mapi alone, and when.
    last: Mutex<(String, Option<Instant>)>,
    /// The most replicas that were ready at once.
    most: AtomicUsize,
    /// How many pages were looked at.
    looked: AtomicUsize,
}

impl TimeLine {
    fn new() -> Self {
        Self {
            begun: Instant::now(),
            last: Mutex::default(),
            most: AtomicUsize::new(0),
            looked: AtomicUsize::new(0),
        }
    }

    fn say(&self, what: &str) {
        println!("{:>7.1} s  {what}", self.begun.elapsed().as_secs_f64());
    }

    /// Does something while one thread prints each change and another looks at pages as an analyst would.
    fn watch(&self, demo: &Demo, work: impl FnOnce() -> Result<()>) -> Result<()> {
        let done = AtomicBool::new(false);
        let failed: Mutex<Option<anyhow::Error>> = Mutex::new(None);
        let result = std::thread::scope(|scope| {
            scope.spawn(|| {
                while !done.load(SeqCst) {
                    self.look(demo);
                    std::thread::sleep(LOOK);
                }
            });
            scope.spawn(|| {
                for page in ["/", "/queue", "/rules"].iter().cycle() {
                    if done.load(SeqCst) {
                        return;
                    }
                    match http::get(PORT, page) {
                        Ok(_) => {
                            self.looked.fetch_add(1, SeqCst);
                        }
                        Err(error) => {
                            self.say(&format!("A REQUEST FAILED: {error:#}"));
                            if let Ok(mut failed) = failed.lock() {
                                failed.get_or_insert(error);
                            }
                        }
                    }
                    std::thread::sleep(LOOK);
                }
            });
            let result = work();
            done.store(true, SeqCst);
            result
        });
        self.look(demo);
        result?;
        match failed.into_inner() {
            Ok(Some(error)) => Err(error.context("a page failed while pictures were read")),
            Ok(None) | Err(_) => Ok(()),
        }
    }

    /// Prints how things are, where that is not how they were.
    fn look(&self, demo: &Demo) {
        let Ok(status) = status(demo) else { return };
        let phases: Vec<&str> = replicas(&status)
            .filter_map(|replica| replica["phase"].as_str())
            .collect();
        let ready = phases.iter().filter(|phase| **phase == "ready").count();
        self.most.fetch_max(ready, SeqCst);
        let mut now = format!(
            "mapi {:<8} {ready} ready",
            status["wakefulness"].as_str().unwrap_or("?")
        );
        for phase in ["starting", "frozen", "stopped", "removing"] {
            let count = phases.iter().filter(|one| **one == phase).count();
            if count > 0 {
                now.push_str(&format!(", {count} {phase}"));
            }
        }
        let Ok(mut last) = self.last.lock() else {
            return;
        };
        let is_due = last.1.is_none_or(|told| told.elapsed() >= TELL);
        if last.0 == now && !is_due {
            return;
        }
        let pictures = match queue() {
            Ok(queue) => {
                let number = |name: &str| queue[name].as_u64().unwrap_or_default();
                let (all, queued) = (number("pictures"), number("queued"));
                format!("{} read, {queued} to be read", all - queued)
            }
            Err(error) => format!("{error:#}"),
        };
        self.say(&format!("{now}; pictures: {pictures}"));
        *last = (now, Some(Instant::now()));
    }
}

fn status(demo: &Demo) -> Result<Value> {
    let output = demo
        .command(&["status", "--json", "labels/mapi"])
        .output()?;
    Ok(serde_json::from_slice(&output.stdout)?)
}

fn replicas(status: &Value) -> impl Iterator<Item = &Value> {
    status["replicas"].as_array().into_iter().flatten()
}

fn queue() -> Result<Value> {
    let body = http::get(PORT, "/queue.json")?;
    serde_json::from_slice(&body).context("the queue is no JSON")
}

fn pictures(folder: &Path) -> Result<Vec<PathBuf>> {
    let entries = fs::read_dir(folder)?.map(|entry| Ok(entry?.path()));
    let mut paths: Vec<PathBuf> = entries.collect::<Result<_>>()?;
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "png"));
    paths.sort();
    Ok(paths)
}

fn upload(pictures: &[PathBuf]) -> Result<()> {
    let next = AtomicUsize::new(0);
    let send = || -> Result<()> {
        while let Some(path) = pictures.get(next.fetch_add(1, SeqCst)) {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            let taken = http::upload(PORT, &name, &fs::read(path)?)?;
            let taken: Value = serde_json::from_slice(&taken)?;
            ensure!(
                taken[0]["sha256"].is_string(),
                "{name} was not taken: {taken}"
            );
        }
        Ok(())
    };
    std::thread::scope(|scope| {
        let senders: Vec<_> = (0..UPLOADERS).map(|_| scope.spawn(send)).collect();
        for sender in senders {
            sender
                .join()
                .map_err(|_| anyhow::anyhow!("an uploader panicked"))??;
        }
        Ok(())
    })
}

fn wait_until_read(all: usize) -> Result<()> {
    let begun = Instant::now();
    loop {
        let queue = queue()?;
        if queue["queued"] == 0 && queue["pictures"] == all {
            return Ok(());
        }
        ensure!(
            begun.elapsed() < PATIENCE,
            "not all pictures are read after {PATIENCE:?}: {queue}"
        );
        std::thread::sleep(LOOK);
    }
}

fn wait_for(demo: &Demo, wakefulness: &str) -> Result<()> {
    let begun = Instant::now();
    loop {
        let status = status(demo)?;
        if status["wakefulness"] == wakefulness {
            return Ok(());
        }
        ensure!(
            begun.elapsed() < PATIENCE,
            "mapi is not {wakefulness} after {PATIENCE:?}: {status}"
        );
        std::thread::sleep(LOOK);
    }
}

/// Kills the program of a replica that reads, as a machine would that runs out of memory.
fn kill_one(demo: &Demo, line: &TimeLine) -> Result<()> {
    let begun = Instant::now();
    while queue()?["reading"] == 0 {
        ensure!(
            begun.elapsed() < PATIENCE,
            "nothing is read after {PATIENCE:?}"
        );
        std::thread::sleep(LOOK);
    }
    let status = status(demo)?;
    let mut ready = replicas(&status).filter(|replica| replica["phase"] == "ready");
    let Some(replica) = ready.next() else {
        bail!("no replica of mapi is ready to be killed: {status}");
    };
    let pid = replica["containers"][0]["pid"]
        .as_i64()
        .context("the replica shows no process")?;
    let pid = nix::unistd::Pid::from_raw(i32::try_from(pid)?);
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL)
        .context("cannot kill the replica")?;
    line.say(&format!(
        "killed replica {}",
        replica["id"].as_str().unwrap_or_default()
    ));
    Ok(())
}
