//! All that a node is to be, as one encrypted file: from a machine that may be lost, to one that is empty.
//!
//! Taking it out disturbs no node. It is put back where no node runs ([`import`]), or into one that runs and has no apps
//! ([`live`]). In the file are the store as it was at one moment, its secrets encrypted with a key of their own, that key, the logins at
//! other registries, and, where that is asked for, the images. What is in volumes is not.

mod apart;
mod file;
pub(crate) mod live;
mod lock;

use std::io;
use std::path::PathBuf;

pub(crate) use apart::sweep;
pub use apart::{check, check_empty, export, import, look};
use layby_image::Store as Images;

use crate::api::types::{ImportedView, StateImage, StateView};
use crate::secrets::KeyError;
use crate::store::{Content, Need, StoreError};
use lock::MIN_PASSPHRASE;

/// Why the state could not be taken out or put back.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// The passphrase is too short.
    #[error("the passphrase is too short: take {MIN_PASSPHRASE} bytes or more")]
    Short,
    /// There is something already.
    #[error(
        "{path} is not empty: it has services, jobs, secrets or tokens (nothing was changed); name an empty data directory with --data"
    )]
    NotEmpty {
        /// The store that is there.
        path: PathBuf,
    },
    /// The file is not right.
    #[error("the file of the state is not right: {0} (nothing was changed)")]
    Wrong(String),
    /// An image that is needed is not whole, or the images of the file are not.
    #[error("the images of the state could not be read or written ({})", changed(.0))]
    Images(#[from] layby_image::Error),
    /// A file could not be read or written.
    #[error("{what}")]
    Io {
        /// What was tried.
        what: String,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
    /// The store said no.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The key of the secrets cannot be used.
    #[error(transparent)]
    Key(#[from] KeyError),
}

/// What was changed when images were not taken in: an archive is read to its end before the first of them is.
pub(crate) fn changed(error: &layby_image::Error) -> &'static str {
    use layby_image::Error;
    match matches!(error, Error::Archive(_) | Error::ArchiveRead(_)) {
        true => "nothing was changed",
        false => "no service was changed, though images may have come in",
    }
}

/// What is told where the logins of a state could not be added to the node's.
fn no_logins(why: &str) -> String {
    format!(
        "the logins at other registries were not put in ({why}): say them again with `layby login`"
    )
}

/// What is shown of a store's content beside these images.
pub(crate) fn view(content: Content, images: &Images) -> StateView {
    StateView {
        services: content.services,
        jobs: content.jobs,
        secrets: content.secrets,
        images: image_views(content.images, images),
    }
}

/// What is told of a state that was put in: its `content`, how many images came `loaded` with it, and what became of those that
/// it `needs`.
fn imported(
    content: Content,
    loaded: usize,
    needs: Vec<StateImage>,
    kept_tokens: Vec<String>,
    warnings: Vec<String>,
) -> ImportedView {
    let mut missing = needs;
    missing.retain(|image| image.size_bytes.is_none());
    ImportedView {
        services: content.services,
        jobs: content.jobs,
        loaded: u32::try_from(loaded).unwrap_or(u32::MAX),
        missing,
        kept_tokens,
        warnings,
    }
}

fn image_views(needs: Vec<Need>, images: &Images) -> Vec<StateImage> {
    let mut views = unseen(needs);
    for view in &mut views {
        view.size_bytes = images.get(&view.digest).ok().map(|image| image.size_bytes);
        view.origin = images.origin(&view.digest);
    }
    views
}

/// The same where there is no image at all.
fn unseen(needs: Vec<Need>) -> Vec<StateImage> {
    let view = |need: Need| StateImage {
        name: need.name,
        digest: need.digest,
        used_by: need.used_by,
        current: need.is_current,
        size_bytes: None,
        origin: None,
    };
    needs.into_iter().map(view).collect()
}
