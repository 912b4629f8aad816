//! kill -9 of the node: containers go on, and the next start finds them.

use crate::apps::{App, WEB};
use crate::node::{Node, is_root};

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
    node.run(&[
        "deploy",
        "web",
        "--env",
        "BOOT_MS=1500",
        "--env",
        "GREETING=moon",
        "--detach",
    ])
    .ok();
    node.kill();
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
