//! Whom a container runs as: looked up in its own root file system, never on the host.
//!
//! The root is somebody else's data: every path is resolved inside it (openat2(2), RESOLVE_IN_ROOT), so
//! that no link in it leads out.

use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Component, Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{OFlag, OpenHow, ResolveFlag, openat, openat2, readlinkat};
use nix::sys::stat::{Mode, SFlag, fstat, mkdirat};

use crate::error::{Error, Result, Trying};

/// The longest `/etc/passwd` or `/etc/group` that is read.
const MAX_FILE_BYTES: u64 = 1024 * 1024;

/// The most links on the way to one file, as the kernel has it.
const MAX_LINKS: usize = 40;

/// A user of a container, in its own numbers.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct User {
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    /// Groups beside `gid`.
    pub(crate) groups: Vec<u32>,
    pub(crate) home: String,
}

/// An open root file system of a container.
pub(crate) struct Root(OwnedFd);

impl Root {
    pub(crate) fn open(path: &Path) -> Result<Self> {
        let file =
            File::open(path).trying(|| format!("open the root file system {}", path.display()))?;
        Ok(Self(file.into()))
    }

    fn open_inside(&self, path: &Path, flags: OFlag) -> nix::Result<OwnedFd> {
        let how = OpenHow::new()
            .flags(flags | OFlag::O_CLOEXEC)
            .resolve(ResolveFlag::RESOLVE_IN_ROOT | ResolveFlag::RESOLVE_NO_MAGICLINKS);
        openat2(self.0.as_fd(), path, how)
    }

    /// The text of a regular file; empty when there is none.
    fn read(&self, path: &str) -> Result<String> {
        let what = || format!("read {path} in the container's root");
        // Never wait: it could be a FIFO.
        let file = match self.open_inside(Path::new(path), OFlag::O_RDONLY | OFlag::O_NONBLOCK) {
            Ok(fd) => File::from(fd),
            Err(Errno::ENOENT | Errno::ENOTDIR | Errno::ELOOP) => return Ok(String::new()),
            Err(error) => return Err(error).trying(what),
        };
        if !file.metadata().trying(what)?.is_file() {
            return Ok(String::new());
        }
        let mut bytes = Vec::new();
        file.take(MAX_FILE_BYTES)
            .read_to_end(&mut bytes)
            .trying(what)?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    /// Makes the directory `path` with those above it, where they do not exist, as this process's user.
    pub(crate) fn make_dirs(&self, path: &Path) -> Result<()> {
        let fatal = |error: Errno| {
            Error::Fatal(format!(
                "the directory {} cannot be made in the container: {}",
                path.display(),
                error.desc()
            ))
        };
        let directory = OFlag::O_PATH | OFlag::O_DIRECTORY;
        let mut done = PathBuf::from("/");
        for part in path.components() {
            match part {
                Component::Normal(name) => {
                    let above = self.open_inside(&done, directory).map_err(fatal)?;
                    done.push(name);
                    match self.open_inside(&done, directory) {
                        Ok(_) => {}
                        Err(Errno::ENOENT) => {
                            mkdirat(&above, name, Mode::from_bits_truncate(0o755))
                                .map_err(fatal)?;
                        }
                        Err(error) => return Err(fatal(error)),
                    }
                }
                Component::RootDir | Component::CurDir => {}
                Component::ParentDir | Component::Prefix(_) => return Err(fatal(Errno::EINVAL)),
            }
        }
        Ok(())
    }

    /// Where a path leads inside the root, every link in it followed, whether or not something is there.
    pub(crate) fn lead(&self, path: &Path) -> nix::Result<PathBuf> {
        let parts = |path: &Path| {
            let parts = path.components().filter_map(|part| match part {
                Component::Normal(name) => Some(name.to_owned()),
                Component::ParentDir => Some("..".into()),
                Component::RootDir | Component::CurDir | Component::Prefix(_) => None,
            });
            parts.collect::<Vec<_>>()
        };
        let mut todo = parts(path);
        todo.reverse();
        let (mut real, mut links) = (PathBuf::from("/"), 0);
        while let Some(part) = todo.pop() {
            if part == ".." {
                // What came before has no links left in it.
                real.pop();
                continue;
            }
            let here = real.join(&part);
            match self.open_inside(&here, OFlag::O_PATH | OFlag::O_NOFOLLOW) {
                Ok(found) if is_link(&found)? => {
                    links += 1;
                    if links > MAX_LINKS {
                        return Err(Errno::ELOOP);
                    }
                    let link = PathBuf::from(readlinkat(&found, c"")?);
                    if link.is_absolute() {
                        real = PathBuf::from("/");
                    }
                    todo.extend(parts(&link).into_iter().rev());
                }
                Ok(_) | Err(Errno::ENOENT) => real = here,
                Err(error) => return Err(error),
            }
        }
        Ok(real)
    }

    /// The folder or file at `target`, to mount on; it is made where that leads if nothing is there, as this process's
    /// user.
    pub(crate) fn mount_point(&self, target: &Path, is_dir: bool) -> Result<OwnedFd> {
        let fatal = |error: Errno| {
            Error::Fatal(format!(
                "nothing can be mounted at {} in the container: {}",
                target.display(),
                error.desc()
            ))
        };
        match self.open_inside(target, OFlag::O_PATH) {
            Err(Errno::ENOENT) => {}
            other => return other.map_err(fatal),
        }
        let real = self.lead(target).map_err(fatal)?;
        let (Some(above), Some(name)) = (real.parent(), real.file_name()) else {
            return Err(fatal(Errno::EINVAL));
        };
        if is_dir {
            self.make_dirs(&real)?;
        } else {
            self.make_dirs(above)?;
            let above = self
                .open_inside(above, OFlag::O_PATH | OFlag::O_DIRECTORY)
                .map_err(fatal)?;
            let flags = OFlag::O_CREAT
                | OFlag::O_EXCL
                | OFlag::O_WRONLY
                | OFlag::O_CLOEXEC
                | OFlag::O_NOFOLLOW;
            openat(&above, name, flags, Mode::from_bits_truncate(0o644)).map_err(fatal)?;
        }
        self.open_inside(target, OFlag::O_PATH).map_err(fatal)
    }

    /// What is at `path`, if anything is.
    pub(crate) fn find(&self, path: &Path) -> nix::Result<OwnedFd> {
        self.open_inside(path, OFlag::O_PATH)
    }

    /// The numbers of groups, each a name or a number.
    pub(crate) fn groups(&self, wanted: &[String]) -> Result<Vec<u32>> {
        if wanted.is_empty() {
            return Ok(Vec::new());
        }
        let text = self.read("/etc/group")?;
        let found = wanted.iter().map(|name| {
            let entry = text
                .lines()
                .map(|line| line.split(':').collect::<Vec<_>>())
                .find(|fields| fields.len() >= 3 && fields[0] == name);
            entry.and_then(|fields| number(fields[2])).or_else(|| number(name)).ok_or_else(|| {
                Error::Fatal(format!("there is no group {name:?} in the container's /etc/group: name one of the image, or a number"))
            })
        });
        found.collect()
    }

    /// Looks up `text`: empty, `user`, or `user:group`, each a name or a number.
    pub(crate) fn user(&self, text: &str) -> Result<User> {
        let passwd = self.read("/etc/passwd")?;
        let group = self.read("/etc/group")?;
        lookup(text, &passwd, &group).map_err(Error::Fatal)
    }
}

fn is_link(fd: &OwnedFd) -> nix::Result<bool> {
    let kind = fstat(fd)?.st_mode & SFlag::S_IFMT.bits();
    Ok(kind == SFlag::S_IFLNK.bits())
}

/// The rules of Docker's USER: a name must exist; a number need not, and then has group 0. Without a group,
/// the user's own, and all groups that list the name.
fn lookup(text: &str, passwd: &str, group: &str) -> std::result::Result<User, String> {
    let (user, wanted_group) = match text.split_once(':') {
        Some((user, group)) => (user, Some(group).filter(|g| !g.is_empty())),
        None => (text, None),
    };
    let user = if user.is_empty() { "0" } else { user };
    // name:password:uid:gid:comment:home:shell (passwd(5))
    let entry = passwd
        .lines()
        .map(|l| l.split(':').collect::<Vec<_>>())
        .find(|fields| {
            fields.len() >= 6
                && (fields[0] == user || number(user).is_some_and(|n| number(fields[2]) == Some(n)))
        });
    let mut found = User {
        home: "/".to_owned(),
        ..User::default()
    };
    match (&entry, number(user)) {
        (Some(fields), _) => {
            let (Some(uid), Some(gid)) = (number(fields[2]), number(fields[3])) else {
                return Err(format!(
                    "the entry of user {user:?} in the container's /etc/passwd has no numbers"
                ));
            };
            (found.uid, found.gid) = (uid, gid);
            if fields[5].starts_with('/') {
                fields[5].clone_into(&mut found.home);
            }
        }
        (None, Some(uid)) => {
            found.uid = uid;
            if uid == 0 {
                "/root".clone_into(&mut found.home);
            }
        }
        (None, None) => {
            return Err(format!(
                "there is no user {user:?} in the container's /etc/passwd: name one of the image"
            ));
        }
    }
    // name:password:gid:members (group(5))
    let groups = || {
        group
            .lines()
            .map(|l| l.split(':').collect::<Vec<_>>())
            .filter(|f| f.len() >= 3)
    };
    match wanted_group {
        Some(wanted) => {
            let named = groups().find(|f| f[0] == wanted).and_then(|f| number(f[2]));
            found.gid = named.or_else(|| number(wanted)).ok_or_else(|| {
                format!("there is no group {wanted:?} in the container's /etc/group: name one of the image")
            })?;
        }
        None => {
            let name = entry.map_or("", |fields| fields[0]);
            found.groups = groups()
                .filter(|f| {
                    !name.is_empty() && f.get(3).is_some_and(|m| m.split(',').any(|m| m == name))
                })
                .filter_map(|f| number(f[2]))
                .take(1024)
                .collect();
        }
    }
    Ok(found)
}

fn number(text: &str) -> Option<u32> {
    // The highest one means "none" to the kernel.
    text.parse().ok().filter(|n| *n != u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str =
        "root:x:0:0:root:/root:/bin/sh\nweb:x:100:101:,,,:/srv/web:/bin/false\nbroken\n";
    const GROUP: &str = "root:x:0:\nweb:x:101:\nlogs:x:200:adm,web\n";

    fn user(text: &str) -> User {
        lookup(text, PASSWD, GROUP).expect(text)
    }

    #[test]
    fn users_are_found_by_name_and_by_number() {
        let web = User {
            uid: 100,
            gid: 101,
            groups: vec![200],
            home: "/srv/web".into(),
        };
        assert_eq!(user("web"), web);
        assert_eq!(user("100"), web);
        assert_eq!(
            user("web:logs"),
            User {
                gid: 200,
                groups: vec![],
                ..web.clone()
            }
        );
        assert_eq!(
            user("web:7"),
            User {
                gid: 7,
                groups: vec![],
                ..web
            }
        );
        assert_eq!(
            user(""),
            User {
                home: "/root".into(),
                ..User::default()
            }
        );
        assert_eq!(
            user("4711:4712"),
            User {
                uid: 4711,
                gid: 4712,
                groups: vec![],
                home: "/".into()
            }
        );
    }

    #[test]
    fn an_unknown_name_is_an_error_that_names_it() {
        assert!(
            lookup("nobody", PASSWD, GROUP)
                .expect_err("unknown")
                .contains("\"nobody\"")
        );
        assert!(
            lookup("web:wheel", PASSWD, GROUP)
                .expect_err("unknown")
                .contains("\"wheel\"")
        );
        assert!(lookup("4294967295", PASSWD, GROUP).is_err());
    }
}
