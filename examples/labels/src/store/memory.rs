//! A store in memory, with the one failure that matters: that it does not answer.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use crate::store::{ObjectStore, StoreError};

/// Everything that was put, until it is dropped.
#[derive(Debug, Default)]
pub struct MemoryStore {
    objects: Mutex<BTreeMap<String, Vec<u8>>>,
    down: AtomicBool,
}

impl MemoryStore {
    /// From now on it answers, or does not.
    pub fn set_down(&self, down: bool) {
        self.down.store(down, Ordering::SeqCst);
    }

    fn objects(&self) -> Result<std::sync::MutexGuard<'_, BTreeMap<String, Vec<u8>>>, StoreError> {
        if self.down.load(Ordering::SeqCst) {
            return Err(StoreError::NoAnswer {
                endpoint: "memory".into(),
                cause: Box::new(ureq::Error::ConnectionFailed),
            });
        }
        Ok(self.objects.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl ObjectStore for MemoryStore {
    fn put(&self, key: &str, bytes: &[u8], _media_type: &str) -> Result<(), StoreError> {
        self.objects()?.insert(key.to_owned(), bytes.to_vec());
        Ok(())
    }

    fn get(&self, key: &str) -> Result<Option<Vec<u8>>, StoreError> {
        Ok(self.objects()?.get(key).cloned())
    }

    fn list(&self, prefix: &str) -> Result<Vec<String>, StoreError> {
        let objects = self.objects()?;
        let from = objects.range(prefix.to_owned()..);
        let keys = from
            .map(|(key, _)| key)
            .take_while(|key| key.starts_with(prefix));
        Ok(keys.cloned().collect())
    }
}
