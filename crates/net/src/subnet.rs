//! Ranges of addresses, and how a node divides its own.
//!
//! A node has a /16. Its first 240 /24s are for apps, one bridge each; the last /20 holds the virtual addresses.

use std::fmt;
use std::net::Ipv4Addr;
use std::str::FromStr;

/// The length of the prefix of a node's range.
pub(crate) const NODE_PREFIX: u8 = 16;
/// The length of the prefix of one app's subnet.
pub(crate) const APP_PREFIX: u8 = 24;
/// How many replicas have an address in one: all but network, bridge and broadcast.
pub const APP_ADDRESSES: u32 = (1 << (32 - APP_PREFIX)) - 3;
/// The length of the prefix of the virtual range: 4,096 addresses.
const VIRTUAL_PREFIX: u8 = 20;
/// How many apps a node can have: all /24s that are not in the virtual range.
pub(crate) const APPS: u8 = 240;
/// From this number on, what is on a bridge reaches nothing outside of the node.
const INTERNAL: u8 = 192;
/// The candidates for a node's range: those of 10.0.0.0/8, then those of 172.16.0.0/12 (RFC 1918, section 3).
const IN_TEN: u32 = 256;
const IN_172: u32 = 16;

/// Whether what is on the bridge with the number `n` reaches nothing outside of the node.
pub(crate) fn is_internal(n: u8) -> bool {
    n >= INTERNAL
}

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

    /// The n-th candidate in 10.0.0.0/8.
    fn in_ten(n: u32) -> Self {
        Self::of(Ipv4Addr::from(10 << 24 | (n % IN_TEN) << 16), NODE_PREFIX)
    }

    /// The n-th candidate in 172.16.0.0/12.
    fn in_172(n: u32) -> Self {
        Self::of(
            Ipv4Addr::from(172 << 24 | (16 + n % IN_172) << 16),
            NODE_PREFIX,
        )
    }

    /// Whether the two share an address.
    pub(crate) fn overlaps(self, other: Self) -> bool {
        let mask = mask(self.prefix.min(other.prefix));
        self.base & mask == other.base & mask
    }

    /// Whether it could be a node's: a whole /16 of a private range.
    pub(crate) fn is_candidate(self) -> bool {
        let [first, second, ..] = Ipv4Addr::from(self.base).octets();
        self.prefix == NODE_PREFIX
            && (first == 10 || first == 172 && (16..32).contains(&u32::from(second)))
    }

    /// The subnet of the n-th app of the node that has this range; `n` below [`APPS`].
    pub(crate) fn app(self, n: u8) -> Self {
        Self {
            base: self.base + (u32::from(n) << (32 - APP_PREFIX)),
            prefix: APP_PREFIX,
        }
    }

    /// Which app of the node that has this range `address` belongs to.
    pub(crate) fn app_of(self, address: Ipv4Addr) -> Option<u8> {
        let [.., n, _] = address.octets();
        (self.contains(address) && n < APPS).then_some(n)
    }

    /// Which app's bridge `address` is on, other than the machine, whose address there is the gateway's.
    pub(crate) fn bridge_of(self, address: Ipv4Addr) -> Option<u8> {
        let number = self.app_of(address)?;
        (address != self.app(number).gateway()).then_some(number)
    }

    /// The virtual addresses of the node that has this range.
    pub(crate) fn virtual_range(self) -> Self {
        Self {
            base: self.base + (u32::from(APPS) << (32 - APP_PREFIX)),
            prefix: VIRTUAL_PREFIX,
        }
    }

    /// Whether `address` is in it.
    pub(crate) fn contains(self, address: Ipv4Addr) -> bool {
        u32::from(address) & mask(self.prefix) == self.base
    }

    /// Its first address, and the length of its prefix.
    pub(crate) fn parts(self) -> (Ipv4Addr, u8) {
        (Ipv4Addr::from(self.base), self.prefix)
    }

    /// The bridge's address: the first that a host can have.
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
    let ten = (0..IN_TEN).map(|n| Subnet::in_ten(hash.wrapping_add(n)));
    let others = (0..IN_172).map(|n| Subnet::in_172(hash.wrapping_add(n)));
    ten.chain(others)
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
        assert_eq!(choose(0, &[]), Some(subnet("10.0.0.0/16")));
        let taken = [subnet("10.0.3.7/32"), subnet("10.1.16.0/21")];
        assert_eq!(choose(0, &taken), Some(subnet("10.2.0.0/16")));
        assert_eq!(choose(0, &[subnet("0.0.0.0/0")]), None);
    }

    #[test]
    fn where_all_of_10_is_in_use_172_is_tried() {
        let taken = [subnet("10.0.0.0/8"), subnet("172.17.0.0/16")];
        assert_eq!(choose(1, &taken), Some(subnet("172.18.0.0/16")));
        assert!(subnet("172.31.0.0/16").is_candidate());
        assert!(!subnet("172.32.0.0/16").is_candidate());
        assert!(!subnet("192.168.0.0/16").is_candidate());
    }

    #[test]
    fn the_search_goes_round() {
        let taken = [subnet("10.255.0.0/16")];
        assert_eq!(choose(255, &taken), Some(subnet("10.0.0.0/16")));
    }

    #[test]
    fn a_nodes_range_is_divided_among_apps_and_virtual_addresses() {
        let node = subnet("10.9.0.0/16");
        assert_eq!(node.app(0), subnet("10.9.0.0/24"));
        assert_eq!(node.app(APPS - 1), subnet("10.9.239.0/24"));
        assert_eq!(node.virtual_range(), subnet("10.9.240.0/20"));
        assert!(!node.app(APPS - 1).overlaps(node.virtual_range()));
        assert_eq!(node.app_of(Ipv4Addr::new(10, 9, 7, 3)), Some(7));
        assert_eq!(node.app_of(Ipv4Addr::new(10, 9, 240, 3)), None);
        assert_eq!(node.app_of(Ipv4Addr::new(10, 8, 7, 3)), None);
        assert_eq!(node.bridge_of(Ipv4Addr::new(10, 9, 7, 3)), Some(7));
        assert_eq!(node.bridge_of(Ipv4Addr::new(10, 9, 7, 1)), None);
    }

    #[test]
    fn replicas_get_all_addresses_but_three() {
        let subnet = subnet("10.9.16.0/24");
        assert_eq!((subnet.hosts(), APP_ADDRESSES), (253, 253));
        assert_eq!(subnet.gateway(), Ipv4Addr::new(10, 9, 16, 1));
        assert_eq!(subnet.host(0), Ipv4Addr::new(10, 9, 16, 2));
        assert_eq!(subnet.host(252), Ipv4Addr::new(10, 9, 16, 254));
        assert!(subnet.contains(subnet.host(252)));
    }

    #[test]
    fn a_subnet_survives_its_text() {
        let subnet = Subnet::in_ten(77);
        assert_eq!(subnet.to_string().parse(), Ok(subnet));
        assert!(subnet.is_candidate());
        assert!("10.0.0.0/33".parse::<Subnet>().is_err());
    }
}
