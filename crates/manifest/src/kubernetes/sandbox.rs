//! What the containers of a pod share: its name, names of other hosts, name servers, namespaces.

use std::collections::BTreeMap;

use layby_model::options::{NetworkMode, SandboxOptions};

use crate::fields::Fields;
use crate::host::{address, hostname, own_hostname, resolver_option, search};
use crate::report::Report;

/// Takes the options of the sandbox off a pod.
pub(crate) fn read(
    pod: &mut Fields,
    sysctls: BTreeMap<String, String>,
    report: &mut Report,
) -> SandboxOptions {
    let of_machine = pod.flag("hostNetwork", report).unwrap_or(false);
    let mut sandbox = SandboxOptions {
        network: match of_machine {
            true => NetworkMode::Host,
            false => NetworkMode::Own,
        },
        hostname: pod.parsed("hostname", report, own_hostname),
        extra_hosts: host_aliases(pod, report),
        sysctls,
        host_pid: pod.flag("hostPID", report).unwrap_or(false),
        host_ipc: pod.flag("hostIPC", report).unwrap_or(false),
        share_pid: pod.flag("shareProcessNamespace", report).unwrap_or(false),
        // Without a word a pod has a user namespace here, as with `hostUsers: false`.
        host_users: pod.flag("hostUsers", report).unwrap_or(false),
        ..SandboxOptions::default()
    };
    dns(pod, &mut sandbox, report);
    sandbox
}

fn host_aliases(pod: &mut Fields, report: &mut Report) -> Vec<(String, String)> {
    let what = format!("an item of {}", pod.name("hostAliases"));
    let mut hosts = Vec::new();
    for node in pod.list("hostAliases", report).unwrap_or_default() {
        let Some(mut fields) = Fields::open(node, what.as_str(), report) else {
            continue;
        };
        if !fields.has("ip") {
            report.error(&fields.place, format!("{what} has no \"ip\""));
        }
        let ip = fields.parsed("ip", report, address);
        let names = fields.parsed_list("hostnames", report, hostname);
        fields.finish(report);
        if let Some(ip) = ip {
            hosts.extend(names.into_iter().map(|name| (name, ip.clone())));
        }
    }
    hosts
}

/// Whom a pod asks for names that are of nobody on the node. Those of the app's services are found whatever it says.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Policy {
    /// The machine's name servers, then the pod's own.
    ClusterFirst,
    /// The same, of a pod in the machine's network too; there it is the machine's alone here.
    WithHostNet,
    /// The same; of the machine's also the search domains, which is not done here.
    Default,
    /// The pod's own alone.
    Own,
}

/// `dnsPolicy` and `dnsConfig`.
fn dns(pod: &mut Fields, sandbox: &mut SandboxOptions, report: &mut Report) {
    let policy_at = pod.place_of("dnsPolicy");
    let name = pod.name("dnsPolicy");
    let policy = pod.parsed("dnsPolicy", report, |text| match text {
        "ClusterFirst" => Ok(Policy::ClusterFirst),
        "ClusterFirstWithHostNet" => Ok(Policy::WithHostNet),
        "None" => Ok(Policy::Own),
        "Default" => Ok(Policy::Default),
        _ => Err("ClusterFirst, ClusterFirstWithHostNet, Default or None".to_owned()),
    });
    if let Some(mut config) = pod.map("dnsConfig", report) {
        sandbox.dns = config.parsed_list("nameservers", report, address);
        sandbox.dns_search = config.parsed_list("searches", report, search);
        let what = format!("an item of {}", config.name("options"));
        for node in config.list("options", report).unwrap_or_default() {
            let Some(mut fields) = Fields::open(node, what.as_str(), report) else {
                continue;
            };
            let name = fields.parsed("name", report, resolver_option);
            let value = fields.parsed("value", report, resolver_option);
            fields.finish(report);
            sandbox.dns_options.extend(name.map(|name| match value {
                Some(value) => format!("{name}:{value}"),
                None => name,
            }));
        }
        config.finish(report);
    }
    sandbox.dns_after_machines = policy != Some(Policy::Own) && !sandbox.dns.is_empty();
    let Some(place) = policy_at else {
        return;
    };
    match policy {
        Some(Policy::Own) if sandbox.dns.is_empty() => {
            let message = format!("{name} is None: \"dnsConfig\" must name \"nameservers\"");
            report.error(&place, message);
        }
        Some(Policy::Default) if sandbox.dns_search.is_empty() => {
            let message = format!(
                "{name} is Default: the machine's name servers are asked, and its search domains are not taken over; \"searches\" of \"dnsConfig\" name some"
            );
            report.warn(&place, message);
        }
        Some(Policy::WithHostNet) if sandbox.network == NetworkMode::Host => {
            let message = format!(
                "{name} is ClusterFirstWithHostNet: from the machine's network the services of the app are not found by their names"
            );
            report.warn(&place, message);
        }
        Some(Policy::ClusterFirst | Policy::WithHostNet | Policy::Default | Policy::Own) | None => {
        }
    }
}
