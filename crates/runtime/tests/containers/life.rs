//! How containers start, run, end and are stopped.

use std::fs;
use std::time::{Duration, Instant};

use layby_runtime::protocol::Exit;
use layby_runtime::{Error, freezer};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::Test;
use crate::rig::{PATIENCE, Rig, container, is_alive, wait_for};

pub(crate) const TESTS: &[Test] = &[
    (
        "a_container_runs_prints_and_its_exit_code_is_seen",
        a_container_runs_prints_and_its_exit_code_is_seen,
    ),
    (
        "a_sandbox_starts_again_and_keeps_what_it_wrote",
        a_sandbox_starts_again_and_keeps_what_it_wrote,
    ),
    (
        "a_command_that_does_not_exist_is_fatal_and_named",
        a_command_that_does_not_exist_is_fatal_and_named,
    ),
    (
        "a_failed_start_leaves_nothing_and_may_be_tried_again",
        a_failed_start_leaves_nothing_and_may_be_tried_again,
    ),
    (
        "a_bad_spec_fails_at_once_and_says_why",
        a_bad_spec_fails_at_once_and_says_why,
    ),
    (
        "a_polite_container_is_stopped_by_its_signal",
        a_polite_container_is_stopped_by_its_signal,
    ),
    (
        "a_stubborn_container_is_killed_after_its_grace",
        a_stubborn_container_is_killed_after_its_grace,
    ),
    (
        "the_next_container_stands_ready_while_the_sandbox_is_stopped",
        the_next_container_stands_ready_while_the_sandbox_is_stopped,
    ),
    (
        "one_that_cannot_hear_its_signal_is_not_waited_for",
        one_that_cannot_hear_its_signal_is_not_waited_for,
    ),
    (
        "a_frozen_sandbox_stands_still_and_goes_on",
        a_frozen_sandbox_stands_still_and_goes_on,
    ),
    (
        "a_frozen_sandbox_can_be_stopped",
        a_frozen_sandbox_can_be_stopped,
    ),
    (
        "what_was_frozen_while_its_next_containers_stood_ready_is_destroyed_at_once",
        what_was_frozen_while_its_next_containers_stood_ready_is_destroyed_at_once,
    ),
    (
        "when_one_container_ends_the_others_are_stopped",
        when_one_container_ends_the_others_are_stopped,
    ),
];

fn ended(code: i32) -> Option<Exit> {
    Some(Exit { code, oom: false })
}

fn a_container_runs_prints_and_its_exit_code_is_seen() {
    let rig = Rig::one(&["say-and-exit", "one\ntwo", "7"], |_| ());
    let mut client = rig.prepared();
    let state = client.watch().expect("watch");
    assert_eq!(
        (state.running, state.run, state.containers[0].pid),
        (false, 0, None)
    );
    client.start().expect("start");
    let state = loop {
        let state = client
            .next_state(PATIENCE)
            .expect("a state")
            .expect("in time");
        if state.containers[0].last_exit.is_some() {
            break state;
        }
    };
    assert_eq!(state.containers[0].last_exit, ended(7));
    assert_eq!(
        (state.running, state.run, state.containers[0].ended),
        (false, 1, 1)
    );
    let trouble = state.trouble.expect("a trouble");
    assert!(
        !trouble.fatal && trouble.message.contains("web") && trouble.message.contains('7'),
        "{trouble:?}"
    );
    assert_eq!(rig.log("web"), ["one", "two"]);
}

fn a_sandbox_starts_again_and_keeps_what_it_wrote() {
    let rig = Rig::one(&["polite"], |_| ());
    let mut client = rig.started();
    rig.wait_for_line("ready");
    let wrote = client
        .exec("web", &["/probe", "write", "/kept", "text"], 30_000)
        .expect("exec");
    assert_eq!(wrote.code, 0, "{wrote:?}");
    for run in 2..5 {
        let state = client.stop().expect("stop");
        assert_eq!(
            (
                state.running,
                state.containers[0].pid,
                state.containers[0].ended
            ),
            (false, None, 0)
        );
        let state = client.start().expect("start");
        assert_eq!((state.running, state.run), (true, run));
        assert!(is_alive(state.containers[0].pid.expect("a pid")));
        let read = client
            .exec("", &["/probe", "cat", "/kept"], 30_000)
            .expect("exec");
        assert_eq!(read.output, "text");
    }
}

fn a_command_that_does_not_exist_is_fatal_and_named() {
    for (argv, told) in [
        ("/nope", "exec: no such file: /nope"),
        ("nope", "exec: no such file in the container's PATH: nope"),
        ("/etc", "exec: /etc is a directory"),
        ("/etc/passwd", "exec: /etc/passwd may not be executed"),
    ] {
        let rig = Rig::one(&[], |c| c.argv = vec![argv.to_owned()]);
        let error = rig.prepared().start().expect_err("it cannot start");
        assert!(
            matches!(&error, Error::Fatal(text) if text.contains(told)),
            "{error:?}"
        );
        let state = rig.client().state().expect("state");
        assert!(!state.running && state.trouble.is_some_and(|t| t.fatal));
    }
}

fn a_failed_start_leaves_nothing_and_may_be_tried_again() {
    let rig = Rig::of(vec![
        container("web", &["polite"]),
        container("side", &["polite"]),
    ]);
    let mut client = rig.prepared();
    // Taken away behind the shim's back, as a full disk or a careless admin would.
    let probe = rig.bundle().join("containers/side/upper/probe");
    fs::write(&probe, "#!/no/such/interpreter\n").expect("shadow the program");
    std::process::Command::new("chmod")
        .arg("755")
        .arg(&probe)
        .status()
        .expect("chmod");
    for _ in 0..2 {
        let error = client
            .start()
            .expect_err("the second container cannot start");
        assert!(
            matches!(&error, Error::Fatal(text) if text.contains("side")),
            "{error:?}"
        );
        let state = client.state().expect("state");
        assert!(
            !state.running && state.containers.iter().all(|c| c.pid.is_none()),
            "{state:?}"
        );
        let file = rig.cgroup_file("freezer", "web", "cgroup.procs");
        assert_eq!(fs::read_to_string(file).unwrap_or_default(), "");
    }
    assert_eq!(client.stop().expect("stop").run, 2);
}

fn a_bad_spec_fails_at_once_and_says_why() {
    let rig = Rig::one(&["sleep"], |c| c.lower = vec!["/no/such/layer".into()]);
    let error = rig.spawn().expect_err("no layer");
    assert!(error.sentence().contains("/no/such/layer"), "{error:?}");
    assert_eq!(rig.traces(), Vec::<String>::new());

    let mut rig = Rig::one(&["sleep"], |_| ());
    rig.spec.netns = "/no/such/netns".into();
    let error = rig.spawn().expect_err("no network namespace");
    assert!(error.sentence().contains("/no/such/netns"), "{error:?}");

    let rig = Rig::one(&["sleep"], |c| c.user = "stranger".to_owned());
    let error = rig.prepared().start().expect_err("no such user");
    assert!(
        matches!(&error, Error::Fatal(text) if text.contains("stranger")),
        "{error:?}"
    );
}

fn a_polite_container_is_stopped_by_its_signal() {
    let rig = Rig::one(&["polite"], |c| c.stop_grace_ms = 60_000);
    let mut client = rig.started();
    rig.wait_for_line("ready");
    let state = client.stop().expect("stop");
    assert_eq!(
        (state.containers[0].last_exit, state.containers[0].ended),
        (ended(42), 0)
    );
    assert_eq!(state.trouble, None);
}

fn a_stubborn_container_is_killed_after_its_grace() {
    let rig = Rig::one(&["stubborn"], |c| c.stop_grace_ms = 300);
    let mut client = rig.started();
    rig.wait_for_line("ready");
    let begin = Instant::now();
    let stopper = {
        let mut client = rig.client();
        std::thread::spawn(move || client.stop().expect("stop"))
    };
    // Others are served during the grace.
    wait_for("the stop to begin", || {
        !client.state().expect("state").running
    });
    assert!(
        client.state().expect("state").containers[0].pid.is_some()
            || begin.elapsed() > Duration::from_millis(300)
    );
    let state = stopper.join().expect("the stop ends");
    assert!(begin.elapsed() >= Duration::from_millis(300));
    assert_eq!(state.containers[0].last_exit, ended(137));
}

fn one_that_cannot_hear_its_signal_is_not_waited_for() {
    let rig = Rig::one(&["deaf"], |c| c.stop_grace_ms = 600_000);
    let mut client = rig.started();
    rig.wait_for_line("ready");
    let begin = Instant::now();
    let state = client.stop().expect("stop");
    assert!(begin.elapsed() < Duration::from_secs(300));
    assert_eq!(state.containers[0].last_exit, ended(137));
}

fn the_next_container_stands_ready_while_the_sandbox_is_stopped() {
    let rig = Rig::one(&["serve", "8000"], |_| ());
    let mut client = rig.started();
    client.stop().expect("stop");
    let waiting = || {
        let file = rig.cgroup_file("freezer", "web", "cgroup.procs");
        let pids = fs::read_to_string(file).unwrap_or_default();
        // Its makers are in the cgroup too, for a moment.
        let is_init = |pid: &i32| {
            fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|name| name.contains("INIT"))
        };
        pids.lines()
            .filter_map(|pid| pid.parse::<i32>().ok())
            .find(is_init)
    };
    wait_for("an init that waits", || waiting().is_some());
    assert_eq!(client.state().expect("state").containers[0].pid, None);
    let ready = waiting();
    let started = client.start().expect("start");
    assert_eq!(started.containers[0].pid, ready);

    // One that is lost while it waits is not missed.
    client.stop().expect("stop");
    wait_for("an init that waits", || {
        waiting().is_some_and(|pid| Some(pid) != ready)
    });
    let lost = waiting().expect("an init");
    kill(Pid::from_raw(lost), Signal::SIGKILL).expect("killed");
    wait_for("it to be gone", || !is_alive(lost));
    let started = client.start().expect("start");
    assert!(started.running);
    assert_ne!(started.containers[0].pid, Some(lost));
}

fn a_frozen_sandbox_stands_still_and_goes_on() {
    let rig = Rig::one(&["count"], |_| ());
    let _client = rig.started();
    let file = rig.bundle().join("containers/web/upper/count");
    let count = || {
        fs::read_to_string(&file)
            .ok()
            .and_then(|text| text.parse::<u64>().ok())
            .unwrap_or(0)
    };
    wait_for("the first count", || count() > 0);
    freezer::freeze(&rig.spec.cgroup).expect("freeze");
    assert!(freezer::is_frozen(&rig.spec.cgroup).expect("is frozen"));
    let before = fs::read_to_string(&file).expect("count");
    std::thread::sleep(Duration::from_millis(100));
    assert_eq!(fs::read_to_string(&file).expect("count"), before);
    let state = rig.client().state().expect("the shim is not frozen");
    assert!(state.running);
    let error = rig
        .client()
        .exec("", &["/probe", "exit", "0"], 1000)
        .expect_err("frozen");
    assert!(error.sentence().contains("thaw"), "{error:?}");
    freezer::thaw(&rig.spec.cgroup).expect("thaw");
    assert!(!freezer::is_frozen(&rig.spec.cgroup).expect("is frozen"));
    let before = before.parse::<u64>().unwrap_or(0);
    wait_for("the next count", || count() > before);
}

fn a_frozen_sandbox_can_be_stopped() {
    for arguments in ["polite", "stubborn"] {
        let rig = Rig::one(&[arguments], |_| ());
        let mut client = rig.started();
        rig.wait_for_line("ready");
        freezer::freeze(&rig.spec.cgroup).expect("freeze");
        let state = client.stop().expect("stop");
        assert_eq!(state.containers[0].pid, None);
        assert!(state.containers[0].last_exit.is_some());
    }
}

fn what_was_frozen_while_its_next_containers_stood_ready_is_destroyed_at_once() {
    let rig = Rig::one(&["polite"], |_| ());
    let mut client = rig.started();
    rig.wait_for_line("ready");
    client.stop().expect("stop");
    // Some moments later the next one is made, which waits in the sandbox's cgroup.
    let processes = rig.cgroup_file("freezer", "web", "cgroup.procs");
    wait_for("the next container", || {
        std::fs::read_to_string(&processes).is_ok_and(|pids| !pids.trim().is_empty())
    });
    freezer::freeze(&rig.spec.cgroup).expect("freeze");
    let begun = std::time::Instant::now();
    layby_runtime::sandbox::destroy(&rig.bundle()).expect("destroyed");
    assert!(begun.elapsed() < PATIENCE, "{:?}", begun.elapsed());
}

fn when_one_container_ends_the_others_are_stopped() {
    let rig = Rig::of(vec![
        container("web", &["polite"]),
        container("side", &["polite"]),
    ]);
    let mut client = rig.started();
    let state = client.watch().expect("watch");
    rig.wait_for_line("ready");
    let pid = state.containers[1].pid.expect("a pid");
    nix::sys::signal::kill(
        nix::unistd::Pid::from_raw(pid),
        nix::sys::signal::Signal::SIGKILL,
    )
    .expect("kill");
    let state = loop {
        let state = client
            .next_state(PATIENCE)
            .expect("a state")
            .expect("in time");
        if state.containers.iter().all(|c| c.pid.is_none()) {
            break state;
        }
    };
    assert_eq!(
        (state.containers[0].ended, state.containers[1].ended),
        (0, 1)
    );
    assert_eq!(
        (state.containers[0].last_exit, state.containers[1].last_exit),
        (ended(42), ended(137))
    );
    assert!(state.trouble.is_some_and(|t| t.message.contains("side")));
}
