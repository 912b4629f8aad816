//! The paths of the API (distribution-spec 1.1, "Endpoints"): a repository's name may have any number of parts, so a
//! path is read from its end.

use super::digest::Digest;
use super::refusal::{Code, Refusal};
use crate::reference::{is_component, is_tag};

/// The longest name of a repository, in bytes: with the registry's host it is still the name of an image.
const MAX_NAME_BYTES: usize = 200;
/// What stands for `/` in a file name: no name has it.
const SLASH: &str = "+";

/// What a path leads to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Route {
    /// `/v2/`
    Base,
    /// `/v2/_catalog`
    Catalog,
    /// `/v2/<name>/tags/list`
    Tags(Name),
    /// `/v2/<name>/manifests/<tag or digest>`
    Manifest(Name, Named),
    /// `/v2/<name>/blobs/<digest>`
    Blob(Name, Digest),
    /// `/v2/<name>/blobs/uploads/`
    Uploads(Name),
    /// `/v2/<name>/blobs/uploads/<id>`
    Upload(Name, String),
    /// `/v2/<name>/referrers/<digest>`
    Referrers(Name, Digest),
}

/// The name of a repository, valid.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Name(String);

/// How a manifest is named.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Named {
    Tag(String),
    Digest(Digest),
}

impl Name {
    /// A name as the specification has it; it is safe in a path.
    pub(super) fn parse(text: &str) -> Result<Self, Refusal> {
        if text.len() <= MAX_NAME_BYTES && text.split('/').all(is_component) {
            return Ok(Self(text.to_owned()));
        }
        let shown: String = text.chars().take(MAX_NAME_BYTES).collect();
        Err(Refusal::new(
            Code::NameInvalid,
            format!(
                "{shown:?} is no repository's name: at most {MAX_NAME_BYTES} characters, parts of lower case letters and digits with `.`, `_`, `__` or `-` between them"
            ),
        ))
    }

    pub(super) fn as_str(&self) -> &str {
        &self.0
    }

    /// As the name of one folder.
    pub(super) fn file_name(&self) -> String {
        self.0.replace('/', SLASH)
    }

    /// The name whose folder this is.
    pub(super) fn from_file_name(name: &str) -> Option<Self> {
        Self::parse(&name.replace(SLASH, "/")).ok()
    }
}

impl Named {
    fn parse(text: &str) -> Result<Self, Refusal> {
        if text.contains(':') {
            return digest(text).map(Self::Digest);
        }
        tag(text).map(Self::Tag)
    }
}

/// A tag, valid.
pub(super) fn tag(text: &str) -> Result<String, Refusal> {
    if is_tag(text) {
        return Ok(text.to_owned());
    }
    let shown: String = text.chars().take(130).collect();
    Err(Refusal::new(
        Code::TagInvalid,
        format!(
            "{shown:?} is no tag: 1 to 128 letters, digits, `_`, `.` and `-` (not first `.` or `-`)"
        ),
    ))
}

/// A digest, valid.
pub(super) fn digest(text: &str) -> Result<Digest, Refusal> {
    Digest::parse(text).ok_or_else(|| {
        let shown: String = text.chars().take(140).collect();
        Refusal::new(
            Code::DigestInvalid,
            format!(
                "{shown:?} is no digest: sha256: with 64 or sha512: with 128 lower case hex digits"
            ),
        )
    })
}

/// Reads a path. `None`: the API has no such path.
pub(super) fn read(path: &str) -> Result<Option<Route>, Refusal> {
    let Some(rest) = path.strip_prefix("/v2") else {
        return Ok(None);
    };
    if matches!(rest, "" | "/") {
        return Ok(Some(Route::Base));
    }
    if matches!(rest, "/_catalog" | "/_catalog/") {
        return Ok(Some(Route::Catalog));
    }
    let Some(rest) = rest.strip_prefix('/') else {
        return Ok(None);
    };
    if let Some(name) = rest.strip_suffix("/tags/list") {
        return Ok(Some(Route::Tags(Name::parse(name)?)));
    }
    if let Some(name) = rest
        .strip_suffix("/blobs/uploads/")
        .or_else(|| rest.strip_suffix("/blobs/uploads"))
    {
        return Ok(Some(Route::Uploads(Name::parse(name)?)));
    }
    let Some((rest, last)) = rest.rsplit_once('/') else {
        return Ok(None);
    };
    let last = decoded(last);
    if let Some(name) = rest.strip_suffix("/blobs/uploads") {
        return Ok(Some(Route::Upload(Name::parse(name)?, last)));
    }
    let Some((name, kind)) = rest.rsplit_once('/') else {
        return Ok(None);
    };
    Ok(match kind {
        "manifests" => Some(Route::Manifest(Name::parse(name)?, Named::parse(&last)?)),
        "blobs" => Some(Route::Blob(Name::parse(name)?, digest(&last)?)),
        "referrers" => Some(Route::Referrers(Name::parse(name)?, digest(&last)?)),
        _ => None,
    })
}

/// The pairs of a query, decoded, in order; at most 200 of them.
pub(super) fn query(text: Option<&str>) -> Vec<(String, String)> {
    let pairs = text.unwrap_or_default().split('&').take(200);
    pairs
        .filter(|pair| !pair.is_empty())
        .map(|pair| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            (decoded(name), decoded(&value.replace('+', " ")))
        })
        .collect()
}

/// The first value of a name.
pub(super) fn value<'a>(pairs: &'a [(String, String)], name: &str) -> Option<&'a str> {
    let mut found = pairs.iter().filter(|(n, _)| n == name);
    found.next().map(|(_, value)| value.as_str())
}

/// Text with its percent-encoding undone (RFC 3986, 2.1); what is not well formed stays as it is.
fn decoded(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let hex = |n: usize| bytes.get(n).and_then(|b| char::from(*b).to_digit(16));
        match (bytes[at], hex(at + 1), hex(at + 2)) {
            (b'%', Some(high), Some(low)) => {
                // Two hex digits make one byte.
                out.push((high * 16 + low) as u8);
                at += 3;
            }
            (byte, _, _) => {
                out.push(byte);
                at += 1;
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> Name {
        Name::parse(text).expect("a name")
    }

    #[test]
    fn paths_are_read_from_their_end() {
        let hex = format!("sha256:{}", "a".repeat(64));
        let digest = Digest::parse(&hex).expect("a digest");
        for (path, route) in [
            ("/v2/".to_owned(), Route::Base),
            ("/v2".to_owned(), Route::Base),
            ("/v2/_catalog".to_owned(), Route::Catalog),
            ("/v2/a/b/tags/list".to_owned(), Route::Tags(name("a/b"))),
            (
                "/v2/blobs/uploads/manifests/latest".to_owned(),
                Route::Manifest(name("blobs/uploads"), Named::Tag("latest".into())),
            ),
            (
                format!("/v2/a/manifests/{}", hex.replace(':', "%3A")),
                Route::Manifest(name("a"), Named::Digest(digest.clone())),
            ),
            (
                format!("/v2/a/blobs/{hex}"),
                Route::Blob(name("a"), digest.clone()),
            ),
            ("/v2/a/blobs/uploads/".to_owned(), Route::Uploads(name("a"))),
            (
                "/v2/a/blobs/uploads/0f".to_owned(),
                Route::Upload(name("a"), "0f".into()),
            ),
            (
                format!("/v2/a/referrers/{hex}"),
                Route::Referrers(name("a"), digest),
            ),
        ] {
            assert_eq!(read(&path).expect("well formed"), Some(route), "{path}");
        }
        for unknown in ["/", "/v1/", "/v2x/", "/v2/a", "/v2/a/b", "/v2/a/b/c"] {
            assert_eq!(read(unknown).expect("well formed"), None, "{unknown}");
        }
        for bad in [
            "/v2/A/tags/list",
            "/v2/../tags/list",
            "/v2/a//b/tags/list",
            "/v2/a/manifests/.x",
            "/v2/a/manifests/sha256:baddigeststring",
            "/v2/a/blobs/latest",
            "/v2/%2e%2e/tags/list",
        ] {
            assert!(read(bad).is_err(), "{bad}");
        }
        assert!(Name::parse(&"a".repeat(201)).is_err());
        assert_eq!(Name::from_file_name("a+b"), Some(name("a/b")));
    }

    #[test]
    fn queries_are_decoded() {
        let pairs = query(Some("artifactType=a%2Fb%2Bc&n=3&tag=x&tag=y&e"));
        assert_eq!(value(&pairs, "artifactType"), Some("a/b+c"));
        assert_eq!(value(&pairs, "tag"), Some("x"));
        assert_eq!(value(&pairs, "e"), Some(""));
        assert_eq!(value(&pairs, "last"), None);
        assert!(query(None).is_empty());
    }
}
