//! One container of a pod (`v1.Container`).

use std::collections::BTreeMap;

use layby_model::spec::{ContainerSpec, PullPolicy};

use crate::capability::Added;
use crate::draft::not_a_label;
use crate::fields::Fields;
use crate::kubernetes::expand::expand;
use crate::kubernetes::probe;
use crate::kubernetes::resources::{self, Said};
use crate::kubernetes::security::{self, PodSecurity};
use crate::kubernetes::volume::{self, VolumeMount};
use crate::power::Limited;
use crate::report::Report;
use crate::tree::{Node, Value, cut};

/// Keys that touch data, secrets or devices.
const REFUSED: [(&str, &str); 2] = [
    (
        "envFrom",
        "the container would miss its variables; write them into \"env\"",
    ),
    ("volumeDevices", "data written there would be lost"),
];

/// A container, with what other parts of the manifest refer to.
#[derive(Debug)]
pub(crate) struct Container {
    pub(crate) spec: ContainerSpec,
    pub(crate) named_ports: BTreeMap<String, u16>,
    pub(crate) mounts: Vec<VolumeMount>,
    pub(crate) capabilities: Option<Added>,
    pub(crate) limited: Option<Limited>,
}

/// What all containers of a pod have in common.
#[derive(Debug)]
pub(crate) struct Common {
    pub(crate) security: PodSecurity,
    pub(crate) stop_grace_ms: u64,
}

/// Reads a container of the deployment called `owner`.
pub(crate) fn read(
    node: Node,
    owner: &str,
    common: &Common,
    report: &mut Report,
) -> Option<Container> {
    let shown = node.get("name").and_then(Node::scalar).map(cut);
    let what = match shown {
        Some(name) => format!("container {name:?} of {owner}"),
        None => format!("a container of {owner}"),
    };
    let mut fields = Fields::open(node, what, report)?;
    let place = fields.place.clone();
    let name = fields.text("name", report);
    match &name {
        None => report.error(&place, format!("{} has no \"name\"", fields.what)),
        Some(name) if !layby_model::names::is_dns_label(name) => {
            report.error(&place, not_a_label("container", name));
        }
        Some(_) => {}
    }
    let has_image = fields.has("image");
    let image = fields.text("image", report).unwrap_or_default();
    if !has_image {
        report.error(&place, format!("{} has no \"image\"", fields.what));
    }
    let env = env(&mut fields, report);
    let mut words = |key| {
        let words = fields.texts(key, report)?;
        Some(words.iter().map(|word| expand(word, &env)).collect())
    };
    let (entrypoint, command) = (words("command"), words("args"));
    let (ports, named_ports) = ports(&mut fields, report);
    let (run_as, mut options, capabilities) =
        security::container(&mut fields, &common.security, report);
    let Said {
        resources,
        devices,
        limited,
    } = resources::read(&mut fields, report);
    options.cdi_devices = devices;
    options.tty = fields.flag("tty", report).unwrap_or(false);
    let pull = fields.parsed("imagePullPolicy", report, |text| match text {
        "Always" => Ok(PullPolicy::Always),
        "IfNotPresent" => Ok(PullPolicy::Missing),
        "Never" => Ok(PullPolicy::Never),
        _ => Err("Always, IfNotPresent or Never".to_owned()),
    });
    let spec = ContainerSpec {
        entrypoint,
        command,
        env,
        working_dir: fields.text("workingDir", report),
        user: run_as.user(),
        resources,
        ports,
        readiness: probe::read(&mut fields, "readinessProbe", &named_ports, report),
        liveness: probe::read(&mut fields, "livenessProbe", &named_ports, report),
        startup: probe::read(&mut fields, "startupProbe", &named_ports, report),
        stop_signal: lifecycle(&mut fields, report),
        stop_grace_ms: common.stop_grace_ms,
        pull: pull.unwrap_or_default(),
        options,
        ..ContainerSpec::new(&name.unwrap_or_default(), &image)
    };
    fields.refuse(&REFUSED, report);
    let mounts = volume::mounts(&mut fields, report);
    stdin(&mut fields, spec.options.tty, report);
    fields.accept(&[
        "resizePolicy",
        "terminationMessagePath",
        "terminationMessagePolicy",
    ]);
    fields.unsupported(&["restartPolicy", "restartPolicyRules"], report);
    fields.finish(report);
    Some(Container {
        spec,
        named_ports,
        mounts,
        capabilities,
        limited,
    })
}

/// `lifecycle`: of it, the signal that asks to stop.
fn lifecycle(container: &mut Fields, report: &mut Report) -> Option<String> {
    let mut lifecycle = container.map("lifecycle", report)?;
    let signal = lifecycle.parsed("stopSignal", report, crate::signal::signal);
    lifecycle.unsupported(&["postStart", "preStop"], report);
    lifecycle.finish(report);
    signal
}

/// `stdin` and `stdinOnce`: a terminal is never at its end, anything else is from the start.
fn stdin(container: &mut Fields, tty: bool, report: &mut Report) {
    let place = container.place_of("stdin");
    let wanted = container.flag("stdin", report).unwrap_or(false);
    container.accept(&["stdinOnce"]);
    if let (Some(place), true, false) = (place, wanted, tty) {
        let message = format!(
            "{} is ignored: without \"tty\" a container has no standard input",
            container.name("stdin")
        );
        report.warn(&place, message);
    }
}

/// `env`: names with values; values may name those before them as `$(NAME)`.
fn env(container: &mut Fields, report: &mut Report) -> BTreeMap<String, String> {
    let what = format!("a variable of {}", container.what);
    let mut env = BTreeMap::new();
    for item in container.list("env", report).unwrap_or_default() {
        let Some(mut fields) = Fields::open(item, what.as_str(), report) else {
            continue;
        };
        let place = fields.place.clone();
        let name = fields.text("name", report).filter(|name| !name.is_empty());
        if name.is_none() {
            report.error(&place, format!("{what} has no \"name\""));
        }
        fields.refuse(
            &[(
                "valueFrom",
                "the container would miss the variable; write its \"value\"",
            )],
            report,
        );
        let value = fields.take("value");
        fields.finish(report);
        let value = match value.map(|node| (node.place, node.value)) {
            None => String::new(),
            Some((_, Value::Scalar { text, plain })) if !plain || is_text(&text) => text,
            Some((place, _)) => {
                let name = name.unwrap_or_default();
                report.error(
                    &place,
                    format!(
                        "the value of the variable {:?} must be text: put it in quotes",
                        cut(&name)
                    ),
                );
                continue;
            }
        };
        if let Some(name) = name {
            let value = expand(&value, &env);
            env.insert(name, value);
        }
    }
    env
}

/// Whether Kubernetes takes an unquoted scalar as text, and not as a number or boolean.
fn is_text(text: &str) -> bool {
    let boolean = matches!(
        text.to_ascii_lowercase().as_str(),
        "true" | "false" | "yes" | "no" | "on" | "off"
    );
    let number = text.parse::<f64>().is_ok() && text.contains(|c: char| c.is_ascii_digit());
    !boolean && !number
}

/// `ports`: they say what is listened on, and give it names.
fn ports(container: &mut Fields, report: &mut Report) -> (Vec<u16>, BTreeMap<String, u16>) {
    let what = format!("a port of {}", container.what);
    let (mut ports, mut named) = (Vec::new(), BTreeMap::new());
    for item in container.list("ports", report).unwrap_or_default() {
        let Some(mut fields) = Fields::open(item, what.as_str(), report) else {
            continue;
        };
        let place = fields.place.clone();
        let entry = fields.entry("containerPort");
        if entry.is_none() {
            report.error(&place, format!("{what} has no \"containerPort\""));
        }
        let entry_name = fields.name("containerPort");
        let port = entry.and_then(|entry| {
            crate::fields::parsed(&entry.value, &entry_name, report, crate::fields::port)
        });
        let name = fields.text("name", report);
        let protocol = fields.entry("protocol");
        fields.refuse(
            &[(
                "hostPort",
                "publish the port with a Service of type NodePort",
            )],
            report,
        );
        fields.accept(&["hostIP"]);
        fields.finish(report);
        if let Some(entry) = protocol
            && entry.value.scalar() != Some("TCP")
        {
            let message = format!(
                "{what} is ignored: only TCP is supported, not {}",
                entry.value.shown()
            );
            report.warn(&entry.place, message);
            continue;
        }
        let Some(port) = port else { continue };
        if !ports.contains(&port) {
            ports.push(port);
        }
        if let Some(name) = name
            && named.insert(name.clone(), port).is_some()
        {
            report.error(
                &place,
                format!("{what} has a name that another has: {:?}", cut(&name)),
            );
        }
    }
    (ports, named)
}
