//! Which checks a revision's replicas get: the manifest's probes, else the image's HEALTHCHECK, else a TCP
//! connection to the routed port.

use layby_image::{Healthcheck, ImageConfig};
use layby_model::engine::RunSpec;
use layby_model::spec::{ContainerSpec, Probe, ProbeAction};

/// One probe of one container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Check {
    /// The container (commands run in it).
    pub(crate) container: String,
    /// The probe.
    pub(crate) probe: Probe,
}

/// The checks of one revision.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct ProbePlan {
    /// Each has to succeed, one after the other, before a replica is ready. None: running for a moment is ready.
    pub(crate) first: Vec<Check>,
    /// Asked from then on; one that fails takes the replica out of the route.
    pub(crate) readiness: Vec<Check>,
    /// Asked from then on; one that fails has the replica replaced.
    pub(crate) liveness: Vec<Check>,
}

impl ProbePlan {
    /// The checks of a revision; `images` are its containers' configurations, where they can be read.
    pub(crate) fn new(spec: &RunSpec, images: &[Option<ImageConfig>]) -> Self {
        let mut plan = Self::default();
        for (n, container) in spec.service.containers.iter().enumerate() {
            let check = |probe: &Probe| Check {
                container: container.name.clone(),
                probe: probe.clone(),
            };
            let image = images.get(n).and_then(Option::as_ref);
            let readiness = container.readiness.clone();
            let readiness = readiness.or_else(|| healthcheck(container, image?));
            plan.first.extend(container.startup.iter().map(check));
            plan.first.extend(readiness.iter().map(check));
            plan.readiness.extend(readiness.iter().map(check));
            plan.liveness.extend(container.liveness.iter().map(check));
        }
        if let (true, Some(port)) = (plan.first.is_empty(), spec.service.port) {
            plan.first.push(Check {
                container: String::new(),
                probe: connects(port),
            });
        }
        plan
    }
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
    })
}
