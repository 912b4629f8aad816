//! Build contexts: which files of a folder are sent, and sending all of them.

use std::ffi::{OsStr, OsString};
use std::fs::{self, Metadata};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use layby_image::dockerignore::Ignore;

use crate::out::tell;

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
    pub(super) path: OsString,
    /// Of itself, no link followed.
    pub(super) metadata: Metadata,
}

/// What is in a context.
#[derive(Debug, Default)]
pub(super) struct Walked {
    /// What is sent, sorted by the bytes of the paths.
    pub(super) found: Vec<Found>,
    /// Pipes, sockets and devices, which are not.
    pub(super) left_out: Vec<PathBuf>,
}

impl Walked {
    /// Says what is left out though no ignore file says so.
    pub(super) fn tell(&self) {
        let mut shown = self.left_out.iter().map(|path| path.display().to_string());
        let first: Vec<String> = shown.by_ref().take(SHOWN).collect();
        let more = match shown.count() {
            0 => String::new(),
            more => format!(" and {more} more"),
        };
        if !first.is_empty() {
            tell!(
                "left out of the build context, since a pipe, a socket or a device is no file: {}{more}",
                first.join(", ")
            );
        }
    }
}

/// So much of what is left out is named.
const SHOWN: usize = 3;

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

    /// All that is sent: what its `.dockerignore` does not exclude, and in any case the
    /// Dockerfile and the ignore files, since the builder reads them.
    pub(super) fn walk(&self) -> Result<Walked> {
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
                    path: path.into(),
                    metadata,
                });
            }
        }
        let mut left_out = Vec::new();
        let mut folders = vec![OsString::new()];
        while let Some(folder) = folders.pop() {
            for entry in entries(&self.folder.join(&folder))? {
                let mut path = folder.clone();
                if !path.is_empty() {
                    path.push("/");
                }
                path.push(entry.file_name());
                let kind = entry.file_type()?;
                // Patterns are text: what is none in a name matches none of it.
                if ignore.excludes(&path.to_string_lossy(), kind.is_dir()) {
                    continue;
                }
                if !(kind.is_dir() || kind.is_file() || kind.is_symlink()) {
                    left_out.push(entry.path());
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
        Ok(Walked { found, left_out })
    }

    /// Appends all of it below `prefix`.
    pub(super) fn append(&self, tar: &mut tar::Builder<impl Write>, prefix: &str) -> Result<()> {
        let shown = self.folder.display();
        tar.append_dir(prefix, &self.folder)
            .with_context(|| format!("cannot read the build context {shown}"))?;
        for found in self.walk()?.found {
            let file = self.folder.join(&found.path);
            tar.append_path_with_name(&file, below(prefix, &found.path))
                .with_context(|| format!("cannot send {}", file.display()))?;
        }
        Ok(())
    }
}

/// Where something is in a tar.
pub(super) fn below(prefix: &str, path: &OsStr) -> PathBuf {
    let mut name = OsString::from(prefix);
    name.push("/");
    name.push(path);
    name.into()
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
    use std::os::unix::ffi::OsStrExt;

    use super::*;

    fn context(dir: &Path) -> ContextFolder {
        ContextFolder {
            folder: dir.to_owned(),
            dockerfile: "Dockerfile".to_owned(),
        }
    }

    fn paths(context: &ContextFolder) -> Vec<String> {
        let found = context.walk().expect("a context").found.into_iter();
        let text = |found: Found| found.path.into_string().expect("text");
        found.map(text).collect()
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
    fn a_name_that_is_no_text_is_sent_and_what_is_no_file_is_left_out() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let odd = OsStr::from_bytes(b"odd\xff");
        fs::create_dir(dir.path().join(odd)).expect("a folder");
        fs::write(dir.path().join(odd).join("a"), "x").expect("a file");
        let socket = dir.path().join("socket");
        let _listener = std::os::unix::net::UnixListener::bind(&socket).expect("a socket");
        let context = context(dir.path());
        let walked = context.walk().expect("a context");
        assert_eq!(walked.left_out, [socket]);
        let mut tar = tar::Builder::new(Vec::new());
        context.append(&mut tar, "context/0").expect("a tar");
        let tar = tar.into_inner().expect("a tar");
        let mut archive = tar::Archive::new(&*tar);
        let entries = archive.entries().expect("entries").map(|e| e.expect("one"));
        let names: Vec<Vec<u8>> = entries
            .map(|entry| entry.path_bytes().into_owned())
            .collect();
        let expected: [&[u8]; 3] = [b"context/0", b"context/0/odd\xff", b"context/0/odd\xff/a"];
        let trimmed = names
            .iter()
            .map(|name| name.strip_suffix(b"/").unwrap_or(name));
        assert_eq!(trimmed.collect::<Vec<_>>(), expected);
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
