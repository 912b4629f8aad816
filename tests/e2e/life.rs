//! The everyday path: up, ls, status, logs, down.

use std::net::SocketAddr;

use crate::apps::{App, WEB};
use crate::node::{Node, get, is_root};

#[test]
fn up_runs_a_service_that_answers_by_name_and_by_port() {
    if !is_root() {
        return;
    }
    let node = Node::start();
    let app = App::compose(WEB);
    let up = node
        .run_in(app.path(), &["up"])
        .ok()
        .says("shop/web  live, revision 1");
    up.says("http://web.shop.localhost")
        .says("curl -H 'Host: web.shop.localhost'");
    assert_eq!(node.get("web.shop.localhost", "/").body, "hello world");
    let published = SocketAddr::new(node.publish_on.into(), 8100);
    assert_eq!(
        get(published, "whatever", "/").expect("an answer").body,
        "hello world"
    );
    assert_eq!(node.get("nobody.localhost", "/").status, 404);

    // The second time nothing changes, and it says so.
    let pids = node.pids("web");
    node.run_in(app.path(), &["up"]).ok().says("unchanged");
    assert_eq!(node.pids("web"), pids);
}

#[test]
fn ls_and_status_say_how_a_service_stands() {
    if !is_root() {
        return;
    }
    let node = Node::start();
    node.run(&["ls"]).ok().says("No services yet");
    let app = App::compose(WEB);
    node.run_in(app.path(), &["up"]).ok();
    let list = node.run(&["ls", "--json"]).ok().json();
    let web = &list[0];
    assert_eq!(
        (web["app"].as_str(), web["service"].as_str()),
        (Some("shop"), Some("web"))
    );
    assert_eq!(
        (web["state"].as_str(), web["wakefulness"].as_str()),
        (Some("RUNNING"), Some("awake"))
    );
    assert_eq!(
        (
            web["replicas_ready"].as_u64(),
            web["replicas_wanted"].as_u64()
        ),
        (Some(1), Some(1))
    );
    assert_eq!(
        (web["revision"].as_u64(), web["image"].as_str()),
        (Some(1), Some("shop-web:1"))
    );
    let url = format!("http://web.shop.localhost:{}", node.gateway().port());
    assert_eq!(
        web["urls"][0].as_str().map(|u| u.trim_end_matches('/')),
        Some(url.as_str())
    );
    node.run(&["ls"]).ok().says("RUNNING, awake");

    let status = node.status("web");
    let container = &status["replicas"][0]["containers"][0];
    let pid = container["pid"].as_i64().expect("a pid");
    assert!(std::path::Path::new(&format!("/proc/{pid}")).exists());
    assert_eq!(container["restarts"], 0);
    node.run(&["status", "shop/web"])
        .ok()
        .says("RUNNING, awake");
    node.run(&["status", "nothing"]).exits(4).says("shop/web");
}

#[test]
fn a_container_is_confined() {
    if !is_root() {
        return;
    }
    let node = Node::start();
    let app = App::compose(WEB);
    node.run_in(app.path(), &["up"]).ok();
    let status = node.get("web.shop.localhost", "/whoami").body;
    let field = |name: &str| {
        let line = status
            .lines()
            .find(|line| line.starts_with(name))
            .unwrap_or_default();
        line.split_once(':')
            .map(|(_, value)| value.trim().to_owned())
            .unwrap_or_default()
    };
    assert_eq!(field("NoNewPrivs"), "1");
    assert_eq!(field("Seccomp"), "2");
    assert_eq!(field("CapBnd"), "00000000a80425fb"); // Docker's fourteen
    assert_eq!(field("Pid"), "1");
}

#[test]
fn logs_are_what_the_service_wrote() {
    if !is_root() {
        return;
    }
    let node = Node::start();
    let app = App::compose(WEB);
    node.run_in(app.path(), &["up"]).ok();
    node.wait_for("the log line", |node| {
        node.run(&["logs", "web"])
            .ok()
            .out
            .contains("listening on 8000")
    });
    let json = node.run(&["logs", "web", "--json", "-n", "1"]).ok().json();
    assert_eq!(
        (json["stream"].as_str(), json["text"].as_str()),
        (Some("stdout"), Some("listening on 8000"))
    );
}

#[test]
fn a_followed_log_goes_on_with_the_next_revision() {
    if !is_root() {
        return;
    }
    let node = Node::start();
    let app = App::compose(WEB);
    node.run_in(app.path(), &["up"]).ok();
    let file = app.path().join("followed");
    let out = std::fs::File::create(&file).expect("a file");
    let mut follow = node
        .command(app.path(), &["logs", "-f", "web"])
        .stdout(out)
        .spawn()
        .expect("layby runs");
    let lines = || {
        std::fs::read_to_string(&file)
            .unwrap_or_default()
            .lines()
            .count()
    };
    node.wait_for("the first revision's line", |_| lines() == 1);
    node.run(&["deploy", "web", "--env", "GREETING=moon"]).ok();
    node.wait_for("the second revision's line", |_| lines() == 2);
    node.run(&["down", "shop"]).ok();
    node.wait_for("the log to end with its service", |_| {
        matches!(follow.try_wait(), Ok(Some(_)))
    });
}

#[test]
fn down_leaves_nothing() {
    if !is_root() {
        return;
    }
    let node = Node::start();
    let app = App::compose(WEB);
    node.run_in(app.path(), &["up"]).ok();
    let pids = node.pids("web");
    node.run(&["down", "shop"]).ok().says("shop/web  removed");
    for pid in pids {
        assert!(
            !std::path::Path::new(&format!("/proc/{pid}")).exists(),
            "process {pid} is still there"
        );
    }
    assert_eq!(
        node.run(&["ls", "--json"]).ok().json(),
        serde_json::json!([])
    );
    let left = std::fs::read_dir(node.data.path().join("replicas")).map_or(0, Iterator::count);
    assert_eq!(left, 0, "replicas are left in the data directory");
    node.run(&["down", "shop"]).exits(4);
    node.run_in(app.path(), &["up"]).ok().says("live");
}

#[test]
fn a_dry_run_shows_the_steps_and_takes_none() {
    if !is_root() {
        return;
    }
    let node = Node::start();
    let app = App::compose(WEB);
    node.run_in(app.path(), &["up"]).ok();
    app.write(
        "compose.yaml",
        &WEB.replace("build: .", "build: .\n    environment: {GREETING: moon}"),
    );
    let dry = node.run_in(app.path(), &["up", "--dry-run"]).ok();
    assert!(dry.out.lines().count() >= 3, "{}", dry.out);
    assert_eq!(node.status("web")["revision"], 1);
    assert_eq!(node.get("web.shop.localhost", "/").body, "hello world");
}

#[test]
fn two_nodes_do_not_touch_each_other() {
    if !is_root() {
        return;
    }
    let (one, two) = (Node::start(), Node::start());
    let app = App::compose(WEB);
    one.run_in(app.path(), &["up"]).ok();
    two.run_in(app.path(), &["up"]).ok();
    let address = |node: &Node| {
        node.status("web")["replicas"][0]["address"]
            .as_str()
            .map(str::to_owned)
    };
    assert_ne!(address(&one), address(&two));
    one.run(&["down", "shop"]).ok();
    assert_eq!(two.get("web.shop.localhost", "/").body, "hello world");
}

#[test]
fn images_are_listed_saved_and_loaded() {
    if !is_root() {
        return;
    }
    let node = Node::start();
    let app = App::compose(WEB);
    node.run_in(app.path(), &["up"]).ok();
    node.run(&["image", "ls"]).ok().says("shop-web:1");
    let archive = app.path().join("shop.tar");
    let archive = archive.to_str().expect("UTF-8");
    node.run(&["image", "save", "shop-web:1", "-o", archive])
        .ok();
    let other = Node::start();
    other
        .run(&["image", "load", archive])
        .ok()
        .says("shop-web:1");
    let digest =
        |node: &Node| node.run(&["image", "ls", "--json"]).ok().json()[0]["digest"].clone();
    assert_eq!(digest(&node), digest(&other));
}
