//! What the two formats are read into: model types that still know their lines.

use std::collections::BTreeSet;

use layby_model::names::{AppName, ServiceName, is_dns_label};
use layby_model::spec::{PublishedPort, REPLICAS_MAX, ServiceSpec};

use crate::compose::watch::Watch;
use crate::fields::Expected;
use crate::report::Report;
use crate::tree::{Place, cut};
use crate::value::DeclaredValue;

/// A name or a word with its place.
#[derive(Debug, Clone)]
pub(crate) struct Placed<T> {
    pub(crate) value: T,
    pub(crate) place: Place,
}

/// What a manifest says of an app.
#[derive(Debug, Default)]
pub(crate) struct AppDraft {
    /// Its name. `None`: the report says why.
    pub(crate) name: Option<AppName>,
    pub(crate) services: Vec<Draft>,
    /// Those that were asked for; `None`: nobody has looked yet.
    pub(crate) chosen: Option<BTreeSet<ServiceName>>,
    /// Services that were not asked for, and that their profiles leave out.
    pub(crate) left_out: Vec<ServiceName>,
    /// What is done when files of the developer change.
    pub(crate) watches: Vec<Watch>,
    /// The secrets and configs that it brings.
    pub(crate) values: Vec<DeclaredValue>,
    /// Files that these are in, and that are to be read.
    pub(crate) named_files: Vec<String>,
    /// Where files of secrets are on the machine, whether anything has them or not.
    pub(crate) secret_paths: BTreeSet<String>,
}

impl AppDraft {
    /// All files that are to be read to know the whole of it, each once.
    pub(crate) fn named(&self) -> Vec<String> {
        let of_services = self.services.iter().flat_map(|draft| &draft.named_files);
        let all: BTreeSet<&String> = of_services.chain(&self.named_files).collect();
        all.into_iter().cloned().collect()
    }
}

/// A service with the lines that checks across services need.
#[derive(Debug, Clone)]
pub(crate) struct Draft {
    pub(crate) spec: ServiceSpec,
    /// Where its name stands.
    pub(crate) place: Place,
    /// Where each of `spec.published` stands.
    pub(crate) published_at: Vec<Place>,
    /// Where each of `spec.aliases` stands.
    pub(crate) aliases_at: Vec<Place>,
    /// Files that it names and that are to be read.
    pub(crate) named_files: Vec<String>,
}

impl Draft {
    /// Publishes these ports, and no others.
    pub(crate) fn publish(&mut self, ports: Vec<Placed<PublishedPort>>) {
        let ports = ports.into_iter().map(|port| (port.value, port.place));
        (self.spec.published, self.published_at) = ports.unzip();
    }

    /// Leaves no port that anything leads to.
    pub(crate) fn close(&mut self) {
        self.publish(Vec::new());
        self.spec.port = None;
        self.spec.ports.clear();
    }
}

/// How many replicas a service is to have; 0: it is disabled.
pub(crate) fn replicas(text: &str) -> Result<u32, Expected> {
    match text.parse() {
        Ok(count @ 0..=REPLICAS_MAX) => Ok(count),
        _ => Err(format!("a whole number from 0 to {REPLICAS_MAX}")),
    }
}

/// Takes a service's name; one that is no DNS label is an error that says what to rename it to.
pub(crate) fn service_name(name: &str, place: &Place, report: &mut Report) -> Option<ServiceName> {
    match ServiceName::new(name) {
        Ok(name) => Some(name),
        Err(_) => {
            report.error(place, not_a_label("service", name));
            None
        }
    }
}

/// A workload's name as that of a service. Kubernetes lets it have dots: a label is made of it then, with a warning.
pub(crate) fn workload_name(name: &Placed<String>, report: &mut Report) -> Option<ServiceName> {
    let label = ServiceName::new(&label_of(&name.value)?).ok();
    match label {
        Some(label) if label.as_str() != name.value => {
            let message = format!(
                "the service is called {:?} here, since {:?} is no DNS label",
                label.as_str(),
                cut(&name.value)
            );
            report.warn(&name.place, message);
            Some(label)
        }
        Some(label) => Some(label),
        None => service_name(&name.value, &name.place, report),
    }
}

/// The message for a name that is no DNS label.
pub(crate) fn not_a_label(what: &str, name: &str) -> String {
    let rename = match label_of(name) {
        Some(label) => format!(": rename it to {label:?}"),
        None => String::new(),
    };
    format!(
        "the {what} name {:?} is not a DNS label (1 to 63 of a-z, 0-9 and '-', not at the ends '-'){rename}",
        cut(name)
    )
}

/// `name` made into a DNS label (RFC 1123), as services of a manifest get theirs: lower case, anything else becomes `-`. `None`
/// if nothing is left of it.
pub fn label_of(name: &str) -> Option<String> {
    let label: String = name
        .to_lowercase()
        .chars()
        .map(|c| match c {
            'a'..='z' | '0'..='9' => c,
            _ => '-',
        })
        .take(63)
        .collect();
    let label = label.trim_matches('-');
    is_dns_label(label).then(|| label.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_name_becomes_a_label() {
        assert_eq!(label_of("My_App.v2").as_deref(), Some("my-app-v2"));
        assert_eq!(label_of("_x_").as_deref(), Some("x"));
        assert_eq!(label_of(&"a".repeat(80)).map(|label| label.len()), Some(63));
        assert_eq!(label_of("___"), None);
        assert_eq!(label_of(""), None);
    }
}
