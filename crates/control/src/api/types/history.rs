//! The words of a service's history: its revisions, and how two of them differ.

use layby_model::diff::Change;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::Failure;

/// One revision of a service: an image digest and settings that never change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct RevisionView {
    /// Its number.
    pub revision: u32,
    /// Whether it is the live one.
    pub active: bool,
    /// What became of its rollout.
    pub outcome: RevisionOutcome,
    /// When it was made (RFC 3339).
    pub made_at: String,
    /// Who made it: a user of the machine, or a token's name; `null`: it is not known.
    pub made_by: Option<String>,
    /// Why it was made; `null`: it is not known.
    pub cause: Option<String>,
    /// When its rollout ended (RFC 3339); `null`: it rolls, or it is not known.
    pub ended_at: Option<String>,
    /// How long its rollout might take while it did not move, in milliseconds: said, or learned when it was made.
    #[serde(default)]
    pub deadline_ms: u64,
    /// Its first image, as it was named.
    pub image: String,
    /// The digest of that image's manifest, `sha256:...`.
    pub digest: Option<String>,
    /// Why it failed, if it did.
    pub failure: Option<Failure>,
}

/// What became of the rollout of a revision.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum RevisionOutcome {
    /// It is under way.
    Rolling,
    /// It went live; whether it is so now, `active` says.
    Live,
    /// It failed.
    Failed,
    /// A newer one overtook it before it was live.
    Superseded,
    /// It was called off.
    Aborted,
}

/// How two revisions differ.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct DiffView {
    /// The revision that is looked at first.
    pub from: u32,
    /// The other.
    pub to: u32,
    /// What differs, in the order of the paths.
    pub changes: Vec<ChangeView>,
}

impl From<Change> for ChangeView {
    fn from(change: Change) -> Self {
        Self {
            path: change.path,
            before: change.before,
            after: change.after,
        }
    }
}

/// One setting that differs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ChangeView {
    /// Where it stands, such as `containers.web.env.LOG`.
    pub path: String,
    /// What it was; `null`: it was not there.
    pub before: Option<String>,
    /// What it is; `null`: it is not there.
    pub after: Option<String>,
}
