//! What is done in or for a container right after it was started, and right before it is asked to stop.

use std::collections::BTreeMap;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

/// A lifecycle hook (Kubernetes `v1.LifecycleHandler`, Compose `post_start` and `pre_stop`).
///
/// After a start it has to end well before the next container is started; else its replica has ended as if the container had.
/// Before a stop it has the time that the container has to stop, and how it ends changes nothing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Hook {
    /// A command in the container that exits with 0.
    Exec {
        /// The program and its arguments.
        command: Vec<String>,
        /// Whom it runs as; `None`: as the container.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        user: Option<String>,
        /// Added to the container's environment.
        #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
        env: BTreeMap<String, String>,
        /// Where it starts; `None`: where the container did.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        working_dir: Option<String>,
        /// With all capabilities. Only where the node's operator allows it.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        privileged: bool,
    },
    /// `GET path` in the replica's network; 200 to 399 is a success. After a start it has to be answered within a minute.
    Http {
        /// The port.
        port: u16,
        /// The path, beginning with `/`.
        path: String,
        /// Whom to ask; `None`: the replica itself.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        host: Option<IpAddr>,
        /// Further headers; one of them may be `Host`.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        headers: Vec<(String, String)>,
    },
    /// Nothing, for so long.
    Sleep {
        /// In milliseconds.
        ms: u64,
    },
}

impl Hook {
    /// A command that runs as the container does.
    pub fn command(command: Vec<String>) -> Self {
        Self::Exec {
            command,
            user: None,
            env: BTreeMap::new(),
            working_dir: None,
            privileged: false,
        }
    }

    /// Whether it needs the operator's word.
    pub fn is_privileged(&self) -> bool {
        match self {
            Self::Exec { privileged, .. } => *privileged,
            Self::Http { .. } | Self::Sleep { .. } => false,
        }
    }
}
