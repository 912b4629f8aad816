//! What is wrong only between services: names, host names and ports of the machine claimed twice.

use std::collections::{BTreeSet, HashMap};
use std::net::IpAddr;

use layby_model::names::ServiceName;
use layby_model::spec::PublishedPort;

use crate::draft::Draft;
use crate::report::Report;
use crate::tree::Place;

/// Checks the services of an app against each other. Where only some are `asked` for, the others take no ports of the machine: they
/// may be there to be run in their place.
pub(crate) fn check(
    services: &[Draft],
    asked: Option<&BTreeSet<ServiceName>>,
    report: &mut Report,
) {
    names(services, report);
    let is_asked = |draft: &&Draft| asked.is_none_or(|asked| asked.contains(&draft.spec.name));
    published(services.iter().filter(is_asked), report);
}

/// Names and aliases are the host names by which services are reached: each can lead to one only.
fn names(services: &[Draft], report: &mut Report) {
    let mut claimed: HashMap<&str, (&Place, &str)> = HashMap::new();
    for draft in services {
        let name = draft.spec.name.as_str();
        if let Some((place, _)) = claimed.insert(name, (&draft.place, name)) {
            let message = format!(
                "the service {name:?} is there twice: first in {}",
                place.short()
            );
            report.error(&draft.place, message);
        }
    }
    for draft in services {
        let owner = draft.spec.name.as_str();
        for (alias, place) in draft.spec.aliases.iter().zip(&draft.aliases_at) {
            match claimed.get(alias.as_str()) {
                Some((other_place, other)) if *other != owner => {
                    let message = format!(
                        "the host name {:?} of service {owner:?} is claimed by service {other:?} too, in {}",
                        alias.as_str(),
                        other_place.short()
                    );
                    report.error(place, message);
                }
                Some(_) => {}
                None => {
                    claimed.insert(alias.as_str(), (place, owner));
                }
            }
        }
    }
}

fn published<'a>(services: impl Iterator<Item = &'a Draft>, report: &mut Report) {
    let mut claimed: HashMap<u16, Vec<(&PublishedPort, &Place, &str)>> = HashMap::new();
    for draft in services {
        let owner = draft.spec.name.as_str();
        for (port, place) in draft.spec.published.iter().zip(&draft.published_at) {
            if port.port == 0 {
                continue;
            }
            let others = claimed.entry(port.port).or_default();
            let clash = others.iter().find(|(other, _, other_owner)| {
                port.udp == other.udp
                    && overlap(port.host, other.host)
                    && (*other != port || *other_owner != owner)
            });
            if let Some((_, other_place, other)) = clash {
                let (port, first) = (port.port, other_place.short());
                let message = match *other == owner {
                    true => format!(
                        "service {owner:?} publishes the machine's port {port} twice: first in {first}"
                    ),
                    false => format!(
                        "the machine's port {port} of service {owner:?} is claimed by service {other:?} too, in {first}"
                    ),
                };
                report.error(place, message);
            }
            others.push((port, place, owner));
        }
    }
}

/// Whether one socket would keep the other from being opened. An address that is not said is the
/// node's, which may be any.
fn overlap(one: Option<IpAddr>, other: Option<IpAddr>) -> bool {
    match (one, other) {
        (Some(one), Some(other)) => one == other || one.is_unspecified() || other.is_unspecified(),
        _ => true,
    }
}
