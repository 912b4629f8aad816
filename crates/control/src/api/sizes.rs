//! Scale and power of services, and the node's powers.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::Response;
use layby_model::advice::{self, Advice};
use layby_model::power::{self, Power};

use super::Shared;
use super::body::Said;
use super::roll::{self, Roll};
use super::services::find;
use super::types::{AdviceView, PowerBody, PowerView, PresetBody, Problem, ScaleBody};
use super::who::Who;
use crate::deploy;
use crate::deploy::current;
use crate::plane::Plane;

/// So many powers of its own can a node have.
const PRESETS_MAX: u32 = 100;

/// Gives a service another number of replicas, and tells how it goes. It is no revision.
#[utoipa::path(
    post,
    path = "/v1/services/{app}/{service}/scale",
    request_body = ScaleBody,
    responses(
        (status = 400, body = Problem, content_type = "application/problem+json", description = "Not a number of replicas that a service can have"),
        (status = 409, body = Problem, content_type = "application/problem+json", description = "It is disabled, or so many do not fit into the machine"),
    )
)]
pub(super) async fn scale(
    State(plane): Shared,
    roll: Roll,
    Said(ScaleBody { replicas }): Said<ScaleBody>,
) -> Result<Response, Problem> {
    let Roll {
        id, detach, who, ..
    } = roll;
    roll::told(deploy::scale::change(plane, &id, replicas, detach, &who).await)
}

/// What a service has used, and the power that is proposed for that.
#[utoipa::path(
    get,
    path = "/v1/services/{app}/{service}/power",
    params(("app" = String, Path), ("service" = String, Path)),
    responses(
        (status = 200, body = AdviceView),
        (status = 404, body = Problem, content_type = "application/problem+json"),
    )
)]
pub(super) async fn advise(
    State(plane): Shared,
    Path(names): Path<(String, String)>,
) -> Result<Json<AdviceView>, Problem> {
    let (id, driver) = find(&plane, names)?;
    let used = plane.samples.of(&plane, &id).await?;
    let table = deploy::power::table(&plane).await?;
    let row = driver.status.borrow().row.clone();
    let has = current(&row).1.spec.service.power.clone();
    let advice = advice::advise(&table, has.as_deref(), &used);
    Ok(Json(AdviceView {
        samples: used.samples,
        cpu_p95_milli: used.cpu.p95_milli(),
        memory_peak_bytes: used.memory_peak_bytes,
        texts: advice::told(&advice, &used),
        proposed: match advice {
            Advice::Keep(power) | Advice::Take(power) => Some(power.name),
            Advice::TooLittle | Advice::TooMuch => None,
        },
        power: has,
    }))
}

/// Gives a service another power: a new revision, rolled out.
#[utoipa::path(
    post,
    path = "/v1/services/{app}/{service}/power",
    request_body = PowerBody,
    responses(
        (status = 409, body = Problem, content_type = "application/problem+json", description = "It does not fit into the machine"),
        (status = 422, body = Problem, content_type = "application/problem+json", description = "There is no such power"),
    )
)]
pub(super) async fn change(
    State(plane): Shared,
    roll: Roll,
    Said(PowerBody { power }): Said<PowerBody>,
) -> Result<Response, Problem> {
    let Roll {
        id, detach, who, ..
    } = roll;
    roll::told(deploy::power::change(plane, &id, power.as_deref(), detach, &who).await)
}

/// The powers of the node, from the least to the most.
#[utoipa::path(get, path = "/v1/powers", responses((status = 200, body = [PowerView])))]
pub(super) async fn list(State(plane): Shared, who: Who) -> Result<Json<Vec<PowerView>>, Problem> {
    let table = deploy::power::table(&plane).await?;
    let mut views: Vec<PowerView> = (table.into_iter())
        .map(|power| view(&plane, power))
        .collect();
    for view in &mut views {
        // Others' services are none of its business.
        let may_see = |name: &String| {
            let app = name.split('/').next().unwrap_or_default();
            who.rights.covers(app)
        };
        view.services.retain(may_see);
        view.outdated.retain(may_see);
    }
    Ok(Json(views))
}

/// Makes a power of the node's own, or gives it other figures: services get them with their next revision.
#[utoipa::path(
    put,
    path = "/v1/powers/{name}",
    params(("name" = String, Path)),
    request_body = PresetBody,
    responses(
        (status = 200, body = PowerView),
        (status = 400, body = Problem, content_type = "application/problem+json", description = "It is no name, or the figures make no sense"),
        (status = 409, body = Problem, content_type = "application/problem+json", description = "There are 100 already"),
    )
)]
pub(super) async fn set(
    State(plane): Shared,
    Path(name): Path<String>,
    Said(figures): Said<PresetBody>,
) -> Result<Json<PowerView>, Problem> {
    let PresetBody {
        cpu_milli,
        memory_bytes,
    } = figures;
    let preset = Power {
        name,
        cpu_milli,
        memory_bytes,
    };
    if let Some(wrong) = power::refuse(&preset) {
        return Err(Problem::bad_request(wrong));
    }
    if !plane.store.set_power(preset.clone(), PRESETS_MAX).await? {
        let text = format!("this node has {PRESETS_MAX} powers of its own already");
        return Err(Problem::conflict(text).hint("remove one: `layby power rm`"));
    }
    Ok(Json(view(&plane, preset)))
}

/// Forgets a power of the node's own. What runs with it keeps its figures; a manifest that names it is refused.
#[utoipa::path(
    delete,
    path = "/v1/powers/{name}",
    params(("name" = String, Path)),
    responses(
        (status = 204),
        (status = 404, body = Problem, content_type = "application/problem+json"),
        (status = 409, body = Problem, content_type = "application/problem+json", description = "Every node has it, or a service does"),
    )
)]
pub(super) async fn remove(
    State(plane): Shared,
    Path(name): Path<String>,
) -> Result<StatusCode, Problem> {
    if power::is_built_in(&name) {
        let text = format!("{name} is a power that every node has: it stays");
        return Err(Problem::conflict(text));
    }
    let users = users(&plane, &name);
    if let Some((first, _)) = users.first() {
        let text = format!(
            "{name} is the power of {first}, and of {} in all",
            users.len()
        );
        let hint = format!("give it another one first: `layby power {first} small`");
        return Err(Problem::conflict(text).hint(hint));
    }
    if !plane.store.remove_power(&name).await? {
        let text = format!("there is no power called {name}");
        return Err(Problem::new(StatusCode::NOT_FOUND, "not-found", text)
            .hint("`layby power ls` shows what there is"));
    }
    Ok(StatusCode::NO_CONTENT)
}

fn view(plane: &Plane, power: Power) -> PowerView {
    let users = users(plane, &power.name);
    let figures = (Some(power.cpu_milli), Some(power.memory_bytes));
    let outdated = users.iter().filter(|(_, has)| *has != figures);
    PowerView {
        built_in: power::is_built_in(&power.name),
        outdated: outdated.map(|(name, _)| name.clone()).collect(),
        services: users.into_iter().map(|(name, _)| name).collect(),
        name: power.name,
        cpu_milli: power.cpu_milli,
        memory_bytes: power.memory_bytes,
    }
}

/// CPU in thousandths and memory in bytes, as far as they are limited.
type Limits = (Option<u64>, Option<u64>);

/// The services that have a power, with the CPU and the memory that they have by it.
fn users(plane: &Plane, name: &str) -> Vec<(String, Limits)> {
    let drivers = plane.all_drivers().into_iter();
    let of_it = drivers.filter_map(|(id, driver)| {
        let status = Arc::clone(&driver.status.borrow());
        let spec = &current(&status.row).1.spec.service;
        let resources = spec.containers.first()?.resources;
        let has = (resources.cpu_limit_milli, resources.memory_limit_bytes);
        (spec.power.as_deref() == Some(name)).then(|| (id.to_string(), has))
    });
    of_it.collect()
}
