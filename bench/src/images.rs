//! `layby-bench images`: what an image goes through, beside Docker, podman, skopeo with umoci, and buildah.
//!
//! Pulling, unpacking and rebuilding are here; starting, pushing and the memory of many replicas in files of their own.
//! Everything lies on one file system, which must be a disk. Nothing is deleted between rounds: ext4 searches long
//! for inodes where many were just freed, and whoever comes next would pay for it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::args::Args;
use crate::beside::quiet;
use crate::figures::{Samples, line};
use crate::node::Node;
use crate::registry::Registry;
use crate::{crowd, push, start};

/// What can be measured alone, in this order.
const PARTS: [&str; 5] = ["pull", "rebuild", "start", "push", "memory"];
/// What is promised: Layby's time as a share of the other's.
const PULL_AT_MOST: f64 = 0.6;
const REBUILD_AT_MOST: f64 = 0.25;
/// The steps of the Dockerfile that is built again and again.
const DOCKERFILE: &str = "FROM {base}
ENV A=1 B=2
WORKDIR /srv
COPY requirements.txt .
RUN sort requirements.txt > sorted.txt
RUN mkdir -p /srv/data && echo made > /srv/data/made
COPY app app
RUN ls -R app > listing.txt
LABEL org.example.bench=1
CMD [\"/bin/true\"]
";

/// What is measured, and how often.
struct Options {
    layby: PathBuf,
    /// A root file system as a tar.
    debian: PathBuf,
    rounds: usize,
    builds: usize,
    starts: usize,
    pushes: usize,
    /// Others are measured beside.
    peers: bool,
    /// Only these parts; all if empty.
    only: Vec<String>,
}

/// Where everything lies.
struct Work<'a> {
    /// On the disk that is measured.
    dir: &'a Path,
    /// Short: podman takes no longer path than 50 characters for its run root.
    run: &'a Path,
}

/// Measures and prints the table.
pub(crate) fn run(args: &mut Args) -> Result<()> {
    let options = Options {
        layby: args.need::<PathBuf>("layby")?.canonicalize()?,
        debian: args.need::<PathBuf>("debian")?.canonicalize()?,
        rounds: args.get("rounds")?.unwrap_or(7),
        builds: args.get("builds")?.unwrap_or(21),
        starts: args.get("starts")?.unwrap_or(21),
        pushes: args.get("pushes")?.unwrap_or(15),
        peers: args.get("peers")?.unwrap_or(true),
        only: args.all("only"),
    };
    args.finish()?;
    let known = |part: &&String| PARTS.contains(&part.as_str());
    if let Some(part) = options.only.iter().find(|part| !known(part)) {
        bail!("--only {part}: there are {}", PARTS.join(", "));
    }
    let dir = tempfile::Builder::new()
        .prefix("layby-bench-images-")
        .tempdir()?;
    let run = tempfile::Builder::new().prefix("lyb-").tempdir_in("/tmp")?;
    let work = Work {
        dir: dir.path(),
        run: run.path(),
    };
    let wanted = |part: &str| options.only.is_empty() || options.only.iter().any(|one| one == part);
    if wanted("pull") || wanted("rebuild") {
        let registry = Registry::start(work.dir)?;
        let image = format!("{}/debian:1", registry.addr);
        fill(&work, &options.debian, &image)?;
        if wanted("pull") {
            pulls(&options, &work, &image)?;
        }
        if wanted("rebuild") {
            rebuilds(&options, &work, &image)?;
        }
    }
    if wanted("start") {
        start::starts(
            &options.layby,
            work.dir,
            work.run,
            options.starts,
            options.peers,
        )?;
    }
    if wanted("push") {
        push::pushes(&options.layby, work.dir, options.pushes)?;
    }
    if wanted("memory") {
        crowd::crowd(&options.layby)?;
    }
    Ok(())
}

/// Puts the image into the registry, as podman packs it (gzip).
fn fill(work: &Work<'_>, debian: &Path, image: &str) -> Result<()> {
    let tar = debian.to_str().context("the tar's path is not UTF-8")?;
    let mib = fs::metadata(debian)?.len() as f64 / 1e6;
    println!("image: {mib:.0} MB unpacked, one layer");
    quiet(podman(work, "fill").args(["import", tar, image]))?;
    quiet(podman(work, "fill").args(["push", "--tls-verify=false", image])).map(drop)
}

fn pulls(options: &Options, work: &Work<'_>, image: &str) -> Result<()> {
    let (mut layby, mut podmans, mut umoci) =
        (Samples::default(), Samples::default(), Samples::default());
    let mut nodes = Vec::new();
    for round in 0..options.rounds {
        // A node of its own each time: it has nothing yet.
        let node = Node::start(&options.layby)?;
        settle();
        let begun = Instant::now();
        node.run(Path::new("/"), &["image", "pull", "--quiet", image])?;
        layby.push(begun.elapsed());
        nodes.push(node);
        if !options.peers {
            continue;
        }

        settle();
        let begun = Instant::now();
        quiet(podman(work, &format!("p{round}")).args([
            "pull",
            "--quiet",
            "--tls-verify=false",
            image,
        ]))?;
        podmans.push(begun.elapsed());

        settle();
        let layout = work.dir.join(format!("oci{round}"));
        let to = format!("oci:{}:1", layout.display());
        let begun = Instant::now();
        quiet(
            Command::new("skopeo")
                .args(["copy", "--quiet", "--src-tls-verify=false"])
                .arg(format!("docker://{image}"))
                .arg(to),
        )?;
        quiet(
            Command::new("umoci")
                .args(["unpack", "--image"])
                .arg(format!("{}:1", layout.display()))
                .arg(work.dir.join(format!("bundle{round}"))),
        )?;
        umoci.push(begun.elapsed());
    }
    println!(
        "pull and unpack, median of {}: Layby {:.0} ms",
        layby.len(),
        layby.median()
    );
    if !options.peers {
        return Ok(());
    }
    println!(
        "beside it: podman {:.0} ms, skopeo + umoci {:.0} ms",
        podmans.median(),
        umoci.median()
    );
    line(
        "pull and unpack, of podman's time",
        layby.median() / podmans.median(),
        "",
        PULL_AT_MOST,
    );
    line(
        "pull and unpack, of skopeo + umoci's time",
        layby.median() / umoci.median(),
        "",
        PULL_AT_MOST,
    );
    Ok(())
}

fn rebuilds(options: &Options, work: &Work<'_>, image: &str) -> Result<()> {
    let context = work.dir.join("context");
    fs::create_dir_all(context.join("app"))?;
    fs::write(
        context.join("Dockerfile"),
        DOCKERFILE.replace("{base}", image),
    )?;
    fs::write(context.join("requirements.txt"), "b\na\n")?;
    for n in 0..50 {
        fs::write(
            context.join(format!("app/{n}.py")),
            format!("print({n})\n").repeat(200),
        )?;
    }
    let folder = context.to_str().context("the folder's path is not UTF-8")?;
    let node = Node::start(&options.layby)?;
    let build = || node.run(Path::new("/"), &["build", folder, "-t", "bench:1"]);
    let buildah = || {
        let mut command = Command::new("buildah");
        storage(&mut command, work, "buildah");
        let build = [
            "build",
            "--layers",
            "--tls-verify=false",
            "--isolation=chroot",
            "-t",
            "bench:1",
        ];
        quiet(command.args(build).arg(&context))
    };
    // Both take the image in, and fill their caches.
    build()?;
    if options.peers {
        buildah()?;
    }
    let (mut ours, mut theirs) = (Samples::default(), Samples::default());
    for _ in 0..options.builds {
        let begun = Instant::now();
        build()?;
        ours.push(begun.elapsed());
        if options.peers {
            let begun = Instant::now();
            buildah()?;
            theirs.push(begun.elapsed());
        }
    }
    println!(
        "cached rebuild of 10 steps, median of {}: Layby {:.1} ms",
        ours.len(),
        ours.median()
    );
    if !options.peers {
        return Ok(());
    }
    println!("beside it: buildah {:.0} ms", theirs.median());
    line(
        "cached rebuild, of buildah's time",
        ours.median() / theirs.median(),
        "",
        REBUILD_AT_MOST,
    );
    Ok(())
}

/// podman with a store of its own.
fn podman(work: &Work<'_>, store: &str) -> Command {
    let mut command = Command::new("podman");
    storage(&mut command, work, store);
    command
}

fn storage(command: &mut Command, work: &Work<'_>, store: &str) {
    command
        .arg("--root")
        .arg(work.dir.join(store).join("root"))
        .arg("--runroot")
        .arg(work.run.join(store))
        .args(["--storage-driver", "overlay"]);
}

/// What was written before is on the disk: nobody pays for another's writes.
fn settle() {
    nix::unistd::sync();
    std::thread::sleep(Duration::from_millis(200));
}
