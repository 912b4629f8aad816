//! The network of one node.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use rtnetlink::Handle;
use sha2::{Digest, Sha256};

use crate::address::Addresses;
use crate::claims::{Claims, Remembered, file};
use crate::error::{Collect, Error, whole};
use crate::link::{self, Device};
use crate::names::{Names, check_id};
use crate::plug::{Plug, plug};
use crate::subnet::{self, PREFIX, Subnet};
use crate::{firewall, namespace};

/// Whether the machine forwards packets between its devices.
const IP_FORWARD: &str = "/proc/sys/net/ipv4/ip_forward";

/// Where the network of a node is, and what it is called.
#[derive(Debug, Clone)]
pub struct NetworkConfig {
    /// The node's name on the machine: 1 to 11 of a-z and 0-9.
    pub node: String,
    /// The node's folder below the one that all nodes of the machine share (`/run/layby/<node>`). It must be
    /// empty again after a restart of the machine, as all below `/run` is.
    pub run_dir: PathBuf,
    /// The node's data directory: the subnet is remembered there, in `network.json`.
    pub data_dir: PathBuf,
}

/// The network of one node: its bridge, its subnet, its fence, and who is attached.
#[derive(Debug)]
pub struct Network {
    names: Names,
    run_dir: PathBuf,
    data_dir: PathBuf,
    subnet: Subnet,
    bridge: u32,
    handle: Handle,
    addresses: Mutex<Addresses>,
}

/// A replica's place in the network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attachment {
    /// The file that its network namespace is bound to.
    pub netns: PathBuf,
    /// Its address, on `eth0` in there.
    pub address: Ipv4Addr,
    /// The bridge's address, its default route.
    pub gateway: Ipv4Addr,
}

/// What was found before anything is changed.
struct Survey {
    bridge: Option<Device>,
    ports: Vec<Device>,
    subnet: Subnet,
}

impl Network {
    /// Makes the node's network, or finds it as it was left. What was left half made is removed.
    ///
    /// # Errors
    /// See [`Error`]; opening it again may help and harms nothing.
    pub async fn open(config: NetworkConfig) -> Result<Self, Error> {
        let names = Names::new(&config.node)?;
        let netns = config.run_dir.join("netns");
        fs::create_dir_all(&netns).map_err(file("make the folder", &netns))?;
        let shared = config.run_dir.parent().unwrap_or(Path::new("/"));
        let memory = config.data_dir.join("network.json");
        let handle = link::connect()?;

        // The lock is held until the bridge is up. Waiting for it may take as long as another node's start.
        let shared = shared.to_owned();
        let claims = tokio::task::spawn_blocking(move || Claims::lock(&shared))
            .await
            .map_err(|error| Error::Thread(io::Error::other(error)))??;
        let survey = survey(&handle, &names, &claims, &memory).await?;

        let subnet = survey.subnet;
        claims.claim(&names.node, subnet)?;
        let remembered = Remembered {
            subnet: subnet.to_string(),
        };
        remembered.write(&memory)?;
        switch_ip_forward_on()?;
        let bridge = match survey.bridge {
            Some(bridge) => {
                link::add_address(&handle, bridge.index, subnet.gateway(), PREFIX).await?;
                link::set_up(&handle, bridge.index).await?;
                bridge.index
            }
            None => {
                let mac = names.bridge_mac();
                link::make_bridge(&handle, &names.bridge, mac, subnet.gateway(), PREFIX).await?
            }
        };
        if firewall::raise(&names, subnet).await? {
            tracing::warn!(
                "the machine's chain FORWARD drops by default (Docker does that): opened it for the bridge {}",
                names.bridge
            );
        }
        drop(claims);

        let attached = sweep(&handle, &names, subnet, &survey.ports, &netns).await;
        let started = SystemTime::now().duration_since(UNIX_EPOCH);
        let begin = started.map_or(0, |since| since.subsec_nanos() ^ since.as_secs() as u32);
        Ok(Self {
            names,
            run_dir: config.run_dir,
            data_dir: config.data_dir,
            subnet,
            bridge,
            handle,
            addresses: Mutex::new(Addresses::new(subnet, attached, begin)),
        })
    }

    /// Gives `id` a namespace and an address; the same ones if it has them already, also after a restart.
    ///
    /// # Errors
    /// See [`Error`]; nothing is left then.
    pub async fn attach(&self, id: &str) -> Result<Attachment, Error> {
        check_id(id)?;
        let netns = self.netns(id);
        if let Some(address) = self.lock().get(id) {
            return Ok(self.attachment(netns, address));
        }
        let taken = self.lock().take(id);
        let address = taken.ok_or_else(|| Error::NoAddress {
            subnet: self.subnet.to_string(),
        })?;
        let made = plug(Plug {
            netns: netns.clone(),
            veth: self.names.veth(id),
            alias: alias(id, address),
            bridge: self.bridge,
            address,
            prefix: PREFIX,
            gateway: self.subnet.gateway(),
        })
        .await;
        if let Err(error) = made {
            if let Err(left) = self.detach(id).await {
                tracing::warn!("after a failed attach of {id}: {}", whole(&left));
            }
            return Err(error);
        }
        Ok(self.attachment(netns, address))
    }

    /// Takes the namespace and the address of `id` back; one that has none is fine.
    ///
    /// # Errors
    /// [`Error`], with all that could not be removed. The address stays taken then.
    pub async fn detach(&self, id: &str) -> Result<(), Error> {
        check_id(id)?;
        let mut errors = Collect::default();
        errors.add(link::remove(&self.handle, &self.names.veth(id)).await);
        errors.add(namespace::remove(&self.netns(id)));
        errors.finish()?;
        self.lock().free(id);
        Ok(())
    }

    /// Who is attached, and where.
    ///
    /// # Errors
    /// None yet; a later network may have to ask.
    pub fn attached(&self) -> Result<Vec<(String, Ipv4Addr)>, Error> {
        Ok(self.lock().all())
    }

    /// The address under which the replicas reach the machine.
    pub fn gateway(&self) -> Ipv4Addr {
        self.subnet.gateway()
    }

    /// Removes all of it: every namespace, the bridge, the fence, the claim on the subnet. The machine's
    /// `net.ipv4.ip_forward` stays on: what was started since (Docker, a VPN) may have found it on, and rely on it.
    ///
    /// # Errors
    /// [`Error`], with all that could not be removed; closing it again may help.
    pub async fn close(&self) -> Result<(), Error> {
        let mut errors = Collect::default();
        let attached = self.lock().all();
        for (id, _) in attached {
            errors.add(self.detach(&id).await);
        }
        errors.add(link::remove(&self.handle, &self.names.bridge).await);
        errors.add(firewall::lower(&self.names).await);
        let netns = self.run_dir.join("netns");
        match fs::remove_dir(&netns) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                errors.add(Err(file("remove", &netns)(error)));
            }
            _ => {}
        }
        let memory = self.data_dir.join("network.json");
        match fs::remove_file(&memory) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                errors.add(Err(file("remove", &memory)(error)));
            }
            _ => {}
        }
        let shared = self.run_dir.parent().unwrap_or(Path::new("/")).to_owned();
        let node = self.names.node.clone();
        let released = tokio::task::spawn_blocking(move || Claims::lock(&shared)?.give_up(&node));
        errors.add(
            released
                .await
                .unwrap_or_else(|error| Err(Error::Thread(io::Error::other(error)))),
        );
        errors.finish()
    }

    fn netns(&self, id: &str) -> PathBuf {
        self.run_dir.join("netns").join(id)
    }

    fn attachment(&self, netns: PathBuf, address: Ipv4Addr) -> Attachment {
        Attachment {
            netns,
            address,
            gateway: self.subnet.gateway(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Addresses> {
        // Nothing panics while it is held.
        self.addresses
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

/// Looks at the machine and decides on the subnet; changes nothing.
async fn survey(
    handle: &Handle,
    names: &Names,
    claims: &Claims,
    memory: &Path,
) -> Result<Survey, Error> {
    let devices = link::devices(handle).await?;
    let bridge = devices.iter().find(|device| device.name == names.bridge);
    let index = bridge.map_or(0, |bridge| bridge.index);
    let ports = devices
        .iter()
        .filter(|device| index != 0 && device.bridge == index);
    let remembered = Remembered::read(memory);

    // A bridge that is up has the last word: replicas live on it.
    let on_bridge = if index == 0 {
        None
    } else {
        let addresses = link::addresses(handle, index).await?.into_iter();
        addresses
            .map(|(address, prefix)| Subnet::of(address, prefix))
            .find(|subnet| subnet.is_candidate())
    };
    let subnet = match on_bridge {
        Some(subnet) => subnet,
        None => {
            let mut taken = link::ranges_in_use(handle, index).await?;
            taken.extend(claims.of_others(&names.node)?);
            let known = remembered.subnet.parse().ok();
            let known = known.filter(|subnet: &Subnet| {
                subnet.is_candidate() && !taken.iter().any(|other| other.overlaps(*subnet))
            });
            let hash = Sha256::digest(&names.node);
            let hash = u32::from_be_bytes([hash[0], hash[1], hash[2], hash[3]]);
            known
                .or_else(|| subnet::choose(hash, &taken))
                .ok_or(Error::NoSubnet)?
        }
    };
    Ok(Survey {
        bridge: bridge.cloned(),
        ports: ports.cloned().collect(),
        subnet,
    })
}

/// Removes what is half made, and returns what is whole: a port with its alias, and its namespace.
async fn sweep(
    handle: &Handle,
    names: &Names,
    subnet: Subnet,
    ports: &[Device],
    netns: &Path,
) -> BTreeMap<String, Ipv4Addr> {
    let mut errors = Collect::default();
    let mut whole_ones = BTreeMap::new();
    for port in ports {
        match parse_alias(&port.alias) {
            Some((id, address))
                if names.veth(&id) == port.name
                    && subnet.contains(address)
                    && namespace::is_bound(&netns.join(&id)) =>
            {
                whole_ones.insert(id, address);
            }
            _ => errors.add(link::remove(handle, &port.name).await),
        }
    }
    let files = fs::read_dir(netns).into_iter().flatten().flatten();
    for entry in files {
        let known = entry.file_name().to_str().map(str::to_owned);
        if !known.is_some_and(|id| whole_ones.contains_key(&id)) {
            errors.add(namespace::remove(&entry.path()));
        }
    }
    if let Err(error) = errors.finish() {
        tracing::warn!("while tidying the network: {}", whole(&error));
    }
    whole_ones
}

/// What is noted on the host's end of a replica's veth pair: the truth about who has which address.
fn alias(id: &str, address: Ipv4Addr) -> String {
    format!("layby {id} {address}")
}

fn parse_alias(text: &str) -> Option<(String, Ipv4Addr)> {
    let (id, address) = text.strip_prefix("layby ")?.split_once(' ')?;
    check_id(id).ok()?;
    Some((id.to_owned(), address.parse().ok()?))
}

/// Lets the machine forward packets, if it does not yet.
fn switch_ip_forward_on() -> Result<(), Error> {
    let path = Path::new(IP_FORWARD);
    let now = fs::read_to_string(path).map_err(file("read", path))?;
    if now.trim() != "0" {
        return Ok(());
    }
    fs::write(path, "1").map_err(file("write", path))?;
    tracing::info!("switched net.ipv4.ip_forward on, so that containers reach other machines");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_alias_says_who_has_which_address() {
        let address = Ipv4Addr::new(10, 0, 0, 2);
        let text = alias("00000300001f", address);
        assert_eq!(
            parse_alias(&text),
            Some(("00000300001f".to_owned(), address))
        );
        for bad in ["", "layby x", "layby ../x 10.0.0.2", "other x 10.0.0.2"] {
            assert_eq!(parse_alias(bad), None, "{bad:?}");
        }
    }
}
