//! RUN with a runner of the test's own: what it is asked, what becomes of what it wrote, what the cache knows.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use layby_image::build::NamedContext;
use layby_image::build::run::{RunNetwork, RunRequest, RunSource, RunStep};
use layby_image::client::Puller;
use layby_image::{BuildEvent, BuildOptions, Error, PruneOptions, Store};

use crate::support::{Tar, World, is_root};

type Command = dyn Fn(&RunRequest, &mut dyn FnMut(&[u8])) -> Result<i32, String> + Send + Sync;

/// Runs a closure in the place of a command, and remembers what it was asked.
pub(crate) struct Fake {
    command: Box<Command>,
    asked: Mutex<Vec<RunRequest>>,
}

impl RunStep for Fake {
    fn run(&self, step: &RunRequest, output: &mut dyn FnMut(&[u8])) -> Result<i32, String> {
        self.asked.lock().unwrap().push(step.clone());
        (self.command)(step, output)
    }
}

impl Fake {
    pub(crate) fn new(
        command: impl Fn(&RunRequest, &mut dyn FnMut(&[u8])) -> Result<i32, String>
        + Send
        + Sync
        + 'static,
    ) -> Arc<Self> {
        Arc::new(Self {
            command: Box::new(command),
            asked: Mutex::default(),
        })
    }

    /// Writes the last word of its command into `/out`.
    fn writer() -> Arc<Self> {
        Self::new(|step, _| {
            fs::write(step.upper.join("out"), step.argv.last().unwrap()).unwrap();
            Ok(0)
        })
    }

    pub(crate) fn asked(&self) -> Vec<RunRequest> {
        self.asked.lock().unwrap().clone()
    }
}

pub(crate) fn with(runner: &Arc<Fake>) -> BuildOptions {
    BuildOptions {
        runner: Some(Arc::clone(runner) as Arc<dyn RunStep>),
        tag: Some("test".to_owned()),
        ..BuildOptions::default()
    }
}

fn bind(step: &RunRequest, target: &str) -> PathBuf {
    let mount = step.mounts.iter().find(|mount| mount.target == target);
    match mount.map(|mount| &mount.source) {
        Some(RunSource::Bind(path)) => path.clone(),
        other => panic!("{target}: {other:?} of {:?}", step.mounts),
    }
}

pub(crate) fn env<'a>(step: &'a RunRequest, name: &str) -> Option<&'a str> {
    let pair = step.env.iter().find(|(other, _)| other == name);
    pair.map(|(_, value)| value.as_str())
}

pub(crate) fn temporary_files(world: &World) -> Vec<PathBuf> {
    let entries = fs::read_dir(world.store_dir().join("tmp")).unwrap();
    entries.map(|entry| entry.unwrap().path()).collect()
}

#[test]
fn a_step_sees_what_its_dockerfile_says_and_what_it_writes_is_in_the_image() {
    let world = World::new();
    let runner = Fake::writer();
    world.write(&[(
        "Dockerfile",
        "FROM scratch\nARG V=1\nARG HIDDEN=x\nENV E=e HIDDEN=y\nSHELL [\"/sh\", \"-ec\"]\nWORKDIR /w\nUSER 5:6\n\
         RUN --network=none make \\\n  all $V\nRUN [\"/bin/x\", \"$V\"]\n",
    )]);
    let mut options = with(&runner);
    options.args.insert("V".into(), "2".into());
    options
        .args
        .insert("HTTPS_PROXY".into(), "http://p:1".into());
    let image = world.build_with(&options).0.unwrap();
    let asked = runner.asked();
    assert_eq!(asked[0].argv, ["/sh", "-ec", "make   all $V"]);
    assert_eq!(asked[1].argv, ["/bin/x", "$V"]);
    assert_eq!(
        (asked[0].cwd.as_str(), asked[0].user.as_str()),
        ("/w", "5:6")
    );
    assert_eq!(
        (asked[0].network, asked[1].network),
        (RunNetwork::None, RunNetwork::Default)
    );
    for (name, value) in [
        ("V", "2"),
        ("E", "e"),
        ("HIDDEN", "y"),
        ("HTTPS_PROXY", "http://p:1"),
    ] {
        assert_eq!(env(&asked[0], name), Some(value), "{name}");
    }
    assert!(world.files(&image)["out"].ends_with(" $V"));
    assert_eq!(
        asked[1].lower.len(),
        2,
        "WORKDIR's layer and the first RUN's"
    );
    assert_eq!(temporary_files(&world), Vec::<PathBuf>::new());
}

#[test]
fn a_step_is_carried_out_again_only_when_something_it_sees_has_changed() {
    let world = World::new();
    world.write(&[("a", "1")]);
    let runner = Fake::writer();
    let runs = |dockerfile: &str, change: &dyn Fn(&mut BuildOptions)| {
        world.write(&[("Dockerfile", dockerfile)]);
        let mut options = with(&runner);
        change(&mut options);
        let before = runner.asked().len();
        let image = world.build_with(&options).0.unwrap();
        (runner.asked().len() - before, image.digest)
    };
    let same = |_: &mut BuildOptions| {};
    let dockerfile = "FROM scratch\nCOPY a /\nARG V\nRUN x\n";
    let (count, first) = runs(dockerfile, &same);
    assert_eq!(count, 1);
    assert_eq!(runs(dockerfile, &same), (0, first.clone()));
    // What it does not see.
    let later = "FROM scratch\nCOPY a /\nARG V\nRUN   x\nLABEL a=b\n";
    assert_eq!(runs(later, &same).0, 0);
    assert_eq!(
        runs(dockerfile, &|o| drop(o.args.insert("W".into(), "1".into()))).0,
        0
    );
    let proxy = |o: &mut BuildOptions| drop(o.args.insert("http_proxy".into(), "1".into()));
    assert_eq!(runs(dockerfile, &proxy).0, 0);
    // What it does.
    assert_eq!(
        runs(dockerfile, &|o| drop(o.args.insert("V".into(), "1".into()))).0,
        1
    );
    assert_eq!(runs(&dockerfile.replace("RUN x", "RUN y"), &same).0, 1);
    assert_eq!(runs(&dockerfile.replace("RUN", "ENV E=1\nRUN"), &same).0, 1);
    assert_eq!(runs(&dockerfile.replace("RUN", "USER 1\nRUN"), &same).0, 1);
    assert_eq!(
        runs(&dockerfile.replace("RUN", "RUN --network=none"), &same).0,
        1
    );
    assert_eq!(runs(dockerfile, &|o| o.no_cache = true).0, 1);
    world.write(&[("a", "2")]);
    assert_eq!(runs(dockerfile, &same).0, 1);
    world.write(&[("a", "1")]);
    assert_eq!(runs(dockerfile, &same).0, 0);
}

#[test]
fn the_cache_of_stages_that_no_image_has_outlives_a_collection() {
    let world = World::new();
    let runner = Fake::writer();
    world.write(&[(
        "Dockerfile",
        "FROM scratch AS build\nRUN x\nFROM scratch\nCOPY --from=build /out /\n",
    )]);
    let first = world.build_with(&with(&runner)).0.unwrap();
    world.store.gc(&[]).unwrap();
    let (second, events) = world.build_with(&with(&runner));
    assert_eq!(second.unwrap(), first);
    assert_eq!(runner.asked().len(), 1);
    let all_cached = events.iter().all(|event| match event {
        BuildEvent::Step { cached, .. } => *cached,
        other => panic!("{other:?}"),
    });
    assert!(all_cached, "{events:?}");
}

#[test]
fn a_step_that_changes_nothing_makes_no_layer() {
    let world = World::new();
    world.write(&[
        ("a", "A"),
        ("Dockerfile", "FROM scratch\nCOPY a /d/a\nRUN true\n"),
    ]);
    // As overlayfs does when a mount point comes and goes.
    let runner = Fake::new(|step, _| {
        fs::create_dir(step.upper.join("d")).unwrap();
        fs::set_permissions(step.upper.join("d"), fs::Permissions::from_mode(0o755)).unwrap();
        Ok(0)
    });
    let image = world.build_with(&with(&runner)).0.unwrap();
    assert_eq!(world.store.layers(&image.digest).unwrap().len(), 1);
    world.build_with(&with(&runner)).0.unwrap();
    assert_eq!(runner.asked().len(), 1, "that is known, too");
}

#[test]
fn a_failed_step_is_an_error_with_its_line_and_its_output() {
    let world = World::new();
    let dockerfile = "FROM scratch\nRUN one\n\nRUN two\n";
    world.write(&[("Dockerfile", dockerfile)]);
    let runner = Fake::new(|step, output| {
        let is_two = step.argv.last().unwrap() == "two";
        output(b"first\nsec");
        output(b"ond\n");
        Ok(if is_two { 2 } else { 0 })
    });
    let (result, events) = world.build_with(&with(&runner));
    assert_eq!(
        result.unwrap_err().to_string(),
        "Dockerfile:4: RUN two ended with exit code 2"
    );
    let lines: Vec<&str> = events
        .iter()
        .filter_map(|event| match event {
            BuildEvent::Line {
                number: 3, text, ..
            } => Some(text.as_str()),
            _ => None,
        })
        .collect();
    assert_eq!(lines, ["first", "second"]);
    let Some(BuildEvent::Failed { number, output, .. }) = events.last() else {
        panic!("{events:?}")
    };
    assert_eq!((*number, output.as_str()), (3, "first\nsecond\n"));
    assert!(world.store.resolve("test").is_err());
    assert_eq!(temporary_files(&world), Vec::<PathBuf>::new());
}

#[test]
fn heredocs_are_scripts_of_the_shell_or_of_their_own_interpreter() {
    let world = World::new();
    let runner = Fake::new(|step, _| {
        let script = step.argv[0].as_str();
        if script.starts_with("/dev/pipes/") {
            let file = bind(step, script);
            let text = fs::read_to_string(&file).unwrap();
            assert_eq!(fs::metadata(&file).unwrap().mode() & 0o777, 0o755);
            fs::write(step.upper.join("script"), text).unwrap();
        }
        Ok(0)
    });
    world.write(&[(
        "Dockerfile",
        "FROM scratch\nRUN <<EOF\na $X\n\tb\nEOF\nRUN <<-E cat >/x\n\thi\nE\nRUN <<S\n#!/usr/bin/python\nprint()\nS\n",
    )]);
    let image = world.build_with(&with(&runner)).0.unwrap();
    let argv: Vec<Vec<String>> = runner.asked().into_iter().map(|step| step.argv).collect();
    assert_eq!(argv[0], ["/bin/sh", "-c", "a $X\n\tb\n"]);
    assert_eq!(argv[1], ["/bin/sh", "-c", "<<-E cat >/x\nhi\nE"]);
    assert_eq!(argv[2], ["/dev/pipes/S"]);
    assert!(world.files(&image)["script"].ends_with("#!/usr/bin/python\nprint()\n"));
}

#[test]
fn secrets_are_files_in_memory_while_the_step_runs_and_nowhere_afterwards() {
    let world = World::new();
    let places: Arc<Mutex<Vec<PathBuf>>> = Arc::default();
    let seen = Arc::clone(&places);
    let runner = Fake::new(move |step, _| {
        let file = bind(step, "/run/secrets/token");
        assert_eq!(fs::read(&file).unwrap(), b"hunter2");
        assert_eq!(fs::metadata(&file).unwrap().mode() & 0o777, 0o400);
        assert!(step.mounts.iter().all(|mount| mount.read_only));
        assert_eq!(env(step, "TOKEN"), Some("hunter2"));
        let other = bind(step, "/etc/key");
        assert_eq!(fs::metadata(&other).unwrap().mode() & 0o777, 0o440);
        seen.lock().unwrap().push(file);
        fs::write(step.upper.join("out"), "done").unwrap();
        Ok(0)
    });
    world.write(&[(
        "Dockerfile",
        "FROM scratch\nRUN --mount=type=secret,id=token --mount=type=secret,id=token,env=TOKEN \\\n\
         --mount=type=secret,id=token,target=/etc/key,mode=0440 --mount=type=secret,id=absent x\n",
    )]);
    let mut options = with(&runner);
    options.secrets.insert("token".into(), b"hunter2".to_vec());
    let (image, events) = world.build_with(&options);
    image.unwrap();
    assert!(!format!("{events:?}").contains("hunter2"));
    // Another secret is no reason to do it again: what it made does not depend on it.
    options.secrets.insert("token".into(), b"other".to_vec());
    world.build_with(&options).0.unwrap();
    assert_eq!(runner.asked().len(), 1);
    for place in places.lock().unwrap().iter() {
        assert!(!place.exists() && !place.parent().unwrap().exists());
        assert!(!place.starts_with(world.dir.path()), "{place:?} is on disk");
    }
    let grep = std::process::Command::new("grep")
        .args(["-rl", "hunter2"])
        .arg(world.store_dir())
        .output()
        .unwrap();
    assert_eq!(String::from_utf8_lossy(&grep.stdout), "");
    world.write(&[(
        "Dockerfile",
        "FROM scratch\nRUN --mount=type=secret,id=absent,required x\n",
    )]);
    let error = world.build_with(&options).0.unwrap_err().to_string();
    assert!(
        error.starts_with("Dockerfile:2: RUN --mount needs the secret \"absent\""),
        "{error}"
    );
}

#[test]
fn a_cache_stays_from_build_to_build_and_is_in_no_layer() {
    let world = World::new();
    let runner = Fake::new(|step, _| {
        let count = bind(step, "/cache").join("count");
        let before = fs::read_to_string(&count).unwrap_or_default();
        fs::write(&count, format!("{before}{}", step.argv.last().unwrap())).unwrap();
        fs::write(step.upper.join("out"), before).unwrap();
        Ok(0)
    });
    let build = |command: &str| {
        let run = format!("RUN --mount=type=cache,target=/cache,sharing=locked,id=c {command}");
        world.write(&[("Dockerfile", &format!("FROM scratch\n{run}\n"))]);
        let image = world.build_with(&with(&runner)).0.unwrap();
        world.files(&image)
    };
    assert!(build("a")["out"].ends_with(' '));
    let files = build("b");
    assert!(files["out"].ends_with(" a"), "{files:?}");
    assert_eq!(files.len(), 1);
    world.store.gc(&[]).unwrap();
    assert!(build("c")["out"].ends_with(" ab"));
}

#[test]
fn bind_mounts_show_the_context_a_stage_or_a_named_folder_and_writes_to_them_are_lost() {
    let world = World::new();
    let other = world.dir.path().join("other");
    fs::create_dir(&other).unwrap();
    fs::write(other.join("o"), "O").unwrap();
    world.write(&[
        ("src/a", "A"),
        ("src/hidden", "H"),
        (".dockerignore", "src/hidden\n"),
        (
            "Dockerfile",
            "FROM scratch AS one\nCOPY src/a /d/x\nFROM scratch\n\
             RUN --mount=source=src,target=/src,rw --mount=from=one,source=/d,target=/d \\\n\
             --mount=from=more,target=/more --mount=type=tmpfs,target=/t,size=1m \\\n\
             --mount=src=src/a,target=/file x\n",
        ),
    ]);
    let runner = Fake::new(|step, _| {
        let src = bind(step, "/src");
        assert_eq!(fs::read(src.join("a")).unwrap(), b"A");
        assert!(!src.join("hidden").exists());
        fs::write(src.join("a"), "changed").unwrap();
        assert_eq!(fs::read(bind(step, "/d").join("x")).unwrap(), b"A");
        assert_eq!(fs::read(bind(step, "/more").join("o")).unwrap(), b"O");
        assert_eq!(fs::read(bind(step, "/file")).unwrap(), b"A");
        let tmpfs = RunSource::Tmpfs {
            size_bytes: Some(1 << 20),
        };
        assert!(step.mounts.iter().any(|mount| mount.source == tmpfs));
        Ok(0)
    });
    let mut options = with(&runner);
    options
        .contexts
        .insert("more".into(), NamedContext::Folder(other.clone()));
    world.build_with(&options).0.unwrap();
    assert_eq!(fs::read(world.context().join("src/a")).unwrap(), b"A");
    world.write(&[("src/hidden", "changed")]);
    world.build_with(&options).0.unwrap();
    assert_eq!(runner.asked().len(), 1, "it does not see that");
    fs::write(other.join("o"), "O").unwrap();
    world.write(&[("src/b", "B")]);
    world.build_with(&options).0.unwrap();
    assert_eq!(runner.asked().len(), 2, "it sees that");
}

#[test]
fn stages_that_do_not_need_each_other_are_built_side_by_side() {
    if std::thread::available_parallelism().map_or(1, usize::from) < 2 {
        println!("SKIPPED: there is one core");
        return;
    }
    let world = World::new();
    // Each waits for the other: one after the other they would wait for ever.
    let begun = AtomicUsize::new(0);
    let runner = Fake::new(move |step, _| {
        begun.fetch_add(1, Ordering::SeqCst);
        let started = Instant::now();
        while begun.load(Ordering::SeqCst) < 2 {
            if started.elapsed() > Duration::from_secs(30) {
                return Err("the other stage was not begun".to_owned());
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        fs::write(step.upper.join(step.argv.last().unwrap()), "x").unwrap();
        Ok(0)
    });
    world.write(&[(
        "Dockerfile",
        "FROM scratch AS a\nRUN a\nFROM scratch AS b\nRUN b\nFROM scratch\nCOPY --from=a /a /\nCOPY --from=b /b /\n",
    )]);
    let (image, events) = world.build_with(&with(&runner));
    let names: Vec<String> = world.files(&image.unwrap()).into_keys().collect();
    assert_eq!(names, ["a", "b"]);
    let steps = events.iter().filter_map(|event| match event {
        BuildEvent::Step { number, of, .. } => Some((*number, *of)),
        _ => None,
    });
    let mut steps: Vec<(u32, u32)> = steps.collect();
    steps.sort_unstable();
    assert_eq!(steps, (1..=7).map(|n| (n, 7)).collect::<Vec<_>>());
}

#[test]
fn a_stage_that_fails_and_a_client_that_leaves_stop_the_others() {
    let world = World::new();
    let until_stopped = |step: &RunRequest| {
        let started = Instant::now();
        while !step.stop.load(Ordering::SeqCst) {
            if started.elapsed() > Duration::from_secs(30) {
                return Err("nobody stopped it".to_owned());
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        Ok(137)
    };
    world.write(&[(
        "Dockerfile",
        "FROM scratch AS a\nRUN slow\nFROM scratch\nRUN fail\nCOPY --from=a / /\n",
    )]);
    let runner = Fake::new(move |step, _| match step.argv.last().unwrap().as_str() {
        "fail" => Ok(1),
        _ => until_stopped(step),
    });
    if std::thread::available_parallelism().map_or(1, usize::from) > 1 {
        let error = world.build_with(&with(&runner)).0.unwrap_err().to_string();
        assert_eq!(error, "Dockerfile:4: RUN fail ended with exit code 1");
    }
    world.write(&[("Dockerfile", "FROM scratch\nRUN slow\n")]);
    let options = with(&runner);
    options.stop.store(true, Ordering::SeqCst);
    let error = world.build_with(&options).0.unwrap_err().to_string();
    assert_eq!(error, "cannot build: it was given up");
}

#[test]
fn a_step_that_takes_too_long_is_ended_and_says_so() {
    let world = World::new();
    world.write(&[("Dockerfile", "FROM scratch\nRUN for ever\n")]);
    let runner = Fake::new(|step, output| {
        output(b"still at it\n");
        let started = Instant::now();
        while !step.is_over() && started.elapsed() < Duration::from_secs(30) {
            std::thread::sleep(Duration::from_millis(1));
        }
        Err("the step was given up".to_owned())
    });
    let options = BuildOptions {
        step_timeout: Some(Duration::from_millis(20)),
        ..with(&runner)
    };
    let (built, events) = world.build_with(&options);
    let error = built.unwrap_err().to_string();
    assert!(error.contains("RUN for ever took longer than"), "{error}");
    assert!(error.contains("layby build --timeout"), "{error}");
    let shown = events.iter().any(
        |event| matches!(event, BuildEvent::Failed { output, .. } if output == "still at it\n"),
    );
    assert!(shown, "{events:?}");
}

#[test]
fn an_image_without_a_name_is_kept_for_a_day() {
    let world = World::new();
    world.write(&[("Dockerfile", "FROM scratch\nCOPY a /a\n"), ("a", "A")]);
    let build = || world.build_with(&BuildOptions::default()).0.unwrap().digest;
    let digest = build();
    world.store.gc(&[]).unwrap();
    assert!(world.store.get(&digest).is_ok());
    let note = world
        .dir
        .path()
        .join("store/unnamed")
        .join(&digest["sha256:".len()..]);
    let file = fs::File::options().write(true).open(&note).unwrap();
    file.set_modified(std::time::SystemTime::now() - Duration::from_secs(25 * 3600))
        .unwrap();
    world.store.gc(&[]).unwrap();
    assert!(world.store.get(&digest).is_err());
    assert_eq!(build(), digest);
    let prune = |dry_run| {
        let options = PruneOptions {
            all: true,
            dry_run,
            ..PruneOptions::default()
        };
        world.store.prune(&options).unwrap();
        world.store.get(&digest).is_ok()
    };
    assert!(prune(true), "it is only told of");
    assert!(!prune(false), "it was asked for");
}

#[test]
fn files_that_are_larger_than_any_layer_are_refused_and_not_read() {
    let world = World::new();
    let hollow = |path: &Path| {
        let file = fs::File::create(path).unwrap();
        file.set_len(1 << 40).unwrap();
    };
    let runner = Fake::new(move |step, _| {
        hollow(&step.upper.join("hollow"));
        Ok(0)
    });
    world.write(&[("Dockerfile", "FROM scratch\nRUN x\n")]);
    let error = world.build_with(&with(&runner)).0.unwrap_err().to_string();
    assert!(
        error.contains("/hollow, the layer would be of more than 64 GiB"),
        "{error}"
    );
    hollow(&world.context().join("hollow"));
    let error = world
        .build("FROM scratch\nCOPY hollow /\n")
        .unwrap_err()
        .to_string();
    assert!(
        error.starts_with("Dockerfile:2: COPY would make a layer of more than 64 GiB"),
        "{error}"
    );
}

#[test]
fn a_client_that_leaves_stops_the_making_of_a_layer() {
    let world = World::new();
    let runner = Fake::new(|step, _| {
        let file = fs::File::create(step.upper.join("hollow")).unwrap();
        // Minutes of work.
        file.set_len(60 << 30).unwrap();
        Ok(0)
    });
    world.write(&[("Dockerfile", "FROM scratch\nRUN x\n")]);
    let options = with(&runner);
    let begun = Instant::now();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let blobs = || {
                let files = temporary_files(&world).into_iter();
                files.filter(|path| path.is_file()).count()
            };
            while blobs() == 0 && begun.elapsed() < Duration::from_secs(60) {
                std::thread::yield_now();
            }
            options.stop.store(true, Ordering::SeqCst);
        });
        let error = world.build_with(&options).0.unwrap_err().to_string();
        assert!(error.contains("it was given up"), "{error}");
    });
    assert_eq!(temporary_files(&world), Vec::<PathBuf>::new());
}

#[test]
fn what_a_step_wrote_is_the_same_in_its_tar_and_as_its_unpacked_layer() {
    if !is_root() {
        println!("SKIPPED: devices and whiteouts need root");
        return;
    }
    let world = World::new();
    world.write(&[
        ("d/old", "old"),
        ("gone", "gone"),
        (
            "Dockerfile",
            "FROM scratch\nCOPY d /d\nCOPY gone /\nRUN x\n",
        ),
    ]);
    let runner = Fake::new(|step, _| {
        use rustix::fs::{CWD, FileType, Mode, XattrFlags, mknodat, setxattr};
        let upper = &step.upper;
        let node = |name: &str, kind, device| {
            // Overlayfs' mark for a deleted file has no rights.
            let mode = Mode::from_raw_mode(if name == "gone" { 0 } else { 0o640 });
            mknodat(CWD, upper.join(name), kind, mode, device).unwrap();
        };
        node("gone", FileType::CharacterDevice, 0);
        node("null", FileType::CharacterDevice, rustix::fs::makedev(1, 3));
        node("pipe", FileType::Fifo, 0);
        node("socket", FileType::Socket, 0);
        fs::create_dir(upper.join("d")).unwrap();
        setxattr(
            upper.join("d"),
            "trusted.overlay.opaque",
            b"y",
            XattrFlags::empty(),
        )
        .unwrap();
        fs::write(upper.join("d/new"), "new").unwrap();
        fs::hard_link(upper.join("d/new"), upper.join("linked")).unwrap();
        std::os::unix::fs::symlink("d/new", upper.join("symlink")).unwrap();
        std::os::unix::fs::chown(upper.join("d/new"), Some(70_000), Some(7)).unwrap();
        let long = "n".repeat(200);
        fs::write(upper.join(&long), "long").unwrap();
        setxattr(
            upper.join(&long),
            "user.note",
            b"\x00\xff",
            XattrFlags::empty(),
        )
        .unwrap();
        Ok(0)
    });
    let image = world.build_with(&with(&runner)).0.unwrap();
    let elsewhere = Store::open(&world.dir.path().join("elsewhere")).unwrap();
    let mut archive = Vec::new();
    let format = layby_image::Format::Oci;
    (world.store)
        .save(&["test".to_owned()], format, &mut archive)
        .unwrap();
    elsewhere.load(archive.as_slice()).unwrap();
    let ours = world.store.layers(&image.digest).unwrap();
    let theirs = elsewhere.layers(&image.digest).unwrap();
    let list = |dir: &Path| {
        let command = "cd \"$0\" && find . -type s -prune -o -printf '%p %y %m %U:%G %n %s %l %T@\\n' | sort | \
            sed 's/\\.[0-9]*$//'";
        let mut shell = std::process::Command::new("sh");
        let output = shell.args(["-c", command]).arg(dir).output().unwrap();
        String::from_utf8(output.stdout).unwrap()
    };
    let strip = |text: String| -> Vec<String> {
        // The times of the root and of what marks a deleted file are nobody's business.
        let lines = text
            .lines()
            .filter(|line| !line.starts_with(". ") && !line.starts_with("./gone "));
        lines.map(str::to_owned).collect()
    };
    assert_eq!(strip(list(&ours[0])), strip(list(&theirs[0])));
    assert!(!theirs[0].join("socket").exists());
    let device = |name: &str| fs::symlink_metadata(theirs[0].join(name)).unwrap().rdev();
    assert_eq!(device("null"), rustix::fs::makedev(1, 3));
    assert_eq!(device("gone"), 0);
    for (path, name, value) in [
        ("d", "trusted.overlay.opaque", &b"y"[..]),
        (&"n".repeat(200), "user.note", b"\x00\xff"),
    ] {
        let mut found = [0; 8];
        let length = rustix::fs::lgetxattr(theirs[0].join(path), name, &mut found).unwrap();
        assert_eq!(&found[..length], value);
    }
}

#[test]
fn attributes_of_a_folder_are_a_change_and_its_bare_copy_is_none() {
    use rustix::fs::{XattrFlags, lgetxattr, setxattr};
    if !is_root() {
        println!("SKIPPED: folders of layers need root");
        return;
    }
    let world = World::new();
    world.write(&[
        ("d/f", "f"),
        (
            "Dockerfile",
            "FROM scratch\nCOPY d /d\nRUN mark\nRUN same\nRUN other\n",
        ),
    ]);
    let runner = Fake::new(|step, _| {
        let dir = step.upper.join("d");
        fs::create_dir(&dir).unwrap();
        fs::set_permissions(&dir, fs::Permissions::from_mode(0o755)).unwrap();
        let value: &[u8] = match step.argv.last().unwrap().as_str() {
            "other" => b"2",
            _ => b"1",
        };
        setxattr(&dir, "user.note", value, XattrFlags::empty()).unwrap();
        Ok(0)
    });
    let image = world.build_with(&with(&runner)).0.unwrap();
    let layers = world.store.layers(&image.digest).unwrap();
    assert_eq!(layers.len(), 3, "COPY, mark and other");
    for (layer, value) in layers.iter().zip([b"2", b"1"]) {
        let mut found = [0; 8];
        let length = lgetxattr(layer.join("d"), "user.note", &mut found).unwrap();
        assert_eq!(&found[..length], value);
    }
}

#[test]
fn triggers_run_in_the_build_that_begins_with_their_image() {
    let world = World::new();
    let runner = Fake::writer();
    world.write(&[
        ("a", "A"),
        (
            "Dockerfile",
            "FROM scratch\nONBUILD COPY a /a\nONBUILD RUN triggered\nCMD [\"x\"]\n",
        ),
    ]);
    let base = world.build_with(&with(&runner)).0.unwrap();
    assert!(runner.asked().is_empty());
    world.store.tag(&base.digest, "base").unwrap();
    world.write(&[(
        "Dockerfile",
        "FROM base AS one\nFROM scratch AS two\nONBUILD RUN own\nFROM two\nCOPY --from=one / /\n",
    )]);
    let image = world.build_with(&with(&runner)).0.unwrap();
    let mut commands: Vec<String> = (runner.asked().iter())
        .map(|step| step.argv.last().unwrap().clone())
        .collect();
    commands.sort_unstable();
    assert_eq!(commands, ["own", "triggered"]);
    assert!(world.files(&image).contains_key("a"));
}

#[test]
fn what_goes_wrong_says_which_trigger_mount_or_stage_it_was() {
    let world = World::new();
    let runner = Fake::writer();
    let error = |dockerfile: &str, target: Option<&str>| {
        world.write(&[("Dockerfile", dockerfile)]);
        let options = BuildOptions {
            target: target.map(str::to_owned),
            ..with(&runner)
        };
        world.build_with(&options).0.map_err(|e| e.to_string())
    };
    let base = error("FROM scratch\nONBUILD COPY gone /\n", None).unwrap();
    world.store.tag(&base.digest, "base").unwrap();
    let text = error("FROM base\nEXPOSE 80\n", None).unwrap_err();
    assert!(
        text.contains("ONBUILD COPY of the base image base: COPY"),
        "{text}"
    );
    let text = error("FROM scratch\nRUN --mount=type=ssh,required x\n", None).unwrap_err();
    assert!(text.contains("needs the SSH agent \"default\""), "{text}");
    let text = error("FROM scratch\nFROM scratch\n", Some("nope")).unwrap_err();
    assert!(
        text.contains("none has a name: say a number from 0 to 1"),
        "{text}"
    );
    error(
        "FROM scratch AS a\nEXPOSE 1\nFROM scratch\nEXPOSE 2\n",
        Some(""),
    )
    .unwrap();
}

#[test]
fn a_missing_base_is_pulled_where_that_is_possible() {
    let world = World::new();
    let tar = Tar::new().file("f", "F").finish();
    let archive =
        crate::support::oci_archive("far", &[(tar.clone(), crate::support::sha256(&tar))]);
    let store = Arc::new(Store::open(&world.store_dir()).unwrap());
    let asked: Arc<Mutex<Vec<String>>> = Arc::default();
    let names = Arc::clone(&asked);
    world.write(&[("Dockerfile", "FROM far\nCOPY --from=far /f /g\n")]);
    let options = BuildOptions {
        pull: Some(Puller::new(move |name| {
            names.lock().unwrap().push(name.short());
            store.load(archive.as_slice())?;
            store.resolve("far")
        })),
        ..BuildOptions::default()
    };
    let (image, events) = world.build_with(&options);
    assert!(world.files(&image.unwrap()).contains_key("g"));
    assert_eq!(*asked.lock().unwrap(), ["far:latest"]);
    assert!(events.contains(&BuildEvent::Output("pulling far".into())));
    let missing = BuildOptions {
        pull: Some(Puller::new(|_| {
            Err(Error::Build("the registry is closed".into()))
        })),
        ..BuildOptions::default()
    };
    world.write(&[("Dockerfile", "FROM farther\n")]);
    let error = world.build_with(&missing).0.unwrap_err().to_string();
    assert_eq!(
        error,
        "Dockerfile:1: FROM farther: cannot build: the registry is closed"
    );
}
