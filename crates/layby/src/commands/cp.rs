//! `layby cp`: files between this machine and containers, by the rules of `docker cp`.

use std::fs;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use futures_util::StreamExt;
use hyper::body::Bytes;
use layby_control::api::types::FileView;
use layby_runtime::tree::{self, Lost, Several, Source, Target, Unpack};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::io::{StreamReader, SyncIoBridge};

use crate::cli::Cp;
use crate::client::{Client, Query};
use crate::commands::services;
use crate::exit::{Code, Exit, Passed};
use crate::out::{BROKEN_PIPE, tell};
use crate::terminal;

/// How much is moved at once.
const PIECE_BYTES: usize = 64 * 1024;

/// One side of a copy.
#[derive(Debug, PartialEq, Eq)]
enum Side {
    /// A tar on the standard input or output.
    Stdio,
    Local(String),
    Remote {
        service: String,
        path: String,
    },
}

/// Copies.
///
/// # Errors
/// There is no such file or service, or what is there does not fit.
pub(crate) async fn cp(client: &Client, options: &Cp) -> Result<()> {
    match (side(&options.source), side(&options.target)) {
        (Side::Remote { service, path }, Side::Local(to)) => {
            out(client, options, &service, &path, &to).await
        }
        (Side::Remote { service, path }, Side::Stdio) => {
            let at = services::find(client, &service).await?;
            let mut tar = download(client, options, &at, &path).await?;
            match tokio::io::copy(&mut tar, &mut tokio::io::stdout()).await {
                Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {
                    Err(Passed(BROKEN_PIPE).into())
                }
                copied => Ok(copied.map(drop)?),
            }
        }
        (Side::Local(from), Side::Remote { service, path }) => {
            into(client, options, &from, &service, &path).await
        }
        (Side::Stdio, Side::Remote { service, path }) => {
            let at = services::find(client, &service).await?;
            let query = [vec![("path", path)], owners(options), options.at.query()].concat();
            let pieces = ReceiverStream::new(terminal::input());
            let pieces = pieces.map(|piece| io::Result::Ok(Bytes::from(piece)));
            let tar = StreamReader::new(pieces);
            client.put(&format!("{at}/files"), &query, tar).await
        }
        (Side::Remote { .. }, Side::Remote { .. }) => {
            bail!("one side has to be on this machine: copy in two steps")
        }
        (Side::Local(_) | Side::Stdio, Side::Local(_) | Side::Stdio) => {
            bail!("neither side is in a container: name one as NAME:PATH")
        }
    }
}

/// Reads one side: `NAME:PATH` is in a container, unless it begins like a path.
fn side(text: &str) -> Side {
    match text.split_once(':') {
        _ if text == "-" => Side::Stdio,
        Some((service, path)) if !text.starts_with(['/', '.']) && !service.is_empty() => {
            Side::Remote {
                service: service.to_owned(),
                path: if path.is_empty() { "/" } else { path }.to_owned(),
            }
        }
        _ => Side::Local(text.to_owned()),
    }
}

fn owners(options: &Cp) -> Vec<Query<'static>> {
    vec![("owners", options.archive.to_string())]
}

async fn download(
    client: &Client,
    options: &Cp,
    at: &str,
    path: &str,
) -> Result<impl tokio::io::AsyncRead + Send + Unpin + use<>> {
    let follow = ("follow", options.follow_link.to_string());
    let query = [vec![("path", path.to_owned()), follow], options.at.query()].concat();
    client.download(&format!("{at}/files"), &query).await
}

async fn out(client: &Client, options: &Cp, service: &str, path: &str, to: &str) -> Result<()> {
    let at = services::find(client, service).await?;
    let name = tree::last_name(path);
    let is_content = name.as_os_str() == ".";
    let target = PathBuf::from(to);
    if to.ends_with('/') && !target.is_dir() && !is_dir(client, options, &at, path).await? {
        bail!("there is no folder {to}");
    }
    let tar = download(client, options, &at, path).await?;
    let place = match (target.is_dir(), is_content) {
        (true, _) => (target, None),
        (false, true) => {
            fs::create_dir(&target).with_context(|| format!("cannot make the folder {to}"))?;
            (target, None)
        }
        (false, false) => split(&target)?,
    };
    let keep_owners = options.archive;
    let unpacked = tokio::task::spawn_blocking(move || {
        let (dir, rename) = place;
        let target = Target::open(&dir)
            .map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", dir.display())))?;
        let options = Unpack {
            keep_owners,
            rename,
            ..Unpack::default()
        };
        tree::unpack(&target, SyncIoBridge::new(tar), &options)
    });
    let lost = unpacked
        .await?
        .with_context(|| format!("cannot copy to {to}"))?;
    tell_lost(&lost, keep_owners);
    Ok(())
}

async fn into(client: &Client, options: &Cp, from: &str, service: &str, path: &str) -> Result<()> {
    let source = Source::open(Path::new(from), options.follow_link)
        .with_context(|| format!("cannot copy {from}"))?;
    let name = tree::last_name(from);
    let is_folder = match options.follow_link || from.ends_with("/.") || from.ends_with('/') {
        true => fs::metadata(from)?.is_dir(),
        false => fs::symlink_metadata(from)?.is_dir(),
    };
    let at = services::find(client, service).await?;
    let mut query = [owners(options), options.at.query()].concat();
    let (dir, name) = match stat(client, options, &at, path).await? {
        Some(found) => {
            if !options.at.is_replica() {
                query.push(("replica", found.replica));
            }
            match (found.is_dir, is_folder) {
                (true, _) => (PathBuf::from(found.path), name),
                (false, true) => bail!("{from} is a folder, and {service}:{path} is not"),
                (false, false) => under(&found.path)?,
            }
        }
        None if path.ends_with('/') && !is_folder => {
            bail!("there is no folder {path} in {service}")
        }
        None => under(path)?,
    };
    query.push(("path", dir.to_string_lossy().into_owned()));
    let (write, read) = tokio::io::duplex(PIECE_BYTES);
    let packed = tokio::task::spawn_blocking(move || {
        let mut out = BufWriter::with_capacity(PIECE_BYTES, SyncIoBridge::new(write));
        let lost = tree::pack(&source, &name, &mut out)?;
        out.flush().map(|()| lost)
    });
    let put = client.put(&format!("{at}/files"), &query, read).await;
    match (put, packed.await?) {
        // One that refuses does not read to the end.
        (Err(error), _) => Err(error),
        (Ok(()), packed) => {
            let lost = packed.with_context(|| format!("cannot copy {from}"))?;
            tell_lost(&lost, options.archive);
            Ok(())
        }
    }
}

/// Says on standard error what was not carried over.
fn tell_lost(lost: &Lost, keeps_owners: bool) {
    if let Some(text) = several(&lost.left_out) {
        tell!("layby: left out {text}: devices and sockets are not copied");
    }
    if let (Some(text), false) = (several(&lost.set_id), keeps_owners) {
        tell!(
            "layby: copied {text} without set-user-ID and set-group-ID: with -a the owners come along"
        );
    }
}

/// `a/b`, or `a/b and 2 more`.
fn several(paths: &Several) -> Option<String> {
    let first = paths.first.as_ref()?.display();
    Some(match paths.count {
        0 | 1 => first.to_string(),
        count => format!("{first} and {} more", count - 1),
    })
}

/// A path of a container as its folder and its name there.
fn under(path: &str) -> Result<(PathBuf, PathBuf)> {
    let path = Path::new("/").join(path);
    match (path.parent(), path.file_name()) {
        (Some(dir), Some(name)) => Ok((dir.to_owned(), PathBuf::from(name))),
        _ => bail!("{} names no file", path.display()),
    }
}

/// A path of this machine as its folder and what the copy is to be called there.
fn split(path: &Path) -> Result<(PathBuf, Option<PathBuf>)> {
    let Some(name) = path.file_name() else {
        bail!("{} is no folder that is there", path.display());
    };
    let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty());
    let dir = dir.map_or_else(|| PathBuf::from("."), Path::to_owned);
    Ok((dir, Some(PathBuf::from(name))))
}

async fn is_dir(client: &Client, options: &Cp, at: &str, path: &str) -> Result<bool> {
    let found = stat(client, options, at, path).await?;
    Ok(found.is_some_and(|found| found.is_dir))
}

async fn stat(client: &Client, options: &Cp, at: &str, path: &str) -> Result<Option<FileView>> {
    let query = [vec![("path", path.to_owned())], options.at.query()].concat();
    match client.get(&format!("{at}/files/stat"), &query).await {
        Ok(found) => Ok(Some(found)),
        Err(error) => match error.downcast_ref::<Exit>() {
            Some(exit) if exit.code == Code::NotFound => Ok(None),
            _ => Err(error),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_side_with_a_colon_is_in_a_container_unless_it_begins_like_a_path() {
        let remote = |service: &str, path: &str| Side::Remote {
            service: service.into(),
            path: path.into(),
        };
        assert_eq!(side("web:/etc"), remote("web", "/etc"));
        assert_eq!(side("shop/web:a:b"), remote("shop/web", "a:b"));
        assert_eq!(side("web:"), remote("web", "/"));
        assert_eq!(side("-"), Side::Stdio);
        for local in ["./a:b", "/a:b", "../a:b", "file", ":x"] {
            assert_eq!(side(local), Side::Local(local.into()));
        }
    }
}
