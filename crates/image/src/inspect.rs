//! Everything that an image says of itself.

use serde_json::Value;

use crate::{Error, Image, Store, blob, layout};

/// An image with its parts.
#[derive(Debug, Clone, PartialEq)]
pub struct Inspection {
    /// The image.
    pub image: Image,
    /// Its manifest's media type: OCI's or Docker's.
    pub media_type: String,
    /// The digest of its config.
    pub config_digest: String,
    /// Its config as it came, history and all.
    pub config: Value,
    /// Its layers, lowest first.
    pub layers: Vec<LayerInfo>,
}

/// One layer of an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LayerInfo {
    /// The digest of the blob, `sha256:...`.
    pub digest: String,
    /// The digest of the tar in it.
    pub diff_id: String,
    /// How it is packed.
    pub media_type: String,
    /// The blob's bytes.
    pub size_bytes: u64,
}

impl Store {
    /// Tells everything about the image that a reference means.
    ///
    /// # Errors
    /// As [`Store::resolve`].
    pub fn inspect(&self, reference: &str) -> Result<Inspection, Error> {
        let image = self.resolve(reference)?;
        let (manifest, descriptor) = self.read_manifest(&image.digest)?;
        let config_digest = manifest.config.digest.clone();
        let what = format!("the image config {config_digest}");
        let bytes = blob::read_document(&self.blob_path(&config_digest)?, &config_digest, &what)?;
        let diff_ids = self.read_config(&manifest)?.diff_ids;
        let layers = manifest
            .layers
            .iter()
            .enumerate()
            .map(|(at, layer)| LayerInfo {
                digest: layer.digest.clone(),
                diff_id: diff_ids.get(at).cloned().unwrap_or_default(),
                media_type: layer.media_type.clone(),
                size_bytes: layer.size,
            });
        Ok(Inspection {
            image,
            media_type: descriptor.media_type,
            config_digest,
            config: layout::parse(&bytes, &what)?,
            layers: layers.collect(),
        })
    }
}
