//! What the control plane is started with: its settings, and its wires to the gateway and the network.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use layby_image::{Budget, Reach};
use layby_model::ServiceId;
use layby_model::capacity::Machine;
use layby_model::engine::BoxFuture;
use layby_model::route::{Confirmed, Demand, NameTable, RouteTable, Traffic};
use layby_model::secret::SecretWire;
use tokio::sync::watch;

/// The settings of a node that the control plane needs.
#[derive(Debug, Clone)]
pub struct ControlConfig {
    /// The node's data directory; the store is `layby.db` in it.
    pub data_dir: PathBuf,
    /// The domain below which every service has its host names.
    pub domain: String,
    /// Where the gateway answers HTTP (for the addresses that are shown).
    pub http: SocketAddr,
    /// The address that published ports listen on unless the manifest names one.
    pub publish_on: IpAddr,
    /// Services may ask for what makes them as good as root on the machine (`layby serve --allow-privileged`).
    pub allow_privileged: bool,
    /// Root in a container is nobody on the machine: it has user namespaces.
    pub shifts_ids: bool,
    /// What is pruned on a timer.
    pub prune: PrunePolicy,
    /// The embedded registry.
    pub registry: RegistrySettings,
    /// How other registries are reached.
    pub registries: OtherRegistries,
    /// Where the API is on HTTPS; `None`: it is on the socket alone.
    pub api: Option<ApiAddress>,
    /// Where the key of the secrets is.
    pub master_key: MasterKey,
    /// All secrets are to be forgotten first: their key is lost.
    pub forget_secrets: bool,
    /// The version of Layby (for `/v1/version`).
    pub version: String,
    /// The addresses that services can have: the first one, and the length of the prefix.
    pub virtual_range: (Ipv4Addr, u8),
    /// What there is for the services.
    pub machine: Machine,
    /// From one look at what awake services use to the next.
    pub sample_every: Duration,
}

impl ControlConfig {
    /// What a Dockerfile or another registry may lead the node to. Its containers and the addresses of its services share
    /// one network of this size.
    pub(crate) fn reach(&self) -> Reach {
        Reach {
            node: self.allow_privileged,
            networks: vec![(self.virtual_range.0, 16)],
        }
    }

    /// The virtual address with the number that the store keeps.
    pub(crate) fn virtual_address(&self, number: Option<u32>) -> Option<Ipv4Addr> {
        let (first, prefix) = self.virtual_range;
        let number = number.filter(|number| u64::from(*number) < 1 << (32 - prefix.min(32)))?;
        u32::from(first).checked_add(number).map(Ipv4Addr::from)
    }
}

/// What is let go of on a timer. The default lets go of nothing but what nobody names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PrunePolicy {
    /// From one round to the next.
    pub every: Duration,
    /// With more content than this, images that no revision names and build caches go, least recently used first.
    pub budget: Option<Budget>,
    /// So many earlier revisions of each service are kept; `None`: as many as the store keeps anyway.
    pub keep_revisions: Option<u32>,
    /// What was used in the last so many days is kept in any case; `None`: nothing for that reason.
    pub keep_days: Option<u32>,
}

impl Default for PrunePolicy {
    fn default() -> Self {
        Self {
            every: Duration::from_secs(3600),
            budget: None,
            keep_revisions: None,
            keep_days: None,
        }
    }
}

/// The settings of the embedded registry.
#[derive(Debug, Clone, Copy, Default)]
pub struct RegistrySettings {
    /// Where it listens; `None`: it does not (images are still known by its name).
    pub listen: Option<SocketAddr>,
    /// Who says nothing may read.
    pub anonymous_pull: bool,
    /// Unpack what is pushed in the background (as root).
    pub unpack: bool,
}

/// Where the API is on HTTPS, for those who ask (`/v1/version`).
#[derive(Debug, Clone)]
pub struct ApiAddress {
    /// The listener's address.
    pub addr: SocketAddr,
    /// The SHA-256 of the certificate that it shows now, in hexadecimal digits.
    pub fingerprint: watch::Receiver<String>,
}

/// Says of TCP ports of the machine which a firewall drops for other machines, each with the chain that does.
pub type DroppedPorts =
    Arc<dyn Fn(Vec<u16>) -> BoxFuture<'static, Vec<(u16, String)>> + Send + Sync>;

/// How other registries are reached.
#[derive(Debug, Clone, Default)]
pub struct OtherRegistries {
    /// Those that are spoken to by plain HTTP, or with a certificate that nobody signed, if need be.
    pub insecure: Vec<String>,
    /// Further certificate authorities (PEM files).
    pub ca_files: Vec<PathBuf>,
}

/// The wires to the gateway and the network: all that the control plane and they say to each other.
pub struct Wires {
    /// The routing table, out.
    pub tables: watch::Sender<Arc<RouteTable>>,
    /// The names of the services, out: the first at once, then with every change.
    pub names: watch::Sender<Arc<NameTable>>,
    /// What the gateway says of it, in.
    pub confirmed: watch::Receiver<Confirmed>,
    /// How many requests wait, in.
    pub demand: watch::Receiver<Demand>,
    /// Reads what went through the gateway to one service; called often, so it must not block.
    pub traffic: Arc<dyn Fn(&ServiceId) -> Traffic + Send + Sync>,
    /// Where the engine asks for the values of secrets.
    pub secrets: SecretWire,
    /// Asked when somebody looks at a service.
    pub dropped_ports: DroppedPorts,
}

/// Where the key is that secrets are encrypted with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MasterKey {
    /// A file that only root can read; made when it is first needed.
    File(PathBuf),
    /// A credential that systemd hands to the node, in this folder ([`MasterKey::CREDENTIAL`]; see systemd.exec(5)).
    Credential(PathBuf),
}

impl MasterKey {
    /// The credential's name; the key to come, while keys are changed, is `layby-master-key-next`.
    pub const CREDENTIAL: &str = "layby-master-key";
}

/// Somebody asked over the API that the node ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StopRequest {
    /// The replicas are to end too.
    pub all: bool,
}
