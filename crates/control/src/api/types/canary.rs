//! The words of a canary: a revision that is tried out on a part of the requests.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// A revision that is tried out on a part of the requests, until it is promoted or aborted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct CanaryView {
    /// Its revision.
    pub revision: u32,
    /// Which requests it gets: `10 %`, `header X-Beta=yes` or `cookie beta`.
    pub share: String,
    /// Whether it gets them now; otherwise they go to live: it is not ready (yet).
    pub serves: bool,
    /// Its replicas that are ready.
    pub replicas_ready: u32,
    /// What it was given since it began, as far as this life of the node and its replicas know.
    pub given: GivenView,
    /// What live was given in the same time.
    pub given_live: GivenView,
}

/// A revision that was called off before it was live.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct AbortedView {
    /// Its revision.
    pub revision: u32,
    /// Who called it off.
    pub by: String,
}

/// Requests (where no HTTP is spoken, connections), and what became of them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct GivenView {
    /// How many.
    pub requests: u64,
    /// Those of them that were answered with a 5xx, or not to the end.
    pub errors: u64,
}
