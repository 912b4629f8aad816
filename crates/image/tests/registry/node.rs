//! What a node asks of its registry: crashes, a full disk, collecting and pruning.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, SystemTime};

use layby_image::registry::Grant;
use layby_image::{Budget, Error, PruneOptions};

use crate::kit::{World, digest_of, request, whole};

fn options() -> PruneOptions {
    PruneOptions {
        registry: "registry.localhost".into(),
        ..PruneOptions::default()
    }
}

/// Lets everything in a folder look as if it were from last year.
fn make_old(dir: &Path) {
    let old = SystemTime::now() - Duration::from_secs(400 * 24 * 3600);
    for entry in fs::read_dir(dir).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            make_old(&path);
        } else {
            let file = fs::File::options().write(true).open(&path);
            file.and_then(|file| file.set_modified(old))
                .expect("a time");
        }
    }
}

fn blobs(world: &World) -> usize {
    let dir = world.dir.path().join("store/blobs/sha256");
    fs::read_dir(dir).expect("a folder").count()
}

#[tokio::test]
async fn what_repositories_hold_outlives_a_restart_and_a_collection() {
    let world = World::new();
    let image = world.image("app", "v1", "a").await;
    let lone = world.blob("app", b"its manifest is on its way").await;
    let world = world.restart();
    world.store.gc(&[]).expect("to collect");
    for path in [
        "/v2/app/manifests/v1".to_owned(),
        format!("/v2/app/manifests/{}", digest_of(&image)),
        format!("/v2/app/blobs/{lone}"),
        format!(
            "/v2/app/blobs/{}",
            image["layers"][0]["digest"].as_str().expect("text")
        ),
    ] {
        assert_eq!(world.get(&path).await.status, 200, "{path}");
    }
}

#[tokio::test]
async fn what_was_deleted_is_collected_and_blobs_that_no_manifest_names_after_a_day() {
    let world = World::new();
    let image = world.image("app", "v1", "a").await;
    let path = format!("/v2/app/manifests/{}", digest_of(&image));
    world.ask("DELETE", &path, &[], b"").await;
    world.store.gc(&[]).expect("to collect");
    assert_eq!(
        blobs(&world),
        2,
        "the manifest is gone, its blobs may be named again"
    );
    make_old(&world.dir.path().join("store/registry"));
    world.store.gc(&[]).expect("to collect");
    assert_eq!(blobs(&world), 0);
}

#[tokio::test]
async fn a_tag_and_its_name_in_the_store_are_one_again_after_a_crash_between_them() {
    let world = World::new();
    let image = world.image("app", "v1", "a").await;
    // As a crash right after the tag was written leaves it, or one in the middle of taking it away.
    world
        .store
        .remove("registry.localhost/app:v1")
        .expect("it has a name");
    let world = world.restart();
    let found = world.store.resolve("registry.localhost/app:v1");
    assert_eq!(found.expect("it is back").digest, digest_of(&image));
}

#[tokio::test]
async fn an_upload_that_nobody_goes_on_with_is_forgotten_after_a_day() {
    let world = World::new();
    let place = world.upload("app").await;
    world.ask("PATCH", &place, &[], b"hello").await;
    world.registry.sweep().expect("to sweep");
    assert_eq!(world.get(&place).await.status, 204);
    make_old(&world.dir.path().join("store/registry"));
    world.registry.sweep().expect("to sweep");
    assert_eq!(world.get(&place).await.status, 404);
}

#[tokio::test]
async fn pruning_takes_what_is_asked_for_and_nothing_that_a_tag_or_a_revision_names() {
    let world = World::new();
    let tagged = world.image("app", "v1", "tagged").await;
    let old = world.image("app", "moving", "old").await;
    world.image("app", "moving", "new").await;
    let local = world.image("x", "y", "local").await;
    world
        .store
        .tag(&digest_of(&local), "mine:1")
        .expect("a name");
    world
        .store
        .tag(&digest_of(&local), "used:1")
        .expect("a name");

    let nothing = world.store.prune(&options()).expect("to prune");
    assert_eq!((nothing.names.len(), nothing.untagged.len()), (0, 0));
    let all = PruneOptions {
        all: true,
        untagged: true,
        ..options()
    };
    let young = PruneOptions {
        unused_for: Duration::from_secs(3600),
        ..all.clone()
    };
    let young = world.store.prune(&young).expect("to prune");
    assert_eq!((young.names.len(), young.untagged.len()), (0, 0));
    let used = PruneOptions {
        in_use: vec![digest_of(&local), digest_of(&old)],
        ..all.clone()
    };
    let used = world.store.prune(&used).expect("to prune");
    assert_eq!(
        (used.names.len(), used.untagged.len()),
        (0, 0),
        "both are in use"
    );
    let earlier = world.store.prune(&PruneOptions {
        asked_at: Some(std::time::SystemTime::UNIX_EPOCH),
        ..all.clone()
    });
    let earlier = earlier.expect("to prune");
    assert_eq!(
        (earlier.names.len(), earlier.untagged.len()),
        (0, 0),
        "they were made after it was asked for"
    );
    let told = world.store.prune(&PruneOptions {
        dry_run: true,
        ..all.clone()
    });
    let told = told.expect("to look");
    let done = world.store.prune(&all).expect("to prune");
    assert_eq!(done.names, ["mine:1", "used:1"]);
    assert_eq!(done.untagged, [format!("app@{}", digest_of(&old))]);
    assert_eq!(
        (told.names, told.untagged),
        (done.names, done.untagged),
        "as it was told"
    );
    for path in [
        "/v2/app/manifests/v1",
        "/v2/app/manifests/moving",
        "/v2/x/manifests/y",
    ] {
        assert_eq!(world.get(path).await.status, 200, "{path}");
    }
    let found = world
        .store
        .resolve("registry.localhost/app:v1")
        .expect("it stays");
    assert_eq!(found.digest, digest_of(&tagged));
}

#[tokio::test]
async fn a_budget_takes_the_longest_unused_first_and_stops_at_the_low_mark() {
    let world = World::new();
    // Images that only local names hold: the registry lets go of its own.
    let mut digests = Vec::new();
    for n in 0..4 {
        let image = world
            .image("app", &format!("v{n}"), &format!("{n}").repeat(100_000))
            .await;
        let digest = digest_of(&image);
        world
            .store
            .tag(&digest, &format!("local:{n}"))
            .expect("a name");
        world
            .ask("DELETE", &format!("/v2/app/manifests/{digest}"), &[], b"")
            .await;
        digests.push(digest);
    }
    make_old(&world.dir.path().join("store/registry"));
    let blob = |digest: &str| {
        let hex = digest.trim_start_matches("sha256:");
        world.dir.path().join("store/blobs/sha256").join(hex)
    };
    for (n, digest) in digests.iter().enumerate() {
        let used = SystemTime::now() - Duration::from_secs(1_000 - 100 * n as u64);
        let file = fs::File::options().write(true).open(blob(digest));
        file.and_then(|file| file.set_modified(used))
            .expect("a time");
    }
    let budget = |high_bytes, low_bytes| PruneOptions {
        in_use: vec![digests[0].clone()],
        budget: Some(Budget {
            high_bytes,
            low_bytes,
        }),
        ..options()
    };
    let enough = world.store.prune(&budget(1_000_000, 0)).expect("to prune");
    assert_eq!(
        enough.names,
        [] as [&str; 0],
        "within the budget nothing goes"
    );
    let done = world
        .store
        .prune(&budget(700_000, 450_000))
        .expect("to prune");
    assert_eq!(done.names, ["local:1", "local:2"], "the oldest is in use");
    assert!(
        done.left_bytes <= 450_000 && done.freed_bytes >= 400_000,
        "{done:?}"
    );
    assert!(world.store.resolve("local:0").is_ok() && world.store.resolve("local:3").is_ok());
}

#[tokio::test]
async fn a_blob_that_cannot_be_read_stops_neither_the_node_nor_the_collection() {
    let world = World::new();
    let image = world.image("app", "v1", "a").await;
    world.image("other", "v1", "b").await;
    make_old(&world.dir.path().join("store/registry"));
    let hex = digest_of(&image).replace("sha256:", "");
    let manifest = world.dir.path().join("store/blobs/sha256").join(hex);
    fs::write(&manifest, "decayed").expect("to write");
    // Its name in the store leads to what cannot be read; the tag alone is at stake here.
    world
        .store
        .remove("registry.localhost/app:v1")
        .expect("it has a name");
    let world = world.restart();
    assert_eq!(world.get("/v2/other/manifests/v1").await.status, 200);
    let before = blobs(&world);
    world.store.gc(&[]).expect("to collect");
    world.store.prune(&options()).expect("to prune");
    assert_eq!(blobs(&world), before, "what it may need is kept");
    fs::remove_file(&manifest).expect("to remove");
    let world = world.restart();
    world.store.gc(&[]).expect("to collect");
    assert_eq!(blobs(&world), before - 1);
}

/// Takes one of the store's locks as another process would.
fn locked(world: &World, name: &str) -> fs::File {
    let path = world.dir.path().join("store/locks").join(name);
    fs::File::options().append(true).open(path).expect("a lock")
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_read_does_not_wait_for_pushes_that_wait_for_a_collection() {
    let world = World::new();
    let image = world.image("app", "v1", "a").await;
    let collecting = locked(&world, "content");
    collecting.lock().expect("nobody holds it");
    let names: Vec<String> = (0..8).map(|n| format!("t{n}")).collect();
    let pushes = names.iter().map(|tag| world.put("app", tag, &image));
    let mut pushes = Box::pin(futures_util::future::join_all(pushes));
    // All have come as far as they can.
    let some = tokio::time::timeout(Duration::from_millis(200), &mut pushes).await;
    assert!(some.is_err(), "they wait for the collection");
    let reading = world.get("/v2/app/manifests/v1");
    tokio::select! {
        read = reading => assert_eq!(read.status, 200),
        _ = &mut pushes => panic!("the collection is not over"),
        () = tokio::time::sleep(Duration::from_secs(20)) => panic!("reading waits"),
    }
    drop(collecting);
    for pushed in pushes.await {
        assert_eq!(pushed.status, 201);
    }
}

#[tokio::test]
async fn pruning_leaves_a_manifest_to_which_a_push_lets_a_tag_lead_meanwhile() {
    let world = World::new();
    let old = world.image("app", "moving", "old").await;
    world.image("app", "moving", "new").await;
    // A push is under way that is about to name what pruning takes.
    let pushing = locked(&world, "content");
    pushing.lock_shared().expect("nobody collects");
    let prune = || {
        world.store.prune(&PruneOptions {
            untagged: true,
            ..options()
        })
    };
    assert!(matches!(prune(), Err(Error::Busy)));
    let path = format!("/v2/app/manifests/{}", digest_of(&old));
    assert_eq!(world.get(&path).await.status, 200, "the push may name it");
    assert_eq!(world.put("app", "kept", &old).await.status, 201);
    drop(pushing);
    let pruned = prune().expect("to prune");
    assert_eq!(pruned.untagged, [] as [String; 0]);
    assert_eq!(world.get("/v2/app/manifests/kept").await.status, 200);
}

#[tokio::test]
async fn a_full_disk_is_told_and_nothing_is_lost() {
    if !rustix::process::geteuid().is_root() {
        println!("SKIPPED: mounting a small file system needs root");
        return;
    }
    let dir = tempfile::TempDir::new().expect("a folder");
    let mounted = Command::new("mount")
        .args(["-t", "tmpfs", "-o", "size=4m", "tmpfs"])
        .arg(dir.path())
        .status();
    if !mounted.is_ok_and(|status| status.success()) {
        assert!(
            std::env::var_os("CI").is_none(),
            "a tmpfs can be mounted in CI"
        );
        println!("SKIPPED: a tmpfs cannot be mounted here");
        return;
    }
    struct Unmount(std::path::PathBuf);
    impl Drop for Unmount {
        fn drop(&mut self) {
            let _ = Command::new("umount").arg("-l").arg(&self.0).status();
        }
    }
    let guard = Unmount(dir.path().to_owned());
    let world = World::over(dir);
    let image = world.image("app", "v1", "a").await;
    let place = world.upload("app").await;
    let big = vec![7; 8 << 20];
    let full = world.ask("PATCH", &place, &[], &big).await;
    assert_eq!(full.status, 507, "{}", full.text());
    assert!(full.text().contains("the disk is full"), "{}", full.text());
    assert_eq!(
        world.get("/v2/app/manifests/v1").await.text(),
        image.to_string()
    );
    assert_eq!(world.ask("DELETE", &place, &[], b"").await.status, 204);
    world.image("app", "v2", "there is room again").await;
    drop(world);
    drop(guard);
}

#[tokio::test]
async fn one_token_does_not_take_all_uploads() {
    let world = World::new();
    let of = |who: &str| Grant {
        who: Some(who.into()),
        ..Grant::root()
    };
    let begin = async |who: &Grant| {
        let post = request("POST", "/v2/app/blobs/uploads/", &[], whole(b""));
        world.send(post, who).await.status.as_u16()
    };
    let greedy = of("greedy");
    for _ in 0..100 {
        assert_eq!(begin(&greedy).await, 202);
    }
    assert_eq!(begin(&greedy).await, 429);
    assert_eq!(begin(&of("other")).await, 202);
}

#[tokio::test]
async fn there_are_only_so_many_repositories_and_empty_ones_go() {
    let world = World::new();
    world.image("app", "v1", "a").await;
    let registry = world.dir.path().join("store/registry");
    for n in 1..10_000 {
        fs::create_dir(registry.join(format!("r{n}"))).expect("a folder");
    }
    let full = world.ask("POST", "/v2/new/blobs/uploads/", &[], b"").await;
    assert_eq!(
        (full.status.as_u16(), full.code().as_str()),
        (429, "TOOMANYREQUESTS")
    );
    world.image("app", "v2", "b").await;
    world.registry.sweep().expect("to sweep");
    world.image("new", "v1", "c").await;
    assert_eq!(world.get("/v2/app/manifests/v1").await.status, 200);
}
