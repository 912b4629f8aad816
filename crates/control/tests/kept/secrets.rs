//! Secrets: set, given to services, changed, gone back to, removed; and a key that is not there.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use layby_control::api::types::{Event, KeptSecret, Outcome, RevisionView};
use layby_model::access::Access as _;

use crate::common::{Deployed, World, tar};

const USES_DB: &str =
    "services:\n  web:\n    image: fake/ok\n    secrets: [db]\nsecrets: {db: {external: true}}\n";

async fn set(world: &World, name: &str, value: &str, more: &str) -> Deployed {
    let value = STANDARD.encode(value);
    let body = format!(r#"{{"values": {{"{name}": "{value}"}}{more}}}"#);
    let (status, body) = world.ask("POST", "/v1/secrets", body.into_bytes()).await;
    Deployed::of(status, &body)
}

async fn file(world: &World, path: &str) -> String {
    let path = format!("/v1/services/shop/web/files?path={path}");
    let (status, body) = world.ask("GET", &path, vec![]).await;
    assert_eq!(status, 200, "{}", String::from_utf8_lossy(&body));
    let mut archive = tar::Archive::new(&body[..]);
    let mut entry = archive
        .entries()
        .expect("a tar")
        .next()
        .expect("a file")
        .expect("a file");
    let mut text = String::new();
    std::io::Read::read_to_string(&mut entry, &mut text).expect("text");
    text
}

#[tokio::test]
async fn a_service_whose_external_volume_is_gone_keeps_no_new_value_from_the_others() {
    let world = World::new().await;
    let make = br#"{"name":"pg"}"#.to_vec();
    assert_eq!(world.ask("POST", "/v1/volumes", make).await.0, 200);
    assert_eq!(set(&world, "db", "one", "").await.code(), 0);
    let with_volume = USES_DB.replace(
        "secrets: {db:",
        "  db:\n    image: fake/ok\n    secrets: [db]\n    volumes: [\"d:/d\"]\nvolumes: {d: {external: true, name: pg}}\nsecrets: {db:",
    );
    let up = world.up(&with_volume).await;
    assert_eq!(up.code(), 0, "{up:#?}");
    let disable = world.ask("POST", "/v1/services/shop/db/disable", vec![]);
    assert_eq!(disable.await.0, 200);
    // As on a node into which the state of another was put.
    world.until_replicas(|all| all.len() == 1).await;
    world.fake.remove_volume("pg").await.expect("it is free");
    let second = set(&world, "db", "two", "").await;
    assert_eq!(second.status, 200, "{second:#?}");
    assert_eq!(file(&world, "/run/secrets/db").await, "two");
}

#[tokio::test]
async fn a_service_gets_the_secrets_that_it_names_and_a_new_value_is_a_new_revision() {
    let world = World::new().await;
    let up = world.up(USES_DB).await;
    assert_eq!(up.status, 409);
    assert!(up.problem().detail.contains("shop/web needs db"));
    assert_eq!(set(&world, "db", "one", "").await.code(), 0);
    assert_eq!(world.up(USES_DB).await.code(), 0);
    assert_eq!(file(&world, "/run/secrets/db").await, "one");

    let second = set(&world, "db", "two", "").await;
    assert_eq!(second.outcomes(), [("web".into(), Outcome::Live)]);
    assert_eq!(file(&world, "/run/secrets/db").await, "two");
    let history: Vec<RevisionView> = world.get("/v1/services/shop/web/history").await;
    assert_eq!(history[0].cause.as_deref(), Some("secret db version 2"));
    let same = set(&world, "db", "two", "").await;
    assert!(same.outcomes().is_empty(), "{same:?}");

    // Gone back to, a revision has the value that it had.
    let (status, body) = world
        .ask("POST", "/v1/services/shop/web/rollback", vec![])
        .await;
    assert_eq!(Deployed::of(status, &body).code(), 0);
    assert_eq!(file(&world, "/run/secrets/db").await, "one");
    let secrets: Vec<KeptSecret> = world.get("/v1/secrets").await;
    let behind = BTreeMap::from([("shop/web".to_owned(), 1)]);
    assert_eq!((secrets[0].version, &secrets[0].behind), (2, &behind));

    let silent = set(&world, "db", "three", r#", "no_deploy": true"#).await;
    assert!(silent.outcomes().is_empty());
    assert_eq!(file(&world, "/run/secrets/db").await, "one");
    assert_eq!(world.up(USES_DB).await.code(), 0);
    assert_eq!(file(&world, "/run/secrets/db").await, "three");

    let secrets: Vec<KeptSecret> = world.get("/v1/secrets").await;
    let [db] = &secrets[..] else {
        panic!("{secrets:?}");
    };
    assert_eq!(
        (db.version, db.versions, &db.used_by[..], db.behind.len()),
        (3, 3, &["shop/web".to_owned()][..], 0)
    );
    let (status, _) = world.ask("DELETE", "/v1/secrets/db", vec![]).await;
    assert_eq!(status, 409, "it is used");
    world.ask("DELETE", "/v1/apps/shop", vec![]).await;
    let (status, _) = world.ask("DELETE", "/v1/secrets/db", vec![]).await;
    assert_eq!(status, 204);
    // Its numbers are not given again.
    let again = set(&world, "db", "four", "").await;
    let version = again.events.iter().find_map(|event| match event {
        Event::Secret { version, .. } => Some(*version),
        _ => None,
    });
    assert_eq!(version, Some(4), "{again:?}");
}

#[tokio::test]
async fn what_a_manifest_brings_is_kept_encrypted_and_goes_with_its_app() {
    let world = World::new().await;
    let manifest = "services:\n  web:\n    image: fake/ok\n    secrets: [a]\n    configs: [c]\nsecrets: {a: {file: a.txt}}\nconfigs: {c: {content: settings-hunter}}\n";
    let files = tar(&[
        ("manifest/compose.yaml", manifest.as_bytes()),
        ("manifest/.layby/files.json", br#"["a.txt"]"#),
        ("file/0", b"file-hunter"),
    ]);
    let (status, body) = world.ask("POST", "/v1/apps?app=shop&folder=x", files).await;
    assert_eq!(Deployed::of(status, &body).code(), 0);
    assert_eq!(file(&world, "/run/secrets/a").await, "file-hunter");
    assert_eq!(file(&world, "/c").await, "settings-hunter");
    for entry in std::fs::read_dir(world.dir.path())
        .expect("a folder")
        .flatten()
    {
        let bytes = std::fs::read(entry.path()).unwrap_or_default();
        assert!(
            !bytes.windows(7).any(|part| part == b"-hunter"),
            "{entry:?}"
        );
    }
    world.ask("DELETE", "/v1/apps/shop", vec![]).await;
    let secrets: Vec<KeptSecret> = world.get("/v1/secrets").await;
    assert!(secrets.is_empty(), "{secrets:?}");
}

#[tokio::test]
async fn secrets_survive_a_restart_and_a_change_of_the_key() {
    let mut world = World::new().await;
    set(&world, "db", "one", "").await;
    world.up(USES_DB).await;
    let key = std::fs::read(world.dir.path().join("master.key")).expect("a key");
    let (status, _) = world.ask("POST", "/v1/secrets/rotate-key", vec![]).await;
    assert_eq!(status, 204);
    let changed = std::fs::read(world.dir.path().join("master.key")).expect("a key");
    assert_ne!(key, changed);
    world.restart().await;
    assert_eq!(set(&world, "db", "two", "").await.code(), 0);
    assert_eq!(file(&world, "/run/secrets/db").await, "two");
}

#[tokio::test]
async fn a_value_that_is_not_as_it_must_be_is_refused_without_saying_it() {
    let world = World::new().await;
    for (body, status) in [
        (r#"{"values": {"db": "hunter2!"}}"#.to_owned(), 400),
        (r#"{"values": {"../db": "aA=="}}"#.to_owned(), 400),
        (r#"{"values": {"db": 7, "hunter2": }}"#.to_owned(), 400),
        (r#"{"values": {}}"#.to_owned(), 400),
        (
            format!(
                r#"{{"values": {{"db": "{}"}}}}"#,
                STANDARD.encode(vec![b'x'; 2 << 20])
            ),
            413,
        ),
    ] {
        let (got, answer) = world.ask("POST", "/v1/secrets", body.into_bytes()).await;
        let answer = String::from_utf8_lossy(&answer).into_owned();
        assert_eq!(got.as_u16(), status, "{answer}");
        assert!(!answer.contains("hunter2"), "{answer}");
    }
}
