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
    /// For all of its app that it shares a network with.
    pub(crate) names: Vec<String>,
    /// Further ones for those in one network, by that network.
    pub(crate) on: BTreeMap<String, Vec<String>>,
    /// Those of `names` that other apps find in a network of the node, too.
    pub(crate) shared: Vec<String>,
    pub(crate) address: Ipv4Addr,
    /// What is sent to the address comes to a replica, now or once one is there. What leads nowhere has a name that others have,
    /// too, only while none of those leads anywhere.
    pub(crate) leads: bool,
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
/// app's name behind. `None`: it has no network of its own, so that nobody is to find it.
pub(crate) fn named(
    id: &ServiceId,
    spec: &ServiceSpec,
    address: Ipv4Addr,
    networks: BTreeSet<Networks>,
) -> Option<Named> {
    if !spec.sandbox.network.is_own() {
        return None;
    }
    let own = std::iter::once(&spec.name).chain(&spec.aliases);
    let own = own.map(|name| name.as_str());
    let names = own.chain(spec.names.iter().map(String::as_str));
    let names = with_app(names, &id.app);
    let elsewhere = spec.sandbox.elsewhere.iter();
    let elsewhere = elsewhere.flat_map(|(name, host)| {
        let long = format!("{name}.{}", id.app);
        [(name.clone(), host.clone()), (long, host.clone())]
    });
    let of_network = |names: &Vec<String>| with_app(names.iter().map(String::as_str), &id.app);
    let on = spec.network_names.iter();
    let on = on.map(|(network, names)| (network.clone(), of_network(names)));
    let alone = std::iter::once(spec.name.as_str()).chain(spec.names.iter().map(String::as_str));
    Some(Named {
        shared: with_app(alone, &id.app),
        on: on.collect(),
        names,
        networks,
        address,
        leads: true,
        elsewhere: elsewhere.collect(),
        route: VirtualRoute {
            service: id.clone(),
            ports: ports(spec),
            datagrams: datagrams(spec),
        },
    })
}

/// These names alone and with the app's name behind, each once.
fn with_app<'a>(names: impl Iterator<Item = &'a str>, app: &AppName) -> Vec<String> {
    let names = names.flat_map(|name| [name.to_owned(), format!("{name}.{app}")]);
    let mut names: Vec<String> = names.collect();
    let mut seen = BTreeSet::new();
    names.retain(|name| seen.insert(name.clone()));
    names
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
    for named in services.values() {
        let ports = named.route.datagrams.keys();
        table
            .datagrams
            .extend(ports.map(|port| (named.address, *port)));
    }
    for (id, named) in in_order(services) {
        let of_app = seekers.get(&id.app).into_iter().flatten();
        for (key, all) in of_app {
            let names = table.apps.entry(key.clone()).or_default();
            let found = all.iter().any(|sets| meet(sets, &named.networks));
            let own = named.names.iter().filter(|_| found);
            let is_in = |network: &str| all.iter().any(|sets| sets.iter().any(|n| n.has(network)));
            let on = named.on.iter().filter(|(network, _)| is_in(network));
            for name in own.chain(on.flat_map(|(_, names)| names)) {
                let addresses: &mut Vec<Ipv4Addr> = names.entry(name.clone()).or_default();
                add(addresses, named);
            }
            if !named.elsewhere.is_empty() {
                let hosts = table.elsewhere.entry(key.clone()).or_default();
                hosts.extend(named.elsewhere.clone());
            }
        }
    }
    for (app, keys) in &seekers {
        for (key, all) in keys {
            let own = all.iter().flat_map(|sets| sets.iter());
            let networks: BTreeSet<&str> = own.flat_map(Networks::shared).collect();
            if !networks.is_empty() {
                let names = table.apps.entry(key.clone()).or_default();
                let hosts = table.elsewhere.get(key);
                let is_free = |name: &str| hosts.is_none_or(|hosts| !hosts.contains_key(name));
                names_of_others(app, &networks, services, names, is_free);
            }
        }
    }
    table
}

/// App by app, those that lead anywhere first.
fn in_order(services: &BTreeMap<ServiceId, Named>) -> Vec<(&ServiceId, &Named)> {
    let mut all: Vec<_> = services.iter().collect();
    all.sort_by(|(a, one), (b, other)| {
        let by_app = a.app.cmp(&b.app);
        by_app.then(other.leads.cmp(&one.leads))
    });
    all
}

/// Adds the address of a service to those of a name. They come [`in_order`].
fn add(addresses: &mut Vec<Ipv4Addr>, named: &Named) {
    if !addresses.contains(&named.address) && (named.leads || addresses.is_empty()) {
        addresses.push(named.address);
    }
}

/// Adds the names of what other apps have in these networks of the node, as far as an app can have them there. A name that the
/// own app has leads there; of two other apps that have it, the first by its own name does.
fn names_of_others(
    app: &AppName,
    networks: &BTreeSet<&str>,
    services: &BTreeMap<ServiceId, Named>,
    names: &mut BTreeMap<String, Vec<Ipv4Addr>>,
    is_free: impl Fn(&str) -> bool,
) {
    let mut theirs: BTreeMap<String, (&AppName, Vec<Ipv4Addr>)> = BTreeMap::new();
    let of_others = in_order(services).into_iter();
    for (id, named) in of_others.filter(|(id, _)| id.app != *app) {
        let sets = named.networks.iter();
        let shared: BTreeSet<&str> = sets
            .flat_map(Networks::shared)
            .filter(|network| networks.contains(network))
            .collect();
        if shared.is_empty() {
            continue;
        }
        let on = named.on.iter();
        let on = on.filter(|(network, _)| shared.contains(network.as_str()));
        let names = named.shared.iter().chain(on.flat_map(|(_, names)| names));
        for name in names.filter(|name| is_for_others(name, &id.app)) {
            let (owner, addresses) = theirs
                .entry(name.clone())
                .or_insert_with(|| (&id.app, Vec::new()));
            if **owner == id.app {
                add(addresses, named);
            }
        }
    }
    for (name, (_, addresses)) in theirs {
        if is_free(&name) {
            names.entry(name).or_insert(addresses);
        }
    }
}

/// Whether a service of `app` can have this name for other apps: one without a dot, or such a one with its app's name behind.
/// Any other would be a name of another app's service, or one of the world's.
fn is_for_others(name: &str, app: &AppName) -> bool {
    name.split_once('.')
        .is_none_or(|(_, behind)| behind == app.as_str())
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
    let declared = spec.ports.iter();
    let declared = declared.filter(|port| port.protocol != Protocol::Udp);
    let declared = declared.map(|port| {
        let leads = VirtualPort {
            target: port.target,
            protocol: port.protocol,
        };
        (port.port, leads)
    });
    // What was declared has the last word.
    probed.chain(declared).collect()
}

/// Where the UDP ports of a service lead. A published one is known by its number in the replicas, as among containers.
fn datagrams(spec: &ServiceSpec) -> BTreeMap<u16, u16> {
    let published = spec.published.iter().filter(|port| port.udp);
    let published = published.map(|port| (port.target, port.target));
    let declared = spec.ports.iter();
    let declared = declared.filter(|port| port.protocol == Protocol::Udp);
    // What was declared has the last word.
    published
        .chain(declared.map(|port| (port.port, port.target)))
        .collect()
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
        let named = named.expect("it has a network");
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
        (id, named.expect("it has a network"))
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
    fn an_alias_of_one_network_is_found_by_those_in_it_alone() {
        let mut two = spec("two", &[]);
        two.network_names = BTreeMap::from([("back".to_owned(), vec!["db".to_owned()])]);
        let sets = BTreeSet::from([networks(&["back", "front"])]);
        let address = Ipv4Addr::new(10, 1, 240, 2);
        let two = named(&id("shop/two"), &two, address, sets).expect("it has a network");
        let services = [
            one(1, &[&["front"]]),
            (id("shop/two"), two),
            one(3, &[&["back"]]),
        ];
        let table = table(&services.into(), &Seekers::new());
        assert_eq!(found(&table, "shop/front"), ["s1", "two"]);
        assert_eq!(found(&table, "shop/back"), ["db", "s3", "two"]);
        assert_eq!(table.apps["shop/back"]["db.shop"], [address]);
    }

    /// The service `app/name` at `10.1.240.<n>`, in these networks, with an alias in `@proxy`.
    fn of_app(n: u8, name: &str, alias: &str, sets: &[&str]) -> (ServiceId, Named) {
        let id = id(name);
        let mut spec = spec(id.service.as_str(), &[]);
        let names = vec![alias.to_owned()];
        spec.network_names = BTreeMap::from([("@proxy".to_owned(), names)]);
        let sets = BTreeSet::from([networks(sets)]);
        let named = named(&id, &spec, Ipv4Addr::new(10, 1, 240, n), sets);
        (id.clone(), named.expect("it has a network"))
    }

    #[test]
    fn apps_find_each_other_in_a_network_of_the_node_and_their_own_names_come_first() {
        let services = [
            of_app(1, "blog/web", "api", &["@proxy"]),
            of_app(2, "shop/web", "web-of-shop", &["@proxy", "default"]),
            of_app(3, "shop/db", "none", &["default"]),
            of_app(4, "tick/front", "api", &["@proxy"]),
            of_app(5, "tock/lone", "api", &["@other"]),
        ];
        let table = table(&services.into(), &Seekers::new());
        let leads = |key: &str, name: &str| -> Vec<u8> {
            let found = table.apps[key].get(name).into_iter().flatten();
            found.map(|address| address.octets()[3]).collect()
        };
        let own = |key: &str| (leads(key, "web"), leads(key, "api"), leads(key, "front"));
        assert_eq!(own("blog/@proxy"), (vec![1], vec![1], vec![4]));
        assert_eq!(own("shop/@proxy+default"), (vec![2], vec![1], vec![4]));
        assert_eq!(own("tick/@proxy"), (vec![1], vec![4], vec![4]));
        assert_eq!(leads("tick/@proxy", "web.shop"), [2]);
        assert_eq!(leads("tick/@proxy", "web-of-shop.shop"), [2]);
        assert!(
            leads("tick/@proxy", "db.shop").is_empty(),
            "it is not in it"
        );
        assert_eq!(leads("shop", "web"), [2]);
        assert!(leads("shop", "front").is_empty());
        assert!(leads("tock/@other", "web").is_empty());
    }

    #[test]
    fn what_is_off_has_a_name_of_several_only_while_all_of_them_are_off() {
        let off = |(id, named): (ServiceId, Named)| {
            let leads = false;
            (id, Named { leads, ..named })
        };
        let blue = || of_app(1, "shop/blue", "web", &["@proxy"]);
        let green = || of_app(2, "shop/green", "web", &["@proxy"]);
        let other = || of_app(3, "tick/other", "web", &["@proxy"]);
        let leads = |services: [(ServiceId, Named); 3]| {
            let table = table(&services.into(), &Seekers::new());
            let of = |key: &str, name: &str| -> Vec<u8> {
                let addresses = table.apps[key][name].iter();
                addresses.map(|address| address.octets()[3]).collect()
            };
            assert_eq!(of("shop/@proxy", "blue"), [1], "its own name stays");
            // Of two other apps the first by its name has it, off or not.
            let third = "tick/@proxy";
            (of("shop/@proxy", "web"), of(third, "web.shop"))
        };
        let both = |n: &[u8]| (n.to_vec(), n.to_vec());
        assert_eq!(leads([blue(), green(), other()]), both(&[1, 2]));
        assert_eq!(leads([off(blue()), green(), other()]), both(&[2]));
        assert_eq!(leads([blue(), off(green()), other()]), both(&[1]));
        assert_eq!(leads([off(blue()), off(green()), other()]), both(&[1]));
    }

    #[test]
    fn no_alias_leads_other_apps_to_a_name_of_a_third_or_of_the_world() {
        let evil = |n: u8, alias: &str| of_app(n, &format!("a{n}/evil"), alias, &["@proxy"]);
        let wanted = [
            "app.n2",
            "proxy.n1",
            "proxy.n1.svc",
            "proxy.n1.svc.cluster.local",
            "www.example.org",
            "registry.localhost",
        ];
        let mut services: BTreeMap<ServiceId, Named> = [
            of_app(1, "n1/proxy", "front", &["@proxy"]),
            of_app(2, "n2/app", "back", &["@proxy"]),
            // What the app's name is put behind makes no such name either.
            of_app(9, "local/evil", "proxy.n1.svc.cluster", &["@proxy"]),
        ]
        .into();
        services.extend((10..).zip(wanted).map(|(n, alias)| evil(n, alias)));
        let table = table(&services, &Seekers::new());
        let address = |n: u8| Ipv4Addr::new(10, 1, 240, n);
        for (key, other, n) in [("n1/@proxy", "app.n2", 2), ("n2/@proxy", "proxy.n1", 1)] {
            let names = &table.apps[key];
            assert_eq!(names[other], [address(n)], "{key}");
            assert_eq!(names["evil.a10"], [address(10)], "{key}");
            for name in wanted.iter().filter(|name| !name.ends_with(['1', '2'])) {
                assert!(!names.contains_key(*name), "{key}: {name}");
            }
        }
        let own = &table.apps["a14/@proxy"];
        assert_eq!(
            own["www.example.org"],
            [address(14)],
            "its own app finds it"
        );
    }

    #[test]
    fn udp_ports_are_those_that_are_declared_or_published() {
        let mut spec = spec("dns", &[]);
        let port = |port: u16, target: u16, protocol: Protocol| ServicePort {
            port,
            target,
            protocol,
        };
        spec.ports = vec![port(53, 5353, Protocol::Udp), port(53, 5354, Protocol::Tcp)];
        let published = |udp: bool| layby_model::spec::PublishedPort {
            host: None,
            port: 1,
            target: 9000,
            udp,
        };
        spec.published = vec![published(true), published(false)];
        let expected = BTreeMap::from([(53, 5353), (9000, 9000)]);
        assert_eq!(datagrams(&spec), expected);
        let tcp = VirtualPort {
            target: 5354,
            protocol: Protocol::Tcp,
        };
        assert_eq!(ports(&spec), BTreeMap::from([(53, tcp)]));
        let address = Ipv4Addr::new(10, 1, 240, 1);
        let sets = BTreeSet::from([Networks::default()]);
        let named = named(&id("shop/dns"), &spec, address, sets).expect("it has a network");
        let services = BTreeMap::from([(id("shop/dns"), named)]);
        let table = table(&services, &Seekers::new());
        let expected = BTreeSet::from([(address, 53), (address, 9000)]);
        assert_eq!(table.datagrams, expected);
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
