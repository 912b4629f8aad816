//! Joins Services to the Deployments whose pods they select.

use std::collections::BTreeSet;

use layby_model::AppName;
use layby_model::names::ServiceName;
use layby_model::route::Protocol;
use layby_model::spec::{ProbeAction, PublishedPort, ServicePort, ServiceSpec};

use crate::draft::{Draft, not_a_label};
use crate::job;
use crate::kubernetes::claim::{self, Claim};
use crate::kubernetes::deployment::Settings;
use crate::kubernetes::job::Job;
use crate::kubernetes::service::Target;
use crate::kubernetes::{Deployment, Service};
use crate::mount;
use crate::report::Report;
use crate::scale;
use crate::tree::{Place, cut};

/// Makes a service of each Deployment; a Service gives it a further name, its port and ports of the machine.
pub(crate) fn join(
    deployments: Vec<Deployment>,
    jobs: Vec<Job>,
    services: Vec<Service>,
    claims: Vec<Claim>,
    app: Option<&AppName>,
    report: &mut Report,
) -> Vec<Draft> {
    let claims = claim::by_name(claims, report);
    let mut drafts: Vec<(Draft, Deployment)> = deployments
        .into_iter()
        .map(|mut deployment| (draft(&mut deployment, report), deployment))
        .collect();
    let mut routed = vec![None; drafts.len()];
    for service in services {
        let mut selected = drafts
            .iter()
            .enumerate()
            .filter(|(_, (_, deployment))| selects(&service, deployment));
        let (first, second) = (selected.next(), selected.next());
        if let (Some((_, (_, one))), Some((_, (_, other)))) = (first, second) {
            let message = format!(
                "the Service {:?} selects two Deployments, {:?} ({}) and {:?} ({}): one is supported",
                cut(&service.name),
                one.name.as_str(),
                one.place.short(),
                other.name.as_str(),
                other.place.short()
            );
            report.error(&service.place, message);
            continue;
        }
        let Some(index) = first.map(|(index, _)| index) else {
            let message = format!(
                "the Service {:?} selects no Deployment of this manifest and is ignored",
                cut(&service.name)
            );
            report.warn(&service.place, message);
            continue;
        };
        let (draft, deployment) = &mut drafts[index];
        let target = lead(service, draft, deployment, report);
        routed[index] = routed[index].or(target);
    }
    let jobs = jobs.into_iter().map(|job| {
        claim::check(&job.pod.claims, &claims, app, report);
        let mut draft = job.draft();
        for container in &mut draft.spec.containers {
            claim::resolve(&mut container.mounts, &claims, app);
        }
        job::strip(&mut draft, report);
        draft
    });
    let jobs: Vec<Draft> = jobs.collect();
    drafts
        .into_iter()
        .zip(routed)
        .map(|((mut draft, deployment), routed)| {
            let exposed = || {
                let containers = &draft.spec.containers;
                containers
                    .iter()
                    .find_map(|container| container.ports.first().copied())
            };
            draft.spec.port = deployment.settings.port.or(routed).or_else(exposed);
            declare_http(&mut draft.spec, deployment.settings.port);
            claim::check(&deployment.pod.claims, &claims, app, report);
            for container in &mut draft.spec.containers {
                claim::resolve(&mut container.mounts, &claims, app);
            }
            let how = "say \"type: RollingUpdate\" in its \"strategy\"";
            draft.spec.strategy =
                mount::strategy(deployment.strategy, &draft.spec, &draft.place, how, report);
            draft
        })
        .chain(jobs)
        .collect()
}

/// The service that a Deployment is, without ports and further names.
fn draft(deployment: &mut Deployment, report: &mut Report) -> Draft {
    let mut draft = Draft {
        spec: ServiceSpec {
            containers: std::mem::take(&mut deployment.pod.containers),
            replicas: deployment.replicas,
            sleep: deployment.settings.sleep,
            progress_deadline_ms: deployment.progress_deadline_ms,
            retries: deployment.settings.retries,
            deploy_on_push: deployment.settings.deploy_on_push,
            power: deployment.settings.power.take(),
            sandbox: std::mem::take(&mut deployment.pod.sandbox),
            ..ServiceSpec::new(deployment.name.clone())
        },
        place: deployment.place.clone(),
        published_at: Vec::new(),
        aliases_at: Vec::new(),
        named_files: Vec::new(),
    };
    let Settings {
        scale, sleep_said, ..
    } = &mut deployment.settings;
    scale::settle(scale.take(), *sleep_said, &mut draft.spec, report);
    draft
}

/// Whether the pods of a Deployment bear all labels that a Service asks for. One that asks for none selects none.
fn selects(service: &Service, deployment: &Deployment) -> bool {
    !service.selector.is_empty()
        && service
            .selector
            .iter()
            .all(|(key, value)| deployment.labels.get(key) == Some(value))
}

/// Adds what a Service says to what it leads to; hands out the port in the replica that it leads to first.
fn lead(
    service: Service,
    draft: &mut Draft,
    deployment: &Deployment,
    report: &mut Report,
) -> Option<u16> {
    if service.name != draft.spec.name.as_str() {
        match ServiceName::new(&service.name) {
            Ok(alias) => {
                draft.spec.aliases.push(alias);
                draft.aliases_at.push(service.place.clone());
            }
            Err(_) => report.error(&service.place, not_a_label("Service", &service.name)),
        }
    }
    let mut first = None;
    for port in service.ports {
        let target = match &port.target {
            Target::Number(number) => *number,
            Target::Name(name) => match deployment.pod.named_ports.get(name) {
                Some(number) => *number,
                None => {
                    let message = format!(
                        "the Service {:?} leads to the port {:?}, but no container of Deployment {:?} has a port of that name",
                        cut(&service.name),
                        cut(name),
                        draft.spec.name.as_str()
                    );
                    report.error(&port.place, message);
                    continue;
                }
            },
        };
        first = first.or(Some(target));
        let protocol = if port.http {
            Protocol::Http
        } else {
            Protocol::Tcp
        };
        lead_port(draft, port.port, target, protocol, &port.place, report);
        if let Some(node_port) = port.node_port {
            draft.spec.published.push(PublishedPort {
                host: None,
                port: node_port,
                target,
            });
            draft.published_at.push(port.node_port_place);
        }
    }
    first
}

/// Leads a port of the service's address to one in its replicas. Where all its names have one address, a port of it
/// leads to one place.
fn lead_port(
    draft: &mut Draft,
    port: u16,
    target: u16,
    protocol: Protocol,
    place: &Place,
    report: &mut Report,
) {
    let ports = &mut draft.spec.ports;
    match ports.iter_mut().find(|known| known.port == port) {
        Some(known) if known.target != target => {
            let message = format!(
                "port {port} leads to port {target} of service {:?}, and to its port {} by another Service: all of its names have one address",
                draft.spec.name.as_str(),
                known.target
            );
            report.error(place, message);
        }
        Some(known) => {
            if protocol == Protocol::Http {
                known.protocol = protocol;
            }
        }
        None => ports.push(ServicePort {
            port,
            target,
            protocol,
        }),
    }
}

/// Marks the ports that speak HTTP: those that an HTTP probe asks, and the one that is named for requests. Ports of
/// which nothing is said lead to themselves anyway and are left out.
fn declare_http(service: &mut ServiceSpec, named: Option<u16>) {
    let probes = service
        .containers
        .iter()
        .flat_map(|container| {
            [
                &container.readiness,
                &container.liveness,
                &container.startup,
            ]
        })
        .flatten();
    let asked = probes.filter_map(|probe| match &probe.action {
        ProbeAction::Http { port, .. } => Some(*port),
        ProbeAction::Tcp { .. } | ProbeAction::Exec { .. } => None,
    });
    let http: BTreeSet<u16> = asked.chain(named).collect();
    for port in &mut service.ports {
        if http.contains(&port.target) {
            port.protocol = Protocol::Http;
        }
    }
    for port in http {
        if service.ports.iter().all(|known| known.port != port) {
            service.ports.push(ServicePort {
                port,
                target: port,
                protocol: Protocol::Http,
            });
        }
    }
    service
        .ports
        .retain(|port| port.port != port.target || port.protocol == Protocol::Http);
}
