//! `layby state`: the whole node as one encrypted file, and back. A node that runs is asked; where none does, its data are
//! read and written here.

use std::fs::File;
use std::io::{self, BufReader, BufWriter, IsTerminal, Read, Seek, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hyper::header::{HeaderName, HeaderValue};
use layby_control::api::types::{ImportedView, StateImage, StateView};
use layby_control::{MasterKey, state};
use layby_model::secret::SecretValue;
use tempfile::NamedTempFile;

use crate::cli::{Export, Import, State, StateKeys};
use crate::client::Client;
use crate::commands::images::size;
use crate::commands::login::ask;
use crate::commands::node::require_root;
use crate::out::{say, tell};
use crate::paths::Paths;

/// The longest passphrase, in bytes: it has to fit into a request's head.
const MAX_PASSPHRASE_BYTES: u64 = 4 << 10;
/// What stands for standard output.
const STANDARD_OUTPUT: &str = "-";
/// The header that it is said in.
const PASSPHRASE: HeaderName = HeaderName::from_static("layby-passphrase");

/// Does what `command` says.
///
/// # Errors
/// What the node refused; without one: not root, a wrong passphrase or file, what the disk says.
pub(crate) async fn state(paths: &Paths, client: &Client, command: State) -> Result<()> {
    match command {
        State::Export(options) => export(paths, client, &options).await,
        State::Import(options) => import(paths, client, &options).await,
    }
}

async fn export(paths: &Paths, client: &Client, options: &Export) -> Result<()> {
    if options.file == Path::new(STANDARD_OUTPUT) {
        return export_out(paths, client, options).await;
    }
    let file = &place(options)?;
    let there = || {
        format!(
            "{} is there already, and was left as it is: name another file, or replace it with --force",
            file.display()
        )
    };
    if !options.force && file.symlink_metadata().is_ok() {
        bail!(there());
    }
    let runs = client.answers().await?;
    let _lock = match runs {
        true => None,
        false => Some(unused(paths)?),
    };
    let passphrase = passphrase(&options.keys, true)?;
    let folder = match file.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        Some(_) | None => Path::new("."),
    };
    if !folder.is_dir() {
        bail!("there is no folder {}", folder.display());
    }
    // For nobody else to read; gone unless it gets its name.
    let aside = NamedTempFile::with_prefix_in(".layby-state-", folder)
        .with_context(|| format!("cannot write into {}", folder.display()))?;
    let mut to = BufWriter::new(aside);
    let view = match runs {
        true => fetch(client, options, &passphrase, &mut to).await,
        false => write(paths, options, &passphrase, &mut to),
    };
    let not_written = || format!("{} was not written", file.display());
    let view = view.with_context(not_written)?;
    let aside = to.into_inner().map_err(io::IntoInnerError::into_error);
    let aside = aside.with_context(not_written)?;
    aside.as_file().sync_all().with_context(not_written)?;
    let bytes = aside.as_file().metadata().map_or(0, |data| data.len());
    let placed = match options.force {
        true => aside.persist(file),
        false => aside.persist_noclobber(file),
    };
    placed.map_err(|error| match error.error.kind() {
        io::ErrorKind::AlreadyExists => anyhow::anyhow!(there()),
        _ => anyhow::Error::from(error.error).context(not_written()),
    })?;
    File::open(folder).and_then(|folder| folder.sync_all())?;
    tell_written(options, &view, bytes, |line| say!("{line}"));
    Ok(())
}

/// Where the file comes to be: with --force, a symbolic link that is there stays, and leads to the new one.
fn place(options: &Export) -> Result<PathBuf> {
    let file = options.file.clone();
    let is_link = file.symlink_metadata().is_ok_and(|data| data.is_symlink());
    if !(options.force && is_link) {
        return Ok(file);
    }
    let target = std::fs::canonicalize(&file).or_else(|_| {
        let to = std::fs::read_link(&file)?;
        Ok::<_, io::Error>(file.parent().unwrap_or(Path::new("")).join(to))
    });
    target.with_context(|| format!("{} leads nowhere", file.display()))
}

/// To standard output; what is told beside it goes to standard error.
async fn export_out(paths: &Paths, client: &Client, options: &Export) -> Result<()> {
    if io::stdout().is_terminal() {
        bail!("a state is no text for a terminal: name a file, or lead standard output somewhere");
    }
    let runs = client.answers().await?;
    let _lock = match runs {
        true => None,
        false => Some(unused(paths)?),
    };
    let passphrase = passphrase(&options.keys, true)?;
    let mut to = Counted {
        to: BufWriter::new(io::stdout()),
        bytes: 0,
    };
    let view = match runs {
        true => fetch(client, options, &passphrase, &mut to).await?,
        false => write(paths, options, &passphrase, &mut to)?,
    };
    to.flush()?;
    tell_written(options, &view, to.bytes, |line| tell!("{line}"));
    Ok(())
}

/// Counts what is written.
struct Counted<W> {
    to: W,
    bytes: u64,
}

impl<W: Write> Write for Counted<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let length = self.to.write(bytes)?;
        self.bytes += length as u64;
        Ok(length)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.to.flush()
    }
}

/// From a node that runs.
async fn fetch(
    client: &Client,
    options: &Export,
    passphrase: &SecretValue,
    to: &mut impl Write,
) -> Result<StateView> {
    // First of all: who may not have it is refused there, and that is recorded.
    let query = [("images", options.images.to_string())];
    let head = [(PASSPHRASE, header(passphrase)?)];
    let path = "/v1/state/export";
    let mut from = client.download_by_post(path, &query, &head).await?;
    let mut piece = vec![0; 64 << 10];
    loop {
        let length = tokio::io::AsyncReadExt::read(&mut from, &mut piece)
            .await
            .context("the node broke it off: see its log")?;
        if length == 0 {
            return client.get("/v1/state", &[]).await;
        }
        to.write_all(&piece[..length])?;
    }
}

/// From data that no node uses.
fn write(
    paths: &Paths,
    options: &Export,
    passphrase: &SecretValue,
    to: &mut impl Write,
) -> Result<StateView> {
    let (data, key) = (&paths.data_dir, key(paths, &options.keys));
    state::export(data, &key, passphrase, options.images, to)?;
    Ok(state::look(data)?)
}

fn tell_written(options: &Export, view: &StateView, bytes: u64, say: impl Fn(&str)) {
    let shown = options.file.display();
    say(&format!(
        "{shown}  written ({}): without its passphrase it is worth nothing, and what is in volumes is not in it",
        size(bytes)
    ));
    let gone = view
        .images
        .iter()
        .filter(|image| image.size_bytes.is_none());
    list(
        "These images are needed and not on the node, so that they are not in the file either:",
        gone,
        &say,
    );
    let here = view
        .images
        .iter()
        .filter(|image| image.size_bytes.is_some());
    match options.images {
        true => match here.count() {
            1 => say("1 image is in it."),
            n => say(&format!("{n} images are in it.")),
        },
        false => list(
            "These images were built or loaded on the node, and no other registry is known to have them: take them along with --images, or keep what they are made of:",
            here.filter(|image| image.origin.is_none()),
            &say,
        ),
    }
}

/// What is live in full; what only earlier revisions need is counted.
fn list<'a>(title: &str, images: impl Iterator<Item = &'a StateImage>, say: impl Fn(&str)) {
    let (now, before): (Vec<_>, Vec<_>) = images.partition(|image| image.current);
    if now.is_empty() && before.is_empty() {
        return;
    }
    say(title);
    for image in &now {
        let used_by = image.used_by.join(", ");
        say(&format!("  {}  {}  ({used_by})", image.name, image.digest));
    }
    match before.len() {
        0 => {}
        1 => say("  and 1 that only an earlier revision needs"),
        n => say(&format!("  and {n} that only earlier revisions need")),
    }
}

async fn import(paths: &Paths, client: &Client, options: &Import) -> Result<()> {
    let from = File::open(&options.file)
        .with_context(|| format!("cannot open {}", options.file.display()))?;
    let runs = client.answers().await?;
    let done = match runs {
        true => {
            // What can be refused is refused before all of a large file is sent.
            let there: StateView = client.get("/v1/state", &[]).await?;
            let is_something = there.services.len() + there.jobs.len() > 0 || there.secrets > 0;
            if is_something && !options.replace {
                bail!(
                    "the node has services, jobs or secrets, and a state is put into one that has none (nothing was changed)\n  \
                     --replace takes them down first; volumes stay"
                );
            }
            let passphrase = passphrase(&options.keys, false)?;
            look_ahead(&passphrase, &from)?;
            let query = [("replace", options.replace.to_string())];
            let head = [(PASSPHRASE, header(&passphrase)?)];
            let body = tokio::fs::File::from_std(from);
            let path = "/v1/state/import";
            client.upload_with(path, &query, &head, body).await?
        }
        false => put(paths, options, from)?,
    };
    tell_done(&done);
    if !runs {
        say!("All is as it was: start the node with `layby serve`.");
    }
    Ok(())
}

/// Whether it is a state that the passphrase opens. A pipe is read once: what is wrong with it shows as it is read.
fn look_ahead(passphrase: &SecretValue, mut from: &File) -> Result<()> {
    if from.metadata()?.is_file() {
        state::check(passphrase, from)?;
        from.rewind()?;
    }
    Ok(())
}

/// Into data that no node uses.
fn put(paths: &Paths, options: &Import, from: File) -> Result<ImportedView> {
    if options.replace {
        bail!(
            "--replace is for a node that runs: without one, name an empty data directory with --data"
        );
    }
    require_root()?;
    // What can be refused is refused before anything is made.
    state::check_empty(&paths.data_dir)?;
    let passphrase = passphrase(&options.keys, false)?;
    look_ahead(&passphrase, &from)?;
    paths.create_data()?;
    let _lock = alone(paths)?;
    let key = key(paths, &options.keys);
    let put = state::import(&paths.data_dir, &key, &passphrase, BufReader::new(from));
    Ok(put?)
}

fn tell_done(done: &ImportedView) {
    for id in done.services.iter().chain(&done.jobs) {
        say!("{id}  put back");
    }
    match done.loaded {
        0 => {}
        1 => say!("1 image came with it."),
        n => say!("{n} images came with it."),
    }
    let (pulled, made): (Vec<_>, Vec<_>) = done.missing.iter().partition(|i| i.origin.is_some());
    list(
        "These images are needed and not here; they are pulled with the next `layby redeploy`:",
        pulled.into_iter(),
        |line| say!("{line}"),
    );
    list(
        "These images are needed and not here: load (`layby image load`), push, pull or build them first:",
        made.into_iter(),
        |line| say!("{line}"),
    );
    for warning in &done.warnings {
        tell!("warning: {warning}");
    }
    for token in &done.kept_tokens {
        tell!("the token {token} stays the node's own: the state had another one of that name");
    }
}

/// The same where there have to be some.
fn unused(paths: &Paths) -> Result<File> {
    if !paths.data_dir.join("layby.db").exists() {
        bail!("there is no node's data in {}", paths.data_dir.display());
    }
    alone(paths)
}

/// That no node runs on these data, and none begins to meanwhile.
fn alone(paths: &Paths) -> Result<File> {
    require_root()?;
    let data = paths.data_dir.display();
    let lock = File::create(paths.lock())
        .with_context(|| format!("cannot open {}", paths.lock().display()))?;
    if lock.try_lock().is_err() {
        bail!("the node on {data} is just starting or ending: try again");
    }
    Ok(lock)
}

fn key(paths: &Paths, keys: &StateKeys) -> MasterKey {
    let file = keys.master_key.clone();
    MasterKey::File(file.unwrap_or_else(|| paths.data_dir.join("master.key")))
}

fn header(passphrase: &SecretValue) -> Result<HeaderValue> {
    let mut value = HeaderValue::try_from(STANDARD.encode(passphrase.bytes()))?;
    value.set_sensitive(true);
    Ok(value)
}

fn passphrase(keys: &StateKeys, is_new: bool) -> Result<SecretValue> {
    match &keys.passphrase_file {
        Some(file) if file == Path::new("-") => read(io::stdin()),
        Some(file) => {
            let opened =
                File::open(file).with_context(|| format!("cannot open {}", file.display()))?;
            read(opened)
        }
        None if !io::stdin().is_terminal() => {
            bail!(
                "there is no terminal to ask at: give the passphrase with --passphrase-file FILE (- is standard input)"
            )
        }
        None => {
            let first = SecretValue::new(ask("Passphrase: ", true)?.into_bytes());
            if is_new && first.bytes() != ask("Once more: ", true)?.as_bytes() {
                bail!("the two are not the same: nothing was written");
            }
            Ok(first)
        }
    }
}

fn read(from: impl Read) -> Result<SecretValue> {
    let mut bytes = Vec::new();
    from.take(MAX_PASSPHRASE_BYTES + 1)
        .read_to_end(&mut bytes)?;
    let text = SecretValue::new(bytes);
    if text.bytes().len() as u64 > MAX_PASSPHRASE_BYTES {
        bail!("the passphrase is longer than {MAX_PASSPHRASE_BYTES} bytes");
    }
    Ok(SecretValue::new(text.bytes().trim_ascii_end().to_vec()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pipe_is_not_read_ahead_and_a_file_that_is_no_state_is_refused() {
        let passphrase = SecretValue::new(b"a long enough passphrase".to_vec());
        let (from, mut to) = io::pipe().expect("a pipe");
        to.write_all(b"state").expect("written");
        drop(to);
        let from = File::from(std::os::fd::OwnedFd::from(from));
        look_ahead(&passphrase, &from).expect("left alone");
        assert_eq!(io::read_to_string(from).expect("text"), "state");
        let mut file = tempfile::tempfile().expect("a file");
        file.write_all(b"no state").expect("written");
        file.rewind().expect("at its beginning");
        assert!(look_ahead(&passphrase, &file).is_err());
    }
}
