//! What only the embedded engine can be asked: how it is with shims, bundles and real addresses.

use std::fs;
use std::io::Read;
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::path::Path;
use std::time::{Duration, Instant};

use layby_model::replica::Phase;
use layby_model::{ReplicaId, Wakefulness};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::Promise;
use crate::kit::{Kind, Kit, Order, runs, stopped};

const ONE: ReplicaId = ReplicaId(0x1_000001);
const TWO: ReplicaId = ReplicaId(0x1_000002);
const DEADLINE: Duration = Duration::from_secs(60);

/// What only the embedded engine promises.
pub(crate) const EMBEDDED_ONLY: &[Promise] = &[
    (
        "a_replica_answers_at_its_address",
        a_replica_answers_at_its_address,
    ),
    (
        "a_build_runs_its_steps_and_keeps_what_they_wrote",
        a_build_runs_its_steps_and_keeps_what_they_wrote,
    ),
    (
        "a_replica_without_its_shim_is_lost",
        a_replica_without_its_shim_is_lost,
    ),
    (
        "a_shim_that_died_with_the_node_is_cleared_away",
        a_shim_that_died_with_the_node_is_cleared_away,
    ),
    (
        "what_the_operator_has_not_allowed_is_not_prepared",
        what_the_operator_has_not_allowed_is_not_prepared,
    ),
    (
        "a_bundle_that_is_half_made_is_cleared_away",
        a_bundle_that_is_half_made_is_cleared_away,
    ),
    (
        "a_replica_of_another_version_is_left_alone",
        a_replica_of_another_version_is_left_alone,
    ),
    (
        "what_ended_by_itself_has_ended_also_without_its_shim",
        what_ended_by_itself_has_ended_also_without_its_shim,
    ),
    (
        "a_process_that_dies_while_the_node_is_down_is_seen",
        a_process_that_dies_while_the_node_is_down_is_seen,
    ),
];

fn a_build_runs_its_steps_and_keeps_what_they_wrote(kit: Kit) {
    let (layers, said) = kit.build("RUN [\"/app\", \"write\", \"/made\", \"by a step\"]\n");
    let top = layers.expect("built").remove(0);
    assert_eq!(
        fs::read_to_string(top.join("made")).expect("made"),
        "by a step"
    );
    let all: Vec<_> = fs::read_dir(&top).expect("a layer").flatten().collect();
    assert_eq!(all.len(), 1, "{all:?} {said}");
    for network in ["none", "default"] {
        let text = format!("RUN --network={network} [\"/app\", \"exit\", \"7\"]\n");
        let (layers, said) = kit.build(&text);
        let error = layers.expect_err("it fails");
        assert!(error.contains('7'), "{error}");
        assert!(said.contains("about to exit with 7"), "{said}");
    }
    let (layers, _) = kit.build("RUN --network=host [\"/app\", \"exit\", \"0\"]\n");
    let error = layers.expect_err("the operator has not allowed it");
    assert!(error.contains("--allow-privileged"), "{error}");
}

/// Asks until the program listens.
fn ask(address: IpAddr) -> String {
    let begun = Instant::now();
    loop {
        let connected = TcpStream::connect_timeout(&SocketAddr::new(address, 8000), DEADLINE);
        match connected {
            Ok(mut connection) => {
                let mut answer = String::new();
                connection.set_read_timeout(Some(DEADLINE)).expect("set");
                connection.read_to_string(&mut answer).expect("answered");
                return answer;
            }
            Err(error) if begun.elapsed() < DEADLINE => {
                let refused = error.kind() == std::io::ErrorKind::ConnectionRefused;
                assert!(refused, "{error}");
                std::thread::sleep(Duration::from_millis(2));
            }
            Err(error) => panic!("{error}"),
        }
    }
}

fn shim_pid(bundle: &Path) -> Pid {
    let text = fs::read_to_string(bundle.join("shim.pid")).expect("read");
    Pid::from_raw(text.trim().parse().expect("a number"))
}

/// Whether a process runs; one that ended and is not reaped yet does not.
fn is_alive(pid: i32) -> bool {
    let status = fs::read_to_string(format!("/proc/{pid}/status"));
    status.is_ok_and(|status| !status.contains("State:\tZ"))
}

fn a_replica_answers_at_its_address(kit: Kit) {
    kit.order(&Order::one(ONE, Wakefulness::Awake));
    let report = kit.until(ONE, "running", runs);
    let address = report.address.expect("an address");
    assert_eq!(ask(address), "ok");
    for depth in [Wakefulness::Dozing, Wakefulness::Asleep] {
        kit.order(&Order::one(ONE, depth));
        let at_rest = [Phase::Frozen, Phase::Stopped];
        kit.until(ONE, "at rest", |report| at_rest.contains(&report.phase));
        kit.order(&Order::one(ONE, Wakefulness::Awake));
        kit.until(ONE, "running", runs);
        assert_eq!(ask(address), "ok", "after {depth}");
    }
    kit.close();
}

fn a_replica_without_its_shim_is_lost(kit: Kit) {
    kit.order(&Order::one(ONE, Wakefulness::Awake));
    let report = kit.until(ONE, "running", runs);
    let pid = report.containers[0].pid.expect("a process");
    let bundle = kit.bundles().join(ONE.to_string());
    kill(shim_pid(&bundle), Signal::SIGKILL).expect("killed");
    let lost = kit.until(ONE, "lost", |report| report.phase == Phase::Lost);
    assert_eq!(lost.address, report.address, "it keeps its address");
    assert!(lost.trouble.is_some());
    kit.order(&Order::one(ONE, Wakefulness::Awake));
    assert_eq!(kit.see(ONE).expect("there").phase, Phase::Lost);
    kit.order(&Order::retire(&[ONE]));
    kit.until_gone(ONE);
    assert!(!is_alive(pid), "its processes ended with it");
    kit.close();
}

fn a_shim_that_died_with_the_node_is_cleared_away(kit: Kit) {
    kit.order(&Order::one(ONE, Wakefulness::Awake));
    let report = kit.until(ONE, "running", runs);
    let kit = kit.reopen(|bundles| {
        let bundle = bundles.join(ONE.to_string());
        kill(shim_pid(&bundle), Signal::SIGKILL).expect("killed");
    });
    let lost = kit.see(ONE).expect("it is told of");
    assert_eq!(lost.phase, Phase::Lost);
    assert_eq!(lost.address, report.address);
    kit.order(&Order::retire(&[ONE]));
    kit.until_gone(ONE);
    kit.close();
}

fn what_the_operator_has_not_allowed_is_not_prepared(kit: Kit) {
    kit.order(&Order::one(ONE, Wakefulness::Awake).kind(Kind::Privileged));
    let report = kit.until(ONE, "in trouble", |report| report.trouble.is_some());
    let trouble = report.trouble.expect("trouble");
    assert!(trouble.fatal, "{trouble:?}");
    assert!(
        trouble.message.contains("--allow-privileged"),
        "{trouble:?}"
    );
    kit.order(&Order::retire(&[ONE]));
    kit.until_gone(ONE);
    kit.close();
}

fn a_bundle_that_is_half_made_is_cleared_away(kit: Kit) {
    let kit = kit.reopen(|bundles| {
        let bundle = bundles.join(ONE.to_string());
        fs::create_dir_all(bundle.join("containers")).expect("a folder");
        fs::write(bundle.join("replica.json.new"), "{").expect("written");
        // Killed after the record was written, and before the shim had prepared anything.
        let bundle = bundles.join(TWO.to_string());
        fs::create_dir_all(&bundle).expect("a folder");
        let record = format!(
            r#"{{"v":1,"id":"{TWO}","service":"shop/web","revision":1,"generation":1,"images":[]}}"#
        );
        fs::write(bundle.join("replica.json"), record).expect("written");
    });
    assert_eq!(kit.all(), []);
    for id in [ONE, TWO] {
        assert!(!kit.bundles().join(id.to_string()).exists());
    }
    kit.close();
}

fn a_replica_of_another_version_is_left_alone(kit: Kit) {
    kit.order(&Order::one(ONE, Wakefulness::Awake));
    let report = kit.until(ONE, "running", runs);
    let pid = report.containers[0].pid.expect("a process");
    let shut = kit.shut();
    let bundle = shut.bundles().join(ONE.to_string());
    let file = bundle.join("replica.json");
    let record = fs::read_to_string(&file).expect("read");
    let shim_v = format!("\"shim_v\":{}", layby_runtime::protocol::VERSION);
    for (ours, other) in [("\"v\":1", "\"v\":99"), (&*shim_v, "\"shim_v\":99")] {
        assert!(record.contains(ours), "{record}");
        fs::write(&file, record.replace(ours, other)).expect("written");
        let refused = shut.open().err().expect("it is not opened").to_string();
        let named = refused.contains(&bundle.display().to_string());
        assert!(named && refused.contains("version 99"), "{refused}");
        assert!(is_alive(pid), "its process goes on");
    }
    fs::write(&file, record).expect("written");
    let kit = shut.open().expect("opened");
    let again = kit.see(ONE).expect("there");
    assert_eq!(again.containers[0].pid, Some(pid));
    kit.close();
}

fn what_ended_by_itself_has_ended_also_without_its_shim(kit: Kit) {
    let wake = || Order::one(ONE, Wakefulness::Awake).kind(Kind::Exits3);
    let end_shim = |bundles: &Path| {
        let bundle = bundles.join(ONE.to_string());
        kill(shim_pid(&bundle), Signal::SIGKILL).expect("killed");
    };
    kit.order(&wake());
    kit.until(ONE, "stopped", stopped);
    kit.order(&wake());
    let ended = kit.until(ONE, "ended again", |report| {
        stopped(report) && report.containers[0].ended == 2
    });
    assert_eq!(ended.ended_in_a_row, 2);
    assert!(ended.containers[0].last_exit_ms.is_some());
    let written = kit.bundles().join(ONE.to_string()).join("replica.json");
    let is_written = || fs::read_to_string(&written).is_ok_and(|text| text.contains("in_a_row"));
    kit.until(ONE, "written down", |_| is_written());
    // What the machine's restart does, as far as it can be done here.
    let kit = kit.reopen(end_shim);
    let same = |kit: &Kit| {
        let seen = kit.see(ONE).expect("there");
        assert_eq!((&seen.ended, seen.ended_in_a_row), (&ended.ended, 2));
        assert_eq!(seen.containers, ended.containers);
        assert_eq!(seen.phase, Phase::Stopped);
    };
    same(&kit);
    kit.end_all();
    let kit = kit.reopen(|_| ());
    same(&kit);
    kit.order(&wake());
    kit.until(ONE, "lost", |report| report.phase == Phase::Lost);
    kit.order(&Order::retire(&[ONE]));
    kit.until_gone(ONE);
    // While the node looks on.
    let two = Order::one(TWO, Wakefulness::Awake).kind(Kind::Exits3);
    kit.order(&two);
    kit.until(TWO, "stopped", stopped);
    kill(
        shim_pid(&kit.bundles().join(TWO.to_string())),
        Signal::SIGKILL,
    )
    .expect("killed");
    kit.order(&two);
    kit.until(TWO, "lost", |report| report.phase == Phase::Lost);
    kit.close();
}

fn a_process_that_dies_while_the_node_is_down_is_seen(kit: Kit) {
    kit.order(&Order::one(ONE, Wakefulness::Awake));
    let report = kit.until(ONE, "running", runs);
    let pid = report.containers[0].pid.expect("a process");
    let kit = kit.reopen(|_| {
        kill(Pid::from_raw(pid), Signal::SIGKILL).expect("killed");
    });
    let ended = kit.until(ONE, "stopped", stopped);
    assert_eq!(ended.containers[0].ended, 1);
    let exit = ended.containers[0].last_exit.expect("an exit");
    assert_eq!(exit.code, 137);
    kit.order(&Order::one(ONE, Wakefulness::Awake));
    let again = kit.until(ONE, "running", runs);
    assert_ne!(again.containers[0].pid, Some(pid));
    kit.close();
}
