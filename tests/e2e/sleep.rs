//! Dozing, sleeping and waking: by command, by waiting, by a request.

use std::collections::BTreeSet;

use crate::apps::{App, WEB};
use crate::node::{Node, get, is_root};

#[test]
fn a_dozing_service_answers_from_the_same_process() {
    if !is_root() {
        return;
    }
    let node = Node::start();
    let app = App::compose(WEB);
    node.run_in(app.path(), &["up"]).ok();
    let pids = node.pids("web");
    node.run(&["doze", "web"]).ok().says("RUNNING, dozing");
    assert_eq!(node.pids("web"), pids);
    assert_eq!(node.get("web.shop.localhost", "/").body, "hello world");
    assert_eq!(node.pids("web"), pids);
    node.wait_until("web", "awake");
    let status = node.status("web");
    assert_eq!(status["last_wake"]["from"], "dozing");
    assert!(status["last_wake"]["held_ms"].is_number(), "{status}");
}

#[test]
fn a_sleeping_service_has_no_process_and_answers_from_a_new_one() {
    if !is_root() {
        return;
    }
    let node = Node::start();
    let app = App::compose(WEB);
    node.run_in(app.path(), &["up"]).ok();
    let pids = node.pids("web");
    node.run(&["sleep", "web"]).ok().says("RUNNING, asleep");
    assert_eq!(node.pids("web"), Vec::<i64>::new());
    let published = (node.publish_on, 8100).into();
    assert_eq!(
        get(published, "any", "/").expect("an answer").body,
        "hello world"
    );
    node.wait_until("web", "awake");
    assert_ne!(node.pids("web"), pids);
    assert_eq!(node.status("web")["last_wake"]["from"], "asleep");

    // Down the ladder and up again by command.
    node.run(&["doze", "web"]).ok();
    node.run(&["sleep", "web"]).ok().says("asleep");
    node.run(&["wake", "web"]).ok().says("RUNNING, awake");
}

#[test]
fn waiting_puts_it_to_doze_then_to_sleep_and_a_request_wakes_it() {
    if !is_root() {
        return;
    }
    let node = Node::start();
    let app = App::compose(&WEB.replace(
        "doze_after: never, sleep_after: never",
        "doze_after: 1s, sleep_after: 8s",
    ));
    node.run_in(app.path(), &["up"]).ok();
    node.wait_until("web", "dozing");
    node.wait_until("web", "asleep");
    assert_eq!(node.get("web.shop.localhost", "/").body, "hello world");
    node.wait_until("web", "dozing");
    assert_eq!(node.get("web.shop.localhost", "/").body, "hello world");
}

#[test]
fn a_crowd_at_a_sleeping_service_is_answered_each_once() {
    if !is_root() {
        return;
    }
    let node = Node::start();
    let app = App::compose(WEB);
    node.run_in(app.path(), &["up"]).ok();
    let gateway = node.gateway();
    for depth in ["sleep", "doze"] {
        let before: u64 = node
            .get("web.shop.localhost", "/count")
            .body
            .parse()
            .expect("a number");
        node.run(&[depth, "web"]).ok();
        let before = if depth == "sleep" { 0 } else { before };
        let bodies: Vec<String> = std::thread::scope(|scope| {
            let ask = || {
                get(gateway, "web.shop.localhost", "/")
                    .expect("an answer")
                    .body
            };
            let threads: Vec<_> = (0..100).map(|_| scope.spawn(ask)).collect();
            threads
                .into_iter()
                .map(|thread| thread.join().expect("no panic"))
                .collect()
        });
        assert_eq!(
            bodies.iter().collect::<BTreeSet<_>>().len(),
            1,
            "{bodies:?}"
        );
        let after: u64 = node
            .get("web.shop.localhost", "/count")
            .body
            .parse()
            .expect("a number");
        assert_eq!(after - before, 100, "after {depth}");
    }
}

#[test]
fn a_request_in_flight_keeps_it_awake() {
    if !is_root() {
        return;
    }
    let node = Node::start();
    let app = App::compose(WEB);
    node.run_in(app.path(), &["up"]).ok();
    let gateway = node.gateway();
    let slow = std::thread::spawn(move || get(gateway, "web.shop.localhost", "/slow?1500"));
    node.wait_for("the request to be under way", |node| {
        node.get("web.shop.localhost", "/started").body == "1"
    });
    node.run(&["sleep", "web"]).ok();
    assert_eq!(
        slow.join().expect("no panic").expect("an answer").body,
        "slow"
    );
}

#[test]
fn one_that_takes_a_request_at_a_time_gets_replicas_for_a_crowd_and_gives_them_back() {
    if !is_root() {
        return;
    }
    let node = Node::start();
    let app = App::compose(&WEB.replace(
        "sleep: {doze_after: never, sleep_after: never}",
        "sleep: {doze_after: never, sleep_after: 6s}, \
         scale: {max: 4, concurrency: 1, stable_window: 2s, panic_window: 1s}",
    ));
    node.run_in(app.path(), &["up"]).ok();
    let gateway = node.gateway();
    let wanted = |node: &Node| node.status("web")["replicas_wanted"].as_u64();
    std::thread::scope(|scope| {
        let ask = || get(gateway, "web.shop.localhost", "/slow?1000").expect("an answer");
        let crowd: Vec<_> = (0..8).map(|_| scope.spawn(ask)).collect();
        node.wait_for("4 replicas", |node| {
            node.status("web")["replicas_ready"].as_u64() == Some(4)
        });
        for one in crowd {
            assert_eq!(one.join().expect("no panic").status, 200);
        }
    });
    let view = node.run(&["scale", "web", "--json"]).ok().json();
    assert_eq!(view["policy"]["concurrency"], 1);
    node.wait_for("1 replica", |node| wanted(node) == Some(1));
    node.wait_until("web", "asleep");
    assert_eq!(node.pids("web"), Vec::<i64>::new());
    assert_eq!(node.get("web.shop.localhost", "/").body, "hello world");
}
