//! Named volumes: used, kept, removed; and what only the node's operator allows.

mod common;
#[path = "kept/secrets.rs"]
mod secrets;

use common::{World, compose};
use layby_control::api::types::{RemovedView, ServiceView, VolumeView};

const WITH_VOLUME: &str = "\
services:
  db:
    image: fake/ok
    volumes: [\"data:/data\"]
volumes:
  data:
";

async fn down(world: &World, query: &str) -> RemovedView {
    let (status, body) = world
        .ask("DELETE", &format!("/v1/apps/shop{query}"), vec![])
        .await;
    assert_eq!(status, 200, "{}", String::from_utf8_lossy(&body));
    serde_json::from_slice(&body).expect("what was removed")
}

#[tokio::test]
async fn down_keeps_volumes_unless_asked() {
    let world = World::new().await;
    for (query, left) in [("", 1), ("?volumes=true", 0)] {
        let up = world.up(WITH_VOLUME).await;
        assert_eq!(up.code(), 0, "{up:#?}");
        let volume: VolumeView = world.get("/v1/volumes/shop_data").await;
        assert_eq!(volume.app.as_deref(), Some("shop"));
        assert_eq!(volume.used_by, ["shop/db"]);
        let removed = down(&world, query).await;
        assert_eq!(removed.volumes.len(), 1 - left, "{removed:?}");
        let volumes: Vec<VolumeView> = world.get("/v1/volumes").await;
        assert_eq!(volumes.len(), left, "{volumes:?}");
    }
}

#[tokio::test]
async fn volumes_of_an_app_that_is_down_already_go_when_asked() {
    let world = World::new().await;
    world.up(WITH_VOLUME).await;
    assert_eq!(down(&world, "").await.removed, ["shop/db"]);
    let removed = down(&world, "?volumes=true").await;
    assert_eq!(removed.volumes, ["shop_data"]);
    let (status, _) = world
        .ask("DELETE", "/v1/apps/shop?volumes=true", vec![])
        .await;
    assert_eq!(status, 404);
}

#[tokio::test]
async fn a_volume_in_use_is_not_removed() {
    let world = World::new().await;
    world.up(WITH_VOLUME).await;
    let (status, body) = world.ask("DELETE", "/v1/volumes/shop_data", vec![]).await;
    assert_eq!(status, 409);
    assert!(String::from_utf8_lossy(&body).contains("shop/db"));
    // Nor one that another app mounts, when the app that it was made for goes.
    let other = "services:\n  x:\n    image: fake/ok\n    volumes: [\"d:/d\"]\nvolumes:\n  d: {external: true, name: shop_data}\n";
    let up = world.up_as("other", other, "").await;
    assert_eq!(up.code(), 0, "{up:#?}");
    assert_eq!(
        down(&world, "?volumes=true").await.volumes,
        Vec::<String>::new()
    );
    let volume: VolumeView = world.get("/v1/volumes/shop_data").await;
    assert_eq!(volume.used_by, ["other/x"]);
}

#[tokio::test]
async fn an_external_volume_that_is_not_there_is_told_before_anything_is_made() {
    let world = World::new().await;
    let text = "services:\n  x:\n    image: fake/ok\n    volumes: [\"d:/d\"]\nvolumes:\n  d: {external: true, name: elsewhere}\n";
    let up = world.up(text).await;
    assert_eq!(up.status, 409, "{up:#?}");
    let problem = up.problem();
    assert!(
        problem.detail.contains("shop/x") && problem.detail.contains("elsewhere"),
        "{}",
        problem.detail
    );
    let services: Vec<ServiceView> = world.get("/v1/services").await;
    assert!(services.is_empty(), "{services:?}");
}

#[tokio::test]
async fn what_is_as_good_as_root_needs_the_operators_word() {
    let world = World::new().await;
    for more in [
        "privileged: true",
        "pid: host",
        "ipc: host",
        "userns_mode: host",
        "devices: [\"/dev/null:/dev/x\"]",
        "oom_score_adj: -500",
        "volumes: [\"/etc:/host\"]",
        "volumes: [\"/:/host:ro\"]",
        "volumes: [\"/var/run/docker.sock:/var/run/docker.sock\"]",
        "volumes: [\"/srv/../proc:/host\"]",
    ] {
        let up = world.up(&compose("fake/ok", more)).await;
        assert_eq!(up.status, 403, "{more}: {up:#?}");
        let problem = up.problem();
        assert!(
            problem.detail.contains("--allow-privileged"),
            "{}",
            problem.detail
        );
        assert!(problem.detail.contains("shop/web"), "{}", problem.detail);
    }
    // All of it is told at once.
    let text = "services:\n  a:\n    image: fake/ok\n    privileged: true\n    volumes: [\"/etc:/e\", \"/run:/r\"]\n  b:\n    image: fake/ok\n    pid: host\n";
    let up = world.up_as("shop", text, "").await;
    assert_eq!(up.status, 403, "{up:#?}");
    let lines: Vec<&str> = up.problem().detail.lines().collect();
    for (line, asked) in lines.iter().zip([
        "shop/a asks for privileged, the mount of /etc, the mount of /run,",
        "shop/b asks for the machine's process namespace,",
    ]) {
        assert!(line.starts_with(asked), "{line}");
    }
    assert_eq!(lines.len(), 2);
    assert!(world.replicas().await.is_empty());
    let free = "volumes: [\"/srv/shop:/srv\", \"/etc/localtime:/etc/localtime:ro\"]";
    let up = world.up(&compose("fake/ok", free)).await;
    assert_eq!(up.code(), 0, "{up:#?}");
}
