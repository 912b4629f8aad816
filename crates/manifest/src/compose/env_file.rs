//! `env_file`: variables from files beside the Compose file, which the caller sends along.

use std::collections::BTreeMap;

use crate::compose::dotenv;
use crate::compose::project::Project;
use crate::fields::{Fields, parsed};
use crate::report::Report;
use crate::tree::{Node, Place, Value, cut};

/// The most files of a service.
const MAX_FILES: usize = 100;

/// The most that the files of all services come to, each counted as often as it is named.
pub(crate) const MAX_ALL_BYTES: usize = 64 << 20;

/// What the files of a service say, and which they are.
#[derive(Debug, Default)]
pub(crate) struct EnvFiles {
    pub(crate) env: BTreeMap<String, String>,
    pub(crate) names: Vec<String>,
}

/// Takes `env_file` off a service: one file or several, a later one over those before it.
pub(crate) fn read(service: &mut Fields, project: &Project<'_>, report: &mut Report) -> EnvFiles {
    let mut read = EnvFiles::default();
    let name = service.name("env_file");
    let nodes = match service
        .take("env_file")
        .map(|node| (node.place, node.value))
    {
        None => return read,
        Some((_, Value::List(items))) => items,
        Some((place, value)) => vec![Node::new(place, value)],
    };
    for node in nodes {
        if read.names.len() >= MAX_FILES {
            report.error(
                &node.place,
                format!("{name} has more than {MAX_FILES} files"),
            );
            break;
        }
        let Some(file) = file(node, &name, report) else {
            continue;
        };
        if let Some(named) = project.named_files {
            match named.get(&file.path) {
                Some(bytes) => add(bytes, &file, project, &mut read.env, report),
                None if file.required => {
                    let message =
                        format!("{name} asks for {:?}, which is not there", cut(&file.path));
                    report.error(&file.place, message);
                }
                None => {}
            }
        }
        read.names.push(file.path);
    }
    read
}

struct File {
    path: String,
    place: Place,
    required: bool,
    raw: bool,
}

fn file(node: Node, name: &str, report: &mut Report) -> Option<File> {
    let item = format!("an item of {name}");
    let is_path = |text: &str| match text {
        "" => Err("the path of a file (is a variable not set?)".to_owned()),
        text => Ok(text.to_owned()),
    };
    if !matches!(node.value, Value::Map(_)) {
        return Some(File {
            path: parsed(&node, &item, report, is_path)?,
            place: node.place,
            required: true,
            raw: false,
        });
    }
    let mut fields = Fields::open(node, item, report)?;
    let place = fields.place.clone();
    if !fields.has("path") {
        report.error(&place, format!("{} has no \"path\"", fields.what));
    }
    let path = fields.parsed("path", report, is_path);
    let required = fields.flag("required", report).unwrap_or(true);
    let raw = fields.parsed("format", report, |text| match text {
        "raw" => Ok(true),
        "" => Ok(false),
        _ => Err("raw, or left out".to_owned()),
    });
    fields.finish(report);
    Some(File {
        path: path?,
        place,
        required,
        raw: raw.unwrap_or(false),
    })
}

fn add(
    bytes: &[u8],
    file: &File,
    project: &Project<'_>,
    env: &mut BTreeMap<String, String>,
    report: &mut Report,
) {
    // The variables that it may name are gone through for each file, too.
    let known = project.variables.values().chain(env.values());
    let known_bytes: usize = known.map(String::len).sum();
    let Some(left_bytes) = project
        .left_bytes
        .get()
        .checked_sub(bytes.len() + known_bytes)
    else {
        let message = "the env files of all services, with the variables that they may name, come to more than 64 MiB";
        report.error(&file.place, message);
        return;
    };
    project.left_bytes.set(left_bytes);
    if file.raw {
        dotenv::add_raw(&file.path, bytes, env, report);
    } else {
        dotenv::add(&file.path, bytes, project.variables, env, report);
    }
}
