//! The build cache: which layer a step made, by the key of the step.
//!
//! An entry is a file named after the key. Reading it makes it young again, and the garbage collection keeps the
//! youngest (see [`held`]): the layers of stages that no image has would be gone after every build otherwise.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use sha2::{Digest as _, Sha256};

use super::content::Layer;
use crate::error::io_error;
use crate::layout::{Descriptor, LAYER_TYPE};
use crate::{Error, Store, blob, digest};

/// What an entry says of a step that changed nothing.
const NOTHING: &str = "nothing\n";
/// Older entries are let go.
const KEPT: Duration = Duration::from_secs(14 * 24 * 3600);
/// The most that the layers of the entries may have together, compressed, in bytes.
const KEPT_BYTES: u64 = 10 << 30;
/// The most entries: many may lead to one layer, one for each state of a context that it was copied from.
const KEPT_ENTRIES: usize = 20_000;

/// The key of a step in the making: a digest of fields, each with its length.
pub(crate) struct Key(Sha256);

impl Key {
    /// Begins with what changes when the same fields would give another layer.
    pub(crate) fn new(format: &str) -> Self {
        let mut key = Self(Sha256::new());
        key.field(format.as_bytes());
        key
    }

    pub(crate) fn field(&mut self, bytes: impl AsRef<[u8]>) {
        let bytes = bytes.as_ref();
        self.0.update((bytes.len() as u64).to_le_bytes());
        self.0.update(bytes);
    }

    /// A list, told apart from the fields around it.
    pub(crate) fn list(&mut self, items: impl IntoIterator<Item = impl AsRef<[u8]>>) {
        let mut count = 0_u64;
        for item in items {
            self.field(item);
            count += 1;
        }
        self.field(count.to_le_bytes());
    }

    pub(crate) fn finish(self) -> String {
        digest::finish(self.0)
    }
}

/// What the cache says of a step: its layer, or that it has none. `None`: nothing is known, or the layer is gone.
pub(crate) fn read(store: &Store, key: &str) -> Option<Option<Layer>> {
    let path = path(store, key);
    let text = fs::read_to_string(&path).ok()?;
    let found = match text.as_str() {
        NOTHING => None,
        text => Some(layer(store, text)?),
    };
    // It only looks older than it is where this fails.
    let _ = File::options()
        .write(true)
        .open(&path)
        .and_then(|file| file.set_modified(SystemTime::now()));
    Some(found)
}

/// Remembers what a step made.
pub(crate) fn write(store: &Store, key: &str, layer: Option<&Layer>) -> Result<(), Error> {
    let text = match layer {
        None => NOTHING.to_owned(),
        Some(Layer {
            descriptor,
            diff_id,
        }) => format!("{} {} {diff_id}\n", descriptor.digest, descriptor.size),
    };
    let path = path(store, key);
    blob::replace_file(&store.temp_dir(), &path, text.as_bytes(), "the build cache")
}

/// What the garbage collection leaves to the cache.
#[derive(Debug, Default)]
pub(crate) struct Held {
    /// Names of entries.
    pub(crate) entries: BTreeSet<String>,
    /// Digests of their layers' blobs.
    pub(crate) blobs: BTreeSet<String>,
    /// Diff ids of their layers.
    pub(crate) layers: BTreeSet<String>,
}

/// An entry that is kept.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) name: String,
    pub(crate) last_used: SystemTime,
    /// `None`: the step changed nothing.
    pub(crate) layer: Option<Layer>,
}

/// What the entries that are kept hold.
pub(crate) fn held(store: &Store) -> Result<Held, Error> {
    let mut held = Held::default();
    for entry in young(store)? {
        held.entries.insert(entry.name);
        if let Some(layer) = entry.layer {
            held.blobs.insert(layer.descriptor.digest);
            held.layers.insert(layer.diff_id);
        }
    }
    Ok(held)
}

/// The youngest entries, within an age and a size.
pub(crate) fn young(store: &Store) -> Result<Vec<Entry>, Error> {
    let dir = store.cache_dir();
    let mut found: Vec<(SystemTime, String)> = Vec::new();
    for entry in fs::read_dir(&dir).map_err(io_error("list", &dir))? {
        let entry = entry.map_err(io_error("list", &dir))?;
        let modified = entry.metadata().and_then(|metadata| metadata.modified());
        if let (Ok(name), Ok(modified)) = (entry.file_name().into_string(), modified) {
            found.push((modified, name));
        }
    }
    found.sort_unstable_by(|a, b| b.cmp(a));
    let now = SystemTime::now();
    let mut kept = Vec::new();
    let mut blobs = BTreeSet::new();
    let mut bytes = 0;
    for (modified, name) in found {
        // One from the future is as young as can be.
        let age = now.duration_since(modified).unwrap_or_default();
        if age > KEPT || kept.len() >= KEPT_ENTRIES {
            break;
        }
        let Ok(text) = fs::read_to_string(dir.join(&name)) else {
            continue;
        };
        let mut made = None;
        if text != NOTHING {
            let Some(layer) = layer(store, &text) else {
                continue;
            };
            if blobs.insert(layer.descriptor.digest.clone()) {
                bytes += layer.descriptor.size;
            }
            if bytes > KEPT_BYTES {
                break;
            }
            made = Some(layer);
        }
        kept.push(Entry {
            name,
            last_used: modified,
            layer: made,
        });
    }
    Ok(kept)
}

fn path(store: &Store, key: &str) -> PathBuf {
    store.cache_dir().join(key.trim_start_matches("sha256:"))
}

/// The layer that an entry names, if its blob is still there.
fn layer(store: &Store, text: &str) -> Option<Layer> {
    let mut words = text.split_whitespace();
    let (digest, size, diff_id) = (words.next()?, words.next()?, words.next()?);
    let there = fs::metadata(store.blob_path(digest).ok()?).ok()?;
    let size_bytes = size.parse().ok().filter(|size| *size == there.len())?;
    digest::hex_of(diff_id)?;
    Some(Layer {
        descriptor: Descriptor::new(&format!("{LAYER_TYPE}+gzip"), digest, size_bytes),
        diff_id: diff_id.to_owned(),
    })
}
