//! What a node costs while nothing happens: memory and CPU of the node and its shims.

use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};

use crate::figures::line;
use crate::node::Node;

/// Kernel clock ticks a second, as `/proc` counts them (`getconf CLK_TCK`; fixed on Linux).
const TICKS_PER_SECOND: f64 = 100.0;

/// A shim gives memory back a second after it last did something.
pub(crate) const SETTLED: Duration = Duration::from_secs(3);

/// A node gives memory back when it has done nothing for five seconds, and looks every five.
const RESTED: Duration = Duration::from_secs(12);

/// Measures memory with one idle service.
pub(crate) fn memory(node: &Node, example: &Path) -> Result<()> {
    node.run(example, &["up", "--app", "mnist"])?;
    std::thread::sleep(RESTED);
    let pss = kilobytes(node.pid(), &["Pss:"])? / 1024.0;
    line(
        "memory of the node with one idle service (PSS)",
        pss,
        "MB",
        25.0,
    );
    for shim in shims(node)? {
        let private = kilobytes(shim, &["Private_Clean:", "Private_Dirty:"])? / 1024.0;
        line("memory of its shim (private)", private, "MB", 1.5);
    }
    node.run(Path::new("/"), &["down", "mnist"])?;
    Ok(())
}

/// Measures the CPU of node and shims over `seconds` with 20 sleeping and 5 dozing services.
pub(crate) fn idle_cpu(node: &Node, mnist: &Path, seconds: u64) -> Result<()> {
    let folder = tempfile::tempdir()?;
    fs::copy(mnist, folder.path().join("mnist"))?;
    fs::write(
        folder.path().join("Dockerfile"),
        "FROM scratch\nCOPY mnist /mnist\nENTRYPOINT [\"/mnist\"]\nEXPOSE 8051\n",
    )?;
    let mut compose = String::from("name: idle\nservices:\n");
    for number in 0..25 {
        compose.push_str(&format!(
            "  s{number}:\n    build: .\n    image: idle:1\n    x-layby: {{sleep: {{doze_after: never, sleep_after: never}}}}\n"
        ));
    }
    fs::write(folder.path().join("compose.yaml"), compose)?;
    node.run(folder.path(), &["up"])?;
    for number in 0..25 {
        let verb = if number < 20 { "sleep" } else { "doze" };
        node.run(Path::new("/"), &[verb, &format!("idle/s{number}")])?;
    }
    std::thread::sleep(SETTLED); // the next containers of those asleep are being created
    let mut processes = shims(node)?;
    processes.push(node.pid());
    let ticks = || {
        processes
            .iter()
            .map(|pid| cpu_ticks(*pid))
            .sum::<Result<f64>>()
    };
    let before = ticks()?;
    std::thread::sleep(Duration::from_secs(seconds));
    let used = (ticks()? - before) / TICKS_PER_SECOND;
    let what = format!(
        "CPU of the node and its {} processes, idle for {seconds} s",
        processes.len() - 1
    );
    line(&what, used / seconds as f64 * 100.0, "%", 0.2);
    node.run(Path::new("/"), &["down", "idle"])?;
    Ok(())
}

/// The shims of the node, and the inits that wait in them: they name their bundle, which lies in its data directory.
pub(crate) fn shims(node: &Node) -> Result<Vec<u32>> {
    let data = node.data().canonicalize()?;
    let data = data
        .to_str()
        .context("the data directory's name is not UTF-8")?
        .to_owned();
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc")?.flatten() {
        let Some(pid) = entry
            .file_name()
            .to_str()
            .and_then(|name| name.parse().ok())
        else {
            continue;
        };
        let command = fs::read(entry.path().join("cmdline")).unwrap_or_default();
        let command = String::from_utf8_lossy(&command);
        if command.starts_with("layby-shim") && command.contains(&data) {
            found.push(pid);
        }
    }
    Ok(found)
}

/// The sum of these fields of a process's memory, in kB (proc_pid_smaps(5)).
pub(crate) fn kilobytes(pid: u32, fields: &[&str]) -> Result<f64> {
    let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup"))?;
    let values = text
        .lines()
        .filter(|line| fields.iter().any(|field| line.starts_with(field)));
    values
        .map(|line| {
            Ok(line
                .split_whitespace()
                .nth(1)
                .unwrap_or("0")
                .parse::<f64>()?)
        })
        .sum()
}

fn cpu_ticks(pid: u32) -> Result<f64> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let after_name = text.rsplit_once(')').context("an odd /proc stat")?.1;
    let fields: Vec<&str> = after_name.split_whitespace().collect();
    Ok(fields[11].parse::<f64>()? + fields[12].parse::<f64>()?)
}
