//! What goes wrong with a registry: which one, what it said, and what to do.

use std::fmt;
use std::time::Duration;

use crate::Error;

/// What kind of trouble a registry gave.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Nobody answered, or the connection broke and went on breaking.
    Unreachable,
    /// It wants to know who asks, and does not know these credentials.
    Unauthorized,
    /// It knows who asks, and does not allow it.
    Denied,
    /// It has no such image (or does not say so to everybody).
    NotFound,
    /// It asks to come back later.
    Busy,
    /// The image is not there for the wanted platform.
    Platform,
    /// What it sent is not what it must be: a wrong digest, a wrong size, no such document.
    Broken,
    /// It refused for another reason.
    Refused,
    /// The caller broke it off.
    Cancelled,
}

/// A registry could not give or take an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RegistryError {
    /// What was being done, as a verb: `pull`, `push`, `log in to`.
    pub action: &'static str,
    /// The image, shown short, or the registry.
    pub what: String,
    /// The registry's name, as in references.
    pub registry: String,
    /// What kind of trouble.
    pub fault: Fault,
    /// What happened, beginning with a verb: `answered 403 Forbidden: ...`.
    pub reason: String,
}

impl RegistryError {
    /// What to do next, where that is known.
    pub fn advice(&self) -> Option<String> {
        let registry = &self.registry;
        match self.fault {
            Fault::Unauthorized => Some(format!("log in with `layby login {registry}`")),
            Fault::Denied => Some(format!(
                "log in as somebody who may, with `layby login {registry}`"
            )),
            Fault::Busy => Some("try again later".to_owned()),
            Fault::Unreachable => Some("check its name and the network".to_owned()),
            Fault::NotFound
            | Fault::Platform
            | Fault::Broken
            | Fault::Refused
            | Fault::Cancelled => None,
        }
    }
}

impl fmt::Display for RegistryError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cannot {} {}: ", self.action, self.what)?;
        match self.fault {
            Fault::Cancelled => f.write_str(&self.reason),
            Fault::Unreachable
            | Fault::Unauthorized
            | Fault::Denied
            | Fault::NotFound
            | Fault::Busy
            | Fault::Platform
            | Fault::Broken
            | Fault::Refused => write!(f, "{} {}", self.registry, self.reason),
        }
    }
}

impl std::error::Error for RegistryError {}

/// One failed attempt.
#[derive(Debug)]
pub(super) enum Failure {
    /// The registry's side.
    Registry {
        fault: Fault,
        reason: String,
        /// Whether another attempt may help, and the pause that it asked for.
        again: Again,
    },
    /// Our side: the disk, a broken config.
    Local(Error),
}

/// Whether to try again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Again {
    /// It would end the same.
    No,
    /// After the usual pause.
    Yes,
    /// Not before this (Retry-After).
    After(Duration),
}

impl Failure {
    /// One that another attempt would not change.
    pub(super) fn final_(fault: Fault, reason: impl Into<String>) -> Self {
        let (reason, again) = (reason.into(), Again::No);
        Self::Registry {
            fault,
            reason,
            again,
        }
    }

    /// One that may pass.
    pub(super) fn passing(fault: Fault, reason: impl Into<String>) -> Self {
        let (reason, again) = (reason.into(), Again::Yes);
        Self::Registry {
            fault,
            reason,
            again,
        }
    }

    /// The caller asked to stop.
    pub(super) fn cancelled() -> Self {
        Self::final_(Fault::Cancelled, "it was broken off")
    }

    /// The error for the user.
    pub(super) fn into_error(self, action: &'static str, what: String, registry: &str) -> Error {
        match self {
            Self::Local(error) => error,
            Self::Registry { fault, reason, .. } => Error::Registry(RegistryError {
                action,
                what,
                registry: registry.to_owned(),
                fault,
                reason,
            }),
        }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Local(error)
    }
}
