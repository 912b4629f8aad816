//! The line before a service whose replicas are full: who came first is let in first, whichever worker has it, and one at a
//! time.
//!
//! Only the first in the line may try. Whoever leaves a replica wakes the first; whoever leaves the line wakes the next. A place
//! that is free and somebody who waits never miss each other: the one is given back before it is looked whether anybody waits,
//! the other stands in line before it looks for a place.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed, Ordering::SeqCst};
use std::task::Waker;

use crate::service::lock;

/// Those who wait, by the number that each drew when it came.
#[derive(Debug, Default)]
pub(crate) struct Line {
    numbers: AtomicU64,
    /// How many are in line: who need not wait looks at no more than this.
    len: AtomicU32,
    waiting: Mutex<Waiting>,
}

/// Who waits for a replica of the canary is in another line than who waits for live.
#[derive(Debug, Default)]
struct Waiting {
    live: BTreeMap<u64, Waker>,
    canary: BTreeMap<u64, Waker>,
}

impl Waiting {
    /// Those who wait for the same, and the others.
    fn lines(&mut self, canary: bool) -> (&mut BTreeMap<u64, Waker>, &mut BTreeMap<u64, Waker>) {
        match canary {
            false => (&mut self.live, &mut self.canary),
            true => (&mut self.canary, &mut self.live),
        }
    }

    /// Wakes the first that waits for live and the first that waits for the canary.
    fn wake(&self) {
        let firsts = [&self.live, &self.canary].map(BTreeMap::first_key_value);
        for (_, first) in firsts.into_iter().flatten() {
            first.wake_by_ref();
        }
    }
}

impl Line {
    /// A number: smaller ones came before.
    pub(crate) fn draw(&self) -> u64 {
        self.numbers.fetch_add(1, Relaxed)
    }

    /// Whether anybody waits.
    pub(crate) fn is_empty(&self) -> bool {
        self.len.load(SeqCst) == 0
    }

    /// Whether the one with this number is the first of those who wait for the same; it is in line from now on.
    pub(crate) fn is_first(&self, number: u64, canary: bool, waker: &Waker) -> bool {
        let mut waiting = lock(&self.waiting);
        let (same, other) = waiting.lines(canary);
        let moved = other.remove(&number).is_some();
        let mine = same.entry(number).or_insert_with(|| waker.clone());
        if !mine.will_wake(waker) {
            mine.clone_from(waker);
        }
        let is_first = same.first_key_value().is_some_and(|(n, _)| *n == number);
        self.count(&waiting);
        if moved {
            waiting.wake(); // somebody else may be the first of those whom it left
        }
        is_first
    }

    /// The one with this number is in line no more.
    pub(crate) fn leave(&self, number: u64) {
        let mut waiting = lock(&self.waiting);
        let was_there = [false, true].map(|canary| waiting.lines(canary).0.remove(&number));
        if was_there.iter().any(Option::is_some) {
            self.count(&waiting);
            waiting.wake();
        }
    }

    /// A place at a replica is free.
    pub(crate) fn next(&self) {
        if !self.is_empty() {
            lock(&self.waiting).wake();
        }
    }

    fn count(&self, waiting: &Waiting) {
        let len = waiting.live.len() + waiting.canary.len();
        self.len
            .store(u32::try_from(len).unwrap_or(u32::MAX), SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::task::Wake;

    use super::*;

    #[derive(Default)]
    struct Woken(AtomicU32);

    impl Wake for Woken {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, SeqCst);
        }
    }

    fn waiter() -> (Arc<Woken>, Waker) {
        let woken = Arc::new(Woken::default());
        (Arc::clone(&woken), woken.into())
    }

    fn times(woken: &Arc<Woken>) -> u32 {
        woken.0.swap(0, SeqCst)
    }

    #[test]
    fn the_first_who_came_is_the_first_whenever_it_gets_in_line() {
        let line = Line::default();
        let [one, two] = [line.draw(), line.draw()];
        let ((first, first_waker), (second, second_waker)) = (waiter(), waiter());
        assert!(line.is_empty());
        assert!(line.is_first(two, false, &second_waker));
        assert!(line.is_first(one, false, &first_waker));
        assert!(!line.is_first(two, false, &second_waker));
        line.next();
        assert_eq!((times(&first), times(&second)), (1, 0), "one at a time");
        line.leave(one);
        assert_eq!((times(&first), times(&second)), (0, 1));
        assert!(line.is_first(two, false, &second_waker));
        line.leave(two);
        line.leave(two);
        assert!(line.is_empty());
    }

    #[test]
    fn those_who_wait_for_a_canary_are_in_nobodys_way() {
        let line = Line::default();
        let [one, two, three] = [line.draw(), line.draw(), line.draw()];
        let ((first, first_waker), (second, second_waker)) = (waiter(), waiter());
        assert!(line.is_first(one, true, &first_waker));
        assert!(line.is_first(two, false, &second_waker));
        assert!(!line.is_first(three, true, &second_waker));
        line.next();
        assert_eq!((times(&first), times(&second)), (1, 1));
        // The canary is gone: what waited for it is in the other line, in its old place.
        assert!(line.is_first(one, false, &first_waker));
        assert!(!line.is_first(two, false, &second_waker));
    }
}
