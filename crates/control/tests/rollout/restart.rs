//! Restarts in place, from the API to the replicas.

use std::collections::BTreeMap;

use layby_control::api::types::Outcome;
use layby_model::ReplicaId;
use layby_model::replica::Phase;
use layby_model::state::Showing;

use super::ID;
use crate::common::{Deployed, World, compose};

impl World {
    async fn restart_service(&self, query: &str) -> Deployed {
        let path = format!("/v1/services/{ID}/restart{query}");
        let (status, body) = self.ask("POST", &path, vec![]).await;
        Deployed::of(status, &body)
    }

    /// How often each replica was started.
    async fn runs(&self) -> BTreeMap<ReplicaId, u64> {
        let replicas = self.replicas().await.into_iter();
        replicas.map(|replica| (replica.id, replica.run)).collect()
    }
}

#[tokio::test]
async fn all_replicas_are_started_once_more_and_stay_the_same() {
    let world = World::new().await;
    world.up(&compose("fake/ok", "scale: 3")).await;
    let before = world.runs().await;
    let done = world.restart_service("").await;
    assert_eq!(
        (done.code(), done.outcomes()),
        (0, vec![("web".into(), Outcome::Restarted)])
    );
    let after = world.runs().await;
    let expected = before.into_iter().map(|(id, run)| (id, run + 1)).collect();
    assert_eq!(after, expected);
    let detail = world.detail(ID).await;
    assert_eq!((detail.view.revision, detail.view.replicas_ready), (1, 3));
    assert_eq!(
        detail.replicas[0].containers[0].restarts, 0,
        "nothing ended unasked"
    );
}

#[tokio::test]
async fn what_rests_is_woken_by_a_restart_and_what_is_not_there_is_refused() {
    let world = World::new().await;
    assert_eq!(world.restart_service("").await.status, 404);
    world.up(&compose("fake/ok", "")).await;
    for rest in ["doze", "sleep"] {
        let path = format!("/v1/services/{ID}/{rest}");
        world.ask("POST", &path, vec![]).await;
        let done = world.restart_service("").await;
        assert_eq!(
            done.outcomes(),
            [("web".into(), Outcome::Restarted)],
            "{rest}"
        );
        assert!(
            world
                .replicas()
                .await
                .iter()
                .all(|r| r.phase != Phase::Frozen)
        );
    }
    world
        .ask("POST", &format!("/v1/services/{ID}/disable"), vec![])
        .await;
    assert_eq!(world.restart_service("").await.status, 409);
}

#[tokio::test]
async fn a_task_that_ends_well_has_restarted_and_did_not_crash() {
    let world = World::new().await;
    let task = compose("fake/exits:0", "restart: 'no'\nscale: 2");
    assert_eq!(world.up(&task).await.code(), 0);
    for run in 2..=3 {
        let done = world.restart_service("").await;
        assert_eq!(
            (done.code(), done.outcomes()),
            (0, vec![("web".into(), Outcome::Restarted)]),
            "{done:#?}"
        );
        assert!(world.runs().await.values().all(|n| *n == run));
    }
    let shown = world.detail(ID).await.view;
    assert_eq!(shown.wakefulness, Some(Showing::Ended));
    for (kind, count) in [("ended", 6), ("crashed", 0)] {
        let path = format!("/v1/events?kind={kind}");
        let (_, events) = world.ask("GET", &path, vec![]).await;
        let lines = events.split(|b| *b == b'\n').filter(|l| !l.is_empty());
        assert_eq!(lines.count(), count, "{kind}");
    }
    assert_eq!(
        world.scale("3").await.outcomes(),
        [("web".into(), Outcome::Scaled)]
    );
}

#[tokio::test]
async fn on_a_full_disk_nothing_is_restarted_or_put_to_sleep_and_what_runs_goes_on() {
    let world = World::new().await;
    world.up(&compose("fake/ok", "")).await;
    let before = world.runs().await;
    let tmp = world.dir.path().join("tmp");
    for verb in ["restart", "sleep", "doze"] {
        std::fs::create_dir_all(&tmp).expect("a folder");
        std::os::unix::fs::symlink("/dev/full", tmp.join("room")).expect("a link");
        let path = format!("/v1/services/{ID}/{verb}");
        let (status, body) = world.ask("POST", &path, vec![]).await;
        let refused = Deployed::of(status, &body);
        let problem = refused.problem();
        assert_eq!(
            (problem.status, &*problem.code),
            (507, "full-disk"),
            "{verb}"
        );
        assert!(problem.detail.ends_with("is full"), "{}", problem.detail);
    }
    let detail = world.detail(ID).await;
    assert_eq!(
        (detail.view.wakefulness, detail.view.replicas_ready),
        (Some(Showing::Awake), 1)
    );
    assert_eq!(world.runs().await, before);
    let done = world.restart_service("").await;
    assert_eq!(done.outcomes(), [("web".into(), Outcome::Restarted)]);
    assert!(std::fs::read_dir(&tmp).is_ok_and(|mut left| left.next().is_none()));
}
