//! The names by which the containers of an app reach its services, and the virtual addresses behind them.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

use layby_model::network::Networks;
use layby_model::route::{NameTable, Protocol, VirtualPort, VirtualRoute};
use layby_model::spec::{ProbeAction, ServiceSpec};
use layby_model::{AppName, ServiceId};

/// What a service is called, and where that leads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Named {
    pub(crate) names: Vec<String>,
    pub(crate) address: Ipv4Addr,
    /// The names for hosts elsewhere that it brings into its app.
    pub(crate) elsewhere: BTreeMap<String, String>,
    /// Where the ports of the address lead.
    pub(crate) route: VirtualRoute,
    /// Who finds it: those that share one of these.
    pub(crate) networks: Networks,
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
        networks: spec.networks.clone(),
        address,
        elsewhere: elsewhere.collect(),
        route: VirtualRoute {
            service: id.clone(),
            ports: ports(spec),
        },
    }
}

/// The names of all `services`, by who finds them: those of an app that are in the same networks find what shares one with
/// them.
pub(crate) fn table(services: &BTreeMap<ServiceId, Named>) -> NameTable {
    let mut table = NameTable::default();
    let mut seekers: BTreeMap<&AppName, BTreeMap<String, &Networks>> = BTreeMap::new();
    for (id, named) in services {
        let of_app = seekers.entry(&id.app).or_default();
        of_app.insert(named.networks.key(&id.app), &named.networks);
    }
    for (id, named) in services {
        let of_app = seekers.get(&id.app).into_iter().flatten();
        for (key, networks) in of_app {
            let names = table.apps.entry(key.clone()).or_default();
            let found = networks.meet(&named.networks);
            for name in named.names.iter().filter(|_| found) {
                let addresses: &mut Vec<Ipv4Addr> = names.entry(name.clone()).or_default();
                addresses.push(named.address);
            }
            if !named.elsewhere.is_empty() {
                let hosts = table.elsewhere.entry(key.clone()).or_default();
                hosts.extend(named.elsewhere.clone());
            }
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
    use layby_model::ServiceName;
    use layby_model::spec::{ContainerSpec, Probe, ServicePort};

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
        let shop = &table.apps["shop"];
        assert_eq!(shop["web.shop"], [address]);
        assert_eq!(table.apps.len(), 2);
    }

    #[test]
    fn a_service_is_found_by_those_that_share_a_network_with_it() {
        let one = |n: u8, networks: &[&str]| {
            let mut spec = spec(&format!("s{n}"), &[]);
            spec.networks.names = networks.iter().map(|name| (*name).to_owned()).collect();
            let id = id(&format!("shop/s{n}"));
            (id.clone(), named(&id, &spec, Ipv4Addr::new(10, 1, 240, n)))
        };
        let services = [
            one(1, &["front"]),
            one(2, &["back", "front"]),
            one(3, &["back"]),
        ];
        let table = table(&services.into());
        let found = |key: &str| -> Vec<&str> {
            let names = table.apps[key].keys().map(String::as_str);
            names.filter(|name| !name.contains('.')).collect()
        };
        assert_eq!(found("shop/front"), ["s1", "s2"]);
        assert_eq!(found("shop/back+front"), ["s1", "s2", "s3"]);
        assert_eq!(found("shop/back"), ["s2", "s3"]);
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
