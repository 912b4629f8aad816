//! What fits into the machine: asked by all that makes a service take more, before anything starts.

use layby_model::ServiceId;
use layby_model::capacity::{Claim, idle_limits, shortage};
use layby_model::spec::ServiceSpec;

use crate::api::types::Problem;
use crate::config::ControlConfig;
use crate::deploy::current;
use crate::store::Row;

/// What the services that are enabled keep to themselves.
fn claims(rows: &[Row]) -> Vec<Claim> {
    let enabled = rows.iter().filter(|row| row.enabled);
    let claim = |row: &Row| {
        let spec = &current(row).1.spec.service;
        Claim::of(row.service.clone(), spec, row.replicas)
    };
    enabled.map(claim).collect()
}

/// Refuses what does not fit, with the sum.
///
/// # Errors
/// 409 `does-not-fit`.
pub(crate) fn check<'a>(
    config: &ControlConfig,
    rows: &[Row],
    asked: impl IntoIterator<Item = (ServiceId, &'a ServiceSpec, u32)>,
) -> Result<(), Problem> {
    let asked: Vec<Claim> = (asked.into_iter())
        .map(|(id, spec, replicas)| Claim::of(id, spec, replicas))
        .collect();
    match shortage(&config.machine, &claims(rows), &asked) {
        None => Ok(()),
        Some(text) => Err(
            Problem::new(axum::http::StatusCode::CONFLICT, "does-not-fit", text).hint(
                "scale something down, give it less power, or disable a service that is not needed",
            ),
        ),
    }
}

/// How many replicas a revision of a manifest or a deploy would have.
pub(crate) fn replicas(rows: &[Row], id: &ServiceId, spec: &ServiceSpec, unscale: bool) -> u32 {
    let row = rows.iter().find(|row| row.service == *id);
    let scale = row.and_then(|row| row.scale).filter(|_| !unscale);
    scale.unwrap_or(spec.replicas)
}

/// Warnings of limits that limit nothing on this machine.
pub(crate) fn warnings<'a>(
    config: &ControlConfig,
    specs: impl IntoIterator<Item = (ServiceId, &'a ServiceSpec)>,
) -> Vec<String> {
    let specs = specs.into_iter();
    specs
        .flat_map(|(id, spec)| idle_limits(&config.machine, &id, spec))
        .collect()
}
