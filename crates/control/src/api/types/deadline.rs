//! How long a rollout may take, and how that is known.

use layby_model::deadline;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// How long the next rollout of a service may take to be ready.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct DeadlineView {
    /// While neither its log nor its image moves, in milliseconds.
    pub still_ms: u64,
    /// However much it moves, in milliseconds.
    pub max_ms: u64,
    /// The manifest says so; otherwise it is learned.
    pub is_said: bool,
    /// How long the last rollouts took, in milliseconds, the newest last.
    pub boots_ms: Vec<u64>,
}

impl DeadlineView {
    /// As a manifest has it (`said_ms`), and these boots.
    pub(crate) fn of(said_ms: Option<u64>, boots_ms: &[u64]) -> Self {
        let still_ms = deadline::soft_ms(said_ms, boots_ms);
        Self {
            still_ms,
            max_ms: deadline::hard_ms(said_ms, still_ms),
            is_said: said_ms.is_some(),
            boots_ms: boots_ms.to_vec(),
        }
    }
}
