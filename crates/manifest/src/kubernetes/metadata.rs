//! `metadata` of an object, and Layby's annotations in it.

use std::collections::BTreeMap;

use crate::draft::Placed;
use crate::fields::Fields;
use crate::report::Report;
use crate::tree::{Place, Value, cut};

/// What annotations of Layby's own begin with.
const PREFIX: &str = "layby.dev/";

/// An object's name, and what is attached to it.
#[derive(Debug)]
pub(crate) struct Metadata {
    pub(crate) name: Option<Placed<String>>,
    /// Other than `default`.
    pub(crate) namespace: Option<Placed<String>>,
    pub(crate) labels: BTreeMap<String, String>,
    /// Layby's own, without the prefix.
    pub(crate) annotations: BTreeMap<String, Placed<String>>,
    /// All annotations as they are written.
    pub(crate) notes: BTreeMap<String, String>,
}

/// Takes `metadata` off an object (and `namespace`, which people write beside it).
pub(crate) fn read(object: &mut Fields, report: &mut Report) -> Metadata {
    let mut metadata = Metadata {
        name: None,
        namespace: None,
        labels: BTreeMap::new(),
        annotations: BTreeMap::new(),
        notes: BTreeMap::new(),
    };
    let misplaced = placed(object, "namespace", report);
    if let Some(namespace) = &misplaced {
        let message = format!(
            "\"namespace\" in {} belongs below \"metadata\": it is taken as if it stood there",
            object.what
        );
        report.warn(&namespace.place, message);
    }
    if let Some(mut fields) = object.map("metadata", report) {
        metadata.name = placed(&mut fields, "name", report);
        metadata.namespace = placed(&mut fields, "namespace", report);
        metadata.labels = self::labels(&text_map(&mut fields, "labels", report));
        let annotations = text_map(&mut fields, "annotations", report);
        metadata.notes = self::labels(&annotations);
        metadata.annotations = own(annotations);
        fields.accept(&[
            "creationTimestamp",
            "deletionGracePeriodSeconds",
            "deletionTimestamp",
            "finalizers",
            "generateName",
            "generation",
            "managedFields",
            "ownerReferences",
            "resourceVersion",
            "selfLink",
            "uid",
        ]);
        fields.finish(report);
    }
    metadata.namespace = metadata
        .namespace
        .or(misplaced)
        .filter(|namespace| namespace.value != "default");
    metadata
}

/// An object that has a name and a `spec`, without the rest.
pub(crate) struct Head {
    pub(crate) name: Placed<String>,
    /// How it is called in messages: `Service "web"`.
    pub(crate) what: String,
    pub(crate) spec: Fields,
}

/// Reads an object down to its `spec`, and the namespace that it names. Until its name is known it is called as `object.what` says;
/// one without a name or a `spec` is an error.
pub(crate) fn head(
    mut object: Fields,
    kind: &str,
    report: &mut Report,
) -> (Option<Head>, Option<Placed<String>>) {
    let whole = object.place.clone();
    let metadata = read(&mut object, report);
    let Some(name) = metadata.name else {
        let message = format!("{} has no \"name\" in its \"metadata\"", object.what);
        report.error(&whole, message);
        return (None, metadata.namespace);
    };
    let what = format!("{kind} {:?}", cut(&name.value));
    warn_unknown(&metadata.annotations, &what, report);
    object.what.clone_from(&what);
    object.accept(&["status"]);
    let spec = object.map("spec", report);
    object.finish(report);
    let Some(mut spec) = spec else {
        report.error(&whole, format!("{what} has no \"spec\""));
        return (None, metadata.namespace);
    };
    spec.what.clone_from(&what);
    (Some(Head { name, what, spec }), metadata.namespace)
}

/// Takes a map of text off: labels, annotations, a selector.
pub(crate) fn text_map(
    fields: &mut Fields,
    key: &'static str,
    report: &mut Report,
) -> BTreeMap<String, Placed<String>> {
    let Some(mut map) = fields.map(key, report) else {
        return BTreeMap::new();
    };
    let mut texts = BTreeMap::new();
    for entry in map.rest() {
        let place = entry.value.place.clone();
        match &entry.value.value {
            Value::Scalar { text, .. } => {
                let value = text.clone();
                texts.insert(entry.key, Placed { value, place });
            }
            Value::Null => {
                let value = String::new();
                texts.insert(entry.key, Placed { value, place });
            }
            Value::List(_) | Value::Map(_) => {
                let message = format!(
                    "{:?} in {} must be text, not {}",
                    cut(&entry.key),
                    map.what,
                    entry.value.shown()
                );
                report.error(&place, message);
            }
        }
    }
    texts
}

/// Labels or annotations without their places.
pub(crate) fn labels(texts: &BTreeMap<String, Placed<String>>) -> BTreeMap<String, String> {
    texts
        .iter()
        .map(|(key, value)| (key.clone(), value.value.clone()))
        .collect()
}

/// Warns of Layby's annotations that nobody took.
pub(crate) fn warn_unknown(
    annotations: &BTreeMap<String, Placed<String>>,
    what: &str,
    report: &mut Report,
) {
    for (key, value) in annotations {
        let message = format!(
            "unknown annotation \"{PREFIX}{}\" of {what} is ignored",
            cut(key)
        );
        report.warn(&value.place, message);
    }
}

/// Others' annotations are theirs; Layby's own are kept.
fn own(annotations: BTreeMap<String, Placed<String>>) -> BTreeMap<String, Placed<String>> {
    annotations
        .into_iter()
        .filter_map(|(key, value)| Some((key.strip_prefix(PREFIX)?.to_owned(), value)))
        .collect()
}

fn placed(fields: &mut Fields, key: &'static str, report: &mut Report) -> Option<Placed<String>> {
    let name = fields.name(key);
    let entry = fields.entry(key)?;
    let place: Place = entry.value.place.clone();
    let value = crate::fields::parsed(&entry.value, &name, report, |text| Ok(text.to_owned()))?;
    Some(Placed { value, place })
}
