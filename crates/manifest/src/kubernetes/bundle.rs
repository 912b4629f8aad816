//! Secrets and ConfigMaps (`v1`): what is in them, for those who name a key.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use layby_model::secret::{
    MAX_VALUE_BYTES, Scope, SecretRef, SecretValue, ValueKind, is_value_name,
};

use crate::draft::Placed;
use crate::fields::Fields;
use crate::kubernetes::metadata;
use crate::report::Report;
use crate::tree::{Node, Place, cut};
use crate::value::DeclaredValue;

/// The most that all Secrets and ConfigMaps may hold together, in bytes.
const MAX_ALL_BYTES: usize = 16 << 20;

/// What a ConfigMap holds that need not be text.
const BINARY: &str = "binaryData";

/// What a Secret or ConfigMap holds, by key.
pub(crate) type Keys = BTreeMap<String, SecretValue>;

/// All of a manifest.
#[derive(Debug, Default)]
pub(crate) struct Bundles {
    secrets: BTreeMap<String, Keys>,
    configs: BTreeMap<String, Keys>,
    bytes: usize,
    /// The ConfigMaps and keys that are `binaryData`: they become files, and no variables.
    binary: BTreeSet<(String, String)>,
    /// The ConfigMaps and keys that files are made of.
    used: RefCell<BTreeSet<(String, String)>>,
}

impl Bundles {
    /// Reads a Secret or ConfigMap, and gives the namespace that it names.
    pub(crate) fn read(
        &mut self,
        mut object: Fields,
        kind: ValueKind,
        report: &mut Report,
    ) -> Option<Placed<String>> {
        let word = word(kind);
        object.what = format!("a {word}");
        let whole = object.place.clone();
        let metadata = metadata::read(&mut object, report);
        let Some(name) = metadata.name else {
            report.error(
                &whole,
                format!("a {word} has no \"name\" in its \"metadata\""),
            );
            return metadata.namespace;
        };
        let what = format!("{word} {:?}", cut(&name.value));
        metadata::warn_unknown(&metadata.annotations, &what, report);
        object.what.clone_from(&what);
        object.accept(&["immutable"]);
        let mut keys = Keys::new();
        let (plain, encoded) = match kind {
            ValueKind::Secret => {
                if let Some(entry) = object.entry("type")
                    && entry.value.scalar() != Some("Opaque")
                {
                    let message =
                        format!("the type of {what} is not looked at: it is kept as any other");
                    report.warn(&entry.place, message);
                }
                ("stringData", "data")
            }
            ValueKind::Config => ("data", BINARY),
        };
        // What is written as text goes over what is encoded.
        for (key, is_encoded) in [(encoded, true), (plain, false)] {
            self.keys(
                &mut object,
                key,
                is_encoded,
                &name.value,
                &what,
                &mut keys,
                report,
            );
        }
        object.finish(report);
        let all = match kind {
            ValueKind::Secret => &mut self.secrets,
            ValueKind::Config => &mut self.configs,
        };
        if all.insert(name.value, keys).is_some() {
            report.error(&name.place, format!("{what} is there twice"));
        }
        metadata.namespace
    }

    #[allow(
        clippy::too_many_arguments,
        reason = "one place for what differs between four maps"
    )]
    fn keys(
        &mut self,
        object: &mut Fields,
        map: &'static str,
        is_encoded: bool,
        name: &str,
        what: &str,
        keys: &mut Keys,
        report: &mut Report,
    ) {
        let Some(mut fields) = object.map(map, report) else {
            return;
        };
        for entry in fields.rest() {
            let shown = cut(&entry.key);
            if !is_value_name(&format!("{name}/{}", entry.key)) {
                let message = format!(
                    "the key {shown:?} of {what} is no name: use letters, digits, '-', '_' and '.'"
                );
                report.error(&entry.place, message);
                continue;
            }
            // The text itself is in no message: it may be a secret.
            let Some(text) = entry.value.scalar() else {
                report.error(
                    &entry.value.place,
                    format!("the value of {shown:?} in {what} must be text"),
                );
                continue;
            };
            let bytes = match is_encoded {
                false => Some(text.as_bytes().to_vec()),
                true => {
                    let text: String = text.split_whitespace().collect();
                    STANDARD.decode(text).ok()
                }
            };
            let Some(bytes) = bytes else {
                report.error(
                    &entry.value.place,
                    format!("the value of {shown:?} in {what} is not base64"),
                );
                continue;
            };
            self.bytes = self.bytes.saturating_add(bytes.len());
            if bytes.len() > MAX_VALUE_BYTES || self.bytes > MAX_ALL_BYTES {
                let message = format!(
                    "{what} is too large: a value may have {} MiB, and all Secrets and ConfigMaps {} MiB",
                    MAX_VALUE_BYTES >> 20,
                    MAX_ALL_BYTES >> 20
                );
                report.error(&entry.value.place, message);
                return;
            }
            if map == BINARY {
                self.binary.insert((name.to_owned(), entry.key.clone()));
            }
            keys.insert(entry.key, SecretValue::new(bytes));
        }
    }

    /// What one of the manifest holds; `None`: it has none of that name.
    pub(crate) fn get(&self, kind: ValueKind, name: &str) -> Option<&Keys> {
        match kind {
            ValueKind::Secret => self.secrets.get(name),
            ValueKind::Config => self.configs.get(name),
        }
    }

    /// Whether a key of a ConfigMap of the manifest is `binaryData`.
    pub(crate) fn is_binary(&self, name: &str, key: &str) -> bool {
        self.binary.contains(&(name.to_owned(), key.to_owned()))
    }

    /// How a file or variable names a key of one of the manifest.
    pub(crate) fn named(&self, kind: ValueKind, name: &str, key: &str) -> SecretRef {
        if kind == ValueKind::Config {
            let mut used = self.used.borrow_mut();
            used.insert((name.to_owned(), key.to_owned()));
        }
        SecretRef {
            kind,
            scope: Some(Scope::App),
            ..SecretRef::new(&format!("{name}/{key}"))
        }
    }

    /// All that is to be kept: every key of a Secret, and those of ConfigMaps that are files.
    pub(crate) fn values(&self) -> Vec<DeclaredValue> {
        let value = |kind, name: &str, key: &str, value: &SecretValue| DeclaredValue {
            kind,
            name: format!("{name}/{key}"),
            value: value.clone(),
        };
        let mut values = Vec::new();
        for (name, keys) in &self.secrets {
            for (key, bytes) in keys {
                values.push(value(ValueKind::Secret, name, key, bytes));
            }
        }
        for (name, key) in self.used.borrow().iter() {
            if let Some(bytes) = self.configs.get(name).and_then(|keys| keys.get(key)) {
                values.push(value(ValueKind::Config, name, key, bytes));
            }
        }
        values
    }
}

/// What Kubernetes calls it.
pub(crate) fn word(kind: ValueKind) -> &'static str {
    match kind {
        ValueKind::Secret => "Secret",
        ValueKind::Config => "ConfigMap",
    }
}

/// The name of a Secret or ConfigMap that something refers to, and whether there may be none.
pub(crate) struct Named {
    pub(crate) name: String,
    pub(crate) optional: bool,
    pub(crate) place: Place,
}

/// Takes the name (`key` is what it stands under) and `optional` off a reference.
pub(crate) fn named(fields: &mut Fields, key: &'static str, report: &mut Report) -> Option<Named> {
    let place = fields.place_of(key).unwrap_or_else(|| fields.place.clone());
    let optional = fields.flag("optional", report).unwrap_or(false);
    let name = fields.text(key, report).filter(|name| !name.is_empty());
    let Some(name) = name else {
        report.error(&fields.place, format!("{} has no {key:?}", fields.what));
        return None;
    };
    if !is_value_name(&format!("{name}/x")) {
        report.error(
            &place,
            format!("{:?} names no Secret or ConfigMap", cut(&name)),
        );
        return None;
    }
    Some(Named {
        name,
        optional,
        place,
    })
}

/// That a ConfigMap is not to be had: unlike a secret, none can be made by hand.
pub(crate) fn no_config(named: &Named, report: &mut Report) {
    if !named.optional {
        let message = format!(
            "there is no ConfigMap {:?} among the manifests: give its file along (`layby up -f FILE -f FILE`, or their folder)",
            cut(&named.name)
        );
        report.error(&named.place, message);
    }
}

/// That one of the manifest has no such key.
pub(crate) fn no_key(kind: ValueKind, named: &Named, key: &str, report: &mut Report) {
    if !named.optional {
        let message = format!(
            "the {} {:?} has no key {:?}",
            word(kind),
            cut(&named.name),
            cut(key)
        );
        report.error(&named.place, message);
    }
}

/// Whether a document is a Secret or ConfigMap, and which.
pub(crate) fn kind_of(node: &Node) -> Option<ValueKind> {
    match (
        node.get("apiVersion")?.scalar()?,
        node.get("kind")?.scalar()?,
    ) {
        ("v1", "Secret") => Some(ValueKind::Secret),
        ("v1", "ConfigMap") => Some(ValueKind::Config),
        _ => None,
    }
}

/// A mode of a file, as Kubernetes reads it: with a leading zero in octal digits, else as a decimal number.
pub(crate) fn mode(text: &str) -> Result<u32, String> {
    let digits = text.strip_prefix("0o").or(text.strip_prefix('0'));
    let mode = match digits {
        Some("") => Ok(0),
        Some(octal) => u32::from_str_radix(octal, 8),
        None => text.parse(),
    };
    match mode {
        Ok(mode) if mode <= 0o777 => Ok(mode),
        _ => Err("a mode, such as 0400 (or 256, the same as a decimal number)".to_owned()),
    }
}

/// A path of a file in a volume: relative, and without `..`.
pub(crate) fn file_path(text: &str) -> Result<String, String> {
    match crate::mount::relative(text) {
        Ok(path) if !path.is_empty() => Ok(path),
        _ => Err("a relative path without \"..\"".to_owned()),
    }
}

/// Whether a value can be a variable's: text without a zero byte.
pub(crate) fn is_text(value: &SecretValue) -> bool {
    let bytes = value.bytes();
    !bytes.contains(&0) && std::str::from_utf8(bytes).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mode_is_octal_with_a_zero_before_it_and_decimal_without() {
        for (text, expected) in [
            ("0400", 0o400),
            ("256", 0o400),
            ("0o444", 0o444),
            ("420", 0o644),
            ("0", 0),
        ] {
            assert_eq!(mode(text), Ok(expected), "{text}");
        }
        for bad in ["", "0800", "1000", "-1", "rw", "07777"] {
            assert!(mode(bad).is_err(), "{bad}");
        }
    }
}
