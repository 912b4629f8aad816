//! Secrets: they go in, and never out again.

use std::collections::BTreeMap;

use axum::Json;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::Response;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use layby_model::AppName;
use layby_model::secret::SecretValue;
use tokio_stream::wrappers::ReceiverStream;

use super::body;
use super::lines::lines;
use super::query::{self, Pairs};
use super::types::{Event, KeptSecret, Problem, SetSecrets};
use super::{Shared, Who};
use crate::secrets::{self, Setting};

/// The longest body: the values in base64, and their names.
const MAX_BODY_BYTES: usize = 32 << 20;

/// Every secret, without its value.
#[utoipa::path(
    get,
    path = "/v1/secrets",
    params(("app" = Option<String>, Query, description = "Only of this app")),
    responses(
        (status = 200, body = [KeptSecret]),
        (status = 400, body = Problem, content_type = "application/problem+json"),
    )
)]
pub(super) async fn list(
    State(plane): Shared,
    who: Who,
    pairs: Pairs,
) -> Result<Json<Vec<KeptSecret>>, Problem> {
    let app = app(query::get(&pairs, "app"))?;
    if let Some(app) = &app {
        who.rights.require(app.as_str())?;
    }
    let mut secrets = secrets::list(&plane, app.as_ref()).await?;
    secrets.retain(|secret| match &secret.app {
        Some(app) => who.rights.covers(app),
        None => who.rights.is_whole(),
    });
    Ok(Json(secrets))
}

/// Sets secrets, all or none: each that is another value than before gets a new version. The services that use one get a
/// new revision; how that goes is told until each is live or has failed.
#[utoipa::path(
    post,
    path = "/v1/secrets",
    params(("detach" = Option<bool>, Query, description = "Do not wait for the outcome")),
    request_body = SetSecrets,
    responses(
        (status = 200, body = Event, content_type = "application/x-ndjson", description = "One event a line: a `secret` for each, then how the services fare; the last is `done`"),
        (status = 400, body = Problem, content_type = "application/problem+json"),
        (status = 409, body = Problem, content_type = "application/problem+json", description = "There are too many, or the node's key cannot be used"),
        (status = 413, body = Problem, content_type = "application/problem+json"),
    )
)]
pub(super) async fn set(
    State(plane): Shared,
    who: Who,
    pairs: Pairs,
    body: Body,
) -> Result<Response, Problem> {
    let body = axum::body::to_bytes(body, MAX_BODY_BYTES).await;
    let body = body.map_err(|_| {
        let text = format!(
            "the body is longer than {} MiB, or was cut",
            MAX_BODY_BYTES >> 20
        );
        Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "too-large", text)
    })?;
    let SetSecrets {
        app: of,
        values,
        no_deploy,
    } = body::hushed(&body)?;
    let app = app(of.as_deref())?;
    own(&who, app.as_ref())?;
    let setting = Setting {
        app,
        values: decoded(values)?,
        deploy: !no_deploy,
        detach: query::flag(&pairs, "detach"),
    };
    let events = secrets::set(&plane, setting, who).await?;
    Ok(lines(ReceiverStream::new(events)))
}

/// Removes a secret with all its versions. One that a service uses stays.
#[utoipa::path(
    delete,
    path = "/v1/secrets/{name}",
    params(
        ("name" = String, Path),
        ("app" = Option<String>, Query, description = "Whose it is; left out: the node's"),
    ),
    responses(
        (status = 204, description = "It is gone"),
        (status = 400, body = Problem, content_type = "application/problem+json"),
        (status = 404, body = Problem, content_type = "application/problem+json"),
        (status = 409, body = Problem, content_type = "application/problem+json", description = "A service uses it"),
    )
)]
pub(super) async fn remove(
    State(plane): Shared,
    who: Who,
    Path(name): Path<String>,
    pairs: Pairs,
) -> Result<StatusCode, Problem> {
    let app = app(query::get(&pairs, "app"))?;
    own(&who, app.as_ref())?;
    secrets::remove(&plane, app.as_ref(), &name, &who).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Encrypts all secrets with a new key, in one step.
#[utoipa::path(
    post,
    path = "/v1/secrets/rotate-key",
    responses(
        (status = 204, description = "They are"),
        (status = 409, body = Problem, content_type = "application/problem+json", description = "There are no secrets, or the key is not Layby's to change"),
    )
)]
pub(super) async fn rotate_key(State(plane): Shared, who: Who) -> Result<StatusCode, Problem> {
    secrets::rotate_key(&plane, &who).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Those of an app are for whoever may change that app; the node's, for who is limited to none.
fn own(who: &Who, app: Option<&AppName>) -> Result<(), Problem> {
    match who.rights.covers_owner(app) {
        true => Ok(()),
        false => Err(who.rights.denied(&app.map_or_else(
            || "the node's secrets".to_owned(),
            |app| format!("the app {app}"),
        ))),
    }
}

fn decoded(values: BTreeMap<String, String>) -> Result<BTreeMap<String, SecretValue>, Problem> {
    let decode = |(name, text): (String, String)| {
        // Wiped when it is dropped, as the value is.
        let text = SecretValue::new(text.into_bytes());
        match STANDARD.decode(text.bytes()) {
            Ok(value) => Ok((name, SecretValue::new(value))),
            Err(_) => {
                let text = format!("the value of {name:?} is not base64");
                Err(Problem::bad_request(text))
            }
        }
    };
    values.into_iter().map(decode).collect()
}

fn app(name: Option<&str>) -> Result<Option<AppName>, Problem> {
    let app = name.map(AppName::new).transpose();
    app.map_err(|error| Problem::bad_request(error.to_string()))
}
