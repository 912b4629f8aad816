//! The audit log.

use axum::Json;
use axum::extract::State;
use axum::http::Uri;
use axum::response::{IntoResponse, Response};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::Shared;
use super::page::{self, Page};
use super::query::{self, Pairs};
use super::types::Problem;
use crate::store::AuditQuery;

/// One record of the audit log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct AuditView {
    /// Its number; later ones have higher ones.
    pub id: i64,
    /// When it was answered (RFC 3339).
    pub at: String,
    /// The user's name at the machine itself, or the token's; `-`: nobody who is known.
    pub who: String,
    /// `local`, or the address it came from.
    pub from: String,
    /// `socket` or `token`.
    pub via: String,
    /// What was asked for: `up`, `deploy`, `exec`, `token-create`, `login-failed`, ...
    pub verb: String,
    /// On what: an app, a service, an image. Never what was sent along.
    pub target: String,
    /// The HTTP status of the answer; what is streamed then may still fail: see `code`.
    pub status: u16,
    /// The exit code that the stream of the answer ended with, as `layby` does: 0 done, 1 failed, 3 failed and what was live is
    /// kept, ...; `null`: it was no stream, it goes on, or nobody stayed to its end.
    #[serde(default)]
    pub code: Option<i32>,
    /// How long the answer took, in milliseconds.
    pub took_ms: u64,
}

/// Who changed what, when, from where: the newest first. What only looks is not in it; logins that failed are.
#[utoipa::path(
    get,
    path = "/v1/audit",
    params(
        ("since_ms" = Option<u64>, Query, description = "Only from this moment on, in milliseconds since 1970"),
        ("who" = Option<String>, Query, description = "Only by this user or token"),
        ("limit" = Option<u32>, Query, description = "So many at most: 100 otherwise, up to 1000", minimum = 1, maximum = 1000),
        ("cursor" = Option<String>, Query, description = "Go on after the page whose `Link` named this"),
    ),
    responses(
        (status = 200, body = [AuditView], headers(("Link" = Option<String>, description = "The next page (RFC 8288, `rel=\"next\"`), if there is one"))),
        (status = 400, body = Problem, content_type = "application/problem+json"),
    )
)]
pub(super) async fn audit(
    State(plane): Shared,
    uri: Uri,
    pairs: Pairs,
) -> Result<Response, Problem> {
    let page = Page::of(&pairs)?;
    let since = query::number(&pairs, "since_ms")?.map(|ms| {
        let moment = i64::try_from(ms).ok();
        let moment = moment.and_then(|ms| Timestamp::from_millisecond(ms).ok());
        moment.ok_or_else(|| Problem::bad_request(format!("since_ms={ms} is no moment")))
    });
    let before = page.after.as_deref().map(|id| id.parse());
    let before = before.transpose().map_err(|_| page::wrong_cursor())?;
    // Whoever has just done something finds it.
    plane.ledger.settle().await;
    let found = plane.store.audit(AuditQuery {
        since: since.transpose()?,
        who: query::get(&pairs, "who").map(str::to_owned),
        before,
        limit: page.limit + 1,
    });
    let views = found.await?.into_iter().map(|(id, entry)| AuditView {
        id,
        at: entry.at.to_string(),
        who: entry.who,
        from: entry.from,
        via: entry.via,
        verb: entry.verb,
        target: entry.target,
        status: entry.status,
        code: entry.code,
        took_ms: entry.took_ms,
    });
    let (views, link) = page.end(views.collect(), &uri, |view: &AuditView| {
        view.id.to_string()
    });
    Ok((link, Json(views)).into_response())
}
