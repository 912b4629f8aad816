//! `layby state`: the whole node as one encrypted file, and back.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufReader, BufWriter, IsTerminal, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use layby_control::{MasterKey, state};
use layby_model::secret::SecretValue;

use crate::cli::{State, StateFile};
use crate::commands::login::ask;
use crate::commands::node::require_root;
use crate::out::say;
use crate::paths::Paths;

/// The longest passphrase, in bytes.
const MAX_PASSPHRASE_BYTES: u64 = 64 << 10;

/// Does what `command` says, on this machine's data directory.
///
/// # Errors
/// Not root; a node that runs where none may; a wrong passphrase or file; what the disk says.
pub(crate) fn state(paths: &Paths, command: State) -> Result<()> {
    require_root()?;
    match command {
        State::Export(options) => export(paths, &options),
        State::Import(options) => import(paths, &options),
    }
}

fn export(paths: &Paths, options: &StateFile) -> Result<()> {
    if !paths.data_dir.join("layby.db").exists() {
        bail!("there is no node's data in {}", paths.data_dir.display());
    }
    let passphrase = passphrase(options, true)?;
    let shown = options.file.display();
    let mut aside = options.file.as_os_str().to_owned();
    aside.push(".new");
    let aside = PathBuf::from(aside);
    let to = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&aside)
        .with_context(|| format!("cannot make {}", aside.display()))?;
    let mut to = BufWriter::new(to);
    let written = state::export(&paths.data_dir, &key(paths, options), &passphrase, &mut to)
        .map_err(anyhow::Error::from)
        .and_then(|()| to.flush().map_err(Into::into))
        .and_then(|()| to.get_ref().sync_all().map_err(Into::into))
        .and_then(|()| fs::rename(&aside, &options.file).map_err(Into::into));
    if let Err(error) = written {
        // What is there opens with nothing; the reason for it is the one to tell.
        let _ = fs::remove_file(&aside);
        return Err(error.context(format!("{shown} was not written")));
    }
    say!(
        "{shown}  written: volumes and images are not in it, and without its passphrase it is worth nothing"
    );
    Ok(())
}

fn import(paths: &Paths, options: &StateFile) -> Result<()> {
    let from = File::open(&options.file)
        .with_context(|| format!("cannot open {}", options.file.display()))?;
    fs::create_dir_all(&paths.data_dir)
        .with_context(|| format!("cannot make {}", paths.data_dir.display()))?;
    // Held to the end: no node starts meanwhile.
    let lock = File::create(paths.lock())
        .with_context(|| format!("cannot open {}", paths.lock().display()))?;
    if lock.try_lock().is_err() {
        bail!(
            "a node runs on {}: a state is put into the data of a node that does not run and has nothing yet",
            paths.data_dir.display()
        );
    }
    let passphrase = passphrase(options, false)?;
    let key = key(paths, options);
    let done = state::import(&paths.data_dir, &key, &passphrase, BufReader::new(from))?;
    for service in &done.services {
        say!("{service}  put back");
    }
    if !done.images.is_empty() {
        say!(
            "The services need these images, which are loaded (`layby image load`), pushed or pulled first:"
        );
        for (name, digest) in &done.images {
            say!("  {name}  {digest}");
        }
    }
    say!("All is as it was: start the node with `layby serve`.");
    Ok(())
}

fn key(paths: &Paths, options: &StateFile) -> MasterKey {
    let file = options.master_key.clone();
    MasterKey::File(file.unwrap_or_else(|| paths.data_dir.join("master.key")))
}

fn passphrase(options: &StateFile, is_new: bool) -> Result<SecretValue> {
    let text = match &options.passphrase_file {
        Some(file) if file == Path::new("-") => read(io::stdin())?,
        Some(file) => {
            let opened =
                File::open(file).with_context(|| format!("cannot open {}", file.display()))?;
            read(opened)?
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
            first
        }
    };
    Ok(text)
}

fn read(from: impl Read) -> Result<SecretValue> {
    let mut bytes = Vec::new();
    from.take(MAX_PASSPHRASE_BYTES).read_to_end(&mut bytes)?;
    let text = SecretValue::new(bytes);
    Ok(SecretValue::new(text.bytes().trim_ascii_end().to_vec()))
}
