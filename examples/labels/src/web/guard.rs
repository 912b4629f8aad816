//! What every request goes through: headers that bind the browser, and a look at where a form comes from.

use axum::extract::{Request, State};
use axum::http::{HeaderName, HeaderValue, Method, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use crate::web::App;
use crate::web::fault::Fault;

const HEADERS: [(HeaderName, &str); 4] = [
    (
        header::CONTENT_SECURITY_POLICY,
        "default-src 'none'; img-src 'self'; style-src 'self'; script-src 'self'; connect-src 'self'; \
         form-action 'self'; frame-ancestors 'none'; base-uri 'none'",
    ),
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (header::REFERRER_POLICY, "same-origin"),
    // Pages show what changes; pictures say otherwise themselves.
    (header::CACHE_CONTROL, "no-store"),
];

/// Adds the headers that are not there.
pub async fn headers(request: Request, next: Next) -> Response {
    let mut response = next.run(request).await;
    for (name, value) in HEADERS {
        response
            .headers_mut()
            .entry(name)
            .or_insert(HeaderValue::from_static(value));
    }
    response
}

/// Refuses what another site lets a browser send. Programs send no Origin, and have no cookies to misuse.
pub async fn only_own_forms(request: Request, next: Next) -> Response {
    if is_own(&request) {
        next.run(request).await
    } else {
        Fault::Foreign.into_response()
    }
}

fn is_own(request: &Request) -> bool {
    let text = |name: &HeaderName| {
        request
            .headers()
            .get(name)
            .and_then(|value| value.to_str().ok())
    };
    if matches!(
        *request.method(),
        Method::GET | Method::HEAD | Method::OPTIONS
    ) {
        return true;
    }
    match (text(&header::ORIGIN), text(&header::HOST)) {
        (None, _) => true,
        (Some(origin), Some(host)) => origin
            .split_once("://")
            .is_some_and(|(_, from)| from == host),
        (Some(_), None) => false,
    }
}

/// Until the index is made, no page would show all there is.
pub async fn only_when_open(State(app): State<App>, request: Request, next: Next) -> Response {
    if app.is_open() {
        next.run(request).await
    } else {
        Fault::NotOpen(app.problem()).into_response()
    }
}
