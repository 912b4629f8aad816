//! Blobs: reading, pushing in one piece or in chunks, mounting, deleting (distribution-spec 1.1, "Pulling blobs",
//! "Pushing blobs", "Deleting Blobs").

use std::sync::Arc;

use http::header::{ACCEPT_RANGES, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, LOCATION, RANGE};
use http::request::Parts;
use http::{Method, Response, StatusCode};

use super::body::{self, Incoming, Outgoing};
use super::digest::Digest;
use super::range::{self, Asked};
use super::refusal::{Code, Refusal};
use super::repository::{self, Repository};
use super::route::{self, Name};
use super::upload::Upload;
use super::{CONTENT_DIGEST, Grant, Registry, UPLOAD_ID, answer, with};
use crate::error::io_error;

/// `GET` and `HEAD` of a blob.
pub(super) async fn read(
    registry: &Registry,
    name: Name,
    digest: Digest,
    parts: &Parts,
) -> Result<Response<Outgoing>, Refusal> {
    let store = Arc::clone(&registry.store);
    let asked_for = digest.clone();
    let (file, size_bytes) = registry
        .blocking(move || {
            let repository = Repository::new(&store, &name);
            let sha256 = repository.blob(&asked_for)?;
            let sha256 = sha256.ok_or_else(|| unknown(&name, &asked_for))?;
            let path = store.blob_path(&sha256)?;
            let file = store.open_blob(&sha256)?;
            let size_bytes = file.metadata().map_err(io_error("look at", &path))?.len();
            Ok((file, size_bytes))
        })
        .await?;
    let header = parts
        .headers
        .get(RANGE)
        .and_then(|value| value.to_str().ok());
    let mut response = answer(StatusCode::OK);
    with(&mut response, CONTENT_TYPE, "application/octet-stream");
    with(&mut response, CONTENT_DIGEST, digest.as_str());
    with(&mut response, ACCEPT_RANGES, "bytes");
    let (first, length) = match range::asked(header, size_bytes) {
        Asked::All => (0, size_bytes),
        Asked::Nothing => return Err(Refusal::no_such_range(size_bytes)),
        Asked::Part(first, last) => {
            *response.status_mut() = StatusCode::PARTIAL_CONTENT;
            let range = format!("bytes {first}-{last}/{size_bytes}");
            with(&mut response, CONTENT_RANGE, &range);
            (first, last - first + 1)
        }
    };
    with(&mut response, CONTENT_LENGTH, &length.to_string());
    if parts.method == Method::HEAD {
        return Ok(response);
    }
    let file = registry
        .blocking(move || {
            use std::io::{Seek, SeekFrom};
            let mut file = file;
            let sought = file.seek(SeekFrom::Start(first));
            sought.map_err(|error| Refusal::new(Code::Unknown, error.to_string()))?;
            Ok(file)
        })
        .await?;
    *response.body_mut() = body::of_file(file, length, Arc::clone(&registry.disk));
    Ok(response)
}

/// `DELETE` of a blob: it is no longer this repository's. Its content goes when nothing needs it.
pub(super) async fn delete(
    registry: &Registry,
    name: Name,
    digest: Digest,
) -> Result<Response<Outgoing>, Refusal> {
    let store = Arc::clone(&registry.store);
    registry
        .blocking(move || {
            let removed = Repository::new(&store, &name).remove_blob(&digest)?;
            removed.then_some(()).ok_or_else(|| unknown(&name, &digest))
        })
        .await?;
    Ok(answer(StatusCode::ACCEPTED))
}

/// `POST` to the uploads: mounts a blob, takes a whole one, or begins an upload.
pub(super) async fn begin(
    registry: &Registry,
    name: Name,
    parts: &Parts,
    body: Incoming,
    grant: &Grant,
) -> Result<Response<Outgoing>, Refusal> {
    let query = route::query(parts.uri.query());
    if let Some(mount) = route::value(&query, "mount") {
        let digest = route::digest(mount)?;
        let from = match route::value(&query, "from") {
            Some(from) => Some(Name::parse(from)?),
            None => None,
        };
        if mounted(registry, &name, &digest, from, grant).await? {
            return Ok(stored(&name, &digest));
        }
    }
    let whole = match route::value(&query, "digest") {
        Some(digest) => Some(route::digest(digest)?),
        None => None,
    };
    let store = Arc::clone(&registry.store);
    let uploads = Arc::clone(&registry.uploads);
    let begun = name.clone();
    let who = grant.who.clone();
    let id = registry
        .blocking(move || uploads.begin(&store, &begun, who.as_deref()))
        .await?;
    let Some(digest) = whole else {
        let mut response = answer(StatusCode::ACCEPTED);
        place(&mut response, &name, &id);
        with(&mut response, RANGE, "0-0");
        return Ok(response);
    };
    let upload = find(registry, &name, &id).await?;
    let upload = upload.lock_owned().await;
    // Nobody was told its id, so nobody can go on with it after a cut.
    let upload = receive(registry, upload, body, true).await?;
    finish(registry, name, upload, digest).await
}

/// `GET` of an upload: how far it is.
pub(super) async fn state(
    registry: &Registry,
    name: Name,
    id: String,
) -> Result<Response<Outgoing>, Refusal> {
    let upload = alone(registry, &name, &id).await?;
    Ok(progress(StatusCode::NO_CONTENT, &name, &id, &upload))
}

/// `PATCH` of an upload: the next chunk, or all that is left.
pub(super) async fn chunk(
    registry: &Registry,
    name: Name,
    id: String,
    parts: &Parts,
    body: Incoming,
) -> Result<Response<Outgoing>, Refusal> {
    let upload = alone(registry, &name, &id).await?;
    fits(parts, &name, &id, &upload)?;
    let upload = receive(registry, upload, body, false).await?;
    Ok(progress(StatusCode::ACCEPTED, &name, &id, &upload))
}

/// `PUT` of an upload: the last chunk or nothing, and the digest of all of it.
pub(super) async fn end(
    registry: &Registry,
    name: Name,
    id: String,
    parts: &Parts,
    body: Incoming,
) -> Result<Response<Outgoing>, Refusal> {
    let query = route::query(parts.uri.query());
    let Some(digest) = route::value(&query, "digest") else {
        let text = "the blob's digest is missing: end an upload with ?digest=";
        return Err(Refusal::new(Code::DigestInvalid, text));
    };
    let digest = route::digest(digest)?;
    let upload = alone(registry, &name, &id).await?;
    fits(parts, &name, &id, &upload)?;
    let upload = receive(registry, upload, body, false).await?;
    finish(registry, name, upload, digest).await
}

/// `DELETE` of an upload.
pub(super) async fn cancel(
    registry: &Registry,
    name: Name,
    id: String,
) -> Result<Response<Outgoing>, Refusal> {
    let upload = alone(registry, &name, &id).await?;
    let uploads = Arc::clone(&registry.uploads);
    registry
        .blocking(move || Ok(uploads.cancel(&upload)?))
        .await?;
    Ok(answer(StatusCode::NO_CONTENT))
}

type Held = tokio::sync::OwnedMutexGuard<Upload>;

async fn find(
    registry: &Registry,
    name: &Name,
    id: &str,
) -> Result<Arc<tokio::sync::Mutex<Upload>>, Refusal> {
    let store = Arc::clone(&registry.store);
    let uploads = Arc::clone(&registry.uploads);
    let (name, id) = (name.clone(), id.to_owned());
    registry
        .blocking(move || uploads.find(&store, &name, &id))
        .await
}

/// The upload, which nobody else is sending to.
async fn alone(registry: &Registry, name: &Name, id: &str) -> Result<Held, Refusal> {
    let upload = find(registry, name, id).await?;
    upload.try_lock_owned().map_err(|_| {
        Refusal::new(
            Code::BlobUploadInvalid,
            "another request is sending to this upload: wait for its end",
        )
        .status(StatusCode::CONFLICT)
    })
}

/// Whether a chunk is the next one.
fn fits(parts: &Parts, name: &Name, id: &str, upload: &Upload) -> Result<(), Refusal> {
    let Some(header) = parts.headers.get(CONTENT_RANGE) else {
        return Ok(());
    };
    let range = header.to_str().ok().and_then(range::of_chunk);
    let Some((first, last)) = range else {
        let text = "its Content-Range is not <first>-<last>";
        return Err(Refusal::new(Code::BlobUploadInvalid, text));
    };
    if first != upload.size_bytes() {
        let text = format!(
            "the chunk begins with byte {first}, and {} bytes are there",
            upload.size_bytes()
        );
        return Err(Refusal::new(Code::BlobUploadInvalid, text)
            .status(StatusCode::RANGE_NOT_SATISFIABLE)
            .header(LOCATION, &upload_path(name, id))
            .header(RANGE, &upload.range()));
    }
    let length = parts.headers.get(CONTENT_LENGTH);
    let length = length.and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
    if length.is_some_and(|length| length != last - first + 1) {
        let text = "its Content-Range does not have as many bytes as its Content-Length";
        return Err(Refusal::new(Code::SizeInvalid, text));
    }
    Ok(())
}

/// Adds a body to an upload, and with `cancel` forgets the upload when it breaks off. In a task of its own: the server
/// drops a handler whose client has gone, and what is written must be counted all the same.
async fn receive(
    registry: &Registry,
    mut upload: Held,
    body: Incoming,
    cancel: bool,
) -> Result<Held, Refusal> {
    let disk = Arc::clone(&registry.disk);
    let uploads = Arc::clone(&registry.uploads);
    let task = tokio::spawn(async move {
        let ended = upload.receive(body, &disk).await;
        match ended {
            Ok(()) => Ok(upload),
            Err(cut) => {
                if cancel {
                    let cancelled = move || uploads.cancel(&upload);
                    let _ = tokio::task::spawn_blocking(cancelled).await;
                }
                Err(cut)
            }
        }
    });
    task.await
        .map_err(|error| Refusal::new(Code::Unknown, format!("receiving broke off: {error}")))?
}

async fn finish(
    registry: &Registry,
    name: Name,
    mut upload: Held,
    digest: Digest,
) -> Result<Response<Outgoing>, Refusal> {
    let store = Arc::clone(&registry.store);
    let uploads = Arc::clone(&registry.uploads);
    registry
        .adding(move || {
            uploads.finish(&store, &name, &mut upload, &digest)?;
            Ok(stored(&name, &digest))
        })
        .await
}

/// Makes a blob of another repository this one's too. Without `from`, any repository will do that may be read.
async fn mounted(
    registry: &Registry,
    name: &Name,
    digest: &Digest,
    from: Option<Name>,
    grant: &Grant,
) -> Result<bool, Refusal> {
    let store = Arc::clone(&registry.store);
    let (name, digest, grant) = (name.clone(), digest.clone(), grant.clone());
    registry
        .adding(move || {
            let sources = match from {
                Some(from) => vec![from],
                None => repository::all(&store)?,
            };
            // From the look at it until it has its place, nothing is collected.
            let _adding = store.adding()?;
            for source in sources {
                if !grant.may_pull(source.as_str()) {
                    continue;
                }
                if let Some(sha256) = Repository::new(&store, &source).blob(&digest)?
                    && store.blob_path(&sha256)?.exists()
                {
                    let repository = Repository::new(&store, &name);
                    if !repository.may_be_made()? {
                        return Err(Refusal::too_many_repositories());
                    }
                    repository.add_blob(&digest, &sha256)?;
                    return Ok(true);
                }
            }
            Ok(false)
        })
        .await
}

fn stored(name: &Name, digest: &Digest) -> Response<Outgoing> {
    let mut response = answer(StatusCode::CREATED);
    let path = format!("/v2/{}/blobs/{digest}", name.as_str());
    with(&mut response, LOCATION, &path);
    with(&mut response, CONTENT_DIGEST, digest.as_str());
    response
}

fn progress(status: StatusCode, name: &Name, id: &str, upload: &Upload) -> Response<Outgoing> {
    let mut response = answer(status);
    place(&mut response, name, id);
    with(&mut response, RANGE, &upload.range());
    response
}

fn place(response: &mut Response<Outgoing>, name: &Name, id: &str) {
    with(response, LOCATION, &upload_path(name, id));
    with(response, UPLOAD_ID, id);
}

/// Without a host: it is right behind any proxy.
fn upload_path(name: &Name, id: &str) -> String {
    format!("/v2/{}/blobs/uploads/{id}", name.as_str())
}

fn unknown(name: &Name, digest: &Digest) -> Refusal {
    Refusal::new(
        Code::BlobUnknown,
        format!("{} has no blob {digest}", name.as_str()),
    )
}
