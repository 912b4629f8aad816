//! Long reading and writing that ends when nobody wants the image any more.

use std::io::{self, Read, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Passes data on until it is told to stop; from then on everything fails.
pub(super) struct Stoppable<T> {
    inner: T,
    stop: Arc<AtomicBool>,
}

impl<T> Stoppable<T> {
    pub(super) fn new(inner: T, stop: &Arc<AtomicBool>) -> Self {
        Self {
            inner,
            stop: Arc::clone(stop),
        }
    }

    /// What is wrapped.
    pub(super) fn get_ref(&self) -> &T {
        &self.inner
    }

    /// What was wrapped.
    pub(super) fn into_inner(self) -> T {
        self.inner
    }

    fn check(&self) -> io::Result<()> {
        match self.stop.load(Ordering::Relaxed) {
            true => Err(io::Error::other("it was given up")),
            false => Ok(()),
        }
    }
}

impl<R: Read> Read for Stoppable<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.check()?;
        self.inner.read(buffer)
    }
}

impl<W: Write> Write for Stoppable<W> {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        self.check()?;
        self.inner.write(buffer)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}
