//! What a build may ask of a lent agent: which keys it has, and to sign (draft-ietf-sshm-ssh-agent, 5). Whatever else there is,
//! such as to remove keys, to lock, or to open a library of this machine, is answered "failure" here.

use std::io::{Error, ErrorKind, Result};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;

/// SSH_AGENT_FAILURE as a whole message.
const FAILURE: [u8; 5] = [0, 0, 0, 1, 5];
/// SSH_AGENTC_REQUEST_IDENTITIES.
const LIST: u8 = 11;
/// SSH_AGENTC_SIGN_REQUEST.
const SIGN: u8 = 13;
/// The longest message, in bytes: as OpenSSH's agent has it.
const MESSAGE_MAX: u32 = 256 * 1024;

/// Carries requests from `build` to `agent` and answers back, one after the other, until either of them ends.
///
/// # Errors
/// A connection broke, or a message is empty or too long.
pub(super) async fn guard(mut build: UnixStream, mut agent: UnixStream) -> Result<()> {
    while let Some(request) = message(&mut build).await? {
        if ![LIST, SIGN].contains(&request[4]) {
            build.write_all(&FAILURE).await?;
            continue;
        }
        agent.write_all(&request).await?;
        let Some(answer) = message(&mut agent).await? else {
            break;
        };
        build.write_all(&answer).await?;
    }
    Ok(())
}

/// A message with its length before it; `None`: the other end is done.
async fn message(stream: &mut UnixStream) -> Result<Option<Vec<u8>>> {
    let length = match stream.read_u32().await {
        Err(error) if error.kind() == ErrorKind::UnexpectedEof => return Ok(None),
        length => length?,
    };
    if length == 0 || length > MESSAGE_MAX {
        return Err(Error::from(ErrorKind::InvalidData));
    }
    let mut message = length.to_be_bytes().to_vec();
    message.resize(4 + length as usize, 0);
    stream.read_exact(&mut message[4..]).await?;
    Ok(Some(message))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An agent that answers whatever it gets with it.
    async fn echo(mut stream: UnixStream) {
        while let Ok(Some(request)) = message(&mut stream).await {
            if stream.write_all(&request).await.is_err() {
                break;
            }
        }
    }

    #[tokio::test]
    async fn a_build_may_list_and_sign_and_nothing_else() {
        let (mut build, guarded) = UnixStream::pair().expect("a pair");
        let (agent, its_end) = UnixStream::pair().expect("a pair");
        tokio::spawn(echo(its_end));
        tokio::spawn(guard(guarded, agent));
        for kind in 0..=u8::MAX {
            let request = [0, 0, 0, 2, kind, 7];
            build.write_all(&request).await.expect("sent");
            let answer = message(&mut build).await.expect("read").expect("an answer");
            let expected = match kind {
                LIST | SIGN => request.to_vec(),
                _ => FAILURE.to_vec(),
            };
            assert_eq!(answer, expected, "{kind}");
        }
    }

    #[tokio::test]
    async fn a_message_that_is_empty_or_too_long_ends_it() {
        for length in [0, MESSAGE_MAX + 1] {
            let (mut build, guarded) = UnixStream::pair().expect("a pair");
            let (agent, _its_end) = UnixStream::pair().expect("a pair");
            build.write_u32(length).await.expect("sent");
            guard(guarded, agent).await.expect_err("refused");
        }
    }
}
