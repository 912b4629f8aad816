//! Connections that become something else than HTTP (RFC 9110, 7.8).

use axum::body::Body;
use axum::extract::Request;
use axum::http::{StatusCode, header};
use axum::response::Response;

use super::types::Problem;

/// Refuses a request that does not ask for `protocol`; `what` is carried by it: "a port is".
///
/// # Errors
/// It does not ask: 426.
pub(super) fn require(request: &Request, protocol: &str, what: &str) -> Result<(), Problem> {
    let asks = request.headers().get(header::UPGRADE);
    if asks.is_some_and(|asks| asks.as_bytes().eq_ignore_ascii_case(protocol.as_bytes())) {
        return Ok(());
    }
    let text = format!("{what} over an upgraded connection, which the request does not ask for");
    let hint = format!("send it with \"Connection: Upgrade\" and \"Upgrade: {protocol}\"");
    Err(Problem::new(StatusCode::UPGRADE_REQUIRED, "upgrade-required", text).hint(hint))
}

/// The answer after which the connection speaks `protocol`.
///
/// # Errors
/// The protocol's name can stand in no header.
pub(super) fn switching(protocol: &str) -> Result<Response, Problem> {
    let answer = Response::builder()
        .status(StatusCode::SWITCHING_PROTOCOLS)
        .header(header::CONNECTION, "Upgrade")
        .header(header::UPGRADE, protocol)
        .body(Body::empty());
    answer.map_err(|error| Problem::failed(error.to_string()))
}
