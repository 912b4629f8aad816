//! Networks: all services of an app share one, so nothing may be asked for that would keep two of them apart.

use std::collections::{BTreeMap, BTreeSet};

use layby_model::names::ServiceName;

use crate::compose::depends::Need;
use crate::draft::{Draft, Placed, not_a_label};
use crate::fields::{Fields, parsed};
use crate::report::Report;
use crate::tree::{Entry, Place, Value, cut};

/// The network that a service is in where nothing is said.
const DEFAULT: &str = "default";
/// So many different sets of networks are compared: more are no manifest.
const MAX_SETS: usize = 500;

/// The networks that a service is in, and what else it is called there.
#[derive(Debug, Default)]
pub(crate) struct Joined {
    names: BTreeMap<String, Place>,
    aliases: Vec<Placed<String>>,
}

/// Takes `networks` off the top of a Compose file.
pub(crate) fn declared(top: &mut Fields, report: &mut Report) -> BTreeMap<String, Place> {
    let mut declared = BTreeMap::new();
    let Some(mut map) = top.map("networks", report) else {
        return declared;
    };
    map.accept_extensions();
    for entry in map.rest() {
        let what = format!("the network {:?}", cut(&entry.key));
        if let Some(fields) = Fields::open(entry.value, what, report) {
            network(fields, report);
        }
        declared.insert(entry.key, entry.place);
    }
    declared
}

fn network(mut network: Fields, report: &mut Report) {
    network.refuse(
        &[
            (
                "external",
                "the services would not reach what else is in it",
            ),
            ("internal", "the services would reach the world outside"),
        ],
        report,
    );
    network.parsed("driver", report, |text| match text {
        "" | "bridge" | "default" => Ok(()),
        _ => Err("bridge (no other driver is supported)".to_owned()),
    });
    // What it is called, and who else may join, changes nothing for its services.
    network.accept(&["attachable", "labels", "name"]);
    network.accept_extensions();
    accept_if(&mut network, "enable_ipv4", "true");
    accept_if(&mut network, "enable_ipv6", "false");
    network.unsupported(
        &["driver_opts", "enable_ipv4", "enable_ipv6", "ipam"],
        report,
    );
    network.finish(report);
}

/// Takes a key off whose value is what holds anyway.
fn accept_if(fields: &mut Fields, key: &'static str, value: &str) {
    if let Some(entry) = fields.entry(key)
        && entry.value.scalar() != Some(value)
    {
        fields.put_back(entry);
    }
}

/// Takes `networks` and `network_mode` off a service.
pub(crate) fn joined(service: &mut Fields, report: &mut Report) -> Joined {
    let mut joined = Joined::default();
    service.parsed("network_mode", report, |text| match text {
        "" | "bridge" | "default" => Ok(()),
        "none" => Err("left out (a service without a network is not supported yet)".to_owned()),
        "host" => {
            Err("left out (the machine's own network is not supported; publish ports)".to_owned())
        }
        _ => Err("left out (no other network can be joined)".to_owned()),
    });
    let name = service.name("networks");
    let Some(node) = service.take("networks") else {
        return joined;
    };
    match node.value {
        Value::List(items) => {
            let item_name = format!("an item of {name}");
            for item in items {
                let key = parsed(&item, &item_name, report, |text| Ok(text.to_owned()));
                joined.names.extend(key.map(|key| (key, item.place)));
            }
        }
        Value::Map(entries) => {
            for entry in entries {
                let key = entry.key.clone();
                let place = entry.place.clone();
                joined.aliases.extend(membership(entry, &name, report));
                joined.names.insert(key, place);
            }
        }
        Value::Null => {}
        Value::Scalar { .. } => {
            let message = format!("{name} must be a list or a map, not {}", node.shown());
            report.error(&node.place, message);
        }
    }
    joined
}

/// How a service is in one network: hands out its aliases.
fn membership(entry: Entry, name: &str, report: &mut Report) -> Vec<Placed<String>> {
    let what = format!("{:?} of {name}", cut(&entry.key));
    let Some(mut fields) = Fields::open(entry.value, what, report) else {
        return Vec::new();
    };
    let aliases = fields.text_or_texts("aliases", report).unwrap_or_default();
    fields.refuse(
        &[
            ("ipv4_address", "services are reached by name"),
            ("ipv6_address", "services are reached by name"),
            ("link_local_ips", "services are reached by name"),
        ],
        report,
    );
    fields.unsupported(
        &[
            "driver_opts",
            "gw_priority",
            "interface_name",
            "mac_address",
            "priority",
        ],
        report,
    );
    fields.accept_extensions();
    fields.finish(report);
    aliases
}

/// A name of another service that one asks for (`links`).
#[derive(Debug)]
pub(crate) struct Link {
    pub(crate) service: String,
    alias: Option<String>,
    pub(crate) place: Place,
}

/// Takes `links` off a service: `SERVICE[:ALIAS]`.
pub(crate) fn links(service: &mut Fields, report: &mut Report) -> Vec<Link> {
    service
        .text_or_texts("links", report)
        .unwrap_or_default()
        .into_iter()
        .map(|item| {
            let (service, alias) = match item.value.split_once(':') {
                Some((service, alias)) => (service, Some(alias)),
                None => (item.value.as_str(), None),
            };
            Link {
                service: service.to_owned(),
                alias: alias.filter(|alias| *alias != service).map(str::to_owned),
                place: item.place.clone(),
            }
        })
        .collect()
}

/// A service with what it says of networks and of others.
#[derive(Debug)]
pub(crate) struct Member {
    pub(crate) draft: Draft,
    pub(crate) joined: Joined,
    pub(crate) links: Vec<Link>,
    /// `depends_on`, and those that it links to.
    pub(crate) needs: Vec<Need>,
    /// It says itself what is done when it ends.
    pub(crate) restart_said: bool,
    /// `container_name`, by which Docker's containers find each other, too.
    pub(crate) container_name: Option<Placed<String>>,
}

/// Makes one network of those that the file has: gives the services their further names, and says what is lost.
pub(crate) fn join(
    declared: &BTreeMap<String, Place>,
    mut members: Vec<Member>,
    report: &mut Report,
) -> Vec<Draft> {
    apart(declared, &members, report);
    for member in &mut members {
        for alias in std::mem::take(&mut member.joined.aliases) {
            add_alias(&mut member.draft, &alias.value, &alias.place, report);
        }
    }
    let links: Vec<Link> = members
        .iter_mut()
        .flat_map(|member| std::mem::take(&mut member.links))
        .collect();
    let index: BTreeMap<String, usize> = members
        .iter()
        .enumerate()
        .map(|(index, member)| (member.draft.spec.name.to_string(), index))
        .collect();
    for link in links {
        let Some(index) = index.get(&link.service) else {
            let message = format!(
                "\"links\" names {:?}, which is no service of this file that is run",
                cut(&link.service)
            );
            report.error(&link.place, message);
            continue;
        };
        if let Some(alias) = &link.alias {
            add_alias(&mut members[*index].draft, alias, &link.place, report);
            let message = format!(
                "the link's name {:?} leads to {:?} for every service of the app, not only for this one",
                cut(alias),
                cut(&link.service)
            );
            report.warn(&link.place, message);
        }
    }
    container_names(&mut members, report);
    members.into_iter().map(|member| member.draft).collect()
}

/// Gives services the names of their containers, where these can be host names and are nobody else's.
fn container_names(members: &mut [Member], report: &mut Report) {
    let mut taken: BTreeSet<ServiceName> = members
        .iter()
        .map(|member| &member.draft.spec)
        .flat_map(|spec| spec.aliases.iter().chain([&spec.name]))
        .cloned()
        .collect();
    for member in members {
        let Some(given) = member.container_name.take() else {
            continue;
        };
        let spec = &member.draft.spec;
        let name = ServiceName::new(&given.value);
        if name
            .as_ref()
            .is_ok_and(|name| spec.name == *name || spec.aliases.contains(name))
        {
            continue;
        }
        match name {
            Ok(name) if taken.insert(name.clone()) => {
                member.draft.spec.aliases.push(name);
                member.draft.aliases_at.push(given.place);
            }
            Ok(_) | Err(_) => {
                let message = format!(
                    "\"container_name\" in service {:?} is ignored: a replica has a name of its own, and {:?} is no host name that is free",
                    spec.name.as_str(),
                    cut(&given.value)
                );
                report.warn(&given.place, message);
            }
        }
    }
}

fn add_alias(draft: &mut Draft, alias: &str, place: &Place, report: &mut Report) {
    match ServiceName::new(alias) {
        Ok(alias) if alias == draft.spec.name || draft.spec.aliases.contains(&alias) => {}
        Ok(alias) => {
            draft.spec.aliases.push(alias);
            draft.aliases_at.push(place.clone());
        }
        Err(_) => report.error(place, not_a_label("further", alias)),
    }
}

/// Says what is lost where all services share one network: an error where two of them were to be kept apart.
fn apart(declared: &BTreeMap<String, Place>, members: &[Member], report: &mut Report) {
    let mut sets: BTreeMap<BTreeSet<&str>, &Member> = BTreeMap::new();
    for member in members {
        for (name, place) in &member.joined.names {
            if name != DEFAULT && !declared.contains_key(name) {
                let message = format!(
                    "the network {:?} is not declared: name it under \"networks\" at the top of the Compose file",
                    cut(name)
                );
                report.error(place, message);
            }
        }
        let mut set: BTreeSet<&str> = member.joined.names.keys().map(String::as_str).collect();
        if set.is_empty() {
            set.insert(DEFAULT);
        }
        sets.entry(set).or_insert(member);
    }
    let all: Vec<_> = sets.iter().collect();
    if let Some((_, member)) = all.get(MAX_SETS) {
        let message =
            format!("the services are in more than {MAX_SETS} different sets of networks");
        report.error(&member.draft.place, message);
        return;
    }
    for (index, (set, member)) in all.iter().enumerate() {
        let Some((_, other)) = all[..index]
            .iter()
            .find(|(other, _)| set.is_disjoint(other))
        else {
            continue;
        };
        let place = member
            .joined
            .names
            .values()
            .next()
            .unwrap_or(&member.draft.place);
        let message = format!(
            "the services {:?} and {:?} share no network, and so must not reach each other: several networks in one app are not supported yet, all its services share one",
            member.draft.spec.name.as_str(),
            other.draft.spec.name.as_str()
        );
        report.error(place, message);
        return;
    }
    let own: Vec<(&String, &Place)> = declared
        .iter()
        .filter(|(name, _)| *name != DEFAULT)
        .collect();
    if let Some((_, place)) = own.first() {
        let names: Vec<String> = own
            .iter()
            .map(|(name, _)| format!("{:?}", cut(name)))
            .collect();
        let message = format!(
            "the app has one network, whatever it is called: {}: all of its services share it, and no other app reaches it",
            cut(&names.join(", "))
        );
        report.warn(place, message);
    }
}
