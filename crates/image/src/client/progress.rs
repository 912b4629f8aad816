//! What a pull or push is at.

/// Something happened to one part of an image (a layer or its config).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Progress {
    /// The part's digest, `sha256:...`.
    pub digest: String,
    /// What happened.
    pub step: Step,
}

/// What happened to a part.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// It will be fetched or sent.
    Waiting {
        /// How large it is, in bytes.
        of: u64,
    },
    /// The other side, or this one, has it already.
    Held,
    /// So much of it is through.
    Bytes {
        /// Bytes so far.
        done: u64,
        /// Bytes in all.
        of: u64,
    },
    /// It broke off, and is tried again.
    Again {
        /// Why.
        reason: String,
    },
    /// It is all here (and verified), or all there.
    Done,
    /// Its files are unpacked.
    Unpacked,
    /// The other side took it from another repository of its own.
    Mounted,
}

/// How progress is told; from several threads.
pub type Tell<'a> = &'a (dyn Fn(Progress) + Sync);

/// Tells bytes only now and then.
pub(super) struct Meter<'a> {
    tell: Tell<'a>,
    digest: &'a str,
    of: u64,
    told: u64,
}

impl<'a> Meter<'a> {
    pub(super) fn new(tell: Tell<'a>, digest: &'a str, of: u64) -> Self {
        Self {
            tell,
            digest,
            of,
            told: 0,
        }
    }

    /// So much is through; told for each hundredth, and not for less than 256 KiB.
    pub(super) fn at(&mut self, done: u64) {
        let step = (self.of / 100).max(256 << 10);
        if done >= self.told + step || done < self.told || done == self.of {
            self.told = done;
            self.step(Step::Bytes { done, of: self.of });
        }
    }

    pub(super) fn step(&self, step: Step) {
        (self.tell)(Progress {
            digest: self.digest.to_owned(),
            step,
        });
    }
}
