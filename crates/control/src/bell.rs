//! A bell: wakes one driver, which then looks at everything itself. Rung twice before it is heard, it is heard once.

use std::sync::Arc;

use tokio::sync::Notify;

/// A handle to a bell; clones ring the same one.
#[derive(Debug, Clone, Default)]
pub(crate) struct Bell(Arc<Notify>);

impl Bell {
    /// Wakes the driver; if it is at work, it looks once more before it rests.
    pub(crate) fn ring(&self) {
        self.0.notify_one();
    }

    /// Waits until it was rung since the last time.
    pub(crate) async fn heard(&self) {
        self.0.notified().await;
    }
}
