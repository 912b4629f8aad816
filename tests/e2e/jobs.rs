//! Jobs and one-off commands with real containers: what they pass on, and what they leave.

use std::fs;
use std::path::Path;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use crate::apps::App;
use crate::node::{Node, is_root, run_dir};

/// A service, and a job that finds it by its name and eats more memory than it may have.
const SHOP: &str = "\
name: shop
services:
  web:
    build: .
    image: shop-web:1
    environment: {LEVEL: low}
  glutton:
    build: .
    image: shop-web:1
    command: [eat]
    mem_limit: 32m
    x-layby: {schedule: '@yearly'}
";

/// The runs of a job or a service, the newest first.
fn runs(node: &Node, name: &str) -> Value {
    node.run(&["job", "runs", name, "--json"]).ok().json()
}

/// What there is of replicas: their bundles, and the places of their shims and networks.
fn places(node: &Node) -> usize {
    let count = |dir: &Path| fs::read_dir(dir).map_or(0, Iterator::count);
    let run = run_dir(node.data.path());
    count(&node.data.path().join("replicas"))
        + count(&run.join("shims"))
        + count(&run.join("netns"))
}

/// Whether some process has this command line.
fn is_executed(words: &[u8]) -> bool {
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    let lines = processes.map(|process| fs::read(process.path().join("cmdline")));
    lines.flatten().any(|line| line == words)
}

#[test]
fn a_command_beside_a_sleeping_service_passes_its_exit_code_on_and_leaves_nothing() {
    if !is_root() {
        return;
    }
    let mut node = Node::start();
    let app = App::compose(SHOP);
    node.run_in(app.path(), &["up"])
        .ok()
        .says("shop/glutton  job, scheduled");
    node.run(&["sleep", "web"]).ok();
    let alone = places(&node);
    let said = node
        .run(&["run", "-e", "LEVEL=high", "web", "--", "/web", "env"])
        .ok();
    assert!(said.out.contains("LEVEL=high\n"), "{}", said.out);
    node.run(&["run", "web", "--", "/web", "exit", "7"])
        .exits(7)
        .says("about to exit with 7");
    node.run(&["run", "web", "--", "/nope"])
        .exits(127)
        .says("/nope");
    node.run(&["run", "--timeout", "1s", "web", "--", "/web", "mute"])
        .exits(124)
        .says("too long");

    // Ctrl-C ends it.
    let mut command = node.command(Path::new("/"), &["run", "web", "--", "/web", "mute"]);
    let mut child = command.spawn().expect("layby runs");
    node.wait_for("the run to go on", |node| runs(node, "web")[0]["run"] == 5);
    let pid = Pid::from_raw(i32::try_from(child.id()).expect("a number"));
    // It may not have taken the signal over yet, and where the tests run in the background it is ignored until then.
    let code = loop {
        kill(pid, Signal::SIGINT).expect("interrupted");
        std::thread::sleep(std::time::Duration::from_millis(200));
        if let Some(status) = child.try_wait().expect("a child") {
            break status.code();
        }
    };
    assert!(matches!(code, Some(130) | None), "{code:?}");
    node.wait_for("it to be stopped", |node| {
        runs(node, "web")[0]["state"] == "stopped"
    });

    // What runs by itself outlives the node.
    node.run(&["run", "--detach", "web", "--", "/web", "last", "1511"])
        .ok();
    // One whose container is not there yet when the node is killed has failed.
    node.wait_for("it to run", |_| is_executed(b"/web\0last\x001511\0"));
    node.kill();
    node.serve();
    node.wait_for("it to succeed", |node| {
        runs(node, "web")[0]["state"] == "succeeded"
    });
    assert_eq!(
        runs(&node, "web")[0]["attempts"].as_array().map(Vec::len),
        Some(1)
    );
    let web = node.status("web");
    assert_eq!(
        (&web["wakefulness"], &web["revision"]),
        (&"asleep".into(), &1.into())
    );

    node.run(&["job", "run", "glutton"])
        .exits(137)
        .says("out of its memory");
    let run = &runs(&node, "glutton")[0];
    assert_eq!(
        (
            &run["exit"]["oom"],
            run["attempts"].as_array().map(Vec::len)
        ),
        (&true.into(), Some(1))
    );
    node.run(&["logs", "glutton"]).ok();
    node.wait_for("all of it to be gone", |node| places(node) == alone);
    node.run(&["down", "shop"])
        .ok()
        .says("shop/glutton  removed");
    assert_eq!(places(&node), 0);
    assert!(!node.data.path().join("jobs/shop").exists());
}
