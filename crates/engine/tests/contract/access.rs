//! What every engine promises to people. What each says is its name.

use std::io::Read;
use std::net::TcpListener;
use std::time::Duration;

use futures_util::{StreamExt, stream};
use layby_model::access::{CopyIn, CopyOut, ExecEvent, ExecRequest, ExecSession, TtySize};
use layby_model::engine::{EngineError, LogQuery};
use layby_model::{ReplicaId, Wakefulness};

use crate::Promise;
use crate::kit::{Kit, Order, runs, stopped};

const ONE: ReplicaId = ReplicaId(0x1_000001);
const DEADLINE: Duration = Duration::from_secs(60);

/// What every engine promises.
pub(crate) const EVERY_ENGINE: &[Promise] = &[
    (
        "a_command_has_somebody_at_its_other_end",
        a_command_has_somebody_at_its_other_end,
    ),
    (
        "a_terminal_has_a_size_and_gets_another",
        a_terminal_has_a_size_and_gets_another,
    ),
    ("files_go_in_and_come_out", files_go_in_and_come_out),
    (
        "a_replica_that_does_not_run_takes_nothing",
        a_replica_that_does_not_run_takes_nothing,
    ),
    ("what_runs_is_measured", what_runs_is_measured),
    (
        "a_port_is_reached_from_within",
        a_port_is_reached_from_within,
    ),
    (
        "a_log_is_read_of_a_span_of_time",
        a_log_is_read_of_a_span_of_time,
    ),
];

fn running(kit: &Kit) {
    kit.order(&Order::one(ONE, Wakefulness::Awake));
    kit.until(ONE, "running", runs);
}

fn attach(kit: &Kit, request: &ExecRequest) -> ExecSession {
    let session = kit.access.attach(ONE, None, request);
    kit.runtime.block_on(session).expect("a session")
}

/// The next output, or the end.
fn next(kit: &Kit, session: &mut ExecSession) -> ExecEvent {
    kit.runtime.block_on(async {
        let next = tokio::time::timeout(DEADLINE, session.output.next());
        next.await.expect("in time").expect("an event")
    })
}

/// All output to the end, and the exit code.
fn rest(kit: &Kit, session: &mut ExecSession) -> (String, String, i32) {
    let (mut out, mut err) = (Vec::new(), Vec::new());
    loop {
        match next(kit, session) {
            ExecEvent::Stdout(bytes) => out.extend(bytes),
            ExecEvent::Stderr(bytes) => err.extend(bytes),
            ExecEvent::Exit(code) => {
                let text = |bytes| String::from_utf8(bytes).expect("UTF-8");
                return (text(out), text(err), code);
            }
            ExecEvent::Failed(why) => panic!("{why}"),
        }
    }
}

fn a_command_has_somebody_at_its_other_end(kit: Kit) {
    running(&kit);
    let command = |argv| ExecRequest {
        argv,
        ..ExecRequest::default()
    };
    let mut session = attach(&kit, &command(kit.say("hello there")));
    assert_eq!(
        rest(&kit, &mut session),
        ("hello there\n".into(), String::new(), 0)
    );
    let mut session = attach(&kit, &command(kit.exit(7)));
    assert_eq!(rest(&kit, &mut session).2, 7);
    let mut session = attach(&kit, &command(vec!["/nope".into()]));
    let (_, err, code) = rest(&kit, &mut session);
    assert!(code == 127 && err.contains("/nope"), "{code}: {err}");
    let mut session = attach(&kit, &command(kit.word("cat")));
    assert_eq!(rest(&kit, &mut session), (String::new(), String::new(), 0));

    let mut cat = command(kit.word("cat"));
    cat.stdin = true;
    let mut session = attach(&kit, &cat);
    kit.runtime
        .block_on(session.input.write(b"one"))
        .expect("written");
    assert_eq!(next(&kit, &mut session), ExecEvent::Stdout(b"one".to_vec()));
    kit.runtime
        .block_on(session.input.write(b"two"))
        .expect("written");
    session.input.close();
    assert_eq!(rest(&kit, &mut session), ("two".into(), String::new(), 0));
    drop(attach(&kit, &cat));
    kit.close();
}

fn a_terminal_has_a_size_and_gets_another(kit: Kit) {
    running(&kit);
    let request = ExecRequest {
        argv: kit.word("size"),
        tty: Some(TtySize {
            columns: 91,
            rows: 17,
        }),
        stdin: true,
        ..ExecRequest::default()
    };
    let mut session = attach(&kit, &request);
    let until = |session: &mut ExecSession, wanted: &str| {
        let mut said = String::new();
        while !said.contains(wanted) {
            match next(&kit, session) {
                ExecEvent::Stdout(bytes) => said.push_str(&String::from_utf8_lossy(&bytes)),
                other => panic!("{other:?} after {said:?}"),
            }
        }
    };
    until(&mut session, "91x17");
    let size = TtySize {
        columns: 120,
        rows: 50,
    };
    session.input.resize(size).expect("resized");
    until(&mut session, "120x50");
    session.input.close();
    assert_eq!(rest(&kit, &mut session).2, 0);
    kit.close();
}

fn tar_of(name: &str, text: &str) -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    header.set_size(text.len() as u64);
    header.set_mode(0o640);
    header.set_uid(12);
    header.set_gid(34);
    tar.append_data(&mut header, name, text.as_bytes())
        .expect("appended");
    tar.into_inner().expect("whole")
}

fn files_go_in_and_come_out(kit: Kit) {
    running(&kit);
    for (keep_owners, owner) in [(true, 12), (false, 0)] {
        let order = CopyIn {
            path: "/etc".into(),
            keep_owners,
            ..CopyIn::default()
        };
        let tar = tar_of("dir/file", "text");
        let pieces: Vec<_> = tar.chunks(100).map(|piece| Ok(piece.to_vec())).collect();
        let tar = Box::pin(stream::iter(pieces));
        let copied = kit.access.copy_in(ONE, &order, tar);
        kit.runtime.block_on(copied).expect("copied");
        let found = kit.access.stat(ONE, None, "/etc/../etc/dir");
        let found = kit.runtime.block_on(found).expect("there");
        assert_eq!((&*found.path, found.is_dir), ("/etc/dir", true));
        let order = CopyOut {
            path: "/etc/dir".into(),
            ..CopyOut::default()
        };
        let tar = kit.runtime.block_on(async {
            let tar = kit.access.copy_out(ONE, &order).await.expect("a tar");
            let pieces: Vec<_> = tar.collect().await;
            pieces
                .into_iter()
                .map(|piece| piece.expect("whole"))
                .collect::<Vec<_>>()
                .concat()
        });
        let mut found = Vec::new();
        for entry in tar::Archive::new(&*tar).entries().expect("entries") {
            let mut entry = entry.expect("whole");
            let path = entry.path().expect("a path").display().to_string();
            let mut text = String::new();
            entry.read_to_string(&mut text).expect("read");
            let header = entry.header();
            let path = path.trim_end_matches('/').to_owned();
            found.push((path, text, header.uid().expect("an owner")));
        }
        let file = ("dir/file".to_owned(), "text".to_owned(), owner);
        assert_eq!(found, [("dir".to_owned(), String::new(), 0), file]);
    }
    let order = CopyIn {
        path: "/etc".into(),
        whiteouts: true,
        ..CopyIn::default()
    };
    let tar = Box::pin(stream::iter([Ok(tar_of("dir/.wh.file", ""))]));
    let copied = kit.access.copy_in(ONE, &order, tar);
    kit.runtime.block_on(copied).expect("copied");
    let gone = kit
        .runtime
        .block_on(kit.access.stat(ONE, None, "/etc/dir/file"));
    assert!(matches!(gone, Err(EngineError::NotFound(_))));
    let stays = kit.runtime.block_on(kit.access.stat(ONE, None, "/etc/dir"));
    assert!(stays.is_ok_and(|stays| stays.is_dir));
    let order = CopyOut {
        path: "/nowhere".into(),
        ..CopyOut::default()
    };
    let missing = kit.runtime.block_on(kit.access.copy_out(ONE, &order));
    assert!(matches!(missing.err(), Some(EngineError::NotFound(_))));
    let missing = kit.runtime.block_on(kit.access.stat(ONE, None, "/nowhere"));
    assert!(matches!(missing, Err(EngineError::NotFound(_))));
    let order = CopyIn {
        path: "/nowhere".into(),
        ..CopyIn::default()
    };
    let nothing = Box::pin(stream::empty());
    let missing = kit
        .runtime
        .block_on(kit.access.copy_in(ONE, &order, nothing));
    assert!(matches!(missing, Err(EngineError::NotFound(_))));
    kit.close();
}

fn a_replica_that_does_not_run_takes_nothing(kit: Kit) {
    let refused = |kit: &Kit| {
        let request = ExecRequest {
            argv: kit.say("hi"),
            ..ExecRequest::default()
        };
        let attached = kit.runtime.block_on(kit.access.attach(ONE, None, &request));
        assert!(matches!(attached.err(), Some(EngineError::NotFound(_))));
        let found = kit.runtime.block_on(kit.access.stat(ONE, None, "/"));
        assert!(matches!(found, Err(EngineError::NotFound(_))));
        let connected = kit.runtime.block_on(kit.access.connect(ONE, 8000));
        assert!(matches!(connected, Err(EngineError::NotFound(_))));
    };
    refused(&kit);
    kit.order(&Order::one(ONE, Wakefulness::Asleep));
    kit.until(ONE, "stopped", stopped);
    refused(&kit);
    kit.close();
}

fn what_runs_is_measured(kit: Kit) {
    let usage = |kit: &Kit| kit.runtime.block_on(kit.access.usage()).expect("measured");
    kit.order(&Order::one(ONE, Wakefulness::Asleep));
    kit.until(ONE, "stopped", stopped);
    assert!(usage(&kit).is_empty());
    running(&kit);
    let one = usage(&kit).remove(&ONE).expect("it is measured");
    assert!(
        one.cpu_us > 0 && one.memory_bytes > 0 && one.pids > 0,
        "{one:?}"
    );
    assert_eq!(one.memory_limit_bytes, Some(64 << 20));
    kit.close();
}

fn a_port_is_reached_from_within(kit: Kit) {
    running(&kit);
    let address = kit
        .see(ONE)
        .and_then(|report| report.address)
        .expect("an address");
    // Nothing listens on the addresses of the fake engine unless a test does.
    let stand_in = (!kit.is_real()).then(|| TcpListener::bind((address, 8000)).expect("bound"));
    let answering = stand_in.map(|listener| {
        std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().expect("a connection");
            std::io::Write::write_all(&mut stream, b"ok").expect("written");
        })
    });
    let begun = std::time::Instant::now();
    let mut stream = loop {
        match kit.runtime.block_on(kit.access.connect(ONE, 8000)) {
            // It runs, and may not listen yet.
            Err(EngineError::Failed(_)) if begun.elapsed() < DEADLINE => {
                std::thread::sleep(std::time::Duration::from_millis(5));
            }
            stream => break stream.expect("connected"),
        }
    };
    stream.set_nonblocking(false).expect("set");
    let mut text = String::new();
    stream.read_to_string(&mut text).expect("read");
    assert_eq!(text, "ok");
    answering
        .map(std::thread::JoinHandle::join)
        .transpose()
        .expect("no panic");
    let refused = kit.runtime.block_on(kit.access.connect(ONE, 8001));
    assert!(
        matches!(refused, Err(EngineError::Failed(_))),
        "{refused:?}"
    );
    kit.close();
}

fn a_log_is_read_of_a_span_of_time(kit: Kit) {
    running(&kit);
    let read = |query: LogQuery| {
        kit.runtime.block_on(async {
            let log = kit.engine.logs(ONE, query).await.expect("a log");
            tokio::time::timeout(DEADLINE, log.collect::<Vec<_>>())
                .await
                .expect("in time")
        })
    };
    let first = loop {
        if let Some(line) = read(LogQuery::default()).into_iter().next() {
            break line;
        }
    };
    let spans = [
        (Some(first.at_ms), None, true),
        (Some(first.at_ms), Some(first.at_ms + 1), true),
        (None, Some(first.at_ms), false),
        (Some(u64::MAX), None, false),
    ];
    for (since_ms, until_ms, has) in spans {
        let query = LogQuery {
            since_ms,
            until_ms,
            tail: Some(1000),
            ..LogQuery::default()
        };
        assert_eq!(
            read(query).contains(&first),
            has,
            "{since_ms:?} {until_ms:?}"
        );
    }
    kit.close();
}
