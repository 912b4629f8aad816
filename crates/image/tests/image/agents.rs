//! `RUN --mount=type=ssh`: sockets that lead to agents of whoever builds.

use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use layby_image::build::agents::Agent;
use layby_image::build::run::RunSource;

use crate::runs::{Fake, env, temporary_files, with};
use crate::support::World;

#[test]
fn a_step_reaches_the_ssh_agent_that_it_mounts_while_it_runs_and_the_cache_knows_nothing_of_it() {
    let world = World::new();
    let left: Arc<Mutex<Vec<UnixStream>>> = Arc::default();
    let kept = Arc::clone(&left);
    let runner = Fake::new(move |step, _| {
        let mut agents: Vec<PathBuf> = Vec::new();
        for mount in &step.mounts {
            let RunSource::Bind(path) = &mount.source else {
                panic!("{mount:?}");
            };
            let metadata = fs::metadata(path).unwrap();
            assert_eq!(metadata.mode() & 0o777, 0o600);
            let mut stream = UnixStream::connect(path).unwrap();
            stream.write_all(b"who").unwrap();
            let mut said = [0; 3];
            stream.read_exact(&mut said).unwrap();
            agents.push(format!("{} {}", mount.target, String::from_utf8_lossy(&said)).into());
            kept.lock().unwrap().push(stream);
        }
        fs::write(step.upper.join("agents"), format!("{agents:?}")).unwrap();
        fs::write(
            step.upper.join("first"),
            env(step, "SSH_AUTH_SOCK").unwrap_or("none"),
        )
        .unwrap();
        Ok(0)
    });
    // An agent that answers with its name.
    let agent = |name: &'static [u8; 3]| -> Agent {
        Arc::new(move |stream: UnixStream| {
            let (mut near, far) = (stream.try_clone().unwrap(), stream);
            std::thread::spawn(move || {
                let mut asked = [0; 3];
                near.read_exact(&mut asked).unwrap();
                near.write_all(name).unwrap();
            });
            Box::new(BreaksOff(far))
        })
    };
    world.write(&[(
        "Dockerfile",
        "FROM scratch\nRUN --mount=type=ssh --mount=type=ssh,id=b,target=/b --mount=type=ssh,id=none x\n",
    )]);
    let mut options = with(&runner);
    options.agents.insert("default".into(), agent(b"one"));
    options.agents.insert("b".into(), agent(b"two"));
    let image = world.build_with(&options).0.unwrap();
    let files = world.files(&image);
    let agents = r#"["/run/buildkit/ssh_agent.0 one", "/b two"]"#;
    assert!(files["agents"].ends_with(agents), "{}", files["agents"]);
    assert!(files["first"].ends_with(" /run/buildkit/ssh_agent.0"));
    // What the step kept open was broken off with it, and its sockets are gone.
    for stream in left.lock().unwrap().iter_mut() {
        assert_eq!(stream.read(&mut [0]).unwrap(), 0);
    }
    assert_eq!(temporary_files(&world), Vec::<PathBuf>::new());
    // Whether there is an agent changes nothing for the same owner.
    let again = world.build_with(&with(&runner)).0.unwrap();
    assert_eq!((again.digest, runner.asked().len()), (image.digest, 1));
}

#[test]
fn what_a_step_made_that_saw_a_secret_or_an_agent_is_nobody_elses_from_the_cache() {
    let world = World::new();
    let runner = Fake::new(|step, _| {
        fs::write(step.upper.join("out"), step.argv.join(" ")).unwrap();
        Ok(0)
    });
    let counts = |mount: &str| {
        let text = format!("FROM scratch\nRUN {mount} [\"x\", \"{mount}\"]\n");
        world.write(&[("Dockerfile", &*text)]);
        let before = runner.asked().len();
        let mut options = with(&runner);
        let mut counts = Vec::new();
        for owner in ["apps shop", "apps shop", "apps blog", "node", "apps shop"] {
            options.steps_owner = owner.to_owned();
            options.is_apart = owner != "node";
            world.build_with(&options).0.unwrap();
            counts.push(runner.asked().len() - before);
        }
        counts
    };
    for lent in [
        "--mount=type=ssh",
        "--mount=type=secret,id=s",
        // Who is apart fills a folder alone.
        "--mount=type=cache,target=/c",
    ] {
        assert_eq!(counts(lent), [1, 1, 2, 3, 3], "{lent}");
    }
    assert_eq!(counts("--mount=type=tmpfs,target=/tmp"), [1; 5]);
}

#[test]
fn who_is_apart_has_caches_of_its_own_and_steps_through_its_proxy_are_nobody_elses() {
    let world = World::new();
    let runner = Fake::new(|step, _| {
        let count = match &step.mounts[..] {
            [] => return Ok(0),
            [mount, ..] => mount,
        };
        let RunSource::Bind(folder) = &count.source else {
            panic!("{count:?}");
        };
        let before = fs::read_to_string(folder.join("by")).unwrap_or_default();
        fs::write(folder.join("by"), format!("{before}{}", step.argv[0])).unwrap();
        fs::write(step.upper.join("out"), before).unwrap();
        Ok(0)
    });
    let build = |owner: &str, run: &str, proxy: bool| {
        world.write(&[("Dockerfile", &*format!("FROM scratch\nRUN {run}\n"))]);
        let mut options = with(&runner);
        options.steps_owner = owner.to_owned();
        options.is_apart = owner != "node";
        if proxy {
            let name = "http_proxy".to_owned();
            options.args.insert(name, "http://192.0.2.1".to_owned());
        }
        let image = world.build_with(&options).0.unwrap();
        world.files(&image).get("out").cloned().unwrap_or_default()
    };
    let by = |owner: &str, command: &str| {
        let run = format!("--mount=type=cache,target=/c,id=c [\"{command}\"]");
        build(owner, &run, false)
    };
    by("node", "a");
    by("apps shop", "b");
    by("apps blog", "c");
    assert!(by("node", "d").ends_with(" a"));
    assert!(by("apps shop", "e").ends_with(" b"));
    // Where it is known by all: what was there before there were owners stays in use.
    let name = "2e7d2c03a9507ae265ecf5b5356885a53393a2029d241394997265a1a25aefc6"; // SHA-256 of "c"
    assert!(world.store_dir().join("cache-mounts").join(name).exists());

    let before = runner.asked().len();
    for (owner, proxy) in [
        ("apps shop", true),
        ("node", false),
        ("apps shop", false),
        ("node", true),
        ("apps shop", true),
    ] {
        build(owner, "[\"fetch\"]", proxy);
    }
    assert_eq!(runner.asked().len() - before, 2);
}

/// Breaks a connection off when dropped.
struct BreaksOff(UnixStream);

impl Drop for BreaksOff {
    fn drop(&mut self) {
        self.0.shutdown(std::net::Shutdown::Both).unwrap();
    }
}
