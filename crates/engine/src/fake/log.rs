//! The log of a fake replica: bounded, and readable while it grows.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use futures_util::stream;
use layby_model::engine::{BoxStream, LogLine, LogQuery};
use tokio::sync::broadcast;

use crate::span::Span;

/// The lines that are kept, and those that a follower may lag behind.
const LINES: usize = 1_000;

#[derive(Debug)]
pub(super) struct Log {
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    lines: VecDeque<LogLine>,
    /// `None` once it is closed.
    followers: Option<broadcast::Sender<LogLine>>,
}

impl Default for Log {
    fn default() -> Self {
        Self {
            state: Mutex::new(State {
                lines: VecDeque::new(),
                followers: Some(broadcast::channel(LINES).0),
            }),
        }
    }
}

impl Log {
    /// Adds a line.
    pub(super) fn write(&self, stream: &str, text: &str) {
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        let line = LogLine {
            at_ms: now.map_or(0, |now| u64::try_from(now.as_millis()).unwrap_or(u64::MAX)),
            stream: stream.to_owned(),
            text: text.to_owned(),
        };
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.lines.len() == LINES {
            state.lines.pop_front();
        }
        state.lines.push_back(line.clone());
        if let Some(followers) = &state.followers {
            // An error means that nobody follows.
            let _ = followers.send(line);
        }
    }

    /// Ends every stream that follows: the replica is gone.
    pub(super) fn close(&self) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.followers = None;
    }

    /// The lines that are asked for, then the new ones if they are.
    pub(super) fn read(&self, query: &LogQuery) -> BoxStream<'static, LogLine> {
        let span = Span::of(query);
        let follow = query.follow;
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let wanted = state.lines.iter().filter(|line| span.has(line.at_ms));
        let mut old: VecDeque<LogLine> = wanted.cloned().collect();
        let tail = query.tail.unwrap_or(usize::MAX);
        old.drain(..old.len().saturating_sub(tail));
        let new = match &state.followers {
            Some(followers) if follow => Some(followers.subscribe()),
            _ => None,
        };
        drop(state);
        Box::pin(stream::unfold(
            (old, new),
            move |(mut old, mut new)| async move {
                if let Some(line) = old.pop_front() {
                    return Some((line, (old, new)));
                }
                loop {
                    match new.as_mut()?.recv().await {
                        Ok(line) if span.is_over(line.at_ms) => return None,
                        Ok(line) if span.has(line.at_ms) => return Some((line, (old, new))),
                        Ok(_) => {}
                        // Lines were lost to a reader that did not keep up; it goes on with what is left.
                        Err(broadcast::error::RecvError::Lagged(_)) => {}
                        Err(broadcast::error::RecvError::Closed) => return None,
                    }
                }
            },
        ))
    }
}
