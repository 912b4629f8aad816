//! `build`: where and how an image is built.

use std::collections::BTreeMap;

use layby_model::spec::BuildSpec;

use crate::compose::pairs;
use crate::fields::{Fields, parsed};
use crate::report::Report;
use crate::tree::{Node, Value};

/// Keys without which the build would fail, or be another one.
const REFUSED: [(&str, &str); 5] = [
    ("additional_contexts", "the Dockerfile would miss them"),
    ("dockerfile_inline", "write it into a Dockerfile"),
    ("entitlements", "the build would fail without them"),
    ("secrets", "the build would miss them"),
    ("ssh", "the build would miss its keys"),
];

/// Reads `build`, the context alone or a map.
pub(crate) fn read(
    node: Node,
    service: &str,
    variables: &BTreeMap<String, String>,
    report: &mut Report,
) -> Option<BuildSpec> {
    if matches!(node.value, Value::Scalar { .. }) {
        let name = format!("\"build\" in {service}");
        return Some(BuildSpec::new(&parsed(&node, &name, report, context)?));
    }
    let mut build = Fields::open(node, format!("build of {service}"), report)?;
    let context = build.parsed("context", report, context);
    let args_name = build.name("args");
    let spec = BuildSpec {
        dockerfile: build.text("dockerfile", report),
        args: build
            .take("args")
            .map(|node| pairs::read(node, &args_name, variables, report))
            .unwrap_or_default(),
        target: build.text("target", report),
        ..BuildSpec::new(context.as_deref().unwrap_or("."))
    };
    build.refuse(&REFUSED, report);
    // Where to cache and what to call the image changes nothing in it.
    build.accept(&["cache_from", "cache_to", "labels", "tags"]);
    build.accept_extensions();
    build.unsupported(
        &[
            "extra_hosts",
            "isolation",
            "network",
            "no_cache",
            "platforms",
            "privileged",
            "pull",
            "shm_size",
            "ulimits",
        ],
        report,
    );
    build.finish(report);
    Some(spec)
}

/// A context is a folder: there is no git here to fetch one.
fn context(text: &str) -> Result<String, String> {
    if text.contains("://") || text.starts_with("git@") {
        return Err("a folder (a context cannot be fetched yet)".to_owned());
    }
    Ok(if text.is_empty() { "." } else { text }.to_owned())
}
