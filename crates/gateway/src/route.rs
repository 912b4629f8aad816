//! Phase 2: route. From where a request came in, and the host that it names, to a service and a port.

use std::net::SocketAddr;

use crate::snapshot::Snapshot;

/// The way by which a connection came in.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Entry {
    /// The gateway's own address: the host name decides.
    Hosts(SocketAddr),
    /// A listener that leads to one service, whatever the host.
    Port(SocketAddr),
    /// Of the socket: the listener of virtual addresses. Of a connection: the virtual address and port that it was
    /// going to, which lead to one service, whatever the host.
    Virtual(SocketAddr),
}

impl Entry {
    /// The address that was connected to.
    pub(crate) fn addr(self) -> SocketAddr {
        let (Self::Hosts(addr) | Self::Port(addr) | Self::Virtual(addr)) = self;
        addr
    }
}

/// Where a request goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Target {
    /// An index in [`Snapshot::services`].
    pub(crate) service: usize,
    pub(crate) port: u16,
}

/// Why a request goes nowhere.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Lost {
    /// No service has this host name.
    UnknownHost(String),
    /// The service of this host name takes no HTTP by host name.
    NoPort(String),
    /// The listener was withdrawn.
    NoListener,
}

/// Finds the target of a request whose `Host` is `host`.
pub(crate) fn route(
    snapshot: &Snapshot,
    entry: Entry,
    host: Option<&[u8]>,
) -> Result<Target, Lost> {
    match entry {
        Entry::Hosts(_) => by_host(snapshot, host.unwrap_or_default()),
        Entry::Port(addr) => {
            let (listener, service) = snapshot.listener(&addr).ok_or(Lost::NoListener)?;
            Ok(Target {
                service: *service,
                port: listener.target,
            })
        }
        Entry::Virtual(addr) => {
            let (port, service) = snapshot.virtual_port(addr).ok_or(Lost::NoListener)?;
            Ok(Target {
                service,
                port: port.target,
            })
        }
    }
}

fn by_host(snapshot: &Snapshot, host: &[u8]) -> Result<Target, Lost> {
    let text = std::str::from_utf8(host).unwrap_or_default();
    let name = without_port(text);
    let found = if name.bytes().any(|b| b.is_ascii_uppercase()) {
        snapshot.host(&name.to_ascii_lowercase())
    } else {
        snapshot.host(name)
    };
    let service = found.ok_or_else(|| Lost::UnknownHost(name.to_owned()))?;
    match snapshot.services[service].port {
        Some(port) => Ok(Target { service, port }),
        None => Err(Lost::NoPort(name.to_owned())),
    }
}

/// The name in a `Host`: without a port, and without the dot that makes a name absolute.
fn without_port(host: &str) -> &str {
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|b| b.is_ascii_digit()) => name,
        _ => host,
    };
    name.strip_suffix('.').unwrap_or(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_and_a_last_dot_are_not_part_of_the_name() {
        assert_eq!(without_port("a.b.localhost:8080"), "a.b.localhost");
        assert_eq!(without_port("a.b.localhost.:80"), "a.b.localhost");
        assert_eq!(without_port("a.b.localhost"), "a.b.localhost");
        assert_eq!(without_port("[::1]:80"), "[::1]");
        assert_eq!(without_port("[::1]"), "[::1]");
    }
}
