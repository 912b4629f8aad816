//! `ports` and `expose`.

use std::net::IpAddr;
use std::ops::RangeInclusive;

use layby_model::spec::PublishedPort;

use crate::draft::Placed;
use crate::fields::{Fields, parsed, port};
use crate::report::Report;
use crate::tree::{Node, Place, Value, cut};

/// The most ports of a service.
const MAX_PORTS: usize = 1000;

/// The ports of the machine that lead to a service.
#[derive(Debug, Default)]
pub(crate) struct Published {
    pub(crate) all: Vec<Placed<PublishedPort>>,
    /// Ports in the replica that are said to speak HTTP (`app_protocol`).
    pub(crate) http: Vec<u16>,
}

/// Reads `ports`: the short and the long syntax. What is said twice is kept once.
pub(crate) fn published(service: &mut Fields, report: &mut Report) -> Published {
    let name = service.name("ports");
    let mut published = Published::default();
    for item in items(service, "ports", report) {
        let place = item.place.clone();
        let ports: Vec<PublishedPort> = match item.value {
            Value::Map(_) => long(item, &service.what, &mut published.http, report)
                .into_iter()
                .collect(),
            _ => {
                let item_name = format!("an item of {name}");
                let ports = parsed(&item, &item_name, report, short).unwrap_or_default();
                if let Some(range) = ports.iter().find_map(|port| port.range.as_ref()) {
                    warn_of_range(&item_name, range, &place, report);
                }
                ports.into_iter().map(|port| port.port).collect()
            }
        };
        if published.all.len() + ports.len() > MAX_PORTS {
            report.error(&place, format!("{name} has more than {MAX_PORTS} ports"));
            break;
        }
        for value in ports {
            if !published.all.iter().any(|known| known.value == value) {
                let place = place.clone();
                published.all.push(Placed { value, place });
            }
        }
    }
    published
}

/// The ports that a service says it listens on.
#[derive(Debug, Default)]
pub(crate) struct Exposed {
    pub(crate) tcp: Vec<u16>,
    pub(crate) udp: Vec<u16>,
}

/// Reads `expose`: ports or ranges of them, of TCP or with `/udp`.
pub(crate) fn exposed(service: &mut Fields, report: &mut Report) -> Exposed {
    let name = format!("an item of {}", service.name("expose"));
    let mut exposed = Exposed::default();
    for item in items(service, "expose", report) {
        let read = parsed(&item, &name, report, |text| {
            let (text, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
            Ok((range(text)?, is_udp(protocol)?))
        });
        let Some((range, is_udp)) = read else {
            continue;
        };
        match is_udp {
            true => exposed.udp.extend(range),
            false => exposed.tcp.extend(range),
        }
        if exposed.tcp.len() + exposed.udp.len() > MAX_PORTS {
            let message = format!("{} has more than {MAX_PORTS} ports", service.name("expose"));
            report.error(&item.place, message);
            break;
        }
    }
    exposed
}

/// The items of a list of ports, as many as there may be.
fn items(service: &mut Fields, key: &'static str, report: &mut Report) -> Vec<Node> {
    let mut items = service.list(key, report).unwrap_or_default();
    if items.len() > MAX_PORTS {
        let message = format!("{} has more than {MAX_PORTS} items", service.name(key));
        report.error(&items[MAX_PORTS].place, message);
        items.truncate(MAX_PORTS);
    }
    items
}

/// A port as the short syntax writes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Written {
    pub(crate) host: Option<String>,
    /// A port of the machine, or a range to take one from.
    pub(crate) published: Option<String>,
    pub(crate) target: u16,
    pub(crate) protocol: String,
}

/// Takes `[[IP:]HOST:]CONTAINER[/PROTOCOL]` apart; without a host port, any free one. Both may be ranges of the same length, or
/// the host's alone.
///
/// # Errors
/// What it must be instead.
pub(crate) fn written(text: &str) -> Result<Vec<Written>, String> {
    let (text, protocol) = match text.split_once('/') {
        None => (text, "tcp"),
        Some((text, protocol @ ("tcp" | "udp" | "sctp"))) => (text, protocol),
        Some(_) => return Err("a port of tcp, udp or sctp".to_owned()),
    };
    let (rest, container) = match text.rsplit_once(':') {
        Some((rest, container)) => (Some(rest), container),
        None => (None, text),
    };
    let targets = range(container)?;
    let (host, ports) = match rest.map(|rest| (rest, rest.rsplit_once(':'))) {
        None => (None, ""),
        Some((_, Some((host, ports)))) => (Some(host), ports),
        Some((ports, None)) => (None, ports),
    };
    // `${ADDRESS}:80:80` without an address is the node's own.
    let host = host.filter(|host| !host.is_empty());
    let host = host.map(|host| bare(host).to_owned());
    let each = |published: Option<String>, target: u16| Written {
        host: host.clone(),
        published,
        target,
        protocol: protocol.to_owned(),
    };
    let ports = Some(ports).filter(|ports| !matches!(*ports, "" | "0"));
    if targets.len() == 1 {
        return Ok(vec![each(ports.map(str::to_owned), *targets.start())]);
    }
    let ports = ports.map(range).transpose()?;
    let lengths = ports.as_ref().map(|ports| ports.len());
    if lengths.is_some_and(|length| length != targets.len()) {
        return Err("two ranges of the same length, such as 8000-8003:9000-9003".to_owned());
    }
    let mut ports = ports.into_iter().flatten();
    let pairs = targets.map(|target| each(ports.next().map(|port| port.to_string()), target));
    Ok(pairs.collect())
}

/// A port that is published, and the range of the machine's ports that it is one of.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Port {
    port: PublishedPort,
    range: Option<String>,
}

/// The short syntax.
fn short(text: &str) -> Result<Vec<Port>, String> {
    let read = |written: Written| {
        let udp = is_udp(&written.protocol)?;
        let (port, range) = published_port(written.published.as_deref().unwrap_or_default())?;
        let host = written.host.as_deref().map(address).transpose()?;
        let target = written.target;
        let port = PublishedPort {
            host,
            port,
            target,
            udp,
        };
        Ok(Port { port, range })
    };
    written(text)?.into_iter().map(read).collect()
}

fn warn_of_range(name: &str, range: &str, place: &Place, report: &mut Report) {
    let message =
        format!("{name} may be any of the machine's ports {range}: it is the first of them");
    report.warn(place, message);
}

fn long(
    item: Node,
    service: &str,
    http: &mut Vec<u16>,
    report: &mut Report,
) -> Option<PublishedPort> {
    let mut fields = Fields::open(item, format!("a port of {service}"), report)?;
    let place = fields.place.clone();
    let target = fields.entry("target");
    if target.is_none() {
        report.error(&place, format!("{} has no \"target\"", fields.what));
    }
    let name = fields.name("target");
    let target = target.and_then(|entry| parsed(&entry.value, &name, report, self::target));
    let port = fields.parsed("published", report, published_port);
    let (port, range) = port.unwrap_or_default();
    if let Some(range) = range {
        warn_of_range(&fields.name("published"), &range, &place, report);
    }
    let host = fields.parsed("host_ip", report, address);
    let udp = fields.parsed("protocol", report, is_udp).unwrap_or(false);
    let is_http = app_protocol(&mut fields, "app_protocol", report);
    http.extend(target.filter(|_| is_http && !udp));
    fields.accept(&["mode", "name"]);
    fields.accept_extensions();
    fields.finish(report);
    Some(PublishedPort {
        host,
        port,
        target: target?,
        udp,
    })
}

/// Takes off what is spoken on a port (Kubernetes' `appProtocol`, too): whether it is HTTP/1.1. Whatever else it is goes
/// through as it is, connection by connection.
pub(crate) fn app_protocol(fields: &mut Fields, key: &'static str, report: &mut Report) -> bool {
    let Some(place) = fields.place_of(key) else {
        return false;
    };
    let protocol = fields.text(key, report).unwrap_or_default();
    match protocol.as_str() {
        "http" | "kubernetes.io/ws" => true,
        "" | "tcp" => false,
        protocol => {
            let message = format!(
                "{} is {:?}: it is balanced by connection, as plain TCP",
                fields.name(key),
                cut(protocol)
            );
            report.warn(&place, message);
            false
        }
    }
}

/// Whether a protocol is UDP; else it is TCP.
fn is_udp(protocol: &str) -> Result<bool, String> {
    match protocol {
        "tcp" => Ok(false),
        "udp" => Ok(true),
        _ => Err("of tcp or udp (no other protocol is supported)".to_owned()),
    }
}

fn target(text: &str) -> Result<u16, String> {
    one_port(text)?;
    port(text)
}

/// A port, or a range of them: `8000-8003`.
fn range(text: &str) -> Result<RangeInclusive<u16>, String> {
    let Some((from, to)) = text.split_once('-') else {
        let port = port(text)?;
        return Ok(port..=port);
    };
    let range = port(from)?..=port(to)?;
    match range.len() {
        0 => Err("a range from the lower port to the higher".to_owned()),
        1..=MAX_PORTS => Ok(range),
        _ => Err(format!("a range of at most {MAX_PORTS} ports")),
    }
}

/// A port of the machine, and the range that it is the first of; 0 or nothing: any free one.
fn published_port(text: &str) -> Result<(u16, Option<String>), String> {
    match text {
        "" | "0" => Ok((0, None)),
        text if text.contains('-') => Ok((*range(text)?.start(), Some(text.to_owned()))),
        text => Ok((port(text)?, None)),
    }
}

fn one_port(text: &str) -> Result<(), String> {
    match text.split_once('-') {
        Some((from, to)) if port(from).is_ok() && port(to).is_ok() => Err(
            "one port (a range leads to a range of the same length, in the short form)".to_owned(),
        ),
        _ => Ok(()),
    }
}

/// An address without the brackets around one of IPv6.
fn bare(text: &str) -> &str {
    let inner = text
        .strip_prefix('[')
        .and_then(|text| text.strip_suffix(']'));
    inner.unwrap_or(text)
}

fn address(text: &str) -> Result<IpAddr, String> {
    bare(text)
        .parse()
        .map_err(|_| "[IP:]HOST:CONTAINER with an IP address such as 127.0.0.1".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_leads_to_one_of_the_same_length() {
        let read = |text: &str| -> Vec<(u16, u16)> {
            let ports = short(text).unwrap();
            let ports = ports.iter().map(|port| &port.port);
            ports.map(|port| (port.port, port.target)).collect()
        };
        assert_eq!(
            read("127.0.0.1:8000-8002:9000-9002/tcp"),
            [(8000, 9000), (8001, 9001), (8002, 9002)]
        );
        assert_eq!(read("9000-9001"), [(0, 9000), (0, 9001)]);
        assert_eq!(read("127.0.0.1::9000-9001"), [(0, 9000), (0, 9001)]);
        assert_eq!(read("8000-8010:9000"), [(8000, 9000)], "the first of them");
    }

    #[test]
    fn the_short_syntax_is_read() {
        let cases = [
            ("8051", (None, 0, 8051)),
            ("80:8051", (None, 80, 8051)),
            ("80:8051/tcp", (None, 80, 8051)),
            ("127.0.0.1:80:8051", (Some("127.0.0.1"), 80, 8051)),
            ("127.0.0.1::8051", (Some("127.0.0.1"), 0, 8051)),
            ("[::1]:80:8051", (Some("::1"), 80, 8051)),
            ("0:8051", (None, 0, 8051)),
        ];
        for (text, (host, port, target)) in cases {
            let host = host.map(|host: &str| host.parse().unwrap());
            for (udp, text) in [(false, text.to_owned()), (true, format!("{text}/udp"))] {
                let port = PublishedPort {
                    host,
                    port,
                    target,
                    udp,
                };
                let text = text.replace("/tcp/udp", "/udp");
                assert_eq!(short(&text), Ok(vec![Port { port, range: None }]), "{text}");
            }
        }
        for bad in [
            "",
            "0",
            "80:",
            "80:0",
            "a:80",
            "80:80/sctp",
            "80:80/icmp",
            "1-2:1-3",
            "80:1-2",
            "2-1:2-1",
            "1-2000:1-2000",
            "localhost:80:80",
            "70000:80",
            "80/tcp/tcp",
        ] {
            assert!(short(bad).is_err(), "{bad}");
        }
    }
}
