//! Connections to ports of a replica, carried over the API: an HTTP upgrade to a raw stream (RFC 9110, 7.8).

use axum::extract::{Path, Request, State};
use axum::http::StatusCode;
use axum::response::Response;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use super::query::{self, Pairs};
use super::replica;
use super::types::Problem;
use super::{Shared, upgrade};

/// What the connection becomes.
const PROTOCOL: &str = "tcp";

/// Connects to a port of a replica, as a program in it would. Wakes the service, and keeps it awake while the connection
/// lasts.
#[utoipa::path(
    get,
    path = "/v1/services/{app}/{service}/forward",
    params(
        ("app" = String, Path),
        ("service" = String, Path),
        ("port" = u16, Query, description = "The port in the replica"),
        ("replica" = Option<String>, Query, description = "Of this replica"),
    ),
    responses(
        (status = 101, description = "From here on the connection carries the port's bytes (Upgrade: tcp)"),
        (status = 404, body = Problem, content_type = "application/problem+json"),
        (status = 409, body = Problem, content_type = "application/problem+json"),
        (status = 426, body = Problem, content_type = "application/problem+json", description = "The request does not ask for tcp"),
        (status = 502, body = Problem, content_type = "application/problem+json", description = "Nobody listens on the port"),
        (status = 504, body = Problem, content_type = "application/problem+json", description = "It did not wake within 60 s"),
    )
)]
pub(super) async fn forward(
    State(plane): Shared,
    Path(names): Path<(String, String)>,
    pairs: Pairs,
    mut request: Request,
) -> Result<Response, Problem> {
    let port = query::number(&pairs, "port")?.and_then(|port| u16::try_from(port).ok());
    let port = port.filter(|port| *port > 0);
    let port = port.ok_or_else(|| Problem::bad_request("port= names no port (1 to 65535)"))?;
    upgrade::require(&request, PROTOCOL, "a port is carried")?;
    let held = replica::awake(&plane, names, &pairs).await?;
    let connected = plane.access.connect(held.id, port).await;
    let connected = connected.and_then(|stream| {
        let usable = stream.set_nonblocking(true);
        let usable = usable.and_then(|()| TcpStream::from_std(stream));
        usable.map_err(|error| layby_model::engine::EngineError::Failed(error.to_string()))
    });
    let mut inside = connected
        .map_err(|error| Problem::new(StatusCode::BAD_GATEWAY, "unreachable", error.to_string()))?;
    // Small pieces are not to wait for company.
    let _ = inside.set_nodelay(true);
    let upgraded = hyper::upgrade::on(&mut request);
    tokio::spawn(async move {
        if let Ok(outside) = upgraded.await {
            let mut outside = TokioIo::new(outside);
            // Whoever breaks off: both sides see it.
            let _ = tokio::io::copy_bidirectional(&mut outside, &mut inside).await;
        }
        drop(held);
    });
    upgrade::switching(PROTOCOL)
}
