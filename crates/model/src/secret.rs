//! Secrets and configs: values that a spec names and never holds. A revision names each by its version; who runs it
//! asks for the value at the moment of making a replica.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::engine::BoxFuture;
use crate::mounts::MountSource;
use crate::names::AppName;
use crate::spec::{ContainerSpec, ServiceSpec};

/// The most that one value may have, in bytes: 1 MiB, as a Secret of Kubernetes.
pub const MAX_VALUE_BYTES: usize = 1 << 20;

/// The longest name of a value, in bytes.
const MAX_NAME_BYTES: usize = 253;

/// What a value is.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(rename_all = "kebab-case")]
pub enum ValueKind {
    /// Nobody but the containers that it is for is to know it.
    #[default]
    Secret,
    /// A file of settings. It is kept in the same way.
    Config,
}

/// Whose a value is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Scope {
    /// The app's.
    App,
    /// The node's: every app may name it.
    Node,
}

/// Names a value. What a manifest says may leave scope and version open; a deployed revision names both.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct SecretRef {
    /// Its name ([`is_value_name`]); a key of a Kubernetes Secret is called `SECRET/KEY`.
    pub name: String,
    /// What it is.
    #[serde(default)]
    pub kind: ValueKind,
    /// Whose it is. `None`: the app's if that has one of this name, else the node's.
    #[serde(default)]
    pub scope: Option<Scope>,
    /// Which version. `None`: the newest.
    #[serde(default)]
    pub version: Option<u32>,
    /// Where there is none, the container does without (Kubernetes `optional`).
    #[serde(default)]
    pub optional: bool,
}

impl SecretRef {
    /// The newest version of a secret, the app's or the node's.
    pub fn new(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            kind: ValueKind::Secret,
            scope: None,
            version: None,
            optional: false,
        }
    }
}

/// All secrets of an app or the node whose names begin with `group/`: the keys of a Kubernetes Secret that stands in
/// no manifest. Only in what a manifest says: deploying puts what there is then in its place.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SecretGroup {
    /// What the names begin with.
    pub group: String,
    /// There may be none.
    #[serde(default)]
    pub optional: bool,
    /// Put before each key to make a variable's name (Kubernetes `envFrom.prefix`).
    #[serde(default)]
    pub prefix: String,
}

/// What only a replica itself knows (Kubernetes `fieldRef`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ReplicaField {
    /// Its id (`metadata.name`, `metadata.uid`).
    Id,
    /// The name of its app (`metadata.namespace`).
    App,
    /// Which of its job's good ends it is to be, where each has a number; else nothing
    /// (`metadata.annotations['batch.kubernetes.io/job-completion-index']`).
    CompletionIndex,
    /// Its address (`status.podIP`).
    Address,
    /// The host name of the machine (`spec.nodeName`).
    MachineName,
    /// The address of the machine as its containers see it (`status.hostIP`).
    MachineAddress,
    /// What the machine has of CPU, in so many thousandths of a core, rounded up (`limits.cpu` of a container without one).
    MachineCpu {
        /// The unit.
        milli: u64,
    },
    /// What the machine has of memory for containers, in so many bytes, rounded up (`limits.memory` of a container without
    /// one).
    MachineMemory {
        /// The unit.
        bytes: u64,
    },
}

/// Where a text comes from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ValueSource {
    /// It stands here.
    Text(String),
    /// It is a secret or config.
    Secret(SecretRef),
    /// It is known when the replica is made.
    Replica(ReplicaField),
}

/// A file that is in memory alone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ValueFile {
    /// Where it is below the mount's target: relative, without `.` and `..`. Empty: the target itself is the file.
    pub path: String,
    /// What is in it.
    pub content: ValueSource,
    /// Its mode, such as `0o444`.
    pub mode: u32,
    /// Whose it is in the container.
    pub uid: u32,
    /// Its group in the container.
    pub gid: u32,
}

/// The files that the secrets of a group become; only in what a manifest says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileGroup {
    /// Which.
    #[serde(flatten)]
    pub group: SecretGroup,
    /// The mode of each file.
    pub mode: u32,
    /// Whose they are in the container.
    pub uid: u32,
    /// Their group in the container.
    pub gid: u32,
}

/// A value. It is wiped from memory when it is dropped, and never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct SecretValue(Zeroizing<Vec<u8>>);

impl SecretValue {
    /// Takes a value over.
    pub fn new(bytes: Vec<u8>) -> Self {
        Self(Zeroizing::new(bytes))
    }

    /// The value itself.
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for SecretValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a value of {} bytes", self.0.len())
    }
}

/// Why a value is not given out. The sentences never have it in them.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SecretError {
    /// There is none of this name and version; no later try can succeed.
    #[error("{0}")]
    NotFound(String),
    /// Trying again may help.
    #[error("{0}")]
    Failed(String),
}

/// Who knows the values.
pub trait SecretSource: Send + Sync + 'static {
    /// The value that a deployed revision of `app` names.
    fn reveal<'a>(
        &'a self,
        app: &'a AppName,
        wanted: &'a SecretRef,
    ) -> BoxFuture<'a, Result<SecretValue, SecretError>>;
}

/// Where an engine asks for values: whoever knows them connects when it has started, and is not kept alive by it.
/// Clones are the same wire.
#[derive(Clone, Default)]
pub struct SecretWire(Arc<Mutex<Option<Weak<dyn SecretSource>>>>);

impl SecretWire {
    /// Asks `source` from now on.
    pub fn connect(&self, source: Weak<dyn SecretSource>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(source);
    }

    /// The value that a deployed revision of `app` names.
    ///
    /// # Errors
    /// What the source says; [`SecretError::Failed`] while there is none.
    pub async fn reveal(
        &self,
        app: &AppName,
        wanted: &SecretRef,
    ) -> Result<SecretValue, SecretError> {
        match self.source() {
            Some(source) => source.reveal(app, wanted).await,
            None => Err(SecretError::Failed(
                "the node has not opened its secrets yet".to_owned(),
            )),
        }
    }
}

impl SecretWire {
    fn source(&self) -> Option<Arc<dyn SecretSource>> {
        let source = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        source.as_ref().and_then(Weak::upgrade)
    }
}

impl fmt::Debug for SecretWire {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretWire")
    }
}

/// Whether a secret or config can be called so: 1 to 253 of letters, digits, `_`, `.` and `-`, not beginning with a
/// point; one `/` may stand between two such names.
pub fn is_value_name(name: &str) -> bool {
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-');
    let part = |part: &str| !part.is_empty() && !part.starts_with('.') && part.bytes().all(plain);
    // The key of a Kubernetes Secret may begin with a point (`.dockerconfigjson`).
    let key = |key: &str| !key.is_empty() && !matches!(key, "." | "..") && key.bytes().all(plain);
    name.len() <= MAX_NAME_BYTES
        && match name.split_once('/') {
            Some((group, rest)) => part(group) && key(rest),
            None => part(name),
        }
}

/// Goes through all values that a service names.
pub fn refs(service: &ServiceSpec) -> impl Iterator<Item = &SecretRef> {
    service.all_containers().flat_map(|container| {
        let composed = container.composed_env.values().flatten();
        let files = container
            .mounts
            .iter()
            .flat_map(|mount| match &mount.source {
                MountSource::Files { files, .. } => files.as_slice(),
                MountSource::Volume { .. }
                | MountSource::Bind { .. }
                | MountSource::Tmpfs { .. }
                | MountSource::Scratch { .. } => &[],
            });
        let named =
            composed
                .chain(files.map(|file| &file.content))
                .filter_map(|source| match source {
                    ValueSource::Secret(secret) => Some(secret),
                    ValueSource::Text(_) | ValueSource::Replica(_) => None,
                });
        container.secret_env.values().chain(named)
    })
}

/// What [`pin`] found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// Whose it is.
    pub scope: Scope,
    /// The version to name.
    pub version: u32,
}

/// Makes a service name exact versions: `find` says what a reference means now (`None`: there is no such value), and
/// `keys` which keys a group has. What is optional and not there is left out.
///
/// # Errors
/// The references, and the groups as `group/*`, that mean nothing.
pub fn pin(
    service: &mut ServiceSpec,
    find: &impl Fn(&SecretRef) -> Option<Found>,
    keys: &impl Fn(&str) -> Vec<String>,
) -> Result<(), Vec<String>> {
    let mut missing = Vec::new();
    for container in service.all_containers_mut() {
        open_groups(container, keys, &mut missing);
        let mut settle = |secret: &mut SecretRef| match find(secret) {
            Some(found) => {
                secret.scope = Some(found.scope);
                secret.version = Some(found.version);
                true
            }
            None => {
                if !secret.optional {
                    missing.push(secret.name.clone());
                }
                !secret.optional
            }
        };
        container.secret_env.retain(|_, secret| settle(secret));
        for parts in container.composed_env.values_mut() {
            parts.retain_mut(|part| match part {
                ValueSource::Secret(secret) => settle(secret),
                ValueSource::Text(_) | ValueSource::Replica(_) => true,
            });
        }
        for mount in &mut container.mounts {
            if let MountSource::Files { files, .. } = &mut mount.source {
                files.retain_mut(|file| match &mut file.content {
                    ValueSource::Secret(secret) => settle(secret),
                    ValueSource::Text(_) | ValueSource::Replica(_) => true,
                });
            }
        }
    }
    missing.sort_unstable();
    missing.dedup();
    match missing.is_empty() {
        true => Ok(()),
        false => Err(missing),
    }
}

/// Puts the keys that there are in the place of groups. What a variable or file says by itself wins.
fn open_groups(
    container: &mut ContainerSpec,
    keys: &impl Fn(&str) -> Vec<String>,
    missing: &mut Vec<String>,
) {
    let mut open = |group: &SecretGroup| {
        let found = keys(&group.group);
        if found.is_empty() && !group.optional {
            missing.push(format!("{}/*", group.group));
        }
        found
    };
    let of = |group: &SecretGroup, key: &str| SecretRef {
        optional: group.optional,
        ..SecretRef::new(&format!("{}/{key}", group.group))
    };
    // Of several, the last one wins, as in Kubernetes.
    for group in std::mem::take(&mut container.secret_env_from).iter().rev() {
        for key in open(group) {
            let name = format!("{}{key}", group.prefix);
            let is_set = container.env.contains_key(&name)
                || container.composed_env.contains_key(&name)
                || container.secret_env.contains_key(&name);
            if !is_set {
                container.secret_env.insert(name, of(group, &key));
            }
        }
    }
    for mount in &mut container.mounts {
        let MountSource::Files { files, groups } = &mut mount.source else {
            continue;
        };
        for FileGroup {
            group,
            mode,
            uid,
            gid,
        } in std::mem::take(groups)
        {
            for key in open(&group) {
                if files.iter().all(|file| file.path != key) {
                    let content = ValueSource::Secret(of(&group, &key));
                    let path = key;
                    files.push(ValueFile {
                        path,
                        content,
                        mode,
                        uid,
                        gid,
                    });
                }
            }
        }
    }
}

/// Makes a service name the newest versions, of those that `which` is true for, at its next [`pin`].
pub fn unpin(service: &mut ServiceSpec, which: &impl Fn(&SecretRef) -> bool) {
    for container in service.all_containers_mut() {
        let composed = container.composed_env.values_mut().flatten();
        let files = container
            .mounts
            .iter_mut()
            .flat_map(|mount| match &mut mount.source {
                MountSource::Files { files, .. } => files.as_mut_slice(),
                MountSource::Volume { .. }
                | MountSource::Bind { .. }
                | MountSource::Tmpfs { .. }
                | MountSource::Scratch { .. } => &mut [],
            });
        let named = composed
            .chain(files.map(|file| &mut file.content))
            .filter_map(|source| match source {
                ValueSource::Secret(secret) => Some(secret),
                ValueSource::Text(_) | ValueSource::Replica(_) => None,
            });
        let all = container.secret_env.values_mut().chain(named);
        for secret in all.filter(|secret| which(secret)) {
            secret.version = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ServiceName;
    use crate::mounts::Mount;

    fn service() -> ServiceSpec {
        let mut container = ContainerSpec::new("web", "web");
        let mut optional = SecretRef::new("none");
        optional.optional = true;
        container.secret_env = [
            ("A".to_owned(), SecretRef::new("a")),
            ("NONE".to_owned(), optional),
        ]
        .into();
        container.secret_env_from = vec![SecretGroup {
            group: "db".to_owned(),
            optional: false,
            prefix: "DB_".to_owned(),
        }];
        container.composed_env = [(
            "URL".to_owned(),
            vec![
                ValueSource::Text("http://".to_owned()),
                ValueSource::Secret(SecretRef::new("a")),
            ],
        )]
        .into();
        let group = FileGroup {
            group: SecretGroup {
                group: "db".to_owned(),
                optional: false,
                prefix: String::new(),
            },
            mode: 0o400,
            uid: 1,
            gid: 2,
        };
        container.mounts = vec![Mount {
            source: MountSource::Files {
                files: Vec::new(),
                groups: vec![group],
            },
            target: "/secrets".to_owned(),
            read_only: true,
        }];
        let mut service = ServiceSpec::new(ServiceName::new("web").expect("a label"));
        service.containers = vec![container];
        service
    }

    fn find(secret: &SecretRef) -> Option<Found> {
        let (scope, version) = match secret.name.as_str() {
            "a" => (Scope::Node, 3),
            "db/user" | "db/password" => (Scope::App, 1),
            _ => return None,
        };
        Some(Found { scope, version })
    }

    fn keys(group: &str) -> Vec<String> {
        match group {
            "db" => vec!["password".to_owned(), "user".to_owned()],
            _ => Vec::new(),
        }
    }

    #[test]
    fn what_is_deployed_names_every_value_by_its_version() {
        let mut service = service();
        pin(&mut service, &find, &keys).expect("all are there");
        let container = &service.containers[0];
        let env: Vec<&str> = container.secret_env.keys().map(String::as_str).collect();
        assert_eq!(env, ["A", "DB_password", "DB_user"]);
        assert!(container.secret_env_from.is_empty());
        let MountSource::Files { files, groups } = &container.mounts[0].source else {
            panic!("files");
        };
        assert_eq!((files.len(), groups.len()), (2, 0));
        assert!(refs(&service).all(|secret| secret.version.is_some() && secret.scope.is_some()));
        assert_eq!(refs(&service).count(), 6);
        let before = service.clone();
        unpin(&mut service, &|_| true);
        assert!(refs(&service).all(|secret| secret.version.is_none()));
        pin(&mut service, &find, &keys).expect("all are there");
        assert_eq!(service, before);
    }

    #[test]
    fn all_that_is_missing_is_named_at_once() {
        let missing = pin(&mut service(), &|_| None, &|_| Vec::new());
        assert_eq!(missing, Err(vec!["a".to_owned(), "db/*".to_owned()]));
    }

    #[test]
    fn a_value_is_never_printed() {
        let value = SecretValue::new(b"hunter2".to_vec());
        assert_eq!(format!("{value:?}"), "a value of 7 bytes");
    }

    #[test]
    fn names_lead_nowhere() {
        for name in [
            "a",
            "db_password",
            "API-KEY.2",
            "db/user",
            "x/.dockerconfigjson",
        ] {
            assert!(is_value_name(name), "{name}");
        }
        for name in [
            "", ".a", "a/", "/a", "a/..", "a/b/c", "a b", "ä", "..", "a/.",
        ] {
            assert!(!is_value_name(name), "{name}");
        }
        assert!(!is_value_name(&"a".repeat(254)));
    }
}
