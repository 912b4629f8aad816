//! Lists: the tags of a repository (distribution-spec 1.1, "Listing Tags"), and the repositories.

use std::sync::Arc;

use http::header::{CONTENT_TYPE, LINK};
use http::request::Parts;
use http::{Response, StatusCode};
use serde_json::{Value, json};

use super::body::{self, Outgoing};
use super::refusal::{Code, Refusal};
use super::repository::{self, Repository};
use super::route::{self, Name};
use super::{Grant, Registry, answer, with};
use crate::percent;

/// So many names are in one answer unless fewer were asked for.
const MAX_NAMES: usize = 10_000;

/// `GET /v2/<name>/tags/list`
pub(super) async fn tags(
    registry: &Registry,
    name: Name,
    parts: &Parts,
) -> Result<Response<Outgoing>, Refusal> {
    let store = Arc::clone(&registry.store);
    let of = name.clone();
    let names = registry
        .blocking(move || {
            let repository = Repository::new(&store, &of);
            if !repository.exists() {
                let text = format!("there is no repository {}", of.as_str());
                return Err(Refusal::new(Code::NameUnknown, text));
            }
            Ok(repository.tags()?)
        })
        .await?;
    let path = format!("/v2/{}/tags/list", name.as_str());
    page(
        names,
        parts,
        &path,
        |tags| json!({"name": name.as_str(), "tags": tags}),
    )
}

/// `GET /v2/_catalog`: the repositories that may be read.
pub(super) async fn catalog(
    registry: &Registry,
    parts: &Parts,
    grant: &Grant,
) -> Result<Response<Outgoing>, Refusal> {
    let store = Arc::clone(&registry.store);
    let grant = grant.clone();
    let names = registry
        .blocking(move || {
            let all = repository::all(&store)?.into_iter();
            let names = all
                .filter(|name| grant.may_pull(name.as_str()))
                .filter(|name| Repository::new(&store, name).exists())
                .map(|name| name.as_str().to_owned());
            Ok(names.collect())
        })
        .await?;
    page(
        names,
        parts,
        "/v2/_catalog",
        |names| json!({"repositories": names}),
    )
}

/// One page of names, in lexical order, after `last` and at most `n`.
fn page(
    mut names: Vec<String>,
    parts: &Parts,
    path: &str,
    shape: impl FnOnce(&[String]) -> Value,
) -> Result<Response<Outgoing>, Refusal> {
    let query = route::query(parts.uri.query());
    let wanted = match route::value(&query, "n") {
        Some(text) => text.parse::<usize>().map_err(|_| {
            let text = format!("n={text:?} is no number");
            Refusal::new(Code::Unsupported, text).status(StatusCode::BAD_REQUEST)
        })?,
        None => MAX_NAMES,
    };
    let wanted = wanted.min(MAX_NAMES);
    // Case does not count, unless nothing else tells two names apart.
    let key = |name: &str| (name.to_ascii_lowercase(), name.to_owned());
    names.sort_by_cached_key(|name| key(name));
    if let Some(last) = route::value(&query, "last") {
        let last = key(last);
        names.retain(|name| key(name) > last);
    }
    let more = names.len() > wanted;
    names.truncate(wanted);
    let mut response = answer(StatusCode::OK);
    with(&mut response, CONTENT_TYPE, "application/json");
    if let (true, Some(last)) = (more, names.last()) {
        let link = format!(
            "<{path}?n={wanted}&last={}>; rel=\"next\"",
            percent::encode(last)
        );
        with(&mut response, LINK, &link);
    }
    *response.body_mut() = body::whole(shape(&names).to_string().into());
    Ok(response)
}
