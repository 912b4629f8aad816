//! Buffers for bytes under way, lent by a worker's free list and given back when a connection idles.

use std::cell::RefCell;
use std::ops::{Deref, DerefMut};
use std::rc::Rc;

use crate::codec::MAX_HEAD_BYTES;

/// For heads, and small bodies with them.
const SMALL_BYTES: usize = 8 * 1024;
/// For copying bodies: below this the system calls cost more than the copying.
const LARGE_BYTES: usize = 128 * 1024;
/// What a worker keeps for the next borrower.
const SMALL_KEPT: usize = 512;
const LARGE_KEPT: usize = 16;

/// Bytes that came in, waiting to be used: filled at the end, consumed at the front.
#[derive(Debug)]
pub(crate) struct Buffer {
    bytes: Box<[u8]>,
    start: usize,
    end: usize,
}

impl Buffer {
    fn new(len: usize) -> Self {
        Self {
            bytes: vec![0; len].into_boxed_slice(),
            start: 0,
            end: 0,
        }
    }

    /// What is in it.
    pub(crate) fn filled(&self) -> &[u8] {
        &self.bytes[self.start..self.end]
    }

    /// Whether nothing is in it.
    pub(crate) fn is_empty(&self) -> bool {
        self.start == self.end
    }

    /// Takes `len` bytes off the front.
    pub(crate) fn consume(&mut self, len: usize) {
        self.start += len;
        if self.start == self.end {
            (self.start, self.end) = (0, 0);
        }
    }

    /// Room for more at the end, at least one byte; a buffer that is full grows, up to one head and some.
    pub(crate) fn room(&mut self) -> &mut [u8] {
        if self.end == self.bytes.len() {
            if self.start > 0 {
                self.bytes.copy_within(self.start..self.end, 0);
                (self.start, self.end) = (0, self.end - self.start);
            } else {
                let mut larger = vec![0; (self.bytes.len() * 2).min(2 * MAX_HEAD_BYTES)];
                larger[..self.end].copy_from_slice(&self.bytes);
                self.bytes = larger.into_boxed_slice();
            }
        }
        &mut self.bytes[self.end..]
    }

    /// `len` bytes were put into [`Self::room`].
    pub(crate) fn put(&mut self, len: usize) {
        self.end += len;
    }

    fn clear(&mut self) {
        (self.start, self.end) = (0, 0);
    }
}

/// The free list of one worker.
#[derive(Debug, Default)]
pub(crate) struct Buffers {
    small: RefCell<Vec<Buffer>>,
    large: RefCell<Vec<Buffer>>,
    heads: RefCell<Vec<Vec<u8>>>,
}

impl Buffers {
    /// A buffer for heads.
    pub(crate) fn small(self: &Rc<Self>) -> Lent {
        let buffer = self.small.borrow_mut().pop();
        Lent::new(self, buffer.unwrap_or_else(|| Buffer::new(SMALL_BYTES)))
    }

    /// A buffer for bodies.
    pub(crate) fn large(self: &Rc<Self>) -> Lent {
        let buffer = self.large.borrow_mut().pop();
        Lent::new(self, buffer.unwrap_or_else(|| Buffer::new(LARGE_BYTES)))
    }

    /// An empty vector for a head that is written anew.
    pub(crate) fn head(&self) -> Vec<u8> {
        self.heads.borrow_mut().pop().unwrap_or_default()
    }

    /// Takes a vector back.
    pub(crate) fn give_back(&self, mut head: Vec<u8>) {
        let mut heads = self.heads.borrow_mut();
        if head.capacity() <= 2 * SMALL_BYTES && heads.len() < SMALL_KEPT {
            head.clear();
            heads.push(head);
        }
    }

    fn take_back(&self, mut buffer: Buffer) {
        let (list, kept) = match buffer.bytes.len() {
            SMALL_BYTES => (&self.small, SMALL_KEPT),
            LARGE_BYTES => (&self.large, LARGE_KEPT),
            _ => return, // it grew, for an unusual head
        };
        let mut list = list.borrow_mut();
        if list.len() < kept {
            buffer.clear();
            list.push(buffer);
        }
    }
}

/// A buffer on loan; dropping it gives it back.
#[derive(Debug)]
pub(crate) struct Lent {
    buffer: Option<Buffer>,
    owner: Rc<Buffers>,
}

impl Lent {
    fn new(owner: &Rc<Buffers>, buffer: Buffer) -> Self {
        Self {
            buffer: Some(buffer),
            owner: Rc::clone(owner),
        }
    }
}

impl Deref for Lent {
    type Target = Buffer;
    fn deref(&self) -> &Buffer {
        self.buffer.as_ref().expect("it is there until dropped")
    }
}

impl DerefMut for Lent {
    fn deref_mut(&mut self) -> &mut Buffer {
        self.buffer.as_mut().expect("it is there until dropped")
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        if let Some(buffer) = self.buffer.take() {
            self.owner.take_back(buffer);
        }
    }
}
