//! One service of a Compose file.

use std::collections::BTreeMap;

use layby_model::spec::{ContainerSpec, STOP_GRACE_MS, ServiceSpec, SleepPolicy};

use crate::compose::deploy::Deploy;
use crate::compose::{build, deploy, healthcheck, leftover, pairs, ports, shell};
use crate::draft::{Draft, service_name};
use crate::fields::{Expected, Fields, parsed, texts};
use crate::report::Report;
use crate::tree::{Entry, Value, cut};
use crate::units::{duration_ms, sleep_after_ms};

/// Reads a service. `None` if it has no usable name, or is left out.
pub(crate) fn read(
    entry: Entry,
    variables: &BTreeMap<String, String>,
    report: &mut Report,
) -> Option<Draft> {
    let what = format!("service {:?}", cut(&entry.key));
    let place = entry.place;
    let name = service_name(&entry.key, &place, report);
    let mut service = Fields::open(entry.value, what, report)?;
    if !service
        .list("profiles", report)
        .unwrap_or_default()
        .is_empty()
    {
        let message = format!(
            "{} is left out: \"profiles\" cannot be switched on yet",
            service.what
        );
        report.warn(&place, message);
        return None;
    }

    let has_image = service.has("image");
    let image_at = service.place_of("image");
    let image = service.text("image", report).unwrap_or_default();
    let build = service
        .take("build")
        .map(|node| build::read(node, &service.what, variables, report));
    if build.is_none() && !has_image {
        let message = match image_at {
            Some(_) => format!("{} is empty: is a variable not set?", service.name("image")),
            None => format!("{} has neither \"image\" nor \"build\"", service.what),
        };
        report.error(image_at.as_ref().unwrap_or(&place), message);
    }
    let entrypoint = command(&mut service, "entrypoint", report);
    let command = command(&mut service, "command", report);
    let environment_name = service.name("environment");
    let env = service
        .take("environment")
        .map(|node| pairs::read(node, &environment_name, variables, report))
        .unwrap_or_default();
    let published = ports::published(&mut service, report);
    let exposed = ports::exposed(&mut service, report);
    let healthcheck = healthcheck::read(&mut service, report);
    let Deploy {
        replicas,
        resources,
        strategy,
    } = deploy::read(&mut service, report);
    let stop_grace_ms = service.parsed("stop_grace_period", report, duration_ms);
    let layby = layby(&mut service, report);
    let container = ContainerSpec {
        build: build.flatten(),
        entrypoint,
        command,
        env,
        working_dir: service.text("working_dir", report),
        user: service.text("user", report),
        resources,
        ports: unique(
            published
                .iter()
                .map(|port| port.value.target)
                .chain(exposed),
        ),
        readiness: healthcheck.readiness,
        liveness: None,
        startup: None,
        no_healthcheck: healthcheck.disabled,
        stop_signal: service.parsed("stop_signal", report, signal),
        stop_grace_ms: stop_grace_ms.unwrap_or(STOP_GRACE_MS),
        ..ContainerSpec::new(&entry.key, &image)
    };
    leftover::read(&mut service, report);
    service.finish(report);

    let port = layby.port.or_else(|| container.ports.first().copied());
    let (published, published_at) = published
        .into_iter()
        .map(|port| (port.value, port.place))
        .unzip();
    Some(Draft {
        spec: ServiceSpec {
            containers: vec![container],
            replicas,
            port,
            published,
            sleep: layby.sleep,
            strategy,
            ..ServiceSpec::new(name?)
        },
        place,
        published_at,
        aliases_at: Vec::new(),
    })
}

/// `command` or `entrypoint`: a list of words, or a line that is split into them.
fn command(service: &mut Fields, key: &'static str, report: &mut Report) -> Option<Vec<String>> {
    let node = service.take(key)?;
    let name = service.name(key);
    if let Value::List(items) = &node.value {
        return Some(texts(items, &name, report));
    }
    let split = parsed(&node, &name, report, |line| {
        shell::split(line).map_err(|problem| format!("a command line or a list ({problem})"))
    })?;
    if let Some(operator) = split.operator {
        let message = format!(
            "{name} is not read by a shell: {operator:?} is handed to the program as a word; write [\"sh\", \"-c\", \"...\"] if a shell is meant"
        );
        report.warn(&node.place, message);
    }
    Some(split.words)
}

/// A signal as Docker takes it: `SIGTERM`, `TERM` or 15.
fn signal(text: &str) -> Result<String, Expected> {
    const NAMES: [&str; 32] = [
        "ABRT", "ALRM", "BUS", "CHLD", "CONT", "FPE", "HUP", "ILL", "INT", "IO", "KILL", "PIPE",
        "POLL", "PROF", "PWR", "QUIT", "SEGV", "STKFLT", "STOP", "SYS", "TERM", "TRAP", "TSTP",
        "TTIN", "TTOU", "URG", "USR1", "USR2", "VTALRM", "WINCH", "XCPU", "XFSZ",
    ];
    let name = text.strip_prefix("SIG").unwrap_or(text);
    let real_time = name.strip_prefix("RTMIN").or(name.strip_prefix("RTMAX"));
    let is_real_time = real_time.is_some_and(|rest| rest.is_empty() || rest.parse::<i8>().is_ok());
    let is_number = text
        .parse()
        .is_ok_and(|number: u8| (1..=64).contains(&number));
    if NAMES.contains(&name) || is_real_time || is_number {
        Ok(text.to_owned())
    } else {
        Err("a signal such as SIGTERM or 15".to_owned())
    }
}

/// Layby's own settings.
struct Layby {
    port: Option<u16>,
    sleep: SleepPolicy,
}

fn layby(service: &mut Fields, report: &mut Report) -> Layby {
    let mut settings = Layby {
        port: None,
        sleep: SleepPolicy::default(),
    };
    let Some(mut fields) = service.map("x-layby", report) else {
        return settings;
    };
    settings.port = fields.port("port", report);
    if let Some(mut sleep) = fields.map("sleep", report) {
        if let Some(after) = sleep.parsed("doze_after", report, sleep_after_ms) {
            settings.sleep.doze_after_ms = after;
        }
        if let Some(after) = sleep.parsed("sleep_after", report, sleep_after_ms) {
            settings.sleep.sleep_after_ms = after;
        }
        sleep.finish(report);
    }
    fields.finish(report);
    settings
}

/// Ports, each once, in order.
fn unique(ports: impl Iterator<Item = u16>) -> Vec<u16> {
    let mut all = Vec::new();
    for port in ports {
        if !all.contains(&port) {
            all.push(port);
        }
    }
    all
}
