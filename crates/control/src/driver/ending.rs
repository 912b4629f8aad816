//! How replicas end unasked: what is told of it when it happens, and what is shown for as long as it stands.

use layby_model::plan::{
    CRASH_LOOP_STARTS, Ended, Observed, Replica, Timer, Vacancy, backoff_ms, pause_after,
    stays_ended,
};
use layby_model::replica::{End, Phase, ReplicaReport, Trouble};
use layby_model::spec::RestartPolicy;
use layby_model::{ReplicaId, RevisionId};

use super::Driver;
use super::failure::end_of;
use super::fallen::fell;
use super::vacancies::Past;
use crate::api::types::EventKind;

/// A replica that ended unasked.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Ending {
    /// What happened, in words that follow the replica's name.
    how: String,
    /// What stands in the way of starting it.
    trouble: Option<Trouble>,
    replica: ReplicaId,
    /// Of which revision.
    revision: RevisionId,
    /// Starts in a row that came to nothing.
    failed_starts: u32,
    again: Again,
}

/// When a replica that ended is started again.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Again {
    /// At once, or it is being started.
    Now,
    /// At this moment of the driver's clock, in milliseconds.
    At(u64),
    /// When somebody asks for it: it ended like this, and its restart policy leaves it so.
    Asked(Ended),
    /// One of its containers is, alone.
    Alone,
}

impl Ending {
    /// Whether it came to nothing so often that it is not just bad luck.
    fn loops(&self) -> bool {
        self.failed_starts >= CRASH_LOOP_STARTS && !matches!(self.again, Again::Asked(_))
    }

    /// Starts in a row that came to nothing, of a replica of a revision that is started again; `None`: it is none of them.
    pub(crate) fn failed_starts(&self, revision: RevisionId) -> Option<u32> {
        let is_over = matches!(self.again, Again::Asked(_));
        (self.revision == revision && !is_over).then_some(self.failed_starts)
    }

    fn often(&self) -> String {
        match self.failed_starts {
            0 | 1 => String::new(),
            n => format!(", {n} times in a row"),
        }
    }

    /// What happened, for who waits for replicas of a revision; `None`: it is none of them.
    pub(crate) fn told(&self, revision: RevisionId) -> Option<String> {
        let trouble = match &self.trouble {
            Some(trouble) => format!(": {}", trouble.message),
            None => String::new(),
        };
        let text = format!("a replica {}{}{trouble}", self.how, self.often());
        (self.revision == revision).then_some(text)
    }

    /// Whether it is one of a revision, and no further start can succeed.
    pub(crate) fn is_hopeless(&self, revision: RevisionId) -> bool {
        let is_fatal = self.trouble.as_ref().is_some_and(|trouble| trouble.fatal);
        self.revision == revision && is_fatal
    }

    /// The same where another try is of no use, or of little.
    pub(crate) fn gives_up(&self, revision: RevisionId) -> Option<String> {
        let gives_up = self.is_hopeless(revision) || self.loops();
        self.told(revision).filter(|_| gives_up)
    }

    /// The same where it ended badly, and is not tried again.
    pub(crate) fn left_failed(&self, revision: RevisionId) -> Option<String> {
        let told = self.told(revision)?;
        matches!(self.again, Again::Asked(Ended::Badly))
            .then(|| format!("{told}, and its restart policy leaves it so"))
    }

    /// The condition that it makes at `now_ms`.
    pub(crate) fn condition(&self, now_ms: u64) -> String {
        let (often, looping) = (self.often(), self.loops());
        let Self {
            how,
            replica,
            again,
            ..
        } = self;
        let next = match again {
            Again::Now => String::new(),
            Again::At(ms) => {
                let seconds = ms.saturating_sub(now_ms).div_ceil(1000);
                format!("; next try in {seconds} s")
            }
            Again::Asked(_) => {
                ", and its restart policy leaves it so: `layby wake` starts it".to_owned()
            }
            Again::Alone => "; that is started again".to_owned(),
        };
        let what = if looping { "crash loop: " } else { "" };
        format!("{what}replica {replica} {how}{often}{next}")
    }
}

impl Driver {
    /// The replicas that ended unasked and are not ready again, the places of those that failed their liveness probe, and those
    /// in whose places that happens again and again.
    pub(super) fn ends(&self, o: &Observed, reports: &[ReplicaReport]) -> Vec<Ending> {
        let ended = |r: &&Replica| {
            let failing = r.failed_starts > 0 && !matches!(r.phase, Phase::Ready | Phase::Lost);
            r.crashed || failing || stays_ended(r)
        };
        let again = |replica, failed_starts, pause_ms| {
            let since = self.since.get(&Timer::Backoff(replica, failed_starts));
            since.map_or(Again::Now, |since| Again::At(since + pause_ms))
        };
        let ending = |seen: &Replica| {
            let report = reports.iter().find(|r| r.id == seen.id);
            let past = self.vacancies.past(seen.id).filter(|_| !seen.crashed);
            let down = report.and_then(|r| r.containers.iter().find(|c| c.down));
            Ending {
                how: match (down, past) {
                    (Some(down), _) => format!(
                        "runs without its container {}, which {}",
                        down.name,
                        fell(down)
                    ),
                    (None, Some(past)) => after_death(past),
                    (None, None) => self.how_it_ended(seen.revision, report),
                },
                trouble: report.and_then(|report| {
                    // Of a hook, it is told how it ended.
                    let by_hook = report.ended.as_ref().is_some_and(|end| end.hook);
                    report.trouble.clone().filter(|_| !by_hook)
                }),
                replica: seen.id,
                revision: seen.revision,
                failed_starts: seen.failed_starts,
                again: match (down, seen.ended.filter(|_| stays_ended(seen))) {
                    (Some(_), _) => Again::Alone,
                    (None, Some(ended)) => Again::Asked(ended),
                    (None, None) => again(seen.id, seen.failed_starts, backoff_ms(seen)),
                },
            }
        };
        let empty = |(vacancy, past): (&Vacancy, &Past)| Ending {
            how: format!("failed its liveness probe ({})", past.said),
            trouble: None,
            replica: vacancy.replica,
            revision: vacancy.revision,
            failed_starts: vacancy.failed_starts,
            again: again(
                vacancy.replica,
                vacancy.failed_starts,
                pause_after(vacancy.failed_starts),
            ),
        };
        let looping = |r: &&Replica| {
            let loops = r.failed_starts >= CRASH_LOOP_STARTS && r.phase == Phase::Ready;
            loops && self.vacancies.past(r.id).is_some()
        };
        // Of one whose place is empty already, that says it.
        let has_left = |r: &Replica| self.vacancies.empty().any(|(v, _)| v.replica == r.id);
        let replicas = || o.replicas.iter().filter(|r| !has_left(r));
        (replicas().filter(ended).chain(replicas().filter(looping)))
            .map(ending)
            .chain(self.vacancies.empty().map(empty))
            .collect()
    }

    /// Tells those who listen that a replica ended unasked.
    pub(super) fn tell_end(&self, report: &ReplicaReport) {
        let end = end_of(report);
        let kind = match end.as_ref().map(|end| (end.exit.oom, end.exit.code)) {
            Some((true, _)) => EventKind::OutOfMemory,
            Some((false, 0)) if report.ended.is_some() && self.may_end(report.revision) => {
                EventKind::Ended
            }
            Some((false, _)) | None => EventKind::Crashed,
        };
        let how = self.how_it_ended(report.revision, Some(report));
        let why = match (&report.trouble, end) {
            (Some(trouble), None) => format!(": {}", trouble.message),
            (Some(_) | None, _) => String::new(),
        };
        let text = format!("replica {} {how}{why}", report.id);
        self.plane.events.of(&self.id, kind, text, None);
    }

    /// Tells those who listen that a replica failed its liveness probe for good.
    pub(super) fn tell_death(&self, report: &ReplicaReport, said: &str, failed_starts: u32) {
        let often = match failed_starts {
            0 | 1 => String::new(),
            n => format!(", as did those before it, {n} times in a row"),
        };
        let id = report.id;
        let text =
            format!("replica {id} failed its liveness probe{often}, and is replaced: {said}");
        self.plane
            .events
            .of(&self.id, EventKind::Crashed, text, None);
    }

    /// Whether a replica of a revision that ended well is left so.
    fn may_end(&self, revision: RevisionId) -> bool {
        let spec = self.spec_of(revision);
        spec.is_some_and(|spec| match spec.service.restart {
            RestartPolicy::Never | RestartPolicy::OnFailure { .. } => true,
            RestartPolicy::Always => false,
        })
    }

    fn how_it_ended(&self, revision: RevisionId, report: Option<&ReplicaReport>) -> String {
        let Some(end) = report.and_then(end_of) else {
            return match report.and_then(|report| report.trouble.as_ref()) {
                Some(_) => "could not be started".to_owned(),
                None => "ended".to_owned(),
            };
        };
        let End {
            container,
            exit,
            hook,
        } = end;
        if hook {
            let said = report.and_then(|report| report.trouble.as_ref());
            return match said {
                Some(said) => format!("was stopped, since {}", said.message),
                None => format!(
                    "was stopped, since a hook after the start of its container {container} ended with exit code {}",
                    exit.code
                ),
            };
        }
        let spec = self.spec_of(revision);
        let mut containers = spec.iter().flat_map(|spec| spec.service.all_containers());
        let limit =
            (containers.find(|c| c.name == container)).and_then(|c| c.resources.memory_limit_bytes);
        match (exit.oom, limit) {
            (true, Some(bytes)) => format!(
                "ran out of its memory ({} MiB) in its container {container}",
                bytes >> 20
            ),
            (true, None) => format!("ran out of memory in its container {container}"),
            (false, _) => format!(
                "ended with exit code {} (its container {container})",
                exit.code
            ),
        }
    }
}

/// What is told of a replica in whose place others failed their liveness probe, in words that follow its name.
fn after_death(past: &Past) -> String {
    let said = &past.said;
    format!("takes the place of one that failed its liveness probe ({said})")
}
