//! Files that outlive replicas, and files of the machine.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use crate::apps::App;
use crate::node::{Node, Reply, get, is_root, post};

const HOST: &str = "web.shop.localhost";

/// The web program as `shop/web` with these mounts; its image has `/seed/file`, of somebody else than root.
fn app(mounts: &str, more: &str) -> App {
    let app = App::compose(&format!(
        "name: shop\nservices:\n  web:\n    build: .\n    image: shop-web:1\n    volumes:\n{mounts}{more}"
    ));
    app.write("file", "from the image");
    app.write(
        "Dockerfile",
        "FROM scratch\nCOPY web /web\nCOPY --chown=1000:1001 file /seed/file\nSTOPSIGNAL SIGKILL\nEXPOSE 8000\nENTRYPOINT [\"/web\"]\n",
    );
    app
}

const DATA: &str = "volumes: {data: }\n";

fn write(node: &Node, path: &str, text: &str) -> Reply {
    post(node.gateway(), HOST, &format!("/write?{path}"), text).expect("an answer")
}

fn read(node: &Node, path: &str) -> Reply {
    get(node.gateway(), HOST, &format!("/read?{path}")).expect("an answer")
}

fn stat(node: &Node, path: &str) -> String {
    let reply = get(node.gateway(), HOST, &format!("/stat?{path}")).expect("an answer");
    assert_eq!(reply.status, 200, "{path}: {}", reply.body);
    reply.body
}

#[test]
fn a_volume_outlives_revisions_and_apps_until_it_is_to_be_removed() {
    if !is_root() {
        return;
    }
    let node = Node::start();
    let app = app("      - data:/data\n", DATA);
    node.run_in(app.path(), &["up"]).ok();
    assert_eq!(write(&node, "/data/kept", "one").body, "written");
    node.run(&["deploy", "web", "--env", "GREETING=moon"]).ok();
    assert_eq!(read(&node, "/data/kept").body, "one");

    node.run(&["volume", "ls"])
        .ok()
        .says("shop_data")
        .says("shop/web");
    node.run(&["volume", "rm", "shop_data"])
        .exits(1)
        .says("shop/web");
    node.run(&["volume", "prune", "--yes"]).ok().says("in use");
    assert_eq!(read(&node, "/data/kept").body, "one");

    node.run(&["down", "shop"]).ok();
    let volume = node.run(&["volume", "inspect", "shop_data"]).ok().json();
    let path = volume["path"].as_str().expect("a path").to_owned();
    assert_eq!(
        fs::read_to_string(Path::new(&path).join("kept")).expect("kept"),
        "one"
    );
    node.run_in(app.path(), &["up"]).ok();
    assert_eq!(read(&node, "/data/kept").body, "one");

    node.run(&["down", "shop", "--volumes"])
        .ok()
        .says("shop_data");
    assert!(!Path::new(&path).exists());
    node.run(&["volume", "inspect", "shop_data"]).exits(4);
}

#[test]
fn a_volume_outlives_a_node_that_is_killed() {
    if !is_root() {
        return;
    }
    let mut node = Node::start();
    let app = app("      - data:/data\n", DATA);
    node.run_in(app.path(), &["up"]).ok();
    assert_eq!(write(&node, "/data/kept", "one").body, "written");
    node.kill();
    let volumes = node.data.path().join("volumes");
    // What a kill in the midst of making and of removing one leaves.
    fs::create_dir_all(volumes.join(".new-half/data")).expect("a folder");
    fs::create_dir_all(volumes.join(".gone-0-old/data")).expect("a folder");
    node.serve();
    assert_eq!(read(&node, "/data/kept").body, "one");
    node.run(&["volume", "rm", "shop_data"])
        .exits(1)
        .says("in use");
    node.wait_for("the leftovers to go", |_| {
        fs::read_dir(&volumes).expect("read").count() == 1
    });
}

#[test]
fn a_volume_outlives_a_power_cut_and_its_service_comes_back() {
    if !is_root() {
        return;
    }
    let mut node = Node::start();
    let app = app("      - data:/data\n", DATA);
    node.run_in(app.path(), &["up"]).ok();
    assert_eq!(write(&node, "/data/kept", "one").body, "written");
    let pids = node.pids("web");
    node.kill();
    let bundles = node.data.path().join("replicas");
    for bundle in fs::read_dir(&bundles).expect("read").flatten() {
        let shim = fs::read_to_string(bundle.path().join("shim.pid")).expect("a shim");
        let shim = nix::unistd::Pid::from_raw(shim.trim().parse().expect("a number"));
        nix::sys::signal::kill(shim, nix::sys::signal::Signal::SIGKILL).expect("killed");
    }
    node.serve();
    node.wait_for("what was lost to be replaced", |node| {
        let left = fs::read_dir(&bundles).expect("read").count();
        let new = node.pids("web").iter().all(|pid| !pids.contains(pid));
        left == 1 && new && node.status("web")["wakefulness"] == "awake"
    });
    assert_eq!(read(&node, "/data/kept").body, "one");
}

#[test]
fn the_first_use_of_a_volume_copies_what_the_image_has_with_its_owners() {
    if !is_root() {
        return;
    }
    let node = Node::start();
    let app = app("      - data:/seed\n", DATA);
    node.run_in(app.path(), &["up"]).ok();
    assert_eq!(read(&node, "/seed/file").body, "from the image");
    assert_eq!(stat(&node, "/seed/file"), "1000 1001 644");
    let file = node.data.path().join("volumes/shop_data/data/file");
    let outside = fs::metadata(&file).expect("in the volume");
    assert_eq!((outside.uid(), outside.gid()), (1000, 1001));

    // Only the first.
    assert_eq!(write(&node, "/seed/file", "changed").status, 200);
    node.run(&["deploy", "web", "--env", "GREETING=moon"]).ok();
    assert_eq!(read(&node, "/seed/file").body, "changed");
}

#[test]
fn a_folder_of_the_machine_belongs_to_the_same_ids_inside_and_outside() {
    if !is_root() {
        return;
    }
    let node = Node::start();
    let host = tempfile::tempdir().expect("a folder");
    fs::write(host.path().join("outside"), "from outside").expect("written");
    let mounts = format!(
        "      - {0}:/host\n      - {{type: bind, source: {0}, target: /fixed, read_only: true}}\n",
        host.path().display()
    );
    let app = app(&mounts, "");
    node.run_in(app.path(), &["up"]).ok();
    assert_eq!(read(&node, "/host/outside").body, "from outside");
    assert!(stat(&node, "/host/outside").starts_with("0 0 "));
    assert_eq!(write(&node, "/host/inside", "from inside").body, "written");
    let inside = fs::metadata(host.path().join("inside")).expect("written");
    assert_eq!((inside.uid(), inside.gid()), (0, 0));
    let refused = write(&node, "/fixed/inside", "no");
    assert_eq!(refused.status, 409);
    assert!(refused.body.contains("Read-only"), "{}", refused.body);
    assert_eq!(read(&node, "/fixed/inside").body, "from inside");
    node.run(&["down", "shop", "--volumes"]).ok();
    assert!(
        host.path().join("inside").exists(),
        "what is the user's stays"
    );
}

#[test]
fn what_is_in_memory_goes_and_a_subpath_shows_a_part() {
    if !is_root() {
        return;
    }
    let node = Node::start();
    let mounts = "      - {type: tmpfs, target: /memory, tmpfs: {size: 65536}}\n      \
                  - data:/data\n      \
                  - {type: volume, source: data, target: /part, volume: {subpath: deep/er}}\n";
    let app = app(mounts, DATA);
    node.run_in(app.path(), &["up"]).ok();
    assert_eq!(write(&node, "/memory/x", "y").status, 200);
    let full = write(&node, "/memory/big", &"x".repeat(100_000));
    assert_eq!(full.status, 409, "{}", full.body);
    assert_eq!(write(&node, "/part/x", "part").status, 200);
    assert_eq!(read(&node, "/data/deep/er/x").body, "part");
    node.run(&["sleep", "web"]).ok();
    assert_eq!(read(&node, "/memory/x").status, 409, "empty at each start");
    assert_eq!(read(&node, "/part/x").body, "part");
}
