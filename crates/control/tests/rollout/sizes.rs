//! Scale and power, from the API to the replicas.

use std::time::Duration;

use layby_control::api::types::{AdviceView, EventView, Outcome, PowerView, ServiceDetail};
use layby_model::State;
use layby_model::replica::Phase;
use layby_model::route::{Mode, Traffic};

use super::ID;
use crate::common::{Deployed, World, compose};

impl World {
    async fn size(&self, what: &str, body: &str) -> Deployed {
        let path = format!("/v1/services/{ID}/{what}");
        let (status, body) = self.ask("POST", &path, body.into()).await;
        Deployed::of(status, &body)
    }

    pub(super) async fn scale(&self, replicas: &str) -> Deployed {
        let body = format!(r#"{{"replicas":{replicas}}}"#);
        self.size("scale", &body).await
    }

    async fn power(&self, power: &str) -> Deployed {
        let body = format!(r#"{{"power":{power}}}"#);
        self.size("power", &body).await
    }
}

fn wants(detail: &ServiceDetail) -> (u32, u32, u32) {
    let view = &detail.view;
    (view.revision, view.replicas_ready, view.replicas_wanted)
}

#[tokio::test]
async fn a_scale_adds_and_drains_replicas_of_live_and_makes_no_revision() {
    let world = World::new().await;
    world.up(&compose("fake/ok", "")).await;
    let first = world.replicas().await[0].id;
    let up = world.scale("3").await;
    assert_eq!(
        (up.code(), up.outcomes()),
        (0, vec![("web".into(), Outcome::Scaled)])
    );
    assert_eq!(wants(&world.detail(ID).await), (1, 3, 3));

    // The ones that go are drained first: the oldest stays, whoever is busy.
    let traffic = Traffic {
        in_flight: world.replicas().await.iter().map(|r| (r.id, 1)).collect(),
        ..Traffic::default()
    };
    world.gateway.set_traffic(ID, traffic);
    let down = world.size("scale?detach=true", r#"{"replicas":1}"#).await;
    assert_eq!(
        (down.code(), down.outcomes()),
        (0, vec![("web".into(), Outcome::Pending)])
    );
    let id = ID.parse().expect("an id");
    world
        .until_table(|table| {
            let serves = |mode: &Mode| match mode {
                Mode::Serve { upstreams, .. } => {
                    Some(upstreams.iter().map(|u| u.replica).collect())
                }
                Mode::Hold | Mode::Refuse | Mode::Disabled | Mode::Unhealthy => None,
            };
            serves(&table.services[&id].mode) == Some(vec![first])
        })
        .await;
    assert_eq!(
        world.replicas().await.len(),
        3,
        "requests are in flight to them"
    );
    world.gateway.set_traffic(ID, Traffic::default());
    world
        .until_replicas(|all| all.len() == 1 && all[0].id == first)
        .await;
    assert_eq!(wants(&world.detail(ID).await), (1, 1, 1));

    let same = world.scale("1").await;
    assert_eq!(same.outcomes(), [("web".into(), Outcome::Unchanged)]);
}

#[tokio::test]
async fn a_scale_stays_until_the_manifest_has_another_number_and_is_gone_when_reset() {
    let mut world = World::new().await;
    let manifest = |replicas: u32, colour: &str| {
        compose(
            "fake/ok",
            &format!("scale: {replicas}\nenvironment: {{C: {colour}}}"),
        )
    };
    world.up(&manifest(1, "red")).await;
    world.scale("2").await;
    world.up(&manifest(1, "blue")).await;
    assert_eq!(wants(&world.detail(ID).await), (2, 2, 2), "an up");
    let deployed = world.size("deploy", r#"{"env":{"C":"green"}}"#).await;
    assert_eq!(deployed.code(), 0);
    assert_eq!(wants(&world.detail(ID).await), (3, 2, 2), "a deploy");
    world.restart().await;
    let detail = world.until(ID, |d| d.view.replicas_ready == 2).await;
    assert_eq!(
        (detail.size.scale, detail.size.manifest_replicas),
        (Some(2), 1)
    );
    assert_eq!(
        world.up(&compose("fake/exits:3", "scale: 1")).await.code(),
        3
    );
    assert_eq!(wants(&world.detail(ID).await), (3, 2, 2), "a failed one");

    let up = world.up(&manifest(3, "green")).await;
    let told = "shop/web loses its scale of 2: the manifest asked for 1 when `layby scale` gave it that, and asks for 3 now";
    assert_eq!(up.warnings(), [told]);
    assert_eq!(wants(&world.detail(ID).await), (5, 3, 3));
    world.scale("1").await;
    assert_eq!(wants(&world.detail(ID).await), (5, 1, 1));
    let reset = world.scale("null").await;
    assert_eq!(reset.outcomes(), [("web".into(), Outcome::Scaled)]);
    let detail = world.detail(ID).await;
    assert_eq!((wants(&detail), detail.size.scale), ((5, 3, 3), None));
}

#[tokio::test]
async fn one_that_sleeps_is_scaled_without_being_woken() {
    let world = World::new().await;
    world.up(&compose("fake/ok", "")).await;
    world
        .ask("POST", &format!("/v1/services/{ID}/sleep"), vec![])
        .await;
    let up = world.scale("3").await;
    assert_eq!(up.outcomes(), [("web".into(), Outcome::Scaled)]);
    let replicas = world.replicas().await;
    assert_eq!(replicas.len(), 3);
    assert!(
        replicas.iter().all(|r| r.phase == Phase::Stopped),
        "{replicas:?}"
    );
}

#[tokio::test]
async fn while_a_revision_rolls_a_scale_counts_for_it_too() {
    let world = World::new().await;
    world.up(&compose("fake/ok", "")).await;
    let up = world
        .up_as("shop", &compose("fake/slow:300ms", ""), "&detach=true")
        .await;
    assert_eq!(up.code(), 0);
    let scaled = world.scale("2").await;
    assert_eq!(scaled.outcomes(), [("web".into(), Outcome::Scaled)]);
    assert_eq!(wants(&world.detail(ID).await), (2, 2, 2));
}

#[tokio::test]
async fn a_power_is_a_revision_of_the_same_image_and_can_be_taken_back() {
    let world = World::new().await;
    let manifest = compose("fake/ok", "mem_limit: 100M");
    world.up(&manifest).await;
    let small = world.power(r#""small""#).await;
    assert_eq!(
        (small.code(), small.outcomes()),
        (0, vec![("web".into(), Outcome::Live)])
    );
    let detail = world.detail(ID).await;
    assert_eq!(detail.cause.as_deref(), Some("power small"));
    assert_eq!(
        (detail.view.revision, detail.view.power.as_deref()),
        (2, Some("small"))
    );
    let size = &detail.size;
    assert_eq!(
        (size.cpu_limit_milli, size.memory_limit_bytes),
        (Some(500), Some(1 << 30))
    );
    assert!(size.power_by_hand);

    // The manifest says what it said.
    assert_eq!(
        world.up(&manifest).await.outcomes(),
        [("web".into(), Outcome::Unchanged)]
    );
    let again = world.power(r#""small""#).await;
    assert_eq!(again.outcomes(), [("web".into(), Outcome::Unchanged)]);
    let back = world.power("null").await;
    assert_eq!(back.outcomes(), [("web".into(), Outcome::Live)]);
    let detail = world.detail(ID).await;
    assert_eq!(
        (detail.view.power, detail.size.memory_limit_bytes),
        (None, Some(100 << 20))
    );

    world.power(r#""nano""#).await;
    let up = world.up(&compose("fake/ok", "mem_limit: 200M")).await;
    let told = "shop/web loses its power nano: the manifest says other limits than when `layby power` gave it that";
    assert_eq!(up.warnings(), [told]);
    assert_eq!(
        world.detail(ID).await.size.memory_limit_bytes,
        Some(200 << 20)
    );

    let unknown = world.power(r#""smal""#).await;
    assert_eq!(
        (unknown.problem().status, unknown.problem().code.as_str()),
        (422, "no-power")
    );
}

#[tokio::test]
async fn a_preset_is_a_power_for_manifests_too_and_stays_while_it_is_used() {
    let world = World::new().await;
    let manifest = compose("fake/ok", "x-layby: {power: batch}");
    let refused = world.up(&manifest).await;
    assert_eq!(refused.problem().code, "no-power");
    let set = |cpu: u64| format!(r#"{{"cpu_milli":{cpu},"memory_bytes":{}}}"#, 3_u64 << 30);
    let (status, _) = world.ask("PUT", "/v1/powers/batch", set(1500).into()).await;
    assert_eq!(status, 200);
    assert_eq!(world.up(&manifest).await.code(), 0);
    let detail = world.detail(ID).await;
    assert_eq!(
        (detail.size.cpu_limit_milli, detail.size.power_by_hand),
        (Some(1500), false)
    );

    // Other figures are for the next revision; the one that runs keeps its own.
    let (_, body) = world.ask("PUT", "/v1/powers/batch", set(1000).into()).await;
    let view: PowerView = serde_json::from_slice(&body).expect("a power");
    assert_eq!(view.outdated, [ID]);
    assert_eq!(world.size("deploy", r#"{"env":{"A":"b"}}"#).await.code(), 0);
    assert_eq!(world.detail(ID).await.size.cpu_limit_milli, Some(1500));
    assert_eq!(world.up(&manifest).await.code(), 0);
    assert_eq!(world.detail(ID).await.size.cpu_limit_milli, Some(1000));

    let (status, _) = world.ask("DELETE", "/v1/powers/batch", vec![]).await;
    assert_eq!(status, 409);
    world.up(&compose("fake/ok", "")).await;
    let (status, _) = world.ask("DELETE", "/v1/powers/batch", vec![]).await;
    assert_eq!(status, 204);
    for (method, name, status) in [
        ("DELETE", "batch", 404),
        ("DELETE", "small", 409),
        ("PUT", "small", 400),
    ] {
        let (is, _) = world
            .ask(method, &format!("/v1/powers/{name}"), set(100).into())
            .await;
        assert_eq!(is, status, "{method} {name}");
    }
}

#[tokio::test]
async fn what_does_not_fit_into_the_machine_is_refused_before_anything_starts() {
    let world = World::new().await; // it has 8 GB and 4 cores
    let needs = |memory: &str| compose("fake/ok", &format!("mem_reservation: {memory}"));
    assert_eq!(world.up_as("a", &needs("3G"), "").await.code(), 0);
    assert_eq!(world.up(&needs("2G")).await.code(), 0);
    let short = "there is too little memory for shop/web 3 x 2 GB: with the 3 GB of the others that is 9 GB, and the machine \
                 has 8 GB (most of it: a/web 3 GB)";
    let refused = world.scale("3").await;
    assert_eq!(
        (refused.problem().status, refused.problem().code.as_str()),
        (409, "does-not-fit")
    );
    assert_eq!(refused.problem().detail, short);
    for refused in [
        world.up(&needs("6G")).await,
        world.up_as("shop", &needs("6G"), "&dry_run=true").await,
        world
            .up_as("b", &compose("fake/ok", "x-layby: {power: large}"), "")
            .await,
    ] {
        assert_eq!(refused.problem().code, "does-not-fit");
    }
    assert_eq!(world.scale("2").await.code(), 0);
    assert_eq!(
        world
            .up_as("c", &compose("fake/ok", "mem_reservation: 1G"), "")
            .await
            .code(),
        0
    );
    assert_eq!(
        world
            .up_as("d", &compose("fake/ok", "mem_limit: 9G"), "")
            .await
            .warnings(),
        [
            "d/web: its container web may use 9 GB of memory, and the machine has 8 GB: that limits nothing"
        ]
    );
    // Who sleeps may wake.
    world.ask("POST", "/v1/services/a/web/sleep", vec![]).await;
    let power = world.ask(
        "POST",
        "/v1/services/d/web/power",
        br#"{"power":"small"}"#.to_vec(),
    );
    assert_eq!(power.await.0, 409);
    let (_, _) = world.ask("DELETE", "/v1/apps/a", vec![]).await;
    assert_eq!(world.scale("3").await.code(), 0);
}

#[tokio::test]
async fn a_scale_that_is_overtaken_says_by_what_and_waits_no_longer() {
    let world = World::new().await;
    world.up(&compose("fake/slow:300ms", "")).await;
    let wanted = async || world.until(ID, |now| now.view.replicas_wanted == 3).await;
    let overtakes = async {
        wanted().await;
        world.scale("1").await
    };
    let (overtaken, newer) = tokio::join!(world.scale("3"), overtakes);
    assert_eq!(
        (overtaken.outcomes(), overtaken.code()),
        (vec![("web".into(), Outcome::Overtaken)], 6)
    );
    let reason = overtaken.failure().reason;
    assert_eq!(reason, "overtaken: it was scaled to 1 replica meanwhile");
    assert_eq!(newer.code(), 0);

    let disables = async {
        wanted().await;
        let path = format!("/v1/services/{ID}/disable");
        world.ask("POST", &path, vec![]).await
    };
    let (overtaken, (status, _)) = tokio::join!(world.scale("3"), disables);
    assert_eq!((overtaken.code(), status.as_u16()), (6, 200));
    let reason = overtaken.failure().reason;
    assert_eq!(reason, "overtaken: it was disabled meanwhile");
}

#[tokio::test]
async fn scales_that_make_no_sense_are_refused() {
    let world = World::new().await;
    assert_eq!(world.scale("2").await.problem().status, 404);
    world.up(&compose("fake/ok", "")).await;
    let off = world.scale("0").await;
    assert_eq!(
        (off.code(), off.outcomes()),
        (0, vec![("web".into(), Outcome::Disabled)])
    );
    for (body, status) in [("1001", 400), ("-1", 400), ("\"2\"", 400)] {
        assert_eq!(world.scale(body).await.problem().status, status, "{body}");
    }
    assert_eq!(world.size("scale", "").await.problem().status, 400);
    assert_eq!(
        world
            .size("scale", r#"{"replica":2}"#)
            .await
            .problem()
            .status,
        400
    );
}

#[tokio::test]
async fn a_scale_of_what_never_was_live_says_so_and_waits_for_nothing() {
    let world = World::new().await;
    world.up(&compose("fake/no-command", "")).await;
    let scaled = world.scale("2").await;
    assert_eq!(
        (scaled.code(), scaled.outcomes()),
        (1, vec![("web".into(), Outcome::Failed)])
    );
    let reason = scaled.failure().reason;
    assert!(reason.contains("begins with 2 replicas"), "{reason}");
    assert_eq!(wants(&world.detail(ID).await).2, 2);
}

#[tokio::test]
async fn a_scale_brings_back_what_is_disabled() {
    let world = World::new().await;
    world.up(&compose("fake/ok", "")).await;
    assert_eq!(world.scale("0").await.code(), 0);
    let back = world.scale("2").await;
    assert_eq!(
        (back.code(), back.outcomes()),
        (0, vec![("web".into(), Outcome::Scaled)])
    );
    let detail = world.detail(ID).await;
    assert_eq!(
        (detail.view.state, wants(&detail)),
        (State::Running, (1, 2, 2))
    );
    assert_eq!(world.scale("0").await.code(), 0);
    let reset = world.scale("null").await;
    assert_eq!(reset.outcomes(), vec![("web".into(), Outcome::Scaled)]);
    assert_eq!(wants(&world.detail(ID).await), (1, 1, 1));

    // What never was live rolls out by that, and what is to have none by its manifest has none without a number.
    world
        .up_as("b", &compose("fake/ok", "deploy: {replicas: 0}"), "")
        .await;
    let path = "/v1/services/b/web/scale";
    let body = br#"{"replicas":null}"#.to_vec();
    assert_eq!(world.ask("POST", path, body).await.0, 409);
    let body = br#"{"replicas":1}"#.to_vec();
    let (status, answer) = world.ask("POST", path, body).await;
    let rolled = Deployed::of(status, &answer);
    assert_eq!(rolled.outcomes(), vec![("web".into(), Outcome::Live)]);
}

#[tokio::test]
async fn more_replicas_than_a_network_has_addresses_for_are_refused() {
    let world = World::new().await; // 253
    let replicas = |n: u32| compose("fake/ok", &format!("deploy: {{replicas: {n}}}"));
    world.up(&replicas(1)).await;
    let short =
        "the network shop has addresses for 253 replicas, too few for 254 replicas of shop/web";
    for refused in [world.scale("254").await, world.up(&replicas(254)).await] {
        assert_eq!(refused.problem().code, "does-not-fit");
        assert_eq!(refused.problem().detail, short);
    }
    // While one revision takes the place of another, both need addresses.
    assert_eq!(world.up(&replicas(130)).await.code(), 0);
    let more = compose("fake/ok:2", "deploy: {replicas: 130}");
    let refused = world.up(&more).await;
    let both = "too few for 130 replicas of shop/web and the 130 before them";
    assert!(refused.problem().detail.ends_with(both), "{refused:?}");
    assert_eq!(world.up(&replicas(130)).await.code(), 0, "unchanged");
    let stop_first = "deploy: {replicas: 130, update_config: {order: stop-first}}";
    let stop_first = world.up(&compose("fake/ok:2", stop_first)).await;
    assert_eq!(stop_first.code(), 0);
}

#[tokio::test]
async fn a_scale_whose_replicas_come_to_nothing_says_why_and_ends() {
    let world = World::new().await;
    let flaps = compose("fake/ok", "entrypoint: [sleep, 50ms]");
    assert_eq!(world.up(&flaps).await.code(), 0);
    world.until(ID, |d| d.view.crash_loop).await;
    let failed = world.scale("3").await;
    assert_eq!(
        (failed.code(), failed.outcomes()),
        (3, vec![("web".into(), Outcome::Kept)])
    );
    let reason = failed.failure().reason;
    let why = "of 3 replicas are ready; a replica ended with exit code 0 (its container web), ";
    assert!(
        reason.contains(why) && reason.ends_with(" times in a row"),
        "{reason}"
    );
    assert_eq!(
        world.detail(ID).await.view.replicas_wanted,
        3,
        "it is tried on"
    );
}

#[tokio::test]
async fn that_a_replica_could_not_be_started_is_told_with_its_reason() {
    let world = World::new().await;
    let full = compose("fake/full-disk", "");
    assert_eq!(world.up(&full).await.code(), 1);
    let (_, events) = world.ask("GET", "/v1/events?kind=crashed", vec![]).await;
    let lines = events
        .split(|b| *b == b'\n')
        .filter(|line| !line.is_empty());
    let events: Vec<EventView> = lines
        .map(|line| serde_json::from_slice(line).expect("an event"))
        .collect();
    let why = |event: &EventView| event.text.contains(" could not be started: ");
    assert!(!events.is_empty() && events.iter().all(why), "{events:?}");
}

#[tokio::test]
async fn what_awake_services_use_is_sampled_and_a_power_proposed() {
    let mut world = World::new().await;
    world.up(&compose("fake/ok", "")).await;
    world.up_as("rests", &compose("fake/ok", ""), "").await;
    world
        .ask("POST", "/v1/services/rests/web/sleep", vec![])
        .await;
    let path = format!("/v1/services/{ID}/power");
    let view: AdviceView = world.get(&path).await;
    assert_eq!((view.samples, view.proposed), (0, None));

    world.kill();
    world.sample_every = Duration::from_millis(2);
    world.start().await;
    let view = loop {
        let view: AdviceView = world.get(&path).await;
        if view.samples >= 60 {
            break view;
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    };
    assert_eq!((view.cpu_p95_milli, view.memory_peak_bytes), (1, 1 << 20));
    assert_eq!((view.power, view.proposed.as_deref()), (None, Some("nano")));
    let rests: AdviceView = world.get("/v1/services/rests/web/power").await;
    assert_eq!((rests.samples, rests.texts.len()), (0, 2), "it sleeps");

    // What was written is there after a restart.
    world.restart().await;
    let kept: AdviceView = world.get(&path).await;
    assert!(
        kept.samples >= 40 && kept.proposed.as_deref() == Some("nano"),
        "{kept:?}"
    );
}
