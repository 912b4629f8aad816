//! The state of a service: a function of what is wanted and what is seen, stored nowhere.

use std::fmt;

use serde::{Deserialize, Serialize};

/// How awake a replica or a service is wanted to be. Ordered: asleep < dozing < awake.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Wakefulness {
    /// Stopped, but prepared.
    Asleep,
    /// Frozen in memory.
    Dozing,
    /// Running.
    Awake,
}

impl fmt::Display for Wakefulness {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Asleep => "asleep",
            Self::Dozing => "dozing",
            Self::Awake => "awake",
        })
    }
}

/// The state of a service.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum State {
    /// Switched off.
    Disabled,
    /// Its first revision rolls.
    Deploying,
    /// Nothing is live and nothing rolls.
    Ready,
    /// A further revision rolls.
    Updating,
    /// Live, and this awake; [`Showing::Waking`] if it is wanted awake and no replica is ready.
    Running,
}

/// How awake a running service shows itself. `Waking` is derived, never wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Showing {
    /// Stopped, but prepared.
    Asleep,
    /// Frozen in memory.
    Dozing,
    /// Wanted awake, and no replica is ready yet.
    Waking,
    /// A replica is ready.
    Awake,
}
