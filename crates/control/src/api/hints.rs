//! Hints of errors, as far as they help whoever gets them: none names a command that a token may not use.

use axum::body::{Body, Bytes, to_bytes};
use axum::http::header;
use axum::response::Response;
use futures_util::{StreamExt, stream};
use serde_json::Value;

use super::access::{About, RULES};
use super::sse;
use crate::tokens::{Rights, Role};

/// What is said instead.
const INSTEAD: &str =
    "what helps here takes more than this token may: ask whoever looks after the node";
/// Words to an admin may be passed on to one.
const TO_ADMIN: &str = "an admin ";
/// The longest problem that is looked at, and the longest line, in bytes.
const MAX_BYTES: usize = 1 << 20;

/// An answer whose hints are for somebody with these rights.
pub(super) async fn fit(response: Response, rights: &Rights) -> Response {
    if rights.is_admin() {
        return response;
    }
    let kind = response.headers().get(header::CONTENT_TYPE);
    let kind = kind.and_then(|kind| kind.to_str().ok()).map(str::to_owned);
    match kind.as_deref() {
        Some("application/problem+json") => problem(response, rights).await,
        Some(sse::LINES) => lines(response, rights.clone()),
        Some(_) | None => response,
    }
}

async fn problem(response: Response, rights: &Rights) -> Response {
    let (mut parts, body) = response.into_parts();
    let bytes = to_bytes(body, MAX_BYTES).await.unwrap_or_default();
    let fitted = line(&bytes, rights).map_or(bytes, Bytes::from);
    parts.headers.remove(header::CONTENT_LENGTH);
    Response::from_parts(parts, Body::from(fitted))
}

fn lines(response: Response, rights: Rights) -> Response {
    response.map(|body| {
        let begin = (body.into_data_stream(), Vec::new(), rights);
        let fitted = stream::unfold(begin, |(mut data, mut rest, rights)| async move {
            loop {
                match data.next().await {
                    Some(Ok(piece)) => {
                        rest.extend_from_slice(&piece);
                        let whole = take(&mut rest, &rights);
                        if !whole.is_empty() {
                            return Some((Ok(Bytes::from(whole)), (data, rest, rights)));
                        }
                    }
                    Some(Err(error)) => return Some((Err(error), (data, rest, rights))),
                    None if rest.is_empty() => return None,
                    None => {
                        let last = std::mem::take(&mut rest);
                        return Some((Ok(Bytes::from(last)), (data, rest, rights)));
                    }
                }
            }
        });
        Body::from_stream(fitted)
    })
}

/// Takes the whole lines off; a line that is too long goes as it is.
fn take(rest: &mut Vec<u8>, rights: &Rights) -> Vec<u8> {
    let end = match rest.iter().rposition(|byte| *byte == b'\n') {
        Some(end) => end + 1,
        None if rest.len() > MAX_BYTES => rest.len(),
        None => return Vec::new(),
    };
    let whole: Vec<u8> = rest.drain(..end).collect();
    let mut fitted = Vec::with_capacity(whole.len());
    for text in whole.split_inclusive(|byte| *byte == b'\n') {
        match line(text, rights) {
            Some(line) => {
                fitted.extend(line);
                fitted.push(b'\n');
            }
            None => fitted.extend_from_slice(text),
        }
    }
    fitted
}

/// A JSON text with other hints; `None`: it is fine as it is.
fn line(text: &[u8], rights: &Rights) -> Option<Vec<u8>> {
    let has_hint = text.windows(8).any(|part| part == b"\"hint\":\"");
    let mut value: Value = has_hint.then(|| serde_json::from_slice(text).ok())??;
    change(&mut value, rights).then(|| value.to_string().into_bytes())
}

/// Changes the hints in a value; whether there was any to change.
fn change(value: &mut Value, rights: &Rights) -> bool {
    match value {
        Value::Object(fields) => {
            let mut changed = false;
            for (name, value) in fields {
                match value {
                    Value::String(hint) if name == "hint" && !may_follow(hint, rights) => {
                        INSTEAD.clone_into(hint);
                        changed = true;
                    }
                    value => changed |= change(value, rights),
                }
            }
            changed
        }
        Value::Array(items) => {
            let changed = items.iter_mut().map(|item| change(item, rights));
            changed.fold(false, |any, one| any | one)
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => false,
    }
}

/// Whether all commands that a hint names are for somebody with these rights.
fn may_follow(hint: &str, rights: &Rights) -> bool {
    let commands = hint.split('`').skip(1).step_by(2);
    let mut commands = commands.filter_map(|command| command.strip_prefix("layby "));
    hint.starts_with(TO_ADMIN) || commands.all(|command| may(command, rights))
}

/// Whether a command, without `layby`, is for somebody with these rights.
fn may(command: &str, rights: &Rights) -> bool {
    let mut words = command.split(' ');
    let first = words.next().unwrap_or_default();
    let both = format!("{first}-{}", words.next().unwrap_or_default());
    let verb = match (first, both.as_str()) {
        // Of the machine itself.
        ("serve" | "node" | "state", _) => return rights.is_admin(),
        ("audit", _) | (_, "token-ls") => return rights.is_admin(),
        // To a node it is for everybody.
        ("login", both) if both.starts_with("login-https") || both == "login-URL" => return true,
        (_, "secret-rotate-key") => "key-rotate",
        (_, "secret-import") => "secret-set",
        (_, both) => both,
    };
    let of = |verb: &str| RULES.iter().find(|rule| rule.verb == Some(verb));
    let Some(rule) = of(verb).or_else(|| of(first)) else {
        return true; // it only looks
    };
    let of_node = rule.about == About::Node;
    rights.role >= rule.role.max(Role::Read) && (rights.is_whole() || !of_node)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn rights(role: Role, apps: &[&str]) -> Rights {
        let apps: BTreeSet<String> = apps.iter().map(|app| (*app).to_owned()).collect();
        Rights::new(role, (!apps.is_empty()).then_some(apps))
    }

    #[test]
    fn a_hint_stays_only_for_who_may_do_what_it_says() {
        let (read, ci) = (rights(Role::Read, &[]), rights(Role::Deploy, &["shop"]));
        let deploy = rights(Role::Deploy, &[]);
        for (hint, of_read, of_ci, of_deploy) in [
            ("`layby ls` shows what there is", true, true, true),
            ("`layby wake shop/web` first", false, true, true),
            ("load it with `layby image load`", false, false, true),
            ("`layby token create NAME` makes one", false, false, false),
            ("`layby token ls` shows what there is", false, false, false),
            ("an admin makes one: `layby token create`", true, true, true),
            (
                "start it with `layby serve --allow-privileged`",
                false,
                false,
                false,
            ),
            ("`layby login URL` takes another", true, true, true),
            ("`layby login` again", false, false, false),
            ("`layby secret set NAME` makes one", false, true, true),
            ("see /v1/openapi.json", true, true, true),
        ] {
            for (rights, may) in [(&read, of_read), (&ci, of_ci), (&deploy, of_deploy)] {
                assert_eq!(may_follow(hint, rights), may, "{hint} {rights:?}");
            }
        }
    }

    #[tokio::test]
    async fn lines_keep_all_but_such_hints() {
        use axum::response::IntoResponse;
        let ci = rights(Role::Deploy, &["shop"]);
        let bad = r#"{"type":"error","problem":{"code":"x","hint":"try `layby image load`"}}"#;
        let good = r#"{"type":"done","code":4}"#;
        let kind = [(header::CONTENT_TYPE, sse::LINES)];
        let pieces = [&bad[..9], &bad[9..], "\n", good, "\n"];
        let pieces = pieces.map(|piece| Ok::<_, std::io::Error>(piece.to_owned()));
        let body = Body::from_stream(stream::iter(pieces));
        let fitted = fit((kind, body).into_response(), &ci).await;
        let body = to_bytes(fitted.into_body(), MAX_BYTES)
            .await
            .expect("a body");
        let text = String::from_utf8(body.to_vec()).expect("text");
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[1], good);
        let first: Value = serde_json::from_str(lines[0]).expect("JSON");
        assert_eq!(first["problem"]["hint"], INSTEAD);
        assert_eq!(first["problem"]["code"], "x");
    }
}
