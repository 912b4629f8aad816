//! File trees as tars: read from a folder, and put into one.
//!
//! Both sides may belong to somebody hostile, who changes them meanwhile: below the folder that was opened no link is
//! ever followed, and nothing is made outside of it. Used within a container, and by whoever unpacks what came out of
//! one.

mod pack;
mod remove;
mod unpack;

use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::path::{Component, Path, PathBuf};

pub use pack::pack;
pub use unpack::{Unpack, unpack};

/// How deep folders may lie in each other.
const MAX_DEPTH: usize = 256;

/// What a copy does not carry over.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Lost {
    /// Devices and sockets, which are left out.
    pub left_out: Several,
    /// Files that ran as their owner or group (set-user-ID, set-group-ID), and do so no more without their owners.
    pub set_id: Several,
}

/// Some paths: the first, and how many there are.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Several {
    /// The first; `None` if there are none.
    pub first: Option<PathBuf>,
    /// How many there are.
    pub count: u64,
}

impl Several {
    fn add(&mut self, path: &Path) {
        self.first.get_or_insert_with(|| path.to_owned());
        self.count += 1;
    }
}

/// Set-user-ID and set-group-ID.
const SET_ID: u32 = 0o6000;

/// A file or folder to pack: the folder that it is in, and its name there.
#[derive(Debug)]
pub struct Source {
    dir: OwnedFd,
    name: OsString,
}

impl Source {
    /// Finds the file or folder at `path`. If the last part of the path is a link, the link itself is meant unless
    /// `follow_link`, or the path ends with `/` or `/.`.
    ///
    /// # Errors
    /// When there is none, or it may not be looked at.
    pub fn open(path: &Path, follow_link: bool) -> io::Result<Self> {
        let through = follow_link || ends_open(path);
        let (dir, name) = if through {
            let real = std::fs::canonicalize(path)?;
            if real.is_dir() {
                (real, OsString::from("."))
            } else {
                split(&real)
            }
        } else {
            split(path)
        };
        let dir = OwnedFd::from(File::open(&dir)?);
        rustix::fs::statat(&dir, &*name, rustix::fs::AtFlags::SYMLINK_NOFOLLOW)?;
        Ok(Self { dir, name })
    }
}

impl AsRawFd for Source {
    fn as_raw_fd(&self) -> RawFd {
        self.dir.as_raw_fd()
    }
}

/// A folder to unpack into.
#[derive(Debug)]
pub struct Target {
    dir: OwnedFd,
}

impl Target {
    /// Opens the folder at `path`; links to it are followed.
    ///
    /// # Errors
    /// When there is none.
    pub fn open(path: &Path) -> io::Result<Self> {
        use rustix::fs::{Mode, OFlags};
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let dir = rustix::fs::open(path, flags, Mode::empty())?;
        Ok(Self { dir })
    }
}

impl AsRawFd for Target {
    fn as_raw_fd(&self) -> RawFd {
        self.dir.as_raw_fd()
    }
}

/// The name that the entries of a tar of `path` begin with: its last one, or `.` where that is `/`, `.` or `..`.
pub fn last_name(path: &str) -> PathBuf {
    let bare = path.trim_end_matches('/');
    let last = bare.rsplit('/').next().unwrap_or_default();
    match last {
        "" | "." | ".." => PathBuf::from("."),
        name => PathBuf::from(name),
    }
}

/// Whether a path says by its end that a folder is meant.
fn ends_open(path: &Path) -> bool {
    let bytes = path.as_os_str().as_encoded_bytes();
    let last = path.components().next_back();
    let named = matches!(last, Some(Component::Normal(_)));
    !named || bytes.ends_with(b"/") || bytes.ends_with(b"/.")
}

fn split(path: &Path) -> (PathBuf, OsString) {
    match (path.parent(), path.file_name()) {
        (Some(dir), Some(name)) if !dir.as_os_str().is_empty() => (dir.to_owned(), name.to_owned()),
        (_, Some(name)) => (PathBuf::from("."), name.to_owned()),
        (_, None) => (path.to_owned(), OsString::from(".")),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

    use super::*;

    fn packed(path: &Path, follow: bool) -> Vec<u8> {
        let mut tar = Vec::new();
        let source = Source::open(path, follow).expect("a source");
        let name = last_name(path.to_str().expect("UTF-8"));
        pack(&source, &name, &mut tar).expect("packed");
        tar
    }

    fn unpacked(tar: &[u8], dir: &Path, rename: Option<&str>) -> io::Result<Lost> {
        let options = Unpack {
            keep_owners: false,
            whiteouts: false,
            rename: rename.map(PathBuf::from),
        };
        unpack(&Target::open(dir).expect("a folder"), tar, &options)
    }

    fn a_tree() -> tempfile::TempDir {
        let dir = tempfile::tempdir().expect("a folder");
        let root = dir.path().join("tree");
        fs::create_dir_all(root.join("deep/er")).expect("folders");
        fs::write(root.join("deep/er/file"), "text").expect("a file");
        fs::set_permissions(root.join("deep/er/file"), fs::Permissions::from_mode(0o751))
            .expect("a mode");
        fs::hard_link(root.join("deep/er/file"), root.join("same")).expect("a hard link");
        symlink("deep/er/file", root.join("link")).expect("a link");
        symlink("/etc", root.join("etc")).expect("a link");
        fs::set_permissions(root.join("deep/er"), fs::Permissions::from_mode(0o555))
            .expect("a mode");
        dir
    }

    #[test]
    fn a_file_of_the_kernels_is_copied_with_what_it_says_when_it_is_read() {
        let to = tempfile::tempdir().expect("a folder");
        // Neither 0 bytes long, as the one says, nor 4,096, as the other does.
        for file in [
            "/proc/self/mountinfo",
            "/sys/kernel/mm/transparent_hugepage/enabled",
        ] {
            let Ok(said) = fs::read(file) else { continue };
            unpacked(&packed(Path::new(file), false), to.path(), Some("copy")).expect("unpacked");
            let copied = fs::read(to.path().join("copy")).expect("the copy");
            assert!(copied == said && !said.is_empty(), "{file}");
        }
    }

    #[test]
    fn what_a_copy_loses_is_told() {
        let from = tempfile::tempdir().expect("a folder");
        let root = from.path().join("tree");
        fs::create_dir(&root).expect("a folder");
        fs::write(root.join("su"), "").expect("a file");
        fs::set_permissions(root.join("su"), fs::Permissions::from_mode(0o4755)).expect("a mode");
        let _socket = std::os::unix::net::UnixListener::bind(root.join("s")).expect("a socket");
        let source = Source::open(&root, false).expect("a source");
        let mut tar = Vec::new();
        let lost = pack(&source, Path::new("tree"), &mut tar).expect("packed");
        let only = |name: &str| Several {
            first: Some(Path::new("tree").join(name)),
            count: 1,
        };
        assert_eq!((lost.left_out, lost.set_id), (only("s"), only("su")));
        let to = tempfile::tempdir().expect("a folder");
        let lost = unpacked(&tar, to.path(), None).expect("unpacked");
        assert_eq!((lost.left_out.count, lost.set_id), (0, only("su")));
        let alone = Source::open(&root.join("s"), false).expect("a source");
        let error = pack(&alone, Path::new("s"), &mut Vec::new()).expect_err("a socket");
        assert_eq!(error.to_string(), "s is a device or a socket");
    }

    #[test]
    fn a_tree_comes_back_as_it_was() {
        let from = a_tree();
        let to = tempfile::tempdir().expect("a folder");
        let tar = packed(&from.path().join("tree"), false);
        unpacked(&tar, to.path(), None).expect("unpacked");
        unpacked(&tar, to.path(), None).expect("unpacked over itself");
        unpacked(&tar, to.path(), Some("other")).expect("unpacked under another name");
        for name in ["tree", "other"] {
            let root = to.path().join(name);
            assert_eq!(fs::read(root.join("deep/er/file")).expect("read"), b"text");
            let file = fs::metadata(root.join("deep/er/file")).expect("there");
            assert_eq!((file.mode() & 0o7777, file.nlink()), (0o751, 2));
            assert_eq!(
                file.ino(),
                fs::metadata(root.join("same")).expect("there").ino()
            );
            let dir = fs::metadata(root.join("deep/er")).expect("there");
            assert_eq!(dir.mode() & 0o7777, 0o555);
            let link = fs::read_link(root.join("etc")).expect("a link");
            assert_eq!(link, Path::new("/etc"));
        }
    }

    #[test]
    fn the_end_of_a_path_says_what_is_meant() {
        let from = a_tree();
        let root = from.path().join("tree");
        let names = |tar: Vec<u8>| {
            let mut archive = tar::Archive::new(&*tar);
            let entries = archive.entries().expect("entries");
            let names = entries.map(|e| e.expect("whole").path().expect("a path").into_owned());
            names.collect::<Vec<_>>()
        };
        assert_eq!(
            names(packed(&root.join("link"), false)),
            [Path::new("link")]
        );
        let followed = packed(&root.join("link"), true);
        let mut archive = tar::Archive::new(&*followed);
        let mut entries = archive.entries().expect("entries");
        let entry = entries.next().expect("one").expect("whole");
        assert_eq!(entry.path().expect("a path"), Path::new("link"));
        assert_eq!(entry.size(), 4);
        let content = names(packed(&root.join("deep/."), false));
        assert!(content.contains(&PathBuf::from("er/file")), "{content:?}");
        assert!(Source::open(&root.join("none"), false).is_err());
    }

    #[test]
    fn a_whiteout_takes_away_what_is_there_and_never_what_a_link_leads_to() {
        let (from, to) = (a_tree(), tempfile::tempdir().expect("a folder"));
        let outside = tempfile::tempdir().expect("a folder");
        fs::write(outside.path().join("kept"), "").expect("a file");
        unpacked(&packed(&from.path().join("tree"), false), to.path(), None).expect("unpacked");
        let root = to.path().join("tree");
        symlink(outside.path(), root.join("deep/out")).expect("a link");
        symlink(outside.path(), root.join("way")).expect("a link");
        let away = [
            "tree/.wh.deep",
            "tree/.wh.none",
            "none/.wh.x",
            "tree/way/.wh.kept",
        ];
        told(&away, to.path()).expect("taken away");
        assert!(!root.join("deep").exists() && root.join("same").exists());
        assert!(outside.path().join("kept").exists());
        for bad in ["tree/.wh.", "tree/.wh..", "tree/.wh..."] {
            assert!(told(&[bad], to.path()).is_err(), "{bad}");
        }
        // Without the option it is a file like any other.
        let tar = packed(&root.join("same"), false);
        unpacked(&tar, &root, Some(".wh.same")).expect("unpacked");
        assert!(root.join(".wh.same").exists() && root.join("same").exists());
    }

    /// A tar of empty files (`name`), folders (`name/`) and links that lead nowhere (`name@`), unpacked with whiteouts.
    fn told(names: &[&str], dir: &Path) -> io::Result<Lost> {
        let mut tar = tar::Builder::new(Vec::new());
        for name in names {
            let mut header = tar::Header::new_gnu();
            header.set_size(0);
            header.set_mode(0o755);
            if let Some(link) = name.strip_suffix('@') {
                header.set_entry_type(tar::EntryType::Symlink);
                tar.append_link(&mut header, link, "/nowhere")?;
                continue;
            }
            header.set_entry_type(match name.ends_with('/') {
                true => tar::EntryType::Directory,
                false => tar::EntryType::Regular,
            });
            tar.append_data(&mut header, name, io::empty())?;
        }
        let tar = tar.into_inner()?;
        let options = Unpack {
            whiteouts: true,
            ..Unpack::default()
        };
        unpack(&Target::open(dir)?, &*tar, &options)
    }

    #[test]
    fn what_takes_the_place_of_a_folder_or_a_file_does_so_where_the_tar_says_how_it_is_to_be() {
        let to = tempfile::tempdir().expect("a folder");
        let kind = |name: &str| {
            let found = fs::symlink_metadata(to.path().join(name)).expect("there");
            (found.is_dir(), found.is_file(), found.is_symlink())
        };
        told(&["conf/", "conf/a", "b", "c/", "c/d", "e@"], to.path()).expect("unpacked");
        told(&["conf", "b/", "b/x", "c@", "e/", "e/f", "z"], to.path()).expect("unpacked");
        assert_eq!(kind("conf"), (false, true, false));
        assert_eq!((kind("b").0, kind("b/x").1), (true, true));
        assert_eq!(kind("c"), (false, false, true));
        assert_eq!((kind("e").0, kind("e/f").1), (true, true));
        told(&["conf/", ".wh.b", "c", "e@"], to.path()).expect("unpacked");
        assert!(kind("conf").0 && kind("c").1 && kind("e").2);
        // Without the option nothing of another kind gives way.
        let dir = packed(&to.path().join("conf"), false);
        assert!(unpacked(&dir, to.path(), Some("c")).is_err());
        let file = packed(&to.path().join("c"), false);
        assert!(unpacked(&file, to.path(), Some("conf")).is_err());
    }

    #[test]
    fn what_is_mounted_outlives_a_whiteout_of_what_it_lies_in() {
        use nix::mount::{MsFlags, mount};
        use nix::sched::{CloneFlags, unshare};
        if !nix::unistd::Uid::effective().is_root() {
            println!("SKIPPED: mounts need root");
            return;
        }
        let to = tempfile::tempdir().expect("a folder");
        let at = |name: &str| to.path().join(name);
        std::thread::scope(|scope| {
            // The mounts go with this thread's mount namespace.
            let mounted = scope.spawn(|| {
                unshare(CloneFlags::CLONE_FS | CloneFlags::CLONE_NEWNS).expect("a namespace");
                let on = |source: Option<&Path>, target: &Path, kind: Option<&str>, flags| {
                    mount(source, target, kind, flags, None::<&str>).expect("mounted");
                };
                on(
                    None,
                    Path::new("/"),
                    None,
                    MsFlags::MS_REC | MsFlags::MS_PRIVATE,
                );
                fs::create_dir_all(at("tree/deep/volume")).expect("folders");
                on(
                    None,
                    &at("tree/deep/volume"),
                    Some("tmpfs"),
                    MsFlags::empty(),
                );
                // A folder of the same file system is no less mounted, nor is a file.
                fs::create_dir_all(at("tree/deep/bound")).expect("folders");
                fs::create_dir(at("data")).expect("a folder");
                on(
                    Some(&at("data")),
                    &at("tree/deep/bound"),
                    None,
                    MsFlags::MS_BIND,
                );
                for name in [
                    "text",
                    "tree/deep/text",
                    "tree/deep/gone",
                    "tree/deep/bound/kept",
                ] {
                    fs::write(at(name), name).expect("a file");
                }
                on(
                    Some(&at("text")),
                    &at("tree/deep/text"),
                    None,
                    MsFlags::MS_BIND,
                );
                fs::create_dir(at("tree/deep/volume/in")).expect("a folder");
                fs::write(at("tree/deep/volume/in/kept"), "").expect("a file");

                told(&["tree/.wh.deep"], to.path()).expect("unpacked");
                told(&["tree/deep/.wh.volume"], to.path()).expect("unpacked");
                told(&["tree/deep/.wh.bound"], to.path()).expect("unpacked");
                assert!(!at("tree/deep/gone").exists());
                assert!(at("tree/deep/volume/in/kept").exists() && at("data/kept").exists());
                assert_eq!(fs::read(at("tree/deep/text")).expect("read"), b"text");
                // A file in its place is refused, and what is in a volume is named by its own way.
                let refused = told(&["tree/deep"], to.path()).expect_err("mounted in it");
                assert!(refused.to_string().contains("mounted"), "{refused}");
                assert!(at("tree/deep/volume/in/kept").exists() && at("data/kept").exists());
                told(&["tree/deep/volume/in/.wh.kept"], to.path()).expect("unpacked");
                assert!(!at("tree/deep/volume/in/kept").exists());
            });
            mounted.join().expect("no panic");
        });
    }

    #[test]
    fn a_tar_never_leaves_its_folder() {
        let outside = tempfile::tempdir().expect("a folder");
        let to = tempfile::tempdir().expect("a folder");
        let out = outside.path();
        let entry = |tar: &mut tar::Builder<Vec<u8>>, name: &str, link: Option<&Path>| {
            let mut header = tar::Header::new_gnu();
            header.set_mode(0o644);
            header.set_size(0);
            let raw = &mut header.as_gnu_mut().expect("gnu").name;
            raw[..name.len()].copy_from_slice(name.as_bytes());
            match link {
                Some(to) => {
                    header.set_entry_type(tar::EntryType::Symlink);
                    header.set_link_name(to).expect("a link");
                }
                None => header.set_entry_type(tar::EntryType::Regular),
            }
            header.set_cksum();
            tar.append(&header, io::empty()).expect("added");
        };
        let tar = |build: &dyn Fn(&mut tar::Builder<Vec<u8>>)| {
            let mut tar = tar::Builder::new(Vec::new());
            build(&mut tar);
            tar.into_inner().expect("whole")
        };
        let up = tar(&|tar| entry(tar, "../escaped", None));
        assert!(unpacked(&up, to.path(), None).is_err());
        let through = tar(&|tar| {
            entry(tar, "way", Some(out));
            entry(tar, "way/escaped", None);
        });
        assert!(unpacked(&through, to.path(), None).is_err());
        // A link that lies there already leads nowhere either; one in the place of a file gives way to it.
        symlink(out, to.path().join("old")).expect("a link");
        let old = tar(&|tar| entry(tar, "old/escaped", None));
        assert!(unpacked(&old, to.path(), None).is_err());
        symlink(out.join("escaped"), to.path().join("file")).expect("a link");
        let file = tar(&|tar| entry(tar, "file", None));
        unpacked(&file, to.path(), None).expect("unpacked");
        assert!(
            fs::symlink_metadata(to.path().join("file"))
                .expect("there")
                .is_file()
        );
        assert_eq!(fs::read_dir(out).expect("read").count(), 0);
    }
}
