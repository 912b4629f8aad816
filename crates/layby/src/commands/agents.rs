//! SSH agents for builds: this user's own, lent while the build lasts. Their keys stay here; what is asked of them and what
//! they answer goes over a connection beside the build's.

mod guard;

use std::io::ErrorKind;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use layby_control::agents::wire::{self, Frame, PROTOCOL};
use layby_control::api::types::AgentView;
use tempfile::TempDir;
use tokio::net::UnixStream;
use tokio::process::{Child, Command};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use crate::client::Client;

/// Where `ssh` finds its agent.
const VARIABLE: &str = "SSH_AUTH_SOCK";
/// How long an agent may take to begin.
const PATIENCE: Duration = Duration::from_secs(10);
/// How often it is looked whether it has begun.
const LOOK: Duration = Duration::from_millis(5);

/// Where the keys of an agent are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Source {
    /// What the build calls it.
    pub(crate) id: String,
    /// An agent's socket, or files with keys; none: the agent of `SSH_AUTH_SOCK`.
    paths: Vec<PathBuf>,
}

impl Source {
    /// As `--ssh` has it: `ID`, `ID=SOCKET` or `ID=KEY[,KEY]`.
    ///
    /// # Errors
    /// It has no id.
    pub(crate) fn of_option(text: &str) -> Result<Self> {
        let (id, paths) = text.split_once('=').unwrap_or((text, ""));
        if id.is_empty() {
            bail!("a --ssh is ID, ID=SOCKET or ID=KEYFILE, such as default");
        }
        let paths = paths.split(',').filter(|path| !path.is_empty());
        Ok(Self {
            id: id.to_owned(),
            paths: paths.map(PathBuf::from).collect(),
        })
    }

    /// As a manifest in `folder` has it.
    pub(crate) fn of_manifest(view: &AgentView, folder: &Path) -> Self {
        let home = std::env::var_os("HOME").map(PathBuf::from);
        let paths = view
            .source
            .iter()
            .map(|path| match path.strip_prefix("~/") {
                Some(rest) => home.clone().unwrap_or_default().join(rest),
                None => folder.join(path),
            });
        Self {
            id: view.id.clone(),
            paths: paths.collect(),
        }
    }
}

/// Agents that are lent until this is dropped.
pub(crate) struct Lent {
    /// What the build names the connection by.
    pub(crate) key: String,
    carrying: JoinHandle<()>,
    _own: Vec<OwnAgent>,
}

impl Drop for Lent {
    fn drop(&mut self) {
        self.carrying.abort();
    }
}

/// Lends agents to builds of this user, the n-th at place n.
///
/// # Errors
/// One is not there, or takes no key; as [`Client::upgrade`].
pub(crate) async fn lend(client: &Client, sources: &[Source]) -> Result<Lent> {
    let (mut sockets, mut own) = (Vec::new(), Vec::new());
    for source in sources {
        let (socket, agent) = ready(source).await?;
        sockets.push(socket);
        own.extend(agent);
    }
    let mut stream = client.upgrade("/v1/agents", &[], PROTOCOL).await?;
    let first = Frame::read(&mut stream).await;
    let Frame::Key(key) = first.context("the node closed the connection: see its log")? else {
        bail!(
            "the node says no key for the SSH agents: is it of another version? (`layby version`)"
        );
    };
    // Nothing begins on this side.
    let (_, calls) = mpsc::channel(1);
    let carrying = tokio::spawn(async move {
        let dial = |place: u16| {
            let socket = sockets.get(usize::from(place)).cloned();
            async move { guarded(UnixStream::connect(socket?).await.ok()?) }
        };
        wire::run(stream, calls, dial, None).await;
    });
    Ok(Lent {
        key,
        carrying,
        _own: own,
    })
}

/// The end that the build gets of an agent's connection.
fn guarded(agent: UnixStream) -> Option<UnixStream> {
    let (end, build) = UnixStream::pair().ok()?;
    // How it ends, both ends see.
    tokio::spawn(async move { guard::guard(build, agent).await });
    Some(end)
}

/// The socket of an agent, which is begun where there are only keys.
async fn ready(source: &Source) -> Result<(PathBuf, Option<OwnAgent>)> {
    let id = &source.id;
    let Some(first) = source.paths.first() else {
        let Some(socket) = std::env::var_os(VARIABLE).filter(|socket| !socket.is_empty()) else {
            bail!(
                "{VARIABLE} is not set, so there is no SSH agent to lend as {id:?}: start one with `eval \"$(ssh-agent)\"; ssh-add`, or name a key"
            );
        };
        return Ok((socket.into(), None));
    };
    let found = std::fs::metadata(first);
    let found = found.with_context(|| format!("cannot read {} for --ssh", first.display()))?;
    if found.file_type().is_socket() && source.paths.len() == 1 {
        return Ok((first.clone(), None));
    }
    let agent = OwnAgent::with(&source.paths).await?;
    Ok((agent.socket(), Some(agent)))
}

/// What an agent is begun with. It lives until its command ends, and looks for that every 10 s only: so that takes the keys away
/// as soon as this process has gone, however it went, and the folder with them. `^C` reaches all of a terminal.
const UNTIL_THE_END: &str =
    "trap '' INT HUP TERM; cat >/dev/null; ssh-add -qD 2>/dev/null; rm -rf -- \"$1\"";

/// An agent of OpenSSH's with some keys, for one build.
struct OwnAgent {
    dir: PathBuf,
    /// With the other end of its input.
    _child: Child,
}

impl OwnAgent {
    async fn with(keys: &[PathBuf]) -> Result<Self> {
        let dir = TempDir::new().context("cannot make a folder for an SSH agent")?;
        let socket = dir.path().join("agent");
        let begun = Command::new("ssh-agent")
            .arg("-a")
            .arg(&socket)
            .args(["sh", "-c", UNTIL_THE_END, "sh"])
            .arg(dir.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        let child = begun.map_err(|error| match error.kind() {
            ErrorKind::NotFound => anyhow::anyhow!(
                "ssh-agent is not installed, and without it a build reaches no key of a file: install OpenSSH's client"
            ),
            _ => anyhow::Error::from(error).context("cannot start ssh-agent"),
        })?;
        let there = async {
            while !socket.exists() {
                tokio::time::sleep(LOOK).await;
            }
        };
        let there = tokio::time::timeout(PATIENCE, there).await;
        there.context("ssh-agent does not begin")?;
        let agent = Self {
            // From here on the agent's command removes it.
            dir: dir.keep(),
            _child: child,
        };
        // It asks for the passphrase itself, on this terminal.
        let mut added = Command::new("ssh-add");
        added.arg("-q").args(keys).env(VARIABLE, &socket);
        let added = added.status().await.context("cannot start ssh-add")?;
        if !added.success() {
            let names: Vec<String> = keys.iter().map(|key| key.display().to_string()).collect();
            bail!("ssh-add did not take {}", names.join(", "));
        }
        Ok(agent)
    }

    fn socket(&self) -> PathBuf {
        self.dir.join("agent")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_agent_is_the_users_or_a_socket_or_made_of_keys() {
        let source = |text: &str| Source::of_option(text).expect("an agent");
        assert_eq!(
            (source("default").id.as_str(), source("default").paths.len()),
            ("default", 0)
        );
        assert_eq!(source("a=/s").paths, [PathBuf::from("/s")]);
        assert_eq!(source("a=k,l").paths, ["k", "l"].map(PathBuf::from));
        assert!(Source::of_option("").is_err() && Source::of_option("=x").is_err());
        let view = AgentView {
            id: "a".to_owned(),
            source: Some("keys/a".to_owned()),
        };
        let source = Source::of_manifest(&view, Path::new("/app"));
        assert_eq!(source.paths, [PathBuf::from("/app/keys/a")]);
    }
}
