//! Which ids of the machine each app has for its own: root inside is the first of them outside.
//!
//! Where an app's ids begin follows from its name, unless another app of the node is there already: who is where stands in
//! `ids.json`. Files on disk bear the ids inside (ADR 1), so an app that comes back may well get others.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

/// Ids of the machine that apps get for theirs: so many for each, from the first up to the last, far from those that
/// people and distributions give out.
pub(super) const IDS: u32 = 65_536;
const FIRST_ID: u32 = 0x1000_0000;
const LAST_ID: u32 = 0x7000_0000;
const SLOTS: u32 = (LAST_ID - FIRST_ID) / IDS;

/// The ranges that are given out, by name.
#[derive(Debug)]
pub(super) struct Ids {
    node: String,
    path: PathBuf,
    slots: Mutex<BTreeMap<String, u32>>,
}

impl Ids {
    /// Reads who has which in `data_dir`. The ranges of those that are not among `names` are free again: nothing of theirs runs.
    pub(super) fn open(data_dir: &Path, node: &str, names: &BTreeSet<String>) -> io::Result<Self> {
        let path = data_dir.join("ids.json");
        let mut slots: BTreeMap<String, u32> = match fs::read(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => BTreeMap::new(),
            // One that is not whole: those that run have the ranges that their names say, but for a few.
            other => serde_json::from_slice(&other?).unwrap_or_default(),
        };
        slots.retain(|name, slot| names.contains(name) && *slot < SLOTS);
        Ok(Self {
            node: node.to_owned(),
            path,
            slots: Mutex::new(slots),
        })
    }

    /// The range of `name`: the first id, and how many. It is written down before it is given out. Blocks for a moment.
    ///
    /// # Errors
    /// In one sentence: all are taken, or the file cannot be written.
    pub(super) fn of(&self, name: &str) -> Result<(u32, u32), String> {
        let mut slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(slot) = slots.get(name) {
            return Ok(range(*slot));
        }
        let taken: BTreeSet<u32> = slots.values().copied().collect();
        let first = u32::try_from(fnv1a(&format!("{}/{name}", self.node)) % u64::from(SLOTS));
        let first = first.unwrap_or(0); // it is less than SLOTS
        let slot = (0..SLOTS)
            .map(|step| (first + step) % SLOTS)
            .find(|slot| !taken.contains(slot))
            .ok_or_else(|| {
                format!("all {SLOTS} ranges of ids are taken: take an app down first")
            })?;
        let mut new = slots.clone();
        new.insert(name.to_owned(), slot);
        self.write(&new)
            .map_err(|error| format!("cannot write {}: {error}", self.path.display()))?;
        *slots = new;
        Ok(range(slot))
    }

    fn write(&self, slots: &BTreeMap<String, u32>) -> io::Result<()> {
        let aside = self.path.with_extension("json.new");
        fs::write(&aside, serde_json::to_vec(slots)?)?;
        fs::rename(&aside, &self.path)
    }
}

fn range(slot: u32) -> (u32, u32) {
    (FIRST_ID + slot * IDS, IDS)
}

/// FNV-1a with 64 bits: even enough, and the same in every version of Layby.
fn fnv1a(text: &str) -> u64 {
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_apps_of_a_node_have_ids_in_common() {
        let dir = tempfile::tempdir().expect("a folder");
        let ids = Ids::open(dir.path(), "0123abcd", &BTreeSet::new()).expect("opened");
        // So many that some of their names say the same.
        let names: BTreeSet<String> = (0..600).map(|n| format!("app-{n}")).collect();
        let hashed: BTreeSet<u64> = (names.iter())
            .map(|name| fnv1a(&format!("0123abcd/{name}")) % u64::from(SLOTS))
            .collect();
        assert!(hashed.len() < names.len());
        let ranges = |ids: &Ids| -> Vec<(u32, u32)> {
            let ranges = names.iter().map(|name| ids.of(name).expect("a range"));
            ranges.collect()
        };
        let given = ranges(&ids);
        let first: BTreeSet<u32> = given.iter().map(|(first, _)| *first).collect();
        assert_eq!(first.len(), names.len());
        assert!(given.iter().all(|(first, count)| {
            first % IDS == 0 && *count == IDS && *first >= FIRST_ID && first + count <= LAST_ID
        }));
        let again = Ids::open(dir.path(), "0123abcd", &names).expect("opened");
        assert_eq!(ranges(&again), given);
        let none = Ids::open(dir.path(), "0123abcd", &BTreeSet::new()).expect("opened");
        assert!(none.slots.lock().expect("whole").is_empty());
    }
}
