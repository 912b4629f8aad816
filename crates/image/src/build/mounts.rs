//! What `RUN --mount` shows: files of the context, a stage or an image; caches; memory; secrets; SSH agents.

use std::fs::{self, DirBuilder, File, Permissions};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tempfile::TempDir;

use super::agents::Door;
use super::cache::Key;
use super::content::Content;
use super::copy::{self, Part, Request, Source};
use super::draft::Draft;
use super::files::Elsewhere;
use super::run::{RunMount, RunSource};
use super::secrets;
use super::stage::{StageBuilder, given_up};
use super::view::{View, clean, joined};
use crate::dockerfile::mount::{Mount, MountKind, Sharing};
use crate::dockerignore::Ignore;
use crate::error::{io_error, storing};
use crate::{Error, digest, layer, lock};

/// How often it is looked whether a locked cache is free.
const LOOK: Duration = Duration::from_millis(50);
/// What an SSH agent is called that nobody named.
const DEFAULT_AGENT: &str = "default";
/// So many builds may each have a private copy of one cache.
const MAX_PRIVATE: u32 = 64;

/// A mount of which it is known what it shows; nothing of it is made yet.
pub(super) struct Resolved {
    mount: Mount,
    target: String,
    origin: Origin,
    identity: String,
}

/// Where a mount's files come from.
enum Origin {
    None,
    Layers(Box<Draft>),
    /// A folder, and what of it is shown.
    Folder(View, Content),
}

/// Mounts that are there until this is dropped.
#[derive(Default)]
pub(super) struct Prepared {
    pub(super) mounts: Vec<RunMount>,
    /// Secrets that are variables.
    pub(super) env: Vec<(String, String)>,
    /// Where the first SSH agent is.
    pub(super) agent: Option<String>,
    _doors: Vec<Door>,
    _folders: Vec<TempDir>,
    _secrets: Vec<secrets::Folder>,
    _locks: Vec<File>,
}

impl Resolved {
    /// What the step's result depends on.
    pub(super) fn identity(&self) -> &str {
        &self.identity
    }

    /// Whether it shows what only some have; of `is_apart` is a step's owner who shares nothing with others.
    pub(super) fn is_lent(&self, is_apart: bool) -> bool {
        match self.mount.kind {
            MountKind::Secret | MountKind::Ssh => true,
            MountKind::Cache => is_apart,
            MountKind::Bind | MountKind::Tmpfs => false,
        }
    }
}

impl StageBuilder<'_> {
    pub(super) fn resolve_mount(&self, line: u32, mount: Mount) -> Result<Resolved, Error> {
        let error = |text: String| self.build.error(line, format!("RUN --mount {text}"));
        let id = mount.id.clone().unwrap_or_default();
        let named = match (&mount.target, mount.kind) {
            (Some(target), _) => target.clone(),
            (None, MountKind::Secret) => format!("/run/secrets/{id}"),
            (None, _) => String::new(),
        };
        let absolute = match named.starts_with('/') {
            true => named,
            false => format!("{}/{named}", self.draft.working_dir()),
        };
        let parts = clean(&absolute).filter(|parts| !parts.is_empty());
        let parts = parts.ok_or_else(|| error(format!("cannot be at {absolute:?}")))?;
        let target = format!("/{}", joined(&parts));
        let source = mount.source.as_deref().unwrap_or(".");
        let (origin, content) = match (mount.kind, &mount.from) {
            (MountKind::Bind, None) => {
                let view = self.build.context.clone();
                let ignore = Some(self.build.ignore);
                let content = self.tree(line, &view, ignore, source)?;
                let key = content.key(0);
                (Origin::Folder(view, content), key)
            }
            (MountKind::Bind | MountKind::Cache, Some(from)) => {
                match self.elsewhere(line, "RUN --mount from", from)? {
                    Elsewhere::Layers(draft) => {
                        let chain = draft.chain();
                        (Origin::Layers(draft), chain)
                    }
                    Elsewhere::Folder(view, ignore) => {
                        let content = self.tree(line, &view, Some(&ignore), source)?;
                        let key = content.key(0);
                        (Origin::Folder(view, content), key)
                    }
                }
            }
            (MountKind::Cache | MountKind::Tmpfs | MountKind::Secret | MountKind::Ssh, _) => {
                (Origin::None, String::new())
            }
        };
        // Of a secret only where it is to be found.
        let identity = format!(
            "{:?} {target:?} {id:?} {source:?} {} {:?} {content}",
            mount.kind, mount.read_only, mount.env
        );
        Ok(Resolved {
            mount,
            target,
            origin,
            identity,
        })
    }

    pub(super) fn prepare_mounts(
        &self,
        line: u32,
        mounts: Vec<Resolved>,
    ) -> Result<Prepared, Error> {
        let mut prepared = Prepared::default();
        for resolved in mounts {
            let (mount, target) = (&resolved.mount, resolved.target.clone());
            let source = match mount.kind {
                MountKind::Bind => RunSource::Bind(self.bind(line, &resolved, &mut prepared)?),
                MountKind::Cache => RunSource::Bind(self.cache(line, &resolved, &mut prepared)?),
                MountKind::Tmpfs => RunSource::Tmpfs {
                    size_bytes: mount.size_bytes,
                },
                MountKind::Secret => match self.secret(line, mount, &mut prepared)? {
                    Some(path) => RunSource::Bind(path),
                    None => continue,
                },
                MountKind::Ssh => match self.agent(line, mount, &mut prepared)? {
                    Some(path) => RunSource::Bind(path),
                    None => continue,
                },
            };
            if mount.kind == MountKind::Ssh && prepared.agent.is_none() {
                prepared.agent = Some(target.clone());
            }
            prepared.mounts.push(RunMount {
                target,
                source,
                read_only: mount.read_only,
            });
        }
        Ok(prepared)
    }

    /// The files that a mount shows of a view.
    fn tree(
        &self,
        line: u32,
        view: &View,
        ignore: Option<&Ignore>,
        source: &str,
    ) -> Result<Content, Error> {
        let request = Request {
            destination: "/".to_owned(),
            working_dir: "/".to_owned(),
            owner: None,
            mode: None,
            parents: false,
            excludes: None,
            temp_dir: self.build.store.temp_dir(),
            stop: Arc::clone(&self.build.stop),
        };
        let part = Part {
            source: Source {
                view,
                ignore,
                keeps_owners: ignore.is_none(),
                shown: "what it is from".to_owned(),
            },
            words: vec![source.to_owned()],
            unpacks: false,
        };
        let nothing = View::of_layers(layer::unpacked(self.build.store, &[], &[])?);
        copy::content(&request, &[part], &nothing)
            .map_err(|reason| self.build.error(line, format!("RUN --mount {reason}")))
    }

    /// The folder or file of a bind mount. What is written to it is lost, so that it may be only a copy.
    fn bind(
        &self,
        line: u32,
        resolved: &Resolved,
        prepared: &mut Prepared,
    ) -> Result<PathBuf, Error> {
        let source = resolved.mount.source.as_deref().unwrap_or(".");
        let (view, whole) = match &resolved.origin {
            Origin::Layers(draft) => (draft.view(self.build.store)?, true),
            Origin::Folder(view, _) => (view.clone(), self.build.ignore.is_empty()),
            Origin::None => return Err(Error::Build("a mount shows nothing".to_owned())),
        };
        let outside = || {
            let text = format!("RUN --mount names {source:?}, which leads outside");
            self.build.error(line, text)
        };
        let parts = clean(source).ok_or_else(outside)?;
        let node = view
            .resolve(&parts)
            .map_err(io_error("read", Path::new(source)))?;
        let node = node.node.ok_or_else(|| {
            let text = format!("RUN --mount does not find {source:?}");
            self.build.error(line, text)
        })?;
        let is_one_place = node.real.len() == 1 && (whole || !node.is_dir());
        if is_one_place && resolved.mount.read_only {
            return Ok(node.path().to_owned());
        }
        let made;
        let content = match &resolved.origin {
            Origin::Folder(_, content) => content,
            Origin::Layers(_) | Origin::None => {
                made = self.tree(line, &view, None, source)?;
                &made
            }
        };
        let folder = self.temp_dir("mount-")?;
        open_to_all(folder.path())?;
        content.materialise(folder.path(), whole && resolved.mount.read_only)?;
        let path = match (node.is_dir(), parts.last()) {
            (false, Some(name)) => folder.path().join(name),
            _ => folder.path().to_owned(),
        };
        prepared._folders.push(folder);
        Ok(path)
    }

    /// The folder of a cache, locked as asked for.
    fn cache(
        &self,
        line: u32,
        resolved: &Resolved,
        prepared: &mut Prepared,
    ) -> Result<PathBuf, Error> {
        let mount = &resolved.mount;
        let id = mount.id.as_deref().unwrap_or(&resolved.target);
        let options = &self.build.options;
        let owner = options.is_apart.then_some(options.steps_owner.as_str());
        let name = cache_name(owner, id);
        let (mut number, mut waits) = (0, false);
        let dir = loop {
            let dir = match number {
                0 => self.build.store.cache_mounts_dir().join(&name),
                n => self
                    .build
                    .store
                    .cache_mounts_dir()
                    .join(format!("{name}-{n}")),
            };
            let made = DirBuilder::new().recursive(true).mode(0o700).create(&dir);
            made.map_err(storing("a build cache", &dir))?;
            let locked = match mount.sharing {
                Sharing::Shared => lock::try_shared(&dir, "lock")?,
                Sharing::Locked | Sharing::Private => lock::try_exclusive(&dir, "lock")?,
            };
            if let Some(locked) = locked {
                prepared._locks.push(locked);
                break dir;
            }
            if self.build.stop.load(Ordering::Relaxed) {
                return Err(given_up());
            }
            match mount.sharing {
                Sharing::Private if number < MAX_PRIVATE => number += 1,
                Sharing::Private | Sharing::Locked | Sharing::Shared => {
                    if !waits {
                        self.note(format!(
                            "{}:{line}: RUN waits for the cache {id:?} (--mount at {}), which another step or build has locked",
                            self.build.shown, resolved.target
                        ));
                        waits = true;
                        if let Some(place) = &self.build.options.place {
                            place.leave();
                        }
                    }
                    std::thread::sleep(LOOK);
                }
            }
        };
        if let (true, Some(place)) = (waits, &self.build.options.place) {
            place.come_back();
        }
        // Its time says when it was used last.
        layer::set_time(&dir, now_s(), 0).map_err(io_error("set the time of", &dir))?;
        let data = dir.join("data");
        if data.exists() {
            return Ok(data);
        }
        let aside = tempfile::Builder::new()
            .prefix("new-")
            .tempdir_in(&dir)
            .map_err(storing("a build cache", &data))?;
        match &resolved.origin {
            Origin::None => {}
            Origin::Folder(_, content) => content.materialise(aside.path(), false)?,
            Origin::Layers(draft) => {
                let view = draft.view(self.build.store)?;
                let source = mount.source.as_deref().unwrap_or(".");
                self.tree(line, &view, None, source)?
                    .materialise(aside.path(), false)?;
            }
        }
        let mode = Permissions::from_mode(mount.mode.unwrap_or(0o755));
        let owner = (Some(mount.uid), Some(mount.gid));
        let owned = match (mount.uid, mount.gid) {
            (0, 0) => Ok(()),
            _ => std::os::unix::fs::chown(aside.path(), owner.0, owner.1),
        };
        let placed = owned
            .and_then(|()| fs::set_permissions(aside.path(), mode))
            .and_then(|()| fs::rename(aside.path(), &data));
        match placed {
            Ok(()) => {
                // It has moved: nothing is left for the guard to delete.
                let _ = aside.keep();
            }
            // Another build with the same cache was faster.
            Err(_) if data.exists() => {}
            Err(error) => return Err(storing("a build cache", &data)(error)),
        }
        Ok(data)
    }

    /// The socket of an SSH agent; `None` where there is none to mount.
    fn agent(
        &self,
        line: u32,
        mount: &Mount,
        prepared: &mut Prepared,
    ) -> Result<Option<PathBuf>, Error> {
        let id = mount.id.as_deref().unwrap_or(DEFAULT_AGENT);
        let Some(agent) = self.build.options.agents.get(id) else {
            let missing = format!(
                "RUN --mount needs the SSH agent {id:?}, which was not given: `layby build --ssh {id}`, or `ssh` of the manifest's `build`"
            );
            return match mount.required {
                true => Err(self.build.error(line, missing)),
                false => Ok(None),
            };
        };
        let folder = self.temp_dir("agent-")?;
        let mode = mount.mode.unwrap_or(0o600);
        let door = Door::open(folder, agent, mode, (mount.uid, mount.gid)).map_err(|reason| {
            let text = format!("RUN --mount cannot show the SSH agent {id:?}: {reason}");
            self.build.error(line, text)
        })?;
        let path = door.path();
        prepared._doors.push(door);
        Ok(Some(path))
    }

    /// The file of a secret, in memory; `None` where there is none to mount.
    fn secret(
        &self,
        line: u32,
        mount: &Mount,
        prepared: &mut Prepared,
    ) -> Result<Option<PathBuf>, Error> {
        let error = |text: String| self.build.error(line, format!("RUN --mount {text}"));
        let from_target = || {
            let target = mount.target.as_deref().unwrap_or_default();
            target.rsplit('/').next().unwrap_or_default().to_owned()
        };
        let id = mount.id.clone().unwrap_or_else(from_target);
        let Some(value) = self.build.options.secrets.get(&id) else {
            return match mount.required {
                true => Err(error(format!(
                    "needs the secret {id:?}, which was not given: `layby build --secret id={id},src=FILE`, or `secrets` of the manifest's `build`"
                ))),
                false => Ok(None),
            };
        };
        if let Some(name) = &mount.env {
            let text = String::from_utf8(value.clone());
            let text = text.map_err(|_| {
                error(format!(
                    "cannot make a variable of the secret {id:?}: it is not text"
                ))
            })?;
            prepared.env.push((name.clone(), text));
            if mount.target.is_none() {
                return Ok(None);
            }
        }
        let folder = secrets::folder().map_err(error)?;
        let path = folder.path().join("secret");
        let mode = mount.mode.unwrap_or(0o400);
        secrets::write(&path, value, mode, (mount.uid, mount.gid))
            .map_err(|reason| error(format!("cannot show the secret {id:?}: {reason}")))?;
        prepared._secrets.push(folder);
        Ok(Some(path))
    }
}

/// The folder of a cache with this id: its owner's own, or that of all who share theirs.
fn cache_name(owner: Option<&str>, id: &str) -> String {
    let name = match owner {
        None => digest::of(id.as_bytes()),
        Some(owner) => {
            let mut key = Key::new("layby cache mount 1");
            key.field(owner);
            key.field(id);
            key.finish()
        }
    };
    digest::hex_of(&name).unwrap_or_default().to_owned()
}

fn open_to_all(dir: &Path) -> Result<(), Error> {
    let opened = fs::set_permissions(dir, Permissions::from_mode(0o755));
    opened.map_err(storing("the files of a mount", dir))
}

fn now_s() -> i64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    i64::try_from(now.unwrap_or_default().as_secs()).unwrap_or(0)
}
