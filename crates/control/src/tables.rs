//! The routing table that the gateway gets, and the names that the network gets: every driver puts its service's entry
//! in, and the whole goes out at once. No hop, no await, no disk: this is on the path of every wake.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use layby_model::fail::{self, Point};
use layby_model::network::Networks;
use layby_model::route::{Listener, NameTable, PathRoute, RouteTable, ServiceRoute, Version};
use layby_model::{AppName, ReplicaId, ServiceId};
use tokio::sync::watch;

use crate::names::{self, Named, Seekers};

/// What the table says of one service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Entry {
    /// Its host names beside its app's.
    pub(crate) hosts: Vec<String>,
    /// The host names and paths of others that lead to it.
    pub(crate) paths: Vec<(String, PathRoute)>,
    /// The sockets that lead to it.
    pub(crate) listeners: Vec<Listener>,
    /// How its requests are treated.
    pub(crate) route: ServiceRoute,
    /// Its names in the app, and the address behind them; `None`: it has no address.
    pub(crate) named: Option<Named>,
}

/// The builder of tables.
pub(crate) struct Tables {
    out: watch::Sender<Arc<RouteTable>>,
    names: watch::Sender<Arc<NameTable>>,
    domain: String,
    inner: Mutex<Inner>,
}

struct Inner {
    /// Of the newest table; before the first went out, the version that it will have.
    version: Version,
    /// Services that have not put their entry in since the start: the first table waits for them, since
    /// one without them would turn their requests away.
    missing: BTreeSet<ServiceId>,
    sent: bool,
    services: BTreeMap<ServiceId, Slot>,
    /// The names of all services; of those whose entry is missing as the store had them.
    named: BTreeMap<ServiceId, Named>,
    /// The jobs that look names up.
    jobs: Seekers,
}

struct Slot {
    entry: Entry,
    /// The first table that shows it so.
    since: Version,
    /// Replicas that an earlier table named: the version of the last one that did.
    withdrawn: BTreeMap<ReplicaId, Version>,
}

impl Tables {
    /// Tables of the `life`-th start. The first goes out when each of `expected` has its entry in; the names go out at
    /// once.
    pub(crate) fn new(
        out: watch::Sender<Arc<RouteTable>>,
        names: watch::Sender<Arc<NameTable>>,
        domain: String,
        life: u32,
        expected: BTreeMap<ServiceId, Option<Named>>,
        jobs: Seekers,
    ) -> Self {
        let named = expected.iter();
        let named: BTreeMap<ServiceId, Named> = named
            .filter_map(|(id, named)| Some((id.clone(), named.clone()?)))
            .collect();
        names.send_replace(Arc::new(names::table(&named, &jobs)));
        let tables = Self {
            out,
            names,
            domain,
            inner: Mutex::new(Inner {
                version: Version { life, counter: 1 },
                missing: expected.into_keys().collect(),
                sent: false,
                services: BTreeMap::new(),
                named,
                jobs,
            }),
        };
        tables.send_first(&mut tables.lock());
        tables
    }

    /// Less than the version of every table of this start.
    pub(crate) fn base(&self) -> Version {
        let life = self.lock().version.life;
        Version { life, counter: 0 }
    }

    /// Puts the entry of a service in, and returns the version of the first table that shows it so.
    pub(crate) fn set(&self, service: &ServiceId, entry: Entry) -> Version {
        let mut inner = self.lock();
        self.set_names(&mut inner, service, entry.named.clone());
        let unchanged = inner
            .services
            .get(service)
            .is_some_and(|slot| slot.entry == entry);
        if !unchanged {
            let (named_until, sent) = (inner.version, inner.sent);
            let slot = inner
                .services
                .entry(service.clone())
                .or_insert_with(|| Slot {
                    entry: entry.clone(),
                    since: named_until,
                    withdrawn: BTreeMap::new(),
                });
            if sent {
                let gone = upstreams(&slot.entry).filter(|id| upstreams(&entry).all(|n| n != *id));
                slot.withdrawn
                    .extend(gone.map(|id| (id, named_until)).collect::<Vec<_>>());
            }
            slot.entry = entry;
            slot.since = match sent {
                true => next(named_until),
                false => named_until,
            };
            self.send_next(&mut inner);
        }
        inner.missing.remove(service);
        self.send_first(&mut inner);
        let slot = inner.services.get(service);
        slot.map_or(inner.version, |slot| slot.since)
    }

    /// Takes a service out.
    pub(crate) fn remove(&self, service: &ServiceId) {
        let mut inner = self.lock();
        inner.missing.remove(service);
        self.set_names(&mut inner, service, None);
        if inner.services.remove(service).is_some() {
            self.send_next(&mut inner);
        }
        self.send_first(&mut inner);
    }

    /// For each of a service's `replicas` that a table has named: the version of the last one that did. Others
    /// are forgotten.
    pub(crate) fn named(
        &self,
        service: &ServiceId,
        replicas: &BTreeSet<ReplicaId>,
    ) -> BTreeMap<ReplicaId, Version> {
        let mut inner = self.lock();
        let newest = inner.version;
        let Some(slot) = inner.services.get_mut(service) else {
            return BTreeMap::new();
        };
        slot.withdrawn.retain(|id, _| replicas.contains(id));
        let mut named = slot.withdrawn.clone();
        // Tables of other services' making name it too, as long as it is in.
        named.extend(upstreams(&slot.entry).map(|id| (id, newest)));
        named
    }

    /// From now on a job and its runs are in these sets of networks; none: it is gone.
    pub(crate) fn set_job(&self, job: &ServiceId, networks: BTreeSet<Networks>) {
        let mut inner = self.lock();
        let before = match networks.is_empty() {
            true => inner.jobs.remove(job),
            false => inner.jobs.insert(job.clone(), networks.clone()),
        };
        if before.unwrap_or_default() != networks {
            self.send_names(&inner);
        }
    }

    /// The same, of all jobs at once.
    pub(crate) fn set_jobs(&self, jobs: Seekers) {
        let mut inner = self.lock();
        if inner.jobs != jobs {
            inner.jobs = jobs;
            self.send_names(&inner);
        }
    }

    fn set_names(&self, inner: &mut Inner, service: &ServiceId, named: Option<Named>) {
        if inner.named.get(service) == named.as_ref() {
            return;
        }
        match named {
            Some(named) => inner.named.insert(service.clone(), named),
            None => inner.named.remove(service),
        };
        self.send_names(inner);
    }

    fn send_names(&self, inner: &Inner) {
        let table = names::table(&inner.named, &inner.jobs);
        self.names.send_if_modified(|sent| {
            let changed = **sent != table;
            if changed {
                *sent = Arc::new(table);
            }
            changed
        });
    }

    fn send_first(&self, inner: &mut Inner) {
        if !inner.sent && inner.missing.is_empty() {
            inner.sent = true;
            self.out.send_replace(Arc::new(self.table(inner)));
            fail::at(Point::AfterPublish);
        }
    }

    fn send_next(&self, inner: &mut Inner) {
        if inner.sent {
            inner.version = next(inner.version);
            self.out.send_replace(Arc::new(self.table(inner)));
            fail::at(Point::AfterPublish);
        }
    }

    fn table(&self, inner: &Inner) -> RouteTable {
        let mut table = RouteTable {
            version: inner.version,
            ..RouteTable::default()
        };
        let mut of_app: BTreeMap<&AppName, Vec<&ServiceId>> = BTreeMap::new();
        for (id, slot) in &inner.services {
            of_app.entry(&id.app).or_default().push(id);
            let hosts = slot.entry.hosts.iter();
            table
                .hosts
                .extend(hosts.map(|host| (host.clone(), id.clone())));
            for (host, path) in &slot.entry.paths {
                let of_host = table.paths.entry(host.clone()).or_default();
                of_host.push(path.clone());
            }
            table.listeners.extend(slot.entry.listeners.iter().cloned());
            table.services.insert(id.clone(), slot.entry.route.clone());
            if let Some(named) = &slot.entry.named {
                table.virtuals.insert(named.address, named.route.clone());
            }
        }
        for of_host in table.paths.values_mut() {
            of_host.sort_by_key(PathRoute::rank);
        }
        for (app, services) in of_app {
            // The app's own name leads to its only service, or to the one of the same name.
            let namesake = services
                .iter()
                .find(|id| id.service.as_str() == app.as_str());
            let only = services.first().filter(|_| services.len() == 1);
            if let Some(id) = namesake.or(only) {
                table
                    .hosts
                    .insert(format!("{app}.{}", self.domain), (*id).clone());
            }
        }
        table
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // Nothing panics while it is held; a poisoned lock still holds whole entries.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The version after this one, in the same life.
fn next(version: Version) -> Version {
    Version {
        counter: version.counter + 1,
        ..version
    }
}

fn upstreams(entry: &Entry) -> impl Iterator<Item = ReplicaId> {
    let upstreams = entry.route.mode.upstreams();
    upstreams.map(|upstream| upstream.replica)
}

#[cfg(test)]
mod tests {
    use layby_model::route::{Limits, Mode, Upstream, VirtualRoute};

    use super::*;

    fn id(text: &str) -> ServiceId {
        text.parse().expect("a service id")
    }

    fn entry(replicas: &[u64]) -> Entry {
        let upstreams: Vec<Upstream> = replicas
            .iter()
            .map(|n| Upstream {
                replica: ReplicaId(*n),
                ip: [127, 0, 0, 1].into(),
                concurrency: None,
            })
            .collect();
        Entry {
            hosts: Vec::new(),
            paths: Vec::new(),
            listeners: Vec::new(),
            route: ServiceRoute {
                mode: if upstreams.is_empty() {
                    Mode::Hold
                } else {
                    Mode::Serve {
                        upstreams,
                        canary: None,
                    }
                },
                port: Some(80),
                limits: Limits::default(),
                is_scaled: false,
            },
            named: None,
        }
    }

    /// Tables of start 3, and where they go.
    fn tables(expected: &[&str]) -> (Tables, watch::Receiver<Arc<RouteTable>>) {
        let (out, seen) = watch::channel(Arc::default());
        let expected = expected.iter().map(|text| (id(text), None)).collect();
        let names = watch::Sender::default();
        (
            Tables::new(out, names, "localhost".into(), 3, expected, Seekers::new()),
            seen,
        )
    }

    fn version(counter: u64) -> Version {
        Version { life: 3, counter }
    }

    #[test]
    fn the_first_table_waits_for_every_service_and_goes_out_even_when_empty() {
        let (_tables, seen) = tables(&[]);
        assert_eq!(seen.borrow().version, version(1));

        let (tables, seen) = tables(&["a/x", "b/y"]);
        assert_eq!(tables.set(&id("a/x"), entry(&[1])), version(1));
        assert_eq!(seen.borrow().version, Version::default());
        tables.set(&id("b/y"), entry(&[]));
        assert_eq!(seen.borrow().version, version(1));
        assert_eq!(seen.borrow().services.len(), 2);
    }

    #[test]
    fn a_replica_counts_as_named_by_the_tables_of_other_services_too() {
        let (tables, _seen) = tables(&[]);
        let one = BTreeSet::from([ReplicaId(1)]);
        tables.set(&id("a/x"), entry(&[1])); // 2
        tables.set(&id("b/y"), entry(&[2])); // 3 names replica 1 as well
        assert_eq!(tables.named(&id("a/x"), &one)[&ReplicaId(1)], version(3));
        assert_eq!(tables.set(&id("a/x"), entry(&[])), version(4));
        tables.set(&id("b/y"), entry(&[]));
        assert_eq!(tables.named(&id("a/x"), &one)[&ReplicaId(1)], version(3));
        assert!(tables.named(&id("a/x"), &BTreeSet::new()).is_empty());
    }

    #[test]
    fn an_entry_that_is_there_already_makes_no_table() {
        let (tables, seen) = tables(&[]);
        tables.set(&id("a/x"), entry(&[1]));
        tables.set(&id("a/x"), entry(&[1]));
        assert_eq!(seen.borrow().version, version(2));
        tables.set(&id("b/y"), entry(&[2]));
        let since = tables.set(&id("a/x"), entry(&[1]));
        assert_eq!(since, version(2), "what others change is not waited for");
    }

    #[test]
    fn the_longest_path_of_a_host_comes_first_whosever_it_is() {
        let (tables, seen) = tables(&[]);
        let path = |service: &str, path: &str| PathRoute {
            path: path.to_owned(),
            exact: false,
            service: id(service),
            port: 80,
        };
        for (service, at) in [("a/web", "/"), ("a/api", "/api")] {
            let paths = vec![("shop.example".to_owned(), path(service, at))];
            let entry = Entry {
                paths,
                ..entry(&[])
            };
            tables.set(&id(service), entry);
        }
        let expected = [path("a/api", "/api"), path("a/web", "/")];
        assert_eq!(seen.borrow().paths["shop.example"], expected);
        tables.remove(&id("a/api"));
        assert_eq!(seen.borrow().paths["shop.example"], expected[1..]);
    }

    #[test]
    fn the_apps_own_name_leads_to_its_only_service_or_its_namesake() {
        let (tables, seen) = tables(&[]);
        tables.set(&id("shop/web"), entry(&[]));
        assert_eq!(seen.borrow().hosts["shop.localhost"], id("shop/web"));
        tables.set(&id("shop/db"), entry(&[]));
        assert!(!seen.borrow().hosts.contains_key("shop.localhost"));
        tables.set(&id("shop/shop"), entry(&[]));
        assert_eq!(seen.borrow().hosts["shop.localhost"], id("shop/shop"));
    }

    #[test]
    fn names_go_out_at_once_and_then_with_every_change() {
        let named = |name: &str| Named {
            networks: BTreeSet::from([Networks::default()]),
            names: vec![name.to_owned()],
            on: BTreeMap::new(),
            shared: Vec::new(),
            address: [10, 1, 240, 1].into(),
            leads: true,
            elsewhere: BTreeMap::new(),
            route: VirtualRoute {
                service: id("a/x"),
                ports: BTreeMap::new(),
                datagrams: BTreeMap::new(),
            },
        };
        let shown = |seen: &watch::Receiver<Arc<NameTable>>| -> Vec<String> {
            let table = seen.borrow();
            table
                .apps
                .values()
                .flat_map(|app| app.keys().cloned())
                .collect()
        };
        let names = watch::Sender::default();
        let mut seen = names.subscribe();
        let expected = BTreeMap::from([(id("a/x"), Some(named("x")))]);
        let out = watch::Sender::default();
        let jobs = Seekers::new();
        let tables = Tables::new(out.clone(), names, "localhost".into(), 3, expected, jobs);
        assert_eq!(shown(&seen), ["x"], "though no entry is in");
        let entry = |name: &str| Entry {
            named: Some(named(name)),
            ..entry(&[])
        };
        seen.mark_unchanged();
        tables.set(&id("a/x"), entry("x"));
        assert!(!seen.has_changed().expect("it is there"));
        let address = std::net::Ipv4Addr::new(10, 1, 240, 1);
        assert_eq!(out.borrow().virtuals[&address].service, id("a/x"));
        tables.set(&id("a/x"), entry("y"));
        assert_eq!(shown(&seen), ["y"]);
        let of_job = BTreeSet::from([Networks {
            internal: true,
            ..Networks::default()
        }]);
        tables.set_job(&id("a/job"), of_job.clone());
        assert_eq!(shown(&seen), ["y", "y"], "the job finds it too");
        seen.mark_unchanged();
        tables.set_job(&id("a/job"), of_job);
        assert!(!seen.has_changed().expect("it is there"));
        tables.set_job(&id("a/job"), BTreeSet::new());
        assert_eq!(shown(&seen), ["y"]);
        tables.remove(&id("a/x"));
        assert_eq!(shown(&seen), [] as [String; 0]);
        assert!(out.borrow().virtuals.is_empty());
    }
}
