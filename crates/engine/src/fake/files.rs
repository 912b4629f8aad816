//! The files of a fake replica: a few folders at first, in memory, bounded.

use std::collections::BTreeMap;
use std::io::{self, Read};
use std::path::{Component, Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use layby_model::access::{CopyIn, CopyOut, PathReport};
use layby_model::engine::EngineError;
use tar::{Archive, Builder, EntryType, Header};

/// How much all files of a replica may hold, in bytes.
const MAX_BYTES: usize = 64 << 20;

/// The files, by path.
#[derive(Debug)]
pub(super) struct Files(Mutex<BTreeMap<PathBuf, Node>>);

#[derive(Debug, Clone)]
struct Node {
    mode: u32,
    owner: (u64, u64),
    content: Content,
}

#[derive(Debug, Clone)]
enum Content {
    Dir,
    File(Vec<u8>),
    Link(PathBuf),
}

impl Default for Files {
    fn default() -> Self {
        let dirs = ["/", "/etc", "/tmp"].into_iter();
        let dirs = dirs.map(|path| (PathBuf::from(path), Node::dir()));
        Self(Mutex::new(dirs.collect()))
    }
}

impl Node {
    fn dir() -> Self {
        Self {
            mode: 0o755,
            owner: (0, 0),
            content: Content::Dir,
        }
    }

    fn is_dir(&self) -> bool {
        matches!(self.content, Content::Dir)
    }
}

impl Files {
    fn with<T>(&self, act: impl FnOnce(&mut BTreeMap<PathBuf, Node>) -> T) -> T {
        act(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Writes a file, and the folders that it is in.
    pub(super) fn put(&self, path: &Path, mode: u32, owner: (u64, u64), bytes: &[u8]) {
        self.with(|files| {
            for dir in path.ancestors().skip(1) {
                files.entry(dir.to_owned()).or_insert_with(Node::dir);
            }
            let content = Content::File(bytes.to_vec());
            let node = Node {
                mode,
                owner,
                content,
            };
            files.insert(path.to_owned(), node);
        });
    }

    /// As [`layby_model::access::Access::stat`].
    pub(super) fn stat(&self, path: &str) -> Result<PathReport, EngineError> {
        self.with(|files| {
            let real = resolve(files, path, true).ok_or_else(|| missing(path))?;
            let is_dir = files.get(&real).is_some_and(Node::is_dir);
            let path = real.to_string_lossy().into_owned();
            Ok(PathReport { path, is_dir })
        })
    }

    /// As [`layby_model::access::Access::copy_out`], the whole tar at once.
    pub(super) fn copy_out(&self, order: &CopyOut) -> Result<Vec<u8>, EngineError> {
        let bare = order.path.trim_end_matches('/');
        let name = match bare.rsplit('/').next().unwrap_or_default() {
            "" | "." | ".." => PathBuf::from("."),
            name => PathBuf::from(name),
        };
        let follow = order.follow_link || name.as_os_str() == ".";
        self.with(|files| {
            let real = resolve(files, &order.path, follow).ok_or_else(|| missing(&order.path))?;
            let mut tar = Builder::new(Vec::new());
            for (path, node) in files.range(real.clone()..) {
                let Ok(below) = path.strip_prefix(&real) else {
                    continue;
                };
                let shown = match (name.as_os_str() == ".", below.as_os_str().is_empty()) {
                    (_, true) => name.clone(),
                    (true, false) => below.to_owned(),
                    (false, false) => name.join(below),
                };
                append(&mut tar, &shown, node).map_err(|error| broken(&error))?;
            }
            tar.into_inner().map_err(|error| broken(&error))
        })
    }

    /// As [`layby_model::access::Access::copy_in`], with the whole tar.
    pub(super) fn copy_in(&self, order: &CopyIn, tar: &[u8]) -> Result<(), EngineError> {
        self.with(|files| {
            let dir = resolve(files, &order.path, true).ok_or_else(|| missing(&order.path))?;
            if !files.get(&dir).is_some_and(Node::is_dir) {
                let text = format!("{} is no folder", order.path);
                return Err(EngineError::Failed(text));
            }
            unpack(files, &dir, order, tar).map_err(|error| broken(&error))
        })
    }
}

/// The path without links, where something is.
fn resolve(files: &BTreeMap<PathBuf, Node>, path: &str, follow: bool) -> Option<PathBuf> {
    let mut left: Vec<PathBuf> = parts(Path::new(path));
    let mut found = PathBuf::from("/");
    let mut links = 0;
    while let Some(part) = left.pop() {
        if part.as_os_str() == ".." {
            found.pop();
            continue;
        }
        let next = found.join(&part);
        match &files.get(&next)?.content {
            Content::Link(to) if follow || !left.is_empty() => {
                links += 1;
                if links > 40 {
                    return None;
                }
                if to.is_absolute() {
                    found = PathBuf::from("/");
                }
                left.extend(parts(to));
            }
            Content::Dir | Content::File(_) | Content::Link(_) => found = next,
        }
    }
    Some(found)
}

/// The names of a path, the last one first.
fn parts(path: &Path) -> Vec<PathBuf> {
    let parts = path.components().rev();
    let named = parts.filter(|part| matches!(part, Component::Normal(_) | Component::ParentDir));
    named.map(|part| PathBuf::from(part.as_os_str())).collect()
}

fn append(tar: &mut Builder<Vec<u8>>, shown: &Path, node: &Node) -> io::Result<()> {
    let mut header = Header::new_gnu();
    header.set_mode(node.mode);
    header.set_uid(node.owner.0);
    header.set_gid(node.owner.1);
    header.set_size(0);
    match &node.content {
        Content::Dir => {
            header.set_entry_type(EntryType::Directory);
            tar.append_data(&mut header, shown, io::empty())
        }
        Content::File(bytes) => {
            header.set_size(bytes.len() as u64);
            tar.append_data(&mut header, shown, &**bytes)
        }
        Content::Link(to) => {
            header.set_entry_type(EntryType::Symlink);
            tar.append_link(&mut header, shown, to)
        }
    }
}

fn unpack(
    files: &mut BTreeMap<PathBuf, Node>,
    dir: &Path,
    order: &CopyIn,
    tar: &[u8],
) -> io::Result<()> {
    for entry in Archive::new(tar).entries()? {
        let mut entry = entry?;
        let shown = entry.path()?.into_owned();
        let mut names: Vec<PathBuf> = parts(&shown);
        if names.iter().any(|name| name.as_os_str() == "..") {
            return Err(io::Error::other(format!("{} leads out", shown.display())));
        }
        names.reverse();
        let path: PathBuf = std::iter::once(dir.to_owned()).chain(names).collect();
        let name = path
            .file_name()
            .map(|name| name.to_string_lossy().into_owned());
        let gone = name.as_deref().and_then(|name| name.strip_prefix(".wh."));
        if let Some(gone) = gone.filter(|_| order.whiteouts) {
            let gone = path.with_file_name(gone);
            files.retain(|path, _| !path.starts_with(&gone));
            continue;
        }
        for above in path.ancestors().skip(1) {
            files.entry(above.to_owned()).or_insert_with(Node::dir);
        }
        let content = match entry.header().entry_type() {
            EntryType::Directory => Content::Dir,
            EntryType::Symlink => {
                let to = entry.link_name()?;
                Content::Link(to.map(|to| to.into_owned()).unwrap_or_default())
            }
            _ => {
                let mut bytes = Vec::new();
                entry.read_to_end(&mut bytes)?;
                Content::File(bytes)
            }
        };
        if order.whiteouts && !matches!(content, Content::Dir) {
            files.retain(|known, _| *known == path || !known.starts_with(&path));
        }
        let header = entry.header();
        let node = Node {
            mode: header.mode()?,
            owner: match order.keep_owners {
                true => (header.uid()?, header.gid()?),
                false => (0, 0),
            },
            content,
        };
        files.insert(path, node);
        let held = files.values().map(|node| match &node.content {
            Content::File(bytes) => bytes.len(),
            Content::Dir | Content::Link(_) => 0,
        });
        if held.sum::<usize>() > MAX_BYTES {
            return Err(io::Error::other("no space is left"));
        }
    }
    Ok(())
}

fn missing(path: &str) -> EngineError {
    EngineError::NotFound(format!("there is no {path} in the container"))
}

fn broken(error: &io::Error) -> EngineError {
    EngineError::Failed(format!("cannot copy: {error}"))
}
