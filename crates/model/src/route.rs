//! The wires between gateway and control plane: the routing table in, demand and traffic out.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, SocketAddr};

use serde::{Deserialize, Serialize};

use crate::names::{ReplicaId, ServiceId};
pub use crate::share::{Share, ShareError};

/// A table's version: (start number of the control plane, counter in that start).
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct Version {
    /// Which start of the control plane.
    pub life: u32,
    /// Which table of that start.
    pub counter: u64,
}

/// All that the gateway needs to know.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RouteTable {
    /// Newer tables have greater ones.
    pub version: Version,
    /// Sockets to listen on beside the gateway's own HTTP address.
    pub listeners: Vec<Listener>,
    /// Host names, in lower case and without a port, to services.
    pub hosts: BTreeMap<String, ServiceId>,
    /// Host names that lead by the path of a request, each to the first of these that has it; one that none has is looked
    /// for in `hosts`. `*.example.org` is any name with one label before it, and `*` any that is nowhere.
    #[serde(default)]
    pub paths: BTreeMap<String, Vec<PathRoute>>,
    /// The services.
    pub services: BTreeMap<ServiceId, ServiceRoute>,
    /// The virtual addresses by which containers reach services.
    #[serde(default)]
    pub virtuals: BTreeMap<Ipv4Addr, VirtualRoute>,
}

/// Stands for any host name that leads nowhere else, in [`RouteTable::paths`].
pub const ANY_HOST: &str = "*";

/// Where requests for a path of a host name lead.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PathRoute {
    /// The path, beginning with `/`.
    pub path: String,
    /// That path alone; `false`: all paths whose parts between slashes begin with its parts, too.
    pub exact: bool,
    /// The service.
    pub service: ServiceId,
    /// The port in its replicas.
    pub port: u16,
}

impl PathRoute {
    /// Whether it has a path, which comes without a query.
    pub fn has(&self, path: &str) -> bool {
        if self.exact {
            return path == self.path;
        }
        let own = self.path.strip_suffix('/').unwrap_or(&self.path);
        let rest = path.strip_prefix(own);
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    }

    /// By what the routes of a host are sorted: the longest path first, and of two the one that is exact.
    pub fn rank(&self) -> (std::cmp::Reverse<usize>, bool) {
        let own = self.path.strip_suffix('/').unwrap_or(&self.path);
        (std::cmp::Reverse(own.len()), !self.exact)
    }
}

/// Where a virtual address leads.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VirtualRoute {
    /// The service that has it.
    pub service: ServiceId,
    /// Its declared ports. Any other leads to the same port of a replica, as TCP.
    pub ports: BTreeMap<u16, VirtualPort>,
    /// Its UDP ports, each with the one in the replicas. No other takes datagrams.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub datagrams: BTreeMap<u16, u16>,
}

/// Where a declared port of a virtual address leads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct VirtualPort {
    /// The port in the replicas.
    pub target: u16,
    /// What is spoken on it.
    pub protocol: Protocol,
}

/// The names that containers may look up: for each app its own, and nothing of any other.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NameTable {
    /// For each app, or each set of networks of one ([`Networks::key`](crate::network::Networks::key)): names (lower-case DNS names relative to nothing, such as `web` or `web.shop`) to addresses.
    pub apps: BTreeMap<String, BTreeMap<String, Vec<Ipv4Addr>>>,
    /// For each of these the names for hosts elsewhere, and the names of those.
    #[serde(default)]
    pub elsewhere: BTreeMap<String, BTreeMap<String, String>>,
    /// The UDP ports of addresses that datagrams may come to, from whoever may come to the address.
    #[serde(default)]
    pub datagrams: BTreeSet<(Ipv4Addr, u16)>,
}

/// A socket that leads to one service.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Listener {
    /// Where to listen.
    pub addr: SocketAddr,
    /// The service that it leads to.
    pub service: ServiceId,
    /// The port in its replicas.
    pub target: u16,
    /// What is spoken on it.
    pub protocol: Protocol,
}

impl Listener {
    /// The socket that it is: two of an address can both be open if one of them is of UDP.
    pub fn socket(&self) -> Socket {
        Socket {
            addr: self.addr,
            is_udp: self.protocol == Protocol::Udp,
        }
    }
}

/// Where something is listened for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Socket {
    /// Its address.
    pub addr: SocketAddr,
    /// It takes datagrams (UDP); else connections (TCP).
    pub is_udp: bool,
}

impl Socket {
    /// Whether the two cannot both be open.
    pub fn collides(self, other: Self) -> bool {
        let (a, b) = (self.addr, other.addr);
        self.is_udp == other.is_udp
            && a.port() == b.port()
            && (a.ip() == b.ip() || a.ip().is_unspecified() || b.ip().is_unspecified())
    }
}

impl std::fmt::Display for Socket {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let kind = if self.is_udp { "/udp" } else { "" };
        write!(f, "{}{kind}", self.addr)
    }
}

/// What is spoken on a listener. Never guessed from bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Protocol {
    /// HTTP/1.1: balanced, held and counted per request.
    Http,
    /// Anything over TCP: balanced and held per connection, counted by the bytes it moves.
    Tcp,
    /// Datagrams over UDP: balanced and held per client that sends some, counted by those it moves.
    Udp,
}

/// How to treat requests for one service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceRoute {
    /// What to do with a request.
    pub mode: Mode,
    /// The port in the replicas that requests by host name go to; `None`: it has none (404 by host name).
    pub port: Option<u16>,
    /// The limits.
    pub limits: Limits,
    /// It is scaled by its requests: they are summed up over time ([`Traffic::load`]).
    #[serde(default)]
    pub is_scaled: bool,
}

/// How long a request for an unhealthy service may wait, in milliseconds: a probe that failed for once succeeds again by
/// then; whoever asks learns soon enough if not.
pub const UNHEALTHY_HOLD_MS: u64 = 3_000;

/// What to do with a request for a service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "kind")]
pub enum Mode {
    /// Answer 503 at once, and say that it is disabled.
    Disabled,
    /// Answer 503 at once: nothing was ever live, or it has ended for good, or it is being taken down.
    Refuse,
    /// Keep it until there is a replica, within the limits.
    Hold,
    /// Keep it for a few seconds ([`UNHEALTHY_HOLD_MS`]), then answer 503: replicas run, and none answers its probe.
    Unhealthy,
    /// Send it to one of these.
    Serve {
        /// Those of live; never empty.
        upstreams: Vec<Upstream>,
        /// Some requests go to these instead.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        canary: Option<Canary>,
    },
}

/// A revision that is tried out on a part of the requests.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Canary {
    /// Which requests it gets. Where no HTTP is spoken, headers and cookies choose nothing.
    pub share: Share,
    /// Its replicas; never empty. While none of them can be reached, live gets its requests, too.
    pub upstreams: Vec<Upstream>,
}

impl Mode {
    /// All replicas that take requests: live's, then the canary's.
    pub fn upstreams(&self) -> impl Iterator<Item = &Upstream> {
        let (live, canary) = match self {
            Self::Disabled | Self::Refuse | Self::Hold | Self::Unhealthy => (&[][..], None),
            Self::Serve { upstreams, canary } => (&upstreams[..], canary.as_ref()),
        };
        live.iter()
            .chain(canary.into_iter().flat_map(|canary| &canary.upstreams))
    }
}

/// A replica that takes requests.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Upstream {
    /// Which replica: in-flight counts are kept by it.
    pub replica: ReplicaId,
    /// Its address.
    pub ip: std::net::IpAddr,
    /// The most requests that it is given at once; a TCP connection is one for as long as it is open. `None`: as many as
    /// come.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub concurrency: Option<u32>,
}

/// Bounds on what is held for one service.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// So many requests may wait; one more is answered 503 with Retry-After.
    pub hold_queue: u32,
    /// So long may each wait, in milliseconds; then it is answered 504.
    pub hold_deadline_ms: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            hold_queue: 1000,
            hold_deadline_ms: 60_000,
        }
    }
}

/// What the gateway says of the tables it was given: published after the table is on disk.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Confirmed {
    /// The newest version that it serves by and has on disk.
    pub version: Version,
    /// The listeners of that table that could not be opened, and why (one sentence).
    pub failed_listeners: Vec<(Listener, String)>,
}

/// How many requests are waiting, per service: a level, not an edge. Services with none are left out.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Demand {
    /// Held requests and connections.
    pub waiting: BTreeMap<ServiceId, u32>,
}

/// What went through the gateway to one service, read at one moment.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Traffic {
    /// Uses ever seen in this life of the gateway: requests by arrival, TCP connections by movements of bytes.
    pub uses: u64,
    /// Milliseconds since the last use; `None`: no use in this life of the gateway.
    pub idle_ms: Option<u64>,
    /// Requests (and TCP connections that moved bytes just now) in flight, per replica. Those with none are left out.
    pub in_flight: BTreeMap<ReplicaId, u32>,
    /// Connections that are open through to a replica and no longer speak HTTP, whether or not they move bytes, per
    /// replica. Those with none are left out.
    pub open: BTreeMap<ReplicaId, u32>,
    /// Those of them whose clients wait for an answer, or may: where HTTP is spoken on them, for an answer that is not whole yet,
    /// else because they spoke last.
    pub awaited: BTreeMap<ReplicaId, u32>,
    /// What each replica was given since the gateway first heard of it. Forgotten once no table names it and nothing
    /// is in flight to it.
    pub served: BTreeMap<ReplicaId, Served>,
    /// The longest time that a request was held since the last wake, and the time from its arrival to its first
    /// answer byte, in milliseconds; `None`: none was held yet.
    pub last_wake: Option<WakeTiming>,
    /// What it had to do, summed up over time.
    pub load: Load,
}

/// What a service had to do so far, as running sums: of two readings, the difference of a sum by that of the times is the average
/// in between, whatever came and went there.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Load {
    /// When this was read, in microseconds on a monotonic clock.
    pub at_us: u64,
    /// Requests in flight then, and TCP connections that were open; 0 unless [`ServiceRoute::is_scaled`].
    pub in_flight: u32,
    /// Requests and connections that were held then.
    pub held: u32,
    /// The time that requests were in flight, summed over all of them, in microseconds; 0 unless
    /// [`ServiceRoute::is_scaled`].
    pub in_flight_us: u64,
    /// The same of those that were held.
    pub held_us: u64,
}

/// How many requests (or, where no HTTP is spoken, connections) a replica was given, and how many went wrong.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Served {
    /// Those whose answer has begun or failed to come.
    pub requests: u64,
    /// Those of them whose answer was a 5xx, or broke off, or never came.
    pub errors: u64,
}

/// How long the last waking took, as a request saw it.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct WakeTiming {
    /// From arrival until it was sent on, in milliseconds.
    pub held_ms: f64,
    /// From arrival until the first byte of its answer, in milliseconds.
    pub answered_ms: f64,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn route(path: &str, exact: bool) -> PathRoute {
        PathRoute {
            path: path.to_owned(),
            exact,
            service: "shop/web".parse().expect("a service"),
            port: 80,
        }
    }

    #[test]
    fn a_path_is_found_by_whole_parts() {
        let api = route("/api", false);
        for path in ["/api", "/api/", "/api/v1"] {
            assert!(api.has(path), "{path}");
            assert!(route("/api/", false).has(path), "{path}");
            assert!(route("/", false).has(path), "{path}");
        }
        for path in ["/apis", "/", "/API"] {
            assert!(!api.has(path), "{path}");
        }
        assert!(route("/api", true).has("/api"));
        assert!(!route("/api", true).has("/api/"));
    }

    #[test]
    fn the_longest_path_comes_first_and_an_exact_one_before_its_like() {
        let mut routes = [
            route("/", false),
            route("/api", false),
            route("/api", true),
            route("/api/v1", false),
        ];
        routes.sort_by_key(PathRoute::rank);
        let shown: Vec<_> = routes.iter().map(|r| (r.path.as_str(), r.exact)).collect();
        let expected = [
            ("/api/v1", false),
            ("/api", true),
            ("/api", false),
            ("/", false),
        ];
        assert_eq!(shown, expected);
    }
}
