//! `layby exec`.

use std::io::{IsTerminal, Write};

use anyhow::{Context, Result, bail};
use futures_util::{SinkExt, StreamExt};
use layby_control::api::types::StatusView;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use tokio_tungstenite::tungstenite::Message;

use crate::cli::Exec;
use crate::client::Client;
use crate::commands::services;
use crate::exit::Passed;
use crate::out::{BROKEN_PIPE, tell};
use crate::terminal::{self, Raw};

/// The streams of `v5.channel.k8s.io`, by number.
const STDIN: u8 = 0;
const STDOUT: u8 = 1;
const STDERR: u8 = 2;
const STATUS: u8 = 3;
const RESIZE: u8 = 4;
const CLOSE: u8 = 255;

/// The exit code of an error of usage.
const USAGE: u8 = 2;

/// So much of what a command writes is gathered.
const MAX_GATHERED_BYTES: usize = 64 * 1024;

/// The exit code of one whose end is not known, as Docker has it.
const UNKNOWN: u8 = 125;

/// Runs a command in a container, with this terminal or these pipes at its other end.
///
/// # Errors
/// It could not be begun; or its exit code, as [`Passed`].
pub(crate) async fn exec(client: &Client, options: &Exec) -> Result<()> {
    check(options.interactive, options.tty, &options.command)?;
    let path = services::find(client, &options.name).await?;
    let mut query = words(&options.command, &options.env);
    query.extend(options.workdir.clone().map(|dir| ("workdir", dir)));
    query.extend(options.user.clone().map(|user| ("user", user)));
    query.extend(options.at.query());
    let path = format!("{path}/exec");
    converse(client, &path, query, options.interactive, options.tty).await
}

/// Refuses what cannot be begun.
///
/// # Errors
/// There is no terminal to pass on, or no command.
pub(crate) fn check(interactive: bool, tty: bool, command: &[String]) -> Result<()> {
    if tty && interactive && !std::io::stdin().is_terminal() {
        bail!("the standard input is no terminal: leave -t out");
    }
    if command.first().is_none_or(String::is_empty) {
        tell!("layby: the command is empty: name a program after `--`");
        return Err(Passed(USAGE).into());
    }
    Ok(())
}

/// A command and its variables as the API takes them.
pub(crate) fn words(
    command: &[String],
    env: &[(String, Option<String>)],
) -> Vec<(&'static str, String)> {
    let command = command.iter().map(|word| ("command", word.clone()));
    let env = set(env).map(|(name, value)| ("env", format!("{name}={value}")));
    command.chain(env).collect()
}

/// The variables that have a value: as with Docker, one that this environment does not have is not set.
pub(crate) fn set(env: &[(String, Option<String>)]) -> impl Iterator<Item = (&String, &String)> {
    env.iter()
        .filter_map(|(name, value)| Some((name, value.as_ref()?)))
}

/// Begins a command at `path`, and is at its other end until it has ended.
///
/// # Errors
/// It could not be begun; or its exit code, as [`Passed`].
pub(crate) async fn converse(
    client: &Client,
    path: &str,
    mut query: Vec<(&'static str, String)>,
    interactive: bool,
    tty: bool,
) -> Result<()> {
    query.push(("stdin", interactive.to_string()));
    if tty {
        query.push(("tty", "true".to_owned()));
        if let Some((columns, rows)) = terminal::size() {
            query.push(("columns", columns.to_string()));
            query.push(("rows", rows.to_string()));
        }
    }
    let socket = client.web_socket(path, &query).await?;
    let (mut to, mut from) = socket.split();
    let raw = match tty && interactive {
        true => Some(Raw::enter()?),
        false => None,
    };
    let (send, mut messages) = mpsc::channel::<Vec<u8>>(4);
    // Apart, so that a command that does not read can still be heard.
    tokio::spawn(async move {
        while let Some(message) = messages.recv().await {
            if to.send(Message::Binary(message.into())).await.is_err() {
                return;
            }
        }
    });
    if interactive {
        tokio::spawn(pass_input(send.clone()));
    }
    if tty {
        tokio::spawn(pass_sizes(send.clone())?);
    }
    let mut ends = Ends::listen()?;
    let ended = loop {
        let message = tokio::select! {
            message = from.next() => message,
            code = ends.next() => {
                drop(raw);
                return Err(Passed(code).into());
            }
        };
        match message {
            Some(Ok(Message::Binary(bytes))) => match bytes.split_first() {
                Some((&STDOUT, bytes)) => put(std::io::stdout().lock(), bytes)?,
                // A terminal has both outputs of the command as one: this is the node's word, and here nothing else ends its lines.
                Some((&STDERR, bytes)) if raw.is_some() => {
                    let line = [b"\r\n", bytes.trim_ascii_end(), b"\r\n"].concat();
                    put(std::io::stderr().lock(), &line)?;
                }
                Some((&STDERR, bytes)) => put(std::io::stderr().lock(), bytes)?,
                Some((&STATUS, json)) => {
                    break serde_json::from_slice::<StatusView>(json)
                        .context("the node's answer is not understood")?;
                }
                Some(_) | None => {}
            },
            Some(Ok(Message::Close(_)) | Err(_)) | None => {
                drop(raw);
                tell!("layby: the node closed the connection: see its log");
                return Err(Passed(UNKNOWN).into());
            }
            Some(Ok(_)) => {}
        }
    };
    drop(raw);
    match ended.exit_code() {
        Some(0) => Ok(()),
        Some(code) => Err(Passed(u8::try_from(code).unwrap_or(UNKNOWN)).into()),
        None => {
            tell!("layby: {}", ended.message.unwrap_or_default());
            Err(Passed(UNKNOWN).into())
        }
    }
}

/// Runs a command with nobody at its other end. Gives its exit code, and the first of what it wrote to both outputs.
///
/// # Errors
/// It could not be begun, or its end is not known.
pub(crate) async fn gather(
    client: &Client,
    path: &str,
    mut query: Vec<(&'static str, String)>,
) -> Result<(i32, String)> {
    query.push(("stdin", "false".to_owned()));
    let mut socket = client.web_socket(path, &query).await?;
    let mut output = Vec::new();
    while let Some(Ok(message)) = socket.next().await {
        let Message::Binary(bytes) = message else {
            continue;
        };
        match bytes.split_first() {
            Some((&STDOUT | &STDERR, bytes)) => {
                let left = MAX_GATHERED_BYTES - output.len();
                output.extend(&bytes[..bytes.len().min(left)]);
            }
            Some((&STATUS, json)) => {
                let ended: StatusView =
                    serde_json::from_slice(json).context("the node's answer is not understood")?;
                let output = String::from_utf8_lossy(&output).into_owned();
                return match ended.exit_code() {
                    Some(code) => Ok((code, output)),
                    None => bail!("{}", ended.message.unwrap_or_default()),
                };
            }
            Some(_) | None => {}
        }
    }
    bail!("the node closed the connection: see its log")
}

async fn pass_input(send: mpsc::Sender<Vec<u8>>) {
    let mut input = terminal::input();
    while let Some(bytes) = input.recv().await {
        let mut message = vec![STDIN];
        message.extend(bytes);
        if send.send(message).await.is_err() {
            return;
        }
    }
    // Gone already: then it does not matter.
    let _ = send.send(vec![CLOSE, STDIN]).await;
}

fn pass_sizes(send: mpsc::Sender<Vec<u8>>) -> Result<impl Future<Output = ()>> {
    let mut changes = signal(SignalKind::window_change())?;
    Ok(async move {
        while changes.recv().await.is_some() {
            let Some((columns, rows)) = terminal::size() else {
                continue;
            };
            let mut message = vec![RESIZE];
            message.extend(format!("{{\"Width\":{columns},\"Height\":{rows}}}").bytes());
            if send.send(message).await.is_err() {
                return;
            }
        }
    })
}

/// The signals that end this program: the terminal is put right before.
struct Ends([(tokio::signal::unix::Signal, u8); 3]);

impl Ends {
    fn listen() -> Result<Self> {
        let end = |kind: SignalKind| -> Result<(tokio::signal::unix::Signal, u8)> {
            let code = u8::try_from(128 + kind.as_raw_value()).unwrap_or(UNKNOWN);
            Ok((signal(kind)?, code))
        };
        Ok(Self([
            end(SignalKind::interrupt())?,
            end(SignalKind::terminate())?,
            end(SignalKind::hangup())?,
        ]))
    }

    /// The exit code that the next one gives.
    async fn next(&mut self) -> u8 {
        let [one, two, three] = &mut self.0;
        tokio::select! {
            _ = one.0.recv() => one.1,
            _ = two.0.recv() => two.1,
            _ = three.0.recv() => three.1,
        }
    }
}

/// Writes at once; a reader that has seen enough ends the program, as other tools do.
fn put(mut to: impl Write, bytes: &[u8]) -> Result<()> {
    match to.write_all(bytes).and_then(|()| to.flush()) {
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => {
            Err(Passed(BROKEN_PIPE).into())
        }
        other => Ok(other?),
    }
}
