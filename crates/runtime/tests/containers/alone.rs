//! Containers that end, and are started again, while the others of their sandbox go on.

use layby_runtime::client::Client;
use layby_runtime::protocol::SandboxState;
use layby_runtime::{After, AgainConfig, ContainerConfig, HookConfig};

use crate::Test;
use crate::rig::{Rig, container, wait_for};

pub(crate) const TESTS: &[Test] = &[
    (
        "one_that_ends_is_started_again_while_the_others_go_on",
        one_that_ends_is_started_again_while_the_others_go_on,
    ),
    (
        "a_sandbox_is_over_with_the_last_that_is_left_as_it_ended",
        a_sandbox_is_over_with_the_last_that_is_left_as_it_ended,
    ),
    (
        "one_that_fails_too_often_in_a_row_is_left_while_the_others_go_on",
        one_that_fails_too_often_in_a_row_is_left_while_the_others_go_on,
    ),
    (
        "one_is_ended_alone_by_order_and_its_hooks_run_again",
        one_is_ended_alone_by_order_and_its_hooks_run_again,
    ),
    (
        "one_whose_hook_fails_is_started_again_alone_and_is_not_there_meanwhile",
        one_whose_hook_fails_is_started_again_alone_and_is_not_there_meanwhile,
    ),
    (
        "a_stop_ends_the_wait_of_one_that_lies",
        a_stop_ends_the_wait_of_one_that_lies,
    ),
    (
        "a_sidecar_that_ends_while_the_others_are_started_is_started_again",
        a_sidecar_that_ends_while_the_others_are_started_is_started_again,
    ),
];

/// A container that ends alone, and is started again after these ends.
fn apart(name: &str, arguments: &[&str], after: After, pause_ms: u64) -> ContainerConfig {
    let mut config = container(name, arguments);
    config.again = Some(AgainConfig {
        after,
        pause_ms,
        max_pause_ms: pause_ms,
        most: None,
    });
    config
}

fn hook(argv: &[&str]) -> HookConfig {
    HookConfig::Exec {
        argv: argv.iter().map(|word| (*word).to_owned()).collect(),
        env: Vec::new(),
        cwd: None,
        user: None,
        privileged: false,
    }
}

fn until(client: &mut Client, what: &str, is: impl Fn(&SandboxState) -> bool) -> SandboxState {
    let mut seen = SandboxState::default();
    wait_for(what, || {
        seen = client.state().expect("state");
        is(&seen)
    });
    seen
}

fn one_that_ends_is_started_again_while_the_others_go_on() {
    let web = apart("web", &["polite"], After::AnyEnd, 10);
    let helper = apart("helper", &["say-and-exit", "again", "3"], After::AnyEnd, 10);
    let rig = Rig::of(vec![web, helper]);
    let mut client = rig.started();
    let pid = client.state().expect("state").containers[0].pid;
    let state = until(&mut client, "more starts", |state| {
        state.containers[1].starts >= 4
    });
    assert!(state.running && state.ended.is_none() && state.trouble.is_none());
    assert_eq!(
        (state.containers[0].pid, state.containers[0].ended),
        (pid, 0)
    );
    let helper = &state.containers[1];
    assert!(
        helper.ended >= 3 && helper.ended_in_a_row >= 3,
        "{helper:?}"
    );
    assert_eq!(helper.last_exit.expect("an exit").code, 3);
    assert!(rig.log("helper").len() >= 3, "{:?}", rig.log("helper"));
    assert_eq!((state.run, state.ended_in_a_row), (1, 0));
}

fn a_sandbox_is_over_with_the_last_that_is_left_as_it_ended() {
    for (after, ended) in [(After::NoEnd, ("bad", 4)), (After::Failure, ("good", 0))] {
        let good = apart("good", &["exit", "0"], after, 3_600_000);
        let bad = match after {
            After::Failure => apart("bad", &["exit", "0"], after, 3_600_000),
            After::AnyEnd | After::NoEnd => apart("bad", &["exit", "4"], after, 3_600_000),
        };
        let mut beside = apart("beside", &["polite"], After::AnyEnd, 10);
        beside.sidecar = Some(0);
        let rig = Rig::of(vec![good, bad, beside]);
        let mut client = rig.prepared();
        client.start().expect("it starts");
        let over = until(&mut client, "its end", |state| {
            !state.running && state.ended.is_some()
        });
        let told = over.ended.expect("an end");
        assert_eq!(told.exit.code, ended.1);
        if after == After::NoEnd {
            assert_eq!(told.container, ended.0);
        }
        let stopped = until(&mut client, "all to end", |state| {
            state.containers.iter().all(|one| one.pid.is_none())
        });
        assert_eq!(stopped.containers[2].ended, 0, "it was asked to end");
        assert!(stopped.containers.iter().all(|one| !one.down));
    }
}

fn one_that_fails_too_often_in_a_row_is_left_while_the_others_go_on() {
    let web = apart("web", &["polite"], After::Failure, 10);
    let mut helper = apart("helper", &["exit", "3"], After::Failure, 10);
    helper.again = helper.again.map(|again| AgainConfig {
        most: Some(2),
        ..again
    });
    let rig = Rig::of(vec![web, helper]);
    let mut client = rig.started();
    let state = until(&mut client, "its last end", |state| {
        state.containers[1].ended == 3
    });
    assert!(state.running && state.ended.is_none());
    let helper = &state.containers[1];
    assert!(!helper.down && helper.pid.is_none(), "{helper:?}");
    assert_eq!(helper.starts, 3);
}

fn one_is_ended_alone_by_order_and_its_hooks_run_again() {
    let mut web = apart("web", &["stubborn"], After::AnyEnd, 10);
    web.post_start = vec![hook(&["/probe", "print", "begun"])];
    let rig = Rig::of(vec![web, apart("other", &["polite"], After::AnyEnd, 10)]);
    let mut client = rig.started();
    rig.wait_for_line("ready");
    let before = client.state().expect("state");
    client.end("web", Some(50)).expect("it is ended");
    let again = until(&mut client, "another start", |state| {
        state.containers[0].starts == 2
    });
    assert_eq!(again.containers[1].pid, before.containers[1].pid);
    assert_ne!(again.containers[0].pid, before.containers[0].pid);
    let exit = again.containers[0].last_exit.expect("an exit");
    assert_eq!((again.containers[0].ended, exit.code), (1, 137));
    wait_for("its hook", || {
        rig.log("web")
            .iter()
            .filter(|line| *line == "begun")
            .count()
            == 2
    });
    assert!(client.end("nobody", None).is_err());
}

fn one_whose_hook_fails_is_started_again_alone_and_is_not_there_meanwhile() {
    let mut helper = apart("helper", &["polite"], After::AnyEnd, 10);
    helper.post_start = vec![
        hook(&["/probe", "say-and-exit", "no luck", "7"]),
        hook(&["/probe", "print", "never"]),
    ];
    let web = apart("web", &["polite"], After::AnyEnd, 10);
    let rig = Rig::of(vec![helper, web]);
    let mut client = rig.prepared();
    let begun = client.start().expect("it starts");
    assert!(begun.running && begun.containers[0].down);
    let lies = until(&mut client, "more starts", |state| {
        let helper = &state.containers[0];
        assert!(helper.down, "{helper:?}");
        helper.starts >= 3 && helper.trouble.is_some()
    });
    let (helper, web) = (&lies.containers[0], &lies.containers[1]);
    let why = helper.trouble.as_deref().expect("a reason");
    assert!(
        why.contains("helper") && why.contains("exit code 7"),
        "{why}"
    );
    assert_eq!((web.pid, web.ended), (begun.containers[1].pid, 0));
    assert!(lies.running && lies.ended.is_none());
    assert!(!rig.log("helper").contains(&"never".to_owned()));
}

fn a_stop_ends_the_wait_of_one_that_lies() {
    let web = apart("web", &["polite"], After::AnyEnd, 10);
    let helper = apart("helper", &["exit", "1"], After::AnyEnd, 3_600_000);
    let rig = Rig::of(vec![web, helper]);
    let mut client = rig.started();
    let lies = until(&mut client, "it to lie", |state| state.containers[1].down);
    assert!(lies.running && lies.containers[1].pid.is_none());
    let stopped = client.stop().expect("stop");
    assert!(!stopped.containers[1].down);
    let again = client.start().expect("start");
    assert_eq!(again.containers[1].starts, 2);
    assert_eq!(again.containers[0].starts, 2);
}

fn a_sidecar_that_ends_while_the_others_are_started_is_started_again() {
    let mut beside = apart("beside", &["exit", "1"], After::AnyEnd, 10);
    beside.sidecar = Some(0);
    let mut rig = Rig::of(vec![apart("web", &["polite"], After::AnyEnd, 10), beside]);
    rig.spec.init = vec![container("before", &["polite"])];
    let mut starter = rig.prepared();
    let starting = std::thread::spawn(move || starter.start());
    let mut client = rig.client();
    until(&mut client, "more starts", |state| {
        state.containers[1].starts >= 3 && state.init[0].pid.is_some()
    });
    client.stop().expect("stop");
    assert!(
        starting.join().expect("no panic").is_err(),
        "it was stopped"
    );
}
