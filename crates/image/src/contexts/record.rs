//! The record of a kept context: what its tree holds.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, BufWriter, Read, Write};
use std::path::Path;
use std::time::SystemTime;

use serde::{Deserialize, Serialize};

use super::list::{Entry, Kind};
use crate::build::cache::Key;

/// Changes when what is written here means something else.
const FORMAT: u32 = 2;
const FILE: &str = "record";
/// The longest first line, in bytes.
const MAX_HEADER: u64 = 4096;
/// Names the boot of the machine (kernel, random.rst).
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

/// The first line of a record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Header {
    format: u32,
    /// The boot of the machine that it was written in.
    boot: String,
    /// The id of the list that the tree is as; empty where a file of it is lacking or doubted.
    id: String,
    /// A digest of all that the tree holds, but for times.
    pub(super) tree: String,
    /// What the tree takes on the disk, about.
    pub(super) bytes: u64,
}

/// One entry, and what is kept of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Recorded {
    pub(super) entry: Entry,
    /// Of a file's content; `None`: it is not there.
    pub(super) digest: Option<String>,
    /// The content is certainly what the entry's stamp is of.
    pub(super) is_sure: bool,
    /// What was written of it, whatever the entry says.
    pub(super) bytes: u64,
}

impl Recorded {
    /// Whether it need not be sent for this entry.
    pub(super) fn holds(&self, entry: &Entry) -> bool {
        self.is_sure && self.digest.is_some() && self.entry == *entry
    }
}

/// All of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Record {
    pub(super) header: Header,
    pub(super) entries: Vec<Recorded>,
}

impl Header {
    /// Whether the tree is as this list, wholly and certainly.
    pub(super) fn is_of(&self, id: &str) -> bool {
        !self.id.is_empty() && self.id == id
    }
}

impl Record {
    /// What there is to say of a tree that is as the list `id`, as far as that is known.
    pub(super) fn new(id: &str, entries: Vec<Recorded>) -> Self {
        let is_file = |one: &&Recorded| matches!(one.entry.kind, Kind::File { .. });
        let mut files = entries.iter().filter(is_file);
        let is_whole = files.all(|one| one.is_sure && one.digest.is_some());
        let header = Header {
            format: FORMAT,
            boot: boot().unwrap_or_default(),
            id: match is_whole {
                true => id.to_owned(),
                false => String::new(),
            },
            tree: tree(&entries),
            bytes: entries.iter().map(on_disk).fold(0, u64::saturating_add),
        };
        Self { header, entries }
    }

    /// Its entries by their paths.
    pub(super) fn by_path(&self) -> HashMap<&str, &Recorded> {
        let entries = self.entries.iter();
        entries.map(|one| (one.entry.path.as_str(), one)).collect()
    }
}

/// Of all that a build sees of a tree. Times are not in it: no layer depends on them.
fn tree(entries: &[Recorded]) -> String {
    let mut key = Key::new("layby context 1");
    for one in entries {
        key.field(&one.entry.path);
        key.field(one.entry.mode.to_le_bytes());
        match &one.entry.kind {
            Kind::Folder => key.field(b"d"),
            Kind::Link { target } => {
                key.field(b"l");
                key.field(target);
            }
            Kind::File { .. } => {
                key.field(b"f");
                key.field(one.digest.as_deref().unwrap_or_default());
            }
        }
    }
    key.finish()
}

/// About, in whole blocks.
fn on_disk(one: &Recorded) -> u64 {
    match one.entry.kind {
        Kind::File { size_bytes, .. } => size_bytes.max(one.bytes).saturating_add(4096),
        Kind::Folder | Kind::Link { .. } => 4096,
    }
}

/// Which boot of the machine this is; `None`: it cannot be known.
fn boot() -> Option<String> {
    let text = fs::read_to_string(BOOT_ID).ok()?;
    let text = text.trim();
    (!text.is_empty()).then(|| text.to_owned())
}

/// Writes it. It need not reach the disk (see the module `contexts`).
pub(super) fn write(dir: &Path, record: &Record) -> io::Result<()> {
    let new = dir.join("record.new");
    let mut file = BufWriter::new(File::create(&new)?);
    serde_json::to_writer(&mut file, &record.header)?;
    file.write_all(b"\n")?;
    serde_json::to_writer(&mut file, &record.entries)?;
    file.flush()?;
    fs::rename(new, dir.join(FILE))
}

/// Takes it away, if there is one: the tree is about to be another.
pub(super) fn remove(dir: &Path) -> io::Result<()> {
    match fs::remove_file(dir.join(FILE)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// The first line, if the record can be believed.
pub(super) fn header(dir: &Path) -> Option<Header> {
    open(dir).map(|(header, _)| header)
}

/// All of it, if it can be believed.
pub(super) fn read(dir: &Path) -> Option<Record> {
    let (header, rest) = open(dir)?;
    let entries = serde_json::from_reader(rest).ok()?;
    Some(Record { header, entries })
}

fn open(dir: &Path) -> Option<(Header, impl Read)> {
    let (header, rest) = open_any(dir)?;
    let is_ours = header.format == FORMAT && boot().is_some_and(|boot| boot == header.boot);
    is_ours.then_some((header, rest))
}

fn open_any(dir: &Path) -> Option<(Header, impl Read)> {
    let mut file = BufReader::new(File::open(dir.join(FILE)).ok()?);
    let mut line = Vec::new();
    (&mut file)
        .take(MAX_HEADER)
        .read_until(b'\n', &mut line)
        .ok()?;
    Some((serde_json::from_slice(&line).ok()?, file))
}

/// What a tree takes on the disk, believed or not; `None`: there is no record.
pub(super) fn bytes(dir: &Path) -> Option<u64> {
    open_any(dir).map(|(header, _)| header.bytes)
}

/// When it was used last.
pub(super) fn used_at(dir: &Path) -> Option<SystemTime> {
    fs::metadata(dir.join(FILE))
        .and_then(|file| file.modified())
        .ok()
}

/// It is used now.
pub(super) fn touch(dir: &Path) {
    // It only looks older than it is where this fails.
    let _ = File::options()
        .write(true)
        .open(dir.join(FILE))
        .and_then(|file| file.set_modified(SystemTime::now()));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_of_an_earlier_boot_is_not_believed() {
        let dir = tempfile::tempdir().expect("a folder");
        let record = Record::new("sha256:1", Vec::new());
        write(dir.path(), &record).expect("written");
        assert_eq!(read(dir.path()).as_ref(), Some(&record));
        assert!(header(dir.path()).is_some_and(|header| header.is_of("sha256:1")));
        let path = dir.path().join(FILE);
        let text = fs::read_to_string(&path).expect("text");
        let boot = boot().expect("a boot");
        fs::write(&path, text.replace(&boot, "another")).expect("written");
        assert_eq!((read(dir.path()), header(dir.path())), (None, None));
        assert!(
            bytes(dir.path()).is_some(),
            "it takes its place all the same"
        );
        fs::write(&path, "{").expect("written");
        assert_eq!(read(dir.path()), None);
    }
}
