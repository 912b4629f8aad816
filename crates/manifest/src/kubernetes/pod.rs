//! The pod that a Deployment or another workload asks for (`v1.PodSpec`).

use std::collections::BTreeMap;

use layby_model::options::{NetworkMode, SandboxOptions};
use layby_model::spec::{ContainerSpec, PublishedPort, Resources, RestartPolicy};

use crate::capability::{self, Added};
use crate::draft::Placed;
use crate::fields::Fields;
use crate::host::hostname;
use crate::kubernetes::container::{self, Common, Container, Role};
use crate::kubernetes::env::{Known, KnownToVolumes};
use crate::kubernetes::volume::{self, Volume, VolumeMount};
use crate::kubernetes::{resources, sandbox, security};
use crate::power::Limited;
use crate::report::Report;
use crate::tree::Node;

/// How long Kubernetes waits for a container to stop, in seconds.
const STOP_GRACE_SECONDS: u32 = 30;
/// The most containers of a pod.
const MAX_CONTAINERS: usize = 32;

/// Keys that touch devices.
const REFUSED: [(&str, &str); 1] = [("resourceClaims", "the containers would miss their devices")];

/// Keys that change nothing here: there is one machine, and one who puts pods on it.
const ACCEPTED: [&str; 6] = [
    "enableServiceLinks",
    "nodeName",
    "preemptionPolicy",
    "priority",
    "schedulerName",
    "tolerations",
];

/// Fields that have no meaning here.
const IGNORED: [(&str, &str); 4] = [
    ("affinity", "there is one machine"),
    ("nodeSelector", "there is one machine"),
    ("runtimeClassName", "the node runs containers itself"),
    ("topologySpreadConstraints", "there is one machine"),
];

/// Keys that are known, and not honoured in this version.
const UNSUPPORTED: [&str; 12] = [
    "activeDeadlineSeconds",
    "ephemeralContainers",
    "evictionResponders",
    "hostnameOverride",
    "os",
    "overhead",
    "priorityClassName",
    "readinessGates",
    "resources",
    "schedulingGates",
    "schedulingGroup",
    "setHostnameAsFQDN",
];

/// A pod's containers, and the ports that they give names.
#[derive(Debug, Default)]
pub(crate) struct Pod {
    /// Those that stay though they run before the others come last.
    pub(crate) containers: Vec<ContainerSpec>,
    /// Those that run before them, to their end.
    pub(crate) init: Vec<ContainerSpec>,
    /// What is done when one of them ends.
    pub(crate) restart: RestartPolicy,
    /// Where the limits of the first one stand.
    pub(crate) limited: Option<Limited>,
    pub(crate) named_ports: BTreeMap<String, u16>,
    /// UDP ports that its containers say they listen on.
    pub(crate) udp: Vec<u16>,
    /// Ports of the machine that lead to those of its containers, each once.
    pub(crate) published: Vec<Placed<PublishedPort>>,
    pub(crate) sandbox: SandboxOptions,
    /// The PersistentVolumeClaims that its volumes name.
    pub(crate) claims: Vec<Placed<String>>,
    /// The domain that its host name is looked up below.
    pub(crate) subdomain: Option<String>,
}

/// What is done when a container of a pod ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Restarts {
    /// It is started again: a Deployment's.
    Always,
    /// A further attempt is made, if at all: a Job's.
    AtItsEnd,
    /// As its pod says: one that is its own.
    AsSaid,
}

/// Reads `spec` of the template of the workload called `owner`. `templates`: the volumes that each of its pods gets one of.
pub(crate) fn read(
    mut pod: Fields,
    owner: &str,
    known: Known<'_>,
    restarts: Restarts,
    templates: &[Placed<String>],
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
    let before = pod.list("initContainers", report).unwrap_or_default();
    if nodes.is_empty() {
        report.error(&place, format!("{owner} has no containers"));
    }
    if nodes.len() + before.len() > MAX_CONTAINERS {
        report.error(
            &place,
            format!("{owner} has more than {MAX_CONTAINERS} containers"),
        );
    }
    let resources = resources_of(nodes.iter().chain(&before));
    let to_volumes = KnownToVolumes {
        known,
        resources: &resources,
    };
    let mut volumes = volume::volumes(&mut pod, to_volumes, report);
    for template in templates {
        // It goes over a volume of the same name.
        volumes.insert(
            template.value.clone(),
            Volume::Template(template.value.clone()),
        );
    }
    let mut read = Pod::default();
    let mut gathered = Gathered::default();
    let mains = nodes.into_iter().map(|node| (node, Role::Main));
    let inits = before.into_iter().map(|node| (node, Role::Init));
    for (node, role) in mains.chain(inits).take(MAX_CONTAINERS) {
        let place = node.place.clone();
        let Some(container) = container::read(node, owner, role, &common, known, report) else {
            continue;
        };
        let mut all = read.containers.iter().chain(&read.init);
        if all.any(|known| known.name == container.spec.name) {
            let name = &container.spec.name;
            let message = format!("the container {name:?} of {owner} is there twice");
            report.error(&place, message);
        }
        gathered.take(container, role, &mut read);
    }
    let Gathered {
        mounts,
        mounts_before,
        capabilities,
    } = gathered;
    let all_mounts = mounts.iter().chain(&mounts_before).flatten();
    volume::check_parts(all_mounts, &volumes, report);
    let memory_bytes = memory_limit_bytes(&read.containers);
    let all = read.containers.iter_mut().chain(&mut read.init);
    for (container, mounts) in all.zip(mounts.into_iter().chain(mounts_before)) {
        let what = format!("container {:?} of {owner}", container.name);
        container.mounts = volume::resolve(mounts, &volumes, memory_bytes, &what, report);
    }
    read.claims = volume::claims(volumes);
    read.subdomain = pod.parsed("subdomain", report, hostname);
    read.sandbox = sandbox::read(&mut pod, common.security.sysctls, report);
    read.sandbox.fs_group = common.security.fs_group;
    if read.sandbox.network == NetworkMode::Host {
        // A container that has the machine's ports says those that it listens on, or the cluster does.
        read.published.clear();
    }
    for (name, added) in &capabilities {
        let mut all = read.containers.iter().chain(&read.init);
        if let Some(container) = all.find(|container| container.name == *name) {
            capability::warn_in_vain(container, added, &read.containers, &read.sandbox, report);
        }
    }
    let policy = pod.parsed("restartPolicy", report, |text| match (restarts, text) {
        (Restarts::Always | Restarts::AsSaid, "Always") => Ok(RestartPolicy::Always),
        (Restarts::AtItsEnd, "OnFailure" | "Never") => Ok(RestartPolicy::Never),
        (Restarts::AsSaid, "Never") => Ok(RestartPolicy::Never),
        (Restarts::AsSaid, "OnFailure") => Ok(RestartPolicy::OnFailure { max_retries: None }),
        // Kubernetes refuses them here, too.
        (Restarts::Always, "OnFailure" | "Never") => {
            Err("Always (a Deployment's pods are always started again)".to_owned())
        }
        (Restarts::Always, _) => Err("Always".to_owned()),
        (Restarts::AtItsEnd, _) => Err("Never or OnFailure".to_owned()),
        (Restarts::AsSaid, _) => Err("Always, OnFailure or Never".to_owned()),
    });
    read.restart = policy.unwrap_or_default();
    accounts(&mut pod, report);
    if let Some(entry) = pod.entry("automountServiceAccountToken")
        && entry.value.scalar() != Some("false")
    {
        pod.put_back(entry);
    }
    pod.ignored(
        &[(
            "automountServiceAccountToken",
            "there is no Kubernetes API for the containers to speak to",
        )],
        report,
    );
    pod.refuse(&REFUSED, report);
    pod.accept(&ACCEPTED);
    pod.ignored(&IGNORED, report);
    pod.unsupported(&UNSUPPORTED, report);
    pod.finish(report);
    read
}

/// What containers may use and ask for, by their names. What is wrong with that is told where they are read.
fn resources_of<'a>(nodes: impl Iterator<Item = &'a Node>) -> BTreeMap<String, Resources> {
    let mut all = BTreeMap::new();
    for node in nodes.take(MAX_CONTAINERS) {
        let mut unheard = Report::default();
        let name = node.get("name").and_then(Node::scalar);
        let fields = Fields::open(node.clone(), "a container", &mut unheard);
        if let (Some(name), Some(mut fields)) = (name, fields) {
            let said = resources::read(&mut fields, &mut unheard);
            all.insert(name.to_owned(), said.resources);
        }
    }
    all
}

/// What is read of containers beside their specs.
#[derive(Default)]
struct Gathered {
    mounts: Vec<Vec<VolumeMount>>,
    /// Of those that run before, to their end.
    mounts_before: Vec<Vec<VolumeMount>>,
    capabilities: Vec<(String, Added)>,
}

impl Gathered {
    /// Puts a container in its place.
    fn take(&mut self, container: Container, role: Role, pod: &mut Pod) {
        let Container {
            mut spec,
            named_ports,
            udp,
            published,
            mounts,
            capabilities,
            limited,
            stays,
        } = container;
        if pod.containers.is_empty() {
            pod.limited = limited;
        }
        let name = spec.name.clone();
        self.capabilities
            .extend(capabilities.map(|added| (name, added)));
        let is_init = role == Role::Init && !stays;
        if is_init {
            pod.init.push(spec);
            self.mounts_before.push(mounts);
            return;
        }
        if stays {
            spec.sidecar = u32::try_from(pod.init.len()).ok();
        }
        pod.containers.push(spec);
        self.mounts.push(mounts);
        pod.udp.extend(udp);
        for port in published {
            if pod.published.iter().all(|known| known.value != port.value) {
                pod.published.push(port);
            }
        }
        for (name, port) in named_ports {
            pod.named_ports.entry(name).or_insert(port);
        }
    }
}

/// Who the pod is to a cluster: nobody here.
fn accounts(pod: &mut Fields, report: &mut Report) {
    for key in ["serviceAccount", "serviceAccountName"] {
        if let Some(entry) = pod.entry(key)
            && entry.value.scalar() != Some("default")
        {
            let message = format!(
                "{} is ignored: there is no Kubernetes API for the containers to speak to",
                pod.name(key)
            );
            report.warn(&entry.place, message);
        }
    }
    if let Some(entry) = pod.entry("imagePullSecrets") {
        let message = format!(
            "{} is ignored: images are pulled with the node's own logins (`layby login`)",
            pod.name("imagePullSecrets")
        );
        report.warn(&entry.place, message);
    }
}

/// The memory that all containers may take together, if each has a limit.
fn memory_limit_bytes(containers: &[ContainerSpec]) -> Option<u64> {
    containers
        .iter()
        .map(|container| container.resources.memory_limit_bytes)
        .sum()
}
