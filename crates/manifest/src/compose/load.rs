//! Other Compose files that one names: read, filled in, and counted.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};

use crate::compose::{interpolate, merge};
use crate::report::Report;
use crate::tree::{Node, Place, cut};
use crate::{Files, ReadOptions, yaml};

/// So many other files may be read in all, each as often as it is named.
const MAX_FILES: u32 = 200;

/// How other files are read.
#[derive(Debug)]
pub(crate) struct Load<'a> {
    files: &'a Files,
    absent: &'a BTreeSet<String>,
    /// What `${VAR}` means; `None`: variables are left as they are written.
    pub(crate) variables: Option<&'a BTreeMap<String, String>>,
    /// So many more may be read.
    left: Cell<u32>,
    /// Those that were asked for, and of which it is not known whether they are there.
    missing: RefCell<BTreeSet<String>>,
    /// The variables whose values were filled in.
    filled_in: RefCell<BTreeSet<String>>,
}

impl<'a> Load<'a> {
    pub(crate) fn new(
        files: &'a Files,
        options: &'a ReadOptions,
        variables: Option<&'a BTreeMap<String, String>>,
    ) -> Self {
        Self {
            files,
            absent: &options.absent,
            variables,
            left: Cell::new(MAX_FILES),
            missing: RefCell::default(),
            filled_in: RefCell::default(),
        }
    }

    /// What is in a file, if it is there.
    pub(crate) fn bytes(&self, path: &str) -> Option<&'a [u8]> {
        let bytes = self.files.0.get(path);
        if bytes.is_none() && !self.absent.contains(path) {
            self.missing.borrow_mut().insert(path.to_owned());
        }
        bytes.map(Vec::as_slice)
    }

    /// Fills in what a file says.
    pub(crate) fn fill(
        &self,
        document: &mut Node,
        variables: &BTreeMap<String, String>,
        report: &mut Report,
    ) {
        let filled_in = interpolate::fill(document, variables, report);
        self.filled_in.borrow_mut().extend(filled_in);
    }

    /// The variables whose values were filled in.
    pub(crate) fn filled_in(self) -> BTreeSet<String> {
        self.filled_in.into_inner()
    }

    /// The files that were asked for and that nothing is known of.
    pub(crate) fn missing(self) -> Vec<String> {
        self.missing.into_inner().into_iter().collect()
    }

    /// The documents of a file, one laid over the other; `path` is relative to the manifest's folder.
    pub(crate) fn document(&self, path: &str, place: &Place, report: &mut Report) -> Option<Node> {
        self.document_with(path, self.variables, place, report)
    }

    /// The same with other variables.
    pub(crate) fn document_with(
        &self,
        path: &str,
        variables: Option<&BTreeMap<String, String>>,
        place: &Place,
        report: &mut Report,
    ) -> Option<Node> {
        let Some(left) = self.left.get().checked_sub(1) else {
            report.error(
                place,
                format!("more than {MAX_FILES} other files are named"),
            );
            return None;
        };
        self.left.set(left);
        if path.contains("://") || path.starts_with("git@") {
            let message = format!(
                "the file {:?} is elsewhere: only files of this machine are read",
                cut(path)
            );
            report.error(place, message);
            return None;
        }
        let Some(bytes) = self.bytes(path) else {
            report.error(place, format!("the file {:?} is not there", cut(path)));
            return None;
        };
        let documents = match yaml::parse(path, bytes) {
            Ok(documents) => documents,
            Err(error) => {
                report.push_error(error);
                return None;
            }
        };
        let filled = documents.into_iter().map(|mut document| {
            if let Some(variables) = variables {
                self.fill(&mut document, variables, report);
            }
            document
        });
        let merged = filled.reduce(merge::merge);
        if merged.is_none() {
            report.error(place, format!("the file {:?} is empty", cut(path)));
        }
        merged
    }
}
