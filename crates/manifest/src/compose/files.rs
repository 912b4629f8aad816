//! The top-level `secrets` and `configs`, and the files that services have of them: a file of the machine, mounted so
//! that it can only be read. Builds may read secrets that are variables, too.

use std::collections::BTreeMap;

use layby_model::mounts::{Mount, MountSource};

use crate::compose::project::Project;
use crate::draft::Placed;
use crate::fields::{Fields, parsed};
use crate::mount::target;
use crate::report::Report;
use crate::tree::{Node, Place, Value, cut};

/// Where a secret or config comes from, on the caller's side.
#[derive(Debug)]
pub(crate) enum Source {
    File(String),
    Environment(String),
    /// It stands in the Compose file itself.
    Content,
    /// It is not right, as the report says.
    Wrong,
}

/// Takes `secrets` or `configs` off the top of a Compose file.
pub(crate) fn declared(
    top: &mut Fields,
    key: &'static str,
    report: &mut Report,
) -> BTreeMap<String, Source> {
    let Some(mut map) = top.map(key, report) else {
        return BTreeMap::new();
    };
    map.accept_extensions();
    let one = key.trim_end_matches('s');
    let mut sources = BTreeMap::new();
    for entry in map.rest() {
        let what = format!("the {one} {:?}", cut(&entry.key));
        let source = match Fields::open(entry.value, what, report) {
            Some(fields) => source(fields, &entry.place, report),
            None => Source::Wrong,
        };
        sources.insert(entry.key, source);
    }
    sources
}

fn source(mut fields: Fields, place: &Place, report: &mut Report) -> Source {
    let is_outside = ["driver", "external"].iter().any(|key| fields.has(key));
    let file = fields.text("file", report).filter(|file| !file.is_empty());
    let variable = fields
        .text("environment", report)
        .filter(|name| !name.is_empty());
    let content = fields.text("content", report);
    fields.refuse(
        &[
            ("driver", "name a \"file\""),
            ("external", "name a \"file\""),
        ],
        report,
    );
    fields.accept(&["labels", "name"]);
    fields.unsupported(&["driver_opts", "template_driver"], report);
    fields.accept_extensions();
    let what = fields.what.clone();
    fields.finish(report);
    match (file, variable, content) {
        (Some(file), None, None) => Source::File(file),
        (None, Some(variable), None) => Source::Environment(variable),
        (None, None, Some(_)) => Source::Content,
        // Said above.
        _ if is_outside => Source::Wrong,
        _ => {
            let message = format!("{what} must have one of \"file\" and \"environment\"");
            report.error(place, message);
            Source::Wrong
        }
    }
}

/// Takes `secrets` and `configs` off a service. Where no target is said, a secret is below `/run/secrets`, and a config
/// in the root.
pub(crate) fn mounts(
    service: &mut Fields,
    project: &Project<'_>,
    report: &mut Report,
) -> Vec<Placed<Mount>> {
    let mut mounts = Vec::new();
    for (key, folder, sources) in [
        ("secrets", "/run/secrets", &project.secrets),
        ("configs", "", &project.configs),
    ] {
        let item_name = format!("an item of {}", service.name(key));
        for item in service.list(key, report).unwrap_or_default() {
            mounts.extend(mount(item, &item_name, folder, sources, project, report));
        }
    }
    mounts
}

fn mount(
    item: Node,
    name: &str,
    folder: &str,
    sources: &BTreeMap<String, Source>,
    project: &Project<'_>,
    report: &mut Report,
) -> Option<Placed<Mount>> {
    let place = item.place.clone();
    let (key, path) = match item.value {
        Value::Map(_) => {
            let mut fields = Fields::open(item, name, report)?;
            let key = fields.text("source", report);
            let path = fields.text("target", report);
            // A file of the machine is as it is there.
            fields.unsupported(&["gid", "mode", "uid"], report);
            fields.accept_extensions();
            fields.finish(report);
            if key.is_none() {
                report.error(&place, format!("{name} has no \"source\""));
            }
            (key?, path)
        }
        _ => (
            parsed(&item, name, report, |text| Ok(text.to_owned()))?,
            None,
        ),
    };
    let Some(source) = sources.get(&key) else {
        let message = format!(
            "{name} names {:?}, which the top of the Compose file does not declare",
            cut(&key)
        );
        report.error(&place, message);
        return None;
    };
    let file = match source {
        Source::File(file) => file,
        Source::Environment(_) | Source::Content => {
            let message = format!(
                "{name} names {:?}, which is no file: that is not supported yet, write it into a \"file\"",
                cut(&key)
            );
            report.error(&place, message);
            return None;
        }
        Source::Wrong => return None,
    };
    let path = path.unwrap_or_else(|| key.clone());
    let path = match path.starts_with('/') {
        true => path,
        false => format!("{folder}/{path}"),
    };
    let read = target(&path).and_then(|target| Ok((target, project.path(file)?)));
    let (target, path) = match read {
        Ok(read) => read,
        Err(expected) => {
            report.error(&place, format!("{name} must name {expected}"));
            return None;
        }
    };
    Some(Placed {
        value: Mount {
            source: MountSource::Bind {
                path,
                create: false,
                recursive: false,
            },
            target,
            read_only: true,
        },
        place,
    })
}
