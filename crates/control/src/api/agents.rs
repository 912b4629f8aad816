//! Lending SSH agents to builds: an HTTP upgrade to frames (RFC 9110, 7.8; see [`crate::agents::wire`]).

use std::time::Duration;

use axum::extract::{Request, State};
use axum::response::Response;
use hyper_util::rt::TokioIo;

use super::types::Problem;
use super::{Shared, Who, upgrade};
use crate::agents::wire::{self, Frame, PROTOCOL};

/// Who lends agents that no build uses for so long has gone away from them. An upload may take long before its build begins.
const IDLE: Duration = Duration::from_secs(4 * 3600);
/// How often who lends agents is told that the node is still here: whether that is taken shows whether he is.
const BEAT: Duration = Duration::from_secs(60);

/// Lends SSH agents to builds, for as long as the connection lasts. The first frame says under which key.
#[utoipa::path(
    get,
    path = "/v1/agents",
    responses(
        (status = 101, description = "From here on the connection carries frames (Upgrade: layby-agents)"),
        (status = 409, body = Problem, content_type = "application/problem+json", description = "Too many lend some"),
        (status = 426, body = Problem, content_type = "application/problem+json", description = "The request does not ask for layby-agents"),
    )
)]
pub(super) async fn lend(
    State(plane): Shared,
    who: Who,
    mut request: Request,
) -> Result<Response, Problem> {
    upgrade::require(&request, PROTOCOL, "agents are lent")?;
    let mut lent = plane.agents.enter(&who)?;
    let upgraded = hyper::upgrade::on(&mut request);
    plane.spawn(async move {
        let Ok(stream) = upgraded.await else { return };
        let mut stream = TokioIo::new(stream);
        let key = Frame::Key(lent.key.clone());
        if key.write(&mut stream).await.is_ok() {
            let (_, none) = tokio::sync::mpsc::channel(1);
            let calls = std::mem::replace(&mut lent.calls, none);
            let carried = wire::run(stream, calls, |_| async { None }, Some((key, BEAT)));
            tokio::select! {
                () = carried => {}
                () = lent.idle(IDLE) => tracing::info!("nobody used the SSH agents that somebody lent"),
            }
        }
    });
    upgrade::switching(PROTOCOL)
}
