//! The log of a container as a stream.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use futures_util::stream;
use layby_model::engine::{BoxStream, EngineError, LogLine, LogQuery};
use layby_model::{ReplicaId, error_chain};
use layby_runtime::logs::Follow;

use super::Shared;
use super::blocking::blocking;
use crate::span::Span;

/// How often a followed log is looked at. The shims write it without a word to the node.
const PERIOD: Duration = Duration::from_millis(100);

/// A followed log.
struct Following {
    shared: Arc<Shared>,
    id: ReplicaId,
    /// Read, and not handed out yet.
    ready: VecDeque<LogLine>,
    /// `None`: it is not followed, or it is at its end.
    follow: Option<Follow>,
    span: Span,
}

/// Opens the log of `container`.
pub(super) async fn open(
    shared: &Arc<Shared>,
    id: ReplicaId,
    container: String,
    query: &LogQuery,
) -> Result<BoxStream<'static, LogLine>, EngineError> {
    let bundle = shared.bundle(id);
    let span = Span::of(query);
    // Of the lines of a span the last are wanted, not those of the last lines that are in it.
    let tail = query.tail.filter(|_| span == Span::default());
    let (lines, follow) = blocking(move || Follow::after(&bundle, &container, tail))
        .await
        .map_err(|error| EngineError::Failed(error_chain(&error)))?;
    let mut lines: VecDeque<LogLine> = lines.into_iter().map(line).collect();
    lines.retain(|line| span.has(line.at_ms));
    let wanted = query.tail.unwrap_or(usize::MAX);
    lines.drain(..lines.len().saturating_sub(wanted));
    let following = Following {
        shared: Arc::clone(shared),
        id,
        ready: lines,
        follow: query.follow.then_some(follow),
        span,
    };
    Ok(Box::pin(stream::unfold(following, next)))
}

async fn next(mut following: Following) -> Option<(LogLine, Following)> {
    loop {
        if let Some(line) = following.ready.pop_front() {
            return Some((line, following));
        }
        let mut follow = following.follow.take()?;
        // Before the look: what was written until it was gone is still read.
        let gone = following.shared.roster.get(following.id).is_none();
        let (found, follow) = blocking(move || (follow.poll(), follow)).await;
        match found {
            Ok(lines) if lines.is_empty() && (gone || following.span.is_over(now_ms())) => {
                return None;
            }
            Ok(lines) if lines.is_empty() => tokio::time::sleep(PERIOD).await,
            Ok(lines) => {
                let span = following.span;
                let lines = lines.into_iter().map(line);
                let lines = lines.filter(|line| span.has(line.at_ms));
                following.ready.extend(lines);
            }
            Err(error) => {
                tracing::warn!(
                    "the log of {} ends here: {}",
                    following.id,
                    error_chain(&error)
                );
                return None;
            }
        }
        following.follow = Some(follow);
    }
}

fn now_ms() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.map_or(0, |now| u64::try_from(now.as_millis()).unwrap_or(u64::MAX))
}

fn line(line: layby_runtime::logs::LogLine) -> LogLine {
    LogLine {
        at_ms: line.at_ms,
        stream: line.stream,
        text: line.text,
    }
}
