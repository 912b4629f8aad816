//! `ports` and `expose`.

use std::net::IpAddr;
use std::ops::RangeInclusive;

use layby_model::spec::PublishedPort;

use crate::draft::Placed;
use crate::fields::{Fields, parsed, port};
use crate::report::Report;
use crate::tree::{Node, Value, cut};

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
            _ => parsed(&item, &format!("an item of {name}"), report, short).unwrap_or_default(),
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

/// Reads `expose`: ports, ranges of them, or `PORT/tcp`.
pub(crate) fn exposed(service: &mut Fields, report: &mut Report) -> Vec<u16> {
    let name = format!("an item of {}", service.name("expose"));
    let mut ports = Vec::new();
    for item in items(service, "expose", report) {
        let range = parsed(&item, &name, report, |text| range(without_protocol(text)?));
        ports.extend(range.into_iter().flatten());
        if ports.len() > MAX_PORTS {
            let message = format!("{} has more than {MAX_PORTS} ports", service.name("expose"));
            report.error(&item.place, message);
            break;
        }
    }
    ports
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

/// `[[IP:]HOST:]CONTAINER[/tcp]`; without a host port, any free one. Both may be ranges of the same length.
fn short(text: &str) -> Result<Vec<PublishedPort>, String> {
    let text = without_protocol(text)?;
    let (rest, container) = match text.rsplit_once(':') {
        Some((rest, container)) => (Some(rest), container),
        None => (None, text),
    };
    let targets = range(container)?;
    let Some(rest) = rest else {
        let any = |target| PublishedPort {
            host: None,
            port: 0,
            target,
        };
        return Ok(targets.map(any).collect());
    };
    let (ip, host_port) = match rest.rsplit_once(':') {
        Some((ip, port)) => (Some(ip), port),
        None => (None, rest),
    };
    let host = ip.map(address).transpose()?;
    if targets.len() == 1 {
        let (port, target) = (published_port(host_port)?, *targets.start());
        return Ok(vec![PublishedPort { host, port, target }]);
    }
    let ports = match host_port {
        "" | "0" => None,
        ports => Some(range(ports)?),
    };
    if ports
        .as_ref()
        .is_some_and(|ports| ports.len() != targets.len())
    {
        return Err("two ranges of the same length, such as 8000-8003:9000-9003".to_owned());
    }
    let ports = ports.into_iter().flatten().chain(std::iter::repeat(0));
    let pairs = ports.zip(targets);
    let pairs = pairs.map(|(port, target)| PublishedPort { host, port, target });
    Ok(pairs.collect())
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
    let host = fields.parsed("host_ip", report, address);
    fields.parsed("protocol", report, |text| match text {
        "tcp" => Ok(()),
        _ => Err("tcp (only TCP is supported)".to_owned()),
    });
    let is_http = app_protocol(&mut fields, "app_protocol", report);
    http.extend(target.filter(|_| is_http));
    fields.accept(&["mode", "name"]);
    fields.accept_extensions();
    fields.finish(report);
    Some(PublishedPort {
        host,
        port: port.unwrap_or(0),
        target: target?,
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

/// Takes `/tcp` off.
fn without_protocol(text: &str) -> Result<&str, String> {
    match text.split_once('/') {
        None => Ok(text),
        Some((port, "tcp")) => Ok(port),
        Some(_) => Err("TCP (only TCP is supported)".to_owned()),
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

/// A port of the machine; 0 or nothing: any free one.
fn published_port(text: &str) -> Result<u16, String> {
    one_port(text)?;
    match text {
        "" | "0" => Ok(0),
        text => port(text),
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

fn address(text: &str) -> Result<IpAddr, String> {
    let bare = text
        .strip_prefix('[')
        .and_then(|text| text.strip_suffix(']'))
        .unwrap_or(text);
    bare.parse()
        .map_err(|_| "[IP:]HOST:CONTAINER with an IP address such as 127.0.0.1".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_leads_to_one_of_the_same_length() {
        let read = |text: &str| -> Vec<(u16, u16)> {
            let ports = short(text).unwrap();
            ports.iter().map(|port| (port.port, port.target)).collect()
        };
        assert_eq!(
            read("127.0.0.1:8000-8002:9000-9002/tcp"),
            [(8000, 9000), (8001, 9001), (8002, 9002)]
        );
        assert_eq!(read("9000-9001"), [(0, 9000), (0, 9001)]);
        assert_eq!(read("127.0.0.1::9000-9001"), [(0, 9000), (0, 9001)]);
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
            assert_eq!(
                short(text),
                Ok(vec![PublishedPort { host, port, target }]),
                "{text}"
            );
        }
        for bad in [
            "",
            "0",
            "80:",
            "80:0",
            "a:80",
            "80:80/udp",
            "1-2:1-3",
            "1-2:80",
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
