//! Image references by Docker's rules (distribution/reference): `mnist` is `docker.io/library/mnist:latest`.

use std::fmt;
use std::str::FromStr;

use crate::Error;
use crate::digest;

/// The registry that names without one mean.
const DEFAULT_REGISTRY: &str = "docker.io";
/// The namespace that single names at the default registry mean.
const DEFAULT_NAMESPACE: &str = "library/";
/// The longest name (registry and repository), as Docker has it.
const MAX_NAME_BYTES: usize = 255;

/// A parsed reference, always complete. Display is its canonical form; [`Reference::short`] is for people.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Reference {
    /// `docker.io`, `localhost:5000`, ...
    pub registry: String,
    /// `library/mnist`, ...
    pub repository: String,
    /// `latest` where neither a tag nor a digest was given.
    pub tag: Option<String>,
    /// `sha256:<64 hex digits>`.
    pub digest: Option<String>,
}

impl Reference {
    /// As people write it: without the default registry and namespace, but with the tag. `mnist:latest`.
    pub fn short(&self) -> String {
        let mut text = String::new();
        if self.registry != DEFAULT_REGISTRY {
            text.push_str(&self.registry);
            text.push('/');
            text.push_str(&self.repository);
        } else {
            let repository = &self.repository;
            let single = repository.strip_prefix(DEFAULT_NAMESPACE);
            text.push_str(
                single
                    .filter(|rest| !rest.contains('/'))
                    .unwrap_or(repository),
            );
        }
        self.push_tag_and_digest(&mut text);
        text
    }

    fn push_tag_and_digest(&self, text: &mut String) {
        if let Some(tag) = &self.tag {
            text.push(':');
            text.push_str(tag);
        }
        if let Some(digest) = &self.digest {
            text.push('@');
            text.push_str(digest);
        }
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = format!("{}/{}", self.registry, self.repository);
        self.push_tag_and_digest(&mut text);
        f.write_str(&text)
    }
}

impl FromStr for Reference {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let bad = |reason| Error::BadReference {
            reference: text.chars().take(300).collect(),
            reason,
        };
        let (rest, digest) = match text.split_once('@') {
            Some((rest, digest)) => (rest, Some(digest)),
            None => (text, None),
        };
        if let Some(digest) = digest
            && digest::hex_of(digest).is_none()
        {
            return Err(bad(
                "its digest is not sha256: and 64 lower case hex digits",
            ));
        }
        // A colon after the last slash begins a tag; one before it belongs to the registry's port.
        let name_from = rest.rfind('/').map_or(0, |slash| slash + 1);
        let (name, tag) = match rest[name_from..].find(':') {
            Some(colon) => (
                &rest[..name_from + colon],
                Some(&rest[name_from + colon + 1..]),
            ),
            None => (rest, None),
        };
        if let Some(tag) = tag
            && !is_tag(tag)
        {
            return Err(bad(
                "its tag is not 1 to 128 letters, digits, `_`, `.` and `-` (not first `.` or `-`)",
            ));
        }
        if name.is_empty() {
            return Err(bad("it has no name"));
        }
        let (registry, repository) = match name.split_once('/') {
            Some((first, rest)) if is_registry_like(first) => (first, rest.to_owned()),
            Some(_) => (DEFAULT_REGISTRY, name.to_owned()),
            None => (DEFAULT_REGISTRY, format!("{DEFAULT_NAMESPACE}{name}")),
        };
        // Docker's two other names for its own registry.
        let (registry, repository) = match registry {
            "index.docker.io" | DEFAULT_REGISTRY if !repository.contains('/') => {
                (DEFAULT_REGISTRY, format!("{DEFAULT_NAMESPACE}{repository}"))
            }
            "index.docker.io" => (DEFAULT_REGISTRY, repository),
            other => (other, repository),
        };
        if registry.len() + 1 + repository.len() > MAX_NAME_BYTES {
            return Err(bad("its name is longer than 255 characters"));
        }
        if !is_registry(registry) {
            return Err(bad("its registry is not a host name with an optional port"));
        }
        if digest::hex_of(&format!("sha256:{name}")).is_some() {
            return Err(bad("a name of 64 hex digits could be taken for a digest"));
        }
        if repository.chars().any(|c| c.is_ascii_uppercase()) {
            return Err(bad("its name must be lower case"));
        }
        if !repository.split('/').all(is_component) {
            return Err(bad(
                "its name is not of lower case letters and digits, with single `.`, one or two `_` or any `-` between them",
            ));
        }
        let tag = match (tag, digest) {
            (None, None) => Some("latest".to_owned()),
            (tag, _) => tag.map(str::to_owned),
        };
        Ok(Self {
            registry: registry.to_owned(),
            repository,
            tag,
            digest: digest.map(str::to_owned),
        })
    }
}

/// Docker's rule for whether the part before the first slash is a registry.
fn is_registry_like(first: &str) -> bool {
    first.contains(['.', ':'])
        || first == "localhost"
        || first.chars().any(|c| c.is_ascii_uppercase())
}

fn is_registry(text: &str) -> bool {
    let (host, port) = match text.strip_prefix('[') {
        Some(rest) => match rest.split_once(']') {
            Some((address, port)) => {
                let colon_port = port.is_empty() || port.starts_with(':');
                if !colon_port || !address.chars().all(|c| c.is_ascii_hexdigit() || c == ':') {
                    return false;
                }
                return port.is_empty() || is_port(&port[1..]);
            }
            None => return false,
        },
        None => match text.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (text, None),
        },
    };
    let label = |label: &str| {
        !label.is_empty()
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.chars().all(|c| c.is_ascii_alphanumeric() || c == '-')
    };
    host.split('.').all(label) && port.is_none_or(is_port)
}

fn is_port(text: &str) -> bool {
    !text.is_empty() && text.len() <= 5 && text.chars().all(|c| c.is_ascii_digit())
}

pub(crate) fn is_tag(tag: &str) -> bool {
    (1..=128).contains(&tag.len())
        && !tag.starts_with(['.', '-'])
        && tag
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-'))
}

/// `[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*`
pub(crate) fn is_component(text: &str) -> bool {
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    if !text.starts_with(plain) || !text.ends_with(plain) {
        return false;
    }
    text.split(plain).all(|between| {
        matches!(between, "" | "." | "_" | "__") || between.chars().all(|c| c == '-')
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_are_completed_as_docker_does() {
        let hex = "a".repeat(64);
        let with_digest = format!("mnist@sha256:{hex}");
        let both = format!("mnist:1@sha256:{hex}");
        for (text, canonical, short) in [
            ("mnist", "docker.io/library/mnist:latest", "mnist:latest"),
            (
                "mnist:1.1.0",
                "docker.io/library/mnist:1.1.0",
                "mnist:1.1.0",
            ),
            ("team/app", "docker.io/team/app:latest", "team/app:latest"),
            (
                "docker.io/mnist",
                "docker.io/library/mnist:latest",
                "mnist:latest",
            ),
            (
                "index.docker.io/team/app:2",
                "docker.io/team/app:2",
                "team/app:2",
            ),
            (
                "localhost/app",
                "localhost/app:latest",
                "localhost/app:latest",
            ),
            (
                "localhost:5000/a/b_c:x",
                "localhost:5000/a/b_c:x",
                "localhost:5000/a/b_c:x",
            ),
            ("ghcr.io/o/r", "ghcr.io/o/r:latest", "ghcr.io/o/r:latest"),
            (
                "[::1]:5000/app",
                "[::1]:5000/app:latest",
                "[::1]:5000/app:latest",
            ),
            (
                &with_digest,
                &format!("docker.io/library/{with_digest}"),
                &with_digest,
            ),
            (&both, &format!("docker.io/library/{both}"), &both),
            (
                "docker.io/library/a/b",
                "docker.io/library/a/b:latest",
                "library/a/b:latest",
            ),
        ] {
            let reference: Reference = text.parse().unwrap();
            assert_eq!(reference.to_string(), canonical, "{text}");
            assert_eq!(reference.short(), short, "{text}");
            let again: Reference = reference.short().parse().unwrap();
            assert_eq!(again, reference, "the short form of {text} means the same");
        }
    }

    #[test]
    fn what_docker_refuses_is_refused() {
        let long = "a".repeat(300);
        let hex = "a".repeat(64);
        for text in [
            "",
            ":",
            "@",
            "Mnist",
            "a:",
            "a:-x",
            "a//b",
            "/a",
            "a/",
            "-a",
            "a-",
            "a..b",
            "a___b",
            "a@sha256:12",
            "a b",
            "http://a/b",
            "a:b:c",
            "exa_mple.com:5000/a",
            "localhost:x/a",
            "é",
            "[::1/a",
            &long,
            &hex,
        ] {
            assert!(text.parse::<Reference>().is_err(), "{text}");
        }
    }
}
