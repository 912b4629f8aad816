//! Jobs on the fake engine: runs, schedules, one-off commands, and what a kill of the node leaves.

mod common;

use std::collections::BTreeMap;
use std::time::Duration;

use axum::http::StatusCode;
use common::{Deployed, PATIENCE, World, compose, tar};
use futures_util::StreamExt;
use layby_control::api::types::{
    Event, JobView, KeptSecret, LogView, Problem, RemovedView, RunState, RunView, StatusView,
    VolumeView,
};
use layby_model::RevisionId;
use layby_model::engine::{Engine, RunSpec, Workload};
use layby_model::spec::ServiceSpec;
use layby_model::state::Showing;
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::{Error as WsError, Message};
use tokio_tungstenite::{WebSocketStream, client_async};

/// A Kubernetes Job of this command, with more lines in its spec.
fn job(command: &str, more: &str) -> String {
    format!(
        "apiVersion: batch/v1\nkind: Job\nmetadata: {{name: task}}\nspec:\n  backoffLimit: 0\n{more}  template:\n    spec:\n      restartPolicy: Never\n      containers: [{{name: task, image: fake/ok, command: [{command}]}}]\n"
    )
}

/// A Compose file with a service and a job.
fn scheduled(cron: &str, more: &str) -> String {
    format!(
        "services:\n  web: {{image: fake/ok}}\n  task:\n    image: fake/ok\n    entrypoint: [echo, done]\n    x-layby: {{schedule: '{cron}', time_zone: UTC{more}}}\n"
    )
}

async fn apply(world: &World, manifest: &str) -> Deployed {
    let tar = tar(&[("manifest/jobs.yaml", manifest.as_bytes())]);
    let (status, body) = world
        .ask("POST", "/v1/apps?app=shop&folder=folder", tar)
        .await;
    Deployed::of(status, &body)
}

/// What was told of jobs.
fn told(deployed: &Deployed) -> Vec<String> {
    let events = deployed.events.iter();
    let jobs = events.filter_map(|event| match event {
        Event::Job { job, text } => Some(format!("{job}  {text}")),
        _ => None,
    });
    jobs.collect()
}

async fn runs(world: &World, name: &str) -> Vec<RunView> {
    world.get(&format!("/v1/jobs/shop/{name}/runs")).await
}

/// Waits until the newest run of a job or service looks like this.
async fn until_run(world: &World, name: &str, what: impl Fn(&RunView) -> bool) -> RunView {
    let started = tokio::time::Instant::now();
    loop {
        let newest = runs(world, name).await.into_iter().next();
        match newest {
            Some(run) if what(&run) => return run,
            newest => assert!(
                started.elapsed() < PATIENCE,
                "never came about; now {newest:#?}"
            ),
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

fn over(run: &RunView) -> bool {
    run.state.is_over()
}

async fn log(world: &World, name: &str, run: u32) -> Vec<String> {
    let path = format!("/v1/jobs/shop/{name}/runs/{run}/logs");
    let (status, body) = world.ask("GET", &path, vec![]).await;
    assert_eq!(status, StatusCode::OK);
    let lines = String::from_utf8(body.to_vec()).expect("UTF-8");
    let lines = lines
        .lines()
        .map(|line| serde_json::from_str(line).expect("a line"));
    lines.map(|line: LogView| line.text).collect()
}

async fn refused(world: &World, method: &str, path: &str, body: &str) -> Problem {
    let (status, answer) = world.ask(method, path, body.as_bytes().to_vec()).await;
    assert!(status.is_client_error(), "{method} {path}: {status}");
    serde_json::from_slice(&answer).expect("a problem")
}

/// Runs a command with this test at its other end.
async fn held(world: &World, query: &str) -> WebSocketStream<TcpStream> {
    try_held(world, query).await.expect("begun")
}

async fn try_held(world: &World, query: &str) -> Result<WebSocketStream<TcpStream>, WsError> {
    let addr = world.serve().await;
    let stream = TcpStream::connect(addr).await.expect("connected");
    let url = format!("ws://{addr}/v1/services/shop/web/run?{query}");
    let mut request = url.into_client_request().expect("a request");
    let protocol = "v5.channel.k8s.io".parse().expect("a header");
    request
        .headers_mut()
        .insert("sec-websocket-protocol", protocol);
    Ok(client_async(request, stream).await?.0)
}

/// All that a command says, and how it ends.
async fn rest(mut socket: WebSocketStream<TcpStream>) -> (String, Option<i32>) {
    let mut said = Vec::new();
    loop {
        let next = tokio::time::timeout(PATIENCE, socket.next()).await;
        match next.expect("in time").expect("a message").expect("whole") {
            Message::Binary(bytes) if bytes[0] == 3 => {
                let status: StatusView = serde_json::from_slice(&bytes[1..]).expect("a status");
                return (String::from_utf8(said).expect("UTF-8"), status.exit_code());
            }
            Message::Binary(bytes) => said.extend(&bytes[1..]),
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test]
async fn a_job_runs_once_and_anew_when_it_has_changed_and_leaves_its_log_alone() {
    let world = World::new().await;
    let up = apply(&world, &job("echo, done", "")).await;
    assert_eq!(
        (told(&up), up.code()),
        (vec!["shop/task  job, run 1 began".to_owned()], 0)
    );
    let run = until_run(&world, "task", over).await;
    assert_eq!(
        (run.state, run.exit.map(|exit| exit.code)),
        (RunState::Succeeded, Some(0))
    );
    assert!(log(&world, "task", 1).await.contains(&"done".to_owned()));
    world.until_replicas(<[_]>::is_empty).await;
    let same = apply(&world, &job("echo, done", "")).await;
    assert_eq!(told(&same), ["shop/task  job, unchanged"]);
    let changed = apply(&world, &job("exit, '3'", "")).await;
    assert_eq!(told(&changed), ["shop/task  job, run 2 began"]);
    let run = until_run(&world, "task", |run| run.run == 2 && over(run)).await;
    assert_eq!(
        (run.state, run.exit.map(|exit| exit.code)),
        (RunState::Failed, Some(3))
    );
    let (status, body) = world.ask("DELETE", "/v1/apps/shop", vec![]).await;
    assert_eq!(status, StatusCode::OK);
    let removed: RemovedView = serde_json::from_slice(&body).expect("what was removed");
    assert_eq!(removed.removed, ["shop/task"]);
    let jobs: Vec<JobView> = world.get("/v1/jobs").await;
    assert!(jobs.is_empty() && !world.dir.path().join("jobs/shop").exists());
}

#[tokio::test]
async fn an_attempt_that_fails_is_followed_by_another_one() {
    let world = World::new().await;
    let more = "  parallelism: 2\n  completions: 3\n";
    apply(&world, &job("'true'", more)).await;
    let run = until_run(&world, "task", over).await;
    assert_eq!((run.state, run.attempts.len()), (RunState::Succeeded, 3));
    let again = job("'false'", "").replace("backoffLimit: 0", "backoffLimit: 1");
    apply(&world, &again).await;
    let run = until_run(&world, "task", |run| run.run == 2 && over(run)).await;
    assert_eq!((run.state, run.attempts.len()), (RunState::Failed, 2));
    let hopeless = again.replace(
        "image: fake/ok, command: ['false']",
        "image: fake/no-command",
    );
    apply(&world, &hopeless).await;
    let run = until_run(&world, "task", |run| run.run == 3 && over(run)).await;
    assert_eq!((run.state, run.attempts.len()), (RunState::Failed, 1));
    assert!(
        run.message
            .is_some_and(|message| message.contains("no such command"))
    );
}

#[tokio::test]
async fn each_good_end_of_an_indexed_job_has_a_number_of_its_own() {
    let world = World::new().await;
    let more = "  completionMode: Indexed\n  parallelism: 2\n  completions: 2\n";
    apply(&world, &job("sleep, 60s", more)).await;
    let id = "shop/task".parse().expect("a name");
    let started = tokio::time::Instant::now();
    let mut numbers = Vec::new();
    while numbers.len() < 2 {
        assert!(
            started.elapsed() < PATIENCE,
            "never came about: {numbers:?}"
        );
        tokio::time::sleep(Duration::from_millis(5)).await;
        numbers.clear();
        for report in world.fake.observe(Some(&id)).await.expect("seen") {
            let argv = ["printenv", "JOB_COMPLETION_INDEX"].map(str::to_owned);
            // Not before it runs.
            if let Ok(said) = world.fake.exec(report.id, None, &argv, 1_000).await {
                numbers.push(String::from_utf8_lossy(&said.output).trim().to_owned());
            }
        }
    }
    numbers.sort();
    assert_eq!(numbers, ["0", "1"]);
}

#[tokio::test]
async fn a_run_that_takes_too_long_or_is_not_wanted_any_more_is_ended() {
    let world = World::new().await;
    apply(&world, &job("sleep, 1m", "  activeDeadlineSeconds: 1\n")).await;
    let run = until_run(&world, "task", over).await;
    assert_eq!(run.state, RunState::TimedOut);
    apply(&world, &job("sleep, 2m", "")).await;
    until_run(&world, "task", |run| {
        run.run == 2 && run.state == RunState::Running
    })
    .await;
    let (status, _) = world
        .ask("DELETE", "/v1/jobs/shop/task/runs/2", vec![])
        .await;
    assert_eq!(status, StatusCode::ACCEPTED);
    let run = until_run(&world, "task", over).await;
    assert_eq!(
        (run.state, run.stopped_by.as_deref()),
        (RunState::Stopped, Some("root"))
    );
    let again = refused(&world, "DELETE", "/v1/jobs/shop/task/runs/2", "").await;
    assert_eq!(again.status, 409);
    world.until_replicas(<[_]>::is_empty).await;
}

#[tokio::test]
async fn a_job_that_cannot_run_keeps_no_other_one_waiting_and_ends_when_it_is_to() {
    let world = World::new().await;
    // No order for this one is taken, ever: another node's would be newer.
    let newer = Workload {
        service: "shop/bad".parse().expect("a name"),
        revision: RevisionId(1),
        generation: u64::MAX >> 1,
        spec: RunSpec {
            service: ServiceSpec::new("bad".parse().expect("a name")),
            images: vec![],
        },
        replicas: BTreeMap::new(),
        retire: vec![],
    };
    world.fake.apply(&newer).await.expect("taken");
    let limit = "  activeDeadlineSeconds: 1\n";
    let bad = job("echo, done", limit).replace("metadata: {name: task}", "metadata: {name: bad}");
    apply(&world, &format!("{bad}---\n{}", job("echo, done", ""))).await;
    let good = until_run(&world, "task", over).await;
    assert_eq!(good.state, RunState::Succeeded);
    let bad = until_run(&world, "bad", over).await;
    assert_eq!(bad.state, RunState::TimedOut);
}

#[tokio::test]
async fn a_run_can_be_ended_when_a_newer_one_is_forgotten() {
    let world = World::new().await;
    apply(&world, &job("sleep, 1m", "  ttlSecondsAfterFinished: 0\n")).await;
    world.ask("POST", "/v1/jobs/shop/task/runs", vec![]).await;
    world.until_replicas(|replicas| replicas.len() == 2).await;
    for (run, left) in [(2, 1), (1, 0)] {
        let path = format!("/v1/jobs/shop/task/runs/{run}");
        world.ask("DELETE", &path, vec![]).await;
        world
            .until_replicas(|replicas| replicas.len() == left)
            .await;
        let started = tokio::time::Instant::now();
        while runs(&world, "task").await.len() > left {
            assert!(started.elapsed() < PATIENCE, "run {run} goes on");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

/// What of a machine with 8 GB a service and a job keep to themselves: as many GB.
fn large(web: u32, task: u32) -> String {
    format!(
        "services:\n  web: {{image: fake/ok, mem_reservation: {web}G}}\n  task:\n    image: fake/ok\n    entrypoint: [sleep, 10m]\n    mem_reservation: {task}G\n    x-layby: {{schedule: '@yearly', time_zone: UTC}}\n"
    )
}

#[tokio::test]
async fn runs_count_in_what_fits_and_what_does_not_waits_or_is_refused_with_the_sum() {
    let world = World::new().await;
    let never = world.up(&large(1, 9)).await;
    assert_eq!(never.problem().code, "does-not-fit");
    let text = "there is too little memory for a run of shop/task 9 GB";
    assert!(never.problem().detail.starts_with(text), "{never:#?}");

    assert_eq!(world.up(&large(2, 4)).await.code(), 0);
    let run = "/v1/jobs/shop/task/runs";
    let (status, _) = world.ask("POST", run, vec![]).await;
    assert_eq!(status, StatusCode::ACCEPTED);
    until_run(&world, "task", |run| run.state == RunState::Running).await;
    let second = refused(&world, "POST", run, "").await;
    let sum = "there is too little memory for a run of shop/task 4 GB: with the 6 GB of the others that is 10 GB, and the \
               machine has 8 GB (most of it: run 1 of shop/task 4 GB, shop/web 2 GB)";
    assert_eq!(
        (second.code.as_str(), second.detail.as_str()),
        ("does-not-fit", sum)
    );
    let scaled = refused(
        &world,
        "POST",
        "/v1/services/shop/web/scale",
        r#"{"replicas":3}"#,
    );
    let scaled = scaled.await;
    assert!(
        scaled.detail.contains("run 1 of shop/task 4 GB"),
        "{scaled:?}"
    );

    // What a deploy or a schedule asks for waits, says for what, and begins when there is room.
    let migrate = job("echo, done", "").replace(
        "image: fake/ok,",
        "image: fake/ok, resources: {requests: {memory: 3Gi}},",
    );
    let tar = tar(&[("manifest/jobs.yaml", migrate.as_bytes())]);
    let (status, body) = world
        .ask("POST", "/v1/apps?app=other&folder=folder", tar)
        .await;
    let waits = "job, run 1 waits: there is too little memory for run 1 of other/task 3 GB: with the 6 GB of the others";
    let deployed = told(&Deployed::of(status, &body));
    assert!(deployed[0].contains(waits), "{deployed:?}");
    let waiting: Vec<RunView> = world.get("/v1/jobs/other/task/runs").await;
    assert_eq!(waiting[0].state, RunState::Waiting);
    let message = waiting[0].message.as_deref().unwrap_or_default();
    assert!(message.starts_with("it waits: there is too little memory"));
    let (status, _) = world
        .ask("DELETE", "/v1/jobs/shop/task/runs/1", vec![])
        .await;
    assert_eq!(status, StatusCode::ACCEPTED);
    let started = tokio::time::Instant::now();
    loop {
        let runs: Vec<RunView> = world.get("/v1/jobs/other/task/runs").await;
        if runs[0].state == RunState::Succeeded {
            break;
        }
        assert!(started.elapsed() < PATIENCE, "{runs:#?}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn a_run_that_cannot_be_begun_for_whoever_holds_it_is_over() {
    let world = World::new().await;
    world.up(&compose("fake/ok", "")).await;
    let db = rusqlite::Connection::open(world.dir.path().join("layby.db")).expect("the store");
    let full =
        "CREATE TRIGGER full BEFORE INSERT ON job_attempts BEGIN SELECT RAISE(FAIL, 'full'); END";
    db.execute_batch(full).expect("written");
    let held = try_held(&world, "command=cat&stdin=true").await;
    assert!(held.is_err());
    db.execute_batch("DROP TRIGGER full").expect("written");
    let run = until_run(&world, "web", over).await;
    assert_eq!((run.run, run.state), (1, RunState::Failed));
}

#[tokio::test]
async fn a_running_run_outlives_the_node_and_what_nobody_holds_any_more_does_not() {
    let mut world = World::new().await;
    world.up(&compose("fake/ok", "")).await;
    let body = br#"{"command":["sleep","600ms"]}"#.to_vec();
    let (status, _) = world.ask("POST", "/v1/services/shop/web/runs", body).await;
    assert_eq!(status, StatusCode::ACCEPTED);
    until_run(&world, "web", |run| run.state == RunState::Running).await;
    let socket = held(&world, "command=cat&stdin=true").await;
    until_run(&world, "web", |run| {
        run.run == 2 && run.state == RunState::Running
    })
    .await;
    world.restart().await;
    let lost = until_run(&world, "web", over).await;
    assert_eq!((lost.run, lost.state), (2, RunState::Failed));
    assert!(
        lost.message
            .is_some_and(|message| message.contains("the node ended"))
    );
    let started = tokio::time::Instant::now();
    let first = loop {
        let first: RunView = world.get("/v1/jobs/shop/web/runs/1").await;
        if over(&first) {
            break first;
        }
        assert!(started.elapsed() < PATIENCE, "{first:#?}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    };
    assert_eq!(
        (first.state, first.attempts.len()),
        (RunState::Succeeded, 1)
    );
    world.until_replicas(|replicas| replicas.len() == 1).await;
    drop(socket);
}

#[tokio::test]
async fn a_command_beside_a_sleeping_service_does_not_wake_it_and_passes_its_exit_code_on() {
    let world = World::new().await;
    world.up(&compose("fake/ok", "")).await;
    world
        .ask("POST", "/v1/services/shop/web/sleep", vec![])
        .await;
    let (said, code) = rest(held(&world, "command=echo&command=hello&env=A%3Db").await).await;
    assert_eq!((said.as_str(), code), ("hello\n", Some(0)));
    let (_, code) = rest(held(&world, "command=exit&command=7").await).await;
    assert_eq!(code, Some(7));
    let (said, code) = rest(held(&world, "command=sleep&command=1m&time_limit_ms=50").await).await;
    assert_eq!(code, Some(124), "{said}");
    let all = runs(&world, "web").await;
    let states: Vec<RunState> = all.iter().map(|run| run.state).collect();
    assert_eq!(
        states,
        [RunState::TimedOut, RunState::Failed, RunState::Succeeded]
    );
    assert_eq!(all[1].exit.map(|exit| exit.code), Some(7));
    assert_eq!(log(&world, "web", 1).await, ["hello"]);
    assert_eq!(
        world.detail("shop/web").await.view.wakefulness,
        Some(Showing::Asleep)
    );
    world.until_replicas(|replicas| replicas.len() == 1).await;
    // Whoever goes ends it.
    drop(held(&world, "command=cat&stdin=true").await);
    let run = until_run(&world, "web", |run| run.run == 4 && over(run)).await;
    assert_eq!(run.state, RunState::Stopped);
    let nobody = refused(
        &world,
        "POST",
        "/v1/services/shop/db/runs",
        r#"{"command":["true"]}"#,
    );
    assert_eq!(nobody.await.status, 404);
    let nothing = refused(&world, "POST", "/v1/services/shop/web/runs", "{}").await;
    assert_eq!(nothing.status, 400);
}

#[tokio::test]
async fn a_due_time_that_was_missed_while_the_node_was_off_is_made_up_once() {
    let mut world = World::new().await;
    let up = world.up(&scheduled("0 0 1 1 *", "")).await;
    assert!(told(&up)[0].starts_with("shop/task  job, scheduled (0 0 1 1 *), next run at"));
    let view: JobView = world.get("/v1/jobs/shop/task").await;
    assert!(
        view.next_run
            .is_some_and(|next| next.contains("-01-01T00:00:00Z"))
    );
    for (years, expected) in [(3, 1), (150, 2)] {
        world.kill();
        let db = rusqlite::Connection::open(world.dir.path().join("layby.db")).expect("the store");
        let back = i64::from(years) * 366 * 24 * 3_600_000;
        db.execute("UPDATE jobs SET seen_ms = max(0, seen_ms - ?1)", [back])
            .expect("written");
        drop(db);
        world.start().await;
        let run = until_run(&world, "task", |run| run.run == expected && over(run)).await;
        assert_eq!(
            (run.run, run.cause.as_str(), run.state),
            (expected, "schedule", RunState::Succeeded)
        );
    }
    let (_, body) = world.ask("POST", "/v1/jobs/shop/task/resume", vec![]).await;
    let view: JobView = serde_json::from_slice(&body).expect("a job");
    assert!(view.next_run.is_some() && view.skipped.is_none());
}

#[tokio::test]
async fn a_job_that_is_suspended_runs_by_hand_only_and_names_are_not_shared() {
    let world = World::new().await;
    world
        .up(&scheduled("0 0 1 1 *", ", concurrency: forbid"))
        .await;
    let (_, body) = world
        .ask("POST", "/v1/jobs/shop/task/suspend", vec![])
        .await;
    let view: JobView = serde_json::from_slice(&body).expect("a job");
    assert!(view.suspended && view.next_run.is_none());
    let same = world
        .up(&scheduled("0 0 1 1 *", ", concurrency: forbid"))
        .await;
    assert_eq!(told(&same), ["shop/task  job, unchanged"]);
    let (status, _) = world.ask("POST", "/v1/jobs/shop/task/runs", vec![]).await;
    assert_eq!(status, StatusCode::ACCEPTED);
    let run = until_run(&world, "task", over).await;
    assert_eq!(
        (run.state, run.cause.as_str()),
        (RunState::Succeeded, "command")
    );
    let (_, body) = world.ask("POST", "/v1/jobs/shop/task/resume", vec![]).await;
    let view: JobView = serde_json::from_slice(&body).expect("a job");
    assert!(!view.suspended && view.next_run.is_some());

    let service = world.up("services: {task: {image: fake/ok}}").await;
    assert_eq!(service.problem().status, 409);
    let schedule = "services: {web: {image: fake/ok, x-layby: {schedule: '@daily'}}}";
    assert_eq!(world.up(schedule).await.problem().status, 409);
    let zone = scheduled("@daily", "").replace("UTC", "Mars/Olympus");
    assert_eq!(world.up(&zone).await.problem().status, 422);
    let never = world.up(&scheduled("0 0 30 2 *", "")).await;
    assert_eq!(never.problem().status, 422);
    let reserved = world.up("services: {web--run: {image: fake/ok}}").await;
    assert_eq!(reserved.problem().status, 409);
}

#[tokio::test]
async fn a_job_that_its_manifest_no_longer_names_goes_on_until_that_is_asked_for() {
    let world = World::new().await;
    world.up(&scheduled("@yearly", "")).await;
    let without = compose("fake/ok", "");
    let up = world.up(&without).await;
    let mut warned = up.events.iter();
    assert!(warned.any(|event| {
        matches!(event, Event::Warning { text } if text.contains("layby job rm shop/task"))
    }));
    let up = world.up_as("shop", &without, "&remove_orphans=1").await;
    assert_eq!(
        (told(&up), up.code()),
        (vec!["shop/task  removed".to_owned()], 0)
    );
    let jobs: Vec<JobView> = world.get("/v1/jobs").await;
    assert_eq!(jobs, []);
}

#[tokio::test]
async fn a_secret_that_a_job_names_is_in_use_until_the_job_is_gone() {
    let world = World::new().await;
    let body = br#"{"values": {"db": "b25l"}}"#.to_vec();
    let (status, _) = world.ask("POST", "/v1/secrets", body).await;
    assert_eq!(status, StatusCode::OK);
    let manifest =
        scheduled("@yearly", "").replace("    entrypoint", "    secrets: [db]\n    entrypoint");
    let up = world
        .up(&format!("{manifest}secrets: {{db: {{external: true}}}}\n"))
        .await;
    assert_eq!(up.code(), 0);
    let secrets: Vec<KeptSecret> = world.get("/v1/secrets").await;
    assert_eq!(secrets[0].used_by, ["shop/task"]);
    let (status, _) = world.ask("DELETE", "/v1/secrets/db", vec![]).await;
    assert_eq!(status, StatusCode::CONFLICT);
    world.ask("POST", "/v1/jobs/shop/task/runs", vec![]).await;
    let run = until_run(&world, "task", over).await;
    assert_eq!(run.state, RunState::Succeeded);
    world.ask("DELETE", "/v1/jobs/shop/task", vec![]).await;
    let (status, _) = world.ask("DELETE", "/v1/secrets/db", vec![]).await;
    assert!(status.is_success(), "{status}");
}

#[tokio::test]
async fn a_log_that_does_not_come_keeps_no_other_job_waiting() {
    let world = World::new().await;
    let stuck = job("", "").replace("image: fake/ok, command: []", "image: fake/stuck-log");
    apply(&world, &stuck).await;
    world
        .until_replicas(|replicas| replicas.iter().any(|replica| replica.ended.is_some()))
        .await;
    let good = job("echo, done", "").replace("metadata: {name: task}", "metadata: {name: zoo}");
    apply(&world, &good).await;
    let good = until_run(&world, "zoo", over).await;
    assert_eq!(good.state, RunState::Succeeded);
    assert!(!over(&runs(&world, "task").await[0]));
}

#[tokio::test]
async fn a_job_keeps_its_volume_and_its_image() {
    let world = World::new().await;
    let more = "    volumes: ['data:/data']\n";
    let manifest =
        scheduled("@yearly", "").replace("    entrypoint", &format!("{more}    entrypoint"));
    world.up(&format!("{manifest}volumes: {{data: }}\n")).await;
    let body = br#"{"name": "shop_data"}"#.to_vec();
    world.ask("POST", "/v1/volumes", body).await;
    let volume: VolumeView = world.get("/v1/volumes/shop_data").await;
    assert_eq!(volume.used_by, ["shop/task"]);
    let (status, _) = world.ask("DELETE", "/v1/volumes/shop_data", vec![]).await;
    assert_eq!(status, StatusCode::CONFLICT);
    let digest = world.images.resolve("fake/ok").expect("an image").digest;
    world.ask("DELETE", "/v1/jobs/shop/task", vec![]).await;
    assert!(world.images.get(&digest).is_ok(), "the service needs it");
    let volume: VolumeView = world.get("/v1/volumes/shop_data").await;
    assert_eq!(volume.used_by, [] as [String; 0]);
}
