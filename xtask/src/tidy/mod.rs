//! `cargo xtask tidy`: the rules that a machine can check.
//!
//! Each rule is a plain function from text (or from cargo's metadata) to [`Finding`]s; only this
//! file and [`tree`] read anything. To add a rule: write the function, test it, call it here.

mod borders;
mod graph;
mod licences;
mod manifests;
mod sources;
mod text;
mod tree;

use std::fmt;

use anyhow::bail;

use crate::place;

/// Something against a rule: where, what, and what to do.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Finding {
    /// Relative to the root.
    file: String,
    /// From 1.
    line: usize,
    message: String,
}

impl Finding {
    fn new(file: &str, line: usize, message: impl Into<String>) -> Finding {
        Finding {
            file: file.to_owned(),
            line,
            message: message.into(),
        }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}:{}: {}", self.file, self.line, self.message)
    }
}

/// Checks all rules and prints everything that is against one.
///
/// # Errors
/// When anything is against a rule.
pub(crate) fn tidy() -> anyhow::Result<()> {
    let files = tree::read(&place::root())?;
    let graph = graph::Graph::of_workspace()?;
    let mut findings = borders::check(&graph);
    findings.extend(licences::check(&graph));
    for file in &files {
        findings.extend(text::check(file));
        if file.path.ends_with(".rs") {
            findings.extend(sources::check(file));
        }
        if file.path.ends_with("Cargo.toml") {
            findings.extend(manifests::dependencies_are_sorted(file));
        }
    }
    findings.extend(sources::exceptions_shrink(&files));
    findings.sort();
    for finding in &findings {
        println!("{finding}");
    }
    if !findings.is_empty() {
        bail!(
            "{} findings against the rules of xtask/src/tidy",
            findings.len()
        )
    }
    println!(
        "tidy: {} files and {} crates keep the rules",
        files.len(),
        graph.len()
    );
    Ok(())
}
