//! The gateway beside nginx: the same job, one pinned worker each, in rounds that take turns.

use std::fmt::Write;
use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};

use crate::args::{Args, pin};
use crate::pump::{self, Gateway, Load};

/// What is promised: the gateway's CPU time per request as a share of nginx's.
const AT_MOST: f64 = 0.85;
/// How long a proxy may take to listen.
const START: Duration = Duration::from_secs(20);

/// A child process that is ended with this.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        // SIGTERM, so that nginx's master ends its worker too.
        if let Ok(pid) = i32::try_from(self.0.id()) {
            let pid = nix::unistd::Pid::from_raw(pid);
            let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM);
        }
        let _ = self.0.wait();
    }
}

/// `layby-bench versus-nginx`: the proxies share the first CPU, the load has the second.
pub(crate) fn run(args: &mut Args) -> anyhow::Result<()> {
    let rounds: usize = args.get("rounds")?.unwrap_or(21);
    let seconds: f64 = args.get("seconds")?.unwrap_or(0.5);
    let load = Load {
        clients: args.get("clients")?.unwrap_or(64),
        hosts: args.get("hosts")?.unwrap_or(100),
        round: Duration::from_secs_f64(seconds),
    };
    args.finish()?;
    let dir = tempfile::tempdir().context("cannot make a directory for nginx")?;
    let upstream = free_addr()?;
    let (layby_addr, nginx_addr) = (free_addr()?, free_addr()?);
    let nginx = start_nginx(dir.path(), nginx_addr, upstream, load.hosts)?;
    let layby = start_layby(layby_addr, upstream, load.hosts)?;
    let mut gateways = [
        Gateway::new("layby", layby_addr, layby.0.id()),
        Gateway::new("nginx", nginx_addr, worker_of(nginx.0.id())?),
    ];
    let cpus = std::thread::available_parallelism().map_or(1, usize::from);
    pin(usize::from(cpus > 1))?;
    pump::measure(&mut gateways, upstream, 600, load, rounds)?;
    pump::print(&gateways);
    let ratio = gateways[0].cpu_us() / gateways[1].cpu_us();
    let verdict = if ratio <= AT_MOST { "ok" } else { "MISSED" };
    println!("CPU per request, nginx = 1.00: {ratio:.2}, at most {AT_MOST} {verdict}");
    Ok(())
}

fn free_addr() -> anyhow::Result<SocketAddr> {
    let socket = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("there is no free port")?;
    Ok(socket.local_addr()?)
}

fn start_layby(addr: SocketAddr, upstream: SocketAddr, hosts: usize) -> anyhow::Result<Running> {
    let mut command = Command::new(std::env::current_exe()?);
    command.arg("gateway").args(["--listen", &addr.to_string()]);
    command.args(["--upstream", &upstream.to_string()]);
    command.args(["--hosts", &hosts.to_string(), "--cpu", "0"]);
    start(command.stdout(Stdio::null()), addr)
}

fn start_nginx(
    dir: &Path,
    addr: SocketAddr,
    upstream: SocketAddr,
    hosts: usize,
) -> anyhow::Result<Running> {
    let config = dir.join("nginx.conf");
    fs::write(&config, nginx_config(dir, addr, upstream, hosts))?;
    let mut command = Command::new("nginx");
    command.arg("-c").arg(&config).arg("-p").arg(dir);
    start(command.stderr(Stdio::null()), addr)
        .context("nginx does not start: is Debian's nginx-light installed?")
}

/// nginx as a careful user would set it up for this: keepalive on both sides, no access log.
fn nginx_config(dir: &Path, addr: SocketAddr, upstream: SocketAddr, hosts: usize) -> String {
    let dir = dir.display();
    let mut text = format!(
        "daemon off; worker_processes 1; worker_cpu_affinity 1;\n\
         pid {dir}/nginx.pid; error_log {dir}/error.log;\n\
         events {{ worker_connections 4096; }}\n\
         http {{\n\
         access_log off; server_names_hash_bucket_size 128; types_hash_max_size 2048;\n\
         keepalive_requests 1000000000;\n\
         client_body_temp_path {dir}/body; proxy_temp_path {dir}/proxy;\n\
         fastcgi_temp_path {dir}/fastcgi; uwsgi_temp_path {dir}/uwsgi; scgi_temp_path {dir}/scgi;\n\
         upstream app {{ server {upstream}; keepalive 512; keepalive_requests 1000000000; }}\n\
         proxy_http_version 1.1;\n\
         proxy_set_header Connection \"\";\n\
         proxy_set_header Host $host;\n\
         proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;\n\
         proxy_set_header X-Forwarded-Proto $scheme;\n\
         proxy_set_header X-Forwarded-Host $host;\n"
    );
    for at in 0..hosts {
        // Writing to a String cannot fail.
        let _ = writeln!(
            text,
            "server {{ listen {addr}; server_name host-{at}.localhost; location / {{ proxy_pass http://app; }} }}"
        );
    }
    text + "}\n"
}

/// Starts a proxy and waits until it listens.
fn start(command: &mut Command, addr: SocketAddr) -> anyhow::Result<Running> {
    let program = command.get_program().to_string_lossy().into_owned();
    let child = command
        .spawn()
        .with_context(|| format!("cannot run {program}"))?;
    let mut running = Running(child);
    let end = Instant::now() + START;
    while TcpStream::connect(addr).is_err() {
        if running.0.try_wait()?.is_some() || Instant::now() > end {
            bail!("{program} does not listen on {addr}");
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    Ok(running)
}

/// The one worker of an nginx master (proc_pid_task_children(5)).
fn worker_of(master: u32) -> anyhow::Result<u32> {
    let path = format!("/proc/{master}/task/{master}/children");
    let children = fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))?;
    let first = children
        .split_whitespace()
        .next()
        .context("nginx has no worker")?;
    Ok(first.parse()?)
}
