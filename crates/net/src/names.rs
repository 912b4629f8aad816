//! The names of devices and tables, and hardware addresses: all follow from the node's name.

use std::net::Ipv4Addr;

use sha2::{Digest, Sha256};

use crate::Error;

/// What the node calls its devices. Device names have at most 15 bytes (`IFNAMSIZ` less the NUL).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Names {
    /// The node: 1 to 11 of a-z and 0-9.
    pub(crate) node: String,
    /// The bridge.
    pub(crate) bridge: String,
    /// The nft table.
    pub(crate) table: String,
}

impl Names {
    pub(crate) fn new(node: &str) -> Result<Self, Error> {
        let fits = (1..=11).contains(&node.len())
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
            bridge: format!("lyb-{node}"),
            table: format!("layby_{node}"),
        })
    }

    /// The host's end of a replica's veth pair: unique over the nodes of a machine.
    pub(crate) fn veth(&self, id: &str) -> String {
        let hash = Sha256::digest(format!("{}/{id}", self.node));
        let hex: String = hash.iter().take(6).map(|b| format!("{b:02x}")).collect();
        format!("lyv{hex}")
    }

    /// The bridge's hardware address. Set, so that it does not change with the lowest of its ports.
    pub(crate) fn bridge_mac(&self) -> Vec<u8> {
        let hash = Sha256::digest(&self.node);
        // 0x02: locally administered, unicast (IEEE 802, section 8.2).
        std::iter::once(0x02)
            .chain(hash.iter().copied().take(5))
            .collect()
    }
}

/// A replica's hardware address, from its address: who gets an address again is still found by a
/// neighbour that remembers the one before.
pub(crate) fn mac(address: Ipv4Addr) -> Vec<u8> {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_device_name_fits_the_kernel() {
        let names = Names::new("0123456789a").expect("a name");
        assert_eq!(names.bridge.len(), 15);
        assert_eq!(names.veth("00000300001f").len(), 15);
    }

    #[test]
    fn the_same_replica_of_two_nodes_has_two_devices() {
        let (one, two) = (Names::new("aa").expect("a"), Names::new("ab").expect("b"));
        assert_ne!(one.veth("x"), two.veth("x"));
        assert_ne!(one.bridge_mac(), two.bridge_mac());
    }

    #[test]
    fn a_name_that_could_leave_its_folder_is_refused() {
        for bad in ["", "..", ".x", "a/b", "a b", &"x".repeat(65)] {
            assert!(check_id(bad).is_err(), "{bad:?}");
        }
        assert!(check_id("00000300001f").is_ok());
        assert!(Names::new("A").is_err() && Names::new("").is_err());
    }
}
