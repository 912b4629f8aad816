//! The options of `layby serve` as the settings of the node's parts.

use std::net::SocketAddr;
use std::path::PathBuf;

use anyhow::{Result, bail};
use layby_control::{MasterKey, PrunePolicy, RegistrySettings};
use layby_model::names::is_dns_label;

use crate::cli::{Serve, USUAL_HTTP};
use crate::paths::Paths;

/// Where the gateway is asked to listen; `None`: nothing is said, or the usual.
pub(crate) fn asked_http(options: &Serve) -> Option<SocketAddr> {
    (options.http != USUAL_HTTP).then_some(options.http)
}

/// Everything that is wrong with the options, before any port opens.
///
/// # Errors
/// All of it.
pub(crate) fn check(options: &Serve) -> Result<()> {
    let mut wrong = Vec::new();
    if !options.domain.split('.').all(is_dns_label) {
        wrong.push(format!(
            "--domain {:?} is not a domain name in lower case",
            options.domain
        ));
    }
    if options.publish_on.is_multicast() {
        wrong.push(format!(
            "--publish-on {} is no address that one can listen on",
            options.publish_on
        ));
    }
    if let (Some(low), Some(high)) = (options.image_low, options.image_budget)
        && low > high
    {
        wrong.push(format!(
            "--image-low ({low} bytes) is above --image-budget ({high} bytes)"
        ));
    }
    if wrong.is_empty() {
        Ok(())
    } else {
        bail!(wrong.join("; "))
    }
}

/// What is pruned on a timer.
pub(crate) fn prune(options: &Serve) -> PrunePolicy {
    let budget = options.image_budget.map(|high_bytes| layby_image::Budget {
        high_bytes,
        low_bytes: options.image_low.unwrap_or(high_bytes / 10 * 8),
    });
    PrunePolicy {
        budget,
        keep_revisions: options.keep_revisions,
        keep_days: options.image_keep_days,
        ..PrunePolicy::default()
    }
}

/// Where the key of the secrets is: where the operator says, else a credential of systemd's, else with the data.
pub(crate) fn master_key(options: &Serve, paths: &Paths) -> MasterKey {
    let credentials = std::env::var_os("CREDENTIALS_DIRECTORY").map(PathBuf::from);
    let has_key = |dir: &PathBuf| dir.join(MasterKey::CREDENTIAL).exists();
    match (&options.master_key, credentials.filter(has_key)) {
        (Some(file), _) => MasterKey::File(file.clone()),
        (None, Some(dir)) => MasterKey::Credential(dir),
        (None, None) => MasterKey::File(paths.data_dir.join("master.key")),
    }
}

/// The registry, which listens on `addr`.
pub(crate) fn registry(options: &Serve, addr: SocketAddr) -> RegistrySettings {
    RegistrySettings {
        listen: Some(addr),
        anonymous_pull: options.registry_anonymous_pull,
        unpack: true,
    }
}

/// How many threads the gateway has.
pub(crate) fn workers(options: &Serve) -> usize {
    match options.workers {
        0 => std::thread::available_parallelism().map_or(1, usize::from),
        n => n,
    }
}
