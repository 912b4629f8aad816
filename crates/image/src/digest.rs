//! SHA-256 digests as OCI writes them (`sha256:` and 64 lower case hex digits), and hashing while data passes.

use std::io::{self, Read, Write};

use sha2::{Digest as _, Sha256};

/// The hex digits of a well formed digest; `None` for anything else. Safe as a file name.
pub(crate) fn hex_of(digest: &str) -> Option<&str> {
    let hex = digest.strip_prefix("sha256:")?;
    let lower_hex = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
    (hex.len() == 64 && hex.bytes().all(lower_hex)).then_some(hex)
}

/// The digest of bytes in memory.
pub(crate) fn of(bytes: &[u8]) -> String {
    finish(Sha256::new_with_prefix(bytes))
}

/// The digest that a hasher has come to.
pub(crate) fn finish(hasher: Sha256) -> String {
    use std::fmt::Write as _;
    let mut text = String::with_capacity(71);
    text.push_str("sha256:");
    for byte in hasher.finalize() {
        // Writing to a String cannot fail.
        let _ = write!(text, "{byte:02x}");
    }
    text
}

/// Passes data on and hashes and counts it.
pub(crate) struct Hashing<T> {
    inner: T,
    hasher: Sha256,
    size_bytes: u64,
}

impl<T> Hashing<T> {
    pub(crate) fn new(inner: T) -> Self {
        Self {
            inner,
            hasher: Sha256::new(),
            size_bytes: 0,
        }
    }

    /// What is wrapped.
    pub(crate) fn get_ref(&self) -> &T {
        &self.inner
    }

    /// What was wrapped, the digest and the number of bytes that passed.
    pub(crate) fn finish(self) -> (T, String, u64) {
        (self.inner, finish(self.hasher), self.size_bytes)
    }
}

impl<R: Read> Read for Hashing<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.inner.read(buffer)?;
        self.hasher.update(&buffer[..n]);
        self.size_bytes += n as u64;
        Ok(n)
    }
}

impl<W: Write> Write for Hashing<W> {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        let n = self.inner.write(buffer)?;
        self.hasher.update(&buffer[..n]);
        self.size_bytes += n as u64;
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}
