//! The text files of the repository. They are found by walking, not by git: a copy without `.git`,
//! or one that belongs to another user, is checked just the same.

use std::fs;
use std::path::Path;

use anyhow::Context;

/// A text file.
#[derive(Debug)]
pub(crate) struct SourceFile {
    /// Relative to the root, with `/`.
    pub(crate) path: String,
    /// All of it.
    pub(crate) text: String,
}

impl SourceFile {
    /// Its lines, numbered from 1.
    pub(crate) fn lines(&self) -> impl Iterator<Item = (usize, &str)> {
        (1..).zip(self.text.lines())
    }
}

/// Folders that are built or fetched, not written.
const NOT_OURS: [&str; 4] = [".git", "dist", "node_modules", "target"];

/// Reads all text files below `root`, sorted by path. What is not UTF-8 is no text.
pub(crate) fn read(root: &Path) -> anyhow::Result<Vec<SourceFile>> {
    let mut files = Vec::new();
    walk(root, "", &mut files)?;
    files.sort_by(|one, other| one.path.cmp(&other.path));
    Ok(files)
}

fn walk(folder: &Path, prefix: &str, files: &mut Vec<SourceFile>) -> anyhow::Result<()> {
    let entries =
        fs::read_dir(folder).with_context(|| format!("cannot list {}", folder.display()))?;
    for entry in entries {
        let entry = entry?;
        let name = entry.file_name();
        let name = name.to_string_lossy();
        let path = format!("{prefix}{name}");
        let kind = entry.file_type()?;
        if kind.is_dir() && !NOT_OURS.contains(&name.as_ref()) {
            walk(&entry.path(), &format!("{path}/"), files)?;
        } else if kind.is_file() {
            let bytes = fs::read(entry.path()).with_context(|| format!("cannot read {path}"))?;
            if let Ok(text) = String::from_utf8(bytes) {
                files.push(SourceFile { path, text });
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::read;

    #[test]
    fn the_sources_of_this_package_are_found_and_built_things_are_not() {
        let package = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
        let root = package.parent().unwrap();
        let paths: Vec<String> = read(root)
            .unwrap()
            .into_iter()
            .map(|file| file.path)
            .collect();
        assert!(paths.contains(&"xtask/src/tidy/tree.rs".to_owned()));
        assert!(paths.contains(&".cargo/config.toml".to_owned()));
        assert!(!paths.iter().any(|path| path.starts_with("target/")));
    }
}
