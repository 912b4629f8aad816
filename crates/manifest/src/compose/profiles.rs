//! Profiles: which services are switched on (Compose Specification, "Profiles").

use std::collections::{BTreeMap, BTreeSet};

use crate::ReadOptions;
use crate::fields::Fields;
use crate::report::Report;
use crate::tree::{Node, Place, Value};

/// The variable that names profiles beside those that the caller asks for, apart by commas.
const VARIABLE: &str = "COMPOSE_PROFILES";

/// The profiles that are switched on.
#[derive(Debug, Default)]
pub(crate) struct Profiles(BTreeSet<String>);

impl Profiles {
    /// Those that the caller asks for; if none, those of the variable.
    pub(crate) fn of(options: &ReadOptions, variables: &BTreeMap<String, String>) -> Self {
        let named = || variables.get(VARIABLE).map_or("", String::as_str);
        let names = match options.profiles.is_empty() {
            true => named()
                .split(',')
                .map(|name| name.trim().to_owned())
                .collect(),
            false => options.profiles.iter().cloned().collect::<BTreeSet<_>>(),
        };
        Self(names.into_iter().filter(|name| !name.is_empty()).collect())
    }

    /// Switches further ones on.
    pub(crate) fn add(&mut self, names: impl Iterator<Item = String>) {
        self.0.extend(names);
    }

    /// Whether a profile is switched on.
    pub(crate) fn has(&self, profile: &str) -> bool {
        self.0.contains(profile) || self.0.contains("*")
    }

    /// The first profile of a service that is left out for want of one; `None`: it is not.
    pub(crate) fn missing(&self, service: &Node) -> Option<String> {
        let profiles = match &service.get("profiles")?.value {
            Value::List(items) => items.iter().filter_map(Node::scalar).collect(),
            Value::Scalar { text, .. } => vec![text.as_str()],
            Value::Null | Value::Map(_) => Vec::new(),
        };
        let is_off = profiles.iter().all(|profile| !self.has(profile));
        let first = profiles.first().filter(|_| is_off)?;
        Some((*first).to_owned())
    }

    /// Takes `profiles` off a service: whether it is to run. One without any always is.
    pub(crate) fn switch_on(
        &self,
        service: &mut Fields,
        place: &Place,
        report: &mut Report,
    ) -> bool {
        let profiles = service.texts("profiles", report).unwrap_or_default();
        if profiles.is_empty() || profiles.iter().any(|profile| self.has(profile)) {
            return true;
        }
        let message = format!(
            "{} is left out: `--profile {}` switches it on",
            service.what, profiles[0]
        );
        report.warn(place, message);
        false
    }
}
