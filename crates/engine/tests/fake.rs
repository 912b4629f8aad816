//! What the names of images order from the fake engine. Time is paused: nothing here waits.

use std::collections::BTreeMap;
use std::time::Duration;

use futures_util::StreamExt;
use layby_engine::fake::{Fake, FakeOptions};
use layby_model::engine::{Engine, LogQuery, RunSpec, Workload};
use layby_model::replica::{Exit, Phase, ReplicaReport};
use layby_model::spec::{ContainerSpec, ServiceSpec};
use layby_model::{ReplicaId, RevisionId, ServiceId, ServiceName, Wakefulness};

const ID: ReplicaId = ReplicaId(1);

fn spec(image: &str) -> RunSpec {
    let web = ServiceName::new("web").expect("a label");
    let service = ServiceSpec {
        containers: vec![ContainerSpec::new("web", image)],
        ..ServiceSpec::new(web)
    };
    RunSpec {
        service,
        images: vec!["sha256:00".to_owned()],
    }
}

async fn order(fake: &Fake, image: &str, depth: Wakefulness) {
    let service: ServiceId = "shop/web".parse().expect("a service");
    let workload = Workload {
        service,
        revision: RevisionId(1),
        generation: 1,
        spec: spec(image),
        replicas: BTreeMap::from([(ID, depth)]),
        retire: Vec::new(),
    };
    fake.apply(&workload).await.expect("accepted");
}

async fn seen(fake: &Fake) -> ReplicaReport {
    let mut all = fake.observe(None).await.expect("observed");
    assert_eq!(all.len(), 1);
    all.remove(0)
}

async fn after(fake: &Fake, length: Duration) -> ReplicaReport {
    tokio::time::sleep(length).await;
    seen(fake).await
}

const SECOND: Duration = Duration::from_secs(1);

#[tokio::test(start_paused = true)]
async fn a_slow_one_is_starting_until_it_answers() {
    let fake = Fake::new(FakeOptions::default());
    order(&fake, "fake/slow:10s", Wakefulness::Awake).await;
    assert_eq!(after(&fake, 9 * SECOND).await.phase, Phase::Starting);
    assert_eq!(after(&fake, 2 * SECOND).await.phase, Phase::Ready);
}

#[tokio::test(start_paused = true)]
async fn one_that_hangs_is_never_ready() {
    let fake = Fake::new(FakeOptions::default());
    order(&fake, "fake/hangs", Wakefulness::Awake).await;
    let report = after(&fake, 3600 * SECOND).await;
    assert_eq!(report.phase, Phase::Starting);
    assert!(report.containers[0].pid.is_some());
}

#[tokio::test(start_paused = true)]
async fn an_engine_that_does_not_probe_reports_no_replica_ready() {
    let fake = Fake::new(FakeOptions {
        reports_health: false,
        ..FakeOptions::default()
    });
    order(&fake, "fake/ok", Wakefulness::Awake).await;
    let report = after(&fake, SECOND).await;
    assert_eq!(report.phase, Phase::Starting);
    assert!(report.containers[0].pid.is_some());
}

#[tokio::test(start_paused = true)]
async fn one_that_exits_stays_stopped_until_ordered_again() {
    let fake = Fake::new(FakeOptions::default());
    order(&fake, "fake/exits:3", Wakefulness::Awake).await;
    let report = after(&fake, SECOND).await;
    assert_eq!(report.phase, Phase::Stopped);
    assert_eq!(report.containers[0].ended, 1);
    let exit = Exit {
        code: 3,
        oom: false,
    };
    assert_eq!(report.containers[0].last_exit, Some(exit));
    order(&fake, "fake/exits:3", Wakefulness::Awake).await;
    let report = after(&fake, SECOND).await;
    assert_eq!((report.containers[0].ended, report.run), (2, 2));
}

#[tokio::test(start_paused = true)]
async fn the_time_of_a_frozen_one_stands_still() {
    let fake = Fake::new(FakeOptions::default());
    let image = "fake/crashes-after:10s";
    order(&fake, image, Wakefulness::Awake).await;
    assert_eq!(after(&fake, 5 * SECOND).await.phase, Phase::Ready);
    order(&fake, image, Wakefulness::Dozing).await;
    assert_eq!(after(&fake, 100 * SECOND).await.phase, Phase::Frozen);
    order(&fake, image, Wakefulness::Awake).await;
    assert_eq!(after(&fake, 4 * SECOND).await.phase, Phase::Ready);
    assert_eq!(after(&fake, 2 * SECOND).await.phase, Phase::Stopped);
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_done_says_whether_trying_again_helps() {
    for (image, fatal) in [
        ("fake/missing", true),
        ("fake/no-command", true),
        ("fake/full-disk", false),
    ] {
        let fake = Fake::new(FakeOptions::default());
        order(&fake, image, Wakefulness::Awake).await;
        let report = after(&fake, SECOND).await;
        assert_eq!(report.phase, Phase::Stopped, "{image}");
        let trouble = report.trouble.expect("trouble");
        assert_eq!(trouble.fatal, fatal, "{image}");
    }
}

#[tokio::test(start_paused = true)]
async fn one_that_vanishes_is_lost_and_leaves_only_when_retired() {
    let fake = Fake::new(FakeOptions::default());
    order(&fake, "fake/vanishes-after:1s", Wakefulness::Awake).await;
    assert_eq!(after(&fake, 2 * SECOND).await.phase, Phase::Lost);
    order(&fake, "fake/vanishes-after:1s", Wakefulness::Awake).await;
    assert_eq!(after(&fake, SECOND).await.phase, Phase::Lost);
}

#[tokio::test(start_paused = true)]
async fn a_test_can_crash_a_replica_and_follow_its_log() {
    let fake = Fake::new(FakeOptions::default());
    order(&fake, "fake/ok", Wakefulness::Awake).await;
    assert_eq!(after(&fake, SECOND).await.phase, Phase::Ready);
    let query = LogQuery {
        tail: Some(1),
        follow: true,
        ..LogQuery::default()
    };
    let mut log = fake.logs(ID, query).await.expect("a log");
    assert_eq!(log.next().await.expect("a line").text, "ready");
    assert!(fake.crash(ID, 7));
    assert_eq!(log.next().await.expect("a line").text, "ended with code 7");
    assert_eq!(seen(&fake).await.phase, Phase::Stopped);
    assert!(!fake.crash(ID, 7), "it does not run any more");
}

/// Orders a replica of `fake/ok` before whose container one with this image runs.
async fn order_after(fake: &Fake, before: &str, depth: Wakefulness) {
    let mut spec = spec("fake/ok");
    spec.service.init = vec![ContainerSpec::new("before", before)];
    let workload = Workload {
        service: "shop/web".parse().expect("a service"),
        revision: RevisionId(1),
        generation: 1,
        spec,
        replicas: BTreeMap::from([(ID, depth)]),
        retire: Vec::new(),
    };
    fake.apply(&workload).await.expect("accepted");
}

#[tokio::test(start_paused = true)]
async fn what_runs_before_runs_once_and_a_failure_of_it_is_an_end() {
    let fake = Fake::new(FakeOptions::default());
    order_after(&fake, "fake/exits:0", Wakefulness::Awake).await;
    let report = after(&fake, SECOND).await;
    let well = Exit {
        code: 0,
        oom: false,
    };
    assert_eq!(
        (report.phase, report.init[0].last_exit),
        (Phase::Ready, Some(well))
    );

    let fake = Fake::new(FakeOptions::default());
    order_after(&fake, "fake/exits:4", Wakefulness::Awake).await;
    let report = after(&fake, SECOND).await;
    assert_eq!((report.phase, report.ended_in_a_row), (Phase::Stopped, 1));
    let end = report.ended.expect("an end");
    assert_eq!((end.container.as_str(), end.exit.code), ("before", 4));
}

#[tokio::test(start_paused = true)]
async fn an_order_ends_what_runs_before_the_others() {
    let fake = Fake::new(FakeOptions::default());
    order_after(&fake, "fake/hangs", Wakefulness::Awake).await;
    assert_eq!(after(&fake, 100 * SECOND).await.phase, Phase::Starting);
    order_after(&fake, "fake/hangs", Wakefulness::Asleep).await;
    let report = after(&fake, SECOND).await;
    assert_eq!((report.phase, report.ended), (Phase::Stopped, None));
}
