//! All that a node is to be, as one encrypted file: from a machine that may be lost, to one that is empty.
//!
//! Taking it out disturbs no node; putting it back is done where none runs. In the file are the store as it was at one
//! moment, its secrets encrypted with a key of their own, that key, and the logins at other registries. What is in
//! volumes and images is not.

mod lock;

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use layby_model::secret::SecretValue;
use tar::{Archive, Builder, EntryType, Header};

use crate::config::MasterKey;
use crate::registries::LOGINS;
use crate::secrets::{Key, KeyError, key_for_all, key_of};
use crate::store::{StoreError, snapshot};
use lock::{Cost, MIN_PASSPHRASE, Opener, Sealer};

/// The store's name, in the file as in a data directory.
const STORE: &str = "layby.db";
/// The key that the secrets in the file are encrypted with.
const KEY: &str = "key";
/// The most that a login file may have, in bytes.
const MAX_LOGINS: u64 = 16 << 20;

/// Why the state could not be taken out or put back.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// The passphrase is too short.
    #[error("the passphrase is too short: take {MIN_PASSPHRASE} bytes or more")]
    Short,
    /// There is something already.
    #[error(
        "{path} is not empty: it has services, jobs, secrets or tokens (nothing was changed); name an empty data directory with --data"
    )]
    NotEmpty {
        /// The store that is there.
        path: PathBuf,
    },
    /// The file is not right.
    #[error("the file of the state is not right: {0} (nothing was changed)")]
    Wrong(String),
    /// A file could not be read or written.
    #[error("{what}")]
    Io {
        /// What was tried.
        what: String,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
    /// The store said no.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The key of the secrets cannot be used.
    #[error(transparent)]
    Key(#[from] KeyError),
}

/// What was put back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Imported {
    /// The services, as `app/service`.
    pub services: Vec<String>,
    /// The images that they need, each by name and digest.
    pub images: Vec<(String, String)>,
}

/// Writes the state of the node on `data_dir`, which may run, to `to`.
///
/// # Errors
/// [`StateError`]; what was written to `to` until then opens with no passphrase.
pub fn export(
    data_dir: &Path,
    key: &MasterKey,
    passphrase: &SecretValue,
    to: impl Write,
) -> Result<(), StateError> {
    export_at(data_dir, key, passphrase, Cost::USUAL, to)
}

fn export_at(
    data_dir: &Path,
    key: &MasterKey,
    passphrase: &SecretValue,
    cost: Cost,
    to: impl Write,
) -> Result<(), StateError> {
    if passphrase.bytes().len() < MIN_PASSPHRASE {
        return Err(StateError::Short);
    }
    let dir = aside(data_dir)?;
    let copy = dir.path().join(STORE);
    let new = Key::random();
    let store = data_dir.join(STORE);
    snapshot::take(&store, &copy)?;
    snapshot::rekey(&copy, |proof| {
        Ok::<_, StateError>((key_of(key, proof)?, new.clone()))
    })?;
    let what = || "the state could not be written".to_owned();
    let failed = |source| StateError::Io {
        what: what(),
        source,
    };
    let sealer = Sealer::new(to, passphrase, cost).map_err(failed)?;
    let mut tar = Builder::new(sealer);
    let written = (|| {
        append(&mut tar, KEY, new.bytes())?;
        tar.append_path_with_name(&copy, STORE)?;
        match fs::read(data_dir.join(LOGINS)) {
            Ok(logins) => append(&mut tar, LOGINS, SecretValue::new(logins).bytes())?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        tar.into_inner()?.finish().map(drop)
    })();
    written.map_err(failed)
}

fn append(tar: &mut Builder<impl Write>, name: &str, bytes: &[u8]) -> io::Result<()> {
    let mut header = Header::new_gnu();
    header.set_size(bytes.len() as u64);
    header.set_mode(0o600);
    tar.append_data(&mut header, name, bytes)
}

/// Puts a state into an empty data directory on which no node runs: all of it at once, or nothing.
///
/// # Errors
/// [`StateError`]; nothing was changed then.
pub fn import(
    data_dir: &Path,
    key: &MasterKey,
    passphrase: &SecretValue,
    from: impl Read,
) -> Result<Imported, StateError> {
    let store = data_dir.join(STORE);
    if !snapshot::is_empty(&store)? {
        return Err(StateError::NotEmpty { path: store });
    }
    let dir = aside(data_dir)?;
    let wrong = |error: io::Error| StateError::Wrong(error.to_string());
    let opener = Opener::new(from, passphrase).map_err(wrong)?;
    let mut old = None;
    let mut logins = None;
    let copy = dir.path().join(STORE);
    let mut archive = Archive::new(opener);
    for entry in archive.entries().map_err(wrong)? {
        let mut entry = entry.map_err(wrong)?;
        if entry.header().entry_type() != EntryType::Regular {
            continue;
        }
        let name = entry.path().map_err(wrong)?.to_string_lossy().into_owned();
        let mut bytes = Vec::new();
        match name.as_str() {
            KEY => {
                (&mut entry)
                    .take(1024)
                    .read_to_end(&mut bytes)
                    .map_err(wrong)?;
                old = Key::new(SecretValue::new(bytes));
            }
            STORE => {
                let mut file = File::create(&copy).map_err(wrong)?;
                io::copy(&mut entry, &mut file).map_err(wrong)?;
                file.sync_all().map_err(wrong)?;
            }
            LOGINS => {
                (&mut entry)
                    .take(MAX_LOGINS)
                    .read_to_end(&mut bytes)
                    .map_err(wrong)?;
                logins = Some(SecretValue::new(bytes));
            }
            // Of a newer Layby; what this one needs is there.
            _ => {}
        }
    }
    // To its very end: a file that was cut is not right.
    io::copy(&mut archive.into_inner(), &mut io::sink()).map_err(wrong)?;
    let old = old.ok_or_else(|| StateError::Wrong("it has no key".to_owned()))?;
    if !copy.exists() {
        return Err(StateError::Wrong("it has no store".to_owned()));
    }
    snapshot::migrate(&copy)?;
    snapshot::rekey(&copy, |_| {
        Ok::<_, StateError>((old.clone(), key_for_all(key)?))
    })?;
    let (services, images) = snapshot::content(&copy)?;
    let placed = (|| {
        if let Some(logins) = logins {
            let aside = dir.path().join(LOGINS);
            let mut file = File::create(&aside)?;
            file.write_all(logins.bytes())?;
            file.sync_all()?;
            fs::rename(&aside, data_dir.join(LOGINS))?;
        }
        snapshot::put(&copy, &store)
    })();
    placed.map_err(|source| StateError::Io {
        what: format!("the state could not be put into {}", data_dir.display()),
        source,
    })?;
    Ok(Imported { services, images })
}

/// A folder for root alone, on the disk of the data, gone when it is dropped.
fn aside(data_dir: &Path) -> Result<tempfile::TempDir, StateError> {
    let made = fs::create_dir_all(data_dir).and_then(|()| {
        tempfile::Builder::new()
            .prefix("state-")
            .tempdir_in(data_dir)
    });
    made.map_err(|source| StateError::Io {
        what: format!("cannot make a folder in {}", data_dir.display()),
        source,
    })
}

#[cfg(test)]
mod tests {
    use layby_model::AppName;
    use layby_model::secret::{Scope, SecretRef, SecretSource, ValueKind};
    use tempfile::TempDir;

    use super::*;
    use crate::secrets::{NewValue, Vault};
    use crate::store::Store;

    fn passphrase(text: &str) -> SecretValue {
        SecretValue::new(text.as_bytes().to_vec())
    }

    fn place(dir: &TempDir) -> MasterKey {
        MasterKey::File(dir.path().join("master.key"))
    }

    async fn vault(dir: &TempDir) -> Vault {
        let store = Store::open(&dir.path().join(STORE)).expect("a store");
        Vault::open(store, place(dir), false)
            .await
            .expect("a vault")
    }

    #[tokio::test]
    async fn a_state_is_put_back_into_an_empty_node_alone_and_its_secrets_open_with_that_nodes_key()
    {
        let (lost, new) = (
            TempDir::new().expect("a folder"),
            TempDir::new().expect("a folder"),
        );
        let value = NewValue {
            app: None,
            kind: ValueKind::Secret,
            name: "db".to_owned(),
            value: passphrase("hunter2"),
            declared: false,
        };
        vault(&lost)
            .await
            .keep(vec![value], "root")
            .await
            .expect("kept");
        fs::write(lost.path().join(LOGINS), "{}").expect("written");
        let mut file = Vec::new();
        let (key, word) = (place(&lost), passphrase("correct horse"));
        export_at(lost.path(), &key, &word, lock::CHEAP, &mut file).expect("written");
        assert!(!file.windows(7).any(|part| part == b"hunter2"));

        let wrong = import(
            new.path(),
            &place(&new),
            &passphrase("wrong horse"),
            &file[..],
        );
        assert!(matches!(wrong, Err(StateError::Wrong(_))), "{wrong:?}");
        let cut = import(new.path(), &place(&new), &word, &file[..file.len() - 9]);
        assert!(matches!(cut, Err(StateError::Wrong(_))), "{cut:?}");
        assert!(!new.path().join(STORE).exists());

        import(new.path(), &place(&new), &word, &file[..]).expect("put back");
        assert!(new.path().join(LOGINS).exists());
        let old = fs::read(lost.path().join("master.key")).expect("a key");
        assert_ne!(fs::read(new.path().join("master.key")).expect("a key"), old);
        let secret = SecretRef {
            scope: Some(Scope::Node),
            version: Some(1),
            ..SecretRef::new("db")
        };
        let app = AppName::new("shop").expect("a label");
        let found = vault(&new)
            .await
            .reveal(&app, &secret)
            .await
            .expect("opened");
        assert_eq!(found.bytes(), b"hunter2");
        let again = import(new.path(), &place(&new), &word, &file[..]);
        assert!(
            matches!(again, Err(StateError::NotEmpty { .. })),
            "{again:?}"
        );
    }
}
