//! Secrets: containers get them, and no disk does.

use std::fs;
use std::path::Path;

use crate::apps::App;
use crate::node::{Node, is_root};

/// What is looked for; each is in no other file of the machine.
const VALUES: [&str; 3] = [
    "layby-e2e-hunter-1",
    "layby-e2e-hunter-2",
    "layby-e2e-hunter-3",
];

const MANIFEST: &str = "name: vault
services:
  web:
    build: .
    image: vault-web:1
    secrets: [file, {source: outside, target: /etc/keys/outside, uid: '33', mode: 0400}]
secrets:
  file: {file: ./file.txt}
  outside: {external: true}
";

/// Every regular file below a folder that has one of the values in it.
fn leaks(dir: &Path, found: &mut Vec<String>) {
    let Ok(entries) = fs::read_dir(dir) else {
        return;
    };
    for entry in entries.flatten() {
        let path = entry.path();
        let Ok(kind) = entry.file_type() else {
            continue;
        };
        if kind.is_dir() {
            leaks(&path, found);
        } else if kind.is_file() {
            let bytes = fs::read(&path).unwrap_or_default();
            let has = |value: &str| {
                bytes
                    .windows(value.len())
                    .any(|part| part == value.as_bytes())
            };
            if VALUES.iter().any(|value| has(value)) {
                found.push(path.display().to_string());
            }
        }
    }
}

#[test]
fn a_secret_reaches_its_container_and_no_disk_log_event_history_or_process_list() {
    if !is_root() {
        return;
    }
    let mut node = Node::start();
    let app = App::compose(MANIFEST);
    app.write("file.txt", VALUES[0]);
    app.write(
        "Dockerfile",
        "FROM scratch\nCOPY web /web\nENTRYPOINT [\"/web\"]\nEXPOSE 8000\n",
    );
    // A build context is kept as it was sent: what is secret has no place in one.
    app.write(".dockerignore", "value\nfile.txt\nout\n");
    let value = app.path().join("value");
    fs::write(&value, VALUES[1]).expect("written");
    let set = [
        "secret",
        "set",
        "outside",
        "--file",
        value.to_str().expect("UTF-8"),
    ];
    node.run(&set).ok().says("version 1");
    node.run_in(app.path(), &["up"]).ok().says("live");
    let read = |node: &Node, path: &str, value: &str| {
        let to = app.path().join("out");
        let from = format!("web:{path}");
        node.run(&["cp", &from, to.to_str().expect("UTF-8")]).ok();
        assert_eq!(fs::read_to_string(&to).expect("a file"), value, "{path}");
        fs::remove_file(&to).expect("removed");
    };
    read(&node, "/run/secrets/file", VALUES[0]);
    read(&node, "/etc/keys/outside", VALUES[1]);
    // Another value: another revision.
    fs::write(&value, VALUES[2]).expect("written");
    node.run(&set)
        .ok()
        .says("version 2")
        .says("live, revision 2");
    read(&node, "/etc/keys/outside", VALUES[2]);
    node.run(&["secret", "rotate-key"]).ok();
    // Asleep, the node killed, woken: the shim makes the next container from what it has in memory.
    node.run(&["sleep", "web"]).ok();
    node.kill();
    node.serve();
    node.run(&["wake", "web"]).ok();
    read(&node, "/etc/keys/outside", VALUES[2]);
    for command in [
        &["secret", "ls", "--json"][..],
        &["status", "web", "--json"],
        &["history", "web", "--json"],
        &["events", "--json"],
        &["logs", "web"],
        &["diff", "web", "1", "2"],
    ] {
        let said = node.run(command).ok();
        for value in VALUES {
            let all = format!("{}{}", said.out, said.err);
            assert!(!all.contains(value), "{command:?} says {value}");
        }
    }
    let mut found = Vec::new();
    leaks(node.data.path(), &mut found);
    leaks(Path::new("/run/layby"), &mut found);
    for process in fs::read_dir("/proc").expect("processes").flatten() {
        let line = fs::read(process.path().join("cmdline")).unwrap_or_default();
        let line = String::from_utf8_lossy(&line).into_owned();
        if VALUES.iter().any(|value| line.contains(value)) {
            found.push(line);
        }
    }
    assert_eq!(found, [] as [String; 0]);
}
