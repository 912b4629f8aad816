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
    /// The sets of networks that its replicas are in. Where a rollout changes them they are several: one for each revision
    /// that has replicas or may get some.
    pub(crate) networks: BTreeSet<Networks>,
}

/// Those of an app who look names up because they are in these networks, and are no services: its jobs.
pub(crate) type Seekers = BTreeMap<ServiceId, BTreeSet<Networks>>;

/// The names of a service at `address`, whose replicas are in `networks`: its own and its aliases, each alone and with the
/// app's name behind.
pub(crate) fn named(
    id: &ServiceId,
    spec: &ServiceSpec,
    address: Ipv4Addr,
    networks: BTreeSet<Networks>,
) -> Named {
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
        networks,
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
///
/// Two services whose networks change find each other, from all that either is in, as long as they do by any: so what is live does
/// not lose the one that went live before it, and a target that is to be the next is not started without what it needs.
pub(crate) fn table(services: &BTreeMap<ServiceId, Named>, jobs: &Seekers) -> NameTable {
    let mut table = NameTable::default();
    let mut seekers: BTreeMap<&AppName, BTreeMap<String, BTreeSet<&BTreeSet<Networks>>>> =
        BTreeMap::new();
    let of_services = services.iter().map(|(id, named)| (id, &named.networks));
    for (id, sets) in of_services.chain(jobs) {
        let of_app = seekers.entry(&id.app).or_default();
        for networks in sets {
            let of_key = of_app.entry(networks.key(&id.app)).or_default();
            of_key.insert(sets);
        }
    }
    for (id, named) in services {
        let of_app = seekers.get(&id.app).into_iter().flatten();
        for (key, all) in of_app {
            let names = table.apps.entry(key.clone()).or_default();
            let found = all.iter().any(|sets| meet(sets, &named.networks));
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

/// Whether any of these share a network with any of those.
fn meet(these: &BTreeSet<Networks>, those: &BTreeSet<Networks>) -> bool {
    these
        .iter()
        .any(|one| those.iter().any(|other| one.meet(other)))
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
        ProbeAction::Http {
            port, tls: false, ..
        } => Some((
            *port,
            VirtualPort {
                target: *port,
                protocol: Protocol::Http,
            },
        )),
        ProbeAction::Http { tls: true, .. }
        | ProbeAction::Grpc { .. }
        | ProbeAction::Tcp { .. }
        | ProbeAction::Exec { .. } => None,
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
        let networks = BTreeSet::from([Networks::default()]);
        let named = named(&id("shop/web"), &spec("web", &["front"]), address, networks);
        assert_eq!(named.names, ["web", "web.shop", "front", "front.shop"]);
        let services = BTreeMap::from([(id("shop/web"), named.clone()), (id("blog/web"), named)]);
        let table = table(&services, &Seekers::new());
        let shop = &table.apps["shop"];
        assert_eq!(shop["web.shop"], [address]);
        assert_eq!(table.apps.len(), 2);
    }

    fn networks(names: &[&str]) -> Networks {
        Networks {
            names: names.iter().map(|name| (*name).to_owned()).collect(),
            internal: false,
        }
    }

    /// The service `s<n>`, whose replicas are in these networks.
    fn one(n: u8, sets: &[&[&str]]) -> (ServiceId, Named) {
        let spec = spec(&format!("s{n}"), &[]);
        let id = id(&format!("shop/s{n}"));
        let sets = sets.iter().map(|names| networks(names)).collect();
        let named = named(&id, &spec, Ipv4Addr::new(10, 1, 240, n), sets);
        (id, named)
    }

    /// What is found by those with this key.
    fn found<'a>(table: &'a NameTable, key: &str) -> Vec<&'a str> {
        let names = table.apps[key].keys().map(String::as_str);
        names.filter(|name| !name.contains('.')).collect()
    }

    #[test]
    fn a_service_is_found_by_those_that_share_a_network_with_it() {
        let services = [
            one(1, &[&["front"]]),
            one(2, &[&["back", "front"]]),
            one(3, &[&["back"]]),
        ];
        let table = table(&services.into(), &Seekers::new());
        assert_eq!(found(&table, "shop/front"), ["s1", "s2"]);
        assert_eq!(found(&table, "shop/back+front"), ["s1", "s2", "s3"]);
        assert_eq!(found(&table, "shop/back"), ["s2", "s3"]);
    }

    #[test]
    fn services_that_change_networks_find_each_other_until_the_last_replica_has_changed() {
        // The database is there already, the web is on its way, a third stays where it was.
        let services = [
            one(1, &[&[], &["back", "front"]]),
            one(2, &[&["back"]]),
            one(3, &[&[]]),
        ];
        let under_way = table(&services.into(), &Seekers::new());
        assert_eq!(found(&under_way, "shop"), ["s1", "s2", "s3"]);
        assert_eq!(found(&under_way, "shop/back+front"), ["s1", "s2", "s3"]);
        assert_eq!(found(&under_way, "shop/back"), ["s1", "s2"]);
        let services = [
            one(1, &[&["back", "front"]]),
            one(2, &[&["back"]]),
            one(3, &[&[]]),
        ];
        let after = table(&services.into(), &Seekers::new());
        assert_eq!(found(&after, "shop"), ["s3"]);
        assert_eq!(found(&after, "shop/back+front"), ["s1", "s2"]);
    }

    #[test]
    fn a_job_finds_what_shares_a_network_with_it_though_no_service_is_in_just_its_own() {
        let services = [one(1, &[&["back", "front"]]), one(2, &[&["front"]])];
        let jobs = Seekers::from([
            (id("shop/migrate"), BTreeSet::from([networks(&["back"])])),
            (id("blog/clean"), BTreeSet::from([networks(&["back"])])),
        ]);
        let table = table(&services.into(), &jobs);
        assert_eq!(found(&table, "shop/back"), ["s1"]);
        assert!(
            !table.apps.contains_key("blog/back"),
            "there is nothing to find"
        );
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
                stop_grace_ms: None,
            })
        };
        let http = |port: u16| ProbeAction::Http {
            port,
            path: "/".to_owned(),
            host: None,
            headers: Vec::new(),
            tls: false,
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
