//! What the CLI sends to the node for a deploy or a build: manifests and build contexts as one tar.

mod manifests;

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use crate::out::tell;
use anyhow::{Context, Result, bail};
use layby_image::dockerignore::Ignore;
use tokio::io::AsyncRead;
use tokio_util::io::SyncIoBridge;

pub(crate) use manifests::{Asks, Manifests};

/// A build secret is at most so long; the node refuses longer ones too.
const SECRET_MAX_BYTES: u64 = 512 * 1024;

/// A build context to send: its folder, relative to the manifests', and its Dockerfile in it.
#[derive(Debug, Clone)]
pub(crate) struct ContextFolder {
    /// The folder on this machine.
    pub(crate) folder: PathBuf,
    /// The Dockerfile, relative to the folder.
    pub(crate) dockerfile: String,
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
}

/// Where the value of a build secret is, on this machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum SecretSource {
    /// In a file, relative to the manifest's folder or the current one.
    File(PathBuf),
    /// In a variable of the environment.
    Variable(String),
}

impl SecretSource {
    /// Reads the value.
    ///
    /// # Errors
    /// It is not there, or too long.
    pub(crate) fn read(&self, folder: &Path) -> Result<SecretValue> {
        let bytes = match self {
            Self::File(file) => {
                let path = folder.join(file);
                let mut bytes = Vec::new();
                File::open(&path)
                    .and_then(|open| open.take(SECRET_MAX_BYTES + 1).read_to_end(&mut bytes))
                    .with_context(|| format!("cannot read the secret {}", path.display()))?;
                bytes
            }
            Self::Variable(name) => match std::env::var_os(name) {
                Some(value) => std::os::unix::ffi::OsStringExt::into_vec(value),
                None => bail!("the variable {name} of a secret is not set"),
            },
        };
        if bytes.len() as u64 > SECRET_MAX_BYTES {
            bail!("a secret is longer than {} KiB", SECRET_MAX_BYTES >> 10);
        }
        Ok(SecretValue(bytes))
    }
}

/// A secret's value, which nobody is to see.
pub(crate) struct SecretValue(Vec<u8>);

/// What is sent for a deploy or a build.
#[derive(Default)]
pub(crate) struct Parcel {
    /// Small files, by their names in the tar.
    pub(crate) files: BTreeMap<String, Vec<u8>>,
    /// The n-th is sent as `secret/<n>`.
    pub(crate) secrets: Vec<SecretValue>,
    /// The n-th is sent as `context/<n>`.
    pub(crate) contexts: Vec<ContextFolder>,
}

/// The parcel as a tar, written while it is read.
pub(crate) fn stream(parcel: Parcel) -> impl AsyncRead + Send + Sync + 'static {
    let (near, far) = tokio::io::duplex(256 * 1024);
    let writer = SyncIoBridge::new(far);
    tokio::task::spawn_blocking(move || {
        // Where writing fails in the middle the node sees a cut tar and says so; the cause is told here.
        if let Err(error) = parcel.write(writer)
            && !is_broken_pipe(&error)
        {
            tell!("layby: {error:#}");
        }
    });
    near
}

impl Parcel {
    fn write(&self, writer: impl Write) -> Result<()> {
        let mut tar = tar::Builder::new(io::BufWriter::with_capacity(128 * 1024, writer));
        tar.follow_symlinks(false);
        // Holes are sent as zeros: the node takes plain files only, so that what it reads bounds what it writes.
        tar.sparse(false);
        for (name, bytes) in &self.files {
            append_bytes(&mut tar, name, bytes)?;
        }
        for (number, secret) in self.secrets.iter().enumerate() {
            append_bytes(&mut tar, &format!("secret/{number}"), &secret.0)?;
        }
        for (number, context) in self.contexts.iter().enumerate() {
            append_context(&mut tar, &format!("context/{number}"), context)?;
        }
        tar.into_inner()?.flush()?;
        Ok(())
    }
}

/// Appends the context below `prefix`, without what its `.dockerignore` excludes; the Dockerfile and the
/// ignore files are sent in any case, since the builder reads them.
fn append_context(
    tar: &mut tar::Builder<impl Write>,
    prefix: &str,
    context: &ContextFolder,
) -> Result<()> {
    let specific = format!("{}.dockerignore", context.dockerfile);
    let needed = [context.dockerfile.as_str(), &specific, ".dockerignore"];
    let ignore_file = needed[1..]
        .iter()
        .map(|name| context.folder.join(name))
        .find(|path| path.is_file());
    let text = ignore_file
        .map(fs::read_to_string)
        .transpose()
        .context("cannot read the .dockerignore")?;
    let ignore = Ignore::parse(&text.unwrap_or_default());
    tar.append_dir(prefix, &context.folder)
        .with_context(|| format!("cannot read the build context {}", context.folder.display()))?;
    for name in needed
        .iter()
        .filter(|name| context.folder.join(name).is_file())
    {
        append_path(tar, prefix, context, name)?;
    }
    let mut folders = vec![String::new()];
    while let Some(folder) = folders.pop() {
        for entry in sorted_entries(&context.folder.join(&folder))? {
            let name = entry.file_name();
            let Some(name) = name.to_str() else {
                bail!("{} has a name that is not UTF-8", entry.path().display());
            };
            let path = if folder.is_empty() {
                name.to_owned()
            } else {
                format!("{folder}/{name}")
            };
            let kind = entry.file_type()?;
            let special = !(kind.is_dir() || kind.is_file() || kind.is_symlink());
            if special || needed.contains(&path.as_str()) || ignore.excludes(&path, kind.is_dir()) {
                continue;
            }
            append_path(tar, prefix, context, &path)?;
            if kind.is_dir() {
                folders.push(path);
            }
        }
    }
    Ok(())
}

fn append_path(
    tar: &mut tar::Builder<impl Write>,
    prefix: &str,
    context: &ContextFolder,
    path: &str,
) -> Result<()> {
    let file = context.folder.join(path);
    tar.append_path_with_name(&file, format!("{prefix}/{path}"))
        .with_context(|| format!("cannot send {}", file.display()))
}

fn sorted_entries(folder: &Path) -> Result<Vec<fs::DirEntry>> {
    let mut entries = fs::read_dir(folder)
        .and_then(Iterator::collect::<io::Result<Vec<_>>>)
        .with_context(|| format!("cannot read the folder {}", folder.display()))?;
    entries.sort_by_key(fs::DirEntry::file_name);
    Ok(entries)
}

/// Puts a small file into a tar.
pub(crate) fn append_bytes(
    tar: &mut tar::Builder<impl Write>,
    name: &str,
    bytes: &[u8],
) -> Result<()> {
    let mut header = tar::Header::new_gnu();
    header.set_size(bytes.len() as u64);
    header.set_mode(0o600);
    tar.append_data(&mut header, name, bytes)
        .with_context(|| format!("cannot send {name}"))
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| {
        cause
            .downcast_ref::<io::Error>()
            .is_some_and(|e| e.kind() == io::ErrorKind::BrokenPipe)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(tar: &[u8]) -> Vec<String> {
        let mut archive = tar::Archive::new(tar);
        let entries = archive.entries().expect("entries");
        entries
            .map(|e| {
                e.expect("entry")
                    .path()
                    .expect("path")
                    .to_string_lossy()
                    .into_owned()
            })
            .collect()
    }

    #[test]
    fn a_file_with_holes_is_sent_whole() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        fs::write(dir.path().join("Dockerfile"), "FROM scratch").expect("a file");
        File::create(dir.path().join("holes"))
            .and_then(|file| file.set_len(1 << 20))
            .expect("a sparse file");
        let parcel = Parcel {
            contexts: vec![ContextFolder {
                folder: dir.path().to_owned(),
                dockerfile: "Dockerfile".to_owned(),
            }],
            ..Parcel::default()
        };
        let mut tar = Vec::new();
        parcel.write(&mut tar).expect("a tar");
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
        let mut tar = tar::Builder::new(Vec::new());
        let context = ContextFolder {
            folder: dir.path().to_owned(),
            dockerfile: "Dockerfile".to_owned(),
        };
        append_context(&mut tar, "context/0", &context).expect("a context");
        let mut names = names(&tar.into_inner().expect("a tar"));
        names.sort();
        let files: Vec<_> = names
            .iter()
            .map(|n| n.trim_start_matches("context/0").trim_matches('/'))
            .collect();
        assert_eq!(
            files,
            [
                "",
                ".dockerignore",
                "Dockerfile",
                "app",
                "big",
                "big/keep",
                "big/keep/2"
            ]
        );
    }
}
