//! Who depends on whom: cargo's metadata, as far as the rules need it.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::Context;
use serde::Deserialize;

use crate::command::{cargo, read};

/// The packages that are built for Linux on this kind of machine, and what each depends on.
#[derive(Debug, Deserialize)]
pub(crate) struct Graph {
    pub(crate) packages: Vec<Package>,
    workspace_members: Vec<String>,
    resolve: Resolve,
}

/// One package.
#[derive(Debug, Deserialize)]
pub(crate) struct Package {
    pub(crate) id: String,
    pub(crate) name: String,
    pub(crate) version: String,
    /// An SPDX expression.
    pub(crate) license: Option<String>,
}

#[derive(Debug, Deserialize)]
struct Resolve {
    nodes: Vec<Node>,
}

#[derive(Debug, Deserialize)]
struct Node {
    id: String,
    deps: Vec<Edge>,
}

#[derive(Debug, Deserialize)]
struct Edge {
    pkg: String,
    dep_kinds: Vec<EdgeKind>,
}

/// `null` is a normal dependency.
#[derive(Debug, Deserialize)]
struct EdgeKind {
    kind: Option<String>,
}

impl Graph {
    /// Asks cargo.
    ///
    /// # Errors
    /// When cargo fails.
    pub(crate) fn of_workspace() -> anyhow::Result<Graph> {
        Graph::parse(&read(&mut cargo(&[
            "metadata",
            "--format-version=1",
            "--filter-platform=x86_64-unknown-linux-gnu",
        ]))?)
    }

    /// Reads what `cargo metadata` printed, and leaves out the packages that are for other platforms.
    pub(crate) fn parse(json: &str) -> anyhow::Result<Graph> {
        let mut graph: Graph =
            serde_json::from_str(json).context("cargo metadata printed something unknown")?;
        let resolved: BTreeSet<&str> = graph.resolve.nodes.iter().map(|node| &*node.id).collect();
        graph
            .packages
            .retain(|package| resolved.contains(&*package.id));
        Ok(graph)
    }

    /// How many packages.
    pub(crate) fn len(&self) -> usize {
        self.packages.len()
    }

    /// The workspace's own packages.
    pub(crate) fn members(&self) -> Vec<&Package> {
        let is_member = |package: &&Package| self.workspace_members.contains(&package.id);
        self.packages.iter().filter(is_member).collect()
    }

    /// The names of what a package depends on itself, tests aside.
    pub(crate) fn direct(&self, id: &str) -> BTreeSet<&str> {
        let edges = self.edges(id);
        edges.into_iter().filter_map(|id| self.name(id)).collect()
    }

    /// The names of all that is built into a package, each with the way there.
    pub(crate) fn all(&self, id: &str) -> BTreeMap<&str, Vec<&str>> {
        let mut found: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
        let mut open = vec![(id, Vec::new())];
        let mut seen = BTreeSet::new();
        while let Some((id, way)) = open.pop() {
            for next in self.edges(id) {
                let Some(name) = self.name(next).filter(|_| seen.insert(next)) else {
                    continue;
                };
                let mut way: Vec<&str> = way.clone();
                way.push(name);
                found.entry(name).or_insert_with(|| way.clone());
                open.push((next, way));
            }
        }
        found
    }

    fn edges(&self, id: &str) -> Vec<&str> {
        let node = self.resolve.nodes.iter().find(|node| node.id == id);
        let edges = node.map(|node| node.deps.as_slice()).unwrap_or_default();
        edges
            .iter()
            .filter(|edge| edge.dep_kinds.iter().any(|kind| kind.kind.is_none()))
            .map(|edge| &*edge.pkg)
            .collect()
    }

    fn name(&self, id: &str) -> Option<&str> {
        let package = self.packages.iter().find(|package| package.id == id);
        package.map(|package| &*package.name)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::Graph;

    /// A workspace with these dependencies (normal, or `dev` after a `?`); names are ids, too.
    pub(crate) fn graph(members: &[&str], edges: &[(&str, &str)]) -> Graph {
        let mut names: Vec<&str> = members.to_vec();
        names.extend(edges.iter().map(|(_, to)| to.trim_end_matches('?')));
        names.sort_unstable();
        names.dedup();
        let packages: Vec<_> = names
            .iter()
            .map(|name| {
                serde_json::json!({"id": name, "name": name, "version": "1.0.0", "license": "MIT"})
            })
            .collect();
        let nodes: Vec<_> = names
            .iter()
            .map(|name| {
                let deps: Vec<_> = edges
                    .iter()
                    .filter(|(from, _)| from == name)
                    .map(|(_, to)| {
                        let kind = to.ends_with('?').then_some("dev");
                        serde_json::json!({
                            "pkg": to.trim_end_matches('?'), "dep_kinds": [{"kind": kind}],
                        })
                    })
                    .collect();
                serde_json::json!({"id": name, "deps": deps})
            })
            .collect();
        let json = serde_json::json!({
            "packages": packages, "workspace_members": members, "resolve": {"nodes": nodes},
        });
        Graph::parse(&json.to_string()).unwrap()
    }

    #[test]
    fn dependencies_are_followed_and_those_of_tests_are_not() {
        let graph = graph(&["a"], &[("a", "b"), ("a", "t?"), ("b", "c"), ("c", "b")]);
        assert_eq!(graph.members().len(), 1);
        assert_eq!(graph.direct("a").into_iter().collect::<Vec<_>>(), ["b"]);
        let all = graph.all("a");
        assert_eq!(all["c"], ["b", "c"]);
        assert!(!all.contains_key("t"));
    }
}
