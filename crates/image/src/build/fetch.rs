//! Files that ADD takes from the network.

use std::fs::File;
use std::io::{self, Read, Write};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use sha2::{Digest as _, Sha256};
use ureq::unversioned::transport::DefaultConnector;

use crate::digest;
use crate::fence::Fence;

/// The largest file that is fetched, in bytes.
const MAX_BYTES: u64 = 16 << 30;
/// How long a server may take to answer, and to send anything more.
const PATIENCE: Duration = Duration::from_secs(60);

/// Whether ADD fetches it.
pub(super) fn is_url(word: &str) -> bool {
    let has_scheme = ["http://", "https://", "git://", "ssh://"]
        .iter()
        .any(|scheme| word.to_ascii_lowercase().starts_with(scheme));
    has_scheme || word.starts_with("git@")
}

/// What the file is called in a directory. The error is the rest of a sentence that begins with ADD.
pub(super) fn name_of(url: &str) -> Result<String, String> {
    let path = url.split(['?', '#']).next().unwrap_or(url);
    let lower = path.to_ascii_lowercase();
    if !lower.starts_with("http") || lower.trim_end_matches('/').ends_with(".git") {
        return Err(format!(
            "of the git repository {url:?} is not supported: clone it into the build context, or RUN git clone"
        ));
    }
    let (_, rest) = path.split_once("://").unwrap_or(("", path));
    let name = rest
        .split_once('/')
        .map(|(_, path)| path.rsplit('/').next().unwrap_or(""));
    match name {
        Some(name) if !matches!(name, "" | "." | "..") => Ok(name.to_owned()),
        _ => Err(format!("cannot tell a file's name from {url:?}")),
    }
}

/// Fetches a URL into a file that is there. The error is the rest of a sentence that begins with ADD.
pub(super) fn fetch(
    url: &str,
    path: &Path,
    checksum: Option<&str>,
    fence: Fence,
    stop: &AtomicBool,
) -> Result<(), String> {
    fetch_within(PATIENCE, fence, url, path, checksum, stop)
}

fn fetch_within(
    patience: Duration,
    fence: Fence,
    url: &str,
    path: &Path,
    checksum: Option<&str>,
    stop: &AtomicBool,
) -> Result<(), String> {
    if let Some(checksum) = checksum
        && digest::hex_of(checksum).is_none()
    {
        return Err(format!(
            "--checksum={checksum} is not sha256: and 64 lower case hex digits"
        ));
    }
    let failed = |reason: &dyn std::fmt::Display| format!("cannot fetch {url}: {reason}");
    let config = ureq::Agent::config_builder()
        .timeout_resolve(Some(patience))
        .timeout_connect(Some(patience))
        .timeout_recv_response(Some(patience))
        .timeout_per_read(Some(patience))
        .user_agent(concat!("layby/", env!("CARGO_PKG_VERSION")))
        .build();
    let agent = ureq::Agent::with_parts(config, DefaultConnector::default(), fence);
    let response = agent.get(url).call().map_err(|error| match error {
        ureq::Error::Other(why) => failed(&why), // the fence's
        error => failed(&error),
    })?;
    let mut body = response
        .into_body()
        .into_with_config()
        .limit(MAX_BYTES)
        .reader();
    let mut file = File::options()
        .write(true)
        .open(path)
        .map_err(|error| failed(&error))?;
    let mut hasher = Sha256::new();
    let mut buffer = vec![0; 128 << 10];
    loop {
        if stop.load(Ordering::Relaxed) {
            return Err(failed(&"it was given up"));
        }
        let n = match body.read(&mut buffer) {
            Ok(0) => break,
            Ok(n) => n,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(failed(&error)),
        };
        hasher.update(&buffer[..n]);
        file.write_all(&buffer[..n])
            .map_err(|error| failed(&error))?;
    }
    let found = digest::finish(hasher);
    match checksum {
        Some(checksum) if checksum != found => Err(format!(
            "fetched {url}, which has the digest {found} and not {checksum}"
        )),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fence::Reach;

    #[test]
    fn a_server_that_sends_nothing_any_more_is_left() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("an address");
        let server = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().expect("a connection");
            let head = b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf";
            stream.write_all(head).expect("to answer");
            // Until the other side goes.
            let _ = stream.read_to_end(&mut Vec::new());
        });
        let file = tempfile::NamedTempFile::new().expect("a file");
        let patience = Duration::from_millis(300);
        let url = format!("http://{address}/f");
        let stop = AtomicBool::new(false);
        let fence = Fence {
            reach: Reach {
                node: true,
                ..Reach::default()
            },
            ..Fence::default()
        };
        let error =
            fetch_within(patience, fence, &url, file.path(), None, &stop).expect_err("it stalls");
        assert!(
            error.starts_with(&format!("cannot fetch {url}: ")),
            "{error}"
        );
        server.join().expect("the server to end");
    }
}
