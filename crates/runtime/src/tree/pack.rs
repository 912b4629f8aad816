//! A file or folder as a tar.

use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, Stat};
use rustix::io::Errno;
use tar::{Builder, EntryType, Header};

use super::{Lost, MAX_DEPTH, SET_ID, Source};

/// File systems of which only the mount point is taken: their files are windows to the kernel (`linux/magic.h`).
const WINDOWS: [u32; 7] = [
    0x9fa0,      // proc
    0x6265_6572, // sysfs
    0x0027_e0eb, // cgroup
    0x6367_7270, // cgroup2
    0x1cd1,      // devpts
    0x1980_0202, // mqueue
    0x6462_6720, // debugfs
];

/// The most that is read of a file that does not say how long it is.
const MAX_UNSIZED_BYTES: u64 = 16 << 20;

/// Writes `source` with all below it as a tar in which it is called `name`. Sockets are left out, and device nodes are there
/// for whoever unpacks it to say so. Tells what is lost; the tar has the bits of `set_id`, which whoever unpacks it without owners drops.
///
/// # Errors
/// When something cannot be read, or `out` not written; when `source` itself is a socket or a device node.
pub fn pack(source: &Source, name: &Path, out: &mut impl Write) -> io::Result<Lost> {
    let mut packer = Packer {
        tar: Builder::new(out),
        links: HashMap::new(),
        lost: Lost::default(),
    };
    packer.tar.sparse(false);
    packer.entry(source.dir.as_fd(), &source.name, name, None, 0)?;
    packer.tar.finish()?;
    Ok(packer.lost)
}

struct Packer<W: Write> {
    tar: Builder<W>,
    /// Files with several names, by device and number: the first name of each.
    links: HashMap<(u64, u64), PathBuf>,
    lost: Lost,
}

impl<W: Write> Packer<W> {
    fn entry(
        &mut self,
        dir: BorrowedFd<'_>,
        name: &OsStr,
        shown: &Path,
        device: Option<u64>,
        depth: usize,
    ) -> io::Result<()> {
        let stat = match rustix::fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW) {
            // Gone since its folder was read.
            Err(Errno::NOENT) if depth > 0 => return Ok(()),
            other => other.map_err(at(shown))?,
        };
        let mut header = header(&stat);
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory => {
                header.set_entry_type(EntryType::Directory);
                self.tar.append_data(&mut header, shown, io::empty())?;
                self.below(dir, name, shown, &stat, device, depth)
            }
            FileType::RegularFile => self.file(dir, name, shown, &stat, header, depth == 0),
            FileType::Symlink => {
                let target = rustix::fs::readlinkat(dir, name, Vec::new()).map_err(at(shown))?;
                header.set_entry_type(EntryType::Symlink);
                self.link(&mut header, shown, target.as_bytes())
            }
            FileType::Fifo => {
                header.set_entry_type(EntryType::Fifo);
                self.tar.append_data(&mut header, shown, io::empty())
            }
            FileType::Socket
            | FileType::CharacterDevice
            | FileType::BlockDevice
            | FileType::Unknown
                if depth == 0 =>
            {
                let text = format!("{} is a device or a socket", shown.display());
                Err(io::Error::new(io::ErrorKind::InvalidInput, text))
            }
            kind @ (FileType::CharacterDevice | FileType::BlockDevice) => {
                self.lost.left_out.add(shown);
                header.set_entry_type(match kind {
                    FileType::BlockDevice => EntryType::Block,
                    _ => EntryType::Char,
                });
                header.set_device_major(rustix::fs::major(stat.st_rdev))?;
                header.set_device_minor(rustix::fs::minor(stat.st_rdev))?;
                self.tar.append_data(&mut header, shown, io::empty())
            }
            FileType::Socket | FileType::Unknown => {
                self.lost.left_out.add(shown);
                Ok(())
            }
        }
    }

    fn below(
        &mut self,
        dir: BorrowedFd<'_>,
        name: &OsStr,
        shown: &Path,
        stat: &Stat,
        device: Option<u64>,
        depth: usize,
    ) -> io::Result<()> {
        if depth >= MAX_DEPTH {
            let text = format!(
                "{} lies more than {MAX_DEPTH} folders deep",
                shown.display()
            );
            return Err(io::Error::other(text));
        }
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let opened = rustix::fs::openat(dir, name, flags, Mode::empty()).map_err(at(shown))?;
        if device != Some(stat.st_dev) && is_window(opened.as_fd()) {
            return Ok(());
        }
        for name in names(&opened).map_err(at(shown))? {
            let shown = match shown.as_os_str() == "." {
                true => PathBuf::from(&name),
                false => shown.join(&name),
            };
            self.entry(opened.as_fd(), &name, &shown, Some(stat.st_dev), depth + 1)?;
        }
        Ok(())
    }

    fn file(
        &mut self,
        dir: BorrowedFd<'_>,
        name: &OsStr,
        shown: &Path,
        stat: &Stat,
        mut header: Header,
        alone: bool,
    ) -> io::Result<()> {
        if stat.st_nlink > 1 {
            let key = (stat.st_dev, stat.st_ino);
            if let Some(first) = self.links.get(&key).cloned() {
                header.set_entry_type(EntryType::Link);
                return self.link(&mut header, shown, first.as_os_str().as_bytes());
            }
            self.links.insert(key, shown.to_owned());
        }
        // Another may stand there by now: one that reading would wait for.
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file = rustix::fs::openat(dir, name, flags, Mode::empty()).map_err(at(shown))?;
        let now = rustix::fs::fstat(&file).map_err(at(shown))?;
        if FileType::from_raw_mode(now.st_mode) != FileType::RegularFile {
            return Ok(());
        }
        if now.st_mode & SET_ID != 0 {
            self.lost.set_id.add(shown);
        }
        let size = u64::try_from(now.st_size).unwrap_or(0);
        if size == 0 || alone && is_window(file.as_fd()) {
            let content = unsized_content(file).map_err(of(shown))?;
            header.set_size(content.len() as u64);
            return self.tar.append_data(&mut header, shown, &content[..]);
        }
        header.set_size(size);
        // One that shrinks meanwhile is filled up, and one that grows is cut: the header is written already.
        let content = File::from(file).take(size).chain(io::repeat(0)).take(size);
        self.tar.append_data(&mut header, shown, content)
    }

    fn link(&mut self, header: &mut Header, shown: &Path, target: &[u8]) -> io::Result<()> {
        // As it is: the other way would make "a//b" and "./a" something else.
        if header.set_link_name_literal(target).is_ok() {
            return self.tar.append_data(header, shown, io::empty());
        }
        self.tar
            .append_link(header, shown, OsStr::from_bytes(target))
    }
}

fn header(stat: &Stat) -> Header {
    let mut header = Header::new_gnu();
    header.set_mode(stat.st_mode & 0o7777);
    header.set_uid(stat.st_uid.into());
    header.set_gid(stat.st_gid.into());
    header.set_mtime(u64::try_from(stat.st_mtime).unwrap_or(0));
    header.set_size(0);
    header
}

fn names(dir: &OwnedFd) -> rustix::io::Result<Vec<OsString>> {
    let mut names = Vec::new();
    for entry in Dir::read_from(dir)? {
        let name = entry?.file_name().to_bytes().to_vec();
        if name != b"." && name != b".." {
            names.push(OsString::from_vec(name));
        }
    }
    // The same tree makes the same tar.
    names.sort_unstable();
    Ok(names)
}

/// All of a file of which the kernel does not say how long it is: it makes the content when it is read (proc(5)).
fn unsized_content(file: OwnedFd) -> io::Result<Vec<u8>> {
    let mut content = Vec::new();
    let mut limited = File::from(file).take(MAX_UNSIZED_BYTES + 1);
    limited.read_to_end(&mut content)?;
    if content.len() as u64 > MAX_UNSIZED_BYTES {
        let text = format!(
            "it does not say how long it is, and is longer than {} MiB",
            MAX_UNSIZED_BYTES >> 20
        );
        return Err(io::Error::other(text));
    }
    Ok(content)
}

fn is_window(file: BorrowedFd<'_>) -> bool {
    let found = rustix::fs::fstatfs(file);
    found.is_ok_and(|found| u32::try_from(found.f_type).is_ok_and(|magic| WINDOWS.contains(&magic)))
}

/// Says which file it was.
fn of(shown: &Path) -> impl Fn(io::Error) -> io::Error {
    move |error| io::Error::new(error.kind(), format!("{}: {error}", shown.display()))
}

/// Says which file it was.
fn at(shown: &Path) -> impl Fn(Errno) -> io::Error {
    move |errno| {
        let error = io::Error::from(errno);
        io::Error::new(error.kind(), format!("{}: {error}", shown.display()))
    }
}
