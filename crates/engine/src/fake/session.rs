//! What fake commands do with somebody at their other end. The table stands in the parent module.

use std::sync::Arc;

use layby_model::access::{ExecEvent, ExecInput, ExecRequest, ExecSession, TtySize};
use layby_model::engine::{BoxFuture, EngineError};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use super::body::Body;
use super::exec;

/// So much may be under way each way.
const PIECES: usize = 8;

/// The exit code of a command that was asked to end.
const TERMINATED: i32 = 143;

/// What goes to a command.
enum Told {
    Bytes(Vec<u8>),
    Size(TtySize),
}

struct Input {
    /// `None`: its input is at its end.
    tell: Option<mpsc::Sender<Told>>,
    /// Sizes come without waiting; the newest counts.
    resize: mpsc::UnboundedSender<Told>,
}

impl ExecInput for Input {
    fn write<'a>(&'a mut self, bytes: &'a [u8]) -> BoxFuture<'a, Result<(), EngineError>> {
        Box::pin(async move {
            let gone = || EngineError::Failed("the command reads no more".to_owned());
            let tell = self.tell.as_ref().ok_or_else(gone)?;
            let told = tell.send(Told::Bytes(bytes.to_vec())).await;
            told.map_err(|_| gone())
        })
    }

    fn close(&mut self) {
        self.tell = None;
    }

    fn resize(&mut self, size: TtySize) -> Result<(), EngineError> {
        // One that has ended has no size.
        let _ = self.resize.send(Told::Size(size));
        Ok(())
    }
}

/// Starts a command; it ends with its container.
pub(super) fn attach(body: Arc<Body>, request: &ExecRequest) -> ExecSession {
    let mut stops = body.stops.subscribe();
    let (send, receive) = mpsc::channel(PIECES);
    let (tell, told) = mpsc::channel(PIECES);
    let (resize, sizes) = mpsc::unbounded_channel();
    let input = Input {
        tell: (request.stdin || request.tty.is_some()).then_some(tell),
        resize,
    };
    let request = request.clone();
    tokio::spawn(async move {
        tokio::select! {
            () = run(&body, &request, told, sizes, &send) => {}
            () = send.closed() => {}
            Ok(()) = stops.changed() => {
                let _ = send.send(ExecEvent::Exit(TERMINATED)).await;
            }
        }
    });
    ExecSession {
        output: Box::pin(ReceiverStream::new(receive)),
        input: Box::new(input),
    }
}

async fn run(
    body: &Body,
    request: &ExecRequest,
    mut told: mpsc::Receiver<Told>,
    mut sizes: mpsc::UnboundedReceiver<Told>,
    send: &mpsc::Sender<ExecEvent>,
) {
    let words: Vec<&str> = request.argv.iter().map(String::as_str).collect();
    let says_size = words == ["size"];
    let code = if words == ["cat"] || says_size {
        if let Some(size) = request.tty.filter(|_| says_size) {
            let _ = send.send(ExecEvent::Stdout(spell(size))).await;
        }
        loop {
            let next = tokio::select! {
                next = told.recv() => next,
                Some(next) = sizes.recv() => Some(next),
            };
            let said = match next {
                None => break 0,
                Some(Told::Size(size)) if says_size => spell(size),
                Some(Told::Bytes(bytes)) if !says_size => bytes,
                Some(Told::Size(_) | Told::Bytes(_)) => continue,
            };
            if send.send(ExecEvent::Stdout(said)).await.is_err() {
                return;
            }
        }
    } else {
        let output = exec::exec(body, &request.argv).await;
        let event = match output.code {
            127 => ExecEvent::Stderr(output.output),
            _ => ExecEvent::Stdout(output.output),
        };
        let _ = send.send(event).await;
        output.code
    };
    // Whoever has gone need not be told.
    let _ = send.send(ExecEvent::Exit(code)).await;
}

fn spell(size: TtySize) -> Vec<u8> {
    format!("{}x{}\n", size.columns, size.rows).into_bytes()
}
