//! `network_mode`: services without a network, in the machine's, or in that of another one, as a container of its replicas.

use std::collections::{BTreeMap, BTreeSet};

use layby_model::spec::{Condition, Strategy};

use crate::compose::networks::{Member, Mode};
use crate::machine;
use crate::report::Report;
use crate::tree::{Place, cut};

/// Settles whose network each service is in. Those in the network of another one are no services any more.
pub(crate) fn join(members: &mut Vec<Member>, report: &mut Report) {
    let hosts = hosts(members, report);
    let mut guests = Vec::new();
    let mut at = 0;
    // What may not be a guest stays a service: that it may not is an error anyway.
    while at < members.len() {
        match hosts.get(&members[at].key) {
            Some(_) => guests.push(members.remove(at)),
            None => at += 1,
        }
    }
    for guest in guests {
        let Some(host) = hosts.get(&guest.key) else {
            continue;
        };
        if let Some(host) = members.iter_mut().find(|member| member.key == *host) {
            take_in(host, guest, &hosts, report);
        }
    }
    for member in members {
        // What it took in is where it is: its ports lead nowhere either.
        match member.joined.mode {
            Mode::Own | Mode::Service(_) => {}
            Mode::None => without(member, report),
            Mode::Host => machine::settle(&mut member.draft, report),
        }
        rename(member, &hosts, report);
    }
}

/// The replicas have loopback alone: nothing leads to them.
fn without(member: &mut Member, report: &mut Report) {
    let spec = &member.draft.spec;
    if !spec.published.is_empty() {
        let message = format!(
            "the ports of service {:?} are not published: it has no network",
            spec.name.as_str()
        );
        report.warn(&member.draft.place, message);
    }
    member.draft.close();
}

/// In the replicas of which service each guest is, by their keys; one that is a guest itself leads on.
fn hosts(members: &[Member], report: &mut Report) -> BTreeMap<String, String> {
    let asked: BTreeMap<&str, (&str, &Place)> = members
        .iter()
        .filter_map(|member| match &member.joined.mode {
            Mode::Service(host) => Some((member.key.as_str(), (host.value.as_str(), &host.place))),
            Mode::Own | Mode::None | Mode::Host => None,
        })
        .collect();
    let is_job = |key: &str| {
        let mut jobs = members.iter().filter(|m| m.draft.spec.job.is_some());
        jobs.any(|member| member.key == key)
    };
    let mut hosts = BTreeMap::new();
    for (guest, (first, place)) in &asked {
        let (mut host, mut seen) = (*first, BTreeSet::from([*guest]));
        while let Some((next, _)) = asked.get(host).filter(|_| seen.insert(host)) {
            host = next;
        }
        let problem = match () {
            () if asked.contains_key(host) => {
                Some("leads back to itself: one of them has a network of its own".to_owned())
            }
            () if members.iter().all(|member| member.key != host) => Some(format!(
                "names {:?}, which is no service of this file that is run",
                cut(host)
            )),
            () if is_job(guest) || is_job(host) => {
                Some("joins a job: only services share a network".to_owned())
            }
            () => None,
        };
        match problem {
            Some(problem) => {
                let message = format!("\"network_mode\" in service {:?} {problem}", cut(guest));
                report.error(place, message);
            }
            None => {
                hosts.insert((*guest).to_owned(), host.to_owned());
            }
        }
    }
    hosts
}

/// Makes a service a container of another one's replicas.
fn take_in(
    host: &mut Member,
    guest: Member,
    hosts: &BTreeMap<String, String>,
    report: &mut Report,
) {
    let (own, other) = (&mut host.draft, guest.draft);
    let (host_name, name) = (own.spec.name.clone(), other.spec.name.clone());
    let mut told = format!(
        "service {:?} is a container of the replicas of {:?}, whose network it is in: they start, sleep and are replaced together",
        name.as_str(),
        host_name.as_str()
    );
    if other.spec.replicas != own.spec.replicas {
        told += ", and there are as many of both";
    }
    if guest.restart_said && other.spec.restart != own.spec.restart {
        told += &format!(", and \"restart\" of {:?} counts", host_name.as_str());
    }
    report.warn(&other.place, told);
    if !guest.watch.is_empty() {
        let message = format!(
            "\"develop\" in service {:?} is ignored: it is a container of the replicas of {:?}, whose own rules alone are followed",
            name.as_str(),
            host_name.as_str()
        );
        report.warn(&other.place, message);
    }

    let spec = &mut own.spec;
    spec.containers.extend(other.spec.containers);
    spec.published.extend(other.spec.published);
    own.published_at.extend(other.published_at);
    for port in other.spec.ports {
        if !spec.ports.contains(&port) {
            spec.ports.push(port);
        }
    }
    spec.port = spec.port.or(other.spec.port);
    if other.spec.strategy == Strategy::StopFirst {
        spec.strategy = Strategy::StopFirst;
    }
    let (shared, its) = (&mut spec.sandbox, other.spec.sandbox);
    shared.extra_hosts.extend(its.extra_hosts);
    shared.host_pid |= its.host_pid;
    shared.host_ipc |= its.host_ipc;
    shared.host_users |= its.host_users;
    own.named_files.extend(other.named_files);
    host.needs.extend(guest.needs);
    host.links.extend(guest.links);
    // Those in one replica do not wait for each other, but for the order in which they stand.
    let key = host.key.clone();
    let inside = |service: &str| service == key || hosts.get(service) == Some(&key);
    host.needs.retain(|need| !inside(&need.service));
    host.links.retain(|link| !inside(&link.service));
}

/// What names a guest means the service in whose replicas it is.
fn rename(member: &mut Member, hosts: &BTreeMap<String, String>, report: &mut Report) {
    let key = member.key.clone();
    // A container of its own replica needs no waiting for.
    member
        .needs
        .retain(|need| hosts.get(&need.service) != Some(&key));
    for need in &mut member.needs {
        let Some(host) = hosts.get(&need.service) else {
            continue;
        };
        if need.condition == Condition::Completed {
            let message = format!(
                "{:?} never completes by itself: it is a container of the replicas of {:?}",
                cut(&need.service),
                cut(host)
            );
            report.error(&need.place, message);
            need.condition = Condition::Started;
        }
        need.service.clone_from(host);
    }
    for link in &mut member.links {
        if let Some(host) = hosts.get(&link.service) {
            link.service.clone_from(host);
        }
    }
}
