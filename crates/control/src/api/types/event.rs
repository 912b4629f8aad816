//! Words for what happened.

use std::fmt;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// What kind of thing happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum EventKind {
    /// The node started.
    NodeStarted,
    /// A revision was made, and is to be live.
    Deployed,
    /// A revision serves.
    Live,
    /// A revision failed.
    Failed,
    /// An attempt failed, and another one will be made.
    Retrying,
    /// A canary is to take all requests.
    Promoted,
    /// A rollout was given up by somebody.
    Aborted,
    /// The number of replicas was changed.
    Scaled,
    /// Somebody had the replicas of a service restarted.
    Restarted,
    /// A service was switched off.
    Disabled,
    /// A service was switched on again.
    Enabled,
    /// A service was taken down.
    Removed,
    /// A container ended unasked.
    Crashed,
    /// A replica or a container that may end did so, with exit code 0, and its restart policy leaves it so.
    Ended,
    /// A container was ended for want of memory within its limit.
    OutOfMemory,
    /// A replica was woken.
    Woken,
    /// A service was frozen in memory.
    Dozing,
    /// A service was stopped and is kept prepared.
    Asleep,
    /// A run of a job began.
    JobStarted,
    /// A run of a job ended.
    JobEnded,
    /// A secret has a new value.
    SecretSet,
    /// A secret was removed.
    SecretRemoved,
    /// All secrets were encrypted with another key.
    KeyRotated,
    /// The state of another node was put in.
    StateImported,
}

impl EventKind {
    /// Whether it is written down. What comes and goes with every request is only told to those who listen.
    pub(crate) fn is_kept(self) -> bool {
        match self {
            Self::Woken | Self::Dozing | Self::Asleep => false,
            Self::NodeStarted
            | Self::Deployed
            | Self::Live
            | Self::Failed
            | Self::Retrying
            | Self::Promoted
            | Self::Aborted
            | Self::Scaled
            | Self::Restarted
            | Self::Disabled
            | Self::Enabled
            | Self::Removed
            | Self::Crashed
            | Self::Ended
            | Self::OutOfMemory
            | Self::JobStarted
            | Self::JobEnded
            | Self::SecretSet
            | Self::SecretRemoved
            | Self::KeyRotated
            | Self::StateImported => true,
        }
    }
}

impl fmt::Display for EventKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Its one name is the one that serde knows it by.
        self.serialize(f)
    }
}

/// Something that happened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct EventView {
    /// Counts up; `null`: it is not written down (`woken`, `dozing`, `asleep`).
    pub id: Option<u64>,
    /// When, in milliseconds since 1970-01-01T00:00:00Z.
    pub at_ms: u64,
    /// What kind of thing.
    pub kind: EventKind,
    /// To which app; `null`: to the node.
    pub app: Option<String>,
    /// To which service or job of it.
    pub service: Option<String>,
    /// What, in words that follow the service's name.
    pub text: String,
    /// Who made it happen; `null`: nobody asked for it.
    pub who: Option<String>,
}
