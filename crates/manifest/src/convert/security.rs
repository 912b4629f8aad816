//! `securityContext`, of the pod (`v1.PodSecurityContext`) and of its container (`v1.SecurityContext`).

use layby_model::spec::ContainerSpec;

use crate::convert::tree::{Map, maps, plain, texts};
use crate::convert::{App, volume};
use crate::draft::Draft;
use crate::report::Report;
use crate::tree::{Node, cut};

/// The kernel settings that every cluster lets pods have (Kubernetes, "Using sysctls in a Kubernetes Cluster").
const SAFE_SYSCTLS: [&str; 12] = [
    "kernel.shm_rmid_forced",
    "net.ipv4.ip_local_port_range",
    "net.ipv4.ip_local_reserved_ports",
    "net.ipv4.ip_unprivileged_port_start",
    "net.ipv4.ping_group_range",
    "net.ipv4.tcp_fin_timeout",
    "net.ipv4.tcp_keepalive_intvl",
    "net.ipv4.tcp_keepalive_probes",
    "net.ipv4.tcp_keepalive_time",
    "net.ipv4.tcp_rmem",
    "net.ipv4.tcp_syncookies",
    "net.ipv4.tcp_wmem",
];

/// The pod's: who its processes are, and the filter of system calls that Compose's containers have, too.
pub(super) fn pod(app: &App<'_>, draft: &Draft, report: &mut Report) -> Map {
    let Some(container) = draft.spec.containers.first() else {
        return Map::new();
    };
    let options = &container.options;
    let (user, group) = ids(app, draft, container, report);
    let groups: Vec<Node> = options
        .group_add
        .iter()
        .filter_map(|name| match name.parse::<u32>() {
            Ok(id) => Some(plain(id)),
            Err(_) => {
                let why = format!("loses {:?}: only numbers of groups can be said", cut(name));
                app.said.lost(draft, &["group_add"], &why, report);
                None
            }
        })
        .collect();
    // A volume of a cluster belongs to root, whoever is to write to it.
    let owner = group.or(user).filter(|id| *id > 0);
    let owner = owner.filter(|_| volume::writes_to_claims(&draft.spec));
    let filter = match options.seccomp.as_deref() {
        Some(_) => "Unconfined",
        None => "RuntimeDefault",
    };
    Map::new()
        .some_plain("runAsUser", user)
        .some_plain("runAsGroup", group)
        .some_plain("fsGroup", owner)
        .put("supplementalGroups", groups)
        .put("seccompProfile", Map::new().text("type", filter))
        .put("sysctls", sysctls(app, draft, report))
}

/// `user` by its numbers.
fn ids(
    app: &App<'_>,
    draft: &Draft,
    container: &ContainerSpec,
    report: &mut Report,
) -> (Option<u32>, Option<u32>) {
    let Some(said) = container.user.as_deref().filter(|user| !user.is_empty()) else {
        return (None, None);
    };
    let (user, group) = match said.split_once(':') {
        Some((user, group)) => (user, Some(group)),
        None => (said, None),
    };
    let ids = (
        user.parse::<u32>().ok(),
        group.and_then(|group| group.parse::<u32>().ok()),
    );
    if ids.0.is_none() || (group.is_some() && ids.1.is_none()) {
        let why = "is lost as far as it is a name: only the number of a user or group can be said";
        app.said.lost(draft, &["user"], why, report);
    }
    // A group alone would be that of root.
    (ids.0, ids.1.filter(|_| ids.0.is_some()))
}

fn sysctls(app: &App<'_>, draft: &Draft, report: &mut Report) -> Node {
    let mut settings = Vec::new();
    for (name, value) in &draft.spec.sandbox.sysctls {
        if !SAFE_SYSCTLS.contains(&name.as_str()) {
            let why = format!(
                "has {name:?}, which a cluster lets pods have only where its kubelets are told so"
            );
            app.said.lost(draft, &["sysctls"], &why, report);
        }
        settings.push(Map::new().text("name", name).text("value", value));
    }
    maps(settings)
}

/// The container's: how it is fenced in.
pub(super) fn container(
    app: &App<'_>,
    draft: &Draft,
    container: &ContainerSpec,
    report: &mut Report,
) -> Map {
    let options = &container.options;
    let capabilities = Map::new()
        .put("add", texts(options.cap_add.clone()))
        .put("drop", texts(options.cap_drop.clone()));
    let is_strong = options.privileged || options.cap_add.iter().any(|name| name == "SYS_ADMIN");
    let escalation = match options.no_new_privileges {
        // A cluster refuses both together.
        Some(true) if is_strong => {
            let why =
                "is lost where it says no-new-privileges: a privileged container cannot have that";
            app.said.lost(draft, &["security_opt"], why, report);
            None
        }
        said => said.map(|no_new| !no_new),
    };
    Map::new()
        .some_plain("allowPrivilegeEscalation", escalation)
        .flag("privileged", options.privileged)
        .flag("readOnlyRootFilesystem", options.read_only)
        .put("capabilities", capabilities)
}
