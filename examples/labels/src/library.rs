//! The pictures and what is known of them: written to the store first, and then to the index. One that was accepted is in
//! the store, so whoever is killed loses nothing.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use serde::de::DeserializeOwned;
use tokio::sync::watch;

use crate::digest::Digest;
use crate::edit::{Change, Edit, Reply, ReplyOutcome, Upload};
use crate::index::{Index, Picture};
use crate::label::category::Category;
use crate::label::fields::Field;
use crate::picture::{self, PictureError};
use crate::store::{ObjectStore, StoreError, keys};

/// How many objects are read at once when the index is made.
const READERS: usize = 8;

/// How many pictures are written to at once, at most: as many as a hexadecimal digit has values.
const WRITERS: usize = 16;

const JSON: &str = "application/json";

/// All of it. Its calls block.
pub struct Library {
    store: Arc<dyn ObjectStore>,
    index: RwLock<Index>,
    /// Whoever holds that of a picture's first digit compares and writes.
    writing: [Mutex<()>; WRITERS],
    changes: watch::Sender<u64>,
}

/// Why an upload was not taken.
#[derive(Debug, thiserror::Error)]
pub enum UploadError {
    /// It is no picture that would be read.
    #[error(transparent)]
    Picture(#[from] PictureError),
    /// It may not have been written.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Why an edit was not taken.
#[derive(Debug, thiserror::Error)]
pub enum EditError {
    /// There is no such picture.
    #[error("there is no such picture")]
    Unknown,
    /// Somebody else has changed it since.
    #[error("it has changed since this page was loaded")]
    Changed,
    /// It may not have been written.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// An upload that was taken.
#[derive(Debug, Clone, PartialEq)]
pub struct Added {
    /// What the picture is known by.
    pub sha256: Digest,
    /// Whether it was there before.
    pub known: bool,
}

impl Library {
    /// With an empty index, until it is loaded.
    pub fn new(store: Arc<dyn ObjectStore>) -> Library {
        Library {
            store,
            index: RwLock::default(),
            writing: Default::default(),
            changes: watch::Sender::new(0),
        }
    }

    /// Rings at each change.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    /// Looks at the index, which stands still meanwhile: be quick.
    pub fn look<T>(&self, at: impl FnOnce(&Index) -> T) -> T {
        at(&self.index.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Takes into the index what the store has more: at the start all of it, later what others wrote.
    ///
    /// # Errors
    /// When the store does not answer; what was read until then is known.
    pub fn load(&self) -> Result<(), StoreError> {
        let uploads = self.store.list(keys::UPLOADS)?;
        let readings = newest(self.store.list(keys::READINGS)?);
        let edits = self.store.list(keys::EDITS)?;
        self.take_all(uploads, readings, edits)
    }

    /// The same for one picture.
    ///
    /// # Errors
    /// As [`Library::load`].
    pub fn load_picture(&self, sha256: &Digest) -> Result<(), StoreError> {
        let upload = keys::upload(sha256);
        if !self.look(|index| index.knows(&upload)) && self.store.get(&upload)?.is_none() {
            return Ok(());
        }
        let readings = newest(self.store.list(&format!("{}{sha256}/", keys::READINGS))?);
        let edits = self.store.list(&format!("{}{sha256}/", keys::EDITS))?;
        self.take_all(vec![upload], readings, edits)
    }

    /// Takes what these keys lead to into the index: uploads first, since the others are about them.
    fn take_all(
        &self,
        uploads: Vec<String>,
        readings: Vec<String>,
        edits: Vec<String>,
    ) -> Result<(), StoreError> {
        self.take(uploads, |index, _, _, upload: Upload| {
            index.add_upload(upload)
        })?;
        self.take(readings, |index, sha256, key, reply: Reply| {
            index.add_reply(sha256, key, reply)
        })?;
        self.take(edits, |index, sha256, key, edit: Edit| {
            index.add_edit(sha256, key, edit)
        })
    }

    /// Reads the objects that are not known, several at once.
    fn take<T: DeserializeOwned>(
        &self,
        mut keys: Vec<String>,
        add: impl Fn(&mut Index, &Digest, String, T) + Sync,
    ) -> Result<(), StoreError> {
        self.look(|index| keys.retain(|key| !index.knows(key)));
        let next = AtomicUsize::new(0);
        let read = || -> Result<(), StoreError> {
            while let Some(key) = keys.get(next.fetch_add(1, Ordering::SeqCst)) {
                let Some(bytes) = self.store.get(key)? else {
                    continue;
                };
                // One object that is not ours must not keep all others away.
                let (Some(sha256), Ok(value)) =
                    (keys::picture(key), serde_json::from_slice(&bytes))
                else {
                    eprintln!(
                        "warning: the store's object {key:?} is left alone: it cannot be read"
                    );
                    continue;
                };
                self.change(|index| add(index, &sha256, key.clone(), value));
            }
            Ok(())
        };
        std::thread::scope(|scope| {
            let readers: Vec<_> = (0..READERS.min(keys.len()))
                .map(|_| scope.spawn(read))
                .collect();
            let results = readers
                .into_iter()
                .map(|reader| reader.join().unwrap_or(Ok(())));
            results.fold(Ok(()), Result::and)
        })
    }

    /// Keeps a picture, and records its upload once it is kept. One that is there, also by somebody else's hand, stays as it is.
    ///
    /// # Errors
    /// When it is no picture, or the store may not have it.
    pub fn upload(
        &self,
        bytes: &[u8],
        file_name: &str,
        category: Category,
        who: &str,
        at_ms: u64,
    ) -> Result<Added, UploadError> {
        let header = picture::header(bytes)?;
        let sha256 = Digest::of(bytes);
        let _turn = self.writing(&sha256);
        self.load_picture(&sha256)?;
        if self.look(|index| index.get(&sha256).is_some()) {
            return Ok(Added {
                sha256,
                known: true,
            });
        }
        self.store
            .put(&keys::original(&sha256), bytes, header.media_type.as_str())?;
        let upload = Upload {
            sha256: sha256.clone(),
            file_name: file_name.to_owned(),
            media_type: header.media_type,
            size_bytes: bytes.len() as u64,
            width: header.width,
            height: header.height,
            category,
            who: who.to_owned(),
            at_ms,
        };
        self.store
            .put(&keys::upload(&sha256), &json(&upload), JSON)?;
        self.change(|index| index.add_upload(upload));
        Ok(Added {
            sha256,
            known: false,
        })
    }

    /// The picture itself.
    ///
    /// # Errors
    /// When the store does not answer.
    pub fn original(&self, sha256: &Digest) -> Result<Option<Vec<u8>>, StoreError> {
        self.store.get(&keys::original(sha256))
    }

    /// Keeps what came of reading a picture, later than all that is known of it.
    ///
    /// # Errors
    /// When the store may not have it.
    pub fn reply(
        &self,
        sha256: &Digest,
        now_ms: u64,
        outcome: ReplyOutcome,
    ) -> Result<(), StoreError> {
        let _turn = self.writing(sha256);
        let at_ms = self.next_ms(sha256, now_ms);
        let reply = Reply { at_ms, outcome };
        let bytes = json(&reply);
        let key = keys::reading(sha256, reply.at_ms, &bytes);
        self.store.put(&key, &bytes, JSON)?;
        self.change(|index| index.add_reply(sha256, key, reply));
        Ok(())
    }

    /// Keeps what an analyst changed on the version that they saw: those of `wanted` that differ from what stands there.
    /// Gives how many did. It is kept as later than all that is known of the picture.
    ///
    /// # Errors
    /// When the picture has another version by now, or the store may not have it.
    pub fn edit(
        &self,
        sha256: &Digest,
        version: &str,
        who: &str,
        now_ms: u64,
        wanted: &BTreeMap<Field, String>,
    ) -> Result<usize, EditError> {
        let _turn = self.writing(sha256);
        let changes: Vec<Change> = self.look(|index| {
            let picture = index.get(sha256).ok_or(EditError::Unknown)?;
            if picture.version() != version {
                return Err(EditError::Changed);
            }
            let change = |(field, after): (&Field, &String)| {
                let before = picture.value(field);
                let (field, after) = (field.clone(), after.clone());
                (before != after).then_some(Change {
                    field,
                    before,
                    after,
                })
            };
            Ok(wanted.iter().filter_map(change).collect())
        })?;
        if changes.is_empty() {
            return Ok(0);
        }
        let count = changes.len();
        let at_ms = self.next_ms(sha256, now_ms);
        let edit = Edit {
            who: who.to_owned(),
            at_ms,
            changes,
        };
        let bytes = json(&edit);
        let key = keys::edit(sha256, at_ms, &bytes);
        self.store.put(&key, &bytes, JSON)?;
        self.change(|index| index.add_edit(sha256, key, edit));
        Ok(count)
    }

    fn writing(&self, sha256: &Digest) -> MutexGuard<'_, ()> {
        let digit = sha256.as_str().chars().next();
        let number = digit.and_then(|digit| digit.to_digit(16)).unwrap_or(0) as usize;
        self.writing[number % WRITERS]
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Now, or right after all that is known of a picture: what is written last is to count, whatever the clock did.
    fn next_ms(&self, sha256: &Digest, now_ms: u64) -> u64 {
        let newest = self.look(|index| index.get(sha256).map_or(0, Picture::newest_at_ms));
        now_ms.max(newest.saturating_add(1))
    }

    fn change(&self, with: impl FnOnce(&mut Index)) {
        with(&mut self.index.write().unwrap_or_else(PoisonError::into_inner));
        self.changes.send_modify(|count| *count += 1);
    }
}

/// Of each picture's readings the newest.
fn newest(keys: Vec<String>) -> Vec<String> {
    let by_picture: BTreeMap<_, _> = keys
        .into_iter()
        .map(|key| (keys::picture(&key), key))
        .collect();
    by_picture.into_values().collect()
}

fn json(value: &impl serde::Serialize) -> Vec<u8> {
    // Our records are plain data: they have no maps with other keys than texts, the one thing that can fail.
    serde_json::to_vec(value).unwrap_or_default()
}
