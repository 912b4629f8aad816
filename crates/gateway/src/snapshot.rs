//! A routing table made ready to be looked up in.

use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;

use layby_model::route::{
    self, Limits, Listener, Mode, PathRoute, Protocol, RouteTable, Share, VirtualPort, VirtualRoute,
};
use layby_model::{ReplicaId, ServiceId};

use crate::path::normal;
use crate::service::{ServiceState, UpstreamState};
use crate::slot::Slots;

/// What to do with a request for a service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Way {
    /// Answer 503, and say that it is disabled.
    Disabled,
    /// Answer 503.
    Refuse,
    /// Wait.
    Hold,
    /// Wait for a moment, then answer 503.
    Unhealthy,
    /// Answer 503: the node ends.
    Ending,
    /// Send it to one of these of [`Snapshot::upstreams`].
    Serve(Range<usize>),
}

/// One service.
#[derive(Debug)]
pub(crate) struct Service {
    pub(crate) state: Arc<ServiceState>,
    pub(crate) way: Way,
    /// Where some of its requests go instead.
    pub(crate) split: Option<Split>,
    pub(crate) port: Option<u16>,
    pub(crate) limits: Limits,
    /// Its requests are counted, and stand in line when its replicas are full.
    pub(crate) is_scaled: bool,
}

/// The canary of a service that serves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Split {
    /// Which requests it gets.
    pub(crate) share: Share,
    /// Its replicas, of [`Snapshot::upstreams`].
    pub(crate) upstreams: Range<usize>,
}

/// One replica that takes requests.
#[derive(Debug)]
pub(crate) struct Upstream {
    pub(crate) replica: ReplicaId,
    pub(crate) ip: IpAddr,
    pub(crate) state: Arc<UpstreamState>,
    /// Its places, where they are counted.
    pub(crate) slots: Option<Slots>,
}

impl Upstream {
    /// Whether it may be given no further request now.
    pub(crate) fn is_full(&self) -> bool {
        let slots = self.slots.as_ref();
        slots.is_some_and(|slots| slots.are_taken(&self.state))
    }

    /// How much it has to do: the least busy is taken.
    pub(crate) fn busy(&self) -> u32 {
        match &self.slots {
            None => self.state.in_flight.load(SeqCst),
            Some(_) => self.state.taken.load(SeqCst),
        }
    }
}

/// A table, compiled. Never changed: the next one replaces it.
#[derive(Debug, Default)]
pub(crate) struct Snapshot {
    /// Counts the swaps of this gateway's life.
    pub(crate) generation: u64,
    pub(crate) services: Vec<Service>,
    pub(crate) upstreams: Vec<Upstream>,
    table: Arc<RouteTable>,
    names: Arc<Names>,
    by_replica: HashMap<ReplicaId, usize>,
}

/// All by which a service is found; values are indices in [`Snapshot::services`].
#[derive(Debug, Default)]
struct Names {
    hosts: HashMap<Box<str>, usize>,
    /// Host names that lead by the path of a request.
    paths: HashMap<Box<str>, Vec<(PathRoute, usize)>>,
    listeners: HashMap<SocketAddr, (Listener, usize)>,
    virtuals: HashMap<Ipv4Addr, (VirtualRoute, usize)>,
    /// Where datagrams come in, with the port in the replicas.
    datagrams: HashMap<SocketAddr, (u16, usize)>,
    ids: HashMap<ServiceId, usize>,
}

impl Names {
    fn of(table: &RouteTable) -> Self {
        let ids = table.services.keys().cloned().zip(0..);
        let ids: HashMap<ServiceId, usize> = ids.collect();
        let host = |(host, id): (&String, _)| Some((host.as_str().into(), *ids.get(id)?));
        let path = |route: &PathRoute| {
            let path = normal(&route.path).into_owned();
            let route = PathRoute {
                path,
                ..route.clone()
            };
            let at = *ids.get(&route.service)?;
            Some((route, at))
        };
        let paths = table.paths.iter().map(|(host, paths)| {
            let mut paths: Vec<_> = paths.iter().filter_map(path).collect();
            paths.sort_by_key(|(route, _)| route.rank()); // by what they mean they may be shorter
            (host.as_str().into(), paths)
        });
        let paths = paths.collect();
        let listener = |l: &Listener| Some((l.addr, (l.clone(), *ids.get(&l.service)?)));
        let virtual_ = |(ip, route): (&Ipv4Addr, &VirtualRoute)| {
            Some((*ip, (route.clone(), *ids.get(&route.service)?)))
        };
        let (datagrams, connections): (Vec<_>, Vec<_>) =
            listeners(table).partition(|listener| listener.socket().is_udp);
        let datagrams = datagrams.iter().filter_map(|listener| {
            let (target, service) = (listener.target, *ids.get(&listener.service)?);
            Some((listener.addr, (target, service)))
        });
        let datagrams = datagrams.collect();
        Self {
            hosts: table.hosts.iter().filter_map(host).collect(),
            paths,
            listeners: connections.iter().filter_map(listener).collect(),
            datagrams,
            virtuals: table.virtuals.iter().filter_map(virtual_).collect(),
            ids,
        }
    }
}

/// All that `table` asks to be listened on: its listeners, and the UDP ports of virtual addresses.
pub(crate) fn listeners(table: &RouteTable) -> impl Iterator<Item = Listener> {
    let of_virtual = |(ip, route): (&Ipv4Addr, &VirtualRoute)| {
        let (ip, service) = (*ip, route.service.clone());
        let ports: Vec<(u16, u16)> = route.datagrams.iter().map(|(p, t)| (*p, *t)).collect();
        ports.into_iter().map(move |(port, target)| Listener {
            addr: SocketAddr::from((ip, port)),
            service: service.clone(),
            target,
            protocol: Protocol::Udp,
        })
    };
    let virtuals = table.virtuals.iter().flat_map(of_virtual);
    table.listeners.iter().cloned().chain(virtuals)
}

/// The states of all services, by their ids.
pub(crate) type States = BTreeMap<ServiceId, Arc<ServiceState>>;

impl Snapshot {
    /// Compiles `table`, the one after `before`, taking over from `states` what is known of its services
    /// and replicas.
    ///
    /// A service that wakes waits for this, and the others may be a thousand that sleep: what is the same
    /// as before is not made again.
    pub(crate) fn compile(table: &Arc<RouteTable>, before: &Self, states: &mut States) -> Self {
        let same_services = before.table.services.keys().eq(table.services.keys());
        let same_names = same_services
            && before.table.hosts == table.hosts
            && before.table.paths == table.paths
            && before.table.listeners == table.listeners
            && before.table.virtuals == table.virtuals;
        let mut snapshot = Self {
            generation: before.generation + 1,
            services: Vec::with_capacity(table.services.len()),
            upstreams: Vec::new(),
            table: Arc::clone(table),
            names: if same_names {
                Arc::clone(&before.names)
            } else {
                Arc::new(Names::of(table))
            },
            by_replica: HashMap::new(),
        };
        for (at, (id, route)) in table.services.iter().enumerate() {
            let state = if same_services {
                Arc::clone(&before.services[at].state)
            } else {
                let new = || Arc::new(ServiceState::new(id.clone()));
                Arc::clone(states.entry(id.clone()).or_insert_with(new))
            };
            let (way, split) = match &route.mode {
                Mode::Disabled => (Way::Disabled, None),
                Mode::Refuse => (Way::Refuse, None),
                Mode::Hold => (Way::Hold, None),
                Mode::Unhealthy => (Way::Unhealthy, None),
                Mode::Serve { upstreams, canary } => {
                    snapshot.serve(&state, upstreams, canary, route.is_scaled)
                }
            };
            snapshot.services.push(Service {
                state,
                way,
                split,
                port: route.port,
                limits: route.limits,
                is_scaled: route.is_scaled,
            });
        }
        snapshot
    }

    /// What it was made of.
    pub(crate) fn table(&self) -> Arc<RouteTable> {
        Arc::clone(&self.table)
    }

    /// The same, but that nothing is sent to any replica.
    pub(crate) fn turning_away(mut self) -> Self {
        for service in &mut self.services {
            (service.way, service.split) = (Way::Ending, None);
        }
        self.upstreams.clear();
        self.by_replica.clear();
        self
    }

    fn serve(
        &mut self,
        state: &Arc<ServiceState>,
        upstreams: &[route::Upstream],
        canary: &Option<route::Canary>,
        is_scaled: bool,
    ) -> (Way, Option<Split>) {
        let live = self.add_upstreams(state, upstreams, is_scaled);
        if live.is_empty() {
            return (Way::Hold, None); // such a table is not made; to wait is the harmless reading
        }
        let split = canary.as_ref().map(|canary| Split {
            share: canary.share.clone(),
            upstreams: self.add_upstreams(state, &canary.upstreams, is_scaled),
        });
        (Way::Serve(live), split)
    }

    fn add_upstreams(
        &mut self,
        state: &Arc<ServiceState>,
        upstreams: &[route::Upstream],
        is_scaled: bool,
    ) -> Range<usize> {
        let start = self.upstreams.len();
        for upstream in upstreams {
            self.by_replica
                .insert(upstream.replica, self.upstreams.len());
            self.upstreams.push(Upstream {
                replica: upstream.replica,
                ip: upstream.ip,
                state: state.upstream(upstream.replica),
                slots: is_scaled.then(|| Slots {
                    most: upstream.concurrency.unwrap_or(u32::MAX),
                    service: Arc::clone(state),
                }),
            });
        }
        start..self.upstreams.len()
    }

    /// The service of a host name in lower case.
    pub(crate) fn host(&self, name: &str) -> Option<usize> {
        self.names.hosts.get(name).copied()
    }

    /// Whether any host name leads by the path of a request.
    pub(crate) fn has_paths(&self) -> bool {
        !self.names.paths.is_empty()
    }

    /// Whether a host name in lower case leads by the path of a request.
    pub(crate) fn leads_by_path(&self, host: &str) -> bool {
        self.names.paths.contains_key(host)
    }

    /// The service, and the port in it, of a path of a host name in lower case, or of the pattern that has the name.
    pub(crate) fn by_path(&self, host: &str, path: &str) -> Option<(usize, u16)> {
        let of = |host: &str| {
            let paths = self.names.paths.get(host)?;
            let (found, service) = paths.iter().find(|(known, _)| known.has(path))?;
            Some((*service, found.port))
        };
        of(host).or_else(|| {
            let (_, domain) = host.split_once('.')?;
            of(&format!("*.{domain}"))
        })
    }

    /// What the listener on `addr` leads to, and the index of that service.
    pub(crate) fn listener(&self, addr: &SocketAddr) -> Option<&(Listener, usize)> {
        self.names.listeners.get(addr)
    }

    /// Where a port of a virtual address leads, and the index of its service. A port that nobody declared leads to the
    /// same port, as TCP.
    pub(crate) fn virtual_port(&self, addr: SocketAddr) -> Option<(VirtualPort, usize)> {
        let IpAddr::V4(ip) = addr.ip() else {
            return None;
        };
        let (route, service) = self.names.virtuals.get(&ip)?;
        let port = route.ports.get(&addr.port()).copied();
        let same = VirtualPort {
            target: addr.port(),
            protocol: Protocol::Tcp,
        };
        Some((port.unwrap_or(same), *service))
    }

    /// Where the datagrams lead that come in on `addr`: the port in the replicas, and the index of the service.
    pub(crate) fn datagrams(&self, addr: &SocketAddr) -> Option<(u16, usize)> {
        self.names.datagrams.get(addr).copied()
    }

    /// The service with `id`.
    pub(crate) fn service(&self, id: &ServiceId) -> Option<&Service> {
        self.names.ids.get(id).map(|at| &self.services[*at])
    }

    /// The index of the service with `id`.
    pub(crate) fn service_index(&self, id: &ServiceId) -> Option<usize> {
        self.names.ids.get(id).copied()
    }

    /// The index of a replica that takes requests.
    pub(crate) fn replica(&self, replica: ReplicaId) -> Option<usize> {
        self.by_replica.get(&replica).copied()
    }
}

#[cfg(test)]
mod tests {
    use layby_model::route::ServiceRoute;

    use super::*;

    /// A table of services that hold, each with the hosts given.
    fn table(services: &[(&str, &[&str])]) -> Arc<RouteTable> {
        let mut table = RouteTable::default();
        for (id, hosts) in services {
            let id: ServiceId = id.parse().expect("a service id");
            for host in *hosts {
                table.hosts.insert((*host).to_owned(), id.clone());
            }
            let route = ServiceRoute {
                mode: Mode::Hold,
                port: Some(80),
                limits: Limits::default(),
                is_scaled: false,
            };
            table.services.insert(id, route);
        }
        Arc::new(table)
    }

    /// The id of the service that `host` leads to.
    fn leads(snapshot: &Snapshot, host: &str) -> Option<String> {
        let at = snapshot.host(host)?;
        Some(snapshot.services[at].state.id.to_string())
    }

    #[test]
    fn names_follow_the_tables_and_states_stay() {
        let mut states = States::new();
        let mut next = |table: &Arc<RouteTable>, before: &Snapshot| {
            Snapshot::compile(table, before, &mut states)
        };
        let tables = [
            table(&[("b/b", &["b.x"])]),
            table(&[("b/b", &["b.x"]), ("c/c", &["c.x"])]),
            table(&[("a/a", &["a.x"]), ("b/b", &["b.x"]), ("c/c", &["c.x"])]),
            table(&[
                ("a/a", &["a.x"]),
                ("b/b", &["new.x"]),
                ("c/c", &["b.x", "c.x"]),
            ]),
            table(&[
                ("a/a", &["a.x"]),
                ("b/b", &["new.x"]),
                ("c/c", &["b.x", "c.x"]),
            ]),
            table(&[("b/b", &["new.x"])]),
        ];
        let mut snapshot = Snapshot::default();
        let mut first = None;
        for table in &tables {
            snapshot = next(table, &snapshot);
            for (host, id) in &table.hosts {
                assert_eq!(leads(&snapshot, host), Some(id.to_string()), "{host}");
            }
            let id = "b/b".parse().expect("a service id");
            let state = &snapshot.service(&id).expect("it is in all tables").state;
            let first = first.get_or_insert_with(|| Arc::clone(state));
            assert!(Arc::ptr_eq(first, state));
        }
        assert_eq!(leads(&snapshot, "b.x"), None);
        assert_eq!(leads(&snapshot, "a.x"), None);
        assert_eq!(snapshot.generation, 6);
    }
}
