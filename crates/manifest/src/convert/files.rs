//! Files of settings as ConfigMaps (`v1`), and files of secrets, whose Secrets are named and not written: nobody's secret is to
//! be in a file that goes into a repository, and an empty one would be taken for the secret itself.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use layby_model::secret::ValueKind;

use crate::convert::hooks::quoted;
use crate::convert::names::Names;
use crate::convert::tree::Map;
use crate::convert::{App, Object, declared, object};
use crate::report::Report;
use crate::tree::{Place, cut};

/// The files of an app, each once.
#[derive(Default)]
pub(super) struct Files {
    configs: Names,
    secrets: Names,
    /// The ConfigMaps by name.
    written: BTreeMap<String, Config>,
    /// The Secrets by name, with their keys.
    named: BTreeMap<String, BTreeMap<String, Secret>>,
}

enum Config {
    /// A config of the manifest, of this name.
    Declared(String),
    /// A file that a service mounts, by its key.
    Bound(String, Vec<u8>),
}

struct Secret {
    /// Where its value is, as `kubectl create secret` takes it; `None`: as the manifest says.
    source: Option<String>,
    /// What the manifest calls it.
    name: String,
    place: Place,
}

impl Files {
    /// A config of the manifest: its ConfigMap, and the key.
    pub(super) fn config(&mut self, name: &str) -> (String, String) {
        let bundle = self.configs.give(name, &format!("config {name}"), 63);
        let config = Config::Declared(name.to_owned());
        self.written.insert(bundle.clone(), config);
        (bundle, name.to_owned())
    }

    /// A file that a service mounts: its ConfigMap, and the key.
    pub(super) fn bound(&mut self, path: &str, content: Vec<u8>) -> (String, String) {
        let key = key_of(path);
        let bundle = self.configs.give(&key, &format!("file {path}"), 63);
        let config = Config::Bound(key.clone(), content);
        self.written.insert(bundle.clone(), config);
        (bundle, key)
    }

    /// A secret of the manifest or of the node: its Secret, and the key.
    pub(super) fn secret(&mut self, name: &str, place: &Place) -> (String, String) {
        // So Layby itself calls a key of a Secret.
        let (bundle, key) = name.split_once('/').unwrap_or((name, name));
        let secret = Secret {
            source: None,
            name: name.to_owned(),
            place: place.clone(),
        };
        self.name(bundle, &format!("secret {bundle}"), key, secret)
    }

    /// A file of the machine that not all may read: its Secret, and the key.
    pub(super) fn private(
        &mut self,
        path: &str,
        key: &str,
        source: String,
        place: &Place,
    ) -> (String, String) {
        let secret = Secret {
            source: Some(source),
            name: path.to_owned(),
            place: place.clone(),
        };
        self.name(key, &format!("file {path}"), &key_of(path), secret)
    }

    fn name(&mut self, bundle: &str, id: &str, key: &str, secret: Secret) -> (String, String) {
        let bundle = self.secrets.give(bundle, id, 63);
        let keys = self.named.entry(bundle.clone()).or_default();
        keys.entry(key.to_owned()).or_insert(secret);
        (bundle, key.to_owned())
    }

    /// How the Secrets are made, as lines; and each as a warning.
    pub(super) fn notes(&self, app: &App<'_>, report: &mut Report) -> Vec<String> {
        let mut notes = Vec::new();
        for (bundle, keys) in &self.named {
            let mut command = format!(
                "kubectl create secret generic {bundle} --namespace {}",
                app.namespace
            );
            for (key, secret) in keys {
                let source = secret.source.clone();
                command.push(' ');
                command += &source.unwrap_or_else(|| source_of(app, &secret.name, key));
            }
            let Some(first) = keys.values().next() else {
                continue;
            };
            let message = format!(
                "the secret {:?} is not written, and who needs it waits until it is there: make it with `{command}`",
                cut(&first.name)
            );
            report.warn(&first.place, message);
            notes.push(format!("  {command}"));
        }
        if !notes.is_empty() {
            let first = "Secrets are not in here; pods that need one wait until it is made:";
            notes.insert(0, first.to_owned());
        }
        notes
    }

    /// The ConfigMaps.
    pub(super) fn objects(self, app: &App<'_>) -> Vec<Object> {
        let mut objects = Vec::new();
        for (bundle, config) in self.written {
            let (key, content) = match config {
                Config::Bound(key, content) => (key, content),
                Config::Declared(name) => {
                    let value = declared(app, ValueKind::Config, &name);
                    let content = value.map(|one| one.value.bytes().to_vec());
                    (name, content.unwrap_or_default())
                }
            };
            let (map, value) = match String::from_utf8(content) {
                Ok(text) => ("data", text),
                Err(error) => ("binaryData", STANDARD.encode(error.as_bytes())),
            };
            let head = app.object("v1", "ConfigMap", &bundle, None);
            let data = Map::new().text(&key, value);
            let written = head.with(Map::new(), |head| head.put(map, data));
            objects.push(object("ConfigMap", &bundle, written));
        }
        objects
    }
}

/// Where the Compose file takes a secret from, as `kubectl create secret` takes it.
fn source_of(app: &App<'_>, name: &str, key: &str) -> String {
    let said = |word: &str| {
        let node = app.said.top(&["secrets", name, word]);
        node.and_then(crate::tree::Node::scalar)
    };
    match (said("file"), said("environment")) {
        (Some(file), _) => format!("--from-file={key}={}", quoted(file)),
        (None, Some(variable)) => format!("--from-literal={key}=\"${variable}\""),
        (None, None) => format!("--from-file={key}=FILE"),
    }
}

/// The last part of a path as a key: letters, digits, `-`, `_` and `.`.
pub(super) fn key_of(path: &str) -> String {
    let last = path.rsplit('/').next().unwrap_or(path);
    let fits = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    last.chars()
        .map(|c| if fits(c) { c } else { '_' })
        .take(253)
        .collect()
}
