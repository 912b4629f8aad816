//! Layer blobs: recognising their compression, unpacking them once, checking both of their digests.

use std::fs::{self, File, Permissions};
use std::io::{self, BufReader, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use flate2::bufread::MultiGzDecoder;

use crate::blob;
use crate::digest::{self, Hashing};
use crate::error::{io_error, is_full, storing};
use crate::layout::Descriptor;
use crate::unpack::{self, Limits, UnpackError, Whiteouts};
use crate::{Error, Store, lock};

/// The directory that stands for the layers of an image without any. Never collected.
pub(crate) const EMPTY: &str = "empty";

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

fn unpacked_one(store: &Store, digest: &str, diff_id: &str) -> Result<PathBuf, Error> {
    let malformed = |reason: &str| Error::Malformed {
        what: format!("the diff id {diff_id:?}"),
        reason: reason.to_owned(),
    };
    let hex = digest::hex_of(diff_id).ok_or_else(|| malformed("it is no SHA-256 digest"))?;
    let dir = store.layers_dir().join(hex);
    if dir.exists() {
        return Ok(dir);
    }
    // Only now, so that a wake, whose layers are all there, never waits for a garbage collection.
    let _adding = store.adding()?;
    // One lock for each first hex digit: a bounded number of files, and most layers do not wait for each other.
    let _one_at_a_time = lock::exclusive(&store.locks_dir(), &format!("unpack-{}", &hex[..1]))?;
    if dir.exists() {
        return Ok(dir);
    }
    let temp_dir = store.temp_dir();
    let what = format!("the unpacked layer {digest}");
    let temp = tempfile::Builder::new()
        .prefix("layer-")
        .tempdir_in(&temp_dir);
    let temp = temp.map_err(storing(&what, &temp_dir.join("layer")))?;
    // The root of a layer is what a container sees as `/`, unless the layer itself says otherwise.
    let opened = fs::set_permissions(temp.path(), Permissions::from_mode(0o755));
    opened.map_err(storing(&what, temp.path()))?;
    unpack_checked(store, digest, diff_id, temp.path(), &what)?;
    // A rename may reach the disk before the files do, and after a power cut nobody would notice.
    let root = File::open(temp.path()).map_err(io_error("open", temp.path()))?;
    rustix::fs::syncfs(&root).map_err(|error| storing(&what, temp.path())(error.into()))?;
    fs::rename(temp.path(), &dir).map_err(storing(&what, &dir))?;
    // It has moved: nothing is left for the guard to delete.
    let _ = temp.keep();
    blob::sync_dir_of(&dir)?;
    Ok(dir)
}

fn unpack_checked(
    store: &Store,
    digest: &str,
    diff_id: &str,
    root: &Path,
    what: &str,
) -> Result<(), Error> {
    let mut raw = Hashing::new(store.open_blob(digest)?);
    let refused = |reason: String| Error::Layer {
        layer: digest.to_owned(),
        reason,
    };
    let read_error = |error: io::Error| Error::Io {
        action: "read",
        path: store.blobs_dir().join(digest.trim_start_matches("sha256:")),
        source: error,
    };
    let unpacked = match decompressed(&mut raw) {
        Ok(plain) => {
            let mut plain = Hashing::new(plain);
            let result = unpack::unpack(&mut plain, root, Whiteouts::Overlay, &Limits::default());
            result.map(|()| plain.finish().1)
        }
        Err(error) if error.kind() == io::ErrorKind::InvalidData => {
            Err(UnpackError::Refused(error.to_string()))
        }
        Err(error) => Err(UnpackError::Read(error)),
    };
    // What stands behind the compressed stream belongs to the blob's digest too.
    io::copy(&mut raw, &mut io::sink()).map_err(read_error)?;
    // A blob that decayed on disk shows as this error, whatever the decoder made of it, unless it is our disk's.
    let (_, found, _) = raw.finish();
    match unpacked {
        Err(UnpackError::Write { path, source }) if is_full(&source) => {
            Err(storing(what, &root.join(path))(source))
        }
        Err(UnpackError::Write { path, source }) => Err(Error::Io {
            action: "unpack",
            path,
            source,
        }),
        _ if found != digest => Err(corrupt(format!("the layer {digest}"), digest, found)),
        Err(UnpackError::Refused(reason)) => Err(refused(reason)),
        Err(UnpackError::Read(error)) => Err(read_error(error)),
        Ok(plain) if plain != diff_id => Err(corrupt(
            format!("the content of the layer {digest}"),
            diff_id,
            plain,
        )),
        Ok(_) => Ok(()),
    }
}

fn corrupt(what: String, expected: &str, found: String) -> Error {
    Error::Corrupt {
        what,
        expected: expected.to_owned(),
        found,
    }
}
