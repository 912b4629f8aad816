//! Networks that apps share, in the API's words.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// A network of the node, which services of several apps may be in.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct NetworkView {
    /// Its name, as manifests give it (Compose `external: true`).
    pub name: String,
    /// The apps that may join; who is limited to some apps is told of these alone.
    pub apps: Vec<String>,
    /// It is for some apps alone. Otherwise any may join that somebody deploys who is not limited to some apps.
    #[serde(default)]
    pub limited: bool,
    /// The services and jobs that are in it, as `app/service`.
    pub used_by: Vec<String>,
    /// The names without a dot that services of several apps have in it, each with these apps: it leads further apps to the first of
    /// them, and `name.app` to each. Who is limited to some apps is told of none.
    #[serde(default)]
    pub doubled: BTreeMap<String, Vec<String>>,
    /// Who made it.
    pub made_by: String,
    /// When (RFC 3339).
    pub created: Option<String>,
}

/// A network to make.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct NetworkBody {
    /// Its name.
    pub name: String,
    /// The apps that may join, whoever deploys them; none: any.
    #[serde(default)]
    pub apps: Vec<String>,
}
