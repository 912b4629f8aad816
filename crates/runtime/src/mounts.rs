//! What of the machine's files a container sees beside its image: plain data.

use std::path::{Component, Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// The most mounts of one container.
const MAX_MOUNTS: usize = 256;

/// The most files of one mount.
const MAX_FILES: usize = 1000;

/// One mount of a container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MountConfig {
    /// What is mounted.
    pub source: MountFrom,
    /// Where: an absolute path in the container, without `.` and `..`. What is missing of it is made.
    pub target: String,
    /// It cannot be written to, nor can what is mounted below it.
    #[serde(default)]
    pub read_only: bool,
    /// What the image has at the target is copied into the source, with its owners, if that is an empty folder.
    #[serde(default)]
    pub copy_up: bool,
}

/// What is mounted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "kind")]
pub enum MountFrom {
    /// A folder, file or socket of the machine. In a user namespace it is shown with the ids that it has on disk.
    Bind {
        /// Its absolute path on the machine, no part of which is a link; it must be there.
        path: PathBuf,
        /// Mounts below it come along.
        #[serde(default)]
        recursive: bool,
        /// A folder or file in it to mount instead of the whole; no link in it leads out.
        #[serde(default)]
        subpath: Option<PathBuf>,
    },
    /// A file system in memory, empty at each start.
    Tmpfs {
        /// Its size, in bytes; `None`: 64 MiB.
        #[serde(default)]
        size_bytes: Option<u64>,
        /// The mode of its root; `None`: `0o1777`.
        #[serde(default)]
        mode: Option<u32>,
        /// Nothing in it can be executed.
        #[serde(default)]
        no_exec: bool,
    },
    /// A file system in memory that containers of the sandbox share, and that is there as long as the sandbox is.
    Memory {
        /// Mounts of the same name show the same one: 1 to 255 of a-z, A-Z, 0-9, '_', '.' and '-'.
        name: String,
        /// Its size, in bytes; the first mount's counts.
        size_bytes: u64,
    },
    /// Files in memory whose contents are values of the sandbox. One whose path is empty is the target itself.
    Files {
        /// Which.
        files: Vec<FileConfig>,
    },
}

/// A file whose content is a value of the sandbox.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileConfig {
    /// Where it is below the target: relative, without `.` and `..`.
    pub path: PathBuf,
    /// The number of the value.
    pub value: usize,
    /// Its mode.
    pub mode: u32,
    /// Whose it is in the container.
    pub uid: u32,
    /// Its group in the container.
    pub gid: u32,
}

/// Whether a path of a container lies in what the kernel shows of itself, where nothing else may be.
pub(crate) fn is_kernels(path: &Path) -> bool {
    path.starts_with("/proc") || path.starts_with("/sys")
}

/// Whether a name is that of a file in any folder, and leads nowhere else.
pub fn is_plain_name(name: &str) -> bool {
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-');
    (1..=255).contains(&name.len()) && name.bytes().all(plain) && !matches!(name, "." | "..")
}

/// Refuses files that cannot be told apart, or lead elsewhere. `ids`: how many ids the container has.
fn check_files(files: &[FileConfig], ids: Option<u32>) -> std::result::Result<(), String> {
    if files.len() > MAX_FILES {
        return Err(format!("more than {MAX_FILES} files in one mount"));
    }
    let alone = files.len() == 1;
    for (index, file) in files.iter().enumerate() {
        let plain = file
            .path
            .components()
            .all(|part| matches!(part, Component::Normal(_)));
        let is_target = file.path.as_os_str().is_empty();
        if !plain || is_target && !alone {
            return Err(format!(
                "{} is no path of a file in a mount",
                file.path.display()
            ));
        }
        // One would be a folder that the other is in.
        let clash = |other: &FileConfig| {
            other.path.starts_with(&file.path) || file.path.starts_with(&other.path)
        };
        if files[..index].iter().any(clash) {
            return Err(format!(
                "two files of a mount are at {}",
                file.path.display()
            ));
        }
        if let Some(ids) = ids
            && (file.uid >= ids || file.gid >= ids)
        {
            return Err(format!(
                "the file {} cannot belong to {}:{}: ids in a container are below {ids}",
                file.path.display(),
                file.uid,
                file.gid
            ));
        }
    }
    Ok(())
}

/// Refuses mounts that would take a container's own file systems away, or that cannot be understood.
///
/// `ids`: how many ids the container has, where it has a user namespace.
pub(crate) fn check(container: &str, mounts: &[MountConfig], ids: Option<u32>) -> Result<()> {
    let fatal = |text: String| Err(Error::Fatal(format!("container {container}: {text}")));
    if mounts.len() > MAX_MOUNTS {
        return fatal(format!("more than {MAX_MOUNTS} mounts: merge some"));
    }
    for (index, mount) in mounts.iter().enumerate() {
        let target = &mount.target;
        let path = Path::new(target);
        let plain = path
            .components()
            .all(|part| matches!(part, Component::RootDir | Component::Normal(_)));
        if !path.is_absolute() || !plain || target.contains('\0') {
            return fatal(format!(
                "the mount's target {target:?} is no absolute path without '.' and '..'"
            ));
        }
        if path == Path::new("/dev") || path.parent().is_none() || is_kernels(path) {
            return fatal(format!(
                "nothing can be mounted over {target}: choose another target"
            ));
        }
        if mounts[..index]
            .iter()
            .any(|other| Path::new(&other.target) == path)
        {
            return fatal(format!("two mounts have the target {target}"));
        }
        if let MountFrom::Memory { name, .. } = &mount.source
            && !is_plain_name(name)
        {
            return fatal(format!("{name:?} cannot name a file system in memory"));
        }
        if let MountFrom::Files { files } = &mount.source
            && let Err(text) = check_files(files, ids)
        {
            return fatal(format!("at {target}: {text}"));
        }
        if let MountFrom::Bind { path, .. } = &mount.source
            && !path.is_absolute()
        {
            return fatal(format!(
                "the source {} of the mount at {target} is no absolute path",
                path.display()
            ));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tmpfs_that_an_earlier_layby_has_written_down_is_read() {
        let stored = r#"{"kind":"tmpfs","size_bytes":1,"mode":null}"#;
        let source: MountFrom = serde_json::from_str(stored).unwrap();
        let expected = MountFrom::Tmpfs {
            size_bytes: Some(1),
            mode: None,
            no_exec: false,
        };
        assert_eq!(source, expected);
    }
}
