//! The state of the node as a whole: looked at, taken out as one encrypted file, and put back.

use std::io::{self, Write};

use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use layby_model::error_chain;
use layby_model::secret::SecretValue;

use super::query::{self, Pairs};
use super::types::{ImportedView, Problem, StateView};
use super::{Shared, Who, pipe};
use crate::plane::Plane;
use crate::state::{StateError, changed, live};

/// The header with the passphrase, in base64. Not in the query, which logs and process lists show.
const PASSPHRASE: &str = "layby-passphrase";

/// What is in the state of the node, and which images it needs.
#[utoipa::path(get, path = "/v1/state", responses((status = 200, body = StateView)))]
pub(super) async fn look(State(plane): Shared) -> Result<Json<StateView>, Problem> {
    live::look(&plane).await.map(Json)
}

/// All that the node is to be, as one encrypted file: apps, services, revisions, jobs, secrets, tokens, logins. What is in
/// volumes is not in it.
#[utoipa::path(
    post,
    path = "/v1/state/export",
    params(
        ("images" = Option<bool>, Query, description = "With the content of the images that services and jobs need, or would after a rollback"),
        ("Layby-Passphrase" = String, Header, description = "What opens the file, in base64"),
    ),
    responses(
        (status = 200, content_type = "application/octet-stream", description = "The file"),
        (status = 400, body = Problem, content_type = "application/problem+json", description = "The passphrase is none, or too short"),
        (status = 409, body = Problem, content_type = "application/problem+json", description = "Another state is being taken out or put in, or the key of the secrets cannot be used"),
    )
)]
pub(super) async fn export(
    State(plane): Shared,
    headers: HeaderMap,
    pairs: Pairs,
) -> Result<Response, Problem> {
    let passphrase = passphrase(&headers)?;
    let turn = turn(&plane)?;
    // What is being read is not to be collected.
    let kept = plane.collector.keep().await;
    let parcel = live::export(&plane, passphrase, query::flag(&pairs, "images")).await?;
    let (mut writer, body) = pipe::writer();
    let write = move || {
        let written = parcel.write(&mut writer);
        let ended = written.map_err(|error| error_chain(&error));
        let ended = ended.and_then(|()| writer.flush().map_err(|error| error.to_string()));
        if let Err(error) = &ended {
            tracing::warn!(error, "a state that was taken out was broken off");
        }
        // Who has it all may take the next one.
        drop((kept, turn));
        writer.end(ended.map_err(io::Error::other));
    };
    drop(plane.at_clients_pace(write).await);
    let kind = [(header::CONTENT_TYPE, "application/octet-stream")];
    Ok((kind, body).into_response())
}

/// Puts such a file into a node that has no apps and no secrets, all at once or nothing but its images. Tokens of the node
/// itself stay, and those of the file come to them. With `replace` what is here goes first, when the file was found to be right and
/// the store has tried it; what then stops it, a service that does not end in time, says so, and the same call goes on from there.
#[utoipa::path(
    post,
    path = "/v1/state/import",
    params(
        ("replace" = Option<bool>, Query, description = "Take down every app of the node first, and forget its secrets; volumes stay"),
        ("Layby-Passphrase" = String, Header, description = "What opens the file, in base64"),
    ),
    request_body(content_type = "application/octet-stream"),
    responses(
        (status = 200, body = ImportedView),
        (status = 400, body = Problem, content_type = "application/problem+json", description = "The passphrase is none, or too short"),
        (status = 409, body = Problem, content_type = "application/problem+json", description = "The node has something, or another state is being taken out or put in"),
        (status = 422, body = Problem, content_type = "application/problem+json", description = "The file is not right, or the passphrase is another one"),
        (status = 507, body = Problem, content_type = "application/problem+json", description = "The disk is full"),
    )
)]
pub(super) async fn import(
    State(plane): Shared,
    who: Who,
    headers: HeaderMap,
    pairs: Pairs,
    body: Body,
) -> Result<Json<ImportedView>, Problem> {
    let passphrase = passphrase(&headers)?;
    let turn = turn(&plane)?;
    let replace = query::flag(&pairs, "replace");
    let reader = pipe::reader(body);
    let imported = live::import(&plane, passphrase, replace, reader, &who, turn).await?;
    Ok(Json(imported))
}

/// One at a time: finding the key of a file takes much memory, on purpose.
fn turn(plane: &Plane) -> Result<tokio::sync::OwnedMutexGuard<()>, Problem> {
    let turn = std::sync::Arc::clone(&plane.states).try_lock_owned();
    turn.map_err(|_| {
        Problem::conflict("another state is being taken out or put in")
            .hint("wait until that is done")
    })
}

fn passphrase(headers: &HeaderMap) -> Result<SecretValue, Problem> {
    let text = headers.get(PASSPHRASE).ok_or_else(|| {
        Problem::bad_request(
            "there is no passphrase: say it in the header Layby-Passphrase, in base64",
        )
    })?;
    let decoded = STANDARD.decode(text.as_bytes());
    // Nothing of it is shown.
    let bytes = decoded.map_err(|_| Problem::bad_request("the Layby-Passphrase is not base64"))?;
    Ok(SecretValue::new(bytes))
}

impl From<StateError> for Problem {
    fn from(error: StateError) -> Self {
        match error {
            StateError::Short => Self::bad_request(error.to_string()),
            StateError::NotEmpty { .. } => Self::conflict(error.to_string()),
            StateError::Wrong(_) => Self::new(
                StatusCode::UNPROCESSABLE_ENTITY,
                "bad-state",
                error.to_string(),
            ),
            StateError::Images(error) => {
                let changed = format!(" ({})", changed(&error));
                let mut problem = Self::from(error);
                problem.detail.push_str(&changed);
                problem
            }
            StateError::Io { ref source, .. } if source.kind() == io::ErrorKind::StorageFull => {
                Self::full_disk(error_chain(&error))
            }
            StateError::Io { .. } => Self::failed(error_chain(&error)),
            StateError::Store(error) => error.into(),
            StateError::Key(error) => error.into(),
        }
    }
}
