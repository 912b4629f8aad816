//! Where the Compose file says what is converted, so that what is lost is told by its line.

use layby_model::spec::ServiceSpec;

use crate::draft::{Draft, label_of};
use crate::report::Report;
use crate::tree::{Entry, Node, Place, Value, cut};

/// The Compose file, merged and filled in.
#[derive(Debug, Clone, Copy)]
pub(super) struct Said<'a>(pub(super) Option<&'a Node>);

impl<'a> Said<'a> {
    /// What stands at a path from the top, such as `secrets.token.file`.
    pub(super) fn top(self, path: &[&str]) -> Option<&'a Node> {
        path.iter()
            .try_fold(self.0?, |node, key| node.get(key))
            .filter(|node| node.value != Value::Null)
    }

    /// A service as the file has it.
    fn service(self, spec: &ServiceSpec) -> Option<&'a Node> {
        let Value::Map(entries) = &self.0?.get("services")?.value else {
            return None;
        };
        let name = spec.name.as_str();
        let is_it =
            |entry: &&Entry| entry.key == name || label_of(&entry.key).as_deref() == Some(name);
        entries.iter().find(is_it).map(|entry| &entry.value)
    }

    /// What a service says at a path of keys with points between them, such as `deploy.resources.limits`.
    pub(super) fn of(self, draft: &Draft, path: &str) -> Option<&'a Node> {
        let service = self.service(&draft.spec)?;
        path.split('.').try_fold(service, |node, key| node.get(key))
    }

    /// The text that a service says at a path.
    pub(super) fn text(self, draft: &Draft, path: &str) -> Option<&'a str> {
        self.of(draft, path).and_then(Node::scalar)
    }

    /// Tells that something of a service is lost. `paths`: where it may be said, the most likely first.
    pub(super) fn lost(self, draft: &Draft, paths: &[&str], why: &str, report: &mut Report) {
        let found = paths
            .iter()
            .find_map(|path| Some((*path, self.of(draft, path)?)));
        let (path, place) = match found {
            Some((path, node)) => (path, node.place.clone()),
            None => (paths.first().copied().unwrap_or(""), draft.place.clone()),
        };
        let name = draft.spec.name.as_str();
        report.warn(&place, format!("{path:?} in service {name:?} {why}"));
    }

    /// Where a service says that something is mounted at `target`.
    pub(super) fn mount(self, draft: &Draft, target: &str) -> Place {
        let keys = ["volumes", "tmpfs", "configs", "secrets"];
        let lists = keys.iter().filter_map(|key| self.of(draft, key));
        let items = lists.flat_map(|node| match &node.value {
            Value::List(items) => items.as_slice(),
            Value::Scalar { .. } => std::slice::from_ref(node),
            Value::Null | Value::Map(_) => &[],
        });
        let last = target.rsplit('/').next().unwrap_or(target);
        let says = |item: &&Node| {
            let told = |key: &str| item.get(key).and_then(Node::scalar);
            let short = item.scalar().is_some_and(|text| {
                let mut parts = text.split(':');
                text == last || parts.any(|part| part.trim_end_matches('/') == target)
            });
            short || told("target") == Some(target) || told("source") == Some(last)
        };
        let mut items = items.filter(says);
        let found = items.next().map(|item| item.place.clone());
        found.unwrap_or_else(|| draft.place.clone())
    }

    /// The labels or annotations under a key: a map, or a list of `KEY=VALUE`.
    pub(super) fn pairs(self, draft: &Draft, path: &str) -> Vec<(String, String, Place)> {
        match self.of(draft, path).map(|node| &node.value) {
            Some(Value::Map(entries)) => entries
                .iter()
                .map(|entry| {
                    let value = entry.value.scalar().unwrap_or_default();
                    (entry.key.clone(), value.to_owned(), entry.place.clone())
                })
                .collect(),
            Some(Value::List(items)) => items
                .iter()
                .filter_map(|item| {
                    let (key, value) = item
                        .scalar()?
                        .split_once('=')
                        .unwrap_or((item.scalar()?, ""));
                    Some((key.to_owned(), value.to_owned(), item.place.clone()))
                })
                .collect(),
            Some(Value::Null | Value::Scalar { .. }) | None => Vec::new(),
        }
    }
}

/// A service in messages.
pub(super) fn shown(draft: &Draft) -> String {
    format!("service {:?}", cut(draft.spec.name.as_str()))
}
