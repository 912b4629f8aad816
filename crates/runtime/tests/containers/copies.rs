//! Files into and out of containers, also of hostile ones.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;

use layby_runtime::client::{self, Begun};
use layby_runtime::protocol::{Copy, CopyRequest, Do, Stat};
use layby_runtime::tree::{self, Source, Target, Unpack};
use layby_runtime::{Error, usage};

use crate::Test;
use crate::rig::{Rig, layer_with_link, wait_for};

pub(crate) const TESTS: &[Test] = &[
    (
        "a_tree_goes_in_and_comes_out_again",
        a_tree_goes_in_and_comes_out_again,
    ),
    (
        "a_path_that_is_not_there_is_fatal",
        a_path_that_is_not_there_is_fatal,
    ),
    (
        "a_link_of_the_container_leads_into_the_container",
        a_link_of_the_container_leads_into_the_container,
    ),
    (
        "what_a_sandbox_uses_is_counted",
        what_a_sandbox_uses_is_counted,
    ),
];

fn begin(rig: &Rig, copy: Copy) -> Result<Begun, Error> {
    let request = CopyRequest {
        container: String::new(),
        copy,
    };
    client::begin(&rig.spec.socket, Do::Copy(request))
}

fn copy_in(rig: &Rig, path: &str, keep_owners: bool, tar: &[u8]) -> Result<(), Error> {
    let copy = Copy::In {
        path: path.into(),
        keep_owners,
        whiteouts: false,
    };
    match begin(rig, copy)? {
        Begun::Attached(mut ends, reply) => {
            let mut pipe = File::from(ends.remove(0));
            // It may have seen enough.
            let _ = pipe.write_all(tar);
            drop(pipe);
            reply.wait().map(|result| assert_eq!(result.code, 0))
        }
        Begun::Done(result) => panic!("{result:?}"),
    }
}

fn copy_out(rig: &Rig, path: &str, follow_link: bool) -> Result<Vec<u8>, Error> {
    let copy = Copy::Out {
        path: path.into(),
        follow_link,
    };
    match begin(rig, copy)? {
        Begun::Attached(mut ends, reply) => {
            let mut tar = Vec::new();
            let mut pipe = File::from(ends.remove(0));
            pipe.read_to_end(&mut tar).expect("read");
            reply.wait().map(|result| assert_eq!(result.code, 0))?;
            Ok(tar)
        }
        Begun::Done(result) => panic!("{result:?}"),
    }
}

fn stat(rig: &Rig, path: &str) -> Result<Stat, Error> {
    match begin(rig, Copy::Stat { path: path.into() })? {
        Begun::Done(result) => Ok(serde_json::from_str(&result.output).expect("JSON")),
        Begun::Attached(..) => panic!("no ends are needed"),
    }
}

fn packed(path: &Path) -> Vec<u8> {
    let mut tar = Vec::new();
    let source = Source::open(path, false).expect("a source");
    let name = tree::last_name(path.to_str().expect("UTF-8"));
    tree::pack(&source, &name, &mut tar).expect("packed");
    tar
}

fn unpacked(tar: &[u8], into: &Path) {
    let options = Unpack {
        keep_owners: true,
        ..Unpack::default()
    };
    tree::unpack(&Target::open(into).expect("a folder"), tar, &options).expect("unpacked");
}

fn a_tree_goes_in_and_comes_out_again() {
    for id_map in [None, Some((500_000, 65_536))] {
        let mut rig = Rig::one(&["sleep"], |config| config.stop_signal = "KILL".into());
        rig.spec.id_map = id_map;
        let _client = rig.started();
        let from = tempfile::tempdir().expect("a folder");
        let tree = from.path().join("tree");
        fs::create_dir_all(tree.join("deep")).expect("folders");
        fs::write(tree.join("deep/file"), "text").expect("a file");
        fs::set_permissions(tree.join("deep/file"), fs::Permissions::from_mode(0o640))
            .expect("a mode");
        std::os::unix::fs::chown(tree.join("deep/file"), Some(12), Some(34)).expect("an owner");
        symlink("deep/file", tree.join("link")).expect("a link");
        for (keep_owners, owner) in [(true, (12, 34)), (false, (0, 0))] {
            copy_in(&rig, "/etc", keep_owners, &packed(&tree)).expect("copied");
            let to = tempfile::tempdir().expect("a folder");
            let tar = copy_out(&rig, "/etc/tree", false).expect("copied");
            unpacked(&tar, to.path());
            let file = fs::metadata(to.path().join("tree/deep/file")).expect("there");
            assert_eq!((file.uid(), file.gid()), owner, "{id_map:?}");
            assert_eq!(file.mode() & 0o7777, 0o640);
            let link = fs::read_link(to.path().join("tree/link")).expect("a link");
            assert_eq!(link, Path::new("deep/file"));
            let tar = copy_out(&rig, "/etc/tree/link", true).expect("copied");
            unpacked(&tar, to.path());
            assert_eq!(fs::read(to.path().join("link")).expect("a file"), b"text");
        }
        let found = stat(&rig, "/etc/tree/../tree/link").expect("there");
        assert_eq!((&*found.path, found.is_dir), ("/etc/tree/deep/file", false));
        // /proc and such are windows, and no files to take along.
        let tar = copy_out(&rig, "/", false).expect("copied");
        assert!(tar.len() < 64 << 20, "{}", tar.len());
    }
}

fn a_path_that_is_not_there_is_fatal() {
    let rig = Rig::one(&["sleep"], |_| ());
    let _client = rig.started();
    let refused = [
        copy_out(&rig, "/nowhere/file", false).err(),
        copy_in(&rig, "/nowhere", false, &[]).err(),
        stat(&rig, "/nowhere").err(),
    ];
    for error in refused {
        match error {
            Some(Error::Fatal(text)) => assert!(text.contains("/nowhere"), "{text}"),
            other => panic!("{other:?}"),
        }
    }
    assert!(matches!(
        copy_in(&rig, "/etc/passwd", false, &[]),
        Err(Error::Failed(_))
    ));
    let broken = copy_in(&rig, "/etc", false, &[b'x'; 700]);
    assert!(matches!(broken, Err(Error::Failed(_))), "{broken:?}");
}

fn a_link_of_the_container_leads_into_the_container() {
    let outside = tempfile::tempdir().expect("a folder");
    let out = outside.path().to_str().expect("UTF-8");
    fs::write(outside.path().join("secret"), "of the host").expect("a file");
    let layer = layer_with_link(outside.path(), "way", &format!("../../../../../..{out}"));
    let rig = Rig::one(&["sleep"], |config| config.lower.insert(0, layer));
    let _client = rig.started();
    let file = tempfile::tempdir().expect("a folder");
    fs::write(file.path().join("planted"), "by the copy").expect("a file");
    let tar = packed(&file.path().join("planted"));
    for way in ["/way", "/proc/1/root/way", "/proc/self/root/way"] {
        assert!(copy_in(&rig, way, false, &tar).is_err(), "{way}");
        let secret = copy_out(&rig, &format!("{way}/secret"), true);
        assert!(secret.is_err(), "{way}");
    }
    assert!(!outside.path().join("planted").exists());
    // The helper holds nothing of the host that a path could name.
    for fd in 0..30 {
        let path = format!("/proc/self/fd/{fd}");
        if let Ok(tar) = copy_out(&rig, &path, true) {
            let text = String::from_utf8_lossy(&tar);
            assert!(!text.contains("of the host"), "{path}");
        }
    }
}

fn what_a_sandbox_uses_is_counted() {
    let rig = Rig::one(&["count"], |config| config.memory_bytes = Some(64 << 20));
    let _client = rig.started();
    let read = || usage::read(&rig.bundle(), &rig.spec.cgroup).expect("counted");
    wait_for("some CPU time", || read().cpu_us > 1_000);
    let first = read();
    assert_eq!(first.memory_limit_bytes, Some(64 << 20));
    assert!(
        first.memory_bytes > 0 && first.memory_bytes < 64 << 20,
        "{first:?}"
    );
    assert_eq!((first.pids, first.network_in_bytes), (1, 0));
    wait_for("more of it", || read().cpu_us > first.cpu_us);
    copy_in(&rig, "/", false, &packed(&rig.bundle().join("spec.json"))).expect("copied");
    wait_for("its file on the disk", || {
        usage::disk_bytes(&rig.bundle()) > 0
    });
}
