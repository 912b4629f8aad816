//! A routing table made ready to be looked up in.

use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, SocketAddr};
use std::ops::Range;
use std::sync::Arc;

use layby_model::route::{Limits, Listener, Mode, RouteTable};
use layby_model::{ReplicaId, ServiceId};

use crate::service::{ServiceState, UpstreamState};

/// What to do with a request for a service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Way {
    /// Answer 503.
    Refuse,
    /// Wait.
    Hold,
    /// Send it to one of these of [`Snapshot::upstreams`].
    Serve(Range<usize>),
}

/// One service.
#[derive(Debug)]
pub(crate) struct Service {
    pub(crate) state: Arc<ServiceState>,
    pub(crate) way: Way,
    pub(crate) port: Option<u16>,
    pub(crate) limits: Limits,
}

/// One replica that takes requests.
#[derive(Debug)]
pub(crate) struct Upstream {
    pub(crate) replica: ReplicaId,
    pub(crate) ip: IpAddr,
    pub(crate) state: Arc<UpstreamState>,
}

/// A table, compiled. Never changed: the next one replaces it.
#[derive(Debug, Default)]
pub(crate) struct Snapshot {
    /// Counts the swaps of this gateway's life.
    pub(crate) generation: u64,
    pub(crate) services: Vec<Service>,
    pub(crate) upstreams: Vec<Upstream>,
    hosts: HashMap<Box<str>, usize>,
    listeners: HashMap<SocketAddr, (Listener, usize)>,
    by_id: HashMap<ServiceId, usize>,
    by_replica: HashMap<ReplicaId, usize>,
}

/// The states of all services, by their ids.
pub(crate) type States = BTreeMap<ServiceId, Arc<ServiceState>>;

impl Snapshot {
    /// Compiles `table`, taking over from `states` what is known of its services and replicas.
    pub(crate) fn compile(table: &RouteTable, generation: u64, states: &mut States) -> Self {
        let mut snapshot = Self {
            generation,
            ..Self::default()
        };
        for (id, route) in &table.services {
            let state = states
                .entry(id.clone())
                .or_insert_with(|| Arc::new(ServiceState::new(id.clone())));
            let way = match &route.mode {
                Mode::Refuse => Way::Refuse,
                Mode::Hold => Way::Hold,
                Mode::Serve { upstreams } => {
                    let start = snapshot.upstreams.len();
                    for upstream in upstreams {
                        let at = snapshot.upstreams.len();
                        snapshot.by_replica.insert(upstream.replica, at);
                        snapshot.upstreams.push(Upstream {
                            replica: upstream.replica,
                            ip: upstream.ip,
                            state: state.upstream(upstream.replica),
                        });
                    }
                    if upstreams.is_empty() {
                        Way::Hold
                    } else {
                        Way::Serve(start..snapshot.upstreams.len())
                    }
                }
            };
            snapshot.by_id.insert(id.clone(), snapshot.services.len());
            snapshot.services.push(Service {
                state: Arc::clone(state),
                way,
                port: route.port,
                limits: route.limits,
            });
        }
        for (host, id) in &table.hosts {
            if let Some(at) = snapshot.by_id.get(id) {
                snapshot.hosts.insert(host.as_str().into(), *at);
            }
        }
        for listener in &table.listeners {
            if let Some(at) = snapshot.by_id.get(&listener.service) {
                let leads = (listener.clone(), *at);
                snapshot.listeners.insert(listener.addr, leads);
            }
        }
        snapshot
    }

    /// The service of a host name in lower case.
    pub(crate) fn host(&self, name: &str) -> Option<usize> {
        self.hosts.get(name).copied()
    }

    /// What the listener on `addr` leads to, and the index of that service.
    pub(crate) fn listener(&self, addr: &SocketAddr) -> Option<&(Listener, usize)> {
        self.listeners.get(addr)
    }

    /// The service with `id`.
    pub(crate) fn service(&self, id: &ServiceId) -> Option<&Service> {
        self.by_id.get(id).map(|at| &self.services[*at])
    }

    /// The index of the service with `id`.
    pub(crate) fn service_index(&self, id: &ServiceId) -> Option<usize> {
        self.by_id.get(id).copied()
    }

    /// The index of a replica that takes requests.
    pub(crate) fn replica(&self, replica: ReplicaId) -> Option<usize> {
        self.by_replica.get(&replica).copied()
    }
}
