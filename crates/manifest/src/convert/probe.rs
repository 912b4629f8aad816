//! Probes (`v1.Probe`): a health check says when a container may be led to, and when it is to be started again.

use layby_model::spec::{ContainerSpec, Probe, ProbeAction};

use crate::convert::App;
use crate::convert::quantity::seconds;
use crate::convert::tree::{Map, maps, texts};
use crate::draft::Draft;
use crate::report::Report;
use crate::units::duration_ms;

/// How often is asked while a container starts, where nothing is said (Docker's `start_interval`), in milliseconds.
const START_INTERVAL_MS: u64 = 5_000;
/// What holds where nothing is said (`v1.Probe`), in seconds.
const PERIOD: u64 = 10;
const TIMEOUT: u64 = 1;
const FAILURES: u64 = 3;

/// The probes of a container.
#[derive(Default)]
pub(super) struct Probes {
    pub(super) startup: Map,
    pub(super) readiness: Map,
    pub(super) liveness: Map,
}

/// Writes them. Both of a health check ask the same; while `start_period` lasts, failures of neither count.
pub(super) fn write(
    app: &App<'_>,
    draft: &Draft,
    container: &ContainerSpec,
    report: &mut Report,
) -> Probes {
    let Some(check) = &container.readiness else {
        return Probes::default();
    };
    for (key, ms) in [
        ("healthcheck.interval", check.period_ms),
        ("healthcheck.timeout", check.timeout_ms),
    ] {
        if !ms.is_multiple_of(1_000) {
            let why = format!(
                "is rounded up to {} s: a probe goes by whole seconds",
                seconds(ms)
            );
            app.said.lost(draft, &[key], &why, report);
        }
    }
    let said_ms = |path: &str| {
        let text = app.said.text(draft, path)?;
        duration_ms(text).ok().filter(|ms| *ms > 0)
    };
    let startup = said_ms("healthcheck.start_period").map(|period_ms| {
        let each_ms = said_ms("healthcheck.start_interval").unwrap_or(START_INTERVAL_MS);
        let each = seconds(each_ms);
        let tries = period_ms.div_ceil(each * 1_000) + u64::from(check.failure_threshold);
        probe(check, each, tries)
    });
    let usual = || {
        let failures = u64::from(check.failure_threshold);
        probe(check, seconds(check.period_ms), failures)
    };
    Probes {
        startup: startup.unwrap_or_default(),
        readiness: usual(),
        // Whatever else asks for one, there is one by now.
        liveness: match &container.liveness {
            Some(own) => probe(own, seconds(own.period_ms), own.failure_threshold.into()),
            None => usual(),
        },
    }
}

fn probe(probe: &Probe, period: u64, failures: u64) -> Map {
    let unless = |value: u64, usual: u64| Some(value).filter(|value| *value != usual);
    let action = match &probe.action {
        ProbeAction::Http {
            port,
            path,
            host,
            headers,
            tls,
        } => {
            let host = host.iter().map(|host| ("Host", host.as_str()));
            let others = headers
                .iter()
                .map(|(name, value)| (name.as_str(), value.as_str()));
            let headers = host
                .chain(others)
                .map(|(name, value)| Map::new().text("name", name).text("value", value));
            let get = Map::new().text("path", path).plain("port", port);
            let get = match tls {
                true => get.text("scheme", "HTTPS"),
                false => get,
            };
            Map::new().put("httpGet", get.put("httpHeaders", maps(headers)))
        }
        ProbeAction::Grpc { port, service } => {
            let check = Map::new().plain("port", port).text("service", service);
            Map::new().put("grpc", check)
        }
        ProbeAction::Tcp { port } => Map::new().put("tcpSocket", Map::new().plain("port", port)),
        ProbeAction::Exec { argv } => {
            // Nobody fills in what a probe executes.
            Map::new().put("exec", Map::new().put("command", texts(argv.clone())))
        }
    };
    action
        .some_plain("periodSeconds", unless(period, PERIOD))
        .some_plain("timeoutSeconds", unless(seconds(probe.timeout_ms), TIMEOUT))
        .some_plain("failureThreshold", unless(failures, FAILURES))
}
