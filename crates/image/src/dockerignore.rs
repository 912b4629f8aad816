//! Which files of a build context are left out (`.dockerignore`).

/// A parsed `.dockerignore`.
#[derive(Debug, Clone, Default)]
pub struct Ignore {}

impl Ignore {
    /// Parses the file's text. Docker's rules; lines that are no pattern are left out.
    pub fn parse(text: &str) -> Self {
        let _ = text;
        Self {}
    }
    /// Whether the path (relative to the context, with `/`) is left out.
    pub fn excludes(&self, path: &str, is_dir: bool) -> bool {
        let _ = (path, is_dir);
        false
    }
}
