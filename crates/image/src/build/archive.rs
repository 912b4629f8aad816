//! Archives that ADD unpacks.

use std::fs::{File, Permissions};
use std::io::{self, BufReader, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use bzip2::bufread::MultiBzDecoder;
use lzma_rust2::XzReader;
use tar::Header;
use tempfile::TempDir;

use crate::layer::{Compression, decompressed};
use crate::unpack::{self, Limits, Whiteouts};

/// What reading xz may take, in KiB: the dictionary of `xz -9` is 64 MiB, and other files could ask for 4 GiB.
const XZ_MEMORY_KIB: u32 = 80 << 10;

/// Whether a file is a tar, perhaps compressed. A compressed file of anything else is copied as it is.
pub(super) fn is_tar(path: &Path) -> io::Result<bool> {
    let mut block = Header::new_old();
    let read = plain(path).and_then(|mut plain| plain.read_exact(block.as_mut_bytes()));
    match read {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::OutOfMemory => {
            let text = format!(
                "its xz dictionary needs more than {} MiB of memory: compress it with `xz -9` at most",
                XZ_MEMORY_KIB >> 10
            );
            return Err(io::Error::new(io::ErrorKind::InvalidData, text));
        }
        // Too short, or broken: no archive. What cannot be read at all shows when it is copied.
        Err(_) => return Ok(false),
    }
    let bytes = block.as_bytes();
    // The checksum field itself counts as spaces (POSIX, ustar).
    let sum: u32 = bytes.iter().map(|byte| u32::from(*byte)).sum();
    let field: u32 = bytes[148..156].iter().map(|byte| u32::from(*byte)).sum();
    Ok(bytes.iter().any(|byte| *byte != 0) && block.cksum().ok() == Some(sum - field + 8 * 32))
}

/// Reads through the file's compression: also those that ADD knows (Dockerfile reference, ADD) and layers do not have.
fn plain(path: &Path) -> io::Result<Box<dyn Read>> {
    let mut first = Vec::new();
    File::open(path)?.take(6).read_to_end(&mut first)?;
    let file = File::open(path)?;
    Ok(match Compression::of(&first) {
        Compression::Unsupported("xz") => {
            let file = BufReader::new(file);
            Box::new(XzReader::new_mem_limit(file, true, XZ_MEMORY_KIB))
        }
        Compression::Unsupported("bzip2") => Box::new(MultiBzDecoder::new(BufReader::new(file))),
        Compression::None | Compression::Gzip | Compression::Zstd | Compression::Unsupported(_) => {
            decompressed(file)?
        }
    })
}

/// Unpacks a tar into a folder of its own. The error is text for the user.
pub(super) fn unpack(path: &Path, temp_dir: &Path) -> Result<TempDir, String> {
    let text = |error: io::Error| error.to_string();
    let made = tempfile::Builder::new()
        .prefix("archive-")
        .tempdir_in(temp_dir)
        .map_err(text)?;
    std::fs::set_permissions(made.path(), Permissions::from_mode(0o755)).map_err(text)?;
    let plain = plain(path).map_err(text)?;
    let unpacked = unpack::unpack(plain, made.path(), Whiteouts::Ordinary, &Limits::default());
    unpacked.map_err(|error| error.to_string())?;
    Ok(made)
}
