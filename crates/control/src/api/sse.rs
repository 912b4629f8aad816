//! Streams of JSON lines as server-sent events (HTML, section 9.2) for who asks with `Accept: text/event-stream`: a line is
//! an event's data. Where its events have an order that lasts, a client that comes back goes on after the last it saw.

use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::http::{HeaderMap, HeaderValue, Uri, header};
use axum::response::Response;
use futures_util::{StreamExt, stream};
use serde_json::Value;

use super::types::Problem;

/// The media type.
pub(super) const KIND: &str = "text/event-stream";
/// That of what is turned into it.
pub(super) const LINES: &str = "application/x-ndjson";
/// What keeps those between from closing a connection on which nothing happens.
const ALIVE: Duration = Duration::from_secs(15);
/// The longest line, in bytes; a longer one ends the stream.
const MAX_LINE: usize = 4 << 20;

/// Whether a request accepts this media type by its name.
pub(super) fn accepts(headers: &HeaderMap, kind: &str) -> bool {
    let all = headers.get_all(header::ACCEPT).iter();
    let mut kinds = all
        .filter_map(|value| value.to_str().ok())
        .flat_map(|text| text.split(','));
    kinds.any(|one| {
        let name = one.split(';').next().unwrap_or_default().trim();
        name.eq_ignore_ascii_case(kind)
    })
}

/// Where the events of a path have ids that last: the field that holds it, and the parameter that goes on from there.
fn ids(path: &str) -> Option<(&'static str, &'static str)> {
    match path {
        "/v1/events" => Some(("id", "after")),
        // A client that comes back gets the last millisecond's lines again, rather than to miss one.
        "/v1/logs" | "/v1/services/{app}/{service}/logs" => Some(("at_ms", "since_ms")),
        _ => None,
    }
}

/// What a query has to say beside what it says: to go on, where it can, and from where.
///
/// # Errors
/// 400: the last event's id is none of ours.
pub(super) fn query(
    path: &str,
    can_watch: bool,
    headers: &HeaderMap,
    uri: &Uri,
) -> Result<Option<Uri>, Problem> {
    let mut more = Vec::new();
    if can_watch {
        more.push(("watch", "true".to_owned()));
    }
    if let (Some((_, parameter)), Some(last)) = (ids(path), headers.get("last-event-id")) {
        let id = last.to_str().ok().and_then(|text| text.parse::<u64>().ok());
        let id = id.ok_or_else(|| Problem::bad_request("Last-Event-ID is none that was sent"))?;
        more.push((parameter, id.to_string()));
    }
    if more.is_empty() {
        return Ok(None);
    }
    Ok(with(uri, &more))
}

/// A URI whose query says these, in place of what it said by the same names.
pub(super) fn with(uri: &Uri, more: &[(&str, String)]) -> Option<Uri> {
    let named = |pair: &&str| {
        let name = pair.split('=').next().unwrap_or_default();
        !pair.is_empty() && !more.iter().any(|(other, _)| *other == name)
    };
    let kept = uri.query().unwrap_or_default().split('&').filter(named);
    let mut pairs: Vec<String> = kept.map(str::to_owned).collect();
    let said = more.iter().filter(|(_, value)| !value.is_empty());
    pairs.extend(said.map(|(name, value)| format!("{name}={value}")));
    let query = pairs.join("&");
    let text = match query.is_empty() {
        true => uri.path().to_owned(),
        false => format!("{}?{query}", uri.path()),
    };
    text.parse().ok()
}

/// The answer as events, if it is a stream of lines; any other stays as it is.
pub(super) fn turn(path: &str, response: Response) -> Response {
    turn_within(path, response, ALIVE)
}

fn turn_within(path: &str, response: Response, alive: Duration) -> Response {
    let kind = response.headers().get(header::CONTENT_TYPE);
    if kind.is_none_or(|kind| kind != LINES) {
        return response;
    }
    let id = ids(path).map(|(field, _)| field);
    let (mut parts, body) = response.into_parts();
    let headers = &mut parts.headers;
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(KIND));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.remove(header::CONTENT_LENGTH);
    let begin = (body.into_data_stream(), Vec::new());
    let events = stream::unfold(begin, move |(mut data, mut rest)| async move {
        loop {
            match tokio::time::timeout(alive, data.next()).await {
                Err(_) => return Some((Ok(Bytes::from_static(b":\n\n")), (data, rest))),
                Ok(Some(Ok(piece))) => {
                    rest.extend_from_slice(&piece);
                    let events = take(&mut rest, id);
                    if rest.len() > MAX_LINE {
                        return None;
                    }
                    if !events.is_empty() {
                        return Some((Ok(Bytes::from(events)), (data, rest)));
                    }
                }
                Ok(Some(Err(error))) => return Some((Err(error), (data, rest))),
                Ok(None) => return None,
            }
        }
    });
    Response::from_parts(parts, Body::from_stream(events))
}

/// Takes the whole lines off, as events.
fn take(rest: &mut Vec<u8>, id: Option<&str>) -> String {
    let Some(end) = rest.iter().rposition(|byte| *byte == b'\n') else {
        return String::new();
    };
    let whole: Vec<u8> = rest.drain(..=end).collect();
    let mut events = String::new();
    for line in String::from_utf8_lossy(&whole)
        .lines()
        .filter(|line| !line.is_empty())
    {
        let number = id.and_then(|field| {
            let value: Value = serde_json::from_str(line).ok()?;
            value.get(field)?.as_u64()
        });
        if let Some(number) = number {
            events.push_str(&format!("id: {number}\n"));
        }
        // JSON on one line has no line ends in it.
        events.push_str(&format!("data: {line}\n\n"));
    }
    events
}

#[cfg(test)]
mod tests {
    use axum::response::IntoResponse;

    use super::*;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        let pairs = pairs.iter().map(|(name, value)| {
            let name = axum::http::HeaderName::from_static(name);
            (name, HeaderValue::from_static(value))
        });
        pairs.collect()
    }

    #[tokio::test]
    async fn lines_become_events_whatever_pieces_they_come_in() {
        let pieces = [&b"{\"id\":1}\n{\"i"[..], b"d\":2}", b"\n\n{\"id\":null}\n"];
        let pieces = pieces.map(|piece| Ok::<_, std::io::Error>(Bytes::from_static(piece)));
        let kind = [(header::CONTENT_TYPE, LINES)];
        let answer = (kind, Body::from_stream(stream::iter(pieces))).into_response();
        let turned = turn("/v1/events", answer);
        assert_eq!(turned.headers()[header::CONTENT_TYPE], KIND);
        let body = axum::body::to_bytes(turned.into_body(), 1 << 20).await;
        assert_eq!(
            body.expect("a body"),
            "id: 1\ndata: {\"id\":1}\n\nid: 2\ndata: {\"id\":2}\n\ndata: {\"id\":null}\n\n"
        );
    }

    #[tokio::test]
    async fn a_stream_on_which_nothing_happens_is_kept_alive() {
        let body = Body::from_stream(stream::pending::<Result<Bytes, std::io::Error>>());
        let answer = ([(header::CONTENT_TYPE, LINES)], body).into_response();
        let turned = turn_within("/v1/logs", answer, Duration::from_millis(1));
        let mut data = turned.into_body().into_data_stream();
        let first = data.next().await.expect("a piece").expect("no error");
        assert_eq!(first, ":\n\n");
    }

    #[test]
    fn who_comes_back_goes_on_after_the_last_event() {
        let uri: Uri = "/v1/events?app=shop&after=3".parse().expect("a URI");
        let last = headers(&[("last-event-id", "17")]);
        let again = query("/v1/events", false, &last, &uri).expect("a number");
        let again = again.expect("it says more").to_string();
        assert_eq!(again, "/v1/events?app=shop&after=17");
        let none = query("/v1/events", false, &headers(&[]), &uri).expect("nothing");
        assert_eq!(none, None);
        let bad = headers(&[("last-event-id", "x")]);
        assert!(query("/v1/events", false, &bad, &uri).is_err());
        let watched = query(
            "/v1/usage",
            true,
            &headers(&[]),
            &"/v1/usage".parse().expect("a URI"),
        );
        assert_eq!(
            watched.expect("fine").expect("it says more").query(),
            Some("watch=true")
        );
    }

    #[test]
    fn a_media_type_is_accepted_by_its_name() {
        let many = headers(&[("accept", "text/html, Text/Event-Stream;q=0.9")]);
        assert!(accepts(&many, KIND) && !accepts(&many, LINES));
        assert!(!accepts(&headers(&[("accept", "*/*")]), KIND));
    }
}
