//! The pod that a Deployment asks for (`v1.PodSpec`).

use std::collections::BTreeMap;

use layby_model::spec::ContainerSpec;

use crate::fields::Fields;
use crate::kubernetes::container::{self, Common, Container};
use crate::report::Report;

/// How long Kubernetes waits for a container to stop, in seconds.
const STOP_GRACE_SECONDS: u32 = 30;
/// The most containers of a pod.
const MAX_CONTAINERS: usize = 32;

/// Keys that touch data, secrets or the reach of the network.
const REFUSED: [(&str, &str); 8] = [
    ("hostAliases", "the names would not be found"),
    ("hostIPC", "a service has its own IPC namespace"),
    ("hostNetwork", "a service has its own network"),
    ("hostPID", "a service has its own process namespace"),
    (
        "imagePullSecrets",
        "images are not pulled: load or build them",
    ),
    ("initContainers", "what they prepare would be missing"),
    ("resourceClaims", "the containers would miss their devices"),
    ("volumes", "data written to them would be lost"),
];

/// Keys that change nothing here.
const ACCEPTED: [&str; 3] = ["enableServiceLinks", "preemptionPolicy", "schedulerName"];

/// Keys that are known, and not honoured in this version.
const UNSUPPORTED: [&str; 22] = [
    "activeDeadlineSeconds",
    "affinity",
    "dnsConfig",
    "ephemeralContainers",
    "hostUsers",
    "hostname",
    "nodeName",
    "nodeSelector",
    "os",
    "overhead",
    "priority",
    "priorityClassName",
    "readinessGates",
    "runtimeClassName",
    "schedulingGates",
    "serviceAccount",
    "serviceAccountName",
    "setHostnameAsFQDN",
    "shareProcessNamespace",
    "subdomain",
    "tolerations",
    "topologySpreadConstraints",
];

/// A pod's containers, and the ports that they give names.
#[derive(Debug, Default)]
pub(crate) struct Pod {
    pub(crate) containers: Vec<ContainerSpec>,
    pub(crate) named_ports: BTreeMap<String, u16>,
}

/// `runAsUser` and `runAsGroup`.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct RunAs {
    user: Option<u32>,
    group: Option<u32>,
}

impl RunAs {
    /// Takes both off a `securityContext`.
    pub(crate) fn read(context: &mut Fields, report: &mut Report) -> Self {
        Self {
            user: context.count("runAsUser", 0..=u32::MAX - 1, report),
            group: context.count("runAsGroup", 0..=u32::MAX - 1, report),
        }
    }

    /// What is not said here is as `outer` says.
    pub(crate) fn or(self, outer: Self) -> Self {
        Self {
            user: self.user.or(outer.user),
            group: self.group.or(outer.group),
        }
    }

    /// As a container's `user`.
    pub(crate) fn user(self) -> Option<String> {
        match (self.user, self.group) {
            (Some(user), Some(group)) => Some(format!("{user}:{group}")),
            (Some(user), None) => Some(user.to_string()),
            // Without a user it is the image's, which is root more often than not.
            (None, Some(group)) => Some(format!("0:{group}")),
            (None, None) => None,
        }
    }
}

/// Reads `spec` of the template of the deployment called `owner`.
pub(crate) fn read(mut pod: Fields, owner: &str, report: &mut Report) -> Pod {
    let place = pod.place.clone();
    pod.what = format!("the pod of {owner}");
    let grace_seconds = pod.count("terminationGracePeriodSeconds", 0..=86_400, report);
    let common = Common {
        run_as: security_context(&mut pod, report),
        stop_grace_ms: u64::from(grace_seconds.unwrap_or(STOP_GRACE_SECONDS)) * 1000,
    };
    let nodes = pod.list("containers", report).unwrap_or_default();
    if nodes.is_empty() {
        report.error(&place, format!("{owner} has no containers"));
    }
    if nodes.len() > MAX_CONTAINERS {
        report.error(
            &place,
            format!("{owner} has more than {MAX_CONTAINERS} containers"),
        );
    }
    let mut read = Pod::default();
    for node in nodes.into_iter().take(MAX_CONTAINERS) {
        let place = node.place.clone();
        let Some(Container { spec, named_ports }) = container::read(node, owner, common, report)
        else {
            continue;
        };
        if read.containers.iter().any(|known| known.name == spec.name) {
            report.error(
                &place,
                format!("the container {:?} of {owner} is there twice", spec.name),
            );
        }
        read.containers.push(spec);
        for (name, port) in named_ports {
            read.named_ports.entry(name).or_insert(port);
        }
    }
    pod.parsed("restartPolicy", report, |text| match text {
        "Always" => Ok(()),
        _ => Err("Always".to_owned()),
    });
    for (key, default) in [
        ("automountServiceAccountToken", "false"),
        ("dnsPolicy", "ClusterFirst"),
        ("shareProcessNamespace", "false"),
    ] {
        if let Some(entry) = pod.entry(key)
            && entry.value.scalar() != Some(default)
        {
            pod.put_back(entry);
            pod.unsupported(&[key], report);
        }
    }
    pod.refuse(&REFUSED, report);
    pod.accept(&ACCEPTED);
    pod.unsupported(&UNSUPPORTED, report);
    pod.finish(report);
    read
}

fn security_context(pod: &mut Fields, report: &mut Report) -> RunAs {
    let Some(mut context) = pod.map("securityContext", report) else {
        return RunAs::default();
    };
    let run_as = RunAs::read(&mut context, report);
    if let Some(entry) = context.entry("runAsNonRoot")
        && entry.value.scalar() != Some("false")
    {
        context.put_back(entry);
    }
    context.unsupported(
        &[
            "appArmorProfile",
            "fsGroup",
            "fsGroupChangePolicy",
            "runAsNonRoot",
            "seLinuxChangePolicy",
            "seLinuxOptions",
            "supplementalGroups",
            "supplementalGroupsPolicy",
            "sysctls",
            "windowsOptions",
        ],
        report,
    );
    container::seccomp(&mut context, report);
    context.finish(report);
    run_as
}
