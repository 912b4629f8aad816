//! Bringing a kept tree from what its record says to what a list says.

use std::collections::{HashMap, HashSet};
use std::fs::{DirBuilder, File};
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, Mode, OFlags, Timespec, Timestamps};
use rustix::io::Errno;

use super::kept::{Kept, TREE};
use super::list::{Entry, Kind, List};
use super::record::{self, Record, Recorded};
use super::shelf;
use crate::Error;
use crate::digest::Hashing;
use crate::error::{io_error, storing};
use crate::unpack::beneath::open_beneath;

const WHAT: &str = "a build context";
/// So much is copied at a time, in bytes.
const PIECE_BYTES: usize = 128 << 10;

/// A context on its way to what its list says. Dropped before that, it stays as far as it has come: what is there need
/// not be sent again.
#[derive(Debug)]
pub struct Update {
    dir: PathBuf,
    root: OwnedFd,
    /// Taken when it is done.
    lock: Option<File>,
    list: List,
    /// What is there of each entry.
    there: Vec<There>,
    /// The disk is: what has come must not keep it so.
    is_full: bool,
    /// The folder that was used last, since files mostly follow their siblings.
    parent: Option<(String, OwnedFd)>,
}

/// What is there of an entry's content.
#[derive(Debug, Clone, Default)]
struct There {
    digest: Option<String>,
    is_doubted: bool,
    /// What of it is on the disk, at most.
    bytes: u64,
}

impl Update {
    /// Takes away what is not to stay, and makes folders and links.
    pub(super) fn begin(dir: &Path, lock: File, list: List) -> Result<Self, Error> {
        let old = record::read(dir);
        record::remove(dir).map_err(io_error("remove the record in", dir))?;
        let tree = dir.join(TREE);
        if old.is_none() {
            shelf::remove_tree(dir).map_err(io_error("remove", &tree))?;
            let made = DirBuilder::new().mode(0o755).create(&tree);
            made.map_err(storing(WHAT, &tree))?;
        }
        let root = File::open(&tree).map_err(io_error("open", &tree))?.into();
        let mut update = Self {
            dir: dir.to_owned(),
            root,
            lock: None,
            there: vec![There::default(); list.entries().len()],
            list,
            is_full: false,
            parent: None,
        };
        let old = old.map_or_else(Vec::new, |record| record.entries);
        let prepared = update.prepare(&old);
        prepared.map_err(|(path, error)| storing(WHAT, &tree.join(path))(error))?;
        // From here on it is what it says of itself.
        update.lock = Some(lock);
        Ok(update)
    }

    fn prepare(&mut self, old: &[Recorded]) -> Result<(), (String, io::Error)> {
        let stays = self.staying(old);
        let at = |path: &str| {
            let path = path.to_owned();
            move |error: Errno| (path, io::Error::from(error))
        };
        // Whoever is not root can change nothing in a folder that forbids it.
        let closed = |one: &&Recorded| {
            matches!(one.entry.kind, Kind::Folder) && one.entry.mode & 0o700 != 0o700
        };
        for one in old.iter().filter(closed) {
            let path = &one.entry.path;
            let opened = self.open(path).map_err(at(path))?;
            rustix::fs::fchmod(opened, Mode::from_raw_mode(0o700)).map_err(at(path))?;
        }
        // Backwards, so that a folder goes after what is in it.
        for one in old.iter().rev() {
            let path = one.entry.path.as_str();
            if !stays.contains(path) {
                self.remove(path, matches!(one.entry.kind, Kind::Folder))
                    .map_err(at(path))?;
            }
        }
        self.parent = None;
        for place in 0..self.list.entries().len() {
            let entry = self.list.entries()[place].clone();
            if !stays.contains(entry.path.as_str()) {
                self.make(&entry).map_err(at(&entry.path))?;
            }
        }
        Ok(())
    }

    /// The paths of what stays where it is, noting the files among it.
    fn staying<'a>(&mut self, old: &'a [Recorded]) -> HashSet<&'a str> {
        let places: HashMap<&str, usize> = (self.list.entries().iter().zip(0..))
            .map(|(entry, place)| (entry.path.as_str(), place))
            .collect();
        let mut stays = HashSet::new();
        for one in old {
            let Some(place) = places.get(one.entry.path.as_str()) else {
                continue;
            };
            let entry = &self.list.entries()[*place];
            let is_same = match (&one.entry.kind, &entry.kind) {
                (Kind::Folder, Kind::Folder) => true,
                (Kind::Link { target: before }, Kind::Link { target }) => before == target,
                (Kind::File { .. }, Kind::File { .. }) => one.holds(entry),
                (Kind::Folder | Kind::Link { .. } | Kind::File { .. }, _) => false,
            };
            if is_same {
                self.there[*place].digest.clone_from(&one.digest);
                self.there[*place].bytes = one.bytes;
                stays.insert(one.entry.path.as_str());
            }
        }
        stays
    }

    fn remove(&mut self, path: &str, is_folder: bool) -> Result<(), Errno> {
        let name = self.open_parent(path)?;
        let Some((_, parent)) = &self.parent else {
            return Ok(());
        };
        let flags = match is_folder {
            true => AtFlags::REMOVEDIR,
            false => AtFlags::empty(),
        };
        match rustix::fs::unlinkat(parent, name, flags) {
            // A file that never came.
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Makes a folder or link; files come later.
    fn make(&mut self, entry: &Entry) -> Result<(), Errno> {
        let name = self.open_parent(&entry.path)?;
        let Some((_, parent)) = &self.parent else {
            return Ok(());
        };
        match &entry.kind {
            Kind::Folder => rustix::fs::mkdirat(parent, name, Mode::from_raw_mode(0o700)),
            Kind::Link { target } => rustix::fs::symlinkat(target.as_str(), parent, name),
            Kind::File { .. } => Ok(()),
        }
    }

    /// How many entries its list has.
    pub fn entries(&self) -> usize {
        self.list.entries().len()
    }

    /// Takes in a file that was lacking; it has so many bytes, whatever the list says.
    ///
    /// # Errors
    /// [`Error::Context`]: it is not lacking, or breaks off; or the disk.
    pub fn put(&mut self, path: &str, sent: u64, data: &mut impl Read) -> Result<(), Error> {
        let place = self.list.place(path).filter(|place| {
            let is_file = matches!(self.list.entries()[*place].kind, Kind::File { .. });
            is_file && self.there[*place].digest.is_none()
        });
        let Some(place) = place else {
            let text = format!("the file {path:?} was sent, which is not lacking");
            return Err(Error::Context(text));
        };
        let entry = self.list.entries()[place].clone();
        let shown = self.dir.join(TREE).join(path);
        let failed = |error: Errno| storing(WHAT, &shown)(error.into());
        let name = self.open_parent(path).map_err(failed)?;
        let Some((_, parent)) = &self.parent else {
            return Ok(());
        };
        let flags =
            OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let opened = rustix::fs::openat(parent, name, flags, Mode::from_raw_mode(0o600));
        let mut file = Hashing::new(File::from(opened.map_err(failed)?));
        // Also of what is cut.
        self.there[place].bytes = sent;
        copy(data, &mut file, &shown).inspect_err(|error| {
            self.is_full = matches!(error, Error::DiskFull { .. });
        })?;
        let (file, digest, size_bytes) = file.finish();
        set(&file, &entry).map_err(failed)?;
        if size_bytes != sent {
            let text = format!("the upload was cut in the midst of {path:?}");
            return Err(Error::Context(text));
        }
        let is_listed = |kind| matches!(kind, Kind::File { size_bytes, .. } if size_bytes == sent);
        self.there[place] = There {
            digest: Some(digest),
            // Otherwise it has changed since the list was made.
            is_doubted: !is_listed(entry.kind),
            bytes: sent,
        };
        Ok(())
    }

    /// What was sent for the entries at these places may not be what the list says of them, since they changed meanwhile: it
    /// is good for this build, and will be lacking for the next one.
    pub fn doubt(&mut self, places: &[u32]) {
        for place in places {
            let there = usize::try_from(*place).ok();
            let there = there.and_then(|place| self.there.get_mut(place));
            there.into_iter().for_each(|there| there.is_doubted = true);
        }
    }

    /// All was sent.
    ///
    /// # Errors
    /// [`Error::Context`]: it was not; or the disk.
    pub fn finish(mut self) -> Result<Kept, Error> {
        let lacks = self.list.files().find(|(place, _)| {
            let there = usize::try_from(*place).ok();
            there.is_none_or(|place| self.there[place].digest.is_none())
        });
        if let Some((_, entry)) = lacks {
            return Err(Error::Context(format!(
                "the file {:?} was not sent: the upload was cut, or the file has gone",
                entry.path
            )));
        }
        self.set_folders()?;
        let record = self.record(&self.list.id());
        record::write(&self.dir, &record).map_err(storing(WHAT, &self.dir))?;
        match self.lock.take() {
            Some(lock) => Ok(Kept::new(&self.dir, record.header.tree, lock)),
            None => Err(Error::Context("it is not in use".to_owned())),
        }
    }

    /// Leaves it as kill -9 would.
    #[cfg(test)]
    pub(super) fn kill(mut self) {
        drop(self.lock.take());
    }

    /// Modes and times of folders, which change with what is in them.
    fn set_folders(&mut self) -> Result<(), Error> {
        let entries = self.list.entries().iter().rev();
        for entry in entries.filter(|entry| matches!(entry.kind, Kind::Folder)) {
            let opened = open_beneath(&self.root, entry.path.as_bytes());
            let set = opened.and_then(|opened| set(&opened, entry));
            set.map_err(|error| storing(WHAT, &self.dir.join(&entry.path))(error.into()))?;
        }
        Ok(())
    }

    fn record(&self, id: &str) -> Record {
        let entries = self.list.entries().iter().zip(&self.there);
        let recorded = entries.map(|(entry, there)| Recorded {
            entry: entry.clone(),
            digest: there.digest.clone(),
            is_sure: !there.is_doubted,
            bytes: there.bytes,
        });
        Record::new(id, recorded.collect())
    }

    /// Makes `self.parent` the folder that a path lies in, and gives its name there.
    fn open_parent<'a>(&mut self, path: &'a str) -> Result<&'a str, Errno> {
        let (folder, name) = path.rsplit_once('/').unwrap_or(("", path));
        if self.parent.as_ref().is_none_or(|(open, _)| open != folder) {
            self.parent = Some((folder.to_owned(), self.open(folder)?));
        }
        Ok(name)
    }

    fn open(&self, folder: &str) -> Result<OwnedFd, Errno> {
        match folder {
            "" => self.root.try_clone().map_err(|_| Errno::MFILE),
            folder => open_beneath(&self.root, folder.as_bytes()),
        }
    }
}

impl Drop for Update {
    fn drop(&mut self) {
        if self.lock.is_some() {
            // Where it cannot be said how far it came, all is sent again.
            let said = record::write(&self.dir, &self.record(""));
            if self.is_full || said.is_err() {
                let _ = record::remove(&self.dir).and_then(|()| shelf::remove_tree(&self.dir));
            }
        }
    }
}

/// Copies a file in, telling the client's end from the disk's.
fn copy(data: &mut impl Read, file: &mut impl Write, shown: &Path) -> Result<(), Error> {
    let mut buffer = vec![0; PIECE_BYTES];
    loop {
        let n = data
            .read(&mut buffer)
            .map_err(|error| Error::Context(format!("the upload was cut: {error}")))?;
        if n == 0 {
            return Ok(());
        }
        file.write_all(&buffer[..n]).map_err(storing(WHAT, shown))?;
    }
}

/// Mode and time.
fn set(file: &impl std::os::fd::AsFd, entry: &Entry) -> Result<(), Errno> {
    rustix::fs::fchmod(file, Mode::from_raw_mode(entry.mode))?;
    let time = Timespec {
        tv_sec: entry.mtime_ns.div_euclid(1_000_000_000),
        tv_nsec: entry.mtime_ns.rem_euclid(1_000_000_000),
    };
    let times = Timestamps {
        last_access: time,
        last_modification: time,
    };
    rustix::fs::futimens(file, &times)
}
