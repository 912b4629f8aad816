//! What comes of a deploy.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// What came of the deploy of one service.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// The new revision serves.
    Live,
    /// The same settings and images as before: nothing was done.
    Unchanged,
    /// It failed, and nothing was live before.
    Failed,
    /// It failed, and the revision before serves on.
    Kept,
    /// It serves a part of the requests, until it is promoted or aborted.
    Canary,
    /// The rollout goes on; it was not waited for (any longer).
    Pending,
    /// It is disabled: nothing of it runs until it is enabled.
    Disabled,
    /// The live revision has as many replicas as were asked for.
    Scaled,
    /// All replicas of the live revision were restarted.
    Restarted,
    /// It went live, and has gone back to the settings of before, since another service failed.
    RolledBack,
    /// It was taken down.
    Removed,
    /// A newer revision took its place before it was live, by somebody else's word: what comes of that one is told there. Of a
    /// scale: another one, or the like, took its place.
    Overtaken,
    /// Somebody called it off; what was live before, if anything was, serves on.
    Aborted,
}
