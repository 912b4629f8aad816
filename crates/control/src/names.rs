//! The names by which the containers of an app reach its services, and the virtual addresses behind them.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

use layby_model::ServiceId;
use layby_model::route::{NameTable, Protocol, VirtualPort, VirtualRoute};
use layby_model::spec::{ProbeAction, ServiceSpec};

/// What a service is called, and where that leads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Named {
    pub(crate) names: Vec<String>,
    pub(crate) address: Ipv4Addr,
    /// The names for hosts elsewhere that it brings into its app.
    pub(crate) elsewhere: BTreeMap<String, String>,
    /// Where the ports of the address lead.
    pub(crate) route: VirtualRoute,
}

/// The names of a service at `address`: its own and its aliases, each alone and with the app's name behind.
pub(crate) fn named(id: &ServiceId, spec: &ServiceSpec, address: Ipv4Addr) -> Named {
    let own = std::iter::once(&spec.name).chain(&spec.aliases);
    let own = own.map(|name| name.as_str());
    let names = own.chain(spec.names.iter().map(String::as_str));
    let names = names.flat_map(|name| [name.to_owned(), format!("{name}.{}", id.app)]);
    let mut names: Vec<String> = names.collect();
    let mut seen = BTreeSet::new();
    names.retain(|name| seen.insert(name.clone()));
    let elsewhere = spec.sandbox.elsewhere.iter();
    let elsewhere = elsewhere.flat_map(|(name, host)| {
        let long = format!("{name}.{}", id.app);
        [(name.clone(), host.clone()), (long, host.clone())]
    });
    Named {
        names,
        address,
        elsewhere: elsewhere.collect(),
        route: VirtualRoute {
            service: id.clone(),
            ports: ports(spec),
        },
    }
}

/// The names of all `services`, by their apps.
pub(crate) fn table(services: &BTreeMap<ServiceId, Named>) -> NameTable {
    let mut table = NameTable::default();
    for (id, named) in services {
        let app = table.apps.entry(id.app.clone()).or_default();
        for name in &named.names {
            let addresses: &mut Vec<Ipv4Addr> = app.entry(name.clone()).or_default();
            addresses.push(named.address);
        }
        if !named.elsewhere.is_empty() {
            let app = table.elsewhere.entry(id.app.clone()).or_default();
            app.extend(named.elsewhere.clone());
        }
    }
    table
}

/// Where the declared ports of a service lead. HTTP is spoken where the manifest says so: by declaring it, or by probing
/// the port with HTTP.
pub(crate) fn ports(spec: &ServiceSpec) -> BTreeMap<u16, VirtualPort> {
    let probes = spec
        .containers
        .iter()
        .flat_map(|c| [&c.readiness, &c.liveness, &c.startup])
        .flatten();
    let probed = probes.filter_map(|probe| match &probe.action {
        ProbeAction::Http { port, .. } => Some((
            *port,
            VirtualPort {
                target: *port,
                protocol: Protocol::Http,
            },
        )),
        ProbeAction::Tcp { .. } | ProbeAction::Exec { .. } => None,
    });
    let declared = spec.ports.iter().map(|port| {
        let leads = VirtualPort {
            target: port.target,
            protocol: port.protocol,
        };
        (port.port, leads)
    });
    // What was declared has the last word.
    probed.chain(declared).collect()
}

#[cfg(test)]
mod tests {
    use layby_model::spec::{ContainerSpec, Probe, ServicePort};
    use layby_model::{AppName, ServiceName};

    use super::*;

    fn id(text: &str) -> ServiceId {
        text.parse().expect("a service id")
    }

    fn spec(name: &str, aliases: &[&str]) -> ServiceSpec {
        let label = |name: &str| ServiceName::new(name).expect("a label");
        ServiceSpec {
            aliases: aliases.iter().map(|name| label(name)).collect(),
            ..ServiceSpec::new(label(name))
        }
    }

    #[test]
    fn a_service_has_its_names_alone_and_with_its_app() {
        let address = Ipv4Addr::new(10, 1, 240, 1);
        let named = named(&id("shop/web"), &spec("web", &["front"]), address);
        assert_eq!(named.names, ["web", "web.shop", "front", "front.shop"]);
        let services = BTreeMap::from([(id("shop/web"), named.clone()), (id("blog/web"), named)]);
        let table = table(&services);
        let shop = &table.apps[&AppName::new("shop").expect("a label")];
        assert_eq!(shop["web.shop"], [address]);
        assert_eq!(table.apps.len(), 2);
    }

    #[test]
    fn http_is_spoken_where_the_manifest_says_so_and_nowhere_else() {
        let mut spec = spec("web", &[]);
        spec.port = Some(5432); // an image's EXPOSE says nothing of what is spoken
        let mut container = ContainerSpec::new("web", "web");
        let probe = |action: ProbeAction| {
            Some(Probe {
                action,
                initial_delay_ms: 0,
                period_ms: 1,
                timeout_ms: 1,
                success_threshold: 1,
                failure_threshold: 1,
            })
        };
        let http = |port: u16| ProbeAction::Http {
            port,
            path: "/".to_owned(),
            host: None,
            headers: Vec::new(),
        };
        container.readiness = probe(http(8000));
        container.liveness = probe(http(9000));
        container.startup = probe(ProbeAction::Tcp { port: 7000 });
        spec.containers.push(container);
        let tcp = Protocol::Tcp;
        spec.ports = vec![
            ServicePort {
                port: 80,
                target: 8000,
                protocol: Protocol::Http,
            },
            ServicePort {
                port: 9000,
                target: 9000,
                protocol: tcp,
            },
        ];
        let port = |target: u16, protocol: Protocol| VirtualPort { target, protocol };
        let expected = BTreeMap::from([
            (80, port(8000, Protocol::Http)),
            (8000, port(8000, Protocol::Http)),
            (9000, port(9000, tcp)),
        ]);
        assert_eq!(ports(&spec), expected);
    }
}
