//! Where a service answers: its host names, its listeners on the machine, and both as URLs for people.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use layby_model::ServiceId;
use layby_model::options::NetworkMode;
use layby_model::route::{ANY_HOST, Listener, PathRoute, Protocol};
use layby_model::spec::{HostRoute, ServiceSpec};

use crate::config::ControlConfig;
use crate::names;

/// The host names of a service beside its app's: `<name>.<app>.<domain>` for its name and each alias.
pub(crate) fn hosts(id: &ServiceId, spec: &ServiceSpec, domain: &str) -> Vec<String> {
    let names = std::iter::once(&spec.name).chain(&spec.aliases);
    names
        .filter(|_| spec.sandbox.network != NetworkMode::None)
        .map(|name| format!("{name}.{}.{domain}", id.app))
        .collect()
}

/// What of the host names and paths of others leads to a service; `*` is any name that leads nowhere else.
pub(crate) fn paths(id: &ServiceId, spec: &ServiceSpec) -> Vec<(String, PathRoute)> {
    let path = |route: &HostRoute| {
        let path = PathRoute {
            path: route.path.clone(),
            exact: route.exact,
            service: id.clone(),
            port: route.port,
        };
        let host = route.host.clone();
        (host.unwrap_or_else(|| ANY_HOST.to_owned()), path)
    };
    spec.routes.iter().map(path).collect()
}

/// The listeners that the published ports of a service ask for; none where nothing leads to its replicas.
pub(crate) fn listeners(id: &ServiceId, spec: &ServiceSpec, publish_on: IpAddr) -> Vec<Listener> {
    let listener = |port: &layby_model::spec::PublishedPort| Listener {
        addr: SocketAddr::new(port.host.unwrap_or(publish_on), port.port),
        service: id.clone(),
        target: port.target,
        protocol: match port.udp {
            true => Protocol::Udp,
            false => protocol(spec, port.target),
        },
    };
    let published = spec.published.iter();
    let published = published.filter(|_| spec.sandbox.network != NetworkMode::None);
    published.map(listener).collect()
}

/// The published TCP ports of a service that other machines are to reach.
pub(crate) fn public_ports(id: &ServiceId, spec: &ServiceSpec, publish_on: IpAddr) -> Vec<u16> {
    let listeners = listeners(id, spec, publish_on).into_iter();
    listeners
        .filter(|listener| !listener.addr.ip().is_loopback() && !listener.socket().is_udp)
        .map(|listener| listener.addr.port())
        .collect()
}

/// HTTP where the manifest says so, as on the service's virtual address; TCP carries anything.
fn protocol(spec: &ServiceSpec, target: u16) -> Protocol {
    let declared = names::ports(spec);
    let mut leads = declared.values();
    match leads.any(|port| port.target == target && port.protocol == Protocol::Http) {
        true => Protocol::Http,
        false => Protocol::Tcp,
    }
}

/// The URLs of a service: the gateway's first, then those of its published ports, and last those for any of many names (`*.shop.org`).
pub(crate) fn urls(id: &ServiceId, spec: &ServiceSpec, config: &ControlConfig) -> Vec<String> {
    let mut urls = Vec::new();
    if spec.port.is_some() {
        let host = format!("{}.{}.{}", spec.name, id.app, config.domain);
        urls.push(at_gateway(&host, config));
    }
    let routes = spec.routes.iter();
    let named = routes.filter_map(|route| Some((route.host.as_ref()?, route)));
    let (patterns, names): (Vec<_>, Vec<_>) = named.partition(|(host, _)| host.starts_with('*'));
    let url = |(host, route): (&String, &HostRoute)| {
        at_gateway(host, config) + route.path.trim_end_matches('/')
    };
    urls.extend(names.into_iter().map(url));
    for listener in listeners(id, spec, config.publish_on) {
        // The port that requests by host name go to speaks HTTP, however it is balanced on this listener.
        let scheme = match listener.protocol {
            Protocol::Udp => "udp",
            Protocol::Http | Protocol::Tcp if spec.port == Some(listener.target) => "http",
            Protocol::Http | Protocol::Tcp => "tcp",
        };
        urls.push(format!("{scheme}://{}", reachable(listener.addr)));
    }
    urls.extend(patterns.into_iter().map(url));
    urls
}

/// The URL of a host name at the gateway.
fn at_gateway(host: &str, config: &ControlConfig) -> String {
    match config.http.port() {
        80 => format!("http://{host}"),
        port => format!("http://{host}:{port}"),
    }
}

/// The address to connect to for one that is listened on: "any" is reached on this machine by loopback.
fn reachable(addr: SocketAddr) -> SocketAddr {
    let ip = match addr.ip() {
        IpAddr::V4(Ipv4Addr::UNSPECIFIED) => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(Ipv6Addr::UNSPECIFIED) => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, addr.port())
}
