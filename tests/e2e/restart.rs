//! kill -9 of the node: containers go on, and the next start finds them.

use std::fs;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use crate::apps::{App, WEB};
use crate::bad_input::SmallDisk;
use crate::node::{Answer, Node, is_root, run_dir};

#[test]
fn containers_outlive_the_node_and_are_found_again() {
    if !is_root() {
        return;
    }
    let mut node = Node::start();
    let app = App::compose(WEB);
    node.run_in(app.path(), &["up"]).ok();
    let pids = node.pids("web");
    node.kill();
    for pid in &pids {
        assert!(
            std::path::Path::new(&format!("/proc/{pid}")).exists(),
            "process {pid} ended with the node"
        );
    }
    node.serve();
    assert_eq!(node.get("web.shop.localhost", "/").body, "hello world");
    assert_eq!(node.pids("web"), pids);

    // Dozing over a restart, too.
    node.run(&["doze", "web"]).ok();
    node.kill();
    node.serve();
    assert_eq!(node.get("web.shop.localhost", "/").body, "hello world");
    assert_eq!(node.pids("web"), pids);
}

#[test]
fn a_rollout_cut_by_the_nodes_death_is_finished_by_the_next_start() {
    if !is_root() {
        return;
    }
    let mut node = Node::start();
    let app = App::compose(WEB);
    node.run_in(app.path(), &["up"]).ok();
    let args = [
        "deploy",
        "web",
        "--env",
        "BOOT_MS=1500",
        "--env",
        "GREETING=moon",
    ];
    let mut deploy = node.command(std::path::Path::new("/"), &args);
    deploy.stdout(Stdio::piped()).stderr(Stdio::piped());
    let deploy = deploy.spawn().expect("layby runs");
    node.wait_for("it to roll", |node| {
        node.status("web")["state"] == "UPDATING"
    });
    node.kill();
    let cut = deploy.wait_with_output().expect("it ends");
    Answer::new(&args, &cut)
        .exits(1)
        .says("`layby deploy shop/web --follow`");
    node.serve();
    node.wait_for("revision 2 to be live", |node| {
        node.status("web")["revision"] == 2
    });
    node.wait_for("revision 1 to be gone", |node| {
        node.status("web")["replicas"].as_array().map(Vec::len) == Some(1)
    });
    assert_eq!(node.get("web.shop.localhost", "/").body, "hello moon");
}

#[test]
fn node_stop_keeps_containers_and_with_all_ends_them() {
    if !is_root() {
        return;
    }
    let mut node = Node::start();
    let app = App::compose(WEB);
    node.run_in(app.path(), &["up"]).ok();
    let pids = node.pids("web");
    node.run(&["node", "stop"])
        .ok()
        .says("its containers go on");
    node.run(&["ls"]).exits(4).says("no node runs");
    let alive = |pid: &i64| std::path::Path::new(&format!("/proc/{pid}")).exists();
    assert!(pids.iter().all(alive));
    node.serve();
    assert_eq!(node.pids("web"), pids);
    node.run(&["node", "stop", "--all"]).ok();
    assert!(!pids.iter().any(alive));
}

#[test]
fn a_node_in_the_background_is_started_as_the_environment_says() {
    if !is_root() {
        return;
    }
    let data = tempfile::tempdir().expect("a temporary directory");
    let node = Node::not_started(data);
    let app = App::compose(
        "name: shop\nservices:\n  web:\n    build: .\n    image: shop-web:1\n    privileged: true\n",
    );
    let up = |allowed: &str| {
        let output = node
            .command(app.path(), &["up"])
            .env("LAYBY_HTTP", "127.0.0.1:0")
            .env("LAYBY_REGISTRY", "127.0.0.1:0")
            .env("LAYBY_PUBLISH_ON", node.publish_on.to_string())
            .env("LAYBY_ALLOW_PRIVILEGED", allowed)
            .output();
        Answer::new(&["up"], &output.expect("layby runs"))
    };
    up("false").exits(1).says("--allow-privileged");
    node.run(&["node", "stop"]).ok();
    up("true").ok().says("Started a node").says("live");
    // What the machine itself has, and not Docker's fourteen.
    let bounds = |status: &str| {
        let mut lines = status.lines();
        lines
            .find(|line| line.starts_with("CapBnd:"))
            .map(str::to_owned)
    };
    let inside = bounds(&node.get("web.shop.localhost", "/whoami").body);
    let outside = fs::read_to_string("/proc/self/status").expect("read");
    assert_eq!(inside, bounds(&outside));
}

#[test]
fn a_node_comes_up_again_on_a_full_disk_and_what_ran_goes_on() {
    if !is_root() {
        return;
    }
    let small = SmallDisk::mount("40m");
    let mut node = Node::start_on(small.folder());
    let app = App::compose(WEB);
    node.run_in(app.path(), &["up"]).ok();
    let pids = node.pids("web");
    node.wait_for("the reserve", |node| {
        node.data.path().join("reserve").exists()
    });
    small.fill();
    node.kill();
    node.serve();
    assert_eq!(node.get("web.shop.localhost", "/").body, "hello world");
    assert_eq!(node.pids("web"), pids);
    small.free();
    node.run(&["deploy", "web", "--env", "GREETING=moon"]).ok();
    assert_eq!(node.get("web.shop.localhost", "/").body, "hello moon");
}

#[test]
fn a_node_killed_at_any_point_of_a_deploy_leaves_nothing_behind() {
    if !is_root() {
        return;
    }
    let mut node = Node::start();
    let app = App::compose(
        "name: shop\nservices:\n  web:\n    build: .\n    image: shop-web:1\n    volumes: [\"data:/data\"]\nvolumes: {data: }\n",
    );
    for round in 0..12_u64 {
        // Another image each time, so that all of it is done anew.
        app.write("noise", &round.to_string());
        app.write(
            "Dockerfile",
            "FROM scratch\nCOPY web noise /\nSTOPSIGNAL SIGKILL\nEXPOSE 8000\nENTRYPOINT [\"/web\"]\n",
        );
        let mut up = node
            .command(app.path(), &["up"])
            .stdout(std::process::Stdio::null())
            .stderr(std::process::Stdio::null())
            .spawn()
            .expect("layby runs");
        // Not a wait for anything: the point at which it is killed.
        std::thread::sleep(Duration::from_millis(20 * round));
        node.kill();
        let _ = up.wait();
        node.serve();
    }
    node.run_in(app.path(), &["up"]).ok();
    assert_eq!(node.get("web.shop.localhost", "/").body, "hello world");
    node.wait_for("one replica to be left", |node| {
        count(&node.data.path().join("replicas")) == 1
    });
    node.run(&["down", "shop", "--volumes"]).ok();
    node.wait_for("all to be gone", |node| {
        let data = node.data.path();
        let folders = ["replicas", "volumes", "steps", "tmp", "images/tmp"];
        folders.iter().all(|folder| count(&data.join(folder)) == 0)
    });
    let run = run_dir(node.data.path());
    for folder in ["shims", "netns"] {
        assert_eq!(count(&run.join(folder)), 0, "{folder}");
    }
    let bundles = node.data.path().join("replicas");
    assert_eq!(processes_of(&bundles), Vec::<String>::new());
}

/// How many entries a folder has; none if it is not there.
fn count(folder: &Path) -> usize {
    fs::read_dir(folder).map_or(0, Iterator::count)
}

/// The processes whose command line names a path in `dir`.
fn processes_of(dir: &Path) -> Vec<String> {
    let all = fs::read_dir("/proc").expect("read").flatten();
    let lines = all.filter_map(|entry| fs::read_to_string(entry.path().join("cmdline")).ok());
    let dir = dir.display().to_string();
    lines.filter(|line| line.contains(&dir)).collect()
}
