//! Variables of a container: `env` and `envFrom`, from wherever their values come.

use std::collections::BTreeMap;

use layby_model::secret::{
    ReplicaField, SecretGroup, SecretRef, SecretValue, ValueKind, ValueSource,
};
use layby_model::spec::{ContainerSpec, Resources};

use crate::fields::Fields;
use crate::kubernetes::bundle::{self, Bundles, Named};
use crate::kubernetes::expand::{self, Variables, parts};
use crate::report::Report;
use crate::tree::{Place, Value, cut};
use crate::units::{kubernetes_bytes, kubernetes_cpu_milli};

/// The label and annotation by which a pod of an indexed Job has its number.
const COMPLETION_INDEX: &str = "batch.kubernetes.io/job-completion-index";

/// What references may lead to.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Known<'a> {
    pub(crate) bundles: &'a Bundles,
    /// The labels of the pod.
    pub(crate) labels: &'a BTreeMap<String, String>,
    /// Its annotations.
    pub(crate) annotations: &'a BTreeMap<String, String>,
    /// It is one of a StatefulSet: it has a name of its own.
    pub(crate) of_set: bool,
}

/// The same, for the volumes of a pod.
#[derive(Debug, Clone, Copy)]
pub(crate) struct KnownToVolumes<'a> {
    pub(crate) known: Known<'a>,
    /// What the pod's containers may use and ask for, by their names.
    pub(crate) resources: &'a BTreeMap<String, Resources>,
}

/// The variables of a container.
#[derive(Debug, Default)]
pub(crate) struct Env {
    pub(crate) variables: Variables,
    groups: Vec<SecretGroup>,
}

impl Env {
    /// Gives them to the container.
    pub(crate) fn give(self, container: &mut ContainerSpec) {
        for (name, parts) in self.variables {
            match &parts[..] {
                [] => drop(container.env.insert(name, String::new())),
                [ValueSource::Text(text)] => drop(container.env.insert(name, text.clone())),
                [ValueSource::Secret(secret)] => {
                    container.secret_env.insert(name, secret.clone());
                }
                _ => drop(container.composed_env.insert(name, parts)),
            }
        }
        container.secret_env_from = self.groups;
    }
}

/// Takes `envFrom` and `env` off a container. `resources` are its own, for those who ask for them.
pub(crate) fn read(
    container: &mut Fields,
    resources: &Resources,
    known: Known<'_>,
    report: &mut Report,
) -> Env {
    let mut env = Env::default();
    let what = format!("an item of {}", container.name("envFrom"));
    for item in container.list("envFrom", report).unwrap_or_default() {
        if let Some(fields) = Fields::open(item, what.as_str(), report) {
            all_of(fields, known.bundles, &mut env, report);
        }
    }
    let what = format!("a variable of {}", container.what);
    for item in container.list("env", report).unwrap_or_default() {
        let Some(mut fields) = Fields::open(item, what.as_str(), report) else {
            continue;
        };
        let place = fields.place.clone();
        let name = fields.text("name", report).filter(|name| !name.is_empty());
        if name.is_none() {
            report.error(&place, format!("{what} has no \"name\""));
        }
        let from = fields.map("valueFrom", report);
        let value = fields.take("value");
        let is_both = from.is_some() && value.is_some();
        fields.finish(report);
        if is_both {
            report.error(
                &place,
                format!("{what} has both \"value\" and \"valueFrom\""),
            );
            continue;
        }
        let name = name.unwrap_or_default();
        let parts = match (from, value.map(|node| (node.place, node.value))) {
            (Some(from), _) => one(from, resources, known, report),
            (None, None) => Some(Vec::new()),
            (None, Some((_, Value::Scalar { text, plain }))) if !plain || is_text(&text) => {
                Some(parts(&text, &env.variables))
            }
            (None, Some((place, _))) => {
                report.error(
                    &place,
                    format!(
                        "the value of the variable {:?} must be text: put it in quotes",
                        cut(&name)
                    ),
                );
                None
            }
        };
        if let Some(parts) = parts
            && !name.is_empty()
        {
            env.variables.insert(name, parts);
        }
    }
    env
}

/// An item of `envFrom`: all keys of a Secret or ConfigMap.
fn all_of(mut fields: Fields, bundles: &Bundles, env: &mut Env, report: &mut Report) {
    let prefix = fields.text("prefix", report).unwrap_or_default();
    let place = fields.place.clone();
    let mut found = false;
    for (key, kind) in [
        ("configMapRef", ValueKind::Config),
        ("secretRef", ValueKind::Secret),
    ] {
        let Some(mut reference) = fields.map(key, report) else {
            continue;
        };
        found = true;
        let named = bundle::named(&mut reference, "name", report);
        reference.finish(report);
        let Some(named) = named else { continue };
        match (bundles.get(kind, &named.name), kind) {
            (Some(keys), _) => {
                for (key, value) in keys {
                    if kind == ValueKind::Config && bundles.is_binary(&named.name, key) {
                        continue; // Kubernetes takes `data` alone
                    }
                    if !can_be_variable(value, kind, &named, key, report) {
                        continue;
                    }
                    let parts = match kind {
                        ValueKind::Secret => {
                            vec![ValueSource::Secret(bundles.named(kind, &named.name, key))]
                        }
                        ValueKind::Config => vec![ValueSource::Text(text(value))],
                    };
                    env.variables.insert(format!("{prefix}{key}"), parts);
                }
            }
            (None, ValueKind::Secret) => env.groups.push(SecretGroup {
                group: named.name,
                optional: named.optional,
                prefix: prefix.clone(),
            }),
            (None, ValueKind::Config) => bundle::no_config(&named, report),
        }
    }
    let what = fields.what.clone();
    fields.finish(report);
    if !found {
        let message = format!("{what} has neither \"configMapRef\" nor \"secretRef\"");
        report.error(&place, message);
    }
}

/// What is in `valueFrom`. `None`: there is no variable.
fn one(
    mut fields: Fields,
    resources: &Resources,
    known: Known<'_>,
    report: &mut Report,
) -> Option<Vec<ValueSource>> {
    let place = fields.place.clone();
    let mut found: Vec<Option<Vec<ValueSource>>> = Vec::new();
    for (key, kind) in [
        ("configMapKeyRef", ValueKind::Config),
        ("secretKeyRef", ValueKind::Secret),
    ] {
        if let Some(reference) = fields.map(key, report) {
            found.push(key_of(reference, kind, known.bundles, report));
        }
    }
    if let Some(reference) = fields.map("fieldRef", report) {
        found.push(field(reference, known, report).map(|source| vec![source]));
    }
    if let Some(reference) = fields.map("resourceFieldRef", report) {
        let of = ResourcesOf::One(resources);
        found.push(resource(reference, of, report).map(|source| vec![source]));
    }
    fields.refuse(
        &[("fileKeyRef", "the container would miss the variable")],
        report,
    );
    let what = fields.what.clone();
    fields.finish(report);
    if found.len() > 1 {
        report.error(&place, format!("{what} is of several kinds: one is enough"));
    }
    found.pop().flatten()
}

fn key_of(
    mut fields: Fields,
    kind: ValueKind,
    bundles: &Bundles,
    report: &mut Report,
) -> Option<Vec<ValueSource>> {
    let named = bundle::named(&mut fields, "name", report);
    let key = fields.text("key", report).filter(|key| !key.is_empty());
    if key.is_none() {
        report.error(&fields.place, format!("{} has no \"key\"", fields.what));
    }
    fields.finish(report);
    let (named, key) = (named?, key?);
    let Some(keys) = bundles.get(kind, &named.name) else {
        return match kind {
            // Perhaps `layby secret set` has made it.
            ValueKind::Secret => {
                let secret = SecretRef {
                    optional: named.optional,
                    ..SecretRef::new(&format!("{}/{key}", named.name))
                };
                Some(vec![ValueSource::Secret(secret)])
            }
            ValueKind::Config => {
                bundle::no_config(&named, report);
                None
            }
        };
    };
    let is_file = kind == ValueKind::Config && bundles.is_binary(&named.name, &key);
    let Some(value) = keys.get(&key).filter(|_| !is_file) else {
        if is_file && !named.optional {
            let message = format!(
                "the key {:?} of the ConfigMap {:?} is in \"binaryData\", and can only be a file: put it into \"data\"",
                cut(&key),
                cut(&named.name)
            );
            report.error(&named.place, message);
        } else {
            bundle::no_key(kind, &named, &key, report);
        }
        return None;
    };
    if !can_be_variable(value, kind, &named, &key, report) {
        return None;
    }
    match kind {
        ValueKind::Secret => {
            let secret = bundles.named(kind, &named.name, &key);
            Some(vec![ValueSource::Secret(secret)])
        }
        ValueKind::Config => Some(vec![ValueSource::Text(text(value))]),
    }
}

/// Whether a value can be a variable's; else that is told, by its key.
fn can_be_variable(
    value: &SecretValue,
    kind: ValueKind,
    named: &Named,
    key: &str,
    report: &mut Report,
) -> bool {
    let is_text = bundle::is_text(value);
    if !is_text {
        let message = format!(
            "the key {:?} of the {} {:?} is no text, or has a zero byte in it, and cannot be a variable: mount it as a file",
            cut(key),
            bundle::word(kind),
            cut(&named.name)
        );
        report.error(&named.place, message);
    }
    is_text
}

/// The text of what can be a variable.
fn text(value: &SecretValue) -> String {
    String::from_utf8_lossy(value.bytes()).into_owned()
}

/// `fieldRef`: what the replica, or its manifest, says of itself.
pub(crate) fn field(
    mut fields: Fields,
    known: Known<'_>,
    report: &mut Report,
) -> Option<ValueSource> {
    fields.accept(&["apiVersion"]);
    let place = fields
        .place_of("fieldPath")
        .unwrap_or_else(|| fields.place.clone());
    let path = fields.text("fieldPath", report).unwrap_or_default();
    let what = fields.what.clone();
    fields.finish(report);
    for (kind, texts) in [("labels", known.labels), ("annotations", known.annotations)] {
        let key = path.strip_prefix("metadata.").and_then(|rest| {
            let rest = rest.strip_prefix(kind)?.strip_prefix("['")?;
            rest.strip_suffix("']")
        });
        match key {
            Some(COMPLETION_INDEX) => {
                return Some(ValueSource::Replica(ReplicaField::CompletionIndex));
            }
            Some(key) => {
                let text = texts.get(key).cloned().unwrap_or_default();
                return Some(ValueSource::Text(text));
            }
            None => {}
        }
    }
    let lines = |texts: &BTreeMap<String, String>| {
        let lines = texts.iter().map(|(key, value)| format!("{key}={value:?}"));
        ValueSource::Text(lines.collect::<Vec<_>>().join("\n"))
    };
    let source = match path.as_str() {
        "metadata.name" | "metadata.uid" if known.of_set => {
            ValueSource::Text(expand::POD.to_owned())
        }
        "metadata.name" | "metadata.uid" => ValueSource::Replica(ReplicaField::Id),
        "metadata.namespace" => ValueSource::Text(expand::NAMESPACE.to_owned()),
        "spec.nodeName" => ValueSource::Replica(ReplicaField::MachineName),
        "spec.serviceAccountName" => ValueSource::Text("default".to_owned()),
        "status.podIP" | "status.podIPs" => ValueSource::Replica(ReplicaField::Address),
        "status.hostIP" | "status.hostIPs" => ValueSource::Replica(ReplicaField::MachineAddress),
        "metadata.labels" => lines(known.labels),
        "metadata.annotations" => lines(known.annotations),
        _ => {
            let message = format!(
                "{what} names {:?}, which is not supported: metadata.name, metadata.uid, metadata.namespace, \
                 metadata.labels['KEY'], metadata.annotations['KEY'], spec.nodeName, status.podIP and status.hostIP are",
                cut(&path)
            );
            report.error(&place, message);
            return None;
        }
    };
    Some(source)
}

/// Whose resources a `resourceFieldRef` may ask for.
#[derive(Debug, Clone, Copy)]
pub(crate) enum ResourcesOf<'a> {
    /// The container's own.
    One(&'a Resources),
    /// Those of the pod's containers by their names, of which it must name one.
    Pod(&'a BTreeMap<String, Resources>),
}

/// `resourceFieldRef`: a limit or request of a container, in units of the divisor, rounded up. A limit that is not said is
/// what the machine has, as the kubelet has it.
pub(crate) fn resource(
    mut fields: Fields,
    of: ResourcesOf<'_>,
    report: &mut Report,
) -> Option<ValueSource> {
    let named = fields.placed("containerName", report);
    let resources = match of {
        ResourcesOf::One(resources) => Some(resources),
        ResourcesOf::Pod(all) => named.as_ref().and_then(|named| all.get(&named.value)),
    };
    let place: Place = fields.place.clone();
    let what = fields.what.clone();
    let name = fields.text("resource", report).unwrap_or_default();
    let is_cpu = name.ends_with(".cpu");
    let divisor = fields.parsed("divisor", report, |text| match (text, is_cpu) {
        ("0", _) => Ok(None),
        (text, true) => kubernetes_cpu_milli(text),
        (text, false) => kubernetes_bytes(text),
    });
    fields.finish(report);
    let Some(resources) = resources else {
        let message = format!("{what} must name one of the pod's containers as \"containerName\"");
        report.error(&named.map_or(place, |named| named.place), message);
        return None;
    };
    let limit = match name.as_str() {
        "limits.cpu" => resources.cpu_limit_milli,
        "requests.cpu" => resources.cpu_request_milli.or(resources.cpu_limit_milli),
        "limits.memory" => resources.memory_limit_bytes,
        "requests.memory" => resources
            .memory_request_bytes
            .or(resources.memory_limit_bytes),
        _ => {
            let message = format!(
                "{what} names {:?}, which is not supported: limits.cpu, limits.memory, requests.cpu and requests.memory are",
                cut(&name)
            );
            report.error(&place, message);
            return None;
        }
    };
    let usual = if is_cpu { 1000 } else { 1 };
    let divisor = divisor
        .flatten()
        .filter(|divisor| *divisor > 0)
        .unwrap_or(usual);
    Some(match limit {
        Some(limit) => ValueSource::Text(limit.div_ceil(divisor).to_string()),
        // What is asked for is nothing then.
        None if name.starts_with("requests.") => ValueSource::Text("0".to_owned()),
        None if is_cpu => ValueSource::Replica(ReplicaField::MachineCpu { milli: divisor }),
        None => ValueSource::Replica(ReplicaField::MachineMemory { bytes: divisor }),
    })
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
