//! The names and ports by which a service is reached: Services (`v1`).

use std::collections::BTreeSet;

use layby_model::route::Protocol;
use layby_model::spec::{PublishedPort, ServicePort, ServiceSpec};

use crate::convert::said::shown;
use crate::convert::tree::{Map, maps};
use crate::convert::workload;
use crate::convert::{App, Gathered, labels, names, object};
use crate::draft::Draft;
use crate::report::Report;

/// The ports of machines that Services can have (kube-apiserver, `--service-node-port-range`).
const NODE_PORTS: std::ops::RangeInclusive<u16> = 30_000..=32_767;

/// A port of a container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Port {
    pub(super) name: String,
    pub(super) target: u16,
    pub(super) http: bool,
    pub(super) udp: bool,
}

impl Port {
    /// What a port says of UDP: TCP is what holds where nothing is said.
    pub(super) fn protocol(&self) -> Option<&'static str> {
        self.udp.then_some("UDP")
    }
}

/// The ports of a service that are known: the one that requests by host name go to is the first.
pub(super) fn ports(spec: &ServiceSpec) -> Vec<Port> {
    let http = |target: u16| {
        let mut ports = spec.ports.iter();
        ports.any(|port| port.target == target && port.protocol == Protocol::Http)
    };
    let first = spec.port.into_iter();
    let is_udp = |port: &&ServicePort| port.protocol == Protocol::Udp;
    let declared = spec.ports.iter().filter(|port| !is_udp(port));
    let declared = declared.map(|port| port.target);
    let exposed = spec.containers.iter().flat_map(|one| one.ports.clone());
    let mut ports: Vec<Port> = Vec::new();
    for target in first.chain(declared).chain(exposed) {
        if ports.iter().any(|known| known.target == target) {
            continue;
        }
        let is_http = http(target);
        let name = match (is_http, ports.iter().any(|known| known.http)) {
            (true, false) => "http".to_owned(),
            (true, true) => format!("http-{target}"),
            (false, _) => format!("tcp-{target}"),
        };
        ports.push(Port {
            name,
            target,
            http: is_http,
            udp: false,
        });
    }
    let published = spec.published.iter().filter(|port| port.udp);
    let declared = spec.ports.iter().filter(is_udp).map(|port| port.target);
    let udp: BTreeSet<u16> = published.map(|port| port.target).chain(declared).collect();
    ports.extend(udp.into_iter().map(|target| Port {
        name: format!("udp-{target}"),
        target,
        http: false,
        udp: true,
    }));
    ports
}

/// The ports of a service that are published to others than the machine itself.
pub(super) fn outside(spec: &ServiceSpec) -> impl Iterator<Item = &PublishedPort> {
    let is_own = |port: &PublishedPort| port.host.is_some_and(|host| host.is_loopback());
    spec.published.iter().filter(move |port| !is_own(port))
}

/// Writes the Services of a service.
pub(super) fn write(app: &App<'_>, draft: &Draft, all: &mut Gathered, report: &mut Report) {
    let spec = &draft.spec;
    if !workload::kind(app, draft).goes_on() {
        return;
    }
    told(app, draft, report);
    let ports = ports(spec);
    let published: Vec<&PublishedPort> = outside(spec).collect();
    let (by_node, by_balancer): (Vec<&PublishedPort>, Vec<&PublishedPort>) =
        published.iter().partition(|port| is_node_port(port.port));
    let own = names::service(spec.name.as_str());
    if own != spec.name.as_str() {
        let message = format!(
            "the Service of {} is called {own:?}, since its name has to begin with a letter: others find it by that alone",
            shown(draft)
        );
        report.warn(&draft.place, message);
    }
    let is_whole = |published: &[&PublishedPort]| {
        let covers = |port: &Port| published.iter().any(|one| is_of(one, port));
        published.len() == ports.len() && ports.iter().all(covers)
    };
    let is_same = by_balancer.iter().all(|port| port.port == port.target);
    let mut add = |name: &str, kind: Option<&str>, ports: Vec<Map>| {
        let is_headless = ports.is_empty();
        let body = Map::new()
            .some_text("type", kind)
            .some_text("clusterIP", is_headless.then_some("None"))
            .put("selector", labels::selector(spec))
            .put("ports", maps(ports));
        let head = app.object("v1", "Service", name, Some(spec.name.as_str()));
        let map = head.with(Map::new(), |map| map.put("spec", body));
        all.others.push(object("Service", name, map));
    };
    let inner = || ports.iter().map(|port| inner_port(port, None));
    let mut rest = vec![
        ("public", "LoadBalancer", &by_balancer),
        ("node", "NodePort", &by_node),
    ];
    if is_whole(&by_node) && by_balancer.is_empty() && !by_node.is_empty() {
        let ports = ports.iter().map(|port| {
            let found = by_node.iter().find(|one| is_of(one, port));
            inner_port(port, found.map(|one| one.port).filter(|port| *port > 0))
        });
        add(&own, Some("NodePort"), ports.collect());
        rest.clear();
    } else if is_whole(&by_balancer) && by_node.is_empty() && is_same && !by_balancer.is_empty() {
        add(&own, Some("LoadBalancer"), inner().collect());
        rest.clear();
    } else if !ports.is_empty() || is_looked_up(app, draft) {
        add(&own, None, inner().collect());
    }
    for (ending, kind, published) in rest {
        if published.is_empty() {
            continue;
        }
        let name = free(app, &format!("{own}-{ending}"));
        let ports = published
            .iter()
            .map(|one| published_port(one, &ports, kind));
        add(&name, Some(kind), ports.collect());
    }
    for alias in &spec.aliases {
        add(&names::service(alias.as_str()), None, inner().collect());
    }
}

/// Whether a published port leads to this one.
fn is_of(one: &PublishedPort, port: &Port) -> bool {
    (one.target, one.udp) == (port.target, port.udp)
}

fn is_node_port(port: u16) -> bool {
    port == 0 || NODE_PORTS.contains(&port)
}

fn inner_port(port: &Port, node_port: Option<u16>) -> Map {
    Map::new()
        .text("name", &port.name)
        .plain("port", port.target)
        .some_text("protocol", port.protocol())
        .some_plain("nodePort", node_port)
        .some_text("appProtocol", port.http.then_some("http"))
}

/// A port that is published, as a port of a Service for those outside.
fn published_port(one: &PublishedPort, ports: &[Port], kind: &str) -> Map {
    let known = ports.iter().find(|port| is_of(one, port));
    let is_http = known.is_some_and(|port| port.http);
    let is_node = kind == "NodePort";
    let port = if is_node { one.target } else { one.port };
    let word = match (is_http, one.udp) {
        (true, _) => "http",
        (false, true) => "udp",
        (false, false) => "tcp",
    };
    Map::new()
        .text(
            "name",
            format!(
                "{word}-{}",
                if one.port > 0 { one.port } else { one.target }
            ),
        )
        .plain("port", port)
        .some_text("protocol", one.udp.then_some("UDP"))
        .some_plain(
            "targetPort",
            Some(one.target).filter(|target| *target != port),
        )
        .some_plain(
            "nodePort",
            Some(one.port).filter(|port| is_node && *port > 0),
        )
        .some_text("appProtocol", is_http.then_some("http"))
}

/// A name of a Service that no service of the app has.
fn free(app: &App<'_>, wanted: &str) -> String {
    let is_taken = |name: &str| {
        let mut specs = app.services.iter().map(|draft| &draft.spec);
        specs.any(|spec| {
            let mut aliases = spec.aliases.iter();
            spec.name.as_str() == name || aliases.any(|alias| alias.as_str() == name)
        })
    };
    let wanted = names::cut(wanted, 60);
    let numbered = (2..).map(|number| format!("{wanted}-{number}"));
    let mut candidates = std::iter::once(wanted.clone()).chain(numbered);
    candidates.find(|name| !is_taken(name)).unwrap_or(wanted)
}

/// Whether another service may look this one up: it waits for it, or speaks of it.
fn is_looked_up(app: &App<'_>, draft: &Draft) -> bool {
    let mut needs = app.services.iter().flat_map(|other| &other.spec.depends_on);
    needs.any(|need| need.service == draft.spec.name) || is_named(app, draft)
}

/// Whether another service speaks of this one, in its variables or its command line.
pub(super) fn is_named(app: &App<'_>, draft: &Draft) -> bool {
    let own = &draft.spec;
    let says = |text: &String| {
        let aliases = own.aliases.iter().map(|alias| alias.as_str());
        let mut names = aliases.chain([own.name.as_str()]);
        names.any(|name| has_word(text, name))
    };
    let others = app.services.iter().map(|other| &other.spec);
    others.filter(|spec| spec.name != own.name).any(|spec| {
        let mut texts = spec.containers.iter().flat_map(|one| {
            let command = one.entrypoint.iter().chain(&one.command).flatten();
            one.env.values().chain(command)
        });
        texts.any(says)
    })
}

/// Whether a text has a host's name in it that is no part of a longer one.
fn has_word(text: &str, name: &str) -> bool {
    let goes_on = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    text.match_indices(name).any(|(at, _)| {
        !text[..at].ends_with(goes_on) && !text[at + name.len()..].starts_with(goes_on)
    })
}

/// What is published otherwise than Compose has it.
fn told(app: &App<'_>, draft: &Draft, report: &mut Report) {
    let spec = &draft.spec;
    for (port, place) in spec.published.iter().zip(&draft.published_at) {
        let Some(host) = port.host.filter(|host| !host.is_unspecified()) else {
            continue;
        };
        let message = match host.is_loopback() {
            true => format!(
                "port {} of {} is published for this machine alone: in a cluster it is not, and `kubectl port-forward` leads there",
                port.target,
                shown(draft)
            ),
            false => format!(
                "port {} of {} is published on all addresses that the cluster has for it, not on {host} alone",
                port.target,
                shown(draft)
            ),
        };
        report.warn(place, message);
    }
    let is_known = !ports(spec).is_empty();
    if !is_known && is_looked_up(app, draft) {
        let message = format!(
            "no port of {} is known: its Service is headless and leads to the pods themselves; name its ports under \"expose\"",
            shown(draft)
        );
        report.warn(&draft.place, message);
    }
}

/// The port that an Ingress leads to: the first of a service that is published, or of which is said that it speaks HTTP. `None`: none leads there.
pub(super) fn routed(app: &App<'_>, draft: &Draft) -> Option<u16> {
    app.how.domain.as_ref()?;
    let spec = &draft.spec;
    if !workload::kind(app, draft).goes_on() {
        return None;
    }
    let first = ports(spec).into_iter().find(|port| !port.udp)?;
    let is_published = outside(spec).any(|port| is_of(port, &first));
    (first.http || is_published).then_some(first.target)
}
