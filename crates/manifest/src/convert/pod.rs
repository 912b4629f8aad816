//! The pod of a service (`v1.PodSpec`).

use layby_model::options::NetworkMode;
use layby_model::spec::ContainerSpec;

use crate::convert::tree::{Map, maps, text, texts};
use crate::convert::volume::Volumes;
use crate::convert::workload::Kind;
use crate::convert::{App, Gathered, container, security};
use crate::draft::Draft;
use crate::host::GATEWAY;
use crate::report::Report;

/// Writes it. What it mounts and needs of files goes to `all`.
pub(super) fn spec(
    app: &App<'_>,
    draft: &Draft,
    kind: Kind,
    all: &mut Gathered,
    report: &mut Report,
) -> Map {
    let mut volumes = Volumes::default();
    let sandbox = &draft.spec.sandbox;
    let containers: Vec<Map> = draft
        .spec
        .containers
        .iter()
        .map(|one| container::write(app, draft, one, &mut volumes, all, report))
        .collect();
    let first = draft.spec.containers.first();
    let said_grace = app.said.of(draft, "stop_grace_period").and(first);
    let grace = said_grace.map(|one| one.stop_grace_ms.div_ceil(1_000));
    let pod = Map::new()
        // A Compose service knows neither of an API nor of variables that lead to others.
        .plain("automountServiceAccountToken", false)
        .plain("enableServiceLinks", false)
        .some_text("restartPolicy", (!kind.goes_on()).then_some("Never"))
        .some_plain("terminationGracePeriodSeconds", grace)
        .some_text("hostname", hostname(app, draft, report))
        .flag("hostNetwork", sandbox.network == NetworkMode::Host)
        .flag("hostPID", sandbox.host_pid)
        .flag("hostIPC", sandbox.host_ipc)
        .flag("hostUsers", sandbox.host_users)
        .flag("shareProcessNamespace", sandbox.share_pid)
        .put("hostAliases", host_aliases(app, draft, report));
    dns(app, draft, pod, report)
        .put("nodeSelector", node_selector(first))
        .put("securityContext", security::pod(app, draft, report))
        .put("containers", maps(containers))
        .put("volumes", maps(volumes.written()))
}

/// A pod's is a label; Docker's may have more in it.
fn hostname(app: &App<'_>, draft: &Draft, report: &mut Report) -> Option<String> {
    let name = draft.spec.sandbox.hostname.clone()?;
    if layby_model::names::is_dns_label(&name) {
        return Some(name);
    }
    let why = "is lost: that of a pod is a DNS label in lower case";
    app.said.lost(draft, &["hostname"], why, report);
    None
}

/// `hostAliases`: one item for each address.
fn host_aliases(app: &App<'_>, draft: &Draft, report: &mut Report) -> crate::tree::Node {
    let mut addresses: Vec<(&str, Vec<&str>)> = Vec::new();
    for (name, address) in &draft.spec.sandbox.extra_hosts {
        if address == GATEWAY {
            let why = format!(
                "loses {name:?}: a pod has no name for the machine that it runs on (`status.hostIP` is its address)"
            );
            app.said.lost(draft, &["extra_hosts"], &why, report);
            continue;
        }
        match addresses.iter_mut().find(|(known, _)| known == address) {
            Some((_, names)) => names.push(name),
            None => addresses.push((address, vec![name])),
        }
    }
    maps(addresses.into_iter().map(|(address, names)| {
        Map::new()
            .text("ip", address)
            .put("hostnames", texts(names))
    }))
}

fn dns(app: &App<'_>, draft: &Draft, pod: Map, report: &mut Report) -> Map {
    let sandbox = &draft.spec.sandbox;
    let options = sandbox
        .dns_options
        .iter()
        .map(|option| match option.split_once(':') {
            Some((name, value)) => Map::new().text("name", name).text("value", value),
            None => Map::new().text("name", option),
        });
    let config = Map::new()
        .put("nameservers", texts(sandbox.dns.clone()))
        .put("searches", texts(sandbox.dns_search.clone()))
        .put("options", maps(options));
    let has_own = !sandbox.dns.is_empty();
    // Those of the cluster alone know the names of other services.
    let is_alone = app.services.len() == 1;
    if has_own && !is_alone {
        let why = "is asked only where the cluster's name servers give no answer at all, since those alone know the other services";
        app.said.lost(draft, &["dns"], why, report);
    }
    let policy = (has_own && is_alone).then_some("None");
    pod.some_text("dnsPolicy", policy).put("dnsConfig", config)
}

/// On which machines it can run.
fn node_selector(container: Option<&ContainerSpec>) -> Map {
    let platform = container.and_then(|one| one.platform.as_deref());
    let machine = platform.and_then(|platform| platform.split('/').nth(1));
    match machine {
        Some(machine) => Map::new().put("kubernetes.io/arch", text(machine)),
        None => Map::new(),
    }
}
