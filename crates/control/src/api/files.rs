//! Files of a replica, as tars.

use std::io;

use axum::Json;
use axum::body::{Body, Bytes};
use axum::extract::{Path, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use futures_util::{StreamExt, stream};
use layby_model::access::{CopyIn, CopyOut, TarStream};
use layby_model::engine::EngineError;

use super::query::{self, Pairs};
use super::replica;
use super::types::{FileView, Problem};
use super::{Shared, Who};
use crate::plane::CLIENT_IDLE;

/// A file or folder of a replica as a tar, whose entries begin with the path's last name (with `.` where that is `/` or
/// `.`). Wakes the service, and keeps it awake meanwhile.
#[utoipa::path(
    get,
    path = "/v1/services/{app}/{service}/files",
    params(
        ("app" = String, Path),
        ("service" = String, Path),
        ("path" = String, Query, description = "The file or folder"),
        ("follow" = Option<bool>, Query, description = "If it is a link, what it leads to is meant"),
        ("container" = Option<String>, Query, description = "In this container; the first if none is named"),
        ("replica" = Option<String>, Query, description = "In this replica"),
    ),
    responses(
        (status = 200, content_type = "application/x-tar", body = [u8]),
        (status = 404, body = Problem, content_type = "application/problem+json"),
        (status = 409, body = Problem, content_type = "application/problem+json"),
        (status = 504, body = Problem, content_type = "application/problem+json", description = "It did not wake within 60 s"),
    )
)]
pub(super) async fn read(
    State(plane): Shared,
    who: Who,
    Path(names): Path<(String, String)>,
    pairs: Pairs,
) -> Result<Response, Problem> {
    let order = CopyOut {
        container: query::get(&pairs, "container").map(str::to_owned),
        path: path(&pairs)?,
        follow_link: query::flag(&pairs, "follow"),
    };
    replica::enter(&plane, &names, &who)?;
    let held = replica::with_files(&plane, names, &pairs).await?;
    let tar = plane.access.copy_out(held.id, &order).await?;
    let pieces = tar.map(move |piece| {
        let _ = &held; // kept until the last piece
        piece.map(Bytes::from).map_err(io::Error::other)
    });
    let kind = [(header::CONTENT_TYPE, "application/x-tar")];
    Ok((kind, Body::from_stream(pieces)).into_response())
}

/// Unpacks a tar into a folder of a replica, never outside of it. Wakes the service, and keeps it awake meanwhile.
#[utoipa::path(
    put,
    path = "/v1/services/{app}/{service}/files",
    params(
        ("app" = String, Path),
        ("service" = String, Path),
        ("path" = String, Query, description = "The folder; it must be there"),
        ("owners" = Option<bool>, Query, description = "Keep the owners of the tar, by number; otherwise all belongs to root"),
        ("whiteouts" = Option<bool>, Query, description = "An entry called `.wh.NAME` takes away what is called NAME there, with all that is in it; a folder gives way to a file of its name, and a file to a folder. What is mounted there stays"),
        ("container" = Option<String>, Query, description = "In this container; the first if none is named"),
        ("replica" = Option<String>, Query, description = "In this replica"),
    ),
    request_body(content = [u8], content_type = "application/x-tar"),
    responses(
        (status = 204, description = "It is unpacked"),
        (status = 404, body = Problem, content_type = "application/problem+json"),
        (status = 409, body = Problem, content_type = "application/problem+json"),
        (status = 504, body = Problem, content_type = "application/problem+json", description = "It did not wake within 60 s"),
    )
)]
pub(super) async fn write(
    State(plane): Shared,
    who: Who,
    Path(names): Path<(String, String)>,
    pairs: Pairs,
    body: Body,
) -> Result<StatusCode, Problem> {
    let order = CopyIn {
        container: query::get(&pairs, "container").map(str::to_owned),
        path: path(&pairs)?,
        keep_owners: query::flag(&pairs, "owners"),
        whiteouts: query::flag(&pairs, "whiteouts"),
    };
    replica::enter(&plane, &names, &who)?;
    let held = replica::with_files(&plane, names, &pairs).await?;
    plane.access.copy_in(held.id, &order, pieces(body)).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// What is at a path of a replica; links are followed.
#[utoipa::path(
    get,
    path = "/v1/services/{app}/{service}/files/stat",
    params(
        ("app" = String, Path),
        ("service" = String, Path),
        ("path" = String, Query),
        ("container" = Option<String>, Query, description = "In this container; the first if none is named"),
        ("replica" = Option<String>, Query, description = "In this replica"),
    ),
    responses(
        (status = 200, body = FileView),
        (status = 404, body = Problem, content_type = "application/problem+json"),
        (status = 409, body = Problem, content_type = "application/problem+json"),
        (status = 504, body = Problem, content_type = "application/problem+json", description = "It did not wake within 60 s"),
    )
)]
pub(super) async fn stat(
    State(plane): Shared,
    who: Who,
    Path(names): Path<(String, String)>,
    pairs: Pairs,
) -> Result<Json<FileView>, Problem> {
    let path = path(&pairs)?;
    replica::enter(&plane, &names, &who)?;
    let held = replica::with_files(&plane, names, &pairs).await?;
    let container = query::get(&pairs, "container");
    let found = plane.access.stat(held.id, container, &path).await?;
    Ok(Json(FileView {
        path: found.path,
        is_dir: found.is_dir,
        replica: held.id.to_string(),
    }))
}

fn path(pairs: &Pairs) -> Result<String, Problem> {
    let path = query::get(pairs, "path").filter(|path| !path.contains('\0'));
    let path = path.ok_or_else(|| Problem::bad_request("path= names no path"))?;
    Ok(path.to_owned())
}

/// A body as it comes; it breaks off when nothing comes for [`CLIENT_IDLE`].
fn pieces(body: Body) -> TarStream {
    let data = Some(body.into_data_stream());
    Box::pin(stream::unfold(data, |data| async {
        let mut data = data?;
        let failed = |text: String| EngineError::Failed(text);
        match tokio::time::timeout(CLIENT_IDLE, data.next()).await {
            Ok(Some(Ok(piece))) => Some((Ok(piece.to_vec()), Some(data))),
            Ok(Some(Err(error))) => Some((Err(failed(error.to_string())), None)),
            Ok(None) => None,
            Err(_) => {
                let text = format!("the client sent nothing for {} s", CLIENT_IDLE.as_secs());
                Some((Err(failed(text)), None))
            }
        }
    }))
}
