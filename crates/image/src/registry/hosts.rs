//! The names under which the node's own registry is meant, and the one name that the store keeps.

use std::net::SocketAddr;

/// Where the registry answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hosts {
    /// Its host name, `registry.<domain>`: what the names of its images in the store begin with.
    pub name: String,
    /// The address that it listens on itself.
    pub listen: Option<SocketAddr>,
}

impl Hosts {
    /// The registry of a node whose services are names of `domain`.
    pub fn new(domain: &str, listen: Option<SocketAddr>) -> Self {
        Self {
            name: format!("registry.{domain}"),
            listen,
        }
    }

    /// What a reference means, with the registry's one name in front where it means this registry: `registry/app:1`,
    /// `registry.<domain>:8080/app:1` and `localhost:5000/app:1` are all `registry.<domain>/app:1`. Any other
    /// reference is given back as it is.
    pub fn canonical(&self, reference: &str) -> String {
        match reference.split_once('/') {
            Some((host, rest)) if self.mean(host) => format!("{}/{rest}", self.name),
            _ => reference.to_owned(),
        }
    }

    /// The repository and what follows it, where a reference means this registry.
    pub fn repository(&self, reference: &str) -> Option<crate::Reference> {
        let reference: crate::Reference = self.canonical(reference).parse().ok()?;
        (reference.registry == self.name).then_some(reference)
    }

    /// The same for a reference that was parsed before, when `registry/app` had become Docker's; `None`: it does not mean
    /// this registry.
    pub fn own(&self, reference: &crate::Reference) -> Option<crate::Reference> {
        let rest = match reference.registry.as_str() {
            "docker.io" => reference.repository.strip_prefix("registry/")?,
            host if self.mean(host) => &reference.repository,
            _ => return None,
        };
        Some(crate::Reference {
            registry: self.name.clone(),
            repository: rest.to_owned(),
            ..reference.clone()
        })
    }

    /// Whether `host`, with or without a port, is this registry.
    fn mean(&self, host: &str) -> bool {
        if host == "registry" {
            return true;
        }
        let (name, port) = match host.rsplit_once(':') {
            // The colons of an IPv6 address are no port's.
            Some((name, port)) if !name.ends_with(':') && port.parse::<u16>().is_ok() => {
                (name, port.parse::<u16>().ok())
            }
            _ => (host, None),
        };
        if name.eq_ignore_ascii_case(&self.name) {
            return true;
        }
        let Some(listen) = self.listen else {
            return false;
        };
        let own = match name {
            "localhost" => listen.ip().is_loopback() || listen.ip().is_unspecified(),
            name => name
                .trim_start_matches('[')
                .trim_end_matches(']')
                .parse::<std::net::IpAddr>()
                .is_ok_and(|ip| {
                    ip == listen.ip() || ip.is_loopback() && listen.ip().is_unspecified()
                }),
        };
        own && port == Some(listen.port())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_of_the_registry_is_one_name() {
        let hosts = Hosts::new("localhost", "127.0.0.1:5000".parse().ok());
        for (text, canonical) in [
            ("registry/app:1", "registry.localhost/app:1"),
            ("registry.localhost/a/b", "registry.localhost/a/b"),
            ("registry.localhost:8080/app", "registry.localhost/app"),
            ("localhost:5000/app:1", "registry.localhost/app:1"),
            ("127.0.0.1:5000/app", "registry.localhost/app"),
            ("localhost:5001/app", "localhost:5001/app"),
            ("127.0.0.2:5000/app", "127.0.0.2:5000/app"),
            ("localhost/app", "localhost/app"),
            ("app:1", "app:1"),
            ("registry:2", "registry:2"),
            ("registry.example.com/app", "registry.example.com/app"),
        ] {
            assert_eq!(hosts.canonical(text), canonical, "{text}");
        }
        let open = Hosts::new("example.com", "0.0.0.0:5000".parse().ok());
        assert_eq!(open.canonical("localhost:5000/a"), "registry.example.com/a");
        let v6 = Hosts::new("x", "[::1]:5000".parse().ok());
        assert_eq!(v6.canonical("[::1]:5000/a"), "registry.x/a");
        let found = open.repository("registry/app:1").expect("it is ours");
        assert_eq!(
            (found.repository.as_str(), found.tag.as_deref()),
            ("app", Some("1"))
        );
        assert_eq!(open.repository("app:1"), None);
        for (text, own) in [
            ("registry/app:1", Some("registry.example.com/app:1")),
            (
                "localhost:5000/a/b",
                Some("registry.example.com/a/b:latest"),
            ),
            (
                "registry.example.com/app",
                Some("registry.example.com/app:latest"),
            ),
            ("app", None),
            ("ghcr.io/registry/app", None),
        ] {
            let parsed: crate::Reference = text.parse().expect("a reference");
            let found = open.own(&parsed).map(|own| own.to_string());
            assert_eq!(found.as_deref(), own, "{text}");
        }
    }
}
