//! PersistentVolumes (`v1`) that are folders of the machine, and which claim gets which.

use std::collections::BTreeMap;

use crate::draft::Placed;
use crate::fields::Fields;
use crate::kubernetes::claim::Claim;
use crate::kubernetes::metadata;
use crate::kubernetes::volume::host_path;
use crate::report::Report;
use crate::tree::cut;

/// A folder of the machine that a claim may get.
#[derive(Debug)]
pub(crate) struct Persistent {
    pub(crate) name: Placed<String>,
    /// The folder, and whether it is made where it is missing.
    folder: (String, bool),
    class: String,
    /// The claim that it is kept for.
    claim: Option<String>,
}

/// Reads a PersistentVolume. It belongs to no namespace.
pub(crate) fn read(mut object: Fields, report: &mut Report) -> Option<Persistent> {
    object.what = "a PersistentVolume".to_owned();
    let head = metadata::head(object, "PersistentVolume", report).0?;
    let metadata::Head {
        name,
        what,
        mut spec,
    } = head;
    let class = spec.text("storageClassName", report).unwrap_or_default();
    let claim = spec.map("claimRef", report).and_then(|mut claim| {
        claim.accept(&["apiVersion", "kind", "namespace", "resourceVersion", "uid"]);
        let name = claim.text("name", report);
        claim.finish(report);
        name
    });
    let mut folder = None;
    for key in ["hostPath", "local"] {
        if let Some(mut path) = spec.map(key, report) {
            path.accept(&["fsType"]);
            folder = host_path(path, report).or(folder);
        }
    }
    // There is one machine, the folder is as large as its disk, and nothing but a user's word removes it.
    spec.accept(&[
        "accessModes",
        "capacity",
        "nodeAffinity",
        "persistentVolumeReclaimPolicy",
    ]);
    if let Some(entry) = spec.entry("volumeMode")
        && entry.value.scalar() != Some("Filesystem")
    {
        let message = format!("{} must be Filesystem", spec.name("volumeMode"));
        report.error(&entry.value.place, message);
    }
    spec.unsupported(&["mountOptions", "volumeAttributesClassName"], report);
    let others = spec.rest();
    if folder.is_none() && !report.failed() {
        let message = format!(
            "{what} is not supported: only a folder of the machine is (\"hostPath\" or \"local\")"
        );
        report.error(&name.place, message);
    }
    for entry in others.into_iter().filter(|_| folder.is_some()) {
        spec.put_back(entry);
    }
    spec.finish(report);
    Some(Persistent {
        name,
        folder: folder?,
        class,
        claim,
    })
}

/// Gives claims their folders: what one names, what is kept for one, else the first that is left of its class.
pub(crate) fn bind(
    mut folders: Vec<Persistent>,
    claims: &mut BTreeMap<String, Claim>,
    report: &mut Report,
) {
    for claim in claims.values_mut() {
        let Some(wanted) = &claim.volume else {
            continue;
        };
        match folders
            .iter()
            .position(|one| one.name.value == wanted.value)
        {
            Some(at) => claim.folder = Some(folders.remove(at).folder),
            None => {
                let message = format!(
                    "\"volumeName\" in PersistentVolumeClaim {:?} names no PersistentVolume of this manifest: its data would be elsewhere",
                    cut(&claim.name.value)
                );
                report.error(&wanted.place, message);
            }
        }
    }
    folders.retain(|one| {
        let kept_for = one.claim.as_ref();
        let Some(claim) = kept_for.and_then(|name| claims.get_mut(name)) else {
            return true;
        };
        claim.folder.get_or_insert_with(|| one.folder.clone());
        false
    });
    for claim in claims.values_mut().filter(|claim| claim.folder.is_none()) {
        let fits = |one: &Persistent| {
            one.claim.is_none() && !one.class.is_empty() && Some(&one.class) == claim.class.as_ref()
        };
        if let Some(at) = folders.iter().position(fits) {
            claim.folder = Some(folders.remove(at).folder);
        }
    }
    for one in folders {
        let message = format!(
            "no claim of this manifest gets the PersistentVolume {:?}: one does that names it as \"volumeName\", or is of its \"storageClassName\"",
            cut(&one.name.value)
        );
        report.warn(&one.name.place, message);
    }
}
