//! The names of devices and tables, and hardware addresses: all follow from the node's name and the addresses.

use std::net::Ipv4Addr;

use sha2::{Digest, Sha256};

use crate::Error;

/// What the node calls its devices. Device names have at most 15 bytes (`IFNAMSIZ` less the NUL).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Names {
    /// The node: 1 to 9 of a-z and 0-9.
    pub(crate) node: String,
    /// All bridges of the node, as nft writes it: a device whose name begins so is one of them.
    pub(crate) bridges: String,
    /// The nft table.
    pub(crate) table: String,
    /// The one bridge that a node had before each app got its own.
    pub(crate) old_bridge: String,
}

impl Names {
    pub(crate) fn new(node: &str) -> Result<Self, Error> {
        let fits = (1..=9).contains(&node.len())
            && node
                .bytes()
                .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
        if !fits {
            return Err(Error::Name {
                name: node.to_owned(),
            });
        }
        Ok(Self {
            node: node.to_owned(),
            bridges: format!("lyb{node}-*"),
            table: format!("layby_{node}"),
            old_bridge: format!("lyb-{node}"),
        })
    }

    /// The bridge with the number `n`.
    pub(crate) fn bridge(&self, n: u8) -> String {
        format!("lyb{}-{n:02x}", self.node)
    }

    /// The number of the node's bridge called `name`.
    pub(crate) fn bridge_number(&self, name: &str) -> Option<u8> {
        let digits = name.strip_prefix("lyb")?.strip_prefix(&self.node)?;
        let n = u8::from_str_radix(digits.strip_prefix('-')?, 16).ok()?;
        (self.bridge(n) == name).then_some(n)
    }

    /// The host's end of a replica's veth pair: unique over the nodes of a machine.
    pub(crate) fn veth(&self, id: &str) -> String {
        let hash = Sha256::digest(format!("{}/{id}", self.node));
        let hex: String = hash.iter().take(6).map(|b| format!("{b:02x}")).collect();
        format!("lyv{hex}")
    }
}

/// A hardware address, from the address of a replica or a bridge: who gets an address again is still found by a
/// neighbour that remembers the one before. Set on bridges too, so that theirs does not change with the lowest
/// of their ports.
pub(crate) fn mac(address: Ipv4Addr) -> Vec<u8> {
    // 0x02: locally administered, unicast (IEEE 802, section 8.2).
    let mut mac = vec![0x02, 0x42];
    mac.extend(address.octets());
    mac
}

/// Whether `id` can name a file.
pub(crate) fn check_id(id: &str) -> Result<(), Error> {
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
    if (1..=64).contains(&id.len()) && id.bytes().all(plain) && !id.starts_with('.') {
        Ok(())
    } else {
        Err(Error::Id { id: id.to_owned() })
    }
}

/// The app in whose network somebody is: what stands before the `/` (`shop`, `shop/back+front`, `shop/!back`).
pub(crate) fn app_of(network: &str) -> &str {
    network.split_once('/').map_or(network, |(app, _)| app)
}

/// Whether nothing outside of the node is reached from a network.
pub(crate) fn is_internal(network: &str) -> bool {
    network.contains("/!")
}

/// Whether `app`, with the networks behind it, can be noted on a device.
pub(crate) fn check_app(network: &str) -> Result<(), Error> {
    let (app, inner) = network.split_once('/').unwrap_or((network, "x"));
    let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    let inner = inner.strip_prefix('!').unwrap_or(inner);
    let of_names = |b: u8| b.is_ascii_alphanumeric() || b"._-+@".contains(&b);
    let is_inner = (1..=150).contains(&inner.len()) && inner.bytes().all(of_names);
    if (1..=63).contains(&app.len()) && app.bytes().all(plain) && is_inner {
        Ok(())
    } else {
        Err(Error::App {
            app: network.to_owned(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_is_of_an_app_and_may_be_internal() {
        for good in ["shop", "shop/@proxy+front", "shop/!back_1.x"] {
            assert!(check_app(good).is_ok(), "{good}");
            assert_eq!(app_of(good), "shop");
        }
        for bad in ["", "/x", "shop/", "shop/!", "shop/a b", "Shop", "shop/a/b"] {
            assert!(check_app(bad).is_err(), "{bad}");
        }
        assert!(is_internal("shop/!back") && !is_internal("shop/back"));
    }

    #[test]
    fn every_device_name_fits_the_kernel() {
        let names = Names::new("012345678").expect("a name");
        assert_eq!(names.bridge(239).len(), 15);
        assert_eq!(names.veth("00000300001f").len(), 15);
    }

    #[test]
    fn a_bridge_is_known_by_its_name_and_by_no_other() {
        let names = Names::new("aa").expect("a name");
        for n in [0, 15, 16, 239] {
            assert_eq!(names.bridge_number(&names.bridge(n)), Some(n));
        }
        let others = Names::new("aab").expect("a name");
        for other in [
            &others.bridge(1),
            "lybaa-1",
            "lybaa-001",
            "lybaa-+1",
            "lyb-aa",
        ] {
            assert_eq!(names.bridge_number(other), None, "{other}");
        }
    }

    #[test]
    fn the_same_replica_of_two_nodes_has_two_devices() {
        let (one, two) = (Names::new("aa").expect("a"), Names::new("ab").expect("b"));
        assert_ne!(one.veth("x"), two.veth("x"));
    }

    #[test]
    fn a_name_that_could_leave_its_folder_is_refused() {
        for bad in ["", "..", ".x", "a/b", "a b", &"x".repeat(65)] {
            assert!(check_id(bad).is_err(), "{bad:?}");
        }
        assert!(check_id("00000300001f").is_ok());
        assert!(Names::new("A").is_err() && Names::new("").is_err());
        assert!(Names::new("0123456789").is_err());
    }
}
