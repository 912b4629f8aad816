//! Commands in a replica over a WebSocket, framed as Kubernetes does (`v5.channel.k8s.io`, KEP-4006): the first byte of
//! every binary message says which stream the rest belongs to.

use axum::extract::ws::rejection::WebSocketUpgradeRejection;
use axum::extract::ws::{CloseFrame, Message, WebSocket, WebSocketUpgrade, close_code};
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::Response;
use futures_util::StreamExt;
use layby_model::access::{ExecEvent, ExecInput, ExecRequest, ExecSession, TtySize};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::sync::mpsc;

use super::query::{self, Pairs};
use super::replica;
use super::types::{Problem, StatusView};
use super::{Shared, Who};

/// The only subprotocol there is.
const PROTOCOL: &str = "v5.channel.k8s.io";
/// The longest message that is taken, in bytes.
const MAX_MESSAGE_BYTES: usize = 1 << 20;
/// So many messages may wait for a command that does not read.
const WAITING: usize = 4;
/// The size of a terminal of which none was said, as ever.
const TERMINAL: TtySize = TtySize {
    columns: 80,
    rows: 24,
};

/// The streams, by number.
mod channel {
    pub(super) const STDIN: u8 = 0;
    pub(super) const STDOUT: u8 = 1;
    pub(super) const STDERR: u8 = 2;
    pub(super) const STATUS: u8 = 3;
    pub(super) const RESIZE: u8 = 4;
    pub(super) const CLOSE: u8 = 255;
}

/// Runs a command in a replica, with the caller at its other end. Wakes the service, and keeps it awake meanwhile.
///
/// Binary messages: 0 and input; 1 and output; 2 and errors; 3 and how it ended, as a Kubernetes `Status` (last); 4 and the
/// terminal's size, `{"Width": 80, "Height": 24}`; 255 and 0: the input is at its end.
#[utoipa::path(
    get,
    path = "/v1/services/{app}/{service}/exec",
    params(
        ("container" = Option<String>, Query, description = "In this container; the first if none is named"),
        ("replica" = Option<String>, Query, description = "In this replica"),
    ),
    responses(
        (status = 409, body = Problem, content_type = "application/problem+json"),
        (status = 504, body = Problem, content_type = "application/problem+json", description = "It did not wake within 60 s"),
    )
)]
pub(super) async fn exec(
    State(plane): Shared,
    who: Who,
    Path(names): Path<(String, String)>,
    pairs: Pairs,
    upgrade: Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
) -> Result<Response, Problem> {
    let request = request(&pairs)?;
    let upgrade = self::upgrade(upgrade)?;
    replica::enter(&plane, &names, &who)?;
    let held = replica::awake(&plane, names, &pairs).await?;
    let container = query::get(&pairs, "container");
    let session = plane.access.attach(held.id, container, &request).await?;
    Ok(upgrade.on_upgrade(move |socket| serve(socket, session, held)))
}

/// Says in the document what holds for commands, beside a service and in it: their query, and that they take over the
/// connection.
pub(super) fn describe(path: &str, operation: &mut Value) {
    let own = path.strip_prefix("/v1/services/{app}/{service}/");
    if !own.is_some_and(|own| ["exec", "run"].contains(&own)) {
        return;
    }
    let name = |name: &str| json!({"name": name, "in": "path", "required": true, "schema": {"type": "string"}});
    let query = |name: &str, schema: Value, text: &str| {
        let required = name == "command";
        json!({"name": name, "in": "query", "required": required, "schema": schema, "description": text})
    };
    let text = || json!({"type": "string"});
    let flag = || json!({"type": "boolean"});
    let size = || json!({"type": "integer", "format": "uint16", "minimum": 0, "maximum": u16::MAX});
    let mut parameters = vec![
        name("app"),
        name("service"),
        query("command", text(), "The program; given again, its arguments"),
        query(
            "env",
            text(),
            "A variable as KEY=VALUE; may be given several times",
        ),
        query(
            "workdir",
            text(),
            "Where it starts; otherwise where the container does",
        ),
        query(
            "user",
            text(),
            "Whom it runs as; otherwise as the container",
        ),
        query("tty", flag(), "It gets a terminal"),
        query("columns", size(), "The terminal's width"),
        query("rows", size(), "The terminal's height"),
        query("stdin", flag(), "It gets a standard input"),
    ];
    if let Some(own) = operation["parameters"].as_array_mut() {
        parameters.append(own);
    }
    operation["parameters"] = Value::Array(parameters);
    let responses = &mut operation["responses"];
    responses["101"] = json!({"description": format!("A WebSocket of the protocol {PROTOCOL}")});
    let problem = json!({"schema": {"$ref": "#/components/schemas/Problem"}});
    for (status, text) in [
        ("404", "No such service"),
        ("426", "This is for WebSockets"),
    ] {
        responses[status] =
            json!({"description": text, "content": {"application/problem+json": problem}});
    }
}

/// A WebSocket of the one protocol.
///
/// # Errors
/// The request asks for none.
pub(super) fn upgrade(
    asked: Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
) -> Result<WebSocketUpgrade, Problem> {
    let asked = asked.map_err(|_| {
        let text = "this is for WebSockets, which the request does not ask for";
        Problem::new(StatusCode::UPGRADE_REQUIRED, "upgrade-required", text)
            .hint(format!("send it as a WebSocket of the protocol {PROTOCOL}"))
    })?;
    Ok(asked
        .protocols([PROTOCOL])
        .max_message_size(MAX_MESSAGE_BYTES)
        .max_frame_size(MAX_MESSAGE_BYTES))
}

/// The command that a query asks for.
pub(super) fn request(pairs: &Pairs) -> Result<ExecRequest, Problem> {
    let argv = query::all(pairs, "command");
    if argv.is_empty() {
        return Err(Problem::bad_request("no command is given")
            .hint("name it as ?command=PROGRAM&command=ARGUMENT"));
    }
    let env = query::all(pairs, "env").into_iter().map(|pair| {
        let split = pair.split_once('=').filter(|(name, _)| !name.is_empty());
        let (name, value) = split.ok_or_else(|| {
            Problem::bad_request(format!("env={pair:?} is not of the form KEY=VALUE"))
        })?;
        Ok((name.to_owned(), value.to_owned()))
    });
    let side = |name: &str, usual: u16| -> Result<u16, Problem> {
        let given = query::number(pairs, name)?;
        let fits = given.map(u16::try_from).transpose();
        let wrong = |_| Problem::bad_request(format!("{name}: no terminal is so large"));
        Ok(fits.map_err(wrong)?.unwrap_or(usual))
    };
    let tty = query::flag(pairs, "tty").then(|| -> Result<TtySize, Problem> {
        Ok(TtySize {
            columns: side("columns", TERMINAL.columns)?,
            rows: side("rows", TERMINAL.rows)?,
        })
    });
    Ok(ExecRequest {
        argv,
        env: env.collect::<Result<_, Problem>>()?,
        working_dir: query::get(pairs, "workdir").map(str::to_owned),
        user: query::get(pairs, "user").map(str::to_owned),
        tty: tty.transpose()?,
        stdin: query::flag(pairs, "stdin"),
    })
}

/// What goes to a command.
#[derive(Debug)]
enum Told {
    Bytes(Vec<u8>),
    Size(TtySize),
    End,
}

/// The size of a terminal, in Kubernetes' words.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Size {
    width: u16,
    height: u16,
}

/// Carries both ways until the command has ended, or the client has gone: then it is ended. `held` is kept until then.
pub(super) async fn serve<T>(mut socket: WebSocket, session: ExecSession, held: T) {
    let ExecSession { mut output, input } = session;
    let (tell, told) = mpsc::channel(WAITING);
    // Apart, so that a command that does not read can still be heard.
    let telling = tokio::spawn(pass_on(input, told));
    let mut next = None;
    let ended = loop {
        let waiting = next.is_some();
        tokio::select! {
            event = output.next() => {
                let (stream, bytes) = match event {
                    Some(ExecEvent::Stdout(bytes)) => (channel::STDOUT, bytes),
                    Some(ExecEvent::Stderr(bytes)) => (channel::STDERR, bytes),
                    Some(ExecEvent::Exit(code)) => break StatusView::of_exit(code),
                    Some(ExecEvent::Failed(why)) => break StatusView::of_failure(why),
                    None => break StatusView::of_failure("its end is not known".to_owned()),
                };
                if socket.send(frame(stream, bytes)).await.is_err() {
                    telling.abort();
                    return;
                }
            }
            message = socket.recv(), if !waiting => match message {
                Some(Ok(Message::Binary(bytes))) => next = read(&bytes),
                Some(Ok(Message::Text(_) | Message::Ping(_) | Message::Pong(_))) => {}
                Some(Ok(Message::Close(_)) | Err(_)) | None => {
                    telling.abort();
                    return;
                }
            },
            room = tell.reserve(), if waiting => {
                // If nobody is told any more it is lost, as in a pipe.
                if let (Ok(room), Some(what)) = (room, next.take()) {
                    room.send(what);
                }
            }
        }
    };
    telling.abort();
    let status = serde_json::to_vec(&ended).unwrap_or_default();
    // The client may be gone.
    let _ = socket.send(frame(channel::STATUS, status)).await;
    let close = CloseFrame {
        code: close_code::NORMAL,
        reason: "".into(),
    };
    let _ = socket.send(Message::Close(Some(close))).await;
    drop(held);
}

async fn pass_on(mut input: Box<dyn ExecInput>, mut told: mpsc::Receiver<Told>) {
    while let Some(next) = told.recv().await {
        let done = match next {
            Told::Bytes(bytes) => input.write(&bytes).await,
            Told::Size(size) => input.resize(size),
            Told::End => {
                input.close();
                Ok(())
            }
        };
        if done.is_err() {
            // It reads no more, but its terminal may still change.
            input.close();
        }
    }
}

/// What a message says; `None`: nothing that is known.
fn read(bytes: &[u8]) -> Option<Told> {
    let (stream, rest) = bytes.split_first()?;
    match (*stream, rest) {
        (channel::STDIN, bytes) => Some(Told::Bytes(bytes.to_vec())),
        (channel::RESIZE, json) => {
            let size: Size = serde_json::from_slice(json).ok()?;
            Some(Told::Size(TtySize {
                columns: size.width,
                rows: size.height,
            }))
        }
        (channel::CLOSE, [channel::STDIN]) => Some(Told::End),
        _ => None,
    }
}

fn frame(stream: u8, bytes: Vec<u8>) -> Message {
    let mut message = Vec::with_capacity(bytes.len() + 1);
    message.push(stream);
    message.extend(bytes);
    Message::Binary(message.into())
}
