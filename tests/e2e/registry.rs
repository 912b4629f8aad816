//! The embedded registry as its users meet it: with skopeo, buildah, podman and docker, and with pushes that deploy.

use std::fs;
use std::io::Write;
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::apps::{App, WEB};
use crate::node::{Answer, Node, PATIENCE, is_root};

const PUSHED: &str = "\
name: shop
services:
  web:
    image: registry/team/web:1
    x-layby: {deploy_on_push: true, sleep: {doze_after: never, sleep_after: never}}
";

/// Whether a tool is there; says so if not. In CI it has to be.
fn has(tool: &str) -> bool {
    let found = Command::new(tool)
        .arg("--version")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok();
    assert!(
        found || std::env::var_os("CI").is_none(),
        "{tool} is missing"
    );
    if !found {
        println!("SKIPPED: {tool} is missing");
    }
    found
}

/// A node with a token, and tools whose own files are in a folder that goes with it.
struct World {
    node: Node,
    registry: SocketAddr,
    secret: String,
    own: TempDir,
}

impl World {
    fn new() -> Self {
        let node = Node::start();
        let version = node.run(&["version", "--json"]).ok().json();
        let registry = version["node"]["registry"].as_str();
        let registry = registry.and_then(|text| text.parse().ok());
        let made = node
            .run(&["token", "create", "ci", "--push", "--pull"])
            .ok();
        Self {
            registry: registry.expect("an address"),
            secret: made.out.trim().to_owned(),
            own: tempfile::Builder::new()
                .prefix("lyr-")
                .tempdir()
                .expect("a temporary directory"),
            node,
        }
    }

    fn login(&self) -> String {
        format!("ci:{}", self.secret)
    }

    fn at(&self, name: &str) -> String {
        format!("docker://{}/{name}", self.registry)
    }

    fn path(&self, name: &str) -> String {
        self.own.path().join(name).display().to_string()
    }

    /// Runs a tool, whose files are the test's own.
    fn tool(&self, tool: &str, args: &[&str]) -> Answer {
        let output = self.command(tool).args(args).output();
        let mut all = vec![tool];
        all.extend(args);
        Answer::new(&all, &output.expect("it runs"))
    }

    fn command(&self, tool: &str) -> Command {
        let mut command = Command::new(tool);
        command
            .stdin(Stdio::null())
            .current_dir(self.own.path())
            .env("HOME", self.own.path())
            .env("TMPDIR", self.own.path())
            .env("DOCKER_CONFIG", self.own.path())
            .env("REGISTRY_AUTH_FILE", self.own.path().join("auth.json"));
        command
    }

    /// Buildah or podman, with storage of the test's own.
    fn stored(&self, tool: &str, args: &[&str]) -> Answer {
        let (root, run) = (self.path("root"), self.path("run"));
        let mut all = vec![
            "--root",
            &root,
            "--runroot",
            &run,
            "--storage-driver",
            "vfs",
        ];
        all.extend(args);
        self.tool(tool, &all)
    }

    /// The web program as an archive that says `greeting`.
    fn archive(&self, greeting: &str) -> String {
        let app = App::compose(WEB);
        let dockerfile = format!(
            "FROM scratch\nCOPY web /web\nENV GREETING={greeting}\nSTOPSIGNAL SIGKILL\nEXPOSE 8000\nENTRYPOINT [\"/web\"]\n"
        );
        app.write("Dockerfile", &dockerfile);
        self.node
            .run_in(app.path(), &["up", "--app", greeting])
            .ok();
        let file = self.path(&format!("{greeting}.tar"));
        self.node
            .run(&["image", "save", "shop-web:1", "-o", &file])
            .ok();
        self.node.run(&["down", greeting]).ok();
        format!("oci-archive:{file}")
    }

    fn skopeo_push(&self, archive: &str, name: &str) -> Answer {
        let (login, to) = (self.login(), self.at(name));
        let args = [
            "copy",
            "--dest-tls-verify=false",
            "--dest-creds",
            &login,
            archive,
            &to,
        ];
        self.tool("skopeo", &args)
    }
}

#[test]
fn what_skopeo_pushes_is_deployed_when_its_tag_moves() {
    if !is_root() || !has("skopeo") {
        return;
    }
    let world = World::new();
    let (moon, mars) = (world.archive("moon"), world.archive("mars"));
    world.skopeo_push(&moon, "team/web:1").ok();
    let app = App::compose(PUSHED);
    world.node.run_in(app.path(), &["up"]).ok();
    assert_eq!(world.node.get("web.shop.localhost", "/").body, "hello moon");

    world.skopeo_push(&mars, "team/web:1").ok();
    world
        .node
        .run(&["deploy", "web", "--follow"])
        .ok()
        .says("ci pushed registry.localhost/team/web:1");
    assert_eq!(world.node.get("web.shop.localhost", "/").body, "hello mars");

    // What is pushed again as it is moves nothing; and what comes back is what was pushed.
    world.skopeo_push(&mars, "team/web:1").ok();
    world.node.run(&["deploy", "web", "--follow"]).ok();
    assert_eq!(world.node.status("web")["revision"], 2);
    let (login, from) = (world.login(), world.at("team/web:1"));
    let back = format!("oci:{}", world.path("back"));
    let args = [
        "copy",
        "--src-tls-verify=false",
        "--src-creds",
        &login,
        &from,
        &back,
    ];
    world.tool("skopeo", &args).ok();
}

#[test]
fn what_is_built_or_tagged_here_under_a_name_of_the_registry_is_pushed_there() {
    if !is_root() || !has("skopeo") {
        return;
    }
    let world = World::new();
    let (login, back) = (world.login(), format!("oci:{}", world.path("back")));
    let pull = |name: &str| {
        let from = world.at(name);
        let how = ["copy", "--src-tls-verify=false", "--src-creds", &login];
        world.tool("skopeo", &[&how[..], &[&from, &back]].concat())
    };
    let app = App::compose(&PUSHED.replace("image:", "build: .\n    image:"));
    let say = |greeting: &str| {
        let dockerfile = format!(
            "FROM scratch\nCOPY web /web\nENV GREETING={greeting}\nSTOPSIGNAL SIGKILL\nEXPOSE 8000\nENTRYPOINT [\"/web\"]\n"
        );
        app.write("Dockerfile", &dockerfile);
    };
    say("moon");
    world.node.run_in(app.path(), &["up"]).ok();
    let web = || world.node.get("web.shop.localhost", "/").body;
    assert_eq!(web(), "hello moon");
    world.node.run(&["status", "web"]).ok().says("layby up");
    pull("team/web:1").ok();

    say("mars");
    let build = [
        "build",
        ".",
        "-t",
        "localhost/mars",
        "-t",
        "registry/team/other:1",
    ];
    world.node.run_in(app.path(), &build).ok();
    pull("team/other:1").ok();
    assert_eq!(web(), "hello moon");
    let own = format!("{}/team/web:1", world.registry);
    world
        .node
        .run(&["image", "tag", "localhost/mars", &own])
        .ok();
    world.node.run(&["deploy", "web", "--follow"]).ok();
    assert_eq!(web(), "hello mars");
    let status = world.node.run(&["status", "web"]).ok();
    status.says("root pushed registry.localhost/team/web:1");

    say("venus");
    let build = ["build", ".", "-t", "registry.localhost/team/web:1"];
    world.node.run_in(app.path(), &build).ok();
    world.node.run(&["deploy", "web", "--follow"]).ok();
    assert_eq!(web(), "hello venus");
    world
        .node
        .run(&["image", "rm", "registry/team/other:1"])
        .ok();
    pull("team/other:1").exits(1);
}

#[test]
fn skopeo_is_told_what_is_wrong() {
    if !is_root() || !has("skopeo") {
        return;
    }
    let world = World::new();
    let moon = world.archive("moon");
    let (unknown, login) = (world.at("no/such:1"), world.login());
    let inspect = ["inspect", "--tls-verify=false", "--creds", &login, &unknown];
    world
        .tool("skopeo", &inspect)
        .exits(1)
        .says("manifest unknown");
    let to = world.at("team/web:1");
    for (login, word) in [("ci:wrong", "unauthorized"), ("nobody:x", "unauthorized")] {
        let args = [
            "copy",
            "--dest-tls-verify=false",
            "--dest-creds",
            login,
            &moon,
            &to,
        ];
        world.tool("skopeo", &args).exits(1).says(word);
    }
    let reads = world.node.run(&["token", "create", "reader"]).ok();
    let login = format!("reader:{}", reads.out.trim());
    let args = [
        "copy",
        "--dest-tls-verify=false",
        "--dest-creds",
        &login,
        &moon,
        &to,
    ];
    world.tool("skopeo", &args).exits(1).says("denied");
}

#[test]
fn buildah_and_podman_push_and_pull() {
    if !is_root() || !has("buildah") || !has("podman") {
        return;
    }
    let world = World::new();
    let registry = world.registry.to_string();
    let image = format!("{registry}/team/app:1");
    fs::write(
        world.own.path().join("Dockerfile"),
        "FROM scratch\nCOPY Dockerfile /it\nCMD [\"/it\"]\n",
    )
    .expect("a file");
    let folder = world.path("");
    world
        .stored("buildah", &["bud", "-q", "-t", &image, &folder])
        .ok();
    let login = ["login", "--tls-verify=false", "-u", "ci", "-p"];
    let wrong = [&login[..], &["wrong", registry.as_str()]].concat();
    world
        .stored("buildah", &wrong)
        .exits(125)
        .says("invalid username/password");
    let right = [&login[..], &[world.secret.as_str(), registry.as_str()]].concat();
    world.stored("buildah", &right).ok();
    for (tool, format) in [("buildah", "oci"), ("buildah", "v2s2"), ("podman", "oci")] {
        let push = ["push", "--tls-verify=false", "--format", format, &image];
        world.stored(tool, &push).ok();
        let stored = world.node.run(&["image", "ls"]).ok();
        stored.says("registry.localhost/team/app:1");
        world.stored(tool, &["rmi", "-f", &image]).ok();
        world
            .stored(tool, &["pull", "--tls-verify=false", &image])
            .ok();
    }
}

#[test]
fn docker_logs_in_pushes_and_pulls() {
    if !is_root() || !has("dockerd") || !has("docker") || !has("skopeo") {
        return;
    }
    let world = World::new();
    let moon = world.archive("moon");
    let daemon = Dockerd::start(&world);
    let archive = format!("docker-archive:{}:web:1", world.path("docker.tar"));
    world.tool("skopeo", &["copy", &moon, &archive]).ok();
    daemon
        .docker(&["load", "-i", &world.path("docker.tar")])
        .ok();
    let image = format!("{}/docker/web:1", world.registry);
    daemon.docker(&["tag", "web:1", &image]).ok();
    daemon
        .docker(&["push", &image])
        .exits(1)
        .says("no basic auth");
    let registry = world.registry.to_string();
    let login = |secret: &str| {
        let args = ["login", "-u", "ci", "-p", secret, &registry];
        daemon.docker(&args)
    };
    login("wrong").exits(1).says("401 Unauthorized");
    login(&world.secret).ok();
    daemon
        .docker(&["push", &image])
        .ok()
        .says("digest: sha256:");
    daemon.docker(&["rmi", &image, "web:1"]).ok();
    daemon.docker(&["pull", &image]).ok();
    let none = format!("{registry}/docker/none:1");
    daemon
        .docker(&["pull", &none])
        .exits(1)
        .says("manifest unknown");
    let stored = world.node.run(&["image", "ls"]).ok();
    stored.says("registry.localhost/docker/web:1");
}

/// Docker's daemon in a network namespace of its own, where a thread passes the registry's port on.
struct Dockerd<'a> {
    world: &'a World,
    child: Child,
    host: String,
}

impl<'a> Dockerd<'a> {
    fn start(world: &'a World) -> Self {
        let host = format!("unix://{}", world.path("d.sock"));
        let log = fs::File::create(world.own.path().join("dockerd.log")).expect("a file");
        let script = format!(
            "ip link set lo up && exec dockerd --iptables=false --bridge=none --storage-driver vfs --host {host} \
             --data-root {} --exec-root {} --pidfile {}",
            world.path("data"),
            world.path("exec"),
            world.path("pid")
        );
        let child = world
            .command("unshare")
            .args(["--net", "sh", "-c", &script])
            .stdout(log.try_clone().expect("a second handle"))
            .stderr(log)
            .spawn();
        let daemon = Self {
            world,
            child: child.expect("unshare runs"),
            host,
        };
        let started = Instant::now();
        while daemon.docker(&["version"]).code != 0 {
            let log = || fs::read_to_string(world.path("dockerd.log")).unwrap_or_default();
            assert!(
                started.elapsed() < PATIENCE,
                "dockerd does not answer: {}",
                log()
            );
            thread::sleep(Duration::from_millis(50));
        }
        let space = format!("/proc/{}/ns/net", daemon.child.id());
        pass_on(Path::new(&space), world.registry);
        daemon
    }

    fn docker(&self, args: &[&str]) -> Answer {
        let mut all = vec!["--host", self.host.as_str()];
        all.extend(args);
        self.world.tool("docker", &all)
    }
}

impl Drop for Dockerd<'_> {
    fn drop(&mut self) {
        // It takes its own containerd down with it, if it is asked to.
        let pid = nix::unistd::Pid::from_raw(self.child.id().cast_signed());
        let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM);
        let started = Instant::now();
        while matches!(self.child.try_wait(), Ok(None)) && started.elapsed() < PATIENCE {
            thread::sleep(Duration::from_millis(20));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Listens on the same port of 127.0.0.1 inside a network namespace, and passes connections on to `to` outside.
fn pass_on(namespace: &Path, to: SocketAddr) {
    let namespace = fs::File::open(namespace).expect("a namespace");
    let (inside, connections) = mpsc::channel::<TcpStream>();
    let (ready, listens) = mpsc::channel();
    // The thread stays in the namespace; its sockets would work from anywhere, so others pump.
    thread::spawn(move || {
        nix::sched::setns(namespace, nix::sched::CloneFlags::CLONE_NEWNET).expect("to enter it");
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, to.port())).expect("a free port");
        ready.send(()).expect("the test waits");
        for stream in listener.incoming().flatten() {
            if inside.send(stream).is_err() {
                return;
            }
        }
    });
    listens.recv_timeout(PATIENCE).expect("it listens");
    thread::spawn(move || {
        for inner in connections {
            let outer = TcpStream::connect(to).expect("the registry");
            let ends = [(&inner, &outer), (&outer, &inner)];
            for (from, to) in ends {
                let from = from.try_clone().expect("a second handle");
                let to = to.try_clone().expect("a second handle");
                thread::spawn(move || pump(from, to));
            }
        }
    });
}

fn pump(mut from: TcpStream, mut to: TcpStream) {
    let _ = std::io::copy(&mut from, &mut to);
    let _ = to.flush();
    let _ = to.shutdown(Shutdown::Write);
}
