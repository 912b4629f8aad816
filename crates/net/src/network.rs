//! The network of one node.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use rtnetlink::Handle;

use crate::bridges::Bridges;
use crate::claims::{Claims, Remembered, file};
use crate::dns::{Directory, Dns, NameServers, Own};
use crate::doors::Doors;
use crate::error::{Collect, Error, whole};
use crate::fence::{Datagrams, Fence, Gaps};
use crate::link::{self, LOOPBACK};
use crate::names::{Names, check_app, check_id, is_internal, mac};
use crate::plug::{Plug, plug};
use crate::subnet::{APP_PREFIX, Subnet};
use crate::survey::{alias, bridge_alias, survey, sweep};
use crate::watch::{Watch, watch};
use crate::{foreign, namespace, subnet};

/// Whether the machine forwards packets between its devices.
const IP_FORWARD: &str = "/proc/sys/net/ipv4/ip_forward";

/// For each app, or each set of networks of one (`shop`, `shop/back+front`, `shop/!back`), the names that those in it find, and
/// their addresses. Names are in lower case and without a last dot, such as `web` and `web.shop`.
pub type AppNames = BTreeMap<String, BTreeMap<String, Vec<Ipv4Addr>>>;
/// For each of these its names for hosts elsewhere, and the names of those. They are written as in [`AppNames`].
pub type AppAliases = BTreeMap<String, BTreeMap<String, String>>;

/// Where the network of a node is, and what it is called.
#[derive(Debug, Clone)]
pub struct NetworkConfig {
    /// The node's name on the machine: 1 to 9 of a-z and 0-9.
    pub node: String,
    /// The node's folder below the one that all nodes of the machine share (`/run/layby/<node>`). It must be
    /// empty again after a restart of the machine, as all below `/run` is.
    pub run_dir: PathBuf,
    /// The node's data directory: the range is remembered there, in `network.json`.
    pub data_dir: PathBuf,
    /// The port of the machine to which connections to virtual addresses are sent.
    pub virtual_port: u16,
}

/// The network of one node: its range, its bridges, its fence, its name server, and who is attached.
#[derive(Debug)]
pub struct Network {
    fence: Fence,
    run_dir: PathBuf,
    data_dir: PathBuf,
    handle: Handle,
    dns: Dns,
    bridges: Mutex<Bridges>,
    switch: Doors,
    /// Held by those who make or remove bridges, or change names or the fence.
    changing: Arc<tokio::sync::Mutex<Changing>>,
    _watch: Watch,
}

/// What is changed by one at a time.
#[derive(Debug)]
pub(crate) struct Changing {
    /// `None`: none were given yet.
    names: Option<Arc<AppNames>>,
    /// Their names for hosts elsewhere.
    aliases: Arc<AppAliases>,
    /// The apps that have names; before the first were given, those that have a bridge.
    named: BTreeSet<String>,
    /// Where datagrams may come to, from the next names on.
    datagrams: BTreeSet<Datagrams>,
    pub(crate) gaps: Gaps,
    /// The network was taken down.
    pub(crate) closed: bool,
}

/// A replica's place in the network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attachment {
    /// The file that its network namespace is bound to.
    pub netns: PathBuf,
    /// Its address, on `eth0` in there.
    pub address: Ipv4Addr,
    /// The bridge's address: its default route, its name server, and where it reaches the machine.
    pub gateway: Ipv4Addr,
}

impl Network {
    /// Makes the node's network, or finds it as it was left. What was left half made is removed. Names that were in
    /// force stay so until [`Network::set_names`] is called.
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

        // The lock is held until the range is in use. Waiting for it may take as long as another node's start.
        let shared = shared.to_owned();
        let claims = tokio::task::spawn_blocking(move || Claims::lock(&shared))
            .await
            .map_err(|error| Error::Thread(io::Error::other(error)))??;
        let mut remembered = Remembered::read(&memory);
        let found = survey(&handle, &names, &claims, &remembered).await?;
        let node = found.node;
        claims.claim(&names.node, node)?;
        let mut fence = Fence {
            names,
            node,
            virtual_port: config.virtual_port,
            dns_port: 0,
        };
        let (dns, gaps) = match begin(&mut fence, &handle, &memory, &mut remembered).await {
            Ok(begun) => begun,
            Err(error) => {
                // Where bridges stand, replicas live on what an earlier start has made.
                if found.bridges(&fence.names).next().is_none() {
                    take_back(&fence, &handle, claims).await;
                }
                return Err(error);
            }
        };
        drop(claims);

        let started = SystemTime::now().duration_since(UNIX_EPOCH);
        let begin = started.map_or(0, |since| since.subsec_nanos() ^ since.as_secs() as u32);
        let mut bridges = Bridges::new(node, begin);
        for bridge in sweep(&handle, &fence.names, &found, &netns).await {
            bridges.add(bridge.number, bridge.device, bridge.app, bridge.attached);
        }
        let changing = Changing {
            names: None,
            aliases: Arc::default(),
            named: bridges.apps().into_values().collect(),
            datagrams: gaps.datagrams.clone(),
            gaps,
            closed: false,
        };
        let changing = Arc::new(tokio::sync::Mutex::new(changing));
        let switch = Doors::connect().map_err(Error::Socket)?;
        let watch = watch(fence.clone(), Arc::downgrade(&changing), switch.port);
        let watch = watch.map_err(Error::Socket)?;
        Ok(Self {
            fence,
            run_dir: config.run_dir,
            data_dir: config.data_dir,
            handle,
            dns,
            bridges: Mutex::new(bridges),
            switch,
            changing,
            _watch: watch,
        })
    }

    /// Gives `id` a namespace and an address on the bridge of `app`, or of some of its networks (see [`AppNames`]; the `!` says that
    /// nothing outside of the node is reached from there); the same ones if it has them already, also after a restart. Without an app it reaches what is outside of the node, and nobody reaches it but the machine.
    ///
    /// # Errors
    /// See [`Error`]; nothing is left then.
    pub async fn attach(&self, id: &str, app: Option<&str>) -> Result<Attachment, Error> {
        check_id(id)?;
        app.map_or(Ok(()), check_app)?;
        if let Some((number, address)) = self.lock().find(id) {
            return Ok(self.attachment(id, number, address));
        }
        let (number, device, address) = self.place(id, app).await?;
        let attachment = self.attachment(id, number, address);
        let made = plug(Plug {
            netns: attachment.netns.clone(),
            veth: self.fence.names.veth(id),
            alias: alias(id, address),
            bridge: device,
            address,
            prefix: APP_PREFIX,
            gateway: attachment.gateway,
            reach: subnet::is_internal(number).then_some(self.fence.node),
        })
        .await;
        if let Err(error) = made {
            if let Err(left) = self.detach(id).await {
                tracing::warn!("after a failed attach of {id}: {}", whole(&left));
            }
            return Err(error);
        }
        Ok(attachment)
    }

    /// Takes the namespace and the address of `id` back; one that has none is fine. With the last of an app that has
    /// no names either, the app's bridge goes.
    ///
    /// # Errors
    /// [`Error`], with all that could not be removed. The address stays taken then.
    pub async fn detach(&self, id: &str) -> Result<(), Error> {
        check_id(id)?;
        let mut errors = Collect::default();
        errors.add(link::remove(&self.fence.names.veth(id)).await);
        errors.add(namespace::remove(&self.netns(id)));
        errors.finish()?;
        if let Some((_, address)) = self.lock().find(id) {
            self.dns.own.forget(address);
        }
        self.lock().free(id);
        self.remove_unused().await
    }

    /// Asks these for what `id`, which is attached, asks for and nobody here knows; until it is detached. Addresses of the node's
    /// own range are left out: the question would come back here.
    pub fn set_name_servers(&self, id: &str, servers: NameServers) {
        let found = self.lock().find(id);
        let Some((_, address)) = found.filter(|_| !servers.addresses.is_empty()) else {
            return;
        };
        let (mut servers, node) = (servers, self.fence.node);
        let is_own = |server: &IpAddr| matches!(server, IpAddr::V4(at) if node.contains(*at));
        servers.addresses.retain(|server| !is_own(server));
        let netns = self.netns(id);
        self.dns.own.set(address, Own { netns, servers });
    }

    /// Who is attached, and where.
    pub fn attached(&self) -> Vec<(String, Ipv4Addr)> {
        self.lock().attached()
    }

    /// The addresses that services can have: the first one, and the length of the prefix.
    pub fn virtual_range(&self) -> (Ipv4Addr, u8) {
        self.fence.node.virtual_range().parts()
    }

    /// Answers by these names from now on, and lets each app come to the addresses of its own. Bridges that nobody needs
    /// any more stay until [`Network::remove_unused`] is called.
    ///
    /// # Errors
    /// [`Error`]; it is to be tried again then.
    pub async fn set_names(&self, names: AppNames) -> Result<(), Error> {
        let mut changing = self.changing.lock().await;
        changing.named = names.keys().cloned().collect();
        changing.names = Some(Arc::new(names));
        self.follow_names(&mut changing).await
    }

    /// Knows these names for hosts elsewhere from the next [`Network::set_names`] on.
    pub async fn set_aliases(&self, aliases: AppAliases) {
        self.changing.lock().await.aliases = Arc::new(aliases);
    }

    /// Lets datagrams come to these UDP ports of virtual addresses, from the next [`Network::set_names`] on.
    pub async fn set_datagrams(&self, datagrams: BTreeSet<(Ipv4Addr, u16)>) {
        self.changing.lock().await.datagrams = datagrams;
    }

    /// Removes the bridges that nobody needs: those without replicas whose app has no names.
    ///
    /// # Errors
    /// [`Error`], with all that could not be removed; the next call tries again.
    pub async fn remove_unused(&self) -> Result<(), Error> {
        let mut errors = Collect::default();
        let leaving = {
            let mut changing = self.changing.lock().await;
            let leaving = self.lock().leave(&changing.named);
            if !leaving.is_empty() {
                errors.add(self.follow_names(&mut changing).await);
            }
            leaving
        };
        // Nobody waits for this who wants a bridge.
        for number in leaving {
            let removed = link::remove(&self.fence.names.bridge(number)).await;
            self.lock().left(number, removed.is_ok());
            errors.add(removed);
        }
        errors.finish()
    }

    /// Those of `ports` (TCP, of the machine) that a firewall drops for other machines, each with the chain that
    /// does. What cannot be told is left out.
    pub async fn dropped_ports(&self, ports: &[u16]) -> Vec<(u16, String)> {
        foreign::dropped(ports).await
    }

    /// Removes all of it: every namespace, the bridges, the fence, the claim on the range. The machine's
    /// `net.ipv4.ip_forward` stays on: what was started since (Docker, a VPN) may have found it on, and rely on it.
    ///
    /// # Errors
    /// [`Error`], with all that could not be removed; closing it again may help.
    pub async fn close(&self) -> Result<(), Error> {
        let mut errors = Collect::default();
        for (id, _) in self.attached() {
            errors.add(self.detach(&id).await);
        }
        {
            let mut changing = self.changing.lock().await;
            changing.names = Some(Arc::default());
            changing.named.clear();
            changing.closed = true;
        }
        // Also one that is leaving: the process may end before that is over.
        let bridges = self.lock().numbers();
        for number in bridges {
            let removed = link::remove(&self.fence.names.bridge(number)).await;
            self.lock().left(number, removed.is_ok());
            errors.add(removed);
        }
        errors.add(foreign::close(&self.fence).await);
        errors.add(self.fence.lower().await);
        let range = self.fence.node.virtual_range();
        errors.add(link::unmake_local(&self.handle, range).await);
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
        let node = self.fence.names.node.clone();
        let released = tokio::task::spawn_blocking(move || Claims::lock(&shared)?.give_up(&node));
        errors.add(
            released
                .await
                .unwrap_or_else(|error| Err(Error::Thread(io::Error::other(error)))),
        );
        errors.finish()
    }

    /// Finds an address for `id` on the app's bridge, which is made if it is not there: the bridge's number, the
    /// device's index, the address.
    async fn place(&self, id: &str, app: Option<&str>) -> Result<(u8, u32, Ipv4Addr), Error> {
        let mut changing = self.changing.lock().await;
        // Those without an app are strangers to each other, and have a bridge each.
        let known = app.and_then(|app| self.lock().of_app(app));
        let number = match known {
            Some(number) => number,
            None => self.make_bridge(&mut changing, app).await?,
        };
        let mut bridges = self.lock();
        let device = bridges.get(number).map_or(0, |bridge| bridge.device);
        let address = bridges.take(number, id).ok_or_else(|| Error::NoAddress {
            subnet: self.subnet(number).to_string(),
        })?;
        Ok((number, device, address))
    }

    async fn make_bridge(&self, changing: &mut Changing, app: Option<&str>) -> Result<u8, Error> {
        let internal = app.is_some_and(is_internal);
        let number = self.lock().free_number(internal);
        let number = number.ok_or(Error::NoBridge)?;
        let name = self.fence.names.bridge(number);
        let gateway = self.subnet(number).gateway();
        let made = async {
            let mac = mac(gateway);
            let device = link::make_bridge(&self.handle, &name, mac, gateway, APP_PREFIX).await?;
            no_ipv6(&name);
            // Last: a bridge without it is half made, and removed at the next start.
            link::set_alias(&self.handle, &name, &bridge_alias(app)).await?;
            Ok(device)
        };
        let device = match made.await {
            Ok(device) => device,
            Err(error) => {
                if let Err(left) = link::remove(&name).await {
                    tracing::warn!("after a bridge could not be made: {}", whole(&left));
                }
                return Err(error);
            }
        };
        let app = app.map(str::to_owned);
        self.lock().add(number, device, app, BTreeMap::new());
        self.follow_names(changing).await?;
        Ok(number)
    }

    /// Brings name server and fence up to date with names and bridges.
    async fn follow_names(&self, changing: &mut Changing) -> Result<(), Error> {
        let Some(names) = &changing.names else {
            return Ok(()); // what stands is better than nothing
        };
        if changing.closed {
            return Ok(()); // nothing is to come back
        }
        let apps = self.lock().apps();
        let range = self.fence.node.virtual_range();
        let mut doors = BTreeSet::new();
        for (number, app) in &apps {
            let addresses = names.get(app).into_iter().flatten();
            let addresses = addresses.flat_map(|(_, addresses)| addresses);
            let addresses = addresses.filter(|address| range.contains(**address));
            doors.extend(addresses.map(|address| (*number, *address)));
        }
        let names = Arc::clone(names);
        let known = changing.datagrams.iter();
        let known = known.filter(|(address, _)| range.contains(*address));
        let gaps = Gaps {
            doors,
            datagrams: known.copied().collect(),
        };
        // The door is open before the name leads to it.
        if gaps != changing.gaps {
            let names = &self.fence.names;
            let changed = self.switch.change(names, &changing.gaps, &gaps).await;
            if let Err(error) = changed {
                // Somebody flushed the machine's rules, ours too.
                tracing::warn!("the fence is put up anew: {error}");
                self.fence.raise(&gaps).await?;
                foreign::open(&self.fence).await?;
            }
            changing.gaps = gaps;
        }
        self.dns.set(Directory {
            node: self.fence.node,
            apps,
            names,
            aliases: Arc::clone(&changing.aliases),
        });
        Ok(())
    }

    fn subnet(&self, number: u8) -> Subnet {
        self.fence.node.app(number)
    }

    fn netns(&self, id: &str) -> PathBuf {
        self.run_dir.join("netns").join(id)
    }

    fn attachment(&self, id: &str, number: u8, address: Ipv4Addr) -> Attachment {
        Attachment {
            netns: self.netns(id),
            address,
            gateway: self.subnet(number).gateway(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Bridges> {
        // Nothing panics while it is held.
        self.bridges.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Opens the name server, makes the range local, and puts the fence up.
async fn begin(
    fence: &mut Fence,
    handle: &Handle,
    memory: &Path,
    remembered: &mut Remembered,
) -> Result<(Dns, Gaps), Error> {
    let dns = Dns::open(remembered.dns_port).map_err(Error::Dns)?;
    fence.dns_port = dns.port;
    remembered.subnet = fence.node.to_string();
    remembered.dns_port = dns.port;
    remembered.write(memory)?;
    switch_ip_forward_on()?;
    link::set_up(handle, LOOPBACK).await?;
    link::make_local(handle, fence.node.virtual_range()).await?;
    let gaps = fence.standing().await;
    fence.raise(&gaps).await?;
    for chain in foreign::open(fence).await? {
        tracing::warn!(
            "a firewall drops what it does not know (its {chain}): opened it for the bridges {}",
            fence.names.bridges
        );
    }
    Ok((dns, gaps))
}

/// Takes back what a start has made that came to nothing.
async fn take_back(fence: &Fence, handle: &Handle, claims: Claims) {
    let mut errors = Collect::default();
    errors.add(foreign::close(fence).await);
    errors.add(fence.lower().await);
    errors.add(link::unmake_local(handle, fence.node.virtual_range()).await);
    errors.add(claims.give_up(&fence.names.node));
    if let Err(left) = errors.finish() {
        tracing::warn!("after the network could not be opened: {}", whole(&left));
    }
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

/// The machine has no IPv6 address on a bridge: the fence is one of IPv4, and containers would reach past it whatever
/// the machine offers over IPv6.
fn no_ipv6(bridge: &str) {
    let path = format!("/proc/sys/net/ipv6/conf/{bridge}/disable_ipv6");
    match fs::write(&path, "1") {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            tracing::warn!("cannot write {path}: {error}");
        }
        _ => {} // or the machine has no IPv6 at all
    }
}
