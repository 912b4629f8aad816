//! Joins Services to the workloads whose pods they select, and Ingresses to the Services that they lead to.

use std::collections::{BTreeMap, BTreeSet};

use layby_model::AppName;
use layby_model::names::ServiceName;
use layby_model::options::NetworkMode;
use layby_model::route::Protocol;
use layby_model::spec::{
    HostRoute, ProbeAction, PublishedPort, ServicePort, ServiceSpec, Strategy,
};

use crate::draft::{Draft, Placed, not_a_label};
use crate::job;
use crate::kubernetes::claim::{self, Claim};
use crate::kubernetes::deployment::Settings;
use crate::kubernetes::expand;
use crate::kubernetes::external;
use crate::kubernetes::ingress::{Ingress, Leads, Led, Port};
use crate::kubernetes::job::Job;
use crate::kubernetes::persistent::{self, Persistent};
use crate::kubernetes::policy::{self, Policy};
use crate::kubernetes::service::{self, Target};
use crate::kubernetes::stateful::Ordinal;
use crate::kubernetes::{Deployment, Service};
use crate::machine;
use crate::mount;
use crate::report::Report;
use crate::scale;
use crate::tree::cut;

/// All that is joined.
#[derive(Debug, Default)]
pub(crate) struct Parts {
    pub(crate) deployments: Vec<Deployment>,
    pub(crate) jobs: Vec<Job>,
    pub(crate) services: Vec<Service>,
    pub(crate) ingresses: Vec<Ingress>,
    pub(crate) claims: Vec<Claim>,
    pub(crate) folders: Vec<Persistent>,
    pub(crate) policies: Vec<Policy>,
}

/// A service of the app, and the workload that it is of.
struct Joined {
    draft: Draft,
    /// Its place among the workloads.
    of: usize,
    /// The port in the replica that a Service leads to first.
    routed: Option<u16>,
}

/// Makes a service of each workload, and of each pod of a StatefulSet; a Service gives it a further name, its port and ports of
/// the machine, and an Ingress host names and paths.
pub(crate) fn join(parts: Parts, app: Option<&AppName>, report: &mut Report) -> Vec<Draft> {
    let Parts {
        mut deployments,
        jobs,
        mut services,
        ingresses,
        claims,
        folders,
        policies,
    } = parts;
    let mut claims = claim::by_name(claims, report);
    let mut joined: Vec<Joined> = Vec::new();
    for (of, deployment) in deployments.iter_mut().enumerate() {
        let drafts = drafts(deployment, &mut claims, report);
        joined.extend(drafts.into_iter().map(|draft| Joined {
            draft,
            of,
            routed: None,
        }));
    }
    persistent::bind(folders, &mut claims, report);
    // What has an address of its own says first which port requests by host name go to.
    services.sort_by_key(|service| service.headless.is_some());
    let mut elsewhere = Vec::new();
    let mut led = Led::new();
    for service in services {
        match service.external {
            Some(host) => elsewhere.push(Placed {
                value: (service.name, host),
                place: service.place,
            }),
            None => select(service, &deployments, &mut joined, &mut led, report),
        }
    }
    for ingress in ingresses {
        lead_paths(ingress, &led, &mut joined, report);
    }
    let jobs = jobs.into_iter().map(|job| {
        claim::check(&job.pod.claims, &claims, app, report);
        let labels = job.labels.clone();
        let mut draft = job.draft();
        if draft.spec.sandbox.network == NetworkMode::Host {
            machine::settle(&mut draft, report);
        }
        for container in draft.spec.all_containers_mut() {
            claim::resolve(&mut container.mounts, &claims, app);
        }
        job::strip(&mut draft, report);
        (draft, labels)
    });
    let jobs: Vec<(Draft, BTreeMap<String, String>)> = jobs.collect();
    for deployment in &deployments {
        claim::check(&deployment.pod.claims, &claims, app, report);
    }
    let services = joined.into_iter().map(|joined| {
        let Joined {
            mut draft,
            of,
            routed,
        } = joined;
        let deployment = &deployments[of];
        let exposed = || {
            let containers = &draft.spec.containers;
            containers
                .iter()
                .find_map(|container| container.ports.first().copied())
        };
        draft.spec.port = deployment.settings.port.or(routed).or_else(exposed);
        declare_http(&mut draft.spec, deployment.settings.port);
        declare_udp(&mut draft.spec, &deployment.pod.udp);
        for container in draft.spec.all_containers_mut() {
            claim::resolve(&mut container.mounts, &claims, app);
        }
        draft.spec.strategy = match deployment.stateful {
            // Two pods of one name are never there at once.
            Some(_) => Strategy::StopFirst,
            // Two of them cannot listen on one port.
            None if draft.spec.sandbox.network == NetworkMode::Host => Strategy::StopFirst,
            None => {
                let how = "say \"type: RollingUpdate\" in its \"strategy\"";
                mount::strategy(deployment.strategy, &draft.spec, &draft.place, how, report)
            }
        };
        (draft, deployment.labels.clone())
    });
    let mut all: Vec<(Draft, BTreeMap<String, String>)> = services.collect();
    all.extend(jobs);
    for container in all
        .iter_mut()
        .flat_map(|(draft, _)| draft.spec.all_containers_mut())
    {
        // Without a name of the app there is an error already.
        let name = app.map_or("", AppName::as_str);
        expand::tell(container, expand::NAMESPACE, name);
    }
    policy::join(&policies, &mut all, report);
    let mut all: Vec<Draft> = all.into_iter().map(|(draft, _)| draft).collect();
    external::give(elsewhere, &mut all, report);
    all
}

/// The services that a workload is, without ports and further names.
fn drafts(
    deployment: &mut Deployment,
    claims: &mut BTreeMap<String, Claim>,
    report: &mut Report,
) -> Vec<Draft> {
    fixed(deployment, report);
    let draft = draft(deployment, report);
    let Some(stateful) = &deployment.stateful else {
        return vec![draft];
    };
    let (name, place) = (&deployment.name, &deployment.place);
    let ordinals = stateful.ordinals(name, deployment.replicas, place, report);
    if let ([_, _, ..], Some(place)) = (&ordinals[..], draft.published_at.first()) {
        let message = format!(
            "\"hostPort\" leads to the first of the {} pods of StatefulSet {:?} alone: a port of the machine has one of them",
            ordinals.len(),
            name.as_str()
        );
        report.warn(place, message);
    }
    let of_one = |(n, ordinal): (usize, &Ordinal)| {
        for claim in stateful.claims(ordinal) {
            claims.entry(claim.name.value.clone()).or_insert(claim);
        }
        let mut own = draft.clone();
        if n > 0 {
            own.publish(Vec::new());
        }
        stateful.settle(ordinal, &mut own.spec);
        own
    };
    ordinals.iter().enumerate().map(of_one).collect()
}

/// The pods of a StatefulSet are services of their own, so that their number is none that load changes.
fn fixed(deployment: &mut Deployment, report: &mut Report) {
    if deployment.stateful.is_some() && deployment.settings.scale.take().is_some() {
        let message = format!(
            "StatefulSet {:?} is not scaled by load: it has the pods that its \"replicas\" say",
            deployment.name.as_str()
        );
        report.warn(&deployment.place, message);
    }
}

/// The service that a workload is, without ports and further names.
fn draft(deployment: &mut Deployment, report: &mut Report) -> Draft {
    let pod = &mut deployment.pod;
    let mut spec = ServiceSpec {
        containers: std::mem::take(&mut pod.containers),
        init: std::mem::take(&mut pod.init),
        restart: pod.restart,
        replicas: deployment.replicas,
        sleep: deployment.settings.sleep,
        progress_deadline_ms: deployment.progress_deadline_ms,
        retries: deployment.settings.retries,
        deploy_on_push: deployment.settings.deploy_on_push,
        power: deployment.settings.power.take(),
        sandbox: std::mem::take(&mut pod.sandbox),
        ..ServiceSpec::new(deployment.name.clone())
    };
    if let (Some(subdomain), Some(own), None) =
        (&pod.subdomain, &spec.sandbox.hostname, &deployment.stateful)
    {
        spec.names
            .push(format!("{own}.{subdomain}").to_ascii_lowercase());
    }
    let mut draft = Draft {
        spec,
        place: deployment.place.clone(),
        published_at: Vec::new(),
        aliases_at: Vec::new(),
        named_files: Vec::new(),
    };
    draft.publish(std::mem::take(&mut pod.published));
    if draft.spec.sandbox.network == NetworkMode::Host {
        machine::settle(&mut draft, report);
    }
    let Settings {
        scale, sleep_said, ..
    } = &mut deployment.settings;
    scale::settle(scale.take(), *sleep_said, &mut draft.spec, report);
    draft
}

/// Whether the pods of a workload bear all labels that a Service asks for. One that asks for none selects none.
fn selects(service: &Service, deployment: &Deployment) -> bool {
    !service.selector.is_empty()
        && service
            .selector
            .iter()
            .all(|(key, value)| deployment.labels.get(key) == Some(value))
}

/// Finds the workloads that a Service leads to, and gives them what it says.
fn select(
    service: Service,
    deployments: &[Deployment],
    joined: &mut [Joined],
    led: &mut Led,
    report: &mut Report,
) {
    let selected: Vec<usize> = (0..deployments.len())
        .filter(|at| selects(&service, &deployments[*at]))
        .collect();
    if selected.is_empty() {
        let message = format!(
            "the Service {:?} selects no Deployment of this manifest and is ignored",
            cut(&service.name)
        );
        return report.warn(&service.place, message);
    }
    let members: Vec<usize> = (0..joined.len())
        .filter(|at| selected.contains(&joined[*at].of))
        .collect();
    for of in &selected {
        told_headless(&service, &deployments[*of], report);
    }
    let name = service.name.clone();
    let is_named = |at: &usize| joined[*at].draft.spec.name.as_str() == name;
    let runs = |at: &usize| {
        let spec = &joined[*at].draft.spec;
        spec.replicas > 0 || spec.autoscale.is_some()
    };
    // It has the name as its host name; of several, one that is called so itself, else the first that is not off.
    let mut all = members.iter().copied();
    let named = all.clone().find(is_named);
    let first = named.or(all.clone().find(runs)).or(all.next());
    told(&service, first, members.len(), joined, report);
    let mut leads = Leads {
        draft: first,
        ports: Vec::new(),
    };
    for member in members {
        let is_first = first == Some(member);
        let Joined { draft, routed, of } = &mut joined[member];
        give_name(&service, is_first, draft, report);
        let targets = lead(&service, is_first, draft, &deployments[*of], report);
        *routed = routed.or(targets.first().map(|(_, _, target)| *target));
        if is_first {
            leads.ports = targets;
        }
    }
    led.insert(name, leads);
}

/// What of a Service without an address is not as in a cluster.
fn told_headless(service: &Service, deployment: &Deployment, report: &mut Report) {
    if let (Some(place), None, true) = (
        &service.headless,
        &deployment.stateful,
        deployment.replicas > 1,
    ) {
        let message = format!(
            "\"clusterIP\" in Service {:?} is \"None\": the name leads to one address all the same, before all replicas",
            cut(&service.name)
        );
        report.warn(place, message);
    }
}

/// What of a Service with several workloads or pods behind it is not as in a cluster.
fn told(
    service: &Service,
    first: Option<usize>,
    count: usize,
    joined: &[Joined],
    report: &mut Report,
) {
    if let (Some(first), 2.., None) = (first, count, &service.headless) {
        let message = format!(
            "the Service {:?} leads to each of the {count} services that it selects by its name, but by host name and by ports of the machine to {:?} alone",
            cut(&service.name),
            joined[first].draft.spec.name.as_str()
        );
        report.warn(&service.place, message);
    }
}

/// Gives a service the name of a Service. Of several, the first has it as a host name, too.
fn give_name(service: &Service, is_first: bool, draft: &mut Draft, report: &mut Report) {
    if service.name == draft.spec.name.as_str() {
        return;
    }
    match ServiceName::new(&service.name) {
        Ok(alias) if is_first => {
            draft.spec.aliases.push(alias);
            draft.aliases_at.push(service.place.clone());
        }
        Ok(name) => draft.spec.names.push(name.to_string()),
        Err(_) if is_first => {
            report.error(&service.place, not_a_label("Service", &service.name));
        }
        Err(_) => {}
    }
}

/// Adds the ports of a Service to what it leads to; hands out where each leads.
fn lead(
    service: &Service,
    is_first: bool,
    draft: &mut Draft,
    deployment: &Deployment,
    report: &mut Report,
) -> Vec<(u16, Option<String>, u16)> {
    let mut targets = Vec::new();
    for port in &service.ports {
        let target = match &port.target {
            Target::Number(number) => *number,
            Target::Name(name) => match deployment.pod.named_ports.get(name) {
                Some(number) => *number,
                None => {
                    let message = format!(
                        "the Service {:?} leads to the port {:?}, but no container of {} {:?} has a port of that name",
                        cut(&service.name),
                        cut(name),
                        deployment.kind.word(),
                        deployment.name.as_str()
                    );
                    report.error(&port.place, message);
                    continue;
                }
            },
        };
        let udp = port.protocol == Protocol::Udp;
        if !udp {
            targets.push((port.port, port.name.clone(), target));
        }
        lead_port(&service.name, port, target, draft, report);
        if let Some(node_port) = port.node_port.filter(|_| is_first) {
            draft.spec.published.push(PublishedPort {
                host: None,
                port: node_port,
                target,
                udp,
            });
            draft.published_at.push(port.node_port_place.clone());
        }
    }
    targets
}

/// Gives services the host names and paths by which an Ingress leads to them.
fn lead_paths(ingress: Ingress, led: &Led, joined: &mut [Joined], report: &mut Report) {
    for path in ingress.paths {
        let backend = &path.backend;
        let Some(leads) = led.get(&backend.service) else {
            let message = format!(
                "the Ingress {:?} leads to the Service {:?}, which leads to nothing of this manifest: give the files of the Service and of what it selects along (`layby up -f FILE -f FILE`, or their folder)",
                cut(&ingress.name),
                cut(&backend.service)
            );
            report.error(&backend.place, message);
            continue;
        };
        let Some(port) = leads.target(&backend.port) else {
            let shown = match &backend.port {
                Port::Number(number) => number.to_string(),
                Port::Name(name) => format!("{:?}", cut(name)),
            };
            let message = format!(
                "the Ingress {:?} leads to the port {shown} of the Service {:?}, which has no such port",
                cut(&ingress.name),
                cut(&backend.service)
            );
            report.error(&backend.place, message);
            continue;
        };
        let route = HostRoute {
            host: path.host,
            path: path.path,
            exact: path.exact,
            port,
        };
        let taken = joined.iter().enumerate().find_map(|(at, other)| {
            let mut routes = other.draft.spec.routes.iter();
            let same = |known: &&HostRoute| {
                (&known.host, &known.path, known.exact) == (&route.host, &route.path, route.exact)
            };
            routes.find(same).map(|known| (at, known.port))
        });
        let Some(first) = leads.draft else {
            continue;
        };
        match taken {
            None => joined[first].draft.spec.routes.push(route),
            Some(same) if same == (first, port) => {}
            Some((other, _)) => {
                let message = format!(
                    "the path {:?} of the host {:?} leads to service {:?} already",
                    cut(&route.path),
                    cut(route.host.as_deref().unwrap_or("*")),
                    joined[other].draft.spec.name.as_str()
                );
                report.error(&path.place, message);
            }
        }
    }
}

/// Leads a port of a Service to one in the replicas. All names of a service have one address here: a port of it leads to one
/// place, and the first Service says to which.
fn lead_port(
    name: &str,
    port: &service::ServicePort,
    target: u16,
    draft: &mut Draft,
    report: &mut Report,
) {
    let (number, protocol) = (port.port, port.protocol);
    let owner = draft.spec.name.as_str();
    let ports = &mut draft.spec.ports;
    let is_udp = |protocol: Protocol| protocol == Protocol::Udp;
    let same = |known: &&mut ServicePort| {
        known.port == number && is_udp(known.protocol) == is_udp(protocol)
    };
    match ports.iter_mut().find(same) {
        Some(known) if known.target != target => {
            let message = format!(
                "nothing leads to port {target} as {:?}: all names of service {owner:?} have one address, and another Service leads its port {number} to port {}; give one of the two another \"port\"",
                format!("{}:{number}", cut(name)),
                known.target
            );
            report.warn(&port.place, message);
        }
        Some(known) => {
            if protocol == Protocol::Http {
                known.protocol = protocol;
            }
        }
        None => ports.push(ServicePort {
            port: number,
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
        ProbeAction::Http {
            port, tls: false, ..
        } => Some(*port),
        ProbeAction::Http { tls: true, .. }
        | ProbeAction::Grpc { .. }
        | ProbeAction::Tcp { .. }
        | ProbeAction::Exec { .. } => None,
    });
    let http: BTreeSet<u16> = asked.chain(named).collect();
    let of_tcp = |port: &&mut ServicePort| port.protocol != Protocol::Udp;
    for port in service.ports.iter_mut().filter(of_tcp) {
        if http.contains(&port.target) {
            port.protocol = Protocol::Http;
        }
    }
    for port in http {
        let mut known = service.ports.iter();
        if known.all(|known| known.port != port || known.protocol == Protocol::Udp) {
            service.ports.push(ServicePort {
                port,
                target: port,
                protocol: Protocol::Http,
            });
        }
    }
    service
        .ports
        .retain(|port| port.port != port.target || port.protocol != Protocol::Tcp);
}

/// Lets the service's address take datagrams on the ports of its containers, where no Service leads them elsewhere.
fn declare_udp(service: &mut ServiceSpec, ports: &[u16]) {
    for port in ports {
        let known = service.ports.iter();
        let mut known = known.filter(|known| known.protocol == Protocol::Udp);
        if known.all(|known| known.port != *port) {
            service.ports.push(ServicePort {
                port: *port,
                target: *port,
                protocol: Protocol::Udp,
            });
        }
    }
}
