//! What only the node's operator may allow. The engine asks the same before it prepares a replica, and follows links.

use std::collections::BTreeSet;
use std::path::Path;

use layby_model::mounts::{Mount, MountSource};
use layby_model::spec::ServiceSpec;
use layby_model::{ServiceId, privilege};

use crate::api::types::Problem;
use crate::config::ControlConfig;
use crate::tokens::Rights;

/// Refuses services that ask for what the operator has not allowed, or for folders of the machine where no admin asks.
///
/// # Errors
/// 403, naming each such service, all that it asks for, and the flag.
pub(crate) fn check<'a>(
    config: &ControlConfig,
    rights: &Rights,
    services: impl IntoIterator<Item = (ServiceId, &'a ServiceSpec)>,
) -> Result<(), Problem> {
    if config.allow_privileged && rights.is_admin() {
        return Ok(());
    }
    let mut problems = Vec::new();
    for (id, spec) in services {
        if !rights.is_admin() {
            problems.extend(folders(&id, spec).err());
        }
        let mut asked = asked(config.shifts_ids, &config.data_dir, spec);
        asked.extend(of_build(spec));
        if asked.is_empty() {
            continue;
        }
        let what = asked.join(", ");
        let text = match config.allow_privileged {
            true => format!("{id} asks for {what}, which takes a token with the role admin"),
            false => format!(
                "{id} asks for {what}, which only this node's operator may allow: \
                 start the node with `layby serve --allow-privileged` to allow it"
            ),
        };
        problems.push(Problem::not_allowed(text));
    }
    Problem::all(problems).map_or(Ok(()), Err)
}

/// Whether somebody may reach into containers of a service, or run commands in others like them: what these have of the
/// machine, the command has.
///
/// # Errors
/// 403: that takes an admin.
pub(crate) fn enter(
    config: &ControlConfig,
    rights: &Rights,
    id: &ServiceId,
    spec: &ServiceSpec,
) -> Result<(), Problem> {
    if rights.is_admin() {
        return Ok(());
    }
    folders(id, spec)?;
    let asked = asked(config.shifts_ids, &config.data_dir, spec);
    match asked.is_empty() {
        true => Ok(()),
        false => Err(Problem::not_allowed(format!(
            "{id} has {}: to reach into it takes a token with the role admin",
            asked.join(", ")
        ))),
    }
}

/// Refuses folders of the machine.
fn folders(id: &ServiceId, spec: &ServiceSpec) -> Result<(), Problem> {
    let mounts = spec
        .all_containers()
        .flat_map(|container| &container.mounts);
    let path = |mount: &'_ Mount| match &mount.source {
        MountSource::Bind { path, .. } => Some(path.clone()),
        MountSource::Volume { .. }
        | MountSource::Tmpfs { .. }
        | MountSource::Scratch { .. }
        | MountSource::Files { .. } => None,
    };
    let paths: BTreeSet<String> = mounts.filter_map(path).collect();
    if paths.is_empty() {
        return Ok(());
    }
    let paths = Vec::from_iter(paths).join(", ");
    let text =
        format!("{id} mounts {paths} of the machine, which takes a token with the role admin");
    Err(Problem::not_allowed(text).hint("give it a named volume, or let an admin do it"))
}

/// What a service asks for on a machine that has user namespaces, or not, and the node's folders there.
fn asked(shifts_ids: bool, data_dir: &Path, spec: &ServiceSpec) -> Vec<String> {
    let own = [data_dir.to_owned()];
    let mut asked = privilege::asked(spec, &own);
    if !shifts_ids {
        asked.extend(privilege::asked_of_root(spec));
    }
    asked
}

fn of_build(spec: &ServiceSpec) -> Option<String> {
    let mut builds = spec.all_containers().filter_map(|c| c.build.as_ref());
    let host = builds.any(|build| build.network.as_deref() == Some("host"));
    host.then(|| "a build in the machine's network".to_owned())
}

#[cfg(test)]
mod tests {
    use layby_model::ServiceName;
    use layby_model::spec::ContainerSpec;

    use super::*;

    #[test]
    fn a_capability_is_asked_for_where_root_inside_is_root_outside() {
        let mut spec = ServiceSpec::new(ServiceName::new("web").expect("a label"));
        let mut container = ContainerSpec::new("web", "web:1");
        container.options.cap_add.push("SYS_ADMIN".to_owned());
        spec.containers.push(container);
        let own = Path::new("/var/lib/layby");
        assert!(asked(true, own, &spec).is_empty());
        assert!(asked(false, own, &spec)[0].contains("SYS_ADMIN"));
    }
}
