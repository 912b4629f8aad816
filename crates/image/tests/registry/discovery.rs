//! Content discovery: tags, repositories, and what says something about a manifest.

use serde_json::{Value, json};

use crate::kit::{INDEX, MANIFEST, World, descriptor, digest_of, sha256};

fn names(answer: &Value, key: &str) -> Vec<String> {
    let list = answer[key].as_array().expect("a list");
    list.iter()
        .map(|n| n.as_str().expect("text").to_owned())
        .collect()
}

#[tokio::test]
async fn tags_are_listed_in_order_and_by_the_page() {
    let world = World::new();
    let image = world.image("app", "v2", "a").await;
    for tag in ["v10", "Beta", "alpha", "v1"] {
        assert_eq!(world.put("app", tag, &image).await.status, 201);
    }
    let all = world.get("/v2/app/tags/list").await;
    assert_eq!(all.header("content-type"), "application/json");
    assert_eq!(all.json()["name"], "app");
    assert_eq!(
        names(&all.json(), "tags"),
        ["alpha", "Beta", "v1", "v10", "v2"]
    );
    let mut path = "/v2/app/tags/list?n=2".to_owned();
    let mut pages = Vec::new();
    loop {
        let page = world.get(&path).await;
        pages.push(names(&page.json(), "tags"));
        let Some(link) = page.headers.get("link") else {
            break;
        };
        let link = link.to_str().expect("text");
        let (next, rest) = link[1..].split_once('>').expect("a link");
        assert_eq!(rest, "; rel=\"next\"");
        path = next.to_owned();
    }
    assert_eq!(
        pages,
        [vec!["alpha", "Beta"], vec!["v1", "v10"], vec!["v2"]]
    );
    let after = world.get("/v2/app/tags/list?last=v1").await.json();
    assert_eq!(names(&after, "tags"), ["v10", "v2"]);
    let none = world.get("/v2/app/tags/list?n=0").await;
    assert_eq!(names(&none.json(), "tags"), [] as [&str; 0]);
    assert_eq!(world.get("/v2/app/tags/list?n=x").await.status, 400);
}

#[tokio::test]
async fn repositories_are_listed_to_whom_may_read_them() {
    let world = World::new();
    for name in ["b", "a/x", "a/y"] {
        world.image(name, "v1", name).await;
    }
    world.upload("begun").await;
    let all = world.get("/v2/_catalog").await.json();
    assert_eq!(names(&all, "repositories"), ["a/x", "a/y", "b"]);
    let page = world.get("/v2/_catalog?n=1&last=a/x").await;
    assert_eq!(names(&page.json(), "repositories"), ["a/y"]);
    assert_eq!(
        page.header("link"),
        "</v2/_catalog?n=1&last=a%2Fy>; rel=\"next\""
    );
    let grant = layby_image::registry::Grant {
        repositories: "a/*".into(),
        ..layby_image::registry::Grant::root()
    };
    let asked = crate::kit::request("GET", "/v2/_catalog", &[], crate::kit::whole(b""));
    let mine = world.send(asked, &grant).await.json();
    assert_eq!(names(&mine, "repositories"), ["a/x", "a/y"]);
}

#[tokio::test]
async fn referrers_are_found_by_their_subject_and_type() {
    let world = World::new();
    let image = world.image("app", "v1", "a").await;
    let subject = descriptor(MANIFEST, image.to_string().as_bytes());
    let path = format!("/v2/app/referrers/{}", digest_of(&image));
    let empty = world.blob("app", b"{}").await;
    let about = |kind: &str, note: &str| {
        json!({
            "schemaVersion": 2, "mediaType": MANIFEST, "artifactType": kind,
            "config": {"mediaType": "application/vnd.oci.empty.v1+json", "digest": empty, "size": 2},
            "layers": [], "subject": subject, "annotations": {"note": note},
        })
    };
    let signature = about("application/vnd.example.sig", "signed");
    let bill = about("application/vnd.example.sbom+json", "listed");
    let by_config = json!({
        "schemaVersion": 2, "mediaType": MANIFEST, "layers": [], "subject": subject,
        "config": {"mediaType": "application/vnd.example.config", "digest": empty, "size": 2},
    });
    let index =
        json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": [], "subject": subject});
    for manifest in [&signature, &bill, &by_config, &index] {
        let answer = world.put("app", &digest_of(manifest), manifest).await;
        assert_eq!(answer.status, 201, "{}", answer.text());
        assert_eq!(answer.header("oci-subject"), digest_of(&image));
    }
    let found = world.get(&path).await;
    assert_eq!(found.header("content-type"), INDEX);
    let list = found.json();
    assert_eq!(
        (list["schemaVersion"].as_u64(), list["mediaType"].as_str()),
        (Some(2), Some(INDEX))
    );
    assert_eq!(list["manifests"].as_array().map(Vec::len), Some(4));
    let filtered = world
        .get(&format!(
            "{path}?artifactType=application%2Fvnd.example.sbom%2Bjson"
        ))
        .await;
    assert_eq!(filtered.header("oci-filters-applied"), "artifactType");
    let expected = json!([{
        "mediaType": MANIFEST, "digest": digest_of(&bill), "size": bill.to_string().len(),
        "artifactType": "application/vnd.example.sbom+json", "annotations": {"note": "listed"},
    }]);
    assert_eq!(filtered.json()["manifests"], expected);
    let by_config = world
        .get(&format!(
            "{path}?artifactType=application/vnd.example.config"
        ))
        .await;
    assert_eq!(
        by_config.json()["manifests"].as_array().map(Vec::len),
        Some(1)
    );

    let gone = format!("/v2/app/manifests/{}", digest_of(&bill));
    assert_eq!(world.ask("DELETE", &gone, &[], b"").await.status, 202);
    assert_eq!(
        world.get(&path).await.json()["manifests"]
            .as_array()
            .map(Vec::len),
        Some(3)
    );
}

#[tokio::test]
async fn nothing_about_nothing_is_an_empty_list_and_a_subject_may_come_later() {
    let world = World::new();
    let path = format!("/v2/app/referrers/{}", sha256(b"nothing"));
    let answer = world.get(&path).await;
    assert_eq!(answer.status, 200);
    assert_eq!(answer.json()["manifests"], json!([]));
    assert_eq!(world.get("/v2/app/referrers/sha256:x").await.status, 400);
    let empty = world.blob("app", b"{}").await;
    let about = json!({
        "schemaVersion": 2, "mediaType": MANIFEST, "layers": [],
        "config": {"mediaType": "application/vnd.example", "digest": empty, "size": 2},
        "subject": {"mediaType": MANIFEST, "digest": sha256(b"nothing"), "size": 7},
    });
    assert_eq!(world.put("app", "about", &about).await.status, 201);
    assert_eq!(
        world.get(&path).await.json()["manifests"][0]["digest"],
        digest_of(&about)
    );
}
