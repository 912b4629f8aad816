//! Pull: manifests and blobs, whole and in parts, and what is not there.

use crate::kit::{MANIFEST, World, digest_of, sha256, sha512};

#[tokio::test]
async fn the_base_says_that_the_api_is_there() {
    let world = World::new();
    let answer = world.get("/v2/").await;
    assert_eq!(answer.status, 200);
    assert_eq!(
        answer.header("docker-distribution-api-version"),
        "registry/2.0"
    );
    assert_eq!(world.get("/v1/").await.status, 404);
    let wrong = world.ask("DELETE", "/v2/", &[], b"").await;
    assert_eq!(
        (wrong.status.as_u16(), wrong.code().as_str()),
        (405, "UNSUPPORTED")
    );
}

#[tokio::test]
async fn a_manifest_is_read_by_tag_and_by_digest_as_it_was_pushed() {
    let world = World::new();
    let manifest = world.image("team/app", "v1", "a").await;
    let (text, digest) = (manifest.to_string(), digest_of(&manifest));
    for reference in ["v1", &digest] {
        let path = format!("/v2/team/app/manifests/{reference}");
        for method in ["GET", "HEAD"] {
            let answer = world.ask(method, &path, &[], b"").await;
            assert_eq!(answer.status, 200, "{method} {reference}");
            assert_eq!(answer.header("content-type"), MANIFEST);
            assert_eq!(answer.header("docker-content-digest"), digest);
            assert_eq!(answer.header("content-length"), text.len().to_string());
            let body = if method == "GET" { text.as_str() } else { "" };
            assert_eq!(answer.text(), body);
        }
    }
}

#[tokio::test]
async fn what_is_not_there_is_said_with_its_code() {
    let world = World::new();
    world.image("app", "v1", "a").await;
    let nothing = sha256(b"nothing");
    for (path, status, code) in [
        (
            format!("/v2/app/manifests/{nothing}"),
            404,
            "MANIFEST_UNKNOWN",
        ),
        ("/v2/app/manifests/v2".into(), 404, "MANIFEST_UNKNOWN"),
        ("/v2/other/manifests/v1".into(), 404, "MANIFEST_UNKNOWN"),
        (format!("/v2/app/blobs/{nothing}"), 404, "BLOB_UNKNOWN"),
        ("/v2/other/tags/list".into(), 404, "NAME_UNKNOWN"),
        (
            "/v2/app/manifests/sha256:short".into(),
            400,
            "DIGEST_INVALID",
        ),
        ("/v2/app/manifests/-v1".into(), 400, "TAG_INVALID"),
        ("/v2/App/manifests/v1".into(), 400, "NAME_INVALID"),
        ("/v2/a/../b/manifests/v1".into(), 400, "NAME_INVALID"),
        (
            "/v2/app/blobs/uploads/none".into(),
            404,
            "BLOB_UPLOAD_UNKNOWN",
        ),
    ] {
        let answer = world.get(&path).await;
        assert_eq!(
            (answer.status.as_u16(), answer.code().as_str()),
            (status, code),
            "{path}"
        );
        assert_eq!(answer.header("content-type"), "application/json");
    }
}

#[tokio::test]
async fn a_blob_is_read_whole_and_in_ranges() {
    let world = World::new();
    let bytes: Vec<u8> = (0..700_000_u32).map(|n| (n % 251) as u8).collect();
    let path = format!("/v2/app/blobs/{}", world.blob("app", &bytes).await);
    let size = bytes.len();
    let whole = world.get(&path).await;
    assert_eq!((whole.status.as_u16(), whole.body == bytes), (200, true));
    let head = world.ask("HEAD", &path, &[], b"").await;
    assert_eq!(head.header("content-length"), size.to_string());
    assert_eq!(head.header("accept-ranges"), "bytes");
    for (range, first, last) in [
        ("bytes=500-1499", 500, 1499),
        ("bytes=500-", 500, size - 1),
        ("bytes=-500", size - 500, size - 1),
        ("bytes=699000-800000", 699_000, size - 1),
    ] {
        let answer = world.ask("GET", &path, &[("range", range)], b"").await;
        assert_eq!(answer.status, 206, "{range}");
        assert!(answer.body == bytes[first..=last], "{range}");
        let told = format!("bytes {first}-{last}/{size}");
        assert_eq!(answer.header("content-range"), told);
        assert_eq!(
            answer.header("content-length"),
            (last - first + 1).to_string()
        );
    }
    for range in ["bytes=500-0", "bytes=700000-", "bytes=-0"] {
        let answer = world.ask("GET", &path, &[("range", range)], b"").await;
        assert_eq!(answer.status, 416, "{range}");
        assert_eq!(answer.header("content-range"), format!("bytes */{size}"));
    }
}

#[tokio::test]
async fn an_empty_blob_is_a_blob() {
    let world = World::new();
    for digest in [sha256(b""), sha512(b"")] {
        let path = format!("/v2/app/blobs/uploads/?digest={digest}");
        assert_eq!(world.ask("POST", &path, &[], b"").await.status, 201);
        let answer = world.get(&format!("/v2/app/blobs/{digest}")).await;
        assert_eq!((answer.status.as_u16(), answer.body.len()), (200, 0));
        assert_eq!(answer.header("content-length"), "0");
    }
}
