//! Phase 2: route. From where a request came in, and the host that it names, to a service and a port.

use std::borrow::Cow;
use std::net::SocketAddr;

use layby_model::route::ANY_HOST;

use crate::path::normal;
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
    /// This host name leads by the path of a request, and none leads where this one's does.
    UnknownPath(String),
    /// The service of this host name takes no HTTP by host name.
    NoPort(String),
    /// The listener was withdrawn.
    NoListener,
}

/// Finds the target of a request whose `Host` is `host`, and whose head is `head`.
pub(crate) fn route(
    snapshot: &Snapshot,
    entry: Entry,
    host: Option<&[u8]>,
    head: &[u8],
) -> Result<Target, Lost> {
    match entry {
        Entry::Hosts(_) => by_host(snapshot, host.unwrap_or_default(), head),
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

fn by_host(snapshot: &Snapshot, host: &[u8], head: &[u8]) -> Result<Target, Lost> {
    let text = std::str::from_utf8(host).unwrap_or_default();
    let name = without_port(text);
    if name.bytes().any(|b| b.is_ascii_uppercase()) {
        by_name(snapshot, &name.to_ascii_lowercase(), head)
    } else {
        by_name(snapshot, name, head)
    }
}

/// By a host name in lower case. The path is looked at only where any name leads by it.
fn by_name(snapshot: &Snapshot, name: &str, head: &[u8]) -> Result<Target, Lost> {
    let path = snapshot.has_paths().then(|| path(head));
    let by_path = |host: &str| {
        let (service, port) = snapshot.by_path(host, path.as_deref()?)?;
        Some(Target { service, port })
    };
    if let Some(target) = by_path(name) {
        return Ok(target);
    }
    let Some(service) = snapshot.host(name) else {
        return by_path(ANY_HOST).ok_or_else(|| match snapshot.leads_by_path(name) {
            true => Lost::UnknownPath(name.to_owned()),
            false => Lost::UnknownHost(name.to_owned()),
        });
    };
    match snapshot.services[service].port {
        Some(port) => Ok(Target { service, port }),
        None => Err(Lost::NoPort(name.to_owned())),
    }
}

/// The path in a head that was written anew (RFC 9112, section 3), as it is compared: what is between the first two spaces,
/// without a query.
fn path(head: &[u8]) -> Cow<'_, str> {
    let mut words = head.splitn(3, |b| *b == b' ');
    let target = words.nth(1).unwrap_or_default();
    let path = target.split(|b| *b == b'?').next().unwrap_or_default();
    normal(std::str::from_utf8(path).unwrap_or_default())
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
    use std::sync::Arc;

    use layby_model::route::{Limits, Mode, PathRoute, RouteTable, ServiceRoute};

    use super::*;
    use crate::snapshot::States;

    /// Where a request leads, as `service:port`.
    fn leads(table: &RouteTable, host: &str, target: &str) -> Option<String> {
        let table = Arc::new(table.clone());
        let snapshot = Snapshot::compile(&table, &Snapshot::default(), &mut States::new());
        let entry = Entry::Hosts("127.0.0.1:80".parse().expect("an address"));
        let head = format!("GET {target} HTTP/1.1\r\n\r\n");
        let found = route(&snapshot, entry, Some(host.as_bytes()), head.as_bytes()).ok()?;
        let id = &snapshot.services[found.service].state.id;
        Some(format!("{}:{}", id.service, found.port))
    }

    #[test]
    fn a_path_leads_before_a_host_and_any_host_comes_last() {
        let mut table = RouteTable::default();
        for (name, port) in [("web", 80), ("api", 81), ("rest", 82)] {
            let id: layby_model::ServiceId = format!("shop/{name}").parse().expect("a service");
            table.services.insert(
                id,
                ServiceRoute {
                    mode: Mode::Hold,
                    port: Some(port),
                    limits: Limits::default(),
                    is_scaled: false,
                },
            );
        }
        let mut path = |host: &str, path: &str, exact, name: &str, port| {
            let paths = table.paths.entry(host.to_owned()).or_default();
            paths.push(PathRoute {
                path: path.to_owned(),
                exact,
                service: format!("shop/{name}").parse().expect("a service"),
                port,
            });
            paths.sort_by_key(PathRoute::rank);
        };
        path("shop.example", "/", false, "web", 8000);
        path("shop.example", "/api", false, "api", 9000);
        path("shop.example", "/d%C3%A9j\u{e0}", true, "api", 9004);
        path("*.shop.example", "/", false, "api", 9001);
        path("web.shop.localhost", "/only", true, "api", 9002);
        path("*", "/", false, "rest", 9003);
        let web = "shop/web".parse().expect("a service");
        table.hosts.insert("web.shop.localhost".to_owned(), web);
        for (host, target, expected) in [
            ("shop.example", "/", "web:8000"),
            ("Shop.Example:8080", "/index.html?x=/api", "web:8000"),
            ("shop.example", "/api?x", "api:9000"),
            ("shop.example", "/api/v1", "api:9000"),
            ("shop.example", "/apis", "web:8000"),
            ("shop.example", "/%61pi/v1", "api:9000"),
            ("shop.example", "//api", "api:9000"),
            ("shop.example", "/x/%2e./api?y", "api:9000"),
            ("shop.example", "/api/../x", "web:8000"),
            ("shop.example", "/d%C3%a9j%C3%a0", "api:9004"),
            ("a.shop.example", "/", "api:9001"),
            ("a.b.shop.example", "/", "rest:9003"),
            ("web.shop.localhost", "/", "web:80"),
            ("web.shop.localhost", "/only", "api:9002"),
            ("web.shop.localhost", "/only/not", "web:80"),
            ("elsewhere", "/x", "rest:9003"),
            ("", "/", "rest:9003"),
        ] {
            let found = leads(&table, host, target);
            assert_eq!(found.as_deref(), Some(expected), "{host}{target}");
        }
        table.paths.clear();
        assert_eq!(leads(&table, "shop.example", "/"), None);
    }

    #[test]
    fn a_port_and_a_last_dot_are_not_part_of_the_name() {
        assert_eq!(without_port("a.b.localhost:8080"), "a.b.localhost");
        assert_eq!(without_port("a.b.localhost.:80"), "a.b.localhost");
        assert_eq!(without_port("a.b.localhost"), "a.b.localhost");
        assert_eq!(without_port("[::1]:80"), "[::1]");
        assert_eq!(without_port("[::1]"), "[::1]");
    }
}
