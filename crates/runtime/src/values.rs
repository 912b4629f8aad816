//! Values that containers get and no disk sees: they go to the shim in sealed memory, which the spec's numbers refer to.

use std::fmt;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::fd::{AsFd, OwnedFd};

use nix::fcntl::{FcntlArg, SealFlag, fcntl};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::stat::{SFlag, fstat};
use zeroize::Zeroizing;

use crate::error::{Error, Result, Trying};

/// The most that all values of a sandbox may have together, in bytes.
pub const MAX_VALUES_BYTES: usize = 32 << 20;

/// The values of a sandbox. They are wiped when they are dropped, and never printed.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Values(Vec<Zeroizing<Vec<u8>>>);

impl Values {
    /// Adds a value, and gives the number by which the spec names it.
    pub fn add(&mut self, value: Zeroizing<Vec<u8>>) -> usize {
        self.0.push(value);
        self.0.len() - 1
    }

    /// The value with this number.
    pub fn get(&self, number: usize) -> Option<&[u8]> {
        self.0.get(number).map(|value| value.as_slice())
    }

    /// How many.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Forgets all but those with these numbers, which stay the same.
    pub(crate) fn keep(&mut self, numbers: &[usize]) {
        for (number, value) in self.0.iter_mut().enumerate() {
            if !numbers.contains(&number) {
                *value = Zeroizing::default();
            }
        }
    }

    /// Writes them to memory that nobody can change, for another process to read.
    pub(crate) fn seal(&self) -> Result<OwnedFd> {
        let what = || "hand values to a shim".to_owned();
        let size: usize = self.0.iter().map(|value| value.len()).sum();
        if size > MAX_VALUES_BYTES {
            return Err(Error::Fatal(format!(
                "the secrets and configs of a replica have {size} bytes together: {MAX_VALUES_BYTES} is the most"
            )));
        }
        let flags = MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING;
        let memory = memfd_create(c"layby-values", flags).trying(what)?;
        let mut to = File::from(memory.try_clone().trying(what)?);
        self.write(&mut to).trying(what)?;
        to.seek(SeekFrom::Start(0)).trying(what)?;
        drop(to);
        let seals = SealFlag::F_SEAL_WRITE
            | SealFlag::F_SEAL_GROW
            | SealFlag::F_SEAL_SHRINK
            | SealFlag::F_SEAL_SEAL;
        fcntl(&memory, FcntlArg::F_ADD_SEALS(seals)).trying(what)?;
        Ok(memory)
    }

    fn write(&self, to: &mut impl Write) -> io::Result<()> {
        for value in &self.0 {
            // It is far less than this holds.
            let length = u32::try_from(value.len()).map_err(io::Error::other)?;
            to.write_all(&length.to_le_bytes())?;
            to.write_all(value)?;
        }
        Ok(())
    }

    /// Reads what [`Values::seal`] wrote; anything but a file (`/dev/null`) holds none.
    pub(crate) fn unseal(from: impl AsFd) -> Result<Self> {
        let what = || "read the values of a sandbox".to_owned();
        let kind = fstat(&from).trying(what)?.st_mode;
        if SFlag::from_bits_truncate(kind & SFlag::S_IFMT.bits()) != SFlag::S_IFREG {
            return Ok(Self::default());
        }
        let mut from = File::from(from.as_fd().try_clone_to_owned().trying(what)?);
        let mut values = Self::default();
        let mut left = MAX_VALUES_BYTES;
        loop {
            let mut length = [0; 4];
            match from.read_exact(&mut length) {
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(values),
                other => other.trying(what)?,
            }
            let length = u32::from_le_bytes(length) as usize;
            left = left
                .checked_sub(length)
                .ok_or_else(|| Error::Fatal("the values of a sandbox are too long".to_owned()))?;
            let mut value = Zeroizing::new(vec![0; length]);
            from.read_exact(&mut value).trying(what)?;
            values.add(value);
        }
    }
}

impl fmt::Debug for Values {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} values", self.0.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_sealed_is_read_again_and_cannot_be_changed() {
        let mut values = Values::default();
        for value in [&b"hunter2"[..], b"", &[0, 255]] {
            values.add(Zeroizing::new(value.to_vec()));
        }
        let sealed = values.seal().expect("sealed");
        assert!(
            File::from(sealed.try_clone().expect("a copy"))
                .write(b"x")
                .is_err()
        );
        let mut read = Values::unseal(&sealed).expect("read");
        assert_eq!(read, values);
        assert_eq!(format!("{read:?}"), "3 values");
        read.keep(&[2]);
        assert_eq!(read.get(0), Some(&b""[..]));
        assert_eq!(read.get(2), Some(&[0, 255][..]));
        let null = File::open("/dev/null").expect("null");
        assert!(Values::unseal(&null).expect("none").is_empty());
    }
}
