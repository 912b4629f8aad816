//! Content management: deleting tags, manifests and blobs, and who may do what.

use http::StatusCode;
use layby_image::registry::{Grant, TurnedAway};

use crate::kit::{World, digest_of, request, whole};

#[tokio::test]
async fn a_tag_is_deleted_and_its_manifest_stays() {
    let world = World::new();
    let image = world.image("app", "v1", "a").await;
    world.put("app", "v2", &image).await;
    assert_eq!(
        world
            .ask("DELETE", "/v2/app/manifests/v1", &[], b"")
            .await
            .status,
        202
    );
    assert_eq!(world.get("/v2/app/manifests/v1").await.status, 404);
    assert_eq!(world.get("/v2/app/manifests/v2").await.status, 200);
    let by_digest = format!("/v2/app/manifests/{}", digest_of(&image));
    assert_eq!(world.get(&by_digest).await.status, 200);
    assert!(world.store.resolve("registry.localhost/app:v1").is_err());
    assert!(world.store.resolve("registry.localhost/app:v2").is_ok());
    let again = world.ask("DELETE", "/v2/app/manifests/v1", &[], b"").await;
    assert_eq!(again.code(), "MANIFEST_UNKNOWN");
}

#[tokio::test]
async fn a_manifest_is_deleted_with_all_of_its_tags() {
    let world = World::new();
    let image = world.image("app", "v1", "a").await;
    world.put("app", "v2", &image).await;
    world.image("app", "other", "b").await;
    let by_digest = format!("/v2/app/manifests/{}", digest_of(&image));
    assert_eq!(world.ask("DELETE", &by_digest, &[], b"").await.status, 202);
    for reference in ["v1", "v2", &digest_of(&image)] {
        let path = format!("/v2/app/manifests/{reference}");
        assert_eq!(world.get(&path).await.status, 404, "{reference}");
    }
    assert_eq!(
        world.get("/v2/app/tags/list").await.json()["tags"][0],
        "other"
    );
    assert!(world.store.resolve("registry.localhost/app:v2").is_err());
    assert_eq!(world.ask("DELETE", &by_digest, &[], b"").await.status, 404);
}

#[tokio::test]
async fn a_blob_is_deleted_from_its_repository_alone() {
    let world = World::new();
    let digest = world.blob("one", b"hello").await;
    world.blob("two", b"hello").await;
    let path = format!("/v2/one/blobs/{digest}");
    assert_eq!(world.ask("DELETE", &path, &[], b"").await.status, 202);
    assert_eq!(world.get(&path).await.status, 404);
    assert_eq!(
        world.ask("DELETE", &path, &[], b"").await.code(),
        "BLOB_UNKNOWN"
    );
    assert_eq!(
        world.get(&format!("/v2/two/blobs/{digest}")).await.status,
        200
    );
}

#[tokio::test]
async fn each_request_needs_the_right_grant() {
    let world = World::new();
    let image = world.image("app", "v1", "a").await;
    let layer = image["layers"][0]["digest"].as_str().expect("text");
    let reads = [
        ("GET", "/v2/app/manifests/v1".to_owned()),
        ("HEAD", format!("/v2/app/blobs/{layer}")),
        ("GET", "/v2/app/tags/list".to_owned()),
        ("GET", format!("/v2/app/referrers/{layer}")),
        ("GET", "/v2/_catalog".to_owned()),
    ];
    let writes = [
        ("POST", "/v2/app/blobs/uploads/".to_owned()),
        ("PUT", "/v2/app/manifests/v2".to_owned()),
        ("DELETE", "/v2/app/manifests/v1".to_owned()),
        ("DELETE", format!("/v2/app/blobs/{layer}")),
        ("PATCH", "/v2/app/blobs/uploads/x".to_owned()),
        ("GET", "/v2/app/blobs/uploads/x".to_owned()),
    ];
    let reader = Grant {
        push: false,
        who: Some("reader".into()),
        ..Grant::root()
    };
    let writer = Grant {
        pull: false,
        who: Some("writer".into()),
        ..Grant::root()
    };
    let ask = async |method: &str, path: &str, grant: &Grant| {
        world
            .send(request(method, path, &[], whole(b"")), grant)
            .await
            .status
    };
    for (method, path) in &reads {
        assert_eq!(ask(method, path, &reader).await, 200, "{method} {path}");
        assert_eq!(
            ask(method, path, &Grant::anonymous(true)).await,
            200,
            "{path}"
        );
        // Who pushes looks first what is there.
        let told = if *method == "HEAD" { 200 } else { 403 };
        assert_eq!(ask(method, path, &writer).await, told, "{method} {path}");
        assert_eq!(
            ask(method, path, &Grant::anonymous(false)).await,
            401,
            "{path}"
        );
    }
    for (method, path) in &writes {
        assert_eq!(ask(method, path, &reader).await, 403, "{method} {path}");
        assert_eq!(
            ask(method, path, &Grant::anonymous(true)).await,
            401,
            "{path}"
        );
        let allowed = ask(method, path, &writer).await;
        assert!(
            ![StatusCode::UNAUTHORIZED, StatusCode::FORBIDDEN].contains(&allowed),
            "{path}"
        );
    }
    let asked = request("GET", "/v2/", &[], whole(b""));
    let challenged = world.send(asked, &Grant::anonymous(true)).await;
    assert_eq!(challenged.status, 401, "clients learn here how to log in");
    assert!(
        challenged
            .header("www-authenticate")
            .starts_with("Basic realm=")
    );
}

#[test]
fn who_is_turned_away_learns_why() {
    let late = TurnedAway::TooManyTries { retry_after_s: 7 }.into_response();
    assert_eq!(
        (late.status().as_u16(), &late.headers()["retry-after"]),
        (429, &"7".parse().expect("a value"))
    );
    for turned_away in [TurnedAway::WrongSecret, TurnedAway::Expired("ci".into())] {
        let answer = turned_away.into_response();
        assert_eq!(answer.status(), 401);
        assert!(answer.headers().contains_key("www-authenticate"));
    }
}
