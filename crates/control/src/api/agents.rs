//! Lending SSH agents to builds: an HTTP upgrade to frames (RFC 9110, 7.8; see [`crate::agents::wire`]).

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{StatusCode, header};
use axum::response::Response;
use hyper_util::rt::TokioIo;

use super::types::Problem;
use super::{Shared, Who};
use crate::agents::wire::{self, Frame, PROTOCOL};

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
    let asks = request.headers().get(header::UPGRADE);
    if !asks.is_some_and(|asks| asks.as_bytes().eq_ignore_ascii_case(PROTOCOL.as_bytes())) {
        let text =
            "agents are lent over an upgraded connection, which the request does not ask for";
        let hint = format!("send it with \"Connection: Upgrade\" and \"Upgrade: {PROTOCOL}\"");
        let problem = Problem::new(StatusCode::UPGRADE_REQUIRED, "upgrade-required", text);
        return Err(problem.hint(hint));
    }
    let mut lent = plane.agents.enter(&who)?;
    let upgraded = hyper::upgrade::on(&mut request);
    plane.spawn(async move {
        let Ok(stream) = upgraded.await else { return };
        let mut stream = TokioIo::new(stream);
        let key = Frame::Key(lent.key.clone());
        if key.write(&mut stream).await.is_ok() {
            let (_, none) = tokio::sync::mpsc::channel(1);
            let calls = std::mem::replace(&mut lent.calls, none);
            wire::run(stream, calls, |_| async { None }).await;
        }
    });
    let answer = Response::builder()
        .status(StatusCode::SWITCHING_PROTOCOLS)
        .header(header::CONNECTION, "Upgrade")
        .header(header::UPGRADE, PROTOCOL)
        .body(Body::empty());
    answer.map_err(|error| Problem::failed(error.to_string()))
}
