//! The node's subnet: a /20 in 10.0.0.0/8 that nothing else on the machine uses.

use std::fmt;
use std::net::Ipv4Addr;
use std::str::FromStr;

/// The length of the prefix of a node's subnet: 4,093 replicas.
pub(crate) const PREFIX: u8 = 20;
/// How many candidates 10.0.0.0/8 has.
const CANDIDATES: u32 = 1 << (PREFIX - 8);

/// A range of addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Subnet {
    base: u32,
    prefix: u8,
}

impl Subnet {
    /// The range of `prefix` bits that `address` is in.
    pub(crate) fn of(address: Ipv4Addr, prefix: u8) -> Self {
        let prefix = prefix.min(32);
        Self {
            base: u32::from(address) & mask(prefix),
            prefix,
        }
    }

    /// The n-th candidate for a node's subnet.
    fn candidate(n: u32) -> Self {
        let base = u32::from(Ipv4Addr::new(10, 0, 0, 0)) + ((n % CANDIDATES) << (32 - PREFIX));
        Self {
            base,
            prefix: PREFIX,
        }
    }

    /// Whether the two share an address.
    pub(crate) fn overlaps(self, other: Self) -> bool {
        let mask = mask(self.prefix.min(other.prefix));
        self.base & mask == other.base & mask
    }

    /// Whether it could be a node's: a whole /20 in 10.0.0.0/8.
    pub(crate) fn is_candidate(self) -> bool {
        self.prefix == PREFIX && self.base >> 24 == 10
    }

    /// Whether `address` is in it.
    pub(crate) fn contains(self, address: Ipv4Addr) -> bool {
        u32::from(address) & mask(self.prefix) == self.base
    }

    /// The bridge's address: the first.
    pub(crate) fn gateway(self) -> Ipv4Addr {
        Ipv4Addr::from(self.base + 1)
    }

    /// How many addresses replicas can have: all but network, bridge and broadcast.
    pub(crate) fn hosts(self) -> u32 {
        (1 << (32 - self.prefix)) - 3
    }

    /// The n-th address of a replica, `n` below [`Subnet::hosts`].
    pub(crate) fn host(self, n: u32) -> Ipv4Addr {
        Ipv4Addr::from(self.base + 2 + n % self.hosts())
    }
}

/// The first free candidate, from the one that `hash` points to on; `None` if all are taken.
pub(crate) fn choose(hash: u32, taken: &[Subnet]) -> Option<Subnet> {
    (0..CANDIDATES)
        .map(|n| Subnet::candidate(hash.wrapping_add(n)))
        .find(|candidate| !taken.iter().any(|other| other.overlaps(*candidate)))
}

fn mask(prefix: u8) -> u32 {
    u32::MAX.checked_shl(32 - u32::from(prefix)).unwrap_or(0)
}

impl fmt::Display for Subnet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", Ipv4Addr::from(self.base), self.prefix)
    }
}

impl FromStr for Subnet {
    type Err = ();
    fn from_str(text: &str) -> Result<Self, ()> {
        let (address, prefix) = text.trim().split_once('/').ok_or(())?;
        let address: Ipv4Addr = address.parse().map_err(drop)?;
        let prefix: u8 = prefix.parse().map_err(drop)?;
        if prefix > 32 {
            return Err(());
        }
        Ok(Self::of(address, prefix))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn subnet(text: &str) -> Subnet {
        text.parse().expect("a subnet")
    }

    #[test]
    fn a_candidate_that_overlaps_anything_is_passed_over() {
        assert_eq!(choose(0, &[]), Some(subnet("10.0.0.0/20")));
        let taken = [subnet("10.0.3.7/32"), subnet("10.0.16.0/21")];
        assert_eq!(choose(0, &taken), Some(subnet("10.0.32.0/20")));
        assert_eq!(choose(0, &[subnet("10.0.0.0/8")]), None);
        assert_eq!(choose(0, &[subnet("0.0.0.0/0")]), None);
    }

    #[test]
    fn the_search_goes_round() {
        let taken = [subnet("10.255.240.0/20")];
        assert_eq!(choose(4095, &taken), Some(subnet("10.0.0.0/20")));
    }

    #[test]
    fn replicas_get_all_addresses_but_three() {
        let subnet = subnet("10.9.16.0/20");
        assert_eq!(subnet.hosts(), 4093);
        assert_eq!(subnet.gateway(), Ipv4Addr::new(10, 9, 16, 1));
        assert_eq!(subnet.host(0), Ipv4Addr::new(10, 9, 16, 2));
        assert_eq!(subnet.host(4092), Ipv4Addr::new(10, 9, 31, 254));
        assert!(subnet.contains(subnet.host(4092)));
    }

    #[test]
    fn a_subnet_survives_its_text() {
        let subnet = Subnet::candidate(77);
        assert_eq!(subnet.to_string().parse(), Ok(subnet));
        assert!(subnet.is_candidate());
        assert!("10.0.0.0/33".parse::<Subnet>().is_err());
    }
}
