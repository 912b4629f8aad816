//! `post_start` and `pre_stop`: commands in the container once it has started, and before it is asked to stop.

use std::collections::BTreeMap;

use layby_model::hook::Hook;

use crate::compose::project::Project;
use crate::compose::{command, pairs};
use crate::fields::Fields;
use crate::report::Report;

/// The most hooks of one kind.
const MAX_HOOKS: usize = 100;

/// Takes the hooks of one kind off a service.
pub(crate) fn read(
    service: &mut Fields,
    key: &'static str,
    project: &Project<'_>,
    report: &mut Report,
) -> Vec<Hook> {
    let name = service.name(key);
    let mut hooks = Vec::new();
    for item in service.list(key, report).unwrap_or_default() {
        let place = item.place.clone();
        if hooks.len() >= MAX_HOOKS {
            report.error(&place, format!("{name} has more than {MAX_HOOKS} hooks"));
            break;
        }
        let Some(mut fields) = Fields::open(item, format!("an item of {name}"), report) else {
            continue;
        };
        let command = command::read(&mut fields, "command", report).unwrap_or_default();
        let mut env = BTreeMap::new();
        let environment = fields.name("environment");
        if let Some(node) = fields.take("environment") {
            pairs::variables(node, &environment, project.variables, &mut env, report);
        }
        let hook = Hook::Exec {
            user: fields.text("user", report),
            working_dir: fields.text("working_dir", report),
            privileged: fields.flag("privileged", report).unwrap_or(false),
            env,
            command,
        };
        fields.accept_extensions();
        let what = fields.what.clone();
        fields.finish(report);
        match &hook {
            Hook::Exec { command, .. } if command.is_empty() => {
                report.error(&place, format!("{what} has no \"command\""));
            }
            Hook::Exec { .. } | Hook::Http { .. } | Hook::Sleep { .. } => hooks.push(hook),
        }
    }
    hooks
}
