//! Objects that a cluster has made of others: where all of it is handed out (`kubectl get all -o yaml`), they come along.

use std::collections::BTreeSet;

use crate::tree::{Node, Value};

/// The kinds and names of all objects.
#[derive(Debug, Default)]
pub(crate) struct Present(BTreeSet<(String, String)>);

impl Present {
    /// Those among documents, and the items of Lists.
    pub(crate) fn of(documents: &[Node]) -> Self {
        let mut present = Self::default();
        present.gather(documents);
        present
    }

    fn gather(&mut self, documents: &[Node]) {
        for node in documents {
            if let Some(items) = node.get("items")
                && let Value::List(items) = &items.value
            {
                self.gather_flat(items);
            }
            self.gather_flat(std::slice::from_ref(node));
        }
    }

    fn gather_flat(&mut self, nodes: &[Node]) {
        for node in nodes {
            let kind = node.get("kind").and_then(Node::scalar);
            let name = node.get("metadata").and_then(|node| node.get("name"));
            if let (Some(kind), Some(name)) = (kind, name.and_then(Node::scalar)) {
                self.0.insert((kind.to_owned(), name.to_owned()));
            }
        }
    }

    /// Whether an object is made by another one that is there too, or by every cluster for itself.
    pub(crate) fn is_made(&self, node: &Node) -> bool {
        let Some(metadata) = node.get("metadata") else {
            return false;
        };
        let text = |node: &Node, key: &str| node.get(key).and_then(Node::scalar).map(str::to_owned);
        let owners = match metadata.get("ownerReferences").map(|node| &node.value) {
            Some(Value::List(owners)) => owners.as_slice(),
            Some(Value::Null | Value::Scalar { .. } | Value::Map(_)) | None => &[],
        };
        let is_owned = owners.iter().any(|owner| {
            let named = text(owner, "kind").zip(text(owner, "name"));
            text(owner, "controller").as_deref() == Some("true")
                && named.is_some_and(|named| self.0.contains(&named))
        });
        let labels = metadata.get("labels");
        let provider = labels.and_then(|labels| text(labels, "provider"));
        let of_cluster = match text(node, "kind").as_deref() {
            Some("Service") => provider.as_deref() == Some("kubernetes"),
            Some("ConfigMap") => text(metadata, "name").as_deref() == Some("kube-root-ca.crt"),
            _ => false,
        };
        is_owned || of_cluster
    }
}
