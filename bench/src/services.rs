//! `layby-bench services`: waking, deploying and idling of a real service, with Docker beside it.

use std::path::PathBuf;

use anyhow::{Context, Result};

use crate::args::Args;
use crate::beside::Beside;
use crate::node::Node;
use crate::{docker, footprint, wake};

/// What is measured, and how often.
struct Options {
    layby: PathBuf,
    example: PathBuf,
    runs: usize,
    idle_seconds: u64,
    docker: bool,
}

/// Measures and prints the table.
pub(crate) fn run(args: &mut Args) -> Result<()> {
    let options = Options {
        layby: args.need::<PathBuf>("layby")?.canonicalize()?,
        example: args.need::<PathBuf>("example")?.canonicalize()?,
        runs: args.get("runs")?.unwrap_or(50),
        idle_seconds: args.get("idle-seconds")?.unwrap_or(60),
        docker: args.get("docker")?.unwrap_or(false),
    };
    args.finish()?;
    measure(&options)
}

fn measure(options: &Options) -> Result<()> {
    let mnist = options.example.join("dist/mnist");
    let node = Node::start(&options.layby)?;
    let docker = options
        .docker
        .then(|| start_docker(&node, options))
        .transpose()?;
    let wakes = wake::wakes(
        &node,
        docker.as_ref(),
        &options.example,
        &mnist,
        options.runs,
    )?;
    drop(docker);
    let ups = wake::ups(&node, &options.example, options.runs)?;
    wake::print(&wakes, &ups);
    footprint::memory(&node, &options.example)?;
    footprint::idle_cpu(&node, &mnist, options.idle_seconds)
}

/// Docker gets the very image that Layby built.
fn start_docker(node: &Node, options: &Options) -> Result<Beside<docker::Round>> {
    node.run(&options.example, &["up", "--app", "mnist"])?;
    let archive = node.data().join("mnist.tar");
    let file = archive
        .to_str()
        .context("the data directory's name is not UTF-8")?;
    node.run(
        &options.example,
        &[
            "image",
            "save",
            "mnist:1.1.0",
            "--format",
            "docker",
            "-o",
            file,
        ],
    )?;
    Ok(docker::start(&archive, "mnist:1.1.0", 8051))
}
