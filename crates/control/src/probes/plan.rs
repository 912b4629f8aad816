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
    /// How long it may go without an answer before the container is taken for ready all the same, in milliseconds; `None`: for ever.
    pub(crate) patience_ms: Option<u64>,
}

/// How long a port is waited for of which only the image speaks, where another program runs than the image's own. The worker
/// beside a web server of the same image never listens on it.
const DOUBTED_MS: u64 = 30_000;

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
                patience_ms: None,
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
            let doubted = is_doubted(&spec.service, container, port);
            let check = Check {
                container: container.name.clone(),
                probe: connects(port),
                patience_ms: doubted.then_some(DOUBTED_MS),
            };
            // Nobody but the image says that there is anything to ask, and the manifest says not to.
            if !(doubted && container.no_healthcheck) {
                let checks = plan.0.entry(container.name.clone()).or_default();
                checks.first.push(check);
            }
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
fn routed(service: &ServiceSpec) -> Option<(&ContainerSpec, u16)> {
    let port = service.port?;
    if service.sandbox.network == NetworkMode::None {
        return None;
    }
    let mut containers = service.containers.iter();
    let container = containers.find(|container| container.ports.contains(&port));
    let container = container.or(service.containers.first())?;
    Some((container, port))
}

/// Whether nothing of the manifest says that the container listens on the port, and its image says so of another program.
fn is_doubted(service: &ServiceSpec, container: &ContainerSpec, port: u16) -> bool {
    let is_said = container.ports.contains(&port)
        || service
            .published
            .iter()
            .any(|published| published.target == port)
        || service.ports.iter().any(|to| to.target == port);
    let is_own = container.entrypoint.is_none() && container.command.is_none();
    !is_said && !is_own
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

#[cfg(test)]
mod tests {
    use layby_model::ServiceName;

    use super::*;

    /// How long each check is waited for of a service that has its port of the image's EXPOSE and runs a program of its own.
    fn patience(change: impl FnOnce(&mut ServiceSpec)) -> Vec<Option<u64>> {
        let mut container = ContainerSpec::new("a", "web:1");
        container.command = Some(vec!["work".to_owned()]);
        let mut service = ServiceSpec {
            port: Some(8000),
            containers: vec![container],
            ..ServiceSpec::new(ServiceName::new("a").expect("a label"))
        };
        change(&mut service);
        let spec = RunSpec {
            service,
            images: vec![String::new()],
        };
        let checks = ProbePlan::new(&spec, &[None]).of("a");
        checks.first.iter().map(|check| check.patience_ms).collect()
    }

    #[test]
    fn a_port_that_only_the_image_speaks_of_is_waited_for_as_long_as_its_own_program_runs() {
        assert_eq!(patience(|_| {}), [Some(DOUBTED_MS)]);
        assert_eq!(
            patience(|service| service.containers[0].command = None),
            [None]
        );
        assert_eq!(
            patience(|service| service.containers[0].ports = vec![8000]),
            [None]
        );
    }

    #[test]
    fn who_says_that_nothing_is_to_be_asked_of_such_a_port_is_believed() {
        let none: [Option<u64>; 0] = [];
        assert_eq!(
            patience(|service| service.containers[0].no_healthcheck = true),
            none
        );
        let own = |service: &mut ServiceSpec| {
            service.containers[0].no_healthcheck = true;
            service.containers[0].ports = vec![8000];
        };
        assert_eq!(patience(own), [None]);
    }
}
