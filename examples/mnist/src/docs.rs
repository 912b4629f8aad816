//! The service's own documentation: an OpenAPI document made from the code, and Swagger UI, whose
//! files are part of the binary.

use axum::Router;
use axum::response::Redirect;
use axum::routing::get;
use utoipa::OpenApi;
use utoipa_swagger_ui::SwaggerUi;

/// What the document says beside the paths, which [`crate::server`] adds.
#[derive(Debug, OpenApi)]
#[openapi(info(
    title = "mnist",
    description = "Recognises a handwritten digit in a picture.",
    version = "1.1.0"
))]
pub struct Document;

/// `/docs`, `/openapi.json`, and the way there from `/`.
pub fn router(document: utoipa::openapi::OpenApi) -> Router {
    Router::new()
        .route("/", get(|| async { Redirect::temporary("/docs/") }))
        .merge(SwaggerUi::new("/docs").url("/openapi.json", document))
}
