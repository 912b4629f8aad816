//! One service of a Compose file.

use std::collections::BTreeMap;

use layby_model::spec::{ContainerSpec, ServiceSpec, SleepPolicy};

use crate::compose::deploy::Deploy;
use crate::compose::{build, deploy, healthcheck, pairs, ports, shell};
use crate::draft::{DRAIN_MS, Draft, PROGRESS_DEADLINE_MS, service_name};
use crate::fields::{Fields, parsed, texts};
use crate::report::Report;
use crate::tree::{Entry, Node, Value, cut};
use crate::units::{duration_ms, sleep_after_ms};

/// How long Docker waits for a container to stop, in milliseconds.
const STOP_GRACE_MS: u64 = 10_000;

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
    ("network_mode", "all services of an app share one network"),
    ("networks", "all services of an app share one network"),
    ("pid", "a service has its own process namespace"),
    ("privileged", "a service is never privileged"),
    ("provider", "nothing would provide it"),
    ("secrets", "the service would miss its files"),
    ("use_api_socket", "there is no Docker socket"),
    ("userns_mode", "a service has its own user namespace"),
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

/// Reads a service. `None` if it has no usable name, or is left out.
pub(crate) fn read(
    entry: Entry,
    variables: &BTreeMap<String, String>,
    report: &mut Report,
) -> Option<Draft> {
    let what = format!("service {:?}", cut(&entry.key));
    let place = entry.place;
    let name = service_name(&entry.key, &place, report);
    let mut service = Fields::open(entry.value, what, report)?;
    if !service
        .list("profiles", report)
        .unwrap_or_default()
        .is_empty()
    {
        let message = format!(
            "{} is left out: \"profiles\" cannot be switched on yet",
            service.what
        );
        report.warn(&place, message);
        return None;
    }

    let has_image = service.has("image");
    let image = service.text("image", report).unwrap_or_default();
    let build = service
        .take("build")
        .map(|node| build::read(node, &service.what, variables, report));
    if build.is_none() && !has_image {
        report.error(
            &place,
            format!("{} has neither \"image\" nor \"build\"", service.what),
        );
    }
    let entrypoint = command(&mut service, "entrypoint", report);
    let command = command(&mut service, "command", report);
    let environment_name = service.name("environment");
    let env = service
        .take("environment")
        .map(|node| pairs::read(node, &environment_name, variables, report))
        .unwrap_or_default();
    let published = ports::published(&mut service, report);
    let exposed = ports::exposed(&mut service, report);
    let healthcheck = healthcheck::read(&mut service, report);
    let Deploy {
        replicas,
        resources,
        strategy,
    } = deploy::read(&mut service, report);
    let stop_grace_ms = service.parsed("stop_grace_period", report, duration_ms);
    let layby = layby(&mut service, report);
    let container = ContainerSpec {
        name: entry.key,
        image,
        build: build.flatten(),
        entrypoint,
        command,
        env,
        working_dir: service.text("working_dir", report),
        user: service.text("user", report),
        resources,
        ports: unique(
            published
                .iter()
                .map(|port| port.value.target)
                .chain(exposed),
        ),
        readiness: healthcheck.readiness,
        liveness: None,
        startup: None,
        no_healthcheck: healthcheck.disabled,
        stop_signal: service.text("stop_signal", report),
        stop_grace_ms: stop_grace_ms.unwrap_or(STOP_GRACE_MS),
    };
    not_honoured(&mut service, report);
    service.finish(report);

    let port = layby.port.or_else(|| container.ports.first().copied());
    let (published, published_at) = published
        .into_iter()
        .map(|port| (port.value, port.place))
        .unzip();
    Some(Draft {
        spec: ServiceSpec {
            name: name?,
            containers: vec![container],
            replicas,
            port,
            aliases: Vec::new(),
            published,
            sleep: layby.sleep,
            strategy,
            progress_deadline_ms: PROGRESS_DEADLINE_MS,
            drain_ms: DRAIN_MS,
        },
        place,
        published_at,
        aliases_at: Vec::new(),
    })
}

/// `command` or `entrypoint`: a list of words, or a line that is split into them.
fn command(service: &mut Fields, key: &'static str, report: &mut Report) -> Option<Vec<String>> {
    let node = service.take(key)?;
    let name = service.name(key);
    if let Value::List(items) = &node.value {
        return Some(texts(items, &name, report));
    }
    let split = parsed(&node, &name, report, |line| {
        shell::split(line).map_err(|problem| format!("a command line or a list ({problem})"))
    })?;
    if let Some(operator) = split.operator {
        let message = format!(
            "{name} is not read by a shell: {operator:?} is handed to the program as a word; write [\"sh\", \"-c\", \"...\"] if a shell is meant"
        );
        report.warn(&node.place, message);
    }
    Some(split.words)
}

/// Layby's own settings.
struct Layby {
    port: Option<u16>,
    sleep: SleepPolicy,
}

fn layby(service: &mut Fields, report: &mut Report) -> Layby {
    let mut settings = Layby {
        port: None,
        sleep: SleepPolicy::default(),
    };
    let Some(mut fields) = service.map("x-layby", report) else {
        return settings;
    };
    settings.port = fields.port("port", report);
    if let Some(mut sleep) = fields.map("sleep", report) {
        if let Some(after) = sleep.parsed("doze_after", report, sleep_after_ms) {
            settings.sleep.doze_after_ms = after;
        }
        if let Some(after) = sleep.parsed("sleep_after", report, sleep_after_ms) {
            settings.sleep.sleep_after_ms = after;
        }
        sleep.finish(report);
    }
    fields.finish(report);
    settings
}

/// Takes off what is not honoured, and says what comes of it.
fn not_honoured(service: &mut Fields, report: &mut Report) {
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

/// A link that only says what is so anyway is a warning; one that gives another name is not.
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
            format!("\"links\" in {what} is not supported yet: a service is reached by its own name only"),
        ),
        None => report.warn(
            &entry.place,
            format!("\"links\" in {what} is ignored: services of an app reach each other by name anyway"),
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

/// Ports, each once, in order.
fn unique(ports: impl Iterator<Item = u16>) -> Vec<u16> {
    let mut all = Vec::new();
    for port in ports {
        if !all.contains(&port) {
            all.push(port);
        }
    }
    all
}
