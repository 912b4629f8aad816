//! Volumes whose files are in memory: Secrets, ConfigMaps, what the pod says of itself, and several of them together.

use layby_model::secret::{FileGroup, SecretGroup, SecretRef, ValueFile, ValueKind, ValueSource};

use crate::fields::Fields;
use crate::kubernetes::bundle::{self, Named, file_path, mode};
use crate::kubernetes::env::{self, KnownToVolumes, ResourcesOf};
use crate::report::Report;
use crate::tree::cut;

/// The mode of a file for which none is said.
const MODE: u32 = 0o644;
/// The most files of a volume.
const MAX_FILES: usize = 1_000;

/// The files of a volume, and the groups of secrets that further ones are made of.
#[derive(Debug, Default)]
pub(crate) struct Files {
    pub(crate) files: Vec<ValueFile>,
    pub(crate) groups: Vec<FileGroup>,
}

impl Files {
    fn add(&mut self, path: String, content: ValueSource, mode: u32) {
        // A later one goes over those before it, as where volumes are projected.
        self.files.retain(|file| file.path != path);
        self.files.push(ValueFile {
            path,
            content,
            mode,
            uid: 0,
            gid: 0,
        });
    }

    /// What is there at a path of the volume: the file itself, or those below it.
    pub(crate) fn below(&self, path: &str) -> Self {
        if path.is_empty() {
            return Self {
                files: self.files.clone(),
                groups: self.groups.clone(),
            };
        }
        let mut below = Self::default();
        for file in &self.files {
            let rest = match file.path.strip_prefix(path) {
                Some("") => Some(""),
                Some(rest) => rest.strip_prefix('/'),
                None => None,
            };
            if let Some(rest) = rest {
                below.add(rest.to_owned(), file.content.clone(), file.mode);
            }
        }
        if let (true, Some(group)) = (below.files.is_empty(), self.groups.last()) {
            // Its keys are known when it is deployed.
            let secret = SecretRef {
                optional: group.group.optional,
                ..SecretRef::new(&format!("{}/{path}", group.group.group))
            };
            below.add(String::new(), ValueSource::Secret(secret), group.mode);
        }
        below
    }
}

/// `secret` or `configMap` of a volume.
pub(crate) fn bundle(
    mut fields: Fields,
    kind: ValueKind,
    known: KnownToVolumes<'_>,
    report: &mut Report,
) -> Files {
    let usual = fields.parsed("defaultMode", report, mode).unwrap_or(MODE);
    let name = match kind {
        ValueKind::Secret => "secretName",
        ValueKind::Config => "name",
    };
    let mut files = Files::default();
    part(fields, kind, name, usual, known, &mut files, report);
    files
}

/// `projected`: several together.
pub(crate) fn projected(
    mut fields: Fields,
    known: KnownToVolumes<'_>,
    report: &mut Report,
) -> Files {
    let usual = fields.parsed("defaultMode", report, mode).unwrap_or(MODE);
    let mut files = Files::default();
    let what = format!("a source of {}", fields.what);
    for node in fields.list("sources", report).unwrap_or_default() {
        let Some(mut source) = Fields::open(node, what.as_str(), report) else {
            continue;
        };
        for (key, kind) in [
            ("secret", ValueKind::Secret),
            ("configMap", ValueKind::Config),
        ] {
            if let Some(fields) = source.map(key, report) {
                part(fields, kind, "name", usual, known, &mut files, report);
            }
        }
        if let Some(fields) = source.map("downwardAPI", report) {
            downward_items(fields, usual, known, &mut files, report);
        }
        if let Some(entry) = source.entry("serviceAccountToken") {
            let message = format!(
                "{} is ignored, and the file is not there: there is no Kubernetes API for the containers to speak to",
                source.name("serviceAccountToken")
            );
            report.warn(&entry.place, message);
        }
        let missing = "the containers would miss the file";
        source.refuse(
            &[("clusterTrustBundle", missing), ("podCertificate", missing)],
            report,
        );
        source.finish(report);
    }
    fields.finish(report);
    files
}

/// `downwardAPI` of a volume.
pub(crate) fn downward(
    mut fields: Fields,
    known: KnownToVolumes<'_>,
    report: &mut Report,
) -> Files {
    let usual = fields.parsed("defaultMode", report, mode).unwrap_or(MODE);
    let mut files = Files::default();
    downward_items(fields, usual, known, &mut files, report);
    files
}

/// The keys of one Secret or ConfigMap: all, or those that `items` names.
fn part(
    mut fields: Fields,
    kind: ValueKind,
    name: &'static str,
    usual: u32,
    known: KnownToVolumes<'_>,
    files: &mut Files,
    report: &mut Report,
) {
    let named = bundle::named(&mut fields, name, report);
    let what = format!("an item of {}", fields.what);
    let mut items = Vec::new();
    let has_items = fields.has("items");
    for node in fields.list("items", report).unwrap_or_default() {
        let Some(mut item) = Fields::open(node, what.as_str(), report) else {
            continue;
        };
        for key in ["key", "path"] {
            if !item.has(key) {
                report.error(&item.place, format!("{what} has no {key:?}"));
            }
        }
        let key = item.text("key", report);
        let path = item.parsed("path", report, file_path);
        let mode = item.parsed("mode", report, mode).unwrap_or(usual);
        item.finish(report);
        if let (Some(key), Some(path)) = (key, path) {
            items.push((key, path, mode));
        }
    }
    fields.finish(report);
    let Some(named) = named else { return };
    let keys = known.known.bundles.get(kind, &named.name);
    match (keys, kind) {
        (Some(keys), _) => {
            if !has_items {
                items = keys
                    .keys()
                    .map(|key| (key.clone(), key.clone(), usual))
                    .collect();
            }
            for (key, path, mode) in items {
                if !keys.contains_key(&key) {
                    bundle::no_key(kind, &named, &key, report);
                    continue;
                }
                let content =
                    ValueSource::Secret(known.known.bundles.named(kind, &named.name, &key));
                add(files, path, content, mode, &named, report);
            }
        }
        (None, ValueKind::Config) => bundle::no_config(&named, report),
        (None, ValueKind::Secret) if has_items => {
            for (key, path, mode) in items {
                let secret = SecretRef {
                    optional: named.optional,
                    ..SecretRef::new(&format!("{}/{key}", named.name))
                };
                add(
                    files,
                    path,
                    ValueSource::Secret(secret),
                    mode,
                    &named,
                    report,
                );
            }
        }
        (None, ValueKind::Secret) => files.groups.push(FileGroup {
            group: SecretGroup {
                group: named.name,
                optional: named.optional,
                prefix: String::new(),
            },
            mode: usual,
            uid: 0,
            gid: 0,
        }),
    }
}

fn add(
    files: &mut Files,
    path: String,
    content: ValueSource,
    mode: u32,
    named: &Named,
    report: &mut Report,
) {
    if files.files.len() >= MAX_FILES {
        let message = format!(
            "the volume with {:?} has more than {MAX_FILES} files",
            cut(&named.name)
        );
        report.error(&named.place, message);
        return;
    }
    files.add(path, content, mode);
}

fn downward_items(
    mut fields: Fields,
    usual: u32,
    known: KnownToVolumes<'_>,
    files: &mut Files,
    report: &mut Report,
) {
    let what = format!("an item of {}", fields.what);
    for node in fields.list("items", report).unwrap_or_default() {
        let Some(mut item) = Fields::open(node, what.as_str(), report) else {
            continue;
        };
        let place = item.place.clone();
        let path = item.parsed("path", report, file_path);
        let mode = item.parsed("mode", report, mode).unwrap_or(usual);
        let field = item.map("fieldRef", report);
        let content = field.map(|field| env::field(field, known.known, report));
        let of = ResourcesOf::Pod(known.resources);
        let resource = item.map("resourceFieldRef", report);
        let resource = resource.map(|field| env::resource(field, of, report));
        if content.is_some() && resource.is_some() {
            report.error(&place, format!("{what} is of several kinds: one is enough"));
        }
        let content = content.or(resource);
        let is_whole = path.is_some() && content.is_some();
        item.finish(report);
        if !is_whole {
            report.error(
                &place,
                format!("{what} must have \"path\", and \"fieldRef\" or \"resourceFieldRef\""),
            );
        }
        if let (Some(path), Some(Some(content))) = (path, content) {
            files.add(path, content, mode);
        }
    }
    fields.finish(report);
}
