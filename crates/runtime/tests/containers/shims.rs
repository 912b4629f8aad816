//! What a shim owes others: exec, its clients, outliving its node, leaving nothing behind.

use std::fs;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use layby_runtime::client::Client;
use layby_runtime::protocol::{MAX_EXEC_OUTPUT_BYTES, MAX_REQUEST_BYTES};
use layby_runtime::{Error, SandboxSpec, Values, freezer, sandbox, shim};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::Test;
use crate::rig::{Rig, image, is_alive, wait_for};

pub(crate) const TESTS: &[Test] = &[
    (
        "an_exec_gives_back_output_and_exit_code",
        an_exec_gives_back_output_and_exit_code,
    ),
    (
        "an_exec_that_takes_too_long_is_killed",
        an_exec_that_takes_too_long_is_killed,
    ),
    (
        "others_are_served_while_an_exec_runs",
        others_are_served_while_an_exec_runs,
    ),
    (
        "nonsense_on_the_socket_harms_nobody_else",
        nonsense_on_the_socket_harms_nobody_else,
    ),
    (
        "the_death_of_the_node_touches_no_container",
        the_death_of_the_node_touches_no_container,
    ),
    (
        "quit_takes_everything_down_and_ends_the_shim",
        quit_takes_everything_down_and_ends_the_shim,
    ),
    (
        "a_sandbox_whose_shim_was_killed_is_destroyed",
        a_sandbox_whose_shim_was_killed_is_destroyed,
    ),
    (
        "a_shim_keeps_no_mount_that_it_does_not_need",
        a_shim_keeps_no_mount_that_it_does_not_need,
    ),
    (
        "the_shims_program_cannot_be_written",
        the_shims_program_cannot_be_written,
    ),
];

/// With this argument the test program plays a node: it starts a shim and then waits to be killed.
pub(crate) const NODE: &str = "--play-node";

/// The part of the node in [`the_death_of_the_node_touches_no_container`].
pub(crate) fn play_node(spec: &str, bundle: &str) -> ! {
    let spec: SandboxSpec = serde_json::from_str(spec).expect("a spec");
    shim::spawn(image(), bundle.as_ref(), &spec, &Values::default()).expect("the shim gets ready");
    let mut client = Client::connect(&spec.socket).expect("the shim listens");
    client.start().expect("start");
    println!("started");
    loop {
        std::thread::sleep(Duration::from_secs(60));
    }
}

fn an_exec_gives_back_output_and_exit_code() {
    let rig = Rig::one(&["polite"], |_| ());
    let mut client = rig.started();
    let result = client
        .exec("web", &["/probe", "say-and-exit", "one\ntwo", "9"], 60_000)
        .expect("exec");
    assert_eq!(
        (result.code, result.timed_out, result.output.as_str()),
        (9, false, "one\ntwo")
    );
    let result = client
        .exec("web", &["/probe", "warn", "to stderr"], 60_000)
        .expect("exec");
    assert_eq!(result.output, "to stderr\n");
    let result = client
        .exec("web", &["/probe", "shot"], 60_000)
        .expect("exec");
    assert_eq!(result.code, 137);
    let result = client
        .exec("web", &["/probe", "flood", "5000"], 60_000)
        .expect("exec");
    assert_eq!(
        (result.code, result.output.len()),
        (0, MAX_EXEC_OUTPUT_BYTES)
    );
    let error = client
        .exec("web", &["/nope"], 60_000)
        .expect_err("no such file");
    assert!(
        matches!(&error, Error::Fatal(text) if text == "exec: no such file: /nope"),
        "{error:?}"
    );
    let error = client
        .exec("other", &["/probe"], 60_000)
        .expect_err("no such container");
    assert!(error.sentence().contains("other"));
    client.stop().expect("stop");
    assert!(
        client
            .exec("web", &["/probe", "exit", "0"], 60_000)
            .is_err()
    );
}

fn an_exec_that_takes_too_long_is_killed() {
    let rig = Rig::one(&["polite"], |_| ());
    let mut client = rig.started();
    let before =
        fs::read_to_string(rig.cgroup_file("freezer", "web", "cgroup.procs")).expect("processes");
    let result = client
        .exec("web", &["/probe", "stubborn"], 5_000)
        .expect("exec");
    assert!(result.timed_out, "{result:?}");
    assert_eq!(result.output, "ready\n");
    wait_for("its end", || {
        fs::read_to_string(rig.cgroup_file("freezer", "web", "cgroup.procs")).expect("processes")
            == before
    });
    assert!(client.state().expect("state").running);
}

fn others_are_served_while_an_exec_runs() {
    let rig = Rig::one(&["polite"], |_| ());
    let mut client = rig.started();
    let mut other = rig.client();
    let waiter = std::thread::spawn(move || {
        other
            .exec("web", &["/probe", "stubborn"], 60_000)
            .expect("exec")
    });
    let processes = || {
        fs::read_to_string(rig.cgroup_file("freezer", "web", "cgroup.procs")).expect("processes")
    };
    wait_for("the exec", || processes().lines().count() >= 3);
    assert_eq!(
        client
            .exec("web", &["/probe", "exit", "4"], 60_000)
            .expect("exec")
            .code,
        4
    );
    // A stop ends it too: it lives in the container.
    client.stop().expect("stop");
    assert_eq!(waiter.join().expect("the exec ends").code, 137);
}

fn nonsense_on_the_socket_harms_nobody_else() {
    let rig = Rig::one(&["polite"], |_| ());
    let mut client = rig.started();
    let mut rude = UnixStream::connect(&rig.spec.socket).expect("connect");
    rude.write_all(
        b"{\"v\":9,\"id\":3,\"do\":\"stop\"}\nrubbish\n{\"v\":1,\"id\":4,\"do\":\"state\"}\n",
    )
    .expect("write");
    let mut text = String::new();
    let mut buffer = [0; 4096];
    while text.lines().count() < 3 {
        let length = rude.read(&mut buffer).expect("read");
        assert!(length > 0, "{text}");
        text.push_str(&String::from_utf8_lossy(&buffer[..length]));
    }
    let lines: Vec<&str> = text.lines().collect();
    assert!(
        lines[0].starts_with(r#"{"id":3,"error""#) && lines[1].contains("error"),
        "{text}"
    );
    assert!(
        lines[2].starts_with(r#"{"id":4,"ok":{"state":{"running":true"#),
        "{text}"
    );
    // Too long a line: cut off.
    let _ = rude.write_all(&vec![b'x'; MAX_REQUEST_BYTES + 8192]);
    wait_for(
        "the cut",
        || !matches!(rude.read(&mut buffer), Ok(length) if length > 0),
    );
    // Too many clients: the last ones are sent away, the first one is served.
    let crowd: Vec<_> = (0..40)
        .map(|_| UnixStream::connect(&rig.spec.socket).expect("connect"))
        .collect();
    assert!(client.state().expect("state").running);
    drop(crowd);
    wait_for("room for another", || {
        Client::connect(&rig.spec.socket).is_ok_and(|mut c| c.state().is_ok())
    });
}

fn the_death_of_the_node_touches_no_container() {
    let rig = Rig::one(&["polite"], |_| ());
    let spec = serde_json::to_string(&rig.spec).expect("json");
    let mut node = Command::new("/proc/self/exe")
        .args([NODE, &spec])
        .arg(rig.bundle())
        .stdout(Stdio::piped())
        .spawn()
        .expect("a node");
    let mut said = [0; 8];
    node.stdout
        .as_mut()
        .expect("stdout")
        .read_exact(&mut said)
        .expect("the node starts the sandbox");
    assert_eq!(&said, b"started\n");
    let before = rig.client().state().expect("state");
    let (shim, init) = (rig.shim_pid(), before.containers[0].pid.expect("a pid"));
    let parent = fs::read_to_string(format!("/proc/{shim}/stat")).expect("stat");
    let parent: u32 = parent
        .rsplit(") ")
        .next()
        .and_then(|rest| rest.split(' ').nth(1))
        .and_then(|n| n.parse().ok())
        .expect("a parent");
    assert_ne!(parent, node.id(), "the shim is nobody's child");
    node.kill().expect("kill -9");
    node.wait().expect("the node is gone");
    let mut client = rig.client();
    assert_eq!(client.state().expect("state"), before);
    assert!(is_alive(shim) && is_alive(init));
    assert_eq!(
        client
            .exec("web", &["/probe", "exit", "6"], 60_000)
            .expect("exec")
            .code,
        6
    );
    for signal in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP] {
        kill(Pid::from_raw(shim), signal).expect("a signal");
    }
    assert_eq!(client.stop().expect("stop").containers[0].pid, None);
}

fn quit_takes_everything_down_and_ends_the_shim() {
    let rig = Rig::one(&["polite"], |_| ());
    let mut client = rig.started();
    rig.wait_for_line("ready");
    let shim = rig.shim_pid();
    let state = client.quit().expect("quit");
    assert_eq!(state.containers[0].last_exit.expect("an exit").code, 42);
    wait_for("the end of the shim", || !is_alive(shim));
    assert_eq!(rig.traces(), Vec::<String>::new());
    assert!(!rig.spec.socket.exists());
    // What is left is the bundle, with the log in it.
    assert_eq!(rig.log("web"), ["ready"]);
    assert_eq!(
        fs::read_to_string(rig.bundle().join("shim.log")).expect("shim.log"),
        ""
    );
    sandbox::clear(&rig.bundle()).expect("cleared");
    assert!(!rig.bundle().exists());
    sandbox::clear(&rig.bundle()).expect("again: nothing to do");
}

fn a_sandbox_whose_shim_was_killed_is_destroyed() {
    for frozen in [false, true] {
        let rig = Rig::one(&["stubborn"], |_| ());
        let mut client = rig.started();
        rig.wait_for_line("ready");
        let init = client.state().expect("state").containers[0]
            .pid
            .expect("a pid");
        if frozen {
            freezer::freeze(&rig.spec.cgroup).expect("freeze");
        }
        kill(Pid::from_raw(rig.shim_pid()), Signal::SIGKILL).expect("kill");
        sandbox::destroy(&rig.bundle()).expect("destroy");
        assert!(!is_alive(init));
        assert_eq!(rig.traces(), Vec::<String>::new());
        sandbox::destroy(&rig.bundle()).expect("again: nothing to do");
    }
}

fn a_shim_keeps_no_mount_that_it_does_not_need() {
    let rig = Rig::one(&["polite"], |_| ());
    let _client = rig.prepared();
    let other = Rig::one(&["polite"], |_| ());
    let _other = other.prepared();
    let mounts =
        fs::read_to_string(format!("/proc/{}/mountinfo", other.shim_pid())).expect("mountinfo");
    let points: Vec<&str> = mounts
        .lines()
        .filter_map(|line| line.split(' ').nth(4))
        .collect();
    assert!(
        points
            .iter()
            .any(|point| point.ends_with("/containers/web/rootfs")),
        "{mounts}"
    );
    assert!(
        !points
            .iter()
            .any(|point| point.starts_with(&rig.dir.path().display().to_string())),
        "{mounts}"
    );
    assert!(!mounts.contains(" - nsfs "), "{mounts}");
    let begin = Instant::now();
    let descriptors = fs::read_dir(format!("/proc/{}/fd", other.shim_pid()))
        .expect("fd")
        .count();
    assert!(
        descriptors <= 10,
        "{descriptors} after {:?}",
        begin.elapsed()
    );
}

fn the_shims_program_cannot_be_written() {
    let rig = Rig::one(&["polite"], |_| ());
    let mut client = rig.prepared();
    let error = rig.spawn().expect_err("there is one already");
    assert!(error.sentence().contains("already"), "{error:?}");
    assert!(client.state().is_ok());
    let program = format!("/proc/{}/exe", rig.shim_pid());
    let target = fs::read_link(&program)
        .expect("a link")
        .display()
        .to_string();
    assert!(target.contains("memfd"), "{target}");
    assert!(
        fs::OpenOptions::new()
            .write(true)
            .open(&program)
            .and_then(|mut f| f.write_all(b"x"))
            .is_err()
    );
    assert_eq!(
        fs::read_to_string(format!("/proc/{}/comm", rig.shim_pid())).expect("comm"),
        "layby-shim\n"
    );
}
