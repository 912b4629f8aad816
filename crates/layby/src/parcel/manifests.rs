//! The manifests that are meant, as they lie on this machine, and what of it is sent to a node.

mod find;
mod targets;

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Component, Path, PathBuf};

use anyhow::{Context, Result, bail};
use layby_control::api::types::{AgentView, ContextView, ManifestView, SecretView};
use layby_manifest::{Files, ReadOptions};

use crate::cli;
use crate::client::{Client, Query};
use crate::parcel::append_bytes;

/// A manifest is at most so long; the node refuses longer ones too.
const MANIFEST_MAX_BYTES: u64 = 1024 * 1024;
/// All manifests together are at most so long.
const MANIFESTS_MAX_BYTES: u64 = 1536 * 1024;
/// So often a node may ask for further files: each time for what the files before have named.
const ROUNDS: usize = 64;
/// What standard input is called among the files.
const STDIN: &str = "-";
/// Variables that a node is to know although no file names them.
const ALWAYS: [&str; 3] = ["HOME", "COMPOSE_PROFILES", "COMPOSE_PROJECT_NAME"];

/// The manifests of one app, as they lie on this machine.
#[derive(Debug, Clone, Default)]
pub(crate) struct Manifests {
    /// The folder that all paths in them are relative to.
    pub(crate) folder: PathBuf,
    /// The files asked for by name, relative to the folder; none: the node chooses.
    chosen: Vec<String>,
    /// The files of variables that were asked for, relative to the folder.
    env_files: Vec<String>,
    /// What lies in the folder itself, by name.
    files: BTreeMap<String, Vec<u8>>,
    /// What lies elsewhere or was asked for, by path; `None`: it is not there.
    further: BTreeMap<String, Option<Vec<u8>>>,
    app: Option<String>,
    profiles: Vec<String>,
    /// Which of their services are meant.
    pub(crate) picked: Picked,
}

/// Which services of a manifest are meant, and how many replicas they get.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Picked {
    /// These, and what they need; empty: all.
    pub(crate) services: Vec<String>,
    /// Not what they need.
    pub(crate) no_deps: bool,
    /// So many replicas, whatever the manifest says.
    pub(crate) scale: Vec<(String, u32)>,
}

impl Manifests {
    /// Reads those that `options` mean.
    ///
    /// # Errors
    /// What is missing or too large.
    pub(crate) fn read(options: &cli::Manifest) -> Result<Self> {
        let here = std::env::current_dir().context("cannot tell the current folder")?;
        let variables = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
        let meant = find::meant(options, &here, &variables)?;
        let mut manifests = Self {
            folder: meant.folder,
            app: options.app.clone(),
            profiles: options.profiles.clone(),
            ..Self::default()
        };
        for file in &meant.files {
            let name = match file.to_str() {
                Some(STDIN) => {
                    let text = bounded(io::stdin().lock(), "standard input")?;
                    manifests.files.insert(STDIN.to_owned(), text);
                    STDIN.to_owned()
                }
                _ if here.join(file).is_dir() => {
                    manifests.take_all(&here.join(file))?;
                    continue;
                }
                _ => manifests.take(&here.join(file))?,
            };
            manifests.chosen.push(name);
        }
        for file in &meant.env_files {
            let name = manifests.take(&here.join(file))?;
            manifests.env_files.push(name);
        }
        if meant.files.is_empty() {
            for name in find::manifests_in(&manifests.folder)? {
                let text = read_bounded(&manifests.folder.join(&name))?;
                manifests.files.insert(name, text);
            }
            if manifests.files.is_empty() {
                bail!(
                    "{} has no compose.yaml and no Kubernetes YAML or JSON: name a manifest with -f, or another folder",
                    manifests.folder.display()
                );
            }
        }
        let dotenv = manifests.folder.join(".env");
        if meant.env_files.is_empty() && dotenv.is_file() {
            let text = read_bounded(&dotenv)?;
            manifests.files.insert(".env".to_owned(), text);
        }
        manifests.check_size()?;
        Ok(manifests)
    }

    /// Reads the manifests of a folder that was asked for among others, as `kubectl apply -f` does: not those in folders below.
    fn take_all(&mut self, folder: &Path) -> Result<()> {
        let names = find::manifests_in(folder)?;
        if names.is_empty() {
            bail!(
                "{} has no YAML in it, and no JSON of Kubernetes",
                folder.display()
            );
        }
        for name in names {
            let name = self.take(&folder.join(name))?;
            self.chosen.push(name);
        }
        Ok(())
    }

    /// Reads a file that was asked for on the command line: what it is called from now on.
    fn take(&mut self, file: &Path) -> Result<String> {
        let real = parent_of(file)?.join(file.file_name().unwrap_or_default());
        let text = read_bounded(file)?;
        let name = way(&self.folder, &real);
        match name.contains('/') {
            true => drop(self.further.insert(name.clone(), Some(text))),
            false => drop(self.files.insert(name.clone(), text)),
        }
        Ok(name)
    }

    /// Reads the further files that the node asks for. One that is not there is known not to be: the node knows whether
    /// it must be, and in which line.
    ///
    /// # Errors
    /// What cannot be read or is too large.
    pub(crate) fn add(&mut self, paths: &[String]) -> Result<()> {
        for path in paths {
            let file = self.folder.join(path);
            let text = match file.exists() {
                true => Some(read_bounded(&file)?),
                false => None,
            };
            self.further.insert(path.clone(), text);
        }
        self.check_size()
    }

    /// Refuses what a node elsewhere has no business to ask for: what the manifests, read by this program itself, do not
    /// name. It would get whatever of this user's it asks for.
    ///
    /// # Errors
    /// Naming the first such thing.
    pub(crate) fn check_asked(&self, node: &str, reply: &ManifestView) -> Result<()> {
        let (files, options) = self.as_read();
        let manifest = layby_manifest::read(&files, &options).map_err(|faults| {
            let first = faults.errors.first().map(ToString::to_string).unwrap_or_default();
            anyhow::anyhow!(
                "the node {node} takes the manifests, but this program does not ({first}), and so cannot tell what it may send: use the node's own version"
            )
        })?;
        check_more(node, &reply.files, &manifest.named_files)?;
        let (contexts, secrets, agents) = built_from(&manifest);
        if let Some(stray) = reply
            .contexts
            .iter()
            .find(|asked| !contexts.contains(asked))
        {
            let dockerfile = stray.dockerfile.as_deref().unwrap_or("Dockerfile");
            return Err(strange(node, &format!("{dockerfile} of {}", stray.path)));
        }
        if let Some(stray) = reply.ssh.iter().find(|asked| !agents.contains(asked)) {
            return Err(strange(node, &format!("the SSH agent {}", stray.id)));
        }
        match reply.secrets.iter().find(|asked| !secrets.contains(asked)) {
            Some(stray) => {
                let what = stray.file.as_ref().or(stray.env.as_ref());
                Err(strange(node, what.map_or("", String::as_str)))
            }
            None => Ok(()),
        }
    }

    /// The files, and how they are to be read, as the node has them.
    pub(crate) fn as_read(&self) -> (Files, ReadOptions) {
        let further = self.further.iter();
        let further = further.filter_map(|(name, text)| Some((name.clone(), text.clone()?)));
        let files = Files(self.files.clone().into_iter().chain(further).collect());
        let absent = self.further.iter().filter(|(_, text)| text.is_none());
        let options = ReadOptions {
            files: self.chosen.clone(),
            env_files: self.env_files.clone(),
            absent: absent.map(|(name, _)| name.clone()).collect(),
            app: self.app.clone(),
            folder: self.folder_name(),
            profiles: self.profiles.clone(),
            services: self.picked.services.clone(),
            no_deps: self.picked.no_deps,
            scale: self.picked.scale.iter().cloned().collect(),
            env: self.variables(),
            ..ReadOptions::default()
        };
        (files, options)
    }

    /// The folder's own name.
    pub(crate) fn folder_name(&self) -> String {
        self.folder.file_name().map_or_else(
            || "app".to_owned(),
            |name| name.to_string_lossy().into_owned(),
        )
    }

    /// How they are to be read. `here`: the node is on this machine.
    pub(crate) fn query(&self, here: bool) -> Vec<Query<'static>> {
        let mut query = vec![("folder", self.folder_name())];
        if here {
            // The socket is the machine's own: what is a path here is one there.
            query.push(("folder_path", self.folder.display().to_string()));
        }
        query.extend(self.app.iter().map(|app| ("app", app.clone())));
        query.extend(self.chosen.iter().map(|file| ("file", file.clone())));
        query.extend(self.env_files.iter().map(|file| ("env_file", file.clone())));
        query.extend(self.profiles.iter().map(|name| ("profile", name.clone())));
        let Picked {
            services,
            no_deps,
            scale,
        } = &self.picked;
        query.extend(services.iter().map(|name| ("service", name.clone())));
        if *no_deps {
            query.push(("no_deps", true.to_string()));
        }
        query.extend(
            scale
                .iter()
                .map(|(name, n)| ("scale", format!("{name}={n}"))),
        );
        query
    }

    /// Sends them to `path` until the node has all that it needs to read them. `own` says what that may be, by this program's
    /// own reading.
    ///
    /// # Errors
    /// What the node refused, or has no business to ask for.
    pub(crate) async fn ask<T: Asks>(
        &mut self,
        client: &Client,
        path: &str,
        query: &[Query<'_>],
        own: impl Fn(&Files, &ReadOptions) -> Vec<String>,
    ) -> Result<T> {
        for _ in 0..ROUNDS {
            let tar = io::Cursor::new(self.tar()?);
            let reply: T = client.upload(path, query, tar).await?;
            let more = reply.more();
            if more.is_empty() {
                return Ok(reply);
            }
            if let Some(node) = client.elsewhere() {
                let (files, options) = self.as_read();
                check_more(node, more, &own(&files, &options))?;
            }
            self.add(more)?;
        }
        bail!("the node asks for further files without end: nothing was done")
    }

    fn check_size(&self) -> Result<()> {
        let all = self.files.values().chain(self.further.values().flatten());
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
        for (name, bytes) in self.all("", ".layby/file/")? {
            append_bytes(&mut tar, &name, &bytes)?;
        }
        Ok(tar.into_inner()?)
    }

    /// All of them as an `up` sends them.
    ///
    /// # Errors
    /// What cannot be written as JSON.
    pub(crate) fn files(&self) -> Result<BTreeMap<String, Vec<u8>>> {
        self.all("manifest/", "file/")
    }

    fn all(&self, prefix: &str, numbered: &str) -> Result<BTreeMap<String, Vec<u8>>> {
        let files = self.files.iter();
        let mut all: BTreeMap<String, Vec<u8>> = files
            .map(|(name, text)| (format!("{prefix}{name}"), text.clone()))
            .collect();
        let variables = serde_json::to_vec(&self.variables())?;
        all.insert(format!("{prefix}.layby/env.json"), variables);
        let names: Vec<&String> = self.further.keys().collect();
        all.insert(
            format!("{prefix}.layby/files.json"),
            serde_json::to_vec(&names)?,
        );
        for (number, text) in self.further.values().enumerate() {
            all.extend(
                text.clone()
                    .map(|text| (format!("{numbered}{number}"), text)),
            );
        }
        Ok(all)
    }

    /// Of the caller's environment the variables whose whole name some file has in it, for `${...}` in Compose files, and those
    /// that are always looked at; the rest is nobody's business.
    fn variables(&self) -> BTreeMap<String, String> {
        let texts: Vec<_> = (self.files.values())
            .chain(self.further.values().flatten())
            .map(|text| String::from_utf8_lossy(text))
            .collect();
        std::env::vars_os()
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
            .filter(|(name, _)| {
                let named = || texts.iter().any(|text| has_name(text, name));
                ALWAYS.contains(&name.as_str()) || named()
            })
            .collect()
    }
}

/// An answer of the node that may ask for further files.
pub(crate) trait Asks: serde::de::DeserializeOwned {
    /// The files, relative to the manifests' folder or absolute.
    fn more(&self) -> &[String];
}

impl Asks for ManifestView {
    fn more(&self) -> &[String] {
        &self.more
    }
}

/// Refuses files that are none of our `own`.
fn check_more(node: &str, asked: &[String], own: &[String]) -> Result<()> {
    match asked.iter().find(|path| !own.contains(path)) {
        Some(stray) => Err(strange(node, stray)),
        None => Ok(()),
    }
}

fn strange(node: &str, what: &str) -> anyhow::Error {
    anyhow::anyhow!(
        "the node {node} asks for {what}, which the manifests do not name: nothing more was sent"
    )
}

/// The folders and the secrets that images are built with.
fn built_from(
    manifest: &layby_manifest::Manifest,
) -> (Vec<ContextView>, Vec<SecretView>, Vec<AgentView>) {
    let (mut contexts, mut secrets, mut agents) = (Vec::new(), Vec::new(), Vec::new());
    let services = manifest.app.services.iter();
    let containers = services.flat_map(|service| &service.containers);
    for build in containers.filter_map(|container| container.build.as_ref()) {
        contexts.push(ContextView {
            path: build.context.clone(),
            dockerfile: build.dockerfile.clone(),
        });
        contexts.extend(build.contexts.values().map(|path| ContextView {
            path: path.clone(),
            dockerfile: None,
        }));
        secrets.extend(build.secrets.iter().map(|secret| SecretView {
            file: secret.file.clone(),
            env: secret.env.clone(),
        }));
        agents.extend(build.ssh.iter().map(|agent| AgentView {
            id: agent.id.clone(),
            source: agent.source.clone(),
        }));
    }
    (contexts, secrets, agents)
}

/// The way from `folder` to `file`, both absolute and without `..`; to what lies elsewhere it begins with `..`.
pub(crate) fn way(folder: &Path, file: &Path) -> String {
    let (mut from, mut to) = (folder.components().peekable(), file.components().peekable());
    while from.peek().is_some() && from.peek() == to.peek() {
        from.next();
        to.next();
    }
    let up = from.map(|_| Component::ParentDir);
    let way: PathBuf = up.chain(to).collect();
    way.to_string_lossy().into_owned()
}

/// Whether a text has a name in it that is no part of a longer one.
fn has_name(text: &str, name: &str) -> bool {
    let goes_on = |c: char| c.is_ascii_alphanumeric() || c == '_';
    !name.is_empty()
        && text.match_indices(name).any(|(at, _)| {
            let after = &text[at + name.len()..];
            !text[..at].ends_with(goes_on) && !after.starts_with(goes_on)
        })
}

fn read_bounded(file: &Path) -> Result<Vec<u8>> {
    let cannot = || format!("cannot read {}", file.display());
    let open = File::open(file).with_context(cannot)?;
    let length = open.metadata().with_context(cannot)?.len();
    if length > MANIFEST_MAX_BYTES {
        bail!(
            "{} is {length} bytes, and a manifest is at most {MANIFEST_MAX_BYTES}: is it the right file?",
            file.display()
        );
    }
    // A device has no length, and may have no end.
    bounded(open, &file.display().to_string())
}

fn bounded(from: impl Read, what: &str) -> Result<Vec<u8>> {
    let mut text = Vec::new();
    from.take(MANIFEST_MAX_BYTES + 1)
        .read_to_end(&mut text)
        .with_context(|| format!("cannot read {what}"))?;
    if text.len() as u64 > MANIFEST_MAX_BYTES {
        bail!("{what} is longer than {MANIFEST_MAX_BYTES} bytes, as a manifest may be at most");
    }
    Ok(text)
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

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn folder(files: &[(&str, &str)]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().expect("a temporary directory");
        for (name, text) in files {
            let file = dir.path().join(name);
            fs::create_dir_all(file.parent().expect("a folder")).expect("folders");
            fs::write(file, text).expect("a file");
        }
        dir
    }

    fn of(path: PathBuf) -> cli::Manifest {
        cli::Manifest {
            path: Some(path),
            ..cli::Manifest::default()
        }
    }

    #[test]
    fn what_is_asked_for_is_read_wherever_it_is_if_it_is() {
        let dir = folder(&[
            ("app/compose.yaml", "include: [../common.yaml]"),
            ("common.yaml", "services: {}"),
        ]);
        let mut manifests = Manifests::read(&of(dir.path().join("app"))).expect("a manifest");
        let paths = ["../common.yaml", "missing.env"].map(str::to_owned);
        manifests.add(&paths).expect("to read them");
        let files = manifests.files().expect("its files");
        assert_eq!(files["file/0"], b"services: {}");
        assert_eq!(
            files["manifest/.layby/files.json"],
            br#"["../common.yaml","missing.env"]"#
        );
        assert!(!files.contains_key("file/1"));
    }

    #[test]
    fn a_node_elsewhere_gets_only_what_the_manifests_name() {
        let dir = folder(&[
            (
                "app/compose.yaml",
                "include: [../common.yaml]\nservices: {web: {build: ., env_file: a.env}}",
            ),
            ("app/id_rsa", "secret"),
            ("common.yaml", "services: {}"),
        ]);
        let mut manifests = Manifests::read(&of(dir.path().join("app"))).expect("a manifest");
        let (files, options) = manifests.as_read();
        let own = layby_manifest::needed(&files, &options);
        let more = |path: &str| check_more("far", &[path.to_owned()], &own);
        more("../common.yaml").expect("it is named");
        for stray in ["id_rsa", "../../etc/passwd", "/etc/passwd", "a.env"] {
            assert!(more(stray).is_err(), "{stray}");
        }
        manifests
            .add(&["../common.yaml".to_owned()])
            .expect("to read it");
        manifests
            .add(&["../.env".to_owned()])
            .expect("to look for it");
        let reply = |file: &str, context: &str| ManifestView {
            files: vec![file.to_owned()],
            contexts: vec![ContextView {
                path: context.to_owned(),
                dockerfile: None,
            }],
            ..ManifestView::default()
        };
        manifests
            .check_asked("far", &reply("a.env", "."))
            .expect("both are named");
        assert!(manifests.check_asked("far", &reply("id_rsa", ".")).is_err());
        assert!(manifests.check_asked("far", &reply("a.env", "..")).is_err());
    }

    #[test]
    fn a_file_elsewhere_is_called_by_the_way_to_it() {
        for (file, name) in [
            ("/srv/app/a.yaml", "a.yaml"),
            ("/srv/app/x/a.yaml", "x/a.yaml"),
            ("/srv/common/a.yaml", "../common/a.yaml"),
            ("/etc/a.yaml", "../../etc/a.yaml"),
        ] {
            assert_eq!(way(Path::new("/srv/app"), Path::new(file)), name);
        }
    }

    #[test]
    fn only_variables_whose_whole_name_is_there_are_named() {
        let text = "a: ${API_TOKEN:-x}\nb: $HOST/\nenvironment: [PLAIN]\n";
        for (name, is_there) in [
            ("API_TOKEN", true),
            ("HOST", true),
            ("PLAIN", true),
            ("TOKEN", false),
            ("API", false),
            ("_", false),
            ("", false),
        ] {
            assert_eq!(has_name(text, name), is_there, "{name}");
        }
        assert!(has_name("KEYS $KEY", "KEY"));
    }

    #[test]
    fn a_manifest_of_100_megabytes_is_refused_before_it_is_read() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        File::create(dir.path().join("compose.yaml"))
            .and_then(|file| file.set_len(100 << 20))
            .expect("a sparse file");
        let error = Manifests::read(&of(dir.path().to_owned()))
            .expect_err("refused")
            .to_string();
        assert!(error.contains("is 104857600 bytes"), "{error}");
    }
}
