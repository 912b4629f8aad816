//! What only the node's operator may allow. The engine asks the same before it prepares a replica, and follows links.

use layby_model::spec::ServiceSpec;
use layby_model::{ServiceId, privilege};

use crate::api::types::Problem;
use crate::config::ControlConfig;
use crate::tokens::Rights;

/// Refuses services that ask for what the operator has not allowed.
///
/// # Errors
/// 403, naming the service, what it asks for, and the flag.
pub(crate) fn check<'a>(
    config: &ControlConfig,
    rights: &Rights,
    services: impl IntoIterator<Item = (ServiceId, &'a ServiceSpec)>,
) -> Result<(), Problem> {
    if config.allow_privileged && rights.is_admin() {
        return Ok(());
    }
    let own = [config.data_dir.clone()];
    for (id, spec) in services {
        if let Some(what) = privilege::asked(spec, &own).or_else(|| of_build(spec)) {
            let text = match config.allow_privileged {
                true => format!("{id} asks for {what}, which takes a token with the role admin"),
                false => format!(
                    "{id} asks for {what}, which only this node's operator may allow: \
                     start the node with `layby serve --allow-privileged` to allow it"
                ),
            };
            return Err(Problem::not_allowed(text));
        }
    }
    Ok(())
}

fn of_build(spec: &ServiceSpec) -> Option<String> {
    let mut builds = spec.containers.iter().filter_map(|c| c.build.as_ref());
    let host = builds.any(|build| build.network.as_deref() == Some("host"));
    host.then(|| "a build in the machine's network".to_owned())
}
