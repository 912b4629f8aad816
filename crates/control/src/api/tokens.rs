//! Tokens: who may use the node over the network.

use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::{Extension, Json};

use super::Shared;
use super::body::Said;
use super::types::{NewToken, Problem, TokenBody, TokenView};
use crate::audit::Target;
use crate::tokens;

/// Every token. Their secrets are not kept.
#[utoipa::path(get, path = "/v1/tokens", responses((status = 200, body = [TokenView])))]
pub(super) async fn list(State(plane): Shared) -> Result<Json<Vec<TokenView>>, Problem> {
    Ok(Json(tokens::list(&plane).await?))
}

/// Makes a token; its secret is in this answer and nowhere else.
#[utoipa::path(
    post,
    path = "/v1/tokens",
    request_body = TokenBody,
    responses(
        (status = 200, body = NewToken),
        (status = 400, body = Problem, content_type = "application/problem+json"),
        (status = 409, body = Problem, content_type = "application/problem+json", description = "The name is taken"),
    )
)]
pub(super) async fn create(
    State(plane): Shared,
    Said(body): Said<TokenBody>,
) -> Result<(Extension<Target>, Json<NewToken>), Problem> {
    let made = tokens::create(&plane, body).await?;
    let target = Extension(Target(made.token.name.clone()));
    Ok((target, Json(made)))
}

/// Takes a token away.
#[utoipa::path(
    delete,
    path = "/v1/tokens/{name}",
    params(("name" = String, Path)),
    responses(
        (status = 204, description = "It is good for nothing any more"),
        (status = 404, body = Problem, content_type = "application/problem+json"),
    )
)]
pub(super) async fn remove(
    State(plane): Shared,
    Path(name): Path<String>,
) -> Result<StatusCode, Problem> {
    tokens::remove(&plane, &name).await?;
    Ok(StatusCode::NO_CONTENT)
}
