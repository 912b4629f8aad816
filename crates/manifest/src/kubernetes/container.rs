//! One container of a pod (`v1.Container`).

use std::collections::BTreeMap;
use std::net::IpAddr;

use layby_model::spec::{ContainerSpec, PublishedPort, PullPolicy};

use crate::capability::Added;
use crate::draft::{Placed, not_a_label};
use crate::fields::{self, Fields};
use crate::host::ip;
use crate::kubernetes::env::{self, Known};
use crate::kubernetes::expand::{self, Variables};
use crate::kubernetes::lifecycle;
use crate::kubernetes::probe;
use crate::kubernetes::resources::{self, Said};
use crate::kubernetes::security::{self, PodSecurity};
use crate::kubernetes::volume::{self, VolumeMount};
use crate::power::Limited;
use crate::report::Report;
use crate::tree::{Node, cut};

/// Keys that touch data, secrets or devices.
const REFUSED: [(&str, &str); 1] = [("volumeDevices", "data written there would be lost")];

/// A container, with what other parts of the manifest refer to.
#[derive(Debug)]
pub(crate) struct Container {
    pub(crate) spec: ContainerSpec,
    pub(crate) named_ports: BTreeMap<String, u16>,
    /// UDP ports that it says it listens on.
    pub(crate) udp: Vec<u16>,
    /// Ports of the machine that lead to its own (`hostPort`).
    pub(crate) published: Vec<Placed<PublishedPort>>,
    pub(crate) mounts: Vec<VolumeMount>,
    pub(crate) capabilities: Option<Added>,
    pub(crate) limited: Option<Limited>,
    /// One that runs before the others is to stay beside them.
    pub(crate) stays: bool,
}

/// What a container is in its pod.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    /// One of `containers`.
    Main,
    /// One of `initContainers`.
    Init,
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
    role: Role,
    common: &Common,
    known: Known<'_>,
    report: &mut Report,
) -> Option<Container> {
    let shown = node.get("name").and_then(Node::scalar).map(cut);
    let word = match role {
        Role::Main => "container",
        Role::Init => "init container",
    };
    let what = match shown {
        Some(name) => format!("{word} {name:?} of {owner}"),
        None => format!("a {word} of {owner}"),
    };
    let mut fields = Fields::open(node, what, report)?;
    let place = fields.place.clone();
    let stays = stays(&mut fields, role, report);
    let name = fields.text("name", report);
    match &name {
        None => report.error(&place, format!("{} has no \"name\"", fields.what)),
        Some(name) if !layby_model::names::is_dns_label(name) => {
            report.error(&place, not_a_label("container", name));
        }
        Some(_) => {}
    }
    let has_image = fields.has("image");
    let image_at = fields.place_of("image");
    let image = fields.text("image", report).unwrap_or_default();
    if !has_image {
        report.error(&place, format!("{} has no \"image\"", fields.what));
    }
    if let Some(place) = image_at {
        report.image(&place, &image);
    }
    let Ports {
        tcp: ports,
        udp,
        named: named_ports,
        published,
    } = ports(&mut fields, report);
    let (run_as, mut options, capabilities) =
        security::container(&mut fields, &common.security, report);
    let Said {
        resources,
        devices,
        limited,
    } = resources::read(&mut fields, report);
    let env = env::read(&mut fields, &resources, known, report);
    let mounts = volume::mounts(&mut fields, &env.variables, report);
    let entrypoint = words(&mut fields, "command", &env.variables, report);
    let command = words(&mut fields, "args", &env.variables, report);
    options.cdi_devices = devices;
    options.tty = fields.flag("tty", report).unwrap_or(false);
    let pull = fields.parsed("imagePullPolicy", report, |text| match text {
        "Always" => Ok(PullPolicy::Always),
        "IfNotPresent" => Ok(PullPolicy::Missing),
        "Never" => Ok(PullPolicy::Never),
        _ => Err("Always, IfNotPresent or Never".to_owned()),
    });
    let lifecycle = lifecycle::read(&mut fields, &named_ports, report);
    let mut spec = ContainerSpec {
        entrypoint,
        command,
        working_dir: fields.text("workingDir", report),
        user: run_as.user(),
        resources,
        ports,
        readiness: probe::read(&mut fields, "readinessProbe", &named_ports, report),
        liveness: probe::read(&mut fields, "livenessProbe", &named_ports, report),
        startup: probe::read(&mut fields, "startupProbe", &named_ports, report),
        stop_signal: lifecycle.stop_signal,
        post_start: lifecycle.post_start,
        pre_stop: lifecycle.pre_stop,
        stop_grace_ms: common.stop_grace_ms,
        pull: pull.unwrap_or_default(),
        options,
        ..ContainerSpec::new(&name.unwrap_or_default(), &image)
    };
    env.give(&mut spec);
    fields.refuse(&REFUSED, report);
    stdin(&mut fields, spec.options.tty, report);
    fields.accept(&[
        "resizePolicy",
        "terminationMessagePath",
        "terminationMessagePolicy",
    ]);
    fields.unsupported(&["restartPolicyRules"], report);
    fields.finish(report);
    Some(Container {
        spec,
        named_ports,
        udp,
        published,
        mounts,
        capabilities,
        limited,
        stays,
    })
}

/// `restartPolicy` of a container: one that runs before the others stays if it is Always. What is only for those that stay is
/// an error elsewhere, as it is to Kubernetes.
fn stays(container: &mut Fields, role: Role, report: &mut Report) -> bool {
    let stays = match role {
        Role::Main => {
            container.unsupported(&["restartPolicy"], report);
            return false;
        }
        Role::Init => container.parsed("restartPolicy", report, |text| match text {
            "Always" => Ok(true),
            "Never" | "OnFailure" => {
                Err("Always, or left out (its pod's policy says when it is tried again)".to_owned())
            }
            _ => Err("Always, or left out".to_owned()),
        }),
    };
    if stays == Some(true) {
        return true;
    }
    for key in [
        "lifecycle",
        "livenessProbe",
        "readinessProbe",
        "startupProbe",
    ] {
        if container.has(key)
            && let Some(entry) = container.entry(key)
        {
            let message = format!(
                "{} means nothing: it has to end before the others start, unless its \"restartPolicy\" is Always",
                container.name(key)
            );
            report.error(&entry.place, message);
        }
    }
    false
}

/// `command` or `args`, filled in. What only a replica knows stays out of a command line, which others can read.
fn words(
    container: &mut Fields,
    key: &'static str,
    variables: &Variables,
    report: &mut Report,
) -> Option<Vec<String>> {
    let place = container.place_of(key)?;
    let name = container.name(key);
    let mut all = Vec::new();
    for word in container.texts(key, report)? {
        match expand::word(&word, variables) {
            Ok(word) => all.push(word),
            Err(()) => {
                let message = format!(
                    "{name} names a variable that is a secret, or that only the replica knows: have a shell read it \
                     ([\"sh\", \"-c\", \"exec prog --key $NAME\"]), or the program itself"
                );
                report.error(&place, message);
            }
        }
    }
    Some(all)
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

/// What a container says it listens on.
#[derive(Debug, Default)]
struct Ports {
    tcp: Vec<u16>,
    udp: Vec<u16>,
    named: BTreeMap<String, u16>,
    published: Vec<Placed<PublishedPort>>,
}

/// `ports`: they say what is listened on, give it names, and lead ports of the machine there.
fn ports(container: &mut Fields, report: &mut Report) -> Ports {
    let what = format!("a port of {}", container.what);
    let mut read = Ports::default();
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
        let port =
            entry.and_then(|entry| fields::parsed(&entry.value, &entry_name, report, fields::port));
        let name = fields.text("name", report);
        let protocol = fields.entry("protocol");
        let of_machine = host_port(&mut fields, report);
        fields.finish(report);
        let (ports, udp) = match protocol.as_ref().map(|entry| entry.value.scalar()) {
            None | Some(Some("TCP")) => (&mut read.tcp, false),
            Some(Some("UDP")) => (&mut read.udp, true),
            Some(_) => {
                if let Some(entry) = protocol {
                    let message = format!(
                        "{what} is ignored: only TCP and UDP are supported, not {}",
                        entry.value.shown()
                    );
                    report.warn(&entry.place, message);
                }
                continue;
            }
        };
        let Some(port) = port else { continue };
        if !ports.contains(&port) {
            ports.push(port);
        }
        read.published.extend(of_machine.map(|of_machine| {
            let (host, number) = of_machine.value;
            let value = PublishedPort {
                host,
                port: number,
                target: port,
                udp,
            };
            Placed {
                value,
                place: of_machine.place,
            }
        }));
        if let Some(name) = name
            && read.named.insert(name.clone(), port).is_some()
        {
            report.error(
                &place,
                format!("{what} has a name that another has: {:?}", cut(&name)),
            );
        }
    }
    read
}

/// `hostPort` and `hostIP`: a port of the machine, on one of its addresses or on all that services are published on. 0: none.
fn host_port(fields: &mut Fields, report: &mut Report) -> Option<Placed<(Option<IpAddr>, u16)>> {
    let host = fields.parsed("hostIP", report, |text| match text {
        "" => Ok(None),
        text => ip(text).map(Some),
    });
    let place = fields.place_of("hostPort")?;
    let number = fields.parsed("hostPort", report, |text| match text {
        "0" => Ok(None),
        text => fields::port(text).map(Some),
    });
    Some(Placed {
        value: (host.flatten(), number.flatten()?),
        place,
    })
}
