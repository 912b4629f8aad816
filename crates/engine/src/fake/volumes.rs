//! The named volumes of a fake engine: names, without any files.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use layby_model::AppName;
use layby_model::engine::{EngineError, RunSpec};
use layby_model::mounts::{MountSource, VolumeReport};
use layby_model::replica::Trouble;

use crate::roster::Roster;

#[derive(Debug, Default)]
pub(super) struct Volumes(Mutex<BTreeMap<String, VolumeReport>>);

impl Volumes {
    pub(super) fn list(&self, roster: &Roster) -> Vec<VolumeReport> {
        let used = roster.volumes();
        let mut all: Vec<VolumeReport> = self.lock().values().cloned().collect();
        for volume in &mut all {
            volume.used_by = used.get(&volume.name).cloned().unwrap_or_default();
        }
        all
    }

    pub(super) fn make(
        &self,
        name: &str,
        app: Option<&AppName>,
        labels: &BTreeMap<String, String>,
    ) -> VolumeReport {
        let new = || VolumeReport {
            name: name.to_owned(),
            app: app.cloned(),
            labels: labels.clone(),
            created_ms: 0,
            path: format!("/fake/{name}"),
            used_by: Vec::new(),
        };
        self.lock()
            .entry(name.to_owned())
            .or_insert_with(new)
            .clone()
    }

    pub(super) fn remove(&self, name: &str, roster: &Roster) -> Result<(), EngineError> {
        let mut all = self.lock();
        if roster.volumes().contains_key(name) {
            let text = format!("the volume {name} is in use");
            return Err(EngineError::Conflict(text));
        }
        let gone = all.remove(name).map(drop);
        gone.ok_or_else(|| EngineError::NotFound(format!("there is no volume {name}")))
    }

    /// Makes the volumes of a replica that is being prepared.
    pub(super) fn prepare(&self, app: &AppName, spec: &RunSpec) -> Result<(), Trouble> {
        let containers = spec.service.containers.iter();
        for mount in containers.flat_map(|container| &container.mounts) {
            match &mount.source {
                MountSource::Volume {
                    name,
                    external: true,
                    ..
                } if !self.lock().contains_key(name) => {
                    let message = format!("there is no volume {name}: make it first");
                    return Err(Trouble {
                        fatal: true,
                        message,
                    });
                }
                MountSource::Volume { name, labels, .. } => {
                    self.make(name, Some(app), labels);
                }
                MountSource::Bind { .. }
                | MountSource::Tmpfs { .. }
                | MountSource::Scratch { .. }
                | MountSource::Files { .. } => {}
            }
        }
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, VolumeReport>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
