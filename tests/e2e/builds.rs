//! `layby build` and `build:` with RUN: real commands in the embedded runtime, their secrets, and what goes wrong.

use std::fs;
use std::path::Path;
use std::process::Command;

use tempfile::TempDir;

use crate::apps::{App, WEB};
use crate::node::{Node, is_root, web_program};

/// The folder of an image whose RUN steps use the web program: `web show PATH` and such are its commands.
fn folder(dockerfile: &str) -> TempDir {
    let dir = TempDir::new().expect("a folder");
    fs::copy(web_program(), dir.path().join("web")).expect("the program");
    fs::write(dir.path().join("Dockerfile"), dockerfile).expect("a file");
    dir
}

/// Whether something below a folder contains a text.
fn holds(dir: &Path, text: &str) -> bool {
    let output = Command::new("grep").args(["-rlaF", text]).arg(dir).output();
    !output.expect("grep runs").stdout.is_empty()
}

#[test]
fn what_run_makes_is_served_and_an_unchanged_build_runs_nothing() {
    if !is_root() {
        return;
    }
    let node = Node::start();
    let app = App::compose(WEB);
    app.write(
        "Dockerfile",
        "FROM scratch AS made\nCOPY web /web\nRUN [\"/web\", \"write\", \"/page\", \"made by RUN\"]\n\
         FROM scratch\nCOPY --from=made /web /page /\nSTOPSIGNAL SIGKILL\nENTRYPOINT [\"/web\"]\n",
    );
    node.run_in(app.path(), &["up"]).ok().says("RUN");
    assert_eq!(
        node.get("web.shop.localhost", "/read?/page").body,
        "made by RUN"
    );
    let again = node.run_in(app.path(), &["up"]).ok();
    assert!(again.out.contains("(cached)"), "{}", again.out);
    assert!(!again.out.contains("(done)"), "{}", again.out);
    // The node keeps the context: what changes in it shows, though it is as long as before.
    app.write(
        "Dockerfile",
        "FROM scratch\nCOPY web page /\nSTOPSIGNAL SIGKILL\nENTRYPOINT [\"/web\"]\n",
    );
    for page in ["one", "two"] {
        app.write("page", page);
        node.run_in(app.path(), &["up"]).ok();
        let served = node.get("web.shop.localhost", "/read?/page").body;
        assert_eq!(served, page);
    }
}

#[test]
fn a_failing_run_shows_its_output_and_what_ran_before_runs_on() {
    if !is_root() {
        return;
    }
    let node = Node::start();
    let app = App::compose(WEB);
    node.run_in(app.path(), &["up"]).ok();
    app.write(
        "Dockerfile",
        "FROM scratch\nCOPY web /web\n\nRUN [\"/web\", \"fail\", \"7\", \"the reason why\"]\nENTRYPOINT [\"/web\"]\n",
    );
    let failed = node.run_in(app.path(), &["up"]).exits(1);
    failed
        .says("the reason why")
        .says("Dockerfile:4: RUN [\"/web\", \"fail\"")
        .says("ended with exit code 7");
    assert_eq!(node.get("web.shop.localhost", "/").body, "hello world");
    node.run_in(
        app.path(),
        &["build", ".", "-t", "broken", "--progress", "quiet"],
    )
    .exits(1)
    .says("the reason why")
    .says("ended with exit code 7");
    let images = node.run(&["image", "ls"]).ok().out;
    assert!(!images.contains("broken"), "{images}");
}

#[test]
fn a_build_secret_reaches_its_step_and_nothing_else() {
    if !is_root() {
        return;
    }
    let secret = "correct-horse-battery-staple";
    let node = Node::start();
    let dir = folder(
        "FROM scratch\nCOPY web /web\n\
         RUN --mount=type=secret,id=token,required [\"/web\", \"length\", \"/run/secrets/token\", \"/length\"]\n\
         RUN [\"/web\", \"missing\", \"/run/secrets/token\"]\n",
    );
    let file = TempDir::new().expect("a folder");
    fs::write(file.path().join("token"), secret).expect("a file");
    let source = format!("id=token,src={}", file.path().join("token").display());
    let args = ["build", ".", "-t", "with-secret", "--secret", &source];
    let built = node.run_in(dir.path(), &args).ok();
    assert!(!built.out.contains(secret) && !built.err.contains(secret));
    assert!(!holds(node.data.path(), secret), "the node keeps it");
    // Other builds of the machine have theirs there for a moment.
    let left = || {
        let entries = fs::read_dir("/dev/shm").into_iter().flatten().flatten();
        let names = entries.map(|entry| entry.file_name());
        names
            .filter(|name| name.to_string_lossy().starts_with(".layby-secret"))
            .count()
    };
    let started = std::time::Instant::now();
    while left() > 0 {
        assert!(started.elapsed().as_secs() < 30, "its file stays");
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    let archive = file.path().join("image.tar");
    let archive = archive.display().to_string();
    node.run(&["image", "save", "with-secret", "-o", &archive])
        .ok();
    let unpacked = file.path().join("unpacked");
    let store = layby_image::Store::open(&unpacked).expect("a store");
    let images = store
        .load(fs::File::open(&archive).expect("it"))
        .expect("it");
    let layers = store.layers(&images[0].digest).expect("layers");
    let length = layers
        .iter()
        .find_map(|dir| fs::read_to_string(dir.join("length")).ok());
    assert_eq!(length, Some(secret.len().to_string()));
    assert!(!holds(&unpacked, secret), "a layer has it");
    // Without it the step cannot be carried out, and says so.
    node.run_in(dir.path(), &["build", ".", "--no-cache"])
        .exits(1)
        .says("needs the secret \"token\"");
}

#[test]
fn a_compose_file_names_secrets_contexts_and_a_dockerfile_of_its_own() {
    if !is_root() {
        return;
    }
    let node = Node::start();
    let app = App::compose(
        "name: shop\nservices:\n  web:\n    build:\n      context: .\n      dockerfile_inline: |\n        FROM scratch\n        \
         COPY web /web\n        COPY --from=more page /page\n        RUN --mount=type=secret,id=s [\"/web\", \"length\", \"/run/secrets/s\", \"/length\"]\n        \
         STOPSIGNAL SIGKILL\n        EXPOSE 8000\n        ENTRYPOINT [\"/web\"]\n      additional_contexts: {more: ./more}\n      secrets: [s]\n      \
         labels: {made: here}\n      tags: [\"shop:other\"]\nsecrets: {s: {file: ./s.txt}}\n",
    );
    app.write("s.txt", "12345");
    fs::create_dir(app.path().join("more")).expect("a folder");
    app.write("more/page", "from another context");
    node.run_in(app.path(), &["up"]).ok().says("live");
    let get = |path: &str| node.get("web.shop.localhost", path).body;
    assert_eq!(get("/read?/page"), "from another context");
    assert_eq!(get("/read?/length"), "5");
    node.run(&["image", "ls"]).ok().says("shop:other");
}

#[test]
fn what_is_wrong_with_a_build_is_one_sentence() {
    if !is_root() {
        return;
    }
    let node = Node::start();
    let dir = folder("FROM scratch\nCOPY nothing /\n");
    let mistakes: [(&[&str], &str); 8] = [
        (
            &["build", "."],
            "Dockerfile:2: COPY does not find \"nothing\"",
        ),
        (
            &["build", "nowhere"],
            "the build context nowhere is not a folder",
        ),
        (&["build", "https://x/y.git"], "is a folder of this machine"),
        (&["build", ".", "-f", "missing"], "cannot read missing"),
        (
            &["build", ".", "--secret", "id=a,src=none"],
            "cannot read the secret ./none",
        ),
        (
            &["build", ".", "--secret", "hunter2"],
            "a --secret is id=NAME",
        ),
        (&["build", ".", "--target", "x"], "there is no stage \"x\""),
        (
            &["build", ".", "--platform", "windows/amd64"],
            "is no platform",
        ),
    ];
    for (args, text) in mistakes {
        let answer = node.run_in(dir.path(), args).exits(1).says(text);
        assert!(!answer.err.contains("panicked"), "{}", answer.err);
        assert!(!answer.err.contains("hunter2"));
    }
}
