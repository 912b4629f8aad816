//! Words for the state of a node as a whole: what is in it, and what came of putting it back.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// What would be taken out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct StateView {
    /// The services, as `app/service`.
    pub services: Vec<String>,
    /// The jobs, as `app/job`.
    pub jobs: Vec<String>,
    /// How many secrets and configs there are.
    pub secrets: u32,
    /// The images that these need, or would if they went back to a kept revision.
    pub images: Vec<StateImage>,
}

/// An image that services or jobs need.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct StateImage {
    /// Its name, as the newest that needs it has it.
    pub name: String,
    /// The digest of its manifest, `sha256:...`.
    pub digest: String,
    /// The services and jobs, as `app/service`.
    pub used_by: Vec<String>,
    /// What is live or to be, or a job, needs it; else only a revision to go back to.
    pub current: bool,
    /// Bytes of its content; `null`: it is not on this node.
    pub size_bytes: Option<u64>,
    /// The reference by which another registry is known to have it; `null`: it was built or loaded here, and can be pulled
    /// from nowhere as far as this node knows.
    pub origin: Option<String>,
}

/// What was put back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ImportedView {
    /// The services, as `app/service`.
    pub services: Vec<String>,
    /// The jobs, as `app/job`.
    pub jobs: Vec<String>,
    /// So many images came with it.
    pub loaded: u32,
    /// The images that are needed and not on this node.
    pub missing: Vec<StateImage>,
    /// Tokens of the node itself that stayed where the state had others of the same names.
    pub kept_tokens: Vec<String>,
    /// What could not be put in, or not be found out: one sentence each.
    #[serde(default)]
    pub warnings: Vec<String>,
}
