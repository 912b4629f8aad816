//! What 100 awake replicas cost: the memory of the node beyond what it has without any, and that of their shims.

use std::path::Path;

use anyhow::{Result, bail};

use crate::app::App;
use crate::figures::line;
use crate::footprint::{SETTLED, kilobytes, shims};
use crate::node::Node;

const SERVICES: usize = 10;
const REPLICAS: usize = 10;
/// What is promised, in MB.
const NODE_AT_MOST: f64 = 10.0;
const SHIM_AT_MOST: f64 = 1.5;
const PRIVATE: [&str; 2] = ["Private_Clean:", "Private_Dirty:"];

/// Measures and prints the lines.
pub(crate) fn crowd(layby: &Path) -> Result<()> {
    let app = App::new(&compose(1, 1))?;
    let node = Node::start(layby)?;
    // What a first build and a first deploy cost is no part of it, such as code that is read in.
    node.run(app.path(), &["up"])?;
    node.run(app.path(), &["down", "crowd"])?;
    std::fs::write(app.path().join("compose.yaml"), compose(SERVICES, REPLICAS))?;
    std::thread::sleep(SETTLED);
    let before = memory(node.pid())?;
    node.run(app.path(), &["up"])?;
    std::thread::sleep(SETTLED);
    let after = memory(node.pid())?;
    let shims = shims(&node)?;
    if shims.len() < SERVICES * REPLICAS {
        bail!(
            "only {} of {} replicas run",
            shims.len(),
            SERVICES * REPLICAS
        );
    }
    let private = shims.iter().map(|pid| megabytes(*pid, &PRIVATE));
    let private = private.collect::<Result<Vec<f64>>>()?;
    println!(
        "memory, {} replicas: the node's private memory {:.1} MB before, {:.1} MB after; PSS {:.1} MB, {:.1} MB",
        shims.len(),
        before.private,
        after.private,
        before.pss,
        after.pss
    );
    let more = after.pss - before.pss;
    line("100 replicas: the node's PSS", more, "MB", NODE_AT_MOST);
    line(
        "a shim, its sandbox running (private)",
        median(private),
        "MB",
        SHIM_AT_MOST,
    );
    Ok(())
}

fn compose(services: usize, replicas: usize) -> String {
    let mut compose = String::from("name: crowd\nservices:\n");
    for number in 0..services {
        compose.push_str(&format!(
            "  s{number}:\n    build: .\n    image: crowd:1\n    deploy: {{replicas: {replicas}}}\n    \
             x-layby: {{sleep: {{doze_after: never, sleep_after: never}}}}\n"
        ));
    }
    compose
}

/// Of one process, in MB.
struct Memory {
    private: f64,
    pss: f64,
}

fn memory(pid: u32) -> Result<Memory> {
    Ok(Memory {
        private: megabytes(pid, &PRIVATE)?,
        pss: megabytes(pid, &["Pss:"])?,
    })
}

fn megabytes(pid: u32, fields: &[&str]) -> Result<f64> {
    Ok(kilobytes(pid, fields)? / 1024.0)
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}
