//! The node as a client of other registries: who it is there, and how they are reached.

use std::path::PathBuf;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use layby_image::client::{self, Keyring, Options, Progress, Puller, Retry};
use layby_image::registry::Hosts;
use layby_image::{Error, Image, Reach, Reference};

use crate::config::{ControlConfig, OtherRegistries};
use crate::reach::Reach as Asker;

/// Where `layby login` keeps what it is told, below the data directory: for root alone.
pub(crate) const LOGINS: &str = "registries.json";

/// What is needed to speak to other registries.
#[derive(Debug, Clone)]
pub(crate) struct Registries {
    logins: PathBuf,
    /// Held from the reading of the logins to the writing.
    turn: Arc<Mutex<()>>,
    others: OtherRegistries,
    reach: Reach,
    /// The names of the node's own registry.
    own: Hosts,
}

impl Registries {
    pub(crate) fn new(config: &ControlConfig) -> Self {
        Self {
            logins: config.data_dir.join(LOGINS),
            turn: Arc::default(),
            others: config.registries.clone(),
            reach: config.reach(),
            own: Hosts::new(&config.domain, config.registry.listen),
        }
    }

    /// The file of `layby login`.
    pub(crate) fn logins(&self) -> &PathBuf {
        &self.logins
    }

    /// Keeps a user and a password for a registry. Blocks.
    pub(crate) fn log_in(&self, registry: &str, user: &str, password: &str) -> Result<(), Error> {
        let _turn = self.turn();
        client::log_in(&self.logins, registry, user, password)
    }

    /// Forgets a registry's; `false`: there were none. Blocks.
    pub(crate) fn log_out(&self, registry: &str) -> Result<bool, Error> {
        let _turn = self.turn();
        client::log_out(&self.logins, registry)
    }

    /// Adds another node's logins; where both have one, the node's own stays. Blocks.
    pub(crate) fn adopt(&self, theirs: &[u8]) -> Result<(), Error> {
        let _turn = self.turn();
        client::adopt(&self.logins, theirs)
    }

    fn turn(&self) -> MutexGuard<'_, ()> {
        // It holds nothing that could be half done.
        self.turn.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether a reference means the node's own registry: what is there is in the store already.
    pub(crate) fn is_own(&self, reference: &Reference) -> bool {
        self.own.own(reference).is_some()
    }

    /// How to speak to the registry of a reference, as whom. Reads files, and may ask a credential helper.
    pub(crate) fn options(&self, registry: &str, repository: &str) -> Result<Options, Error> {
        let mut files = vec![self.logins.clone()];
        files.extend(Keyring::user_files());
        Ok(Options {
            credentials: Keyring::new(files).find(registry, repository)?,
            ..self.anonymous(registry)
        })
    }

    /// The same as nobody.
    pub(crate) fn anonymous(&self, registry: &str) -> Options {
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        Options {
            insecure: self.others.insecure.iter().any(|host| host == registry),
            ca_files: self.others.ca_files.clone(),
            reach: self.reach.clone(),
            retry: Retry {
                seed: now.map_or(0, |now| u64::from(now.subsec_nanos())),
                ..Retry::default()
            },
            ..Options::default()
        }
    }

    /// Pulls an image with the node's credentials, for somebody. Blocks.
    pub(crate) fn pull(
        &self,
        reach: &Asker,
        reference: &Reference,
        platform: Option<&str>,
        tell: &(dyn Fn(Progress) + Sync),
    ) -> Result<Image, Error> {
        let mut options = self.options(&reference.registry, &reference.repository)?;
        options.platform = platform.map(str::parse).transpose()?;
        pulled(reach, reference, options, tell)
    }

    /// What somebody's build pulls its base images by, until `stop` is set.
    pub(crate) fn puller(&self, reach: Arc<Asker>, stop: Arc<AtomicBool>) -> Puller {
        let registries = self.clone();
        Puller::new(move |reference| {
            // What was pushed to the node's own registry is in the store, and nowhere else.
            if let Some(own) = registries.own.own(reference) {
                return reach.find(&own.to_string());
            }
            let mut options = registries.options(&reference.registry, &reference.repository)?;
            options.cancel = Arc::clone(&stop);
            pulled(&reach, reference, options, &|_| {})
        })
    }
}

/// Pulls an image for somebody, who has it from then on.
fn pulled(
    reach: &Asker,
    reference: &Reference,
    mut options: Options,
    tell: &(dyn Fn(Progress) + Sync),
) -> Result<Image, Error> {
    options.spares_names = reach.is_limited();
    let image = client::pull(&reach.plane().images, reference, &options, tell)?;
    reach.note_pulled(&reference.to_string(), &image.digest);
    Ok(image)
}
