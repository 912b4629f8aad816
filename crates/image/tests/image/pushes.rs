//! Pushing to a registry that does what it should, and to one that does not.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use layby_image::client::{Fault, Options, Progress, Step, pull, push};
use layby_image::{Error, Reference};

use crate::peer::{Answer, Peer};
use crate::pulls::{layer, options};
use crate::support::{World, gzip, oci_archive, sha256};

/// A store with an image of two layers, named as the peer's `app:1`.
fn world(peer: &Peer) -> (World, String) {
    let world = World::new();
    let layers = [layer("a", 600_000), layer("b", 10)].map(|tar| (gzip(&tar), sha256(&tar)));
    let name = format!("{}/app:1", peer.addr);
    let image = world
        .store
        .load(oci_archive(&name, &layers).as_slice())
        .unwrap()
        .remove(0);
    (world, image.digest)
}

fn push_with(
    world: &World,
    source: &str,
    to: &str,
    options: &Options,
) -> (Result<String, Error>, Vec<Step>) {
    let steps = Mutex::new(Vec::new());
    let tell = |progress: Progress| steps.lock().unwrap().push(progress.step);
    let to: Reference = to.parse().unwrap();
    let result = push(&world.store, source, &to, options, &tell);
    (result, steps.into_inner().unwrap())
}

#[test]
fn what_was_pushed_is_pulled_the_same_and_sent_only_once() {
    let peer = Peer::start();
    let (sender, digest) = world(&peer);
    let name = format!("{}/app:1", peer.addr);
    let (sent, steps) = push_with(&sender, &name, &name, &options());
    assert_eq!(sent.unwrap(), digest);
    assert_eq!(steps.iter().filter(|step| **step == Step::Done).count(), 3);
    let last = peer.asked().pop().unwrap();
    assert_eq!(
        (last.method.as_str(), last.path.as_str()),
        ("PUT", "/v2/app/manifests/1")
    );

    let receiver = World::new();
    let image = pull(&receiver.store, &name.parse().unwrap(), &options(), &|_| {}).unwrap();
    assert_eq!(image.digest, digest);

    let (_, steps) = push_with(&sender, &name, &name, &options());
    assert_eq!(steps.iter().filter(|step| **step == Step::Held).count(), 3);
    assert_eq!(peer.count("POST", "/blobs/uploads/"), 3);
}

#[test]
fn what_another_repository_there_has_is_mounted() {
    let peer = Peer::start();
    let (world, digest) = world(&peer);
    let name = format!("{}/app:1", peer.addr);
    push_with(&world, &name, &name, &options()).0.unwrap();
    let other = format!("{}/team/other:2", peer.addr);
    // This peer answers for blobs by repository, as others do.
    peer.spoil(|asked, answer| match asked.method.as_str() {
        "HEAD" => Answer::of(404),
        _ => answer,
    });
    let (sent, steps) = push_with(&world, &digest, &other, &options());
    sent.unwrap();
    assert_eq!(
        steps.iter().filter(|step| **step == Step::Mounted).count(),
        3
    );
    assert_eq!(peer.count("POST", "from=app"), 3);
    assert!(peer.manifest("team/other", "2").is_some());
}

#[test]
fn large_blobs_go_in_parts_and_a_part_that_is_lost_begins_anew() {
    let peer = Peer::start();
    let (world, digest) = world(&peer);
    let mut parts = options();
    parts.chunk_bytes = 100_000;
    let lost = AtomicUsize::new(0);
    peer.spoil(move |asked, answer| match asked.method.as_str() {
        "PATCH" if lost.fetch_add(1, Ordering::Relaxed) == 2 => answer.header("Range", "0-7"),
        _ => answer,
    });
    let to = format!("{}/app:1", peer.addr);
    let (sent, steps) = push_with(&world, &digest, &to, &parts);
    sent.unwrap();
    assert_eq!(
        steps
            .iter()
            .filter(|step| matches!(step, Step::Again { .. }))
            .count(),
        1
    );
    for asked in peer.asked().iter().filter(|asked| asked.method == "PATCH") {
        assert!(asked.body.len() <= 100_000);
        assert!(asked.headers.contains_key("content-range"));
    }
    let receiver = World::new();
    pull(&receiver.store, &to.parse().unwrap(), &options(), &|_| {}).unwrap();
}

#[test]
fn what_a_registry_does_not_take_is_said() {
    let peer = Peer::start();
    let (world, digest) = world(&peer);
    let to = format!("{}/app:1", peer.addr);
    let fails = |answer: fn() -> Answer, method: &'static str, fault: Fault, reason: &str| {
        peer.spoil(move |asked, usual| match asked.method == method {
            true => answer(),
            false => usual,
        });
        let error = push_with(&world, &digest, &to, &options())
            .0
            .expect_err(reason);
        assert!(
            matches!(&error, Error::Registry(error) if error.fault == fault),
            "{error}"
        );
        assert!(error.to_string().contains(reason), "{error}");
    };
    fails(
        || Answer::of(405),
        "POST",
        Fault::Refused,
        "takes no upload: it answered 405",
    );
    fails(
        || Answer::of(403),
        "POST",
        Fault::Denied,
        "log in as somebody who may",
    );
    fails(
        || Answer::of(202),
        "POST",
        Fault::Broken,
        "without saying where",
    );
    fails(
        || Answer::of(413),
        "PUT",
        Fault::Refused,
        "does not take a blob: it answered 413",
    );
    fails(|| Answer::of(500), "PUT", Fault::Busy, "answered 500");
    let missing = push_with(&world, "nothing", &to, &options()).0.unwrap_err();
    assert!(matches!(missing, Error::NotFound { .. }), "{missing}");
}
