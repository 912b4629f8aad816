//! What the containers of a replica share: its host name, names and name servers, kernel settings, namespaces.

use std::collections::BTreeMap;

use layby_model::options::{NetworkMode, SandboxOptions};

use crate::compose::pairs;
use crate::fields::{Expected, Fields, one_or_more};
use crate::host::{address, address_or_gateway, hostname, own_hostname, resolver_option, search};
use crate::report::Report;
use crate::sysctl::sysctl;
use crate::tree::{Place, Value, cut};

/// Takes the options of the sandbox off a service, which is in this network.
pub(crate) fn read(
    service: &mut Fields,
    network: NetworkMode,
    report: &mut Report,
) -> SandboxOptions {
    let sandbox = SandboxOptions {
        network,
        hostname: service.parsed("hostname", report, own_hostname),
        extra_hosts: extra_hosts(service, report),
        dns: texts(service, "dns", report, address),
        dns_after_machines: false,
        dns_search: texts(service, "dns_search", report, search),
        dns_options: texts(service, "dns_opt", report, resolver_option),
        sysctls: sysctls(service, report),
        host_pid: namespace(service, "pid", report),
        host_ipc: namespace(service, "ipc", report),
        share_pid: false,
        fs_group: None,
        host_users: namespace(service, "userns_mode", report),
        elsewhere: BTreeMap::new(),
    };
    namespaces_of_its_own(service, report);
    sandbox
}

/// Takes off one text or a list of it, each read with `parse`.
fn texts(
    service: &mut Fields,
    key: &'static str,
    report: &mut Report,
    parse: impl Fn(&str) -> Result<String, Expected>,
) -> Vec<String> {
    let name = service.name(key);
    let Some(node) = service.take(key) else {
        return Vec::new();
    };
    let mut texts = Vec::new();
    let items = one_or_more(node, &name, report).into_iter();
    // No domain to search is asked for so, which holds anyway.
    for item in items.filter(|item| key != "dns_search" || !item.value.is_empty()) {
        match parse(&item.value) {
            Ok(text) => texts.push(text),
            Err(expected) => {
                let message = format!(
                    "an item of {name} must be {expected}, not {:?}",
                    cut(&item.value)
                );
                report.error(&item.place, message);
            }
        }
    }
    texts
}

/// `extra_hosts`: a list of `NAME=ADDRESS` or `NAME:ADDRESS`, or a map to one address or several.
fn extra_hosts(service: &mut Fields, report: &mut Report) -> Vec<(String, String)> {
    let name = service.name("extra_hosts");
    let Some(node) = service.take("extra_hosts") else {
        return Vec::new();
    };
    let mut hosts = Vec::new();
    let mut put = |host: &str, address: &str, place: &Place, report: &mut Report| {
        let read = hostname(host).and_then(|host| Ok((host, address_or_gateway(address)?)));
        match read {
            Ok(pair) => hosts.push(pair),
            Err(expected) => {
                let message = format!(
                    "an item of {name} must be NAME=ADDRESS with {expected}, not {:?}",
                    cut(&format!("{host}={address}"))
                );
                report.error(place, message);
            }
        }
    };
    if let Value::Map(entries) = node.value {
        for entry in entries {
            for address in one_or_more(entry.value, &name, report) {
                put(&entry.key, &address.value, &address.place, report);
            }
        }
        return hosts;
    }
    for item in one_or_more(node, &name, report) {
        let (host, address) = item
            .value
            .split_once('=')
            .or_else(|| item.value.split_once(':'))
            .unwrap_or((&item.value, ""));
        put(host, address, &item.place, report);
    }
    hosts
}

fn sysctls(service: &mut Fields, report: &mut Report) -> BTreeMap<String, String> {
    let name = service.name("sysctls");
    let Some(node) = service.take("sysctls") else {
        return BTreeMap::new();
    };
    let mut settings = BTreeMap::new();
    for pair in pairs::list(node, &name, report) {
        match (sysctl(&pair.key), pair.value) {
            (Ok(key), Some(value)) => {
                settings.insert(key, value);
            }
            (Ok(key), None) => {
                report.error(&pair.place, format!("{key:?} in {name} has no value"));
            }
            (Err(expected), _) => {
                let message = format!("{:?} in {name} must be {expected}", cut(&pair.key));
                report.error(&pair.place, message);
            }
        }
    }
    settings
}

/// `pid`, `ipc` and `userns_mode`: whether the machine's own namespace is asked for.
fn namespace(service: &mut Fields, key: &'static str, report: &mut Report) -> bool {
    service
        .parsed(key, report, |text| match text {
            "host" => Ok(true),
            // Its own, which no other service joins.
            "" | "private" => Ok(false),
            "shareable" if key == "ipc" => Ok(false),
            _ => Err("host, or left out (no other namespace can be joined)".to_owned()),
        })
        .unwrap_or(false)
}

/// `cgroup` and `uts`: these namespaces are always its own. It reaches no less for that than it would with the machine's.
fn namespaces_of_its_own(service: &mut Fields, report: &mut Report) {
    let own = [
        ("cgroup", "it sees its own cgroup as the root of all"),
        ("uts", "it has a host name of its own"),
    ];
    for (key, what) in own {
        let place = service.place_of(key);
        let word = service.parsed(key, report, |text| match text {
            "host" | "private" | "" => Ok(text.to_owned()),
            _ => Err("host or private".to_owned()),
        });
        if let (Some("host"), Some(place)) = (word.as_deref(), place) {
            let message = format!("{} is ignored: {what}", service.name(key));
            report.warn(&place, message);
        }
    }
}
