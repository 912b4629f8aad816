//! Services (`v1`): names and ports for Deployments and other workloads, and names for hosts elsewhere.

use std::collections::BTreeMap;

use layby_model::route::Protocol;

use crate::compose::ports::app_protocol;
use crate::draft::Placed;
use crate::fields::{Fields, parsed, port};
use crate::host::hostname;
use crate::kubernetes::metadata;
use crate::report::Report;
use crate::tree::{Node, Place};

/// A Service, before it is joined to what it leads to.
#[derive(Debug)]
pub(crate) struct Service {
    pub(crate) name: String,
    /// Where its name stands.
    pub(crate) place: Place,
    pub(crate) selector: BTreeMap<String, String>,
    pub(crate) ports: Vec<ServicePort>,
    /// It has no address of its own (`clusterIP: None`): where that stands.
    pub(crate) headless: Option<Place>,
    /// The host elsewhere that its name is another one of.
    pub(crate) external: Option<String>,
}

/// A port of a Service.
#[derive(Debug)]
pub(crate) struct ServicePort {
    pub(crate) place: Place,
    pub(crate) port: u16,
    /// What it is called.
    pub(crate) name: Option<String>,
    pub(crate) target: Target,
    /// What is said to be spoken there.
    pub(crate) protocol: Protocol,
    /// The port of the machine, if it has one; 0: any free one.
    pub(crate) node_port: Option<u16>,
    /// Where the node port stands.
    pub(crate) node_port_place: Place,
}

/// A port in the replica.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Target {
    Number(u16),
    Name(String),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Type {
    ClusterIp,
    NodePort,
    LoadBalancer,
    ExternalName,
}

/// Reads a Service, and the namespace that it names.
pub(crate) fn read(
    mut object: Fields,
    report: &mut Report,
) -> (Option<Service>, Option<Placed<String>>) {
    object.what = "a Service".to_owned();
    let (head, namespace) = metadata::head(object, "Service", report);
    let Some(head) = head else {
        return (None, namespace);
    };
    let metadata::Head {
        name,
        what,
        mut spec,
    } = head;
    let selector = metadata::text_map(&mut spec, "selector", report);
    let kind = service_type(&mut spec, report);
    let external = external_name(&mut spec, kind, report);
    let ports = ports(&mut spec, &what, kind, report);
    let headless = spec
        .entry("clusterIP")
        .filter(|entry| entry.value.scalar() == Some("None"))
        .map(|entry| entry.place);
    if let Some(entry) = spec.entry("sessionAffinity")
        && entry.value.scalar() != Some("None")
    {
        spec.put_back(entry);
    }
    spec.refuse(
        &[
            ("externalIPs", "the Service would not be reached there"),
            ("loadBalancerSourceRanges", "what it keeps out would get in"),
        ],
        report,
    );
    spec.accept(&[
        "allocateLoadBalancerNodePorts",
        "clusterIPs",
        "externalTrafficPolicy",
        "internalTrafficPolicy",
        "ipFamilies",
        "ipFamilyPolicy",
        // A name has its address whether or not a replica is ready.
        "publishNotReadyAddresses",
    ]);
    spec.unsupported(
        &[
            "healthCheckNodePort",
            "loadBalancerClass",
            "loadBalancerIP",
            "sessionAffinity",
            "sessionAffinityConfig",
            "trafficDistribution",
        ],
        report,
    );
    spec.finish(report);
    let service = Service {
        name: name.value,
        place: name.place,
        selector: metadata::labels(&selector),
        ports,
        headless,
        external,
    };
    (Some(service), namespace)
}

/// Whether a protocol is UDP; else it is TCP.
pub(crate) fn is_udp(text: &str) -> Result<bool, String> {
    match text {
        "TCP" => Ok(false),
        "UDP" => Ok(true),
        _ => Err("TCP or UDP (no other protocol is supported)".to_owned()),
    }
}

fn service_type(spec: &mut Fields, report: &mut Report) -> Type {
    let name = spec.name("type");
    let Some(entry) = spec.entry("type") else {
        return Type::ClusterIp;
    };
    let kind = parsed(&entry.value, &name, report, |text| match text {
        "ClusterIP" => Ok(Type::ClusterIp),
        "NodePort" => Ok(Type::NodePort),
        "LoadBalancer" => Ok(Type::LoadBalancer),
        "ExternalName" => Ok(Type::ExternalName),
        _ => Err("ClusterIP, NodePort, LoadBalancer or ExternalName".to_owned()),
    });
    if kind == Some(Type::LoadBalancer) {
        report.warn(
            &entry.value.place,
            format!("{name} is \"LoadBalancer\": it is taken as ClusterIP, reached by host name through the gateway"),
        );
    }
    kind.unwrap_or(Type::ClusterIp)
}

/// `externalName`: the host that an ExternalName leads to. With any other type it means nothing.
fn external_name(spec: &mut Fields, kind: Type, report: &mut Report) -> Option<String> {
    if kind != Type::ExternalName {
        spec.accept(&["externalName"]);
        return None;
    }
    let place = spec.place.clone();
    let found = spec.has("externalName");
    let name = spec.parsed("externalName", report, |text| {
        let text = text.strip_suffix('.').unwrap_or(text);
        match text.parse::<std::net::IpAddr>() {
            Ok(_) => Err("a host name (an address is none)".to_owned()),
            Err(_) => hostname(text).map(|name| name.to_ascii_lowercase()),
        }
    });
    if !found {
        report.error(&place, format!("{} has no \"externalName\"", spec.what));
    }
    name
}

fn ports(spec: &mut Fields, what: &str, kind: Type, report: &mut Report) -> Vec<ServicePort> {
    let nodes = spec.list("ports", report).unwrap_or_default();
    let mut ports: Vec<ServicePort> = Vec::new();
    for node in nodes {
        let Some(port) = service_port(node, what, kind, report) else {
            continue;
        };
        let is_udp = |port: &ServicePort| port.protocol == Protocol::Udp;
        let same = |known: &&ServicePort| {
            known.port == port.port && is_udp(known) == is_udp(&port) && known.target != port.target
        };
        if let Some(known) = ports.iter().find(same) {
            let message = format!(
                "{what} leads its port {} to two places: to another one in {}",
                port.port,
                known.place.short()
            );
            report.error(&port.place, message);
            continue;
        }
        ports.push(port);
    }
    ports
}

fn service_port(node: Node, what: &str, kind: Type, report: &mut Report) -> Option<ServicePort> {
    let mut fields = Fields::open(node, format!("a port of {what}"), report)?;
    let place = fields.place.clone();
    let given = fields.entry("port");
    if given.is_none() {
        report.error(&place, format!("{} has no \"port\"", fields.what));
    }
    let name = fields.name("port");
    let number = given.and_then(|entry| parsed(&entry.value, &name, report, port));
    let target = fields.parsed("targetPort", report, |text| {
        if text.bytes().all(|byte| byte.is_ascii_digit()) {
            port(text).map(Target::Number)
        } else {
            Ok(Target::Name(text.to_owned()))
        }
    });
    let is_udp = fields.parsed("protocol", report, is_udp).unwrap_or(false);
    let mut node_port_place = place.clone();
    let mut node_port = None;
    if let Some(entry) = fields.entry("nodePort") {
        node_port_place = entry.value.place.clone();
        node_port = parsed(&entry.value, &fields.name("nodePort"), report, port);
        if kind == Type::ClusterIp {
            let message = format!("{} needs the type NodePort", fields.name("nodePort"));
            report.error(&entry.place, message);
        }
        if kind == Type::LoadBalancer {
            let message = format!(
                "{} is ignored: it needs the type NodePort",
                fields.name("nodePort")
            );
            report.warn(&entry.place, message);
        }
    }
    let http = app_protocol(&mut fields, "appProtocol", report);
    let name = fields.text("name", report);
    fields.finish(report);
    let number = number?;
    Some(ServicePort {
        place,
        port: number,
        name,
        target: target.unwrap_or(Target::Number(number)),
        protocol: match (is_udp, http) {
            (true, _) => Protocol::Udp,
            (false, true) => Protocol::Http,
            (false, false) => Protocol::Tcp,
        },
        node_port: (kind == Type::NodePort).then(|| node_port.unwrap_or(0)),
        node_port_place,
    })
}
