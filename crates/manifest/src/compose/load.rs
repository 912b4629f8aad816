//! Other Compose files that one names: read, filled in, and counted.

use std::cell::Cell;
use std::collections::BTreeMap;

use crate::compose::{interpolate, merge};
use crate::report::Report;
use crate::tree::{Node, Place, cut};
use crate::{Files, yaml};

/// So many other files may be read in all, each as often as it is named.
const MAX_FILES: u32 = 200;

/// How other files are read.
#[derive(Debug)]
pub(crate) struct Load<'a> {
    pub(crate) files: &'a Files,
    /// What `${VAR}` means.
    pub(crate) variables: &'a BTreeMap<String, String>,
    /// So many more may be read.
    left: Cell<u32>,
}

impl<'a> Load<'a> {
    pub(crate) fn new(files: &'a Files, variables: &'a BTreeMap<String, String>) -> Self {
        Self {
            files,
            variables,
            left: Cell::new(MAX_FILES),
        }
    }

    /// The documents of a file, one laid over the other; `path` is relative to the manifest's folder.
    pub(crate) fn document(&self, path: &str, place: &Place, report: &mut Report) -> Option<Node> {
        self.document_with(path, self.variables, place, report)
    }

    /// The same with other variables.
    pub(crate) fn document_with(
        &self,
        path: &str,
        variables: &BTreeMap<String, String>,
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
        let Some(bytes) = self.files.0.get(path) else {
            let message = format!(
                "the file {:?} is not there: only YAML files in the Compose file's own folder are read so far",
                cut(path)
            );
            report.error(place, message);
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
            interpolate::fill(&mut document, variables, report);
            document
        });
        let merged = filled.reduce(merge::merge);
        if merged.is_none() {
            report.error(place, format!("the file {:?} is empty", cut(path)));
        }
        merged
    }
}
