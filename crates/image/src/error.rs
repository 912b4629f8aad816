//! What can go wrong with images, each said in one sentence.

use std::io;
use std::path::{Path, PathBuf};

/// An error of the image store, of a build or of an archive.
///
/// Display never repeats the source; print the chain to see it.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No image goes by that name or digest.
    #[error("there is no image {reference} here{}", did_you_mean(.similar))]
    NotFound {
        /// What was asked for, shown short.
        reference: String,
        /// Up to three names that are like it.
        similar: Vec<String>,
    },
    /// A name that cannot be an image reference.
    #[error("{reference:?} is not an image reference: {reason}")]
    BadReference {
        /// The text as given.
        reference: String,
        /// Which rule it breaks.
        reason: &'static str,
    },
    /// The file system of the store is full (ENOSPC or EDQUOT). What was stored before is intact.
    #[error("the disk is full: {what} cannot be stored in {}", place.display())]
    DiskFull {
        /// The directory that was written to.
        place: PathBuf,
        /// What was being written.
        what: String,
    },
    /// The store has as many names as it may have.
    #[error(
        "the image store has as many names as its index.json may hold ({} MiB): remove some first",
        crate::layout::MAX_STORE_INDEX_BYTES >> 20
    )]
    IndexFull,
    /// The operating system refused something.
    #[error("cannot {action} {}", path.display())]
    Io {
        /// What was tried, as a verb.
        action: &'static str,
        /// On which file.
        path: PathBuf,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
    /// Content does not have the digest that it is known by.
    #[error(
        "{what} is corrupt: it should have the digest {expected}, but has {found}; load or build the image again"
    )]
    Corrupt {
        /// The blob, layer or archive member.
        what: String,
        /// The digest that it should have.
        expected: String,
        /// The digest that it has.
        found: String,
    },
    /// A manifest, config or index that does not say what it must.
    #[error("{what} cannot be understood: {reason}")]
    Malformed {
        /// The document.
        what: String,
        /// What is wrong with it.
        reason: String,
    },
    /// An archive that holds no image that can be loaded.
    #[error("the archive cannot be loaded: {0}")]
    Archive(String),
    /// The archive could not be read to its end.
    #[error("the archive cannot be read to its end")]
    ArchiveRead(#[source] io::Error),
    /// The archive could not be written out.
    #[error("the archive cannot be written")]
    ArchiveWrite(#[source] io::Error),
    /// A layer that is not unpacked since something in it is hostile or broken.
    #[error("layer {layer} cannot be unpacked: {reason}")]
    Layer {
        /// The layer's diff id.
        layer: String,
        /// The entry and what is wrong with it.
        reason: String,
    },
    /// Something in a Dockerfile, or in carrying it out.
    #[error("{file}:{line}: {message}")]
    Dockerfile {
        /// The file as shown to the user.
        file: String,
        /// The line of the instruction, from 1.
        line: u32,
        /// The instruction and what is wrong.
        message: String,
    },
    /// A registry could not give or take an image.
    #[error("{0}{advice}", advice = advised(.0))]
    Registry(crate::client::RegistryError),
    /// The garbage collection did not get its turn; nothing was removed.
    #[error("images are being built, pulled or loaded; try again when that is done")]
    Busy,
    /// A build context that is not as it should be, or was not sent as it should.
    #[error("the build context cannot be taken: {0}")]
    Context(String),
    /// A file of a build that is not what it was when it was looked at first.
    #[error("{} changed while it was being copied; build again", path.display())]
    Changed {
        /// Where it lies.
        path: PathBuf,
    },
    /// A build that cannot begin.
    #[error("cannot build: {0}")]
    Build(String),
}

fn did_you_mean(similar: &[String]) -> String {
    if similar.is_empty() {
        String::new()
    } else {
        format!("; did you mean {}?", similar.join(" or "))
    }
}

fn advised(error: &crate::client::RegistryError) -> String {
    match error.advice() {
        Some(advice) => format!("; {advice}"),
        None => String::new(),
    }
}

/// Whether the error means that the disk (or the quota) is full.
pub(crate) fn is_full(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded
    )
}

/// For `map_err`: an [`Error::Io`] that says what was done to which file.
pub(crate) fn io_error(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Error {
    let path = path.to_owned();
    move |source| Error::Io {
        action,
        path,
        source,
    }
}

/// For `map_err` on writes into the store: a full disk is an error of its own.
pub(crate) fn storing(what: &str, path: &Path) -> impl FnOnce(io::Error) -> Error {
    let (what, path) = (what.to_owned(), path.to_owned());
    move |source| {
        if is_full(&source) {
            let place = path.parent().unwrap_or(&path).to_owned();
            Error::DiskFull { place, what }
        } else {
            Error::Io {
                action: "write",
                path,
                source,
            }
        }
    }
}
