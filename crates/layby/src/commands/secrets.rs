//! `layby secret`: values go in by standard input, a file or a prompt; never by an argument, which others see.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, IsTerminal, Read};
use std::path::Path;

use anyhow::{Context, Result, bail};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use layby_control::api::types::{KeptSecret, SetSecrets};
use layby_model::secret::{MAX_VALUE_BYTES, SecretValue};

use crate::cli::{Secret, SecretFor, SecretImport, SecretSet};
use crate::client::{Client, encode};
use crate::commands::login::ask;
use crate::events;
use crate::out::say;
use crate::show;

/// The longest file of `layby secret import`, in bytes.
const MAX_FILE_BYTES: usize = 1 << 20;

/// Does what `command` says.
///
/// # Errors
/// What the node refused; a value that cannot be read.
pub(crate) async fn secret(client: &Client, command: Secret) -> Result<()> {
    match command {
        Secret::Set(options) => set(client, options).await,
        Secret::Import(options) => import(client, options).await,
        Secret::Ls { app, json } => ls(client, app, json.json).await,
        Secret::Rm { name, app } => {
            let query: Vec<(&str, String)> = app.into_iter().map(|app| ("app", app)).collect();
            let path = format!("/v1/secrets/{}", encode(&name));
            client.forget(&path, &query).await?;
            say!("{name}  removed");
            Ok(())
        }
        Secret::RotateKey => {
            client.order("/v1/secrets/rotate-key", &[]).await?;
            say!("All secrets are encrypted with a new key.");
            Ok(())
        }
    }
}

async fn set(client: &Client, options: SecretSet) -> Result<()> {
    let value = match &options.file {
        Some(file) => from_file(file, MAX_VALUE_BYTES)?,
        None if io::stdin().is_terminal() => typed(&options.name)?,
        None => piped()?,
    };
    let values = [(options.name, value)].into();
    send(client, values, options.to).await
}

async fn import(client: &Client, options: SecretImport) -> Result<()> {
    let text = match options.file.to_str() {
        Some("-") => bounded(io::stdin(), MAX_FILE_BYTES, "standard input")?,
        _ => from_file(&options.file, MAX_FILE_BYTES)?,
    };
    let file = options.file.display().to_string();
    let pairs = layby_manifest::read_env_file(&file, text.bytes());
    let pairs = pairs.map_err(|wrong| {
        let lines: Vec<String> = wrong.iter().map(ToString::to_string).collect();
        anyhow::anyhow!(lines.join("\n"))
    })?;
    if pairs.is_empty() {
        bail!("{file} has no KEY=VALUE line: nothing was set");
    }
    let named = |key: String| match &options.group {
        Some(group) => format!("{group}/{key}"),
        None => key,
    };
    let values = pairs
        .into_iter()
        .map(|(key, value)| (named(key), SecretValue::new(value.into_bytes())));
    send(client, values.collect(), options.to).await
}

async fn send(client: &Client, values: BTreeMap<String, SecretValue>, to: SecretFor) -> Result<()> {
    let values = values.iter();
    let body = SetSecrets {
        app: to.app,
        values: values
            .map(|(name, value)| (name.clone(), STANDARD.encode(value.bytes())))
            .collect(),
        no_deploy: to.no_deploy,
    };
    let query = [("detach", to.detach.to_string())];
    let lines = client.post_for_lines("/v1/secrets", &query, &body).await?;
    events::show(client, lines, events::Style::Auto).await
}

async fn ls(client: &Client, app: Option<String>, json: bool) -> Result<()> {
    let query: Vec<(&str, String)> = app.into_iter().map(|app| ("app", app)).collect();
    let secrets: Vec<KeptSecret> = client.get("/v1/secrets", &query).await?;
    if json {
        say!("{}", serde_json::to_string_pretty(&secrets)?);
        return Ok(());
    }
    if secrets.is_empty() {
        say!("No secrets yet: `layby secret set NAME` makes one.");
        return Ok(());
    }
    let mut table = show::table(&["SECRET", "APP", "VERSION", "SET", "BY", "USED BY"]);
    for secret in secrets {
        let users = secret.used_by.iter();
        let users = users.map(|user| match secret.behind.get(user) {
            Some(version) => format!("{user} (version {version})"),
            None => user.clone(),
        });
        let used_by = match secret.used_by.is_empty() {
            true => "-".to_owned(),
            false => users.collect::<Vec<_>>().join(", "),
        };
        table.add_row(vec![
            secret.name,
            secret.app.unwrap_or_else(|| "-".to_owned()),
            secret.version.to_string(),
            to_the_second(&secret.set_at),
            secret.set_by,
            used_by,
        ]);
    }
    show::print(&table);
    Ok(())
}

/// A time without its fractions; one that cannot be read is shown as it is.
fn to_the_second(at: &str) -> String {
    match at.parse::<jiff::Timestamp>() {
        Ok(at) => at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
        Err(_) => at.to_owned(),
    }
}

fn typed(name: &str) -> Result<SecretValue> {
    let value = SecretValue::new(ask(&format!("{name}: "), true)?.into_bytes());
    if value.bytes().is_empty() {
        bail!("nothing was typed, and nothing was set");
    }
    Ok(value)
}

/// What comes by standard input, without the line's end that `echo` and the like put after it.
fn piped() -> Result<SecretValue> {
    // With room for that end.
    let value = bounded(io::stdin(), MAX_VALUE_BYTES + 2, "standard input")?;
    let bytes = value.bytes();
    let bytes = bytes.strip_suffix(b"\n").unwrap_or(bytes);
    let bytes = bytes.strip_suffix(b"\r").unwrap_or(bytes);
    if bytes.is_empty() {
        bail!("nothing came by standard input, and nothing was set");
    }
    Ok(SecretValue::new(bytes.to_vec()))
}

fn from_file(path: &Path, max_bytes: usize) -> Result<SecretValue> {
    let shown = path.display().to_string();
    let file = File::open(path).with_context(|| format!("cannot open {shown}"))?;
    bounded(file, max_bytes, &shown)
}

fn bounded(from: impl Read, max_bytes: usize, shown: &str) -> Result<SecretValue> {
    // All of it at once: growing would leave copies behind.
    let mut bytes = Vec::with_capacity(max_bytes + 1);
    let read = from.take(max_bytes as u64 + 1).read_to_end(&mut bytes);
    let value = SecretValue::new(bytes);
    read.with_context(|| format!("cannot read {shown}"))?;
    if value.bytes().len() > max_bytes {
        bail!("{shown} is larger than {} KiB", max_bytes >> 10);
    }
    Ok(value)
}
