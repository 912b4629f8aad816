//! Where errors and warnings are gathered, so that all are shown at once.

use crate::diagnostic::{Diagnostic, Faults};
use crate::tree::Place;

/// The most errors, and the most warnings, that are handed out.
const MAX_SHOWN: usize = 200;

/// What is there to say so far.
#[derive(Debug, Default)]
pub(crate) struct Report {
    errors: Vec<Diagnostic>,
    warnings: Vec<Diagnostic>,
    images: Vec<Diagnostic>,
}

impl Report {
    /// Something that keeps the manifest from being used.
    pub(crate) fn error(&mut self, place: &Place, message: impl Into<String>) {
        self.errors.push(at(place, message.into()));
    }

    /// Something that is not honoured.
    pub(crate) fn warn(&mut self, place: &Place, message: impl Into<String>) {
        self.warnings.push(at(place, message.into()));
    }

    /// The name of an image, and where it stands: whether it can be one is known elsewhere.
    pub(crate) fn image(&mut self, place: &Place, name: &str) {
        self.images.push(at(place, name.to_owned()));
    }

    /// All names of images, by file and line.
    pub(crate) fn take_images(&mut self) -> Vec<Diagnostic> {
        let mut images = std::mem::take(&mut self.images);
        images.sort();
        images.dedup();
        images
    }

    /// An error that has its place already.
    pub(crate) fn push_error(&mut self, error: Diagnostic) {
        self.errors.push(error);
    }

    /// What another has gathered.
    pub(crate) fn add(&mut self, other: Self) {
        self.errors.extend(other.errors);
        self.warnings.extend(other.warnings);
        self.images.extend(other.images);
    }

    /// What keeps the manifest from being used of what another has gathered.
    pub(crate) fn add_errors(&mut self, other: Self) {
        self.errors.extend(other.errors);
    }

    /// Whether anything was an error.
    pub(crate) fn failed(&self) -> bool {
        !self.errors.is_empty()
    }

    /// The warnings, by file and line.
    ///
    /// # Errors
    /// The errors, by file and line, if there are any, and the warnings with them.
    pub(crate) fn finish(self) -> Result<Vec<Diagnostic>, Faults> {
        let failed = self.failed();
        let warnings = sorted(self.warnings, "warnings");
        match failed {
            true => Err(Faults {
                errors: sorted(self.errors, "errors"),
                warnings,
            }),
            false => Ok(warnings),
        }
    }
}

fn at(place: &Place, message: String) -> Diagnostic {
    Diagnostic::new(&*place.file, place.line, place.column, message)
}

/// Sorted, each once (what stands behind an anchor is read as often as it is named), and not too many.
fn sorted(mut all: Vec<Diagnostic>, what: &str) -> Vec<Diagnostic> {
    all.sort();
    all.dedup();
    let more = all.len().saturating_sub(MAX_SHOWN);
    if more > 0 {
        all.truncate(MAX_SHOWN);
        all.push(Diagnostic::new("", 0, 0, format!("and {more} more {what}")));
    }
    all
}
