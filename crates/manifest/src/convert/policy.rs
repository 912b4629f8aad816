//! The networks of an app as NetworkPolicies (`networking.k8s.io/v1`): without them every pod of a cluster reaches every other.
//!
//! A network is a label of the pods in it, and a policy that lets those with the label be reached by each other. Where an app
//! keeps anything apart, all of its pods have such a label, so that none is left open.

use std::collections::BTreeSet;

use layby_model::network::{SHARED, USUAL};
use layby_model::options::NetworkMode;
use layby_model::spec::ServiceSpec;

use crate::convert::tree::{Map, maps, text, texts};
use crate::convert::{App, Gathered, labels, names, object, service};
use crate::draft::{Draft, label_of};

/// What the label of a network begins with.
pub(crate) const NETWORK: &str = "layby.dev/network-";
/// The label of those that have no network: nothing reaches them, and they reach nothing.
pub(crate) const ALONE: &str = "layby.dev/alone";
/// The label of those that reach nothing outside of the namespace.
const INTERNAL: &str = "layby.dev/internal";
/// The namespace of the cluster's name servers.
const NAME_SERVERS: &str = "kube-system";
/// The port of a name server.
const DNS: u16 = 53;

/// Whether the app keeps anything apart.
fn is_apart(app: &App<'_>) -> bool {
    let mut specs = app.services.iter().map(|draft| &draft.spec);
    specs.any(|spec| !spec.networks.is_usual() || is_alone(spec))
}

/// Whether a service has no network.
fn is_alone(spec: &ServiceSpec) -> bool {
    spec.sandbox.network == NetworkMode::None
}

/// The networks of a service. One that apps share is one of the app's own here: whom it lets in from other namespaces is told as lost, and
/// left open to nobody.
fn networks(spec: &ServiceSpec) -> BTreeSet<String> {
    match spec.networks.names.is_empty() {
        _ if is_alone(spec) => BTreeSet::new(),
        true => [USUAL.to_owned()].into(),
        false => {
            let names = spec.networks.names.iter();
            names
                .map(|name| name.trim_start_matches(SHARED).to_owned())
                .collect()
        }
    }
}

/// The label of the pods in a network.
fn label(network: &str) -> String {
    // A label's own name has 63 characters, and ends with a letter or digit.
    let room = 63 - "network-".len();
    match labels::is_name(network) && network.len() <= room {
        true => format!("{NETWORK}{network}"),
        false => {
            let label = label_of(network).unwrap_or_else(|| "unnamed".to_owned());
            format!("{NETWORK}{}", names::cut(&label, room))
        }
    }
}

/// The labels that say which networks the pods of a service are in.
pub(super) fn labels(app: &App<'_>, spec: &ServiceSpec) -> Vec<String> {
    if !is_apart(app) {
        return Vec::new();
    }
    let mut all: Vec<String> = networks(spec).iter().map(|name| label(name)).collect();
    if spec.networks.internal {
        all.push(INTERNAL.to_owned());
    }
    if is_alone(spec) {
        all.push(ALONE.to_owned());
    }
    all
}

/// Writes the policies.
pub(super) fn write(app: &App<'_>, all: &mut Gathered) {
    if !is_apart(app) {
        return;
    }
    let specs = || app.services.iter().map(|draft| &draft.spec);
    let mut given = names::Names::default();
    let mut add = |wanted: &str, body: Map| {
        let name = given.give(wanted, wanted, 63);
        let head = app.object("networking.k8s.io/v1", "NetworkPolicy", &name, None);
        let map = head.with(Map::new(), |map| map.put("spec", body));
        all.others.push(object("NetworkPolicy", &name, map));
    };
    for network in specs().flat_map(networks).collect::<BTreeSet<_>>() {
        let peer = || selector(Map::new().text(&label(&network), "true"));
        let from = maps([Map::new().put("podSelector", peer())]);
        let body = Map::new()
            .put("podSelector", peer())
            .put("ingress", maps([Map::new().put("from", from)]));
        add(&format!("network-{network}"), body);
    }
    if specs().any(|spec| spec.networks.internal) {
        add("internal", inside());
    }
    if specs().any(is_alone) {
        // Without a rule nothing is let in or out.
        let body = Map::new()
            .put("podSelector", selector(Map::new().text(ALONE, "true")))
            .put("policyTypes", texts(["Ingress", "Egress"]));
        add("alone", body);
    }
    for draft in app.services {
        let spec = &draft.spec;
        let ports = open(app, draft);
        if !ports.is_empty() {
            let ports = ports.into_iter().map(|(port, udp)| {
                let port = Map::new().plain("port", port);
                port.some_text("protocol", udp.then_some("UDP"))
            });
            let body = Map::new()
                .put("podSelector", selector(labels::selector(spec)))
                .put("ingress", maps([Map::new().put("ports", maps(ports))]));
            add(&format!("{}-public", spec.name), body);
        }
    }
}

fn selector(labels: Map) -> Map {
    Map::new().put("matchLabels", labels)
}

/// The ports of a service that are reached from anywhere, and whether they are of UDP.
fn open(app: &App<'_>, draft: &Draft) -> BTreeSet<(u16, bool)> {
    let published = service::outside(&draft.spec).map(|port| (port.target, port.udp));
    let routed = service::routed(app, draft);
    let routed = routed.map(|target| (target, false));
    published.chain(routed).collect()
}

/// That pods reach each other and the name servers, and nothing else.
fn inside() -> Map {
    let servers = Map::new().text("kubernetes.io/metadata.name", NAME_SERVERS);
    let port = |protocol: &str| Map::new().text("protocol", protocol).plain("port", DNS);
    let to_servers = Map::new()
        .put(
            "to",
            maps([Map::new().put("namespaceSelector", selector(servers))]),
        )
        .put("ports", maps([port("UDP"), port("TCP")]));
    let to_pods = Map::new().put("to", maps([Map::new().always("podSelector", Map::new())]));
    Map::new()
        .put(
            "podSelector",
            selector(Map::new().put(INTERNAL, text("true"))),
        )
        .put("policyTypes", texts(["Egress"]))
        .put("egress", maps([to_pods, to_servers]))
}
