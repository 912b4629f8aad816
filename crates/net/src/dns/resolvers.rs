//! The machine's own resolvers, as resolv.conf(5) names them.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::{Duration, Instant, SystemTime};

/// Who the machine itself asks.
pub(super) const RESOLV_CONF: &str = "/etc/resolv.conf";
/// glibc asks no more than three (MAXNS).
const MOST: usize = 3;
/// How often it is looked whether the file has changed, at most.
const LOOK: Duration = Duration::from_secs(2);

/// The resolvers, read anew when the file changes: a laptop moves, DHCP renews.
#[derive(Debug)]
pub(crate) struct Resolvers {
    path: PathBuf,
    looked: Option<Instant>,
    changed: Option<SystemTime>,
    servers: Vec<SocketAddr>,
}

impl Resolvers {
    /// Those that the file at `path` names.
    pub(crate) fn of(path: PathBuf) -> Self {
        Self {
            path,
            looked: None,
            changed: None,
            servers: Vec::new(),
        }
    }

    /// Which to ask, in this order. Empty: there are none.
    pub(crate) fn servers(&mut self) -> &[SocketAddr] {
        if self.looked.is_none_or(|looked| looked.elapsed() >= LOOK) {
            self.looked = Some(Instant::now());
            let changed = fs::metadata(&self.path).and_then(|found| found.modified());
            let changed = changed.ok();
            if changed.is_none() || changed != self.changed {
                self.changed = changed;
                self.servers = parse(&fs::read_to_string(&self.path).unwrap_or_default());
            }
        }
        &self.servers
    }
}

/// Those of this machine, as they are now.
pub(crate) fn machines() -> Vec<SocketAddr> {
    parse(&fs::read_to_string(RESOLV_CONF).unwrap_or_default())
}

/// The name servers of a resolv.conf(5); without any, the one on this machine.
fn parse(text: &str) -> Vec<SocketAddr> {
    let named = text.lines().filter_map(|line| {
        let mut words = line.split_ascii_whitespace();
        let address = (words.next() == Some("nameserver")).then(|| words.next())??;
        // An address with a scope (`fe80::1%eth0`) cannot be asked without the device's index: left out.
        let ip: IpAddr = address.parse().ok()?;
        Some(SocketAddr::new(ip, 53))
    });
    let servers: Vec<SocketAddr> = named.take(MOST).collect();
    match servers.is_empty() {
        true => vec![SocketAddr::new(Ipv4Addr::LOCALHOST.into(), 53)],
        false => servers,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn name_servers_are_read_as_the_resolver_of_the_machine_does() {
        let text = "# by hand\nsearch example.org\nnameserver 127.0.0.53\nnameserver\t9.9.9.9\nnameserver 2620:fe::fe\n\
            nameserver 1.1.1.1\n#nameserver 8.8.8.8\nnameserver nonsense\n";
        let found: Vec<String> = parse(text).iter().map(ToString::to_string).collect();
        assert_eq!(found, ["127.0.0.53:53", "9.9.9.9:53", "[2620:fe::fe]:53"]);
        assert_eq!(parse("").len(), 1);
    }

    #[test]
    fn a_file_that_changes_is_read_again() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("resolv.conf");
        let mut resolvers = Resolvers::of(path.clone());
        assert_eq!(resolvers.servers().len(), 1);
        fs::write(&path, "nameserver 1.1.1.1\nnameserver 9.9.9.9\n").expect("written");
        resolvers.looked = None;
        assert_eq!(resolvers.servers().len(), 2);
    }
}
