//! PersistentVolumeClaims (`v1`): each is a volume of the node.

use std::collections::BTreeMap;

use layby_model::AppName;
use layby_model::mounts::{Mount, MountSource};

use crate::draft::Placed;
use crate::fields::Fields;
use crate::kubernetes::metadata;
use crate::mount::{self, volume_name};
use crate::report::Report;
use crate::tree::cut;

/// A claim that the files declare.
#[derive(Debug)]
pub(crate) struct Claim {
    pub(crate) name: Placed<String>,
    pub(crate) labels: BTreeMap<String, String>,
    /// The PersistentVolume that it names.
    pub(crate) volume: Option<Placed<String>>,
    pub(crate) class: Option<String>,
    /// The folder of the machine that it stands for, and whether it is made where it is missing; `None`: a volume of the node.
    pub(crate) folder: Option<(String, bool)>,
}

impl Claim {
    /// One that gets a volume of the node.
    pub(crate) fn new(name: Placed<String>, labels: BTreeMap<String, String>) -> Self {
        Self {
            name,
            labels,
            volume: None,
            class: None,
            folder: None,
        }
    }
}

/// Reads a PersistentVolumeClaim, and the namespace that it names.
pub(crate) fn read(
    mut object: Fields,
    report: &mut Report,
) -> (Option<Claim>, Option<Placed<String>>) {
    object.what = "a PersistentVolumeClaim".to_owned();
    let whole = object.place.clone();
    let metadata = metadata::read(&mut object, report);
    let Some(name) = metadata.name else {
        report.error(
            &whole,
            "a PersistentVolumeClaim has no \"name\" in its \"metadata\"",
        );
        return (None, metadata.namespace);
    };
    let what = format!("PersistentVolumeClaim {:?}", cut(&name.value));
    metadata::warn_unknown(&metadata.annotations, &what, report);
    object.what.clone_from(&what);
    // A cluster has bound it to one of its own volumes, and has said so.
    let bound = object.take("status").is_some();
    let (mut volume, mut class) = (None, None);
    if let Some(mut spec) = object.map("spec", report) {
        spec.what.clone_from(&what);
        volume = spec.placed("volumeName", report).filter(|_| !bound);
        class = spec.text("storageClassName", report);
        claim_spec(spec, report);
    }
    object.finish(report);
    let labels = mount::labels(metadata.labels, &what, &name.place, report);
    let claim = Claim {
        volume: volume.filter(|name| !name.value.is_empty()),
        class,
        ..Claim::new(name, labels)
    };
    (Some(claim), metadata.namespace)
}

/// Reads `spec` of a claim, or of the template of one.
pub(crate) fn claim_spec(mut spec: Fields, report: &mut Report) {
    size(&mut spec, report);
    // Who may mount it how: all is on one machine, and is written to as the containers say.
    spec.accept(&["accessModes", "storageClassName"]);
    if let Some(entry) = spec.entry("volumeMode")
        && entry.value.scalar() != Some("Filesystem")
    {
        let message = format!("{} must be Filesystem", spec.name("volumeMode"));
        report.error(&entry.value.place, message);
    }
    spec.refuse(
        &[
            ("dataSource", "what it is to hold would be missing"),
            ("dataSourceRef", "what it is to hold would be missing"),
            ("selector", "its data would be elsewhere"),
            ("volumeName", "its data would be elsewhere"),
        ],
        report,
    );
    spec.unsupported(&["volumeAttributesClassName"], report);
    spec.finish(report);
}

fn size(spec: &mut Fields, report: &mut Report) {
    let Some(mut resources) = spec.map("resources", report) else {
        return;
    };
    for key in ["requests", "limits"] {
        let Some(mut sizes) = resources.map(key, report) else {
            continue;
        };
        if let Some(entry) = sizes.entry("storage") {
            let message = format!(
                "the size {} of {} is not enforced: the volume may grow while the disk has room",
                entry.value.shown(),
                spec.what
            );
            report.warn(&entry.place, message);
        }
        sizes.finish(report);
    }
    resources.finish(report);
}

/// The claims by their names.
pub(crate) fn by_name(claims: Vec<Claim>, report: &mut Report) -> BTreeMap<String, Claim> {
    let mut by_name: BTreeMap<String, Claim> = BTreeMap::new();
    for claim in claims {
        if let Some(first) = by_name.get(&claim.name.value) {
            let message = format!(
                "the PersistentVolumeClaim {:?} is there twice: first in {}",
                cut(&claim.name.value),
                first.name.place.short()
            );
            report.error(&claim.name.place, message);
            continue;
        }
        by_name.insert(claim.name.value.clone(), claim);
    }
    by_name
}

/// Warns of claims that the files do not declare: their volumes must be there already.
pub(crate) fn check(
    named: &[Placed<String>],
    claims: &BTreeMap<String, Claim>,
    app: Option<&AppName>,
    report: &mut Report,
) {
    for claim in named {
        let name = volume_of(app, &claim.value);
        if let Err(expected) = volume_name(&name) {
            let message = format!("the claim {:?} must be {expected}", cut(&claim.value));
            report.error(&claim.place, message);
        } else if !claims.contains_key(&claim.value) {
            let message = format!(
                "the PersistentVolumeClaim {:?} is in none of the files: give its file along, or the volume {name:?} must be there already (`layby volume create`)",
                cut(&claim.value)
            );
            report.warn(&claim.place, message);
        }
    }
}

/// Gives the mounts of claims the volumes that they stand for.
pub(crate) fn resolve(
    mounts: &mut [Mount],
    claims: &BTreeMap<String, Claim>,
    app: Option<&AppName>,
) {
    for mount in mounts {
        let MountSource::Volume {
            name,
            external,
            labels,
            subpath,
            ..
        } = &mut mount.source
        else {
            continue;
        };
        let claim = claims.get(name);
        if let Some((folder, create)) = claim.and_then(|claim| claim.folder.clone()) {
            let path = match subpath {
                Some(below) => format!("{folder}/{below}"),
                None => folder,
            };
            mount.source = MountSource::Bind {
                path,
                create,
                recursive: true,
            };
            continue;
        }
        match claim {
            Some(claim) => labels.clone_from(&claim.labels),
            None => *external = true,
        }
        *name = volume_of(app, name);
    }
}

/// `<app>_<claim>`; the app is the namespace where one is named.
fn volume_of(app: Option<&AppName>, claim: &str) -> String {
    // Without a name of the app there is an error already.
    format!("{}_{claim}", app.map_or("app", AppName::as_str))
}
