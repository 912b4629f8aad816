//! `layby-bench images`: pulling, unpacking and rebuilding, beside podman, skopeo with umoci, and buildah.
//!
//! Everything lies on one file system, which must be a disk. Nothing is deleted between rounds: ext4 searches long
//! for inodes where many were just freed, and whoever comes next would pay for it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::args::Args;
use crate::figures::{Samples, line};
use crate::node::Node;
use crate::registry::Registry;

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
    };
    args.finish()?;
    let dir = tempfile::Builder::new()
        .prefix("layby-bench-images-")
        .tempdir()?;
    let run = tempfile::Builder::new().prefix("lyb-").tempdir_in("/tmp")?;
    let work = Work {
        dir: dir.path(),
        run: run.path(),
    };
    let registry = Registry::start(work.dir)?;
    let image = format!("{}/debian:1", registry.addr);
    fill(&work, &options.debian, &image)?;
    pulls(&options, &work, &image)?;
    rebuilds(&options, &work, &image)
}

/// Puts the image into the registry, as podman packs it (gzip).
fn fill(work: &Work<'_>, debian: &Path, image: &str) -> Result<()> {
    let tar = debian.to_str().context("the tar's path is not UTF-8")?;
    let mib = fs::metadata(debian)?.len() as f64 / 1e6;
    println!("image: {mib:.0} MB unpacked, one layer");
    quiet(podman(work, "fill").args(["import", tar, image]))?;
    quiet(podman(work, "fill").args(["push", "--tls-verify=false", image]))
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
        "pull and unpack, medians of {}: Layby {:.0} ms, podman {:.0} ms, skopeo + umoci {:.0} ms",
        layby.len(),
        layby.median(),
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
    buildah()?;
    let (mut ours, mut theirs) = (Samples::default(), Samples::default());
    for _ in 0..options.builds {
        let begun = Instant::now();
        build()?;
        ours.push(begun.elapsed());
        let begun = Instant::now();
        buildah()?;
        theirs.push(begun.elapsed());
    }
    println!(
        "cached rebuild of 10 steps, medians of {}: Layby {:.0} ms, buildah {:.0} ms",
        ours.len(),
        ours.median(),
        theirs.median()
    );
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

fn quiet(command: &mut Command) -> Result<()> {
    let output = command.stdin(Stdio::null()).output();
    let program = command.get_program().display().to_string();
    let output = output.with_context(|| format!("cannot run {program}: is it installed?"))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        bail!("{command:?} failed: {said}");
    }
    Ok(())
}
