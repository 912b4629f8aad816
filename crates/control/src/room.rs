//! Whether the disk has room for what must be written before a replica may be ended or put to sleep: a table of the gateway that
//! does not name it any more. It is asked before anything is begun that would wait for that.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use crate::api::types::Problem;
use crate::plane::Plane;

/// So much there has to be, in bytes: a table of hundreds of services, and what the store adds.
const NEEDED_BYTES: usize = 256 << 10;

/// Finds out by writing: free space and quotas are told differently by each file system.
///
/// # Errors
/// The disk is full. What else is the matter with it is for those to tell who use what they write.
pub(crate) async fn check(plane: &Plane) -> Result<(), Problem> {
    let dir = plane.config.data_dir.clone();
    let tried = tokio::task::spawn_blocking(move || attempt(&dir.join("tmp"))).await;
    match tried {
        Ok(Err(error)) if is_full(&error) => {
            let dir = plane.config.data_dir.display();
            Err(Problem::full_disk(format!(
                "the disk that holds {dir} is full"
            )))
        }
        Ok(_) | Err(_) => Ok(()),
    }
}

fn attempt(dir: &Path) -> io::Result<()> {
    fs::create_dir_all(dir)?;
    let path: PathBuf = dir.join("room");
    let written = File::create(&path).and_then(|mut file| file.write_all(&vec![0; NEEDED_BYTES]));
    let _ = fs::remove_file(&path); // another one may have removed it already
    written
}

/// Whether a disk, or what somebody may have of it, is full.
pub(crate) fn is_full(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded
    )
}
