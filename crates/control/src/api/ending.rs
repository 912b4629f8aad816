//! How streams of lines end, seen as they go by: the audit log says it of what was answered 200 and failed later.

use std::sync::Arc;

use axum::body::{Body, Bytes};
use axum::http::{StatusCode, header};
use axum::response::Response;
use futures_util::{StreamExt, stream};

use super::{operations, sse};
use crate::audit::Ticket;
use crate::plane::Plane;

/// The longest last line that is looked at, in bytes.
const MAX_LINE: usize = 64 << 10;

/// An answer whose end is told to the audit log, if it is a stream of lines. Its ticket is among its extensions.
pub(super) fn watch(plane: &Arc<Plane>, mut response: Response) -> Response {
    let kind = response.headers().get(header::CONTENT_TYPE);
    if response.status() != StatusCode::OK || kind.is_none_or(|kind| kind != sse::LINES) {
        return response;
    }
    let ticket = plane.ledger.ticket();
    response.extensions_mut().insert(ticket);
    let watcher = Watcher {
        plane: Arc::clone(plane),
        ticket,
        lines: LastLine::default(),
        code: None,
    };
    response.map(|body| {
        let begin = (body.into_data_stream(), watcher);
        let watched = stream::unfold(begin, |(mut data, mut watcher)| async move {
            let piece: Option<Result<Bytes, axum::Error>> = data.next().await;
            match &piece {
                Some(Ok(piece)) => watcher.lines.take(piece),
                Some(Err(_)) => {}
                None => watcher.code = watcher.lines.value().as_ref().map(operations::code),
            }
            piece.map(|piece| (piece, (data, watcher)))
        });
        Body::from_stream(watched)
    })
}

/// Tells how a stream ended when it is dropped: at its end, or before.
struct Watcher {
    plane: Arc<Plane>,
    ticket: Ticket,
    lines: LastLine,
    code: Option<i32>,
}

impl Drop for Watcher {
    fn drop(&mut self) {
        self.plane.ledger.ended(self.ticket, self.code);
    }
}

/// The last whole line of a stream.
#[derive(Debug, Default)]
struct LastLine {
    whole: Vec<u8>,
    begun: Vec<u8>,
}

impl LastLine {
    fn take(&mut self, piece: &[u8]) {
        for part in piece.split_inclusive(|byte| *byte == b'\n') {
            let room = (MAX_LINE + 1).saturating_sub(self.begun.len());
            self.begun.extend_from_slice(&part[..part.len().min(room)]);
            if part.ends_with(b"\n") {
                self.whole = std::mem::take(&mut self.begun);
            }
        }
    }

    /// What it says; `None`: there is none, or it is no JSON (any more).
    fn value(&self) -> Option<serde_json::Value> {
        serde_json::from_slice(&self.whole).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_whole_line_is_known_whatever_pieces_it_comes_in() {
        let mut lines = LastLine::default();
        assert_eq!(lines.value(), None);
        for piece in [
            "{\"type\":\"progress\"}\n{\"type\":",
            "\"done\",\"code\":3}\n",
        ] {
            lines.take(piece.as_bytes());
        }
        let value = lines.value().expect("a line");
        assert_eq!(operations::code(&value), 3);
        lines.take(&vec![b'x'; 2 * MAX_LINE]);
        assert!(lines.begun.len() <= MAX_LINE + 1);
        assert!(lines.value().is_some(), "that line is not whole");
        lines.take(b"\n");
        assert_eq!(lines.value(), None, "it is too long");
    }
}
