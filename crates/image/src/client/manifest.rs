//! Manifests: asked for by tag or digest, verified, led on from an index to the one for a platform.

use std::io::Read;

use http::{Method, header};

use super::error::{Failure, Fault};
use super::http::{Ask, Payload, Session, refusal};
use super::platform::{Platform, choose};
use crate::layout::{
    self, DOCKER_LIST_TYPE, DOCKER_MANIFEST_TYPE, Descriptor, INDEX_TYPE, Index, MANIFEST_TYPE,
    MAX_DOCUMENT_BYTES, Manifest,
};
use crate::{Reference, digest};

/// How deep indexes may lie in indexes.
const MAX_DEPTH: u32 = 3;
/// Docker's manifests of before 2016, whose layers are named by no digest of their own.
const SCHEMA_1: &str = "application/vnd.docker.distribution.manifest.v1";

/// An image's manifest, verified.
pub(super) struct Found {
    pub(super) descriptor: Descriptor,
    pub(super) bytes: Vec<u8>,
    pub(super) manifest: Manifest,
    /// An index led to it, by the platform.
    pub(super) chosen: bool,
}

/// The manifest that a reference means for a platform.
pub(super) fn find(
    session: &Session<'_>,
    reference: &Reference,
    scope: &str,
    wanted: &Platform,
) -> Result<Found, Failure> {
    let repository = &reference.repository;
    let tag = reference.tag.as_deref().unwrap_or("latest");
    let mut name = reference.digest.clone().unwrap_or_else(|| tag.to_owned());
    let mut chosen = false;
    for _ in 0..=MAX_DEPTH {
        let (media_type, bytes) = get(session, repository, &name, scope)?;
        let digest = digest::of(&bytes);
        if digest::hex_of(&name).is_some() && name != digest {
            let reason = format!("sent another manifest than {name}: its digest is {digest}");
            return Err(Failure::final_(Fault::Broken, reason));
        }
        let what = format!("the manifest {digest}");
        match media_type.as_str() {
            INDEX_TYPE | DOCKER_LIST_TYPE => {
                let index: Index = layout::parse(&bytes, &what)?;
                let entry = choose(&index, wanted)?;
                if digest::hex_of(&entry.digest).is_none() {
                    let reason = "sent an index with a digest that is not SHA-256";
                    return Err(Failure::final_(Fault::Broken, reason));
                }
                name.clone_from(&entry.digest);
                chosen = true;
            }
            MANIFEST_TYPE | DOCKER_MANIFEST_TYPE => {
                let manifest = Manifest::from_json(&bytes, &what)?;
                refuse_foreign(&manifest)?;
                return Ok(Found {
                    descriptor: Descriptor::new(&media_type, &digest, bytes.len() as u64),
                    bytes,
                    manifest,
                    chosen,
                });
            }
            other if other.starts_with(SCHEMA_1) => {
                let reason = "has it only in Docker's schema 1, which nobody should use any more: push it again";
                return Err(Failure::final_(Fault::Broken, reason));
            }
            other => {
                let reason = format!("sent something that is no image ({other:?})");
                return Err(Failure::final_(Fault::Broken, reason));
            }
        }
    }
    let reason = "has indexes in indexes in indexes";
    Err(Failure::final_(Fault::Broken, reason))
}

/// Layers that are to be fetched from elsewhere (Windows' base layers) are nobody's that we know.
fn refuse_foreign(manifest: &Manifest) -> Result<(), Failure> {
    let is_foreign = |layer: &&Descriptor| {
        layer.media_type.contains(".foreign.") || layer.media_type.contains(".nondistributable.")
    };
    match manifest.layers.iter().find(is_foreign) {
        None => Ok(()),
        Some(layer) => Err(Failure::final_(
            Fault::Refused,
            format!(
                "does not hold the layer {} itself (a foreign layer), which is not followed",
                layer.digest
            ),
        )),
    }
}

/// The media type and the bytes of a manifest or index.
fn get(
    session: &Session<'_>,
    repository: &str,
    name: &str,
    scope: &str,
) -> Result<(String, Vec<u8>), Failure> {
    let accept = [
        MANIFEST_TYPE,
        INDEX_TYPE,
        DOCKER_MANIFEST_TYPE,
        DOCKER_LIST_TYPE,
    ];
    let ask = Ask {
        method: Method::GET,
        url: session.url(&format!("{repository}/manifests/{name}")),
        headers: vec![(header::ACCEPT, accept.join(", "))],
        body: Payload::Nothing,
        scope,
    };
    session.options.retry.run(&session.options.cancel, || {
        let response = session.send(&ask)?;
        if response.status() == 404 {
            let Failure::Registry { reason, .. } = refusal(response, "does not have it: it") else {
                return Err(Failure::final_(Fault::NotFound, "does not have it"));
            };
            return Err(Failure::final_(Fault::NotFound, reason));
        }
        if response.status() != 200 {
            return Err(refusal(response, ""));
        }
        let said = response.headers().get(header::CONTENT_TYPE);
        let said = said
            .and_then(|value| value.to_str().ok())
            .unwrap_or_default();
        let said = said.split(';').next().unwrap_or_default().trim().to_owned();
        let mut bytes = Vec::new();
        let read = response
            .into_body()
            .into_reader()
            .take(MAX_DOCUMENT_BYTES + 1)
            .read_to_end(&mut bytes);
        read.map_err(|error| {
            let reason = format!("broke off in the manifest: {error}");
            Failure::passing(Fault::Unreachable, reason)
        })?;
        if bytes.len() as u64 > MAX_DOCUMENT_BYTES {
            let reason = format!("sent a manifest of more than {MAX_DOCUMENT_BYTES} bytes");
            return Err(Failure::final_(Fault::Broken, reason));
        }
        Ok((media_type(&said, &bytes), bytes))
    })
}

/// What the document says that it is; else what the header says; else what it looks like.
fn media_type(said: &str, bytes: &[u8]) -> String {
    let document: Option<serde_json::Value> = serde_json::from_slice(bytes).ok();
    let has = |key: &str| document.as_ref().is_some_and(|d| d.get(key).is_some());
    // One could be taken for the other, by whoever looks elsewhere (CVE-2021-41190).
    if has("manifests") && (has("layers") || has("config")) {
        return "both an image and an index".to_owned();
    }
    let own = document.as_ref().and_then(|d| d.get("mediaType")?.as_str());
    if let Some(own) = own.filter(|own| !own.is_empty()) {
        return own.to_owned();
    }
    if said.starts_with("application/vnd.") {
        return said.to_owned();
    }
    match (has("manifests"), has("layers")) {
        (true, _) => INDEX_TYPE.to_owned(),
        (_, true) => MANIFEST_TYPE.to_owned(),
        _ => said.to_owned(),
    }
}
