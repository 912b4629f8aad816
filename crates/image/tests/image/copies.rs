//! Where COPY puts things: Docker's rules, as a table.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};

use crate::support::{Tar, World, is_root, load_layer};

#[test]
fn files_go_where_docker_puts_them() {
    for (copy, expected) in [
        ("a /", &["a"][..]),
        ("a /x", &["x"]),
        ("a /x/", &["x/", "x/a"]),
        ("a x", &["w/", "w/x"]),
        ("a .", &["w/", "w/a"]),
        ("a ./", &["w/", "w/a"]),
        ("a ../x/y", &["x/", "x/y"]),
        ("./a /x", &["x"]),
        ("/a /x", &["x"]),
        ("a d/b /x/", &["x/", "x/a", "x/b"]),
        // A directory's content, not itself.
        ("d /x", &["x/", "x/b", "x/e/", "x/e/c"]),
        ("d /x/", &["x/", "x/b", "x/e/", "x/e/c"]),
        ("d/ /", &["b", "e/", "e/c"]),
        ("d/e d /x/", &["x/", "x/b", "x/c", "x/e/", "x/e/c"]),
        (
            "* /x/",
            &[
                "x/",
                "x/Dockerfile",
                "x/a",
                "x/b",
                "x/e/",
                "x/e/c",
                "x/link",
                "x/sp ace",
            ],
        ),
        ("d/* /x/", &["x/", "x/b", "x/c"]),
        ("*/e /x/", &["x/", "x/c"]),
        ("[ab] /x", &["x"]),
        ("[\"sp ace\", \"/x y\"]", &["x y"]),
        ("\"sp ace\" /x", &["x"]),
        ("sp\\ ace /x", &["x"]),
        // What was copied before decides about the last slash.
        ("d /x\nCOPY a /x", &["x/", "x/a", "x/b", "x/e/", "x/e/c"]),
        ("a /x\nCOPY d/b /x", &["x"]),
        // A link that is named is followed; one found on the way is copied.
        ("link /x/", &["x/", "x/link"]),
    ] {
        let world = World::new();
        world.write(&[("a", "A"), ("d/b", "B"), ("d/e/c", "C"), ("sp ace", "S")]);
        symlink("d/b", world.context().join("link")).unwrap();
        let dockerfile = format!("FROM scratch\nENV UNUSED=1\nWORKDIR /w\nCOPY {copy}\n");
        let image = world
            .build(&dockerfile)
            .unwrap_or_else(|error| panic!("{copy}: {error}"));
        let mut names: Vec<String> = world.files(&image).into_keys().collect();
        // WORKDIR's own.
        if !expected.contains(&"w/") {
            names.retain(|name| name != "w/");
        }
        assert_eq!(names, expected, "{copy}");
    }
}

#[test]
fn flags_say_what_is_copied_and_where_to() {
    for (copy, expected) in [
        (
            "--parents d/e/c a /p/",
            &["p/", "p/a", "p/d/", "p/d/e/", "p/d/e/c"][..],
        ),
        ("--parents d/./e /p", &["p/", "p/e/", "p/e/c"]),
        ("--parents **/c /", &["d/", "d/e/", "d/e/c"]),
        ("--parents **/e/* /", &["d/", "d/e/", "d/e/c"]),
        ("--exclude=e d /x", &["x/", "x/b"]),
        ("--exclude=* --exclude=!e/c d /x", &["x/", "x/e/", "x/e/c"]),
        ("--exclude=a [ab] d/b /x/", &["x/", "x/b"]),
        ("a nothing* /x/", &["x/", "x/a"]),
        (
            "<<one <<-\"two\" /h/\n$X\none\n\t$X\ntwo\n",
            &["h/", "h/one", "h/two"],
        ),
        ("a <<EOF /m/\nEOF", &["m/", "m/EOF", "m/a"]),
    ] {
        let world = World::new();
        world.write(&[("a", "A"), ("d/b", "B"), ("d/e/c", "C")]);
        let image = world
            .build(&format!("FROM scratch\nENV X=x\nCOPY {copy}\n"))
            .unwrap_or_else(|error| panic!("{copy}: {error}"));
        let files = world.files(&image);
        let names: Vec<&String> = files.keys().collect();
        assert_eq!(names, expected, "{copy}");
        if let Some(one) = files.get("h/one") {
            assert!(one.starts_with("644 ") && one.ends_with(" x\n"), "{one}");
            assert!(files["h/two"].ends_with(" $X\n"));
        }
    }
}

#[test]
fn links_in_a_copied_directory_stay_links_even_when_they_lead_out() {
    let world = World::new();
    world.write(&[("d/a", "A")]);
    symlink("/etc/passwd", world.context().join("d/out")).unwrap();
    symlink("../..", world.context().join("d/up")).unwrap();
    let image = world.build("FROM scratch\nCOPY d /\n").unwrap();
    let files = world.files(&image);
    assert_eq!(files["out"], "-> /etc/passwd");
    assert_eq!(files["up"], "-> ../..");
}

#[test]
fn a_named_link_never_leads_out_of_the_context() {
    let world = World::new();
    fs::write(world.dir.path().join("secret"), "secret").unwrap();
    symlink("../secret", world.context().join("up")).unwrap();
    symlink(world.dir.path(), world.context().join("dir")).unwrap();
    for copy in ["up", "dir", "dir/secret", "dir/*"] {
        let error = world
            .build(&format!("FROM scratch\nCOPY {copy} /\n"))
            .expect_err(copy);
        assert!(error.to_string().contains("find"), "{copy}: {error}");
    }
}

#[test]
fn modes_and_owners_are_the_sources_or_the_flags() {
    if !is_root() {
        println!("SKIPPED: owners need root");
        return;
    }
    let world = World::new();
    world.write(&[
        ("a", "A"),
        ("d/b", "B"),
        ("passwd", "root:x:0:0::/:\nme:x:7:8::/:\n"),
        ("group", "us:x:9:\n"),
    ]);
    let mode = |path: &str, mode| {
        fs::set_permissions(world.context().join(path), fs::Permissions::from_mode(mode))
    };
    // First the owner: changing it takes set-id away.
    std::os::unix::fs::chown(world.context().join("a"), Some(1234), Some(1234)).unwrap();
    mode("a", 0o4750).unwrap();
    mode("d", 0o710).unwrap();
    mode("d/b", 0o600).unwrap();
    let image = world
        .build(
            "FROM scratch\nCOPY passwd group /etc/\nCOPY a /a\nCOPY d /d\nCOPY --chown=5 --chmod=640 a /p/a5\n\
             COPY --chown=me a /me\nCOPY --chown=me:us a /us\nCOPY --chown=1:2 --chmod=0700 d /d2\n\
             FROM scratch\nCOPY --from=0 / /\n",
        )
        .unwrap();
    let files = world.files(&image);
    for (path, rights) in [
        ("a", "4750 0:0 "),
        ("d/", "755 0:0"),
        ("d/b", "600 0:0 "),
        ("p/", "755 5:5"),
        ("p/a5", "640 5:5 "),
        ("me", "4750 7:8 "),
        ("us", "4750 7:9 "),
        ("d2/", "755 1:2"),
        ("d2/b", "700 1:2 "),
    ] {
        assert!(
            files[path].starts_with(rights),
            "{path}: {} is not {rights}",
            files[path]
        );
    }
}

#[test]
fn the_images_own_directories_and_links_are_respected() {
    if !is_root() {
        println!("SKIPPED: whiteouts need root");
        return;
    }
    let world = World::new();
    world.write(&[("a", "A"), ("bin/x", "X"), ("file/y", "Y")]);
    let tar = Tar::new()
        .mode_entry(b'5', "tmp/", 0o1777)
        .dir("usr/bin/")
        .entry(b'2', "bin", "usr/bin", b"")
        .entry(b'2', "abs", "/usr", b"")
        .entry(b'2', "out", "../../../usr", b"")
        .file("file", "")
        .finish();
    let base = load_layer(&world.store, &tar);
    world.store.tag(&base.digest, "base").unwrap();
    let built = |copy: &str| world.build(&format!("FROM base\nCOPY {copy}\n"));
    let top = |copy: &str| {
        let image = built(copy).unwrap_or_else(|error| panic!("{copy}: {error}"));
        let layers = world.store.layers(&image.digest).unwrap();
        (layers[0].clone(), layers.len())
    };
    let (layer, _) = top("a /tmp/sub/a");
    assert_eq!(
        fs::metadata(layer.join("tmp"))
            .unwrap()
            .permissions()
            .mode()
            & 0o7777,
        0o1777
    );
    for copy in [
        "a /bin/",
        "a /bin",
        "a /bin/a",
        "a /abs/bin/",
        "a /out/bin/a",
    ] {
        let (layer, count) = top(copy);
        assert_eq!(count, 2);
        assert!(
            layer.join("usr/bin/a").exists(),
            "{copy} goes where the link leads"
        );
        assert!(
            fs::symlink_metadata(layer.join("bin")).is_err(),
            "{copy} leaves the link alone"
        );
    }
    let error = built(". /").unwrap_err().to_string();
    assert!(
        error.contains("needs the directory /bin, which is a file or a link"),
        "{error}"
    );
    let error = built("a /tmp/\nCOPY file /a2\nCOPY a /usr").map(|image| image.digest);
    assert!(
        error.is_ok(),
        "a file named without a slash goes into the directory that is there"
    );
    let error =
        built("bin/x /p/bin\nCOPY --from=base /file /\nCOPY --from=base /usr/ /p").unwrap_err();
    assert!(
        error.to_string().starts_with("Dockerfile:4: COPY"),
        "{error}"
    );
    // What a layer above has deleted is not there.
    let gone = Tar::new()
        .file(".wh.file", "")
        .file("usr/.wh..wh..opq", "")
        .file("usr/new", "")
        .finish();
    let layers = [tar, gone].map(|tar| {
        let digest = crate::support::sha256(&tar);
        (tar, digest)
    });
    let archive = crate::support::oci_archive("gone", &layers);
    world.store.load(archive.as_slice()).unwrap();
    assert!(
        world
            .build("FROM scratch\nCOPY --from=gone /file /\n")
            .is_err()
    );
    let image = world
        .build("FROM scratch\nCOPY --from=gone /usr /u\n")
        .unwrap();
    assert_eq!(
        world.files(&image).into_keys().collect::<Vec<_>>(),
        ["u/", "u/new"]
    );
    let image = world
        .build("FROM gone\nWORKDIR /usr/bin\nCOPY a /file/\n")
        .unwrap();
    assert_eq!(world.store.layers(&image.digest).unwrap().len(), 4);
}

#[test]
fn a_file_whose_name_means_a_deletion_is_refused_and_not_mistaken_for_one() {
    let world = World::new();
    world.write(&[("d/.wh.passwd", "text"), ("d/other", "text")]);
    for dockerfile in [
        "COPY d /etc/",
        "COPY d/other /x/.wh.y",
        "WORKDIR /.wh..wh..opq",
    ] {
        let error = world
            .build(&format!("FROM scratch\n{dockerfile}\n"))
            .unwrap_err();
        let error = error.to_string();
        assert!(error.starts_with("Dockerfile:2: the file /"), "{error}");
        assert!(error.contains("mean deleted files"), "{error}");
    }
    world.write(&[(".dockerignore", "**/.wh.*\n")]);
    world.build("FROM scratch\nCOPY d /etc/\n").unwrap();
}
