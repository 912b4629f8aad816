//! What a start finds: the node's bridges and who is on them. What is half made, or of an older layout, is removed.

use std::collections::BTreeMap;
use std::fs;
use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;

use rtnetlink::Handle;
use sha2::{Digest, Sha256};

use crate::claims::{Claims, Remembered};
use crate::dns::machines_resolvers;
use crate::error::{Collect, Error, whole};
use crate::link::{self, Device};
use crate::names::{Names, check_id, is_internal};
use crate::namespace;
use crate::subnet::{self, APP_PREFIX, NODE_PREFIX, Subnet};

/// What was found before anything is changed.
pub(crate) struct Survey {
    pub(crate) devices: Vec<Device>,
    pub(crate) node: Subnet,
}

impl Survey {
    /// The node's bridges, whole or not.
    pub(crate) fn bridges<'a>(&'a self, names: &'a Names) -> impl Iterator<Item = &'a Device> {
        let devices = self.devices.iter();
        devices.filter(|device| names.bridge_number(&device.name).is_some())
    }
}

/// A bridge that is whole.
pub(crate) struct Found {
    pub(crate) number: u8,
    pub(crate) device: u32,
    pub(crate) app: Option<String>,
    pub(crate) attached: BTreeMap<String, Ipv4Addr>,
}

/// Looks at the machine and decides on the node's range; changes nothing.
pub(crate) async fn survey(
    handle: &Handle,
    names: &Names,
    claims: &Claims,
    remembered: &Remembered,
) -> Result<Survey, Error> {
    let devices = link::devices(handle).await?;
    // Bridges that are up have the last word: replicas live on them.
    for device in &devices {
        let Some(number) = names.bridge_number(&device.name) else {
            continue;
        };
        for (address, prefix) in link::addresses(handle, device.index).await? {
            let node = Subnet::of(address, NODE_PREFIX);
            if prefix == APP_PREFIX
                && node.is_candidate()
                && node.app_of(address) == Some(number)
                && address == node.app(number).gateway()
            {
                return Ok(Survey { devices, node });
            }
        }
    }
    let known = remembered.subnet.parse().ok();
    let known = known.filter(|known: &Subnet| known.is_candidate());
    let own = known.map(Subnet::virtual_range);
    let mut taken = link::ranges_in_use(handle, own).await?;
    taken.extend(claims.of_others(&names.node)?);
    // The machine reaches its resolvers by its default route, which keeps no range from being chosen.
    let resolvers = machines_resolvers().into_iter();
    taken.extend(resolvers.filter_map(|resolver| match resolver.ip() {
        IpAddr::V4(address) => Some(Subnet::of(address, 32)),
        IpAddr::V6(_) => None,
    }));
    let known = known.filter(|known| !taken.iter().any(|other| other.overlaps(*known)));
    let hash = Sha256::digest(&names.node);
    let hash = u32::from_be_bytes([hash[0], hash[1], hash[2], hash[3]]);
    let node = known
        .or_else(|| subnet::choose(hash, &taken))
        .ok_or(Error::NoSubnet)?;
    Ok(Survey { devices, node })
}

/// Removes what is half made, and returns what is whole: bridges with their alias and address, and on them ports with
/// their alias and namespace.
pub(crate) async fn sweep(
    handle: &Handle,
    names: &Names,
    survey: &Survey,
    netns: &Path,
) -> Vec<Found> {
    let mut errors = Collect::default();
    let mut bridges = Vec::new();
    let mut whole_ones: Vec<String> = Vec::new();
    for device in &survey.devices {
        if device.name == names.old_bridge {
            tracing::warn!(
                "removing the bridge {} of an older Layby: the replicas on it are made anew on their apps' own bridges",
                device.name
            );
            errors.add(remove_with_ports(survey, device).await);
        }
        let Some(number) = names.bridge_number(&device.name) else {
            continue;
        };
        let app = bridge_app(&device.alias);
        let addressed = link::addresses(handle, device.index).await;
        let gateway = (survey.node.app(number).gateway(), APP_PREFIX);
        let (Some(app), true) = (app, addressed.is_ok_and(|all| all.contains(&gateway))) else {
            errors.add(remove_with_ports(survey, device).await);
            continue;
        };
        if subnet::is_internal(number) != app.as_deref().is_some_and(is_internal) {
            tracing::warn!(
                "removing the bridge {} of an older Layby, whose number is one of internal networks now: the replicas on it are made anew on another",
                device.name
            );
            errors.add(remove_with_ports(survey, device).await);
            continue;
        }
        let mut attached = BTreeMap::new();
        for port in ports(survey, device) {
            match parse_alias(&port.alias) {
                Some((id, address))
                    if names.veth(&id) == port.name
                        && survey.node.app_of(address) == Some(number)
                        && namespace::is_bound(&netns.join(&id)) =>
                {
                    whole_ones.push(id.clone());
                    attached.insert(id, address);
                }
                _ => errors.add(link::remove(&port.name).await),
            }
        }
        bridges.push(Found {
            number,
            device: device.index,
            app,
            attached,
        });
    }
    let files = fs::read_dir(netns).into_iter().flatten().flatten();
    for entry in files {
        let known = entry.file_name().to_str().map(str::to_owned);
        if !known.is_some_and(|id| whole_ones.contains(&id)) {
            errors.add(namespace::remove(&entry.path()));
        }
    }
    if let Err(error) = errors.finish() {
        tracing::warn!("while tidying the network: {}", whole(&error));
    }
    bridges
}

fn ports<'a>(survey: &'a Survey, bridge: &Device) -> impl Iterator<Item = &'a Device> {
    let index = bridge.index;
    let devices = survey.devices.iter();
    devices.filter(move |device| device.bridge == index)
}

async fn remove_with_ports(survey: &Survey, bridge: &Device) -> Result<(), Error> {
    let mut errors = Collect::default();
    for port in ports(survey, bridge) {
        errors.add(link::remove(&port.name).await);
    }
    errors.add(link::remove(&bridge.name).await);
    errors.finish()
}

/// What is noted on the host's end of a replica's veth pair: the truth about who has which address.
pub(crate) fn alias(id: &str, address: Ipv4Addr) -> String {
    format!("layby {id} {address}")
}

fn parse_alias(text: &str) -> Option<(String, Ipv4Addr)> {
    let (id, address) = text.strip_prefix("layby ")?.split_once(' ')?;
    check_id(id).ok()?;
    Some((id.to_owned(), address.parse().ok()?))
}

/// What is noted on a bridge: whose it is.
pub(crate) fn bridge_alias(app: Option<&str>) -> String {
    match app {
        Some(app) => format!("layby app {app}"),
        None => "layby no app".to_owned(),
    }
}

/// The app that is noted on a bridge; the outer `None`: nothing is.
fn bridge_app(alias: &str) -> Option<Option<String>> {
    if alias == bridge_alias(None) {
        return Some(None);
    }
    let app = alias.strip_prefix("layby app ")?;
    Some(Some(app.to_owned()))
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

    #[test]
    fn a_bridges_alias_says_whose_it_is() {
        for app in [None, Some("shop"), Some("no")] {
            assert_eq!(bridge_app(&bridge_alias(app)), Some(app.map(str::to_owned)));
        }
        assert_eq!(bridge_app(""), None);
    }
}
