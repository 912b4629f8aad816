//! The bridges of a node: which app has which, and who is plugged into it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

use crate::address::Addresses;
use crate::subnet::{APPS, Subnet, is_internal};

/// The bridge of one app.
#[derive(Debug)]
pub(crate) struct Bridge {
    /// The device's index.
    pub(crate) device: u32,
    /// The app; `None`: it is of one that belongs to none, such as a step of a build.
    pub(crate) app: Option<String>,
    /// It is being removed: nobody is to be plugged in any more.
    leaving: bool,
    pub(crate) addresses: Addresses,
}

/// All bridges, by their numbers.
#[derive(Debug)]
pub(crate) struct Bridges {
    node: Subnet,
    by_number: BTreeMap<u8, Bridge>,
    /// Where the search for a free number begins: one that was freed is given again as late as can be.
    next: u8,
    /// Where the search for an address begins.
    begin: u32,
}

impl Bridges {
    /// None yet. `begin`: any number, another one at each start; see [`Addresses::new`].
    pub(crate) fn new(node: Subnet, begin: u32) -> Self {
        Self {
            node,
            by_number: BTreeMap::new(),
            next: 0,
            begin,
        }
    }

    /// Takes up a bridge that is there, with those who are plugged into it.
    pub(crate) fn add(
        &mut self,
        number: u8,
        device: u32,
        app: Option<String>,
        attached: BTreeMap<String, Ipv4Addr>,
    ) {
        let addresses = Addresses::new(self.node.app(number), attached, self.begin);
        let bridge = Bridge {
            device,
            app,
            leaving: false,
            addresses,
        };
        self.by_number.insert(number, bridge);
        self.next = (number + 1) % APPS;
    }

    /// The bridges into which nobody is plugged, and whose app is none of `named`: they are nobody's any more, and are to
    /// be removed. Their numbers are not given again before that.
    pub(crate) fn leave(&mut self, named: &BTreeSet<String>) -> Vec<u8> {
        let mut leaving = Vec::new();
        for (number, bridge) in &mut self.by_number {
            let named = bridge.app.as_ref().is_some_and(|app| named.contains(app));
            if !named && !bridge.leaving && bridge.addresses.is_empty() {
                bridge.app = None;
                bridge.leaving = true;
                leaving.push(*number);
            }
        }
        leaving
    }

    /// A bridge that was to leave is gone; or it is not, and will have to leave again.
    pub(crate) fn left(&mut self, number: u8, gone: bool) {
        match self.by_number.get_mut(&number) {
            Some(bridge) if !gone => bridge.leaving = false,
            _ => drop(self.by_number.remove(&number)),
        }
    }

    /// The number of the app's bridge.
    pub(crate) fn of_app(&self, app: &str) -> Option<u8> {
        let mut bridges = self.by_number.iter();
        let found = bridges.find(|(_, bridge)| bridge.app.as_deref() == Some(app));
        found.map(|(number, _)| *number)
    }

    /// A number that no bridge has, of those that reach what is outside of the node or of the others.
    pub(crate) fn free_number(&self, internal: bool) -> Option<u8> {
        (0..APPS)
            .map(|step| ((u16::from(self.next) + u16::from(step)) % u16::from(APPS)) as u8)
            .filter(|number| is_internal(*number) == internal)
            .find(|number| !self.by_number.contains_key(number))
    }

    /// The bridge with `number`.
    pub(crate) fn get(&self, number: u8) -> Option<&Bridge> {
        self.by_number.get(&number)
    }

    /// Where `id` is: a bridge's number, and its address.
    pub(crate) fn find(&self, id: &str) -> Option<(u8, Ipv4Addr)> {
        let mut bridges = self.by_number.iter();
        bridges.find_map(|(number, bridge)| Some((*number, bridge.addresses.get(id)?)))
    }

    /// Gives `id` an address on a bridge, if one is left.
    pub(crate) fn take(&mut self, number: u8, id: &str) -> Option<Ipv4Addr> {
        self.by_number.get_mut(&number)?.addresses.take(id)
    }

    /// Takes the address of `id` back.
    pub(crate) fn free(&mut self, id: &str) {
        for bridge in self.by_number.values_mut() {
            bridge.addresses.free(id);
        }
    }

    /// All who are attached, with their addresses.
    pub(crate) fn attached(&self) -> Vec<(String, Ipv4Addr)> {
        let bridges = self.by_number.values();
        bridges.flat_map(|bridge| bridge.addresses.all()).collect()
    }

    /// The numbers of all bridges.
    pub(crate) fn numbers(&self) -> Vec<u8> {
        self.by_number.keys().copied().collect()
    }

    /// The apps, by the numbers of their bridges.
    pub(crate) fn apps(&self) -> BTreeMap<u8, String> {
        let bridges = self.by_number.iter();
        bridges
            .filter_map(|(number, bridge)| Some((*number, bridge.app.clone()?)))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bridges() -> Bridges {
        Bridges::new("10.1.0.0/16".parse().expect("a range"), 0)
    }

    #[test]
    fn a_number_that_was_freed_is_the_last_to_be_given_again() {
        let mut bridges = bridges();
        for n in 0..APPS {
            assert_eq!(bridges.free_number(is_internal(n)), Some(n));
            bridges.add(n, 1, Some(format!("app-{n}")), BTreeMap::new());
        }
        assert_eq!(bridges.free_number(false), None);
        for n in [3, 200] {
            bridges.left(n, true);
        }
        assert_eq!(bridges.free_number(false), Some(3));
        assert_eq!(bridges.free_number(true), Some(200));
    }

    #[test]
    fn a_bridge_is_unused_when_nobody_is_on_it_and_its_app_has_no_names() {
        let mut bridges = bridges();
        bridges.add(0, 1, Some("shop".to_owned()), BTreeMap::new());
        bridges.add(1, 2, None, BTreeMap::new());
        let named = BTreeSet::from(["shop".to_owned()]);
        assert_eq!(bridges.leave(&named), [1]);
        assert_eq!(bridges.leave(&named), [] as [u8; 0], "it is leaving");
        bridges.left(1, false);
        assert_eq!(bridges.leave(&named), [1], "once more");
        let address = bridges.take(0, "x").expect("an address");
        assert_eq!(bridges.find("x"), Some((0, address)));
        assert_eq!(bridges.leave(&BTreeSet::new()), [] as [u8; 0]);
        bridges.free("x");
        assert_eq!(bridges.of_app("shop"), Some(0));
        assert_eq!(bridges.leave(&BTreeSet::new()), [0]);
        assert_eq!(bridges.of_app("shop"), None, "its app gets another");
        assert_eq!(bridges.free_number(false), Some(2));
        bridges.left(0, true);
        assert_eq!(bridges.of_app("other"), None);
    }
}
