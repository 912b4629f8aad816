//! An image in the making: its config as a JSON document, so that what is not known here survives, and its layers.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde_json::{Map, Value, json};

use super::content::Layer;
use super::view::View;
use crate::layout::{self, CONFIG_TYPE, Descriptor, MANIFEST_TYPE, Manifest};
use crate::{Error, Store, blob, digest, layer};

/// What Docker gives to images from scratch.
const DEFAULT_PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// The image of a stage so far.
#[derive(Debug, Clone)]
pub(crate) struct Draft {
    document: Map<String, Value>,
    config: Map<String, Value>,
    history: Vec<Value>,
    layers: Vec<Descriptor>,
    diff_ids: Vec<String>,
    /// The ARGs declared so far; a stage inherits those of the stage that it begins with.
    pub(crate) args: BTreeMap<String, String>,
}

impl Draft {
    /// `FROM scratch`, for a platform such as `linux/arm64/v8`.
    pub(crate) fn scratch(platform: &str) -> Self {
        let mut document = Map::new();
        for (key, value) in ["os", "architecture", "variant"]
            .into_iter()
            .zip(platform.split('/'))
        {
            document.insert(key.to_owned(), value.into());
        }
        let mut config = Map::new();
        config.insert("Env".to_owned(), json!([DEFAULT_PATH]));
        Self {
            document,
            config,
            history: Vec::new(),
            layers: Vec::new(),
            diff_ids: Vec::new(),
            args: BTreeMap::new(),
        }
    }

    /// `FROM` an image of the store.
    pub(crate) fn of_image(store: &Store, digest: &str) -> Result<Self, Error> {
        let (manifest, _) = store.read_manifest(digest)?;
        let diff_ids = store.read_config(&manifest)?.diff_ids;
        let config_digest = &manifest.config.digest;
        let what = format!("the image config {config_digest}");
        let bytes = blob::read_document(&store.blob_path(config_digest)?, config_digest, &what)?;
        let mut document: Map<String, Value> = layout::parse(&bytes, &what)?;
        let config = match document.remove("config") {
            Some(Value::Object(config)) => config,
            _ => Map::new(),
        };
        let history = match document.remove("history") {
            Some(Value::Array(history)) => history,
            _ => Vec::new(),
        };
        Ok(Self {
            document,
            config,
            history,
            layers: manifest.layers,
            diff_ids,
            args: BTreeMap::new(),
        })
    }

    /// What this image is for, `os/architecture`, if it says.
    pub(crate) fn platform(&self) -> Option<String> {
        let text = |key: &str| self.document.get(key).and_then(Value::as_str);
        Some(format!("{}/{}", text("os")?, text("architecture")?))
    }

    /// Takes the ONBUILD triggers out.
    pub(crate) fn take_triggers(&mut self) -> Vec<String> {
        let triggers = self.list("OnBuild");
        self.config.remove("OnBuild");
        triggers
    }

    /// Adds an ONBUILD trigger.
    pub(crate) fn add_trigger(&mut self, text: &str) {
        let mut triggers = self.list("OnBuild");
        triggers.push(text.to_owned());
        self.set("OnBuild", json!(triggers));
    }

    /// Who made it (MAINTAINER).
    pub(crate) fn set_author(&mut self, name: &str) {
        self.document.insert("author".to_owned(), name.into());
    }

    /// Of all files in it.
    pub(crate) fn chain(&self) -> String {
        digest::of(self.diff_ids.join(" ").as_bytes())
    }

    /// A field of the config; `Null` removes it.
    pub(crate) fn set(&mut self, key: &str, value: Value) {
        if value.is_null() {
            self.config.remove(key);
        } else {
            self.config.insert(key.to_owned(), value);
        }
    }

    /// Adds to a field of the config that is an object (Labels, ExposedPorts, Volumes).
    pub(crate) fn add(&mut self, key: &str, name: &str, value: Value) {
        let field = self.config.entry(key).or_insert(Value::Null);
        if !field.is_object() {
            *field = json!({});
        }
        if let Value::Object(field) = field {
            field.insert(name.to_owned(), value);
        }
    }

    /// A text of the config, empty where there is none.
    pub(crate) fn text(&self, key: &str) -> &str {
        self.config.get(key).and_then(Value::as_str).unwrap_or("")
    }

    /// A list of texts of the config.
    pub(crate) fn list(&self, key: &str) -> Vec<String> {
        let values = self.config.get(key).and_then(Value::as_array);
        let texts = values.into_iter().flatten().filter_map(Value::as_str);
        texts.map(str::to_owned).collect()
    }

    /// The value of an environment variable.
    pub(crate) fn env(&self, name: &str) -> Option<String> {
        let pairs = self.list("Env");
        pairs
            .iter()
            .rev()
            .find_map(|pair| match pair.split_once('=') {
                Some((key, value)) if key == name => Some(value.to_owned()),
                _ => None,
            })
    }

    /// Sets an environment variable where it stands, or at the end.
    pub(crate) fn set_env(&mut self, name: &str, value: &str) {
        let mut pairs = self.list("Env");
        let pair = format!("{name}={value}");
        let prefix = format!("{name}=");
        match pairs.iter_mut().find(|pair| pair.starts_with(&prefix)) {
            Some(there) => *there = pair,
            None => pairs.push(pair),
        }
        self.set("Env", json!(pairs));
    }

    /// The working directory, absolute.
    pub(crate) fn working_dir(&self) -> &str {
        match self.text("WorkingDir") {
            "" => "/",
            dir => dir,
        }
    }

    /// Records a step, with its layer if it made one.
    pub(crate) fn record(&mut self, text: &str, layer: Option<Layer>, created: &str) {
        let mut entry = json!({ "created": created, "created_by": text, "comment": "layby" });
        match layer {
            Some(layer) => {
                self.layers.push(layer.descriptor);
                self.diff_ids.push(layer.diff_id);
            }
            None => entry["empty_layer"] = true.into(),
        }
        self.history.push(entry);
    }

    /// The file system of the image so far; unpacks what is not unpacked yet.
    pub(crate) fn view(&self, store: &Store) -> Result<View, Error> {
        self.unpacked(store).map(View::of_layers)
    }

    /// Its unpacked layers, topmost first.
    pub(crate) fn unpacked(&self, store: &Store) -> Result<Vec<PathBuf>, Error> {
        layer::unpacked(store, &self.layers, &self.diff_ids)
    }

    /// Stores config and manifest. Gives the manifest's descriptor.
    pub(crate) fn commit(mut self, store: &Store, created: &str) -> Result<Descriptor, Error> {
        self.document.insert("created".to_owned(), created.into());
        self.document
            .insert("config".to_owned(), Value::Object(self.config));
        self.document
            .insert("history".to_owned(), Value::Array(self.history));
        self.document.insert(
            "rootfs".to_owned(),
            json!({ "type": "layers", "diff_ids": self.diff_ids }),
        );
        let (digest, size_bytes) =
            store.put_bytes(&layout::to_json(&self.document), "an image config")?;
        let config = Descriptor::new(CONFIG_TYPE, &digest, size_bytes);
        let manifest = Manifest::new(config, self.layers);
        let (digest, size_bytes) =
            store.put_bytes(&layout::to_json(&manifest), "an image manifest")?;
        Ok(Descriptor::new(MANIFEST_TYPE, &digest, size_bytes))
    }
}
