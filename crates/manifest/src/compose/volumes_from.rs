//! `volumes_from`: a service that mounts what another one does.

use layby_model::mounts::{Mount, MountSource};

use crate::compose::networks::Member;
use crate::draft::Placed;
use crate::fields::Fields;
use crate::report::Report;
use crate::tree::{Place, cut};

/// Another service whose volumes are wanted.
#[derive(Debug)]
pub(crate) struct From {
    service: String,
    read_only: bool,
    place: Place,
}

/// Takes `volumes_from` off a service: `SERVICE[:ro]`.
pub(crate) fn read(service: &mut Fields, report: &mut Report) -> Vec<From> {
    let name = service.name("volumes_from");
    let items = service.text_or_texts("volumes_from", report);
    let mut all = Vec::new();
    for Placed { value, place } in items.unwrap_or_default() {
        let (other, mode) = value.split_once(':').unwrap_or((&value, "rw"));
        if other == "container" || !matches!(mode, "ro" | "rw") {
            let message = format!(
                "an item of {name} must be a service, with :ro or :rw behind it or not, not {:?}: containers of others are not reached",
                cut(&value)
            );
            report.error(&place, message);
            continue;
        }
        all.push(From {
            service: other.to_owned(),
            read_only: mode == "ro",
            place,
        });
    }
    all
}

/// Gives the services the mounts of those whose volumes they want. What those have from others in their turn is not among them.
pub(crate) fn join(members: &mut [Member], report: &mut Report) {
    let written: Vec<(String, Vec<Mount>)> = members
        .iter()
        .map(|member| {
            let containers = member.draft.spec.containers.iter();
            let mounts = containers.flat_map(|container| container.mounts.clone());
            (member.key.clone(), mounts.collect())
        })
        .collect();
    for member in members {
        for from in std::mem::take(&mut member.volumes_from) {
            let Some((_, mounts)) = written.iter().find(|(name, _)| *name == from.service) else {
                let message = format!(
                    "\"volumes_from\" names {:?}, which is no service of this file that is run",
                    cut(&from.service)
                );
                report.error(&from.place, message);
                continue;
            };
            let Some(container) = member.draft.spec.containers.first_mut() else {
                continue;
            };
            for mount in mounts {
                let is_shared = match &mount.source {
                    MountSource::Volume { .. } | MountSource::Bind { .. } => true,
                    MountSource::Scratch {
                        memory_bytes: None, ..
                    } => {
                        let message = format!(
                            "\"volumes_from\" asks for the volume of {:?} at {}, which has no name and goes with its replica: name it at the top",
                            cut(&from.service),
                            cut(&mount.target)
                        );
                        report.error(&from.place, message);
                        false
                    }
                    MountSource::Scratch { .. }
                    | MountSource::Tmpfs { .. }
                    | MountSource::Files { .. } => false,
                };
                let is_free = container
                    .mounts
                    .iter()
                    .all(|own| own.target != mount.target);
                if is_shared && is_free {
                    container.mounts.push(Mount {
                        read_only: mount.read_only || from.read_only,
                        ..mount.clone()
                    });
                }
            }
        }
    }
}
