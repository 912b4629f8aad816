//! Who a replica is: `replica.json` in its bundle. Losing the node's database loses no replica.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use layby_model::{ReplicaId, RevisionId, ServiceId};
use serde::{Deserialize, Serialize};

/// The version of the file's format.
const VERSION: u32 = 1;

/// What is written down of a replica before anything of it is made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Record {
    /// [`VERSION`].
    pub(super) v: u32,
    pub(super) id: ReplicaId,
    pub(super) service: ServiceId,
    pub(super) revision: RevisionId,
    /// The newest generation it was named with when this was written. It may lag: waking does not wait for a disk.
    pub(super) generation: u64,
    /// The digests of its containers' images.
    pub(super) images: Vec<String>,
}

impl Record {
    pub(super) fn new(id: ReplicaId, service: ServiceId, revision: RevisionId) -> Self {
        Self {
            v: VERSION,
            id,
            service,
            revision,
            generation: 0,
            images: Vec::new(),
        }
    }

    /// Reads the record of a bundle; `None` if there is none, or one that is not whole or not of this version.
    pub(super) fn read(bundle: &Path) -> io::Result<Option<Self>> {
        match fs::read(path(bundle)) {
            Ok(text) => {
                let record = serde_json::from_slice(&text).ok();
                Ok(record.filter(|record: &Self| record.v == VERSION))
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Writes the record; makes the bundle if it is not there.
    pub(super) fn write(&self, bundle: &Path) -> io::Result<()> {
        fs::create_dir_all(bundle)?;
        let aside = bundle.join("replica.json.new");
        fs::write(&aside, serde_json::to_vec(self)?)?;
        fs::rename(&aside, path(bundle))
    }

    /// Brings the generation of a bundle's record up to date. A bundle that is being removed does not come back by it.
    pub(super) fn set_generation(bundle: &Path, generation: u64) -> io::Result<()> {
        match Self::read(bundle)? {
            Some(mut record) if record.generation != generation => {
                record.generation = generation;
                record.write(bundle)
            }
            _ => Ok(()),
        }
    }
}

fn path(bundle: &Path) -> PathBuf {
    bundle.join("replica.json")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_that_is_not_whole_is_as_good_as_none() {
        let dir = tempfile::tempdir().expect("a folder");
        let bundle = dir.path().join("bundle");
        assert_eq!(Record::read(&bundle).expect("read"), None);
        let service = "shop/web".parse().expect("a service");
        let mut record = Record::new(ReplicaId(7), service, RevisionId(3));
        record.write(&bundle).expect("written");
        assert_eq!(Record::read(&bundle).expect("read"), Some(record.clone()));
        Record::set_generation(&bundle, 9).expect("written");
        record.generation = 9;
        assert_eq!(Record::read(&bundle).expect("read"), Some(record));
        fs::write(path(&bundle), "{\"v\":1,").expect("written");
        assert_eq!(Record::read(&bundle).expect("read"), None);
    }

    #[test]
    fn a_record_of_another_version_is_not_read() {
        let dir = tempfile::tempdir().expect("a folder");
        let service = "shop/web".parse().expect("a service");
        let mut record = Record::new(ReplicaId(7), service, RevisionId(3));
        record.v = 2;
        record.write(dir.path()).expect("written");
        assert_eq!(Record::read(dir.path()).expect("read"), None);
    }
}
