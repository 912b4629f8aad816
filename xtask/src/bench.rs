//! `cargo xtask bench`: every figure of SPECIFICATION.md, measured on this machine, side by side with peers.

use std::path::Path;

use anyhow::Result;

use crate::command::{cargo, command, run};
use crate::{dist, example, place, setup};

/// What is measured beside Layby, and where it comes from.
const PEERS: [(&str, &str); 10] = [
    ("buildah", "builds beside Layby"),
    (
        "docker-compose",
        "brings an app of 20 services up beside Layby",
    ),
    (
        "docker-registry",
        "the registry that images are pulled from",
    ),
    (
        "docker.io",
        "Docker's own start and unpause of the same images",
    ),
    ("mmdebstrap", "makes the Debian image"),
    ("netavark", "the bridge of podman's container"),
    ("nginx-light", "the gateway's peer"),
    ("podman", "pulls and starts beside Layby"),
    (
        "skopeo",
        "pulls beside Layby, unpacked by umoci, and pushes to it",
    ),
    ("umoci", "unpacks what skopeo pulled"),
];
/// What is left out of the Debian image, so that it has its 140 MB: what no program needs.
const LEFT_OUT: [&str; 2] = ["/usr/share/doc/*", "/usr/share/man/*"];

/// What can be measured alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Part {
    /// Waking, deploying, idling.
    Services,
    /// The gateway beside nginx.
    Gateway,
    /// Requests while a service is rolled out and back, scaled, and the node killed.
    Rollout,
    /// A service that goes from asleep to four replicas under a crowd, and back.
    Scaling,
    /// An app of 20 services, brought up beside docker-compose.
    Stack,
    /// Pulling, building, starting and pushing beside Docker, podman, skopeo, umoci and buildah.
    Images,
}

/// Measures and prints.
///
/// # Errors
/// Not root (said before anything is done), or the first step that failed.
pub(crate) fn bench(part: Option<Part>, runs: u32, idle_seconds: u32, peers: bool) -> Result<()> {
    setup::require_root("cargo xtask bench")?;
    setup::setup()?;
    setup::install(&PEERS)?;
    dist::dist()?;
    example::example("mnist")?;
    run(&mut cargo(&[
        "build",
        "--profile",
        "dist",
        "--package",
        "layby-bench",
    ]))?;
    let built = place::target().join("dist");
    let bench = built.join("layby-bench");
    let wanted = |one: Part| part.is_none_or(|part| part == one);
    if wanted(Part::Services) {
        println!("\n## Waking, deploying, idling");
        services(&bench, &built.join("layby"), runs, idle_seconds, peers)?;
    }
    if wanted(Part::Gateway) {
        println!("\n## The gateway and nginx");
        run(command(&bench).arg("versus-nginx"))?;
    }
    if wanted(Part::Rollout) {
        println!("\n## Rollouts under load");
        run(command(&bench)
            .args(["rollout", "--layby"])
            .arg(built.join("layby")))?;
    }
    if wanted(Part::Scaling) {
        println!("\n## Scaled by load");
        run(command(&bench)
            .args(["scaling", "--layby"])
            .arg(built.join("layby")))?;
    }
    if wanted(Part::Stack) {
        println!("\n## An app of 20 services");
        let peers = peers.to_string();
        run(command(&bench)
            .args(["stack", "--peers", &peers, "--layby"])
            .arg(built.join("layby")))?;
    }
    if wanted(Part::Images) {
        println!("\n## Images");
        images(&bench, &built.join("layby"), peers)?;
    }
    Ok(())
}

/// Everything is on the disk of the target folder: in memory, nobody would wait for it.
fn images(bench: &Path, layby: &Path, peers: bool) -> Result<()> {
    let folder = place::target().join("bench-images");
    std::fs::create_dir_all(&folder)?;
    let debian = folder.join("debian.tar");
    if !debian.exists() {
        let mut make = command("mmdebstrap");
        make.args(["--quiet", "--variant=minbase"]);
        // Where the clock or the mirror is off, yesterday's Debian is as good; it is signed all the same.
        make.arg("--aptopt=Acquire::Check-Valid-Until \"false\"");
        make.args(LEFT_OUT.map(|path| format!("--dpkgopt=path-exclude={path}")));
        let part = folder.join("debian.part.tar");
        run(make.arg("stable").arg(&part))?;
        std::fs::rename(&part, &debian)?;
    }
    let mut images = command(bench);
    images.env("TMPDIR", &folder).arg("images");
    images.args(["--peers", &peers.to_string(), "--layby"]);
    images.arg(layby);
    run(images.arg("--debian").arg(&debian))
}

fn services(bench: &Path, layby: &Path, runs: u32, idle_seconds: u32, peers: bool) -> Result<()> {
    let mut services = command(bench);
    services
        .args([
            "services",
            "--example",
            "examples/mnist",
            "--docker",
            &peers.to_string(),
            "--layby",
        ])
        .arg(layby);
    services.args([
        "--runs",
        &runs.to_string(),
        "--idle-seconds",
        &idle_seconds.to_string(),
    ]);
    run(&mut services)
}
