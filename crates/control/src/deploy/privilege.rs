//! What only the node's operator may allow: whatever makes a container as good as root on the machine.

use axum::http::StatusCode;
use layby_model::ServiceId;
use layby_model::spec::ServiceSpec;

use crate::api::types::Problem;
use crate::config::ControlConfig;

/// Refuses services that ask for what the operator has not allowed.
///
/// # Errors
/// 403, naming the service, what it asks for, and the flag.
pub(crate) fn check<'a>(
    config: &ControlConfig,
    services: impl IntoIterator<Item = (ServiceId, &'a ServiceSpec)>,
) -> Result<(), Problem> {
    if config.allow_privileged {
        return Ok(());
    }
    for (id, spec) in services {
        if let Some(what) = asked(spec) {
            let text = format!(
                "{id} asks for {what}, which makes it as good as root on this machine: \
                 start the node with `layby serve --allow-privileged` to allow it"
            );
            return Err(Problem::new(StatusCode::FORBIDDEN, "not-allowed", text));
        }
    }
    Ok(())
}

/// What a service asks for that needs the operator's word.
fn asked(spec: &ServiceSpec) -> Option<&'static str> {
    let containers = || spec.containers.iter();
    let builds = || containers().filter_map(|container| container.build.as_ref());
    let option = containers().find_map(|container| container.options.needs_operator());
    let network = || {
        let host = builds().any(|build| build.network.as_deref() == Some("host"));
        host.then_some("a build in the machine's network")
    };
    option
        .or_else(|| spec.sandbox.needs_operator())
        .or_else(network)
}
