//! Variables of a container (`v1.EnvVar`).

use layby_model::spec::ContainerSpec;

use crate::convert::App;
use crate::convert::quantity::literal;
use crate::convert::tree::{Map, maps};
use crate::draft::Draft;
use crate::report::Report;
use crate::tree::{Node, cut};

/// Writes them. A Compose file gives them as text alone.
pub(super) fn write(
    app: &App<'_>,
    draft: &Draft,
    container: &ContainerSpec,
    report: &mut Report,
) -> Node {
    let mut variables = Vec::new();
    for (name, value) in &container.env {
        if !is_name(name) {
            let why = format!(
                "loses {:?}: no variable of a pod can be called so",
                cut(name)
            );
            app.said.lost(draft, &["environment"], &why, report);
            continue;
        }
        let variable = Map::new().text("name", name);
        variables.push(match value.is_empty() {
            // Nothing is what holds where nothing is said.
            true => variable,
            false => variable.text("value", literal(value)),
        });
    }
    maps(variables)
}

/// What every cluster takes (`v1.EnvVar`, before 1.34).
fn is_name(name: &str) -> bool {
    let inner = |c: char| c.is_ascii_alphanumeric() || "-._".contains(c);
    !name.is_empty() && !name.starts_with(|c: char| c.is_ascii_digit()) && name.chars().all(inner)
}
