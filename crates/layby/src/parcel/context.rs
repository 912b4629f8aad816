//! Build contexts: which files of a folder are sent, and sending all of them.

use std::fs::{self, Metadata};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use layby_image::dockerignore::Ignore;

/// A build context to send: its folder, relative to the manifests', and its Dockerfile in it.
#[derive(Debug, Clone)]
pub(crate) struct ContextFolder {
    /// The folder on this machine.
    pub(crate) folder: PathBuf,
    /// The Dockerfile, relative to the folder.
    pub(crate) dockerfile: String,
}

/// Something in a context that is sent.
#[derive(Debug)]
pub(super) struct Found {
    /// Relative to the context.
    pub(super) path: String,
    /// Of itself, no link followed.
    pub(super) metadata: Metadata,
}

impl ContextFolder {
    /// A folder that a build takes files from beside its context.
    pub(crate) fn beside(folder: &Path) -> Result<Self> {
        if !folder.is_dir() {
            bail!("the build context {} is not a folder", folder.display());
        }
        Ok(Self {
            folder: folder.to_owned(),
            // It has none that matters.
            dockerfile: "Dockerfile".to_owned(),
        })
    }

    /// All that is sent, sorted by the bytes of the paths: what its `.dockerignore` does not exclude, and in any case the
    /// Dockerfile and the ignore files, since the builder reads them.
    pub(super) fn walk(&self) -> Result<Vec<Found>> {
        let specific = format!("{}.dockerignore", self.dockerfile);
        let needed = [self.dockerfile.as_str(), &specific, ".dockerignore"];
        let ignore_file = needed[1..]
            .iter()
            .map(|name| self.folder.join(name))
            .find(|path| path.is_file());
        let text = ignore_file
            .map(fs::read_to_string)
            .transpose()
            .context("cannot read the .dockerignore")?;
        let ignore = Ignore::parse(&text.unwrap_or_default());
        let mut found = Vec::new();
        for name in needed
            .iter()
            .filter(|name| self.folder.join(name).is_file())
        {
            // With the folders that it is in, which may be excluded.
            let parents = std::iter::successors(Some(*name), |path| {
                path.rsplit_once('/').map(|(folder, _)| folder)
            });
            for path in parents {
                let file = self.folder.join(path);
                let metadata = fs::symlink_metadata(&file).with_context(|| cannot_read(&file))?;
                found.push(Found {
                    path: path.to_owned(),
                    metadata,
                });
            }
        }
        let mut folders = vec![String::new()];
        while let Some(folder) = folders.pop() {
            for entry in entries(&self.folder.join(&folder))? {
                let name = entry.file_name();
                let Some(name) = name.to_str() else {
                    bail!("{} has a name that is not UTF-8", entry.path().display());
                };
                let path = match folder.is_empty() {
                    true => name.to_owned(),
                    false => format!("{folder}/{name}"),
                };
                let kind = entry.file_type()?;
                let special = !(kind.is_dir() || kind.is_file() || kind.is_symlink());
                if special || ignore.excludes(&path, kind.is_dir()) {
                    continue;
                }
                let metadata = entry
                    .metadata()
                    .with_context(|| cannot_read(&entry.path()))?;
                if kind.is_dir() {
                    folders.push(path.clone());
                }
                found.push(Found { path, metadata });
            }
        }
        found.sort_unstable_by(|a, b| a.path.cmp(&b.path));
        found.dedup_by(|a, b| a.path == b.path);
        Ok(found)
    }

    /// Appends all of it below `prefix`.
    pub(super) fn append(&self, tar: &mut tar::Builder<impl Write>, prefix: &str) -> Result<()> {
        let shown = self.folder.display();
        tar.append_dir(prefix, &self.folder)
            .with_context(|| format!("cannot read the build context {shown}"))?;
        for found in self.walk()? {
            let file = self.folder.join(&found.path);
            tar.append_path_with_name(&file, format!("{prefix}/{}", found.path))
                .with_context(|| format!("cannot send {}", file.display()))?;
        }
        Ok(())
    }
}

fn entries(folder: &Path) -> Result<Vec<fs::DirEntry>> {
    fs::read_dir(folder)
        .and_then(Iterator::collect::<io::Result<Vec<_>>>)
        .with_context(|| format!("cannot read the folder {}", folder.display()))
}

fn cannot_read(file: &Path) -> String {
    format!("cannot read {}", file.display())
}

#[cfg(test)]
mod tests {
    use std::fs::File;

    use super::*;

    fn context(dir: &Path) -> ContextFolder {
        ContextFolder {
            folder: dir.to_owned(),
            dockerfile: "Dockerfile".to_owned(),
        }
    }

    fn paths(context: &ContextFolder) -> Vec<String> {
        let found = context.walk().expect("a context").into_iter();
        found.map(|found| found.path).collect()
    }

    #[test]
    fn a_file_with_holes_is_sent_whole() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        File::create(dir.path().join("holes"))
            .and_then(|file| file.set_len(1 << 20))
            .expect("a sparse file");
        let mut tar = tar::Builder::new(Vec::new());
        tar.sparse(false);
        let appended = context(dir.path()).append(&mut tar, "context/0");
        appended.expect("a tar");
        let tar = tar.into_inner().expect("a tar");
        let mut archive = tar::Archive::new(&*tar);
        let mut entries = archive.entries().expect("entries").map(|e| e.expect("one"));
        let holes = entries
            .find(|entry| entry.path().expect("a path").ends_with("holes"))
            .expect("it is sent");
        assert_eq!(holes.header().entry_type(), tar::EntryType::Regular);
        assert_eq!(holes.size(), 1 << 20);
    }

    #[test]
    fn a_context_is_sent_without_what_it_ignores_and_with_its_dockerfile() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        fs::create_dir_all(dir.path().join("big/keep")).expect("folders");
        for file in ["Dockerfile", ".dockerignore", "big/1", "big/keep/2", "app"] {
            fs::write(dir.path().join(file), "x").expect("a file");
        }
        fs::write(dir.path().join(".dockerignore"), "*\n!app\n!big/keep\n").expect("a file");
        let mut context = context(dir.path());
        let all = [
            ".dockerignore",
            "Dockerfile",
            "app",
            "big",
            "big/keep",
            "big/keep/2",
        ];
        assert_eq!(paths(&context), all);
        // One in a folder that is excluded comes with that folder.
        fs::create_dir(dir.path().join("ci")).expect("a folder");
        fs::write(dir.path().join("ci/D"), "FROM scratch").expect("a file");
        fs::write(dir.path().join("ci/D.dockerignore"), "*").expect("a file");
        context.dockerfile = "ci/D".to_owned();
        let all = [".dockerignore", "ci", "ci/D", "ci/D.dockerignore"];
        assert_eq!(paths(&context), all);
    }
}
