//! Writing and reading the content of `blobs/`: streamed, hashed on the way, in place only when whole.

use std::fs::File;
use std::io::{self, BufWriter, Read, Write};
use std::path::{Path, PathBuf};

use tempfile::{NamedTempFile, TempPath};

use crate::Error;
use crate::digest::{self, Hashing};
use crate::error::{io_error, storing};
use crate::layout::MAX_DOCUMENT_BYTES;

const BUFFER_BYTES: usize = 128 << 10;

/// A blob being written, in a temporary file of the store.
pub(crate) struct BlobWriter {
    out: Hashing<BufWriter<NamedTempFile>>,
    what: String,
}

/// A blob that is whole and on disk, but has no name yet. Dropping it deletes it.
#[derive(Debug)]
pub(crate) struct Spooled {
    pub(crate) path: TempPath,
    pub(crate) digest: String,
    pub(crate) size_bytes: u64,
}

impl BlobWriter {
    /// Begins a blob; `what` names it in errors.
    pub(crate) fn new(temp_dir: &Path, what: &str) -> Result<Self, Error> {
        let file =
            NamedTempFile::new_in(temp_dir).map_err(storing(what, &temp_dir.join("blob")))?;
        Ok(Self {
            out: Hashing::new(BufWriter::with_capacity(BUFFER_BYTES, file)),
            what: what.to_owned(),
        })
    }

    /// Writes all that the reader has. `on_read` makes the error when reading fails.
    pub(crate) fn copy_from(
        &mut self,
        reader: &mut impl Read,
        on_read: impl Fn(io::Error) -> Error,
    ) -> Result<(), Error> {
        let mut buffer = vec![0; BUFFER_BYTES];
        loop {
            match reader.read(&mut buffer) {
                Ok(0) => return Ok(()),
                Ok(n) => self.put(&buffer[..n])?,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(on_read(error)),
            }
        }
    }

    /// Writes bytes.
    pub(crate) fn put(&mut self, bytes: &[u8]) -> Result<(), Error> {
        self.out
            .write_all(bytes)
            .map_err(|error| self.failed(error))
    }

    /// The error for a failed write into this blob.
    pub(crate) fn failed(&self, error: io::Error) -> Error {
        storing(&self.what, self.path())(error)
    }

    /// Brings it to the disk, and says what it is.
    pub(crate) fn finish(self) -> Result<Spooled, Error> {
        let what = self.what.clone();
        let spooled = self.finish_unsynced()?;
        let synced = File::open(&spooled.path).and_then(|file| file.sync_all());
        synced.map_err(storing(&what, &spooled.path))?;
        Ok(spooled)
    }

    /// Says what it is. Before it gets a name, the caller brings it to the disk, with others (see `Store::sync`).
    pub(crate) fn finish_unsynced(self) -> Result<Spooled, Error> {
        let what = self.what;
        let (out, digest, size_bytes) = self.out.finish();
        let path = out.get_ref().path().to_owned();
        let file = out
            .into_inner()
            .map_err(|error| storing(&what, &path)(error.into_error()))?;
        Ok(Spooled {
            path: file.into_temp_path(),
            digest,
            size_bytes,
        })
    }

    fn path(&self) -> &Path {
        self.out.get_ref().get_ref().path()
    }
}

impl Write for BlobWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.out.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

/// Reads a small blob (a manifest or config) and checks its digest.
pub(crate) fn read_document(path: &Path, digest: &str, what: &str) -> Result<Vec<u8>, Error> {
    let bytes = read_bounded(path)?;
    let found = digest::of(&bytes);
    if found != digest {
        return Err(Error::Corrupt {
            what: what.to_owned(),
            expected: digest.to_owned(),
            found,
        });
    }
    Ok(bytes)
}

/// Reads a file that must not be longer than a document may be.
pub(crate) fn read_bounded(path: &Path) -> Result<Vec<u8>, Error> {
    read_up_to(path, MAX_DOCUMENT_BYTES)
}

/// Reads a file that must not be longer than `max_bytes`.
pub(crate) fn read_up_to(path: &Path, max_bytes: u64) -> Result<Vec<u8>, Error> {
    let file = File::open(path).map_err(io_error("open", path))?;
    let mut bytes = Vec::new();
    file.take(max_bytes + 1)
        .read_to_end(&mut bytes)
        .map_err(io_error("read", path))?;
    if bytes.len() as u64 > max_bytes {
        return Err(Error::Malformed {
            what: path.display().to_string(),
            reason: format!("it is longer than {max_bytes} bytes"),
        });
    }
    Ok(bytes)
}

/// Puts a file in place at once and for good: temporary file, fsync, rename, fsync of the directory.
pub(crate) fn replace_file(
    temp_dir: &Path,
    path: &Path,
    bytes: &[u8],
    what: &str,
) -> Result<(), Error> {
    let mut file = NamedTempFile::new_in(temp_dir).map_err(storing(what, path))?;
    file.write_all(bytes).map_err(storing(what, path))?;
    file.as_file().sync_all().map_err(storing(what, path))?;
    file.persist(path)
        .map_err(|error| storing(what, path)(error.error))?;
    sync_dir_of(path)
}

/// Makes the names in the directory that holds `path` last.
pub(crate) fn sync_dir_of(path: &Path) -> Result<(), Error> {
    let dir: PathBuf = path.parent().unwrap_or(path).to_owned();
    let synced = File::open(&dir).and_then(|dir| dir.sync_all());
    synced.map_err(io_error("sync", &dir))
}
