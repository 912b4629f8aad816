//! OCI content: the image store, building from a Dockerfile, loading and saving archives, unpacked layers.
//!
//! Everything here blocks; callers that must not block run it on a thread of their own. [`Store`] may be
//! shared by threads, and one directory by processes.

mod archive;
mod blob;
pub mod build;
pub mod client;
pub mod config;
pub mod contexts;
mod digest;
pub mod dockerfile;
pub mod dockerignore;
mod error;
mod fence;
mod gc;
mod glob;
mod inspect;
mod layer;
mod layout;
mod lock;
mod origin;
pub mod percent;
mod pieces;
mod prune;
pub mod reference;
pub mod registry;
pub mod store;
mod tarball;
mod unnamed;
pub mod unpack;

pub use build::{BuildEvent, BuildOptions};
pub use config::{Healthcheck, ImageConfig};
pub use error::Error;
pub use fence::Reach;
pub use inspect::{Inspection, LayerInfo};
pub use prune::{Budget, Measured, PruneOptions, Pruned};
pub use reference::Reference;
pub use store::{Format, Image, ImageName, Source, Store, meant_among, similar};
