//! What happened: told to those who listen, and written down beside the work. Nobody waits for it, and a full disk only
//! costs the record.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use layby_model::{AppName, ServiceId, ServiceName};
use tokio::sync::{broadcast, mpsc, watch};

use crate::api::types::{EventKind, EventView};
use crate::plane::Plane;

/// So many may wait to be written; then the newest are lost.
const QUEUE: usize = 4_096;
/// So many are written at a time.
const BATCH: usize = 256;
/// So many a slow listener may be behind; then it loses the oldest.
const BEHIND: usize = 1_024;
/// So long does who reads wait at most for what was told before.
const SETTLE: Duration = Duration::from_secs(5);
/// The longest text.
const TEXT_BYTES: usize = 2_048;

/// Something that just happened.
#[derive(Debug, Clone)]
pub(crate) struct NewEvent {
    pub(crate) at_ms: u64,
    pub(crate) kind: EventKind,
    pub(crate) app: Option<AppName>,
    pub(crate) service: Option<ServiceName>,
    pub(crate) text: String,
    pub(crate) who: Option<String>,
}

/// Where to tell what happened, and to listen.
#[derive(Debug)]
pub(crate) struct Events {
    queue: mpsc::Sender<NewEvent>,
    waiting: Mutex<Option<mpsc::Receiver<NewEvent>>>,
    told: broadcast::Sender<EventView>,
    /// How many were to be written in this life of the node.
    queued: AtomicU64,
    /// How many of those are written by now, or are lost.
    written: watch::Sender<u64>,
}

impl Default for Events {
    fn default() -> Self {
        let (queue, waiting) = mpsc::channel(QUEUE);
        Self {
            queue,
            waiting: Mutex::new(Some(waiting)),
            told: broadcast::Sender::new(BEHIND),
            queued: AtomicU64::new(0),
            written: watch::Sender::new(0),
        }
    }
}

impl Events {
    /// Tells of a service; `text` follows its name, such as `revision 3 is live`.
    pub(crate) fn of(&self, id: &ServiceId, kind: EventKind, text: String, who: Option<&str>) {
        self.note(
            kind,
            Some(id.app.clone()),
            Some(id.service.clone()),
            text,
            who,
        );
    }

    /// Tells of an app, or of the node.
    pub(crate) fn note(
        &self,
        kind: EventKind,
        app: Option<AppName>,
        service: Option<ServiceName>,
        mut text: String,
        who: Option<&str>,
    ) {
        text.truncate(text.floor_char_boundary(TEXT_BYTES));
        let now_ms = crate::clock::wall().as_millisecond();
        let event = NewEvent {
            at_ms: u64::try_from(now_ms).unwrap_or(0),
            kind,
            app,
            service,
            text,
            who: who.map(str::to_owned),
        };
        if !kind.is_kept() {
            // Nobody may be listening.
            let _ = self.told.send(told(event));
            return;
        }
        // Before it can be written: whoever waits for as many as were told is to wait for this one.
        self.queued.fetch_add(1, Ordering::SeqCst);
        if let Err(error) = self.queue.try_send(event) {
            // And nobody for one that never will be.
            self.written.send_modify(|written| *written += 1);
            tracing::warn!(%kind, %error, "an event is lost");
        }
    }

    /// Waits until all that was told before is written, but not for long: whoever reads after something was done to a service
    /// is to find it.
    pub(crate) async fn settle(&self) {
        let queued = self.queued.load(Ordering::SeqCst);
        let mut written = self.written.subscribe();
        let all = written.wait_for(|written| *written >= queued);
        let _ = tokio::time::timeout(SETTLE, all).await; // a slow disk shows less
    }

    /// Hears what happens from now on.
    pub(crate) fn listen(&self) -> broadcast::Receiver<EventView> {
        self.told.subscribe()
    }
}

/// Writes down what is told, until the control plane ends.
pub(crate) async fn write(plane: Arc<Plane>) {
    let waiting = &plane.events.waiting;
    let waiting = waiting
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .take();
    let Some(mut waiting) = waiting else {
        return;
    };
    let mut batch = Vec::new();
    while waiting.recv_many(&mut batch, BATCH).await > 0 {
        let events = std::mem::take(&mut batch);
        let count = events.len() as u64;
        let written = match plane.store.add_events(events.clone()).await {
            Ok(written) => written,
            Err(error) => {
                tracing::warn!(%error, "what happened could not be written down");
                events.into_iter().map(told).collect()
            }
        };
        for event in written {
            // Nobody may be listening.
            let _ = plane.events.told.send(event);
        }
        plane
            .events
            .written
            .send_modify(|written| *written += count);
    }
}

/// An event as it is shown that is not written down.
fn told(event: NewEvent) -> EventView {
    EventView {
        id: None,
        at_ms: event.at_ms,
        kind: event.kind,
        app: event.app.map(|app| app.to_string()),
        service: event.service.map(|service| service.to_string()),
        text: event.text,
        who: event.who,
    }
}
