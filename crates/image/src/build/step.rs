//! RUN: what its command is to see, its place in the cache, and the layer of what it wrote.

use std::collections::VecDeque;
use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use super::cache::{self, Key};
use super::copy;
use super::mounts::{Prepared, Resolved};
use super::run::{RunMount, RunNetwork, RunRequest, RunSource};
use super::stage::{Made, StageBuilder, given_up};
use super::upper;
use super::view::View;
use crate::Error;
use crate::dockerfile::mount::{self, MountKind};
use crate::dockerfile::{Command, Run};
use crate::error::{io_error, storing};

/// So much of the end of a failed command's output is shown, in bytes.
const TAIL_BYTES: usize = 256 << 10;
/// A longer line is told in pieces, in bytes.
const LINE_BYTES: usize = 4 << 10;
/// Where SSH agents are that say no place; a dot and a number follow.
const AGENTS: &str = "/run/buildkit/ssh_agent";
/// Tells `ssh` where its agent is.
const AGENT_VARIABLE: &str = "SSH_AUTH_SOCK";
/// Where a heredoc that brings its own interpreter is run from.
const SCRIPTS: &str = "/dev/pipes";

/// What a step is before anything of it is made: all of its key.
struct Asked {
    argv: Vec<String>,
    /// The name and text of a script that the command is.
    script: Option<(String, String)>,
    network: RunNetwork,
    env: Vec<(String, String)>,
    cwd: String,
    user: String,
    mounts: Vec<Resolved>,
}

impl StageBuilder<'_> {
    /// RUN.
    pub(super) fn run(&mut self, line: u32, text: &str, run: &Run) -> Result<Made, Error> {
        let error = |message: String| self.build.error(line, format!("RUN {message}"));
        let runner = self.build.options.runner.clone().ok_or_else(|| {
            error("cannot be carried out: whoever builds here has no runtime for it".to_owned())
        })?;
        if !self.build.runs_platform() {
            return Err(error(format!(
                "cannot be carried out for {}: this machine runs other programs",
                self.build.platform
            )));
        }
        let asked = self.asked(line, run)?;
        let key = self.key_of(&asked);
        let store = self.build.store;
        if !self.build.options.no_cache
            && let Some(layer) = cache::read(store, &key)
        {
            return Ok(Made::Layer(layer, true));
        }
        self.begun(text);
        let lower = self.draft.unpacked(store)?;
        let below = View::of_layers(lower.clone());
        let (upper, work) = (self.temp_dir("upper-")?, self.temp_dir("work-")?);
        like_root(upper.path(), &below)?;
        // A working directory that only the config names is made, as COPY would.
        copy::working_dir(&asked.cwd, None, &below)
            .map_err(error)?
            .materialise(upper.path(), false)?;
        let mut prepared = self.prepare_mounts(line, asked.mounts)?;
        let scripts = self.temp_dir("script-")?;
        if let Some(script) = &asked.script {
            prepared.mounts.push(show_script(scripts.path(), script)?);
        }
        let longest = self.build.options.step_timeout;
        let request = RunRequest {
            lower,
            upper: upper.path().to_owned(),
            work: work.path().to_owned(),
            argv: asked.argv,
            env: self.whole_environment(asked.env, &mut prepared),
            cwd: asked.cwd,
            user: asked.user,
            mounts: prepared.mounts.clone(),
            network: asked.network,
            hosts: self.build.options.hosts.clone(),
            stop: Arc::clone(&self.build.stop),
            deadline: longest.and_then(|longest| Instant::now().checked_add(longest)),
        };
        let mut output = Output::default();
        let ended = runner.run(&request, &mut |bytes| {
            output.take(bytes, &mut |line| self.line(line));
        });
        output.finish(&mut |line| self.line(line));
        // Secrets go at once, whatever came of it.
        drop(prepared);
        if self.build.stop.load(Ordering::Relaxed) {
            return Err(given_up());
        }
        if let Some(message) = self.failure(text, &ended, request.is_over()) {
            self.failed(text, output.tail());
            return Err(self.build.error(line, message));
        }
        let layer = upper::store(store, upper, &below, self.build.epoch_s, &self.build.stop)?;
        cache::write(store, &key, layer.as_ref())?;
        Ok(Made::Layer(layer, false))
    }

    fn asked(&self, line: u32, run: &Run) -> Result<Asked, Error> {
        let (argv, script) = self.argv(run);
        Ok(Asked {
            argv,
            script,
            network: match run.network.as_deref() {
                None => self.build.options.network,
                Some("none") => RunNetwork::None,
                Some("host") => RunNetwork::Host,
                Some(_) => RunNetwork::Default,
            },
            env: self.environment(),
            cwd: self.draft.working_dir().to_owned(),
            user: self.draft.text("User").to_owned(),
            mounts: self.mounts_of(line, run)?,
        })
    }

    fn mounts_of(&self, line: u32, run: &Run) -> Result<Vec<Resolved>, Error> {
        let error = |message: String| self.build.error(line, format!("RUN {message}"));
        let (mut mounts, mut agents) = (Vec::new(), 0);
        for text in &run.mounts {
            let expand = |word: &str| {
                self.expand(line, "RUN --mount", word)
                    .map_err(|error| error.to_string())
            };
            let mut mount = mount::parse(text, &expand).map_err(error)?;
            if mount.kind == MountKind::Ssh {
                let usual = || format!("{AGENTS}.{agents}");
                mount.target = Some(mount.target.unwrap_or_else(usual));
                agents += 1;
            }
            mounts.push(self.resolve_mount(line, mount)?);
        }
        Ok(mounts)
    }

    /// What the step is known by in the cache.
    fn key_of(&self, asked: &Asked) -> String {
        let mut key = Key::new("layby run 1");
        key.field(self.draft.chain());
        key.field(self.build.epoch_s.unwrap_or(u64::MAX).to_le_bytes());
        key.list(&asked.argv);
        key.list(asked.script.iter().map(|(_, text)| text));
        key.list(asked.env.iter().flat_map(|(name, value)| [name, value]));
        key.field(&asked.cwd);
        key.field(&asked.user);
        key.field([asked.network as u8]);
        key.list(asked.mounts.iter().map(Resolved::identity));
        let hosts = &self.build.options.hosts;
        key.list(hosts.iter().flat_map(|(name, address)| [name, address]));
        // What a secret or an agent opened is for its owner. So is what came out of a folder that its owner's steps alone fill,
        // or through a proxy of his: it may be anything.
        let is_apart = self.build.options.is_apart;
        let lent = asked.mounts.iter().any(|mount| mount.is_lent(is_apart));
        if lent || (is_apart && !self.proxies().is_empty()) {
            key.field(&self.build.options.steps_owner);
        }
        key.finish()
    }

    /// The environment with what no layer depends on: proxies, secrets, the place of an SSH agent.
    fn whole_environment(
        &self,
        env: Vec<(String, String)>,
        prepared: &mut Prepared,
    ) -> Vec<(String, String)> {
        let mut env = env;
        env.extend(self.proxies());
        env.append(&mut prepared.env);
        if let Some(agent) = prepared.agent.take()
            && env.iter().all(|(name, _)| name != AGENT_VARIABLE)
        {
            env.push((AGENT_VARIABLE.to_owned(), agent));
        }
        env
    }

    /// Why a step failed that has ended so, if it did.
    fn failure(&self, text: &str, ended: &Result<i32, String>, is_over: bool) -> Option<String> {
        let first = text.lines().next().unwrap_or(text);
        let shown: String = first.chars().take(200).collect();
        match (ended, self.build.options.step_timeout) {
            (Ok(0), _) => None,
            (_, Some(longest)) if is_over => Some(format!(
                "{shown} took longer than {} s, the most that a step may take; `layby build --timeout` gives it more",
                longest.as_secs()
            )),
            (Ok(code), _) => Some(format!("{shown} ended with exit code {code}")),
            (Err(reason), _) => Some(format!("RUN cannot be carried out: {reason}")),
        }
    }

    /// The command; and the name and text of a script to be put where it looks for it.
    fn argv(&self, run: &Run) -> (Vec<String>, Option<(String, String)>) {
        let line = match &run.command {
            Command::Exec(words) => return (words.clone(), None),
            Command::Shell(line) => line,
        };
        let Some(first) = run.heredocs.first() else {
            return (self.in_shell(line), None);
        };
        // The whole line is one heredoc: its text is the script.
        let is_script = run.heredocs.len() == 1 && !line.trim().contains(char::is_whitespace);
        if is_script && first.text.starts_with("#!") {
            let name = first.name.replace('/', "_");
            let script = (name.clone(), first.text.clone());
            return (vec![format!("{SCRIPTS}/{name}")], Some(script));
        }
        if is_script {
            return (self.in_shell(&first.text), None);
        }
        // The shell knows heredocs itself.
        let mut full = line.clone();
        for heredoc in &run.heredocs {
            full.push('\n');
            full.push_str(&heredoc.written());
        }
        (self.in_shell(&full), None)
    }

    /// The image's environment, and the ARGs that it does not hide.
    fn environment(&self) -> Vec<(String, String)> {
        let mut env: Vec<(String, String)> = self
            .draft
            .list("Env")
            .into_iter()
            .map(|pair| match pair.split_once('=') {
                Some((name, value)) => (name.to_owned(), value.to_owned()),
                None => (pair, String::new()),
            })
            .collect();
        for (name, value) in &self.draft.args {
            if env.iter().all(|(other, _)| other != name) {
                env.push((name.clone(), value.clone()));
            }
        }
        env
    }

    /// The proxies that were given as build arguments and that no ARG names: no layer depends on them.
    fn proxies(&self) -> Vec<(String, String)> {
        let given = self.build.options.args.iter().filter(|(name, _)| {
            let name = name.to_ascii_lowercase();
            ["http", "https", "ftp", "no", "all"]
                .iter()
                .any(|kind| name == format!("{kind}_proxy"))
        });
        let env = self.environment();
        given
            .filter(|(name, _)| env.iter().all(|(other, _)| other != *name))
            .map(|(name, value)| (name.clone(), value.clone()))
            .collect()
    }
}

/// Puts a script into a folder; gives the mount that shows it.
fn show_script(folder: &Path, (name, text): &(String, String)) -> Result<RunMount, Error> {
    let path = folder.join(name);
    let written = fs::write(&path, text)
        .and_then(|()| fs::set_permissions(&path, Permissions::from_mode(0o755)));
    written.map_err(storing("a script of the build", &path))?;
    Ok(RunMount {
        target: format!("{SCRIPTS}/{name}"),
        source: RunSource::Bind(path),
        read_only: true,
    })
}

/// Gives a new upper directory what the image's root has: overlayfs shows the upper one's.
fn like_root(upper: &Path, below: &View) -> Result<(), Error> {
    let root = below.lookup(&[]).map_err(io_error("look at", upper))?;
    let Some(root) = root else {
        return Ok(());
    };
    let (uid, gid) = (root.metadata.uid(), root.metadata.gid());
    let mode = Permissions::from_mode(root.metadata.mode() & 0o7777);
    // Without root, layers belong to whoever unpacked them, and so does this.
    let owned = match (uid, gid) == owner_of(upper) {
        true => Ok(()),
        false => std::os::unix::fs::chown(upper, Some(uid), Some(gid)),
    };
    owned
        .and_then(|()| fs::set_permissions(upper, mode))
        .map_err(io_error("set the owner of", upper))
}

fn owner_of(path: &Path) -> (u32, u32) {
    fs::metadata(path).map_or((0, 0), |metadata| (metadata.uid(), metadata.gid()))
}

/// What a command writes: lines as they come, and the end of it all.
#[derive(Default)]
struct Output {
    line: Vec<u8>,
    tail: VecDeque<u8>,
    is_cut: bool,
}

impl Output {
    fn take(&mut self, bytes: &[u8], tell: &mut dyn FnMut(String)) {
        self.tail.extend(bytes);
        let over = self.tail.len().saturating_sub(TAIL_BYTES);
        self.is_cut |= over > 0;
        self.tail.drain(..over);
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            self.line.extend_from_slice(piece);
            if piece.ends_with(b"\n") || self.line.len() >= LINE_BYTES {
                self.finish(tell);
            }
        }
    }

    /// Tells a line that is not whole.
    fn finish(&mut self, tell: &mut dyn FnMut(String)) {
        let line = std::mem::take(&mut self.line);
        let text = String::from_utf8_lossy(&line);
        let text = text.trim_end_matches(['\n', '\r']);
        // What a progress bar wrote over is gone on a terminal, too.
        let last = text.rsplit('\r').next().unwrap_or(text);
        if !line.is_empty() {
            tell(last.to_owned());
        }
    }

    /// The end of all that was written, in whole lines.
    fn tail(&self) -> String {
        let bytes: Vec<u8> = self.tail.iter().copied().collect();
        let text = String::from_utf8_lossy(&bytes);
        match (self.is_cut, text.split_once('\n')) {
            (true, Some((_, rest))) => format!("[... cut ...]\n{rest}"),
            _ => text.into_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn output_comes_in_lines_and_its_end_is_kept() {
        let mut output = Output::default();
        let mut lines = Vec::new();
        for bytes in ["a\nb", "c\r\n", "10%\r20%\r30%\n", "last"] {
            output.take(bytes.as_bytes(), &mut |line| lines.push(line));
        }
        output.finish(&mut |line| lines.push(line));
        assert_eq!(lines, ["a", "bc", "30%", "last"]);
        assert_eq!(output.tail(), "a\nbc\r\n10%\r20%\r30%\nlast");
        for n in 0..100_000 {
            output.take(format!("line {n}\n").as_bytes(), &mut |_| {});
        }
        let tail = output.tail();
        assert!(tail.len() <= TAIL_BYTES + 20 && tail.ends_with("line 99999\n"));
        assert!(tail.starts_with("[... cut ...]\nline "), "{}", &tail[..40]);
    }
}
