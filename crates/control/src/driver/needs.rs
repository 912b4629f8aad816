//! What a rollout waits for: what the drivers of the services that it depends on show.

use layby_model::ServiceId;
use layby_model::depends::{Blockade, Known, blockade};
use layby_model::plan::{Desired, Ended};
use layby_model::state::Showing;

use super::{Driver, Status, rolling};

impl Driver {
    /// Whether the target may roll, as far as the services that it depends on go. It is rung for when that changes.
    pub(super) fn blockade(&self, d: &Desired) -> Blockade {
        let target = &self.row().target;
        let depends_on = &target.spec.service.depends_on;
        if !d.enabled || !d.rolling() || depends_on.is_empty() {
            return Blockade::Open;
        }
        blockade(depends_on.iter().map(|dependency| {
            let id = ServiceId::new(self.id.app.clone(), dependency.service.clone());
            self.plane.waiting.wait(&id, &self.id, &self.bell);
            let driver = self.plane.driver(&id);
            let known = driver.and_then(|it| match it.is_current() {
                true => known(&it.status.borrow(), &target.made_at),
                false => Some(UNTOLD),
            });
            (dependency, known)
        }))
    }
}

/// What is known of a service whose driver has not taken up its newest row.
const UNTOLD: Known = Known {
    enabled: true,
    rolling: true,
    live: false,
    started: false,
    ended: None,
    failed: None,
};

/// What a driver shows of its service, for one whose revision was made at `made_at`. `None`: it is on its way out.
fn known(status: &Status, made_at: &str) -> Option<Known> {
    let row = &status.row;
    if status.gone || row.removing {
        return None;
    }
    // Beside a canary the live one serves on.
    let rolls = rolling(row) && row.share.is_none();
    let current = row.live.as_ref().filter(|_| !rolls).unwrap_or(&row.target);
    let mine = (status.detail.replicas.iter()).filter(|r| r.revision == current.id.0);
    let containers = || mine.clone().flat_map(|r| &r.containers);
    let ended = status.detail.view.wakefulness == Some(Showing::Ended);
    let well = containers().all(|c| c.last_exit.is_none_or(|exit| exit.code == 0 && !exit.oom));
    let how = if well { Ended::Well } else { Ended::Badly };
    let failed = row.target_failed && (row.live.is_none() || row.target.made_at == made_at);
    let reason = || {
        let failure = row.last_failure.as_ref();
        failure.map_or_else(String::new, |failure| failure.reason.clone())
    };
    Some(Known {
        enabled: row.enabled,
        rolling: rolls,
        live: row.live.is_some(),
        started: containers().any(|c| c.pid.is_some()),
        ended: ended.then_some(how),
        failed: failed.then(reason),
    })
}
