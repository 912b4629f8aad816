//! What runs before the containers of a sandbox, beside them, after their start and before their stop.

use std::time::{Duration, Instant};

use layby_runtime::client::Client;
use layby_runtime::protocol::Exit;
use layby_runtime::{ContainerConfig, HookConfig, MountConfig, MountFrom, Question, StartupConfig};

use crate::Test;
use crate::rig::{Rig, container, wait_for};

pub(crate) const TESTS: &[Test] = &[
    (
        "what_runs_before_runs_in_order_and_once",
        what_runs_before_runs_in_order_and_once,
    ),
    (
        "what_fails_before_keeps_the_others_from_starting",
        what_fails_before_keeps_the_others_from_starting,
    ),
    (
        "a_start_that_waits_is_ended_by_a_stop",
        a_start_that_waits_is_ended_by_a_stop,
    ),
    (
        "hooks_follow_a_start_and_precede_a_stop",
        hooks_follow_a_start_and_precede_a_stop,
    ),
    (
        "a_hook_after_the_start_that_fails_ends_its_container",
        a_hook_after_the_start_that_fails_ends_its_container,
    ),
    (
        "a_hook_before_the_stop_has_no_more_time_than_its_container",
        a_hook_before_the_stop_has_no_more_time_than_its_container,
    ),
    (
        "a_sidecar_is_there_before_and_after_the_others",
        a_sidecar_is_there_before_and_after_the_others,
    ),
    (
        "the_next_is_started_once_a_sidecar_says_that_it_has",
        the_next_is_started_once_a_sidecar_says_that_it_has,
    ),
    (
        "a_sidecar_that_never_says_so_is_started_again_with_all",
        a_sidecar_that_never_says_so_is_started_again_with_all,
    ),
];

/// A container with a place in memory that all of them share.
fn sharing(name: &str, arguments: &[&str]) -> ContainerConfig {
    let mut config = container(name, arguments);
    config.mounts.push(MountConfig {
        target: "/shared".into(),
        read_only: false,
        copy_up: false,
        source: MountFrom::Memory {
            name: "shared".to_owned(),
            size_bytes: 1 << 20,
        },
    });
    config
}

/// One that leaves `text` in the common file, and ends.
fn leaves(name: &str, text: &str) -> ContainerConfig {
    sharing(name, &["add", "/shared/said", text])
}

fn hook(arguments: &[&str]) -> HookConfig {
    let argv = ["/probe"].iter().chain(arguments);
    HookConfig::Exec {
        argv: argv.map(|word| (*word).to_owned()).collect(),
        env: Vec::new(),
        cwd: None,
        user: None,
        privileged: false,
    }
}

/// What stands in the common file.
fn said(client: &mut Client) -> String {
    let shown = client.exec("web", &["/probe", "cat", "/shared/said"], 30_000);
    shown.expect("exec").output
}

fn what_runs_before_runs_in_order_and_once() {
    let mut rig = Rig::of(vec![sharing("web", &["polite"])]);
    rig.spec.init = vec![leaves("one", "1"), leaves("two", "2")];
    let mut client = rig.started();
    assert_eq!(said(&mut client), "12");
    client.stop().expect("stop");
    let state = client.start().expect("start");
    assert_eq!(said(&mut client), "12", "also after a sleep");
    let well = Some(Exit {
        code: 0,
        oom: false,
    });
    let ends: Vec<_> = state
        .init
        .iter()
        .map(|one| (one.ended, one.last_exit))
        .collect();
    assert_eq!(ends, [(0, well), (0, well)]);
    assert!(!rig.cgroup_file("memory", "one", "").exists());
}

fn what_fails_before_keeps_the_others_from_starting() {
    let mut rig = Rig::of(vec![sharing("web", &["polite"])]);
    rig.spec.init = vec![
        leaves("one", "1"),
        sharing("migrate", &["say-and-exit", "no database", "3"]),
    ];
    let mut client = rig.prepared();
    for times in 1..=2 {
        let error = client.start().expect_err("it does not start");
        assert!(
            !error.fatal() && error.sentence().contains("migrate"),
            "{error:?}"
        );
        let state = client.state().expect("state");
        let ended = state.ended.expect("an end");
        assert_eq!((ended.container.as_str(), ended.exit.code), ("migrate", 3));
        assert_eq!((state.running, state.ended_in_a_row), (false, times));
        assert_eq!(state.init[1].ended, times);
        assert_eq!(state.containers[0].last_exit, None);
    }
    assert_eq!(rig.log("migrate"), ["no database", "no database"]);
    // What has ended well is not run again: there is one line of it, had it written one.
    assert_eq!(client.state().expect("state").init[0].ended, 0);
}

fn a_start_that_waits_is_ended_by_a_stop() {
    let mut rig = Rig::of(vec![sharing("web", &["polite"])]);
    rig.spec.init = vec![sharing("hangs", &["polite"])];
    let mut client = rig.prepared();
    let mut other = rig.client();
    let start = std::thread::spawn(move || client.start());
    wait_for("it to run", || {
        rig.log("hangs").contains(&"ready".to_owned())
    });
    let state = other.stop().expect("stop");
    assert!(!state.running && state.ended.is_none(), "{state:?}");
    let error = start.join().expect("joined").expect_err("it was stopped");
    assert!(error.sentence().contains("stopped"), "{error:?}");
}

fn hooks_follow_a_start_and_precede_a_stop() {
    let mut web = sharing("web", &["serve", "8080"]);
    web.post_start = vec![
        hook(&["add", "/shared/said", "a"]),
        HookConfig::Sleep { ms: 20 },
        HookConfig::Http {
            host: Some([127, 0, 0, 1].into()),
            port: 8080,
            path: "/".to_owned(),
            headers: Vec::new(),
        },
    ];
    web.pre_stop = vec![
        hook(&["exit", "1"]),
        HookConfig::Sleep { ms: 20 },
        hook(&["add", "/shared/said", "z"]),
    ];
    let rig = Rig::of(vec![web, leaves_and_stays("b")]);
    let mut client = rig.prepared();
    // Nobody may listen yet when it is asked; then it is to be started once more.
    wait_for("it to start", || client.start().is_ok());
    wait_for("the second", || said(&mut client).ends_with("ab"));
    client.stop().expect("stop");
    wait_for("it to start", || client.start().is_ok());
    assert!(said(&mut client).contains("bz"), "{}", said(&mut client));
}

/// One that leaves `text` in the common file when it starts, by its hook, and stays.
fn leaves_and_stays(text: &str) -> ContainerConfig {
    let mut config = sharing("other", &["polite"]);
    config.post_start = vec![hook(&["add", "/shared/said", text])];
    config
}

fn a_hook_after_the_start_that_fails_ends_its_container() {
    for (hook, why) in [
        (hook(&["say-and-exit", "no luck", "7"]), "exit code 7"),
        (
            HookConfig::Http {
                host: None,
                port: 9,
                path: "/".to_owned(),
                headers: Vec::new(),
            },
            "http://127.0.0.1:9/",
        ),
    ] {
        let mut rig = Rig::one(&["polite"], |web| web.post_start = vec![hook]);
        rig.spec.hosts.clear();
        let mut client = rig.prepared();
        let error = client.start().expect_err("it does not start").sentence();
        assert!(error.contains("web") && error.contains(why), "{error}");
        let state = client.state().expect("state");
        assert!(!state.running && state.containers[0].pid.is_none());
        assert_eq!(state.ended.expect("an end").container, "web");
        if why.starts_with("exit") {
            assert!(rig.log("web").contains(&"no luck".to_owned()));
        }
    }
}

fn a_hook_before_the_stop_has_no_more_time_than_its_container() {
    let rig = Rig::one(&["polite"], |web| {
        web.stop_grace_ms = 50;
        web.pre_stop = vec![HookConfig::Sleep { ms: 600_000 }];
    });
    let mut client = rig.started();
    rig.wait_for_line("ready");
    let begun = Instant::now();
    let state = client.stop().expect("stop");
    assert!(begun.elapsed() < Duration::from_secs(20));
    // It was asked all the same.
    let exit = state.containers[0].last_exit.expect("an exit");
    assert_eq!(exit.code, 42);
}

fn a_sidecar_is_there_before_and_after_the_others() {
    let mut web = sharing("web", &["polite"]);
    web.pre_stop = vec![HookConfig::Sleep { ms: 60 }];
    let mut proxy = sharing("proxy", &["polite"]);
    proxy.sidecar = Some(0);
    proxy.post_start = vec![hook(&["add", "/shared/said", "p"])];
    let mut rig = Rig::of(vec![web, proxy]);
    rig.spec.init = vec![leaves("one", "1")];
    let mut client = rig.started();
    assert_eq!(said(&mut client), "p1");
    rig.wait_for_line("ready");
    let state = client.stop().expect("stop");
    let at = |n: usize| state.containers[n].last_exit_ms.expect("it has ended");
    assert!(at(0) <= at(1), "{state:?}");
    let asked = |n: usize| state.containers[n].last_exit.map(|exit| exit.code);
    assert_eq!((asked(0), asked(1)), (Some(42), Some(42)));
}

/// One that is started first, and asked whether it has.
fn asked(arguments: &[&str], questions: Vec<Question>, most_ms: u64) -> ContainerConfig {
    let mut config = sharing("proxy", arguments);
    config.sidecar = Some(0);
    let ask = |question| {
        HookConfig::Until(StartupConfig {
            question,
            timeout_ms: 5_000,
            most_ms,
        })
    };
    config.post_start = questions.into_iter().map(ask).collect();
    config
}

fn command(arguments: &[&str]) -> Question {
    let argv = ["/probe"].iter().chain(arguments);
    Question::Exec {
        argv: argv.map(|word| (*word).to_owned()).collect(),
    }
}

fn the_next_is_started_once_a_sidecar_says_that_it_has() {
    let questions = vec![
        Question::Tcp { port: 8080 },
        Question::Http {
            port: 8080,
            path: "/".to_owned(),
            headers: Vec::new(),
        },
        command(&["add", "/shared/said", "p"]),
    ];
    let proxy = asked(&["serve", "8080"], questions, 60_000);
    let mut rig = Rig::of(vec![sharing("web", &["polite"]), proxy]);
    rig.spec.hosts.clear();
    rig.spec.init = vec![leaves("one", "1")];
    let mut client = rig.started();
    assert_eq!(said(&mut client), "p1");
    client.stop().expect("stop");
    client.start().expect("start");
    assert_eq!(said(&mut client), "p1p", "asked anew, and run once");
}

fn a_sidecar_that_never_says_so_is_started_again_with_all() {
    let proxy = asked(&["polite"], vec![command(&["exit", "3"])], 50);
    let mut rig = Rig::of(vec![sharing("web", &["polite"]), proxy]);
    rig.spec.init = vec![leaves("one", "1")];
    let mut client = rig.prepared();
    let error = client.start().expect_err("it does not start").sentence();
    let what = "the startup probe of container proxy";
    assert!(
        error.contains(what) && error.contains("exit code 3"),
        "{error}"
    );
    let state = client.state().expect("state");
    assert_eq!(state.init[0].starts, 0);
    assert_eq!(state.ended.expect("an end").container, "proxy");
}
