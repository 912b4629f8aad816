//! What a container sees of the world's files beside its image.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::names::{AppName, ServiceId};
use crate::secret::{FileGroup, ValueFile};

/// One mount of a container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mount {
    /// What is mounted.
    pub source: MountSource,
    /// Where: an absolute path in the container, without `.` and `..`.
    pub target: String,
    /// It cannot be written to.
    pub read_only: bool,
}

/// What is mounted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "kind")]
pub enum MountSource {
    /// A named volume: made on first use, outlives revisions and `down`.
    Volume {
        /// Its name on the node, such as `shop_data` (Compose's `<project>_<key>`, or what the manifest names).
        name: String,
        /// A folder in it to mount instead of the whole (Compose `volume.subpath`, Kubernetes `subPath`); relative.
        subpath: Option<String>,
        /// On first use what the image has at the target is copied into it, with its owners (`nocopy`: not).
        copy: bool,
        /// It must exist already (Compose `external: true`): it is never made.
        external: bool,
        /// Labels of the volume, set when it is made.
        labels: BTreeMap<String, String>,
    },
    /// A folder, file or socket of the machine.
    Bind {
        /// Its absolute path on the machine.
        path: String,
        /// A folder is made there if nothing is (Compose's short form, Kubernetes `DirectoryOrCreate`).
        create: bool,
        /// Mounts below the source come along (Compose `bind.recursive`; the default).
        recursive: bool,
    },
    /// A file system in memory.
    Tmpfs {
        /// Its size, in bytes; `None`: half of the container's memory limit, else 64 MiB.
        size_bytes: Option<u64>,
        /// The mode of its root, such as `0o1777`; `None`: `0o1777`.
        mode: Option<u32>,
        /// Nothing in it can be executed (`noexec`); otherwise programs can be.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        no_exec: bool,
    },
    /// A folder that the containers of one replica share and that goes with the replica (Kubernetes `emptyDir`,
    /// Compose's and the image's anonymous volumes).
    Scratch {
        /// Containers that name the same one share it.
        name: String,
        /// It is in memory, with so many bytes at most.
        memory_bytes: Option<u64>,
        /// As for a volume: what the image has there is copied into it when it is made.
        copy: bool,
    },
    /// Files whose contents are secrets, configs or what the replica itself is: in memory alone, there before the first
    /// process, the same for all of a replica's life. One whose path is empty is mounted at the target itself.
    Files {
        /// Which.
        files: Vec<ValueFile>,
        /// Further ones; never in what is deployed.
        #[serde(default)]
        groups: Vec<FileGroup>,
    },
}

/// A named volume of the node, as it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VolumeReport {
    /// Its name.
    pub name: String,
    /// The app that it was made for.
    pub app: Option<AppName>,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// When it was made, in milliseconds since 1970-01-01T00:00:00Z.
    pub created_ms: u64,
    /// Where its files are, on the machine.
    pub path: String,
    /// The services of which a replica has it mounted now.
    pub used_by: Vec<ServiceId>,
}
