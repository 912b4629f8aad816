//! Name servers that single containers have of their own (Compose's `dns`, Kubernetes' `dnsConfig`).

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};

/// So many are asked; glibc asks no more either (MAXNS).
const MOST: usize = 3;

/// Who is asked for a container, where the node itself does not know.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NameServers {
    /// In this order, at port 53, from where the container is: `127.0.0.1` is its own. Without any it is the machine's resolvers.
    pub addresses: Vec<IpAddr>,
    /// The machine's resolvers first.
    pub after_machines: bool,
}

/// What is known of one container.
#[derive(Debug)]
pub(crate) struct Own {
    /// The file that its network namespace is bound to: what it asks goes out there, and so only where it may go itself.
    pub(crate) netns: PathBuf,
    pub(crate) servers: NameServers,
}

/// All containers that have some, by their addresses.
#[derive(Debug, Default)]
pub(crate) struct OwnServers(Mutex<BTreeMap<Ipv4Addr, Arc<Own>>>);

impl OwnServers {
    /// Notes who is asked for the container with this address.
    pub(crate) fn set(&self, container: Ipv4Addr, own: Own) {
        let mut own = own;
        own.servers.addresses.truncate(MOST);
        self.all().insert(container, Arc::new(own));
    }

    /// Forgets a container.
    pub(crate) fn forget(&self, container: Ipv4Addr) {
        self.all().remove(&container);
    }

    /// Those of the container with this address; `None`: it has none of its own.
    pub(super) fn of(&self, container: Ipv4Addr) -> Option<Arc<Own>> {
        self.all().get(&container).cloned()
    }

    fn all(&self) -> MutexGuard<'_, BTreeMap<Ipv4Addr, Arc<Own>>> {
        // Nothing panics while it is held.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
