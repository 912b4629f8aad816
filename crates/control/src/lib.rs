//! The control plane: a table of what should be true, one task per service that takes the next step,
//! and the HTTP API. It sees engines only through the `Engine` trait, and gateway and network only through wires.

mod addresses;
pub mod agents;
pub mod api;
mod audit;
mod bell;
mod capacity;
mod clock;
mod collect;
mod config;
mod control;
mod deploy;
mod driver;
mod error;
mod events;
mod facts;
mod jobs;
mod names;
mod networks;
mod plane;
mod probes;
mod prune;
mod reach;
mod registries;
mod registry;
mod room;
mod samples;
mod scaling;
mod secrets;
mod slot;
pub mod state;
mod store;
mod strays;
mod tables;
mod tokens;
mod uses;
mod volumes;
mod waiting;

pub use api::{Known, Peer};
pub use config::{
    ApiAddress, ControlConfig, DroppedPorts, MasterKey, OtherRegistries, PrunePolicy,
    RegistrySettings, StopRequest, Wires,
};
pub use control::{Control, check_data_dir};
pub use error::Error;
pub use secrets::KeyError;
pub use store::StoreError;
pub use tokens::Role;
