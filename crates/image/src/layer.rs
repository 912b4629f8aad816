//! Layer blobs: recognising their compression, unpacking them once, checking both of their digests.

use std::fs::{self, Permissions};
use std::io::{self, BufReader, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::thread;

use flate2::bufread::MultiGzDecoder;
use rustix::fs::{AtFlags, Timespec, Timestamps};
use tempfile::TempDir;

use crate::blob;
use crate::digest::{self, Hashing};
use crate::error::{io_error, is_full, storing};
use crate::layout::Descriptor;
use crate::unpack::{self, Limits, UnpackError, Whiteouts};
use crate::{Error, Store, lock, pieces};

/// The directory that stands for the layers of an image without any. Never collected.
pub(crate) const EMPTY: &str = "empty";

/// How much is handed from the decompressor to the writer at a time, in bytes.
const PIECE_BYTES: usize = 256 << 10;

/// How a stream is compressed, told by its first bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Compression {
    None,
    Gzip,
    Zstd,
    /// Named, since it cannot be read.
    Unsupported(&'static str),
}

impl Compression {
    /// What the first bytes (six are enough) say.
    pub(crate) fn of(first: &[u8]) -> Self {
        match first {
            [0x1f, 0x8b, ..] => Self::Gzip,
            [0x28, 0xb5, 0x2f, 0xfd, ..] => Self::Zstd,
            [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => Self::Unsupported("xz"),
            [b'B', b'Z', b'h', ..] => Self::Unsupported("bzip2"),
            _ => Self::None,
        }
    }

    /// What follows `+` or `.` in the media type of such a layer.
    pub(crate) fn media_suffix(self) -> &'static str {
        match self {
            Self::Gzip => "+gzip",
            Self::Zstd => "+zstd",
            Self::None | Self::Unsupported(_) => "",
        }
    }
}

/// Reads through whatever compression the data has.
pub(crate) fn decompressed<'a>(mut reader: impl Read + 'a) -> io::Result<Box<dyn Read + 'a>> {
    let mut first = Vec::new();
    (&mut reader).take(6).read_to_end(&mut first)?;
    let compression = Compression::of(&first);
    let whole = BufReader::with_capacity(128 << 10, io::Cursor::new(first).chain(reader));
    Ok(match compression {
        Compression::None => Box::new(whole),
        Compression::Gzip => Box::new(MultiGzDecoder::new(whole)),
        Compression::Zstd => Box::new(zstd::stream::read::Decoder::with_buffer(whole)?),
        Compression::Unsupported(name) => {
            let reason =
                format!("it is compressed with {name}, which is not supported; use gzip or zstd");
            return Err(io::Error::new(io::ErrorKind::InvalidData, reason));
        }
    })
}

/// The directories of a stack of layers (given lowest first), topmost first, unpacked as far as needed.
pub(crate) fn unpacked(
    store: &Store,
    layers: &[Descriptor],
    diff_ids: &[String],
) -> Result<Vec<PathBuf>, Error> {
    if layers.len() != diff_ids.len() {
        return Err(Error::Malformed {
            what: "the image".to_owned(),
            reason: format!(
                "its manifest has {} layers, its config {}",
                layers.len(),
                diff_ids.len()
            ),
        });
    }
    let mut dirs: Vec<PathBuf> = Vec::new();
    for (layer, diff_id) in layers.iter().zip(diff_ids).rev() {
        let dir = unpacked_one(store, &layer.digest, diff_id)?;
        // overlayfs refuses a directory that it has already; the lower of the two adds nothing anyway.
        if !dirs.contains(&dir) {
            dirs.push(dir);
        }
    }
    if dirs.is_empty() {
        let dir = store.layers_dir().join(EMPTY);
        fs::create_dir_all(&dir).map_err(storing("an empty layer", &dir))?;
        dirs.push(dir);
    }
    Ok(dirs)
}

/// Where the unpacked layer is, or would be.
pub(crate) fn place_of(store: &Store, diff_id: &str) -> Result<PathBuf, Error> {
    let malformed = || Error::Malformed {
        what: format!("the diff id {diff_id:?}"),
        reason: "it is no SHA-256 digest".to_owned(),
    };
    let hex = digest::hex_of(diff_id).ok_or_else(malformed)?;
    Ok(store.layers_dir().join(hex))
}

/// The directory of one layer, unpacked if it is not yet. What a config says that its blob holds is believed of no blob:
/// who may push a config must not get at the files of a layer that they do not have.
pub(crate) fn unpacked_one(store: &Store, digest: &str, diff_id: &str) -> Result<PathBuf, Error> {
    let dir = place_of(store, diff_id)?;
    if dir.exists() && holds(store, digest, diff_id)? {
        return Ok(dir);
    }
    // Only now, so that a wake, whose layers are all there, never waits for a garbage collection.
    let _adding = store.adding()?;
    // One lock for each first hex digit: a bounded number of files, and most layers do not wait for each other.
    let stripe = diff_id.as_bytes()["sha256:".len()] as char;
    let _one_at_a_time = lock::exclusive(&store.locks_dir(), &format!("unpack-{stripe}"))?;
    if dir.exists() {
        if !holds(store, digest, diff_id)? {
            verify(store, digest, diff_id)?;
            Noted {
                path: store.diff_path(digest)?,
                diff_id: diff_id.to_owned(),
            }
            .write()?;
        }
        return Ok(dir);
    }
    let root = Root::new(store, diff_id, digest)?;
    let mut raw = Hashing::new(store.open_blob(digest)?);
    let filled = root.fill(&mut raw);
    // What stands behind the compressed stream belongs to the blob's digest too.
    io::copy(&mut raw, &mut io::sink()).map_err(root.read_error())?;
    // A blob that decayed on disk shows as this error, whatever the decoder made of it.
    let (_, found, _) = raw.finish();
    if found != digest && !filled.as_ref().is_err_and(is_ours) {
        return Err(corrupt(format!("the layer {digest}"), digest, found));
    }
    let unpacked = root.check(filled)?;
    // A rename may reach the disk before the files do, and after a power cut nobody would notice.
    store.sync()?;
    unpacked.place()?;
    blob::sync_dir_of(&dir)?;
    Ok(dir)
}

/// Whether it is known that the blob, unpacked, is the layer with this diff id.
fn holds(store: &Store, digest: &str, diff_id: &str) -> Result<bool, Error> {
    // Nothing is named by its own hash and unpacks to something else that is named by it.
    if digest == diff_id {
        return Ok(true);
    }
    // One that is torn or not there only costs another look.
    let noted = fs::read_to_string(store.diff_path(digest)?);
    Ok(noted.is_ok_and(|noted| noted == diff_id))
}

/// What a blob holds, to be remembered.
struct Noted {
    path: PathBuf,
    diff_id: String,
}

impl Noted {
    fn write(&self) -> Result<(), Error> {
        let written = fs::write(&self.path, &self.diff_id);
        written.map_err(storing("the diff id of a layer", &self.path))
    }
}

/// Reads a blob through, and checks that it holds the layer with this diff id.
fn verify(store: &Store, digest: &str, diff_id: &str) -> Result<(), Error> {
    let path = store.blob_path(digest)?;
    let unreadable = |reason: io::Error| Error::Layer {
        layer: digest.to_owned(),
        reason: reason.to_string(),
    };
    let mut raw = Hashing::new(store.open_blob(digest)?);
    let plain = decompressed(&mut raw).and_then(|plain| {
        let mut plain = Hashing::new(plain);
        io::copy(&mut plain, &mut io::sink())?;
        Ok(plain.finish().1)
    });
    // What stands behind the compressed stream belongs to the blob's digest too.
    io::copy(&mut raw, &mut io::sink()).map_err(io_error("read", &path))?;
    let found = raw.finish().1;
    if found != digest {
        return Err(corrupt(format!("the layer {digest}"), digest, found));
    }
    let plain = plain.map_err(unreadable)?;
    if plain != diff_id {
        let what = format!("the content of the layer {digest}");
        return Err(corrupt(what, diff_id, plain));
    }
    Ok(())
}

/// Makes a folder that holds what the blob `digest` would be unpacked to that layer's directory.
pub(crate) fn adopt(
    store: &Store,
    temp: TempDir,
    digest: &str,
    diff_id: &str,
) -> Result<(), Error> {
    let dir = place_of(store, diff_id)?;
    let noted = Noted {
        path: store.diff_path(digest)?,
        diff_id: diff_id.to_owned(),
    };
    if dir.exists() {
        return noted.write();
    }
    // A rename may reach the disk before the files do, and after a power cut nobody would notice.
    store.sync()?;
    Unpacked {
        temp,
        dir: dir.clone(),
        noted,
    }
    .place()?;
    blob::sync_dir_of(&dir)
}

/// Sets when a file was last changed, no link followed.
pub(crate) fn set_time(path: &Path, seconds: i64, nanoseconds: u32) -> io::Result<()> {
    let time = Timespec {
        tv_sec: seconds,
        tv_nsec: nanoseconds.into(),
    };
    let times = Timestamps {
        last_access: time,
        last_modification: time,
    };
    rustix::fs::utimensat(rustix::fs::CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW)?;
    Ok(())
}

/// Whether writing failed, so that the layer itself is not to blame.
fn is_ours(error: &UnpackError) -> bool {
    match error {
        UnpackError::Write { .. } => true,
        UnpackError::Refused(_) | UnpackError::Read(_) => false,
    }
}

/// A directory in which a layer is being unpacked. Dropping it deletes it.
pub(crate) struct Root {
    temp: TempDir,
    dir: PathBuf,
    digest: String,
    diff_id: String,
    blob: PathBuf,
    noted: PathBuf,
}

/// A layer whose files are all there and are the right ones, but which has no name yet. Dropping it deletes it.
pub(crate) struct Unpacked {
    temp: TempDir,
    dir: PathBuf,
    noted: Noted,
}

impl Root {
    /// An empty one, for the layer with this diff id.
    pub(crate) fn new(store: &Store, diff_id: &str, digest: &str) -> Result<Self, Error> {
        let dir = place_of(store, diff_id)?;
        let temp_dir = store.temp_dir();
        let what = format!("the unpacked layer {digest}");
        let temp = tempfile::Builder::new()
            .prefix("layer-")
            .tempdir_in(&temp_dir);
        let temp = temp.map_err(storing(&what, &temp_dir.join("layer")))?;
        // The root of a layer is what a container sees as `/`, unless the layer itself says otherwise.
        let opened = fs::set_permissions(temp.path(), Permissions::from_mode(0o755));
        opened.map_err(storing(&what, temp.path()))?;
        Ok(Self {
            temp,
            dir,
            digest: digest.to_owned(),
            diff_id: diff_id.to_owned(),
            blob: store.blob_path(digest)?,
            noted: store.diff_path(digest)?,
        })
    }

    /// Unpacks the layer's blob and gives the digest of its content: decompresses and hashes here, and writes the
    /// files on another thread.
    pub(crate) fn fill(&self, raw: impl Read) -> Result<String, UnpackError> {
        let broken = |error: io::Error| match error.kind() {
            io::ErrorKind::InvalidData => UnpackError::Refused(error.to_string()),
            _ => UnpackError::Read(error),
        };
        let mut plain = Hashing::new(decompressed(raw).map_err(broken)?);
        thread::scope(|scope| {
            let (mut pieces, pipe) = pieces::pipe();
            let writing = scope.spawn(|| {
                unpack::unpack(
                    pipe,
                    self.temp.path(),
                    Whiteouts::Overlay,
                    &Limits::default(),
                )
            });
            let read = loop {
                let mut piece = Vec::with_capacity(PIECE_BYTES);
                match (&mut plain)
                    .take(PIECE_BYTES as u64)
                    .read_to_end(&mut piece)
                {
                    Ok(0) => break Ok(()),
                    // Whoever writes has given up, and says why.
                    Ok(_) if !pieces.send(piece) => break Ok(()),
                    Ok(_) => {}
                    Err(error) => break Err(error),
                }
            };
            match &read {
                Ok(()) => pieces.end(),
                Err(_) => drop(pieces),
            }
            let written = writing.join().unwrap_or_else(|_| {
                let broke = "unpacking broke off; please report this";
                Err(UnpackError::Read(io::Error::other(broke)))
            });
            // An error of the archive's may stand before the point at which it cannot be read.
            match (written, read) {
                (Ok(()), Ok(())) => Ok(plain.finish().1),
                (Err(UnpackError::Read(_)) | Ok(()), Err(error)) => Err(unpack::read_error(error)),
                (Err(error), _) => Err(error),
            }
        })
    }

    /// What is wrong with the content, if anything is.
    pub(crate) fn check(self, filled: Result<String, UnpackError>) -> Result<Unpacked, Error> {
        let what = format!("the unpacked layer {}", self.digest);
        match filled {
            Err(UnpackError::Write { path, source }) if is_full(&source) => {
                Err(storing(&what, &self.temp.path().join(path))(source))
            }
            Err(UnpackError::Write { path, source }) => Err(Error::Io {
                action: "unpack",
                path,
                source,
            }),
            Err(UnpackError::Refused(reason)) => Err(Error::Layer {
                layer: self.digest,
                reason,
            }),
            Err(UnpackError::Read(error)) => Err(self.read_error()(error)),
            Ok(plain) if plain != self.diff_id => Err(corrupt(
                format!("the content of the layer {}", self.digest),
                &self.diff_id,
                plain,
            )),
            Ok(_) => Ok(Unpacked {
                temp: self.temp,
                dir: self.dir,
                noted: Noted {
                    path: self.noted,
                    diff_id: self.diff_id,
                },
            }),
        }
    }

    fn read_error(&self) -> impl FnOnce(io::Error) -> Error {
        io_error("read", &self.blob)
    }
}

impl Unpacked {
    /// Gives it its name, after `Store::sync`. Where somebody else was faster, theirs is the same.
    pub(crate) fn place(self) -> Result<(), Error> {
        self.noted.write()?;
        match fs::rename(self.temp.path(), &self.dir) {
            // It has moved: nothing is left for the guard to delete.
            Ok(()) => drop(self.temp.keep()),
            Err(_) if self.dir.is_dir() => {}
            Err(error) => return Err(storing("an unpacked layer", &self.dir)(error)),
        }
        Ok(())
    }
}

fn corrupt(what: String, expected: &str, found: String) -> Error {
    Error::Corrupt {
        what,
        expected: expected.to_owned(),
        found,
    }
}
