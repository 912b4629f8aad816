//! `RUN --mount=type=ssh`: OpenSSH's own agent on the user's side, asked by OpenSSH's own client in a step.

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::node::{Node, is_root, web_program};

/// Lists the keys of an agent.
const LIST: &str = "/usr/bin/ssh-add";

/// An agent with one key, which is in no file any more.
struct Agent {
    dir: TempDir,
    process: Child,
}

impl Agent {
    fn start() -> Self {
        let dir = TempDir::new().expect("a folder");
        let socket = dir.path().join("socket");
        let process = Command::new("ssh-agent")
            .args(["-D", "-a"])
            .arg(&socket)
            .stdout(Stdio::null())
            .spawn()
            .expect("ssh-agent runs");
        let agent = Self { dir, process };
        let started = Instant::now();
        while !socket.exists() {
            assert!(started.elapsed() < Duration::from_secs(20), "no socket");
            std::thread::sleep(Duration::from_millis(5));
        }
        let key = agent.dir.path().join("key");
        make_key(&key, "of-the-agent");
        let mut add = Command::new(LIST);
        add.arg("-q").arg(&key).env("SSH_AUTH_SOCK", &socket);
        assert!(add.status().expect("ssh-add runs").success());
        fs::remove_file(key).expect("removed");
        agent
    }

    fn socket(&self) -> String {
        self.dir.path().join("socket").display().to_string()
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn make_key(at: &Path, comment: &str) {
    let made = Command::new("ssh-keygen")
        .args(["-q", "-t", "ed25519", "-N", "", "-C", comment, "-f"])
        .arg(at)
        .status();
    assert!(made.expect("ssh-keygen runs").success());
}

/// Whether OpenSSH's client is there; where all tests are to run, it must be.
fn has_tools() -> bool {
    let there = Path::new(LIST).exists();
    assert!(
        there || std::env::var_os("CI").is_none(),
        "openssh-client is not installed"
    );
    if !there {
        println!("SKIPPED: needs Debian's openssh-client");
    }
    there
}

/// A build context with `ssh-add` and what it is linked to, the web program, and this Dockerfile.
fn folder(dockerfile: &str) -> TempDir {
    let dir = TempDir::new().expect("a folder");
    let linked = Command::new("ldd").arg(LIST).output().expect("ldd runs");
    let linked = String::from_utf8(linked.stdout).expect("text");
    let words = linked.split_whitespace().chain([LIST]);
    for path in words.filter(|word| word.starts_with('/')) {
        let to = dir.path().join("root").join(path.trim_start_matches('/'));
        fs::create_dir_all(to.parent().expect("a folder")).expect("folders");
        fs::copy(path, to).expect("copied");
    }
    fs::copy(web_program(), dir.path().join("root/web")).expect("copied");
    fs::write(dir.path().join("Dockerfile"), dockerfile).expect("a file");
    dir
}

#[test]
fn a_step_lists_the_keys_of_the_users_agent_and_the_next_one_finds_no_trace_of_it() {
    if !is_root() || !has_tools() {
        return;
    }
    let node = Node::start();
    let agent = Agent::start();
    let dir = folder(
        "FROM scratch\nCOPY root /\n\
         RUN --mount=type=ssh,required,uid=7,mode=0666 [\"/usr/bin/ssh-add\", \"-l\"]\n\
         RUN [\"/web\", \"missing\", \"/run/buildkit/ssh_agent.0\"]\n\
         EXPOSE 8000\nSTOPSIGNAL SIGKILL\nENTRYPOINT [\"/web\"]\n",
    );
    let build = |more: &[&str]| {
        let args = [&["build", ".", "--no-cache", "--progress", "plain"], more].concat();
        let mut command = node.command(dir.path(), &args);
        command.env("SSH_AUTH_SOCK", agent.socket());
        crate::node::Answer::new(&args, &command.output().expect("layby runs"))
    };
    build(&["--ssh", "default"])
        .ok()
        .says("of-the-agent (ED25519)");
    // A key that is in no agent.
    let key = agent.dir.path().join("alone");
    make_key(&key, "of-a-file");
    build(&["--ssh", &format!("default={}", key.display())])
        .ok()
        .says("of-a-file (ED25519)");
    for (options, text) in [
        (
            &[][..],
            "Dockerfile:3: RUN --mount needs the SSH agent \"default\"",
        ),
        (&["--ssh", "other"], "needs the SSH agent \"default\""),
        (
            &["--ssh", "default=/nowhere"],
            "cannot read /nowhere for --ssh",
        ),
        (&["--ssh", "=x"], "a --ssh is ID"),
    ] {
        build(options).exits(1).says(text);
    }
    let mut alone = node.command(dir.path(), &["build", ".", "--ssh", "default"]);
    let alone = alone
        .env_remove("SSH_AUTH_SOCK")
        .output()
        .expect("layby runs");
    crate::node::Answer::new(&["build"], &alone)
        .exits(1)
        .says("SSH_AUTH_SOCK is not set");

    let compose = format!(
        "name: shop\nservices:\n  web:\n    build: {{context: ., no_cache: true, ssh: {{default: {}}}}}\n",
        agent.socket()
    );
    fs::write(dir.path().join("compose.yaml"), compose).expect("a file");
    node.run_in(dir.path(), &["up"])
        .ok()
        .says("of-the-agent (ED25519)")
        .says("live");
}
