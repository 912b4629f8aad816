//! What the tests stand on: an image with one static program, and a sandbox that takes itself down.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread::sleep;
use std::time::{Duration, Instant};

use layby_runtime::client::Client;
use layby_runtime::{ContainerConfig, Error, SandboxSpec, ShimImage, Values, logs, sandbox, shim};
use tempfile::TempDir;

/// Generous: the machine may be slow and busy.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// The image that every shim of these tests runs from.
pub(crate) fn image() -> &'static ShimImage {
    static IMAGE: OnceLock<ShimImage> = OnceLock::new();
    IMAGE.get_or_init(|| ShimImage::of_self().expect("an image of this test"))
}

/// The layer with the program, made once.
pub(crate) fn layer() -> &'static Path {
    static LAYER: OnceLock<PathBuf> = OnceLock::new();
    LAYER.get_or_init(|| {
        let root =
            Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("layer-{}", std::process::id()));
        fs::create_dir_all(root.join("etc")).expect("a directory");
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/programs/probe.rs");
        let status = Command::new(std::env::var("RUSTC").unwrap_or_else(|_| "rustc".to_owned()))
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
            .arg(root.join("probe"))
            .arg(&source)
            .status()
            .expect("rustc runs");
        assert!(status.success(), "{} does not compile", source.display());
        fs::write(
            root.join("etc/passwd"),
            "root:x:0:0:root:/root:/bin/sh\nweb:x:1234:1235:Web:/srv/web:/bin/false\n",
        )
        .expect("passwd");
        fs::write(
            root.join("etc/group"),
            "root:x:0:\nweb:x:1235:\nlogs:x:77:web\n",
        )
        .expect("group");
        root
    })
}

/// Removes what [`layer`] made.
pub(crate) fn remove_layer() {
    let root = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("layer-{}", std::process::id()));
    let _ = fs::remove_dir_all(root);
}

/// A container that runs the program with `arguments`.
pub(crate) fn container(name: &str, arguments: &[&str]) -> ContainerConfig {
    let mut argv = vec!["/probe".to_owned()];
    argv.extend(arguments.iter().map(|&argument| argument.to_owned()));
    ContainerConfig {
        name: name.to_owned(),
        lower: vec![layer().to_owned()],
        argv,
        stop_grace_ms: 5_000,
        ..ContainerConfig::default()
    }
}

/// One sandbox. Dropping it destroys it and checks that nothing is left.
pub(crate) struct Rig {
    pub(crate) dir: TempDir,
    pub(crate) spec: SandboxSpec,
    pub(crate) values: Values,
}

impl Rig {
    /// A sandbox of one container that runs the program with `arguments`; `change` sees its config first.
    pub(crate) fn one(arguments: &[&str], change: impl FnOnce(&mut ContainerConfig)) -> Self {
        let mut config = container("web", arguments);
        change(&mut config);
        Self::of(vec![config])
    }

    /// A sandbox of these containers, not prepared yet.
    pub(crate) fn of(containers: Vec<ContainerConfig>) -> Self {
        static COUNTER: AtomicU32 = AtomicU32::new(0);
        let dir = tempfile::tempdir().expect("a directory");
        let number = COUNTER.fetch_add(1, Ordering::Relaxed);
        let spec = SandboxSpec {
            id: format!("test-{number}"),
            hostname: "test-host".to_owned(),
            hosts: vec![("10.1.2.3".to_owned(), "neighbour".to_owned())],
            dns: vec!["10.1.2.1".to_owned()],
            cgroup: format!("layby-test-{}/{number}", std::process::id()),
            socket: dir.path().join("s"),
            containers,
            ..SandboxSpec::default()
        };
        let values = Values::default();
        Self { dir, spec, values }
    }

    pub(crate) fn bundle(&self) -> PathBuf {
        self.dir.path().join("bundle")
    }

    pub(crate) fn spawn(&self) -> Result<(), Error> {
        shim::spawn(image(), &self.bundle(), &self.spec, &self.values)
    }

    /// Prepares the sandbox and connects to its shim.
    pub(crate) fn prepared(&self) -> Client {
        self.spawn().expect("the shim gets ready");
        self.client()
    }

    /// Prepares and starts the sandbox.
    pub(crate) fn started(&self) -> Client {
        let mut client = self.prepared();
        client.start().expect("the containers start");
        client
    }

    pub(crate) fn client(&self) -> Client {
        Client::connect(&self.spec.socket).expect("the shim listens")
    }

    pub(crate) fn shim_pid(&self) -> i32 {
        let text = fs::read_to_string(self.bundle().join("shim.pid")).expect("shim.pid");
        text.trim().parse().expect("a number")
    }

    /// The log of a container so far.
    pub(crate) fn log(&self, container: &str) -> Vec<String> {
        let lines = logs::read(&self.bundle(), container, None).expect("the log is read");
        lines.into_iter().map(|line| line.text).collect()
    }

    /// Waits for a line in the log of container "web".
    pub(crate) fn wait_for_line(&self, text: &str) {
        wait_for(&format!("the line {text:?}"), || {
            self.log("web").iter().any(|line| line == text)
        });
    }

    /// The file of a cgroup controller for a container.
    pub(crate) fn cgroup_file(&self, controller: &str, container: &str, file: &str) -> PathBuf {
        Path::new("/sys/fs/cgroup")
            .join(controller)
            .join(&self.spec.cgroup)
            .join(container)
            .join(file)
    }

    /// All that names this sandbox on the machine: cgroups, mounts, processes.
    pub(crate) fn traces(&self) -> Vec<String> {
        let mut found = Vec::new();
        let hierarchies = fs::read_dir("/sys/fs/cgroup")
            .into_iter()
            .flatten()
            .flatten();
        for root in hierarchies
            .map(|entry| entry.path())
            .chain([PathBuf::from("/sys/fs/cgroup")])
        {
            let dir = root.join(&self.spec.cgroup);
            if dir.exists() {
                found.push(dir.display().to_string());
            }
        }
        let place = self.dir.path().display().to_string();
        let mounts = fs::read_to_string("/proc/self/mountinfo").expect("mountinfo");
        found.extend(
            mounts
                .lines()
                .filter(|line| line.contains(&place))
                .map(str::to_owned),
        );
        for process in fs::read_dir("/proc").expect("/proc").flatten() {
            let line = fs::read(process.path().join("cmdline")).unwrap_or_default();
            let line = String::from_utf8_lossy(&line).replace('\0', " ");
            if line.contains(&place) {
                found.push(format!("process {}: {line}", process.file_name().display()));
            }
        }
        found
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        let outcome = sandbox::destroy(&self.bundle());
        if !std::thread::panicking() {
            outcome.expect("the sandbox is destroyed");
            assert_eq!(self.traces(), Vec::<String>::new(), "something is left");
            assert!(!self.bundle().exists());
        }
    }
}

/// Waits until `condition` holds.
pub(crate) fn wait_for(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < deadline, "waited in vain for {what}");
        sleep(Duration::from_millis(5));
    }
}

/// Whether a process is there and no zombie.
pub(crate) fn is_alive(pid: i32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ")
        .is_some_and(|(_, rest)| !rest.starts_with('Z'))
}

/// A layer with a link where `/etc/passwd` would be.
pub(crate) fn layer_with_link(dir: &Path, link: &str, target: &str) -> PathBuf {
    let root = dir.join("layer");
    let path = root.join(link);
    fs::create_dir_all(path.parent().expect("a parent")).expect("a directory");
    symlink(target, path).expect("a link");
    root
}
