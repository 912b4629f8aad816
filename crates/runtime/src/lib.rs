//! Linux containers: the shim that holds them, their limits, their root file system, their logs.
//!
//! All `unsafe` of the project lives in this crate. It knows no tokio and none of the project's other
//! crates: its types are plain data.
//!
//! A *sandbox* is one or more containers in one network namespace and one parent cgroup, held by one
//! *shim*: a process of its own that outlives whoever started it ([`shim`]). The node starts it with
//! [`shim::spawn`] and talks to it over a socket ([`protocol`]); freezing ([`freezer`]) goes past it.

mod attach;
mod binds;
mod cdi;
mod cgroup;
pub mod client;
mod container;
mod copy_up;
mod copying;
mod devices;
pub mod dial;
mod entry;
mod error;
mod exec;
mod executor;
mod fence;
pub mod freezer;
mod hierarchy;
mod hook;
mod idmap;
mod image;
mod init;
pub mod logs;
pub mod machine;
mod mounts;
pub mod moving;
mod oci;
mod options;
pub mod probe;
pub mod protocol;
mod pump;
mod receive;
mod rights;
mod rootfs;
pub mod sandbox;
mod seccomp;
pub mod shim;
mod spec;
mod startup;
pub mod step;
mod sys;
mod sysctls;
mod terminal;
pub mod tree;
pub mod tty;
pub mod usage;
mod user;
mod values;
mod written;

pub use error::Error;
pub use hook::HookConfig;
pub use image::ShimImage;
pub use mounts::{FileConfig, MountConfig, MountFrom, is_plain_name};
pub use options::{DeviceConfig, OptionsConfig, UlimitConfig};
pub use receive::receive;
pub use shim::{run_if_shim, shims_below};
pub use spec::{After, AgainConfig, Bundle, ContainerConfig, SandboxSpec};
pub use startup::{Question, StartupConfig};
pub use sys::trim_memory;
pub use values::{MAX_VALUES_BYTES, Values};
