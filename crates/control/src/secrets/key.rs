//! Where the master key is kept: a file that only root can read, or a credential of systemd's.
//!
//! A key is changed in this order: the new one is written beside the old one; all rows are written anew in one
//! transaction; the new one takes the old one's place. Wherever that is cut, one of both is the right one.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use layby_model::secret::SecretValue;

use super::seal::Key;
use crate::config::MasterKey;

/// The longest key file: 64 digits, and some space around them.
const MAX_FILE_BYTES: u64 = 1024;

/// Why there is no key.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// It is not where it was.
    #[error(
        "the key of the secrets is gone: there is no {path} (nothing was changed); put it back, or start once with \
         --forget-secrets to go on without the secrets"
    )]
    Gone {
        /// Where it should be.
        path: PathBuf,
    },
    /// It is another one.
    #[error(
        "the key in {path} is not the one that the secrets are encrypted with (nothing was changed); put the right one \
         back, or start once with --forget-secrets to go on without the secrets"
    )]
    Wrong {
        /// Where it is.
        path: PathBuf,
    },
    /// Others than root can read it.
    #[error(
        "others than root can read the key in {path}: make that impossible with `chmod 600`, then start again"
    )]
    Exposed {
        /// Where it is.
        path: PathBuf,
    },
    /// It does not look like a key.
    #[error("{path} is no key of secrets: 64 hexadecimal digits are")]
    Malformed {
        /// Where it is.
        path: PathBuf,
    },
    /// It could not be read or written.
    #[error("the key of the secrets, {path}, could not be read or written")]
    Io {
        /// Where it is.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// systemd's credentials are not ours to change.
    #[error(
        "the key of the secrets is a credential of systemd: add the new one to the unit as \
         layby-master-key-next, start the node again, and say this once more; then make it layby-master-key"
    )]
    NoNext,
}

impl MasterKey {
    /// Where the key is.
    pub(super) fn path(&self) -> PathBuf {
        match self {
            Self::File(file) => file.clone(),
            Self::Credential(dir) => dir.join(Self::CREDENTIAL),
        }
    }

    /// Where the one to come is, while they are changed.
    fn next(&self) -> PathBuf {
        match self {
            Self::File(file) => {
                let mut name = file.as_os_str().to_owned();
                name.push(".next");
                PathBuf::from(name)
            }
            Self::Credential(dir) => dir.join(format!("{}-next", Self::CREDENTIAL)),
        }
    }
}

/// The key that made `proof`; a change that was cut is finished.
pub(super) fn find(place: &MasterKey, proof: &[u8]) -> Result<Key, KeyError> {
    let path = place.path();
    let (current, next) = (read(&path)?, read(&place.next())?);
    let fits = |key: &Option<Key>| key.as_ref().is_some_and(|key| key.made(proof));
    match (current, next) {
        (Some(key), next) if key.made(proof) => {
            if next.is_some() {
                give_up_next(place);
            }
            Ok(key)
        }
        (_, next) if fits(&next) => {
            install(place)?;
            next.ok_or(KeyError::Gone { path })
        }
        (None, _) => Err(KeyError::Gone { path }),
        (Some(_), _) => Err(KeyError::Wrong { path }),
    }
}

/// The key that made `proof`, for somebody who only reads: nothing is finished or given up.
pub(crate) fn peek(place: &MasterKey, proof: &[u8]) -> Result<Key, KeyError> {
    let path = place.path();
    let (current, next) = (read(&path)?, read(&place.next())?);
    let is_there = current.is_some();
    let mut both = current.into_iter().chain(next);
    match both.find(|key| key.made(proof)) {
        Some(key) => Ok(key),
        None if is_there => Err(KeyError::Wrong { path }),
        None => Err(KeyError::Gone { path }),
    }
}

/// The key for the first secret: the one that is there, else a new one.
pub(crate) fn first(place: &MasterKey) -> Result<Key, KeyError> {
    let path = place.path();
    if let Some(key) = read(&path)? {
        return Ok(key);
    }
    let key = Key::random();
    match place {
        MasterKey::File(_) => write(&path, &key)?,
        MasterKey::Credential(_) => return Err(KeyError::Gone { path }),
    }
    Ok(key)
}

/// The key to change to, where a crash cannot lose it.
pub(super) fn prepare_next(place: &MasterKey) -> Result<Key, KeyError> {
    let next = place.next();
    match place {
        // One that is there already may be what all is encrypted with by now.
        MasterKey::File(_) => match read(&next)? {
            Some(key) => Ok(key),
            None => {
                let key = Key::random();
                write(&next, &key)?;
                Ok(key)
            }
        },
        MasterKey::Credential(_) => read(&next)?.ok_or(KeyError::NoNext),
    }
}

/// Puts the next key in the place of the old one; a credential's place is the operator's to change.
pub(super) fn install(place: &MasterKey) -> Result<(), KeyError> {
    if let MasterKey::File(path) = place {
        fs::rename(place.next(), path)
            .and_then(|()| sync_folder(path))
            .map_err(|source| KeyError::Io {
                path: path.clone(),
                source,
            })?;
    }
    Ok(())
}

/// Forgets a next key that nothing was encrypted with.
pub(super) fn give_up_next(place: &MasterKey) {
    if let MasterKey::File(_) = place {
        // It only lies there.
        let _ = fs::remove_file(place.next());
    }
}

/// `None`: there is no such file.
fn read(path: &Path) -> Result<Option<Key>, KeyError> {
    let failed = |source| KeyError::Io {
        path: path.to_owned(),
        source,
    };
    let file = match File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        other => other.map_err(failed)?,
    };
    let found = file.metadata().map_err(failed)?;
    // Nobody else may so much as read it. A credential of systemd is 0400 for a unit that runs as root, as the node does.
    if found.mode() & 0o077 != 0 || !matches!(found.uid(), 0) && found.uid() != our_uid() {
        return Err(KeyError::Exposed {
            path: path.to_owned(),
        });
    }
    let mut text = Vec::new();
    let read = file.take(MAX_FILE_BYTES).read_to_end(&mut text);
    read.map_err(failed)?;
    let text = SecretValue::new(text);
    let key = from_hex(text.bytes()).and_then(Key::new);
    let key = key.ok_or_else(|| KeyError::Malformed {
        path: path.to_owned(),
    })?;
    Ok(Some(key))
}

/// Who this process is: its own files are.
fn our_uid() -> u32 {
    fs::metadata("/proc/self").map_or(0, |found| found.uid())
}

/// Writes a key so that it is there whole after a power cut, or not at all.
fn write(path: &Path, key: &Key) -> Result<(), KeyError> {
    let written = || -> io::Result<()> {
        let mut aside = path.as_os_str().to_owned();
        aside.push(".new");
        let aside = PathBuf::from(aside);
        // Of a start that was cut.
        match fs::remove_file(&aside) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&aside)?;
        let text = SecretValue::new(to_hex(key.bytes()));
        file.write_all(text.bytes())?;
        file.sync_all()?;
        fs::rename(&aside, path)?;
        sync_folder(path)
    };
    written().map_err(|source| KeyError::Io {
        path: path.to_owned(),
        source,
    })
}

fn sync_folder(path: &Path) -> io::Result<()> {
    match path.parent().filter(|dir| !dir.as_os_str().is_empty()) {
        Some(dir) => File::open(dir)?.sync_all(),
        None => File::open(".")?.sync_all(),
    }
}

fn to_hex(bytes: &[u8]) -> Vec<u8> {
    let digit = |n: u8| b"0123456789abcdef"[usize::from(n & 15)];
    let digits = bytes
        .iter()
        .flat_map(|byte| [digit(byte >> 4), digit(*byte)]);
    digits.chain([b'\n']).collect()
}

fn from_hex(text: &[u8]) -> Option<SecretValue> {
    let text = text.trim_ascii();
    let digit = |byte: u8| char::from(byte).to_digit(16);
    let pairs = text.chunks(2).map(|pair| match pair {
        [high, low] => u8::try_from(digit(*high)? * 16 + digit(*low)?).ok(),
        _ => None,
    });
    pairs.collect::<Option<Vec<u8>>>().map(SecretValue::new)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use tempfile::TempDir;

    use super::*;

    fn place(dir: &TempDir) -> MasterKey {
        MasterKey::File(dir.path().join("master.key"))
    }

    #[test]
    fn the_first_key_is_for_root_alone_and_found_again() {
        let dir = TempDir::new().expect("a folder");
        let key = first(&place(&dir)).expect("made");
        let file = dir.path().join("master.key");
        let mode = fs::metadata(&file).expect("there").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert_eq!(fs::read(&file).expect("read").len(), 65);
        let again = first(&place(&dir)).expect("found");
        assert_eq!(again.bytes(), key.bytes());
        let found = find(&place(&dir), &key.proof()).expect("found");
        assert_eq!(found.bytes(), key.bytes());
    }

    #[test]
    fn a_key_that_is_lost_wrong_exposed_or_none_is_told_and_left_as_it_is() {
        let dir = TempDir::new().expect("a folder");
        let file = dir.path().join("master.key");
        let proof = Key::random().proof();
        let found = || find(&place(&dir), &proof).expect_err("refused");
        assert!(matches!(found(), KeyError::Gone { .. }));
        write(&file, &Key::random()).expect("written");
        let before = fs::read(&file).expect("read");
        assert!(matches!(found(), KeyError::Wrong { .. }));
        assert_eq!(fs::read(&file).expect("read"), before);
        for text in ["", "zz", &"a".repeat(63), &"a".repeat(66)] {
            fs::write(&file, text).expect("written");
            assert!(matches!(found(), KeyError::Malformed { .. }), "{text:?}");
        }
        fs::set_permissions(&file, fs::Permissions::from_mode(0o640)).expect("set");
        assert!(matches!(found(), KeyError::Exposed { .. }));
        assert_eq!(fs::read_dir(dir.path()).expect("a folder").count(), 1);
    }

    #[test]
    fn a_change_that_was_cut_is_finished_or_given_up_by_what_the_rows_are_encrypted_with() {
        let dir = TempDir::new().expect("a folder");
        let old = first(&place(&dir)).expect("made");
        let new = prepare_next(&place(&dir)).expect("made");
        // Cut before the rows were written anew.
        let found = find(&place(&dir), &old.proof()).expect("the old one");
        assert_eq!(found.bytes(), old.bytes());
        assert!(!dir.path().join("master.key.next").exists());
        // Cut after.
        let newer = prepare_next(&place(&dir)).expect("made");
        assert_ne!(newer.bytes(), new.bytes());
        for _ in 0..2 {
            let found = find(&place(&dir), &newer.proof()).expect("the new one");
            assert_eq!(found.bytes(), newer.bytes());
            assert!(!dir.path().join("master.key.next").exists());
        }
    }

    #[test]
    fn a_credential_is_never_written() {
        let dir = TempDir::new().expect("a folder");
        let place = MasterKey::Credential(dir.path().to_owned());
        assert!(matches!(first(&place), Err(KeyError::Gone { .. })));
        assert!(matches!(prepare_next(&place), Err(KeyError::NoNext)));
        let key = Key::random();
        write(&dir.path().join("layby-master-key-next"), &key).expect("written");
        assert_eq!(prepare_next(&place).expect("there").bytes(), key.bytes());
        let found = find(&place, &key.proof()).expect("the next one is good already");
        assert_eq!(found.bytes(), key.bytes());
        assert_eq!(fs::read_dir(dir.path()).expect("a folder").count(), 1);
    }
}
