//! What users get wrong: one clear sentence, a code that is not 0, and what ran before still runs.

use std::fs::{self, File};
use std::net::TcpListener;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use crate::apps::{App, WEB};
use crate::node::{Answer, LAYBY, Node, is_root, run_dir};

/// `up` of this manifest on a node where the shop runs: it fails with `code`, says `texts`, and the shop runs on.
fn up_fails(manifest: &str, code: i32, texts: &[&str]) {
    if !is_root() {
        return;
    }
    let node = Node::start();
    let shop = App::compose(WEB);
    node.run_in(shop.path(), &["up"]).ok();
    let app = App::compose(manifest);
    let mut answer = node.run_in(app.path(), &["up"]).exits(code);
    for text in texts {
        answer = answer.says(text);
    }
    assert!(!answer.err.contains("panicked"), "{}", answer.err);
    assert_eq!(node.get("web.shop.localhost", "/").body, "hello world");
}

#[test]
fn not_root_is_one_sentence() {
    if !is_root() {
        return;
    }
    let dir = tempfile::tempdir().expect("a temporary directory");
    let copy = dir.path().join("layby");
    fs::copy(LAYBY, &copy).expect("a copy that anyone may run");
    fs::set_permissions(
        dir.path(),
        std::os::unix::fs::PermissionsExt::from_mode(0o755),
    )
    .expect("a mode");
    for args in [&["serve"][..], &["up"]] {
        fs::write(dir.path().join("compose.yaml"), WEB).expect("a manifest");
        let data = dir.path().join("data");
        let output = Command::new(&copy)
            .args(args)
            .current_dir(dir.path())
            .env("LAYBY_DATA", &data)
            .uid(65534)
            .output();
        let answer = Answer::new(args, &output.expect("layby runs"))
            .exits(1)
            .says("needs root");
        assert_eq!(answer.err.lines().count(), 1, "{}", answer.err);
        assert!(!data.exists(), "something was changed");
    }
}

#[test]
fn a_port_in_use_is_named_with_its_owner() {
    if !is_root() {
        return;
    }
    let node = Node::start();
    let _taken = TcpListener::bind((node.publish_on, 8100)).expect("a port");
    let app = App::compose(WEB);
    let answer = node.run_in(app.path(), &["up"]).exits(1);
    answer
        .says("8100")
        .says("in use")
        .says(&format!("pid {}", std::process::id()));
}

#[test]
fn a_gateway_port_in_use_is_named_with_its_owner() {
    if !is_root() {
        return;
    }
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
    let addr = taken.local_addr().expect("an address").to_string();
    let dir = tempfile::tempdir().expect("a temporary directory");
    let output = Command::new(LAYBY)
        .args(["serve", "--http", &addr])
        .env("LAYBY_DATA", dir.path())
        .output();
    Answer::new(&["serve"], &output.expect("layby runs"))
        .exits(1)
        .says(&addr)
        .says("in use");
    assert!(
        !run_dir(dir.path()).exists(),
        "a start that failed leaves nothing"
    );
}

#[test]
fn a_start_that_fails_takes_the_network_back_unless_replicas_live_on_it() {
    if !is_root() {
        return;
    }
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
    let addr = taken.local_addr().expect("an address").to_string();
    let serve = ["serve", "--http", "127.0.0.1:0", "--registry", &addr];
    let tables = || {
        let output = Command::new("nft").args(["list", "tables"]).output();
        String::from_utf8_lossy(&output.expect("nft runs").stdout).into_owned()
    };
    let dir = tempfile::tempdir().expect("a temporary directory");
    let output = Command::new(LAYBY)
        .args(serve)
        .env("LAYBY_DATA", dir.path())
        .output();
    Answer::new(&serve, &output.expect("layby runs"))
        .exits(1)
        .says(&addr);
    let run = run_dir(dir.path());
    assert!(!run.exists(), "a start that failed leaves nothing");
    let node = run.file_name().and_then(|name| name.to_str());
    let node = node.expect("a name").to_owned();
    assert!(!tables().contains(&node));
    assert!(!Path::new("/run/layby/subnets").join(&node).exists());

    let mut node = Node::start();
    let shop = App::compose(WEB);
    node.run_in(shop.path(), &["up"]).ok();
    let pids = node.pids("web");
    node.kill();
    let output = node.command(Path::new("/"), &serve).output();
    Answer::new(&serve, &output.expect("layby runs")).exits(1);
    node.serve();
    assert_eq!(node.pids("web"), pids);
    assert_eq!(node.get("web.shop.localhost", "/").body, "hello world");
}

#[test]
fn an_unknown_key_is_a_warning_with_its_line() {
    if !is_root() {
        return;
    }
    let node = Node::start();
    let app = App::compose(&WEB.replace("build: .", "build: .\n    colour: red"));
    node.run_in(app.path(), &["up"])
        .ok()
        .says("compose.yaml:5")
        .says("colour")
        .says("live");
}

#[test]
fn bad_yaml_is_shown_with_line_column_and_text() {
    up_fails(
        "services:\n  web:\n    image: [a\n    build: .\n",
        1,
        &["compose.yaml:", "bad YAML", "in the line"],
    );
}

#[test]
fn an_image_that_does_not_exist_is_named() {
    up_fails(
        "name: ghost\nservices:\n  web:\n    image: nowhere/nothing:9\n",
        4,
        &["nowhere/nothing:9"],
    );
}

#[test]
fn a_name_that_compose_does_not_know_is_refused_with_its_line() {
    up_fails(
        "services:\n  my web:\n    build: .\n",
        1,
        &["compose.yaml:2", "my web"],
    );
}

#[test]
fn two_services_of_one_app_may_not_claim_one_port() {
    let text = "services:\n  a:\n    build: .\n    ports: [\"9100:8000\"]\n  b:\n    build: .\n    ports: [\"9100:8000\"]\n";
    up_fails(text, 1, &["9100", "compose.yaml:"]);
}

#[test]
fn two_apps_may_not_claim_one_port() {
    up_fails(
        &WEB.replace("name: shop", "name: rival"),
        1,
        &["8100", "shop/web"],
    );
}

#[test]
fn a_command_that_does_not_exist_fails_at_once() {
    let text = "name: lost\nservices:\n  web:\n    build: .\n    entrypoint: [/nope]\n";
    up_fails(text, 1, &["/nope"]);
}

#[test]
fn a_dockerfile_error_names_its_line() {
    if !is_root() {
        return;
    }
    let node = Node::start();
    let app = App::compose(WEB);
    app.write("Dockerfile", "FROM scratch\nCOPY missing /x\n");
    node.run_in(app.path(), &["up"])
        .exits(1)
        .says("Dockerfile:2")
        .says("missing");
}

#[test]
fn a_manifest_of_100_megabytes_is_refused() {
    if !is_root() {
        return;
    }
    let node = Node::start();
    let app = App::empty();
    File::create(app.path().join("compose.yaml"))
        .and_then(|file| file.set_len(100 << 20))
        .expect("a sparse file");
    node.run_in(app.path(), &["up"])
        .exits(1)
        .says("104857600 bytes");
    node.run_in(app.path(), &["up", "nowhere"])
        .exits(1)
        .says("nowhere");
}

#[test]
fn a_data_directory_of_a_newer_layby_is_left_alone() {
    if !is_root() {
        return;
    }
    let mut node = Node::start();
    let shop = App::compose(WEB);
    node.run_in(shop.path(), &["up"]).ok();
    let pids = node.pids("web");
    node.run(&["node", "stop"]).ok();
    node.kill();
    let store = rusqlite::Connection::open(node.data.path().join("layby.db")).expect("the store");
    let version: i64 = store
        .pragma_query_value(None, "user_version", |row| row.get(0))
        .expect("a version");
    store
        .pragma_update(None, "user_version", 9999)
        .expect("written");
    let output = node
        .command(Path::new("/"), &["serve", "--http", "127.0.0.1:0"])
        .output();
    store
        .pragma_update(None, "user_version", version)
        .expect("written");
    drop(store);
    Answer::new(&["serve"], &output.expect("layby runs"))
        .exits(1)
        .says("newer");

    // What ran still runs, and the right Layby finds it.
    node.serve();
    assert_eq!(node.pids("web"), pids);
    assert_eq!(node.get("web.shop.localhost", "/").body, "hello world");
}

#[test]
fn an_archive_that_is_none_is_refused_aloud() {
    if !is_root() {
        return;
    }
    let node = Node::start();
    let dir = tempfile::tempdir().expect("a temporary directory");
    let file = dir.path().join("junk.tar");
    fs::write(&file, vec![b'x'; 4 << 20]).expect("a file");
    for _ in 0..5 {
        let answer = node
            .run(&["image", "load", file.to_str().expect("UTF-8")])
            .exits(1);
        assert!(answer.err.contains("archive"), "{}", answer.err);
    }
    let empty = dir.path().join("empty");
    fs::create_dir(&empty).expect("a folder");
    node.run_in(&empty, &["up"])
        .exits(1)
        .says("no compose.yaml");
}

#[test]
fn a_full_disk_is_said_and_what_ran_before_runs_on() {
    if !is_root() {
        return;
    }
    let small = SmallDisk::mount("24m");
    let node = Node::start_on(small.folder());
    let shop = App::compose(WEB);
    node.run_in(shop.path(), &["up"]).ok();
    let big = App::compose("name: big\nservices:\n  web:\n    build: .\n");
    let noise: Vec<u8> = (0..48 << 20)
        .scan(1_u32, |x, _| {
            *x = x.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            Some((*x >> 24) as u8)
        })
        .collect();
    fs::write(big.path().join("web"), noise).expect("a big file");
    node.run_in(big.path(), &["up"])
        .exits(1)
        .says("disk is full");
    assert_eq!(node.get("web.shop.localhost", "/").body, "hello world");
    node.run_in(shop.path(), &["up"]).ok().says("unchanged");
}

/// A file system of its own, unmounted when dropped (after the node on it).
pub(crate) struct SmallDisk(tempfile::TempDir);

impl SmallDisk {
    pub(crate) fn mount(size: &str) -> Self {
        let dir = tempfile::Builder::new()
            .prefix("layby-small-")
            .tempdir()
            .expect("a directory");
        let options = Some(format!("size={size}"));
        let flags = nix::mount::MsFlags::empty();
        nix::mount::mount(
            Some("tmpfs"),
            dir.path(),
            Some("tmpfs"),
            flags,
            options.as_deref(),
        )
        .expect("mounted");
        Self(dir)
    }
}

impl SmallDisk {
    /// A new folder on it.
    pub(crate) fn folder(&self) -> tempfile::TempDir {
        tempfile::Builder::new()
            .prefix("data-")
            .tempdir_in(self.0.path())
            .expect("a directory")
    }

    /// Writes until nothing fits any more; what was written goes with [`SmallDisk::free`].
    pub(crate) fn fill(&self) {
        let mut file = File::create(self.0.path().join("fill")).expect("a file");
        let block = [0_u8; 4096];
        while std::io::Write::write_all(&mut file, &block).is_ok() {}
    }

    pub(crate) fn free(&self) {
        fs::remove_file(self.0.path().join("fill")).expect("removed");
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = nix::mount::umount2(self.0.path(), nix::mount::MntFlags::MNT_DETACH);
    }
}
