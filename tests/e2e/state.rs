//! A lost machine is rebuilt from one file.

use std::fs;

use crate::apps::App;
use crate::node::{Node, is_root};

const MANIFEST: &str = "name: shop
services:
  web:
    build: .
    image: shop-web:1
    secrets: [db]
    volumes: [\"data:/data\"]
    x-layby: {update_order: start-first, sleep: {doze_after: never, sleep_after: never}}
secrets:
  db: {external: true}
volumes:
  data: {}
";

#[test]
fn a_lost_machine_is_rebuilt_from_one_file() {
    if !is_root() {
        return;
    }
    let lost = Node::start();
    let app = App::compose(MANIFEST);
    app.write("value", "layby-e2e-state");
    app.write("passphrase", "correct horse battery staple\n");
    let run = |node: &Node, args: &[&str]| node.run_in(app.path(), args);
    run(&lost, &["secret", "set", "db", "--file", "value"]).ok();
    run(&lost, &["up"]).ok();
    run(&lost, &["deploy", "web", "--env", "GREETING=moon"]).ok();
    run(&lost, &["scale", "web", "2"]).ok();
    let file = ["node.state", "--passphrase-file", "passphrase"];
    let export = [&["state", "export"], &file[..], &["--images"]].concat();
    run(&lost, &export).ok().says("1 image is in it");
    let image = lost.status("web")["image"].clone();
    drop(lost);

    let mut new = Node::not_started(tempfile::tempdir().expect("a folder"));
    let import = [&["state", "import"], &file[..]].concat();
    let done = run(&new, &import).ok();
    done.says("shop/web  put back").says("1 image came with it");
    fs::remove_file(app.path().join("web")).expect("nothing can be built");
    new.serve();
    new.wait_for("two replicas to be ready", |node| {
        node.status("web")["replicas_ready"] == 2
    });
    let status = new.status("web");
    assert_eq!((&status["revision"], &status["image"]), (&2.into(), &image));
    assert_eq!(new.get("web.shop.localhost", "/").body, "hello moon");
    let secret = new.run(&["cp", "web:/run/secrets/db", "-"]).ok().out;
    assert!(secret.contains("layby-e2e-state"), "{secret}");
    new.run(&["volume", "ls"]).ok().says("shop_data");
    new.run(&["rollback", "web"]).ok();
    assert_eq!(new.get("web.shop.localhost", "/").body, "hello world");
}
