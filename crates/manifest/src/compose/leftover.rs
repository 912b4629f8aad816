//! The keys of a Compose service that are known but not honoured: each is accepted, warned of or refused.

use crate::fields::{Fields, parsed};
use crate::report::Report;
use crate::tree::{Entry, Node, Value, cut};

/// Keys that touch data, secrets, the reach of the network or of the process: ignoring one would
/// make something else of the service than what was asked for.
const REFUSED: [(&str, &str); 25] = [
    ("cap_add", "the service would miss the capability"),
    ("cgroup", "a service has its own cgroup namespace"),
    ("configs", "the service would miss its files"),
    ("credential_spec", "the service would miss its credentials"),
    ("device_cgroup_rules", "the service would miss the device"),
    ("devices", "the service would miss the device"),
    ("dns", "names would be looked up elsewhere"),
    ("dns_search", "names would be looked up elsewhere"),
    (
        "env_file",
        "the service would miss its variables; write them into \"environment\"",
    ),
    ("extends", "write its keys into this service"),
    (
        "external_links",
        "services of other apps are not reached by name",
    ),
    ("extra_hosts", "the name would not be found"),
    ("gpus", "the service would miss the device"),
    ("ipc", "a service has its own IPC namespace"),
    ("models", "the service would miss the model"),
    ("network_mode", "all apps of a node share one network"),
    ("networks", "all apps of a node share one network"),
    ("pid", "a service has its own process namespace"),
    ("privileged", "a service is never privileged"),
    ("provider", "nothing would provide it"),
    ("secrets", "the service would miss its files"),
    ("use_api_socket", "there is no Docker socket"),
    (
        "userns_mode",
        "a service runs in the user namespace of its node",
    ),
    ("uts", "a service has its own host name"),
    ("volumes_from", "data written there would be lost"),
];

/// Keys that change nothing here.
const ACCEPTED: [&str; 5] = ["annotations", "attach", "develop", "label_file", "labels"];

/// Keys that are known, and not honoured in this version.
const UNSUPPORTED: [&str; 40] = [
    "blkio_config",
    "cap_drop",
    "cgroup_parent",
    "cpu_count",
    "cpu_percent",
    "cpu_period",
    "cpu_quota",
    "cpu_rt_period",
    "cpu_rt_runtime",
    "cpu_shares",
    "cpuset",
    "dns_opt",
    "domainname",
    "group_add",
    "hostname",
    "init",
    "isolation",
    "logging",
    "mac_address",
    "mem_swappiness",
    "memswap_limit",
    "oom_kill_disable",
    "oom_score_adj",
    "platform",
    "post_start",
    "pre_start",
    "pre_stop",
    "pull_policy",
    "pull_refresh_after",
    "read_only",
    "runtime",
    "security_opt",
    "shm_size",
    "stdin_open",
    "storage_opt",
    "sysctls",
    "tmpfs",
    "tty",
    "ulimits",
    "volume_driver",
];

/// Takes off what is not honoured, and says what comes of it.
pub(crate) fn read(service: &mut Fields, report: &mut Report) {
    let what = service.what.clone();
    if let Some(entry) = service.entry("container_name") {
        let message =
            format!("\"container_name\" in {what} is ignored: a replica has a name of its own");
        report.warn(&entry.place, message);
    }
    if let Some(entry) = service.entry("depends_on") {
        let message = format!(
            "\"depends_on\" in {what} is ignored: all services start at once, and must wait for each other themselves"
        );
        report.warn(&entry.place, message);
    }
    if let Some(entry) = service.entry("links") {
        links(entry, &what, report);
    }
    restart(service, report);
    if let Some(entry) = service.entry("networks")
        && !is_default_network(&entry.value)
    {
        service.put_back(entry);
    }
    volumes(service, report);
    service.refuse(&REFUSED, report);
    service.accept(&ACCEPTED);
    service.accept_extensions();
    for key in ["init", "read_only", "stdin_open", "tty", "oom_kill_disable"] {
        if let Some(entry) = service.entry(key)
            && entry.value.scalar() != Some("false")
        {
            service.put_back(entry);
        }
    }
    service.unsupported(&UNSUPPORTED, report);
}

fn restart(service: &mut Fields, report: &mut Report) {
    let Some(entry) = service.entry("restart") else {
        return;
    };
    let name = service.name("restart");
    let never = parsed(&entry.value, &name, report, |text| match text {
        "no" | "false" => Ok(true),
        "always" | "unless-stopped" | "on-failure" => Ok(false),
        text if text.starts_with("on-failure:") => Ok(false),
        _ => Err("no, always, on-failure or unless-stopped".to_owned()),
    });
    if never == Some(true) {
        report.warn(
            &entry.place,
            format!("{name} is \"no\", but a service that ends is started again"),
        );
    }
}

/// A link that gives another name is an error; one that does not is a warning, as Compose files name services without
/// links, too.
fn links(entry: Entry, what: &str, report: &mut Report) {
    let items = match &entry.value.value {
        Value::List(items) => items.as_slice(),
        _ => std::slice::from_ref(&entry.value),
    };
    let renamed = |item: &Node| match item.scalar().and_then(|text| text.split_once(':')) {
        Some((service, alias)) => service != alias,
        None => false,
    };
    match items.iter().find(|item| renamed(item)) {
        Some(item) => report.error(
            &item.place,
            format!("\"links\" in {what} is not supported yet: services do not reach each other by name"),
        ),
        None => report.warn(
            &entry.place,
            format!("\"links\" in {what} is ignored: services do not reach each other by name yet, only by address"),
        ),
    }
}

/// Each volume is an error of its own, with the path whose data would be lost.
fn volumes(service: &mut Fields, report: &mut Report) {
    let what = service.what.clone();
    for item in service.list("volumes", report).unwrap_or_default() {
        let target = match &item.value {
            Value::Map(_) => item.get("target").and_then(Node::scalar).map(str::to_owned),
            _ => item.scalar().map(|text| {
                let mut parts = text.split(':');
                let source = parts.next().unwrap_or_default();
                parts.next().unwrap_or(source).to_owned()
            }),
        };
        let target = target.unwrap_or_else(|| "them".to_owned());
        report.error(
            &item.place,
            format!(
                "volumes are not supported yet: data written to {} in {what} would be lost",
                cut(&target)
            ),
        );
    }
}

/// Whether `networks` names nothing but the one network that there is.
pub(crate) fn is_default_network(node: &Node) -> bool {
    match &node.value {
        Value::List(items) => items.iter().all(|item| item.scalar() == Some("default")),
        Value::Map(entries) => entries
            .iter()
            .all(|entry| entry.key == "default" && entry.value.value == Value::Null),
        Value::Null => true,
        Value::Scalar { .. } => false,
    }
}
