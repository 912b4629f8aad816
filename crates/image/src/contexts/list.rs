//! The list of a context: what its owner's machine says of each of its files.

use std::collections::HashSet;
use std::fs::{self, File};
use std::io::{self, BufReader, BufWriter, Write};
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::Error;
use crate::build::cache::Key;

/// Most entries of one context.
pub const MAX_ENTRIES: usize = 200_000;
/// Most bytes of all of its files.
pub const MAX_BYTES: u64 = 4 << 30;
/// The longest path and link target (the kernel's own limit), in bytes.
const MAX_PATH: usize = 4096;
/// The longest name of a file.
const MAX_NAME: usize = 255;
/// The longest stamp.
const MAX_STAMP: usize = 128;
/// Where it lies.
const FILE: &str = "list";

/// One file, folder or link of a context.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Relative to the context, with `/`.
    pub path: String,
    /// Permission bits, with set-id and sticky.
    pub mode: u32,
    /// When it was changed last, in nanoseconds since 1970.
    pub mtime_ns: i64,
    /// What it is.
    pub kind: Kind,
}

/// What an entry is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// A folder.
    Folder,
    /// A symbolic link.
    Link {
        /// Where it leads, as it stands there.
        target: String,
    },
    /// A regular file.
    File {
        /// How long it is.
        size_bytes: u64,
        /// Something that is another whenever the content may be: on Linux the inode and the time of its last change
        /// (ctime). Only its being equal counts.
        stamp: String,
    },
}

/// The entries of a context, sorted by the bytes of their paths, each below a folder that is among them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct List {
    entries: Vec<Entry>,
    bytes: u64,
}

impl List {
    /// Checks entries.
    ///
    /// # Errors
    /// [`Error::Context`]: they do not make a tree, lead out of it, or are too many.
    pub fn new(entries: Vec<Entry>) -> Result<Self, Error> {
        check(&entries).map_err(Error::Context)?;
        let sizes = entries.iter().map(|entry| match entry.kind {
            Kind::File { size_bytes, .. } => size_bytes,
            Kind::Folder | Kind::Link { .. } => 0,
        });
        let bytes = sizes.fold(0_u64, u64::saturating_add);
        if bytes > MAX_BYTES {
            return Err(Error::Context(format!(
                "its files have {bytes} bytes, and {MAX_BYTES} is the most: leave some out with .dockerignore"
            )));
        }
        Ok(Self { entries, bytes })
    }

    /// All of them.
    pub(super) fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// Of all files.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The regular files, with their places.
    pub(super) fn files(&self) -> impl Iterator<Item = (u32, &Entry)> {
        let is_file = |entry: &&Entry| matches!(entry.kind, Kind::File { .. });
        // There are no more than MAX_ENTRIES.
        let places = self.entries.iter().zip(0_u32..);
        places
            .filter(move |(entry, _)| is_file(entry))
            .map(|(entry, place)| (place, entry))
    }

    /// The place of the entry with this path.
    pub(super) fn place(&self, path: &str) -> Option<usize> {
        let found = self
            .entries
            .binary_search_by(|entry| entry.path.as_str().cmp(path));
        found.ok()
    }

    /// A digest of all that it says.
    pub(super) fn id(&self) -> String {
        let mut key = Key::new("layby context list 1");
        for entry in &self.entries {
            key.field(&entry.path);
            key.field(entry.mode.to_le_bytes());
            key.field(entry.mtime_ns.to_le_bytes());
            match &entry.kind {
                Kind::Folder => key.field(b"d"),
                Kind::Link { target } => {
                    key.field(b"l");
                    key.field(target);
                }
                Kind::File { size_bytes, stamp } => {
                    key.field(b"f");
                    key.field(size_bytes.to_le_bytes());
                    key.field(stamp);
                }
            }
        }
        key.finish()
    }
}

/// What is wrong with entries, if anything is.
fn check(entries: &[Entry]) -> Result<(), String> {
    if entries.len() > MAX_ENTRIES {
        let count = entries.len();
        return Err(format!(
            "it has {count} files, and {MAX_ENTRIES} is the most: leave some out with .dockerignore"
        ));
    }
    let mut folders: HashSet<&str> = HashSet::new();
    let mut last = "";
    for entry in entries {
        let path = entry.path.as_str();
        if !is_inside(path) {
            return Err(format!("its list has the path {path:?}"));
        }
        if path <= last {
            return Err(format!(
                "its list is not sorted, or names {path:?} twice: {last:?} comes before it"
            ));
        }
        let below = path.rsplit_once('/').map(|(folder, _)| folder);
        if below.is_some_and(|folder| !folders.contains(folder)) {
            return Err(format!("its list has {path:?} in no folder"));
        }
        let is_odd = match &entry.kind {
            Kind::Folder => {
                folders.insert(path);
                false
            }
            Kind::Link { target } => {
                target.is_empty() || target.len() >= MAX_PATH || target.contains('\0')
            }
            Kind::File { stamp, .. } => stamp.len() > MAX_STAMP,
        };
        if is_odd || entry.mode > 0o7777 {
            return Err(format!("its list says of {path:?} what cannot be"));
        }
        last = path;
    }
    Ok(())
}

/// Whether a path leads to something below where it begins, without any detour.
fn is_inside(path: &str) -> bool {
    let is_name = |name: &str| !matches!(name, "" | "." | "..") && name.len() <= MAX_NAME;
    path.len() < MAX_PATH && !path.contains('\0') && path.split('/').all(is_name)
}

/// Leaves a list.
pub(super) fn write(dir: &Path, list: &List) -> io::Result<()> {
    let new = dir.join("list.new");
    let mut file = BufWriter::new(File::create(&new)?);
    serde_json::to_writer(&mut file, &list.entries)?;
    file.flush()?;
    fs::rename(new, dir.join(FILE))
}

/// The list that was left last, if it is one.
pub(super) fn read(dir: &Path) -> Option<List> {
    let file = File::open(dir.join(FILE)).ok()?;
    List::new(serde_json::from_reader(BufReader::new(file)).ok()?).ok()
}

/// When a list was left last.
pub(super) fn left_at(dir: &Path) -> Option<std::time::SystemTime> {
    fs::metadata(dir.join(FILE))
        .and_then(|file| file.modified())
        .ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    pub(in crate::contexts) fn folder(path: &str) -> Entry {
        Entry {
            path: path.to_owned(),
            mode: 0o755,
            mtime_ns: 1_700_000_000_000_000_001,
            kind: Kind::Folder,
        }
    }

    fn link(path: &str, target: &str) -> Entry {
        Entry {
            kind: Kind::Link {
                target: target.to_owned(),
            },
            ..folder(path)
        }
    }

    fn file(path: &str) -> Entry {
        Entry {
            kind: Kind::File {
                size_bytes: 1,
                stamp: "1".to_owned(),
            },
            ..folder(path)
        }
    }

    #[test]
    fn a_list_is_a_sorted_tree_below_the_context() {
        let good = vec![file("a"), folder("b"), file("b-c"), link("b/c", "/etc")];
        let list = List::new(good).expect("a list");
        assert_eq!(
            (list.place("b/c"), list.place("c"), list.bytes()),
            (Some(3), None, 2)
        );
        for (entries, why) in [
            (vec![file("../a")], "has the path"),
            (vec![file("/a")], "has the path"),
            (vec![file("")], "has the path"),
            (vec![folder("a"), file("a//b")], "has the path"),
            (vec![folder("a"), file("a/.")], "has the path"),
            (vec![file("a\0b")], "has the path"),
            (vec![file(&"x".repeat(256))], "has the path"),
            (vec![file("b"), file("a")], "not sorted"),
            (vec![file("a"), folder("a")], "twice"),
            (vec![file("a/b")], "in no folder"),
            (vec![link("a", "/etc"), file("a/passwd")], "in no folder"),
            (vec![file("a"), file("a/b")], "in no folder"),
            (vec![link("a", "")], "cannot be"),
            (
                vec![Entry {
                    mode: 0o10_000,
                    ..file("a")
                }],
                "cannot be",
            ),
        ] {
            let error = List::new(entries).expect_err(why).to_string();
            assert!(error.contains(why), "{error}");
        }
        let huge = Kind::File {
            size_bytes: u64::MAX,
            stamp: String::new(),
        };
        let two = ["a", "b"].map(|path| Entry {
            kind: huge.clone(),
            ..file(path)
        });
        assert!(List::new(two.to_vec()).is_err());
        let many = (0..=MAX_ENTRIES).map(|n| file(&format!("{n:09}")));
        assert!(List::new(many.collect()).is_err());
    }

    #[test]
    fn two_lists_have_one_id_only_if_they_say_the_same() {
        let id = |entry: Entry| List::new(vec![entry]).expect("a list").id();
        let one = id(file("a"));
        assert_eq!(one, id(file("a")));
        let stamp = |stamp: &str, size_bytes| Kind::File {
            size_bytes,
            stamp: stamp.to_owned(),
        };
        for other in [
            file("b"),
            folder("a"),
            link("a", "1"),
            Entry {
                mode: 0o700,
                ..file("a")
            },
            Entry {
                mtime_ns: 7,
                ..file("a")
            },
            Entry {
                kind: stamp("2", 1),
                ..file("a")
            },
            Entry {
                kind: stamp("1", 2),
                ..file("a")
            },
        ] {
            assert_ne!(one, id(other.clone()), "{other:?}");
        }
    }
}
