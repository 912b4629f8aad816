//! Blobs on their way in: written to disk and hashed as they arrive, and left there to be gone on with after a cut, of
//! the connection or of the node.
//!
//! No thread waits for a client: bytes are gathered without one, and written by the piece on a thread that may block.

use std::collections::HashMap;
use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http::StatusCode;
use http_body_util::BodyExt;
use sha2::{Digest as _, Sha256};
use tokio::sync::Semaphore;

use super::body::Incoming;
use super::digest::{Digest, read_all, sha512_of_file};
use super::refusal::{Code, Refusal};
use super::repository::{self, Repository};
use super::route::Name;
use crate::error::{io_error, storing};
use crate::{Error, Store, blob, digest, lock};

/// So much is gathered before it is written: an upload has at most two such pieces in memory.
const PIECE_BYTES: usize = 1 << 20;
/// A client that sends nothing for so long is cut off; what came is kept.
pub(super) const IDLE: Duration = Duration::from_secs(60);
/// An upload that nobody goes on with is forgotten after this.
const EXPIRY: Duration = Duration::from_secs(24 * 3600);
/// So many uploads may be open on a node.
const MAX_UPLOADS: usize = 1_000;
/// So many of one token: others are to push too.
const MAX_UPLOADS_OF_ONE: usize = 100;
/// The largest blob, in bytes.
const MAX_BLOB_BYTES: u64 = 256 << 30;
/// So much of a body is still taken in when its upload has failed.
const MAX_UNREAD_BYTES: usize = 64 << 20;
const WHAT: &str = "a blob that is pushed";

/// The uploads of a registry.
#[derive(Debug, Default)]
pub(super) struct Uploads {
    open: Mutex<HashMap<PathBuf, Open>>,
    /// Held while the folder of a new upload is made, and while empty ones are removed.
    making: Mutex<()>,
}

/// An upload, and who began it; nobody knows that after a restart.
#[derive(Debug)]
struct Open {
    who: Option<String>,
    upload: Arc<tokio::sync::Mutex<Upload>>,
}

/// One upload: a file, and the hash of what is in it.
#[derive(Debug)]
pub(super) struct Upload {
    path: PathBuf,
    size_bytes: u64,
    /// `None`: it was begun before the node was started, and is hashed at the end.
    hasher: Option<Sha256>,
}

impl Uploads {
    /// Begins one, and gives its id. Blocks.
    pub(super) fn begin(
        &self,
        store: &Store,
        name: &Name,
        who: Option<&str>,
    ) -> Result<String, Refusal> {
        let is_full = || self.count() >= MAX_UPLOADS || self.count_of(who) >= MAX_UPLOADS_OF_ONE;
        if is_full() {
            self.sweep(store)?;
        }
        if is_full() {
            return Err(Refusal::new(
                Code::TooManyRequests,
                format!(
                    "{MAX_UPLOADS} uploads are open on this node, or {MAX_UPLOADS_OF_ONE} of one token: end some, or try again later"
                ),
            ));
        }
        let _making = self.making.lock().unwrap_or_else(PoisonError::into_inner);
        let repository = Repository::new(store, name);
        if !repository.may_be_made()? {
            return Err(Refusal::too_many_repositories());
        }
        let dir = repository.uploads_dir()?;
        let file = tempfile::Builder::new()
            .prefix("")
            .rand_bytes(32)
            .tempfile_in(&dir)
            .map_err(storing(WHAT, &dir.join("upload")))?;
        let (_, path) = file
            .keep()
            .map_err(|error| storing(WHAT, &dir.join("upload"))(error.error))?;
        let id = path
            .file_name()
            .map(|name| name.to_string_lossy().into_owned());
        let upload = Upload {
            path: path.clone(),
            size_bytes: 0,
            hasher: Some(Sha256::new()),
        };
        let open = Open {
            who: who.map(str::to_owned),
            upload: Arc::new(tokio::sync::Mutex::new(upload)),
        };
        self.lock().insert(path, open);
        Ok(id.unwrap_or_default())
    }

    /// The upload with this id. Blocks.
    pub(super) fn find(
        &self,
        store: &Store,
        name: &Name,
        id: &str,
    ) -> Result<Arc<tokio::sync::Mutex<Upload>>, Refusal> {
        let unknown = || {
            Refusal::new(
                Code::BlobUploadUnknown,
                format!("{} has no such upload: begin it again", name.as_str()),
            )
        };
        if id.is_empty() || id.len() > 64 || !id.bytes().all(|b| b.is_ascii_alphanumeric()) {
            return Err(unknown());
        }
        let path = Repository::new(store, name).upload_path(id);
        let mut open = self.lock();
        if let Some(open) = open.get(&path) {
            return Ok(Arc::clone(&open.upload));
        }
        let found = Open::left(&path).map_err(|_| unknown())?;
        let upload = Arc::clone(&found.upload);
        open.insert(path, found);
        Ok(upload)
    }

    /// Finds what was begun before the node was started: it counts too. Blocks.
    pub(super) fn recover(&self, store: &Store) -> Result<(), Error> {
        for name in repository::all(store)? {
            let repository = Repository::new(store, &name);
            for id in repository::names(&repository.upload_path(""))? {
                let path = repository.upload_path(&id);
                let left = Open::left(&path).map_err(io_error("look at", &path))?;
                self.lock().insert(path, left);
            }
        }
        Ok(())
    }

    /// Forgets an upload and what came of it. Blocks.
    pub(super) fn cancel(&self, upload: &Upload) -> Result<(), Error> {
        self.lock().remove(&upload.path);
        fs::remove_file(&upload.path).map_err(io_error("remove", &upload.path))
    }

    /// Makes an upload a blob of the store and of its repository, if it is what `digest` says; it is forgotten
    /// either way. Blocks.
    pub(super) fn finish(
        &self,
        store: &Store,
        name: &Name,
        upload: &mut Upload,
        digest: &Digest,
    ) -> Result<(), Refusal> {
        let length = fs::metadata(&upload.path)
            .map_err(io_error("look at", &upload.path))?
            .len();
        if length != upload.size_bytes {
            let counted = upload.size_bytes;
            self.cancel(upload)?;
            let text = format!(
                "the upload has {length} bytes where {counted} were received: push it again"
            );
            return Err(Refusal::new(Code::BlobUploadInvalid, text));
        }
        let sha256 = upload.sha256()?;
        let found = match digest.is_sha256() {
            true => sha256.clone(),
            false => sha512_of_file(&upload.path).map_err(io_error("read", &upload.path))?,
        };
        if found != digest.as_str() {
            self.cancel(upload)?;
            return Err(Refusal::new(
                Code::DigestInvalid,
                format!(
                    "what arrived ({} bytes) has the digest {found}, not {digest}: push it again",
                    upload.size_bytes
                ),
            ));
        }
        let path = store.blob_path(&sha256)?;
        let _adding = store.adding()?;
        // One that is there stays; storing it again mends one that has decayed.
        if is_whole(&path, upload.size_bytes, &sha256)? {
            self.cancel(upload)?;
        } else {
            let file = File::open(&upload.path).map_err(io_error("open", &upload.path))?;
            file.sync_all().map_err(storing(WHAT, &upload.path))?;
            fs::rename(&upload.path, &path).map_err(storing(WHAT, &path))?;
            self.lock().remove(&upload.path);
            blob::sync_dir_of(&path)?;
        }
        Repository::new(store, name).add_blob(digest, &sha256)?;
        Ok(())
    }

    /// Forgets uploads that nobody went on with, and repositories that hold nothing. Blocks.
    pub(super) fn sweep(&self, store: &Store) -> Result<(), Error> {
        for name in repository::all(store)? {
            let repository = Repository::new(store, &name);
            for id in repository::names(&repository.upload_path(""))? {
                let path = repository.upload_path(&id);
                let age = fs::metadata(&path).and_then(|found| found.modified());
                if age.is_ok_and(|at| at.elapsed().is_ok_and(|age| age > EXPIRY)) {
                    self.lock().remove(&path);
                    fs::remove_file(&path).map_err(io_error("remove", &path))?;
                }
            }
        }
        // Whoever adds something to a repository holds this lock.
        if let Some(_alone) = lock::try_exclusive(&store.locks_dir(), lock::CONTENT)? {
            let _making = self.making.lock().unwrap_or_else(PoisonError::into_inner);
            for name in repository::all(store)? {
                Repository::new(store, &name).remove_if_empty();
            }
        }
        Ok(())
    }

    fn count(&self) -> usize {
        self.lock().len()
    }

    fn count_of(&self, who: Option<&str>) -> usize {
        let open = self.lock();
        let theirs = open.values().filter(|open| open.who.as_deref() == who);
        // Without a name nobody may push: those are left from before a restart.
        who.map_or(0, |_| theirs.count())
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<PathBuf, Open>> {
        // Nothing panics while it is held; a poisoned lock still holds whole entries.
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Open {
    /// An upload that was begun before the node was started.
    fn left(path: &Path) -> std::io::Result<Self> {
        let upload = Upload {
            path: path.to_owned(),
            size_bytes: fs::metadata(path)?.len(),
            hasher: None,
        };
        Ok(Self {
            who: None,
            upload: Arc::new(tokio::sync::Mutex::new(upload)),
        })
    }
}

impl Upload {
    /// Bytes that are there.
    pub(super) fn size_bytes(&self) -> u64 {
        self.size_bytes
    }

    /// The `Range` header of the answers about it: which bytes are there.
    pub(super) fn range(&self) -> String {
        format!("0-{}", self.size_bytes.saturating_sub(1))
    }

    /// Adds a body to it. What came before an error is kept.
    pub(super) async fn receive(
        &mut self,
        mut body: Incoming,
        disk: &Arc<Semaphore>,
    ) -> Result<(), Refusal> {
        let mut piece: Vec<Bytes> = Vec::new();
        let mut gathered = 0;
        let mut ended = Ok(());
        let mut writing: Option<tokio::task::JoinHandle<(Writer, Result<(), Refusal>)>> = None;
        let mut writer = Some(Writer::open(self)?);
        loop {
            let more = match tokio::time::timeout(IDLE, body.frame()).await {
                Ok(Some(Ok(frame))) => {
                    if let Ok(data) = frame.into_data() {
                        gathered += data.len();
                        piece.push(data);
                    }
                    true
                }
                Ok(None) => false,
                Ok(Some(Err(error))) => {
                    ended = Err(cut_off(&format!("the upload broke off ({error})")));
                    false
                }
                Err(_) => {
                    let text = format!("nothing came for {} s", IDLE.as_secs());
                    ended = Err(cut_off(&text));
                    false
                }
            };
            if more && gathered < PIECE_BYTES {
                continue;
            }
            // The next piece comes in while this one is written and hashed.
            if let Some(written) = writing.take() {
                let (back, result) = written.await.map_err(broke_off)?;
                writer = Some(back);
                if result.is_err() {
                    ended = result;
                    let _ = tokio::time::timeout(IDLE, drain(&mut body)).await;
                    break;
                }
            }
            if gathered > 0
                && let Some(mut with) = writer.take()
            {
                let full = std::mem::take(&mut piece);
                gathered = 0;
                let turn = Arc::clone(disk).acquire_owned().await;
                writing = Some(tokio::task::spawn_blocking(move || {
                    let _turn = turn;
                    let result = with.put(&full);
                    (with, result)
                }));
            }
            if !more {
                break;
            }
        }
        if let Some(written) = writing {
            let (back, result) = written.await.map_err(broke_off)?;
            writer = Some(back);
            ended = ended.and(result);
        }
        if let Some(writer) = writer {
            self.size_bytes = writer.size_bytes;
            self.hasher = writer.hasher;
        }
        ended
    }

    fn sha256(&mut self) -> Result<String, Error> {
        let hasher = match self.hasher.take() {
            Some(hasher) => hasher,
            None => {
                let mut hasher = Sha256::new();
                let read = read_all(&self.path, |bytes| hasher.update(bytes));
                read.map_err(io_error("read", &self.path))?;
                hasher
            }
        };
        Ok(digest::finish(hasher))
    }
}

/// Whether a blob is there and is what it should be.
fn is_whole(path: &Path, size_bytes: u64, sha256: &str) -> Result<bool, Error> {
    match fs::metadata(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(io_error("look at", path)(error)),
        Ok(found) if found.len() != size_bytes => return Ok(false),
        Ok(_) => {}
    }
    let mut hasher = Sha256::new();
    let read = read_all(path, |bytes| hasher.update(bytes));
    // One that cannot be read is to be replaced.
    Ok(read.is_ok() && digest::finish(hasher) == sha256)
}

/// A client that is cut off while it sends may never read why.
async fn drain(body: &mut Incoming) {
    let mut unread = 0;
    while unread < MAX_UNREAD_BYTES
        && let Some(Ok(frame)) = body.frame().await
    {
        unread += frame.data_ref().map_or(0, Bytes::len);
    }
}

/// What writes to an upload's file: it goes to a thread that may block and comes back.
struct Writer {
    file: File,
    path: PathBuf,
    size_bytes: u64,
    hasher: Option<Sha256>,
}

impl Writer {
    fn open(upload: &mut Upload) -> Result<Self, Refusal> {
        let file = OpenOptions::new().append(true).open(&upload.path);
        let file = file.map_err(|_| cut_off("the upload is gone"))?;
        // What a write left behind that was never counted is not in the hash.
        file.set_len(upload.size_bytes)
            .map_err(storing(WHAT, &upload.path))?;
        Ok(Self {
            file,
            path: upload.path.clone(),
            size_bytes: upload.size_bytes,
            hasher: upload.hasher.clone(),
        })
    }

    fn put(&mut self, piece: &[Bytes]) -> Result<(), Refusal> {
        let before = self.size_bytes;
        for bytes in piece {
            if self.size_bytes + bytes.len() as u64 > MAX_BLOB_BYTES {
                return Err(Refusal::new(
                    Code::SizeInvalid,
                    format!("a blob may have {MAX_BLOB_BYTES} bytes"),
                )
                .status(StatusCode::PAYLOAD_TOO_LARGE));
            }
            if let Err(error) = self.file.write_all(bytes) {
                // What was not written whole is taken back, so that the hash is of what is there.
                let _ = self.file.set_len(before);
                self.size_bytes = before;
                self.hasher = None;
                return Err(storing(WHAT, &self.path)(error).into());
            }
            self.size_bytes += bytes.len() as u64;
            if let Some(hasher) = &mut self.hasher {
                hasher.update(bytes);
            }
        }
        Ok(())
    }
}

fn cut_off(reason: &str) -> Refusal {
    Refusal::new(
        Code::BlobUploadInvalid,
        format!("{reason}; ask where the upload stands, and go on from there"),
    )
}

fn broke_off(error: tokio::task::JoinError) -> Refusal {
    Refusal::new(Code::Unknown, format!("writing broke off: {error}"))
}
