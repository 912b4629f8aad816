//! The addresses of a subnet: who has which, and which is next.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

use crate::subnet::Subnet;

/// Who has which address. The next one is always the one that was given out longest ago: the search
/// goes round the whole subnet before it comes back to one that was freed.
#[derive(Debug)]
pub(crate) struct Addresses {
    subnet: Subnet,
    by_id: BTreeMap<String, Ipv4Addr>,
    next: u32,
}

impl Addresses {
    /// With those that are attached already. `begin`: any number; where the search begins. One that
    /// differs from start to start keeps addresses apart that were freed shortly before a restart.
    pub(crate) fn new(subnet: Subnet, by_id: BTreeMap<String, Ipv4Addr>, begin: u32) -> Self {
        Self {
            subnet,
            by_id,
            next: begin % subnet.hosts(),
        }
    }

    /// The address of `id`.
    pub(crate) fn get(&self, id: &str) -> Option<Ipv4Addr> {
        self.by_id.get(id).copied()
    }

    /// Gives `id` an address, if one is left.
    pub(crate) fn take(&mut self, id: &str) -> Option<Ipv4Addr> {
        let taken: BTreeSet<Ipv4Addr> = self.by_id.values().copied().collect();
        let hosts = self.subnet.hosts();
        let free = (0..hosts)
            .map(|n| (self.next + n) % hosts)
            .find(|&n| !taken.contains(&self.subnet.host(n)))?;
        self.next = (free + 1) % hosts;
        let address = self.subnet.host(free);
        self.by_id.insert(id.to_owned(), address);
        Some(address)
    }

    /// Takes the address of `id` back.
    pub(crate) fn free(&mut self, id: &str) {
        self.by_id.remove(id);
    }

    /// Whether nobody has one.
    pub(crate) fn is_empty(&self) -> bool {
        self.by_id.is_empty()
    }

    /// All, by id.
    pub(crate) fn all(&self) -> Vec<(String, Ipv4Addr)> {
        let pairs = self.by_id.iter();
        pairs.map(|(id, address)| (id.clone(), *address)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_that_was_freed_is_the_last_to_be_given_again() {
        let subnet: Subnet = "10.0.0.0/29".parse().expect("a subnet");
        let mut addresses = Addresses::new(subnet, BTreeMap::new(), 0);
        let first = addresses.take("a").expect("free");
        addresses.free("a");
        let others: Vec<_> = ["b", "c", "d", "e"]
            .iter()
            .map(|id| addresses.take(id).expect("free"))
            .collect();
        assert!(!others.contains(&first));
        assert_eq!(addresses.take("f"), Some(first));
        assert_eq!(addresses.take("g"), None, "all are taken");
    }
}
