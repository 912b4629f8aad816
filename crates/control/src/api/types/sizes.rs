//! How large a service is: its power, and its scale.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// How many replicas a service is to have.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ScaleBody {
    /// So many, whatever its manifest says; `null`: as many as that says.
    pub replicas: Option<u32>,
}

/// How much a replica may use.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PowerBody {
    /// The name of a power, whatever the manifest says; `null`: what that says.
    pub power: Option<String>,
}

/// A power of the node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PowerView {
    /// What it is called.
    pub name: String,
    /// Most CPU, in thousandths of a core.
    pub cpu_milli: u64,
    /// Most memory, in bytes.
    pub memory_bytes: u64,
    /// Every node has it.
    pub built_in: bool,
    /// The services that have it, as `app/service`.
    pub services: Vec<String>,
    /// Those of them whose revision was made when it had other figures: the next one gets these.
    pub outdated: Vec<String>,
}

/// The figures of a power.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PresetBody {
    /// Most CPU, in thousandths of a core.
    pub cpu_milli: u64,
    /// Most memory, in bytes.
    pub memory_bytes: u64,
}

/// How large a service is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct SizeView {
    /// The most CPU of a replica's first container, in thousandths of a core; `null`: no limit.
    pub cpu_limit_milli: Option<u64>,
    /// The most memory of a replica's first container, in bytes; `null`: no limit.
    pub memory_limit_bytes: Option<u64>,
    /// `layby power` said so, and not the manifest.
    pub power_by_hand: bool,
    /// How many replicas `layby scale` said; `null`: the manifest's number holds.
    pub scale: Option<u32>,
    /// How many replicas the manifest says.
    pub manifest_replicas: u32,
}

/// What a service has used in the last 14 days while it was awake, and the power that is proposed for that.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct AdviceView {
    /// The name of the power that it has; `null`: none.
    pub power: Option<String>,
    /// So many samples were taken of its replicas, one each 15 seconds.
    pub samples: u64,
    /// The CPU that a replica did not pass in 95 of 100 samples, in thousandths of a core.
    pub cpu_p95_milli: u64,
    /// The most memory of a replica that a sample saw, in bytes.
    pub memory_peak_bytes: u64,
    /// The power that is proposed, which may be the one that it has; `null`: none, `texts` say why.
    pub proposed: Option<String>,
    /// How much data there is, what it says, and what follows; for people.
    pub texts: Vec<String>,
}
