//! Ingresses (`networking.k8s.io/v1`): host names and paths that lead to Services.

use std::collections::BTreeMap;

use crate::draft::Placed;
use crate::fields::{Fields, parsed, port};
use crate::host::hostname;
use crate::kubernetes::metadata;
use crate::report::Report;
use crate::tree::{Node, Place, cut};

/// The most paths of an Ingress.
const MAX_PATHS: usize = 1_000;

/// An Ingress, before it is joined to the Services that it leads to.
#[derive(Debug)]
pub(crate) struct Ingress {
    pub(crate) name: String,
    pub(crate) paths: Vec<Path>,
}

/// Where requests for one path lead.
#[derive(Debug)]
pub(crate) struct Path {
    pub(crate) place: Place,
    /// `None`: any host that leads nowhere else.
    pub(crate) host: Option<String>,
    pub(crate) path: String,
    pub(crate) exact: bool,
    pub(crate) backend: Backend,
}

/// A port of a Service.
#[derive(Debug, Clone)]
pub(crate) struct Backend {
    pub(crate) place: Place,
    pub(crate) service: String,
    pub(crate) port: Port,
}

/// How a port of a Service is named.
#[derive(Debug, Clone)]
pub(crate) enum Port {
    Number(u16),
    Name(String),
}

/// Reads an Ingress, and the namespace that it names.
pub(crate) fn read(
    mut object: Fields,
    report: &mut Report,
) -> (Option<Ingress>, Option<Placed<String>>) {
    object.what = "an Ingress".to_owned();
    let whole = object.place.clone();
    annotations(&object, report);
    let (head, namespace) = metadata::head(object, "Ingress", report);
    let Some(head) = head else {
        return (None, namespace);
    };
    let metadata::Head {
        name,
        what,
        mut spec,
    } = head;
    // There is one gateway.
    spec.accept(&["ingressClassName"]);
    if let Some(entry) = spec.entry("tls") {
        let message = format!(
            "{} is ignored: the gateway speaks HTTP alone; put what ends TLS before it",
            spec.name("tls")
        );
        report.warn(&entry.place, message);
    }
    let mut paths = Vec::new();
    if let Some(fields) = spec.map("defaultBackend", report) {
        let place = fields.place.clone();
        paths.extend(backend(fields, report).map(|backend| Path {
            place,
            host: None,
            path: "/".to_owned(),
            exact: false,
            backend,
        }));
    }
    for node in spec.list("rules", report).unwrap_or_default() {
        rule(node, &what, &mut paths, report);
    }
    if paths.len() > MAX_PATHS {
        report.error(&whole, format!("{what} has more than {MAX_PATHS} paths"));
    }
    spec.finish(report);
    let ingress = Ingress {
        name: name.value,
        paths,
    };
    (Some(ingress), namespace)
}

/// What a controller of a cluster would be told: those that change where a request goes, or what it is, are missed.
fn annotations(object: &Fields, report: &mut Report) {
    for (key, place) in object.keys_of(&["metadata", "annotations"]) {
        let of_controller = [
            "ingress.kubernetes.io/",
            "traefik.",
            "haproxy.",
            "nginx.org/",
        ];
        if of_controller.iter().any(|part| key.contains(part)) {
            let message = format!(
                "the annotation {:?} of an Ingress is ignored: the gateway takes no settings from it",
                cut(&key)
            );
            report.warn(&place, message);
        }
    }
}

fn rule(node: Node, what: &str, paths: &mut Vec<Path>, report: &mut Report) {
    let Some(mut fields) = Fields::open(node, format!("a rule of {what}"), report) else {
        return;
    };
    let host = fields
        .parsed("host", report, |text| match text {
            "" => Ok(None),
            text => hostname(text.strip_prefix("*.").unwrap_or(text))
                .map(|_| Some(text.to_ascii_lowercase())),
        })
        .flatten();
    if let Some(mut http) = fields.map("http", report) {
        for node in http.list("paths", report).unwrap_or_default() {
            paths.extend(path(node, host.as_ref(), what, report));
        }
        http.finish(report);
    }
    fields.finish(report);
}

fn path(node: Node, host: Option<&String>, what: &str, report: &mut Report) -> Option<Path> {
    let mut fields = Fields::open(node, format!("a path of {what}"), report)?;
    let place = fields.place.clone();
    let path = fields.parsed("path", report, |text| {
        match text.starts_with('/') && !text.contains(|c: char| c.is_control()) {
            true => Ok(text.to_owned()),
            false => Err("a path that begins with /".to_owned()),
        }
    });
    let kind = fields.parsed("pathType", report, |text| match text {
        "Exact" => Ok(true),
        // What it is, the one who implements it says.
        "Prefix" | "ImplementationSpecific" => Ok(false),
        _ => Err("Exact, Prefix or ImplementationSpecific".to_owned()),
    });
    if path
        .as_ref()
        .is_some_and(|path| path.contains(['*', '(', '$']))
    {
        let message = format!(
            "the path {:?} of {what} is taken as it is: it is no pattern here",
            cut(path.as_deref().unwrap_or_default())
        );
        report.warn(&place, message);
    }
    let backend = match fields.map("backend", report) {
        Some(fields) => backend(fields, report),
        None => {
            report.error(&place, format!("{} has no \"backend\"", fields.what));
            None
        }
    };
    fields.finish(report);
    Some(Path {
        place,
        host: host.cloned(),
        path: path.unwrap_or_else(|| "/".to_owned()),
        exact: kind.unwrap_or(false),
        backend: backend?,
    })
}

fn backend(mut fields: Fields, report: &mut Report) -> Option<Backend> {
    fields.refuse(
        &[("resource", "a request would find nothing there")],
        report,
    );
    let place = fields.place.clone();
    let what = fields.what.clone();
    let service = fields.map("service", report);
    fields.finish(report);
    let Some(mut service) = service else {
        report.error(&place, format!("{what} has no \"service\""));
        return None;
    };
    let name = service.text("name", report);
    let mut port_fields = service.map("port", report);
    let number = port_fields.as_mut().and_then(|fields| {
        let entry = fields.entry("number")?;
        let name = fields.name("number");
        parsed(&entry.value, &name, report, port)
    });
    let by_name = port_fields
        .as_mut()
        .and_then(|fields| fields.text("name", report));
    if let Some(fields) = port_fields {
        fields.finish(report);
    }
    service.finish(report);
    let port = match (number, by_name) {
        (Some(number), _) => Port::Number(number),
        (None, Some(name)) => Port::Name(name),
        (None, None) => {
            report.error(&place, format!("{what} has no \"port\" of its service"));
            return None;
        }
    };
    let Some(service) = name.filter(|name| !name.is_empty()) else {
        report.error(&place, format!("{what} has no \"name\" of its service"));
        return None;
    };
    Some(Backend {
        place,
        service,
        port,
    })
}

/// What each Service of the manifest leads to, by its name.
pub(crate) type Led = BTreeMap<String, Leads>;

/// What one Service leads to.
#[derive(Debug, Default)]
pub(crate) struct Leads {
    /// The place among the drafts of the service that requests go to.
    pub(crate) draft: Option<usize>,
    /// Its ports: number, name, and where each leads.
    pub(crate) ports: Vec<(u16, Option<String>, u16)>,
}

impl Leads {
    /// Where a port leads.
    pub(crate) fn target(&self, port: &Port) -> Option<u16> {
        let found = self.ports.iter().find(|(number, name, _)| match port {
            Port::Number(wanted) => number == wanted,
            Port::Name(wanted) => name.as_ref() == Some(wanted),
        });
        found.map(|(_, _, target)| *target)
    }
}
