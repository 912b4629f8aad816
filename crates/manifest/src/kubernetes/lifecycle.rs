//! `lifecycle` of a container (`v1.Lifecycle`): what is done after its start and before its stop, and the signal that asks it to
//! stop.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};

use layby_model::hook::Hook;

use crate::fields::Fields;
use crate::kubernetes::probe::{header, path, port_of, scheme};
use crate::report::Report;

/// A day: more is taken for a mistake.
const MAX_SECONDS: u64 = 86_400;

/// What a container's lifecycle says.
#[derive(Debug, Default)]
pub(crate) struct Lifecycle {
    pub(crate) post_start: Vec<Hook>,
    pub(crate) pre_stop: Vec<Hook>,
    pub(crate) stop_signal: Option<String>,
}

/// Takes `lifecycle` off a container. `ports` are the container's named ones.
pub(crate) fn read(
    container: &mut Fields,
    ports: &BTreeMap<String, u16>,
    report: &mut Report,
) -> Lifecycle {
    let Some(mut fields) = container.map("lifecycle", report) else {
        return Lifecycle::default();
    };
    let mut hook = |key, report: &mut Report| {
        let hook = fields.map(key, report)?;
        handler(hook, ports, report)
    };
    let post_start = hook("postStart", report).into_iter().collect();
    let pre_stop = hook("preStop", report).into_iter().collect();
    let stop_signal = fields.parsed("stopSignal", report, crate::signal::signal);
    fields.finish(report);
    Lifecycle {
        post_start,
        pre_stop,
        stop_signal,
    }
}

/// A `v1.LifecycleHandler`.
fn handler(mut fields: Fields, ports: &BTreeMap<String, u16>, report: &mut Report) -> Option<Hook> {
    let mut found = Vec::new();
    if let Some(mut exec) = fields.map("exec", report) {
        let argv = exec.texts("command", report).unwrap_or_default();
        if argv.is_empty() {
            report.error(&exec.place, format!("{} has no \"command\"", exec.what));
        }
        exec.finish(report);
        found.push((!argv.is_empty()).then(|| Hook::command(argv)));
    }
    if let Some(get) = fields.map("httpGet", report) {
        found.push(http_get(get, ports, report));
    }
    if let Some(mut sleep) = fields.map("sleep", report) {
        let seconds = sleep.number("seconds", 0..=MAX_SECONDS, report);
        if seconds.is_none() {
            report.error(&sleep.place, format!("{} has no \"seconds\"", sleep.what));
        }
        sleep.finish(report);
        found.push(seconds.map(|seconds| Hook::Sleep { ms: seconds * 1000 }));
    }
    // Kubernetes takes it, and fails when it is to be carried out.
    fields.refuse(&[("tcpSocket", "use exec, httpGet or sleep")], report);
    let (place, what) = (fields.place.clone(), fields.what.clone());
    fields.finish(report);
    if found.len() != 1 {
        let message = format!("{what} must have one of \"exec\", \"httpGet\" and \"sleep\"");
        report.error(&place, message);
        return None;
    }
    found.pop().flatten()
}

fn http_get(mut get: Fields, ports: &BTreeMap<String, u16>, report: &mut Report) -> Option<Hook> {
    let port = port_of(&mut get, "port", ports, report);
    let path = path(&mut get, report);
    scheme(&mut get, report);
    let host = get.parsed("host", report, |text| match text {
        "localhost" => Ok(IpAddr::V4(Ipv4Addr::LOCALHOST)),
        text => text.parse().map_err(|_| {
            "an IP address (without one the replica itself is asked; a name goes into \"httpHeaders\" as Host)"
                .to_owned()
        }),
    });
    let what = format!("a header of {}", get.what);
    let headers = get.list("httpHeaders", report).unwrap_or_default();
    let headers = headers
        .into_iter()
        .filter_map(|item| header(item, &what, report))
        .collect();
    get.finish(report);
    Some(Hook::Http {
        port: port?,
        path,
        host,
        headers,
    })
}
