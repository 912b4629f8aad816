//! `build`: where and how an image is built.

use std::collections::BTreeMap;

use layby_model::spec::{BuildAgent, BuildSecret, BuildSpec};

use crate::compose::files::Source;
use crate::compose::image::platform;
use crate::compose::pairs;
use crate::compose::project::Project;
use crate::fields::{Expected, Fields, parsed};
use crate::report::Report;
use crate::tree::{Node, Value, cut};

/// Keys without which the build would fail, or be another one.
const REFUSED: [(&str, &str); 1] = [("entitlements", "the build would fail without them")];

/// A build, and what it says that concerns the service, too.
#[derive(Debug)]
pub(crate) struct Build {
    pub(crate) spec: BuildSpec,
    /// The one platform that it names.
    pub(crate) platform: Option<String>,
}

/// Reads `build`, the context alone or a map.
pub(crate) fn read(
    node: Node,
    service: &str,
    project: &Project<'_>,
    report: &mut Report,
) -> Option<Build> {
    if matches!(node.value, Value::Scalar { .. }) {
        let name = format!("\"build\" in {service}");
        return Some(Build {
            spec: BuildSpec::new(&parsed(&node, &name, report, folder)?),
            platform: None,
        });
    }
    let mut build = Fields::open(node, format!("build of {service}"), report)?;
    let context = build.parsed("context", report, folder);
    let inline_at = build.place_of("dockerfile_inline");
    let spec = BuildSpec {
        dockerfile: build.text("dockerfile", report),
        dockerfile_inline: build.text("dockerfile_inline", report),
        args: args(&mut build, project, report),
        target: build.text("target", report),
        secrets: secrets(&mut build, project, report),
        ssh: agents(&mut build, report),
        contexts: contexts(&mut build, report),
        labels: labels(&mut build, report),
        network: build.parsed("network", report, network),
        no_cache: build.flag("no_cache", report).unwrap_or(false),
        tags: build.texts("tags", report).unwrap_or_default(),
        ..BuildSpec::new(context.as_deref().unwrap_or("."))
    };
    if let (Some(place), Some(_), Some(_)) = (inline_at, &spec.dockerfile, &spec.dockerfile_inline)
    {
        let message = format!(
            "{} has both \"dockerfile\" and \"dockerfile_inline\": one is enough",
            build.what
        );
        report.error(&place, message);
    }
    let platform = platforms(&mut build, report);
    build.refuse(&REFUSED, report);
    // Where to cache changes nothing in the image.
    build.accept(&["cache_from", "cache_to"]);
    build.accept_extensions();
    for key in ["privileged", "pull", "provenance", "sbom"] {
        if let Some(entry) = build.entry(key)
            && entry.value.scalar() != Some("false")
        {
            build.put_back(entry);
        }
    }
    build.unsupported(
        &[
            "extra_hosts",
            "isolation",
            "privileged",
            "provenance",
            "pull",
            "sbom",
            "shm_size",
            "ulimits",
        ],
        report,
    );
    build.finish(report);
    Some(Build { spec, platform })
}

/// A context is a folder: there is no git here to fetch one.
fn folder(text: &str) -> Result<String, Expected> {
    if text.contains("://") || text.starts_with("git@") {
        return Err("a folder (a context cannot be fetched yet)".to_owned());
    }
    Ok(if text.is_empty() { "." } else { text }.to_owned())
}

fn args(
    build: &mut Fields,
    project: &Project<'_>,
    report: &mut Report,
) -> BTreeMap<String, String> {
    let name = build.name("args");
    let mut args = BTreeMap::new();
    if let Some(node) = build.take("args") {
        pairs::variables(node, &name, project.variables, &mut args, report);
    }
    args
}

fn labels(build: &mut Fields, report: &mut Report) -> BTreeMap<String, String> {
    let name = build.name("labels");
    build
        .take("labels")
        .map(|node| pairs::labels(node, &name, report))
        .unwrap_or_default()
}

/// `additional_contexts`: a map, or a list of `NAME=CONTEXT`.
fn contexts(build: &mut Fields, report: &mut Report) -> BTreeMap<String, String> {
    let name = build.name("additional_contexts");
    let Some(node) = build.take("additional_contexts") else {
        return BTreeMap::new();
    };
    let mut contexts = BTreeMap::new();
    for pair in pairs::list(node, &name, report) {
        let value = pair.value.unwrap_or_default();
        let is_image = value.starts_with("docker-image://");
        let is_other = value.contains("://") || value.starts_with("service:");
        if value.is_empty() || is_other && !is_image || value.starts_with("git@") {
            let message = format!(
                "{:?} of {name} must be a folder or docker-image://IMAGE, not {:?}",
                cut(&pair.key),
                cut(&value)
            );
            report.error(&pair.place, message);
            continue;
        }
        contexts.insert(pair.key, value);
    }
    contexts
}

/// `ssh`: a map, or a list of `ID` and `ID=PATH`.
fn agents(build: &mut Fields, report: &mut Report) -> Vec<BuildAgent> {
    let name = build.name("ssh");
    let Some(node) = build.take("ssh") else {
        return Vec::new();
    };
    let pairs = pairs::list(node, &name, report).into_iter();
    let agents = pairs.map(|pair| BuildAgent {
        id: pair.key,
        source: pair.value.filter(|path| !path.is_empty()),
    });
    agents.collect()
}

/// `secrets`: names of those at the top, or maps of `source` and the name in the build.
fn secrets(build: &mut Fields, project: &Project<'_>, report: &mut Report) -> Vec<BuildSecret> {
    let item_name = format!("an item of {}", build.name("secrets"));
    let mut secrets = Vec::new();
    for item in build.list("secrets", report).unwrap_or_default() {
        let place = item.place.clone();
        let (source, id) = match item.value {
            Value::Map(_) => {
                let Some(mut fields) = Fields::open(item, item_name.as_str(), report) else {
                    continue;
                };
                let source = fields.text("source", report);
                let target = fields.text("target", report);
                // Which rights its file has in the build: the one who reads it is root there.
                fields.unsupported(&["gid", "mode", "uid"], report);
                fields.accept_extensions();
                fields.finish(report);
                let Some(source) = source else {
                    report.error(&place, format!("{item_name} has no \"source\""));
                    continue;
                };
                let id = target.unwrap_or_else(|| source.clone());
                (source, id)
            }
            _ => match parsed(&item, &item_name, report, |text| Ok(text.to_owned())) {
                Some(source) => (source.clone(), source),
                None => continue,
            },
        };
        let (file, env) = match project.secrets.get(&source) {
            Some(Source::File(file)) => (Some(file.clone()), None),
            Some(Source::Environment(variable)) => (None, Some(variable.clone())),
            Some(Source::Content(_) | Source::External(_)) => {
                let message = format!(
                    "a build cannot read the secret {:?}: give it a \"file\" or an \"environment\"",
                    cut(&source)
                );
                report.error(&place, message);
                continue;
            }
            Some(Source::Wrong) => continue,
            None => {
                let message = format!(
                    "the secret {:?} is not declared: name it under \"secrets\" at the top of the Compose file",
                    cut(&source)
                );
                report.error(&place, message);
                continue;
            }
        };
        secrets.push(BuildSecret { id, file, env });
    }
    secrets
}

fn network(text: &str) -> Result<String, Expected> {
    match text {
        "default" | "none" | "host" => Ok(text.to_owned()),
        _ => Err("default, none or host".to_owned()),
    }
}

/// `platforms`: one is built.
fn platforms(build: &mut Fields, report: &mut Report) -> Option<String> {
    let place = build.place_of("platforms")?;
    let platforms = build.parsed_list("platforms", report, platform);
    if platforms.len() > 1 {
        let message = format!(
            "{} names several: the first is built",
            build.name("platforms")
        );
        report.warn(&place, message);
    }
    platforms.into_iter().next()
}
