//! The fake engine: the real interface in memory, with failures that the image's name orders.
//!
//! | the first container's image | what its replicas do |
//! |---|---|
//! | `fake/ok`, any other name | start, and answer after 5 ms |
//! | `fake/slow:200ms` | start, and answer after 200 ms |
//! | `fake/hangs` | start, and never answer |
//! | `fake/exits:3` | end with code 3 as soon as they are started |
//! | `fake/oom` | end for want of memory (code 137) as soon as they are started |
//! | `fake/crashes-after:500ms` | answer, and end with code 1 after having run for 500 ms |
//! | `fake/vanishes-after:500ms` | answer, and are lost after having run for 500 ms |
//! | `fake/slow-stop:200ms` | answer, and take 200 ms to stop |
//! | `fake/stuck-log` | end with code 0 as soon as they are started; their log does not come |
//! | `fake/missing` | cannot be prepared, fatally: there is no such image |
//! | `fake/no-command` | cannot be started, fatally: there is no such command |
//! | `fake/full-disk` | cannot be prepared now: the disk is full |
//!
//! Lengths are written as `5ms`, `2s` or `1m`. A part before `fake/` (`docker.io/`) does not matter, nor
//! does the tag `latest`. Time is tokio's, so that a test may pause it; a frozen replica's does not go on.
//!
//! A container that is given one of the commands below as its entrypoint does that and ends, whatever its image is called; one
//! that only holds itself open for commands starts, and does nothing.
//!
//! Another container than the first runs for as long as the replica does, or ends as its image or command says. Where a service has
//! several, one that ends is started again alone, after a pause. (While it is frozen, the time of these goes on.)
//!
//! A container that runs before the others ends well after 5 ms, or does what its image or command says; `fake/hangs` never ends.
//! Hooks that are commands or pauses are carried out, a request is answered at once.
//!
//! Commands for `exec`: `true`, `false`, `exit N`, `echo WORDS`, `sleep LENGTH`, `printenv NAME`; any other is not found (127). With
//! somebody at its other end also `cat`, which says what it is told, and `size`, which says the size of its terminal at
//! first and whenever that changes; both until their input is at its end.
//!
//! Each replica has an address of its own, in 127.0.0.0/8 unless said otherwise, on which nothing listens unless a test does.

mod access;
mod alone;
mod body;
mod exec;
mod files;
mod log;
mod script;
mod session;
mod start;
mod values;
mod volumes;

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use layby_model::engine::{
    BoxFuture, BoxStream, Engine, EngineError, EngineTraits, ExecOutput, LogLine, LogQuery,
    Workload,
};
use layby_model::replica::{Exit, ReplicaReport};
use layby_model::secret::SecretWire;
use layby_model::spec::ContainerSpec;
use layby_model::{ReplicaId, ServiceId, Wakefulness};

use crate::lifecycle::Actual;
use crate::roster::Roster;
use body::Body;
use files::Files;
use log::Log;
use script::Script;
use volumes::Volumes;

/// How a fake engine shows itself.
#[derive(Debug, Clone, Copy)]
pub struct FakeOptions {
    /// It says itself when a replica is ready; if not, every running replica is reported as starting.
    pub reports_health: bool,
    /// It can freeze replicas.
    pub can_doze: bool,
    /// Its replicas have addresses after this one, in a network of 16 bits.
    pub addresses: Ipv4Addr,
}

impl Default for FakeOptions {
    fn default() -> Self {
        Self {
            reports_health: true,
            can_doze: true,
            // 127.0.0.x is what people use for themselves.
            addresses: Ipv4Addr::new(127, 0, 1, 0),
        }
    }
}

/// The fake engine. Its replicas live as long as the tokio runtime that they were ordered on.
#[derive(Debug)]
pub struct Fake {
    shared: Arc<Shared>,
}

/// What the engine and its replicas' tasks share.
#[derive(Debug)]
struct Shared {
    options: FakeOptions,
    roster: Roster,
    volumes: Volumes,
    secrets: SecretWire,
    bodies: Mutex<Bodies>,
}

#[derive(Debug, Default)]
struct Bodies {
    by_id: BTreeMap<ReplicaId, Arc<Body>>,
    /// Counts addresses; those of replicas that are gone are used again only after all others were.
    last_address: u32,
}

impl Fake {
    /// An engine without replicas.
    pub fn new(options: FakeOptions) -> Self {
        Self {
            shared: Arc::new(Shared {
                options,
                roster: Roster::default(),
                volumes: Volumes::default(),
                secrets: SecretWire::default(),
                bodies: Mutex::default(),
            }),
        }
    }

    /// Where it asks for the values of secrets.
    pub fn secrets(&self) -> SecretWire {
        self.shared.secrets.clone()
    }

    /// Ends the first container of a running replica with `code`, as if it had crashed. Whether there was one.
    pub fn crash(&self, replica: ReplicaId, code: i32) -> bool {
        self.shared.end(replica, 0, Exit { code, oom: false })
    }

    /// Loses a replica: it will never run again. Whether there was one.
    pub fn lose(&self, replica: ReplicaId) -> bool {
        self.shared.lose(replica)
    }
}

impl Shared {
    fn body(&self, id: ReplicaId) -> Option<Arc<Body>> {
        let bodies = self.bodies.lock().unwrap_or_else(PoisonError::into_inner);
        bodies.by_id.get(&id).cloned()
    }

    /// Makes the body of a replica that was just accepted.
    fn embody(&self, id: ReplicaId) -> Option<Arc<Body>> {
        let spec = self.roster.get(id)?.spec?;
        let nothing = ContainerSpec::new("", "");
        let first = spec.service.containers.first().unwrap_or(&nothing);
        let mut bodies = self.bodies.lock().unwrap_or_else(PoisonError::into_inner);
        let taken: Vec<Ipv4Addr> = bodies.by_id.values().map(|body| body.address).collect();
        let address = loop {
            bodies.last_address = bodies.last_address % 0xfffe + 1;
            let address = u32::from(self.options.addresses) + bodies.last_address;
            let address = Ipv4Addr::from(address);
            if !taken.contains(&address) {
                break address;
            }
        };
        let body = Arc::new(Body {
            script: Script::of(first),
            says: script::says(first),
            image: first.image.clone(),
            address,
            first_pid: i32::try_from(bodies.last_address).unwrap_or(0) * 100,
            log: Log::default(),
            stops: tokio::sync::watch::Sender::default(),
            files: Files::default(),
            done: std::sync::atomic::AtomicUsize::new(0),
            lying: Mutex::default(),
            env: Mutex::default(),
        });
        bodies.by_id.insert(id, Arc::clone(&body));
        Some(body)
    }

    /// Forgets a replica that is gone.
    fn forget(&self, id: ReplicaId) {
        let mut bodies = self.bodies.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(body) = bodies.by_id.remove(&id) {
            body.log.close();
        }
        drop(bodies);
        self.roster.remove(id);
    }

    fn lose(&self, id: ReplicaId) -> bool {
        let lost = self.roster.change(id, |entry| {
            entry.actual = Actual::Lost;
            for container in &mut entry.containers {
                container.pid = None;
            }
        });
        lost.is_some()
    }
}

impl Engine for Fake {
    fn traits(&self) -> EngineTraits {
        EngineTraits {
            can_doze: self.shared.options.can_doze,
            reports_health: self.shared.options.reports_health,
            can_exec: true,
        }
    }

    fn apply<'a>(&'a self, workload: &'a Workload) -> BoxFuture<'a, Result<(), EngineError>> {
        Box::pin(async move {
            let shallow = (!self.shared.options.can_doze).then(|| without_dozing(workload));
            for id in self
                .shared
                .roster
                .accept(shallow.as_ref().unwrap_or(workload))?
            {
                if let Some(body) = self.shared.embody(id) {
                    tokio::spawn(body::run(Arc::clone(&self.shared), id, body));
                }
            }
            Ok(())
        })
    }

    fn observe<'a>(
        &'a self,
        service: Option<&'a ServiceId>,
    ) -> BoxFuture<'a, Result<Vec<ReplicaReport>, EngineError>> {
        Box::pin(async move { Ok(self.shared.roster.reports(service)) })
    }

    fn changes(&self) -> BoxStream<'static, Option<ServiceId>> {
        self.shared.roster.changes()
    }

    fn logs<'a>(
        &'a self,
        replica: ReplicaId,
        query: LogQuery,
    ) -> BoxFuture<'a, Result<BoxStream<'static, LogLine>, EngineError>> {
        Box::pin(async move {
            let entry = self.shared.roster.get(replica);
            let entry = entry.ok_or_else(|| missing(replica))?;
            entry.container(replica, query.container.as_deref())?;
            let body = self.shared.body(replica);
            let body = body.ok_or_else(|| missing(replica))?;
            if body.script.log_is_stuck {
                let stuck: BoxStream<'static, LogLine> = Box::pin(futures_util::stream::pending());
                return Ok(stuck);
            }
            Ok(body.log.read(&query))
        })
    }

    fn exec<'a>(
        &'a self,
        replica: ReplicaId,
        container: Option<&'a str>,
        argv: &'a [String],
        timeout_ms: u64,
    ) -> BoxFuture<'a, Result<ExecOutput, EngineError>> {
        Box::pin(async move {
            let entry = self.shared.roster.get(replica);
            let entry = entry.ok_or_else(|| missing(replica))?;
            entry.container(replica, container)?;
            if !matches!(entry.actual, Actual::Running | Actual::Ready) {
                let text = format!("replica {replica} does not run: wake its service first");
                return Err(EngineError::NotFound(text));
            }
            let timeout = Duration::from_millis(timeout_ms);
            let body = self.shared.body(replica);
            let body = body.ok_or_else(|| missing(replica))?;
            match tokio::time::timeout(timeout, exec::exec(&body, argv)).await {
                Ok(output) => Ok(output),
                Err(_) => Err(EngineError::Failed(format!(
                    "the command {argv:?} in replica {replica} took longer than {timeout_ms} ms"
                ))),
            }
        })
    }

    fn end<'a>(
        &'a self,
        replica: ReplicaId,
        container: &'a str,
        _grace_ms: Option<u64>,
    ) -> BoxFuture<'a, Result<(), EngineError>> {
        Box::pin(async move {
            let entry = self.shared.roster.get(replica);
            let entry = entry.ok_or_else(|| missing(replica))?;
            let name = entry.container(replica, Some(container))?;
            let number = entry.containers.iter().position(|known| known.name == name);
            let killed = Exit {
                code: 137,
                oom: false,
            };
            let ended = number.is_some_and(|number| self.shared.end(replica, number, killed));
            ended.then_some(()).ok_or_else(|| {
                let text = format!("container {name} of replica {replica} does not run");
                EngineError::NotFound(text)
            })
        })
    }
}

/// The order as an engine takes it that cannot freeze: dozing is asleep.
fn without_dozing(workload: &Workload) -> Workload {
    let mut workload = workload.clone();
    for depth in workload.replicas.values_mut() {
        if *depth == Wakefulness::Dozing {
            *depth = Wakefulness::Asleep;
        }
    }
    workload
}

fn missing(replica: ReplicaId) -> EngineError {
    EngineError::NotFound(format!("there is no replica {replica}"))
}

/// The address as a report gives it.
fn address_of(body: &Body) -> Option<IpAddr> {
    Some(IpAddr::V4(body.address))
}
