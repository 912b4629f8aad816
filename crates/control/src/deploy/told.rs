//! Events of a deploy from a blocking thread.

use tokio::runtime::Handle;
use tokio::sync::mpsc;

use crate::api::types::Event;
use crate::plane::CLIENT_IDLE;

/// Tells events from a blocking thread, to a client that may not listen (any more).
pub(super) struct Told {
    events: mpsc::Sender<Event>,
    runtime: Handle,
    /// The client stalled: it is waited for no more.
    stalled: bool,
}

impl Told {
    pub(super) fn new(events: mpsc::Sender<Event>) -> Self {
        Self {
            events,
            runtime: Handle::current(),
            stalled: false,
        }
    }

    pub(super) fn tell(&mut self, event: Event) {
        if self.stalled {
            return;
        }
        let taken = async { tokio::time::timeout(CLIENT_IDLE, self.events.send(event)).await };
        self.stalled = self.runtime.block_on(taken).is_err();
    }
}
