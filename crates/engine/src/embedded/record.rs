//! Who a replica is: `replica.json` in its bundle. Losing the node's database loses no replica.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use layby_model::options::NetworkMode;
use layby_model::replica::{ContainerReport, End};
use layby_model::{ReplicaId, RevisionId, ServiceId};
use layby_net::NameServers;
use layby_runtime::protocol;
use serde::{Deserialize, Serialize};

use crate::roster::Entry;

/// The version of the file's format.
const VERSION: u32 = 1;

/// The versions of a bundle, read before all else of its record: the rest may mean something else in another version.
#[derive(Deserialize)]
struct Versions {
    v: u32,
    #[serde(default = "first")]
    shim_v: u32,
}

/// Records did not name the shim's version while there was only one.
fn first() -> u32 {
    1
}

/// What is written down of a replica before anything of it is made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Record {
    /// [`VERSION`].
    pub(super) v: u32,
    /// The version of the protocol that its shim speaks, as long as the shim lives: [`protocol::VERSION`] of the
    /// node that began it.
    #[serde(default = "first")]
    pub(super) shim_v: u32,
    pub(super) id: ReplicaId,
    pub(super) service: ServiceId,
    pub(super) revision: RevisionId,
    /// The newest generation it was named with when this was written. It may lag: waking does not wait for a disk.
    pub(super) generation: u64,
    /// The digests of its containers' images.
    pub(super) images: Vec<String>,
    /// The named volumes that it mounts.
    #[serde(default)]
    pub(super) volumes: Vec<String>,
    /// Its own name servers.
    #[serde(default)]
    pub(super) name_servers: NameServers,
    /// Whose network it is in: where it has none of its own, nothing of it is found in the machine's.
    #[serde(default, skip_serializing_if = "NetworkMode::is_own")]
    pub(super) network: NetworkMode,
    /// That it ended by itself, and was not started again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) ended: Option<HasEnded>,
}

/// How a replica ended by itself. It stands here too because the shim that knows it may be gone: after a restart of
/// the machine, or the end of all containers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct HasEnded {
    pub(super) end: End,
    pub(super) in_a_row: u32,
    pub(super) containers: Vec<ContainerReport>,
    #[serde(default)]
    pub(super) init: Vec<ContainerReport>,
}

impl HasEnded {
    /// What is to be written down of `entry`.
    pub(super) fn of(entry: &Entry) -> Option<Self> {
        let end = entry.ended.clone().filter(|_| entry.has_ended())?;
        Some(Self {
            end,
            in_a_row: entry.ended_in_a_row,
            containers: entry.containers.clone(),
            init: entry.init.clone(),
        })
    }
}

impl Record {
    pub(super) fn new(id: ReplicaId, service: ServiceId, revision: RevisionId) -> Self {
        Self {
            v: VERSION,
            shim_v: protocol::VERSION,
            id,
            service,
            revision,
            generation: 0,
            images: Vec::new(),
            volumes: Vec::new(),
            name_servers: NameServers::default(),
            network: NetworkMode::default(),
            ended: None,
        }
    }

    /// Reads the record of a bundle; `None` if there is none, or one that is not whole: the replica is half made.
    ///
    /// # Errors
    /// [`io::ErrorKind::Unsupported`] if the record or the shim is of a version that this node does not know: the
    /// replica may well run, under another Layby's rules.
    pub(super) fn read(bundle: &Path) -> io::Result<Option<Self>> {
        let text = match fs::read(path(bundle)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            other => other?,
        };
        if let Ok(Versions { v, shim_v }) = serde_json::from_slice(&text) {
            // A shim of an earlier version is spoken to in that one: each only adds requests.
            for (what, found, known) in [
                ("record", v, VERSION..=VERSION),
                ("shim", shim_v, 1..=protocol::VERSION),
            ] {
                if !known.contains(&found) {
                    let newest = known.end();
                    let text = format!("its {what} is of version {found}, and not of {newest}");
                    return Err(io::Error::new(io::ErrorKind::Unsupported, text));
                }
            }
        }
        Ok(serde_json::from_slice(&text).ok())
    }

    /// Writes the record; makes the bundle if it is not there.
    pub(super) fn write(&self, bundle: &Path) -> io::Result<()> {
        fs::create_dir_all(bundle)?;
        let aside = bundle.join("replica.json.new");
        fs::write(&aside, serde_json::to_vec(self)?)?;
        fs::rename(&aside, path(bundle))
    }

    /// Brings a bundle's record up to date. A bundle that is being removed does not come back by it.
    pub(super) fn bring_up_to_date(
        bundle: &Path,
        generation: u64,
        ended: &Option<HasEnded>,
    ) -> io::Result<()> {
        match Self::read(bundle)? {
            Some(record) if record.generation != generation || record.ended != *ended => Self {
                generation,
                ended: ended.clone(),
                ..record
            }
            .write(bundle),
            _ => Ok(()),
        }
    }
}

/// Writes down of replicas that are gone that they had ended: what its restart policy leaves as it ended is not run again
/// by the next start. Blocks.
pub(super) fn leave_ended(replicas_dir: &Path, ended: &BTreeMap<ReplicaId, Entry>) {
    for (&id, entry) in ended {
        let record = Record {
            generation: entry.generation,
            ended: HasEnded::of(entry),
            ..Record::new(id, entry.service.clone(), entry.revision)
        };
        if let Err(error) = record.write(&replicas_dir.join(id.to_string())) {
            tracing::warn!("it could not be written down that replica {id} has ended: {error}");
        }
    }
}

fn path(bundle: &Path) -> PathBuf {
    bundle.join("replica.json")
}

#[cfg(test)]
mod tests {
    use layby_model::replica::Exit;

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
        let ended = HasEnded {
            end: End {
                container: "web".to_owned(),
                exit: Exit {
                    code: 3,
                    oom: false,
                },
                hook: false,
            },
            in_a_row: 2,
            containers: Vec::new(),
            init: Vec::new(),
        };
        for ended in [Some(ended), None] {
            Record::bring_up_to_date(&bundle, 9, &ended).expect("written");
            (record.generation, record.ended) = (9, ended);
            assert_eq!(Record::read(&bundle).expect("read"), Some(record.clone()));
        }
        fs::write(path(&bundle), "{\"v\":1,").expect("written");
        assert_eq!(Record::read(&bundle).expect("read"), None);
    }

    #[test]
    fn a_record_of_another_version_is_an_error_and_not_none() {
        let dir = tempfile::tempdir().expect("a folder");
        for text in [
            r#"{"v":2,"who":"unheard of"}"#,
            r#"{"v":1,"shim_v":99,"id":"000000000007","service":"shop/web","revision":1,"generation":1,"images":[]}"#,
        ] {
            fs::write(path(dir.path()), text).expect("written");
            let error = Record::read(dir.path()).expect_err(text);
            assert_eq!(error.kind(), io::ErrorKind::Unsupported, "{error}");
        }
        let text = r#"{"v":1,"id":"000000000007","service":"shop/web","revision":1,"generation":1,"images":[]}"#;
        fs::write(path(dir.path()), text).expect("written");
        let first = Record::read(dir.path()).expect("read").expect("a record");
        assert_eq!(first.shim_v, 1, "shims of before go on being spoken to");
    }
}
