//! What a one-off command of a service runs: the service's first container as it is live, with another command.

use std::collections::BTreeMap;

use layby_model::engine::RunSpec;
use layby_model::job::JobSpec;
use layby_model::spec::{ContainerSpec, RestartPolicy, ServiceSpec};

/// What is to be run.
#[derive(Debug, Clone, Default)]
pub(crate) struct OneOff {
    /// The program and its arguments.
    pub(crate) command: Vec<String>,
    /// Variables over those of the service.
    pub(crate) env: BTreeMap<String, String>,
    /// Where it starts; `None`: where the service does.
    pub(crate) working_dir: Option<String>,
    /// Whom it runs as; `None`: as the service.
    pub(crate) user: Option<String>,
    /// It is ended after this, in milliseconds.
    pub(crate) time_limit_ms: Option<u64>,
}

/// The settings of a run. `held`: its container only holds itself open, and the command is begun in it.
///
/// It has what the service has: image, variables, mounts, limits, fences, the app's network. It has nothing by which it
/// would be reached, and nobody asks for its health.
pub(crate) fn spec(live: &RunSpec, order: &OneOff, held: bool) -> RunSpec {
    let first = live.service.containers.first().cloned();
    let mut container = ContainerSpec {
        readiness: None,
        liveness: None,
        startup: None,
        no_healthcheck: true,
        ports: Vec::new(),
        post_start: Vec::new(),
        pre_stop: Vec::new(),
        // The terminal, if it is to have one, is that of the command.
        ..first.unwrap_or_else(|| ContainerSpec::new(live.service.name.as_str(), ""))
    };
    container.env.extend(order.env.clone());
    container.options.tty = false;
    container.options.hold = held;
    container.options.init |= !held;
    if held {
        container.stop_signal = Some("SIGTERM".to_owned());
    } else {
        container.entrypoint = Some(order.command.clone());
        container.command = None;
        container.working_dir = order.working_dir.clone().or(container.working_dir);
        container.user = order.user.clone().or(container.user);
    }
    let service = &live.service;
    RunSpec {
        service: ServiceSpec {
            containers: vec![container],
            restart: RestartPolicy::Never,
            sandbox: service.sandbox.clone(),
            drain_ms: 0,
            job: Some(JobSpec {
                time_limit_ms: order.time_limit_ms,
                ..JobSpec::default()
            }),
            ..ServiceSpec::new(service.name.clone())
        },
        images: live.images.iter().take(1).cloned().collect(),
    }
}

#[cfg(test)]
mod tests {
    use layby_model::ServiceName;
    use layby_model::spec::PublishedPort;

    use super::*;

    fn live() -> RunSpec {
        let name = ServiceName::new("web").expect("a label");
        let mut container = ContainerSpec::new("web", "web:1");
        container.env.insert("LEVEL".to_owned(), "low".to_owned());
        container.entrypoint = Some(vec!["/serve".to_owned()]);
        container.options.tty = true;
        RunSpec {
            service: ServiceSpec {
                containers: vec![container, ContainerSpec::new("side", "side:1")],
                replicas: 3,
                published: vec![PublishedPort {
                    host: None,
                    port: 80,
                    target: 80,
                    udp: false,
                }],
                ..ServiceSpec::new(name)
            },
            images: vec!["sha256:1".to_owned(), "sha256:2".to_owned()],
        }
    }

    #[test]
    fn it_has_what_the_service_has_and_nothing_that_leads_to_it() {
        let order = OneOff {
            command: vec!["/migrate".to_owned()],
            env: BTreeMap::from([("LEVEL".to_owned(), "high".to_owned())]),
            time_limit_ms: Some(5),
            ..OneOff::default()
        };
        let alone = spec(&live(), &order, false);
        let service = &alone.service;
        assert_eq!(
            (
                service.replicas,
                service.published.len(),
                service.containers.len()
            ),
            (1, 0, 1)
        );
        assert_eq!(alone.images, ["sha256:1"]);
        let container = &service.containers[0];
        assert_eq!(container.env["LEVEL"], "high");
        assert_eq!(
            container.entrypoint.as_deref(),
            Some(&["/migrate".to_owned()][..])
        );
        assert!(container.options.init && !container.options.hold && !container.options.tty);
        let held = spec(&live(), &order, true);
        let container = &held.service.containers[0];
        assert!(container.options.hold && !container.options.init);
    }
}
