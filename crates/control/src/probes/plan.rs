//! Which checks a revision's containers get: the manifest's probes, else the image's HEALTHCHECK, else a TCP
//! connection to the routed port.

use std::collections::BTreeMap;

use layby_image::{Healthcheck, ImageConfig};
use layby_model::engine::RunSpec;
use layby_model::options::NetworkMode;
use layby_model::spec::{ContainerSpec, Probe, ProbeAction, ServiceSpec};

/// One probe of one container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Check {
    /// The container (commands run in it).
    pub(crate) container: String,
    /// The probe.
    pub(crate) probe: Probe,
}

/// The checks of one container.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Checks {
    /// Each has to succeed, one after the other, before the container is ready. None: it is when it runs.
    pub(crate) first: Vec<Check>,
    /// Asked from then on; while it fails, its replica is out of the route.
    pub(crate) readiness: Option<Check>,
    /// Asked from then on; one that fails for good ends the container.
    pub(crate) liveness: Option<Check>,
}

/// The checks of one revision, by container.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct ProbePlan(BTreeMap<String, Checks>);

impl ProbePlan {
    /// The checks of a revision; `images` are its containers' configurations, where they can be read.
    pub(crate) fn new(spec: &RunSpec, images: &[Option<ImageConfig>]) -> Self {
        let mut plan = Self::default();
        for (n, container) in spec.service.containers.iter().enumerate() {
            let check = |probe: Probe| Check {
                container: container.name.clone(),
                probe,
            };
            let image = images.get(n).and_then(Option::as_ref);
            let readiness = container.readiness.clone();
            let readiness = readiness.or_else(|| healthcheck(container, image?));
            let readiness = readiness.map(check);
            let startup = container.startup.clone().map(check);
            let checks = Checks {
                first: startup.into_iter().chain(readiness.clone()).collect(),
                readiness,
                liveness: container.liveness.clone().map(check),
            };
            plan.0.insert(container.name.clone(), checks);
        }
        if let (true, Some((container, port))) = (plan.asks_nothing(), routed(&spec.service)) {
            let check = Check {
                container: container.to_owned(),
                probe: connects(port),
            };
            let checks = plan.0.entry(container.to_owned()).or_default();
            checks.first.push(check);
        }
        plan
    }

    /// The checks of a container.
    pub(crate) fn of(&self, container: &str) -> Checks {
        self.0.get(container).cloned().unwrap_or_default()
    }

    /// The containers that have a liveness check.
    pub(crate) fn asked_alive(&self) -> impl Iterator<Item = &str> {
        let asked = self
            .0
            .iter()
            .filter(|(_, checks)| checks.liveness.is_some());
        asked.map(|(name, _)| name.as_str())
    }

    /// No container has to answer anything.
    pub(crate) fn asks_nothing(&self) -> bool {
        self.0.values().all(|checks| checks.first.is_empty())
    }
}

/// The routed port, and the container that says it listens on it; else the first. Without a network there is none: what would
/// be asked is the machine.
fn routed(service: &ServiceSpec) -> Option<(&str, u16)> {
    let port = service.port?;
    if service.sandbox.network == NetworkMode::None {
        return None;
    }
    let mut containers = service.containers.iter();
    let container = containers.find(|container| container.ports.contains(&port));
    let container = container.or(service.containers.first())?;
    Some((&container.name, port))
}

/// Without any probe, a replica is ready when its port takes a connection.
fn connects(port: u16) -> Probe {
    Probe {
        action: ProbeAction::Tcp { port },
        initial_delay_ms: 0,
        period_ms: 10_000,
        timeout_ms: 1_000,
        success_threshold: 1,
        failure_threshold: 3,
        stop_grace_ms: None,
    }
}

/// The image's HEALTHCHECK as a probe, with Docker's defaults.
fn healthcheck(container: &ContainerSpec, image: &ImageConfig) -> Option<Probe> {
    if container.no_healthcheck {
        return None;
    }
    let Healthcheck {
        test,
        interval_ms,
        timeout_ms,
        retries,
        ..
    } = image.healthcheck.as_ref()?;
    let argv = match test.split_first()? {
        (kind, argv) if kind == "CMD" => argv.to_vec(),
        (kind, [text]) if kind == "CMD-SHELL" => vec!["/bin/sh".into(), "-c".into(), text.clone()],
        _ => return None, // NONE
    };
    Some(Probe {
        action: ProbeAction::Exec { argv },
        initial_delay_ms: 0,
        period_ms: interval_ms.filter(|ms| *ms > 0).unwrap_or(30_000),
        timeout_ms: timeout_ms.filter(|ms| *ms > 0).unwrap_or(30_000),
        success_threshold: 1,
        failure_threshold: retries.filter(|n| *n > 0).unwrap_or(3),
        stop_grace_ms: None,
    })
}
