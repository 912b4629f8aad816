//! The promises. What each says is its name.

use std::collections::BTreeSet;
use std::time::Duration;

use futures_util::StreamExt;
use layby_model::engine::{EngineError, LogQuery};
use layby_model::replica::{Exit, Phase};
use layby_model::{ReplicaId, Wakefulness};

use crate::Promise;
use crate::kit::{Kind, Kit, Order, runs, service, stopped};

const ONE: ReplicaId = ReplicaId(0x1_000001);
const TWO: ReplicaId = ReplicaId(0x1_000002);
const THREE: ReplicaId = ReplicaId(0x1_000003);

/// What every engine promises.
pub(crate) const EVERY_ENGINE: &[Promise] = &[
    ("an_order_may_be_repeated", an_order_may_be_repeated),
    (
        "an_older_generation_is_refused",
        an_older_generation_is_refused,
    ),
    (
        "a_replica_keeps_its_address_on_the_ladder",
        a_replica_keeps_its_address_on_the_ladder,
    ),
    (
        "an_order_shows_from_when_it_is_accepted",
        an_order_shows_from_when_it_is_accepted,
    ),
    (
        "exactly_those_that_are_named_are_retired",
        exactly_those_that_are_named_are_retired,
    ),
    (
        "many_replicas_come_and_go_at_once",
        many_replicas_come_and_go_at_once,
    ),
    ("the_latest_order_wins", the_latest_order_wins),
    ("a_missing_image_is_fatal", a_missing_image_is_fatal),
    ("a_missing_command_is_fatal", a_missing_command_is_fatal),
    (
        "an_exit_is_seen_and_not_mended_unasked",
        an_exit_is_seen_and_not_mended_unasked,
    ),
    (
        "a_container_that_ends_is_started_again_while_the_others_go_on",
        a_container_that_ends_is_started_again_while_the_others_go_on,
    ),
    (
        "a_replica_has_ended_with_the_last_of_those_that_are_left_so",
        a_replica_has_ended_with_the_last_of_those_that_are_left_so,
    ),
    (
        "a_container_is_ended_alone_by_order",
        a_container_is_ended_alone_by_order,
    ),
    (
        "a_log_can_be_followed_until_the_replica_is_gone",
        a_log_can_be_followed_until_the_replica_is_gone,
    ),
    (
        "a_command_runs_in_a_running_replica_only",
        a_command_runs_in_a_running_replica_only,
    ),
    ("a_change_is_hinted_at", a_change_is_hinted_at),
];

/// What engines promise whose replicas outlive the node.
pub(crate) const LASTING: &[Promise] =
    &[("a_restart_finds_everything", a_restart_finds_everything)];

fn awake(id: ReplicaId) -> Order {
    Order::one(id, Wakefulness::Awake)
}

fn dozing(id: ReplicaId) -> Order {
    Order::one(id, Wakefulness::Dozing)
}

fn asleep(id: ReplicaId) -> Order {
    Order::one(id, Wakefulness::Asleep)
}

fn an_order_may_be_repeated(kit: Kit) {
    kit.order(&awake(ONE));
    kit.order(&awake(ONE));
    let first = kit.until(ONE, "running", runs);
    for _ in 0..3 {
        kit.order(&awake(ONE));
    }
    let again = kit.until(ONE, "running", runs);
    assert_eq!(kit.all().len(), 1);
    assert_eq!(
        (again.run, again.containers[0].pid),
        (1, first.containers[0].pid)
    );
    kit.order(&Order::retire(&[ONE]));
    kit.order(&Order::retire(&[ONE]));
    kit.until_gone(ONE);
    kit.order(&Order::retire(&[ONE]));
    kit.close();
}

fn an_older_generation_is_refused(kit: Kit) {
    kit.order(&asleep(ONE).generation(5));
    let refused = kit.try_order(&awake(ONE).generation(4));
    let stale = EngineError::Stale {
        service: service(),
        given: 4,
        seen: 5,
    };
    assert_eq!(refused, Err(stale));
    let seen = kit.until(ONE, "stopped", stopped);
    assert_eq!((seen.generation, seen.run), (5, 0));
    kit.order(&asleep(ONE).generation(6));
    assert_eq!(kit.see(ONE).expect("there").generation, 6);
    kit.close();
}

fn a_replica_keeps_its_address_on_the_ladder(kit: Kit) {
    kit.order(&asleep(ONE));
    let prepared = kit.until(ONE, "prepared", stopped);
    assert_eq!((prepared.run, prepared.trouble), (0, None));
    kit.order(&awake(ONE));
    let awake_first = kit.until(ONE, "running", runs);
    let pid = awake_first.containers[0].pid;
    kit.order(&dozing(ONE));
    let frozen = kit.until(ONE, "frozen", |report| report.phase == Phase::Frozen);
    assert_eq!(frozen.containers[0].pid, pid, "a doze ends no process");
    kit.order(&awake(ONE));
    let thawed = kit.until(ONE, "running", runs);
    assert_eq!((thawed.containers[0].pid, thawed.run), (pid, 2));
    kit.order(&dozing(ONE));
    kit.until(ONE, "frozen", |report| report.phase == Phase::Frozen);
    kit.order(&asleep(ONE));
    let asleep = kit.until(ONE, "stopped", stopped);
    kit.order(&awake(ONE));
    let awake_again = kit.until(ONE, "running", runs);
    for report in [&awake_first, &frozen, &thawed, &asleep, &awake_again] {
        assert_eq!(report.address, prepared.address, "{:?}", report.phase);
        assert_eq!(report.containers[0].ended, 0, "nothing ended unasked");
    }
    assert_eq!(awake_again.run, 3);
    kit.close();
}

fn an_order_shows_from_when_it_is_accepted(kit: Kit) {
    let phase = |kit: &Kit| kit.see(ONE).map(|report| report.phase);
    kit.order(&awake(ONE));
    assert!(matches!(phase(&kit), Some(Phase::Starting | Phase::Ready)));
    kit.until(ONE, "running", runs);
    kit.order(&dozing(ONE));
    assert!(matches!(phase(&kit), Some(Phase::Freezing | Phase::Frozen)));
    kit.until(ONE, "frozen", |report| report.phase == Phase::Frozen);
    kit.order(&awake(ONE));
    assert!(matches!(phase(&kit), Some(Phase::Starting | Phase::Ready)));
    kit.order(&asleep(ONE));
    assert!(matches!(
        phase(&kit),
        Some(Phase::Stopping | Phase::Stopped)
    ));
    kit.order(&Order::retire(&[ONE]));
    assert!(matches!(phase(&kit), Some(Phase::Removing) | None));
    kit.until_gone(ONE);
    kit.close();
}

fn exactly_those_that_are_named_are_retired(kit: Kit) {
    for id in [ONE, TWO, THREE] {
        kit.order(&awake(id));
    }
    let one = kit.until(ONE, "running", runs);
    let two = kit.until(TWO, "running", runs);
    let three = kit.until(THREE, "running", runs);
    assert_ne!(one.address, two.address);
    kit.order(&dozing(THREE));
    kit.until(THREE, "frozen", |report| report.phase == Phase::Frozen);
    kit.order(&Order::retire(&[ONE, THREE]));
    kit.until_gone(ONE);
    kit.until_gone(THREE);
    assert_ne!(three.address, two.address);
    let left = kit.until(TWO, "running", runs);
    assert_eq!(left.containers[0].pid, two.containers[0].pid);
    kit.close();
}

fn many_replicas_come_and_go_at_once(kit: Kit) {
    let ids: Vec<ReplicaId> = (1..=12).map(ReplicaId).collect();
    let mut all = awake(ids[0]);
    all.replicas = ids.iter().map(|id| (*id, Wakefulness::Awake)).collect();
    kit.order(&all);
    let reports: Vec<_> = ids
        .iter()
        .map(|id| kit.until(*id, "running", runs))
        .collect();
    let addresses: BTreeSet<_> = reports.iter().map(|report| report.address).collect();
    let pids: BTreeSet<_> = reports
        .iter()
        .map(|report| report.containers[0].pid)
        .collect();
    assert_eq!((addresses.len(), pids.len()), (ids.len(), ids.len()));
    kit.order(&Order::retire(&ids));
    for id in ids {
        kit.until_gone(id);
    }
    kit.close();
}

fn the_latest_order_wins(kit: Kit) {
    kit.order(&awake(ONE));
    for _ in 0..5 {
        kit.order(&dozing(ONE));
        kit.order(&awake(ONE));
        kit.order(&asleep(ONE));
    }
    kit.until(ONE, "stopped", stopped);
    kit.order(&asleep(ONE));
    kit.order(&awake(ONE));
    kit.until(ONE, "running", runs);
    kit.close();
}

fn a_missing_image_is_fatal(kit: Kit) {
    kit.order(&awake(ONE).kind(Kind::MissingImage));
    let report = kit.until(ONE, "in trouble", |report| report.trouble.is_some());
    let trouble = report.trouble.expect("trouble");
    assert!(trouble.fatal, "{trouble:?}");
    assert!(trouble.message.contains("image"), "{trouble:?}");
    kit.order(&Order::retire(&[ONE]));
    kit.until_gone(ONE);
    kit.close();
}

fn a_missing_command_is_fatal(kit: Kit) {
    kit.order(&awake(ONE).kind(Kind::MissingCommand));
    let report = kit.until(ONE, "in trouble", |report| report.trouble.is_some());
    let trouble = report.trouble.expect("trouble");
    assert!(trouble.fatal, "{trouble:?}");
    assert!(trouble.message.contains("/nope"), "{trouble:?}");
    kit.until(ONE, "stopped", |report| report.phase == Phase::Stopped);
    kit.order(&Order::retire(&[ONE]));
    kit.until_gone(ONE);
    kit.close();
}

fn an_exit_is_seen_and_not_mended_unasked(kit: Kit) {
    kit.order(&awake(ONE).kind(Kind::Exits3));
    let ended = kit.until(ONE, "ended", |report| report.containers[0].ended == 1);
    let exit = Exit {
        code: 3,
        oom: false,
    };
    assert_eq!(ended.containers[0].last_exit, Some(exit));
    let stopped = kit.until(ONE, "stopped", stopped);
    assert_eq!(stopped.run, 1);
    kit.order(&awake(ONE).kind(Kind::Exits3));
    let again = kit.until(ONE, "ended", |report| report.containers[0].ended == 2);
    assert_eq!(again.run, 2, "one order, one run");
    kit.close();
}

fn a_container_that_ends_is_started_again_while_the_others_go_on(kit: Kit) {
    kit.order(&awake(ONE).kind(Kind::WithHelper));
    let first = kit.until(ONE, "running", runs);
    let again = kit.until(ONE, "helped again", |report| {
        report.containers[1].starts >= 3
    });
    assert!(again.ended.is_none() && again.run == 1, "{again:?}");
    assert_eq!(again.containers[0], first.containers[0]);
    let lies = kit.until(ONE, "without its helper", |report| {
        report.containers[1].down
    });
    assert!(lies.containers[1].pid.is_none() && lies.containers[1].ended >= 3);
    assert_eq!(lies.phase, Phase::Starting, "it is not whole");
    // Unless it was started again just now.
    let helper = &lies.containers[1].name;
    let ended = kit.runtime.block_on(kit.engine.end(ONE, helper, Some(0)));
    let lay = matches!(ended, Ok(()) | Err(EngineError::NotFound(_)));
    assert!(lay, "{ended:?}");
    kit.order(&Order::retire(&[ONE]));
    kit.until_gone(ONE);
    kit.close();
}

fn a_replica_has_ended_with_the_last_of_those_that_are_left_so(kit: Kit) {
    kit.order(&awake(ONE).kind(Kind::TwoTasks));
    let stopped = kit.until(ONE, "stopped", |report| {
        stopped(report) && report.ended.is_some()
    });
    let ends = stopped
        .containers
        .iter()
        .map(|c| (c.ended, c.starts, c.down));
    assert_eq!(ends.collect::<Vec<_>>(), [(1, 1, false); 2]);
    kit.close();
}

fn a_container_is_ended_alone_by_order(kit: Kit) {
    kit.order(&awake(ONE).kind(Kind::WithHelper));
    let first = kit.until(ONE, "running", runs);
    let name = first.containers[0].name.clone();
    let ended = kit.runtime.block_on(kit.engine.end(ONE, &name, Some(0)));
    ended.expect("ended");
    let again = kit.until(ONE, "started again", |report| {
        report.containers[0].starts == 2 && report.containers[0].pid.is_some()
    });
    assert_ne!(again.containers[0].pid, first.containers[0].pid);
    assert_eq!((again.run, again.containers[0].ended), (1, 1));
    let nobody = kit.runtime.block_on(kit.engine.end(ONE, "nobody", None));
    assert!(
        matches!(nobody, Err(EngineError::NotFound(_))),
        "{nobody:?}"
    );
    kit.order(&Order::retire(&[ONE]));
    kit.until_gone(ONE);
    kit.close();
}

fn a_log_can_be_followed_until_the_replica_is_gone(kit: Kit) {
    kit.order(&awake(ONE));
    kit.until(ONE, "running", runs);
    let query = LogQuery {
        follow: true,
        ..LogQuery::default()
    };
    let deadline = Duration::from_secs(60);
    let log = kit.runtime.block_on(kit.engine.logs(ONE, query));
    let mut log = log.expect("a log");
    let first = async { tokio::time::timeout(deadline, log.next()).await };
    let first = kit.runtime.block_on(first).expect("in time");
    let first = first.expect("a line");
    assert_eq!((&*first.text, &*first.stream), ("started", "stdout"));
    assert!(first.at_ms > 1_700_000_000_000, "{first:?}");
    let query = LogQuery {
        tail: Some(0),
        ..LogQuery::default()
    };
    let none = kit.runtime.block_on(async {
        let log = kit.engine.logs(ONE, query).await.expect("a log");
        log.count().await
    });
    assert_eq!(none, 0);
    let query = LogQuery {
        container: Some("other".to_owned()),
        ..LogQuery::default()
    };
    let refused = kit.runtime.block_on(kit.engine.logs(ONE, query));
    assert!(matches!(refused.err(), Some(EngineError::NotFound(_))));
    kit.order(&Order::retire(&[ONE]));
    let rest = async { tokio::time::timeout(deadline, log.count()).await };
    kit.runtime.block_on(rest).expect("it ends");
    kit.close();
}

fn a_command_runs_in_a_running_replica_only(kit: Kit) {
    let exec = |argv: Vec<String>, container: Option<&'static str>| {
        let exec = kit.engine.exec(ONE, container, &argv, 60_000);
        kit.runtime.block_on(exec)
    };
    assert!(matches!(
        exec(kit.say("hi"), None),
        Err(EngineError::NotFound(_))
    ));
    kit.order(&awake(ONE));
    kit.until(ONE, "running", runs);
    let said = exec(kit.say("hello there"), None).expect("it ran");
    assert_eq!((said.code, &*said.output), (0, b"hello there\n".as_slice()));
    let ended = exec(kit.exit(7), Some("web")).expect("it ran");
    assert_eq!(ended.code, 7);
    let other = exec(kit.say("hi"), Some("other"));
    assert!(matches!(other, Err(EngineError::NotFound(_))));
    kit.order(&dozing(ONE));
    kit.until(ONE, "frozen", |report| report.phase == Phase::Frozen);
    assert!(matches!(
        exec(kit.say("hi"), None),
        Err(EngineError::NotFound(_))
    ));
    kit.close();
}

fn a_change_is_hinted_at(kit: Kit) {
    let mut hints = kit.engine.changes();
    kit.order(&awake(ONE));
    let hint = async { tokio::time::timeout(Duration::from_secs(60), hints.next()).await };
    let hint = kit
        .runtime
        .block_on(hint)
        .expect("in time")
        .expect("a hint");
    assert!(hint.is_none_or(|service_hinted| service_hinted == service()));
    kit.close();
}

fn a_restart_finds_everything(kit: Kit) {
    for id in [ONE, TWO] {
        kit.order(&awake(id).generation(4));
    }
    kit.order(&asleep(THREE).generation(4));
    kit.until(ONE, "running", runs);
    kit.until(TWO, "running", runs);
    kit.order(&dozing(TWO).generation(4));
    let frozen = |report: &layby_model::replica::ReplicaReport| report.phase == Phase::Frozen;
    kit.until(TWO, "frozen", frozen);
    kit.until(THREE, "stopped", stopped);
    let before = kit.all();

    let kit = kit.reopen(|_| {});
    let after = kit.all();
    assert_eq!(after.len(), 3);
    for (before, after) in before.iter().zip(&after) {
        assert_eq!(after.containers, before.containers, "{}", before.id);
        assert_eq!(after.address, before.address, "{}", before.id);
        assert_eq!(after.phase, before.phase, "{}", before.id);
        assert_eq!((after.revision, after.generation), (before.revision, 4));
    }
    let refused = kit.try_order(&awake(ONE).generation(3));
    assert!(matches!(refused, Err(EngineError::Stale { .. })));
    kit.order(&awake(TWO).generation(4));
    let thawed = kit.until(TWO, "running", runs);
    assert_eq!(
        thawed.containers, before[1].containers,
        "a doze outlives the node"
    );
    kit.order(&awake(THREE).generation(4));
    kit.until(THREE, "running", runs);
    kit.close();
}
