//! A node elsewhere: over TLS, with its certificate pinned and a token that may only look.

use std::io::Write;
use std::path::Path;
use std::process::Stdio;
use std::time::Instant;

use crate::node::{Answer, Node, PATIENCE, is_root};

/// `layby ARGS` of somebody on another machine: with settings of their own, and no data.
fn elsewhere(node: &Node, home: &Path, args: &[&str], stdin: &str) -> Answer {
    let mut command = node.command(home, args);
    command
        .env_remove("LAYBY_DATA")
        .env("XDG_CONFIG_HOME", home);
    command.stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = command.stderr(Stdio::piped()).spawn().expect("layby runs");
    let mut input = child.stdin.take().expect("piped");
    let _ = input.write_all(stdin.as_bytes()); // most read nothing
    drop(input);
    Answer::new(args, &child.wait_with_output().expect("ended"))
}

#[test]
fn a_token_that_may_look_logs_in_with_a_pinned_certificate_and_is_refused_what_changes_something() {
    if !is_root() {
        return;
    }
    let mut node = Node::not_started(tempfile::tempdir().expect("a folder"));
    let api = format!("{}:0", node.publish_on);
    node.env.push(("LAYBY_API", api));
    node.env.push(("LAYBY_KEEP", "true".to_owned()));
    node.serve();
    let version = node.run(&["version", "--json"]).ok().json()["node"].clone();
    let text = |name: &str| version[name].as_str().expect("it is on HTTPS").to_owned();
    let (url, fingerprint) = (format!("https://{}", text("api")), text("api_fingerprint"));
    let token = node
        .run(&["token", "create", "eye", "--role", "read", "--json"])
        .ok();
    let token = token.json()["secret"]
        .as_str()
        .expect("a secret")
        .to_owned();

    let home = tempfile::tempdir().expect("a folder");
    let run = |args: &[&str], stdin: &str| elsewhere(&node, home.path(), args, stdin);
    let login = [
        "login",
        &url,
        "--name",
        "far",
        "--token-stdin",
        "--fingerprint",
    ];
    let other = "0".repeat(64);
    run(&[&login[..], &[&other]].concat(), &token)
        .exits(1)
        .says("another certificate");
    run(&[&login[..], &[&fingerprint]].concat(), "lyb_wrong")
        .exits(1)
        .says("not known");
    run(&[&login[..], &[&fingerprint]].concat(), &token).ok();
    run(&["context", "ls"], "").ok().says("far *");
    run(&["ls"], "").ok();
    run(&["deploy", "web"], "").exits(4).says("web");
    run(
        &["power", "set", "huge", "--cpu", "1", "--memory", "1g"],
        "",
    )
    .exits(1)
    .says("this token has the role read, and this takes the role admin");
    run(
        &["state", "export", "all.state", "--passphrase-file", "-"],
        "correct horse",
    )
    .exits(1)
    .says("this takes the role admin");
    assert!(!home.path().join("all.state").exists());

    // A node that refuses is a node: nothing is done on this machine instead.
    let stale = node.run(&["token", "create", "old", "--role", "admin", "--json"]);
    let stale = stale.ok().json()["secret"].clone();
    let old = [
        &login[..2],
        &["--name", "old", "--token-stdin", "--fingerprint"],
        &[&fingerprint],
    ];
    run(&old.concat(), stale.as_str().expect("a secret")).ok();
    node.run(&["token", "rm", "old"]).ok();
    let data = home.path().join("data");
    let here = data.to_str().expect("a path");
    std::fs::write(home.path().join("Dockerfile"), "FROM scratch\n").expect("a file");
    std::fs::write(home.path().join("in.state"), "").expect("a file");
    for args in [
        &["state", "export", "all.state", "--passphrase-file", "-"][..],
        &["state", "export", "-", "--passphrase-file", "-"],
        &["state", "import", "in.state", "--passphrase-file", "-"],
        &["build", "."],
    ] {
        let args = [&["--data", here, "--context", "old"], args].concat();
        run(&args, "correct horse").exits(1).says("not known here");
    }
    assert!(!data.exists() && !home.path().join("all.state").exists());
    run(&["context", "use", "local"], "").ok();
    run(&["--context", "far", "version"], "").ok().says("node");
    node.wait_for("both to be in the log", |node| {
        let audit = node.run(&["audit", "--who", "eye"]).ok().out;
        audit.contains("power-set") && audit.contains("403")
    });
    node.run(&["audit"]).ok().says("login-failed");

    // Killed, the node refuses no connection: the next one answers it.
    let pid = version["pid"].as_u64().expect("a pid");
    let pid = i32::try_from(pid).expect("a pid");
    let killed = nix::unistd::Pid::from_raw(pid);
    nix::sys::signal::kill(killed, nix::sys::signal::Signal::SIGKILL).expect("killed");
    let begun = Instant::now();
    run(&["--context", "far", "ls"], "").ok();
    assert!(begun.elapsed() < PATIENCE);
    node.wait_for("the next node", |node| {
        let now = node.run(&["version", "--json"]).json()["node"]["pid"].clone();
        now.is_number() && now != version["pid"]
    });
}
