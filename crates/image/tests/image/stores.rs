//! The store: names, garbage, decay, several users at once, a full disk.

use std::fs;
use std::io::Write;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use layby_image::build::build;
use layby_image::{BuildOptions, Error, PruneOptions, Store};

use crate::support::{Tar, World, is_root, load_layer};

#[test]
fn images_are_found_by_each_of_their_names() {
    let world = World::new();
    let image = load_layer(&world.store, &Tar::new().file("f", "").finish());
    world.store.tag(&image.digest, "mnist:1.1.0").unwrap();
    for name in [
        "mnist:1.1.0",
        "docker.io/library/mnist:1.1.0",
        "layered",
        &image.digest,
    ] {
        let found = world.store.resolve(name).unwrap();
        assert_eq!(found.digest, image.digest, "{name}");
        assert_eq!(
            found.references,
            [
                "docker.io/library/layered:latest",
                "docker.io/library/mnist:1.1.0"
            ]
        );
    }
    assert_eq!(
        world
            .store
            .resolve(&format!("mnist@{}", image.digest))
            .unwrap()
            .digest,
        image.digest
    );
    let error = world.store.resolve("mnist").unwrap_err();
    assert_eq!(
        error.to_string(),
        "there is no image mnist:latest here; did you mean mnist:1.1.0?"
    );
    let error = world.store.resolve("zzz").unwrap_err();
    assert_eq!(error.to_string(), "there is no image zzz:latest here");
    assert!(matches!(
        world.store.resolve("Bad Name"),
        Err(Error::BadReference { .. })
    ));
    assert!(matches!(
        world.store.get("sha256:../../x"),
        Err(Error::BadReference { .. })
    ));
}

#[test]
fn a_name_moves_to_the_image_that_was_tagged_last() {
    let world = World::new();
    let first = load_layer(&world.store, &Tar::new().file("1", "").finish());
    let second = load_layer(&world.store, &Tar::new().file("2", "").finish());
    assert_ne!(first.digest, second.digest);
    assert_eq!(
        world.store.resolve("layered").unwrap().digest,
        second.digest
    );
    assert_eq!(world.store.get(&first.digest).unwrap().references, [""; 0]);
    world.store.tag(&first.digest, "layered").unwrap();
    assert_eq!(world.store.resolve("layered").unwrap().digest, first.digest);
}

#[test]
fn garbage_is_what_neither_a_name_nor_a_user_reaches() {
    let world = World::new();
    let count = |part: &str| fs::read_dir(world.store_dir().join(part)).unwrap().count();
    let first = load_layer(&world.store, &Tar::new().file("1", "one").finish());
    let second = load_layer(&world.store, &Tar::new().file("2", "two").finish());
    world.store.layers(&first.digest).unwrap();
    world.store.layers(&second.digest).unwrap();
    assert_eq!((count("blobs/sha256"), count("layers")), (6, 2));
    assert_eq!(
        world.store.gc(std::slice::from_ref(&first.digest)).unwrap(),
        0,
        "one in use, one named"
    );
    world.store.remove("layered").unwrap();
    assert!(matches!(
        world.store.remove("layered"),
        Err(Error::NotFound { .. })
    ));
    assert_eq!(world.store.list().unwrap(), []);
    assert!(
        world.store.get(&second.digest).is_ok(),
        "its content stays until it is collected"
    );
    assert!(world.store.gc(std::slice::from_ref(&first.digest)).unwrap() > 0);
    assert_eq!((count("blobs/sha256"), count("layers")), (3, 1));
    assert!(world.store.layers(&first.digest).is_ok());
    assert!(matches!(
        world.store.get(&second.digest),
        Err(Error::NotFound { .. })
    ));
    world.store.gc(&[]).unwrap();
    assert_eq!((count("blobs/sha256"), count("layers")), (0, 0));
}

#[test]
fn a_store_is_the_same_after_it_was_opened_again_and_leftovers_are_swept() {
    let world = World::new();
    let image = load_layer(&world.store, &Tar::new().file("f", "").finish());
    fs::write(world.store_dir().join("tmp/leftover"), "x").unwrap();
    fs::create_dir_all(world.store_dir().join("tmp/layer-x/dir")).unwrap();
    let again = Store::open(&world.store_dir()).unwrap();
    assert_eq!(again.list().unwrap(), [image]);
    assert_eq!(
        fs::read_dir(world.store_dir().join("tmp")).unwrap().count(),
        0
    );
    let layout = fs::read_to_string(world.store_dir().join("oci-layout")).unwrap();
    assert_eq!(layout, r#"{"imageLayoutVersion":"1.0.0"}"#);
}

#[test]
fn decayed_blobs_are_noticed_and_mended_by_loading_again() {
    let world = World::new();
    let tar = Tar::new().file("f", "some text").finish();
    let image = load_layer(&world.store, &tar);
    let blobs = world.store_dir().join("blobs/sha256");
    let paths: Vec<_> = fs::read_dir(&blobs)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    for path in paths {
        let good = fs::read(&path).unwrap();
        let mut bad = good.clone();
        let middle = bad.len() / 2;
        bad[middle] ^= 1;
        fs::write(&path, &bad).unwrap();
        // What is unpacked already is not unpacked from it again.
        for layer in fs::read_dir(world.store_dir().join("layers")).unwrap() {
            fs::remove_dir_all(layer.unwrap().path()).unwrap();
        }
        let error = world.store.layers(&image.digest).unwrap_err();
        assert!(matches!(error, Error::Corrupt { .. }), "{error}");
        assert_eq!(load_layer(&world.store, &tar).digest, image.digest);
        assert_eq!(fs::read(&path).unwrap(), good);
    }
    assert!(world.store.layers(&image.digest).is_ok());
}

#[test]
fn threads_and_stores_on_one_directory_do_not_disturb_each_other() {
    let world = World::new();
    world.write(&[(
        "Dockerfile",
        "FROM scratch\nARG N\nCOPY shared /shared\nLABEL n=$N\nWORKDIR /w$N\n",
    )]);
    world.write(&[("shared", &"shared ".repeat(10_000))]);
    let other = Store::open(&world.store_dir()).unwrap();
    let context = world.context();
    std::thread::scope(|scope| {
        for thread in 0..8 {
            let store = if thread % 2 == 0 {
                &world.store
            } else {
                &other
            };
            let context = &context;
            scope.spawn(move || {
                let options = BuildOptions {
                    args: [("N".to_owned(), (thread / 2).to_string())].into(),
                    tag: Some(format!("image:{thread}")),
                    ..BuildOptions::default()
                };
                let image = build(store, context, &options, &mut |_| {}).unwrap();
                assert_eq!(store.layers(&image.digest).unwrap().len(), 2);
                // Others may be at work for longer than it waits.
                while matches!(store.gc(&[]), Err(Error::Busy)) {}
            });
        }
    });
    let images = world.store.list().unwrap();
    assert_eq!(images.len(), 4, "two threads each made the same image");
    for image in images {
        assert_eq!(image.references.len(), 2);
        assert!(world.files(&image)["shared"].ends_with("shared "));
    }
    assert_eq!(
        fs::read_dir(world.store_dir().join("tmp")).unwrap().count(),
        0
    );
}

#[test]
fn while_what_was_collected_is_deleted_others_add_and_collect() {
    let world = World::new();
    let trash = || {
        fs::read_dir(world.store_dir().join("trash"))
            .unwrap()
            .count()
    };
    let image = load_layer(&world.store, &Tar::new().file("1", "one").finish());
    world.store.layers(&image.digest).unwrap();
    world.store.remove("layered").unwrap();
    let mut waits = 0;
    let moved = || {
        waits = trash();
        load_layer(&world.store, &Tar::new().file("2", "two").finish());
        // Another process that deletes has this.
        assert_eq!(world.store.gc(&[]).unwrap(), 0);
    };
    assert!(world.store.gc_then(&[], moved).unwrap() > 0);
    assert_eq!((waits, trash()), (1, 0));
    assert!(world.store.resolve("layered").is_ok());
}

#[test]
fn the_build_cache_goes_when_it_is_asked_for_and_what_it_takes_is_told() {
    let world = World::new();
    world.write(&[("a", "A")]);
    world.build("FROM scratch\nCOPY a /a\n").unwrap();
    let prune = |cache| {
        let options = PruneOptions {
            all: true,
            cache,
            ..PruneOptions::default()
        };
        world.store.prune(&options).unwrap()
    };
    let images = prune(false);
    assert_eq!((images.names.len(), images.build_cache), (1, 0));
    assert!(images.left_bytes > 0);
    assert_eq!(images.left_cache_bytes, images.left_bytes);
    let cache = prune(true);
    assert!(cache.build_cache > 0 && cache.freed_bytes > 0);
    assert_eq!((cache.left_bytes, cache.left_cache_bytes), (0, 0));
}

#[test]
fn a_collection_does_not_wait_for_long_builds() {
    let world = World::new();
    // As a build holds it.
    let lock = fs::File::open(world.store_dir().join("locks/content")).unwrap();
    lock.lock_shared().unwrap();
    assert!(matches!(world.store.gc(&[]), Err(Error::Busy)));
    drop(lock);
    assert_eq!(world.store.gc(&[]).unwrap(), 0);
}

#[test]
fn layers_that_are_there_are_had_while_the_garbage_collection_runs() {
    let world = World::new();
    let image = load_layer(&world.store, &Tar::new().file("f", "").finish());
    let layers = world.store.layers(&image.digest).unwrap();
    // As the garbage collection holds it.
    let lock = fs::File::open(world.store_dir().join("locks/content")).unwrap();
    lock.lock().unwrap();
    assert_eq!(world.store.layers(&image.digest).unwrap(), layers);
    assert_eq!(world.store.resolve("layered").unwrap(), image);
}

/// Runs itself again, and kills that in the middle of a load.
#[test]
fn a_kill_in_the_middle_of_a_load_loses_nothing() {
    const INSIDE: &str = "LAYBY_TEST_LOAD_INTO";
    if let Some(dir) = std::env::var_os(INSIDE) {
        let store = Store::open(std::path::Path::new(&dir)).unwrap();
        let loaded = store.load(std::io::stdin());
        panic!("killed before the archive ended: {loaded:?}");
    }
    let world = World::new();
    let kept = load_layer(&world.store, &Tar::new().file("f", "kept").finish());
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args([
            "--exact",
            "stores::a_kill_in_the_middle_of_a_load_loses_nothing",
            "--nocapture",
        ])
        .env(INSIDE, world.store_dir())
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let tar = Tar::new().file("large", &"text ".repeat(100_000)).finish();
    let archive = crate::support::oci_archive("x", &[(tar.clone(), crate::support::sha256(&tar))]);
    // The pipe stays open, so that the child waits for the rest.
    let mut pipe = child.stdin.take().unwrap();
    pipe.write_all(&archive[..archive.len() / 2]).unwrap();
    let deadline = Instant::now() + Duration::from_secs(60);
    let temp_dir = world.store_dir().join("tmp");
    while fs::read_dir(&temp_dir).unwrap().count() == 0 {
        assert!(Instant::now() < deadline, "the child never began to load");
        assert!(
            child.try_wait().unwrap().is_none(),
            "the child ended by itself"
        );
        std::thread::sleep(Duration::from_millis(5));
    }
    // While the child is at it, its files are left alone.
    let store = Store::open(&world.store_dir()).unwrap();
    assert!(fs::read_dir(&temp_dir).unwrap().count() > 0);
    child.kill().unwrap();
    child.wait().unwrap();
    drop(store);
    let store = Store::open(&world.store_dir()).unwrap();
    assert_eq!(fs::read_dir(&temp_dir).unwrap().count(), 0);
    assert_eq!(store.list().unwrap(), [kept]);
    assert_eq!(store.load(archive.as_slice()).unwrap().len(), 1);
}

/// Runs itself again in a mount namespace of its own, with a small tmpfs in the store's place.
#[test]
fn a_full_disk_is_one_clear_error_and_loses_nothing() {
    const INSIDE: &str = "LAYBY_TEST_SMALL_DISK";
    if let Some(disk) = std::env::var_os(INSIDE) {
        fill_the_disk(std::path::Path::new(&disk));
        return;
    }
    if !is_root() {
        println!("SKIPPED: mounting a small disk needs root");
        return;
    }
    let dir = tempfile::TempDir::new().unwrap();
    let script = "mount -t tmpfs -o size=1m,nr_inodes=200 tmpfs \"$1\" && shift && exec \"$@\"";
    let output = Command::new("unshare")
        .args(["--mount", "sh", "-c", script, "sh"])
        .arg(dir.path())
        .arg(std::env::current_exe().unwrap())
        .args([
            "--exact",
            "stores::a_full_disk_is_one_clear_error_and_loses_nothing",
            "--nocapture",
        ])
        .env(INSIDE, dir.path())
        .output();
    match output {
        Ok(output) => assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stdout)
        ),
        Err(error) => println!("SKIPPED: unshare cannot be run: {error}"),
    }
}

fn fill_the_disk(disk: &std::path::Path) {
    let store = Store::open(&disk.join("store")).unwrap();
    let kept = load_layer(&store, &Tar::new().file("f", "kept").finish());
    let noise: String = (0..400_000_u64)
        .map(|n| char::from(b'a' + (n * n % 1_009 % 26) as u8))
        .collect();
    // Too large as a blob; small as a blob but too large unpacked; too many files.
    let large = Tar::new().file("large", &noise.repeat(4)).finish();
    let sparse = Tar::new().file("zeros", &"\0".repeat(3 << 20)).finish();
    let many = (0..300)
        .fold(Tar::new(), |tar, n| tar.file(&format!("{n}"), ""))
        .finish();
    let archive = |tar: &Vec<u8>, blob: Vec<u8>| {
        crate::support::oci_archive("x", &[(blob, crate::support::sha256(tar))])
    };
    let error = store
        .load(archive(&large, large.clone()).as_slice())
        .unwrap_err();
    assert!(matches!(error, Error::DiskFull { .. }), "{error}");
    let shown = error.to_string();
    assert!(
        shown.starts_with("the disk is full: blobs/sha256/"),
        "{shown}"
    );
    for tar in [&sparse, &many] {
        let archive = archive(tar, crate::support::gzip(tar));
        let error = store.load(archive.as_slice()).unwrap_err();
        assert!(matches!(error, Error::DiskFull { .. }), "{error}");
        assert!(
            error
                .to_string()
                .contains("is full: the unpacked layer sha256:"),
            "{error}"
        );
    }
    let context = tempfile::TempDir::new_in("/dev/shm").unwrap();
    fs::write(
        context.path().join("Dockerfile"),
        "FROM scratch\nCOPY large /\n",
    )
    .unwrap();
    let random: Vec<u8> = {
        let mut bytes = vec![0; 3 << 20];
        std::io::Read::read_exact(&mut fs::File::open("/dev/urandom").unwrap(), &mut bytes)
            .unwrap();
        bytes
    };
    fs::write(context.path().join("large"), random).unwrap();
    let error = build(
        &store,
        context.path(),
        &BuildOptions::default(),
        &mut |_| {},
    )
    .unwrap_err();
    assert!(
        error.to_string().contains("is full: a layer of the build"),
        "{error}"
    );
    assert_eq!(
        fs::read_dir(disk.join("store/tmp")).unwrap().count(),
        0,
        "what was half stored is gone"
    );
    assert_eq!(store.resolve("layered").unwrap(), kept);
    assert!(store.layers(&kept.digest).is_ok());
}
