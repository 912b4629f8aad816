//! What of a service Kubernetes has no word for, and is told wherever it is said.

use layby_model::names::is_dns_label;
use layby_model::network::SHARED;
use layby_model::options::NetworkMode;
use layby_model::spec::{RestartPolicy, ServiceSpec, SleepPolicy};

use crate::convert::App;
use crate::convert::said::shown;
use crate::convert::workload::{self, Kind};
use crate::draft::Draft;
use crate::report::Report;
use crate::tree::{Value, cut};

/// Tells it.
pub(super) fn tell(app: &App<'_>, draft: &Draft, report: &mut Report) {
    container(app, draft, report);
    needs(app, draft, report);
    restart(app, draft, report);
    names(draft, report);
    network(app, draft, report);
    sleep(app, draft, report);
}

/// What of a container is of one machine.
fn container(app: &App<'_>, draft: &Draft, report: &mut Report) {
    let Some(container) = draft.spec.containers.first() else {
        return;
    };
    let options = &container.options;
    let is_empty = |words: &Option<Vec<String>>| words.as_ref().is_some_and(Vec::is_empty);
    // With a command, that takes the place of the image's ENTRYPOINT.
    let empties = is_empty(&container.entrypoint)
        && (container.command.is_none() || is_empty(&container.command));
    let is_bare = container.entrypoint.is_none() && is_empty(&container.command);
    let all: [(bool, &[&str], &str); 12] = [
        (
            container.resources.pids_limit.is_some(),
            &["deploy.resources.limits.pids", "pids_limit"],
            "is lost: the kubelet has one limit of processes for all pods (`podPidsLimit`)",
        ),
        (
            !options.ulimits.is_empty(),
            &["ulimits"],
            "is lost: pods have the limits of the cluster's container runtime",
        ),
        (
            options.init,
            &["init"],
            "is lost: put a small init such as tini into the image, if the program leaves children behind",
        ),
        (
            !options.devices.is_empty(),
            &["devices"],
            "is lost: a plugin of the cluster gives devices out, or a privileged pod has all",
        ),
        (
            options.oom_score_adj.is_some(),
            &["oom_score_adj"],
            "is lost: it follows from requests and limits",
        ),
        (
            options.cpuset.is_some(),
            &["cpuset"],
            "is lost: the kubelet gives out CPUs (`cpuManagerPolicy`)",
        ),
        (
            options.cpu_shares.is_some(),
            &["cpu_shares"],
            "is lost: the share follows from the CPU that is asked for (\"deploy.resources.reservations.cpus\")",
        ),
        (
            container.stop_signal.is_some(),
            &["stop_signal"],
            "is lost: say STOPSIGNAL in the image, or a \"pre_stop\" hook",
        ),
        (
            container.no_healthcheck && app.said.of(draft, "healthcheck").is_some(),
            &["healthcheck"],
            "is not needed: Kubernetes asks no HEALTHCHECK of images",
        ),
        (
            empties,
            &["entrypoint"],
            "is lost: a pod cannot do without the ENTRYPOINT of its image, unless it says the \"command\", too",
        ),
        (
            is_bare,
            &["command"],
            "is lost: a pod cannot do without the CMD of its image, unless it says the \"entrypoint\", too",
        ),
        (
            deep_build(app, draft),
            &["build"],
            "loses all but its folder: `layby build` or another builder makes the image, with all that it says",
        ),
    ];
    for (is_said, paths, why) in all {
        if is_said {
            app.said.lost(draft, paths, why, report);
        }
    }
}

/// Whether a build says more than which folder it is of.
fn deep_build(app: &App<'_>, draft: &Draft) -> bool {
    match app.said.of(draft, "build").map(|node| &node.value) {
        Some(Value::Map(entries)) => entries.iter().any(|entry| entry.key != "context"),
        Some(Value::Null | Value::Scalar { .. } | Value::List(_)) | None => false,
    }
}

/// All start at once: who needs another is to try again.
fn needs(app: &App<'_>, draft: &Draft, report: &mut Report) {
    let needs = &draft.spec.depends_on;
    if needs.is_empty() {
        return;
    }
    let names: Vec<&str> = needs.iter().map(|need| need.service.as_str()).collect();
    let why = format!(
        "is lost: all start at once; let it try again until it finds {}, or give it an init container that waits",
        names.join(", ")
    );
    app.said.lost(draft, &["depends_on", "links"], &why, report);
}

fn restart(app: &App<'_>, draft: &Draft, report: &mut Report) {
    let at = ["deploy.restart_policy", "restart"];
    let why = match (workload::kind(app, draft), draft.spec.restart) {
        (
            Kind::Deployment | Kind::DaemonSet,
            RestartPolicy::Never | RestartPolicy::OnFailure { .. },
        ) => "is lost: the pods of what goes on are always started again",
        (Kind::Job, _) if draft.spec.job.is_some() => return,
        (Kind::Job, _) => {
            "makes it a Job: it runs once, and to run it again it has to be deleted and applied anew"
        }
        (Kind::Deployment | Kind::DaemonSet, RestartPolicy::Always) | (Kind::CronJob, _) => return,
    };
    if app.completes(&draft.spec) && app.said.of(draft, "restart").is_none() {
        let message = format!(
            "{} becomes a Job, since another one waits until it is done: to run it again it has to be deleted and applied anew",
            shown(draft)
        );
        report.warn(&draft.place, message);
    } else {
        app.said.lost(draft, &at, why, report);
    }
}

/// A Service is called by a label.
fn names(draft: &Draft, report: &mut Report) {
    let spec: &ServiceSpec = &draft.spec;
    for name in &spec.names {
        let why = match is_dns_label(name) {
            true => {
                "several services have it, and each Service that is written selects the pods of one"
            }
            false => "a Service is called by a DNS label",
        };
        let message = format!(
            "the name {:?} of {} is lost: {why}; others find it as {:?}",
            cut(name),
            shown(draft),
            spec.name.as_str()
        );
        report.warn(&draft.place, message);
    }
}

/// Whose network it is in, and what it is called in one of them.
fn network(app: &App<'_>, draft: &Draft, report: &mut Report) {
    let spec: &ServiceSpec = &draft.spec;
    let why = match spec.sandbox.network {
        NetworkMode::Own => None,
        NetworkMode::None => Some(
            "becomes a NetworkPolicy: the pod has a network, where nothing reaches it and it reaches nothing if the cluster heeds policies",
        ),
        NetworkMode::Host => Some(
            "becomes `hostNetwork: true`, where the cluster allows it: no NetworkPolicy holds for it",
        ),
    };
    if let Some(why) = why {
        app.said.lost(draft, &["network_mode"], why, report);
    }
    for name in spec.networks.shared() {
        let message = format!(
            "{} is in the network {:?} of other apps: that is lost, it is a network of this app alone; let others in by a NetworkPolicy with a \"namespaceSelector\", they go by names such as `web.blog`",
            shown(draft),
            cut(name.trim_start_matches(SHARED))
        );
        report.warn(&draft.place, message);
    }
    for (network, names) in &spec.network_names {
        let message = format!(
            "{} of {} in the network {:?} is lost: the name of a Service is for all networks",
            names.join(", "),
            shown(draft),
            cut(network.trim_start_matches(SHARED))
        );
        report.warn(&draft.place, message);
    }
}

/// What rests is Layby's alone.
fn sleep(app: &App<'_>, draft: &Draft, report: &mut Report) {
    let never = SleepPolicy {
        doze_after_ms: None,
        sleep_after_ms: None,
    };
    let is_said = app.said.of(draft, "x-layby.sleep").is_some();
    if is_said && draft.spec.sleep != never {
        let why = "is kept as annotations, for Layby: in a cluster it does not sleep";
        app.said.lost(draft, &["x-layby.sleep"], why, report);
    }
}
