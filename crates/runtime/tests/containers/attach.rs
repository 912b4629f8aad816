//! Commands with somebody at their other end.

use std::fs::{self, File};
use std::io::{ErrorKind, Read, Write};
use std::os::fd::OwnedFd;

use layby_runtime::client::{self, Begun, Reply};
use layby_runtime::protocol::{Attach, Do, ExecResult, MAX_ATTACHED};
use layby_runtime::{Error, freezer, tty};

use crate::Test;
use crate::rig::{Rig, wait_for};

pub(crate) const TESTS: &[Test] = &[
    (
        "a_command_gets_its_input_and_its_exit_code_is_passed_on",
        a_command_gets_its_input_and_its_exit_code_is_passed_on,
    ),
    (
        "a_command_has_a_terminal_of_the_container",
        a_command_has_a_terminal_of_the_container,
    ),
    (
        "a_command_runs_as_and_where_it_is_asked_to",
        a_command_runs_as_and_where_it_is_asked_to,
    ),
    (
        "a_command_that_cannot_be_executed_ends_as_in_a_shell",
        a_command_that_cannot_be_executed_ends_as_in_a_shell,
    ),
    (
        "a_command_ends_with_its_client",
        a_command_ends_with_its_client,
    ),
    (
        "a_frozen_container_takes_no_command",
        a_frozen_container_takes_no_command,
    ),
    (
        "a_working_directory_outside_is_refused",
        a_working_directory_outside_is_refused,
    ),
];

fn words(words: &[&str]) -> Vec<String> {
    words.iter().map(|&word| word.to_owned()).collect()
}

fn request(argv: &[&str]) -> Attach {
    Attach {
        argv: words(argv),
        ..Attach::default()
    }
}

fn begin(rig: &Rig, request: Attach) -> Result<(Vec<OwnedFd>, Reply), Error> {
    match client::begin(&rig.spec.socket, Do::Attach(request))? {
        Begun::Attached(ends, reply) => Ok((ends, reply)),
        Begun::Done(result) => panic!("it began nothing: {result:?}"),
    }
}

/// Runs a command to its end and gives what it wrote to its output and its errors.
fn run(rig: &Rig, request: Attach) -> (ExecResult, String, String) {
    let (ends, reply) = begin(rig, request).expect("begun");
    let mut ends = ends.into_iter().map(File::from);
    drop(ends.next());
    let texts: Vec<String> = ends.map(read).collect();
    let result = reply.wait().expect("a result");
    (result, texts[0].clone(), texts[1].clone())
}

fn read(mut from: File) -> String {
    let mut text = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        match from.read(&mut buffer) {
            // The other side of a terminal is closed.
            Err(error) if error.raw_os_error() == Some(5) => break,
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                std::thread::sleep(std::time::Duration::from_millis(1));
            }
            Ok(0) => break,
            other => text.extend_from_slice(&buffer[..other.expect("read")]),
        }
    }
    String::from_utf8(text).expect("UTF-8")
}

fn mapped(mut rig: Rig) -> Rig {
    rig.spec.id_map = Some((500_000, 65_536));
    rig
}

fn sleeping() -> Rig {
    Rig::one(&["sleep"], |config| config.stop_signal = "KILL".into())
}

fn a_command_gets_its_input_and_its_exit_code_is_passed_on() {
    for rig in [sleeping(), mapped(sleeping())] {
        let _client = rig.started();
        let (result, out, err) = run(&rig, request(&["/probe", "say-and-exit", "said", "7"]));
        assert_eq!((result.code, &*out, &*err), (7, "said", ""));
        let (result, out, err) = run(&rig, request(&["/probe", "warn", "careful"]));
        assert_eq!((result.code, &*out, &*err), (0, "", "careful\n"));
        let (result, _, _) = run(&rig, request(&["/probe", "shoot"]));
        assert_eq!(result.code, 128 + 9);
        assert!(result.output.contains("signal 9 (SIGKILL)"), "{result:?}");

        let mut pass = request(&["/probe", "pass"]);
        let (result, out, _) = run(&rig, pass.clone());
        assert_eq!((result.code, &*out), (0, ""), "no input is at its end");
        pass.stdin = true;
        let (ends, reply) = begin(&rig, pass).expect("begun");
        let [input, output, _errors]: [OwnedFd; 3] = ends.try_into().expect("three ends");
        let megabyte = "0123456789abcdef".repeat(1 << 16);
        let sent = megabyte.clone();
        let writer = std::thread::spawn(move || File::from(input).write_all(sent.as_bytes()));
        assert!(read(output.into()) == megabyte);
        writer.join().expect("no panic").expect("written");
        assert_eq!(reply.wait().expect("a result").code, 0);
    }
}

fn a_command_has_a_terminal_of_the_container() {
    for rig in [sleeping(), mapped(sleeping())] {
        let _client = rig.started();
        let mut on_terminal = request(&["/probe", "terminal"]);
        on_terminal.tty = Some((91, 17));
        let (mut ends, reply) = begin(&rig, on_terminal.clone()).expect("begun");
        assert_eq!(ends.len(), 1);
        let holder = ends.remove(0);
        assert_eq!(tty::size(&holder).expect("a size"), (91, 17));
        tty::set_size(&holder, 80, 24).expect("resized");
        assert_eq!(tty::size(&holder).expect("a size"), (80, 24));
        let said = read(holder.into());
        assert_eq!(reply.wait().expect("a result").code, 0);
        assert!(said.starts_with("true "), "{said}");
        assert!(said.ends_with("/dev/pts/0 true\r\n"), "{said}");

        let mut env = request(&["/probe", "env"]);
        env.tty = Some((80, 24));
        let (mut ends, _reply) = begin(&rig, env).expect("begun");
        let said = read(ends.remove(0).into());
        assert!(said.contains("TERM=xterm\r\n"), "{said}");
    }
}

fn a_command_runs_as_and_where_it_is_asked_to() {
    let rig = Rig::one(&["sleep"], |config| {
        config.env = vec![("KEPT".into(), "1".into()), ("CHANGED".into(), "1".into())];
    });
    let _client = rig.started();
    let mut env = request(&["/probe", "env"]);
    env.env = vec![("CHANGED".into(), "2".into())];
    env.user = Some("web".into());
    let (_, out, _) = run(&rig, env);
    for line in ["KEPT=1", "CHANGED=2", "HOME=/srv/web"] {
        assert!(out.lines().any(|l| l == line), "{line}: {out}");
    }
    assert!(
        !out.contains("CHANGED=1") && !out.contains("TERM="),
        "{out}"
    );
    let mut status = request(&["/probe", "cat", "/proc/self/status"]);
    status.user = Some("web".into());
    let (_, out, _) = run(&rig, status.clone());
    assert!(out.contains("Uid:\t1234\t1234\t1234\t1234"), "{out}");
    assert!(out.contains("CapEff:\t0000000000000000"), "{out}");
    status.user = Some("nobody-of-that-name".into());
    match begin(&rig, status) {
        Err(Error::Failed(text)) => assert!(text.contains("nobody-of-that-name"), "{text}"),
        other => panic!("{other:?}"),
    }
    let mut place = request(&["/probe", "where"]);
    place.cwd = Some("/etc".into());
    assert_eq!(run(&rig, place).1, "/etc");
}

fn a_command_that_cannot_be_executed_ends_as_in_a_shell() {
    let rig = sleeping();
    let _client = rig.started();
    for (argv, cwd, code, word) in [
        ("/nope", None, 127, "/nope"),
        ("nope", None, 127, "PATH"),
        ("/etc/passwd", None, 126, "mode"),
        ("/etc", None, 126, "directory"),
        ("/probe", Some("/nowhere"), 126, "/nowhere"),
    ] {
        let mut request = request(&[argv]);
        request.cwd = cwd.map(str::to_owned);
        let (result, _, _) = run(&rig, request);
        assert_eq!(result.code, code, "{argv}: {result:?}");
        assert!(result.output.contains(word), "{argv}: {result:?}");
    }
    let mut other = request(&["/probe", "where"]);
    other.container = "other".into();
    assert!(matches!(begin(&rig, other), Err(Error::Fatal(_))));
}

fn a_command_ends_with_its_client() {
    let rig = sleeping();
    let _client = rig.started();
    let file = rig.cgroup_file("freezer", "web", "cgroup.procs");
    let count = || fs::read_to_string(&file).expect("read").lines().count();
    let before = count();
    for tty in [None, Some((80, 24))] {
        let mut sleep = request(&["/probe", "sleep"]);
        sleep.tty = tty;
        sleep.stdin = true;
        let mut begun = Vec::new();
        for _ in 0..MAX_ATTACHED {
            begun.push(begin(&rig, sleep.clone()).expect("begun"));
        }
        match begin(&rig, sleep.clone()) {
            Err(Error::Failed(text)) => assert!(text.contains("already"), "{text}"),
            other => panic!("{other:?}"),
        }
        wait_for("all to run", || count() == before + 2 * MAX_ATTACHED);
        drop(begun);
        wait_for("all to end", || count() == before);
        wait_for("room", || begin(&rig, sleep.clone()).is_ok());
        wait_for("the last to end", || count() == before);
    }
}

fn a_frozen_container_takes_no_command() {
    let rig = sleeping();
    let _client = rig.started();
    freezer::freeze(&rig.spec.cgroup).expect("frozen");
    let refused = begin(&rig, request(&["/probe", "where"]));
    freezer::thaw(&rig.spec.cgroup).expect("thawed");
    match refused {
        Err(Error::Failed(text)) => assert!(text.contains("frozen"), "{text}"),
        other => panic!("{other:?}"),
    }
}

fn a_working_directory_outside_is_refused() {
    let rig = sleeping();
    let _client = rig.started();
    for fd in 3..40 {
        let mut request = request(&["/probe", "where"]);
        request.cwd = Some(format!("/proc/self/fd/{fd}"));
        let (result, out, _) = run(&rig, request);
        assert_eq!((result.code, &*out), (126, ""), "{fd}: {result:?}");
    }
}
