//! What the containers of a replica share: names, name servers, kernel settings, the range of their ids.

use std::fs;

use layby_model::engine::RunSpec;
use layby_model::options::NetworkMode;
use layby_model::{AppName, ReplicaId};
use layby_net::{Attachment, NameServers};
use layby_runtime::{ContainerConfig, SandboxSpec};

/// `web` is a whole name here: it is asked for as it is, and not first below each domain of `search`.
const WHOLE_NAMES: &str = "ndots:0";
/// What stands for the machine's address in `extra_hosts`.
const HOST_GATEWAY: &str = "host-gateway";

/// The sandbox of a replica, but where its shim listens and its cgroup.
pub(super) fn sandbox(
    ids: (u32, u32),
    id: ReplicaId,
    app: &AppName,
    spec: &RunSpec,
    attachment: Attachment,
    containers: Vec<ContainerConfig>,
) -> SandboxSpec {
    let options = &spec.service.sandbox;
    let Attachment {
        netns,
        address,
        gateway,
    } = attachment;
    let host_network = options.network == NetworkMode::Host;
    let machine = match host_network {
        true => Machine::read(),
        false => Machine::default(),
    };
    let hostname = options.hostname.clone().or(machine.hostname);
    let hostname = hostname.unwrap_or_else(|| id.to_string());
    let mut hosts = vec![(address.to_string(), own_names(app, spec, &hostname))];
    hosts.extend(options.extra_hosts.iter().map(|(name, address)| {
        let address = match address.as_str() {
            HOST_GATEWAY => gateway.to_string(),
            other => other.to_owned(),
        };
        (address, name.clone())
    }));
    let usual = match options.network {
        NetworkMode::Own => (Vec::new(), Vec::new(), vec![WHOLE_NAMES.to_owned()]),
        NetworkMode::None => Default::default(),
        NetworkMode::Host => (machine.dns, machine.search, Vec::new()),
    };
    let said = |said: &Vec<String>, usual: Vec<String>| match said.is_empty() {
        true => usual,
        false => said.clone(),
    };
    let dns = match options.network {
        // Those that the service names are asked by that one.
        NetworkMode::Own => vec![gateway.to_string()],
        NetworkMode::None | NetworkMode::Host => said(&options.dns, usual.0),
    };
    let dns_search = said(&options.dns_search, usual.1);
    let dns_options = said(&options.dns_options, usual.2);
    SandboxSpec {
        id: id.to_string(),
        hostname,
        netns,
        host_network,
        hosts,
        dns,
        dns_search,
        dns_options,
        sysctls: options.sysctls.clone(),
        host_pid: options.host_pid,
        host_ipc: options.host_ipc,
        share_pid: options.share_pid,
        id_map: shifts_ids(spec).then_some(ids),
        containers,
        ..SandboxSpec::default()
    }
}

/// Who is asked for names that the node does not know.
pub(super) fn name_servers(spec: &RunSpec) -> NameServers {
    let options = &spec.service.sandbox;
    let addresses = options.dns.iter();
    NameServers {
        addresses: addresses.filter_map(|text| text.parse().ok()).collect(),
        after_machines: options.dns_after_machines,
    }
}

/// The host's own names, as a line of `/etc/hosts` has them: the whole one first where it has one, which is what
/// `hostname -f` says (Kubernetes: a pod with a subdomain).
fn own_names(app: &AppName, spec: &RunSpec, hostname: &str) -> String {
    let below = |name: &&String| {
        let rest = name.strip_prefix(hostname);
        rest.is_some_and(|rest| rest.starts_with('.'))
    };
    match spec.service.names.iter().find(below) {
        Some(name) => format!("{name}.{app}.svc.cluster.local {hostname}"),
        None => hostname.to_owned(),
    }
}

/// Whether ids inside are others outside: not those of what shares the machine's own namespaces. Every replica of an app
/// has the same.
fn shifts_ids(spec: &RunSpec) -> bool {
    let options = &spec.service.sandbox;
    let privileged = spec.service.all_containers().any(|c| c.options.privileged);
    let host_network = options.network == NetworkMode::Host;
    !(privileged || options.host_users || options.host_pid || options.host_ipc || host_network)
}

/// What the machine is called, and whom it asks for names.
#[derive(Debug, Default)]
struct Machine {
    hostname: Option<String>,
    dns: Vec<String>,
    search: Vec<String>,
}

impl Machine {
    /// As it is now; what cannot be read is left out.
    fn read() -> Self {
        let hostname = fs::read_to_string("/proc/sys/kernel/hostname").ok();
        let hostname = hostname.map(|name| name.trim().to_owned());
        let resolv_conf = fs::read_to_string("/etc/resolv.conf").unwrap_or_default();
        let (dns, search) = resolvers(&resolv_conf);
        Self {
            hostname: hostname.filter(|name| !name.is_empty()),
            dns,
            search,
        }
    }
}

/// The name servers, and the domains to look short names up in, of a text as `/etc/resolv.conf` (resolv.conf(5)).
fn resolvers(text: &str) -> (Vec<String>, Vec<String>) {
    let (mut dns, mut search) = (Vec::new(), Vec::new());
    for line in text.lines() {
        let mut words = line.split_ascii_whitespace();
        match words.next() {
            Some("nameserver") => dns.extend(words.next().map(str::to_owned)),
            // The last one counts.
            Some("search" | "domain") => search = words.map(str::to_owned).collect(),
            _ => {}
        }
    }
    (dns, search)
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use layby_model::ServiceName;
    use layby_model::spec::{ContainerSpec, ServiceSpec};

    use super::*;

    const IDS: (u32, u32) = (0x1000_0000, 65_536);

    fn spec() -> RunSpec {
        let mut service = ServiceSpec::new(ServiceName::new("web").expect("a label"));
        service.containers.push(ContainerSpec::new("web", "web"));
        RunSpec {
            service,
            images: Vec::new(),
        }
    }

    fn made(spec: &RunSpec) -> SandboxSpec {
        let attachment = Attachment {
            netns: "/run/x".into(),
            address: Ipv4Addr::new(10, 0, 0, 5),
            gateway: Ipv4Addr::new(10, 0, 0, 1),
        };
        let app = AppName::new("shop").expect("a label");
        sandbox(IDS, ReplicaId(7), &app, spec, attachment, Vec::new())
    }

    #[test]
    fn names_are_resolved_by_the_bridges_gateway_which_asks_those_that_the_service_names() {
        let plain = made(&spec());
        assert_eq!((plain.dns[0].as_str(), plain.dns.len()), ("10.0.0.1", 1));
        assert_eq!(plain.dns_options, [WHOLE_NAMES]);
        assert!(plain.dns_search.is_empty());
        let mut own = spec();
        own.service.sandbox.dns_options = vec!["timeout:1".to_owned()];
        own.service.sandbox.dns_search = vec!["example.org".to_owned()];
        own.service.sandbox.dns = vec!["9.9.9.9".to_owned(), "::1".to_owned()];
        let servers = name_servers(&own);
        let own = made(&own);
        assert_eq!(own.dns, plain.dns);
        assert_eq!(
            (servers.addresses.len(), servers.after_machines),
            (2, false)
        );
        assert_eq!(own.dns_options, ["timeout:1"]);
        assert_eq!(own.dns_search, ["example.org"]);
    }

    #[test]
    fn the_host_name_and_further_hosts_are_as_the_service_says() {
        let plain = made(&spec());
        assert_eq!(plain.hostname, "000000000007");
        let mut own = spec();
        own.service.sandbox.hostname = Some("db".to_owned());
        own.service.sandbox.extra_hosts = vec![
            ("host".to_owned(), HOST_GATEWAY.to_owned()),
            ("other".to_owned(), "1.2.3.4".to_owned()),
        ];
        let own = made(&own);
        let lines: Vec<String> = own.hosts.iter().map(|(a, n)| format!("{a} {n}")).collect();
        assert_eq!(lines, ["10.0.0.5 db", "10.0.0.1 host", "1.2.3.4 other"]);
    }

    #[test]
    fn a_pod_below_a_domain_has_its_whole_name_first() {
        let mut pod = spec();
        pod.service.sandbox.hostname = Some("db-0".to_owned());
        pod.service.names = vec!["db".to_owned(), "db-0.db".to_owned()];
        let own = &made(&pod).hosts[0];
        assert_eq!(own.1, "db-0.db.shop.svc.cluster.local db-0");
    }

    #[test]
    fn one_in_the_machines_network_asks_whom_the_machine_asks() {
        let text = "# made\nsearch old\nnameserver 9.9.9.9\nnameserver 1.1.1.1 # two\nsearch a b\n";
        let (dns, search) = resolvers(text);
        assert_eq!(
            (dns, search),
            (
                vec!["9.9.9.9".into(), "1.1.1.1".into()],
                vec!["a".into(), "b".into()]
            )
        );
        let mut host = spec();
        host.service.sandbox.network = NetworkMode::Host;
        assert!(made(&host).host_network && made(&host).dns_options.is_empty());
        let mut none = spec();
        none.service.sandbox.network = NetworkMode::None;
        assert!(!made(&none).host_network && made(&none).dns.is_empty());
    }

    #[test]
    fn an_app_has_ids_of_its_own_unless_it_shares_the_machines() {
        assert_eq!(made(&spec()).id_map, Some(IDS));
        let mut privileged = spec();
        privileged.service.containers[0].options.privileged = true;
        let mut host = spec();
        host.service.sandbox.host_users = true;
        let mut network = spec();
        network.service.sandbox.network = NetworkMode::Host;
        for spec in [privileged, host, network] {
            assert_eq!(made(&spec).id_map, None);
        }
    }
}
