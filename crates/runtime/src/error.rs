//! What can go wrong here, each with what was tried and where.

use std::io;

/// Why something of the runtime failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A call to the kernel failed.
    #[error("cannot {what}")]
    Io {
        /// What was tried, with its path: "mount the overlay on /x".
        what: String,
        /// The kernel's answer.
        #[source]
        source: io::Error,
    },
    /// Something that can be said in one sentence; trying again may help.
    #[error("{0}")]
    Failed(String),
    /// Something that no later try can mend: the command or the user does not exist.
    #[error("{0}")]
    Fatal(String),
    /// A shim could not get ready; the sentence is its own.
    #[error("{0}")]
    Shim(String),
}

/// Shorthand of this crate.
pub(crate) type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// Whether no later try can succeed.
    pub fn fatal(&self) -> bool {
        matches!(self, Self::Fatal(_))
    }

    /// The whole sentence, sources included, for a protocol that carries only text.
    pub fn sentence(&self) -> String {
        whole(self)
    }
}

/// An error with its causes in one line; a cause that its effect names already stands once.
pub(crate) fn whole(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(source) = next {
        let more = source.to_string();
        if !text.ends_with(&more) {
            text.push_str(": ");
            text.push_str(&more);
        }
        next = source.source();
    }
    text
}

/// Says what was tried when a call to the kernel fails.
pub(crate) trait Trying<T> {
    /// `what` reads as "cannot {what}".
    fn trying(self, what: impl FnOnce() -> String) -> Result<T>;
}

impl<T, E: Into<io::Error>> Trying<T> for std::result::Result<T, E> {
    fn trying(self, what: impl FnOnce() -> String) -> Result<T> {
        self.map_err(|source| Error::Io {
            what: what(),
            source: source.into(),
        })
    }
}
