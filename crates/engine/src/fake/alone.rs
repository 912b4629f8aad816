//! A container of a fake replica that ends by itself: with all others, or alone, and is started again.

use std::time::Duration;

use layby_model::ReplicaId;
use layby_model::plan::{BACKOFF_MAX_MS, BACKOFF_MS};
use layby_model::replica::{End, Exit};
use layby_model::spec::RestartPolicy;
use tokio::time::Instant;

use super::Shared;
use crate::lifecycle::Actual;
use crate::roster::Entry;

impl Shared {
    /// Writes down that a container of a running or frozen replica ended by itself. Whether there was one.
    pub(super) fn end(&self, id: ReplicaId, number: usize, exit: Exit) -> bool {
        let runs =
            |actual: Actual| matches!(actual, Actual::Running | Actual::Ready | Actual::Frozen);
        let body = self.body(id);
        // Before the end shows: whoever sees it reads the log at once.
        if self.roster.get(id).is_some_and(|entry| runs(entry.actual))
            && let Some(body) = &body
        {
            body.log
                .write("stderr", &format!("ended with code {}", exit.code));
        }
        let ended = self.roster.change(id, |entry| {
            if !runs(entry.actual) {
                return false;
            }
            let Some(container) = entry.containers.get_mut(number) else {
                return false;
            };
            if container.pid.take().is_none() {
                return false;
            }
            container.ended += 1;
            container.last_exit = Some(exit);
            let name = container.name.clone();
            if let Some(again_at) = goes_on(entry, number, exit) {
                if let (Some(body), Some(at)) = (&body, again_at) {
                    body.lies_until(number, at);
                }
                entry.wake();
                return true;
            }
            entry.actual = Actual::Stopped;
            for container in &mut entry.containers {
                container.pid = None;
                container.down = false;
            }
            entry.ended_in_a_row += 1;
            let container = name;
            entry.ended = Some(End {
                container,
                exit,
                hook: false,
            });
            true
        });
        ended == Some(true)
    }

    /// Starts a container again that lies alone.
    pub(super) fn start_again(&self, id: ReplicaId, number: usize, pid: i32) {
        self.roster.change(id, |entry| {
            if let Some(container) = entry.containers.get_mut(number)
                && container.down
            {
                container.down = false;
                container.pid = Some(pid);
                container.starts += 1;
            }
        });
    }
}

/// Whether the others go on where a container has ended, and when it is started again, if it is.
fn goes_on(entry: &mut Entry, number: usize, exit: Exit) -> Option<Option<Instant>> {
    let spec = entry
        .spec
        .clone()
        .filter(|spec| spec.service.ends_apart())?;
    let containers = &spec.service.containers;
    let failed = exit.code != 0 || exit.oom;
    let policy = spec.service.restart_of(containers.get(number)?);
    let container = entry.containers.get_mut(number)?;
    container.ended_in_a_row += 1;
    let again = match policy {
        RestartPolicy::Always => true,
        RestartPolicy::OnFailure { max_retries } => {
            failed && max_retries.is_none_or(|max| container.ended_in_a_row <= max)
        }
        RestartPolicy::Never => false,
    };
    container.down = again;
    let doublings = (container.ended_in_a_row - 1).min(16);
    let pause_ms = (BACKOFF_MS << doublings).min(BACKOFF_MAX_MS);
    let mut mains = entry
        .containers
        .iter()
        .zip(containers)
        .filter(|(_, spec)| spec.sidecar.is_none());
    let goes_on = mains.any(|(container, _)| container.pid.is_some() || container.down);
    let again_at = again.then(|| Instant::now() + Duration::from_millis(pause_ms));
    goes_on.then_some(again_at)
}
