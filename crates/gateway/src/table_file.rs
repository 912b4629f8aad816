//! The newest table on disk, so that a gateway that starts anew holds requests instead of refusing them.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;

use layby_model::route::RouteTable;

/// The table that the last run left; `None`: there is none, or it cannot be read (which is said).
pub(crate) fn read(path: &Path) -> Option<RouteTable> {
    let bytes = match fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return None,
        Err(error) => {
            let path = path.display();
            tracing::warn!("cannot read the last routing table {path}: {error}; starting without");
            return None;
        }
    };
    match serde_json::from_slice(&bytes) {
        Ok(table) => Some(table),
        Err(error) => {
            let path = path.display();
            tracing::warn!("the last routing table {path} is damaged: {error}; starting without");
            None
        }
    }
}

/// Puts `table` in the place of the one before: whole, or not at all.
pub(crate) fn write(path: &Path, table: &RouteTable) -> io::Result<()> {
    let bytes = serde_json::to_vec(table)?;
    let temporary = path.with_extension("new");
    let mut file = File::create(&temporary)?;
    file.write_all(&bytes)?;
    file.sync_data()?;
    fs::rename(&temporary, path)
}
