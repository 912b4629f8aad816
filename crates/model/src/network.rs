//! The networks of an app, and those that apps share: which services reach each other.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::names::AppName;

/// The most characters that the names of all networks of a service have together, one character between each two.
pub const MAX_NAMES_LEN: usize = 120;

/// The network of an app that its services are in where nothing is said.
pub const USUAL: &str = "default";

/// What a network that apps share begins with in [`Networks::names`]; no network of an app is called so.
pub const SHARED: char = '@';

/// The networks that a service is in (Compose `networks`). Services reach each other if they share one; those of two apps, if
/// they share one of the node's own ([`SHARED`]).
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(default)]
pub struct Networks {
    /// By their names in the manifest; none: [`USUAL`] alone.
    pub names: BTreeSet<String>,
    /// Nothing outside of the node is reached from any of them (Compose `internal`).
    pub internal: bool,
}

impl Networks {
    /// Whether a network can be called so (Compose Specification, "networks").
    pub fn is_name(name: &str) -> bool {
        let inner = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
        name.starts_with(|c: char| c.is_ascii_alphanumeric()) && name.chars().all(inner)
    }

    /// Whether this is what holds where nothing is said.
    pub fn is_usual(&self) -> bool {
        !self.internal && self.names.iter().all(|name| name == USUAL)
    }

    /// Whether the two share a network.
    pub fn meet(&self, other: &Self) -> bool {
        match (self.names.is_empty(), other.names.is_empty()) {
            (true, true) => true,
            (false, false) => !self.names.is_disjoint(&other.names),
            (true, false) => other.names.contains(USUAL),
            (false, true) => self.names.contains(USUAL),
        }
    }

    /// Whether a network is one of these.
    pub fn has(&self, name: &str) -> bool {
        self.names.contains(name) || self.names.is_empty() && name == USUAL
    }

    /// Those of them that belong to the node, and not to the app, as [`Networks::names`] has them.
    pub fn shared(&self) -> impl Iterator<Item = &str> {
        let names = self.names.iter().map(String::as_str);
        names.filter(|name| name.starts_with(SHARED))
    }

    /// What those of an app are called that are in just these networks: they have a bridge of their own. `shop`,
    /// `shop/back+front`, `shop/!back`, `shop/@proxy+back`; the `!` says that nothing outside is reached.
    pub fn key(&self, app: &AppName) -> String {
        if self.is_usual() {
            return app.to_string();
        }
        let names: Vec<&str> = self.names.iter().map(String::as_str).collect();
        let internal = if self.internal { "!" } else { "" };
        format!("{app}/{internal}{}", names.join("+"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn networks(names: &[&str], internal: bool) -> Networks {
        Networks {
            names: names.iter().map(|name| (*name).to_owned()).collect(),
            internal,
        }
    }

    #[test]
    fn services_meet_where_they_share_a_network() {
        let usual = Networks::default();
        let front = networks(&["front"], false);
        let both = networks(&["front", "back"], false);
        let back = networks(&["back"], true);
        assert!(usual.meet(&usual) && front.meet(&both) && both.meet(&back));
        assert!(!front.meet(&back) && !usual.meet(&front));
    }

    #[test]
    fn the_usual_network_is_the_same_whether_it_is_named_or_not() {
        let app = AppName::new("shop").expect("a label");
        let (usual, named) = (Networks::default(), networks(&[USUAL], false));
        let both = networks(&[USUAL, "back"], false);
        assert!(usual.meet(&named) && named.meet(&usual));
        assert!(usual.meet(&both) && both.meet(&usual));
        assert!(named.is_usual() && !both.is_usual());
        assert_eq!(named.key(&app), "shop");
        assert_eq!(networks(&[USUAL], true).key(&app), "shop/!default");
    }

    #[test]
    fn a_network_of_the_node_is_none_of_the_app_that_is_called_so() {
        let app = AppName::new("shop").expect("a label");
        let shared = networks(&["@proxy", "back"], false);
        assert!(!shared.meet(&networks(&["proxy"], false)));
        assert!(shared.meet(&networks(&["@proxy"], false)) && shared.has("@proxy"));
        assert_eq!(shared.shared().collect::<Vec<_>>(), ["@proxy"]);
        assert_eq!(shared.key(&app), "shop/@proxy+back");
        assert!(!Networks::is_name("@proxy") && Networks::default().has(USUAL));
    }

    #[test]
    fn those_in_the_same_networks_have_one_key() {
        let app = AppName::new("shop").expect("a label");
        assert_eq!(Networks::default().key(&app), "shop");
        assert_eq!(networks(&["b", "a"], false).key(&app), "shop/a+b");
        assert_eq!(networks(&["a"], true).key(&app), "shop/!a");
        assert!(
            Networks::is_name("front_1.x") && !Networks::is_name("a+b") && !Networks::is_name("")
        );
    }
}
