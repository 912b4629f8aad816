//! What the OpenAPI document says of a request's path and query, held to before a handler sees it.

use std::collections::BTreeMap;

use axum::extract::Query;
use axum::http::Uri;
use serde_json::Value;

use super::types::Problem;

/// The parameters of one endpoint's query.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Params(BTreeMap<String, Param>);

#[derive(Debug, Clone, PartialEq, Eq)]
struct Param {
    kind: Kind,
    required: bool,
}

/// What a value has to look like.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Kind {
    Text,
    Flag,
    /// A whole number, at most so large.
    Number(u64),
    /// One of these.
    Word(Vec<String>),
}

impl Params {
    /// Those that an operation of the document has.
    pub(super) fn of(operation: &Value) -> Self {
        let all = operation["parameters"].as_array().into_iter().flatten();
        let in_query = all.filter(|param| param["in"] == "query");
        let named = in_query.filter_map(|param| {
            let kind = Kind::of(&param["schema"]);
            let required = param["required"].as_bool().unwrap_or_default();
            Some((param["name"].as_str()?.to_owned(), Param { kind, required }))
        });
        Self(named.collect())
    }

    /// Whether there is one of this name.
    pub(super) fn has(&self, name: &str) -> bool {
        self.0.contains_key(name)
    }

    /// Whether the pairs of a query are as the document says.
    ///
    /// # Errors
    /// 400, naming the first that is not.
    pub(super) fn check(&self, pairs: &[(String, String)]) -> Result<(), Problem> {
        for (name, value) in pairs {
            let Some(param) = self.0.get(name) else {
                let known: Vec<&str> = self.0.keys().map(String::as_str).collect();
                let text = format!("there is no parameter {name:?} here");
                let problem = Problem::bad_request(text);
                return Err(match known.is_empty() {
                    true => problem.hint("this takes none"),
                    false => problem.hint(format!("there are: {}", known.join(", "))),
                });
            };
            if let Some(wanted) = param.kind.wanted(value) {
                return Err(Problem::bad_request(format!(
                    "{name}={value:?} is not {wanted}"
                )));
            }
        }
        let given = |name: &String| {
            pairs
                .iter()
                .any(|(n, value)| n == name && !value.is_empty())
        };
        let missing = (self.0.iter()).find(|(name, param)| param.required && !given(name));
        match missing {
            None => Ok(()),
            Some((name, _)) => Err(Problem::bad_request(format!("say {name}=, in the query"))),
        }
    }
}

impl Kind {
    /// What a JSON schema says.
    fn of(schema: &Value) -> Self {
        let is = |name: &str| match &schema["type"] {
            Value::String(kind) => kind == name,
            Value::Array(kinds) => kinds.iter().any(|kind| kind == name),
            _ => false,
        };
        if is("array") {
            return Self::of(&schema["items"]);
        }
        let words = schema["enum"].as_array().map(|words| {
            let words = words.iter().filter_map(Value::as_str).map(str::to_owned);
            words.collect::<Vec<_>>()
        });
        match words {
            Some(words) if is("string") => Self::Word(words),
            Some(_) | None if is("boolean") => Self::Flag,
            Some(_) | None if is("integer") => {
                let most = schema["maximum"].as_u64();
                let format = match schema["format"].as_str() {
                    Some("int32") => u64::from(i32::MAX.unsigned_abs()),
                    Some(_) | None => i64::MAX.unsigned_abs(),
                };
                Self::Number(most.unwrap_or(format))
            }
            Some(_) | None => Self::Text,
        }
    }

    /// What a value would have to be and is not; `None`: it is fine.
    fn wanted(&self, value: &str) -> Option<String> {
        match self {
            Self::Text => value.contains('\0').then(|| "text without NUL".to_owned()),
            Self::Flag => {
                (!matches!(value, "true" | "false" | "1" | "0")).then(|| "true or false".to_owned())
            }
            Self::Number(most) => {
                let digits = !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_digit());
                let fits = digits && value.parse::<u64>().is_ok_and(|number| number <= *most);
                (!fits).then(|| format!("a number from 0 to {most}"))
            }
            Self::Word(words) => {
                let known = words.iter().any(|word| word == value);
                (!known).then(|| format!("one of {}", words.join(", ")))
            }
        }
    }
}

/// The pairs of a query, in order.
///
/// # Errors
/// 400: it is not in the form of an HTML form's (the percent signs, say).
pub(super) fn pairs(uri: &Uri) -> Result<Vec<(String, String)>, Problem> {
    let wrong = |error| Problem::bad_request(format!("the query cannot be read: {error}"));
    Ok(Query::try_from_uri(uri).map_err(wrong)?.0)
}

/// What a path has in the places of a template's `{names}`.
///
/// # Errors
/// 400: it is not UTF-8 there.
pub(super) fn places<'a>(template: &'a str, path: &str) -> Result<Vec<(&'a str, String)>, Problem> {
    let pairs = template.split('/').zip(path.split('/'));
    let places = pairs.filter_map(|(name, value)| {
        let name = name.strip_prefix('{')?.strip_suffix('}')?;
        Some((name, value))
    });
    places
        .map(|(name, value)| match decode(value) {
            Some(value) => Ok((name, value)),
            None => Err(Problem::bad_request(format!(
                "{value:?} in the path is not percent-encoded UTF-8"
            ))),
        })
        .collect()
}

/// The apps that a query names.
pub(super) fn apps(pairs: &[(String, String)]) -> impl Iterator<Item = &str> {
    pairs
        .iter()
        .filter_map(|(name, value)| match name.as_str() {
            "app" if !value.is_empty() => Some(value.as_str()),
            "service" if !value.is_empty() => Some(value.split('/').next().unwrap_or_default()),
            _ => None,
        })
}

/// Percent-decoding (RFC 3986, section 2.1).
fn decode(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        let byte = match byte {
            b'%' => {
                let mut digit = || (rest.next()? as char).to_digit(16);
                u8::try_from(digit()? * 16 + digit()?).ok()?
            }
            other => other,
        };
        bytes.push(byte);
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(query: &str) -> Vec<(String, String)> {
        let uri = format!("/x?{query}").parse().expect("a URI");
        pairs(&uri).expect("a query")
    }

    #[test]
    fn a_query_is_held_to_what_the_document_says() {
        let operation = serde_json::json!({"parameters": [
            {"name": "tail", "in": "query", "schema": {"type": ["integer", "null"], "format": "int32"}},
            {"name": "follow", "in": "query", "schema": {"type": ["boolean", "null"]}},
            {"name": "app", "in": "query", "required": true, "schema": {"type": "string"}},
            {"name": "form", "in": "query", "schema": {"type": "string", "enum": ["oci", "docker"]}},
            {"name": "id", "in": "path", "required": true, "schema": {"type": "string"}},
        ]});
        let params = Params::of(&operation);
        for good in [
            "app=a",
            "app=a&tail=0&follow=true&form=oci",
            "follow=false&app=a&app=b",
        ] {
            assert_eq!(params.check(&said(good)), Ok(()), "{good}");
        }
        for (bad, why) in [
            ("", "say app="),
            ("app=", "say app="),
            ("app=a&tail=-1", "a number"),
            ("app=a&tail=", "a number"),
            ("app=a&tail=2147483648", "a number"),
            ("app=a&follow=yes", "true or false"),
            ("app=a&form=zip", "one of oci, docker"),
            ("app=%00", "NUL"),
            ("app=a&id=1", "no parameter \"id\""),
        ] {
            let problem = params.check(&said(bad)).expect_err(bad);
            assert!(problem.detail.contains(why), "{bad}: {problem:?}");
        }
    }

    #[test]
    fn what_stands_in_a_path_is_decoded() {
        let found = places("/v1/a/{app}/{service}/x", "/v1/a/sh%6Fp/w%2Fb/x").expect("UTF-8");
        assert_eq!(
            found,
            [("app", "shop".to_owned()), ("service", "w/b".to_owned())]
        );
        for bad in ["/a/%ff", "/a/%f", "/a/%zz", "/a/%+1"] {
            assert!(places("/a/{b}", bad).is_err(), "{bad}");
        }
        let pairs = said("app=shop&service=blog/web&x=y&app=");
        assert_eq!(apps(&pairs).collect::<Vec<_>>(), ["shop", "blog"]);
    }
}
