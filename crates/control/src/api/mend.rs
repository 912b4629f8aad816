//! What the framework answers by itself (a body that is too large, a path that cannot be read) as a problem too.

use axum::body::to_bytes;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};

use super::types::Problem;

/// The most that is read of such an answer, in bytes.
const MAX_TEXT: usize = 4 << 10;

/// An answer whose errors are problems.
pub(super) async fn mend(response: Response) -> Response {
    let status = response.status();
    let is_error = status.is_client_error() || status.is_server_error();
    let kind = response.headers().get(header::CONTENT_TYPE);
    if !is_error || kind.is_some_and(|kind| kind == "application/problem+json") {
        return response;
    }
    let (parts, body) = response.into_parts();
    let text = to_bytes(body, MAX_TEXT).await.unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let detail = match text.trim() {
        "" => status.canonical_reason().unwrap_or("it failed").to_owned(),
        text => text.to_owned(),
    };
    let mut mended = Problem::new(status, code(status), detail).into_response();
    // Such as `Allow`; what it is and how long has changed.
    for (name, value) in &parts.headers {
        if name != header::CONTENT_TYPE && name != header::CONTENT_LENGTH {
            mended.headers_mut().insert(name.clone(), value.clone());
        }
    }
    mended
}

fn code(status: StatusCode) -> &'static str {
    match status {
        StatusCode::NOT_FOUND => "not-found",
        StatusCode::PAYLOAD_TOO_LARGE => "too-large",
        status if status.is_client_error() => "bad-request",
        _ => "failed",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_plain_error_becomes_a_problem_and_keeps_its_headers() {
        let plain = (
            StatusCode::METHOD_NOT_ALLOWED,
            [(header::ALLOW, "GET,HEAD")],
            "not so",
        );
        let mended = mend(plain.into_response()).await;
        assert_eq!(mended.status(), StatusCode::METHOD_NOT_ALLOWED);
        assert_eq!(mended.headers()[header::ALLOW], "GET,HEAD");
        assert_eq!(
            mended.headers()[header::CONTENT_TYPE],
            "application/problem+json"
        );
        let body = to_bytes(mended.into_body(), MAX_TEXT)
            .await
            .expect("a body");
        let problem: Problem = serde_json::from_slice(&body).expect("a problem");
        assert_eq!((problem.status, &*problem.detail), (405, "not so"));
    }

    #[tokio::test]
    async fn what_is_no_error_stays_as_it_is() {
        let mended = mend((StatusCode::OK, "fine").into_response()).await;
        let body = to_bytes(mended.into_body(), MAX_TEXT)
            .await
            .expect("a body");
        assert_eq!(body, "fine");
    }
}
