//! One thing to say about a manifest, and where.

use std::fmt;

/// An error or a warning about a manifest, with its place. Shown as `compose.yaml:7:3: ...`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Diagnostic {
    /// The file, relative to the manifest's folder; empty if it is about no file.
    pub file: String,
    /// The line, from 1; 0 if unknown.
    pub line: u32,
    /// The column, from 1, in characters; 0 if unknown.
    pub column: u32,
    /// What is wrong and what to do, in one sentence.
    pub message: String,
}

impl Diagnostic {
    /// Something to say about `file` at `line` and `column`.
    pub fn new(
        file: impl Into<String>,
        line: u32,
        column: u32,
        message: impl Into<String>,
    ) -> Self {
        Self {
            file: file.into(),
            line,
            column,
            message: message.into(),
        }
    }
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.file.is_empty() {
            write!(f, "{}:", self.file)?;
            if self.line > 0 {
                write!(f, "{}:{}:", self.line, self.column)?;
            }
            f.write_str(" ")?;
        }
        f.write_str(&self.message)
    }
}

impl std::error::Error for Diagnostic {}

/// Why a manifest cannot be used, and what else there is to say about it: all is told at once.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Faults {
    /// Everything that is wrong with it, by file and line.
    pub errors: Vec<Diagnostic>,
    /// What it says that would not be honoured, by file and line, as far as it could be read.
    pub warnings: Vec<Diagnostic>,
}

impl fmt::Display for Faults {
    /// A line each, the errors first.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let errors = self.errors.iter().map(ToString::to_string);
        let warnings = self.warnings.iter().map(|one| format!("warning: {one}"));
        let lines: Vec<String> = errors.chain(warnings).collect();
        f.write_str(&lines.join("\n"))
    }
}

impl std::error::Error for Faults {}
