//! Named volumes: folders that outlive the replicas that mount them.
//!
//! ```text
//! DIR/volumes/<name>/volume.json   for whom it was made, and when
//! DIR/volumes/<name>/data/         its files
//! ```
//! A volume is made aside and renamed, and renamed aside before it is removed: what has a name is whole, and a crash
//! leaves nothing but what begins with a dot, which the next start clears away. Only [`Volumes::remove`] removes one.

use std::collections::BTreeMap;
use std::fs::{self, DirBuilder, File};
use std::io::{self, ErrorKind, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt, chown};
use std::path::{Component, Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use super::mounts::SETGID;
use layby_model::mounts::VolumeReport;
use layby_model::{AppName, ServiceId};
use nix::errno::Errno;
use nix::fcntl::{OFlag, openat};
use nix::sys::stat::{Mode, mkdirat};
use serde::{Deserialize, Serialize};

/// The version of `volume.json`.
const VERSION: u32 = 1;
/// The longest name, so that there is room beside it in a file name (255 bytes).
const NAME_MAX: usize = 200;
/// What an unfinished volume's folder begins with.
const NEW: &str = ".new-";
/// What the folder of a volume begins with that is being removed.
const GONE: &str = ".gone-";

/// Why a volume cannot be had, or not removed.
#[derive(Debug, thiserror::Error)]
pub(super) enum VolumeError {
    #[error(
        "{name:?} cannot name a volume: use 1 to {NAME_MAX} of a-z, A-Z, 0-9, '_', '.' and '-', beginning with a letter or digit"
    )]
    BadName { name: String },
    #[error(
        "there is no volume {name}, and it is not to be made here (external): make it with `layby volume create {name}`"
    )]
    NoExternal { name: String },
    #[error("there is no volume {name}: `layby volume ls` shows those there are")]
    NotFound { name: String },
    #[error("the volume {name} is in use by {}: take that down first", list(.by))]
    InUse { name: String, by: Vec<ServiceId> },
    #[error(
        "{subpath:?} cannot be mounted from the volume {name}: it must be a relative path without '..' that leads over no link"
    )]
    BadSubpath { name: String, subpath: String },
    #[error("cannot {what} the volume {name}")]
    Io {
        what: &'static str,
        name: String,
        #[source]
        source: io::Error,
    },
}

fn list(services: &[ServiceId]) -> String {
    let names: Vec<String> = services.iter().map(ServiceId::to_string).collect();
    names.join(", ")
}

/// What is written down of a volume.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Record {
    /// [`VERSION`].
    v: u32,
    app: Option<AppName>,
    labels: BTreeMap<String, String>,
    created_ms: u64,
}

/// What a replica wants of a named volume.
pub(super) struct Wanted<'a> {
    pub(super) name: &'a str,
    /// A folder in it.
    pub(super) subpath: Option<&'a str>,
    /// It must be there already.
    pub(super) external: bool,
    /// For whom it is made if it is not there.
    pub(super) app: &'a AppName,
    pub(super) labels: &'a BTreeMap<String, String>,
    /// The group of its root, if it is made: who is in it may write there.
    pub(super) group: Option<u32>,
}

/// The named volumes of a node.
#[derive(Debug)]
pub(super) struct Volumes {
    dir: PathBuf,
    /// Held while a volume is made or put aside: whoever needs it then sees it whole or not at all.
    turn: Mutex<()>,
}

impl Volumes {
    /// Opens the folder of the volumes, and gives what a crash left half made or half removed: that is to be passed
    /// to [`sweep`]. Blocks.
    pub(super) fn open(data_dir: &Path) -> io::Result<(Self, Vec<PathBuf>)> {
        let dir = data_dir.join("volumes");
        DirBuilder::new().recursive(true).mode(0o700).create(&dir)?;
        let mut left = Vec::new();
        for entry in fs::read_dir(&dir)? {
            let entry = entry?;
            let name = entry.file_name();
            let name = name.as_encoded_bytes();
            if name.starts_with(NEW.as_bytes()) || name.starts_with(GONE.as_bytes()) {
                left.push(entry.path());
            }
        }
        let turn = Mutex::default();
        Ok((Self { dir, turn }, left))
    }

    /// Every volume, by name. Blocks.
    pub(super) fn list(
        &self,
        used: &BTreeMap<String, Vec<ServiceId>>,
    ) -> io::Result<Vec<VolumeReport>> {
        let mut all = Vec::new();
        for entry in fs::read_dir(&self.dir)? {
            let name = entry?.file_name();
            // What people put there by hand is no volume, and not touched.
            if let Some(name) = name.to_str()
                && check_name(name).is_ok()
                && self.data(name).is_dir()
            {
                all.push(self.report(name, used));
            }
        }
        all.sort_by(|a: &VolumeReport, b| a.name.cmp(&b.name));
        Ok(all)
    }

    /// Makes a volume for nobody in particular; one that is there is left as it is. Blocks.
    pub(super) fn make(
        &self,
        name: &str,
        labels: &BTreeMap<String, String>,
        used: &BTreeMap<String, Vec<ServiceId>>,
    ) -> Result<VolumeReport, VolumeError> {
        check_name(name)?;
        let _turn = self.lock();
        self.ensure(name, None, labels, None)?;
        Ok(self.report(name, used))
    }

    /// The folder of a volume, which is made if it is not there, and so is the subpath in it. Blocks.
    ///
    /// The replica must be known as a user of the volume before, or it may be removed under its feet.
    pub(super) fn folder(&self, wanted: &Wanted<'_>) -> Result<PathBuf, VolumeError> {
        let name = wanted.name;
        check_name(name)?;
        let data = self.data(name);
        {
            let _turn = self.lock();
            if wanted.external && !data.is_dir() {
                let name = name.to_owned();
                return Err(VolumeError::NoExternal { name });
            }
            self.ensure(name, Some(wanted.app), wanted.labels, wanted.group)?;
        }
        if let Some(subpath) = wanted.subpath {
            make_below(&data, subpath).map_err(|error| match error {
                Below::Refused => VolumeError::BadSubpath {
                    name: name.to_owned(),
                    subpath: subpath.to_owned(),
                },
                Below::Failed(errno) => failed("make a folder in", name)(errno.into()),
            })?;
        }
        Ok(data)
    }

    /// Removes a volume with all that is in it, unless `used_by` names somebody. Blocks.
    pub(super) fn remove(
        &self,
        name: &str,
        used_by: impl FnOnce() -> Vec<ServiceId>,
    ) -> Result<(), VolumeError> {
        check_name(name)?;
        let not_found = || VolumeError::NotFound {
            name: name.to_owned(),
        };
        let aside = {
            let _turn = self.lock();
            if !self.data(name).is_dir() {
                return Err(not_found());
            }
            let by = used_by();
            if !by.is_empty() {
                let name = name.to_owned();
                return Err(VolumeError::InUse { name, by });
            }
            self.put_aside(name).map_err(failed("remove", name))?
        };
        // It is gone; what cannot be removed now is at the next start.
        fs::remove_dir_all(aside).map_err(failed("remove all files of", name))
    }

    fn lock(&self) -> MutexGuard<'_, ()> {
        self.turn.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn data(&self, name: &str) -> PathBuf {
        self.dir.join(name).join("data")
    }

    fn report(&self, name: &str, used: &BTreeMap<String, Vec<ServiceId>>) -> VolumeReport {
        let dir = self.dir.join(name);
        let text = fs::read(dir.join("volume.json")).unwrap_or_default();
        // A record that cannot be read costs its words, and no data.
        let record = serde_json::from_slice(&text).unwrap_or_else(|_| Record {
            v: VERSION,
            app: None,
            labels: BTreeMap::new(),
            created_ms: made_ms(&dir),
        });
        VolumeReport {
            name: name.to_owned(),
            app: record.app,
            labels: record.labels,
            created_ms: record.created_ms,
            path: self.data(name).display().to_string(),
            used_by: used.get(name).cloned().unwrap_or_default(),
        }
    }

    /// Makes a volume unless it is there.
    fn ensure(
        &self,
        name: &str,
        app: Option<&AppName>,
        labels: &BTreeMap<String, String>,
        group: Option<u32>,
    ) -> Result<(), VolumeError> {
        let data = self.data(name);
        if data.is_dir() {
            return Ok(());
        }
        let record = Record {
            v: VERSION,
            app: app.cloned(),
            labels: labels.clone(),
            created_ms: now_ms(),
        };
        let aside = self.dir.join(format!("{NEW}{name}"));
        let made = make_aside(&aside, &record, group).and_then(|()| {
            fs::rename(&aside, self.dir.join(name))?;
            File::open(&self.dir)?.sync_all()
        });
        if made.is_err() {
            // The first error is the one to tell; what stays goes at the next start.
            let _ = fs::remove_dir_all(&aside);
        }
        made.map_err(failed("make", name))
    }

    fn put_aside(&self, name: &str) -> io::Result<PathBuf> {
        let mut n = 0_u32;
        loop {
            let aside = self.dir.join(format!("{GONE}{n}-{name}"));
            match fs::rename(self.dir.join(name), &aside) {
                Ok(()) => {
                    File::open(&self.dir)?.sync_all()?;
                    return Ok(aside);
                }
                // One of that name is still being removed.
                Err(error) if error.kind() == ErrorKind::DirectoryNotEmpty && n < 100 => n += 1,
                Err(error) => return Err(error),
            }
        }
    }
}

/// Clears away what [`Volumes::open`] gave; may take long. Blocks.
pub(super) fn sweep(left: &[PathBuf]) {
    for path in left {
        if let Err(error) = fs::remove_dir_all(path) {
            tracing::warn!("cannot clear {} away: {error}", path.display());
        }
    }
}

/// Takes Docker's names: `[a-zA-Z0-9][a-zA-Z0-9_.-]*`.
pub(super) fn check_name(name: &str) -> Result<(), VolumeError> {
    let bytes = name.as_bytes();
    let inner = |b: &u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-');
    let good = (1..=NAME_MAX).contains(&bytes.len())
        && bytes[0].is_ascii_alphanumeric()
        && bytes.iter().all(inner);
    match good {
        true => Ok(()),
        false => Err(VolumeError::BadName {
            name: name.to_owned(),
        }),
    }
}

fn make_aside(aside: &Path, record: &Record, group: Option<u32>) -> io::Result<()> {
    if aside.exists() {
        fs::remove_dir_all(aside)?; // an earlier try that was cut short
    }
    fs::create_dir(aside)?;
    let data = aside.join("data");
    fs::create_dir(&data)?;
    // As Docker's: programs that do not run as root may read what root wrote.
    let mode = match group {
        Some(_) => 0o775 | SETGID,
        None => 0o755,
    };
    if group.is_some() {
        chown(&data, None, group)?;
    }
    fs::set_permissions(&data, fs::Permissions::from_mode(mode))?;
    let mut file = File::create(aside.join("volume.json"))?;
    file.write_all(&serde_json::to_vec_pretty(record)?)?;
    file.sync_all()?;
    File::open(aside)?.sync_all()
}

enum Below {
    /// It leads elsewhere.
    Refused,
    Failed(Errno),
}

/// Makes what is missing of `subpath` below `root`. A container that writes to `root` meanwhile cannot lead it out: no
/// link is followed. Whoever mounts it follows none either.
fn make_below(root: &Path, subpath: &str) -> Result<(), Below> {
    let path = Path::new(subpath);
    let parts: Option<Vec<&std::ffi::OsStr>> = path
        .components()
        .filter(|part| !matches!(part, Component::CurDir))
        .map(|part| match part {
            Component::Normal(name) => Some(name),
            Component::CurDir
            | Component::ParentDir
            | Component::RootDir
            | Component::Prefix(_) => None,
        })
        .collect();
    let parts = parts.ok_or(Below::Refused)?;
    let flags = OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let mut folder: OwnedFd =
        nix::fcntl::open(root, flags | OFlag::O_DIRECTORY, Mode::empty()).map_err(Below::Failed)?;
    for (n, part) in parts.iter().enumerate() {
        let last = n + 1 == parts.len();
        match mkdirat(folder.as_fd(), *part, Mode::from_bits_truncate(0o755)) {
            Ok(()) | Err(Errno::EEXIST) => {}
            Err(Errno::ENOTDIR) => return Err(Below::Refused),
            Err(errno) => return Err(Below::Failed(errno)),
        }
        let found = openat(folder.as_fd(), *part, flags, Mode::empty()).map_err(Below::Failed)?;
        let kind = File::from(
            found
                .try_clone()
                .map_err(|_| Below::Failed(Errno::EMFILE))?,
        );
        let kind = kind.metadata().map_err(|_| Below::Refused)?.file_type();
        // A single file may be mounted too.
        if !(kind.is_dir() || last && kind.is_file()) {
            return Err(Below::Refused);
        }
        folder = found;
    }
    Ok(())
}

fn failed<'a>(what: &'static str, name: &'a str) -> impl FnOnce(io::Error) -> VolumeError + 'a {
    move |source| VolumeError::Io {
        what,
        name: name.to_owned(),
        source,
    }
}

fn made_ms(dir: &Path) -> u64 {
    let seconds = fs::metadata(dir).map_or(0, |metadata| metadata.ctime());
    u64::try_from(seconds).unwrap_or(0) * 1000
}

fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| {
        u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
    })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn open(dir: &Path) -> Volumes {
        let (volumes, left) = Volumes::open(dir).expect("opened");
        sweep(&left);
        volumes
    }

    fn app() -> AppName {
        AppName::new("shop").expect("a label")
    }

    fn folder(
        volumes: &Volumes,
        name: &str,
        subpath: Option<&str>,
    ) -> Result<PathBuf, VolumeError> {
        volumes.folder(&Wanted {
            name,
            subpath,
            external: false,
            app: &app(),
            labels: &BTreeMap::from([("a".to_owned(), "b".to_owned())]),
            group: None,
        })
    }

    #[test]
    fn a_volume_is_made_on_first_use_and_is_there_after_a_restart() {
        let dir = tempfile::tempdir().expect("a folder");
        let volumes = open(dir.path());
        let data = folder(&volumes, "shop_data", None).expect("made");
        fs::write(data.join("file"), "kept").expect("written");
        let volumes = open(dir.path());
        assert_eq!(folder(&volumes, "shop_data", None).expect("there"), data);
        assert_eq!(fs::read(data.join("file")).expect("read"), b"kept");
        let service: ServiceId = "shop/db".parse().expect("a service");
        let used = BTreeMap::from([("shop_data".to_owned(), vec![service.clone()])]);
        let all = volumes.list(&used).expect("listed");
        assert_eq!(all.len(), 1);
        assert_eq!((&*all[0].name, &all[0].app), ("shop_data", &Some(app())));
        assert_eq!((&all[0].used_by, all[0].labels.len()), (&vec![service], 1));
        assert!(all[0].created_ms > 1_700_000_000_000);
        assert_eq!(Path::new(&all[0].path), data);
    }

    #[test]
    fn an_external_volume_must_be_there() {
        let dir = tempfile::tempdir().expect("a folder");
        let volumes = open(dir.path());
        let none = BTreeMap::new();
        let wanted = Wanted {
            name: "outside",
            subpath: None,
            external: true,
            app: &app(),
            labels: &none,
            group: None,
        };
        let missing = volumes.folder(&wanted);
        assert!(matches!(missing, Err(VolumeError::NoExternal { .. })));
        let made = volumes.make("outside", &none, &none_used()).expect("made");
        assert_eq!(made.app, None);
        assert_eq!(
            volumes.make("outside", &none, &none_used()).expect("there"),
            made
        );
        volumes.folder(&wanted).expect("there");
    }

    fn none_used() -> BTreeMap<String, Vec<ServiceId>> {
        BTreeMap::new()
    }

    #[test]
    fn a_volume_in_use_is_not_removed_and_one_that_is_not_is() {
        let dir = tempfile::tempdir().expect("a folder");
        let volumes = open(dir.path());
        let data = folder(&volumes, "v", None).expect("made");
        fs::write(data.join("file"), "x").expect("written");
        let by = vec!["shop/db".parse().expect("a service")];
        let refused = volumes.remove("v", || by).expect_err("in use");
        assert!(refused.to_string().contains("shop/db"), "{refused}");
        assert!(data.join("file").exists());
        volumes.remove("v", Vec::new).expect("removed");
        assert_eq!(
            fs::read_dir(dir.path().join("volumes"))
                .expect("read")
                .count(),
            0
        );
        let again = volumes.remove("v", Vec::new);
        assert!(matches!(again, Err(VolumeError::NotFound { .. })));
    }

    #[test]
    fn a_crash_leaves_whole_volumes_and_what_the_next_start_clears_away() {
        let dir = tempfile::tempdir().expect("a folder");
        let volumes = open(dir.path());
        let kept = folder(&volumes, "kept", None).expect("made");
        fs::write(kept.join("file"), "x").expect("written");
        let all = dir.path().join("volumes");
        // Cut short while it was made, and while it was removed.
        fs::create_dir_all(all.join(".new-half")).expect("a folder");
        fs::create_dir_all(all.join(".gone-0-old/data/deep")).expect("a folder");
        // A record lost with the disk's last words, and what somebody put there.
        fs::write(all.join("kept/volume.json"), "{").expect("written");
        fs::write(all.join("README"), "mine").expect("written");
        let volumes = open(dir.path());
        let names: Vec<String> = volumes
            .list(&none_used())
            .expect("listed")
            .into_iter()
            .map(|volume| volume.name)
            .collect();
        assert_eq!(names, ["kept"]);
        assert!(kept.join("file").exists() && all.join("README").exists());
        assert!(!all.join(".new-half").exists() && !all.join(".gone-0-old").exists());
        folder(&volumes, "half", None).expect("made anew");
        // One that is removed while an older one of its name still goes.
        fs::create_dir_all(all.join(".gone-0-kept/data")).expect("a folder");
        volumes.remove("kept", Vec::new).expect("removed");
    }

    #[test]
    fn a_name_is_as_dockers() {
        for good in ["a", "shop_data", "0.x-Y_z", &"x".repeat(200)] {
            assert!(check_name(good).is_ok(), "{good}");
        }
        for bad in [
            "",
            ".",
            "..",
            ".a",
            "-a",
            "_a",
            "a/b",
            "a b",
            "ä",
            "a\0",
            &"x".repeat(201),
        ] {
            assert!(check_name(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_subpath_stays_in_its_volume() {
        let dir = tempfile::tempdir().expect("a folder");
        let volumes = open(dir.path());
        let data = folder(&volumes, "v", None).expect("made");
        assert_eq!(folder(&volumes, "v", Some("a/./b")).expect("made"), data);
        assert!(data.join("a/b").is_dir());
        symlink("/etc", data.join("out")).expect("a link");
        symlink("a", data.join("in")).expect("a link");
        fs::write(data.join("file"), "x").expect("written");
        folder(&volumes, "v", Some("file")).expect("a file");
        for bad in ["..", "a/../..", "/etc", "out", "out/new", "in", "file/x"] {
            let refused = folder(&volumes, "v", Some(bad));
            assert!(
                matches!(refused, Err(VolumeError::BadSubpath { .. })),
                "{bad}"
            );
        }
        assert!(!Path::new("/etc/new").exists());
    }
}
