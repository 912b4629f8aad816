//! Archives that ADD unpacks.

use std::fs::{File, Permissions};
use std::io::{self, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use tar::Header;
use tempfile::TempDir;

use crate::layer::{Compression, decompressed};
use crate::unpack::{self, Limits, Whiteouts};

/// Whether a file is a tar, perhaps compressed. A compressed file of anything else is copied as it is.
pub(super) fn is_tar(path: &Path) -> io::Result<bool> {
    let mut first = Vec::new();
    File::open(path)?.take(6).read_to_end(&mut first)?;
    if let Compression::Unsupported(name) = Compression::of(&first) {
        let text = format!(
            "it is compressed with {name}, which is not supported: use gzip or zstd, or COPY it"
        );
        return Err(io::Error::new(io::ErrorKind::InvalidData, text));
    }
    let mut block = Header::new_old();
    let read = decompressed(File::open(path)?)
        .and_then(|mut plain| plain.read_exact(block.as_mut_bytes()));
    match read {
        Ok(()) => {}
        // Too short, or broken: no archive. What cannot be read at all shows when it is copied.
        Err(_) => return Ok(false),
    }
    let bytes = block.as_bytes();
    // The checksum field itself counts as spaces (POSIX, ustar).
    let sum: u32 = bytes.iter().map(|byte| u32::from(*byte)).sum();
    let field: u32 = bytes[148..156].iter().map(|byte| u32::from(*byte)).sum();
    Ok(bytes.iter().any(|byte| *byte != 0) && block.cksum().ok() == Some(sum - field + 8 * 32))
}

/// Unpacks a tar into a folder of its own. The error is text for the user.
pub(super) fn unpack(path: &Path, temp_dir: &Path) -> Result<TempDir, String> {
    let text = |error: io::Error| error.to_string();
    let made = tempfile::Builder::new()
        .prefix("archive-")
        .tempdir_in(temp_dir)
        .map_err(text)?;
    std::fs::set_permissions(made.path(), Permissions::from_mode(0o755)).map_err(text)?;
    let plain = File::open(path).and_then(decompressed).map_err(text)?;
    let unpacked = unpack::unpack(plain, made.path(), Whiteouts::Ordinary, &Limits::default());
    unpacked.map_err(|error| error.to_string())?;
    Ok(made)
}
