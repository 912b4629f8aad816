//! Jobs and runs in words.

use jiff::Timestamp;
use layby_model::ServiceId;
use layby_model::job::{Outcome, Stop};

use super::Shown;
use crate::api::types::{AttemptView, ExitView, JobView, RunState, RunView};
use crate::store::{Cause, RunRow, Shelf};

/// Why a run was ended early.
pub(super) fn why(stop: Stop) -> &'static str {
    match stop {
        Stop::Asked => "it was stopped",
        Stop::TimeLimit => "it took too long",
        Stop::Replaced => "the next run took its place",
        Stop::Removed => "its job was taken down",
        Stop::Failed => "another attempt failed",
        Stop::Lost => "the node ended, or could not begin it, while somebody was at its other end",
    }
}

/// What came of a run that is over, as it follows its job's name.
pub(super) fn sentence(run: &RunRow) -> String {
    let number = run.run;
    let last = run
        .attempts
        .iter()
        .rev()
        .find_map(|attempt| attempt.end.as_ref());
    let code = last.and_then(|end| end.exit).map(|exit| exit.code);
    let message = last.and_then(|end| end.message.as_deref());
    match run.outcome {
        None => format!("run {number} goes on"),
        Some(Outcome::Succeeded) => format!("run {number} succeeded"),
        Some(Outcome::TimedOut) => format!("run {number} took too long and was ended"),
        Some(Outcome::Stopped) => match run.stopping {
            Some(Stop::Asked) | None => format!("run {number} was stopped"),
            Some(stop) => format!("run {number} was stopped: {}", why(stop)),
        },
        Some(Outcome::Failed) => match (code, message) {
            (Some(code), None) => format!("run {number} failed with exit code {code}"),
            (Some(code), Some(message)) => {
                format!("run {number} failed with exit code {code}: {message}")
            }
            (None, Some(message)) => format!("run {number} failed: {message}"),
            (None, None) => format!("run {number} failed"),
        },
    }
}

/// What is told of a job that was deployed just now.
pub(super) fn deployed(id: &ServiceId, shelf: &Shelf, shown: &Shown) -> String {
    let due_ms = shown.due.get(id).copied();
    let Some(job) = &shelf.job else {
        return "job".to_owned();
    };
    let settings = job.spec.service.job.as_ref();
    let schedule = settings.and_then(|settings| settings.schedule.as_ref());
    let last = shelf.runs.last().map(|run| run.run);
    match (schedule, due_ms, last) {
        _ if job.suspended => "job, suspended".to_owned(),
        (Some(schedule), Some(due), _) => {
            format!(
                "job, scheduled ({}), next run at {}",
                schedule.cron,
                moment(due)
            )
        }
        (Some(schedule), None, _) => format!("job, scheduled ({})", schedule.cron),
        (None, _, Some(run)) => match shown.waits.get(&(id.clone(), run)) {
            Some(why) => format!("job, run {run} waits: {why}"),
            None => format!("job, run {run} began"),
        },
        (None, _, None) => "job, about to run".to_owned(),
    }
}

/// A job as the API shows it.
pub(crate) fn job_view(id: &ServiceId, shelf: &Shelf, shown: &Shown) -> Option<JobView> {
    let job = shelf.job.as_ref()?;
    let settings = job.spec.service.job.clone().unwrap_or_default();
    let first = job.spec.service.containers.first();
    let (cron, time_zone) = match settings.schedule {
        Some(schedule) => (Some(schedule.cron), schedule.time_zone),
        None => (None, None),
    };
    let skipped = shown.skipped.get(id);
    Some(JobView {
        app: id.app.to_string(),
        job: id.service.to_string(),
        schedule: cron,
        time_zone,
        concurrency: settings.concurrency.to_string(),
        retries: settings.retries,
        time_limit_ms: settings.time_limit_ms,
        suspended: job.suspended,
        removing: job.removing,
        image: first
            .map(|container| container.image.clone())
            .unwrap_or_default(),
        next_run: shown.due.get(id).map(|due| moment(*due)),
        active: u32::try_from(shelf.active().count()).unwrap_or(u32::MAX),
        last_run: shelf.runs.last().map(|run| run_view(id, run, shown)),
        skipped: skipped.map(|(at, why)| format!("{}: {why}", moment(*at))),
        made_by: job.made_by.clone(),
        made_at: moment(job.made_ms),
    })
}

/// A run as the API shows it.
pub(crate) fn run_view(id: &ServiceId, run: &RunRow, shown: &Shown) -> RunView {
    let state = match (run.outcome, run.stopping) {
        (Some(Outcome::Succeeded), _) => RunState::Succeeded,
        (Some(Outcome::Failed), _) => RunState::Failed,
        (Some(Outcome::TimedOut), _) => RunState::TimedOut,
        (Some(Outcome::Stopped), _) => RunState::Stopped,
        (None, Some(_)) => RunState::Stopping,
        (None, None) if run.attempts.is_empty() => RunState::Waiting,
        (None, None) => RunState::Running,
    };
    let last = run
        .attempts
        .iter()
        .rev()
        .find_map(|attempt| attempt.end.as_ref());
    let attempts = run.attempts.iter().map(|attempt| AttemptView {
        replica: attempt.replica.to_string(),
        began_at: moment(attempt.made_ms),
        ended_at: attempt.end.as_ref().map(|end| moment(end.ended_ms)),
        exit: attempt
            .end
            .as_ref()
            .and_then(|end| end.exit)
            .map(ExitView::from),
        message: attempt.end.as_ref().and_then(|end| end.message.clone()),
    });
    let began_ms = run.attempts.first().map(|attempt| attempt.made_ms);
    RunView {
        app: id.app.to_string(),
        job: id.service.to_string(),
        run: run.run.0,
        state,
        cause: match run.cause {
            Cause::Schedule => "schedule",
            Cause::Deploy => "deploy",
            Cause::Command => "command",
        }
        .to_owned(),
        made_by: run.made_by.clone(),
        command: run.command.clone(),
        due_at: run.due_ms.map(moment),
        made_at: moment(run.made_ms),
        began_at: began_ms.map(moment),
        ended_at: run.ended_ms.map(moment),
        duration_ms: began_ms
            .zip(run.ended_ms)
            .map(|(began, ended)| ended.saturating_sub(began)),
        exit: last.and_then(|end| end.exit).map(ExitView::from),
        message: match (run.outcome, run.stopping) {
            (Some(Outcome::Stopped | Outcome::TimedOut), Some(stop)) => Some(why(stop).to_owned()),
            _ => (last.and_then(|end| end.message.clone())).or_else(|| {
                let why = shown.waits.get(&(id.clone(), run.run))?;
                Some(format!("it waits: {why}"))
            }),
        },
        stopped_by: run.stopped_by.clone(),
        attempts: attempts.collect(),
    }
}

/// RFC 3339.
pub(super) fn moment(ms: u64) -> String {
    let at = i64::try_from(ms)
        .ok()
        .and_then(|ms| Timestamp::from_millisecond(ms).ok());
    at.map(|at| at.to_string()).unwrap_or_default()
}
