//! Words for images: how they are shown, moved and pruned.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::Problem;

/// One image in the node's store.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ImageView {
    /// Its names, in short form (`mnist:1.1.0`).
    pub references: Vec<String>,
    /// The digest of its manifest, `sha256:...`.
    pub digest: String,
    /// What it takes in the store, in bytes.
    pub size_bytes: u64,
    /// When it was made (RFC 3339), if it says so.
    pub created: Option<String>,
    /// When it came to be on this node (RFC 3339), if that is known.
    #[serde(default)]
    pub since: Option<String>,
    /// The apps that some of its names were built for, by name: who deploys another app by such a name runs what that app built.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub built_for: BTreeMap<String, String>,
    /// What it is for, such as `linux/amd64`, if it says so.
    pub platform: Option<String>,
}

/// Everything that an image says of itself.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct ImageDetail {
    /// The image.
    #[serde(flatten)]
    pub image: ImageView,
    /// The media type of its manifest.
    pub media_type: String,
    /// The digest of its config.
    pub config_digest: String,
    /// Its config as it came (image-spec, config.md).
    #[schema(value_type = Object)]
    pub config: serde_json::Value,
    /// Its layers, lowest first.
    pub layers: Vec<LayerView>,
}

/// One layer of an image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct LayerView {
    /// The digest of the blob.
    pub digest: String,
    /// The digest of the tar in it.
    pub diff_id: String,
    /// How it is packed.
    pub media_type: String,
    /// The blob's bytes.
    pub size_bytes: u64,
}

/// One line of the answer to a pull or push.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case", tag = "type")]
pub enum TransferEvent {
    /// Something happened to a layer or the config.
    Part {
        /// Its digest.
        digest: String,
        /// `waiting`, `held`, `bytes`, `again`, `done`, `unpacked` or `mounted`.
        step: String,
        /// Bytes so far (`bytes`).
        done_bytes: u64,
        /// Bytes in all (`waiting`, `bytes`).
        of_bytes: u64,
        /// Why it is tried again (`again`).
        reason: Option<String>,
    },
    /// All went well; the last line.
    Done {
        /// The image's name, or the one it has there.
        reference: String,
        /// The digest of its manifest.
        digest: String,
        /// The image, after a pull.
        image: Option<ImageView>,
    },
    /// It failed; the last line.
    Error {
        /// What went wrong, where, and what to do.
        problem: Problem,
    },
}

/// What to prune. The default removes only what nothing names.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(default)]
pub struct PruneBody {
    /// Names of images that no revision names; not those of the registry.
    pub all: bool,
    /// The build cache: what steps made, and the folders that they keep.
    pub cache: bool,
    /// Manifests of the registry that no tag leads to.
    pub untagged: bool,
    /// So many earlier revisions of each service are kept; `null`: all that are there.
    pub keep_revisions: Option<u32>,
    /// What was used (of revisions: made) in the last so many days is kept.
    pub keep_days: Option<u32>,
    /// With more content than this, in bytes, unused names and build caches go, least recently used first.
    pub budget_bytes: Option<u64>,
    /// So much may then be left; `null`: 80 % of the budget.
    pub low_bytes: Option<u64>,
    /// Only say what would go.
    pub dry_run: bool,
    /// Where builds or deploys are under way: refuse with 409, and do not wait for them.
    pub at_once: bool,
    /// It was asked for so long ago: what was made or named since then stays. `null`: now.
    pub asked_ago_ms: Option<u32>,
}

/// What was pruned, or would be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PruneView {
    /// Names of images.
    pub names: Vec<String>,
    /// Manifests of the registry, as `<repository>@<digest>`.
    pub untagged: Vec<String>,
    /// Earlier revisions, as `<app>/<service> revision <n>`.
    pub revisions: Vec<String>,
    /// How many entries and folders of the build cache.
    pub build_cache: usize,
    /// The bytes that went.
    pub freed_bytes: u64,
    /// The bytes that the node's images and build caches take now.
    pub left_bytes: u64,
    /// Those among them that are kept for builds alone: no image needs them.
    #[serde(default)]
    pub left_cache_bytes: u64,
}
