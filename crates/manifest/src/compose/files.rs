//! The top-level `secrets` and `configs`, and the files that services have of them: in memory, and only to be read. What is
//! in them comes with the manifest and is kept encrypted; builds read secrets of their own.

use std::collections::{BTreeMap, BTreeSet};

use layby_model::mounts::{Mount, MountSource};
use layby_model::secret::{
    MAX_VALUE_BYTES, Scope, SecretRef, SecretValue, ValueFile, ValueKind, ValueSource,
    is_value_name,
};

use crate::compose::project::Project;
use crate::compose::tmpfs;
use crate::compose::volumes::external;
use crate::draft::Placed;
use crate::fields::{Fields, parsed};
use crate::mount::target;
use crate::report::Report;
use crate::tree::{Node, Place, Value, cut};
use crate::value::DeclaredValue;

/// The mode of a file for which none is said, as Docker's.
const MODE: u32 = 0o444;

/// Where a secret or config comes from.
#[derive(Debug)]
pub(crate) enum Source {
    /// A file on the caller's side.
    File(String),
    /// A variable of the caller's.
    Environment(String),
    /// It stands in the Compose file itself.
    Content(String),
    /// The node has one of this name.
    External(String),
    /// It is not right, as the report says.
    Wrong,
}

/// The secrets and configs that services have files of, each with where it was first asked for.
pub(crate) type Used = BTreeMap<(ValueKind, String), Place>;

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
            Some(fields) => source(fields, &entry.key, &entry.place, report),
            None => Source::Wrong,
        };
        sources.insert(entry.key, source);
    }
    sources
}

fn source(mut fields: Fields, key: &str, place: &Place, report: &mut Report) -> Source {
    let file = fields.text("file", report).filter(|file| !file.is_empty());
    let variable = fields
        .text("environment", report)
        .filter(|name| !name.is_empty());
    let content = fields.text("content", report);
    let name = fields.text("name", report);
    let external = external(&mut fields, report);
    let is_external = external.is_some();
    let is_driven = fields.has("driver");
    fields.refuse(&[("driver", "name a \"file\"")], report);
    fields.accept(&["labels"]);
    fields.unsupported(&["driver_opts", "template_driver"], report);
    fields.accept_extensions();
    let what = fields.what.clone();
    fields.finish(report);
    let older = external.and_then(|external| external.name);
    let name = name.or(older).unwrap_or_else(|| key.to_owned());
    if !is_value_name(&name) {
        let message = format!(
            "{what} cannot be called {:?}: use up to 253 letters, digits, '_', '.' and '-', not beginning with a point",
            cut(&name)
        );
        report.error(place, message);
        return Source::Wrong;
    }
    match (file, variable, content, is_external) {
        (Some(file), None, None, false) => Source::File(file),
        (None, Some(variable), None, false) => Source::Environment(variable),
        (None, None, Some(content), false) => Source::Content(content),
        (None, None, None, true) => Source::External(name),
        // Said above.
        _ if is_driven => Source::Wrong,
        _ => {
            let message = format!(
                "{what} must have one of \"file\", \"environment\", \"content\" and \"external: true\""
            );
            report.error(place, message);
            Source::Wrong
        }
    }
}

/// Where the files of the secrets are on the machine that the Compose file lies on.
pub(crate) fn secret_paths(project: &Project<'_>) -> BTreeSet<String> {
    let path = |source: &Source| match source {
        Source::File(file) => project.path(file).ok(),
        Source::Environment(_) | Source::Content(_) | Source::External(_) | Source::Wrong => None,
    };
    project.secrets.values().filter_map(path).collect()
}

/// Takes `secrets` and `configs` off a service. Where no target is said, a secret is below `/run/secrets`, and a config
/// in the root.
pub(crate) fn mounts(
    service: &mut Fields,
    project: &Project<'_>,
    report: &mut Report,
) -> Vec<Placed<Mount>> {
    let mut mounts = Vec::new();
    for (key, kind, folder, sources) in [
        (
            "secrets",
            ValueKind::Secret,
            "/run/secrets",
            &project.secrets,
        ),
        ("configs", ValueKind::Config, "", &project.configs),
    ] {
        let item_name = format!("an item of {}", service.name(key));
        for item in service.list(key, report).unwrap_or_default() {
            let Some(wanted) = wanted(item, &item_name, report) else {
                continue;
            };
            mounts.extend(mount(
                wanted, &item_name, kind, folder, sources, project, report,
            ));
        }
    }
    mounts
}

/// What a service says of a file.
struct Wanted {
    key: String,
    target: Option<String>,
    mode: u32,
    uid: u32,
    gid: u32,
    place: Place,
}

fn wanted(item: Node, name: &str, report: &mut Report) -> Option<Wanted> {
    let place = item.place.clone();
    let mut wanted = Wanted {
        key: String::new(),
        target: None,
        mode: MODE,
        uid: 0,
        gid: 0,
        place,
    };
    if !matches!(item.value, Value::Map(_)) {
        wanted.key = parsed(&item, name, report, |text| Ok(text.to_owned()))?;
        return Some(wanted);
    }
    let mut fields = Fields::open(item, name, report)?;
    let key = fields.text("source", report);
    wanted.target = fields.text("target", report);
    let id = |text: &str| match text.parse::<u32>() {
        Ok(id) => Ok(id),
        Err(_) => Err("the number of a user or group".to_owned()),
    };
    wanted.uid = fields.parsed("uid", report, id).unwrap_or(0);
    wanted.gid = fields.parsed("gid", report, id).unwrap_or(0);
    let mode_name = fields.name("mode");
    if let Some(node) = fields.take("mode") {
        wanted.mode = mode(&node, &mode_name, report).unwrap_or(MODE);
    }
    fields.accept_extensions();
    fields.finish(report);
    if key.is_none() {
        report.error(&wanted.place, format!("{name} has no \"source\""));
    }
    wanted.key = key?;
    Some(wanted)
}

/// A mode: octal in quotes or with a 0 before it; else the decimal number that it is in YAML, as which older Composes write it
/// out (`0400`: 256).
fn mode(node: &Node, name: &str, report: &mut Report) -> Option<u32> {
    let is_plain = matches!(node.value, Value::Scalar { plain: true, .. });
    let is_decimal = |text: &str| is_plain && !text.starts_with('0');
    let mode = parsed(node, name, report, |text| match is_decimal(text) {
        true => match text.parse() {
            Ok(mode @ 0..=0o7777) => Ok(mode),
            Ok(_) | Err(_) => Err("a mode in octal digits behind a 0, such as 0440".to_owned()),
        },
        false => tmpfs::mode(text),
    })?;
    let text = node.scalar().unwrap_or_default();
    if is_decimal(text) && !text.contains(['8', '9']) {
        let message = format!(
            "{name} is the decimal number that it is in YAML, {mode:04o} in octal: write 0{text} if its digits are octal"
        );
        report.warn(&node.place, message);
    }
    Some(mode)
}

fn mount(
    wanted: Wanted,
    name: &str,
    kind: ValueKind,
    folder: &str,
    sources: &BTreeMap<String, Source>,
    project: &Project<'_>,
    report: &mut Report,
) -> Option<Placed<Mount>> {
    let Wanted {
        key,
        target: path,
        mode,
        uid,
        gid,
        place,
    } = wanted;
    let Some(source) = sources.get(&key) else {
        let message = format!(
            "{name} names {:?}, which the top of the Compose file does not declare",
            cut(&key)
        );
        report.error(&place, message);
        return None;
    };
    let (name_of, scope) = match source {
        Source::File(_) | Source::Environment(_) | Source::Content(_) => {
            let mut used = project.used.borrow_mut();
            used.entry((kind, key.clone()))
                .or_insert_with(|| place.clone());
            (key.clone(), Some(Scope::App))
        }
        // Those of the node are all secrets: a config from elsewhere is one, too.
        Source::External(name) => (name.clone(), None),
        Source::Wrong => return None,
    };
    let path = path.unwrap_or_else(|| key.clone());
    let path = match path.starts_with('/') {
        true => path,
        false => format!("{folder}/{path}"),
    };
    let target = match target(&path) {
        Ok(target) => target,
        Err(expected) => {
            report.error(&place, format!("{name} must name {expected}"));
            return None;
        }
    };
    let named = SecretRef {
        kind: match scope {
            Some(_) => kind,
            None => ValueKind::Secret,
        },
        scope,
        ..SecretRef::new(&name_of)
    };
    let file = ValueFile {
        path: String::new(),
        content: ValueSource::Secret(named),
        mode,
        uid,
        gid,
    };
    Some(Placed {
        value: Mount {
            source: MountSource::Files {
                files: vec![file],
                groups: Vec::new(),
            },
            target,
            read_only: true,
        },
        place,
    })
}

/// What is in the secrets and configs that services have files of, and the files that have to be read for it.
pub(crate) fn values(
    project: &Project<'_>,
    report: &mut Report,
) -> (Vec<DeclaredValue>, Vec<String>) {
    let (mut values, mut named_files) = (Vec::new(), Vec::new());
    for ((kind, key), place) in project.used.borrow().iter() {
        let (what, sources) = match kind {
            ValueKind::Secret => ("secret", &project.secrets),
            ValueKind::Config => ("config", &project.configs),
        };
        let is_declared = !matches!(sources.get(key), Some(Source::External(_) | Source::Wrong));
        if *kind == ValueKind::Secret && project.options.secrets_apart && is_declared {
            values.push(DeclaredValue {
                kind: *kind,
                name: key.clone(),
                value: SecretValue::new(Vec::new()),
            });
            continue;
        }
        let missing = |text: String, report: &mut Report| {
            report.error(place, format!("the {what} {:?} {text}", cut(key)));
        };
        let bytes = match sources.get(key) {
            Some(Source::Content(text)) => text.clone().into_bytes(),
            Some(Source::Environment(variable)) => match project.variables.get(variable) {
                Some(value) => value.clone().into_bytes(),
                None => {
                    let text = format!("is the variable {:?}, which is not set", cut(variable));
                    missing(text, report);
                    continue;
                }
            },
            Some(Source::File(file)) => {
                let path = project.at_home(file);
                let known = project.named_files;
                let found = known.map(|files| files.get(&path).cloned());
                let shown = cut(file);
                named_files.push(path);
                match found {
                    Some(Some(bytes)) => bytes,
                    Some(None) => {
                        missing(
                            format!("is in the file {shown:?}, which is not there"),
                            report,
                        );
                        continue;
                    }
                    // It is not known yet.
                    None => continue,
                }
            }
            Some(Source::External(_) | Source::Wrong) | None => continue,
        };
        if bytes.len() > MAX_VALUE_BYTES {
            let text = format!("is larger than {} KiB", MAX_VALUE_BYTES >> 10);
            missing(text, report);
            continue;
        }
        values.push(DeclaredValue {
            kind: *kind,
            name: key.clone(),
            value: SecretValue::new(bytes),
        });
    }
    (values, named_files)
}
