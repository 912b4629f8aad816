//! Copying what has changed into a replica: one tar for each rule, in which what is gone is a whiteout.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, BufWriter, Read, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use layby_control::api::types::FileView;
use tar::{Builder, EntryType, Header};
use tokio_util::io::SyncIoBridge;

use crate::client::{Client, Query};
use crate::exit::{Code, Exit};

/// How much is moved at once.
const PIECE_BYTES: usize = 64 * 1024;

/// A file, and where it is to be in the containers, without a leading `/`.
pub(super) type Pair = (PathBuf, PathBuf);

/// Copies files into a replica, or takes away there what is gone here. `target` is the folder that all of them are to be in.
///
/// # Errors
/// The replica does not run, or something does not fit what is there.
pub(super) async fn copy(
    client: &Client,
    service: &str,
    replica: &str,
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
        pack(&pairs, &mut out)?;
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
fn pack(pairs: &[Pair], out: impl Write) -> io::Result<()> {
    let mut tar = Builder::new(out);
    let mut there = BTreeMap::new();
    for (file, to) in pairs {
        match fs::symlink_metadata(file) {
            Ok(metadata) => drop(there.insert(to, (file, metadata))),
            Err(_) => whiteout(&mut tar, to)?,
        }
    }
    for (to, (file, metadata)) in there {
        let mut header = Header::new_gnu();
        header.set_mode(metadata.permissions().mode() & 0o777);
        header.set_mtime(u64::try_from(metadata.mtime()).unwrap_or(0));
        header.set_size(0);
        if metadata.is_dir() {
            header.set_entry_type(EntryType::Directory);
            tar.append_data(&mut header, to, io::empty())?;
        } else if metadata.is_symlink() {
            header.set_entry_type(EntryType::Symlink);
            // One that goes meanwhile is heard of again.
            if let Ok(leads_to) = fs::read_link(file) {
                tar.append_link(&mut header, to, leads_to)?;
            }
        } else if metadata.is_file()
            && let Ok(open) = File::open(file)
        {
            let size = open.metadata()?.len();
            header.set_size(size);
            // One that shrinks meanwhile is filled up, and one that grows is cut: it is heard of again.
            let content = open.take(size).chain(io::repeat(0)).take(size);
            tar.append_data(&mut header, to, content)?;
        }
    }
    tar.into_inner()?.flush()
}

fn whiteout(tar: &mut Builder<impl Write>, gone: &Path) -> io::Result<()> {
    let Some(name) = gone.file_name() else {
        return Ok(());
    };
    let mut whiteout = std::ffi::OsString::from(".wh.");
    whiteout.push(name);
    let mut header = Header::new_gnu();
    header.set_mode(0o644);
    header.set_size(0);
    tar.append_data(&mut header, gone.with_file_name(whiteout), io::empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_gone_comes_first_and_what_is_there_as_it_is_now() {
        let dir = tempfile::tempdir().expect("a folder");
        let at = |name: &str| dir.path().join(name);
        fs::create_dir(at("deep")).expect("a folder");
        fs::write(at("deep/b"), "text").expect("a file");
        std::os::unix::fs::symlink("b", at("deep/link")).expect("a link");
        let names = ["deep", "deep/b", "deep/link", "gone/c"];
        let pairs: Vec<Pair> = names
            .iter()
            .map(|name| (at(name), Path::new("app").join(name)))
            .collect();
        let mut tar = Vec::new();
        pack(&pairs, &mut tar).expect("packed");
        let mut archive = tar::Archive::new(&*tar);
        let entries = archive.entries().expect("entries").map(|entry| {
            let mut entry = entry.expect("whole");
            let path = entry.path().expect("a path").display().to_string();
            let mut text = String::new();
            entry.read_to_string(&mut text).expect("read");
            (path, entry.header().entry_type(), text)
        });
        let file = |path: &str, text: &str| (path.to_owned(), EntryType::Regular, text.to_owned());
        let other = |path: &str, kind| (path.to_owned(), kind, String::new());
        let expected = [
            file("app/gone/.wh.c", ""),
            other("app/deep", EntryType::Directory),
            file("app/deep/b", "text"),
            other("app/deep/link", EntryType::Symlink),
        ];
        assert_eq!(entries.collect::<Vec<_>>(), expected);
    }
}
