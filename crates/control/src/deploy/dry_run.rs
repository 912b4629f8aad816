//! The dry run: the same decisions, carried out by a world that obliges at once, and told.

use std::collections::BTreeSet;
use std::sync::Arc;

use layby_model::names::ServiceName;
use layby_model::plan::{self, Desired, GatewayReport, Observed, Replica, Step};
use layby_model::replica::Phase;
use layby_model::route::Version;
use layby_model::spec::{AppSpec, Condition, RestartPolicy, ServiceSpec, Strategy};
use layby_model::{ReplicaId, RevisionId, ServiceId, Wakefulness};
use tokio::sync::mpsc;

use super::commit::has_ended;
use super::images::{self, Build};
use super::pulls::Pull;
use super::{canary, current, revision};
use crate::api::types::{Event, Problem};
use crate::driver;
use crate::plane::Plane;
use crate::reach::Reach;
use crate::store::{Row, enabled_after};

/// So many looks are enough for any rollout; more would mean that it never settles.
const LOOKS: usize = 1_000;

/// Tells the steps of a deploy, without doing any.
pub(crate) async fn run(
    reach: &Arc<Reach>,
    app: &AppSpec,
    scaled: &BTreeSet<ServiceName>,
    builds: &[Build],
    pulls: &[Pull],
    events: &mpsc::Sender<Event>,
) -> Result<(), Problem> {
    let plane = reach.plane();
    let rows = plane.store.services().await?;
    let (app, _) = super::power::settle(plane, &rows, app).await?;
    for service in &app.services {
        let id = ServiceId::new(app.name.clone(), service.name.clone());
        let mut texts = Vec::new();
        for build in builds.iter().filter(|b| b.service == service.name.as_str()) {
            texts.push(format!(
                "build the image {} from {}",
                build.tag, build.body.folder
            ));
        }
        for pull in pulls.iter().filter(|p| p.service == service.name.as_str()) {
            texts.push(format!("pull the image {}", pull.name));
        }
        if service.job.is_some() {
            texts.extend(crate::jobs::steps(plane, &id, service));
            for text in texts {
                let service = id.to_string();
                let _ = events.send(Event::Step { service, text }).await;
            }
            continue;
        }
        let row = rows.iter().find(|row| row.service == id);
        let asked = scaled.contains(&service.name);
        let to_build = service.containers.iter().any(|container| {
            let name = images::name(&app.name, service, container);
            builds.iter().any(|build| build.tag == name)
                || pulls.iter().any(|pull| pull.name == name)
        });
        let made = revision::resolve(reach, &app.name, service, &rows, super::BY_UP, "");
        let changes = match made.await {
            Ok(new) => row.is_none_or(|row| {
                let (counts, current) = current(row);
                let rescales = asked && super::rescales(&rows, &id, service);
                !counts || *current.spec != new.spec || has_ended(plane, &id) || rescales
            }),
            // The image that is to be built or pulled is not there yet.
            Err(_) if to_build => true,
            Err(problem) => return Err(problem),
        };
        if changes || to_build {
            if let Some(text) = row.and_then(canary::ends) {
                let _ = events.send(Event::Warning { text }).await;
            }
            if !changes {
                texts.push("nothing more if that image is the one that runs already; else:".into());
            }
            let replicas = super::unscaled(&rows, &id, service, asked);
            let (d, o) = begin(plane, row, service, &id, replicas);
            for dependency in &service.depends_on {
                let until = match dependency.condition {
                    Condition::Started => "started",
                    Condition::Healthy => "live",
                    Condition::Completed => "done",
                };
                texts.push(format!("wait until {} is {until}", dependency.service));
            }
            if !d.enabled {
                texts.push("it is disabled: nothing of it runs until it is enabled".into());
            }
            texts.extend(simulate(d, o));
        } else {
            texts.push("nothing: it is as the manifest wants it".into());
        }
        for text in texts {
            let service = id.to_string();
            let _ = events.send(Event::Step { service, text }).await;
        }
    }
    Ok(())
}

/// How the world stands once the new revision is written.
fn begin(
    plane: &Plane,
    row: Option<&Row>,
    spec: &ServiceSpec,
    id: &ServiceId,
    replicas: u32,
) -> (Desired, Observed) {
    let target = RevisionId(row.map_or(0, |row| row.target.id.0) + 1);
    let before = row.map(driver::desired);
    let d = Desired {
        enabled: enabled_after(row, spec, false),
        target: Some(target),
        live: before.as_ref().and_then(|d| d.live),
        target_failed: false,
        retries: 0,
        failed_attempts: 0,
        deadline_ms: 1,
        deadline_max_ms: 1,
        share: None,
        stop_first: spec.strategy == Strategy::StopFirst,
        replicas,
        wanted: before.map_or(Wakefulness::Awake, |d| d.wanted),
        ladder: spec.sleep,
        drain_ms: spec.drain_ms,
        generation: 0,
    };
    let facts = plane.facts.of(id);
    let replicas = facts.iter().map(|report| Replica {
        id: report.id,
        revision: report.revision,
        phase: settled(report.phase),
        failed_starts: 0,
        crashed: false,
        ended: None,
        restart: RestartPolicy::Always,
        unhealthy: false,
        stale: false,
    });
    let mut o = Observed {
        now_ms: 0,
        replicas: replicas.collect(),
        vacancies: Vec::new(),
        published: None,
        base: Version {
            life: 1,
            counter: 0,
        },
        named: Default::default(),
        gateway: Some(GatewayReport::default()),
        hopeless: None,
        progress: 0,
        blocked: None,
        since: Default::default(),
    };
    // The route of today is no step: it is published already.
    let today = Desired {
        target: d.live,
        ..d.clone()
    };
    for step in plan::next_steps(&today, &o, today.wanted) {
        if matches!(step, Step::Publish(_)) {
            take(&mut today.clone(), &mut o, &step);
        }
    }
    (d, o)
}

/// Where a replica is once it has arrived.
fn settled(phase: Phase) -> Phase {
    match phase {
        Phase::Starting => Phase::Ready,
        Phase::Freezing => Phase::Frozen,
        Phase::Stopping => Phase::Stopped,
        Phase::Ready | Phase::Frozen | Phase::Stopped | Phase::Lost | Phase::Removing => phase,
    }
}

/// The steps until nothing is left to do.
fn simulate(mut d: Desired, mut o: Observed) -> Vec<String> {
    let mut texts = Vec::new();
    for _ in 0..LOOKS {
        let steps = plan::next_steps(&d, &o, d.wanted);
        if steps.is_empty() {
            break;
        }
        for step in steps {
            texts.push(driver::describe(&step));
            take(&mut d, &mut o, &step);
            if matches!(step, Step::GoLive(_) | Step::Fail(..) | Step::Retry(..)) {
                break; // a decision was written: look again
            }
        }
    }
    texts
}

/// Does one step in the obliging world: replicas are ready at once, and the gateway confirms every table.
fn take(d: &mut Desired, o: &mut Observed, step: &Step) {
    let mut set = |id: &ReplicaId, phase: Phase| {
        if let Some(replica) = o.replicas.iter_mut().find(|r| r.id == *id) {
            replica.phase = phase;
        }
    };
    match step {
        Step::GoLive(revision) => {
            d.live = Some(*revision);
            d.wanted = Wakefulness::Awake;
        }
        Step::Fail(..) => d.target_failed = true,
        Step::Retry(..) => d.failed_attempts += 1,
        Step::Publish(route) => {
            let gateway = o.gateway.get_or_insert_default();
            let counter = gateway.confirmed.counter.max(o.base.counter) + 1;
            gateway.confirmed = Version {
                life: o.base.life,
                counter,
            };
            let named = route.named();
            o.named.extend(named.map(|id| (id, gateway.confirmed)));
            o.published = Some(route.clone());
        }
        Step::Create(revision) => {
            let newest = o.replicas.iter().map(|r| r.id.0).max().unwrap_or(0);
            o.replicas.push(Replica {
                id: ReplicaId(newest + 1),
                revision: *revision,
                phase: Phase::Stopped,
                failed_starts: 0,
                crashed: false,
                ended: None,
                restart: RestartPolicy::Always,
                unhealthy: false,
                stale: false,
            });
        }
        Step::Start(id) | Step::Thaw(id) => set(id, Phase::Ready),
        Step::Freeze(id) => set(id, Phase::Frozen),
        Step::Sleep(id) => set(id, Phase::Stopped),
        Step::Remove(id) => o.replicas.retain(|r| r.id != *id),
        Step::WriteWakefulness(_) => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_first_deploy_is_told_from_making_to_serving() {
        let d = Desired {
            enabled: true,
            target: Some(RevisionId(1)),
            live: None,
            target_failed: false,
            retries: 0,
            failed_attempts: 0,
            deadline_ms: 1_000,
            deadline_max_ms: 1_000,
            share: None,
            stop_first: false,
            replicas: 1,
            wanted: Wakefulness::Awake,
            ladder: Default::default(),
            drain_ms: 0,
            generation: 1,
        };
        let o = Observed {
            now_ms: 0,
            replicas: Vec::new(),
            vacancies: Vec::new(),
            published: None,
            base: Version {
                life: 1,
                counter: 0,
            },
            named: Default::default(),
            gateway: Some(GatewayReport::default()),
            hopeless: None,
            progress: 0,
            blocked: None,
            since: Default::default(),
        };
        assert_eq!(
            simulate(d, o),
            [
                "hold requests until a replica is ready",
                "make a replica of revision 1",
                "start replica 000000000001",
                "let revision 1 go live",
                "send requests to 000000000001",
            ]
        );
    }
}
