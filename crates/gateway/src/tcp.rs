//! A connection from a client to a TCP listener: held and balanced as a whole, then a tunnel.

use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::net::TcpStream;

use crate::client::linger;
use crate::errors::{Answer, Manner};
use crate::forward;
use crate::hold::{self, Search, Waiter};
use crate::io::{Leaving, write_all};
use crate::overhear::{Overheard, is_request};
use crate::route::{Entry, route};
use crate::tunnel::Tunnel;
use crate::watchdog::Pulse;
use crate::worker::Worker;

/// How long replicas may refuse connections to a port of a virtual address before that is taken for an answer.
const REFUSED_PATIENCE: Duration = Duration::from_secs(2);

/// How long one that cannot be served may take to say in what it speaks.
const SPEECH_PATIENCE: Duration = Duration::from_millis(250);
/// How much of that is looked at.
const SPEECH_BYTES: usize = 4096;

/// Serves a connection until it ends. Where it cannot be served it is closed: a client that speaks HTTP/1 is told why, though
/// nobody declared that it would.
pub(crate) async fn serve(worker: Rc<Worker>, stream: TcpStream, entry: Entry) {
    let pulse = worker.watchdog.watch();
    let view = worker.view();
    let Ok(target) = route(&view, entry, None, &[]) else {
        return;
    };
    let service = &view.services[target.service];
    service.state.used();
    // Where connections stand in line, they are counted as requests are. Elsewhere, what a client said before it closed (a line
    // for a log, a value) is passed on once the service is awake; one that said nothing wants nothing.
    let leaving = match service.is_scaled {
        true => Leaving::Finished,
        false => Leaving::Silent,
    };
    let mut search = Search::default();
    let mut refused: Option<Instant> = None;
    loop {
        let waiter = Waiter {
            client: Some(&stream),
            head: &[],
            leaving,
            pulse: &pulse,
        };
        let claim = match hold::claim(&worker, &view, target.service, waiter, &mut search).await {
            Ok(claim) => claim,
            Err(why) => {
                tracing::debug!(service = %service.state.id, ?why, "a connection is not served");
                let name = service.state.id.to_string();
                let answer = Answer::unserved(why, &name, service.limits.hold_deadline_ms);
                return Box::pin(turn_away(&worker, stream, &pulse, &answer)).await;
            }
        };
        // A table that came while it waited may also have moved the port.
        let Ok(target) = route(claim.view(), entry, None, &[]) else {
            return;
        };
        match forward::open(SocketAddr::new(claim.upstream().ip, target.port)).await {
            Ok(upstream) => {
                claim.upstream().state.served(false);
                let tunnel = Tunnel {
                    upstream,
                    claim,
                    service: Arc::clone(&service.state),
                    limits: service.limits,
                    early: None,
                    overheard: Overheard::default(),
                };
                drop(search);
                return tunnel.run(Rc::clone(&worker), stream, pulse, None).await;
            }
            Err(_) => {
                let since = refused.get_or_insert_with(Instant::now);
                // Any port of a virtual address leads on: that nothing listens there is an answer too, once one that
                // just woke had a moment to listen on all of its ports.
                if matches!(entry, Entry::Virtual(_)) && since.elapsed() >= REFUSED_PATIENCE {
                    return;
                }
                search.choice.avoid.push(claim.upstream().replica);
            }
        }
    }
}

/// Closes a connection, after a client that asked in HTTP/1 was answered.
async fn turn_away(worker: &Worker, mut stream: TcpStream, pulse: &Pulse, answer: &Answer) {
    let mut said = vec![0; SPEECH_BYTES];
    let spoken = tokio::time::timeout(SPEECH_PATIENCE, stream.peek(&mut said)).await;
    let Ok(Ok(len)) = spoken else { return };
    let said = &said[..len];
    if !is_request(said) {
        return;
    }
    let manner = Manner {
        head: said.starts_with(b"HEAD "),
        ..Manner::default()
    };
    if write_all(&mut stream, &answer.render(manner)).await.is_ok() {
        linger(worker, stream, pulse).await;
    }
}
