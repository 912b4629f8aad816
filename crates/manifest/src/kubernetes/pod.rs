//! The pod that a Deployment asks for (`v1.PodSpec`).

use std::collections::BTreeMap;

use layby_model::options::SandboxOptions;
use layby_model::spec::ContainerSpec;

use crate::capability::{self, Added};
use crate::draft::Placed;
use crate::fields::Fields;
use crate::kubernetes::container::{self, Common, Container};
use crate::kubernetes::env::Known;
use crate::kubernetes::volume::{self, VolumeMount};
use crate::kubernetes::{sandbox, security};
use crate::power::Limited;
use crate::report::Report;

/// How long Kubernetes waits for a container to stop, in seconds.
const STOP_GRACE_SECONDS: u32 = 30;
/// The most containers of a pod.
const MAX_CONTAINERS: usize = 32;

/// Keys that touch data, secrets or the reach of the network.
const REFUSED: [(&str, &str); 3] = [
    ("hostNetwork", "a service has a network of its own"),
    ("initContainers", "what they prepare would be missing"),
    ("resourceClaims", "the containers would miss their devices"),
];

/// Keys that change nothing here.
const ACCEPTED: [&str; 3] = ["enableServiceLinks", "preemptionPolicy", "schedulerName"];

/// Keys that are known, and not honoured in this version.
const UNSUPPORTED: [&str; 21] = [
    "activeDeadlineSeconds",
    "affinity",
    "ephemeralContainers",
    "hostnameOverride",
    "imagePullSecrets",
    "nodeName",
    "nodeSelector",
    "os",
    "overhead",
    "priority",
    "priorityClassName",
    "readinessGates",
    "resources",
    "runtimeClassName",
    "schedulingGates",
    "serviceAccount",
    "serviceAccountName",
    "setHostnameAsFQDN",
    "subdomain",
    "tolerations",
    "topologySpreadConstraints",
];

/// A pod's containers, and the ports that they give names.
#[derive(Debug, Default)]
pub(crate) struct Pod {
    pub(crate) containers: Vec<ContainerSpec>,
    /// Where the limits of the first one stand.
    pub(crate) limited: Option<Limited>,
    pub(crate) named_ports: BTreeMap<String, u16>,
    pub(crate) sandbox: SandboxOptions,
    /// The PersistentVolumeClaims that its volumes name.
    pub(crate) claims: Vec<Placed<String>>,
}

/// What is done when a container of a pod ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Restarts {
    /// It is started again: a Deployment's.
    Always,
    /// A further attempt is made, if at all: a Job's.
    AtItsEnd,
}

/// Reads `spec` of the template of the deployment or job called `owner`.
pub(crate) fn read(
    mut pod: Fields,
    owner: &str,
    known: Known<'_>,
    restarts: Restarts,
    report: &mut Report,
) -> Pod {
    let place = pod.place.clone();
    pod.what = format!("the pod of {owner}");
    let grace_seconds = pod.count("terminationGracePeriodSeconds", 0..=86_400, report);
    let common = Common {
        security: security::pod(&mut pod, report),
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
    let volumes = volume::volumes(&mut pod, known, report);
    let mut read = Pod::default();
    let mut mounts: Vec<Vec<VolumeMount>> = Vec::new();
    let mut capabilities: Vec<Option<Added>> = Vec::new();
    for node in nodes.into_iter().take(MAX_CONTAINERS) {
        let place = node.place.clone();
        let Some(container) = container::read(node, owner, &common, known, report) else {
            continue;
        };
        let Container {
            spec,
            named_ports,
            mounts: own,
            capabilities: of_this,
            limited,
        } = container;
        if read.containers.is_empty() {
            read.limited = limited;
        }
        if read.containers.iter().any(|known| known.name == spec.name) {
            report.error(
                &place,
                format!("the container {:?} of {owner} is there twice", spec.name),
            );
        }
        read.containers.push(spec);
        mounts.push(own);
        capabilities.push(of_this);
        for (name, port) in named_ports {
            read.named_ports.entry(name).or_insert(port);
        }
    }
    volume::check_parts(mounts.iter().flatten(), &volumes, report);
    let memory_bytes = memory_limit_bytes(&read.containers);
    for (container, mounts) in read.containers.iter_mut().zip(mounts) {
        let what = format!("container {:?} of {owner}", container.name);
        container.mounts = volume::resolve(mounts, &volumes, memory_bytes, &what, report);
    }
    read.claims = volume::claims(volumes);
    read.sandbox = sandbox::read(&mut pod, common.security.sysctls, report);
    for (container, added) in read.containers.iter().zip(&capabilities) {
        if let Some(added) = added {
            capability::warn_in_vain(container, added, &read.containers, &read.sandbox, report);
        }
    }
    pod.parsed("restartPolicy", report, |text| match (restarts, text) {
        (Restarts::Always, "Always") | (Restarts::AtItsEnd, "OnFailure" | "Never") => Ok(()),
        // Kubernetes refuses them here, too.
        (Restarts::Always, "OnFailure" | "Never") => {
            Err("Always (a Deployment's pods are always started again)".to_owned())
        }
        (Restarts::Always, _) => Err("Always".to_owned()),
        (Restarts::AtItsEnd, _) => Err("Never or OnFailure".to_owned()),
    });
    for (key, usual) in [
        ("automountServiceAccountToken", "false"),
        ("hostNetwork", "false"),
    ] {
        if let Some(entry) = pod.entry(key)
            && entry.value.scalar() != Some(usual)
        {
            pod.put_back(entry);
        }
    }
    pod.unsupported(&["automountServiceAccountToken"], report);
    pod.refuse(&REFUSED, report);
    pod.accept(&ACCEPTED);
    pod.unsupported(&UNSUPPORTED, report);
    pod.finish(report);
    read
}

/// The memory that all containers may take together, if each has a limit.
fn memory_limit_bytes(containers: &[ContainerSpec]) -> Option<u64> {
    containers
        .iter()
        .map(|container| container.resources.memory_limit_bytes)
        .sum()
}
