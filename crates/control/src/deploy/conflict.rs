//! Claims: no two services may have one port of the machine or one host name.

use std::net::{IpAddr, TcpListener, UdpSocket};

use layby_model::ServiceId;
use layby_model::route::{ANY_HOST, Socket};
use layby_model::spec::{HostRoute, ServiceSpec};

use crate::addresses;
use crate::api::types::Problem;
use crate::config::ControlConfig;
use crate::driver;
use crate::store::Row;
use crate::tokens::Rights;

/// What a service claims.
struct Claims {
    service: ServiceId,
    ports: Vec<Socket>,
    hosts: Vec<String>,
    /// Host names and paths of others: host, path, and whether it is that path alone.
    routes: Vec<(String, String, bool)>,
}

/// Refuses services that claim what one of `rows` has, or what two of them claim.
///
/// # Errors
/// 409, naming both services of each such claim; to whom `rights` do not cover the other's app only the one.
pub(crate) fn check<'a>(
    config: &ControlConfig,
    rights: &Rights,
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
    let mut problems = Vec::new();
    for (id, spec) in services {
        let new = claims(config, &id, spec);
        let gateway = Socket {
            addr: config.http,
            is_udp: false,
        };
        if let Some(port) = new.ports.iter().find(|port| port.collides(gateway)) {
            let text = format!(
                "{id} asks for port {port}, where the node's own gateway answers ({})",
                config.http
            );
            let hint = "give it another port, or start the node with another --http";
            problems.push(Problem::conflict(text).hint(hint));
        }
        problems.extend(own_names(&new, &config.domain).err());
        let clashes = taken.iter().map(|other| compare(&new, other, rights));
        problems.extend(clashes.filter_map(Result::err));
        taken.push(new);
    }
    Problem::all(problems).map_or(Ok(()), Err)
}

/// Refuses paths below host names that an app has whom `rights` do not cover: the longest path would take its requests, with
/// all that they carry. What an app has already it keeps. `*` is no name of anybody's: it is for what leads nowhere else.
///
/// # Errors
/// 403. It does not say whose it is.
pub(crate) fn check_hosts<'a>(
    rights: &Rights,
    rows: &[Row],
    services: impl IntoIterator<Item = (ServiceId, &'a ServiceSpec)>,
) -> Result<(), Problem> {
    if rights.is_whole() {
        return Ok(());
    }
    let there = rows.iter().filter(|row| !row.removing);
    let there = there.flat_map(|row| specs(row).map(move |spec| (&row.service, spec)));
    let (own, others): (Vec<_>, Vec<_>) = there.partition(|(id, _)| rights.covers(id.app.as_str()));
    for (id, spec) in services {
        for route in &spec.routes {
            let is_had = |(other, spec): &(&ServiceId, &ServiceSpec)| {
                let same = |had: &HostRoute| {
                    (&had.host, &had.path, had.exact) == (&route.host, &route.path, route.exact)
                };
                other.app == id.app && spec.routes.iter().any(same)
            };
            let is_theirs = |(_, spec): &(&ServiceId, &ServiceSpec)| {
                let mut hosts = spec.routes.iter().map(|had| had.host.as_deref());
                hosts.any(|had| meet(had, route.host.as_deref()))
            };
            if others.iter().any(is_theirs) && !own.iter().any(is_had) {
                let host = route.host.as_deref().unwrap_or(ANY_HOST);
                let problem = rights.denied(&format!("requests to {host}, which another app has"));
                return Err(
                    problem.hint("give the Ingress another host, or let an admin deploy it")
                );
            }
        }
    }
    Ok(())
}

/// Whether some host name is meant by both.
fn meet(a: Option<&str>, b: Option<&str>) -> bool {
    let has = |pattern: &str, host: &str| {
        let domain = pattern.strip_prefix("*.");
        domain.is_some() && domain == host.split_once('.').map(|(_, domain)| domain)
    };
    match (a, b) {
        (Some(a), Some(b)) => a == b || has(a, b) || has(b, a),
        (a, b) => a == b,
    }
}

/// A port of the machine that no service claims and that can be listened on now, by TCP or by UDP.
///
/// # Errors
/// When the machine has none left.
pub(crate) fn free_port(
    config: &ControlConfig,
    rows: &[Row],
    ip: IpAddr,
    is_udp: bool,
) -> Result<u16, Problem> {
    for _ in 0..100 {
        let probe = match is_udp {
            true => UdpSocket::bind((ip, 0)).and_then(|socket| socket.local_addr()),
            false => TcpListener::bind((ip, 0)).and_then(|socket| socket.local_addr()),
        };
        let addr = probe.map_err(|error| {
            Problem::failed(format!("no free port of {ip} could be found: {error}"))
        })?;
        let free = Socket { addr, is_udp };
        let claimed = rows.iter().any(|row| {
            let mut ports = specs(row).flat_map(|spec| claims(config, &row.service, spec).ports);
            ports.any(|port| port.collides(free))
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
            .map(|listener| listener.socket())
            .filter(|socket| socket.addr.port() != 0)
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

fn compare(new: &Claims, other: &Claims, rights: &Rights) -> Result<(), Problem> {
    let owner = match rights.covers(other.service.app.as_str()) {
        true => other.service.to_string(),
        false => "another app".to_owned(),
    };
    for port in &new.ports {
        if let Some(theirs) = other.ports.iter().find(|theirs| theirs.collides(*port)) {
            return Err(Problem::conflict(format!(
                "{} asks for port {port}, which {owner} has ({theirs})",
                new.service
            ))
            .hint("give one of them another port"));
        }
    }
    if let Some((host, path, _)) = new.routes.iter().find(|r| other.routes.contains(r)) {
        return Err(Problem::conflict(format!(
            "{} asks for requests to {host}{path}, which {owner} has",
            new.service
        ))
        .hint("give one of them another host or path"));
    }
    match new.hosts.iter().find(|host| other.hosts.contains(host)) {
        Some(host) => Err(Problem::conflict(format!(
            "{} asks for the name {host}, which {owner} has",
            new.service
        ))
        .hint("give one of them another name or alias")),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_and_the_names_with_one_label_more_mean_the_same_hosts() {
        for (a, b, both) in [
            (Some("shop.org"), Some("shop.org"), true),
            (Some("shop.org"), Some("blog.org"), false),
            (Some("*.shop.org"), Some("www.shop.org"), true),
            (Some("www.shop.org"), Some("*.shop.org"), true),
            (Some("*.shop.org"), Some("*.shop.org"), true),
            (Some("*.shop.org"), Some("shop.org"), false),
            (Some("*.shop.org"), Some("a.b.shop.org"), false),
            (None, None, true),
            (None, Some("shop.org"), false),
        ] {
            assert_eq!(meet(a, b), both, "{a:?} {b:?}");
        }
    }
}
