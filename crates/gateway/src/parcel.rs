//! Datagrams that wait, or are kept to be sent again, and the room that a worker has for them.

use std::cell::Cell;
use std::collections::VecDeque;
use std::rc::Rc;

/// So many bytes of datagrams a worker has at a time at most.
const MAX_BYTES: usize = 32 * 1024 * 1024;
/// Where there is no room any more, one datagram of a client is still taken that is no longer than this, in bytes: whoever fills the
/// room with a service that does not wake takes none of it from others' questions.
const SHORT: usize = 2048;
/// The most datagrams in one queue; more are dropped, as in the queue of a socket.
const MAX_QUEUED: usize = 16;
/// The most bytes of them.
const MAX_QUEUED_BYTES: usize = 64 * 1024;

/// The room of a worker.
#[derive(Debug, Default)]
pub(crate) struct Room {
    taken: Cell<usize>,
}

impl Room {
    /// Whether there is enough left that datagrams may be kept which were sent already.
    pub(crate) fn may_keep(&self) -> bool {
        self.taken.get() < MAX_BYTES / 2
    }

    fn has(&self, bytes: usize) -> bool {
        self.taken.get() + bytes <= MAX_BYTES
    }

    /// Takes one in.
    fn take(self: &Rc<Self>, datagram: &[u8]) -> Parcel {
        self.taken.set(self.taken.get() + datagram.len());
        Parcel {
            bytes: datagram.into(),
            room: Rc::clone(self),
        }
    }
}

/// A datagram. Dropped, it gives its room back.
#[derive(Debug)]
pub(crate) struct Parcel {
    bytes: Box<[u8]>,
    room: Rc<Room>,
}

impl Parcel {
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Parcel {
    fn drop(&mut self) {
        let taken = self.room.taken.get();
        self.room.taken.set(taken - self.bytes.len());
    }
}

/// A few datagrams, in their order.
#[derive(Debug, Default)]
pub(crate) struct Queue {
    parcels: VecDeque<Parcel>,
    bytes: usize,
}

impl Queue {
    /// Takes one in, if this queue and the worker have room for it.
    pub(crate) fn take_in(&mut self, datagram: &[u8], room: &Rc<Room>) {
        let is_first = self.parcels.is_empty() && datagram.len() <= SHORT;
        if self.fits(datagram.len()) && (room.has(datagram.len()) || is_first) {
            self.push_back(room.take(datagram));
        }
    }

    /// Keeps one that was sent, if it fits.
    pub(crate) fn keep(&mut self, parcel: Parcel) {
        if self.fits(parcel.bytes.len()) && parcel.room.may_keep() {
            self.push_back(parcel);
        }
    }

    /// Puts one back, as the first: it fits, since it was taken from here or from one like this.
    pub(crate) fn put_back(&mut self, parcel: Parcel) {
        self.bytes += parcel.bytes.len();
        self.parcels.push_front(parcel);
    }

    /// Takes the first.
    pub(crate) fn pop_front(&mut self) -> Option<Parcel> {
        let first = self.parcels.pop_front()?;
        self.bytes -= first.bytes.len();
        Some(first)
    }

    /// Takes the last.
    pub(crate) fn pop_back(&mut self) -> Option<Parcel> {
        let last = self.parcels.pop_back()?;
        self.bytes -= last.bytes.len();
        Some(last)
    }

    /// Takes all of `other`, behind what it has.
    pub(crate) fn append(&mut self, mut other: Self) {
        self.bytes += std::mem::take(&mut other.bytes);
        self.parcels.append(&mut other.parcels);
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.parcels.is_empty()
    }

    fn fits(&self, bytes: usize) -> bool {
        self.parcels.len() < MAX_QUEUED && self.bytes + bytes <= MAX_QUEUED_BYTES
    }

    fn push_back(&mut self, parcel: Parcel) {
        self.bytes += parcel.bytes.len();
        self.parcels.push_back(parcel);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: &[u8] = &[0; 60_000];

    #[test]
    fn a_queue_is_bounded_by_number_and_by_bytes_also_of_what_is_kept() {
        let room = Rc::default();
        let (mut waiting, mut kept) = (Queue::default(), Queue::default());
        for _ in 0..40 {
            waiting.take_in(b"short", &room);
        }
        assert_eq!(waiting.parcels.len(), MAX_QUEUED);
        for _ in 0..40 {
            let mut one = Queue::default();
            one.take_in(LONG, &room);
            kept.keep(one.pop_front().expect("one that fits"));
        }
        assert_eq!((kept.parcels.len(), kept.bytes), (1, LONG.len()));
        let parcel = kept.pop_front().expect("one");
        kept.put_back(parcel);
        waiting.append(kept);
        assert_eq!(room.taken.get(), MAX_QUEUED * 5 + LONG.len());
        assert_eq!(waiting.pop_back().expect("the last").bytes(), LONG);
        assert_eq!((waiting.bytes, room.taken.get()), (80, 80));
        drop(waiting);
        assert_eq!(room.taken.get(), 0, "all room is given back");
    }

    #[test]
    fn a_worker_has_room_for_so_much_and_each_client_for_one_short_question() {
        const LONG: &[u8] = &[0; 32 * 1024];
        let room = Rc::default();
        let mut queues = Vec::new();
        for _ in 0..MAX_BYTES / LONG.len() + 100 {
            let mut queue = Queue::default();
            queue.take_in(LONG, &room);
            queues.push(queue);
        }
        assert_eq!(room.taken.get(), MAX_BYTES);
        let mut other = Queue::default();
        for _ in 0..2 {
            other.take_in(&[0; SHORT + 1], &room);
        }
        assert!(other.is_empty());
        for _ in 0..40 {
            other.take_in(&[0; SHORT], &room);
        }
        let first = other.pop_front().expect("a question");
        assert!(other.is_empty(), "the room has place for {:?}", room);
        other.keep(first);
        assert!(other.is_empty(), "it is sent, and not kept");
        queues.truncate(queues.len() / 3);
        other.take_in(LONG, &room);
        assert!(!other.is_empty());
    }
}
