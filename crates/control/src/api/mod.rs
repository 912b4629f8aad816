//! The HTTP API: its words, its routes, and the one place where an error becomes an answer.

mod access;
mod agents;
mod apps;
mod audit;
mod body;
mod builds;
mod canary;
mod contexts;
mod document;
mod ending;
mod events;
mod exec;
mod files;
mod forward;
mod gate;
mod hints;
mod history;
mod images;
mod jobs;
mod lines;
mod logs;
mod mend;
mod networks;
mod node;
mod normal;
mod once;
mod operations;
mod page;
mod params;
mod pipe;
mod problem;
mod query;
mod registries;
mod replica;
mod roll;
mod scaling;
mod secrets;
mod services;
mod sizes;
mod sse;
mod state;
mod switch;
mod tokens;
mod transfers;
pub mod types;
mod upgrade;
mod usage;
mod volumes;
mod who;

pub use audit::AuditView;
pub(crate) use gate::Door;
pub use normal::ConfigView;
pub(crate) use once::InFlight;
pub(crate) use operations::Operations;
pub use operations::{OperationState, OperationView};
use std::sync::Arc;
pub use who::{Known, Peer};
pub(crate) use who::{Via, Who};

use axum::Router;
use axum::http::{Method, StatusCode, Uri, header};
use utoipa::OpenApi;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::plane::Plane;
use crate::registry;
use gate::Gate;
use types::{Event, KeptContext, LogView, Problem, StatusView, TransferEvent};

/// What the handlers share.
type Shared = axum::extract::State<Arc<Plane>>;

#[derive(OpenApi)]
#[openapi(
    info(
        title = "Layby",
        description = "The API of a Layby node: on the Unix socket in its run directory, whose users are as good as root, and on HTTPS, with a token (`Authorization: Bearer`)."
    ),
    // Named by the lines and messages of a stream, which a path cannot describe.
    components(schemas(Event, KeptContext, LogView, Problem, StatusView, TransferEvent))
)]
struct Doc;

/// All routes, with the document that describes them.
fn routes() -> OpenApiRouter<Arc<Plane>> {
    OpenApiRouter::with_openapi(Doc::openapi())
        .routes(routes!(node::version))
        .routes(routes!(node::stop))
        .routes(routes!(apps::manifest))
        .routes(routes!(normal::config))
        .routes(routes!(apps::up))
        .routes(routes!(apps::down))
        .routes(routes!(services::list))
        .routes(routes!(services::detail, switch::remove))
        .routes(routes!(services::hold))
        .routes(routes!(switch::disable))
        .routes(routes!(switch::enable))
        .routes(routes!(switch::restart))
        .routes(routes!(history::history))
        .routes(routes!(history::compare))
        .routes(routes!(history::rollback))
        .routes(routes!(history::redeploy))
        .routes(routes!(services::wake))
        .routes(routes!(services::doze))
        .routes(routes!(services::sleep))
        .routes(routes!(services::deploy))
        .routes(routes!(sizes::scale, scaling::show))
        .routes(routes!(sizes::change, sizes::advise))
        .routes(routes!(sizes::list))
        .routes(routes!(sizes::set, sizes::remove))
        .routes(routes!(canary::promote))
        .routes(routes!(canary::abort))
        .routes(routes!(logs::of_service))
        .routes(routes!(logs::of_several))
        .routes(routes!(events::events))
        .routes(routes!(exec::exec))
        .routes(routes!(jobs::list))
        .routes(routes!(jobs::detail, jobs::remove))
        .routes(routes!(jobs::suspend))
        .routes(routes!(jobs::resume))
        .routes(routes!(jobs::runs, jobs::begin))
        .routes(routes!(jobs::run, jobs::stop))
        .routes(routes!(jobs::logs))
        .routes(routes!(jobs::begin_command))
        .routes(routes!(jobs::hold))
        .routes(routes!(forward::forward))
        .routes(routes!(files::read, files::write))
        .routes(routes!(files::stat))
        .routes(routes!(usage::usage))
        .routes(routes!(networks::list, networks::create))
        .routes(routes!(networks::inspect, networks::remove))
        .routes(routes!(volumes::list, volumes::create))
        .routes(routes!(volumes::inspect, volumes::remove))
        .routes(routes!(services::rollout))
        .routes(routes!(state::look))
        .routes(routes!(state::export))
        .routes(routes!(state::import))
        .routes(routes!(tokens::list, tokens::create))
        .routes(routes!(tokens::remove))
        .routes(routes!(audit::audit))
        .routes(routes!(secrets::list, secrets::set))
        .routes(routes!(secrets::rotate_key))
        .routes(routes!(secrets::remove))
        .routes(routes!(operations::operation))
        .routes(routes!(agents::lend))
        .routes(routes!(builds::build))
        .routes(routes!(contexts::offer))
        .routes(routes!(images::list, images::remove))
        .routes(routes!(images::load))
        .routes(routes!(images::prune))
        .routes(routes!(images::save))
        .routes(routes!(images::inspect))
        .routes(routes!(images::tag))
        .routes(routes!(transfers::pull))
        .routes(routes!(transfers::push))
        .routes(routes!(
            registries::list,
            registries::login,
            registries::logout
        ))
}

/// The OpenAPI document, as JSON.
pub fn openapi() -> String {
    let made = serde_json::to_value(routes().into_openapi()).unwrap_or_default();
    let mut text = serde_json::to_string_pretty(&document::complete(made)).unwrap_or_default();
    text.push('\n');
    text
}

/// The API over a control plane, for those who come in by this door.
pub(crate) fn router(plane: &Arc<Plane>, door: Door) -> Router {
    let text = openapi();
    let document: serde_json::Value = serde_json::from_str(&text).unwrap_or_default();
    let gate = Gate::new(Arc::clone(plane), door, &document);
    let (router, _) = routes().split_for_parts();
    let guarded = router
        .route(
            "/v1/openapi.json",
            axum::routing::get(async move || ([(header::CONTENT_TYPE, "application/json")], text)),
        )
        .fallback(unknown_path)
        .method_not_allowed_fallback(unknown_method)
        .layer(axum::middleware::from_fn_with_state(gate, gate::pass));
    // The registry knows itself who may do what.
    let images = match door {
        Door::Socket => axum::routing::any(registry::over_socket),
        Door::Network => axum::routing::any(registry::over_network),
    };
    guarded
        .route("/v2/", images.clone())
        .route("/v2/{*path}", images)
        .with_state(Arc::clone(plane))
}

async fn unknown_path(uri: Uri) -> Problem {
    let text = format!("there is no {} in this API", uri.path());
    Problem::new(StatusCode::NOT_FOUND, "not-found", text).hint("see /v1/openapi.json")
}

async fn unknown_method(method: Method, uri: Uri) -> Problem {
    let text = format!("{} takes no {method}", uri.path());
    Problem::new(StatusCode::METHOD_NOT_ALLOWED, "bad-request", text).hint("see /v1/openapi.json")
}
