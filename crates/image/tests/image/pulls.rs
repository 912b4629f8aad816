//! Pulling from a registry that does what it should, and from one that does not.

use std::fs;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use layby_image::client::{Credentials, Fault, Options, Progress, Retry, Step, pull};
use layby_image::{Error, Image, Reference};

use crate::peer::{Answer, Asked, Peer};
use crate::support::{Tar, World, gzip, sha256};

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const INDEX: &str = "application/vnd.oci.image.index.v1+json";

/// An image at the peer: the digests of its layers' blobs.
pub(crate) struct Shelved {
    pub(crate) manifest: String,
    pub(crate) layers: Vec<String>,
}

/// Puts an image of these layers there as `app:1`.
pub(crate) fn shelve(peer: &Peer, tars: &[Vec<u8>], architecture: &str) -> Shelved {
    let mut layers = Vec::new();
    let mut described = Vec::new();
    for tar in tars {
        let blob = gzip(tar);
        let digest = sha256(&blob);
        described.push(serde_json::json!({
            "mediaType": "application/vnd.oci.image.layer.v1.tar+gzip", "digest": digest, "size": blob.len(),
        }));
        peer.put_blob(&digest, &blob);
        layers.push(digest);
    }
    let diff_ids: Vec<String> = tars.iter().map(|tar| sha256(tar)).collect();
    let config = serde_json::json!({
        "architecture": architecture, "os": "linux", "config": {"Cmd": ["/x"]},
        "rootfs": {"type": "layers", "diff_ids": diff_ids},
    });
    let config = config.to_string();
    peer.put_blob(&sha256(config.as_bytes()), config.as_bytes());
    let manifest = serde_json::json!({
        "schemaVersion": 2, "mediaType": MANIFEST,
        "config": {
            "mediaType": "application/vnd.oci.image.config.v1+json",
            "digest": sha256(config.as_bytes()), "size": config.len(),
        },
        "layers": described,
    });
    let manifest = manifest.to_string();
    let digest = sha256(manifest.as_bytes());
    peer.put_manifest("app", "1", MANIFEST, manifest.as_bytes());
    peer.put_manifest("app", &digest, MANIFEST, manifest.as_bytes());
    Shelved {
        manifest: digest,
        layers,
    }
}

/// What no compression shortens.
pub(crate) fn noise(bytes: usize, seed: u64) -> String {
    let mut x = seed | 1;
    let letters = std::iter::repeat_with(|| {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        char::from(b'!' + (x % 90) as u8)
    });
    letters.take(bytes).collect()
}

pub(crate) fn layer(name: &str, bytes: usize) -> Vec<u8> {
    Tar::new().file(name, &noise(bytes, bytes as u64)).finish()
}

fn machine() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

pub(crate) fn options() -> Options {
    Options {
        retry: Retry {
            attempts: 3,
            base_ms: 1,
            max_ms: 2,
            seed: 1,
        },
        stall_ms: 2_000,
        ..Options::default()
    }
}

fn name(peer: &Peer) -> Reference {
    format!("{}/app:1", peer.addr).parse().unwrap()
}

fn pull_with(world: &World, peer: &Peer, options: &Options) -> (Result<Image, Error>, Vec<Step>) {
    let steps = Mutex::new(Vec::new());
    let tell = |progress: Progress| steps.lock().unwrap().push(progress.step);
    let result = pull(&world.store, &name(peer), options, &tell);
    (result, steps.into_inner().unwrap())
}

fn fails(world: &World, peer: &Peer, fault: Fault, reason: &str) {
    let error = pull_with(world, peer, &options()).0.expect_err(reason);
    let Error::Registry(found) = &error else {
        panic!("{reason}: {error}");
    };
    assert_eq!(found.fault, fault, "{error}");
    assert!(error.to_string().contains(reason), "{error}");
    assert!(
        error.to_string().contains(&peer.addr.to_string()),
        "{error}"
    );
    left_clean(world);
}

/// Nothing of a failed pull is named, and nothing lies around.
fn left_clean(world: &World) {
    assert!(world.store.list().unwrap().is_empty());
    assert_eq!(
        fs::read_dir(world.store_dir().join("tmp")).unwrap().count(),
        0
    );
    for blob in fs::read_dir(world.store_dir().join("blobs/sha256")).unwrap() {
        let blob = blob.unwrap();
        let digest = format!("sha256:{}", blob.file_name().to_str().unwrap());
        assert_eq!(sha256(&fs::read(blob.path()).unwrap()), digest);
    }
}

fn is_layer(asked: &Asked, shelved: &Shelved, at: usize) -> bool {
    asked.method == "GET" && asked.path.ends_with(&shelved.layers[at])
}

#[test]
fn an_image_is_pulled_unpacked_and_named_and_the_second_time_only_asked_for() {
    let (world, peer) = (World::new(), Peer::start());
    let tars = [layer("a", 300_000), layer("b", 10), layer("c", 700_000)];
    let shelved = shelve(&peer, &tars, machine());
    let (image, steps) = pull_with(&world, &peer, &options());
    let image = image.unwrap();
    assert_eq!(image.digest, shelved.manifest);
    assert_eq!(image.references, [format!("{}/app:1", peer.addr)]);
    assert_eq!(image.platform, Some(format!("linux/{}", machine())));
    let dirs = world.store.layers(&image.digest).unwrap();
    assert!(
        dirs[0].join("c").exists() && dirs[2].join("a").exists(),
        "topmost first"
    );
    assert_eq!(
        steps.iter().filter(|step| **step == Step::Unpacked).count(),
        3
    );
    assert_eq!(
        world.store.resolve(&name(&peer).to_string()).unwrap(),
        image
    );

    let before = peer.asked().len();
    let (again, steps) = pull_with(&world, &peer, &options());
    assert_eq!(again.unwrap(), image);
    assert_eq!(peer.asked().len(), before + 1, "the manifest alone");
    assert_eq!(steps.iter().filter(|step| **step == Step::Held).count(), 3);
}

#[test]
fn an_index_leads_to_the_platform_that_is_wanted_also_by_digest() {
    let (world, peer) = (World::new(), Peer::start());
    let other = shelve(&peer, &[layer("other", 10)], "s390x");
    let ours = shelve(&peer, &[layer("ours", 10)], machine());
    let entry = |shelved: &Shelved, architecture: &str| {
        serde_json::json!({
            "mediaType": MANIFEST, "digest": shelved.manifest,
            "size": peer.manifest("app", &shelved.manifest).unwrap().len(),
            "platform": {"architecture": architecture, "os": "linux"},
        })
    };
    let index = serde_json::json!({
        "schemaVersion": 2, "mediaType": INDEX, "manifests": [entry(&other, "s390x"), entry(&ours, machine())],
    });
    let index = index.to_string();
    let digest = sha256(index.as_bytes());
    peer.put_manifest("app", "1", INDEX, index.as_bytes());
    peer.put_manifest("app", &digest, INDEX, index.as_bytes());
    let image = pull_with(&world, &peer, &options()).0.unwrap();
    assert_eq!(image.digest, ours.manifest);
    let mut wanted = options();
    wanted.platform = Some("linux/s390x".parse().unwrap());
    assert_eq!(
        pull_with(&world, &peer, &wanted).0.unwrap().digest,
        other.manifest
    );
    wanted.platform = Some("linux/riscv64".parse().unwrap());
    let error = pull_with(&world, &peer, &wanted).0.unwrap_err();
    let there = format!(
        "does not have it for linux/riscv64; there is: linux/s390x, linux/{}",
        machine()
    );
    assert!(error.to_string().contains(&there), "{error}");

    let by_digest = format!("{}/app@{digest}", peer.addr);
    let image = pull(
        &world.store,
        &by_digest.parse().unwrap(),
        &options(),
        &|_| {},
    )
    .unwrap();
    assert_eq!(image.digest, ours.manifest);
    let held = world.store.resolve(&by_digest).unwrap();
    assert_eq!(
        held.digest, ours.manifest,
        "it is found again by the index's digest"
    );
}

#[test]
fn an_image_for_another_machine_is_refused_until_it_is_asked_for() {
    let (world, peer) = (World::new(), Peer::start());
    shelve(&peer, &[layer("a", 10)], "s390x");
    fails(
        &world,
        &peer,
        Fault::Platform,
        "has it only for linux/s390x",
    );
    let mut wanted = options();
    wanted.platform = Some("linux/s390x".parse().unwrap());
    pull_with(&world, &peer, &wanted).0.unwrap();
}

#[test]
fn a_layer_that_breaks_off_is_taken_up_where_it_was() {
    let (world, peer) = (World::new(), Peer::start());
    let shelved = shelve(&peer, &[layer("a", 2_000_000)], machine());
    let cuts = AtomicUsize::new(0);
    let digest = shelved.layers[0].clone();
    // More cuts than attempts: what brings something on may go on.
    peer.spoil(move |asked, mut answer| {
        if asked.path.ends_with(&digest) && cuts.fetch_add(1, Ordering::Relaxed) < 5 {
            answer.cut = Some(200_000);
        }
        answer
    });
    let (image, steps) = pull_with(&world, &peer, &options());
    image.unwrap();
    let asked = peer.asked();
    let ranges: Vec<&String> = asked
        .iter()
        .filter_map(|a| a.headers.get("range"))
        .collect();
    assert_eq!(
        ranges,
        [
            "bytes=200000-",
            "bytes=400000-",
            "bytes=600000-",
            "bytes=800000-",
            "bytes=1000000-"
        ]
    );
    assert_eq!(
        steps
            .iter()
            .filter(|step| matches!(step, Step::Again { .. }))
            .count(),
        5
    );
}

#[test]
fn a_registry_that_knows_no_ranges_or_lies_about_them_is_read_from_the_start() {
    for lie in ["", "bytes 0-9/10", "bytes 5-1/9", "nonsense"] {
        let (world, peer) = (World::new(), Peer::start());
        let shelved = shelve(&peer, &[layer("a", 500_000)], machine());
        let cuts = AtomicUsize::new(0);
        let whole = peer.blob(&shelved.layers[0]).unwrap();
        peer.spoil(move |asked, mut answer| {
            if !is_layer(asked, &shelved, 0) {
                return answer;
            }
            if cuts.fetch_add(1, Ordering::Relaxed) == 0 {
                answer.cut = Some(100_000);
            } else if asked.headers.contains_key("range") {
                return match lie {
                    "" => Answer::of(200).body(whole.clone()),
                    lie => answer.header("Content-Range", lie),
                };
            }
            answer
        });
        pull_with(&world, &peer, &options()).0.expect(lie);
    }
}

#[test]
fn content_that_is_not_what_was_promised_is_not_taken() {
    type Spoil = fn(Answer) -> Answer;
    let table: [(Fault, &str, Spoil); 5] = [
        (
            Fault::Broken,
            "sent content with the digest",
            |mut answer| {
                let at = answer.body.len() / 2;
                answer.body[at] ^= 1;
                answer
            },
        ),
        (Fault::Broken, "instead of", |mut answer| {
            answer.body.push(0);
            answer
        }),
        (Fault::Broken, "instead of", |mut answer| {
            answer.body.pop();
            answer
        }),
        (Fault::Unreachable, "broke off after 0 of", |mut answer| {
            answer.cut = Some(0);
            answer
        }),
        (Fault::NotFound, "which the manifest names", |_| {
            Answer::of(404)
        }),
    ];
    for (fault, reason, spoil) in table {
        let (world, peer) = (World::new(), Peer::start());
        let shelved = shelve(
            &peer,
            &[layer("a", 100_000), layer("b", 100_000)],
            machine(),
        );
        peer.spoil(move |asked, answer| match is_layer(asked, &shelved, 1) {
            true => spoil(answer),
            false => answer,
        });
        fails(&world, &peer, fault, reason);
    }
}

#[test]
fn a_wrong_digest_is_asked_for_once_more_and_what_was_whole_is_kept() {
    let (world, peer) = (World::new(), Peer::start());
    let shelved = shelve(&peer, &[layer("a", 50_000), layer("b", 50_000)], machine());
    let first = shelved.layers[0].clone();
    let times = AtomicUsize::new(0);
    peer.spoil(move |asked, mut answer| {
        if asked.path.ends_with(&first) && times.fetch_add(1, Ordering::Relaxed) < 3 {
            answer.body[100] ^= 1;
        }
        answer
    });
    let mut one = options();
    one.parallel = 1;
    assert!(pull_with(&world, &peer, &one).0.is_err(), "twice wrong");
    let (image, steps) = pull_with(&world, &peer, &options());
    image.unwrap();
    assert!(steps.iter().any(|step| matches!(step, Step::Again { .. })));
}

#[test]
fn a_lying_config_or_manifest_is_refused() {
    let (world, peer) = (World::new(), Peer::start());
    shelve(&peer, &[layer("a", 10), layer("b", 10)], machine());
    let original = String::from_utf8(peer.manifest("app", "1").unwrap()).unwrap();
    let document: serde_json::Value = serde_json::from_str(&original).unwrap();
    let mut fewer = document.clone();
    fewer["layers"].as_array_mut().unwrap().pop();
    let mut foreign = document.clone();
    foreign["layers"][0]["mediaType"] =
        "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip".into();
    let mut both = document.clone();
    both["manifests"] = serde_json::json!([]);
    for (text, kind, reason) in [
        (
            fewer.to_string(),
            MANIFEST,
            "1 layers in its manifest and 2 in its config",
        ),
        (foreign.to_string(), MANIFEST, "a foreign layer"),
        (both.to_string(), MANIFEST, "both an image and an index"),
        ("{}".to_owned(), "text/html", "no image"),
        (
            r#"{"schemaVersion":1}"#.to_owned(),
            "application/vnd.docker.distribution.manifest.v1+prettyjws",
            "schema 1",
        ),
    ] {
        peer.put_manifest("app", "1", kind, text.as_bytes());
        let error = pull_with(&world, &peer, &options()).0.expect_err(reason);
        assert!(error.to_string().contains(reason), "{error}");
        left_clean(&world);
    }
    // By digest, other bytes are another manifest.
    let digest = sha256(original.as_bytes());
    peer.put_manifest("app", &digest, MANIFEST, fewer.to_string().as_bytes());
    let reference = format!("{}/app@{digest}", peer.addr).parse().unwrap();
    let error = pull(&world.store, &reference, &options(), &|_| {}).unwrap_err();
    assert!(
        error.to_string().contains("sent another manifest"),
        "{error}"
    );
}

#[test]
fn a_hostile_layer_is_refused_and_leaves_nothing() {
    let (world, peer) = (World::new(), Peer::start());
    let evil = Tar::new()
        .file("../evil", "x")
        .file("big", &noise(900_000, 5))
        .finish();
    shelve(&peer, &[evil], machine());
    let error = pull_with(&world, &peer, &options()).0.unwrap_err();
    assert!(matches!(error, Error::Layer { .. }), "{error}");
    assert!(error.to_string().contains("\"../evil\""), "{error}");
    left_clean(&world);
    assert_eq!(
        fs::read_dir(world.store_dir().join("layers"))
            .unwrap()
            .count(),
        0
    );
}

#[test]
fn a_busy_registry_is_asked_again_when_it_says() {
    let (world, peer) = (World::new(), Peer::start());
    shelve(&peer, &[layer("a", 10)], machine());
    let times = AtomicUsize::new(0);
    peer.spoil(
        move |_, answer| match times.fetch_add(1, Ordering::Relaxed) {
            0 => Answer::of(429).header("Retry-After", "1"),
            1 => Answer::of(503),
            _ => answer,
        },
    );
    let begun = std::time::Instant::now();
    pull_with(&world, &peer, &options()).0.unwrap();
    assert!(begun.elapsed() >= Duration::from_secs(1));
    peer.spoil(|_, _| Answer::of(429).header("Retry-After", "86400"));
    let error = pull_with(&World::new(), &peer, &options()).0.unwrap_err();
    assert!(
        error
            .to_string()
            .contains("429 Too Many Requests; try again later"),
        "{error}"
    );
}

#[test]
fn a_token_is_fetched_for_the_repository_and_credentials_go_nowhere_else() {
    let (world, peer, elsewhere) = (World::new(), Peer::start(), Peer::start());
    let shelved = shelve(&peer, &[layer("a", 100_000)], machine());
    for digest in &shelved.layers {
        elsewhere.put_blob(digest, &peer.blob(digest).unwrap());
    }
    let (addr, other) = (peer.addr, elsewhere.addr);
    peer.spoil(move |asked, answer| {
        if asked.path.starts_with("/token") {
            // "me:s3cret"
            assert_eq!(asked.headers["authorization"], "Basic bWU6czNjcmV0");
            assert!(
                asked.path.contains("scope=repository%3Aapp%3Apull"),
                "{}",
                asked.path
            );
            return Answer::of(200).body(r#"{"access_token": "t0ken"}"#);
        }
        match asked.headers.get("authorization").map(String::as_str) {
            Some("Bearer t0ken") if is_layer(asked, &shelved, 0) => {
                let digest = &shelved.layers[0];
                Answer::of(307).header("Location", &format!("http://{other}/v2/app/blobs/{digest}"))
            }
            Some("Bearer t0ken") => answer,
            _ => Answer::of(401).header(
                "WWW-Authenticate",
                &format!(r#"Bearer realm="http://{addr}/token",service="test",scope="x""#),
            ),
        }
    });
    let mut known = options();
    known.credentials = Some(Credentials::Password {
        user: "me".to_owned(),
        password: "s3cret".to_owned(),
    });
    pull_with(&world, &peer, &known).0.unwrap();
    assert_eq!(peer.count("GET", "/token"), 1, "one token does for all");
    let asked = elsewhere.asked();
    assert_eq!(asked.len(), 1);
    assert!(!asked[0].headers.contains_key("authorization"), "{asked:?}");
}

#[test]
fn what_a_registry_refuses_is_said_with_what_to_do() {
    let (world, peer) = (World::new(), Peer::start());
    shelve(&peer, &[layer("a", 10)], machine());
    peer.spoil(|_, _| Answer::of(401).header("WWW-Authenticate", "Basic realm=\"x\""));
    let login = format!("log in with `layby login {}`", peer.addr);
    fails(&world, &peer, Fault::Unauthorized, &login);
    peer.spoil(|_, _| {
        Answer::of(401).header(
            "WWW-Authenticate",
            r#"Bearer realm="http://evil.example.com/t""#,
        )
    });
    fails(
        &world,
        &peer,
        Fault::Broken,
        "http://evil.example.com/t, which is not https",
    );
    peer.spoil(|_, _| Answer::of(401).header("WWW-Authenticate", "Nonsense"));
    fails(&world, &peer, Fault::Unauthorized, "no way that is known");
    peer.spoil(|_, _| {
        Answer::of(403).body(r#"{"errors":[{"code":"DENIED","message":"not\u0007yours"}]}"#)
    });
    fails(&world, &peer, Fault::Denied, "403 Forbidden: not yours");
    peer.spoil(|_, _| Answer::of(307).header("Location", "/v2/app/manifests/1"));
    fails(&world, &peer, Fault::Broken, "sends in circles");
    peer.spoil(|_, _| Answer::of(302).header("Location", "ftp://x/"));
    fails(&world, &peer, Fault::Broken, "without saying where");
    peer.spoil(|_, answer| answer);
    peer.put_manifest("app", "2", MANIFEST, b"{}");
    let missing: Reference = format!("{}/app:3", peer.addr).parse().unwrap();
    let error = pull(&world.store, &missing, &options(), &|_| {}).unwrap_err();
    assert!(
        error
            .to_string()
            .contains("404 Not Found: manifest unknown"),
        "{error}"
    );
}

#[test]
fn nobody_at_the_other_end_is_unreachable_and_a_cancelled_pull_ends_soon() {
    let world = World::new();
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = free.local_addr().unwrap();
    drop(free);
    let nobody: Reference = format!("{addr}/app:1").parse().unwrap();
    let error = pull(&world.store, &nobody, &options(), &|_| {}).unwrap_err();
    assert!(
        matches!(&error, Error::Registry(error) if error.fault == Fault::Unreachable),
        "{error}"
    );

    let peer = Peer::start();
    shelve(&peer, &[layer("a", 3_000_000)], machine());
    let options = options();
    let stop = std::sync::Arc::clone(&options.cancel);
    let tell = |progress: Progress| {
        if matches!(progress.step, Step::Bytes { .. }) {
            stop.store(true, Ordering::Relaxed);
        }
    };
    let error = pull(&world.store, &name(&peer), &options, &tell).unwrap_err();
    assert!(
        matches!(&error, Error::Registry(error) if error.fault == Fault::Cancelled),
        "{error}"
    );
    left_clean(&world);
}
