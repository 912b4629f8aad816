//! Container output: JSON lines in bounded files, written by the shim, read by anyone.
//!
//! A log is two files: `<container>.log`, and `<container>.log.1` with what was there before it last grew
//! to [`MAX_FILE_BYTES`]. Each line is one [`LogLine`].

use std::fs::{self, File};
use std::io::{ErrorKind, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::error::{Result, Trying};
use crate::spec::Bundle;

/// How long a file may grow before the next one begins.
pub const MAX_FILE_BYTES: u64 = 8 * 1024 * 1024;

/// The longest text of a line; a longer one is cut and goes on as the next line.
pub const MAX_LINE_BYTES: usize = 16 * 1024;

/// How much a [`Follow`] reads at once.
const FOLLOW_BYTES: u64 = 1024 * 1024;

/// One line of a container's output.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogLine {
    /// When the shim read it, in milliseconds since 1970-01-01T00:00:00Z.
    pub at_ms: u64,
    /// `stdout` or `stderr`.
    pub stream: String,
    /// The text without its line end; bytes that are no UTF-8 are replaced.
    pub text: String,
}

/// The last `tail` lines of a container's log (`None`: all there are), the oldest first. No log yet: none.
///
/// # Errors
/// When a file is there but cannot be read.
pub fn read(bundle: &Path, container: &str, tail: Option<usize>) -> Result<Vec<LogLine>> {
    Ok(Follow::after(bundle, container, tail)?.0)
}

/// Reads a log as it grows, over its rotations. Never waits.
#[derive(Debug)]
pub struct Follow {
    path: PathBuf,
    file: Option<File>,
    /// The beginning of a line whose end is not written yet.
    partial: Vec<u8>,
}

impl Follow {
    /// The last `tail` lines there are, and a reader that goes on exactly behind them.
    ///
    /// # Errors
    /// When a file is there but cannot be read.
    pub fn after(
        bundle: &Path,
        container: &str,
        tail: Option<usize>,
    ) -> Result<(Vec<LogLine>, Self)> {
        let path = Bundle::new(bundle).log(container);
        let mut follow = Self {
            file: open(&path)?,
            path,
            partial: Vec::new(),
        };
        let mut lines = Vec::new();
        loop {
            let more = follow.poll()?;
            if more.is_empty() {
                break;
            }
            lines.extend(more);
        }
        let wanted = tail.unwrap_or(usize::MAX);
        if lines.len() < wanted
            && let Some(file) = open(&older(&follow.path))?
        {
            let mut bytes = Vec::new();
            file.take(2 * MAX_FILE_BYTES)
                .read_to_end(&mut bytes)
                .trying(|| format!("read {}", older(&follow.path).display()))?;
            let mut all = parse(&bytes);
            all.append(&mut lines);
            lines = all;
        }
        lines.drain(..lines.len().saturating_sub(wanted));
        Ok((lines, follow))
    }

    /// The lines that came since the last call; none if there are none now. Reads about 1 MiB at most: call
    /// again until it returns none.
    ///
    /// # Errors
    /// When the file is there but cannot be read.
    pub fn poll(&mut self) -> Result<Vec<LogLine>> {
        let what = |path: &Path| format!("read {}", path.display());
        if self.file.is_none() {
            self.file = open(&self.path)?;
        }
        let Some(file) = &mut self.file else {
            return Ok(Vec::new());
        };
        let read = file
            .take(FOLLOW_BYTES)
            .read_to_end(&mut self.partial)
            .trying(|| what(&self.path))?;
        if read == 0 && is_replaced(file, &self.path) {
            // The writer has gone on to a new file; the old one is read to its end.
            self.partial.clear();
            self.file = open(&self.path)?;
            let Some(file) = &mut self.file else {
                return Ok(Vec::new());
            };
            file.take(FOLLOW_BYTES)
                .read_to_end(&mut self.partial)
                .trying(|| what(&self.path))?;
        }
        let end = self
            .partial
            .iter()
            .rposition(|b| *b == b'\n')
            .map_or(0, |at| at + 1);
        let lines = parse(&self.partial[..end]);
        self.partial.drain(..end);
        Ok(lines)
    }
}

fn is_replaced(file: &File, path: &Path) -> bool {
    let (Ok(ours), Ok(there)) = (file.metadata(), fs::metadata(path)) else {
        return false;
    };
    (ours.dev(), ours.ino()) != (there.dev(), there.ino())
}

fn open(path: &Path) -> Result<Option<File>> {
    match File::open(path) {
        Ok(file) => Ok(Some(file)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).trying(|| format!("open {}", path.display())),
    }
}

/// A line that a full disk cut off is no JSON, and skipped.
fn parse(bytes: &[u8]) -> Vec<LogLine> {
    bytes
        .split(|b| *b == b'\n')
        .filter_map(|line| serde_json::from_slice(line).ok())
        .collect()
}

pub(crate) fn older(path: &Path) -> PathBuf {
    path.with_extension("log.1")
}
