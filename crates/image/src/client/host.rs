//! Where a registry is reached: its host, and whether plain HTTP will do.

use std::net::IpAddr;

/// The name of Docker's registry in references, and the host that answers for it.
pub(super) const DOCKER: &str = "docker.io";
const DOCKER_HOST: &str = "registry-1.docker.io";

/// Under which address a registry's API is found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Base {
    /// `https` or `http`.
    pub(super) scheme: &'static str,
    /// `host[:port]`.
    pub(super) authority: String,
}

/// The registry's name as references have it: without a scheme and path, `docker.io` for all of Docker's names.
pub(super) fn canonical(text: &str) -> String {
    let text = text.trim();
    let rest = text
        .strip_prefix("https://")
        .or_else(|| text.strip_prefix("http://"))
        .unwrap_or(text);
    let host = rest.split('/').next().unwrap_or(rest);
    match host {
        "index.docker.io" | DOCKER_HOST | "registry.hub.docker.com" => DOCKER.to_owned(),
        other => other.to_owned(),
    }
}

/// Where to ask the registry of that name.
pub(super) fn base(registry: &str, plain_http: bool) -> Base {
    let authority = match registry {
        DOCKER => DOCKER_HOST,
        other => other,
    };
    Base {
        scheme: if plain_http || is_loopback(authority) {
            "http"
        } else {
            "https"
        },
        authority: authority.to_owned(),
    }
}

/// Whether an authority (`host[:port]`) is this machine itself: 127.0.0.0/8, ::1, localhost or a name below it.
pub(super) fn is_loopback(authority: &str) -> bool {
    let host = host_of(authority);
    match host.parse::<IpAddr>() {
        Ok(address) => address.is_loopback(),
        Err(_) => {
            let host = host.to_ascii_lowercase();
            host == "localhost" || host.ends_with(".localhost")
        }
    }
}

/// The host of an authority, without brackets and port.
pub(super) fn host_of(authority: &str) -> &str {
    if let Some(rest) = authority.strip_prefix('[') {
        return rest.split(']').next().unwrap_or(rest);
    }
    match authority.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => host,
        _ => authority,
    }
}

/// The scheme and the authority of an absolute URL, in lower case; `None` for others, or with a user in it.
pub(super) fn origin(url: &str) -> Option<(String, String)> {
    let (scheme, rest) = url.split_once("://")?;
    let authority = rest.split(['/', '?', '#']).next()?;
    let scheme = scheme.to_ascii_lowercase();
    let known = matches!(scheme.as_str(), "http" | "https");
    let clean = !authority.is_empty() && !authority.contains(['@', '\\', ' ']);
    (known && clean).then(|| (scheme, authority.to_ascii_lowercase()))
}

/// A Location header's URL, made absolute (RFC 3986, section 5.2, as far as servers use it).
pub(super) fn join(base: &str, location: &str) -> Option<String> {
    if origin(location).is_some() {
        return Some(location.to_owned());
    }
    let (scheme, authority) = origin(base)?;
    if location.starts_with("//") {
        let url = format!("{scheme}:{location}");
        return origin(&url).map(|_| url);
    }
    if location.starts_with('/') {
        return Some(format!("{scheme}://{authority}{location}"));
    }
    if location.is_empty() || location.contains("://") {
        return None;
    }
    let path = base.split(['?', '#']).next()?;
    let path = path.get(scheme.len() + 3 + authority.len()..)?;
    let folder = path.rfind('/').map_or("/", |slash| &path[..=slash]);
    Some(format!("{scheme}://{authority}{folder}{location}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_this_machine_itself_is_asked_without_tls() {
        for (registry, scheme) in [
            ("localhost", "http"),
            ("localhost:5000", "http"),
            ("registry.localhost", "http"),
            ("127.0.0.1:5000", "http"),
            ("127.9.9.9", "http"),
            ("[::1]:5000", "http"),
            ("docker.io", "https"),
            ("ghcr.io", "https"),
            ("10.0.0.1:5000", "https"),
            ("localhost.example.com", "https"),
            ("127.0.0.1.example.com", "https"),
            ("[fe80::1]:5000", "https"),
        ] {
            assert_eq!(base(registry, false).scheme, scheme, "{registry}");
        }
        assert_eq!(base("docker.io", false).authority, "registry-1.docker.io");
        assert_eq!(base("ghcr.io", true).scheme, "http");
    }

    #[test]
    fn all_of_dockers_names_are_one() {
        for name in [
            "docker.io",
            "index.docker.io",
            "https://index.docker.io/v1/",
            "registry-1.docker.io",
        ] {
            assert_eq!(canonical(name), "docker.io", "{name}");
        }
        assert_eq!(canonical("https://ghcr.io/v2/"), "ghcr.io");
        assert_eq!(canonical("localhost:5000"), "localhost:5000");
    }

    #[test]
    fn locations_are_joined() {
        let base = "https://r.io:5000/v2/a/blobs/uploads/?x=1";
        for (location, url) in [
            ("https://cdn.io/x?y", Some("https://cdn.io/x?y")),
            ("//cdn.io/x", Some("https://cdn.io/x")),
            ("/v2/a", Some("https://r.io:5000/v2/a")),
            ("u1", Some("https://r.io:5000/v2/a/blobs/uploads/u1")),
            ("ftp://cdn.io/x", None),
            ("https://user@cdn.io/x", None),
            ("", None),
        ] {
            assert_eq!(join(base, location).as_deref(), url, "{location}");
        }
    }
}
