//! The same compose.yaml under docker-compose, with the images that Layby built: a dockerd of the test's own, in a network
//! namespace of its own.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

use labels::samples;
use nix::sched::{CloneFlags, unshare};
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, geteuid};
use serde_json::Value;
use tempfile::TempDir;

use crate::common::{agent, fonts, multipart, reply, wait, wait_for};

const SERVICES: [&str; 4] = ["cache", "mapi", "store", "webapp"];
/// Where the file publishes the pages.
const PAGES: &str = "http://127.0.0.1:8110";
/// From the first container to a picture that is read, where all of it may be built without optimisation.
const PATIENCE: Duration = Duration::from_secs(300);

#[test]
#[ignore = "needs root, Debian's docker.io and docker-compose, and Layby in LABELS_LAYBY: cargo xtask test --examples"]
fn docker_compose_runs_the_stack_with_the_images_that_layby_built() {
    if !geteuid().is_root() {
        println!("SKIPPED: dockerd and Layby need root");
        return;
    }
    let folder = tempfile::Builder::new()
        .prefix("labels-")
        .tempdir_in("/tmp") // sockets' paths are short
        .unwrap();
    build_images(folder.path());
    // What this thread starts, and asks, is in its namespace.
    let composed = thread::spawn(move || {
        unshare(CloneFlags::CLONE_NEWNET).unwrap();
        run(Command::new("ip").args(["link", "set", "lo", "up"]));
        a_picture_is_read(&folder);
    });
    composed.join().unwrap();
}

/// Builds all four, and leaves each as a file that `docker load` takes.
fn build_images(folder: &Path) {
    let program = std::env::var_os("LABELS_LAYBY").expect("LABELS_LAYBY");
    let layby = || {
        let mut layby = Command::new(&program);
        layby.env("LAYBY_DATA", folder.join("layby"));
        layby
    };
    let mut serve = layby();
    serve.args([
        "serve",
        "--http",
        "127.0.0.1:0",
        "--registry",
        "127.0.0.1:0",
    ]);
    let log = std::fs::File::create(folder.join("layby.log")).unwrap();
    let node = serve.stdout(log.try_clone().unwrap()).stderr(log).spawn();
    let _node = Ended(node.expect("Layby"));
    wait(|| {
        let said = layby().args(["version", "--json"]).output().unwrap().stdout;
        let said: Value = serde_json::from_slice(&said).unwrap_or_default();
        let is_up = said["node"].is_object();
        is_up.then_some(()).ok_or_else(|| said.to_string())
    });
    for service in SERVICES {
        let (image, context) = (format!("labels-{service}:1"), example().join(service));
        run(layby().arg("build").arg(context).args(["-t", &image]));
        let archive = folder.join(service).with_extension("tar");
        run(layby()
            .args(["image", "save", &image, "--format", "docker", "-o"])
            .arg(archive));
    }
    run(layby().args(["node", "stop", "--all"]));
}

/// Runs the stack, uploads one picture, and sees its text.
fn a_picture_is_read(folder: &TempDir) {
    let docker = Docker::start(folder.path());
    for service in SERVICES {
        let archive = folder.path().join(service).with_extension("tar");
        docker.run("docker", |command| {
            command.args(["load", "-i"]).arg(archive)
        });
    }
    let compose = |words: &[&str]| {
        docker.run("docker-compose", |command| {
            command.args(["--project-name", "labels", "--file"]);
            command.arg(example().join("compose.yaml")).args(words)
        })
    };
    let services = compose(&["config", "--services"]);
    let mut services: Vec<&str> = services.lines().collect();
    services.sort_unstable();
    assert_eq!(services, SERVICES);
    compose(&["up", "--detach", "--no-build"]);
    let agent = agent();
    let get = |path: &str| agent.get(format!("{PAGES}{path}")).call();
    wait_for(PATIENCE, || match get("/healthz") {
        Ok(answer) if answer.status() == 200 => Ok(()),
        other => Err(format!("{other:?}; {}", compose(&["logs", "webapp"]))),
    });

    samples::write(&fonts(), folder.path(), 1).unwrap();
    let picture = std::fs::read(folder.path().join("sample-01.png")).unwrap();
    let (boundary, body) = multipart("food", "Ada", &[("label.png", &picture)]);
    let kind = format!("multipart/form-data; boundary={boundary}");
    let upload = agent.post(format!("{PAGES}/upload"));
    let upload = upload.header("accept", "application/json");
    let taken = reply(upload.header("content-type", kind).send(&body[..]));
    assert_eq!(taken.status, 200, "{}", taken.text());
    let sha256 = taken.json()[0]["sha256"].as_str().unwrap().to_owned();
    wait_for(PATIENCE, || {
        let queue = reply(get(&format!("/queue.json?ids={sha256}"))).json();
        match queue["shown"][0]["state"].as_str() {
            Some("to-review") => Ok(()),
            _ => Err(format!("{queue}; {}", compose(&["logs", "mapi", "webapp"]))),
        }
    });
    let page = reply(get(&format!("/pictures/{sha256}"))).text();
    assert!(page.contains("SEA SALT CRACKERS"), "{page}");
    compose(&["down", "--volumes", "--timeout", "1"]);
}

fn example() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// Runs it to its end; what it wrote.
fn run(command: &mut Command) -> String {
    let output = command.stdin(Stdio::null()).output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {said}{complaint}");
    said
}

/// A process that is asked to end when this is dropped.
struct Ended(Child);

impl Drop for Ended {
    fn drop(&mut self) {
        let _ = kill(Pid::from_raw(self.0.id().cast_signed()), Signal::SIGTERM);
        let _ = self.0.wait();
    }
}

/// A dockerd, and whatever runs in it, until this is dropped.
struct Docker {
    host: String,
    _daemon: Ended,
}

impl Docker {
    fn start(folder: &Path) -> Docker {
        let path = |name: &str| folder.join(name);
        let host = format!("unix://{}", path("docker.sock").display());
        let log = std::fs::File::create(path("dockerd.log")).unwrap();
        let mut daemon = Command::new("dockerd");
        daemon.args(["--storage-driver", "overlay2", "--host", &host]);
        for (option, name) in [
            ("--data-root", "docker"),
            ("--exec-root", "exec"),
            ("--pidfile", "pid"),
        ] {
            daemon.arg(option).arg(path(name));
        }
        let daemon = daemon.stdout(log.try_clone().unwrap()).stderr(log).spawn();
        let docker = Docker {
            host,
            _daemon: Ended(daemon.expect("dockerd")),
        };
        wait(|| {
            let mut version = Command::new("docker");
            let version = version.env("DOCKER_HOST", &docker.host).arg("version");
            let output = version.output().unwrap();
            let log = || std::fs::read_to_string(path("dockerd.log")).unwrap();
            output.status.success().then_some(()).ok_or_else(log)
        });
        docker
    }

    fn run(&self, program: &str, arguments: impl FnOnce(&mut Command) -> &mut Command) -> String {
        let mut command = Command::new(program);
        command.env("DOCKER_HOST", &self.host);
        run(arguments(&mut command))
    }
}

impl Drop for Docker {
    fn drop(&mut self) {
        // Also when the test has failed: nothing of it goes on.
        let mut list = Command::new("docker");
        let list = list.env("DOCKER_HOST", &self.host).args(["ps", "--quiet"]);
        let output = list
            .output()
            .map(|output| output.stdout)
            .unwrap_or_default();
        let ids = String::from_utf8_lossy(&output);
        let mut remove = Command::new("docker");
        remove
            .env("DOCKER_HOST", &self.host)
            .args(["rm", "--force"]);
        let _ = remove.args(ids.lines()).output();
    }
}
