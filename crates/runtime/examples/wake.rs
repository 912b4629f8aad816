//! Measures what a shim adds: how long a start takes from the request until the program is executed, a
//! thaw until it runs, and how much memory a shim has to itself. Needs root and one static program.
//!
//! `cargo run --release -p layby-runtime --example wake -- PROGRAM [ARGUMENTS...]`; with `LAYBY_WAKE_HOST_USERS` set,
//! without a user namespace.

use std::error::Error;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::{Duration, Instant};

use layby_runtime::client::Client;
use layby_runtime::{
    Bundle, ContainerConfig, SandboxSpec, ShimImage, Values, freezer, sandbox, shim,
};

const RUNS: usize = 60;

fn main() -> Result<(), Box<dyn Error>> {
    layby_runtime::run_if_shim();
    let mut arguments = std::env::args().skip(1);
    let program = arguments
        .next()
        .ok_or("name a static program to run in the container")?;
    let dir = std::env::temp_dir().join(format!("layby-wake-{}", std::process::id()));
    let outcome = measure(&dir, &program, arguments.collect());
    if let Err(errors) = sandbox::destroy(&dir.join("bundle")) {
        errors
            .iter()
            .for_each(|error| eprintln!("{}", error.sentence()));
    }
    fs::remove_dir_all(&dir)?;
    outcome
}

fn measure(dir: &Path, program: &str, arguments: Vec<String>) -> Result<(), Box<dyn Error>> {
    let layer = dir.join("layer");
    fs::create_dir_all(&layer)?;
    fs::copy(program, layer.join("program"))?;
    fs::set_permissions(layer.join("program"), fs::Permissions::from_mode(0o755))?;
    let mut argv = vec!["/program".to_owned()];
    argv.extend(arguments);
    let spec = SandboxSpec {
        id: "wake".to_owned(),
        hostname: "wake".to_owned(),
        cgroup: format!("layby-wake-{}/one", std::process::id()),
        socket: dir.join("socket"),
        containers: vec![ContainerConfig {
            name: "one".to_owned(),
            lower: vec![layer],
            argv,
            memory_bytes: Some(128 << 20),
            cpu_milli: Some(500),
            pids: Some(100),
            ..ContainerConfig::default()
        }],
        id_map: std::env::var_os("LAYBY_WAKE_HOST_USERS")
            .is_none()
            .then_some((0x3000_0000, 65_536)),
        ..SandboxSpec::default()
    };
    let bundle = dir.join("bundle");
    let begin = Instant::now();
    let image = ShimImage::of_self()?;
    println!("image      {}", ms(begin.elapsed()));
    let begin = Instant::now();
    shim::spawn(&image, &bundle, &spec, &Values::default())?;
    println!("prepare    {}", ms(begin.elapsed()));
    let mut client = Client::connect(&spec.socket)?;
    client.watch()?;
    let trimmed = || std::thread::sleep(Duration::from_millis(1500));
    trimmed();
    show_memory(&bundle, "asleep, never started")?;
    let (mut starts, mut stops, mut thaws) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..RUNS {
        let begin = Instant::now();
        client.start()?;
        starts.push(begin.elapsed());
        freezer::freeze(&spec.cgroup)?;
        let begin = Instant::now();
        freezer::thaw(&spec.cgroup)?;
        thaws.push(begin.elapsed());
        let begin = Instant::now();
        client.stop()?;
        stops.push(begin.elapsed());
        // As after a while asleep: until the next container stands created.
        std::thread::sleep(Duration::from_millis(150));
    }
    for (name, times) in [
        ("start", &mut starts),
        ("thaw call", &mut thaws),
        ("stop", &mut stops),
    ] {
        times.sort_unstable();
        println!(
            "{name:<10} min {} median {}",
            ms(times[0]),
            ms(times[RUNS / 2])
        );
    }
    // On a busy machine the times above are mostly waiting; this is what it costs.
    println!(
        "processor for {RUNS} starts and stops: {}",
        processor(&bundle)?
    );
    trimmed();
    show_memory(&bundle, "asleep again")?;
    client.start()?;
    trimmed();
    show_memory(&bundle, "awake")?;
    client.quit()?;
    Ok(())
}

fn ms(time: Duration) -> String {
    format!("{:.2} ms", time.as_secs_f64() * 1000.0)
}

fn show_memory(bundle: &Path, when: &str) -> Result<(), Box<dyn Error>> {
    let pid = fs::read_to_string(Bundle::new(bundle).pid())?;
    let text = fs::read_to_string(format!("/proc/{}/smaps_rollup", pid.trim()))?;
    let fields = [
        "Rss:",
        "Pss:",
        "Private_Clean:",
        "Private_Dirty:",
        "Anonymous:",
    ];
    let found: Vec<&str> = text
        .lines()
        .filter(|line| fields.iter().any(|field| line.starts_with(field)))
        .collect();
    println!("memory {when}: {}", found.join(", ").replace("  ", ""));
    Ok(())
}

/// The processor time of the shim and its ended children, user and system (proc_pid_stat(5)), in ticks of 10 ms.
fn processor(bundle: &Path) -> Result<String, Box<dyn Error>> {
    let pid = fs::read_to_string(Bundle::new(bundle).pid())?;
    let stat = fs::read_to_string(format!("/proc/{}/stat", pid.trim()))?;
    let fields: Vec<&str> = stat
        .rsplit(") ")
        .next()
        .unwrap_or_default()
        .split(' ')
        .collect();
    let of = |index: usize| fields.get(index).copied().unwrap_or("?");
    Ok(format!(
        "shim {} + {}, children {} + {} ticks",
        of(11),
        of(12),
        of(13),
        of(14)
    ))
}
