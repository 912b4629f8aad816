//! A node of a test's own: data in a temporary directory, ports on a loopback address of its own.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::{Duration, Instant};

use serde_json::Value;
use sha2::{Digest, Sha256};
use tempfile::TempDir;

/// The program under test.
pub(crate) const LAYBY: &str = env!("CARGO_BIN_EXE_layby");
/// Long enough for a slow machine; nobody waits for it unless something is wrong.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// Where the node with this data directory has its sockets.
pub(crate) fn run_dir(data: &Path) -> PathBuf {
    let data = data.canonicalize().expect("it is there");
    let digest = Sha256::digest(data.as_os_str().as_encoded_bytes());
    let node: String = digest[..4].iter().map(|b| format!("{b:02x}")).collect();
    Path::new("/run/layby").join(node)
}

/// Whether containers can be made; says so if not.
pub(crate) fn is_root() -> bool {
    let root = nix::unistd::geteuid().is_root();
    if !root {
        println!("SKIPPED: containers need root");
    }
    root
}

/// A node in the foreground, taken down with all that it made when dropped.
pub(crate) struct Node {
    pub(crate) data: TempDir,
    pub(crate) publish_on: Ipv4Addr,
    /// Further variables of its process, from its next start on.
    pub(crate) env: Vec<(&'static str, String)>,
    /// Where its gateway is, if a keeper holds that; the process that is started is the keeper.
    kept: Option<SocketAddr>,
    child: Option<Child>,
}

impl Node {
    /// Starts a node and waits until it answers.
    pub(crate) fn start() -> Self {
        let data = tempfile::Builder::new()
            .prefix("layby-e2e-")
            .tempdir()
            .expect("a temporary directory");
        Self::start_on(data)
    }

    /// Starts a node below a keeper, which starts it again when it dies.
    pub(crate) fn start_kept() -> Self {
        let data = tempfile::Builder::new()
            .prefix("layby-e2e-")
            .tempdir()
            .expect("a temporary directory");
        let mut node = Self::not_started(data);
        // Nobody else asks for ports of the address that its published ports listen on.
        let free = TcpListener::bind((node.publish_on, 0)).and_then(|it| it.local_addr());
        node.kept = Some(free.expect("a free port"));
        node.serve();
        node
    }

    /// Starts a node on data that may be there already.
    pub(crate) fn start_on(data: TempDir) -> Self {
        let mut node = Self::not_started(data);
        node.serve();
        node
    }

    /// The place of a node that is not started yet.
    pub(crate) fn not_started(data: TempDir) -> Self {
        static NEXT: AtomicU8 = AtomicU8::new(1);
        let pid = std::process::id().to_be_bytes();
        let publish_on = Ipv4Addr::new(
            127,
            64 + pid[2] % 64,
            pid[3],
            NEXT.fetch_add(1, Ordering::SeqCst),
        );
        Self {
            data,
            publish_on,
            env: Vec::new(),
            kept: None,
            child: None,
        }
    }

    /// Starts the node's process (again), and waits until it answers.
    pub(crate) fn serve(&mut self) {
        self.spawn();
        self.wait_for("the node to answer", |node| node.answers());
    }

    /// The same for one that may end before it answers; whether it did answer.
    pub(crate) fn serve_or_die(&mut self) -> bool {
        self.spawn();
        let started = Instant::now();
        while !self.has_died() {
            if self.answers() {
                return true;
            }
            assert!(
                started.elapsed() < PATIENCE,
                "it neither answers nor ends: {}",
                self.story()
            );
            std::thread::sleep(Duration::from_millis(20));
        }
        false
    }

    fn answers(&self) -> bool {
        self.run(&["version", "--json"]).json()["node"].is_object()
    }

    fn spawn(&mut self) {
        let log = std::fs::File::options()
            .create(true)
            .append(true)
            .open(self.data.path().join("test.log"))
            .expect("a log file");
        let (http, keep) = match self.kept {
            Some(addr) => (addr.to_string(), &["--keep"][..]),
            None => ("127.0.0.1:0".to_owned(), &[][..]),
        };
        let child = Command::new(LAYBY)
            .args([
                "serve",
                "--http",
                &http,
                "--publish-on",
                &self.publish_on.to_string(),
            ])
            .args(keep)
            .env("LAYBY_DATA", self.data.path())
            .env("LAYBY_LOG", "info")
            .envs(self.env.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a second handle"))
            .stderr(log)
            .process_group(0)
            .spawn()
            .expect("layby starts");
        self.child = Some(child);
    }

    /// Ends the node's process as a power cut of its own would; containers go on.
    pub(crate) fn kill(&mut self) {
        let mut child = self.child.take().expect("the node runs");
        child.kill().expect("killed");
        child.wait().expect("reaped");
    }

    /// Whether the node's process has ended by itself; it can be started again then.
    pub(crate) fn has_died(&mut self) -> bool {
        let child = self.child.as_mut();
        let died = child.is_none_or(|child| !matches!(child.try_wait(), Ok(None)));
        if died {
            self.child = None;
        }
        died
    }

    /// Runs `layby ARGS` against this node.
    pub(crate) fn run(&self, args: &[&str]) -> Answer {
        self.run_in(Path::new("/"), args)
    }

    /// The same from the folder `dir`.
    pub(crate) fn run_in(&self, dir: &Path, args: &[&str]) -> Answer {
        let output = self.command(dir, args).output().expect("layby runs");
        Answer::new(args, &output)
    }

    /// The command, for tests that go on while it runs.
    pub(crate) fn command(&self, dir: &Path, args: &[&str]) -> Command {
        let mut command = Command::new(LAYBY);
        command
            .args(args)
            .current_dir(dir)
            .env("LAYBY_DATA", self.data.path())
            .stdin(Stdio::null());
        command
    }

    /// `status --json NAME`.
    pub(crate) fn status(&self, name: &str) -> Value {
        self.run(&["status", "--json", name]).ok().json()
    }

    /// Where the gateway answers.
    pub(crate) fn gateway(&self) -> SocketAddr {
        let version = self.run(&["version", "--json"]).ok().json();
        version["node"]["http"]
            .as_str()
            .and_then(|text| text.parse().ok())
            .expect("an address")
    }

    /// `GET path` through the gateway, with `host` as the Host header.
    pub(crate) fn get(&self, host: &str, path: &str) -> Reply {
        get(self.gateway(), host, path).expect("an answer")
    }

    /// Waits until `condition` holds; else the test ends with what the node said.
    pub(crate) fn wait_for(&self, what: &str, mut condition: impl FnMut(&Self) -> bool) {
        let started = Instant::now();
        while !condition(self) {
            assert!(
                started.elapsed() < PATIENCE,
                "waited in vain for {what}; the node said:\n{}",
                self.story()
            );
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Waits until `name` shows this wakefulness.
    pub(crate) fn wait_until(&self, name: &str, wakefulness: &str) {
        self.wait_for(&format!("{name} to be {wakefulness}"), |node| {
            node.status(name)["wakefulness"] == wakefulness
        });
    }

    /// The init processes of the service's containers.
    pub(crate) fn pids(&self, name: &str) -> Vec<i64> {
        let status = self.status(name);
        let replicas = status["replicas"].as_array().cloned().unwrap_or_default();
        let containers = replicas.iter().flat_map(|replica| {
            replica["containers"]
                .as_array()
                .cloned()
                .unwrap_or_default()
        });
        containers
            .filter_map(|container| container["pid"].as_i64())
            .collect()
    }

    /// What the node wrote, for a test that failed.
    pub(crate) fn story(&self) -> String {
        std::fs::read_to_string(self.data.path().join("test.log")).unwrap_or_default()
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- the node said:\n{}", self.story());
        }
        if self.child.is_none() && !self.answers() {
            self.spawn(); // so that it takes down what the killed one left
            let started = Instant::now();
            while !self.answers() && started.elapsed() < PATIENCE {
                std::thread::sleep(Duration::from_millis(20)); // no assertion here: this may run while a test fails
            }
        }
        let _ = self
            .command(Path::new("/"), &["node", "stop", "--all"])
            .output();
        if let Some(mut child) = self.child.take() {
            let started = Instant::now();
            while matches!(child.try_wait(), Ok(None)) && started.elapsed() < PATIENCE {
                std::thread::sleep(Duration::from_millis(10));
            }
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// What a command said.
pub(crate) struct Answer {
    pub(crate) command: String,
    pub(crate) code: i32,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Answer {
    pub(crate) fn new(args: &[&str], output: &Output) -> Self {
        Self {
            command: format!("layby {}", args.join(" ")),
            code: output.status.code().unwrap_or(-1),
            out: String::from_utf8_lossy(&output.stdout).into_owned(),
            err: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    /// It ended with 0.
    #[track_caller]
    pub(crate) fn ok(self) -> Self {
        self.exits(0)
    }

    /// It ended with `code`.
    #[track_caller]
    pub(crate) fn exits(self, code: i32) -> Self {
        assert_eq!(
            self.code, code,
            "{}\n--- out:\n{}\n--- err:\n{}",
            self.command, self.out, self.err
        );
        self
    }

    /// It said `text`, on either output.
    #[track_caller]
    pub(crate) fn says(self, text: &str) -> Self {
        let said = self.out.contains(text) || self.err.contains(text);
        assert!(
            said,
            "{} did not say {text:?}\n--- out:\n{}\n--- err:\n{}",
            self.command, self.out, self.err
        );
        self
    }

    /// Its output as JSON; null where it is none.
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.out).unwrap_or(Value::Null)
    }
}

/// An HTTP answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) body: String,
}

/// `GET path` on a connection of its own.
pub(crate) fn get(addr: SocketAddr, host: &str, path: &str) -> std::io::Result<Reply> {
    let mut stream = TcpStream::connect_timeout(&addr, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE + PATIENCE))?;
    write!(
        stream,
        "GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n"
    )?;
    read_reply(&mut BufReader::new(stream))
}

/// `POST path` with a JSON body, on a connection of its own.
pub(crate) fn post(addr: SocketAddr, host: &str, path: &str, body: &str) -> std::io::Result<Reply> {
    let mut stream = TcpStream::connect_timeout(&addr, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE + PATIENCE))?;
    write!(
        stream,
        "POST {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )?;
    read_reply(&mut BufReader::new(stream))
}

/// Reads one answer with a Content-Length, or up to the end.
pub(crate) fn read_reply(reader: &mut impl BufRead) -> std::io::Result<Reply> {
    let wrong = |text: &str| std::io::Error::other(format!("not an HTTP answer: {text:?}"));
    let mut line = String::new();
    reader.read_line(&mut line)?;
    let status = line
        .split(' ')
        .nth(1)
        .and_then(|code| code.parse().ok())
        .ok_or_else(|| wrong(&line))?;
    let mut length = None;
    loop {
        line.clear();
        if reader.read_line(&mut line)? == 0 || line == "\r\n" {
            break;
        }
        if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().ok();
        }
    }
    let mut body = Vec::new();
    match length {
        Some(length) => reader.take(length).read_to_end(&mut body)?,
        None => reader.read_to_end(&mut body)?,
    };
    Ok(Reply {
        status,
        body: String::from_utf8_lossy(&body).into_owned(),
    })
}

/// The static program of `tests/programs/web.rs`, built once a run.
pub(crate) fn web_program() -> PathBuf {
    use std::sync::OnceLock;
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT
        .get_or_init(|| {
            let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join("e2e-programs");
            std::fs::create_dir_all(&dir).expect("a folder");
            let (program, aside) = (
                dir.join("web"),
                dir.join(format!("web.{}", std::process::id())),
            );
            let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/programs/web.rs");
            let status = Command::new(std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into()))
                .args([
                    "--edition",
                    "2024",
                    "-O",
                    "-C",
                    "target-feature=+crt-static",
                    "-C",
                    "strip=symbols",
                    "-o",
                ])
                .args([&aside, &source])
                .status()
                .expect("rustc runs");
            assert!(status.success(), "tests/programs/web.rs does not compile");
            std::fs::rename(&aside, &program).expect("renamed");
            program
        })
        .clone()
}
