//! How two revisions differ, setting by setting.

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

/// What has changed from `a` to `b`, by path. A container's image counts by its name and by its digest.
pub fn diff(a: &RunSpec, b: &RunSpec) -> Vec<Change> {
    let (mut before, mut after) = (settings(a), settings(b));
    let paths: BTreeSet<String> = before.keys().chain(after.keys()).cloned().collect();
    let changes = paths.into_iter().filter_map(|path| {
        let (before, after) = (before.remove(&path), after.remove(&path));
        let change = Change {
            path,
            before,
            after,
        };
        (change.before != change.after).then_some(change)
    });
    changes.collect()
}

fn settings(spec: &RunSpec) -> BTreeMap<String, String> {
    let mut settings = BTreeMap::new();
    Tree::of(&spec.service).flatten("", &mut settings);
    for (container, digest) in spec.service.containers.iter().zip(&spec.images) {
        settings.insert(
            format!("containers.{}.digest", container.name),
            digest.clone(),
        );
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
