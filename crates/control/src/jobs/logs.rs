//! What runs wrote: of those that go on, as the engine has it; of those that ended, in files of the node
//! (`DIR/jobs/<app>/<job>/<run>-<replica>.log`, a line of JSON for each), so that nothing else is left of them.

use std::collections::VecDeque;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use layby_model::engine::{LogLine, LogQuery};
use layby_model::job::RunId;
use layby_model::replica::ReplicaReport;
use layby_model::{ReplicaId, ServiceId};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use crate::api::types::{LogView, Problem};
use crate::plane::Plane;
use crate::store::RunRow;

/// The most that is kept of an attempt's log, in bytes: its end.
const LOG_BYTES: usize = 1 << 20;
/// The logs of so many attempts of a run are kept: the last.
const KEPT_ATTEMPTS: usize = 10;
/// How long a container's log may take to be read.
const PATIENCE: Duration = Duration::from_secs(10);
/// So many lines may be under way.
const LINES: usize = 64;
/// How often it is looked for the next attempt of a run that is followed.
const LOOK_AGAIN: Duration = Duration::from_millis(100);

/// One line.
pub(crate) type Line = LogLine;

/// The end of a log, as long as it may be.
#[derive(Debug, Default)]
pub(super) struct Tail {
    lines: VecDeque<Line>,
    bytes: usize,
}

impl Tail {
    /// Adds a line, and lets go of the oldest where there are too many.
    pub(super) fn push(&mut self, line: Line) {
        self.bytes += size(&line);
        self.lines.push_back(line);
        while self.bytes > LOG_BYTES
            && let Some(first) = self.lines.pop_front()
        {
            self.bytes -= size(&first);
        }
    }
}

/// What a line takes in the file, about.
fn size(line: &Line) -> usize {
    line.text.len() + 64
}

/// Keeps the log of a replica that has ended, or as much as comes in time. Where that fails, the log is lost and the
/// node's own says so.
pub(super) async fn keep(plane: &Plane, id: &ServiceId, run: RunId, report: &ReplicaReport) {
    let mut all: Vec<Line> = Vec::new();
    for container in report.init.iter().chain(&report.containers) {
        let query = LogQuery {
            container: Some(container.name.clone()),
            ..LogQuery::default()
        };
        let mut tail = Tail::default();
        let read = async {
            // One that was never started has none.
            let Ok(mut log) = plane.engine.logs(report.id, query).await else {
                return;
            };
            while let Some(line) = log.next().await {
                tail.push(line);
            }
        };
        if tokio::time::timeout(PATIENCE, read).await.is_err() {
            tracing::warn!(job = %id, %run, "its log did not come in time; its end is missing");
        }
        all.extend(tail.lines);
    }
    all.sort_by_key(|line| line.at_ms);
    let mut tail = Tail::default();
    all.into_iter().for_each(|line| tail.push(line));
    write(plane, id, run, report.id, tail).await;
}

/// Writes the log of an attempt down.
pub(super) async fn write(
    plane: &Plane,
    id: &ServiceId,
    run: RunId,
    replica: ReplicaId,
    tail: Tail,
) {
    let dir = dir(plane, id);
    let written = tokio::task::spawn_blocking(move || {
        let mut text = Vec::new();
        for line in &tail.lines {
            serde_json::to_writer(&mut text, line)?;
            text.push(b'\n');
        }
        std::fs::create_dir_all(&dir)?;
        // Replaced whole: a kill in between leaves the one before, and it is written again.
        let aside = dir.join(format!("{run}-{replica}.new"));
        std::fs::write(&aside, text)?;
        std::fs::rename(&aside, dir.join(format!("{run}-{replica}.log")))?;
        let mut files = of_run(&dir, run)?;
        files.sort_unstable();
        let surplus = files.len().saturating_sub(KEPT_ATTEMPTS);
        files
            .iter()
            .take(surplus)
            .try_for_each(std::fs::remove_file)
    });
    match written.await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::warn!(job = %id, %run, %error, "its log could not be kept"),
        Err(error) => tracing::error!(%error, "keeping a log broke off; please report this"),
    }
}

/// Removes the logs of runs.
pub(super) async fn remove(plane: &Plane, id: &ServiceId, runs: &[RunId]) {
    let (dir, runs) = (dir(plane, id), runs.to_vec());
    let removed = tokio::task::spawn_blocking(move || {
        for run in runs {
            of_run(&dir, run)?
                .iter()
                .try_for_each(std::fs::remove_file)?;
        }
        Ok::<_, io::Error>(())
    });
    if let Ok(Err(error)) = removed.await {
        tracing::warn!(job = %id, %error, "old logs could not be removed");
    }
}

/// Removes all logs of a job, or of a service's runs.
pub(super) async fn remove_all(plane: &Plane, id: &ServiceId) {
    let dir = dir(plane, id);
    let removed = tokio::task::spawn_blocking(move || {
        let gone = std::fs::remove_dir_all(&dir);
        // The app's own folder goes with the last job of it.
        if let Some(parent) = dir.parent() {
            let _ = std::fs::remove_dir(parent);
        }
        gone
    });
    if let Ok(Err(error)) = removed.await
        && error.kind() != ErrorKind::NotFound
    {
        tracing::warn!(job = %id, %error, "its logs could not be removed");
    }
}

fn dir(plane: &Plane, id: &ServiceId) -> PathBuf {
    let jobs = plane.config.data_dir.join("jobs");
    jobs.join(id.app.as_str()).join(id.service.as_str())
}

/// The files of a run; those that a kill left half written too.
fn of_run(dir: &Path, run: RunId) -> io::Result<Vec<PathBuf>> {
    let entries = match std::fs::read_dir(dir) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    let prefix = format!("{run}-");
    let mut files = Vec::new();
    for entry in entries {
        let entry = entry?;
        if entry.file_name().to_string_lossy().starts_with(&prefix) {
            files.push(entry.path());
        }
    }
    Ok(files)
}

/// The lines of a run, attempt after attempt; with `query.follow` until it is over.
///
/// # Errors
/// There is no such run.
pub(crate) fn open(
    plane: &Arc<Plane>,
    id: &ServiceId,
    run: RunId,
    query: LogQuery,
) -> Result<ReceiverStream<LogView>, Problem> {
    let row = row(plane, id, run);
    row.ok_or_else(|| Problem::no_run(id, run))?;
    let (send, receive) = mpsc::channel(LINES);
    let (plane, id) = (Arc::clone(plane), id.clone());
    tokio::spawn(async move { pass_on(&plane, &id, run, &query, &send).await });
    Ok(ReceiverStream::new(receive))
}

fn row(plane: &Plane, id: &ServiceId, run: RunId) -> Option<RunRow> {
    let shown = plane.jobs.shown();
    shown.shelves.get(id)?.run(run).cloned()
}

async fn pass_on(
    plane: &Plane,
    id: &ServiceId,
    run: RunId,
    query: &LogQuery,
    send: &mpsc::Sender<LogView>,
) {
    let mut told = Vec::new();
    while let Some(row) = row(plane, id, run) {
        for attempt in &row.attempts {
            let replica = attempt.replica;
            if told.contains(&replica) {
                continue;
            }
            if attempt.end.is_some() {
                told.push(replica);
                for line in kept(plane, id, run, replica, query).await {
                    if send.send(view(id, replica, line)).await.is_err() {
                        return;
                    }
                }
                continue;
            }
            // One that is not made yet is asked again.
            let Ok(mut log) = plane.engine.logs(replica, query.clone()).await else {
                continue;
            };
            told.push(replica);
            while let Some(line) = log.next().await {
                if send.send(view(id, replica, line)).await.is_err() {
                    return;
                }
            }
        }
        let all = row
            .attempts
            .iter()
            .all(|attempt| told.contains(&attempt.replica));
        if !query.follow || (row.ended_ms.is_some() && all) || send.is_closed() {
            return;
        }
        tokio::time::sleep(LOOK_AGAIN).await;
    }
}

/// What is kept of an attempt that ended.
async fn kept(
    plane: &Plane,
    id: &ServiceId,
    run: RunId,
    replica: ReplicaId,
    query: &LogQuery,
) -> Vec<Line> {
    let file = dir(plane, id).join(format!("{run}-{replica}.log"));
    let read = tokio::task::spawn_blocking(move || std::fs::read_to_string(file));
    // It may have written nothing, or be too old.
    let Ok(Ok(text)) = read.await else {
        return Vec::new();
    };
    let lines = text
        .lines()
        .filter_map(|line| serde_json::from_str(line).ok());
    let wanted = lines.filter(|line: &Line| {
        query.since_ms.is_none_or(|since| line.at_ms >= since)
            && query.until_ms.is_none_or(|until| line.at_ms < until)
    });
    let mut wanted: Vec<Line> = wanted.collect();
    if let Some(tail) = query.tail {
        wanted.drain(..wanted.len().saturating_sub(tail));
    }
    wanted
}

fn view(id: &ServiceId, replica: ReplicaId, line: Line) -> LogView {
    LogView {
        service: id.to_string(),
        replica: replica.to_string(),
        at_ms: line.at_ms,
        stream: line.stream,
        text: line.text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_a_long_log_the_end_is_kept() {
        let mut tail = Tail::default();
        for n in 0..2_000 {
            tail.push(Line {
                at_ms: n,
                stream: "stdout".to_owned(),
                text: "x".repeat(1_000),
            });
        }
        assert!(tail.bytes <= LOG_BYTES && tail.lines.len() > 900);
        assert_eq!(tail.lines.back().map(|line| line.at_ms), Some(1_999));
    }
}
