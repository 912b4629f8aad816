//! What ends, and what is done then.

use std::path::Path;
use std::time::Instant;

use crate::apps::App;
use crate::node::{Node, PATIENCE, is_root};

const HOST: &str = "web.shop.localhost";

fn app(more: &str) -> App {
    App::compose(&format!(
        "name: shop\nservices:\n  web:\n    build: .\n    image: shop-web:1\n    {more}\n"
    ))
}

#[test]
fn what_is_not_restarted_refuses_at_once_until_it_is_woken() {
    if !is_root() {
        return;
    }
    let mut node = Node::start();
    node.run_in(app("restart: \"no\"").path(), &["up"]).ok();
    let crash = crate::node::get(node.gateway(), HOST, "/crash");
    assert!(crash.map_or(true, |reply| reply.status >= 500));
    node.wait_until("web", "ended");
    let refuses = |node: &Node| {
        node.wait_for("requests to be refused", |node| {
            let asked = Instant::now();
            let reply = node.get(HOST, "/");
            assert!(asked.elapsed() < PATIENCE / 4, "it was held");
            reply.status == 503 && reply.body.contains("has ended")
        });
    };
    refuses(&node);
    node.run(&["status", "web"])
        .ok()
        .says("exit code 7")
        .says("layby wake");
    // Its files are still there; the next container stands created a moment after the end.
    node.wait_for("its files", |node| {
        let mut cp = node.command(Path::new("/"), &["cp", "web:/web", "-"]);
        cp.output().expect("layby runs").status.success()
    });
    node.kill();
    node.serve();
    refuses(&node);
    node.wait_until("web", "ended");
    node.run(&["node", "stop", "--all"]).ok();
    node.serve();
    refuses(&node);
    node.run(&["status", "web"]).ok().says("exit code 7");
    node.run(&["wake", "web"]).ok().says("awake");
    assert_eq!(node.get(HOST, "/").status, 200);
}

#[test]
fn a_task_that_ends_well_is_live_and_one_that_does_not_fails() {
    if !is_root() {
        return;
    }
    let node = Node::start();
    let good = app("command: [last, \"50\"]\n    restart: on-failure");
    node.run_in(good.path(), &["up"]).ok().says("live");
    node.wait_until("web", "ended");
    let bad = App::compose(
        "name: bad\nservices:\n  job:\n    build: .\n    command: [exit, \"3\"]\n    restart: \"no\"\n",
    );
    node.run_in(bad.path(), &["up"])
        .exits(1)
        .says("exit code 3")
        .says("about to exit with 3");
    node.run(&["ls"]).ok().says("FAILED (revision 1)");
    node.run(&["status", "job"])
        .ok()
        .says("about to exit with 3");
}

#[test]
fn a_helper_that_ends_each_second_costs_no_request_and_is_started_again_alone() {
    if !is_root() {
        return;
    }
    let node = Node::start();
    let app = App::empty();
    node.run_in(self::app("").path(), &["up"]).ok(); // so that its image is there
    app.write(
        "pod.yaml",
        "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: pair, namespace: pods}\nspec:\n  selector: {matchLabels: {app: pair}}\n  \
         template:\n    metadata: {labels: {app: pair}}\n    spec:\n      containers:\n      \
         - {name: main, image: shop-web:1, imagePullPolicy: Never, ports: [{containerPort: 8000}]}\n      \
         - {name: helper, image: shop-web:1, imagePullPolicy: Never, args: [last, \"1000\"]}\n",
    );
    node.run_in(app.path(), &["up", "-f", "pod.yaml"]).ok();
    let gateway = node.gateway();
    let clients = (0..4).map(|_| {
        std::thread::spawn(move || {
            let ask = |_| crate::node::get(gateway, "pair.pods.localhost", "/slow?700");
            (0..5)
                .map(ask)
                .map(|reply| reply.map(|reply| reply.status))
                .collect::<Vec<_>>()
        })
    });
    for client in clients.collect::<Vec<_>>() {
        for status in client.join().expect("no panic") {
            assert_eq!(status.expect("an answer"), 200);
        }
    }
    let status = node.status("pair");
    let restarts = |name: &str| {
        let containers = status["replicas"][0]["containers"]
            .as_array()
            .expect("a list");
        let one = containers.iter().find(|one| one["name"] == name);
        one.and_then(|one| one["restarts"].as_u64())
            .expect("a number")
    };
    assert_eq!(restarts("main"), 0, "{status}");
    assert!(restarts("helper") >= 2, "{status}");
    node.run(&["events"]).ok().says("started again, alone");
}

#[test]
fn a_pod_whose_sidecar_dies_at_once_does_not_go_live() {
    if !is_root() {
        return;
    }
    let node = Node::start();
    let app = App::empty();
    node.run_in(self::app("").path(), &["up"]).ok(); // so that its image is there
    app.write(
        "pod.yaml",
        "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: pair}\nspec:\n  selector: {matchLabels: {app: pair}}\n  \
         template:\n    metadata: {labels: {app: pair}}\n    spec:\n      containers:\n      \
         - {name: main, image: shop-web:1, imagePullPolicy: Never, ports: [{containerPort: 8000}]}\n      \
         - {name: side, image: shop-web:1, imagePullPolicy: Never, args: [last, \"150\"]}\n",
    );
    node.run_in(app.path(), &["up", "-f", "pod.yaml", "--app", "pods"])
        .exits(1)
        .says("side ended with exit code 0");
}
