//! The queue: all pictures that have no reading yet. It is not kept anywhere: whoever starts finds it in the index, and so
//! in the store.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::task::JoinSet;

use crate::digest::Digest;
use crate::edit::ReplyOutcome;
use crate::library::Library;
use crate::moment::now_ms;
use crate::reader::{ReadError, Reader};

/// After a failure a picture waits so long, then twice as long each time.
const PAUSE_FIRST: Duration = Duration::from_secs(1);
const PAUSE_MAX: Duration = Duration::from_secs(60);

/// So often a picture may take too long, since the machine may have been full; then it is the picture.
const SLOW_MAX: u32 = 3;

/// What is going on with a picture of the queue. Those that are not named wait for their turn.
#[derive(Debug, Clone)]
pub enum Turn {
    /// It is being read.
    Reading {
        /// Since when.
        since: Instant,
        /// How often it was tried before.
        tries: u32,
        /// How often it took too long then.
        slow: u32,
    },
    /// It was tried, and is tried again then.
    Later {
        /// When.
        at: Instant,
        /// What went wrong.
        why: String,
        /// How often it was tried.
        tries: u32,
        /// How often it took too long.
        slow: u32,
    },
}

/// Reads what is in the queue.
pub struct Queue {
    library: Arc<Library>,
    reader: Arc<dyn Reader>,
    /// How many pictures are asked for at once.
    at_once: usize,
    turns: Mutex<HashMap<Digest, Turn>>,
}

impl Queue {
    /// Asks `reader` for `at_once` pictures at a time.
    pub fn new(library: Arc<Library>, reader: Arc<dyn Reader>, at_once: usize) -> Queue {
        Queue {
            library,
            reader,
            at_once: at_once.max(1),
            turns: Mutex::default(),
        }
    }

    /// What is going on with a picture.
    pub fn turn(&self, sha256: &Digest) -> Option<Turn> {
        self.turns().get(sha256).cloned()
    }

    /// How many are being read.
    pub fn reading(&self) -> usize {
        self.turns()
            .values()
            .filter(|turn| matches!(turn, Turn::Reading { .. }))
            .count()
    }

    /// Reads until it is dropped. What is under way then is read again by the next.
    pub async fn run(self: Arc<Self>) {
        let mut changes = self.library.changes();
        let mut under_way = JoinSet::new();
        loop {
            changes.borrow_and_update();
            let (due, next) = self.due(under_way.len());
            for (sha256, tries, slow) in due {
                let queue = Arc::clone(&self);
                under_way.spawn_blocking(move || queue.read(&sha256, tries, slow));
            }
            let retry = async {
                match next {
                    Some(at) => tokio::time::sleep_until(at.into()).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                _ = changes.changed() => {}
                Some(_) = under_way.join_next() => {}
                () = retry => {}
            }
        }
    }

    /// Those whose turn it is, with the number of the try and how often it took too long, and when the next one is due that
    /// waits after a failure.
    fn due(&self, under_way: usize) -> (Vec<(Digest, u32, u32)>, Option<Instant>) {
        let queued = self.library.look(crate::index::Index::queue);
        let mut turns = self.turns();
        // What left the queue by another way (somebody else read it) is forgotten.
        turns
            .retain(|sha256, turn| matches!(turn, Turn::Reading { .. }) || queued.contains(sha256));
        let now = Instant::now();
        let mut next: Option<Instant> = None;
        let mut due = Vec::new();
        for sha256 in queued {
            let (tries, slow) = match turns.get(&sha256) {
                Some(Turn::Reading { .. }) => continue,
                Some(Turn::Later { at, .. }) if *at > now => {
                    next = Some(next.map_or(*at, |next| next.min(*at)));
                    continue;
                }
                Some(Turn::Later { tries, slow, .. }) => (*tries, *slow),
                None => (0, 0),
            };
            if under_way + due.len() >= self.at_once {
                break;
            }
            let since = now;
            turns.insert(sha256.clone(), Turn::Reading { since, tries, slow });
            due.push((sha256, tries + 1, slow));
        }
        drop(turns);
        (due, next)
    }

    fn read(&self, sha256: &Digest, tries: u32, slow: u32) {
        let mut under_way = UnderWay {
            queue: self,
            sha256,
            tries,
            slow,
            ended: Err("it failed; the cause is in the service's log".into()),
        };
        under_way.ended = self.try_to_read(sha256, &mut under_way.slow);
    }

    fn try_to_read(&self, sha256: &Digest, slow: &mut u32) -> Result<(), String> {
        let media_type = self
            .library
            .look(|index| index.get(sha256).map(|picture| picture.upload.media_type));
        let original = self
            .library
            .original(sha256)
            .map_err(|error| with_causes(&error))?;
        let (Some(media_type), Some(bytes)) = (media_type, original) else {
            return Err("the store has lost the picture".into());
        };
        let outcome = match self.reader.read(&bytes, media_type) {
            Ok(reading) => ReplyOutcome::Reading(Box::new(reading)),
            Err(ReadError::Refused(why)) => ReplyOutcome::Refused(why),
            Err(ReadError::Later(why)) => return Err(why),
            Err(ReadError::Slow(why)) => {
                *slow += 1;
                if *slow < SLOW_MAX {
                    return Err(why);
                }
                ReplyOutcome::Refused(format!("{why}, {SLOW_MAX} times"))
            }
        };
        self.library
            .reply(sha256, now_ms(), outcome)
            .map_err(|error| with_causes(&error))
    }

    fn turns(&self) -> MutexGuard<'_, HashMap<Digest, Turn>> {
        self.turns.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A picture that is being read. Dropped, its turn is over, also when reading it panics.
struct UnderWay<'a> {
    queue: &'a Queue,
    sha256: &'a Digest,
    tries: u32,
    slow: u32,
    ended: Result<(), String>,
}

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        let mut turns = self.queue.turns();
        match &self.ended {
            Ok(()) => {
                turns.remove(self.sha256);
            }
            Err(why) => {
                let (tries, slow) = (self.tries, self.slow);
                eprintln!("{} was not read, try {tries}: {why}", self.sha256.short());
                let pause = PAUSE_FIRST * 2u32.saturating_pow(tries - 1).min(64);
                let at = Instant::now() + pause.min(PAUSE_MAX);
                let later = Turn::Later {
                    at,
                    why: why.clone(),
                    tries,
                    slow,
                };
                turns.insert(self.sha256.clone(), later);
            }
        }
    }
}

fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}
