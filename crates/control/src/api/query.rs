//! Query strings, in which a name may come more than once.

use axum::extract::Query;

use super::types::Problem;

/// The pairs of a query string, in order.
pub(super) type Pairs = Query<Vec<(String, String)>>;

/// The last value of a name; an empty one counts as none.
pub(super) fn get<'a>(pairs: &'a Pairs, name: &str) -> Option<&'a str> {
    let mut found = pairs.0.iter().rev().filter(|(n, _)| n == name);
    found
        .next()
        .map(|(_, value)| value.as_str())
        .filter(|value| !value.is_empty())
}

/// All values of a name.
pub(super) fn all(pairs: &Pairs, name: &str) -> Vec<String> {
    let found = pairs
        .0
        .iter()
        .filter(|(n, value)| n == name && !value.is_empty());
    found.map(|(_, value)| value.clone()).collect()
}

/// Whether a flag is set: `?name=1` or `?name=true`.
pub(super) fn flag(pairs: &Pairs, name: &str) -> bool {
    let mut values = pairs
        .0
        .iter()
        .filter(|(n, _)| n == name)
        .map(|(_, value)| value.as_str());
    values.any(|value| matches!(value, "1" | "true"))
}

/// A number.
pub(super) fn number(pairs: &Pairs, name: &str) -> Result<Option<usize>, Problem> {
    let parse = |text: &str| {
        let wrong = |_| Problem::bad_request(format!("{name}={text:?} is no number"));
        text.parse().map_err(wrong)
    };
    get(pairs, name).map(parse).transpose()
}
