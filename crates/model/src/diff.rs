//! How two revisions differ, setting by setting.

mod hidden;
mod tree;

use std::collections::{BTreeMap, BTreeSet};

use crate::engine::RunSpec;
use tree::Tree;

/// One setting that differs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// Where it stands, such as `containers.web.env.LOG`.
    pub path: String,
    /// What it was; `None`: it was not set.
    pub before: Option<String>,
    /// What it is; `None`: it is not set.
    pub after: Option<String>,
}

impl Change {
    /// The same for those who may know the names of variables and not their values.
    #[must_use]
    pub fn without_value(self) -> Self {
        if variable(&self.path).is_empty() {
            return self;
        }
        let hide = |value: Option<String>| value.map(|_| hidden::HIDDEN.to_owned());
        Self {
            before: hide(self.before),
            after: hide(self.after),
            path: self.path,
        }
    }
}

/// What has changed from `a` to `b`, by path. A container's image counts by its name and by its digest. Of a variable that is
/// named like a secret, or holds a password, it is told that it differs, and not what it is.
pub fn diff(a: &RunSpec, b: &RunSpec) -> Vec<Change> {
    let (mut before, mut after) = (settings(a), settings(b));
    let paths: BTreeSet<String> = before.keys().chain(after.keys()).cloned().collect();
    let changes = paths.into_iter().filter_map(|path| {
        let (before, after) = (before.remove(&path), after.remove(&path));
        (before != after).then(|| {
            let name = variable(&path).to_owned();
            let shown = |value: String| match hidden::is_hidden(&name, &value) {
                true => hidden::HIDDEN.to_owned(),
                false => value,
            };
            let (before, after) = (before.map(shown), after.map(shown));
            Change {
                path,
                before,
                after,
            }
        })
    });
    changes.collect()
}

/// The name of the variable that a path leads to; of any other path nothing.
fn variable(path: &str) -> &str {
    let mut lists = ["containers.", "init."].into_iter();
    let below = lists.find_map(|list| path.strip_prefix(list));
    let below = below.unwrap_or_default();
    below.split_once(".env.").map_or("", |(_, name)| name)
}

fn settings(spec: &RunSpec) -> BTreeMap<String, String> {
    let mut settings = BTreeMap::new();
    Tree::of(&spec.service).flatten("", &mut settings);
    for (n, (container, digest)) in spec.service.all_containers().zip(&spec.images).enumerate() {
        let list = match n < spec.service.containers.len() {
            true => "containers",
            false => "init",
        };
        settings.insert(format!("{list}.{}.digest", container.name), digest.clone());
    }
    settings
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mounts::{Mount, MountSource};
    use crate::names::ServiceName;
    use crate::spec::{ContainerSpec, RestartPolicy, ServiceSpec};

    fn spec(change: impl FnOnce(&mut ServiceSpec)) -> RunSpec {
        let name = ServiceName::new("web").expect("a label");
        let mut service = ServiceSpec::new(name);
        service.containers = vec![ContainerSpec::new("main", "web:1")];
        change(&mut service);
        RunSpec {
            service,
            images: vec!["sha256:1".into()],
        }
    }

    fn told(change: impl FnOnce(&mut ServiceSpec)) -> Vec<String> {
        let changes = diff(&spec(|_| {}), &spec(change)).into_iter();
        let text = |side: Option<String>| side.unwrap_or_else(|| "-".to_owned());
        changes
            .map(|c| format!("{}: {} > {}", c.path, text(c.before), text(c.after)))
            .collect()
    }

    #[test]
    fn what_is_the_same_makes_no_change() {
        assert_eq!(told(|_| {}), [] as [&str; 0]);
    }

    #[test]
    fn each_setting_that_differs_is_told_with_where_it_stands() {
        let told = told(|service| {
            let main = &mut service.containers[0];
            main.env.insert("LOG".into(), "debug".into());
            main.command = Some(vec!["run".into(), "it now".into()]);
            main.mounts.push(Mount {
                source: MountSource::Bind {
                    path: "/srv".into(),
                    create: false,
                    recursive: true,
                },
                target: "/data".into(),
                read_only: true,
            });
            service.replicas = 3;
            service.sleep.doze_after_ms = None;
            service.restart = RestartPolicy::OnFailure {
                max_retries: Some(2),
            };
        });
        let all = [
            "containers.main.command: - > [\"run\", \"it now\"]",
            "containers.main.env.LOG: - > debug",
            "containers.main.mounts./data.read_only: - > true",
            "containers.main.mounts./data.source.create: - > false",
            "containers.main.mounts./data.source.kind: - > bind",
            "containers.main.mounts./data.source.path: - > /srv",
            "containers.main.mounts./data.source.recursive: - > true",
            "containers.main.mounts./data.target: - > /data",
            "replicas: 1 > 3",
            "restart: always > -",
            "restart.on-failure.max_retries: - > 2",
            "sleep.doze_after_ms: 300000 > -",
        ];
        assert_eq!(told, all);
    }

    #[test]
    fn a_variable_that_is_a_secret_is_told_without_its_value() {
        let told = told(|service| {
            let env = &mut service.containers[0].env;
            env.insert("DB_PASSWORD".into(), "hunter2".into());
            env.insert("URL".into(), "https://a:hunter2@b/".into());
        });
        let all = [
            "containers.main.env.DB_PASSWORD: - > (not shown)",
            "containers.main.env.URL: - > (not shown)",
        ];
        assert_eq!(told, all);
    }

    #[test]
    fn another_image_of_the_same_name_is_a_change() {
        let mut other = spec(|_| {});
        other.images = vec!["sha256:2".into()];
        let changes = diff(&spec(|_| {}), &other);
        let change = Change {
            path: "containers.main.digest".into(),
            before: Some("sha256:1".into()),
            after: Some("sha256:2".into()),
        };
        assert_eq!(changes, [change]);
    }
}
