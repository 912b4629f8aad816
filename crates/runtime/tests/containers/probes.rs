//! Finding out whether user namespaces work on a machine.

use std::fs;
use std::path::Path;

use layby_runtime::ShimImage;
use layby_runtime::probe::{self, UserNamespaces};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};

use crate::Test;

pub(crate) const TESTS: &[Test] = &[(
    "a_full_disk_says_nothing_about_user_namespaces",
    a_full_disk_says_nothing_about_user_namespaces,
)];

fn a_full_disk_says_nothing_about_user_namespaces() {
    let dir = tempfile::tempdir().expect("a directory");
    let image = ShimImage::of_self().expect("this program");
    let probe = |dir: &Path| probe::user_namespaces(&image, dir);
    let usually = probe(dir.path()).expect("an answer");
    let on_full_disk = std::thread::scope(|scope| {
        // The mount goes with this thread's mount namespace.
        let full = scope.spawn(|| {
            unshare(CloneFlags::CLONE_FS | CloneFlags::CLONE_NEWNS).expect("a namespace");
            let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
            mount(None::<&str>, "/", None::<&str>, private, None::<&str>).expect("private");
            let disk = dir.path().join("disk");
            fs::create_dir(&disk).expect("a directory");
            // Room for the root and five more: enough to begin, too little for what is written with shifted ids.
            (4..8)
                .map(|files| {
                    let options = format!("nr_inodes={files}");
                    mount(
                        Some("tmpfs"),
                        &disk,
                        Some("tmpfs"),
                        MsFlags::empty(),
                        Some(options.as_str()),
                    )
                    .expect("a small disk");
                    probe(&disk)
                })
                .collect::<Vec<_>>()
        });
        full.join().expect("no panic")
    });
    for answer in on_full_disk {
        let sentence = answer.expect_err("the disk is full").sentence();
        // An overlay that cannot make its work folder cannot be written to.
        let known = ["No space left", "Read-only"];
        assert!(known.iter().any(|k| sentence.contains(k)), "{sentence}");
    }
    assert_eq!(probe(dir.path()).expect("an answer"), usually);
    assert!(!dir.path().join("probe").exists());
    if usually != UserNamespaces::Work {
        println!("SKIPPED in part: {usually:?}");
    }
}
