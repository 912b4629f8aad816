//! How one container of a replica ends while the others go on: what is told of it.

use layby_model::replica::{ContainerReport, ReplicaReport};

use super::Driver;
use crate::api::types::EventKind;

impl Driver {
    /// Tells those who listen that one container of a replica ended, while the others go on.
    pub(super) fn tell_fallen(&self, report: &ReplicaReport, container: &ContainerReport) {
        let kind = match container.last_exit {
            Some(exit) if exit.oom => EventKind::OutOfMemory,
            Some(exit) if exit.code == 0 && container.is_left() => EventKind::Ended,
            Some(_) | None => EventKind::Crashed,
        };
        let then = match container.is_left() {
            true => "and is left so",
            false => "and is started again, alone",
        };
        let text = format!(
            "container {} of replica {} {}, {then}",
            container.name,
            report.id,
            fell(container)
        );
        self.plane.events.of(&self.id, kind, text, None);
    }

    /// Tells those who listen that a container was ended since it failed its liveness probe.
    pub(super) fn tell_given_up(&self, report: &ReplicaReport, container: &str, said: &str) {
        let text = format!(
            "container {container} of replica {} failed its liveness probe, and is ended: {said}",
            report.id
        );
        self.plane
            .events
            .of(&self.id, EventKind::Crashed, text, None);
    }
}

/// The conditions of replicas that go on without a container that is left as it failed.
pub(super) fn left(reports: &[ReplicaReport]) -> impl Iterator<Item = String> {
    let goes_on = |r: &&ReplicaReport| r.containers.iter().any(|c| c.pid.is_some());
    let all = reports.iter().filter(goes_on);
    let all = all.flat_map(|r| r.containers.iter().map(move |c| (r, c)));
    all.filter(|(_, container)| container.is_left_failed())
        .map(|(report, container)| {
            format!(
                "container {} of replica {} {}, and its restart policy leaves it so",
                container.name,
                report.id,
                fell(container)
            )
        })
}

/// How a container ended, in words that follow its name.
pub(super) fn fell(container: &ContainerReport) -> String {
    let how = match container.last_exit {
        Some(exit) if exit.oom => "ran out of memory".to_owned(),
        Some(exit) => format!("ended with exit code {}", exit.code),
        None => "ended".to_owned(),
    };
    match &container.trouble {
        Some(why) => format!("{how} ({why})"),
        None => how,
    }
}
