//! Build contexts that the node keeps: what has to be sent of one.

use std::io::Read;
use std::sync::Arc;

use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::http::StatusCode;
use layby_image::contexts::{Entry, List, MAX_ENTRIES, Offer, Place};
use layby_model::error_chain;

use super::pipe;
use super::types::{ContextOffer, ContextsBody, ContextsView, Problem};
use super::{Shared, Who};
use crate::deploy::upload::MAX_CONTEXTS;

/// Most that all lists may have together: 200,000 entries with paths of a hundred bytes.
const LISTS_BYTES: u64 = 48 << 20;
/// The longest name of a context.
const MAX_KEY: usize = 200;

/// Takes the lists of build contexts, and says which of their files have to be sent with the build or deploy that comes
/// next. What a node keeps of a context is its sender's alone, and is let go when it was not used for a week.
#[utoipa::path(
    post,
    path = "/v1/contexts",
    request_body = ContextsBody,
    responses(
        (status = 200, body = ContextsView),
        (status = 400, body = Problem, content_type = "application/problem+json", description = "It is no list of a tree of files, or of too large a one"),
        (status = 413, body = Problem, content_type = "application/problem+json"),
    )
)]
pub(super) async fn offer(
    State(plane): Shared,
    who: Who,
    body: Body,
) -> Result<Json<ContextsView>, Problem> {
    let reader = pipe::reader(body);
    let images = Arc::clone(&plane.images);
    let work = move || {
        let contexts = read(reader)?.contexts.into_iter().map(|list| {
            let entries = list.entries.into_iter().map(Entry::from).collect();
            let place = Place {
                owner: &who.owner,
                key: &list.key,
            };
            let offer = images.offer_context(place, &List::new(entries)?)?;
            Ok(offer.map(|Offer { id, lacks }| ContextOffer { id, lacks }))
        });
        let contexts: Result<Vec<_>, Problem> = contexts.collect();
        Ok(Json(ContextsView {
            contexts: contexts?,
        }))
    };
    let done = plane.at_clients_pace(work).await.await;
    done.map_err(|error| Problem::failed(error_chain(&error)))?
}

fn read(body: impl Read) -> Result<ContextsBody, Problem> {
    let mut text = Vec::new();
    let read = body.take(LISTS_BYTES + 1).read_to_end(&mut text);
    let unreadable = |error| Problem::bad_request(format!("the lists cannot be read: {error}"));
    if read.map_err(unreadable)? as u64 > LISTS_BYTES {
        let text = format!(
            "the lists of the build contexts are larger than {} MiB",
            LISTS_BYTES >> 20
        );
        return Err(Problem::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            "too-large",
            text,
        ));
    }
    // Parsed, each entry takes many times what it has here.
    if objects(&text) > MAX_ENTRIES + MAX_CONTEXTS + 1 {
        let text = format!("the build contexts have more than {MAX_ENTRIES} files and folders");
        return Err(Problem::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            "too-large",
            text,
        ));
    }
    let body: ContextsBody = serde_json::from_slice(&text).map_err(|error| {
        Problem::bad_request(format!("the lists are not as they should be: {error}"))
    })?;
    if body.contexts.len() > MAX_CONTEXTS
        || body.contexts.iter().any(|list| list.key.len() > MAX_KEY)
    {
        return Err(Problem::bad_request(format!(
            "there are more than {MAX_CONTEXTS} build contexts, or a key has more than {MAX_KEY} bytes"
        )));
    }
    Ok(body)
}

/// How many objects a JSON text has (RFC 8259).
fn objects(text: &[u8]) -> usize {
    let (mut count, mut is_quoted, mut is_escaped) = (0, false, false);
    for byte in text {
        match byte {
            _ if is_escaped => is_escaped = false,
            b'\\' => is_escaped = is_quoted,
            b'"' => is_quoted = !is_quoted,
            b'{' if !is_quoted => count += 1,
            _ => {}
        }
    }
    count
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn objects_are_told_from_braces_in_names() {
        for (text, count) in [
            (r#"{"contexts":[{"entries":[{},{"path":"{{a}}"}]}]}"#, 4),
            (r#"{"a":"\\","b":{"c":"\"{"}}"#, 2),
            ("", 0),
        ] {
            assert_eq!(objects(text.as_bytes()), count, "{text}");
        }
    }

    #[test]
    fn lists_of_too_many_entries_are_refused_before_they_are_parsed() {
        let entry = r#"{"path":"a","mode":0,"mtime_ns":0},"#;
        let text = format!(
            r#"{{"contexts":[{{"key":"k","entries":[{}"#,
            entry.repeat(MAX_ENTRIES + MAX_CONTEXTS)
        );
        let refused = read(text.as_bytes()).expect_err("too many");
        assert_eq!(refused.status, 413);
    }
}
