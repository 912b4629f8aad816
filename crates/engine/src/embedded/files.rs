//! Files of a replica as tars: packed and unpacked in there, by a helper of its shim.

use std::os::fd::OwnedFd;
use std::path::PathBuf;

use futures_util::{StreamExt, stream};
use layby_model::access::{PathReport, TarStream};
use layby_model::engine::EngineError;
use layby_runtime::client::Begun;
use layby_runtime::protocol::{Copy, CopyRequest, Do, Stat};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::unix::pipe;

use super::session::{self, UnixReply};

/// How much is moved at once.
const PIECE_BYTES: usize = 64 * 1024;

/// Reads a file or folder.
pub(super) async fn copy_out(
    socket: PathBuf,
    request: CopyRequest,
) -> Result<TarStream, EngineError> {
    let (pipe, reply) = begin(socket, request).await?;
    let pipe = pipe::Receiver::from_owned_fd(pipe).map_err(broken)?;
    let pieces = stream::unfold(Some((pipe, reply)), |under_way| async {
        let (mut pipe, mut reply) = under_way?;
        let mut piece = vec![0; PIECE_BYTES];
        match pipe.read(&mut piece).await {
            Ok(0) => match reply.wait().await {
                Ok(_) => None,
                Err(error) => Some((Err(error), None)),
            },
            Ok(length) => {
                piece.truncate(length);
                Some((Ok(piece), Some((pipe, reply))))
            }
            Err(error) => Some((Err(broken(error)), None)),
        }
    });
    Ok(Box::pin(pieces))
}

/// Writes what is in a tar.
pub(super) async fn copy_in(
    socket: PathBuf,
    request: CopyRequest,
    mut tar: TarStream,
) -> Result<(), EngineError> {
    let (pipe, mut reply) = begin(socket, request).await?;
    let mut pipe = pipe::Sender::from_owned_fd(pipe).map_err(broken)?;
    while let Some(piece) = tar.next().await {
        // Dropping both ends it: half a tar is not unpacked as if it were whole.
        let piece = piece?;
        if pipe.write_all(&piece).await.is_err() {
            // It has seen enough, for good or ill: the reply says which.
            break;
        }
    }
    drop(pipe);
    reply.wait().await.map(drop)
}

/// Looks at a path.
pub(super) async fn stat(
    socket: PathBuf,
    container: String,
    path: String,
) -> Result<PathReport, EngineError> {
    let request = CopyRequest {
        container,
        copy: Copy::Stat { path },
    };
    match session::ask(socket, Do::Copy(request)).await? {
        Begun::Done(result) => {
            let stat = serde_json::from_str(&result.output).map_err(|error| {
                EngineError::Failed(format!("the shim's answer is not understood: {error}"))
            })?;
            let Stat { path, is_dir } = stat;
            Ok(PathReport { path, is_dir })
        }
        Begun::Attached(..) => Err(EngineError::Failed(
            "the shim answered what nobody asked".to_owned(),
        )),
    }
}

async fn begin(socket: PathBuf, request: CopyRequest) -> Result<(OwnedFd, UnixReply), EngineError> {
    let (ends, reply) = session::begin(socket, Do::Copy(request)).await?;
    let pipe = ends.into_iter().next();
    let pipe = pipe.ok_or_else(|| EngineError::Failed("the shim gave no pipe".to_owned()))?;
    Ok((pipe, UnixReply::new(reply).map_err(broken)?))
}

fn broken(error: std::io::Error) -> EngineError {
    EngineError::Failed(format!("the copy broke off: {error}"))
}
