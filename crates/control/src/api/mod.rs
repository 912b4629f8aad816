//! The HTTP API: its words, its routes, and the one place where an error becomes an answer.

mod apps;
mod builds;
mod events;
mod exec;
mod files;
mod forward;
mod history;
mod images;
mod lines;
mod logs;
mod node;
mod pipe;
mod problem;
mod query;
mod registries;
mod replica;
mod services;
mod switch;
mod tokens;
mod transfers;
pub mod types;
mod usage;
mod volumes;
mod who;

pub(crate) use images::meant;
use std::sync::Arc;
pub use who::Peer;
pub(crate) use who::Who;

use axum::Router;
use axum::http::{Method, StatusCode, Uri};
use utoipa::OpenApi;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::plane::Plane;
use crate::registry;
use types::{Event, LogView, Problem, StatusView, TransferEvent};

/// What the handlers share.
type Shared = axum::extract::State<Arc<Plane>>;

#[derive(OpenApi)]
#[openapi(
    info(
        title = "Layby",
        description = "The API of a Layby node, on the Unix socket in its run directory. Whoever may use it is as good as root."
    ),
    // Named by the lines and messages of a stream, which a path cannot describe.
    components(schemas(Event, LogView, Problem, StatusView, TransferEvent))
)]
struct Doc;

/// All routes, with the document that describes them.
fn routes() -> OpenApiRouter<Arc<Plane>> {
    OpenApiRouter::with_openapi(Doc::openapi())
        .routes(routes!(node::version))
        .routes(routes!(node::stop))
        .routes(routes!(apps::manifest))
        .routes(routes!(apps::up))
        .routes(routes!(apps::down))
        .routes(routes!(services::list))
        .routes(routes!(services::detail, switch::remove))
        .routes(routes!(switch::disable))
        .routes(routes!(switch::enable))
        .routes(routes!(history::history))
        .routes(routes!(history::compare))
        .routes(routes!(history::rollback))
        .routes(routes!(history::redeploy))
        .routes(routes!(services::wake))
        .routes(routes!(services::doze))
        .routes(routes!(services::sleep))
        .routes(routes!(services::deploy))
        .routes(routes!(logs::of_service))
        .routes(routes!(logs::of_several))
        .routes(routes!(events::events))
        .routes(routes!(exec::exec))
        .routes(routes!(forward::forward))
        .routes(routes!(files::read, files::write))
        .routes(routes!(files::stat))
        .routes(routes!(usage::usage))
        .routes(routes!(volumes::list, volumes::create))
        .routes(routes!(volumes::inspect, volumes::remove))
        .routes(routes!(services::rollout))
        .routes(routes!(tokens::list, tokens::create))
        .routes(routes!(tokens::remove))
        .routes(routes!(builds::build))
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
    let mut text = routes().into_openapi().to_pretty_json().unwrap_or_default();
    text.push('\n');
    text
}

/// The API over a control plane.
pub(crate) fn router(plane: Arc<Plane>) -> Router {
    let document = openapi();
    let (router, _) = routes().split_for_parts();
    router
        .route(
            "/v1/openapi.json",
            axum::routing::get(async move || {
                (
                    [(axum::http::header::CONTENT_TYPE, "application/json")],
                    document,
                )
            }),
        )
        .route("/v2/", axum::routing::any(registry::over_socket))
        .route("/v2/{*path}", axum::routing::any(registry::over_socket))
        .fallback(unknown_path)
        .method_not_allowed_fallback(unknown_method)
        .layer(axum::middleware::from_fn(who::by_socket))
        .with_state(plane)
}

async fn unknown_path(uri: Uri) -> Problem {
    let text = format!("there is no {} in this API", uri.path());
    Problem::new(StatusCode::NOT_FOUND, "not-found", text).hint("see /v1/openapi.json")
}

async fn unknown_method(method: Method, uri: Uri) -> Problem {
    let text = format!("{} takes no {method}", uri.path());
    Problem::new(StatusCode::METHOD_NOT_ALLOWED, "bad-request", text).hint("see /v1/openapi.json")
}
