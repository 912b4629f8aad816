//! Words for tokens.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::tokens::Role;

/// A token to make: for the registry, for the node (with a role), or for both.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TokenBody {
    /// Its name: what clients give as the user.
    pub name: String,
    /// At the registry it may read. With a role and neither `pull` nor `push`, what the role means.
    #[serde(default)]
    pub pull: bool,
    /// At the registry it may write and delete.
    #[serde(default)]
    pub push: bool,
    /// In which repositories: a name in which each `*` stands for any characters, or several with commas; `null`: all, or
    /// those that begin with the apps' names.
    #[serde(default)]
    pub repository: Option<String>,
    /// How long it is good for, in seconds; `null`: without end.
    #[serde(default)]
    pub expires_s: Option<u64>,
    /// What it may do with the node; `null`: nothing.
    #[serde(default)]
    pub role: Option<Role>,
    /// Only with these apps; none: with all.
    #[serde(default)]
    pub apps: Vec<String>,
}

/// A token.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TokenView {
    /// Its name: what clients give as the user.
    pub name: String,
    /// At the registry it may read.
    pub pull: bool,
    /// At the registry it may write and delete.
    pub push: bool,
    /// In which repositories.
    pub repository: String,
    /// What it may do with the node; `null`: nothing.
    #[serde(default)]
    pub role: Option<Role>,
    /// Only with these apps; none: with all.
    #[serde(default)]
    pub apps: Vec<String>,
    /// When it was made (RFC 3339).
    pub created_at: String,
    /// When it ends (RFC 3339); `null`: never.
    pub expires_at: Option<String>,
}

/// A token that was just made.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct NewToken {
    /// The token.
    #[serde(flatten)]
    pub token: TokenView,
    /// What clients give as the password. It is not kept, and never shown again.
    pub secret: String,
}

/// Without the secret, which belongs in no log.
impl std::fmt::Debug for NewToken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("NewToken")
            .field("token", &self.token)
            .finish_non_exhaustive()
    }
}
