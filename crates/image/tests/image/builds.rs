//! Builds: what comes out, the cache, reproducibility, stages, errors.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use layby_image::{BuildEvent, BuildOptions, Error, Healthcheck};

use crate::support::World;

const MNIST: &str = r#"# the example's
FROM scratch
COPY --chmod=755 dist/mnist /mnist
ENV PORT=8051 NAME="a b"
LABEL org.opencontainers.image.title=mnist
EXPOSE $PORT 53/udp 9000-9001
USER 1000:1000
WORKDIR /srv
STOPSIGNAL SIGINT
VOLUME /data
HEALTHCHECK --interval=5s --timeout=2s --retries=3 CMD ["/mnist", "health"]
ENTRYPOINT ["/mnist"]
CMD ["--port", "8051"]
"#;

fn cached_of(events: &[BuildEvent]) -> Vec<bool> {
    let steps = events.iter().filter_map(|event| match event {
        BuildEvent::Step { cached, .. } => Some(*cached),
        BuildEvent::Started { .. }
        | BuildEvent::Line { .. }
        | BuildEvent::Failed { .. }
        | BuildEvent::Output(_) => None,
    });
    steps.collect()
}

#[test]
fn a_scratch_image_has_all_that_its_dockerfile_says() {
    let world = World::new();
    world.write(&[("dist/mnist", "binary")]);
    let image = world.build(MNIST).unwrap();
    let config = &image.config;
    assert_eq!(image.references, ["docker.io/library/test:latest"]);
    assert_eq!(config.entrypoint, ["/mnist"]);
    assert_eq!(config.cmd, ["--port", "8051"]);
    assert_eq!(config.env[0].0, "PATH");
    assert_eq!(
        config.env[1..],
        [
            ("PORT".into(), "8051".into()),
            ("NAME".into(), "a b".into())
        ]
    );
    assert_eq!(config.exposed_ports, [8051, 9000, 9001]);
    assert_eq!(
        (config.user.as_str(), config.working_dir.as_str()),
        ("1000:1000", "/srv")
    );
    assert_eq!(config.stop_signal.as_deref(), Some("SIGINT"));
    assert_eq!(config.volumes, ["/data"]);
    assert_eq!(config.labels["org.opencontainers.image.title"], "mnist");
    let healthcheck = Healthcheck {
        test: vec!["CMD".into(), "/mnist".into(), "health".into()],
        interval_ms: Some(5000),
        timeout_ms: Some(2000),
        start_period_ms: None,
        retries: Some(3),
    };
    assert_eq!(config.healthcheck, Some(healthcheck));
    let files = world.files(&image);
    assert!(
        files["mnist"].starts_with("755 ") && files["mnist"].ends_with(" binary"),
        "{files:?}"
    );
    assert!(files.contains_key("srv/"));
    assert_eq!(world.store.resolve("test").unwrap(), image);
}

#[test]
fn an_unchanged_build_takes_everything_from_the_cache() {
    let world = World::new();
    world.write(&[("dist/mnist", "binary"), ("Dockerfile", MNIST)]);
    let options = BuildOptions::default();
    let (first, events) = world.build_with(&options);
    let first = first.unwrap();
    assert_eq!(
        cached_of(&events).iter().filter(|cached| !**cached).count(),
        2,
        "COPY and WORKDIR made layers"
    );
    assert_eq!(
        events[1],
        BuildEvent::Step {
            number: 2,
            of: 12,
            stage: "0".into(),
            text: "COPY --chmod=755 dist/mnist /mnist".into(),
            cached: false
        }
    );
    let (second, events) = world.build_with(&options);
    assert_eq!(second.unwrap(), first);
    assert!(cached_of(&events).iter().all(|cached| *cached));
    world.write(&[("dist/mnist", "changed")]);
    let (third, events) = world.build_with(&options);
    assert_ne!(third.unwrap().digest, first.digest);
    assert!(!cached_of(&events)[1]);
}

#[test]
fn a_cached_layer_that_was_collected_is_made_anew() {
    let world = World::new();
    world.write(&[("a", "x")]);
    let image = world.build("FROM scratch\nCOPY a /\n").unwrap();
    world.store.remove("test").unwrap();
    world.store.gc(&[]).unwrap();
    let again = world.build("FROM scratch\nCOPY a /\n").unwrap();
    assert_eq!(again.digest, image.digest);
    assert!(world.files(&again).contains_key("a"));
}

#[test]
fn the_same_input_gives_the_same_digest_whatever_the_times() {
    let build = |seconds: u64| {
        let world = World::new();
        world.write(&[("d/b", "b"), ("d/a", "a")]);
        let time = std::time::UNIX_EPOCH + std::time::Duration::from_secs(seconds);
        fs::File::open(world.context().join("d/a"))
            .unwrap()
            .set_modified(time)
            .unwrap();
        world
            .build("FROM scratch\nCOPY d /d\nWORKDIR /w\n")
            .unwrap()
    };
    let image = build(1000);
    assert_eq!(build(2_000_000_000).digest, image.digest);
    assert_eq!(image.created.as_deref(), Some("1970-01-01T00:00:00Z"));
}

#[test]
fn the_source_date_can_be_set() {
    let world = World::new();
    world.write(&[("a", "a"), ("Dockerfile", "FROM scratch\nCOPY a /\n")]);
    let with = |epoch: &str| BuildOptions {
        args: [("SOURCE_DATE_EPOCH".to_owned(), epoch.to_owned())].into(),
        ..BuildOptions::default()
    };
    let image = world.build_with(&with("86400")).0.unwrap();
    assert_eq!(image.created.as_deref(), Some("1970-01-02T00:00:00Z"));
    let layer = world.store.layers(&image.digest).unwrap().remove(0);
    let modified = fs::metadata(layer.join("a")).unwrap().modified().unwrap();
    assert_eq!(
        modified
            .duration_since(std::time::UNIX_EPOCH)
            .unwrap()
            .as_secs(),
        86400
    );
    assert!(world.build_with(&with("soon")).0.is_err());
}

#[test]
fn stages_build_on_each_other_and_only_those_needed_are_built() {
    let world = World::new();
    world.write(&[("a", "A"), ("b", "B")]);
    let dockerfile = "ARG BASE=scratch\nFROM $BASE AS one\nCOPY a /one/\nENV X=1\n\
        FROM scratch AS unneeded\nCOPY missing /\n\
        FROM one AS two\nCOPY b /two/b\nENV Y=${X}2\nCMD [\"/a\"]\n\
        FROM scratch\nCOPY --from=two /one/a /two/ /all/\nCOPY --from=0 one/a /again\n";
    let image = world.build(dockerfile).unwrap();
    let files = world.files(&image);
    for (path, text) in [("all/a", "A"), ("all/b", "B"), ("again", "A")] {
        assert!(files[path].ends_with(text), "{files:?}");
    }
    let options = BuildOptions {
        target: Some("TWO".into()),
        ..BuildOptions::default()
    };
    let two = world.build_with(&options).0.unwrap();
    assert!(two.config.env.contains(&("Y".into(), "12".into())));
    assert!(world.files(&two).contains_key("one/a"));
    let unknown = BuildOptions {
        target: Some("three".into()),
        ..BuildOptions::default()
    };
    let error = world.build_with(&unknown).0.unwrap_err();
    assert!(error.to_string().contains("no stage \"three\""), "{error}");
}

#[test]
fn a_local_image_is_a_base_and_keeps_what_it_says() {
    let world = World::new();
    world.write(&[("a", "A"), ("b", "B")]);
    let base =
        "FROM scratch\nCOPY a /etc/a\nENV P=/p\nWORKDIR /w\nCMD [\"base\"]\nHEALTHCHECK CMD true\n";
    world.build(base).unwrap();
    world
        .store
        .tag(&world.store.resolve("test").unwrap().digest, "base:1")
        .unwrap();
    let image = world
        .build("FROM base:1\nCOPY b $P/b\nCOPY --from=base:1 /etc/a here\n")
        .unwrap();
    assert_eq!(image.config.cmd, ["base"]);
    assert_eq!(
        image.config.healthcheck.as_ref().unwrap().test,
        ["CMD-SHELL", "true"]
    );
    let files = world.files(&image);
    assert!(
        files["p/b"].ends_with('B')
            && files["etc/a"].ends_with('A')
            && files["w/here"].ends_with('A')
    );
    let image = world
        .build("FROM base:1\nENTRYPOINT run it\nHEALTHCHECK NONE\n")
        .unwrap();
    assert_eq!(image.config.entrypoint, ["/bin/sh", "-c", "run it"]);
    assert_eq!(
        image.config.cmd, [""; 0],
        "the base's CMD was for the base's ENTRYPOINT"
    );
    assert_eq!(image.config.healthcheck.as_ref().unwrap().test, ["NONE"]);
}

#[test]
fn arguments_reach_from_and_the_stages_that_ask_for_them() {
    let world = World::new();
    world.write(&[(
        "Dockerfile",
        "ARG V=1\nARG S=scratch\nFROM ${S}\nLABEL before=[$V]\nARG V\nARG W=w$V\nLABEL v=$V w=$W arch=[$TARGETARCH]\nENV V=env\nLABEL after=$V\n",
    )]);
    let options = BuildOptions {
        args: [
            ("V".to_owned(), "2".to_owned()),
            ("UNUSED".to_owned(), "x".to_owned()),
        ]
        .into(),
        ..BuildOptions::default()
    };
    let (image, events) = world.build_with(&options);
    let labels = image.unwrap().config.labels;
    for (name, value) in [
        ("before", "[]"),
        ("v", "2"),
        ("w", "w2"),
        ("arch", "[]"),
        ("after", "env"),
    ] {
        assert_eq!(labels[name], value, "{name}");
    }
    let note = "the build argument UNUSED is not used by Dockerfile";
    assert!(
        events.contains(&BuildEvent::Output(note.to_owned())),
        "{events:?}"
    );
}

#[test]
fn errors_name_the_file_the_line_and_the_instruction() {
    let world = World::new();
    world.write(&[
        ("a", "A"),
        ("d/x", "X"),
        ("hidden", ""),
        (".dockerignore", "hidden\n"),
    ]);
    std::os::unix::fs::symlink("/nowhere", world.context().join("dangling")).unwrap();
    for (dockerfile, error) in [
        (
            "FROM nope:1\n",
            "shown/Dockerfile:1: FROM nope:1: there is no image nope:1 here; load it",
        ),
        (
            "FROM $NOPE\n",
            "shown/Dockerfile:1: FROM $NOPE names no image",
        ),
        (
            "FROM --platform=linux/s390x scratch\n",
            "shown/Dockerfile:1: FROM --platform=linux/s390x cannot be built",
        ),
        (
            "FROM scratch\n\nRUN make\n",
            "shown/Dockerfile:3: RUN cannot be carried out: whoever builds here has no runtime",
        ),
        (
            "FROM scratch\nCOPY nope /\n",
            "shown/Dockerfile:2: COPY does not find \"nope\" in the build context shown",
        ),
        (
            "FROM scratch\nCOPY n*pe /\n",
            "shown/Dockerfile:2: COPY finds nothing that matches \"n*pe\" in the build context shown",
        ),
        (
            "FROM scratch\nCOPY ../x /\n",
            "shown/Dockerfile:2: COPY names \"../x\", which lies outside of the build context",
        ),
        (
            "FROM scratch\nCOPY d/../../x /\n",
            "shown/Dockerfile:2: COPY names \"d/../../x\", which lies outside",
        ),
        (
            "FROM scratch\nCOPY dangling /\n",
            "shown/Dockerfile:2: COPY does not find \"dangling\"",
        ),
        (
            "FROM scratch\nCOPY hidden /\n",
            ".dockerignore leaves it out",
        ),
        (
            "FROM scratch\nCOPY a d/x /dst\n",
            "shown/Dockerfile:2: COPY copies several files, so the destination \"/dst\"",
        ),
        (
            "FROM scratch\nCOPY a /f\nCOPY d /f\n",
            "shown/Dockerfile:3: COPY cannot copy a directory onto \"/f\"",
        ),
        (
            "FROM scratch\nCOPY a /f\nCOPY d/x /f/\n",
            "shown/Dockerfile:3: COPY has the destination \"/f/\", which is no",
        ),
        (
            "FROM scratch\nCOPY a /f\nCOPY d/x /f/g\n",
            "shown/Dockerfile:3: COPY needs the directory /f, which is a file",
        ),
        (
            "FROM scratch\nCOPY a /f\nWORKDIR /f\n",
            "shown/Dockerfile:3: WORKDIR \"/f\" is a file in the image",
        ),
        (
            "FROM scratch\nCOPY --chmod=u+q a /\n",
            "shown/Dockerfile:2: COPY --chmod=u+q is no mode",
        ),
        (
            "FROM scratch\nCOPY --chown=me a /\n",
            "shown/Dockerfile:2: --chown=me: there is no user \"me\"",
        ),
        (
            "FROM scratch\nCOPY --from=nope /a /\n",
            "shown/Dockerfile:2: COPY --from nope: there is no image",
        ),
        (
            "FROM scratch\nCOPY ${X:?set_it} /\n",
            "shown/Dockerfile:2: COPY ${X:?set_it}: X: set_it",
        ),
        (
            "FROM scratch\nCOPY $X /\n",
            "shown/Dockerfile:2: COPY has \"$X\", which is empty",
        ),
        (
            "FROM scratch\nADD https://x/y.git /\n",
            "shown/Dockerfile:2: ADD of the git repository \"https://x/y.git\"",
        ),
        (
            "FROM scratch\nEXPOSE 0\n",
            "shown/Dockerfile:2: EXPOSE 0 is no port",
        ),
        (
            "FROM scratch\nEXPOSE 80:80\n",
            "shown/Dockerfile:2: EXPOSE 80:80 is no port",
        ),
    ] {
        world.write(&[("Dockerfile", dockerfile)]);
        let options = BuildOptions {
            file_name_shown: "shown/Dockerfile".into(),
            ..BuildOptions::default()
        };
        let found = world
            .build_with(&options)
            .0
            .expect_err(dockerfile)
            .to_string();
        assert!(found.contains(error), "{dockerfile:?}: {found}");
    }
    assert_eq!(
        fs::read_dir(world.store_dir().join("tmp")).unwrap().count(),
        0
    );
}

#[test]
fn a_missing_or_unfit_dockerfile_is_an_error() {
    let world = World::new();
    let options = |name: &str| BuildOptions {
        dockerfile: Some(name.to_owned()),
        ..BuildOptions::default()
    };
    let error = world
        .build_with(&BuildOptions::default())
        .0
        .unwrap_err()
        .to_string();
    assert!(
        error.starts_with("cannot build: there is no Dockerfile in /"),
        "{error}"
    );
    let error = world
        .build_with(&options("../Dockerfile"))
        .0
        .unwrap_err()
        .to_string();
    assert!(error.contains("outside of the build context"), "{error}");
    fs::write(world.context().join("binary"), b"FROM \xff").unwrap();
    let error = world
        .build_with(&options("binary"))
        .0
        .unwrap_err()
        .to_string();
    assert!(error.contains("not UTF-8"), "{error}");
    fs::write(world.context().join("large"), "#".repeat(2 << 20)).unwrap();
    let error = world.build_with(&options("large")).0.unwrap_err();
    assert!(matches!(error, Error::Build(_)), "{error}");
}

#[test]
fn the_dockerfiles_own_ignore_file_comes_first() {
    let world = World::new();
    world.write(&[
        ("a", "A"),
        ("b", "B"),
        ("deep/keep", "K"),
        ("deep/drop", "D"),
        (".dockerignore", "a\n"),
        ("ci/Dockerfile", "FROM scratch\nCOPY . /\n"),
        (
            "ci/Dockerfile.dockerignore",
            "b\nci\ndeep\n!deep/keep\n.dockerignore\n",
        ),
        ("Dockerfile", "FROM scratch\nCOPY [a-c] deep /\n"),
    ]);
    let options = BuildOptions {
        dockerfile: Some("ci/Dockerfile".into()),
        ..BuildOptions::default()
    };
    let image = world.build_with(&options).0.unwrap();
    let names: Vec<String> = world.files(&image).into_keys().collect();
    assert_eq!(names, ["Dockerfile", "a", "deep/", "deep/keep"]);
    let image = world.build_with(&BuildOptions::default()).0.unwrap();
    let names: Vec<String> = world.files(&image).into_keys().collect();
    assert_eq!(names, ["b", "drop", "keep"]);
}

#[test]
fn a_context_root_that_others_cannot_read_does_not_close_the_image() {
    let world = World::new();
    world.write(&[("a", "A")]);
    fs::set_permissions(world.context(), fs::Permissions::from_mode(0o700)).unwrap();
    let image = world.build("FROM scratch\nCOPY . /app\n").unwrap();
    assert!(world.files(&image)["app/"].starts_with("755 "));
}
