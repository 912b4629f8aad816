//! Words for secrets. None of them takes a value out of the node.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// A secret, without its value: that is never given out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct KeptSecret {
    /// Its name.
    pub name: String,
    /// Whose it is; `null`: the node's, which every app may use.
    pub app: Option<String>,
    /// Its newest version.
    pub version: u32,
    /// How many versions are kept: the newest, and those of revisions that may be gone back to.
    pub versions: u32,
    /// When the newest one was set (RFC 3339).
    pub set_at: String,
    /// Who set it.
    pub set_by: String,
    /// The services whose live or newest revision uses it, as `app/service`.
    pub used_by: Vec<String>,
    /// Those of them whose live revision has an older version than the newest, such as after a rollback, and which one.
    #[serde(default)]
    pub behind: BTreeMap<String, u32>,
}

/// Secrets to set.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct SetSecrets {
    /// Whose they are; left out: the node's.
    #[serde(default)]
    pub app: Option<String>,
    /// The values by name, each in base64 (RFC 4648): 1 MiB at most.
    pub values: BTreeMap<String, String>,
    /// Do not make new revisions of the services that use them.
    #[serde(default)]
    pub no_deploy: bool,
}

impl fmt::Debug for SetSecrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<&String> = self.values.keys().collect();
        write!(f, "SetSecrets of {:?} {names:?}", self.app)
    }
}
