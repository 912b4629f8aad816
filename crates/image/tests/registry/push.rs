//! Push: blobs in one piece, in chunks and from another repository; manifests of every kind, and those that are refused.

use layby_image::registry::Grant;
use serde_json::{Value, json};

use crate::kit::{
    INDEX, MANIFEST, World, architecture, cut, descriptor, digest_of, fed, request, sha256, sha512,
};

#[tokio::test]
async fn a_blob_is_pushed_by_post_and_put() {
    let world = World::new();
    for digest in [sha256(b"hello"), sha512(b"hello")] {
        let place = world.upload("app").await;
        let path = format!("{place}?digest={digest}");
        let answer = world.ask("PUT", &path, &[], b"hello").await;
        assert_eq!(answer.status, 201, "{}", answer.text());
        assert_eq!(answer.header("docker-content-digest"), digest);
        let location = answer.header("location");
        assert_eq!(location, format!("/v2/app/blobs/{digest}"));
        assert_eq!(world.get(location).await.text(), "hello");
        assert_eq!(world.get(&place).await.status, 404, "the upload is over");
    }
}

#[tokio::test]
async fn a_blob_with_another_digest_is_refused_and_leaves_nothing() {
    let world = World::new();
    let other = sha256(b"other");
    let post = format!("/v2/app/blobs/uploads/?digest={other}");
    let place = world.upload("app").await;
    for (method, path) in [("POST", post), ("PUT", format!("{place}?digest={other}"))] {
        let answer = world.ask(method, &path, &[], b"hello").await;
        assert_eq!(
            (answer.status.as_u16(), answer.code().as_str()),
            (400, "DIGEST_INVALID")
        );
    }
    assert_eq!(
        world.get(&format!("/v2/app/blobs/{other}")).await.status,
        404
    );
    assert_eq!(world.get(&place).await.status, 404);
    let missing = world.upload("app").await;
    assert_eq!(world.ask("PUT", &missing, &[], b"x").await.status, 400);
    let malformed = format!("{missing}?digest=sha256:x");
    assert_eq!(world.ask("PUT", &malformed, &[], b"x").await.status, 400);
}

#[tokio::test]
async fn chunks_come_in_order_or_are_refused_with_where_the_upload_stands() {
    let world = World::new();
    let place = world.upload("app").await;
    let chunk = async |range: &str, bytes: &[u8]| {
        let length = bytes.len().to_string();
        let headers = [
            ("content-range", range),
            ("content-length", length.as_str()),
        ];
        world.ask("PATCH", &place, &headers, bytes).await
    };
    let first = chunk("0-4", b"hello").await;
    assert_eq!((first.status.as_u16(), first.header("range")), (202, "0-4"));
    for range in ["0-4", "6-10"] {
        let refused = chunk(range, b"world").await;
        assert_eq!(refused.status, 416, "{range}");
        assert_eq!(
            (refused.header("range"), refused.header("location")),
            ("0-4", place.as_str())
        );
    }
    assert_eq!(
        chunk("5-6", b"world").await.status,
        400,
        "a length that does not fit"
    );
    assert_eq!(chunk("five", b"world").await.status, 400);
    let state = world.get(&place).await;
    assert_eq!((state.status.as_u16(), state.header("range")), (204, "0-4"));
    let digest = sha256(b"helloworld");
    let path = format!("{place}?digest={digest}");
    let wrong = world
        .ask("PUT", &path, &[("content-range", "0-4")], b"world")
        .await;
    assert_eq!(wrong.status, 416);
    let last = world
        .ask("PUT", &path, &[("content-range", "5-9")], b"world")
        .await;
    assert_eq!(last.status, 201, "{}", last.text());
    assert_eq!(
        world.get(last.header("location")).await.text(),
        "helloworld"
    );
}

#[tokio::test]
async fn an_upload_that_was_cut_goes_on_where_it_stood_also_after_a_restart() {
    let world = World::new();
    let place = world.upload("app").await;
    let broken = request("PATCH", &place, &[], cut(b"hello"));
    let answer = world.send(broken, &Grant::root()).await;
    assert_eq!(answer.code(), "BLOB_UPLOAD_INVALID");
    assert_eq!(world.get(&place).await.header("range"), "0-4");
    let world = world.restart();
    assert_eq!(world.get(&place).await.header("range"), "0-4");
    let answer = world
        .ask("PATCH", &place, &[("content-range", "5-9")], b"world")
        .await;
    assert_eq!(answer.header("range"), "0-9");
    let path = format!("{place}?digest={}", sha256(b"helloworld"));
    assert_eq!(world.ask("PUT", &path, &[], b"").await.status, 201);
}

#[tokio::test]
async fn an_upload_is_cancelled_and_is_its_own_repositorys() {
    let world = World::new();
    let place = world.upload("app").await;
    let elsewhere = place.replace("/v2/app/", "/v2/other/");
    assert_eq!(world.get(&elsewhere).await.status, 404);
    assert_eq!(world.ask("DELETE", &place, &[], b"").await.status, 204);
    let gone = world.ask("PATCH", &place, &[], b"x").await;
    assert_eq!(gone.code(), "BLOB_UPLOAD_UNKNOWN");
}

#[tokio::test]
async fn a_blob_is_mounted_from_where_it_may_be_read_and_else_uploaded() {
    let world = World::new();
    let digest = world.blob("one", b"hello").await;
    let unknown = world.get(&format!("/v2/two/blobs/{digest}")).await;
    assert_eq!(
        unknown.status, 404,
        "another repository's blob is not there"
    );
    for (to, query) in [("two", "&from=one"), ("three", "")] {
        let path = format!("/v2/{to}/blobs/uploads/?mount={digest}{query}");
        let answer = world.ask("POST", &path, &[], b"").await;
        assert_eq!(answer.status, 201, "{}", answer.text());
        assert_eq!(answer.header("docker-content-digest"), digest);
        assert_eq!(world.get(answer.header("location")).await.text(), "hello");
    }
    let path = format!("/v2/four/blobs/uploads/?mount={digest}&from=nowhere");
    let answer = world.ask("POST", &path, &[], b"").await;
    assert_eq!(answer.status, 202, "an upload begins instead");
    assert!(
        answer
            .header("location")
            .starts_with("/v2/four/blobs/uploads/")
    );
    let only_four = Grant {
        repositories: "four".into(),
        ..Grant::root()
    };
    for query in ["&from=one", ""] {
        let path = format!("/v2/four/blobs/uploads/?mount={digest}{query}");
        let asked = request("POST", &path, &[], crate::kit::whole(b""));
        assert_eq!(world.send(asked, &only_four).await.status, 202, "{query}");
    }
}

#[tokio::test]
async fn manifests_of_every_kind_are_taken() {
    let world = World::new();
    let image = world.image("app", "v1", "a").await;
    let text = image.to_string();
    let docker = json!({
        "schemaVersion": 2, "mediaType": "application/vnd.docker.distribution.manifest.v2+json",
        "config": image["config"], "layers": image["layers"],
    });
    let index = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": [descriptor(MANIFEST, text.as_bytes())]});
    let nested = json!({
        "schemaVersion": 2, "mediaType": INDEX,
        "manifests": [descriptor(INDEX, index.to_string().as_bytes())],
    });
    let list = json!({
        "schemaVersion": 2, "mediaType": "application/vnd.docker.distribution.manifest.list.v2+json",
        "manifests": [descriptor(MANIFEST, text.as_bytes())],
    });
    let empty = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": []});
    let layers_elsewhere = json!({
        "schemaVersion": 2, "mediaType": MANIFEST, "config": image["config"],
        "layers": [{
            "mediaType": "application/vnd.oci.image.layer.nondistributable.v1.tar", "digest": sha256(b"far"),
            "size": 3, "urls": ["https://example.com/far"],
        }],
        "org.example.own": true,
    });
    let no_layers =
        json!({"schemaVersion": 2, "mediaType": MANIFEST, "config": image["config"], "layers": []});
    for manifest in [
        docker,
        index,
        nested,
        list,
        empty,
        layers_elsewhere,
        no_layers,
    ] {
        for reference in ["tag".to_owned(), digest_of(&manifest)] {
            let answer = world.put("app", &reference, &manifest).await;
            assert_eq!(answer.status, 201, "{manifest}: {}", answer.text());
            assert_eq!(answer.header("docker-content-digest"), digest_of(&manifest));
            let read = world.get(answer.header("location")).await;
            assert_eq!(read.text(), manifest.to_string());
            assert_eq!(
                read.header("content-type"),
                manifest["mediaType"].as_str().expect("text")
            );
        }
    }
}

#[tokio::test]
async fn a_manifest_is_pushed_with_tags_and_by_sha512() {
    let world = World::new();
    let manifest = world.image("app", "v1", "a").await;
    let digest = sha512(manifest.to_string().as_bytes());
    let reference = format!("{digest}?tag=one&tag=two");
    let answer = world.put("app", &reference, &manifest).await;
    assert_eq!(answer.status, 201, "{}", answer.text());
    let tags: Vec<&str> = (answer.headers.get_all("oci-tag").iter())
        .map(|value| value.to_str().expect("text"))
        .collect();
    assert_eq!(tags, ["one", "two"]);
    let read = world.get("/v2/app/manifests/two").await;
    assert_eq!(read.header("docker-content-digest"), digest);
}

#[tokio::test]
async fn manifests_that_are_none_or_lack_something_are_refused() {
    let world = World::new();
    let image = world.image("app", "v1", "a").await;
    let with = |change: &dyn Fn(&mut Value)| {
        let mut changed = image.clone();
        change(&mut changed);
        changed.to_string().into_bytes()
    };
    let missing = with(&|m| m["layers"][0]["digest"] = sha256(b"missing").into());
    let first_schema = with(&|m| m["schemaVersion"] = 1.into());
    let other_type = with(&|m| m["mediaType"] = INDEX.into());
    let bad_digest = with(&|m| m["config"]["digest"] = "sha256:../..".into());
    let bad_subject =
        with(&|m| m["subject"] = json!({"mediaType": MANIFEST, "digest": "x", "size": 1}));
    for (body, kind, status, code) in [
        (missing, MANIFEST, 400, "MANIFEST_BLOB_UNKNOWN"),
        (b"{".to_vec(), MANIFEST, 400, "MANIFEST_INVALID"),
        (first_schema, MANIFEST, 400, "MANIFEST_INVALID"),
        (other_type, MANIFEST, 400, "MANIFEST_INVALID"),
        (
            image.to_string().into_bytes(),
            "text/plain",
            400,
            "MANIFEST_INVALID",
        ),
        (bad_digest, MANIFEST, 400, "DIGEST_INVALID"),
        (bad_subject, MANIFEST, 400, "DIGEST_INVALID"),
        (vec![b' '; 5 << 20], MANIFEST, 413, "SIZE_INVALID"),
    ] {
        let headers = [("content-type", kind)];
        let answer = world
            .ask("PUT", "/v2/app/manifests/new", &headers, &body)
            .await;
        assert_eq!(
            (answer.status.as_u16(), answer.code().as_str()),
            (status, code)
        );
    }
    let other = sha256(b"other");
    let answer = world.put("app", &other, &image).await;
    assert_eq!(answer.code(), "DIGEST_INVALID");
    assert_eq!(world.get("/v2/app/manifests/new").await.status, 404);
    assert_eq!(world.put("app", ".new", &image).await.code(), "TAG_INVALID");
    let elsewhere = world.put("other", "v1", &image).await;
    assert_eq!(
        elsewhere.code(),
        "MANIFEST_BLOB_UNKNOWN",
        "another repository's blobs do not count"
    );
}

#[tokio::test]
async fn a_manifest_of_four_megabytes_is_taken() {
    let world = World::new();
    let mut image = world.image("app", "v1", "a").await;
    for n in 0..390 {
        image["annotations"][format!("large-{n}")] = "A".repeat(10_000).into();
    }
    assert_eq!(world.put("app", "large", &image).await.status, 201);
    assert_eq!(
        world.get("/v2/app/manifests/large").await.text(),
        image.to_string()
    );
}

#[tokio::test]
async fn a_pushed_image_is_in_the_store_and_each_move_of_its_tag_is_told() {
    let world = World::new();
    let image = world.image("team/app", "v1", "a").await;
    let found = world.store.resolve("registry.localhost/team/app:v1");
    let found = found.expect("it is already pulled");
    assert_eq!(
        (&found.digest, &found.config.cmd),
        (&digest_of(&image), &vec!["a".to_owned()])
    );
    let text = image.to_string();
    let mut here = descriptor(MANIFEST, text.as_bytes());
    here["platform"] = json!({"os": "linux", "architecture": architecture()});
    let mut other = descriptor(MANIFEST, b"elsewhere");
    other["platform"] = json!({"os": "linux", "architecture": "none"});
    let index = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": [other, here]});
    assert_eq!(world.put("team/app", "multi", &index).await.status, 201);
    let multi = world.store.resolve("registry.localhost/team/app:multi");
    assert_eq!(
        multi.expect("this machine's part of it").digest,
        found.digest
    );
    let artifact = json!({
        "schemaVersion": 2, "mediaType": MANIFEST, "artifactType": "application/vnd.example",
        "config": {"mediaType": "application/vnd.example", "digest": image["config"]["digest"], "size": image["config"]["size"]},
        "layers": [],
    });
    assert_eq!(world.put("team/app", "multi", &artifact).await.status, 201);
    assert!(
        world
            .store
            .resolve("registry.localhost/team/app:multi")
            .is_err(),
        "nothing that runs"
    );
    let moved = world.moved.lock().expect("no poison");
    let told: Vec<(&str, bool)> = (moved.iter())
        .map(|one| (one.tag.as_str(), one.image.is_some()))
        .collect();
    assert_eq!(told, [("v1", true), ("multi", true), ("multi", false)]);
    assert_eq!(
        (moved[0].repository.as_str(), moved[0].who.as_str()),
        ("team/app", "root")
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_came_before_a_dropped_request_is_counted_and_gone_on_with() {
    let world = World::new();
    let place = world.upload("app").await;
    let first = vec![7_u8; 1 << 20];
    let (sender, body) = fed();
    sender.send(first.clone().into()).expect("it listens");
    let patch = request("PATCH", &place, &[], body);
    let id = place.rsplit('/').next().expect("an id");
    let file = world.dir.path().join("store/registry/app/uploads").join(id);
    let grant = Grant::root();
    {
        let sending = world.send(patch, &grant);
        tokio::pin!(sending);
        // As a server does when a client has gone: nobody asks the handler any more.
        while std::fs::metadata(&file).expect("it is there").len() < 1 << 20 {
            let turn = std::time::Duration::from_millis(5);
            assert!(tokio::time::timeout(turn, &mut sending).await.is_err());
        }
    }
    drop(sender);
    let state = loop {
        let state = world.get(&place).await;
        if state.status != 409 {
            break state;
        }
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    };
    assert_eq!(state.header("range"), format!("0-{}", (1 << 20) - 1));
    let whole = [first, b"the rest".to_vec()].concat();
    let path = format!("{place}?digest={}", sha256(&whole));
    let answer = world.ask("PUT", &path, &[], b"the rest").await;
    assert_eq!(answer.status, 201, "{}", answer.text());
    let blob = world.get(answer.header("location")).await;
    assert!(blob.body == whole, "the blob is what its digest says");
}

#[tokio::test]
async fn bytes_that_were_never_counted_do_not_get_into_a_blob() {
    let world = World::new();
    let place = world.upload("app").await;
    world.ask("PATCH", &place, &[], b"hello").await;
    let id = place.rsplit('/').next().expect("an id");
    let file = world.dir.path().join("store/registry/app/uploads").join(id);
    std::fs::write(file, b"hello, stranger").expect("to write");
    let path = format!("{place}?digest={}", sha256(b"hello, world"));
    let answer = world.ask("PUT", &path, &[], b", world").await;
    assert_eq!(answer.status, 201, "{}", answer.text());
    let blob = world.get(answer.header("location")).await;
    assert_eq!(blob.text(), "hello, world");
}

#[tokio::test]
async fn a_tag_that_cannot_be_set_leaves_those_before_it_set_and_told() {
    let world = World::new();
    let image = world.image("app", "v1", "a").await;
    world.moved.lock().expect("no poison").clear();
    // A folder where the tag's file would be.
    let tags = world.dir.path().join("store/registry/app/tags");
    std::fs::create_dir_all(tags.join("broken/in")).expect("a folder");
    let path = format!(
        "/v2/app/manifests/{}?tag=good&tag=broken&tag=never",
        digest_of(&image)
    );
    let body = image.to_string();
    let answer = world
        .ask("PUT", &path, &[("content-type", MANIFEST)], body.as_bytes())
        .await;
    assert_eq!(answer.status, 500, "{}", answer.text());
    let moved = world.moved.lock().expect("no poison").clone();
    let tags: Vec<&str> = moved.iter().map(|one| one.tag.as_str()).collect();
    assert_eq!(tags, ["good"]);
    assert_eq!(world.get("/v2/app/manifests/good").await.status, 200);
    assert_eq!(world.get("/v2/app/manifests/never").await.status, 404);
}

#[tokio::test]
async fn a_store_that_may_have_no_more_names_refuses_tags_and_stays_readable() {
    let world = World::new();
    let image = world.image("app", "v1", "a").await;
    // One name as long as 200,000 would be together.
    let index_path = world.dir.path().join("store/index.json");
    let text = std::fs::read_to_string(&index_path).expect("an index");
    let mut index: Value = serde_json::from_str(&text).expect("JSON");
    let mut filler = index["manifests"][0].clone();
    filler["digest"] = sha256(b"filler").into();
    filler["annotations"] = json!({"filler": "x".repeat(64 << 20)});
    let room = 200 + filler.to_string().len() - (64 << 20) + text.len();
    filler["annotations"] = json!({"filler": "x".repeat((64 << 20) - room)});
    index["manifests"]
        .as_array_mut()
        .expect("a list")
        .push(filler);
    let filled = index.to_string();
    std::fs::write(&index_path, &filled).expect("to write");
    let tag = "t".repeat(128);
    let full = world.put("app", &tag, &image).await;
    assert_eq!(
        (full.status.as_u16(), full.code().as_str()),
        (429, "TOOMANYREQUESTS")
    );
    let path = format!("/v2/app/manifests/{tag}");
    assert_eq!(world.get(&path).await.status, 404, "it was not set");
    assert!(
        std::fs::read_to_string(&index_path).expect("an index") == filled,
        "and the index is as it was"
    );
}

#[tokio::test]
async fn what_others_have_in_the_store_is_no_part_of_an_image_that_only_names_it() {
    let world = World::new();
    let theirs = world.image("theirs", "v1", "a secret").await;
    let (layer, config) = (&theirs["layers"][0], &theirs["config"]);
    let elsewhere = |part: &Value| {
        let mut part = part.clone();
        part["urls"] = json!(["http://example.test/"]);
        part
    };
    let manifest = |config: Value, layer: Value| {
        json!({
            "schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": [layer],
        })
    };
    let refused = manifest(elsewhere(config), elsewhere(layer));
    let answer = world.put("mine", "v1", &refused).await;
    assert_eq!(answer.code(), "MANIFEST_BLOB_UNKNOWN");
    let body = json!({
        "architecture": architecture(), "os": "linux", "config": {},
        "rootfs": {"type": "layers", "diff_ids": [layer["digest"]]},
    });
    let body = body.to_string();
    world.blob("mine", body.as_bytes()).await;
    let config = descriptor("application/vnd.oci.image.config.v1+json", body.as_bytes());
    let taken = manifest(config, elsewhere(layer));
    let answer = world.put("mine", "v1", &taken).await;
    assert_eq!(answer.status, 201, "{}", answer.text());
    let found = world.store.resolve("registry.localhost/mine:v1");
    assert!(found.is_err(), "it is no image that runs here");
}

#[tokio::test]
async fn a_config_that_names_the_content_of_another_layer_does_not_get_it() {
    if !rustix::process::geteuid().is_root() {
        println!("SKIPPED: unpacking layers needs root");
        return;
    }
    let world = World::new();
    let theirs = world.image("theirs", "v1", "a secret").await;
    let digest = digest_of(&theirs);
    world.store.layers(&digest).expect("to unpack");
    let mine = world.image("mine", "v1", "nothing much").await;
    let body = json!({
        "architecture": architecture(), "os": "linux", "config": {},
        "rootfs": {"type": "layers", "diff_ids": [theirs["layers"][0]["digest"]]},
    });
    let body = body.to_string();
    world.blob("mine", body.as_bytes()).await;
    let mut manifest = mine.clone();
    manifest["config"] = descriptor("application/vnd.oci.image.config.v1+json", body.as_bytes());
    assert_eq!(world.put("mine", "v2", &manifest).await.status, 201);
    let layers = world.store.layers(&digest_of(&manifest));
    let error = layers.expect_err("their files are not mine").to_string();
    assert!(error.contains("is corrupt"), "{error}");
    world.store.layers(&digest).expect("theirs is as it was");
    world.store.layers(&digest_of(&mine)).expect("mine too");
}
