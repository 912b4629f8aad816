//! What browsers send: forms, queries, and the cookie with the analyst's name.

use axum::http::{HeaderMap, HeaderValue, header};

use crate::index::{Filter, StateKind};
use crate::label::category::Category;

/// The longest name of an analyst.
const WHO_MAX_CHARS: usize = 60;

/// Names and values, in their order. Line ends of text areas become `\n`.
pub fn pairs(text: &[u8]) -> Vec<(String, String)> {
    form_urlencoded::parse(text)
        .map(|(name, value)| (name.into_owned(), value.replace("\r\n", "\n")))
        .collect()
}

/// The first value of that name.
pub fn value<'a>(pairs: &'a [(String, String)], name: &str) -> Option<&'a str> {
    pairs
        .iter()
        .find(|(key, _)| key == name)
        .map(|(_, value)| value.as_str())
}

/// A filter, as the query of a list says it. What is not understood is left out.
pub fn filter(query: &str) -> Filter {
    let pairs = pairs(query.as_bytes());
    let state = |key: &str| StateKind::ALL.into_iter().find(|state| state.key() == key);
    Filter {
        words: value(&pairs, "q")
            .unwrap_or_default()
            .trim()
            .chars()
            .take(200)
            .collect(),
        category: value(&pairs, "category").and_then(|category| category.parse::<Category>().ok()),
        state: value(&pairs, "state").and_then(state),
        failing: value(&pairs, "failing").is_some_and(|failing| failing == "yes"),
    }
}

/// A filter, as a query.
pub fn query(filter: &Filter) -> String {
    let mut query = form_urlencoded::Serializer::new(String::new());
    if !filter.words.is_empty() {
        query.append_pair("q", &filter.words);
    }
    if let Some(category) = filter.category {
        query.append_pair("category", category.key());
    }
    if let Some(state) = filter.state {
        query.append_pair("state", state.key());
    }
    if filter.failing {
        query.append_pair("failing", "yes");
    }
    query.finish()
}

/// The analyst's name, as it was given last.
pub fn who(headers: &HeaderMap) -> String {
    let cookies = headers
        .get_all(header::COOKIE)
        .into_iter()
        .filter_map(|value| value.to_str().ok());
    let cookie = cookies
        .flat_map(|cookies| cookies.split(';'))
        .find_map(|one| one.trim().strip_prefix("who="));
    let pairs = pairs(format!("who={}", cookie.unwrap_or_default()).as_bytes());
    clean_who(value(&pairs, "who").unwrap_or_default())
}

/// A name without what names do not have.
pub fn clean_who(who: &str) -> String {
    let printable = who.chars().filter(|char| !char.is_control());
    let text: String = printable.take(WHO_MAX_CHARS).collect();
    text.trim().to_owned()
}

/// The cookie that remembers it for a year.
pub fn who_cookie(who: &str) -> Option<HeaderValue> {
    let encoded: String = form_urlencoded::byte_serialize(who.as_bytes()).collect();
    let cookie = format!("who={encoded}; Path=/; Max-Age=31536000; HttpOnly; SameSite=Lax");
    HeaderValue::from_str(&cookie).ok()
}

#[cfg(test)]
mod tests {
    use axum::http::{HeaderMap, HeaderValue, header};

    use super::{clean_who, filter, pairs, query, who, who_cookie};

    #[test]
    fn a_filter_is_read_as_it_is_written() {
        for text in [
            "",
            "q=oat+%26+honey&category=food&state=to-review&failing=yes",
            "state=refused",
        ] {
            assert_eq!(query(&filter(text)), text);
        }
        assert_eq!(
            query(&filter("category=cars&state=lost&failing=no&q=+")),
            ""
        );
    }

    #[test]
    fn the_name_of_an_analyst_comes_back_from_its_cookie() {
        let cookie = who_cookie("Ada Lovelace; DROP").unwrap();
        let cookie = cookie
            .to_str()
            .unwrap()
            .split(';')
            .next()
            .unwrap()
            .to_owned();
        let mut headers = HeaderMap::new();
        headers.insert(
            header::COOKIE,
            HeaderValue::from_str(&format!("a=b; {cookie}")).unwrap(),
        );
        assert_eq!(who(&headers), "Ada Lovelace; DROP");
        assert_eq!(who(&HeaderMap::new()), "");
        assert_eq!(clean_who("  A\nda\u{7}  "), "Ada");
    }

    #[test]
    fn lines_of_a_text_area_end_as_lines_do_here() {
        assert_eq!(
            pairs(b"text=a%0D%0Ab"),
            [("text".to_owned(), "a\nb".to_owned())]
        );
    }
}
