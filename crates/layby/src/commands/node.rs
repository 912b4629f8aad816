//! The node as a process: started in the background, asked for its version, ended.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use layby_control::api::types::VersionView;

use crate::client::Client;
use crate::exit::{Code, Exit};
use crate::out::{say, tell};
use crate::paths::Paths;

/// How long a node may take until it answers.
const START_DEADLINE: Duration = Duration::from_secs(30);
/// How long a node may take to end; with `--all` its containers end first, each within its grace.
const STOP_DEADLINE: Duration = Duration::from_secs(200);
const POLL: Duration = Duration::from_millis(10);
/// The same of a node elsewhere.
const POLL_ELSEWHERE: Duration = Duration::from_millis(200);
/// So many times in a row it must not answer to count as ended.
const SILENT_TIMES: u32 = 3;
/// How long its process may be there when it has let go of its data.
const EXIT_DEADLINE: Duration = Duration::from_secs(5);
/// A background node's log is put aside at its next start when it is longer.
const LOG_MAX_BYTES: u64 = 8 * 1024 * 1024;

/// Starts a node in the background and waits until it answers.
///
/// # Errors
/// Not root; or the node ended at once: its last words.
pub(crate) async fn start(paths: &Paths, client: &Client) -> Result<()> {
    require_root()?;
    paths.create()?;
    keep_log_short(paths)?;
    let log = fs::OpenOptions::new()
        .create(true)
        .append(true)
        .open(paths.log())?;
    let before = log.metadata()?.len();
    let mut child = Command::new(std::env::current_exe()?)
        .arg("serve")
        .arg("--data")
        .arg(&paths.data_dir)
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        .current_dir("/")
        .env_clear() // the caller's secrets are not the node's
        .envs(std::env::vars_os().filter(|(name, _)| is_for_the_node(name)))
        .process_group(0) // a Ctrl-C at this terminal is not for the node
        .spawn()
        .context("cannot start a node")?;
    let answers = wait_until_it_answers(paths, client, &mut child, before).await;
    if answers.is_err() && !lock_is_held(paths) {
        paths.remove_run_dir(); // nothing is left by a start that came to nothing; what is not empty stays
    }
    answers?;
    let version: VersionView = client.get("/v1/version", &[]).await?;
    tell!(
        "Started a node in the background (pid {}, data in {}, gateway on {}; `layby node stop` ends it).",
        version.pid,
        paths.data_dir.display(),
        version.http
    );
    Ok(())
}

fn is_for_the_node(name: &OsStr) -> bool {
    name == "PATH" || name == "RUST_BACKTRACE" || name.to_string_lossy().starts_with("LAYBY_")
}

/// One older log is kept.
fn keep_log_short(paths: &Paths) -> Result<()> {
    let log = paths.log();
    if fs::metadata(&log).is_ok_and(|log| log.len() > LOG_MAX_BYTES) {
        fs::rename(&log, log.with_extension("log.1"))?;
    }
    Ok(())
}

async fn wait_until_it_answers(
    paths: &Paths,
    client: &Client,
    child: &mut Child,
    log_from: u64,
) -> Result<()> {
    let started = Instant::now();
    while !client.answers().await? {
        // Another `up` may have started one at the same moment: then this child gives way, and that node answers.
        if let Some(status) = child.try_wait()?
            && !lock_is_held(paths)
        {
            let log = fs::read(paths.log()).unwrap_or_default();
            let said = String::from_utf8_lossy(log.get(log_from as usize..).unwrap_or_default())
                .into_owned();
            let last = said
                .lines()
                .rev()
                .take(5)
                .collect::<Vec<_>>()
                .into_iter()
                .rev()
                .collect::<Vec<_>>()
                .join("\n  ");
            bail!("the node ended at once ({status}):\n  {last}");
        }
        if started.elapsed() > START_DEADLINE {
            let message = format!(
                "the node does not answer yet: see {}",
                paths.log().display()
            );
            return Err(Exit::new(Code::TimedOut, message).into());
        }
        tokio::time::sleep(POLL).await;
    }
    Ok(())
}

/// Whether some node runs on this data directory.
fn lock_is_held(paths: &Paths) -> bool {
    fs::File::open(paths.lock())
        .is_ok_and(|file| matches!(file.try_lock_shared(), Err(fs::TryLockError::WouldBlock)))
}

/// Ends the node, and with `all` its containers too; waits until it is gone.
///
/// # Errors
/// No node answers, or it does not end in time.
pub(crate) async fn stop(paths: &Paths, client: &Client, all: bool) -> Result<()> {
    if client.elsewhere().is_some() {
        let asked: VersionView = client.get("/v1/version", &[]).await?;
        client
            .order("/v1/node/stop", &[("all", all.to_string())])
            .await?;
        until_silent(|| answers_still(client, asked.pid)).await?;
        say!("The node was asked to end, and answers no more.");
        return Ok(());
    }
    let query = [("all", all.to_string())];
    let asked: Result<VersionView> = client.get("/v1/version", &[]).await;
    let asked = asked.map_err(|error| without_node(paths, error))?;
    client.order("/v1/node/stop", &query).await?;
    let started = Instant::now();
    while lock_is_held(paths) && !is_followed(client, asked.pid).await {
        if started.elapsed() > STOP_DEADLINE {
            let message = format!("the node did not end yet: see {}", paths.log().display());
            return Err(Exit::new(Code::TimedOut, message).into());
        }
        tokio::time::sleep(POLL).await;
    }
    let let_go = Instant::now();
    while is_there(asked.pid) && let_go.elapsed() < EXIT_DEADLINE {
        tokio::time::sleep(POLL).await;
    }
    say!(
        "{}",
        if all {
            "The node is stopped; its containers are removed, with what they wrote and their logs; volumes stay."
        } else {
            "The node is stopped; its containers go on."
        }
    );
    Ok(())
}

/// Waits until a node elsewhere answers no more: so many times in a row, since the way to it may fail for a moment.
///
/// # Errors
/// It answers yet when it should have ended.
async fn until_silent(answers: impl AsyncFn() -> bool) -> Result<()> {
    let started = tokio::time::Instant::now();
    let mut silent = 0;
    while silent < SILENT_TIMES {
        silent = match answers().await {
            true => 0,
            false => silent + 1,
        };
        if silent == 0 && started.elapsed() > STOP_DEADLINE {
            let message = format!(
                "the node was asked to end and answers yet, after {} s: look at its log, on its machine",
                STOP_DEADLINE.as_secs()
            );
            return Err(Exit::new(Code::TimedOut, message).into());
        }
        tokio::time::sleep(POLL_ELSEWHERE).await;
    }
    Ok(())
}

/// Whether the node of `pid` still answers.
async fn answers_still(client: &Client, pid: u32) -> bool {
    let now: Result<VersionView> = client.get("/v1/version", &[]).await;
    now.is_ok_and(|now| now.pid == pid)
}

/// Whether a process runs: one that has ended, and whose parent has not looked yet, does not.
fn is_there(pid: u32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"));
    stat.is_ok_and(|stat| {
        let state = stat.rsplit_once(") ").map(|(_, rest)| rest);
        !state.is_some_and(|state| state.starts_with(['Z', 'X']))
    })
}

/// Whether another node than that of `pid` answers: somebody (a supervisor, say) started it as soon as that one had ended.
async fn is_followed(client: &Client, pid: u32) -> bool {
    let now: Result<VersionView> = client.get("/v1/version", &[]).await;
    now.is_ok_and(|now| now.pid != pid)
}

/// An error where no node runs, but its containers do: they outlive it, and only a node ends them.
fn without_node(paths: &Paths, error: anyhow::Error) -> anyhow::Error {
    let left = match error.downcast_ref::<Exit>().map(|exit| exit.code) {
        Some(Code::NotFound) => layby_runtime::shims_below(&paths.data_dir),
        Some(Code::Failed | Code::Kept | Code::TimedOut | Code::Overtaken) | None => 0,
    };
    if left == 0 {
        return error;
    }
    let message = format!(
        "no node runs for {}, but {left} of its replicas do: start it with `layby serve`, then end both with `layby node stop --all`",
        paths.data_dir.display()
    );
    Exit::new(Code::NotFound, message).into()
}

/// Prints the versions of this program and, if one answers, of the node.
///
/// # Errors
/// Where standard output cannot be written.
pub(crate) async fn version(client: &Client, json: bool) -> Result<()> {
    let node: Result<VersionView> = client.get("/v1/version", &[]).await;
    if let (Err(error), Some(_)) = (&node, client.elsewhere()) {
        tell!("layby: {error:#}");
    }
    let refuses = node.as_ref().err().is_some_and(|error| {
        let exit = error.downcast_ref::<Exit>();
        exit.is_some_and(|exit| exit.code != Code::NotFound)
    });
    let node = node.ok();
    let own = env!("CARGO_PKG_VERSION");
    if json {
        say!("{}", serde_json::json!({ "client": own, "node": node }));
        return Ok(());
    }
    say!("layby {own}");
    match node {
        Some(node) => {
            say!(
                "node  {} (pid {}, gateway on {}, data in {})",
                node.version,
                node.pid,
                node.http,
                node.data_dir
            );
            if let (Some(api), Some(fingerprint)) = (node.api, node.api_fingerprint) {
                say!("api   https://{api} (certificate {fingerprint})");
            }
        }
        None if refuses => say!("node  one answers, and refuses to say more"),
        None => say!("node  none answers"),
    }
    Ok(())
}

/// Ends with one sentence unless this runs as root.
///
/// # Errors
/// Not root.
pub(crate) fn require_root() -> Result<()> {
    if nix::unistd::geteuid().is_root() {
        return Ok(());
    }
    bail!(
        "a node needs root, for containers and networks: run this as root, or ask one that runs already"
    )
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::*;

    #[tokio::test]
    async fn a_node_elsewhere_has_ended_only_when_it_is_silent_several_times_in_a_row() {
        let answers = RefCell::new(vec![false, false, false, true, false]);
        until_silent(async || answers.borrow_mut().pop().unwrap_or(false))
            .await
            .expect("it has ended");
        assert!(
            answers.borrow().is_empty(),
            "asked again after each failure"
        );
    }
}
