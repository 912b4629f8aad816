//! Files that ADD takes from the network.

use std::fs::File;
use std::io::{self, Read, Write};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use sha2::{Digest as _, Sha256};

use crate::digest;

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
    let agent: ureq::Agent = ureq::Agent::config_builder()
        .timeout_connect(Some(PATIENCE))
        .timeout_recv_response(Some(PATIENCE))
        .user_agent(concat!("layby/", env!("CARGO_PKG_VERSION")))
        .build()
        .into();
    let response = agent.get(url).call().map_err(|error| failed(&error))?;
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
