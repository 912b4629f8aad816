//! Build arguments: those before the first FROM, and those that nobody asks for.

use std::collections::{BTreeMap, BTreeSet};

use super::BuildOptions;
use crate::dockerfile::{Dockerfile, Kind, words};
use crate::{Error, layout};

/// The values of the ARGs before the first FROM.
pub(super) fn global_args(
    file: &Dockerfile,
    options: &BuildOptions,
    platform: &str,
    shown: &str,
) -> Result<BTreeMap<String, String>, Error> {
    let ours = format!("linux/{}", layout::architecture());
    let mut globals = BTreeMap::new();
    for (side, platform) in [("BUILD", ours.as_str()), ("TARGET", platform)] {
        let mut parts = platform.split('/');
        globals.insert(format!("{side}PLATFORM"), platform.to_owned());
        for part in ["OS", "ARCH", "VARIANT"] {
            let value = parts.next().unwrap_or_default();
            globals.insert(format!("{side}{part}"), value.to_owned());
        }
    }
    let stage = options.target.as_deref().filter(|name| !name.is_empty());
    let stage = stage.unwrap_or("default");
    globals.insert("TARGETSTAGE".to_owned(), stage.to_owned());
    for instruction in &file.args {
        let Kind::Arg(args) = &instruction.kind else {
            continue;
        };
        for (name, default) in args {
            let value = match (options.args.get(name), default) {
                (Some(given), _) => Some(given.clone()),
                (None, Some(default)) => {
                    let lookup = |name: &str| globals.get(name).cloned();
                    let value = words::expand(default, file.escape, &lookup).map_err(|reason| {
                        Error::Dockerfile {
                            file: shown.to_owned(),
                            line: instruction.line,
                            message: format!("ARG {name}: {reason}"),
                        }
                    })?;
                    Some(value)
                }
                (None, None) => None,
            };
            globals.extend(value.map(|value| (name.clone(), value)));
        }
    }
    Ok(globals)
}

/// Build arguments that no ARG asks for; those that Docker knows without one do not count.
pub(super) fn unknown_args<'a>(file: &Dockerfile, options: &'a BuildOptions) -> Vec<&'a str> {
    let instructions = file
        .stages
        .iter()
        .flat_map(|stage| &stage.instructions)
        .chain(&file.args);
    let declared: BTreeSet<&str> = instructions
        .filter_map(|instruction| match &instruction.kind {
            Kind::Arg(args) => Some(args),
            _ => None,
        })
        .flatten()
        .map(|(name, _)| name.as_str())
        .collect();
    let given = options.args.keys().map(String::as_str);
    let predefined = |name: &str| {
        name == "SOURCE_DATE_EPOCH"
            || name.starts_with("BUILDKIT_")
            || name.to_ascii_lowercase().ends_with("_proxy")
    };
    given
        .filter(|name| !declared.contains(name) && !predefined(name))
        .collect()
}
