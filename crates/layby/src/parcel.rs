//! What the CLI sends to the node for a deploy or a build: manifests and build contexts as one tar.

mod context;
mod kept;
mod manifests;

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use tokio::io::AsyncRead;
use tokio_util::io::SyncIoBridge;

pub(crate) use context::ContextFolder;
use kept::Part;
pub(crate) use manifests::{Asks, Manifests, Picked, way};

use crate::client::{Client, Lines, Query};
use crate::out::tell;

/// A build secret is at most so long; the node refuses longer ones too.
const SECRET_MAX_BYTES: u64 = 512 * 1024;

/// Where the value of a build secret is, on this machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum SecretSource {
    /// In a file, relative to the manifest's folder or the current one.
    File(PathBuf),
    /// In a variable of the environment.
    Variable(String),
}

impl SecretSource {
    /// Reads the value.
    ///
    /// # Errors
    /// It is not there, or too long.
    pub(crate) fn read(&self, folder: &Path) -> Result<SecretValue> {
        let bytes = match self {
            Self::File(file) => {
                let path = folder.join(file);
                let mut bytes = Vec::new();
                File::open(&path)
                    .and_then(|open| open.take(SECRET_MAX_BYTES + 1).read_to_end(&mut bytes))
                    .with_context(|| format!("cannot read the secret {}", path.display()))?;
                bytes
            }
            Self::Variable(name) => match std::env::var_os(name) {
                Some(value) => std::os::unix::ffi::OsStringExt::into_vec(value),
                None => bail!("the variable {name} of a secret is not set"),
            },
        };
        if bytes.len() as u64 > SECRET_MAX_BYTES {
            bail!("a secret is longer than {} KiB", SECRET_MAX_BYTES >> 10);
        }
        Ok(SecretValue(bytes))
    }
}

/// A secret's value, which nobody is to see.
pub(crate) struct SecretValue(Vec<u8>);

/// What is sent for a deploy or a build.
#[derive(Default)]
pub(crate) struct Parcel {
    /// Small files, by their names in the tar.
    pub(crate) files: BTreeMap<String, Vec<u8>>,
    /// The n-th is sent as `secret/<n>`.
    pub(crate) secrets: Vec<SecretValue>,
    /// The n-th is sent as `context/<n>`.
    pub(crate) contexts: Vec<ContextFolder>,
}

/// Sends a parcel, without what the node keeps of its contexts; the answer's lines as they come.
///
/// # Errors
/// What cannot be read here; what the node refuses.
pub(crate) async fn send(
    client: &Client,
    path: &str,
    query: &[Query<'_>],
    parcel: Parcel,
) -> Result<Lines> {
    let parcel = Arc::new(parcel);
    let parts = kept::offer(client, &parcel.contexts).await?;
    let is_whole = parts.iter().all(Option::is_none);
    let body = stream(Arc::clone(&parcel), parts);
    match client.upload_for_lines(path, query, body).await {
        // Another build of it came in between.
        Err(error) if !is_whole && kept::is_gone(&error) => {
            let body = stream(parcel, Vec::new());
            client.upload_for_lines(path, query, body).await
        }
        sent => sent,
    }
}

/// The parcel as a tar, written while it is read. Of a context that has a part, only that is in it.
fn stream(parcel: Arc<Parcel>, parts: Vec<Option<Part>>) -> impl AsyncRead + Send + Sync + 'static {
    let (near, far) = tokio::io::duplex(256 * 1024);
    let writer = SyncIoBridge::new(far);
    tokio::task::spawn_blocking(move || {
        // Where writing fails in the middle the node sees a cut tar and says so; the cause is told here.
        if let Err(error) = parcel.write(writer, &parts)
            && !is_broken_pipe(&error)
        {
            tell!("layby: {error:#}");
        }
    });
    near
}

impl Parcel {
    fn write(&self, writer: impl Write, parts: &[Option<Part>]) -> Result<()> {
        let mut tar = tar::Builder::new(io::BufWriter::with_capacity(128 * 1024, writer));
        tar.follow_symlinks(false);
        // Holes are sent as zeros: the node takes plain files only, so that what it reads bounds what it writes.
        tar.sparse(false);
        for (name, bytes) in &self.files {
            append_bytes(&mut tar, name, bytes)?;
        }
        for (number, secret) in self.secrets.iter().enumerate() {
            append_bytes(&mut tar, &format!("secret/{number}"), &secret.0)?;
        }
        for (number, context) in self.contexts.iter().enumerate() {
            match parts.get(number).and_then(Option::as_ref) {
                Some(part) => kept::append(&mut tar, number, context, part)?,
                None => context.append(&mut tar, &format!("context/{number}"))?,
            }
        }
        tar.into_inner()?.flush()?;
        Ok(())
    }
}

/// Puts a small file into a tar.
pub(crate) fn append_bytes(
    tar: &mut tar::Builder<impl Write>,
    name: &str,
    bytes: &[u8],
) -> Result<()> {
    let mut header = tar::Header::new_gnu();
    header.set_size(bytes.len() as u64);
    header.set_mode(0o600);
    tar.append_data(&mut header, name, bytes)
        .with_context(|| format!("cannot send {name}"))
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| {
        cause
            .downcast_ref::<io::Error>()
            .is_some_and(|e| e.kind() == io::ErrorKind::BrokenPipe)
    })
}
