//! Looking at a stack of unpacked layers, or at a build context, as at one file system.
//!
//! Symbolic links are followed only by [`View::resolve`], as chroot would: never out of the view.

use std::collections::{BTreeMap, VecDeque};
use std::ffi::OsString;
use std::fs::{self, Metadata};
use std::io;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::contexts::Known;
use crate::unpack::{OPAQUE, USER_OPAQUE};

/// As many links as the kernel follows.
const MAX_LINKS: u32 = 40;

/// A stack of directories, topmost first.
#[derive(Debug, Clone)]
pub(crate) struct View {
    dirs: Vec<PathBuf>,
    /// Whether there are overlayfs' whiteouts in it (layers), or they would be just files (a context).
    is_overlay: bool,
    /// What is known of its files.
    known: Option<Arc<Known>>,
}

/// Something in the view.
#[derive(Debug, Clone)]
pub(crate) struct Node {
    /// Where it really is; for a directory all of those that make it up, topmost first.
    pub(crate) real: Vec<PathBuf>,
    /// Of the topmost.
    pub(crate) metadata: Metadata,
}

/// Where a path leads.
#[derive(Debug)]
pub(crate) struct Resolved {
    /// The path without any link in it, as far as it exists.
    pub(crate) parts: Vec<OsString>,
    /// What is there.
    pub(crate) node: Option<Node>,
}

impl Node {
    pub(crate) fn is_dir(&self) -> bool {
        self.metadata.is_dir()
    }

    /// The real file.
    pub(crate) fn path(&self) -> &Path {
        self.real.first().map_or(Path::new(""), PathBuf::as_path)
    }
}

impl View {
    /// A view of one ordinary directory.
    pub(crate) fn of_context(dir: &Path) -> Self {
        Self {
            dirs: vec![dir.to_owned()],
            is_overlay: false,
            known: None,
        }
    }

    /// The same, of which something is known.
    pub(crate) fn of_kept(dir: &Path, known: Option<&Arc<Known>>) -> Self {
        Self {
            known: known.cloned(),
            ..Self::of_context(dir)
        }
    }

    /// What all of it is, but for times and what a build leaves out; `None`: it has to be looked at.
    pub(crate) fn tree(&self) -> Option<&str> {
        self.known.as_ref().map(|known| known.tree())
    }

    /// The digest of the file at a path without any link in it; `None`: it has to be read.
    pub(crate) fn digest_of(&self, parts: &[OsString]) -> Option<&str> {
        self.known.as_ref()?.digest_of(&joined(parts))
    }

    /// A view of unpacked layers, topmost first.
    pub(crate) fn of_layers(dirs: Vec<PathBuf>) -> Self {
        Self {
            dirs,
            is_overlay: true,
            known: None,
        }
    }

    /// What is at this path, following no link.
    pub(crate) fn lookup(&self, parts: &[OsString]) -> io::Result<Option<Node>> {
        let mut node = self.root()?;
        for part in parts {
            if !node.is_dir() {
                return Ok(None);
            }
            match self.child(&node, part)? {
                Some(child) => node = child,
                None => return Ok(None),
            }
        }
        Ok(Some(node))
    }

    /// Where a path leads, following every link. `..` stops at the root. What does not exist is taken as it stands.
    pub(crate) fn resolve(&self, parts: &[OsString]) -> io::Result<Resolved> {
        let mut todo: VecDeque<OsString> = parts.iter().cloned().collect();
        let mut done: Vec<OsString> = Vec::new();
        let mut links = 0;
        while let Some(part) = todo.pop_front() {
            if part == ".." {
                done.pop();
                continue;
            }
            done.push(part);
            let Some(node) = self.lookup(&done)? else {
                continue;
            };
            if !node.metadata.is_symlink() {
                continue;
            }
            links += 1;
            if links > MAX_LINKS {
                return Err(io::Error::other("too many symbolic links"));
            }
            let target = fs::read_link(node.path())?;
            done.pop();
            if target.is_absolute() {
                done.clear();
            }
            for part in split(target.as_os_str().as_bytes()).into_iter().rev() {
                todo.push_front(part);
            }
        }
        let node = self.lookup(&done)?;
        Ok(Resolved { parts: done, node })
    }

    /// The children of a directory, by name.
    pub(crate) fn list(&self, dir: &Node) -> io::Result<BTreeMap<OsString, Node>> {
        let mut children = BTreeMap::new();
        for real in &dir.real {
            for entry in fs::read_dir(real)? {
                let name = entry?.file_name();
                if children.contains_key(&name) {
                    continue;
                }
                if let Some(child) = self.child(dir, &name)? {
                    children.insert(name, child);
                }
            }
        }
        Ok(children)
    }

    fn root(&self) -> io::Result<Node> {
        let top = self.dirs.first().ok_or(io::ErrorKind::NotFound)?;
        Ok(Node {
            metadata: fs::metadata(top)?,
            real: self.dirs.clone(),
        })
    }

    /// One step down: the topmost thing of that name, and below a directory all that it is merged with.
    fn child(&self, dir: &Node, name: &OsString) -> io::Result<Option<Node>> {
        let mut found: Option<Node> = None;
        for real in &dir.real {
            let path = real.join(name);
            let metadata = match fs::symlink_metadata(&path) {
                Ok(metadata) => metadata,
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => return Err(error),
            };
            let hides = self.is_overlay && is_whiteout(&metadata);
            let is_dir = metadata.is_dir();
            if hides || (found.is_some() && !is_dir) {
                break;
            }
            let opaque = is_dir && self.is_overlay && is_opaque(&path);
            match &mut found {
                Some(node) => node.real.push(path),
                None => {
                    found = Some(Node {
                        real: vec![path],
                        metadata,
                    });
                }
            }
            if !is_dir || opaque {
                break;
            }
        }
        Ok(found)
    }
}

/// Whether this is overlayfs' mark for something deleted.
pub(crate) fn is_whiteout(metadata: &Metadata) -> bool {
    metadata.file_type().is_char_device() && metadata.rdev() == 0
}

/// Whether a directory hides what the layers below have there.
pub(crate) fn is_opaque(dir: &Path) -> bool {
    [OPAQUE, USER_OPAQUE].iter().any(|name| {
        let mut value = [0; 1];
        rustix::fs::lgetxattr(dir, *name, &mut value).is_ok() && value == *b"y"
    })
}

/// The parts of a path, without `/` and `.`; `..` stays.
pub(crate) fn split(path: &[u8]) -> Vec<OsString> {
    path.split(|byte| *byte == b'/')
        .filter(|part| !part.is_empty() && *part != b".")
        .map(|part| OsString::from_vec(part.to_vec()))
        .collect()
}

/// The path without `..`; `None` when it would lead out of the root.
pub(crate) fn clean(path: &str) -> Option<Vec<OsString>> {
    let mut parts = Vec::new();
    for part in split(path.as_bytes()) {
        if part == ".." {
            parts.pop()?;
        } else {
            parts.push(part);
        }
    }
    Some(parts)
}

/// Parts as a path with `/`, for people and patterns.
pub(crate) fn joined(parts: &[OsString]) -> String {
    let parts: Vec<_> = parts.iter().map(|part| part.to_string_lossy()).collect();
    parts.join("/")
}
