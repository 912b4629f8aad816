//! What a token that is limited to apps hears of images that it may not have.

use crate::common::{World, compose, tar};
use crate::network::{Client, at_socket, token};
use crate::peer::Peer;

/// A token of the app `shop`.
async fn ci(world: &World) -> String {
    token(world, r#"{"name":"ci","role":"deploy","apps":["shop"]}"#).await
}

/// Status and answer of a deploy of `shop` with this image.
async fn up(client: &Client<'_>, image: &str) -> (u16, String) {
    let files = tar(&[("manifest/compose.yaml", compose(image, "").as_bytes())]);
    let line = "POST /v1/apps?app=shop&folder=x";
    let reply = client.ask(line, &[], &files).await;
    let text = String::from_utf8_lossy(&reply.body).into_owned();
    (reply.status.as_u16(), text)
}

/// The same of a build upon this image.
async fn build(client: &Client<'_>, image: &str) -> (u16, String) {
    build_as(client, image, &["registry/shop/b:1"]).await
}

/// The same under these names.
async fn build_as(client: &Client<'_>, image: &str, tags: &[&str]) -> (u16, String) {
    let dockerfile = format!(
        "FROM {image}\nCOPY Dockerfile /d\nLABEL named={}\n",
        tags[0]
    );
    let body = serde_json::json!({ "folder": ".", "tags": tags }).to_string();
    let files = tar(&[
        ("build.json", body.as_bytes()),
        ("context/0/Dockerfile", dockerfile.as_bytes()),
    ]);
    let reply = client.ask("POST /v1/builds", &[], &files).await;
    let text = String::from_utf8_lossy(&reply.body).into_owned();
    (reply.status.as_u16(), text)
}

#[tokio::test]
async fn of_an_image_that_a_token_may_not_have_it_is_told_as_of_one_that_is_nowhere() {
    let (world, peer) = (World::new().await, Peer::start());
    let root = at_socket(&world);
    let ci = root.with(&ci(&world).await);
    let name = |rest: &str| format!("{}/own/{rest}", peer.addr);
    let give = format!(
        "POST /v1/images/tag?reference=checked&to={}",
        name("there:1")
    );
    assert_eq!(root.status(&give).await, 204);
    let digest = world.images.resolve("checked").expect("an image").digest;
    let zeros = format!("sha256:{}", "0".repeat(64));
    let same = |(status, text): (u16, String)| {
        let text = text.replace("there", "where").replace(&digest, &zeros);
        (status, text)
    };
    for (there, nowhere) in [
        (name("there:1"), name("where:1")),
        (
            format!("{}@{digest}", name("x")),
            format!("{}@{zeros}", name("x")),
        ),
        (digest.clone(), zeros.clone()),
    ] {
        let told = up(&ci, &there).await;
        assert!(told.1.contains("image-not-found"), "{told:?}");
        assert_eq!(same(told), same(up(&ci, &nowhere).await));
        let told = build(&ci, &there).await;
        assert!(told.1.contains("\"error\""), "{told:?}");
        assert_eq!(same(told), same(build(&ci, &nowhere).await));
        for verb in [
            "GET /v1/images/inspect?",
            "POST /v1/images/tag?to=registry/shop/x:1&",
        ] {
            let ask = async |image: &str| {
                let reply = ci.ask(&format!("{verb}reference={image}"), &[], b"").await;
                let text = String::from_utf8_lossy(&reply.body).into_owned();
                (reply.status.as_u16(), text)
            };
            assert_eq!(same(ask(&there).await), same(ask(&nowhere).await), "{verb}");
        }
    }
    // Whoever may have all is told what is like it.
    let typo = name("there:2");
    assert!(!up(&ci, &typo).await.1.contains("did you mean"));
    assert!(up(&root, &typo).await.1.contains("did you mean"));
}

#[tokio::test]
async fn what_a_token_has_pulled_takes_no_name_that_somebody_gave() {
    let (world, peer) = (World::new().await, Peer::start());
    let root = at_socket(&world);
    let ci = root.with(&ci(&world).await);
    let name = format!("{}/pub/app:1", peer.addr);
    let push = format!("POST /v1/images/push?reference=fake/ok&to={name}");
    assert_eq!(root.status(&push).await, 200);
    let give = format!("POST /v1/images/tag?reference=checked&to={name}");
    assert_eq!(root.status(&give).await, 204);
    let digest = |name: &str| world.images.resolve(name).expect("an image").digest;
    let (theirs, public) = (digest("checked"), digest("fake/ok"));
    let run = async || world.replicas().await[0].revision;

    let (status, told) = up(&ci, &name).await;
    assert!(status == 200 && told.contains(r#""code":0"#), "{told}");
    assert_eq!(digest(&name), theirs, "the admin's stays the admin's");
    let (before, asked) = (run().await, peer.count("GET", "/manifests/"));
    // From then on the app has it.
    let (status, told) = up(&ci, &name).await;
    assert!(status == 200 && told.contains("unchanged"), "{told}");
    assert_eq!(
        (run().await, peer.count("GET", "/manifests/")),
        (before, asked)
    );
    let inspect = |image: &str| format!("GET /v1/images/inspect?reference={image}");
    assert_eq!(ci.status(&inspect(&public)).await, 200);
    assert_eq!(ci.status(&inspect(&theirs)).await, 404);
    // Upon it builds the app, and the admin upon the other.
    for (client, base) in [(&ci, &public), (&root, &theirs)] {
        let (_, told) = build(client, &name).await;
        assert!(told.contains(r#""code":0"#), "{told}");
        let layers = |name: &str| world.images.inspect(name).expect("an image").layers;
        let (made, base) = (layers("registry.localhost/shop/b:1"), layers(base));
        assert_eq!(made[0].digest, base[0].digest);
    }
}

#[tokio::test]
async fn what_a_token_builds_under_a_name_of_its_app_is_that_apps() {
    let world = World::new().await;
    let root = at_socket(&world);
    let ci = root.with(&ci(&world).await);
    let both = r#"{"name":"both","role":"deploy","apps":["shop","shop-two"]}"#;
    let both = root.with(&token(&world, both).await);
    let longer = world.up_as("shop-api", &compose("fake/ok", ""), "").await;
    assert_eq!(longer.code(), 0, "{longer:#?}");
    let inspect = |image: &str| format!("GET /v1/images/inspect?reference={image}");
    for (client, tags) in [
        (&ci, &["shop-a:1", "registry/shop/a:1"][..]),
        (&ci, &["shop-a:1"][..]),
        (&both, &["shop-two-b:1"][..]),
    ] {
        let (status, told) = build_as(client, "scratch", tags).await;
        assert!(status == 200 && told.contains(r#""code":0"#), "{told}");
        assert_eq!(client.status(&inspect(tags[0])).await, 200, "{tags:?}");
    }
    assert_eq!(both.status(&inspect("shop-a:1")).await, 200);
    assert_eq!(ci.status(&inspect("shop-two-b:1")).await, 404);
    for (client, tags, status) in [
        (&ci, &["shop-two-b:1"][..], 403),
        (&ci, &["shop-c:1", "checked"][..], 403),
        (&ci, &["shop-c:1", "shop-api-worker:1"][..], 403),
        (&ci, &["blog-c:1"][..], 403),
        (&both, &["shop-c:1", "shop-two-c:1"][..], 409),
    ] {
        let told = build_as(client, "scratch", tags).await;
        assert_eq!(told.0, status, "{tags:?}: {}", told.1);
    }
    // A name is given to what is built, and to nothing else.
    let tag = "POST /v1/images/tag?reference=shop-a:1&to=shop-d:1";
    assert_eq!(ci.status(tag).await, 403);
    // And taken again by those who have it.
    let removed = async |client: &Client<'_>, name: &str| {
        let line = format!("DELETE /v1/images?reference={name}");
        client.status(&line).await
    };
    for (client, name, status) in [
        (&ci, "shop-two-b:1", 403),
        (&ci, "checked", 403),
        (&ci, "shop-a:1", 204),
        (&both, "shop-two-b:1", 204),
    ] {
        assert_eq!(removed(client, name).await, status, "{name}");
    }
}
