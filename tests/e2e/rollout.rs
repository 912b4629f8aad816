//! Revisions: replaced without losing a request, and kept where the next one fails.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use crate::apps::{App, WEB};
use crate::node::{Node, get, is_root, run_dir};

#[test]
fn a_new_revision_takes_over_without_losing_a_request() {
    if !is_root() {
        return;
    }
    let node = Node::start();
    let app = App::compose(WEB);
    node.run_in(app.path(), &["up"]).ok();
    let gateway = node.gateway();
    let (stop, answered) = (
        Arc::new(AtomicBool::new(false)),
        Arc::new(AtomicU64::new(0)),
    );
    let clients: Vec<_> = (0..4)
        .map(|_| {
            let (stop, answered) = (Arc::clone(&stop), Arc::clone(&answered));
            std::thread::spawn(move || {
                while !stop.load(Ordering::SeqCst) {
                    let reply = get(gateway, "web.shop.localhost", "/").expect("an answer");
                    assert_eq!(reply.status, 200, "{reply:?}");
                    answered.fetch_add(1, Ordering::SeqCst);
                }
            })
        })
        .collect();
    for (revision, greeting) in [(2, "moon"), (3, "mars"), (4, "sun")] {
        node.run(&["deploy", "web", "--env", &format!("GREETING={greeting}")])
            .ok()
            .says(&format!("revision {revision}"));
        assert_eq!(
            node.get("web.shop.localhost", "/").body,
            format!("hello {greeting}")
        );
    }
    stop.store(true, Ordering::SeqCst);
    clients
        .into_iter()
        .for_each(|client| client.join().expect("no request was lost"));
    assert!(answered.load(Ordering::SeqCst) > 0);
    node.wait_for("the old replicas to go", |node| {
        node.status("web")["replicas"].as_array().map(Vec::len) == Some(1)
    });
}

#[test]
fn a_revision_that_ends_at_once_fails_without_waiting_and_live_is_kept() {
    if !is_root() {
        return;
    }
    let node = Node::start();
    let app = App::compose(WEB);
    node.run_in(app.path(), &["up"]).ok();
    let pids = node.pids("web");
    app.write(
        "compose.yaml",
        &WEB.replace("build: .", "build: .\n    command: [exit, \"9\"]"),
    );
    let failed = node.run_in(app.path(), &["up"]).exits(3);
    failed
        .says("about to exit with 9")
        .says("exit code: 9")
        .says("revision 1 serves on");
    assert_eq!(node.get("web.shop.localhost", "/").body, "hello world");
    assert_eq!(node.pids("web"), pids);
}

#[test]
fn a_first_revision_that_fails_says_why() {
    if !is_root() {
        return;
    }
    let node = Node::start();
    let app = App::compose(&WEB.replace("build: .", "build: .\n    command: [exit, \"9\"]"));
    node.run_in(app.path(), &["up"])
        .exits(1)
        .says("about to exit with 9");
    let status = node.status("web");
    assert_eq!(status["state"], "READY");
    assert_eq!(node.get("web.shop.localhost", "/").status, 503);
    // And it can be mended.
    app.write("compose.yaml", WEB);
    node.run_in(app.path(), &["up"]).ok().says("live");
}

#[test]
fn one_that_never_gets_ready_shows_what_its_probe_was_told() {
    if !is_root() {
        return;
    }
    let node = Node::start();
    let app = App::empty();
    app.write(
        "deploy.yaml",
        "\
apiVersion: apps/v1
kind: Deployment
metadata:
  name: mute
  annotations: {layby.dev/build: .}
spec:
  progressDeadlineSeconds: 10
  selector: {matchLabels: {app: mute}}
  template:
    metadata: {labels: {app: mute}}
    spec:
      containers:
      - name: mute
        image: mute:1
        args: [mute]
        ports: [{containerPort: 8000}]
        readinessProbe: {httpGet: {path: /healthz, port: 8000}}
",
    );
    let failed = node.run_in(app.path(), &["up", "--app", "quiet"]).exits(1);
    failed.says("last probe: ").says("refused");
}

#[test]
fn one_that_exceeds_its_memory_is_named_so() {
    if !is_root() {
        return;
    }
    let node = Node::start();
    let app = App::compose(&WEB.replace(
        "build: .",
        "build: .\n    command: [eat]\n    mem_limit: 32m",
    ));
    node.run_in(app.path(), &["up"])
        .exits(1)
        .says("out of memory")
        .says("eating memory");
}

#[test]
fn several_replicas_share_the_work_and_one_that_crashes_is_replaced() {
    if !is_root() {
        return;
    }
    let node = Node::start();
    let app = App::compose(&WEB.replace("build: .", "build: .\n    deploy: {replicas: 3}"));
    node.run_in(app.path(), &["up"]).ok();
    let mut pids = node.pids("web");
    pids.sort_unstable();
    assert_eq!(pids.len(), 3);
    let _ = get(node.gateway(), "web.shop.localhost", "/crash");
    node.wait_for("three replicas again", |node| {
        let mut now = node.pids("web");
        now.sort_unstable();
        now.len() == 3 && now != pids && node.status("web")["replicas_ready"] == 3
    });
    assert_eq!(node.get("web.shop.localhost", "/").body, "hello world");
}

#[test]
fn a_rollback_brings_the_old_image_back_and_a_disabled_service_leaves_nothing_that_runs() {
    if !is_root() {
        return;
    }
    let mut node = Node::start();
    let app = App::compose(WEB);
    node.run_in(app.path(), &["up"]).ok();
    // The same name, and another image behind it.
    let dockerfile = std::fs::read_to_string(app.path().join("Dockerfile")).expect("a file");
    app.write("Dockerfile", &format!("{dockerfile}ENV GREETING=moon\n"));
    node.run_in(app.path(), &["up"]).ok().says("revision 2");
    let said = |node: &Node| node.get("web.shop.localhost", "/").body;
    assert_eq!(said(&node), "hello moon");
    node.run(&["rollback", "web"]).ok().says("live, revision 3");
    assert_eq!(said(&node), "hello world");
    node.run(&["diff", "web", "1"]).ok().says("are the same");
    node.run(&["history", "web"])
        .ok()
        .says("rolled back to revision 1");

    node.run(&["disable", "web"]).ok().says("DISABLED");
    assert_eq!(node.pids("web"), [] as [i64; 0]);
    let shims = run_dir(node.data.path()).join("shims");
    node.wait_for("its shim to go", |_| {
        std::fs::read_dir(&shims).map_or(0, Iterator::count) == 0
    });
    node.kill();
    node.serve();
    let refused = node.get("web.shop.localhost", "/");
    assert_eq!(refused.status, 503);
    assert_eq!(refused.body.trim(), "The service shop/web is disabled.");
    node.run(&["ls"]).ok().says("1 service is disabled");
    node.run(&["enable", "web"]).ok().says("live, revision 3");
    assert_eq!(said(&node), "hello world");
}
