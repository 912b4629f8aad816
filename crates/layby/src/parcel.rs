//! What the CLI sends to the node: manifests and build contexts as tars. It reads none of it itself.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Component, Path, PathBuf};

use crate::out::tell;
use anyhow::{Context, Result, bail};
use layby_control::api::types::ManifestView;
use layby_image::dockerignore::Ignore;
use tokio::io::AsyncRead;
use tokio_util::io::SyncIoBridge;

/// A manifest is at most so long; the node refuses longer ones too.
const MANIFEST_MAX_BYTES: u64 = 1024 * 1024;
/// All manifests together are at most so long.
const MANIFESTS_MAX_BYTES: u64 = 1536 * 1024;

/// A build secret is at most so long; the node refuses longer ones too.
const SECRET_MAX_BYTES: u64 = 512 * 1024;

/// The manifests of one app, as they lie in a folder.
#[derive(Debug)]
pub(crate) struct Manifests {
    /// The folder that all paths in them are relative to.
    pub(crate) folder: PathBuf,
    /// The files asked for by name, relative to the folder; none: the node chooses.
    pub(crate) chosen: Vec<String>,
    /// What is sent, by path relative to the folder.
    pub(crate) files: BTreeMap<String, Vec<u8>>,
    /// Further files that they name, by the paths written there.
    pub(crate) named: BTreeMap<String, Vec<u8>>,
}

impl Manifests {
    /// Reads `files` if any are given, else the file or folder `path`.
    ///
    /// # Errors
    /// What is missing, too large, or outside of the first file's folder.
    pub(crate) fn read(path: &Path, files: &[PathBuf]) -> Result<Self> {
        if files.is_empty() && path.is_dir() {
            return Self::read_folder(path);
        }
        let given = if files.is_empty() {
            std::slice::from_ref(&path.to_path_buf()).to_vec()
        } else {
            files.to_vec()
        };
        let folder = parent_of(&given[0])?;
        let mut manifests = Self {
            folder,
            chosen: Vec::new(),
            files: BTreeMap::new(),
            named: BTreeMap::new(),
        };
        for file in &given {
            let name = manifests.relative(file)?;
            let text = read_bounded(file)?;
            manifests.files.insert(name.clone(), text);
            manifests.chosen.push(name);
        }
        let dotenv = manifests.folder.join(".env");
        if dotenv.is_file() {
            manifests
                .files
                .insert(".env".to_owned(), read_bounded(&dotenv)?);
        }
        if manifests.mentions(&["extends", "include"]) {
            manifests.add_neighbours(&[".yaml", ".yml"])?;
        }
        if manifests.mentions(&["include"]) {
            manifests.add_neighbours(&[".env"])?;
        }
        manifests.bounded()
    }

    fn read_folder(path: &Path) -> Result<Self> {
        let folder = path
            .canonicalize()
            .with_context(|| format!("cannot read {}", path.display()))?;
        let mut manifests = Self {
            folder,
            chosen: Vec::new(),
            files: BTreeMap::new(),
            named: BTreeMap::new(),
        };
        manifests.add_neighbours(&[".yaml", ".yml"])?;
        let dotenv = manifests.folder.join(".env");
        if dotenv.is_file() {
            let text = read_bounded(&dotenv)?;
            manifests.files.insert(".env".to_owned(), text);
        }
        // What other files of variables hold is sent to nobody who need not know.
        if manifests.mentions(&["include"]) {
            manifests.add_neighbours(&[".env"])?;
        }
        if !manifests.files.keys().any(|name| !name.ends_with(".env")) {
            bail!(
                "{} has no compose.yaml and no Kubernetes YAML: name a manifest with -f, or another folder",
                manifests.folder.display()
            );
        }
        manifests.bounded()
    }

    /// Whether one of the files has one of these words in it.
    fn mentions(&self, words: &[&str]) -> bool {
        let mentions = |text: &Vec<u8>| {
            let text = String::from_utf8_lossy(text);
            words.iter().any(|word| text.contains(word))
        };
        self.files.values().any(mentions)
    }

    /// Adds the files of the folder that end so: they may be manifests, or be named by one.
    fn add_neighbours(&mut self, endings: &[&str]) -> Result<()> {
        for entry in fs::read_dir(&self.folder)
            .with_context(|| format!("cannot read the folder {}", self.folder.display()))?
        {
            let entry = entry?;
            let Ok(name) = entry.file_name().into_string() else {
                continue;
            };
            let wanted = endings.iter().any(|ending| name.ends_with(ending));
            // A long file that is no manifest by its name is some other program's; the node would say what is missing.
            let is_compose = name.starts_with("compose.") || name.starts_with("docker-compose.");
            let is_long = entry
                .metadata()
                .is_ok_and(|file| file.len() > MANIFEST_MAX_BYTES);
            if wanted && entry.path().is_file() && (is_compose || !is_long) {
                self.files.insert(name, read_bounded(&entry.path())?);
            }
        }
        Ok(())
    }

    /// Reads the further files that the node asks for. One that is not there is left out: the node knows whether it
    /// must be, and in which line.
    ///
    /// # Errors
    /// What cannot be read or is too large.
    pub(crate) fn add_named(&mut self, paths: &[String]) -> Result<()> {
        for path in paths {
            let file = self.folder.join(path);
            if file.exists() {
                self.named.insert(path.clone(), read_bounded(&file)?);
            }
        }
        self.check_size()
    }

    /// Refuses what a node elsewhere has no business to ask for: a path or variable that is neither below the folder nor
    /// written in the manifests. It would get whatever of this user's it names.
    ///
    /// # Errors
    /// Naming the first such thing.
    pub(crate) fn check_asked(&self, node: &str, reply: &ManifestView) -> Result<()> {
        let inside = |path: &str| {
            let relative = Path::new(path);
            relative
                .components()
                .all(|part| matches!(part, Component::Normal(_) | Component::CurDir))
                && self
                    .folder
                    .join(path)
                    .canonicalize()
                    .map_or(true, |real| real.starts_with(&self.folder))
        };
        let paths = reply.contexts.iter().map(|context| &context.path);
        let of_secrets = reply
            .secrets
            .iter()
            .filter_map(|secret| secret.file.as_ref());
        let mut paths = paths.chain(&reply.files).chain(of_secrets);
        let mut variables = reply
            .secrets
            .iter()
            .filter_map(|secret| secret.env.as_ref());
        let stray = paths.find(|path| !inside(path) && !self.mentions(&[path.as_str()]));
        let stray = stray.or_else(|| variables.find(|name| !self.mentions(&[name.as_str()])));
        match stray {
            None => Ok(()),
            Some(what) => bail!(
                "the node {node} asks for {what}, which the manifests do not name and which is not below {}: nothing more was sent",
                self.folder.display()
            ),
        }
    }

    /// The folder's own name.
    pub(crate) fn folder_name(&self) -> String {
        self.folder.file_name().map_or_else(
            || "app".to_owned(),
            |name| name.to_string_lossy().into_owned(),
        )
    }

    fn relative(&self, file: &Path) -> Result<String> {
        let real = parent_of(file)?.join(file.file_name().unwrap_or_default());
        let Ok(inside) = real.strip_prefix(&self.folder) else {
            bail!(
                "{} is not below {}: give the files of one folder",
                file.display(),
                self.folder.display()
            );
        };
        Ok(inside.to_string_lossy().into_owned())
    }

    fn bounded(self) -> Result<Self> {
        self.check_size()?;
        Ok(self)
    }

    fn check_size(&self) -> Result<()> {
        let all = self.files.values().chain(self.named.values());
        let total: u64 = all.map(|text| text.len() as u64).sum();
        if total > MANIFESTS_MAX_BYTES {
            bail!(
                "the YAML files of {} and the files that they name are {total} bytes together, and at most \
                 {MANIFESTS_MAX_BYTES} are read: name the manifest with -f",
                self.folder.display()
            );
        }
        Ok(())
    }

    /// The manifests and the caller's environment as a tar, for the node to say what it needs.
    pub(crate) fn tar(&self) -> Result<Vec<u8>> {
        let mut tar = tar::Builder::new(Vec::new());
        self.append(&mut tar, "")?;
        append_bytes(&mut tar, ".layby/env.json", &self.environment()?)?;
        Ok(tar.into_inner()?)
    }

    /// Of the caller's environment the variables that some file names, for `${...}` in Compose files, and the home
    /// folder, for `~`; the rest is nobody's business.
    fn environment(&self) -> Result<Vec<u8>> {
        let texts: Vec<_> = self
            .files
            .values()
            .chain(self.named.values())
            .map(|text| String::from_utf8_lossy(text))
            .collect();
        let variables: BTreeMap<String, String> = std::env::vars_os()
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
            .filter(|(name, _)| {
                name == "HOME" || texts.iter().any(|text| text.contains(name.as_str()))
            })
            .collect();
        Ok(serde_json::to_vec(&variables)?)
    }

    /// All of them as an `up` sends them.
    ///
    /// # Errors
    /// What cannot be written as JSON.
    pub(crate) fn files(&self) -> Result<BTreeMap<String, Vec<u8>>> {
        let files = self.files.iter();
        let mut all: BTreeMap<String, Vec<u8>> = files
            .map(|(name, text)| (format!("manifest/{name}"), text.clone()))
            .collect();
        all.insert("manifest/.layby/env.json".to_owned(), self.environment()?);
        let names: Vec<&String> = self.named.keys().collect();
        all.insert(
            "manifest/.layby/files.json".to_owned(),
            serde_json::to_vec(&names)?,
        );
        let named = self.named.values().enumerate();
        all.extend(named.map(|(number, text)| (format!("file/{number}"), text.clone())));
        Ok(all)
    }

    fn append(&self, tar: &mut tar::Builder<impl Write>, prefix: &str) -> Result<()> {
        for (name, text) in &self.files {
            append_bytes(tar, &format!("{prefix}{name}"), text)?;
        }
        Ok(())
    }
}

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

fn append_bytes(tar: &mut tar::Builder<impl Write>, name: &str, bytes: &[u8]) -> Result<()> {
    let mut header = tar::Header::new_gnu();
    header.set_size(bytes.len() as u64);
    header.set_mode(0o600);
    tar.append_data(&mut header, name, bytes)
        .with_context(|| format!("cannot send {name}"))
}

fn read_bounded(file: &Path) -> Result<Vec<u8>> {
    let cannot = || format!("cannot read {}", file.display());
    let length = File::open(file)
        .and_then(|open| open.metadata())
        .with_context(cannot)?
        .len();
    if length > MANIFEST_MAX_BYTES {
        bail!(
            "{} is {length} bytes, and a manifest is at most {MANIFEST_MAX_BYTES}: is it the right file?",
            file.display()
        );
    }
    fs::read(file).with_context(cannot)
}

/// The folder that `file` lies in, without links and `..`.
fn parent_of(file: &Path) -> Result<PathBuf> {
    if matches!(
        file.components().next_back(),
        None | Some(Component::ParentDir | Component::CurDir)
    ) {
        bail!("{} is not a file", file.display());
    }
    let parent = match file.parent() {
        Some(parent) if parent != Path::new("") => parent,
        _ => Path::new("."),
    };
    parent
        .canonicalize()
        .with_context(|| format!("cannot read {}: no such folder", parent.display()))
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

    #[test]
    fn named_files_are_read_wherever_they_are_if_they_are() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let app = dir.path().join("app");
        fs::create_dir(&app).expect("a folder");
        fs::write(app.join("compose.yaml"), "services: {}").expect("a file");
        fs::write(dir.path().join("common.env"), "A=1").expect("a file");
        let mut manifests = Manifests::read(&app, &[]).expect("a manifest");
        let paths = ["../common.env", "missing.env"].map(str::to_owned);
        manifests.add_named(&paths).expect("to read them");
        assert_eq!(
            manifests.named.keys().collect::<Vec<_>>(),
            ["../common.env"]
        );
        let mut tar = Vec::new();
        let parcel = Parcel {
            files: manifests.files().expect("its files"),
            ..Parcel::default()
        };
        parcel.write(&mut tar).expect("a tar");
        let names = names(&tar);
        assert!(names.contains(&"file/0".to_owned()), "{names:?}");
    }

    #[test]
    fn files_of_another_folder_are_refused() {
        let (one, two) = (
            tempfile::tempdir().expect("a"),
            tempfile::tempdir().expect("b"),
        );
        let files = [one.path().join("a.yaml"), two.path().join("b.yaml")];
        for file in &files {
            fs::write(file, "x: 1").expect("a file");
        }
        let error = Manifests::read(Path::new("."), &files)
            .expect_err("refused")
            .to_string();
        assert!(error.contains("b.yaml is not below"), "{error}");
    }

    #[test]
    fn a_manifest_of_100_megabytes_is_refused_before_it_is_read() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let file = dir.path().join("compose.yaml");
        File::create(&file)
            .and_then(|f| f.set_len(100 << 20))
            .expect("a sparse file");
        let error = Manifests::read(dir.path(), &[])
            .expect_err("refused")
            .to_string();
        assert!(error.contains("is 104857600 bytes"), "{error}");
    }
}
