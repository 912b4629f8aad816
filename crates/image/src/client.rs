//! Getting images from other registries and bringing images there (OCI Distribution 1.1, Docker's schema 2).
//!
//! Everything blocks. [`pull`] fetches several layers at once and unpacks each while it comes; [`push`] sends what
//! the other side does not have. Time, chance and credentials come from the caller, in [`Options`].

mod auth;
mod backoff;
mod challenge;
mod credentials;
mod download;
mod error;
mod host;
mod http;
mod manifest;
mod platform;
mod progress;
mod pull;
mod push;
mod upload;

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

pub use self::backoff::Retry;
pub use self::credentials::{Credentials, Keyring, adopt, log_in, log_out};
pub use self::error::{Fault, RegistryError};
pub use self::platform::Platform;
pub use self::progress::{Progress, Step, Tell};
pub use self::pull::pull;
pub use self::push::push;

use self::http::Session;
use crate::{Error, Image, Reach, Reference};

/// How registries are spoken to.
#[derive(Debug, Clone)]
pub struct Options {
    /// The platform of the image to pull; `None`: this machine's.
    pub platform: Option<Platform>,
    /// Who asks; `None`: nobody in particular.
    pub credentials: Option<Credentials>,
    /// Plain HTTP, or a certificate that nobody signed, will do. On this machine itself HTTP is always spoken.
    pub insecure: bool,
    /// Further certificate authorities (PEM), beside the system's.
    pub ca_files: Vec<PathBuf>,
    /// What a registry may lead to that is not on this machine itself.
    pub reach: Reach,
    /// How many layers are under way at once; at least 1.
    pub parallel: usize,
    /// How often and after which pauses something is tried again.
    pub retry: Retry,
    /// How long a registry may neither send nor take anything, in milliseconds.
    pub stall_ms: u64,
    /// The largest part of an upload, in bytes; larger blobs go in several requests. 0: each in one.
    pub chunk_bytes: u64,
    /// Set by the caller to break off.
    pub cancel: Arc<AtomicBool>,
    /// A name that somebody gave here to an image of his stays with that: what is pulled has its digest then, and no name.
    pub spares_names: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            platform: None,
            credentials: None,
            insecure: false,
            ca_files: Vec::new(),
            reach: Reach::default(),
            parallel: 4,
            retry: Retry::default(),
            stall_ms: 60_000,
            chunk_bytes: 0,
            cancel: Arc::default(),
            spares_names: false,
        }
    }
}

/// Checks that a registry lets these credentials in (`GET /v2/`), before they are kept.
///
/// # Errors
/// [`Fault::Unauthorized`] when it does not.
pub fn check_login(registry: &str, options: &Options) -> Result<(), Error> {
    let registry = host::canonical(registry);
    let session = Session::new(&registry, options)
        .map_err(|failure| failure.into_error("log in to", registry.clone(), &registry))?;
    session
        .ping()
        .map_err(|failure| failure.into_error("log in to", registry.clone(), &registry))
}

/// A registry's name as references have it: without a scheme and path, `docker.io` for all of Docker's own.
pub fn registry_name(text: &str) -> String {
    host::canonical(text)
}

type PullOne = dyn Fn(&Reference) -> Result<Image, Error> + Send + Sync;

/// Brings images that the store does not have; what a build asks for its `FROM`.
#[derive(Clone)]
pub struct Puller(Arc<PullOne>);

impl Puller {
    /// By this function, which blocks until the image is in the store.
    pub fn new(pull: impl Fn(&Reference) -> Result<Image, Error> + Send + Sync + 'static) -> Self {
        Self(Arc::new(pull))
    }

    /// Brings the image.
    ///
    /// # Errors
    /// What the registry said.
    pub fn pull(&self, reference: &Reference) -> Result<Image, Error> {
        (self.0)(reference)
    }
}

impl fmt::Debug for Puller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Puller")
    }
}
