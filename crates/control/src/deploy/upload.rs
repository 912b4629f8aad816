//! What a client sends to be deployed: a tar with the manifest's files and the build contexts, unpacked
//! into a folder of its own within limits, and gone when it is dropped; or into what is kept of a context.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io::{self, Read};
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use axum::http::StatusCode;
use layby_image::contexts::{Kept, Known, Opened, Place, Update};
use layby_manifest::Files;
use layby_model::error_chain;
use tar::EntryType;
use tempfile::TempDir;

use crate::api::types::{KeptContext, Problem};
use crate::room;

/// Most that all files of a manifest may have together.
pub(crate) const MANIFEST_BYTES: u64 = 2 << 20;
/// Most files of a manifest.
const MANIFEST_FILES: usize = 1_000;
/// Most that a whole upload may have.
pub(crate) const UPLOAD_BYTES: u64 = 4 << 30;
/// Most files in all build contexts.
const CONTEXT_FILES: usize = 200_000;
/// Most build contexts of one upload that are kept.
pub(crate) const MAX_CONTEXTS: usize = 100;
/// Most that one build secret may have; Docker's limit is about the same.
const SECRET_BYTES: u64 = 512 << 10;
/// Most build secrets.
const SECRETS: usize = 100;
/// The longest `kept/<n>`, and the longest `doubted/<n>`, in bytes.
const MAX_KEPT: u64 = 4 << 10;
const MAX_DOUBTED: u64 = 2 << 20;
/// Where the caller's environment lies among the manifest's files.
const ENV_FILE: &str = ".layby/env.json";
/// Where the names of the further files lie: a list of them, the n-th that of `.layby/file/<n>`. One without such a file does
/// not exist.
const NAMES_FILE: &str = ".layby/files.json";
/// Where the further files lie.
const NUMBERED: &str = ".layby/file";

/// An unpacked upload.
#[derive(Debug, Default)]
pub(crate) struct Upload {
    /// The manifest's files, and the further ones.
    pub(crate) files: Files,
    /// The caller's environment.
    pub(crate) env: BTreeMap<String, String>,
    /// The further files that the manifest names, by the paths that were asked for.
    pub(crate) named_files: BTreeMap<String, Vec<u8>>,
    /// Those that were asked for and do not exist.
    pub(crate) absent: BTreeSet<String>,
    /// The values of build secrets.
    pub(crate) secrets: Secrets,
    /// Contexts that are kept; they stay as they are until this is dropped.
    kept: BTreeMap<usize, Kept>,
    folder: Option<TempDir>,
}

/// The values of build secrets, by place. They are kept in memory only, and shown nowhere.
#[derive(Default)]
pub(crate) struct Secrets(BTreeMap<usize, Vec<u8>>);

impl Secrets {
    /// The n-th.
    pub(crate) fn get(&self, n: usize) -> Option<&[u8]> {
        self.0.get(&n).map(Vec::as_slice)
    }

    fn read(&mut self, name: &Path, value: &mut impl Read) -> Result<(), Problem> {
        let number = name.to_str().and_then(|name| name.parse().ok());
        let number = number.ok_or_else(|| {
            Problem::bad_request("a build secret in the upload is not named secret/<n>")
        })?;
        let mut bytes = Vec::new();
        let read = value.take(SECRET_BYTES + 1).read_to_end(&mut bytes);
        if read.map_err(unreadable)? as u64 > SECRET_BYTES || self.0.len() >= SECRETS {
            return Err(too_large(format!(
                "a build secret is larger than {} KiB, or there are more than {SECRETS}",
                SECRET_BYTES >> 10
            )));
        }
        self.0.insert(number, bytes);
        Ok(())
    }
}

impl fmt::Debug for Secrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} secrets", self.0.len())
    }
}

/// Where build contexts are kept, and for whom.
#[derive(Clone)]
pub(crate) struct Keeper {
    pub(crate) images: Arc<layby_image::Store>,
    /// Whoever sends them.
    pub(crate) owner: String,
}

impl Upload {
    /// Reads a tar with the files of a manifest and nothing else. Blocks.
    ///
    /// # Errors
    /// As [`Upload::read_with_contexts`].
    pub(crate) fn read(body: impl Read) -> Result<Self, Problem> {
        let mut reading = Reading::new(None, Path::new(""));
        for_each(body, MANIFEST_BYTES * 2, |path, entry| {
            match is_file(entry) {
                true => reading.file(path, entry),
                false => Ok(()),
            }
        })?;
        reading.finish()
    }

    /// Reads a tar in which the manifest's files are below `manifest/`, those that it names are `file/<n>` too, build secrets are
    /// `secret/<n>`, and folders `context/<n>/` are unpacked below `parent`. Of a context that is kept, `kept/<n>` says which
    /// list it is as, `context/<n>/` has only what is lacking, and `doubted/<n>` says which of that changed while it was
    /// sent. Blocks.
    ///
    /// # Errors
    /// A problem for the client when it is no tar, too large, or reaches out of its folder; or for the node's disk.
    pub(crate) fn read_with_contexts(
        body: impl Read,
        parent: &Path,
        keeper: &Keeper,
    ) -> Result<Self, Problem> {
        let mut reading = Reading::new(Some(keeper), parent);
        for_each(body, UPLOAD_BYTES, |path, entry| reading.entry(path, entry))?;
        reading.finish()
    }

    /// The n-th build context, if it was sent or is kept.
    pub(crate) fn context(&self, n: usize) -> Option<PathBuf> {
        if let Some(kept) = self.kept.get(&n) {
            return Some(kept.folder().to_owned());
        }
        let folder = self.folder.as_ref()?.path();
        let path = folder.join("context").join(n.to_string());
        path.is_dir().then_some(path)
    }

    /// What need not be read of the build contexts, by their folders.
    pub(crate) fn known(&self) -> BTreeMap<PathBuf, Arc<Known>> {
        let kept = self.kept.values();
        kept.map(|kept| (kept.folder().to_owned(), Arc::clone(kept.known())))
            .collect()
    }
}

/// An upload while it is read.
struct Reading<'a> {
    upload: Upload,
    keeper: Option<&'a Keeper>,
    parent: &'a Path,
    /// So many more bytes the manifest's files may have.
    left: u64,
    /// How many files of contexts there were.
    unpacked: usize,
    /// What [`NAMES_FILE`] says.
    names: Vec<String>,
    numbered: BTreeMap<String, Vec<u8>>,
    /// Kept contexts of which something was lacking.
    updates: BTreeMap<usize, Box<Update>>,
    /// What the lists of these have together.
    listed: usize,
}

impl<'a> Reading<'a> {
    fn new(keeper: Option<&'a Keeper>, parent: &'a Path) -> Self {
        Self {
            upload: Upload::default(),
            keeper,
            parent,
            left: MANIFEST_BYTES,
            unpacked: 0,
            names: Vec::new(),
            numbered: BTreeMap::new(),
            updates: BTreeMap::new(),
            listed: 0,
        }
    }

    fn entry(&mut self, path: &Path, entry: &mut tar::Entry<'_, impl Read>) -> Result<(), Problem> {
        if let Ok(below) = path.strip_prefix("context") {
            return self.of_context(below, entry);
        }
        if !is_file(entry) {
            return Ok(());
        }
        if let Ok(name) = path.strip_prefix("secret") {
            return self.upload.secrets.read(name, entry);
        }
        if let Ok(name) = path.strip_prefix("kept") {
            let number = number(name, "kept")?;
            let kept: KeptContext = small(path, entry, MAX_KEPT)?;
            return self.kept(number, &kept);
        }
        if let Ok(name) = path.strip_prefix("doubted") {
            let number = number(name, "doubted")?;
            let doubted: Vec<u32> = small(path, entry, MAX_DOUBTED)?;
            let update = self.updates.get_mut(&number);
            update.into_iter().for_each(|update| update.doubt(&doubted));
            return Ok(());
        }
        match path.strip_prefix("file") {
            Ok(number) => self.file(&Path::new(NUMBERED).join(number), entry),
            Err(_) => self.file(path.strip_prefix("manifest").unwrap_or(path), entry),
        }
    }

    /// Something of a build context: lacking in a kept one, or of one that is sent whole.
    fn of_context(
        &mut self,
        below: &Path,
        entry: &mut tar::Entry<'_, impl Read>,
    ) -> Result<(), Problem> {
        self.unpacked += 1;
        if self.unpacked > CONTEXT_FILES {
            return Err(too_many_files());
        }
        let mut parts = below.components();
        let first = parts.next().map(|part| Path::new(part.as_os_str()));
        let place = first.and_then(|first| first.to_str()?.parse::<usize>().ok());
        let update = place.and_then(|place| self.updates.get_mut(&place));
        if let Some(update) = update {
            let path = parts.as_path().to_str().filter(|_| is_file(entry));
            let path = path.ok_or_else(|| {
                Problem::bad_request("of a kept build context only files are sent")
            })?;
            let size_bytes = entry.size();
            return Ok(update.put(path, size_bytes, entry)?);
        }
        if place.is_some_and(|place| self.upload.kept.contains_key(&place)) {
            let text = "of a kept build context nothing is sent that is not lacking";
            return Err(Problem::bad_request(text));
        }
        let known = [
            EntryType::Regular,
            EntryType::Directory,
            EntryType::Symlink,
            EntryType::Link,
        ];
        if known.contains(&entry.header().entry_type()) {
            let folder = self.upload.folder(self.parent)?;
            entry.unpack_in(folder).map_err(|error| storing(&error))?;
        }
        Ok(())
    }

    /// Begins to use a kept context.
    fn kept(&mut self, number: usize, name: &KeptContext) -> Result<(), Problem> {
        let is_new = !self.upload.kept.contains_key(&number) && !self.updates.contains_key(&number);
        let keeper = self.keeper.filter(|_| is_new).ok_or_else(|| {
            Problem::bad_request(format!("the build context {number} is named twice"))
        })?;
        if self.upload.kept.len() + self.updates.len() >= MAX_CONTEXTS {
            let text = format!("there are more than {MAX_CONTEXTS} kept build contexts");
            return Err(too_large(text));
        }
        let place = Place {
            owner: &keeper.owner,
            key: &name.key,
        };
        match keeper.images.open_context(place, &name.id)? {
            Some(Opened::Unchanged(kept)) => {
                self.upload.kept.insert(number, kept);
            }
            Some(Opened::Changed(update)) => {
                // Each list is in memory until the end.
                self.listed += update.entries();
                if self.listed > CONTEXT_FILES {
                    return Err(too_many_files());
                }
                self.updates.insert(number, update);
            }
            None => return Err(Problem::context_gone()),
        }
        Ok(())
    }

    /// A file of the manifest, or a further one.
    fn file(&mut self, path: &Path, entry: &mut impl Read) -> Result<(), Problem> {
        let mut content = Vec::new();
        let read = entry.take(self.left + 1).read_to_end(&mut content);
        let size = read.map_err(unreadable)? as u64;
        let count = self.upload.files.0.len() + self.numbered.len();
        if size > self.left || count >= MANIFEST_FILES {
            let text = format!(
                "the manifest's files are larger than {} MiB, or more than {MANIFEST_FILES}",
                MANIFEST_BYTES >> 20
            );
            return Err(too_large(text));
        }
        self.left -= size;
        let name = path.to_string_lossy().into_owned();
        if name == ENV_FILE {
            self.upload.env = listed(ENV_FILE, &content)?;
        } else if name == NAMES_FILE {
            self.names = listed(NAMES_FILE, &content)?;
        } else if let Ok(number) = path.strip_prefix(NUMBERED) {
            let number = number.to_string_lossy().into_owned();
            self.numbered.insert(number, content);
        } else {
            self.upload.files.0.insert(name, content);
        }
        Ok(())
    }

    fn finish(mut self) -> Result<Upload, Problem> {
        for (n, name) in self.names.into_iter().enumerate() {
            match self.numbered.remove(&n.to_string()) {
                Some(content) => {
                    self.upload.files.0.insert(name.clone(), content.clone());
                    self.upload.named_files.insert(name, content);
                }
                None => drop(self.upload.absent.insert(name)),
            }
        }
        for (number, update) in self.updates {
            self.upload.kept.insert(number, update.finish()?);
        }
        Ok(self.upload)
    }
}

impl Upload {
    fn folder(&mut self, parent: &Path) -> Result<&Path, Problem> {
        let folder = match self.folder.take() {
            Some(folder) => folder,
            None => {
                std::fs::create_dir_all(parent).map_err(|error| storing(&error))?;
                TempDir::with_prefix_in("upload-", parent).map_err(|error| storing(&error))?
            }
        };
        Ok(self.folder.insert(folder).path())
    }
}

/// Does something with each entry of a tar of at most so many bytes, by its path without detours.
fn for_each<R: Read>(
    body: R,
    limit: u64,
    mut take: impl FnMut(&Path, &mut tar::Entry<'_, io::Take<R>>) -> Result<(), Problem>,
) -> Result<(), Problem> {
    let mut archive = tar::Archive::new(body.take(limit));
    archive.set_preserve_permissions(true);
    archive.set_overwrite(false);
    for entry in archive.entries().map_err(unreadable)? {
        let mut entry = entry.map_err(unreadable)?;
        let path = inside(&entry.path().map_err(unreadable)?)?;
        take(&path, &mut entry)?;
    }
    Ok(())
}

fn is_file(entry: &tar::Entry<'_, impl Read>) -> bool {
    entry.header().entry_type() == EntryType::Regular
}

/// The `<n>` of `kept/<n>` and the like.
fn number(name: &Path, kind: &str) -> Result<usize, Problem> {
    let number = name.to_str().and_then(|name| name.parse().ok());
    number.ok_or_else(|| Problem::bad_request(format!("the upload has a {kind}/ without a number")))
}

/// Reads one of Layby's own files.
fn small<T: serde::de::DeserializeOwned>(
    path: &Path,
    entry: &mut impl Read,
    most_bytes: u64,
) -> Result<T, Problem> {
    let name = path.to_string_lossy();
    let mut content = Vec::new();
    let read = entry.take(most_bytes + 1).read_to_end(&mut content);
    match read.map_err(unreadable)? as u64 > most_bytes {
        true => Err(too_large(format!(
            "{name} is longer than {most_bytes} bytes"
        ))),
        false => listed(&name, &content),
    }
}

/// What one of Layby's own files in an upload says.
fn listed<T: serde::de::DeserializeOwned>(name: &str, content: &[u8]) -> Result<T, Problem> {
    serde_json::from_slice(content)
        .map_err(|error| Problem::bad_request(format!("{name}: {error}")))
}

/// The path without `.`, if it stays inside.
fn inside(path: &Path) -> Result<PathBuf, Problem> {
    let mut clean = PathBuf::new();
    for part in path.components() {
        match part {
            Component::Normal(name) => clean.push(name),
            Component::CurDir => {}
            Component::ParentDir | Component::RootDir | Component::Prefix(_) => {
                let text = format!(
                    "the upload has a path that leads out of it: {}",
                    path.display()
                );
                return Err(Problem::bad_request(text));
            }
        }
    }
    Ok(clean)
}

fn unreadable(error: io::Error) -> Problem {
    Problem::bad_request(format!("the upload is not a readable tar: {error}"))
}

fn too_many_files() -> Problem {
    too_large(format!(
        "the build contexts have more than {CONTEXT_FILES} files"
    ))
}

fn too_large(text: String) -> Problem {
    Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "too-large", text)
}

/// An error while unpacking to the node's disk.
fn storing(error: &io::Error) -> Problem {
    if room::is_full(error) {
        Problem::full_disk("the node's disk is full while unpacking a build context")
    } else {
        Problem::failed(format!(
            "a build context could not be unpacked: {}",
            error_chain(error)
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keeper(dir: &Path) -> Keeper {
        Keeper {
            images: Arc::new(layby_image::Store::open(&dir.join("images")).expect("a store")),
            owner: "user ann".to_owned(),
        }
    }

    fn tar_of(files: &[(&str, &[u8])]) -> Vec<u8> {
        let mut tar = tar::Builder::new(Vec::new());
        for (name, content) in files {
            let mut header = tar::Header::new_gnu();
            header.set_size(content.len() as u64);
            header.set_mode(0o755);
            // Written raw: the library itself refuses to write `..`.
            let bytes = name.as_bytes();
            header.as_gnu_mut().expect("a GNU header").name[..bytes.len()].copy_from_slice(bytes);
            header.set_cksum();
            tar.append(&header, *content).expect("to append");
        }
        tar.into_inner().expect("to finish")
    }

    #[test]
    fn manifest_env_and_contexts_are_told_apart() {
        let parent = TempDir::new().expect("a folder");
        let tar = tar_of(&[
            ("manifest/compose.yaml", b"services: {}"),
            ("manifest/.layby/env.json", br#"{"TAG":"1"}"#),
            ("manifest/.layby/files.json", br#"["../a.env","/b.env"]"#),
            ("file/1", b"B=1"),
            ("secret/0", b"hunter2"),
            ("context/0/Dockerfile", b"FROM scratch"),
        ]);
        let upload = Upload::read_with_contexts(&tar[..], parent.path(), &keeper(parent.path()));
        let upload = upload.expect("to read");
        let files: Vec<_> = upload.files.0.keys().collect();
        assert_eq!(files, ["/b.env", "compose.yaml"]);
        assert!(upload.absent.contains("../a.env"));
        assert_eq!(upload.env["TAG"], "1");
        let named: Vec<_> = upload.named_files.iter().collect();
        assert_eq!(named, [(&"/b.env".to_owned(), &b"B=1".to_vec())]);
        assert_eq!(upload.secrets.get(0), Some(&b"hunter2"[..]));
        assert!(!format!("{upload:?}").contains("hunter2"));
        let context = upload.context(0).expect("a context");
        assert!(context.join("Dockerfile").is_file());
        assert!(upload.context(1).is_none());
        drop(upload);
        assert!(!context.exists());
    }

    #[test]
    fn further_files_bear_the_names_that_the_list_gives_them() {
        let tar = tar_of(&[
            ("compose.yaml", b"include: [../x.yaml, y.yaml]"),
            (".layby/files.json", br#"["../x.yaml","y.yaml"]"#),
            (".layby/file/0", b"services: {}"),
        ]);
        let upload = Upload::read(&tar[..]).expect("to read");
        let files: Vec<_> = upload.files.0.keys().collect();
        assert_eq!(files, ["../x.yaml", "compose.yaml"]);
        assert!(upload.absent.contains("y.yaml"));
    }

    #[test]
    fn a_path_that_leads_out_is_refused() {
        let parent = TempDir::new().expect("a folder");
        for name in ["../x", "context/0/../../../x", "/etc/x"] {
            let tar = tar_of(&[(name, b"x")]);
            let keeper = keeper(parent.path());
            let refused = Upload::read_with_contexts(&tar[..], parent.path(), &keeper);
            let refused = refused.expect_err(name);
            assert_eq!(refused.status, 400, "{name}: {}", refused.detail);
        }
    }

    #[test]
    fn a_manifest_of_100_mb_is_refused() {
        let big = vec![b'x'; 100 << 20];
        let tar = tar_of(&[("compose.yaml", &big)]);
        let refused = Upload::read(&tar[..]);
        assert_eq!(refused.expect_err("too large").status, 413);
    }

    #[test]
    fn what_is_no_tar_is_refused() {
        let refused = Upload::read(&[b'x'; 2048][..]);
        assert_eq!(refused.expect_err("no tar").status, 400);
    }
}
