//! The log of a container as a stream.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use futures_util::stream;
use layby_model::engine::{BoxStream, EngineError, LogLine, LogQuery};
use layby_model::{ReplicaId, error_chain};
use layby_runtime::logs::Follow;

use super::Shared;
use super::blocking::blocking;

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
}

/// Opens the log of `container`.
pub(super) async fn open(
    shared: &Arc<Shared>,
    id: ReplicaId,
    container: String,
    query: &LogQuery,
) -> Result<BoxStream<'static, LogLine>, EngineError> {
    let bundle = shared.bundle(id);
    let tail = query.tail;
    let (lines, follow) = blocking(move || Follow::after(&bundle, &container, tail))
        .await
        .map_err(|error| EngineError::Failed(error_chain(&error)))?;
    let following = Following {
        shared: Arc::clone(shared),
        id,
        ready: lines.into_iter().map(line).collect(),
        follow: query.follow.then_some(follow),
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
            Ok(lines) if lines.is_empty() && gone => return None,
            Ok(lines) if lines.is_empty() => tokio::time::sleep(PERIOD).await,
            Ok(lines) => following.ready.extend(lines.into_iter().map(line)),
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

fn line(line: layby_runtime::logs::LogLine) -> LogLine {
    LogLine {
        at_ms: line.at_ms,
        stream: line.stream,
        text: line.text,
    }
}
