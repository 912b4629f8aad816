//! Which addresses others may lead the node to: what only this machine reaches is no business of a Dockerfile's ADD, and
//! of no registry that sends on to elsewhere.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ureq::config::Config;
use ureq::http::Uri;
use ureq::unversioned::resolver::{DefaultResolver, ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::NextTimeout;

/// What others may lead the node to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Reach {
    /// Whether that may be this machine itself, its links, and `networks`.
    pub node: bool,
    /// The networks of the machine's containers: an address, and the length of the prefix.
    pub networks: Vec<(Ipv4Addr, u8)>,
}

/// Keeps connections out of the machine's own networks. It is asked after each lookup, so for each redirect too.
#[derive(Debug, Default)]
pub(crate) struct Fence {
    pub(crate) reach: Reach,
    /// The host that a user has named: it may be anywhere.
    pub(crate) home: Option<String>,
}

impl Fence {
    fn keeps_out(&self, address: IpAddr) -> bool {
        if self.reach.node {
            return false;
        }
        match address.to_canonical() {
            IpAddr::V4(v4) => {
                v4.is_loopback()
                    || v4.is_unspecified()
                    || v4.is_link_local()
                    || v4.is_broadcast()
                    || v4.is_multicast()
                    || self.reach.networks.iter().any(|network| holds(network, v4))
            }
            IpAddr::V6(v6) => {
                v6 == Ipv6Addr::LOCALHOST
                    || v6.is_unspecified()
                    || v6.is_unicast_link_local()
                    || v6.is_multicast()
            }
        }
    }
}

fn holds((first, prefix): &(Ipv4Addr, u8), address: Ipv4Addr) -> bool {
    let differing = u32::from(*first) ^ u32::from(address);
    differing.leading_zeros() >= u32::from(*prefix)
}

impl Resolver for Fence {
    fn resolve(
        &self,
        uri: &Uri,
        config: &Config,
        timeout: NextTimeout,
    ) -> Result<ResolvedSocketAddrs, ureq::Error> {
        let found = DefaultResolver::default().resolve(uri, config, timeout)?;
        // The operator chose the proxy, which may well be on this machine.
        let is_proxy = config
            .proxy()
            .is_some_and(|proxy| uri.host() == Some(proxy.host()));
        let bare = |host: &str| host.trim_matches(['[', ']']).to_ascii_lowercase();
        let is_home = (self.home.as_deref().zip(uri.host()))
            .is_some_and(|(home, host)| bare(home) == bare(host));
        match found.iter().find(|found| self.keeps_out(found.ip())) {
            Some(found) if !is_proxy && !is_home => {
                let text = format!(
                    "{} is an address of the node itself, of its link or of its containers, which is reached only with `layby serve \
                     --allow-privileged`",
                    found.ip()
                );
                Err(ureq::Error::Other(text.into()))
            }
            Some(_) | None => Ok(found),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_only_the_machine_reaches_is_kept_out() {
        let fence = |node: bool| Fence {
            reach: Reach {
                node,
                networks: vec![(Ipv4Addr::new(10, 99, 240, 0), 16)],
            },
            home: None,
        };
        for (address, is_out) in [
            ("127.8.0.1", true),
            ("0.0.0.0", true),
            ("169.254.169.254", true),
            ("224.0.0.1", true),
            ("::1", true),
            ("::", true),
            ("::ffff:127.0.0.1", true),
            ("fe80::1", true),
            ("10.99.3.2", true),
            ("10.98.3.2", false),
            ("192.168.1.1", false),
            ("93.184.215.14", false),
            ("2001:db8::1", false),
        ] {
            let parsed = address.parse().expect("an address");
            assert_eq!(fence(false).keeps_out(parsed), is_out, "{address}");
            assert!(!fence(true).keeps_out(parsed), "{address}");
        }
    }
}
