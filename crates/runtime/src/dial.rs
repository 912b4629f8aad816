//! Connecting to a port of a sandbox as a program in it would.

use std::fs::{self, File};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::path::Path;
use std::time::Duration;

use nix::sched::{CloneFlags, setns};

use crate::error::{Error, Result, Trying};
use crate::spec::Bundle;

/// How long the other side may take: it is on this machine.
const PATIENCE: Duration = Duration::from_secs(5);

/// Connects to `port` of the sandbox in `bundle`: on its loopback, else on `address`, which is its own.
///
/// # Errors
/// When its shim does not live, or nobody listens there.
pub fn connect(bundle: &Path, address: Option<IpAddr>, port: u16) -> Result<TcpStream> {
    let what = || format!("connect to port {port}");
    let file = Bundle::new(bundle).pid();
    let pid = fs::read_to_string(&file).trying(|| format!("read {}", file.display()))?;
    // The shim lives in its sandbox's network namespace.
    let namespace = File::open(format!("/proc/{}/ns/net", pid.trim())).trying(what)?;
    let addresses = [Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()];
    let addresses: Vec<IpAddr> = addresses.into_iter().chain(address).collect();
    // On a thread of its own, which ends with the namespace that it entered.
    let thread = std::thread::Builder::new().name("dial".to_owned());
    let connected = thread
        .spawn(move || dial(&namespace, &addresses, port))
        .trying(what)?;
    match connected.join() {
        Ok(connected) => connected.trying(what),
        Err(_) => Err(Error::Failed(format!("cannot {}", what()))),
    }
}

fn dial(namespace: &File, addresses: &[IpAddr], port: u16) -> io::Result<TcpStream> {
    setns(namespace, CloneFlags::CLONE_NEWNET)?;
    let mut first = None;
    for address in addresses {
        match TcpStream::connect_timeout(&SocketAddr::new(*address, port), PATIENCE) {
            Ok(stream) => return Ok(stream),
            Err(error) => {
                first.get_or_insert(error);
            }
        }
    }
    Err(first.unwrap_or_else(|| io::ErrorKind::AddrNotAvailable.into()))
}
