//! Manifests: reading, pushing, deleting, by tag and by digest (distribution-spec 1.1, "Pulling manifests", "Pushing
//! Manifests", "Deleting Manifests"), and what says something about one ("Listing Referrers").

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE, LINK, LOCATION};
use http::request::Parts;
use http::{HeaderName, Method, Response, StatusCode};
use http_body_util::BodyExt;
use serde::Deserialize;
use serde_json::json;

use super::body::{self, Incoming, Outgoing};
use super::digest::{self, Digest};
use super::refusal::{Code, Refusal};
use super::repository::{Record, Repository, Tag};
use super::route::{self, Name, Named};
use super::upload::IDLE;
use super::{CONTENT_DIGEST, Grant, Moved, Registry, answer, images, with};
use crate::layout::{
    DOCKER_LIST_TYPE, DOCKER_MANIFEST_TYPE, INDEX_TYPE, MANIFEST_TYPE, MAX_DOCUMENT_BYTES,
};
use crate::percent;

const SUBJECT: HeaderName = HeaderName::from_static("oci-subject");
const TAG: HeaderName = HeaderName::from_static("oci-tag");
const FILTERS: HeaderName = HeaderName::from_static("oci-filters-applied");

/// So many tags may be given with one push.
const MAX_TAGS: usize = 50;
/// So many manifests and tags each may a repository have.
pub(super) const MAX_ENTRIES: usize = 20_000;
/// So many referrers are in one answer.
const REFERRERS: usize = 500;
/// The longest annotations that are kept for the referrers API, in bytes.
const MAX_ANNOTATIONS_BYTES: usize = 64 << 10;

/// The parts of a manifest or index that the registry reads.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Document {
    schema_version: u32,
    media_type: Option<String>,
    artifact_type: Option<String>,
    config: Option<Part>,
    layers: Option<Vec<Part>>,
    pub(super) manifests: Option<Vec<crate::layout::Descriptor>>,
    subject: Option<Part>,
    annotations: Option<BTreeMap<String, String>>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Part {
    #[serde(default)]
    media_type: String,
    digest: String,
    urls: Option<Vec<String>>,
}

impl Document {
    /// The digests of its blobs.
    pub(super) fn blobs(&self) -> impl Iterator<Item = &str> {
        let parts = self.layers.iter().flatten().chain(&self.config);
        parts.map(|part| part.digest.as_str())
    }
}

impl Part {
    /// Layers that may not be passed on are somewhere else (image-spec, layer.md, "Non-Distributable Layers").
    fn is_elsewhere(&self) -> bool {
        self.media_type.contains(".nondistributable.")
            || self.media_type.contains(".foreign.")
            || self.urls.as_ref().is_some_and(|urls| !urls.is_empty())
    }
}

/// `GET` and `HEAD` of a manifest.
pub(super) async fn read(
    registry: &Registry,
    name: Name,
    named: Named,
    parts: &Parts,
) -> Result<Response<Outgoing>, Refusal> {
    let store = Arc::clone(&registry.store);
    let (digest, record, bytes) = registry
        .blocking(move || {
            let repository = Repository::new(&store, &name);
            let digest = match named {
                Named::Digest(digest) => digest,
                Named::Tag(tag) => match repository.tag(&tag)? {
                    Some(to) => route::digest(&to.digest)?,
                    None => return Err(unknown(&name, &tag)),
                },
            };
            let record = repository.manifest(&digest)?;
            let record = record.ok_or_else(|| unknown(&name, digest.as_str()))?;
            let what = format!("the manifest {digest}");
            let path = store.blob_path(&record.sha256)?;
            let bytes = crate::blob::read_document(&path, &record.sha256, &what)?;
            Ok((digest, record, bytes))
        })
        .await?;
    let mut response = answer(StatusCode::OK);
    with(&mut response, CONTENT_TYPE, &record.media_type);
    with(&mut response, CONTENT_DIGEST, digest.as_str());
    with(&mut response, CONTENT_LENGTH, &bytes.len().to_string());
    if parts.method != Method::HEAD {
        *response.body_mut() = body::whole(bytes.into());
    }
    Ok(response)
}

/// `PUT` of a manifest.
pub(super) async fn write(
    registry: &Registry,
    name: Name,
    named: Named,
    parts: &Parts,
    body: Incoming,
    grant: &Grant,
) -> Result<Response<Outgoing>, Refusal> {
    let bytes = gathered(body).await?;
    let declared = parts.headers.get(CONTENT_TYPE);
    let declared = declared.and_then(|value| value.to_str().ok());
    let declared = declared.map(|text| text.split(';').next().unwrap_or(text).trim().to_owned());
    let query = route::query(parts.uri.query());
    let mut tags: Vec<String> = (query.iter())
        .filter(|(name, _)| name == "tag")
        .map(|(_, tag)| route::tag(tag))
        .collect::<Result<_, _>>()?;
    if tags.len() > MAX_TAGS {
        let text = format!("more than {MAX_TAGS} tags for one manifest");
        return Err(Refusal::new(Code::TagInvalid, text));
    }
    let given = tags.clone();
    let wanted = match named {
        Named::Tag(tag) => {
            tags.push(tag);
            None
        }
        Named::Digest(digest) => Some(digest),
    };
    let store = Arc::clone(&registry.store);
    let hosts = registry.hosts.clone();
    let turn = Arc::clone(&registry.turn);
    let who = grant.who.clone().unwrap_or_default();
    let (digest, subject, image, moved, ended) = registry
        .adding(move || {
            let document = parse(&bytes)?;
            let media_type = media_type(&document, declared)?;
            let digest = checked(&bytes, wanted)?;
            // One at a time, so that what names say and what the index of images says stay one.
            let _turn = turn
                .lock()
                .unwrap_or_else(std::sync::PoisonError::into_inner);
            let _adding = store.adding()?;
            let repository = Repository::new(&store, &name);
            parts_are_there(&repository, &name, &document)?;
            if !repository.may_be_made()? {
                return Err(Refusal::too_many_repositories());
            }
            let known = repository.manifest(&digest)?.is_some();
            if !known && repository.manifests()?.len() >= MAX_ENTRIES {
                return Err(too_many(&name, "manifests"));
            }
            let (sha256, size) = store.put_bytes(&bytes, "a manifest that is pushed")?;
            let record = record(document, sha256, size, media_type)?;
            repository.add_manifest(&digest, &record)?;
            let image = images::of(&store, &repository, &record)?;
            let mut moved = Vec::new();
            let mut ended = Ok(());
            for tag in tags {
                let to = Tag::now(&digest, &who);
                ended = room_for(&repository, &name, &tag).and_then(|()| {
                    Ok(images::set_tag(
                        &store,
                        &hosts,
                        &name,
                        &tag,
                        &to,
                        image.as_ref(),
                    )?)
                });
                if ended.is_err() {
                    break;
                }
                moved.push(Moved {
                    repository: name.as_str().to_owned(),
                    tag,
                    digest: digest.to_string(),
                    image: image.as_ref().map(|image| image.digest.clone()),
                    who: who.clone(),
                });
            }
            let path = format!("/v2/{}/manifests/{digest}", name.as_str());
            Ok((digest, record.subject, image, (moved, path), ended))
        })
        .await?;
    let (moved, path) = moved;
    // Also when a later tag failed: those before it were set.
    if !moved.is_empty() {
        if let Some(image) = image {
            registry.unpack(image.digest);
        }
        for one in moved {
            (registry.on_move)(one);
        }
    }
    ended?;
    let mut response = answer(StatusCode::CREATED);
    with(&mut response, LOCATION, &path);
    with(&mut response, CONTENT_DIGEST, digest.as_str());
    if let Some(subject) = subject {
        with(&mut response, SUBJECT, &subject);
    }
    for tag in given {
        with(&mut response, TAG, &tag);
    }
    Ok(response)
}

/// Whether a repository may have this tag.
fn room_for(repository: &Repository<'_>, name: &Name, tag: &str) -> Result<(), Refusal> {
    if repository.tag(tag)?.is_none() && repository.tags()?.len() >= MAX_ENTRIES {
        return Err(too_many(name, "tags"));
    }
    Ok(())
}

/// `DELETE` of a manifest with all tags that lead to it, or of a tag alone.
pub(super) async fn delete(
    registry: &Registry,
    name: Name,
    named: Named,
) -> Result<Response<Outgoing>, Refusal> {
    let store = Arc::clone(&registry.store);
    let hosts = registry.hosts.clone();
    let turn = Arc::clone(&registry.turn);
    registry
        .adding(move || {
            let _turn = turn
                .lock()
                .unwrap_or_else(std::sync::PoisonError::into_inner);
            let repository = Repository::new(&store, &name);
            let tags = match &named {
                Named::Digest(digest) if repository.manifest(digest)?.is_none() => {
                    return Err(unknown(&name, digest.as_str()));
                }
                Named::Digest(digest) => repository.tags_of(digest)?,
                Named::Tag(tag) if repository.tag(tag)?.is_none() => {
                    return Err(unknown(&name, tag));
                }
                Named::Tag(tag) => vec![tag.clone()],
            };
            for tag in tags {
                images::untag(&store, &hosts, &name, &tag)?;
            }
            if let Named::Digest(digest) = &named {
                repository.remove_manifest(digest)?;
            }
            Ok(())
        })
        .await?;
    Ok(answer(StatusCode::ACCEPTED))
}

/// `GET` of what says something about a manifest, which need not be there.
pub(super) async fn referrers(
    registry: &Registry,
    name: Name,
    subject: Digest,
    parts: &Parts,
) -> Result<Response<Outgoing>, Refusal> {
    let query = route::query(parts.uri.query());
    let wanted = route::value(&query, "artifactType").filter(|wanted| !wanted.is_empty());
    let wanted = wanted.map(str::to_owned);
    let after = route::value(&query, "last").and_then(Digest::parse);
    let filtered = wanted.is_some();
    let store = Arc::clone(&registry.store);
    let path = format!("/v2/{}/referrers/{subject}", name.as_str());
    let filter = wanted.clone();
    let (manifests, next) = registry
        .blocking(move || {
            let repository = Repository::new(&store, &name);
            let mut manifests = Vec::new();
            let mut last = None;
            let found = repository.referrers(&subject)?.into_iter();
            for digest in found.filter(|digest| after.as_ref().is_none_or(|a| digest > a)) {
                let Some(record) = repository.manifest(&digest)? else {
                    continue;
                };
                if filter.is_some() && record.artifact_type != filter {
                    continue;
                }
                if manifests.len() == REFERRERS {
                    return Ok((manifests, last));
                }
                last = Some(digest.clone());
                manifests.push(described(&digest, record));
            }
            Ok((manifests, None))
        })
        .await?;
    let index = json!({"schemaVersion": 2, "mediaType": INDEX_TYPE, "manifests": manifests});
    let mut response = answer(StatusCode::OK);
    with(&mut response, CONTENT_TYPE, INDEX_TYPE);
    if filtered {
        with(&mut response, FILTERS, "artifactType");
    }
    if let Some(last) = next {
        let filter = wanted.map_or_else(String::new, |wanted| {
            format!("&artifactType={}", percent::encode(&wanted))
        });
        let link = format!("<{path}?last={last}{filter}>; rel=\"next\"");
        with(&mut response, LINK, &link);
    }
    *response.body_mut() = body::whole(index.to_string().into());
    Ok(response)
}

fn described(digest: &Digest, record: Record) -> serde_json::Value {
    let mut descriptor = json!({
        "mediaType": record.media_type,
        "digest": digest.as_str(),
        "size": record.size,
    });
    if let Some(kind) = record.artifact_type {
        descriptor["artifactType"] = kind.into();
    }
    if let Some(annotations) = record.annotations {
        descriptor["annotations"] = json!(annotations);
    }
    descriptor
}

async fn gathered(mut body: Incoming) -> Result<Bytes, Refusal> {
    let mut bytes = Vec::new();
    loop {
        let next = tokio::time::timeout(IDLE, body.frame()).await;
        let next = next.map_err(|_| invalid(format!("nothing came for {} s", IDLE.as_secs())))?;
        let Some(frame) = next else { break };
        let frame = frame.map_err(|error| invalid(format!("the manifest broke off ({error})")))?;
        bytes.extend_from_slice(frame.data_ref().map_or(&[][..], |data| data));
        if bytes.len() as u64 > MAX_DOCUMENT_BYTES {
            return Err(Refusal::new(
                Code::SizeInvalid,
                format!("a manifest may have {MAX_DOCUMENT_BYTES} bytes"),
            )
            .status(StatusCode::PAYLOAD_TOO_LARGE));
        }
    }
    Ok(bytes.into())
}

/// Reads a manifest or index.
pub(super) fn parse(bytes: &[u8]) -> Result<Document, Refusal> {
    let document: Document = serde_json::from_slice(bytes)
        .map_err(|error| invalid(format!("the manifest cannot be understood: {error}")))?;
    if document.schema_version != 2 {
        let text = format!(
            "the manifest's schemaVersion is {}, and only 2 is taken: push it with a newer client",
            document.schema_version
        );
        return Err(invalid(text));
    }
    Ok(document)
}

/// Its type, which request and document must agree on.
fn media_type(document: &Document, declared: Option<String>) -> Result<String, Refusal> {
    let written = document.media_type.clone().filter(|text| !text.is_empty());
    let media_type = match (declared, written) {
        (Some(declared), Some(written)) if declared != written => {
            return Err(invalid(format!(
                "the request says {declared}, and the manifest itself {written}"
            )));
        }
        (Some(one), _) | (None, Some(one)) => one,
        (None, None) => {
            return Err(invalid(
                "the manifest has no type: send a Content-Type".into(),
            ));
        }
    };
    let is_index = match media_type.as_str() {
        MANIFEST_TYPE | DOCKER_MANIFEST_TYPE => false,
        INDEX_TYPE | DOCKER_LIST_TYPE => true,
        other => {
            return Err(invalid(format!(
                "manifests of type {other} are not taken: push an OCI or Docker (schema 2) manifest or index"
            )));
        }
    };
    let fits = match is_index {
        true => document.manifests.is_some() && document.layers.is_none(),
        false => {
            document.config.is_some() && document.layers.is_some() && document.manifests.is_none()
        }
    };
    if !fits {
        return Err(invalid(format!(
            "the document is not what {media_type} says"
        )));
    }
    Ok(media_type)
}

/// Its digest, which must be the one that it was pushed by.
fn checked(bytes: &[u8], wanted: Option<Digest>) -> Result<Digest, Refusal> {
    let found = match &wanted {
        Some(wanted) if !wanted.is_sha256() => digest::sha512(bytes),
        Some(_) | None => crate::digest::of(bytes),
    };
    match wanted {
        Some(wanted) if wanted.as_str() != found => Err(Refusal::new(
            Code::DigestInvalid,
            format!("the manifest has the digest {found}, not {wanted}"),
        )),
        Some(_) | None => route::digest(&found),
    }
}

/// Whether the blobs of an image are the repository's. What an index names need not be: clients push parts of one.
fn parts_are_there(
    repository: &Repository<'_>,
    name: &Name,
    document: &Document,
) -> Result<(), Refusal> {
    // A config is never somewhere else: it says how an image is run.
    let layers = document.layers.iter().flatten();
    let here = layers.filter(|layer| !layer.is_elsewhere());
    for part in here.chain(&document.config) {
        let digest = route::digest(&part.digest)?;
        if repository.blob(&digest)?.is_none() {
            return Err(Refusal::new(
                Code::ManifestBlobUnknown,
                format!(
                    "the manifest names the blob {digest}, which {} does not have: push it first",
                    name.as_str()
                ),
            ));
        }
    }
    for part in document.manifests.iter().flatten() {
        route::digest(&part.digest)?;
    }
    Ok(())
}

fn record(
    document: Document,
    sha256: String,
    size: u64,
    media_type: String,
) -> Result<Record, Refusal> {
    let mut record = Record {
        sha256,
        media_type,
        size,
        subject: None,
        artifact_type: None,
        annotations: None,
    };
    if let Some(subject) = document.subject {
        record.subject = Some(route::digest(&subject.digest)?.to_string());
        let config = document.config.map(|config| config.media_type);
        let kind = document.artifact_type.or(config);
        record.artifact_type = kind.filter(|kind| !kind.is_empty());
        record.annotations = document.annotations.filter(|all| {
            let sizes = all.iter().map(|(key, value)| key.len() + value.len());
            sizes.sum::<usize>() <= MAX_ANNOTATIONS_BYTES
        });
    }
    Ok(record)
}

fn unknown(name: &Name, reference: &str) -> Refusal {
    Refusal::new(
        Code::ManifestUnknown,
        format!("{} has no manifest {reference}", name.as_str()),
    )
}

fn invalid(text: String) -> Refusal {
    Refusal::new(Code::ManifestInvalid, text)
}

fn too_many(name: &Name, what: &str) -> Refusal {
    Refusal::new(
        Code::TooManyRequests,
        format!(
            "{} has {MAX_ENTRIES} {what}: delete some first",
            name.as_str()
        ),
    )
}
