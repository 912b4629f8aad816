//! `layby watch`: files that change on this side show in the containers, are built, or have them restarted.

use std::fs::{self, File};
use std::process::{Child, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::apps::App;
use crate::node::{Node, is_root};

const HOST: &str = "web.shop.localhost";

/// A watch that is under way; it is ended when this is dropped.
struct Watch {
    child: Child,
    log: std::path::PathBuf,
}

impl Watch {
    fn begin(node: &Node, app: &App) -> Self {
        let log = node.data.path().join("watch.log");
        let out = File::create(&log).expect("a file");
        let child = node
            .command(app.path(), &["watch", "--no-up"])
            .stderr(Stdio::from(out.try_clone().expect("the file")))
            .stdout(out)
            .spawn()
            .expect("layby runs");
        let watch = Self { child, log };
        node.wait_for("the watch", |_| watch.said().contains("Watching"));
        watch
    }

    fn said(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// As by Ctrl-C.
    fn end(mut self) -> Option<i32> {
        let pid = i32::try_from(self.child.id()).expect("a pid");
        kill(Pid::from_raw(pid), Signal::SIGINT).expect("sent");
        self.child.wait().expect("an end").code()
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- the watch said:\n{}", self.said());
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn files_that_change_are_copied_restart_what_runs_and_are_built() {
    if !is_root() {
        return;
    }
    let node = Node::start();
    let app = App::compose(
        "name: shop\nservices:\n  web:\n    build: .\n    image: shop-web:1\n    expose: [\"8000\"]\n    develop:\n      watch:\n\
         \x20       - {path: pages, action: sync, target: /pages, ignore: [drafts/], initial_sync: true}\n\
         \x20       - {path: conf.ini, action: sync+restart, target: /etc/conf.ini}\n\
         \x20       - {path: Dockerfile, action: rebuild}\n",
    );
    for folder in ["pages", "pages/drafts"] {
        fs::create_dir(app.path().join(folder)).expect("a folder");
    }
    app.write("pages/first", "from the beginning");
    app.write("conf.ini", "");
    node.run_in(app.path(), &["up"]).ok();
    let page = |path: &str| node.get(HOST, &format!("/read?{path}")).body;
    let shows = |path: &str, text: &str| {
        node.wait_for(text, |_| page(path) == text);
    };
    let watch = Watch::begin(&node, &app);
    shows("/pages/first", "from the beginning");

    app.write("pages/drafts/x", "unseen");
    app.write("pages/second", "two");
    shows("/pages/second", "two");
    app.write("pages/second", "changed");
    shows("/pages/second", "changed");
    fs::remove_file(app.path().join("pages/second")).expect("removed");
    node.wait_for("it to be gone", |_| {
        page("/pages/second").contains("No such file")
    });
    assert!(page("/pages/drafts/x").contains("No such file"));

    let (before, status) = (node.pids("web"), node.status("web"));
    app.write("conf.ini", "colour = red");
    shows("/etc/conf.ini", "colour = red");
    node.wait_for("a restart", |node| {
        let now = node.pids("web");
        now.len() == 1 && now != before
    });
    let id = |status: &serde_json::Value| status["replicas"][0]["id"].clone();
    assert_eq!(
        id(&node.status("web")),
        id(&status),
        "it is the same replica"
    );
    shows("/pages/first", "from the beginning");

    app.write(
        "Dockerfile",
        "FROM scratch\nCOPY web /web\nENV GREETING=again\nSTOPSIGNAL SIGKILL\nENTRYPOINT [\"/web\"]\n",
    );
    node.wait_for("the new image", |node| {
        node.get(HOST, "/").body == "hello again"
    });
    shows("/pages/first", "from the beginning");
    app.write("Dockerfile", "FROM scratch\nNOTHING\n");
    node.wait_for("the failure", |_| watch.said().contains("not rebuilt"));
    assert_eq!(node.get(HOST, "/").body, "hello again");
    let said = watch.said();
    assert!(said.contains("web  pages/second  copied, "), "{said}");
    assert!(
        said.contains("web  conf.ini  copied, restarted, "),
        "{said}"
    );
    assert!(said.contains("web  Dockerfile  built and live, "), "{said}");
    assert_eq!(watch.end(), Some(0));
    assert_eq!(node.get(HOST, "/").body, "hello again");
}
