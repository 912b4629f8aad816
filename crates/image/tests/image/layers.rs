//! Unpacking layers: overlayfs' form, attributes, and a corpus of hostile tars.

use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;
use std::process::Command;

use layby_image::Error;
use layby_image::unpack::{Limits, UnpackError, Whiteouts, unpack};
use proptest::prelude::*;
use tempfile::TempDir;

use crate::sparse::{block, mend_checksum, sparse_1_0};
use crate::support::{Tar, World, gzip, is_root, oci_archive, sha256};

fn unpack_plain(tar: &[u8], root: &Path) -> Result<(), UnpackError> {
    unpack(tar, root, Whiteouts::Overlay, &Limits::default())
}

#[test]
fn whiteouts_become_overlayfs_own() {
    if !is_root() {
        println!("SKIPPED: trusted.* attributes need root");
        return;
    }
    let dir = TempDir::new().unwrap();
    let tar = Tar::new()
        .dir("a/")
        .file("a/.wh.gone", "")
        .file("a/.wh..wh..opq", "")
        .file("a/.wh..wh.plnk", "")
        .file("b/.wh.x", "")
        // Hidden below and new in this layer: opaque, whichever comes first.
        .file(".wh.c", "")
        .file("c/new", "n")
        .dir("d/")
        .file(".wh.d", "")
        .file(".wh.e", "")
        .file("e", "text")
        .finish();
    unpack_plain(&tar, dir.path()).unwrap();
    let is_whiteout = |path: &str| {
        let metadata = fs::symlink_metadata(dir.path().join(path)).unwrap();
        metadata.file_type().is_char_device() && metadata.rdev() == 0
    };
    let is_opaque = |path: &str| {
        let mut value = [0; 8];
        let length =
            rustix::fs::lgetxattr(dir.path().join(path), "trusted.overlay.opaque", &mut value);
        length.is_ok_and(|length| &value[..length] == b"y")
    };
    assert!(is_whiteout("a/gone") && is_whiteout("b/x"));
    assert!(is_opaque("a") && is_opaque("c") && is_opaque("d") && !is_opaque("b"));
    assert_eq!(fs::read_to_string(dir.path().join("c/new")).unwrap(), "n");
    assert_eq!(fs::read_to_string(dir.path().join("e")).unwrap(), "text");
    assert_eq!(
        fs::read_dir(dir.path().join("a")).unwrap().count(),
        1,
        "bookkeeping is left out"
    );
}

#[test]
fn ordinary_tars_keep_names_that_look_like_whiteouts() {
    let dir = TempDir::new().unwrap();
    let tar = Tar::new().file(".wh.x", "text").finish();
    unpack(
        tar.as_slice(),
        dir.path(),
        Whiteouts::Ordinary,
        &Limits::default(),
    )
    .unwrap();
    assert_eq!(
        fs::read_to_string(dir.path().join(".wh.x")).unwrap(),
        "text"
    );
}

#[test]
fn modes_links_times_and_attributes_are_kept() {
    let dir = TempDir::new().unwrap();
    let tar = Tar::new()
        .mode_entry(b'5', "./", 0o700)
        .mode_entry(b'5', "sticky/", 0o1777)
        .mode_entry(b'5', "closed/", 0o555)
        .file("closed/in", "i")
        .mode_entry(b'0', "suid", 0o4755)
        .entry(b'2', "link", "../../etc/passwd", b"")
        .entry(b'1', "hard", "closed/in", b"")
        .mode_entry(b'6', "pipe", 0o622)
        .pax(&[
            ("path", &[b"long/".as_slice(), &[b'n'; 200]].concat()),
            ("mtime", b"1000000000.5"),
            ("SCHILY.xattr.user.note", b"hi\n"),
            ("SCHILY.xattr.trusted.overlay.redirect", b"/"),
        ])
        .file("short", "l")
        .finish();
    unpack_plain(&tar, dir.path()).unwrap();
    let look = |path: &str| fs::symlink_metadata(dir.path().join(path)).unwrap();
    assert_eq!(look("").mode() & 0o7777, 0o700);
    assert_eq!(look("sticky").mode() & 0o7777, 0o1777);
    assert_eq!(look("closed").mode() & 0o7777, 0o555);
    assert_eq!(look("closed").mtime(), 1_000_000_000);
    assert_eq!(look("suid").mode() & 0o7777, 0o4755);
    assert_eq!(
        fs::read_link(dir.path().join("link")).unwrap(),
        Path::new("../../etc/passwd")
    );
    assert_eq!(look("link").mtime(), 1_000_000_000);
    assert_eq!(look("hard").ino(), look("closed/in").ino());
    assert!(look("pipe").file_type().is_fifo());
    assert_eq!(look("pipe").mode() & 0o7777, 0o622);
    let long = format!("long/{}", "n".repeat(200));
    assert_eq!(
        (look(&long).mtime(), look(&long).mtime_nsec()),
        (1_000_000_000, 500_000_000)
    );
    let path = dir.path().join(&long);
    let mut value = [0; 16];
    match rustix::fs::lgetxattr(&path, "user.note", &mut value) {
        Ok(length) => assert_eq!(&value[..length], b"hi\n"),
        Err(rustix::io::Errno::OPNOTSUPP) => {
            println!("SKIPPED: no user attributes on this file system")
        }
        Err(error) => panic!("{error}"),
    }
    assert!(rustix::fs::lgetxattr(&path, "trusted.overlay.redirect", &mut value).is_err());
}

#[test]
fn owners_devices_and_capabilities_are_kept_for_root() {
    if !is_root() {
        println!("SKIPPED: owners and devices need root");
        return;
    }
    let dir = TempDir::new().unwrap();
    // Version 2, effective, CAP_NET_BIND_SERVICE permitted (linux/capability.h).
    let capability: Vec<u8> = [0x0200_0001_u32, 1 << 10, 0, 0, 0]
        .iter()
        .flat_map(|word| word.to_le_bytes())
        .collect();
    let tar = Tar::new()
        .pax(&[
            ("uid", b"3000000"),
            ("gid", b"7"),
            ("SCHILY.xattr.security.capability", &capability),
        ])
        .file("file", "x")
        .mode_entry(b'3', "char", 0o600)
        .finish();
    unpack_plain(&tar, dir.path()).unwrap();
    let metadata = fs::metadata(dir.path().join("file")).unwrap();
    assert_eq!((metadata.uid(), metadata.gid()), (3_000_000, 7));
    let mut value = [0; 64];
    let length =
        rustix::fs::lgetxattr(dir.path().join("file"), "security.capability", &mut value).unwrap();
    assert_eq!(&value[..length], capability);
    let metadata = fs::symlink_metadata(dir.path().join("char")).unwrap();
    assert!(metadata.file_type().is_char_device());
}

/// Every one of them is refused, and nothing appears beside the root.
#[test]
fn hostile_tars_stay_inside() {
    let outer = TempDir::new().unwrap();
    let secret = outer.path().join("secret");
    fs::write(&secret, "secret").unwrap();
    let absolute = secret.to_str().unwrap();
    let corpus: Vec<(&str, Vec<u8>, &str)> = vec![
        (
            "dot dot",
            Tar::new().file("../evil", "x").finish(),
            "leads out",
        ),
        (
            "dot dot inside",
            Tar::new().file("a/../../evil", "x").finish(),
            "leads out",
        ),
        (
            "dot dot by pax",
            Tar::new()
                .pax(&[("path", b"../evil")])
                .file("a", "x")
                .finish(),
            "leads out",
        ),
        (
            "NUL by pax",
            Tar::new().pax(&[("path", b"a\0b")]).file("a", "x").finish(),
            "leads out",
        ),
        (
            "through a link",
            Tar::new()
                .entry(b'2', "l", "..", b"")
                .file("l/evil", "x")
                .finish(),
            "behind the symbolic link \"l\"",
        ),
        (
            "through an absolute link",
            Tar::new()
                .entry(b'2', "l", outer.path().to_str().unwrap(), b"")
                .file("l/evil", "x")
                .finish(),
            "behind the symbolic link",
        ),
        (
            "through a link deep inside",
            Tar::new()
                .dir("a/b")
                .entry(b'2', "a/b/l", "/", b"")
                .dir("a/b/l/evil")
                .finish(),
            "behind the symbolic link \"a/b/l\"",
        ),
        (
            "hard link out",
            Tar::new().entry(b'1', "h", "../secret", b"").finish(),
            "leads out",
        ),
        (
            "hard link to an absolute path",
            Tar::new().entry(b'1', "h", absolute, b"").finish(),
            "not in the archive",
        ),
        (
            "hard link through a link",
            Tar::new()
                .entry(b'2', "l", "..", b"")
                .entry(b'1', "h", "l/secret", b"")
                .finish(),
            "not in the archive",
        ),
        (
            "hard link to a directory",
            Tar::new().dir("d").entry(b'1', "h", "d", b"").finish(),
            "no file of the archive",
        ),
        (
            "whiteout of ..",
            Tar::new().file("a/.wh...", "").finish(),
            "names no file",
        ),
        (
            "whiteout of nothing",
            Tar::new().file("a/.wh.", "").finish(),
            "names no file",
        ),
        (
            "file as the root",
            Tar::new().file("./", "").file(".", "x").finish(),
            "is the root",
        ),
        (
            "below a file",
            Tar::new().file("f", "").file("f/x", "").finish(),
            "no directory",
        ),
        (
            "unknown kind",
            Tar::new().entry(b'Z', "z", "", b"").finish(),
            "kind that is not known",
        ),
        (
            "cut off",
            Tar::new().file("f", "some text").finish()[..515].to_vec(),
            "ends too early",
        ),
        ("no tar", vec![b'x'; 2048], "checksum"),
        (
            "a sparse file",
            Tar::new().entry(b'S', "s", "", b"").finish(),
            "has no GNU header",
        ),
        (
            "a path too deep",
            Tar::new()
                .pax(&[("path", "a/".repeat(600).as_bytes())])
                .dir("x")
                .finish(),
            "deeper than",
        ),
        (
            "a negative size",
            {
                // Base 256, minus one.
                let mut tar = Tar::new().file("f", "").finish();
                tar[124..136].fill(0xff);
                mend_checksum(&mut tar);
                tar
            },
            "larger than",
        ),
        (
            "a sparse map that overlaps",
            sparse_1_0("4\n0\n1\n0\n1\n", 10, "ab"),
            "map",
        ),
        (
            "a sparse map beyond the file",
            sparse_1_0("1\n9\n5\n", 10, "abcde"),
            "map is malformed",
        ),
        (
            "a sparse map that overflows",
            sparse_1_0("1\n9223372036854775807\n9223372036854775807\n", 10, ""),
            "map is malformed",
        ),
        (
            "a sparse map of more parts than data",
            sparse_1_0("1000000000\n", 10, ""),
            "too many parts",
        ),
        (
            "a sparse map that does not fit its data",
            sparse_1_0("1\n0\n5\n", 10, "abc"),
            "does not fit",
        ),
        (
            "a sparse map without numbers",
            sparse_1_0("x\n", 10, ""),
            "malformed",
        ),
        (
            "a sparse file out of the root",
            Tar::new()
                .pax(&[
                    ("GNU.sparse.major", b"1"),
                    ("GNU.sparse.minor", b"0"),
                    ("GNU.sparse.name", b"../evil"),
                    ("GNU.sparse.realsize", b"0"),
                ])
                .entry(b'0', "f", "", &block("0\n"))
                .finish(),
            "leads out",
        ),
        (
            "a hard link after its target was swapped for a link",
            Tar::new()
                .file("f", "x")
                .dir("d")
                .file("d/f", "x")
                .entry(b'2', "e", "..", b"")
                .entry(b'1', "h", "e/secret", b"")
                .finish(),
            "not in the archive",
        ),
        (
            "a whiteout behind a link",
            Tar::new()
                .entry(b'2', "l", "..", b"")
                .file("l/.wh.secret", "")
                .finish(),
            "behind the symbolic link",
        ),
        (
            "opaque behind a link",
            Tar::new()
                .entry(b'2', "l", "..", b"")
                .file("l/.wh..wh..opq", "")
                .finish(),
            "behind the symbolic link",
        ),
        (
            "below a device",
            Tar::new()
                .mode_entry(b'6', "pipe", 0o600)
                .file("pipe/x", "")
                .finish(),
            "no directory",
        ),
        (
            "bad pax size",
            Tar::new().pax(&[("size", b"-1")]).file("a", "x").finish(),
            "not a number",
        ),
    ];
    for (name, tar, reason) in corpus {
        let root = outer.path().join("root");
        fs::create_dir(&root).unwrap();
        let error = unpack_plain(&tar, &root).expect_err(name);
        assert!(error.to_string().contains(reason), "{name}: {error}");
        fs::remove_dir_all(&root).unwrap();
        let left: Vec<_> = fs::read_dir(outer.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name())
            .collect();
        assert_eq!(left, ["secret"], "{name}");
        assert_eq!(fs::read_to_string(&secret).unwrap(), "secret", "{name}");
    }
}

#[test]
fn names_of_any_bytes_and_repeated_entries_are_kept_as_the_last_says() {
    let dir = TempDir::new().unwrap();
    let tar = Tar::new()
        .file("a\nb", "newline")
        .file("-rf *", "option")
        .pax(&[("path", b"\xff\xfe")])
        .file("x", "bytes")
        .mode_entry(b'5', "again/", 0o700)
        .mode_entry(b'5', "again/", 0o751)
        .file("twice", "first")
        .file("twice", "second")
        .dir("kind")
        .file("kind/x", "")
        .file("kind", "a file now")
        .finish();
    unpack_plain(&tar, dir.path()).unwrap();
    let read = |name: &str| fs::read_to_string(dir.path().join(name)).unwrap();
    assert_eq!(
        (read("a\nb"), read("-rf *")),
        ("newline".into(), "option".into())
    );
    assert_eq!(
        (read("twice"), read("kind")),
        ("second".into(), "a file now".into())
    );
    let again = fs::metadata(dir.path().join("again")).unwrap();
    assert_eq!(again.mode() & 0o7777, 0o751);
    use std::os::unix::ffi::OsStrExt;
    let odd = dir.path().join(std::ffi::OsStr::from_bytes(b"\xff\xfe"));
    assert_eq!(fs::read_to_string(odd).unwrap(), "bytes");
}

#[test]
fn a_million_entries_end_at_the_limit_without_being_held() {
    struct Endless(Vec<u8>, usize);
    impl std::io::Read for Endless {
        fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
            let n = buffer.len().min(self.0.len() - self.1);
            buffer[..n].copy_from_slice(&self.0[self.1..self.1 + n]);
            self.1 = (self.1 + n) % self.0.len();
            Ok(n)
        }
    }
    let dir = TempDir::new().unwrap();
    let mut one = Tar::new().dir("d").finish();
    one.truncate(512);
    let limits = Limits {
        bytes: 1 << 20,
        entries: 20_000,
        // One directory, however often it is entered.
        directory_bytes: 200,
    };
    let error = unpack(Endless(one, 0), dir.path(), Whiteouts::Overlay, &limits).unwrap_err();
    assert!(
        error.to_string().contains("more than 20000 entries"),
        "{error}"
    );
}

/// These are no error: they say what they say, inside of the root.
#[test]
fn tricky_tars_end_inside() {
    let outer = TempDir::new().unwrap();
    let secret = outer.path().join("secret");
    fs::write(&secret, "secret").unwrap();
    let root = outer.path().join("root");
    fs::create_dir(&root).unwrap();
    let tar = Tar::new()
        // Writing to the name of a link replaces the link.
        .entry(b'2', "link", secret.to_str().unwrap(), b"")
        .file("link", "mine")
        // So does writing to the name of a hard link to a link.
        .entry(b'2', "l2", "../secret", b"")
        .entry(b'1', "h2", "l2", b"")
        .file("h2", "mine too")
        // A directory in the place of a link.
        .entry(b'2', "l3", "..", b"")
        .dir("l3")
        .file("l3/in", "in")
        // A link in the place of a directory that was open just before.
        .file("d/x", "x")
        .entry(b'2', "d", "..", b"")
        .file("/absolute", "a")
        .finish();
    unpack_plain(&tar, &root).unwrap();
    assert_eq!(fs::read_to_string(&secret).unwrap(), "secret");
    assert_eq!(fs::read_to_string(root.join("link")).unwrap(), "mine");
    assert_eq!(fs::read_to_string(root.join("h2")).unwrap(), "mine too");
    assert_eq!(fs::read_to_string(root.join("l3/in")).unwrap(), "in");
    assert_eq!(fs::read_link(root.join("d")).unwrap(), Path::new(".."));
    assert_eq!(fs::read_to_string(root.join("absolute")).unwrap(), "a");
    assert_eq!(fs::read_dir(outer.path()).unwrap().count(), 2);
}

#[test]
fn bombs_end_at_the_limits() {
    let dir = TempDir::new().unwrap();
    let limits = Limits {
        bytes: 1000,
        entries: 3,
        directory_bytes: 1000,
    };
    let large = Tar::new()
        .file("a", &"x".repeat(600))
        .file("b", &"x".repeat(600))
        .finish();
    let error = unpack(large.as_slice(), dir.path(), Whiteouts::Overlay, &limits).unwrap_err();
    assert!(
        error.to_string().contains("larger than the limit"),
        "{error}"
    );
    let many = Tar::new().dir("1").dir("2").dir("3").dir("4").finish();
    let error = unpack(many.as_slice(), dir.path(), Whiteouts::Overlay, &limits).unwrap_err();
    assert!(error.to_string().contains("more than 3 entries"), "{error}");
    let limits = Limits {
        directory_bytes: 400,
        ..Limits::default()
    };
    let long = "l".repeat(90);
    let deep = Tar::new()
        .dir(&long)
        .dir(&format!("2{long}"))
        .dir(&format!("3{long}"));
    let error = unpack(
        deep.finish().as_slice(),
        dir.path(),
        Whiteouts::Overlay,
        &limits,
    );
    let error = error.unwrap_err();
    assert!(matches!(error, UnpackError::Refused(_)), "{error}");
    assert!(error.to_string().contains("more directories"), "{error}");
    // A name of 2 MiB is refused before it is read.
    let mut name = Tar::new();
    name.header(b'L', "n", "", 0o644, 2 << 20);
    let error = unpack_plain(&name.finish(), dir.path()).unwrap_err();
    assert!(error.to_string().contains("longer than 1 MiB"), "{error}");
}

#[test]
fn layers_are_read_plain_and_compressed_and_only_with_the_right_content() {
    let world = World::new();
    let tar = Tar::new().file("f", "text").finish();
    let zstd = zstd::encode_all(tar.as_slice(), 1).unwrap();
    for (name, blob) in [("plain", tar.clone()), ("gzip", gzip(&tar)), ("zstd", zstd)] {
        let world = World::new();
        let archive = oci_archive(name, &[(blob, sha256(&tar))]);
        let image = world.store.load(archive.as_slice()).unwrap().remove(0);
        assert_eq!(
            image.references,
            [format!("docker.io/library/{name}:latest")]
        );
        let layers = world.store.layers(&image.digest).unwrap();
        assert_eq!(layers.len(), 1);
        assert_eq!(fs::read_to_string(layers[0].join("f")).unwrap(), "text");
        assert_eq!(
            world.store.layers(&image.digest).unwrap(),
            layers,
            "the second time it is there"
        );
    }
    let lie = oci_archive("lie", &[(gzip(&tar), sha256(b"something else"))]);
    let error = world.store.load(lie.as_slice()).unwrap_err();
    assert!(matches!(error, Error::Corrupt { .. }), "{error}");
    let xz = b"\xfd7zXZ\0 and so on".to_vec();
    let xz = oci_archive("xz", &[(xz, sha256(b"x"))]);
    let error = world.store.load(xz.as_slice()).unwrap_err();
    assert!(error.to_string().contains("compressed with xz"), "{error}");
}

#[test]
fn a_hostile_layer_leaves_nothing_behind() {
    let world = World::new();
    let tar = Tar::new().file("ok", "x").file("../evil", "x").finish();
    let archive = oci_archive("evil", &[(tar.clone(), sha256(&tar))]);
    let error = world.store.load(archive.as_slice()).unwrap_err();
    assert!(
        error
            .to_string()
            .contains("\"../evil\" leads out of the archive"),
        "{error}"
    );
    assert_eq!(
        fs::read_dir(world.store_dir().join("layers"))
            .unwrap()
            .count(),
        0
    );
    assert_eq!(
        fs::read_dir(world.store_dir().join("tmp")).unwrap().count(),
        0
    );
}

#[test]
fn an_image_never_has_the_same_directory_twice_nor_none() {
    let world = World::new();
    let (a, b) = (
        Tar::new().file("a", "").finish(),
        Tar::new().file("b", "").finish(),
    );
    let layer = |tar: &Vec<u8>| (tar.clone(), sha256(tar));
    let archive = oci_archive("twice", &[layer(&a), layer(&b), layer(&a)]);
    let image = world.store.load(archive.as_slice()).unwrap().remove(0);
    let layers = world.store.layers(&image.digest).unwrap();
    assert_eq!(layers.len(), 2);
    assert!(
        layers[0].join("a").exists() && layers[1].join("b").exists(),
        "topmost first"
    );
    let image = world
        .store
        .load(oci_archive("none", &[]).as_slice())
        .unwrap()
        .remove(0);
    let layers = world.store.layers(&image.digest).unwrap();
    assert_eq!(layers.len(), 1);
    assert_eq!(fs::read_dir(&layers[0]).unwrap().count(), 0);
}

/// The oracle of the conversion is overlayfs itself, mounted in a mount namespace of the test's own.
#[test]
fn overlayfs_shows_the_layers_as_they_were_meant() {
    if !is_root() {
        println!("SKIPPED: mounting needs root");
        return;
    }
    let world = World::new();
    let lower = Tar::new()
        .file("kept", "")
        .file("gone", "")
        .file("dir/old", "")
        .file("replaced/old", "")
        .file("sub/gone/deep", "")
        .finish();
    let upper = Tar::new()
        .file(".wh.gone", "")
        .dir("dir/")
        .file("dir/.wh..wh..opq", "")
        .file("dir/new", "")
        .file(".wh.replaced", "")
        .file("replaced/new", "")
        .file("sub/.wh.gone", "")
        .file("sub/new", "")
        .finish();
    let layers = [lower, upper].map(|tar| {
        let diff_id = sha256(&tar);
        (gzip(&tar), diff_id)
    });
    let archive = oci_archive("overlaid", &layers);
    let image = world.store.load(archive.as_slice()).unwrap().remove(0);
    let layers = world.store.layers(&image.digest).unwrap();
    let lower: Vec<&str> = layers.iter().map(|layer| layer.to_str().unwrap()).collect();
    let root = world.context();
    // Read-only: the test's own directory may be on an overlay, which cannot be an upper directory.
    let script = "mount -t overlay overlay -o ro,lowerdir=\"$1\" \"$2\" && cd \"$2\" && find . -type f | sort";
    let output = Command::new("unshare")
        .args(["--mount", "sh", "-c", script, "sh", &lower.join(":")])
        .arg(root)
        .output();
    let output = match output {
        Ok(output) => output,
        Err(error) => {
            println!("SKIPPED: unshare cannot be run: {error}");
            return;
        }
    };
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{errors}");
    let files = String::from_utf8(output.stdout).unwrap();
    assert_eq!(files, "./dir/new\n./kept\n./replaced/new\n./sub/new\n");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// Whatever a tar says, nothing appears beside the root, and nothing panics.
    #[test]
    fn no_mutated_tar_gets_out(changes in prop::collection::vec((0_usize..6000, any::<u8>()), 0..6), cut in 0_usize..6000) {
        let outer = TempDir::new().unwrap();
        let root = outer.path().join("root");
        fs::create_dir(&root).unwrap();
        let mut tar = Tar::new()
            .dir("a/")
            .file("a/f", "text")
            .entry(b'2', "a/l", "../..", b"")
            .entry(b'1', "h", "a/f", b"")
            .pax(&[("path", b"a/../b"), ("size", b"4")])
            .file("p", "text")
            .file("a/.wh.x", "")
            .finish();
        let length = tar.len();
        for (at, byte) in changes {
            let at = at % length;
            tar[at] = byte;
            // With the checksum mended, so that the change is looked at.
            let header = at / 512 * 512;
            let block = &mut tar[header..header + 512];
            let is_header = block[257..262] == *b"ustar";
            if is_header {
                block[148..156].copy_from_slice(b"        ");
                let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
                block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
            }
        }
        tar.truncate(length.min(length / 2 + cut));
        let _ = unpack_plain(&tar, &root);
        prop_assert_eq!(fs::read_dir(outer.path()).unwrap().count(), 1);
    }
}
