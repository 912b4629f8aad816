//! Probes of a container (`v1.Probe`).

use std::collections::BTreeMap;

use layby_model::spec::{Probe, ProbeAction};

use crate::fields::{Fields, parsed, port};
use crate::report::Report;
use crate::tree::Node;

/// A day: more is taken for a mistake.
const MAX_SECONDS: u32 = 86_400;
/// The longest name of a service that a gRPC probe asks for.
const MAX_GRPC_SERVICE_BYTES: usize = 253;

/// Takes a probe off a container. `ports` are the container's named ones.
pub(crate) fn read(
    container: &mut Fields,
    key: &'static str,
    ports: &BTreeMap<String, u16>,
    report: &mut Report,
) -> Option<Probe> {
    let mut probe = container.map(key, report)?;
    let place = probe.place.clone();
    let mut actions = Vec::new();
    if let Some(fields) = probe.map("httpGet", report) {
        actions.push(http_get(fields, ports, report));
    }
    if let Some(mut fields) = probe.map("tcpSocket", report) {
        let port = port_of(&mut fields, "port", ports, report);
        fields.unsupported(&["host"], report);
        fields.finish(report);
        actions.push(port.map(|port| ProbeAction::Tcp { port }));
    }
    if let Some(mut fields) = probe.map("grpc", report) {
        // By number alone, as Kubernetes has it.
        let port = port_of(&mut fields, "port", &BTreeMap::new(), report);
        let service = fields.parsed("service", report, |text| {
            match text.len() > MAX_GRPC_SERVICE_BYTES {
                true => Err(format!("a name of at most {MAX_GRPC_SERVICE_BYTES} bytes")),
                false => Ok(text.to_owned()),
            }
        });
        fields.finish(report);
        let service = service.unwrap_or_default();
        actions.push(port.map(|port| ProbeAction::Grpc { port, service }));
    }
    if let Some(mut fields) = probe.map("exec", report) {
        let argv = fields.texts("command", report).unwrap_or_default();
        if argv.is_empty() {
            report.error(&fields.place, format!("{} has no \"command\"", fields.what));
        }
        fields.finish(report);
        actions.push((!argv.is_empty()).then_some(ProbeAction::Exec { argv }));
    }
    let mut seconds = |key, least, default: u32| {
        let seconds = probe.count(key, least..=MAX_SECONDS, report);
        u64::from(seconds.unwrap_or(default)) * 1000
    };
    let initial_delay_ms = seconds("initialDelaySeconds", 0, 0);
    let period_ms = seconds("periodSeconds", 1, 10);
    let timeout_ms = seconds("timeoutSeconds", 1, 1);
    let success_threshold = probe
        .count("successThreshold", 1..=1000, report)
        .unwrap_or(1);
    let failure_threshold = probe
        .count("failureThreshold", 1..=1_000_000, report)
        .unwrap_or(3);
    let grace_seconds = grace(&mut probe, key, report);
    let what = probe.what.clone();
    probe.finish(report);
    if actions.len() != 1 {
        let message =
            format!("{what} must have one of \"httpGet\", \"tcpSocket\", \"grpc\" and \"exec\"");
        report.error(&place, message);
        return None;
    }
    Some(Probe {
        action: actions.pop().flatten()?,
        initial_delay_ms,
        period_ms,
        timeout_ms,
        success_threshold,
        failure_threshold,
        stop_grace_ms: grace_seconds.map(|seconds| u64::from(seconds) * 1000),
    })
}

/// Takes `terminationGracePeriodSeconds` off a probe. Readiness ends nothing, and Kubernetes takes none with it.
fn grace(probe: &mut Fields, key: &str, report: &mut Report) -> Option<u32> {
    let place = probe.place_of("terminationGracePeriodSeconds")?;
    let seconds = probe.count("terminationGracePeriodSeconds", 1..=MAX_SECONDS, report);
    if key == "readinessProbe" {
        let message = format!(
            "{} means nothing: a readiness probe ends no container",
            probe.name("terminationGracePeriodSeconds")
        );
        report.error(&place, message);
        return None;
    }
    seconds
}

fn http_get(
    mut fields: Fields,
    ports: &BTreeMap<String, u16>,
    report: &mut Report,
) -> Option<ProbeAction> {
    let port = port_of(&mut fields, "port", ports, report);
    let path = path(&mut fields, report);
    let tls = fields.parsed("scheme", report, |text| match text {
        "HTTP" => Ok(false),
        "HTTPS" => Ok(true),
        _ => Err("HTTP or HTTPS".to_owned()),
    });
    fields.unsupported(&["protocol"], report);
    if let Some(entry) = fields.entry("host") {
        let message = format!(
            "{} is ignored: the replica itself is asked; a Host header goes into \"httpHeaders\"",
            fields.name("host")
        );
        report.warn(&entry.place, message);
    }
    let (mut host, mut headers) = (None, Vec::new());
    let what = format!("a header of {}", fields.what);
    for item in fields.list("httpHeaders", report).unwrap_or_default() {
        let Some((name, value)) = header(item, &what, report) else {
            continue;
        };
        if name.eq_ignore_ascii_case("host") {
            host = Some(value);
        } else {
            headers.push((name, value));
        }
    }
    fields.finish(report);
    Some(ProbeAction::Http {
        port: port?,
        path,
        host,
        headers,
        tls: tls.unwrap_or(false),
    })
}

/// Takes `path` off an `httpGet`.
pub(crate) fn path(get: &mut Fields, report: &mut Report) -> String {
    let path = get.parsed("path", report, |text| {
        match text.contains(|c: char| c.is_control() || c == ' ') {
            true => Err("a path without spaces".to_owned()),
            false => Ok(text.to_owned()),
        }
    });
    match path.filter(|path| !path.is_empty()) {
        None => "/".to_owned(),
        Some(path) if path.starts_with('/') => path,
        Some(path) => format!("/{path}"),
    }
}

/// Takes `scheme` off the `httpGet` of a hook.
pub(crate) fn scheme(get: &mut Fields, report: &mut Report) {
    get.parsed("scheme", report, |text| match text {
        "HTTP" => Ok(()),
        _ => Err("HTTP (hooks do not speak HTTPS)".to_owned()),
    });
    get.unsupported(&["protocol"], report);
}

/// A header that can be sent as it is (RFC 9110, sections 5.1 and 5.5).
pub(crate) fn header(item: Node, what: &str, report: &mut Report) -> Option<(String, String)> {
    let mut fields = Fields::open(item, what, report)?;
    let is_token = |c: char| c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c);
    let name = fields.parsed("name", report, |text| {
        if !text.is_empty() && text.chars().all(is_token) {
            Ok(text.to_owned())
        } else {
            Err("a header's name".to_owned())
        }
    });
    let value = fields.parsed("value", report, |text| {
        if text.contains(|c: char| c.is_control()) {
            Err("a header's value, on one line".to_owned())
        } else {
            Ok(text.to_owned())
        }
    });
    fields.finish(report);
    Some((name?, value.unwrap_or_default()))
}

/// A port by number, or by a name that the container gives one.
pub(crate) fn port_of(
    fields: &mut Fields,
    key: &'static str,
    ports: &BTreeMap<String, u16>,
    report: &mut Report,
) -> Option<u16> {
    let Some(node) = fields.take(key) else {
        report.error(&fields.place, format!("{} has no {key:?}", fields.what));
        return None;
    };
    parsed(&node, &fields.name(key), report, |text| {
        if let Some(port) = ports.get(text) {
            return Ok(*port);
        }
        port(text).map_err(|expected| {
            format!("{expected}, or the name of one of the container's \"ports\"")
        })
    })
}
