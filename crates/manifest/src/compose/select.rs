//! The services of a Compose file that are asked for by name, those that they need, and those that are containers of the same
//! replicas: found before anything of them is read, since profiles are switched on by it, and files of the others are not asked for.

use std::collections::BTreeSet;

use layby_model::names::ServiceName;

use crate::ReadOptions;
use crate::draft::label_of;
use crate::report::Report;
use crate::select::unknown;
use crate::tree::{Entry, Node, Value};

/// Keys by which a service names files, or what is in some: of one that is not asked for they are not looked at.
const OF_FILES: [&str; 4] = ["configs", "develop", "env_file", "secrets"];

/// Which services are asked for.
#[derive(Debug, Default)]
pub(crate) struct Selection {
    /// As the file calls them; `None`: all.
    keys: Option<BTreeSet<String>>,
    /// Those that are not, by the names that they have here.
    pub(crate) others: Vec<ServiceName>,
    /// The profiles of those that were named (Compose Specification, "Profiles").
    profiles: Vec<String>,
}

impl Selection {
    /// What of a whole Compose file is asked for.
    pub(crate) fn of(document: Option<&Node>, options: &ReadOptions, report: &mut Report) -> Self {
        if options.services.is_empty() {
            return Self::default();
        }
        let services: &[Entry] = match document
            .and_then(|document| document.get("services"))
            .map(|node| &node.value)
        {
            Some(Value::Map(services)) => services,
            _ => &[],
        };
        let mut selection = Self::default();
        let mut keys = BTreeSet::new();
        let mut waiting: Vec<&Entry> = Vec::new();
        for name in &options.services {
            let label = |entry: &&Entry| label_of(&entry.key).as_ref() == Some(name);
            let found = services.iter().find(|entry| entry.key == *name);
            match found.or_else(|| services.iter().find(label)) {
                Some(entry) => {
                    selection
                        .profiles
                        .extend(words(entry.value.get("profiles")));
                    waiting.push(entry);
                }
                None => {
                    let known: Vec<&str> =
                        services.iter().map(|entry| entry.key.as_str()).collect();
                    unknown(name, &known, report);
                }
            }
        }
        while let Some(entry) = waiting.pop() {
            if !keys.insert(entry.key.clone()) {
                continue;
            }
            let needs = match options.no_deps {
                true => BTreeSet::new(),
                false => needs(&entry.value),
            };
            let host = of_service(&entry.value, "network_mode");
            // Containers of the same replicas: none is deployed without the others.
            let is_beside = |other: &Entry| {
                host == Some(other.key.as_str())
                    || of_service(&other.value, "network_mode") == Some(entry.key.as_str())
            };
            let more = services
                .iter()
                .filter(|other| needs.contains(&other.key) || is_beside(other));
            waiting.extend(more);
        }
        let others = services.iter().filter(|entry| !keys.contains(&entry.key));
        let others = others.filter_map(|entry| ServiceName::new(&label_of(&entry.key)?).ok());
        selection.others = others.collect();
        selection.keys = Some(keys);
        selection
    }

    /// Whether the service that the file calls so is asked for.
    pub(crate) fn has(&self, key: &str) -> bool {
        self.keys.as_ref().is_none_or(|keys| keys.contains(key))
    }

    /// Whether not all of them are.
    pub(crate) fn is_partial(&self) -> bool {
        self.keys.is_some()
    }

    /// The profiles that it switches on.
    pub(crate) fn profiles(&self) -> impl Iterator<Item = String> {
        self.profiles.iter().cloned()
    }
}

/// Takes away what a service that is not asked for says of files.
pub(crate) fn strip(service: &mut Node) {
    if let Value::Map(entries) = &mut service.value {
        entries.retain(|entry| !OF_FILES.contains(&entry.key.as_str()));
    }
}

/// The services that one cannot do without, as Compose has it: those that it depends on or links to, and those whose
/// volumes or namespaces it is to have.
fn needs(service: &Node) -> BTreeSet<String> {
    let mut needs: BTreeSet<String> = words(service.get("depends_on")).collect();
    for key in ["links", "volumes_from"] {
        let named = words(service.get(key));
        needs.extend(named.map(|text| text.split(':').next().unwrap_or_default().to_owned()));
    }
    for key in ["ipc", "network_mode", "pid"] {
        needs.extend(of_service(service, key).map(str::to_owned));
    }
    needs
}

/// The service whose namespace one is to have.
fn of_service<'a>(service: &'a Node, key: &str) -> Option<&'a str> {
    let named = service.get(key).and_then(Node::scalar);
    named.and_then(|text| text.strip_prefix("service:"))
}

/// The items of a list, the keys of a map, or one word alone.
fn words(node: Option<&Node>) -> impl Iterator<Item = String> {
    let words = match node.map(|node| &node.value) {
        Some(Value::List(items)) => items
            .iter()
            .filter_map(|item| item.scalar().map(str::to_owned))
            .collect(),
        Some(Value::Map(entries)) => entries.iter().map(|entry| entry.key.clone()).collect(),
        Some(Value::Scalar { text, .. }) => vec![text.clone()],
        Some(Value::Null) | None => Vec::new(),
    };
    words.into_iter()
}
