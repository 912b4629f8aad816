//! `layby-bench`: the parts of the benchmarks that have to be programs of their own.
//!
//! `cargo xtask bench` runs them; each may be run by hand. The first argument names the part.

mod app;
mod args;
mod beside;
mod crowd;
mod docker;
mod dockerd;
mod figures;
mod footprint;
mod gateway;
mod http;
mod images;
mod lasting;
mod load;
mod node;
mod patient;
mod podman;
mod pump;
mod push;
mod registry;
mod rollout;
mod scaling;
mod services;
mod stack;
mod start;
mod upstream;
mod versus;
mod wake;

use anyhow::bail;
use args::Args;

const USAGE: &str = "usage: layby-bench PART [--OPTION VALUE]...
  pump      --upstream ADDR --gateway NAME=ADDR=PID [--gateway ...] [--clients 64] [--rounds 10]
            [--seconds 1] [--hosts 100] [--body 600] [--cpu N]
            saturates each gateway in turn, answers as their upstream, prints their CPU time per request
  upstream  --listen ADDR [--body 600] [--cpu N]
            answers every request with a body of so many bytes
  gateway   --listen ADDR --upstream ADDR [--hosts 100] [--workers 1] [--cpu N]
            Layby's gateway alone, with a fixed table
  versus-nginx [--clients 64] [--rounds 21] [--seconds 0.5] [--hosts 100]
            starts both with one pinned worker each and compares them
  services  --layby FILE --example DIR [--runs 50] [--idle-seconds 60] [--docker true]
            waking, deploying and idling of the example's service, with Docker beside it
  patient   --listen ADDR
            a service that says its revision (REV), answers slowly when asked to, and makes tunnels
  rollout   --layby FILE [--rate 2000] [--rollouts 50] [--rollbacks 10] [--powers 10] [--scales 10] [--kills 5]
            [--lasting true]
            requests at a steady rate while a service is rolled out and back, given powers, scaled, and the node killed
  scaling   --layby FILE [--clients 8] [--seconds 15] [--takes-ms 200]
            a time line of a service that goes from asleep to 4 replicas under a crowd, and back
  stack     --layby FILE [--rounds 7] [--peers false]
            an app of 20 services from nothing deployed to all of them answering, with docker-compose beside it
  images    --layby FILE --debian TAR [--rounds 7] [--builds 21] [--starts 21] [--pushes 15]
            [--peers false] [--only pull|rebuild|start|push|memory]...
            pulling, rebuilding, starting and pushing, and the memory of 100 replicas, with Docker, podman, skopeo,
            umoci and buildah beside it; on the disk of TMPDIR. --peers false leaves all others out";

fn main() -> anyhow::Result<()> {
    let mut words = std::env::args().skip(1);
    let part = words.next().unwrap_or_default();
    let mut args = Args::parse(words)?;
    match part.as_str() {
        "patient" => patient::run(&mut args),
        "pump" => pump::run(&mut args),
        "upstream" => upstream::run(&mut args),
        "gateway" => gateway::run(&mut args),
        "images" => images::run(&mut args),
        "rollout" => rollout::run(&mut args),
        "scaling" => scaling::run(&mut args),
        "services" => services::run(&mut args),
        "stack" => stack::run(&mut args),
        "versus-nginx" => versus::run(&mut args),
        _ => bail!("{USAGE}"),
    }
}
