//! Claims: no two services may have one port of the machine or one host name.

use std::net::{IpAddr, SocketAddr, TcpListener};

use layby_model::ServiceId;
use layby_model::spec::ServiceSpec;

use crate::addresses;
use crate::api::types::Problem;
use crate::config::ControlConfig;
use crate::driver;
use crate::store::Row;

/// What a service claims.
struct Claims {
    service: ServiceId,
    ports: Vec<SocketAddr>,
    hosts: Vec<String>,
    /// Host names and paths of others: host, path, and whether it is that path alone.
    routes: Vec<(String, String, bool)>,
}

/// Refuses services that claim what one of `rows` has, or what two of them claim.
///
/// # Errors
/// 409, naming both services.
pub(crate) fn check<'a>(
    config: &ControlConfig,
    rows: &[Row],
    services: impl IntoIterator<Item = (ServiceId, &'a ServiceSpec)>,
) -> Result<(), Problem> {
    // Nothing leads to a job.
    let services = services.into_iter().filter(|(_, spec)| spec.job.is_none());
    let services: Vec<(ServiceId, &ServiceSpec)> = services.collect();
    let mut taken: Vec<Claims> = rows
        .iter()
        // What is on its way out has let go of all that it claimed.
        .filter(|row| !row.removing && services.iter().all(|(id, _)| *id != row.service))
        .flat_map(|row| specs(row).map(|spec| claims(config, &row.service, spec)))
        .collect();
    for (id, spec) in services {
        let new = claims(config, &id, spec);
        if let Some(port) = new
            .ports
            .iter()
            .find(|port| addresses::collide(**port, config.http))
        {
            return Err(Problem::conflict(format!(
                "{id} asks for port {port}, where the node's own gateway answers ({})",
                config.http
            ))
            .hint("give it another port, or start the node with another --http"));
        }
        own_names(&new, &config.domain)?;
        for other in &taken {
            compare(&new, other)?;
        }
        taken.push(new);
    }
    Ok(())
}

/// A port of the machine that no service claims and that can be listened on now.
///
/// # Errors
/// When the machine has none left.
pub(crate) fn free_port(config: &ControlConfig, rows: &[Row], ip: IpAddr) -> Result<u16, Problem> {
    for _ in 0..100 {
        let probe = TcpListener::bind((ip, 0)).and_then(|socket| socket.local_addr());
        let addr = probe.map_err(|error| {
            Problem::failed(format!("no free port of {ip} could be found: {error}"))
        })?;
        let claimed = rows.iter().any(|row| {
            let mut ports = specs(row).flat_map(|spec| claims(config, &row.service, spec).ports);
            ports.any(|port| addresses::collide(port, addr))
        });
        if !claimed {
            return Ok(addr.port());
        }
    }
    Err(Problem::failed(format!(
        "no free port of {ip} could be found"
    )))
}

/// The settings that hold claims: live's and a rolling target's.
fn specs(row: &Row) -> impl Iterator<Item = &ServiceSpec> {
    let target = driver::rolling(row).then_some(&row.target);
    row.live
        .iter()
        .chain(target)
        .map(|revision| &revision.spec.service)
}

fn claims(config: &ControlConfig, id: &ServiceId, spec: &ServiceSpec) -> Claims {
    let listeners = addresses::listeners(id, spec, config.publish_on).into_iter();
    Claims {
        service: id.clone(),
        ports: listeners
            .map(|l| l.addr)
            .filter(|addr| addr.port() != 0)
            .collect(),
        hosts: addresses::hosts(id, spec, &config.domain),
        routes: addresses::paths(id, spec)
            .into_iter()
            .map(|(host, path)| (host, path.path, path.exact))
            .collect(),
    }
}

/// Refuses host names below the node's domain that are another app's.
fn own_names(new: &Claims, domain: &str) -> Result<(), Problem> {
    let own = format!("{}.{domain}", new.service.app);
    let is_own = |host: &str| host == own || host.ends_with(&format!(".{own}"));
    let below = format!(".{domain}");
    let hosts = new.routes.iter().map(|(host, ..)| host);
    let is_below = |host: &&String| host.as_str() == domain || host.ends_with(&below);
    match hosts.filter(is_below).find(|host| !is_own(host)) {
        Some(host) => Err(Problem::conflict(format!(
            "{} asks for requests to {host}, and only names below {own} are its app's",
            new.service
        ))
        .hint("give the Ingress another host")),
        None => Ok(()),
    }
}

fn compare(new: &Claims, other: &Claims) -> Result<(), Problem> {
    for port in &new.ports {
        if let Some(theirs) = other.ports.iter().find(|p| addresses::collide(**p, *port)) {
            return Err(Problem::conflict(format!(
                "{} asks for port {port}, which {} has ({theirs})",
                new.service, other.service
            ))
            .hint("give one of them another port"));
        }
    }
    if let Some((host, path, _)) = new.routes.iter().find(|r| other.routes.contains(r)) {
        return Err(Problem::conflict(format!(
            "{} asks for requests to {host}{path}, which {} has",
            new.service, other.service
        ))
        .hint("give one of them another host or path"));
    }
    match new.hosts.iter().find(|host| other.hosts.contains(host)) {
        Some(host) => Err(Problem::conflict(format!(
            "{} asks for the name {host}, which {} has",
            new.service, other.service
        ))
        .hint("give one of them another name or alias")),
        None => Ok(()),
    }
}
