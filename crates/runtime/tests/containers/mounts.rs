//! What containers see of the machine's files, with and without a user namespace.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::os::unix::net::UnixListener;
use std::path::Path;

use layby_runtime::client::Client;
use layby_runtime::{ContainerConfig, Error, MountConfig, MountFrom};

use crate::Test;
use crate::rig::{Rig, layer_with_link};

pub(crate) const TESTS: &[Test] = &[
    (
        "binds_show_the_ids_that_are_on_disk",
        binds_show_the_ids_that_are_on_disk,
    ),
    (
        "what_is_mounted_to_read_cannot_be_written_nor_can_what_is_below",
        what_is_mounted_to_read_cannot_be_written_nor_can_what_is_below,
    ),
    (
        "a_tmpfs_is_empty_at_each_start",
        a_tmpfs_is_empty_at_each_start,
    ),
    (
        "what_is_in_a_tmpfs_is_executed_unless_it_is_mounted_noexec",
        what_is_in_a_tmpfs_is_executed_unless_it_is_mounted_noexec,
    ),
    (
        "an_empty_volume_gets_what_the_image_has_there",
        an_empty_volume_gets_what_the_image_has_there,
    ),
    (
        "inner_mounts_lie_on_outer_ones",
        inner_mounts_lie_on_outer_ones,
    ),
    (
        "a_mount_goes_to_its_target_whatever_was_done_to_the_root",
        a_mount_goes_to_its_target_whatever_was_done_to_the_root,
    ),
    ("no_link_leads_a_mount_astray", no_link_leads_a_mount_astray),
    (
        "a_link_that_leads_to_nothing_is_no_hindrance",
        a_link_that_leads_to_nothing_is_no_hindrance,
    ),
    (
        "memory_is_shared_by_its_name_as_long_as_the_sandbox_is_there",
        memory_is_shared_by_its_name_as_long_as_the_sandbox_is_there,
    ),
    (
        "what_cannot_be_mounted_is_said_by_name",
        what_cannot_be_mounted_is_said_by_name,
    ),
];

/// Ids of a user namespace.
const MAP: (u32, u32) = (0x3000_0000, 65_536);

fn bind(path: &Path, target: &str) -> MountConfig {
    MountConfig {
        source: MountFrom::Bind {
            path: path.to_owned(),
            recursive: true,
            subpath: None,
        },
        target: target.to_owned(),
        read_only: false,
        copy_up: false,
    }
}

fn tmpfs(target: &str) -> MountConfig {
    MountConfig {
        source: MountFrom::Tmpfs {
            size_bytes: Some(1 << 20),
            mode: None,
            no_exec: false,
        },
        ..bind(Path::new("/"), target)
    }
}

fn no_exec(target: &str) -> MountConfig {
    MountConfig {
        source: MountFrom::Tmpfs {
            size_bytes: Some(16 << 20),
            mode: None,
            no_exec: true,
        },
        ..bind(Path::new("/"), target)
    }
}

/// A sandbox of one polite container with a user namespace or none.
fn rig(mapped: bool, change: impl FnOnce(&mut ContainerConfig)) -> Rig {
    let mut rig = Rig::one(&["polite"], change);
    rig.spec.id_map = mapped.then_some(MAP);
    rig
}

/// Runs the program once more: its exit code and output.
fn probe(client: &mut Client, arguments: &[&str]) -> (i32, String) {
    let mut argv = vec!["/probe"];
    argv.extend(arguments);
    let result = client.exec("web", &argv, 60_000).expect("exec");
    (result.code, result.output)
}

fn ask(client: &mut Client, arguments: &[&str]) -> String {
    let (code, output) = probe(client, arguments);
    assert_eq!(code, 0, "{arguments:?}: {output}");
    output
}

fn refused(rig: &Rig) -> Error {
    match rig.spawn() {
        Err(error) => error,
        Ok(()) => rig.client().start().expect_err("it is refused"),
    }
}

fn binds_show_the_ids_that_are_on_disk() {
    for mapped in [true, false] {
        let dir = tempfile::tempdir().expect("a directory");
        fs::write(dir.path().join("file"), "text").expect("a file");
        std::os::unix::fs::chown(dir.path().join("file"), Some(1234), Some(1235)).expect("chown");
        let _listener = UnixListener::bind(dir.path().join("socket")).expect("a socket");
        let rig = rig(mapped, |c| {
            c.mounts = vec![
                bind(dir.path(), "/data"),
                bind(&dir.path().join("file"), "/etc/one/file"),
                bind(&dir.path().join("socket"), "/run/some.sock"),
            ];
        });
        let mut client = rig.started();
        assert_eq!(ask(&mut client, &["owner", "/data/file"]), "1234 1235 644");
        assert_eq!(ask(&mut client, &["cat", "/etc/one/file"]), "text");
        assert_eq!(
            ask(&mut client, &["connect", "/run/some.sock"]),
            "connected"
        );
        ask(&mut client, &["write", "/data/new", "from inside"]);
        ask(&mut client, &["give", "/data/new", "77"]);
        let new = fs::metadata(dir.path().join("new")).expect("written");
        assert_eq!((new.uid(), new.gid()), (77, 1));
        // It is all there again after the next start, and kept when the sandbox goes.
        client.stop().expect("stop");
        client.start().expect("start");
        assert_eq!(ask(&mut client, &["cat", "/data/new"]), "from inside");
        drop(rig);
        assert!(dir.path().join("new").exists());
    }
}

fn what_is_mounted_to_read_cannot_be_written_nor_can_what_is_below() {
    use nix::mount::{MntFlags, MsFlags, mount, umount2};
    for mapped in [true, false] {
        let dir = tempfile::tempdir().expect("a directory");
        let inner = dir.path().join("inner");
        fs::create_dir(&inner).expect("a directory");
        mount(
            Some("tmpfs"),
            &inner,
            Some("tmpfs"),
            MsFlags::empty(),
            None::<&str>,
        )
        .expect("tmpfs");
        let rig = rig(mapped, |c| {
            let mut mount = bind(dir.path(), "/data");
            mount.read_only = true;
            c.mounts = vec![mount];
        });
        let mut client = rig.started();
        for path in ["/data/x", "/data/inner/x"] {
            assert_ne!(probe(&mut client, &["write", path, "x"]).0, 0, "{path}");
        }
        drop(rig);
        umount2(&inner, MntFlags::MNT_DETACH).expect("unmounted");
    }
}

fn a_tmpfs_is_empty_at_each_start() {
    for mapped in [true, false] {
        let rig = rig(mapped, |c| {
            c.mounts = vec![tmpfs("/scratch"), tmpfs("/dev/own")];
            c.user = "web".to_owned();
        });
        let mut client = rig.started();
        for dir in ["/scratch", "/dev/own"] {
            assert_eq!(ask(&mut client, &["owner", dir]), "0 0 1777");
            ask(&mut client, &["write", &format!("{dir}/file"), "text"]);
        }
        client.stop().expect("stop");
        client.start().expect("start");
        for dir in ["/scratch", "/dev/own"] {
            assert_eq!(ask(&mut client, &["list", dir]), "");
        }
        assert!(
            !rig.bundle()
                .join("containers/web/upper/scratch/file")
                .exists()
        );
    }
}

fn what_is_in_a_tmpfs_is_executed_unless_it_is_mounted_noexec() {
    for mapped in [true, false] {
        let rig = rig(mapped, |c| {
            let mut sealed = no_exec("/sealed");
            sealed.read_only = true;
            let mut plain = tmpfs("/plain");
            if let MountFrom::Tmpfs { size_bytes, .. } = &mut plain.source {
                *size_bytes = Some(16 << 20);
            }
            c.mounts = vec![plain, no_exec("/kept"), no_exec("/dev/kept"), sealed];
        });
        let mut client = rig.started();
        let mut run = |dir: &str| ask(&mut client, &["copy-and-run", &format!("{dir}/probe")]);
        assert_eq!(run("/plain"), "it runs\n");
        for dir in ["/kept", "/dev/kept"] {
            assert_eq!(run(dir), "Permission denied (os error 13)", "{dir}");
        }
        let options = ask(&mut client, &["cat", "/proc/self/mounts"]);
        for (dir, words) in [
            ("/plain", "rw,nosuid,nodev,relatime"),
            ("/kept", "rw,nosuid,nodev,noexec,relatime"),
            ("/dev/kept", "rw,nosuid,nodev,noexec,relatime"),
            ("/sealed", "ro,nosuid,nodev,noexec,relatime"),
        ] {
            let line = format!("tmpfs {dir} tmpfs {words},");
            let options: Vec<&str> = options.lines().filter(|one| one.contains(dir)).collect();
            assert!(
                options.iter().any(|one| one.starts_with(&line)),
                "{line}: {options:?}"
            );
        }
    }
}

fn memory_is_shared_by_its_name_as_long_as_the_sandbox_is_there() {
    for mapped in [true, false] {
        let memory = |name: &str, target: &str| MountConfig {
            source: MountFrom::Memory {
                name: name.to_owned(),
                size_bytes: 1 << 20,
            },
            ..bind(Path::new("/"), target)
        };
        let mut rig = rig(mapped, |c| {
            c.mounts = vec![memory("one", "/mine"), memory("two", "/dev/other")];
            c.user = "web".to_owned();
        });
        let mut side = rig.spec.containers[0].clone();
        side.name = "side".to_owned();
        side.mounts = vec![memory("one", "/theirs"), memory("two", "/other")];
        rig.spec.containers.push(side);
        let mut client = rig.started();
        ask(&mut client, &["write", "/mine/file", "text"]);
        ask(&mut client, &["write", "/dev/other/file", "more"]);
        for run in 0..2 {
            for (path, text) in [("/theirs/file", "text"), ("/other/file", "more")] {
                let read = client.exec("side", &["/probe", "cat", path], 60_000);
                assert_eq!(read.expect("exec").output, text, "{path} in run {run}");
            }
            client.stop().expect("stop");
            client.start().expect("start");
        }
    }
}

fn an_empty_volume_gets_what_the_image_has_there() {
    for mapped in [true, false] {
        let dir = tempfile::tempdir().expect("a directory");
        let (layer, volume) = (dir.path().join("layer"), dir.path().join("volume"));
        let data = layer.join("srv/data");
        fs::create_dir_all(data.join("deep")).expect("directories");
        fs::write(data.join("deep/file"), "of the image").expect("a file");
        symlink("/etc/passwd", data.join("link")).expect("a link");
        for path in [&data, &data.join("deep/file")] {
            std::os::unix::fs::chown(path, Some(1234), Some(1235)).expect("chown");
        }
        fs::set_permissions(&data, fs::Permissions::from_mode(0o750)).expect("a mode");
        fs::create_dir(&volume).expect("a directory");
        let rig = rig(mapped, |c| {
            c.lower.insert(0, layer.clone());
            let mut mount = bind(&volume, "/srv/data");
            mount.copy_up = true;
            c.mounts = vec![mount];
        });
        let mut client = rig.started();
        assert_eq!(ask(&mut client, &["owner", "/srv/data"]), "1234 1235 750");
        assert_eq!(
            ask(&mut client, &["owner", "/srv/data/deep/file"]),
            "1234 1235 644"
        );
        let found = fs::metadata(volume.join("deep/file")).expect("copied");
        assert_eq!((found.uid(), found.gid()), (1234, 1235));
        assert_eq!(
            fs::read_link(volume.join("link")).expect("a link"),
            Path::new("/etc/passwd")
        );
        // Once there is something in it, it is the user's.
        ask(&mut client, &["remove", "/srv/data/deep/file"]);
        drop(rig);
        let again = self::rig(mapped, |c| {
            c.lower.insert(0, layer.clone());
            let mut mount = bind(&volume, "/srv/data");
            mount.copy_up = true;
            c.mounts = vec![mount];
        });
        assert_eq!(ask(&mut again.started(), &["list", "/srv/data/deep"]), "");
    }
}

fn inner_mounts_lie_on_outer_ones() {
    let dir = tempfile::tempdir().expect("a directory");
    fs::write(dir.path().join("file"), "inner").expect("a file");
    let rig = rig(true, |c| {
        // In any order.
        c.mounts = vec![
            bind(&dir.path().join("file"), "/run/app/secrets/file"),
            bind(dir.path(), "/run/app/secrets"),
            tmpfs("/run"),
        ];
    });
    let mut client = rig.started();
    assert_eq!(ask(&mut client, &["cat", "/run/app/secrets/file"]), "inner");
    assert_eq!(ask(&mut client, &["list", "/run"]), "app\n");
}

fn a_mount_goes_to_its_target_whatever_was_done_to_the_root() {
    for mapped in [true, false] {
        let dir = tempfile::tempdir().expect("a directory");
        fs::write(dir.path().join("file"), "kept").expect("a file");
        let outside = tempfile::tempdir().expect("a directory");
        let rig = rig(mapped, |c| c.mounts = vec![bind(dir.path(), "/srv/data")]);
        let mut client = rig.started();
        // Moved away below its feet, and a link in its place: first a harmless one.
        ask(&mut client, &["rename", "/srv", "/old"]);
        ask(&mut client, &["link", "/new", "/srv"]);
        client.stop().expect("stop");
        client.start().expect("start");
        assert_eq!(ask(&mut client, &["cat", "/new/data/file"]), "kept");
        assert_eq!(ask(&mut client, &["list", "/old/data"]), "");
        // One that would lead out of the container stays in it.
        ask(&mut client, &["remove", "/srv"]);
        let place = outside.path().display().to_string();
        ask(
            &mut client,
            &["link", &format!("../../../../../../..{place}"), "/srv"],
        );
        client.stop().expect("stop");
        client.start().expect("start");
        assert_eq!(
            ask(&mut client, &["cat", &format!("{place}/data/file")]),
            "kept"
        );
        assert_eq!(fs::read_dir(outside.path()).expect("outside").count(), 0);
        // One onto the kernel's own files is refused.
        ask(&mut client, &["remove", "/srv"]);
        ask(&mut client, &["link", "/proc/sys", "/srv"]);
        client.stop().expect("stop");
        let error = client.start().expect_err("it is refused");
        assert!(error.sentence().contains("a link leads it"), "{error:?}");
    }
}

fn no_link_leads_a_mount_astray() {
    for mapped in [true, false] {
        let dir = tempfile::tempdir().expect("a directory");
        let source = dir.path().join("source");
        fs::create_dir(&source).expect("a directory");
        for target in ["/proc", "/sys", "/dev", "/proc/self/fd"] {
            let place = dir.path().join(target.replace('/', "-"));
            let upper = layer_with_link(&place, "data", target);
            let rig = rig(mapped, |c| {
                c.lower.insert(0, upper);
                c.mounts = vec![bind(&source, "/data")];
            });
            let error = refused(&rig);
            assert!(error.fatal(), "{target}: {error:?}");
            drop(rig);
        }
        // A link in a volume does not lead its subpath out.
        symlink("/etc", source.join("out")).expect("a link");
        symlink("../..", source.join("up")).expect("a link");
        for inner in ["out", "up", "../source", "/etc"] {
            let rig = rig(mapped, |c| {
                let mut mount = bind(&source, "/data");
                mount.source = MountFrom::Bind {
                    path: source.clone(),
                    recursive: false,
                    subpath: Some(inner.into()),
                };
                c.mounts = vec![mount];
            });
            let error = refused(&rig);
            assert!(error.fatal(), "{inner}: {error:?}");
        }
    }
}

fn a_link_that_leads_to_nothing_is_no_hindrance() {
    for mapped in [true, false] {
        // As in images of distributions with systemd.
        let dir = tempfile::tempdir().expect("a directory");
        let upper = layer_with_link(dir.path(), "etc/resolv.conf", "../run/resolve/stub.conf");
        let rig = rig(mapped, |c| c.lower.insert(0, upper));
        let mut client = rig.started();
        assert_eq!(
            ask(&mut client, &["cat", "/etc/resolv.conf"]),
            "nameserver 10.1.2.1\n"
        );
    }
}

fn what_cannot_be_mounted_is_said_by_name() {
    for target in [
        "/",
        "/proc",
        "/proc/sys/kernel",
        "/sys/fs",
        "/dev",
        "/a/../b",
        "relative",
    ] {
        let rig = rig(true, |c| c.mounts = vec![bind(Path::new("/etc"), target)]);
        let error = refused(&rig);
        assert!(
            error.fatal() && error.sentence().contains(target),
            "{error:?}"
        );
    }
    let rig = rig(true, |c| {
        c.mounts = vec![bind(Path::new("/no/such/place"), "/data")]
    });
    assert!(refused(&rig).sentence().contains("/no/such/place"));
    // Whoever looked at the path has looked at no link: one was put there since.
    let dir = tempfile::tempdir().expect("a folder");
    let link = dir.path().join("link");
    std::os::unix::fs::symlink("/etc", &link).expect("a link");
    let rig = self::rig(true, |c| c.mounts = vec![bind(&link.join("ssl"), "/data")]);
    assert!(refused(&rig).sentence().contains("link/ssl"));
    // procfs shifts no ids.
    let rig = self::rig(true, |c| {
        c.mounts = vec![bind(Path::new("/proc/sys"), "/data")]
    });
    let error = refused(&rig);
    assert!(
        error.sentence().contains("/proc/sys") && error.sentence().contains("userns_mode"),
        "{error:?}"
    );
    let rig = self::rig(false, |c| {
        c.mounts = vec![bind(Path::new("/proc/sys"), "/data")]
    });
    rig.started();
}
