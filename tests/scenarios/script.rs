//! Playing a page: its files are written, its commands run, and what they print is compared.

use std::fs;
use std::process::Command;
use std::time::{Duration, Instant};

use crate::node::Node;
use crate::page::{self, Part};
use crate::text;

/// Long enough for a slow machine; nothing takes so long unless it is broken.
const PATIENCE: Duration = Duration::from_secs(60);

/// Plays a page, and fails with the first command that printed something else.
pub(crate) fn play(name: &str) {
    if !nix::unistd::Uid::effective().is_root() {
        println!("SKIPPED: a node's socket lies in /run, which needs root");
        return;
    }
    let path = page::folder().join(name);
    let told = fs::read_to_string(&path).expect("a page");
    let mut node = Node::start();
    let mut parts = page::parse(&told);
    let update = std::env::var_os("UPDATE").is_some();
    for part in &mut parts {
        match part {
            Part::Prose(_) => {}
            Part::File { name, content } => {
                let file = node.folder().join(&name);
                fs::create_dir_all(file.parent().expect("a folder")).expect("a folder");
                fs::write(file, content).expect("a file");
            }
            Part::Console(lines) => {
                for line in lines {
                    let printed = text::mask(&run(&mut node, &line.command), &node.known());
                    if !update {
                        assert_eq!(printed, line.output, "{name}: $ {}", line.command);
                    }
                    line.output = printed;
                }
            }
        }
    }
    if update {
        fs::write(path, page::render(&parts)).expect("to write the page");
    }
}

/// Runs a command, and gives all that it prints.
fn run(node: &mut Node, command: &str) -> String {
    let words: Vec<&str> = command.split_whitespace().collect();
    match words[..] {
        ["get", host] => node.get(host, "/"),
        ["get", host, path] => node.get(host, path),
        ["crowd", count, host, path] => node.crowd(host, path, count.parse().expect("a number")),
        ["crash", service, code] => {
            node.crash(service, code.parse().expect("an exit code"));
            String::new()
        }
        ["restart"] => {
            node.restart();
            String::new()
        }
        ["until", ..] => {
            let rest = command
                .strip_prefix("until '")
                .expect("until 'TEXT' COMMAND");
            let (text, command) = rest.split_once("' ").expect("until 'TEXT' COMMAND");
            let started = Instant::now();
            loop {
                let printed = run(node, command);
                if printed.contains(text) {
                    return printed;
                }
                assert!(started.elapsed() < PATIENCE, "{command}: {printed}");
                std::thread::sleep(Duration::from_millis(20));
            }
        }
        _ => shell(node, command),
    }
}

fn shell(node: &Node, command: &str) -> String {
    let layby = std::path::Path::new(env!("CARGO_BIN_EXE_layby"));
    let path = format!(
        "{}:{}",
        layby.parent().expect("a folder").display(),
        std::env::var("PATH").unwrap_or_default()
    );
    // Both outputs into one pipe, in the order in which they were written.
    let output = Command::new("sh")
        .args(["-c", &format!("exec 2>&1\n{command}")])
        .current_dir(node.folder())
        .env("PATH", path)
        .env("HOME", node.folder())
        .env("LAYBY_DATA", node.data())
        .env("NO_COLOR", "1")
        .env("COLUMNS", "100")
        .output()
        .expect("a shell");
    let mut printed = String::from_utf8_lossy(&output.stdout).into_owned();
    match output.status.code() {
        Some(0) => {}
        Some(code) => printed.push_str(&format!("[exit code {code}]\n")),
        None => printed.push_str("[ended by a signal]\n"),
    }
    printed
}
