//! Small pictures for lists: made when first asked for, and kept in memory as long as there is room.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};

use crate::digest::Digest;
use crate::library::Library;
use crate::picture;
use crate::store::StoreError;

/// How many are kept: some 10 kB each.
const KEPT_MAX: usize = 1_000;

/// All that were made.
#[derive(Debug, Default)]
pub struct Thumbnails {
    kept: Mutex<Kept>,
}

#[derive(Debug, Default)]
struct Kept {
    pictures: HashMap<Digest, Arc<Vec<u8>>>,
    oldest_first: VecDeque<Digest>,
}

impl Thumbnails {
    /// One that was made before.
    pub fn kept(&self, sha256: &Digest) -> Option<Arc<Vec<u8>>> {
        self.kept
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .pictures
            .get(sha256)
            .cloned()
    }

    /// A small JPEG; `None` where there is no such picture, or none that can be decoded. The call blocks, with the picture
    /// and its pixels in memory: make one at a time.
    ///
    /// # Errors
    /// When the store does not answer.
    pub fn make(
        &self,
        library: &Library,
        sha256: &Digest,
    ) -> Result<Option<Arc<Vec<u8>>>, StoreError> {
        // Whoever had the turn before may have made it.
        if let Some(kept) = self.kept(sha256) {
            return Ok(Some(kept));
        }
        let Some(original) = library.original(sha256)? else {
            return Ok(None);
        };
        let Ok(made) = picture::thumbnail(&original).map(Arc::new) else {
            return Ok(None);
        };
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if kept
            .pictures
            .insert(sha256.clone(), Arc::clone(&made))
            .is_none()
        {
            kept.oldest_first.push_back(sha256.clone());
        }
        if kept.oldest_first.len() > KEPT_MAX
            && let Some(oldest) = kept.oldest_first.pop_front()
        {
            kept.pictures.remove(&oldest);
        }
        Ok(Some(made))
    }
}
