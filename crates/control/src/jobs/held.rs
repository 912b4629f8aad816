//! Runs with somebody at their other end (`layby run`): the container holds itself open, the command is begun in it as
//! by `exec`, and when either is gone the other one goes.

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use layby_model::access::{ExecEvent, ExecRequest, ExecSession};
use layby_model::engine::{LogLine, RunSpec};
use layby_model::job::{Outcome, RunId};
use layby_model::replica::{Phase, ReplicaReport};
use layby_model::{ReplicaId, ServiceId, job};
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;
use tokio_stream::wrappers::ReceiverStream;

use super::logs::{self, Tail};
use crate::api::types::Problem;
use crate::clock::wall_ms;
use crate::plane::Plane;
use crate::store::{Cause, NewRun, StoreError};

/// How long its container may take to hold itself open.
const START_TIMEOUT: Duration = Duration::from_secs(60);
/// How often that is looked at: somebody waits.
const LOOK_AGAIN: Duration = Duration::from_millis(2);
/// How long its end may take to be written, once the command has ended.
const END_TIMEOUT: Duration = Duration::from_secs(30);
/// How long output may be on its way when the run is over.
const LINGER: Duration = Duration::from_secs(2);
/// So many pieces of output may be under way.
const PIECES: usize = 8;
/// The longest line of the log, in bytes; a longer one is several.
const LINE_BYTES: usize = 16 << 10;
/// The exit code of a command that took too long, as timeout(1) has it.
const TIMED_OUT: i32 = 124;

/// What is to be held.
pub(crate) struct Holding {
    /// The service.
    pub(crate) of: ServiceId,
    /// What its run is.
    pub(crate) spec: Arc<RunSpec>,
    /// What is begun in it.
    pub(crate) request: ExecRequest,
    /// Who asks.
    pub(crate) by: String,
}

/// Makes a run, begins the command in it, and gives its other end. Whoever drops that ends the run.
///
/// # Errors
/// The container cannot be made or started; the run says so too.
pub(crate) async fn hold(plane: &Arc<Plane>, order: Holding) -> Result<ExecSession, Problem> {
    let (reply, replied) = oneshot::channel();
    let task_plane = Arc::clone(plane);
    // Apart from whoever asks: who goes in the midst of it leaves nothing that nobody ends.
    plane.spawn(async move {
        let held = begin_run(&task_plane, order).await;
        let _ = reply.send(held);
    });
    let ending = |_| Problem::from(StoreError::Closed);
    replied.await.map_err(ending)?
}

async fn begin_run(plane: &Arc<Plane>, order: Holding) -> Result<ExecSession, Problem> {
    let new = NewRun {
        of: order.of.clone(),
        of_service: true,
        spec: order.spec,
        cause: Cause::Command,
        made_by: order.by.clone(),
        due_ms: None,
        command: Some(order.request.argv.clone()),
        held: true,
    };
    let held = plane.jobs.hold(new).await?;
    let end = End {
        plane: Arc::clone(plane),
        id: order.of.clone(),
        run: held.run,
        by: order.by,
    };
    let begun = begin(plane, &order.of, held.replica, &order.request).await;
    let session = match begun {
        Ok(session) => session,
        Err(problem) => {
            end.now().await;
            return Err(problem);
        }
    };
    let ExecSession { output, input } = session;
    let (send, receive) = mpsc::channel(PIECES);
    let recorded = order.request.tty.is_none();
    let place = (held.run, held.replica, recorded);
    plane.spawn(pass_on(Arc::clone(plane), end, place, output, send));
    Ok(ExecSession {
        output: Box::pin(ReceiverStream::new(receive)),
        input,
    })
}

/// Waits until the container holds itself open, and begins the command.
async fn begin(
    plane: &Plane,
    id: &ServiceId,
    replica: ReplicaId,
    request: &ExecRequest,
) -> Result<ExecSession, Problem> {
    let name = job::runs_of(id);
    let begun = Instant::now();
    loop {
        let reports = plane.facts.of(&name);
        let report = reports.iter().find(|report| report.id == replica);
        if let Some(report) = report {
            if runs(report) {
                return Ok(plane.access.attach(replica, None, request).await?);
            }
            if let Some(trouble) = report
                .trouble
                .as_ref()
                .filter(|_| report.phase == Phase::Stopped)
            {
                return Err(Problem::failed(trouble.message.clone()));
            }
        }
        if begun.elapsed() > START_TIMEOUT {
            let seconds = START_TIMEOUT.as_secs();
            let text = format!("its container did not start within {seconds} s");
            return Err(Problem::timed_out(text));
        }
        tokio::time::sleep(LOOK_AGAIN).await;
    }
}

fn runs(report: &ReplicaReport) -> bool {
    let mut containers = report.containers.iter();
    matches!(report.phase, Phase::Ready | Phase::Starting)
        && containers.any(|container| container.pid.is_some())
}

/// How to end a run whose client goes.
struct End {
    plane: Arc<Plane>,
    id: ServiceId,
    run: RunId,
    by: String,
}

impl End {
    /// Lets the run end: its command is asked to, and killed after its grace.
    async fn now(&self) {
        let jobs = &self.plane.jobs;
        if jobs.stop(&self.id, self.run, &self.by).await.is_err() {
            // It has ended just now; or that could not be written, and it must not wait for anybody all the same.
            jobs.over(&self.id, self.run, None).await;
        }
    }
}

/// Passes output on and records it, until the command has ended; then waits until its container is to go.
async fn pass_on(
    plane: Arc<Plane>,
    end: End,
    (run, replica, recorded): (RunId, ReplicaId, bool),
    mut output: futures_util::stream::BoxStream<'static, ExecEvent>,
    send: mpsc::Sender<ExecEvent>,
) {
    let id = end.id.clone();
    let mut record = Record::default();
    let mut has_gone = false;
    let mut is_over = std::pin::pin!(async {
        until_over(&plane, &id, run).await;
        tokio::time::sleep(LINGER).await;
    });
    let code = loop {
        let event = tokio::select! {
            event = output.next() => event,
            // Its container is gone, and with it the command, whatever is heard of it.
            () = &mut is_over => break None,
            () = send.closed(), if !has_gone => {
                has_gone = true;
                end.now().await;
                continue;
            }
        };
        match event {
            Some(ExecEvent::Exit(code)) => break Some(code),
            Some(ExecEvent::Failed(_)) | None => break None,
            Some(event @ (ExecEvent::Stdout(_) | ExecEvent::Stderr(_))) => {
                if recorded {
                    record.take(&event);
                }
                // Seen above, too: then the command is asked to end, and heard to its end.
                let _ = send.send(event).await;
            }
        }
    };
    if recorded {
        logs::write(&plane, &id, run, replica, record.finish()).await;
    }
    plane.jobs.over(&id, run, code).await;
    let over = tokio::time::timeout(END_TIMEOUT, until_over(&plane, &id, run)).await;
    let (outcome, message) = over.unwrap_or_default();
    if let Some(message) = message.filter(|_| !has_gone) {
        let line = format!("layby: {message}\n").into_bytes();
        let _ = send.send(ExecEvent::Stderr(line)).await;
    }
    let last = match (outcome, code) {
        (Some(Outcome::TimedOut), _) => ExecEvent::Exit(TIMED_OUT),
        (_, Some(code)) => ExecEvent::Exit(code),
        (_, None) => ExecEvent::Failed("its end is not known".to_owned()),
    };
    // Whoever has gone need not be told.
    let _ = send.send(last).await;
}

/// Waits until a run is over; gives what came of it, and what is to be said of its last attempt.
async fn until_over(
    plane: &Plane,
    id: &ServiceId,
    run: RunId,
) -> (Option<Outcome>, Option<String>) {
    let mut shown = plane.jobs.watch();
    let over = shown.wait_for(|shown| {
        let row = shown.shelves.get(id).and_then(|shelf| shelf.run(run));
        row.is_none_or(|row| row.ended_ms.is_some())
    });
    let Ok(shown) = over.await else {
        return (None, None); // the node is ending
    };
    let row = shown.shelves.get(id).and_then(|shelf| shelf.run(run));
    let last = row.and_then(|row| row.attempts.last()?.end.clone());
    let message = last.and_then(|end| end.message);
    let timed_out = "it took too long".to_owned();
    match row.and_then(|row| row.outcome) {
        Some(Outcome::TimedOut) => (Some(Outcome::TimedOut), Some(timed_out)),
        outcome => (outcome, message),
    }
}

/// The log of a command, line by line.
#[derive(Default)]
struct Record {
    tail: Tail,
    /// What is begun of a line: of standard output, and of errors.
    begun: [Vec<u8>; 2],
}

/// The names of the outputs.
const STREAMS: [&str; 2] = ["stdout", "stderr"];

impl Record {
    fn take(&mut self, event: &ExecEvent) {
        let (stream, bytes) = match event {
            ExecEvent::Stdout(bytes) => (0, bytes),
            ExecEvent::Stderr(bytes) => (1, bytes),
            ExecEvent::Exit(_) | ExecEvent::Failed(_) => return,
        };
        for byte in bytes {
            if *byte == b'\n' || self.begun[stream].len() >= LINE_BYTES {
                self.end_line(stream);
            }
            if *byte != b'\n' {
                self.begun[stream].push(*byte);
            }
        }
    }

    fn end_line(&mut self, stream: usize) {
        let bytes = std::mem::take(&mut self.begun[stream]);
        self.tail.push(LogLine {
            at_ms: wall_ms(),
            stream: STREAMS[stream].to_owned(),
            text: String::from_utf8_lossy(&bytes).into_owned(),
        });
    }

    fn finish(mut self) -> Tail {
        for stream in 0..STREAMS.len() {
            if !self.begun[stream].is_empty() {
                self.end_line(stream);
            }
        }
        self.tail
    }
}
