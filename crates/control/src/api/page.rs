//! Lists by the page: `limit` says how many, `cursor` where to go on, and the answer's `Link` header (RFC 8288) leads to the
//! next page. The list itself stays a plain JSON array.

use axum::http::{HeaderName, HeaderValue, Uri, header};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use super::query::{self, Pairs};
use super::types::Problem;

/// So many where none is asked for.
const USUAL: usize = 100;
/// So many at most.
const MOST: usize = 1_000;
/// The longest cursor, in bytes.
const MAX_CURSOR: usize = 1_024;

/// Which page is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Page {
    /// So many items.
    pub(super) limit: usize,
    /// After the item with this key.
    pub(super) after: Option<String>,
}

/// The header that leads to the next page, if there is one.
pub(super) type Link = Option<[(HeaderName, HeaderValue); 1]>;

impl Page {
    /// From a query.
    ///
    /// # Errors
    /// 400: no such number of items, or no cursor of ours.
    pub(super) fn of(pairs: &Pairs) -> Result<Self, Problem> {
        Self::with(pairs, USUAL)
    }

    /// From a query of a list that is whole where nothing is asked for.
    ///
    /// # Errors
    /// As [`Page::of`].
    pub(super) fn or_whole(pairs: &Pairs) -> Result<Self, Problem> {
        Self::with(pairs, usize::MAX)
    }

    /// Whether less than the whole is asked for.
    pub(super) fn is_cut(&self) -> bool {
        self.limit < usize::MAX || self.after.is_some()
    }

    fn with(pairs: &Pairs, usual: usize) -> Result<Self, Problem> {
        let limit = match query::number(pairs, "limit")? {
            None => usual,
            Some(limit) if (1..=MOST).contains(&limit) => limit,
            Some(limit) => {
                let text = format!("limit={limit} is not a number from 1 to {MOST}");
                return Err(Problem::bad_request(text));
            }
        };
        let after = query::get(pairs, "cursor").map(|cursor| {
            let short = (cursor.len() <= MAX_CURSOR).then_some(cursor);
            let bytes = short.and_then(|cursor| URL_SAFE_NO_PAD.decode(cursor).ok());
            let key = bytes.and_then(|bytes| String::from_utf8(bytes).ok());
            key.ok_or_else(wrong_cursor)
        });
        Ok(Self {
            limit,
            after: after.transpose()?,
        })
    }

    /// The page out of a whole list that is ordered by its keys.
    pub(super) fn cut<T>(
        &self,
        items: Vec<T>,
        uri: &Uri,
        key: impl Fn(&T) -> String,
    ) -> (Vec<T>, Link) {
        let rest = items
            .into_iter()
            .skip_while(|item| self.after.as_ref().is_some_and(|after| key(item) <= *after));
        let rest = rest.take(self.limit.saturating_add(1)).collect();
        self.end(rest, uri, key)
    }

    /// The page out of its items and, if there is one, the next one after them.
    pub(super) fn end<T>(
        &self,
        mut items: Vec<T>,
        uri: &Uri,
        key: impl Fn(&T) -> String,
    ) -> (Vec<T>, Link) {
        let more = items.len() > self.limit;
        items.truncate(self.limit);
        let last = items.last().filter(|_| more).map(key);
        let link = last.and_then(|key| next(uri, &key));
        (items, link.map(|link| [(header::LINK, link)]))
    }
}

/// A cursor that is none of ours.
pub(super) fn wrong_cursor() -> Problem {
    Problem::bad_request("cursor= is not what an answer's Link header named")
}

/// `<path?query with the cursor>; rel="next"`.
fn next(uri: &Uri, key: &str) -> Option<HeaderValue> {
    let pairs = uri.query().unwrap_or_default().split('&');
    let mut query: Vec<String> = pairs
        .filter(|pair| !pair.is_empty() && !pair.starts_with("cursor="))
        .map(str::to_owned)
        .collect();
    query.push(format!("cursor={}", URL_SAFE_NO_PAD.encode(key)));
    let text = format!("<{}?{}>; rel=\"next\"", uri.path(), query.join("&"));
    HeaderValue::from_str(&text).ok()
}

#[cfg(test)]
mod tests {
    use axum::extract::Query;

    use super::*;

    fn ask(uri: &Uri) -> Result<Page, Problem> {
        Page::of(&Query::try_from_uri(uri).expect("a query"))
    }

    #[test]
    fn pages_lead_from_one_to_the_next_and_the_last_to_none() {
        let mut uri: Uri = "/v1/things?who=a&limit=2".parse().expect("a URI");
        let mut seen = Vec::new();
        loop {
            let all = vec!["a", "b", "c", "d", "e"];
            let page = ask(&uri).expect("a page");
            let (items, link) = page.cut(all, &uri, |item| (*item).to_owned());
            seen.push(items.len());
            let Some([(_, link)]) = link else { break };
            let link = link.to_str().expect("text").strip_prefix('<');
            let next = link.and_then(|link| link.strip_suffix(">; rel=\"next\""));
            uri = next.expect("a link").parse().expect("a URI");
            assert!(uri.query().is_some_and(|query| query.contains("who=a")));
        }
        assert_eq!(seen, [2, 2, 1]);
    }

    #[test]
    fn a_cursor_of_nobodys_and_a_limit_of_none_are_refused() {
        for bad in ["limit=0", "limit=1001", "cursor=%21", "cursor=_w"] {
            let uri: Uri = format!("/x?{bad}").parse().expect("a URI");
            assert_eq!(ask(&uri).expect_err(bad).status, 400);
        }
    }
}
