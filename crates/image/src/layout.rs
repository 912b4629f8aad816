//! The documents of an OCI image layout: descriptors, index.json and manifests (image-spec 1.1).

use std::collections::BTreeMap;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::{Error, digest};

pub(crate) const OCI_LAYOUT: &str = r#"{"imageLayoutVersion":"1.0.0"}"#;
pub(crate) const INDEX_TYPE: &str = "application/vnd.oci.image.index.v1+json";
pub(crate) const MANIFEST_TYPE: &str = "application/vnd.oci.image.manifest.v1+json";
pub(crate) const CONFIG_TYPE: &str = "application/vnd.oci.image.config.v1+json";
pub(crate) const LAYER_TYPE: &str = "application/vnd.oci.image.layer.v1.tar";
/// Docker's older name for an index.
pub(crate) const DOCKER_LIST_TYPE: &str =
    "application/vnd.docker.distribution.manifest.list.v2+json";
/// Docker's older name for a manifest.
pub(crate) const DOCKER_MANIFEST_TYPE: &str =
    "application/vnd.docker.distribution.manifest.v2+json";
/// Docker's older name for an image config.
pub(crate) const DOCKER_CONFIG_TYPE: &str = "application/vnd.docker.container.image.v1+json";
/// The annotation that names an image in an index.
pub(crate) const REF_NAME: &str = "org.opencontainers.image.ref.name";
/// containerd's and Docker's annotation with the whole name, where `REF_NAME` holds only the tag.
pub(crate) const CONTAINERD_NAME: &str = "io.containerd.image.name";

/// Layby's annotation that says where a name comes from (see [`crate::Source`]).
pub(crate) const SOURCE: &str = "dev.layby.source";

/// The most layers of an image: more than overlayfs can stack.
const MAX_LAYERS: usize = 500;
/// The longest manifest, index or config that is read into memory.
pub(crate) const MAX_DOCUMENT_BYTES: u64 = 4 << 20;
/// The longest index.json of the store: some 200,000 names.
pub(crate) const MAX_STORE_INDEX_BYTES: u64 = 64 << 20;

/// Points to a blob.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Descriptor {
    #[serde(rename = "mediaType", default)]
    pub(crate) media_type: String,
    pub(crate) digest: String,
    pub(crate) size: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) annotations: Option<BTreeMap<String, String>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) platform: Option<Platform>,
}

/// What a manifest of an index runs on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Platform {
    pub(crate) architecture: String,
    pub(crate) os: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) variant: Option<String>,
}

/// An image index, and index.json.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Index {
    pub(crate) schema_version: u32,
    #[serde(default)]
    pub(crate) media_type: String,
    pub(crate) manifests: Vec<Descriptor>,
}

/// An image manifest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Manifest {
    pub(crate) schema_version: u32,
    #[serde(default)]
    pub(crate) media_type: String,
    pub(crate) config: Descriptor,
    pub(crate) layers: Vec<Descriptor>,
}

impl Index {
    /// All names.
    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.manifests.iter().filter_map(Descriptor::ref_name)
    }
}

impl Default for Index {
    fn default() -> Self {
        Self {
            schema_version: 2,
            media_type: INDEX_TYPE.to_owned(),
            manifests: Vec::new(),
        }
    }
}

impl Descriptor {
    /// A descriptor without annotations.
    pub(crate) fn new(media_type: &str, digest: &str, size: u64) -> Self {
        Self {
            media_type: media_type.to_owned(),
            digest: digest.to_owned(),
            size,
            annotations: None,
            platform: None,
        }
    }

    /// The value of an annotation.
    pub(crate) fn annotation(&self, key: &str) -> Option<&str> {
        self.annotations.as_ref()?.get(key).map(String::as_str)
    }

    /// The name that the index gives to it.
    pub(crate) fn ref_name(&self) -> Option<&str> {
        self.annotation(REF_NAME)
    }

    /// Whether it points to an index rather than a manifest.
    pub(crate) fn is_index(&self) -> bool {
        self.media_type == INDEX_TYPE || self.media_type == DOCKER_LIST_TYPE
    }
}

impl Manifest {
    /// A manifest of these parts.
    pub(crate) fn new(config: Descriptor, layers: Vec<Descriptor>) -> Self {
        Self {
            schema_version: 2,
            media_type: MANIFEST_TYPE.to_owned(),
            config,
            layers,
        }
    }

    /// Reads a manifest and checks that all of its digests are well formed. `what` names it in errors.
    pub(crate) fn from_json(bytes: &[u8], what: &str) -> Result<Self, Error> {
        let manifest: Self = parse(bytes, what)?;
        let malformed = |reason: String| Error::Malformed {
            what: what.to_owned(),
            reason,
        };
        if manifest.layers.len() > MAX_LAYERS {
            return Err(malformed(format!("it has more than {MAX_LAYERS} layers")));
        }
        for part in manifest.layers.iter().chain([&manifest.config]) {
            if digest::hex_of(&part.digest).is_none() {
                return Err(malformed(format!(
                    "{:?} is not a SHA-256 digest",
                    part.digest
                )));
            }
        }
        Ok(manifest)
    }
}

/// Parses a JSON document. `what` names it in the error.
pub(crate) fn parse<T: DeserializeOwned>(bytes: &[u8], what: &str) -> Result<T, Error> {
    serde_json::from_slice(bytes).map_err(|error| Error::Malformed {
        what: what.to_owned(),
        reason: error.to_string(),
    })
}

/// Serialises a document of ours, which has no map with keys that are not text and so cannot fail.
pub(crate) fn to_json<T: Serialize>(document: &T) -> Vec<u8> {
    serde_json::to_vec(document).unwrap_or_default()
}

/// What this machine is called in OCI documents (Go's names).
pub(crate) fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}
