//! Copying what has changed into a replica: one tar for each rule, in which what is gone is a whiteout.

use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::fs::{File, Metadata};
use std::io::{self, BufWriter, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use layby_control::api::types::FileView;
use rustix::fs::{CWD, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;
use tar::{Builder, EntryType, Header};
use tokio_util::io::SyncIoBridge;

use crate::client::{Client, Query};
use crate::exit::{Code, Exit};

/// How much is moved at once.
const PIECE_BYTES: usize = 64 * 1024;

/// A file below the folder that is watched, and where it is to be in the containers, without a leading `/`.
pub(super) type Pair = (PathBuf, PathBuf);

/// Copies files of the folder `root` into a replica, or takes away there what is gone here. `target` is the folder that all of
/// them are to be in.
///
/// # Errors
/// The replica does not run, or something does not fit what is there.
pub(super) async fn copy(
    client: &Client,
    service: &str,
    replica: &str,
    root: PathBuf,
    target: &Path,
    pairs: Vec<Pair>,
) -> Result<()> {
    let (folder, base) = existing(client, service, replica, target).await?;
    let below = |(file, to): Pair| {
        let to = to.strip_prefix(&base).map(Path::to_owned).unwrap_or(to);
        (file, to)
    };
    let pairs: Vec<Pair> = pairs.into_iter().map(below).collect();
    let query = [
        ("replica", replica.to_owned()),
        ("path", folder),
        ("whiteouts", true.to_string()),
    ];
    let (write, read) = tokio::io::duplex(PIECE_BYTES);
    let packed = tokio::task::spawn_blocking(move || {
        let mut out = BufWriter::with_capacity(PIECE_BYTES, SyncIoBridge::new(write));
        pack(&root, &pairs, &mut out)?;
        out.flush()
    });
    let put = client.put(&format!("{service}/files"), &query, read).await;
    match (put, packed.await?) {
        // One that refuses does not read to the end.
        (Err(error), _) => Err(error),
        (Ok(()), packed) => packed.context("the files cannot be read"),
    }
}

/// The innermost folder that is there of those that `target` lies in, as it is without links, and its way as it was asked for.
async fn existing(
    client: &Client,
    service: &str,
    replica: &str,
    target: &Path,
) -> Result<(String, PathBuf)> {
    for folder in target.ancestors() {
        let path = format!("/{}", folder.display());
        let query: [Query<'_>; 2] = [("replica", replica.to_owned()), ("path", path.clone())];
        let found = client
            .get::<FileView>(&format!("{service}/files/stat"), &query)
            .await;
        match found {
            Ok(found) if found.is_dir => return Ok((found.path, folder.to_owned())),
            Ok(_) => bail!("{path} in the containers is no folder"),
            Err(error) if is_missing(&error) && folder != Path::new("") => {}
            Err(error) => return Err(error),
        }
    }
    Ok(("/".to_owned(), PathBuf::new()))
}

fn is_missing(error: &anyhow::Error) -> bool {
    let exit = error.downcast_ref::<Exit>();
    exit.is_some_and(|exit| exit.code == Code::NotFound)
}

/// Writes the files as they are now; what is not there, as what is to be taken away, and that first: in the place of a
/// folder there may be a file now.
///
/// What may write to the folder may also put links there, such as in the place of a folder that was watched. None is followed:
/// nothing from elsewhere gets into the containers.
fn pack(root: &Path, pairs: &[Pair], out: impl Write) -> io::Result<()> {
    let mut tar = Builder::new(out);
    let root = open_root(root)?;
    let open = |file: &Path, flags| match &root {
        Some(root) => open_below(root, file, flags),
        None => Ok(None),
    };
    let mut there = BTreeSet::new();
    for (file, to) in pairs {
        match open(file, OFlags::PATH)? {
            Some(found) if is_copied(&found.metadata()?) => drop(there.insert((to, file))),
            // What the containers have of that name may be a socket of their own.
            Some(_) => {}
            None => whiteout(&mut tar, to)?,
        }
    }
    for (to, file) in there {
        // One that goes or is exchanged meanwhile is heard of again.
        let Some(found) = open(file, OFlags::PATH)? else {
            continue;
        };
        let metadata = found.metadata()?;
        let mut header = Header::new_gnu();
        header.set_mode(metadata.permissions().mode() & 0o777);
        header.set_mtime(u64::try_from(metadata.mtime()).unwrap_or(0));
        header.set_size(0);
        if metadata.is_dir() {
            header.set_entry_type(EntryType::Directory);
            tar.append_data(&mut header, to, io::empty())?;
        } else if metadata.is_symlink() {
            header.set_entry_type(EntryType::Symlink);
            let leads_to = rustix::fs::readlinkat(&found, "", Vec::new())?;
            tar.append_link(&mut header, to, OsStr::from_bytes(leads_to.to_bytes()))?;
        } else if metadata.is_file()
            // It does not wait for the other end of what is a pipe by now.
            && let Ok(Some(open)) = open(file, OFlags::RDONLY | OFlags::NONBLOCK)
            && let Ok(metadata) = open.metadata()
            && metadata.is_file()
        {
            let size = metadata.len();
            header.set_size(size);
            // One that shrinks meanwhile is filled up, and one that grows is cut: it is heard of again.
            let content = open.take(size).chain(io::repeat(0)).take(size);
            tar.append_data(&mut header, to, content)?;
        }
    }
    tar.into_inner()?.flush()
}

/// Whether it is a file, a folder or a link: nothing else is copied.
pub(super) fn is_copied(found: &Metadata) -> bool {
    found.is_file() || found.is_dir() || found.is_symlink()
}

/// Opens the folder that is watched, by the way that had no links in it when the watch began. `None`: it is gone.
fn open_root(root: &Path) -> io::Result<Option<OwnedFd>> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    match rustix::fs::openat2(CWD, root, flags, Mode::empty(), ResolveFlags::NO_SYMLINKS) {
        Ok(opened) => Ok(Some(opened)),
        Err(Errno::NOENT | Errno::NOTDIR) => Ok(None),
        Err(Errno::LOOP) => Err(io::Error::other(format!(
            "{} is behind a link now: begin to watch anew",
            root.display()
        ))),
        Err(error) => Err(error.into()),
    }
}

/// Opens what is at a path below the root, through no link; a link itself with [`OFlags::PATH`]. `None`: it is gone.
fn open_below(root: &OwnedFd, file: &Path, flags: OFlags) -> io::Result<Option<File>> {
    let flags = flags | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    loop {
        match rustix::fs::openat2(root, file, flags, Mode::empty(), resolve) {
            Ok(opened) => return Ok(Some(opened.into())),
            // The kernel could not rule out a rename on the way (openat2(2)).
            Err(Errno::AGAIN | Errno::INTR) => {}
            // What may not be looked at is not found by a look, either.
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP | Errno::ACCESS) => return Ok(None),
            Err(error) => return Err(error.into()),
        }
    }
}

fn whiteout(tar: &mut Builder<impl Write>, gone: &Path) -> io::Result<()> {
    let Some(name) = gone.file_name() else {
        return Ok(());
    };
    let mut whiteout = OsString::from(".wh.");
    whiteout.push(name);
    let mut header = Header::new_gnu();
    header.set_mode(0o644);
    header.set_size(0);
    tar.append_data(&mut header, gone.with_file_name(whiteout), io::empty())
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    /// What is packed of these names: path, kind and text.
    fn packed(root: &Path, names: &[&str]) -> Vec<(String, EntryType, String)> {
        let pairs: Vec<Pair> = names
            .iter()
            .map(|name| (name.into(), Path::new("app").join(name)))
            .collect();
        let mut tar = Vec::new();
        pack(root, &pairs, &mut tar).expect("packed");
        let mut archive = tar::Archive::new(&*tar);
        let entries = archive.entries().expect("entries").map(|entry| {
            let mut entry = entry.expect("whole");
            let path = entry.path().expect("a path").display().to_string();
            let mut text = String::new();
            entry.read_to_string(&mut text).expect("read");
            (path, entry.header().entry_type(), text)
        });
        entries.collect()
    }

    fn folder() -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().expect("a folder");
        let root = dir.path().canonicalize().expect("its path").join("src");
        fs::create_dir(&root).expect("a folder");
        (dir, root)
    }

    #[test]
    fn nothing_comes_along_through_a_link_in_the_place_of_a_folder() {
        let ((_dir, root), (_other, outside)) = (folder(), folder());
        fs::write(outside.join("key"), "secret").expect("a file");
        fs::create_dir(root.join("x")).expect("a folder");
        fs::write(root.join("x/key"), "text").expect("a file");
        let gone = |path: &str| (path.to_owned(), EntryType::Regular, String::new());
        let text = (
            "app/x/key".to_owned(),
            EntryType::Regular,
            "text".to_owned(),
        );
        assert_eq!(packed(&root, &["x/key"]), [text]);
        fs::remove_dir_all(root.join("x")).expect("removed");
        symlink(&outside, root.join("x")).expect("a link");
        assert_eq!(packed(&root, &["x/key"]), [gone("app/x/.wh.key")]);
        // Nor is the root itself followed, and behind a link on the way to it nothing is taken away.
        fs::remove_dir_all(&root).expect("removed");
        symlink(&outside, &root).expect("a link");
        assert_eq!(packed(&root, &["key"]), [gone("app/.wh.key")]);
        let behind = root.join("deep");
        fs::create_dir(outside.join("deep")).expect("a folder");
        let pairs = [("key".into(), "app/key".into())];
        let error = pack(&behind, &pairs, io::sink()).expect_err("a link");
        assert!(error.to_string().contains("behind a link"), "{error}");
    }

    #[test]
    fn what_is_gone_comes_first_and_what_is_there_as_it_is_now_but_no_socket() {
        let (_dir, root) = folder();
        let at = |name: &str| root.join(name);
        fs::create_dir(at("deep")).expect("a folder");
        fs::write(at("deep/b"), "text").expect("a file");
        symlink("b", at("deep/link")).expect("a link");
        let _socket = std::os::unix::net::UnixListener::bind(at("socket")).expect("a socket");
        let entries = packed(&root, &["deep", "deep/b", "deep/link", "gone/c", "socket"]);
        let file = |path: &str, text: &str| (path.to_owned(), EntryType::Regular, text.to_owned());
        let other = |path: &str, kind| (path.to_owned(), kind, String::new());
        let expected = [
            file("app/gone/.wh.c", ""),
            other("app/deep", EntryType::Directory),
            file("app/deep/b", "text"),
            other("app/deep/link", EntryType::Symlink),
        ];
        assert_eq!(entries, expected);
    }
}
