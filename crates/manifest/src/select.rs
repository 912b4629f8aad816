//! Which services are asked for by name (`up SERVICE...`), and how many replicas some of them get (`--scale`).

use std::collections::BTreeSet;

use layby_model::names::ServiceName;
use layby_model::spec::REPLICAS_MAX;

use crate::discover::{self, Found};
use crate::draft::{AppDraft, Draft, label_of};
use crate::fields::similar;
use crate::kubernetes::is_workload;
use crate::report::Report;
use crate::tree::{Node, Place, Value, cut};
use crate::{Files, ReadOptions};

/// So many names are told of where none is alike.
const TOLD: usize = 8;

/// Leaves the services in the draft that were asked for, with as many replicas as were asked for. Gives the names of the
/// others, and of those whose replicas were.
pub(crate) fn split(
    draft: &mut AppDraft,
    options: &ReadOptions,
    report: &mut Report,
) -> (Vec<ServiceName>, BTreeSet<ServiceName>) {
    if report.failed() {
        return Default::default(); // then nothing is handed out
    }
    let chosen = match draft.chosen.take() {
        Some(chosen) => chosen,
        None => by_name(&draft.services, options, report),
    };
    let is_chosen = |one: &Draft| options.services.is_empty() || chosen.contains(&one.spec.name);
    let services = std::mem::take(&mut draft.services).into_iter();
    let (services, others): (Vec<Draft>, Vec<Draft>) = services.partition(is_chosen);
    draft.services = services;
    let others = others.into_iter().map(|one| one.spec.name);
    let others: Vec<ServiceName> = others.chain(std::mem::take(&mut draft.left_out)).collect();
    let scaled = scale(draft, &others, options, report);
    (others, scaled)
}

/// The workloads of these names, and what they need. One whose pods are services of their own means all of them.
fn by_name(
    services: &[Draft],
    options: &ReadOptions,
    report: &mut Report,
) -> BTreeSet<ServiceName> {
    let mut chosen = BTreeSet::new();
    for name in &options.services {
        // As the manifest has it, too.
        let label = label_of(name).unwrap_or_default();
        let is_it =
            |one: &&Draft| one.spec.name.as_str() == name || one.spec.name.as_str() == label;
        let is_pod = |one: &&Draft| is_pod_of(one, name) || is_pod_of(one, &label);
        let mut found: Vec<&Draft> = services.iter().filter(is_it).collect();
        if found.is_empty() {
            found = services.iter().filter(is_pod).collect();
        }
        if found.is_empty() {
            let known: Vec<&str> = services.iter().map(|one| one.spec.name.as_str()).collect();
            unknown(name, &known, report);
        }
        chosen.extend(found.into_iter().map(|one| one.spec.name.clone()));
    }
    loop {
        let needed = services
            .iter()
            .filter(|one| chosen.contains(&one.spec.name));
        let needed = needed.flat_map(|one| one.spec.depends_on.iter().map(|need| &need.service));
        let more: Vec<ServiceName> = needed
            .filter(|name| !chosen.contains(*name))
            .cloned()
            .collect();
        if options.no_deps || more.is_empty() {
            break;
        }
        chosen.extend(more);
    }
    chosen
}

/// Whether it is a pod of the StatefulSet of this name.
fn is_pod_of(one: &Draft, name: &str) -> bool {
    one.spec
        .pod_of
        .as_ref()
        .is_some_and(|set| set.as_str() == name)
}

/// Says that no service has a name that was asked for.
pub(crate) fn unknown(name: &str, known: &[&str], report: &mut Report) {
    let letters = |word: &str| {
        let mut letters: Vec<char> = word.chars().collect();
        letters.sort_unstable();
        letters
    };
    // Two that changed places are one slip, too.
    let swapped = || {
        known
            .iter()
            .find(|known| letters(known) == letters(name))
            .copied()
    };
    let instead = match (similar(name, known).or_else(swapped), known) {
        (Some(near), _) => format!("did you mean {near:?}?"),
        (None, []) => "it has none".to_owned(),
        (None, few) if few.len() <= TOLD => format!("it has {}", few.join(", ")),
        (None, many) => {
            let (told, more) = (many[..TOLD].join(", "), many.len() - TOLD);
            format!("it has {told} and {more} more")
        }
    };
    let message = format!(
        "no service of the manifest is called {:?}: {instead}",
        cut(name)
    );
    report.error(&Place::whole(""), message);
}

/// Gives services as many replicas as were asked for, and says which.
fn scale(
    draft: &mut AppDraft,
    others: &[ServiceName],
    options: &ReadOptions,
    report: &mut Report,
) -> BTreeSet<ServiceName> {
    let nowhere = Place::whole("");
    let mut scaled = BTreeSet::new();
    for (name, &replicas) in &options.scale {
        let label = label_of(name).unwrap_or_default();
        let is_it = |known: &ServiceName| known.as_str() == name || known.as_str() == label;
        if !draft.services.iter().any(|one| is_it(&one.spec.name))
            && draft.services.iter().any(|one| is_pod_of(one, name))
        {
            let message = format!(
                "{:?} cannot get {replicas} replicas: it is a StatefulSet, each pod of which is a service: set its \"replicas\" in the manifest",
                cut(name)
            );
            report.error(&nowhere, message);
            continue;
        }
        let Some(one) = draft.services.iter_mut().find(|one| is_it(&one.spec.name)) else {
            if others.iter().any(is_it) {
                let message = format!(
                    "{:?} is scaled, and is none of the services that are asked for",
                    cut(name)
                );
                report.error(&nowhere, message);
                continue;
            }
            let known = draft
                .services
                .iter()
                .map(|one| &one.spec.name)
                .chain(others);
            let known: Vec<&str> = known.map(ServiceName::as_str).collect();
            unknown(name, &known, report);
            continue;
        };
        let wrong = match () {
            () if one.spec.job.is_some() => Some("it is a job, which has no replicas".to_owned()),
            () if one.spec.autoscale.is_some() => Some(
                "it is scaled by what it has to do; `layby scale` gives it a number all the same"
                    .to_owned(),
            ),
            () if one.spec.pod_of.is_some() && replicas > 1 => Some(
                "it is a pod of a StatefulSet: set the \"replicas\" of that in the manifest"
                    .to_owned(),
            ),
            () if replicas > REPLICAS_MAX => {
                Some(format!("a service can have up to {REPLICAS_MAX} replicas"))
            }
            () => None,
        };
        match wrong {
            Some(why) => {
                let message = format!("{:?} cannot get {replicas} replicas: {why}", cut(name));
                report.error(&nowhere, message);
            }
            None => {
                one.spec.replicas = replicas;
                scaled.insert(one.spec.name.clone());
            }
        }
    }
    scaled
}

/// The names that services have in a manifest's own files, however much is wrong with them: those of files that it
/// includes are not among them.
pub fn service_names(files: &Files, options: &ReadOptions) -> Vec<String> {
    let mut names = Vec::new();
    match discover::find(files, options, &mut Report::default()) {
        Found::Compose(found) => {
            for document in found.iter().flat_map(|file| &file.documents) {
                if let Some(Value::Map(services)) = document.get("services").map(|node| &node.value)
                {
                    names.extend(services.iter().map(|entry| entry.key.clone()));
                }
            }
        }
        Found::Kubernetes(found) => {
            for document in found.iter().flat_map(|file| &file.documents) {
                let kind = document.get("kind").and_then(Node::scalar);
                let name = document.get("metadata").and_then(|data| data.get("name"));
                if kind.is_some_and(is_workload) {
                    names.extend(name.and_then(Node::scalar).map(str::to_owned));
                }
            }
        }
        Found::Nothing => {}
    }
    names
}
