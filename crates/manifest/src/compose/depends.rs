//! `depends_on`: which services of the file a service waits for, and until when.

use std::collections::BTreeMap;

use layby_model::names::ServiceName;
use layby_model::spec::{Condition, Dependency, RestartPolicy};

use crate::compose::networks::Member;
use crate::fields::{Expected, Fields, one_or_more};
use crate::report::Report;
use crate::tree::{Node, Place, Value, cut};

/// Another service, as a service names it.
#[derive(Debug)]
pub(crate) struct Need {
    pub(crate) service: String,
    pub(crate) place: Place,
    pub(crate) condition: Condition,
    required: bool,
    restart: bool,
    /// It only links to it, and what is wrong with that is said there.
    implied: bool,
}

/// Takes `depends_on` off a service: a list of names, or a map of names to conditions.
pub(crate) fn read(service: &mut Fields, report: &mut Report) -> Vec<Need> {
    let name = service.name("depends_on");
    let Some(node) = service.take("depends_on") else {
        return Vec::new();
    };
    match node.value {
        Value::Map(entries) => entries
            .into_iter()
            .filter_map(|entry| long(&entry.key, entry.place, entry.value, &name, report))
            .collect(),
        Value::Null | Value::Scalar { .. } | Value::List(_) => {
            let names = one_or_more(node, &name, report).into_iter();
            names
                .map(|name| started(&name.value, &name.place, false))
                .collect()
        }
    }
}

/// The short form: it is to be started before.
pub(crate) fn started(service: &str, place: &Place, implied: bool) -> Need {
    Need {
        service: service.to_owned(),
        place: place.clone(),
        condition: Condition::Started,
        required: true,
        restart: false,
        implied,
    }
}

fn long(key: &str, place: Place, node: Node, name: &str, report: &mut Report) -> Option<Need> {
    let mut fields = Fields::open(node, format!("{:?} in {name}", cut(key)), report)?;
    let condition = fields.parsed("condition", report, condition);
    let required = fields.flag("required", report).unwrap_or(true);
    let restart = fields.flag("restart", report).unwrap_or(false);
    fields.accept_extensions();
    fields.finish(report);
    Some(Need {
        service: key.to_owned(),
        place,
        condition: condition.unwrap_or(Condition::Started),
        required,
        restart,
        implied: false,
    })
}

fn condition(text: &str) -> Result<Condition, Expected> {
    match text {
        "service_started" => Ok(Condition::Started),
        "service_healthy" => Ok(Condition::Healthy),
        "service_completed_successfully" => Ok(Condition::Completed),
        _ => Err("service_started, service_healthy or service_completed_successfully".to_owned()),
    }
}

/// Gives the services what they wait for, and refuses what could never come about. `left_out`: services that are not run, each
/// with the profile that would switch it on.
pub(crate) fn join(
    members: &mut [Member],
    left_out: &BTreeMap<String, String>,
    report: &mut Report,
) {
    let index: BTreeMap<String, usize> = members
        .iter()
        .enumerate()
        .map(|(index, member)| (member.key.clone(), index))
        .collect();
    let mut places: Vec<Vec<Place>> = Vec::new();
    for at in 0..members.len() {
        places.push(Vec::new());
        let needs = std::mem::take(&mut members[at].needs);
        for need in needs {
            let owner = members[at].draft.spec.name.clone();
            let Some(&other) = index.get(&need.service) else {
                unknown(&need, &owner, left_out.get(&need.service), report);
                continue;
            };
            let job = |at: usize| members[at].draft.spec.job.as_ref();
            let is_job = |at: usize| job(at).is_some();
            let is_scheduled = |at: usize| job(at).is_some_and(|job| job.schedule.is_some());
            if need.implied && (other == at || is_job(other) || is_job(at)) {
                continue; // another name for itself, or what runs by the clock
            }
            if is_job(other) {
                let why = match is_scheduled(other) {
                    true => "it runs when its schedule says, and nothing waits for it",
                    false => {
                        "nothing waits for one; a service with restart: \"no\", without the \"mode\" in deploy, can be waited for"
                    }
                };
                let message = format!(
                    "service {:?} depends on {:?}, which is a job: {why}",
                    owner.as_str(),
                    cut(&need.service)
                );
                report.error(&need.place, message);
                continue;
            }
            if is_job(at) {
                let when = match is_scheduled(at) {
                    true => "when its schedule says",
                    false => "when it is deployed",
                };
                let message = format!(
                    "job {:?} does not wait for {:?}: it runs {when}",
                    owner.as_str(),
                    cut(&need.service)
                );
                report.warn(&need.place, message);
                continue;
            }
            if need.condition == Condition::Completed {
                completes(&mut members[other], &need, report);
            }
            let name = members[other].draft.spec.name.clone();
            let depends_on = &mut members[at].draft.spec.depends_on;
            if depends_on.iter().all(|known| known.service != name) {
                depends_on.push(Dependency {
                    service: name,
                    condition: need.condition,
                    required: need.required,
                    restart: need.restart,
                });
                places[at].push(need.place);
            }
        }
    }
    cycles(members, &index, &places, report);
}

fn unknown(need: &Need, owner: &ServiceName, profile: Option<&String>, report: &mut Report) {
    let name = cut(&need.service);
    if need.implied {
        return; // that it cannot be linked to is said
    }
    let why = match profile {
        Some(profile) => {
            let profile = cut(profile);
            format!(
                "is left out since it is in the profile {profile:?}: `--profile {profile}` switches it on"
            )
        }
        None => "is no service of this file".to_owned(),
    };
    let owner = owner.as_str();
    match need.required {
        true => {
            let message = format!("service {owner:?} depends on {name:?}, which {why}");
            report.error(&need.place, message);
        }
        false => {
            let message = format!("service {owner:?} does without {name:?}, which {why}");
            report.warn(&need.place, message);
        }
    }
}

/// A service that others wait for to be done: it is not started again when it is, as Compose has it where nothing is said.
fn completes(member: &mut Member, need: &Need, report: &mut Report) {
    let spec = &mut member.draft.spec;
    if !member.restart_said {
        spec.restart = RestartPolicy::Never;
    } else if spec.restart == RestartPolicy::Always {
        let message = format!(
            "{:?} never completes: its \"restart\" starts it again each time; say \"no\" or \"on-failure\" there",
            spec.name.as_str()
        );
        report.error(&need.place, message);
    }
}

/// Reports each circle of services that wait for each other, once.
fn cycles(
    members: &[Member],
    index: &BTreeMap<String, usize>,
    places: &[Vec<Place>],
    report: &mut Report,
) {
    let mut done = vec![false; members.len()];
    for start in 0..members.len() {
        // The way to where it is, and how many of each one's dependencies were gone into.
        let mut way: Vec<(usize, usize)> = vec![(start, 0)];
        while let Some((at, next)) = way.last_mut() {
            let at = *at;
            let depends_on = &members[at].draft.spec.depends_on;
            let Some(dependency) = depends_on.get(*next).filter(|_| !done[at]) else {
                done[at] = true;
                way.pop();
                continue;
            };
            let place = &places[at][*next];
            *next += 1;
            let Some(&to) = index.get(dependency.service.as_str()) else {
                continue;
            };
            if let Some(from) = way.iter().position(|(on_way, _)| *on_way == to) {
                let circle = way[from..].iter().map(|(on_way, _)| *on_way).chain([to]);
                let names: Vec<&str> = circle
                    .map(|at| members[at].draft.spec.name.as_str())
                    .collect();
                let message = format!(
                    "services wait for each other in a circle: {}",
                    names.join(" -> ")
                );
                report.error(place, message);
            } else if !done[to] {
                way.push((to, 0));
            }
        }
    }
}
