//! Volumes as PersistentVolumeClaims (`v1`).

use std::collections::{BTreeMap, BTreeSet};

use layby_model::mounts::MountSource;

use crate::convert::names::Names;
use crate::convert::tree::{Map, texts};
use crate::convert::{App, Object, labels, object};
use crate::report::Report;
use crate::tree::{Place, cut};

/// How much room is asked for: Compose does not say.
const SIZE: &str = "1Gi";

/// The claims of an app.
#[derive(Default)]
pub(super) struct Claims {
    names: Names,
    all: BTreeMap<String, Claim>,
}

struct Claim {
    volume: String,
    labels: BTreeMap<String, String>,
    external: bool,
    /// What the image has where it is mounted is to be copied into it.
    copied: bool,
    users: Vec<User>,
}

/// A mount of a claim.
pub(super) struct User {
    pub(super) service: String,
    pub(super) place: Place,
    pub(super) target: String,
    /// Several pods of its service may have it at a time.
    pub(super) shared: bool,
}

impl Claims {
    /// Takes a claim for a volume; hands out its name.
    pub(super) fn take(&mut self, app: &App<'_>, source: &MountSource, user: User) -> String {
        let MountSource::Volume {
            name: volume,
            copy,
            external,
            labels,
            ..
        } = source
        else {
            return String::new();
        };
        // The app is the namespace: its name need not be in that of the claim.
        let own = volume.strip_prefix(&format!("{}_", app.name));
        let name = self.names.give(own.unwrap_or(volume), volume, 63);
        let claim = self.all.entry(name.clone()).or_insert_with(|| Claim {
            volume: volume.clone(),
            labels: labels.clone(),
            external: *external,
            copied: false,
            users: Vec::new(),
        });
        claim.copied |= *copy;
        claim.users.push(user);
        name
    }

    /// The claims, and what is to be known of them.
    pub(super) fn objects(self, app: &App<'_>, report: &mut Report) -> Vec<Object> {
        let mut objects = Vec::new();
        for (name, claim) in self.all {
            let Some(first) = claim.users.first() else {
                continue;
            };
            if claim.external {
                let message = format!(
                    "the PersistentVolumeClaim {name:?} must be in the namespace {:?} already: the volume {:?} is external",
                    app.namespace,
                    cut(&claim.volume)
                );
                report.warn(&first.place, message);
                continue;
            }
            let mode = claim.mode();
            tell(&name, &claim, mode, report);
            let own = claim
                .labels
                .iter()
                .filter(|(key, value)| is_label(key, value));
            let all = own.fold(labels::of_object(None, app.name), |all, (key, value)| {
                all.text(key, value)
            });
            let mut head = app.object("v1", "PersistentVolumeClaim", &name, None);
            head.metadata = Map::new()
                .text("name", &name)
                .text("namespace", &app.namespace)
                .put("labels", all);
            let requests = Map::new().put("requests", Map::new().text("storage", SIZE));
            let spec = Map::new()
                .put("accessModes", texts([mode]))
                .put("resources", requests);
            let map = head.with(Map::new(), |map| map.put("spec", spec));
            objects.push(object("PersistentVolumeClaim", &name, map));
        }
        objects
    }
}

impl Claim {
    /// How it is mounted: by one pod at a time, on one machine, or by several.
    fn mode(&self) -> &'static str {
        let services: BTreeSet<&str> = self
            .users
            .iter()
            .map(|user| user.service.as_str())
            .collect();
        let is_shared = services.len() > 1 || self.users.iter().any(|user| user.shared);
        match is_shared {
            true => "ReadWriteMany",
            false => "ReadWriteOnce",
        }
    }
}

fn tell(name: &str, claim: &Claim, mode: &str, report: &mut Report) {
    let Some(first) = claim.users.first() else {
        return;
    };
    let mut message = format!(
        "the volume {:?} becomes the PersistentVolumeClaim {name:?} of {SIZE}, since Compose says no size, and begins empty",
        cut(&claim.volume)
    );
    if claim.copied {
        message += &format!(
            ": what the image has at {} is not copied into it",
            cut(&first.target)
        );
    }
    if mode == "ReadWriteMany" {
        message += "; several pods have it at a time, for which its storage class must be made (ReadWriteMany)";
    }
    report.warn(&first.place, message);
}

/// Whether Kubernetes takes it as a label ("Labels and Selectors", syntax).
fn is_label(key: &str, value: &str) -> bool {
    labels::is_key(key) && (value.is_empty() || labels::is_name(value))
}
