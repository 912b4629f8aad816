//! Whom a container runs as: looked up in its own root file system, never on the host.
//!
//! The root is somebody else's data: every path is resolved inside it (openat2(2), RESOLVE_IN_ROOT), so
//! that no link in it leads out.

use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Component, Path};

use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, OpenHow, ResolveFlag, openat2};
use nix::sys::stat::{Mode, mkdirat};
use nix::unistd::{Gid, Uid, fchownat};

use crate::error::{Error, Result, Trying};

/// The longest `/etc/passwd` or `/etc/group` that is read.
const MAX_FILE_BYTES: u64 = 1024 * 1024;

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

    /// Makes the directory `path` with those above it, where they do not exist, for `owner` and its group.
    pub(crate) fn make_dirs(&self, path: &str, owner: u32) -> Result<()> {
        let fatal = |error: Errno| {
            Error::Fatal(format!(
                "the working directory {path} cannot be made in the container: {}",
                error.desc()
            ))
        };
        let directory = OFlag::O_PATH | OFlag::O_DIRECTORY;
        let mut done = std::path::PathBuf::from("/");
        for part in Path::new(path).components() {
            match part {
                Component::Normal(name) => {
                    let above = self.open_inside(&done, directory).map_err(fatal)?;
                    done.push(name);
                    match self.open_inside(&done, directory) {
                        Ok(_) => {}
                        Err(Errno::ENOENT) => {
                            mkdirat(&above, name, Mode::from_bits_truncate(0o755))
                                .map_err(fatal)?;
                            let (uid, gid) = (Uid::from_raw(owner), Gid::from_raw(owner));
                            fchownat(
                                &above,
                                name,
                                Some(uid),
                                Some(gid),
                                AtFlags::AT_SYMLINK_NOFOLLOW,
                            )
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

    /// Looks up `text`: empty, `user`, or `user:group`, each a name or a number.
    pub(crate) fn user(&self, text: &str) -> Result<User> {
        let passwd = self.read("/etc/passwd")?;
        let group = self.read("/etc/group")?;
        lookup(text, &passwd, &group).map_err(Error::Fatal)
    }
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
