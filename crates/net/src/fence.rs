//! The fence: one nft table for the node.
//!
//! Replicas reach those of their own app, the virtual addresses of their own app's services, and what is outside of
//! the node's range, masked as the machine; those of internal networks nothing outside. Nobody else reaches into the range: not another app, another node, the
//! machine's neighbours; the machine itself reaches the replicas and nothing more.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;

use crate::Error;
use crate::names::Names;
use crate::nft;
use crate::subnet::{APPS, Subnet, is_internal};

/// A virtual address, and the number of the bridge whose app may come to it.
pub(crate) type Door = (u8, Ipv4Addr);

/// All that the fence is made of.
#[derive(Debug, Clone)]
pub(crate) struct Fence {
    pub(crate) names: Names,
    /// The node's range.
    pub(crate) node: Subnet,
    /// Where connections to virtual addresses are sent.
    pub(crate) virtual_port: u16,
    /// Where questions to a bridge's port 53 are sent.
    pub(crate) dns_port: u16,
}

impl Fence {
    /// Puts the fence up, in place of one that stands there.
    pub(crate) async fn raise(&self, doors: &BTreeSet<Door>) -> Result<(), Error> {
        nft::run("add the node's table", &self.table(doors)).await
    }

    /// Whether it is up.
    pub(crate) async fn stands(&self) -> bool {
        let doors = nft::list(&["set", "ip", &self.names.table, "doors"]).await;
        doors.iter().any(|found| found["set"].is_object())
    }

    /// Takes the fence down; one that is missing is fine.
    pub(crate) async fn lower(&self) -> Result<(), Error> {
        let table = &self.names.table;
        let script = format!("add table ip {table}\ndelete table ip {table}\n");
        nft::run("remove the node's table", &script).await
    }

    /// The doors of the fence that stands there: what a node that was killed had opened stays open.
    pub(crate) async fn standing_doors(&self) -> BTreeSet<Door> {
        let listed = nft::list(&["set", "ip", &self.names.table, "doors"]).await;
        let elements = listed
            .iter()
            .find_map(|found| found["set"]["elem"].as_array());
        let doors = elements.into_iter().flatten().filter_map(|element| {
            let number = self.names.bridge_number(element["concat"][0].as_str()?)?;
            let address: Ipv4Addr = element["concat"][1].as_str()?.parse().ok()?;
            let known = self.node.virtual_range().contains(address);
            known.then_some((number, address))
        });
        doors.collect()
    }

    fn elements(&self, doors: &BTreeSet<Door>) -> String {
        let element = |(number, address): &Door| {
            let bridge = self.names.bridge(*number);
            format!("\"{bridge}\" . {address}")
        };
        let elements: Vec<String> = doors.iter().map(element).collect();
        elements.join(", ")
    }

    /// The table. Which subnet a bridge has follows from its name, so that one that is made later needs no change here.
    ///
    /// The ports of the gateway and of the name server are closed to other machines only, and both themselves close what was
    /// not redirected: the rules outlive a node that was killed, and meanwhile a port may be a program's that is asked from
    /// this machine. Or the machine gives it to a connection that begins here, the gateway's own to a replica, say: so answers
    /// always pass.
    ///
    /// What comes from an internal network to the machine itself is names and virtual addresses, both redirected, or an answer; all
    /// else is dropped, since whatever listens on the machine (a published port, a proxy, sshd) would be a way out.
    fn table(&self, doors: &BTreeSet<Door>) -> String {
        let Self {
            names,
            node,
            virtual_port,
            dns_port,
        } = self;
        let Names { bridges, table, .. } = names;
        let range = node.virtual_range();
        let homes: Vec<String> = (0..APPS)
            .map(|n| format!("\"{}\" . {}", names.bridge(n), node.app(n)))
            .collect();
        let homes = homes.join(", ");
        let doors = match doors.is_empty() {
            true => String::new(),
            false => format!("elements = {{ {} }}", self.elements(doors)),
        };
        let internal: Vec<String> = (0..APPS)
            .filter(|n| is_internal(*n))
            .map(|n| format!("\"{}\"", names.bridge(n)))
            .collect();
        let internal = internal.join(", ");
        // Adding before deleting makes the deletion succeed also where there was no table; all is one transaction.
        format!(
            "add table ip {table}
delete table ip {table}
table ip {table} {{
    set homes {{
        type ifname . ipv4_addr
        flags interval
        elements = {{ {homes} }}
    }}
    set internal {{
        type ifname
        elements = {{ {internal} }}
    }}
    set doors {{
        type ifname . ipv4_addr
        {doors}
    }}
    chain fence {{
        type filter hook prerouting priority raw; policy accept;
        iifname \"lo\" accept
        iifname \"{bridges}\" goto inside
        ip daddr {node} drop
        ip saddr {node} drop
    }}
    chain inside {{
        iifname . ip saddr != @homes drop
        iifname @internal ip daddr != {node} drop
        ip daddr != {node} accept
        iifname . ip daddr @homes accept
        iifname . ip daddr @doors accept
        drop
    }}
    chain virtual {{
        type nat hook prerouting priority dstnat; policy accept;
        iifname \"{bridges}\" ip daddr {range} meta l4proto tcp redirect to :{virtual_port}
        iifname \"{bridges}\" ip daddr {node} ip daddr & 0.0.0.255 == 0.0.0.1 meta l4proto {{ tcp, udp }} th dport 53 redirect to :{dns_port}
    }}
    chain input {{
        type filter hook input priority filter; policy accept;
        iifname != \"lo\" tcp dport {virtual_port} ct direction original ct status ! dnat drop
        iifname != \"lo\" meta l4proto {{ tcp, udp }} th dport {dns_port} ct direction original ct status ! dnat drop
        ip daddr {range} icmp type echo-request accept
        ip daddr {range} reject
        iifname @internal ct direction original ct status ! dnat drop
    }}
    chain forward {{
        type filter hook forward priority filter; policy accept;
        ip daddr {range} drop
        iifname \"{bridges}\" oifname \"{bridges}\" accept
        oifname \"{bridges}\" ct state established,related accept
        oifname \"{bridges}\" drop
    }}
    chain postrouting {{
        type nat hook postrouting priority srcnat; policy accept;
        ip saddr {node} oifname != \"{bridges}\" masquerade
    }}
}}
"
        )
    }
}
