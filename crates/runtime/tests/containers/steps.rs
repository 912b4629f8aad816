//! Build steps: what one leaves in its layer, and that it leaves nothing else.

use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use layby_runtime::step::{self, StepSpec};
use layby_runtime::{ContainerConfig, Error, MountConfig, MountFrom, SandboxSpec};
use tempfile::TempDir;

use crate::Test;
use crate::rig::{container, image, layer, wait_for};

pub(crate) const TESTS: &[Test] = &[
    (
        "a_step_leaves_what_it_wrote_with_the_ids_inside",
        a_step_leaves_what_it_wrote_with_the_ids_inside,
    ),
    (
        "a_steps_mount_points_are_not_in_its_layer",
        a_steps_mount_points_are_not_in_its_layer,
    ),
    (
        "a_step_tells_its_output_and_exit_code",
        a_step_tells_its_output_and_exit_code,
    ),
    (
        "a_step_that_cannot_run_says_why",
        a_step_that_cannot_run_says_why,
    ),
    (
        "a_step_sees_only_lo_where_it_has_no_network",
        a_step_sees_only_lo_where_it_has_no_network,
    ),
    ("a_step_stands_on_many_layers", a_step_stands_on_many_layers),
    (
        "a_step_that_nobody_wants_is_ended",
        a_step_that_nobody_wants_is_ended,
    ),
    (
        "a_step_ends_with_the_node_that_wanted_it",
        a_step_ends_with_the_node_that_wanted_it,
    ),
    (
        "what_a_killed_step_left_is_swept",
        what_a_killed_step_left_is_swept,
    ),
    (
        "steps_run_side_by_side_below_one_group",
        steps_run_side_by_side_below_one_group,
    ),
    (
        "a_step_that_exceeds_its_memory_says_so",
        a_step_that_exceeds_its_memory_says_so,
    ),
];

/// With this argument the test program plays a node that builds, and waits to be killed.
pub(crate) const BUILDER: &str = "--play-builder";

/// The part of the node in [`a_step_ends_with_the_node_that_wanted_it`].
pub(crate) fn play_builder(spec: &str, dir: &str) -> ! {
    let spec: StepSpec = serde_json::from_str(spec).expect("a spec");
    let outcome = step::run(image(), dir.as_ref(), &spec, &|| false, &mut |bytes| {
        println!("{}", String::from_utf8_lossy(bytes).trim());
    });
    panic!("it was to be killed before: {outcome:?}");
}

/// One step, with its folders.
pub(crate) struct Bench {
    dir: TempDir,
    spec: StepSpec,
    stop: AtomicBool,
}

impl Bench {
    pub(crate) fn new(
        mapped: bool,
        arguments: &[&str],
        change: impl FnOnce(&mut ContainerConfig),
    ) -> Self {
        static COUNTER: AtomicU32 = AtomicU32::new(0);
        let dir = tempfile::tempdir().expect("a directory");
        let number = COUNTER.fetch_add(1, Ordering::Relaxed);
        let mut config = container("run", arguments);
        // As a build's are.
        config.options.new_privileges = true;
        change(&mut config);
        let [upper, work] = ["upper", "work"].map(|name| {
            let path = dir.path().join(name);
            fs::create_dir(&path).expect("a directory");
            path
        });
        let sandbox = SandboxSpec {
            id: format!("build-{number}"),
            hostname: "build".to_owned(),
            cgroup: format!("layby-test-{}/build-{number}/step", std::process::id()),
            id_map: mapped.then_some((0x2000_0000, 65_536)),
            containers: vec![config],
            ..SandboxSpec::default()
        };
        Self {
            dir,
            spec: StepSpec {
                sandbox,
                host_network: false,
                upper,
                work,
                memory_bytes: Some(256 << 20),
                cpu_shares: Some(128),
            },
            stop: AtomicBool::new(false),
        }
    }

    fn place(&self) -> PathBuf {
        self.dir.path().join("step")
    }

    pub(crate) fn run(&self) -> (Result<i32, Error>, String) {
        let mut output = Vec::new();
        let outcome = step::run(
            image(),
            &self.place(),
            &self.spec,
            &|| self.stop.load(Ordering::Relaxed),
            &mut |bytes| {
                output.extend_from_slice(bytes);
            },
        );
        assert_eq!(self.traces(), Vec::<String>::new(), "something is left");
        (outcome, String::from_utf8_lossy(&output).into_owned())
    }

    /// Runs it well; what it wrote.
    pub(crate) fn output(&self) -> String {
        let (outcome, output) = self.run();
        assert_eq!(outcome.expect("it runs"), 0, "{output}");
        output
    }

    fn cgroups(&self) -> Vec<String> {
        let roots = fs::read_dir("/sys/fs/cgroup")
            .into_iter()
            .flatten()
            .flatten();
        let dirs = roots.map(|root| root.path().join(&self.spec.sandbox.cgroup));
        dirs.filter(|dir| dir.exists())
            .map(|dir| dir.display().to_string())
            .collect()
    }

    fn processes(&self) -> Vec<String> {
        let place = self.place().display().to_string();
        let found = fs::read_dir("/proc")
            .expect("/proc")
            .flatten()
            .filter_map(|process| {
                let line = fs::read(process.path().join("cmdline")).ok()?;
                let line = String::from_utf8_lossy(&line).replace('\0', " ");
                (line.starts_with("layby-step") && line.contains(&place)).then_some(line)
            });
        found.collect()
    }

    fn traces(&self) -> Vec<String> {
        let mut found = self.cgroups();
        found.extend(self.processes());
        found.extend(
            self.place()
                .exists()
                .then(|| self.place().display().to_string()),
        );
        let mounts = fs::read_to_string("/proc/self/mountinfo").expect("mountinfo");
        let place = self.dir.path().display().to_string();
        found.extend(
            mounts
                .lines()
                .filter(|line| line.contains(&place))
                .map(str::to_owned),
        );
        found
    }

    /// All paths in the layer.
    pub(crate) fn layer(&self) -> Vec<String> {
        let mut found = Vec::new();
        list(&self.spec.upper, &self.spec.upper, &mut found);
        found.sort();
        found
    }
}

fn list(root: &Path, dir: &Path, found: &mut Vec<String>) {
    for entry in fs::read_dir(dir).expect("a directory").flatten() {
        let path = entry.path();
        found.push(
            path.strip_prefix(root)
                .expect("below")
                .display()
                .to_string(),
        );
        if entry.file_type().expect("a type").is_dir() {
            list(root, &path, found);
        }
    }
}

fn bind(path: &Path, target: &str, read_only: bool) -> MountConfig {
    MountConfig {
        source: MountFrom::Bind {
            path: path.to_owned(),
            recursive: false,
            subpath: None,
        },
        target: target.to_owned(),
        read_only,
        copy_up: false,
    }
}

fn a_step_leaves_what_it_wrote_with_the_ids_inside() {
    for mapped in [true, false] {
        let words = "all write /made text ; give /made 77 ; remove /etc/group ; mkdir /etc/deep/er ; cat /proc/self/status";
        let words: Vec<&str> = words.split(' ').collect();
        let bench = Bench::new(mapped, &words, |_| ());
        let status = bench.output();
        for line in [
            "Uid:\t0\t0\t0\t0",
            "Seccomp:\t2",
            "NoNewPrivs:\t0",
            "CapEff:\t00000000a80425fb",
        ] {
            assert!(status.contains(line), "{line}: {status}");
        }
        assert_eq!(
            bench.layer(),
            ["etc", "etc/deep", "etc/deep/er", "etc/group", "made"]
        );
        let meta = |path: &str| fs::symlink_metadata(bench.spec.upper.join(path)).expect(path);
        assert_eq!((meta("made").uid(), meta("made").gid()), (77, 1));
        assert_eq!((meta("etc").uid(), meta("etc/deep").uid()), (0, 0));
        let gone = meta("etc/group");
        assert!(gone.file_type().is_char_device() && gone.rdev() == 0 && gone.uid() == 0);
        // Changed, its folder is the image's in all else.
        let image = fs::metadata(layer().join("etc")).expect("etc");
        assert_eq!(meta("etc").mode(), image.mode());
        let words = ["append", "/etc/passwd", "#"];
        let bench = Bench::new(mapped, &words, |_| ());
        bench.output();
        let etc = fs::metadata(bench.spec.upper.join("etc")).expect("etc");
        assert_eq!(etc.mtime(), image.mtime());
    }
}

fn a_steps_mount_points_are_not_in_its_layer() {
    for mapped in [true, false] {
        let source = tempfile::tempdir().expect("a directory");
        fs::write(source.path().join("file"), "from outside").expect("a file");
        let words = "all cat /secrets/one/token ; write /cache/x/new text ; write /tmp/scratch/y z ; owner /cache/x/file ; write /own 1";
        let words: Vec<&str> = words.split(' ').collect();
        let bench = Bench::new(mapped, &words, |config| {
            config.mounts = vec![
                bind(&source.path().join("file"), "/secrets/one/token", true),
                bind(source.path(), "/cache/x", false),
                MountConfig {
                    source: MountFrom::Tmpfs {
                        size_bytes: Some(1 << 20),
                        mode: None,
                        no_exec: false,
                    },
                    target: "/tmp/scratch".to_owned(),
                    read_only: false,
                    copy_up: false,
                },
            ];
        });
        assert_eq!(bench.output(), "from outside0 0 644");
        assert_eq!(bench.layer(), ["own"]);
        let new = fs::metadata(source.path().join("new")).expect("written");
        assert_eq!((new.uid(), new.len()), (0, 4));
        // What is there to read cannot be written.
        let bench = Bench::new(mapped, &["write", "/secret", "x"], |config| {
            config.mounts = vec![bind(&source.path().join("file"), "/secret", true)];
        });
        let (outcome, output) = bench.run();
        assert_eq!(outcome.expect("it runs"), 101, "{output}");
        assert_eq!(bench.layer(), Vec::<String>::new());
        // A step that fails leaves none either.
        let bench = Bench::new(mapped, &["exit", "3"], |config| {
            config.mounts = vec![bind(source.path(), "/a/b/c", false)];
        });
        assert_eq!(bench.run().0.expect("it runs"), 3);
        assert_eq!(bench.layer(), Vec::<String>::new());
    }
}

fn a_step_tells_its_output_and_exit_code() {
    let bench = Bench::new(
        true,
        &["all", "print", "one", ";", "warn", "two", ";", "exit", "9"],
        |_| (),
    );
    let (outcome, output) = bench.run();
    assert_eq!(
        (outcome.expect("it runs"), output.as_str()),
        (9, "one\ntwo\n")
    );
    let bench = Bench::new(true, &["flood", "20000"], |config| {
        config.user = "web".to_owned()
    });
    assert_eq!(bench.output().len(), 20_000 * 201);
    let bench = Bench::new(true, &["shot"], |_| ());
    assert_eq!(bench.run().0.expect("it runs"), 137);
}

fn a_step_that_cannot_run_says_why() {
    let bench = Bench::new(true, &[], |config| config.argv = vec!["/nope".to_owned()]);
    let error = bench.run().0.expect_err("no such program");
    assert!(
        matches!(&error, Error::Fatal(text) if text.contains("no such file: /nope")),
        "{error:?}"
    );
    let bench = Bench::new(true, &["exit", "0"], |config| {
        config.user = "stranger".to_owned()
    });
    let error = bench.run().0.expect_err("no such user");
    assert!(error.sentence().contains("stranger"), "{error:?}");
    let bench = Bench::new(true, &["exit", "0"], |config| {
        config.mounts = vec![bind(Path::new("/no/such/source"), "/x", false)];
    });
    let error = bench.run().0.expect_err("no such source");
    assert!(error.sentence().contains("/no/such/source"), "{error:?}");
    assert_eq!(bench.layer(), Vec::<String>::new());
}

fn a_step_sees_only_lo_where_it_has_no_network() {
    for mapped in [true, false] {
        let bench = Bench::new(mapped, &["list", "/sys/class/net"], |_| ());
        assert_eq!(bench.output(), "lo\n");
        assert_eq!(bench.layer(), Vec::<String>::new());
    }
}

fn a_step_stands_on_many_layers() {
    let dir = tempfile::tempdir().expect("a directory");
    let words = [
        "all", "cat", "/n/0", ";", "cat", "/n/199", ";", "write", "/n/new", "x",
    ];
    let bench = Bench::new(true, &words, |config| {
        for number in 0..200 {
            let layer = dir
                .path()
                .join(format!("a-layer-with-a-long-name-{number:060}"));
            fs::create_dir_all(layer.join("n")).expect("a directory");
            fs::write(layer.join("n").join(number.to_string()), "+").expect("a file");
            config.lower.insert(0, layer);
        }
    });
    assert_eq!(bench.output(), "++");
    assert_eq!(bench.layer(), ["n", "n/new"]);
}

fn a_step_that_nobody_wants_is_ended() {
    let bench = Bench::new(true, &["stubborn"], |_| ());
    let error = std::thread::scope(|scope| {
        let run = scope.spawn(|| bench.run().0);
        wait_for("the step to run", || {
            let file = |root: &str| format!("{root}/cgroup.procs");
            bench.cgroups().iter().any(|group| {
                fs::read_to_string(file(&format!("{group}/run"))).is_ok_and(|text| !text.is_empty())
            })
        });
        bench.stop.store(true, Ordering::Relaxed);
        run.join().expect("no panic").expect_err("given up")
    });
    assert!(
        !error.fatal() && error.sentence().contains("given up"),
        "{error:?}"
    );
}

fn start_builder(bench: &Bench) -> std::process::Child {
    use std::io::{BufRead, BufReader};
    let spec = serde_json::to_string(&bench.spec).expect("json");
    let mut node = Command::new("/proc/self/exe")
        .args([BUILDER, &spec])
        .arg(bench.place())
        .stdout(Stdio::piped())
        .spawn()
        .expect("it runs");
    let mut lines = BufReader::new(node.stdout.take().expect("a pipe")).lines();
    assert_eq!(lines.next().expect("a line").expect("text"), "ready");
    node
}

fn a_step_ends_with_the_node_that_wanted_it() {
    let bench = Bench::new(true, &["stubborn"], |_| ());
    let mut node = start_builder(&bench);
    node.kill().expect("kill -9");
    node.wait().expect("the node is gone");
    wait_for("the step to be gone", || {
        bench.cgroups().is_empty() && bench.processes().is_empty()
    });
    // Its folder is left for the next start to find.
    assert!(bench.place().exists());
    step::sweep(&bench.place(), &bench.spec.sandbox.cgroup).expect("swept");
    assert_eq!(bench.traces(), Vec::<String>::new());
}

fn what_a_killed_step_left_is_swept() {
    let bench = Bench::new(true, &["stubborn"], |_| ());
    let mut node = start_builder(&bench);
    let workers: Vec<String> = fs::read_dir("/proc")
        .expect("/proc")
        .flatten()
        .filter_map(|process| {
            let line = fs::read_to_string(process.path().join("cmdline")).ok()?;
            let ours =
                line.starts_with("layby-step") && line.contains(&*bench.place().to_string_lossy());
            ours.then(|| process.file_name().to_string_lossy().into_owned())
        })
        .collect();
    for worker in workers {
        let pid = worker.parse().expect("a number");
        let _ = nix::sys::signal::kill(
            nix::unistd::Pid::from_raw(pid),
            nix::sys::signal::Signal::SIGKILL,
        );
    }
    node.kill().expect("kill -9");
    node.wait().expect("the node is gone");
    let start = bench.spec.sandbox.cgroup.clone();
    step::sweep(&bench.place(), &start).expect("swept");
    step::sweep(&bench.place(), &start).expect("again: nothing to do");
    wait_for("all to be gone", || {
        std::thread::sleep(Duration::from_millis(1));
        bench.traces().is_empty()
    });
}

fn a_step_that_exceeds_its_memory_says_so() {
    let bench = Bench::new(true, &["eat", "400"], |config| {
        config.memory_bytes = Some(32 << 20)
    });
    let (outcome, output) = bench.run();
    assert_eq!(outcome.expect("it ran"), 137);
    assert!(output.contains("ran out of memory"), "{output}");
}

fn steps_run_side_by_side_below_one_group() {
    let above = format!("layby-test-{}/side", std::process::id());
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let above = &above;
            scope.spawn(move || {
                for number in 0..4 {
                    let mut bench = Bench::new(true, &["write", "/made", "text"], |_| ());
                    bench.spec.sandbox.cgroup = format!("{above}/{thread}-{number}");
                    assert_eq!(bench.output(), "");
                    assert_eq!(bench.layer(), ["made"]);
                }
            });
        }
    });
    let left = Path::new("/sys/fs/cgroup/pids").join(&above);
    assert!(!left.exists(), "{}", left.display());
}
