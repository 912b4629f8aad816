//! From a manifest's service to a revision: every name resolved to what it means now, so that a later start
//! runs the same.

use std::sync::Arc;

use layby_model::engine::RunSpec;
use layby_model::options::NetworkMode;
use layby_model::route::Protocol;
use layby_model::spec::{ServicePort, ServiceSpec};
use layby_model::{AppName, ServiceId};

use super::{conflict, current, images};
use crate::api::types::Problem;
use crate::reach::Reach;
use crate::store::{NewRevision, Row};

/// Lets the service's address take datagrams on these ports, as well.
fn expose_udp(spec: &mut ServiceSpec, ports: &[u16]) {
    for port in ports {
        let known = spec.ports.iter();
        let mut known = known.filter(|known| known.protocol == Protocol::Udp);
        if known.all(|known| known.port != *port) {
            spec.ports.push(ServicePort {
                port: *port,
                target: *port,
                protocol: Protocol::Udp,
            });
        }
    }
}

/// Resolves images to digests, by what their names mean for somebody, the routed port by the image's EXPOSE, and published ports of which any will do.
pub(crate) async fn resolve(
    reach: &Arc<Reach>,
    app: &AppName,
    spec: &ServiceSpec,
    rows: &[Row],
    cause: &str,
    made_by: &str,
) -> Result<NewRevision, Problem> {
    let config = &reach.plane().config;
    let service = ServiceId::new(app.clone(), spec.name.clone());
    let mut spec = spec.clone();
    let mut digests = Vec::new();
    let names: Vec<String> = (spec.all_containers())
        .map(|container| images::name(app, &spec, container))
        .collect();
    for (n, name) in names.iter().enumerate() {
        let image = images::found(reach, name).await?.map_err(|error| {
            let mut problem = Problem::from(error);
            problem.detail = format!("{service}: {}", problem.detail);
            problem.hint = reach.hint(name).or(problem.hint);
            problem
        })?;
        if spec.sandbox.network != NetworkMode::None {
            if let (0, None, [port]) = (n, spec.port, &image.config.exposed_ports[..]) {
                spec.port = Some(*port);
            }
            expose_udp(&mut spec, &image.config.exposed_udp);
        }
        digests.push(image.digest);
    }
    for (container, name) in spec.all_containers_mut().zip(names) {
        container.image = name;
        // How it was built is no part of what runs: another context with the same result is no new revision.
        container.build = None;
    }
    let row = rows.iter().find(|row| row.service == service);
    let before = row.map(|row| &current(row).1.spec.service);
    for published in spec.published.iter_mut().filter(|p| p.port == 0) {
        // The port that was picked at the first deploy stays.
        let kept = before.and_then(|before| {
            let mut same = before.published.iter();
            same.find(|p| {
                (p.host, p.target, p.udp) == (published.host, published.target, published.udp)
            })
        });
        let ip = published.host.unwrap_or(config.publish_on);
        published.port = match kept {
            Some(kept) => kept.port,
            None => conflict::free_port(config, rows, ip, published.udp)?,
        };
    }
    Ok(NewRevision {
        service,
        spec: RunSpec {
            service: spec,
            images: digests,
        },
        cause: Some(cause.to_owned()),
        unscale: false,
        made_by: made_by.to_owned(),
        enables: false,
        anew: false,
        share: None,
    })
}
