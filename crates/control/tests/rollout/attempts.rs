//! Attempts of a rollout, and how long they may take.

use layby_control::api::types::{Event, Outcome};
use layby_model::State;
use layby_model::route::Mode;

use super::ID;
use super::common::{Deployed, World, compose, compose_retried};

fn told(up: &Deployed) -> Vec<String> {
    let text = |event: &Event| match event {
        Event::Progress { text, .. } => Some(text.clone()),
        _ => None,
    };
    up.events.iter().filter_map(text).collect()
}

#[tokio::test]
async fn a_failed_attempt_is_followed_by_the_next_and_live_serves_all_the_time() {
    let world = World::new().await;
    let live = compose_retried("fake/ok", "environment: {LOG: info, DB_PASSWORD: one}");
    assert_eq!(world.up(&live).await.code(), 0);
    let next = "environment: {LOG: debug, DB_PASSWORD: two}\nx-layby: {retries: 1}";
    let next = compose_retried("fake/exits:3", next);
    let id = ID.parse().expect("an id");
    let mut tables = world.tables.clone();
    tables.mark_unchanged();
    let rests = world.until(ID, |d| {
        let again = |c: &String| c.contains("attempt 2 of 2 is made after a pause");
        let gone = d.replicas.iter().all(|r| r.revision == 1);
        d.view.state == State::Updating && d.conditions.iter().any(again) && gone
    });
    let (up, _) = tokio::join!(world.up(&next), rests);
    assert_eq!(up.code(), 3, "{up:#?}");
    let again = "attempt 1 of 2 failed, the next one begins in 5 s: its container web ended with exit code 3 in each of 3 starts";
    assert!(told(&up).iter().any(|text| text == again), "{up:#?}");

    let failure = up.failure();
    assert_eq!((failure.revision, failure.attempt), (2, 2));
    assert_eq!(failure.exit.map(|exit| exit.code), Some(3));
    assert!(
        failure.log.iter().any(|line| line == "ended with code 3"),
        "{failure:#?}"
    );
    let changes: Vec<String> = (failure.difference.iter())
        .map(|c| format!("{} {:?} {:?}", c.path, c.before, c.after))
        .collect();
    let (env, hidden) = ("containers.web.env", "Some(\"(not shown)\")");
    assert!(
        changes.contains(&format!("{env}.LOG {hidden} {hidden}")),
        "whoever may look sees it: {changes:#?}"
    );
    assert!(
        changes.contains(&format!("{env}.DB_PASSWORD {hidden} {hidden}")),
        "{changes:#?}"
    );
    assert!(
        changes
            .iter()
            .any(|c| c.starts_with("containers.web.image")),
        "{changes:#?}"
    );
    let mode = &tables.borrow().services[&id].mode;
    assert!(matches!(mode, Mode::Serve { .. }), "{mode:?}");
    assert!(
        !tables.has_changed().expect("it is there"),
        "no other table was needed"
    );
}

#[tokio::test]
async fn what_cannot_succeed_is_not_tried_again() {
    let world = World::new().await;
    let up = world.up(&compose_retried("fake/no-command", "")).await;
    assert_eq!((up.code(), up.failure().attempt), (1, 1), "{up:#?}");
    assert_eq!(
        told(&up)
            .iter()
            .filter(|text| text.contains("attempt"))
            .count(),
        0
    );
}

#[tokio::test]
async fn a_new_revision_ends_the_attempts_of_the_one_before() {
    let world = World::new().await;
    let bad = compose_retried("fake/exits:3", "");
    world.up_as("shop", &bad, "&detach=1").await;
    world
        .until(ID, |d| {
            d.conditions.iter().any(|c| c.contains("attempt 2 of 3"))
        })
        .await;
    let good = world.up(&compose("fake/ok", "")).await;
    assert_eq!(good.code(), 0, "{good:#?}");
    assert_eq!(good.outcomes(), [("web".into(), Outcome::Live)]);
    let detail = world.detail(ID).await;
    assert_eq!(detail.conditions, Vec::<String>::new());
}

#[tokio::test]
async fn deadlines_are_learned_from_boots_and_what_is_said_wins() {
    let world = World::new().await;
    let deadlines = async || {
        let deadline = world.detail(ID).await.deadline;
        (deadline.still_ms, deadline.max_ms, deadline.boots_ms.len())
    };
    world.up(&compose("fake/slow:300ms", "")).await;
    assert_eq!(
        deadlines().await,
        (30_000, 300_000, 1),
        "the next is learned"
    );
    let boot_ms = world.detail(ID).await.deadline.boots_ms[0];
    assert!((300..20_000).contains(&boot_ms), "{boot_ms} ms");
    world.up(&compose("fake/ok", "")).await;
    assert_eq!(deadlines().await.2, 2);
    let record = world
        .ask("GET", "/v1/services/shop/web/history", Vec::new())
        .await;
    let records: Vec<layby_control::api::types::RevisionView> =
        serde_json::from_slice(&record.1).expect("revisions");
    let of: Vec<u64> = records.iter().map(|r| r.deadline_ms).collect();
    assert_eq!(of, [30_000, 600_000], "the first was generous");

    let said = compose("fake/ok", "x-layby: {progress_deadline: 7s}");
    world.up(&said).await;
    let deadline = world.detail(ID).await.deadline;
    assert_eq!((deadline.still_ms, deadline.max_ms), (7_000, 7_000));
    assert!(deadline.is_said);
}

#[tokio::test]
async fn retries_are_asked_for_within_bounds() {
    let world = World::new().await;
    let up = world
        .up_as("shop", &compose_retried("fake/exits:3", ""), "&retries=0")
        .await;
    assert_eq!((up.code(), up.failure().attempt), (1, 1), "{up:#?}");
    let many = world
        .up_as("shop", &compose_retried("fake/exits:3", ""), "&retries=11")
        .await;
    assert_eq!(many.status, 400, "{many:#?}");
}
