//! Collecting images: what neither a name nor a kept revision needs is removed from the image store, in the
//! background, one collection at a time.
//!
//! An image that was just built or looked up is needed by nobody yet: whoever makes a revision of it keeps the
//! collector off until that is written.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::sync::{OwnedRwLockReadGuard, OwnedRwLockWriteGuard, RwLock};

use crate::bell::Bell;
use crate::plane::Plane;

/// When it is tried again after somebody held the image store who rings no bell: a build that nobody waits for any
/// more, or the registry.
const LATER: Duration = Duration::from_secs(60);

/// Keeps the collector off, and wakes it.
#[derive(Default)]
pub(crate) struct Collector {
    images: Arc<RwLock<()>>,
    bell: Bell,
    /// Somebody keeps all others out.
    is_alone: Arc<AtomicBool>,
}

/// Nobody else keeps anything, or collects, while this is there.
pub(crate) struct Alone {
    _guard: OwnedRwLockWriteGuard<()>,
    is_alone: Arc<AtomicBool>,
}

impl Drop for Alone {
    fn drop(&mut self) {
        self.is_alone.store(false, Ordering::Relaxed);
    }
}

/// While one of these is there, nothing is collected; when it goes, there may be something to collect.
pub(crate) struct Kept {
    guard: Option<OwnedRwLockReadGuard<()>>,
    bell: Bell,
}

impl Drop for Kept {
    fn drop(&mut self) {
        // Before it rings: the collector looks once, and goes away again while somebody keeps it off.
        self.guard = None;
        self.bell.ring();
    }
}

impl Collector {
    /// Keeps everything that is in the store; waits while something is being collected.
    pub(crate) async fn keep(&self) -> Kept {
        Kept {
            guard: Some(Arc::clone(&self.images).read_owned().await),
            bell: self.bell.clone(),
        }
    }

    /// Keeps everybody else out, if nobody keeps the collector off now.
    pub(crate) fn try_alone(&self) -> Option<Alone> {
        let guard = Arc::clone(&self.images).try_write_owned().ok()?;
        self.is_alone.store(true, Ordering::Relaxed);
        Some(Alone {
            _guard: guard,
            is_alone: Arc::clone(&self.is_alone),
        })
    }

    /// Whether images are being pruned or collected now.
    pub(crate) fn is_alone(&self) -> bool {
        self.is_alone.load(Ordering::Relaxed)
    }

    /// There may be something to collect.
    pub(crate) fn ring(&self) {
        self.bell.ring();
    }
}

/// Collects whenever there may be something, until the control plane ends.
pub(crate) async fn run(plane: Arc<Plane>) {
    let mut is_due = false;
    loop {
        let rung = plane.collector.bell.heard();
        match is_due {
            true => drop(tokio::time::timeout(LATER, rung).await),
            false => rung.await,
        }
        is_due = false;
        // Not waited for: whoever keeps it off rings again, and a lock that is waited for would stop the next deploy.
        let Some(alone) = plane.collector.try_alone() else {
            continue;
        };
        let in_use = match plane.store.images().await {
            Ok(in_use) => in_use,
            Err(error) => {
                tracing::warn!(%error, "which images are in use could not be read; none is removed");
                continue;
            }
        };
        let images = Arc::clone(&plane.images);
        let collected = tokio::task::spawn_blocking(move || {
            // Deploys need not wait until all is deleted.
            images.gc_then(&in_use, move || drop(alone))
        });
        match collected.await {
            Ok(Ok(0)) => {}
            Ok(Err(layby_image::Error::Busy)) => is_due = true,
            Ok(Ok(bytes)) => tracing::info!(bytes, "removed images that nothing needs any more"),
            Ok(Err(error)) => {
                let error = layby_model::error_chain(&error);
                tracing::warn!(error, "the images that nothing needs could not be removed");
            }
            Err(error) => tracing::error!(%error, "collecting broke off; please report this"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn whoever_keeps_images_keeps_the_collector_off_and_rings_when_done() {
        let collector = Collector::default();
        let alone = || Arc::clone(&collector.images).try_write_owned();
        let (one, two) = (collector.keep().await, collector.keep().await);
        assert!(alone().is_err());
        drop(one);
        collector.bell.heard().await;
        assert!(alone().is_err(), "the other still builds");
        drop(two);
        collector.bell.heard().await;
        assert!(alone().is_ok());
    }
}
