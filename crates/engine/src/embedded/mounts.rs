//! What a container gets to see of the machine's files: the service's mounts, and the image's VOLUMEs, as folders that
//! are there.

use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};

use layby_image::ImageConfig;
use layby_model::mounts::{Mount, MountSource};
use layby_model::replica::Trouble;
use layby_model::spec::{ContainerSpec, ServiceSpec};
use layby_model::{AppName, error_chain, privilege};
use layby_runtime::{FileConfig, MountConfig, MountFrom, is_plain_name};

use super::volumes::{VolumeError, Volumes, Wanted};
use crate::slots::Slots;

/// A tmpfs without a size takes no more than this where the container has no memory limit, in bytes: as `/dev/shm`.
const TMPFS_BYTES: u64 = 64 << 20;
/// The bit of a folder's mode by which what is made in it has its group (inode(7)).
pub(super) const SETGID: u32 = 0o2000;
/// What the group of a file in memory may do with it at least.
const GROUP_READS: u32 = 0o040;

/// Whose mounts they are.
pub(super) struct Place<'a> {
    pub(super) volumes: &'a Volumes,
    pub(super) app: &'a AppName,
    /// The replica's bundle: its scratch folders are in it, and go with it.
    pub(super) bundle: &'a Path,
    /// Which of the machine's files may be mounted.
    pub(super) gate: &'a Gate,
    /// The group of what is made.
    pub(super) group: Option<u32>,
}

/// What only the operator may allow, and whether he has (`layby serve --allow-privileged`).
#[derive(Debug)]
pub(super) struct Gate {
    pub(super) is_open: bool,
    /// Root inside is nobody outside.
    pub(super) shifts_ids: bool,
    /// The node's folders, without links.
    pub(super) own: Vec<PathBuf>,
}

impl Gate {
    /// Refuses what a service asks for that has not been allowed: how it was deployed, and how the node was started then,
    /// does not count.
    pub(super) fn check(&self, spec: &ServiceSpec) -> Result<(), Trouble> {
        let mut asked = privilege::asked(spec, &self.own);
        if !self.shifts_ids {
            asked.extend(privilege::asked_of_root(spec));
        }
        match asked.is_empty() || self.is_open {
            true => Ok(()),
            false => {
                let what = asked.join(", ");
                Err(not_allowed(&format!("the service asks for {what}")))
            }
        }
    }

    /// The same for a path of the machine, where its links have led.
    fn check_path(&self, path: &Path, read_only: bool) -> Result<(), Trouble> {
        if self.is_open {
            return Ok(());
        }
        let shown = path.display();
        if privilege::is_machines(path, read_only, &self.own) {
            return Err(not_allowed(&format!("the service mounts {shown}")));
        }
        // Whoever speaks to a socket or a device speaks to what may be root.
        let is_plain = |kind: fs::FileType| kind.is_dir() || kind.is_file();
        match fs::symlink_metadata(path) {
            Ok(found) if !is_plain(found.file_type()) => Err(not_allowed(&format!(
                "the service mounts {shown}, which is no file or folder"
            ))),
            _ => Ok(()),
        }
    }
}

fn not_allowed(what: &str) -> Trouble {
    Trouble {
        fatal: true,
        message: format!(
            "{what}, which only this node's operator may allow: start the node with `layby serve --allow-privileged` \
             to allow it"
        ),
    }
}

/// Makes what is to be mounted into a container, and says where it is. Blocks.
pub(super) fn resolve(
    place: &Place<'_>,
    spec: &ContainerSpec,
    image: &ImageConfig,
    slots: &mut Slots,
) -> Result<Vec<MountConfig>, Trouble> {
    let mut all = Vec::new();
    for mount in &spec.mounts {
        all.push(one(place, spec, mount, slots)?);
    }
    for (n, path) in image.volumes.iter().enumerate() {
        let path = path.trim_end_matches('/');
        let taken = all.iter().any(|mount: &MountConfig| mount.target == path);
        if taken || !path.starts_with('/') {
            continue;
        }
        let folder = place.bundle.join("scratch/own").join(&spec.name);
        all.push(MountConfig {
            source: bind(scratch(&folder.join(n.to_string()), 0o755, None)?),
            target: path.to_owned(),
            read_only: false,
            copy_up: true,
        });
    }
    Ok(all)
}

fn one(
    place: &Place<'_>,
    spec: &ContainerSpec,
    mount: &Mount,
    slots: &mut Slots,
) -> Result<MountConfig, Trouble> {
    let (source, copy_up) = match &mount.source {
        MountSource::Volume {
            name,
            subpath,
            copy,
            external,
            labels,
        } => {
            let folder = place.volumes.folder(&Wanted {
                name,
                subpath: subpath.as_deref(),
                external: *external,
                app: place.app,
                labels,
                group: place.group,
            });
            let folder = folder.map_err(|error| from_volume(&error))?;
            let source = MountFrom::Bind {
                path: folder,
                recursive: false,
                subpath: subpath.as_ref().map(PathBuf::from),
            };
            (source, *copy && subpath.is_none())
        }
        MountSource::Bind {
            path,
            create,
            recursive,
        } => {
            let path = on_machine(place.gate, path, *create, mount.read_only)?;
            let recursive = *recursive;
            let source = MountFrom::Bind {
                path,
                recursive,
                subpath: None,
            };
            (source, false)
        }
        MountSource::Tmpfs {
            size_bytes,
            mode,
            no_exec,
        } => {
            let half = spec.resources.memory_limit_bytes.map(|limit| limit / 2);
            let size_bytes = Some(size_bytes.or(half).unwrap_or(TMPFS_BYTES));
            let source = MountFrom::Tmpfs {
                size_bytes,
                mode: *mode,
                no_exec: *no_exec,
            };
            (source, false)
        }
        MountSource::Scratch {
            name,
            memory_bytes: Some(bytes),
            ..
        } => {
            let (name, size_bytes) = (name.clone(), *bytes);
            (MountFrom::Memory { name, size_bytes }, false)
        }
        MountSource::Scratch {
            name,
            memory_bytes: None,
            copy,
        } => {
            if !is_plain_name(name) {
                return Err(Trouble {
                    fatal: true,
                    message: format!("{name:?} cannot name a folder of a replica's containers"),
                });
            }
            // Whoever a container runs as may write to what Kubernetes calls an emptyDir.
            let mode = if *copy { 0o755 } else { 0o777 };
            let folder = place.bundle.join("scratch/named").join(name);
            let folder = scratch(&folder, mode, place.group)?;
            (bind(folder), *copy)
        }
        MountSource::Files { files, .. } => {
            let files = files.iter().map(|file| FileConfig {
                path: PathBuf::from(&file.path),
                value: slots.add(std::slice::from_ref(&file.content)),
                mode: file.mode | place.group.map_or(0, |_| GROUP_READS),
                uid: file.uid,
                gid: place.group.filter(|_| file.gid == 0).unwrap_or(file.gid),
            });
            let files = files.collect();
            (MountFrom::Files { files }, false)
        }
    };
    Ok(MountConfig {
        source,
        target: mount.target.clone(),
        read_only: mount.read_only,
        copy_up,
    })
}

fn bind(path: PathBuf) -> MountFrom {
    MountFrom::Bind {
        path,
        recursive: false,
        subpath: None,
    }
}

/// The folder of a scratch mount; another container of the replica may have made it already.
fn scratch(folder: &Path, mode: u32, group: Option<u32>) -> Result<PathBuf, Trouble> {
    let made = || -> io::Result<()> {
        if folder.is_dir() {
            return Ok(());
        }
        let mut builder = DirBuilder::new();
        builder.recursive(true).mode(0o755).create(folder)?;
        if group.is_some() {
            chown(folder, None, group)?;
        }
        // What is made in it has its group, too.
        let mode = if group.is_some() { mode | SETGID } else { mode };
        fs::set_permissions(folder, fs::Permissions::from_mode(mode)) // whatever the umask is
    };
    made().map_err(|error| Trouble {
        fatal: false,
        message: format!("cannot make the folder {}: {error}", folder.display()),
    })?;
    Ok(folder.to_owned())
}

/// A path of the machine, with its links followed: what it is now is mounted, and nothing that a link is turned to later.
fn on_machine(gate: &Gate, path: &str, create: bool, read_only: bool) -> Result<PathBuf, Trouble> {
    let fatal = |message: String| Trouble {
        fatal: true,
        message,
    };
    let found = match fs::canonicalize(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound && create => {
            gate.check_path(&of_existing(Path::new(path)), read_only)?;
            fs::create_dir_all(path).and_then(|()| fs::canonicalize(path))
        }
        other => other,
    };
    let found = found.map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => fatal(format!(
            "{path} is to be mounted and is not there: make it, or have the manifest make it"
        )),
        io::ErrorKind::StorageFull => Trouble {
            fatal: false,
            message: format!("cannot make the folder {path}: {error}"),
        },
        _ => fatal(format!("{path} cannot be mounted: {error}")),
    })?;
    gate.check_path(&found, read_only)?;
    Ok(found)
}

/// Where a path that is not there yet would be, with the links of the part that is.
fn of_existing(path: &Path) -> PathBuf {
    let real = path.ancestors().find_map(|part| {
        let rest = path.strip_prefix(part).ok()?;
        Some(fs::canonicalize(part).ok()?.join(rest))
    });
    real.unwrap_or_else(|| path.to_owned())
}

/// A full disk may be cleared; a name or path stays wrong.
fn from_volume(error: &VolumeError) -> Trouble {
    let fatal = match error {
        VolumeError::BadName { .. }
        | VolumeError::NoExternal { .. }
        | VolumeError::NotFound { .. }
        | VolumeError::BadSubpath { .. } => true,
        VolumeError::InUse { .. } | VolumeError::Io { .. } => false,
    };
    Trouble {
        fatal,
        message: error_chain(error),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn mount(source: MountSource, target: &str) -> Mount {
        Mount {
            source,
            target: target.to_owned(),
            read_only: false,
        }
    }

    fn resolved(
        dir: &Path,
        mounts: Vec<Mount>,
        volumes: &[&str],
    ) -> Result<Vec<MountConfig>, Trouble> {
        let data = dir.join("data");
        fs::create_dir_all(&data).expect("a folder");
        let (store, _) = Volumes::open(&data).expect("opened");
        let gate = Gate {
            shifts_ids: true,
            is_open: false,
            own: vec![data],
        };
        let place = Place {
            volumes: &store,
            app: &AppName::new("shop").expect("a label"),
            bundle: &dir.join("bundle"),
            gate: &gate,
            group: None,
        };
        let mut spec = ContainerSpec::new("web", "web");
        spec.mounts = mounts;
        spec.resources.memory_limit_bytes = Some(100);
        let image = ImageConfig {
            volumes: volumes.iter().map(|path| (*path).to_owned()).collect(),
            ..ImageConfig::default()
        };
        resolve(&place, &spec, &image, &mut Slots::default())
    }

    fn folder(mount: &MountConfig) -> &Path {
        match &mount.source {
            MountFrom::Bind { path, .. } => path,
            MountFrom::Tmpfs { .. } | MountFrom::Memory { .. } | MountFrom::Files { .. } => {
                panic!("no folder: {mount:?}")
            }
        }
    }

    #[test]
    fn the_images_volumes_are_scratch_unless_the_service_mounts_something_there() {
        let dir = tempfile::tempdir().expect("a folder");
        let named = MountSource::Volume {
            name: "data".to_owned(),
            subpath: None,
            copy: true,
            external: false,
            labels: BTreeMap::new(),
        };
        let mounts = vec![mount(named, "/data")];
        let all = resolved(dir.path(), mounts, &["/data/", "/log", "odd"]).expect("made");
        assert_eq!(all.len(), 2, "{all:?}");
        assert_eq!(folder(&all[0]), dir.path().join("data/volumes/data/data"));
        assert_eq!((&*all[1].target, all[1].copy_up), ("/log", true));
        assert!(folder(&all[1]).starts_with(dir.path().join("bundle/scratch")));
        assert!(folder(&all[1]).is_dir());
    }

    #[test]
    fn containers_of_a_replica_share_scratch_by_its_name() {
        let dir = tempfile::tempdir().expect("a folder");
        let scratch = |memory_bytes| MountSource::Scratch {
            name: "cache".to_owned(),
            memory_bytes,
            copy: false,
        };
        let one = resolved(dir.path(), vec![mount(scratch(None), "/a")], &[]).expect("made");
        let two = resolved(dir.path(), vec![mount(scratch(None), "/b")], &[]).expect("made");
        assert_eq!(folder(&one[0]), folder(&two[0]));
        let mode = fs::metadata(folder(&one[0])).expect("there").permissions();
        assert_eq!(mode.mode() & 0o7777, 0o777);
        let memory = resolved(dir.path(), vec![mount(scratch(Some(9)), "/a")], &[]).expect("made");
        let expected = MountFrom::Memory {
            name: "cache".to_owned(),
            size_bytes: 9,
        };
        assert_eq!(memory[0].source, expected);
        let tmpfs = MountSource::Tmpfs {
            size_bytes: None,
            mode: None,
            no_exec: true,
        };
        let half = resolved(dir.path(), vec![mount(tmpfs, "/a")], &[]).expect("made");
        assert!(matches!(
            half[0].source,
            MountFrom::Tmpfs {
                size_bytes: Some(50),
                no_exec: true,
                ..
            }
        ));
    }

    #[test]
    fn a_path_of_the_machine_must_be_there_or_is_made_if_that_is_wanted() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("new/deep").display().to_string();
        let source = |create| MountSource::Bind {
            path: path.clone(),
            create,
            recursive: true,
        };
        let missing = resolved(dir.path(), vec![mount(source(false), "/a")], &[]);
        let missing = missing.expect_err("not there");
        assert!(
            missing.fatal && missing.message.contains(&path),
            "{missing:?}"
        );
        let made = resolved(dir.path(), vec![mount(source(true), "/a")], &[]).expect("made");
        assert_eq!(folder(&made[0]), Path::new(&path));
        resolved(dir.path(), vec![mount(source(false), "/a")], &[]).expect("there now");
    }

    #[test]
    fn a_link_to_a_place_of_the_machine_is_no_way_past_the_operator() {
        let dir = tempfile::tempdir().expect("a folder");
        for (name, to) in [
            ("etc", Path::new("/etc")),
            ("own", &dir.path().join("data")),
        ] {
            std::os::unix::fs::symlink(to, dir.path().join(name)).expect("a link");
        }
        let _socket = std::os::unix::net::UnixListener::bind(dir.path().join("s")).expect("bound");
        for path in [
            "etc",
            "etc/layby-test-new",
            "own",
            "own/volumes",
            "data",
            ".",
            "s",
        ] {
            let source = MountSource::Bind {
                path: dir.path().join(path).display().to_string(),
                create: true,
                recursive: true,
            };
            let refused = resolved(dir.path(), vec![mount(source, "/a")], &[]);
            let refused = refused.expect_err(path);
            assert!(
                refused.fatal && refused.message.contains("--allow-privileged"),
                "{path}: {refused:?}"
            );
        }
        assert!(!Path::new("/etc/layby-test-new").exists());
    }

    #[test]
    fn a_scratch_name_leads_nowhere_else() {
        let dir = tempfile::tempdir().expect("a folder");
        let source = MountSource::Scratch {
            name: "../../out".to_owned(),
            memory_bytes: None,
            copy: false,
        };
        let refused = resolved(dir.path(), vec![mount(source, "/a")], &[]);
        assert!(refused.expect_err("refused").fatal);
    }
}
