//! The state of a node, taken out and put in over the API.

use layby_control::api::types::{ImportedView, KeptSecret, Problem, StateView, TokenView};

use crate::common::{World, compose};

/// What opens the files here: `correct horse`, in base64.
pub(crate) const OPENS: [(&str, &str); 1] = [("layby-passphrase", "Y29ycmVjdCBob3JzZQ==")];
const OTHER: [(&str, &str); 1] = [("layby-passphrase", "d3JvbmcgaG9yc2U=")];

async fn import(
    world: &World,
    query: &str,
    head: &[(&str, &str)],
    file: &[u8],
) -> Result<ImportedView, Problem> {
    let path = format!("/v1/state/import{query}");
    let (status, body) = world.ask_with("POST", &path, head, file.to_vec()).await;
    match status.is_success() {
        true => Ok(serde_json::from_slice(&body).expect("a view")),
        false => Err(serde_json::from_slice(&body).expect("a problem")),
    }
}

async fn export(world: &World, query: &str) -> Vec<u8> {
    let path = format!("/v1/state/export{query}");
    let (status, body) = world.ask_with("POST", &path, &OPENS, Vec::new()).await;
    assert_eq!(status, 200, "{}", String::from_utf8_lossy(&body));
    body.to_vec()
}

async fn order(world: &World, path: &str, body: &str) {
    let (status, answer) = world.ask("POST", path, body.into()).await;
    assert!(
        status.is_success(),
        "{path}: {}",
        String::from_utf8_lossy(&answer)
    );
}

#[tokio::test]
async fn a_state_goes_from_node_to_node_with_its_images_and_goes_on_there() {
    let (lost, new) = (World::new().await, World::new().await);
    let digest = crate::build(&lost, "it").await;
    order(&lost, "/v1/services/shop/web/scale", r#"{"replicas":2}"#).await;
    order(&lost, "/v1/services/shop/web/redeploy", "").await;
    let secret = r#"{"app":"shop","values":{"db":"aHVudGVyMg=="}}"#;
    order(&lost, "/v1/secrets", secret).await;
    for name in ["ci", "ann"] {
        let body = format!(r#"{{"name":"{name}","role":"admin"}}"#);
        order(&lost, "/v1/tokens", &body).await;
    }
    // One that calls from elsewhere is not to lose its way.
    order(&new, "/v1/tokens", r#"{"name":"ann","role":"admin"}"#).await;
    let seen: StateView = lost.get("/v1/state").await;
    let [image] = &seen.images[..] else {
        panic!("{seen:?}");
    };
    assert_eq!((&image.digest, &image.origin), (&digest, &None));
    assert_eq!((&*image.name, image.current), ("built", true));

    let without = export(&lost, "").await;
    let file = export(&lost, "?images=true").await;
    assert!(!file.windows(7).any(|part| part == b"hunter2"));
    let refused = import(&new, "", &OTHER, &file)
        .await
        .expect_err("another passphrase");
    assert_eq!((refused.status, &*refused.code), (422, "bad-state"));
    let cut = import(&new, "", &OPENS, &file[..file.len() - 40]).await;
    let cut = cut.expect_err("it is cut");
    assert_eq!(cut.status, 422);
    assert!(cut.detail.contains("nothing was changed"), "{cut:?}");
    assert!(new.list().await.is_empty() && new.images.get(&digest).is_err());

    let done = import(&new, "", &OPENS, &file).await.expect("put in");
    assert_eq!(done.services, ["shop/web"]);
    assert_eq!((done.loaded, done.missing.len()), (1, 0));
    assert_eq!(done.kept_tokens, ["ann"]);
    let detail = new
        .until("shop/web", |detail| detail.view.replicas_ready == 2)
        .await;
    assert_eq!((detail.view.revision, detail.size.scale), (2, Some(2)));
    assert_eq!(
        new.images.resolve("built").expect("its name").digest,
        digest
    );
    let secrets: Vec<KeptSecret> = new.get("/v1/secrets").await;
    assert_eq!((&*secrets[0].name, secrets[0].version), ("db", 1));
    let tokens: Vec<TokenView> = new.get("/v1/tokens").await;
    let names: Vec<&str> = tokens.iter().map(|token| token.name.as_str()).collect();
    assert_eq!(names, ["ann", "ci"]);
    // Its record came with it, and goes on.
    let (_, events) = new
        .ask("GET", "/v1/events?service=shop/web&kind=deployed", vec![])
        .await;
    assert_eq!(events.iter().filter(|byte| **byte == b'\n').count(), 2);
    order(&new, "/v1/services/shop/web/redeploy", "").await;
    new.until("shop/web", |detail| detail.view.revision == 3)
        .await;

    let again = import(&new, "", &OPENS, &file)
        .await
        .expect_err("it is not empty");
    assert_eq!(again.status, 409, "{again:?}");
    let bad = import(&new, "?replace=true", &OTHER, &file).await;
    assert_eq!(bad.expect_err("another passphrase").status, 422);
    assert_eq!(
        new.detail("shop/web").await.view.revision,
        3,
        "nothing is touched"
    );
    new.up_as("blog", &compose("fake/ok", ""), "").await;
    let done = import(&new, "?replace=true", &OPENS, &without)
        .await
        .expect("put in");
    assert_eq!((done.loaded, done.missing.len()), (0, 0), "it is here");
    let detail = new
        .until("shop/web", |detail| detail.view.replicas_ready == 2)
        .await;
    assert_eq!((detail.view.revision, new.list().await.len()), (2, 1));
}

#[tokio::test]
async fn what_came_is_there_after_a_restart_and_a_new_run_has_no_old_ones_name() {
    let (lost, mut new) = (World::new().await, World::new().await);
    let manifest = "services: {tidy: {image: fake/exits:0, entrypoint: ['true'], x-layby: {schedule: '@yearly'}}}";
    lost.up(manifest).await;
    order(&lost, "/v1/jobs/shop/tidy/runs", "").await;
    let over = async |world: &World, count: usize| {
        let started = tokio::time::Instant::now();
        loop {
            let runs: Vec<layby_control::api::types::RunView> =
                world.get("/v1/jobs/shop/tidy/runs").await;
            if runs.len() == count && runs.iter().all(|run| run.ended_at.is_some()) {
                return;
            }
            assert!(started.elapsed() < crate::common::PATIENCE, "{runs:#?}");
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
    };
    over(&lost, 1).await;
    let file = export(&lost, "").await;
    let done = import(&new, "", &OPENS, &file).await.expect("put in");
    assert_eq!(done.jobs, ["shop/tidy"]);
    order(&new, "/v1/jobs/shop/tidy/runs", "").await;
    over(&new, 2).await;
    new.restart().await;
    over(&new, 2).await;
}

#[tokio::test]
async fn nothing_is_taken_down_before_all_that_can_fail_and_nothing_new_comes_until_the_state_is_here()
 {
    let (lost, new) = (World::new().await, World::new().await);
    lost.up_as("shop", &compose("fake/ok", ""), "").await;
    let logins = r#"{"auths":{"a.io":{"auth":"bWU6MQ=="}}}"#;
    std::fs::write(lost.dir.path().join("registries.json"), logins).expect("written");
    let file = export(&lost, "").await;
    new.up_as("blog", &compose("fake/ok", ""), "").await;

    let key = new.dir.path().join("master.key");
    std::fs::write(&key, "no key").expect("written");
    let refused = import(&new, "?replace=true", &OPENS, &file).await;
    assert_eq!(refused.expect_err("no key").status, 409);
    let detail = new.detail("blog/web").await;
    assert_eq!(
        (detail.view.revision, detail.view.replicas_ready),
        (1, 1),
        "nothing is touched"
    );
    std::fs::remove_file(key).expect("removed");

    // Logins that cannot be read stay; what is put in all the same goes on.
    std::fs::write(new.dir.path().join("registries.json"), "{").expect("written");
    new.gateway.confirms.send_replace(false);
    let meanwhile = async {
        let goes = "it is being taken down".to_owned();
        new.until("blog/web", |detail| detail.conditions.contains(&goes))
            .await;
        let other = new.up_as("news", &compose("fake/ok", ""), "").await;
        assert_eq!(other.status, 409, "{other:?}");
        new.gateway.confirms.send_replace(true);
    };
    let (done, ()) = tokio::join!(import(&new, "?replace=true", &OPENS, &file), meanwhile);
    let done = done.expect("put in");
    assert_eq!(done.services, ["shop/web"]);
    assert!(done.warnings[0].contains("registries.json"), "{done:?}");
    let left = std::fs::read_to_string(new.dir.path().join("registries.json"));
    assert_eq!(left.expect("it is there"), "{");
    new.until("shop/web", |detail| detail.view.replicas_ready == 1)
        .await;
    let other = new.up_as("news", &compose("fake/ok", ""), "").await;
    assert_eq!(other.code(), 0, "{other:?}");
}
