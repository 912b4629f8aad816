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

/// A UDP port of a virtual address.
pub(crate) type Datagrams = (Ipv4Addr, u16);

/// For whom a datagram is: a socket that was bound to the very address it is sent to. One of a program that listens on all
/// addresses of the machine is none, be it that the gateway could not have the port for it, or that the node is not there.
/// An older kernel or nft cannot tell.
const TO_ITS_ADDRESS: &str = "socket wildcard 0 ";

/// What may pass beside what always may.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Gaps {
    /// Who may come to which virtual address.
    pub(crate) doors: BTreeSet<Door>,
    /// Where the gateway takes datagrams of those who may come there. All other ports are kept from whatever of the
    /// machine listens on all of its addresses.
    pub(crate) datagrams: BTreeSet<Datagrams>,
}

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
    pub(crate) async fn raise(&self, gaps: &Gaps) -> Result<(), Error> {
        let what = "add the node's table";
        let Err(error) = nft::run(what, &self.table(gaps, TO_ITS_ADDRESS)).await else {
            return Ok(());
        };
        nft::run(what, &self.table(gaps, "")).await?;
        tracing::warn!(
            "nft cannot tell here whose socket a datagram is for ({error}): one to a UDP port of a service that the gateway could not open comes to a program of this machine that listens on that port of all addresses"
        );
        Ok(())
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

    /// The gaps of the fence that stands there: what a node that was killed had opened stays open.
    pub(crate) async fn standing(&self) -> Gaps {
        let range = self.node.virtual_range();
        let pairs = |name: &'static str| async move {
            let listed = nft::list(&["set", "ip", &self.names.table, name]).await;
            let elements = listed
                .iter()
                .find_map(|found| found["set"]["elem"].as_array());
            let pairs = elements.into_iter().flatten();
            let pairs = pairs.map(|one| (one["concat"][0].clone(), one["concat"][1].clone()));
            pairs.collect::<Vec<_>>()
        };
        let doors = pairs("doors").await.into_iter().filter_map(|(bridge, to)| {
            let number = self.names.bridge_number(bridge.as_str()?)?;
            let address: Ipv4Addr = to.as_str()?.parse().ok()?;
            range.contains(address).then_some((number, address))
        });
        let doors = doors.collect();
        let datagrams = pairs("datagrams")
            .await
            .into_iter()
            .filter_map(|(to, port)| {
                let address: Ipv4Addr = to.as_str()?.parse().ok()?;
                let port = u16::try_from(port.as_u64()?).ok()?;
                range.contains(address).then_some((address, port))
            });
        let datagrams = datagrams.collect();
        Gaps { doors, datagrams }
    }

    /// The table. Which subnet a bridge has follows from its name, so that one that is made later needs no change here.
    ///
    /// The ports of the gateway and of the name server are closed to other machines only, and both themselves close what was
    /// not redirected: the rules outlive a node that was killed, and meanwhile a port may be a program's that is asked from
    /// this machine. Or the machine gives it to a connection that begins here, the gateway's own to a replica, say: so answers
    /// always pass.
    ///
    /// Connections to virtual addresses are redirected; datagrams are not, since nobody could tell then where they were going: the
    /// gateway has a socket on each UDP port of each address. `socket`: for whose sockets they pass.
    ///
    /// What comes from an internal network to the machine itself is names and virtual addresses, or an answer; all else is dropped, since whatever listens on the machine (a published port, a proxy, sshd) would be a way out.
    fn table(&self, gaps: &Gaps, socket: &str) -> String {
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
        let elements = |elements: Vec<String>| match elements.is_empty() {
            true => String::new(),
            false => format!("elements = {{ {} }}", elements.join(", ")),
        };
        let doors = gaps.doors.iter();
        let doors = doors.map(|(number, to)| format!("\"{}\" . {to}", names.bridge(*number)));
        let doors = elements(doors.collect());
        let datagrams = gaps.datagrams.iter();
        let datagrams = elements(
            datagrams
                .map(|(to, port)| format!("{to} . {port}"))
                .collect(),
        );
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
    set datagrams {{
        type ipv4_addr . inet_service
        {datagrams}
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
        iifname \"{bridges}\" ip daddr . udp dport @datagrams {socket}accept
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
