//! What a fake container gets of secrets and configs: variables, and files among its own.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::path::Path;

use layby_model::engine::RunSpec;
use layby_model::mounts::MountSource;
use layby_model::replica::Trouble;
use layby_model::secret::ValueSource;
use layby_model::{AppName, ReplicaId};

use super::body::Body;
use crate::slots::{Facts, Known, Slots};

/// Where every replica finds the machine.
const MACHINE: Ipv4Addr = Ipv4Addr::LOCALHOST;

/// Gives the first container of a replica its environment and its files in memory.
pub(super) fn give(
    id: ReplicaId,
    app: &AppName,
    body: &Body,
    spec: &RunSpec,
    known: &Known,
) -> Result<(), Trouble> {
    let Some(container) = spec.service.containers.first() else {
        return Ok(());
    };
    let facts = Facts {
        app: app.clone(),
        id,
        address: body.address,
        gateway: MACHINE,
    };
    let mut slots = Slots::default();
    let mut variables: Vec<(&String, usize)> = Vec::new();
    for (name, secret) in &container.secret_env {
        variables.push((name, slots.add(&[ValueSource::Secret(secret.clone())])));
    }
    for (name, parts) in &container.composed_env {
        variables.push((name, slots.add(parts)));
    }
    let mut files = Vec::new();
    for mount in &container.mounts {
        if let MountSource::Files { files: all, .. } = &mount.source {
            for file in all {
                let number = slots.add(std::slice::from_ref(&file.content));
                files.push((Path::new(&mount.target).join(&file.path), file, number));
            }
        }
    }
    let values = slots.fill(known, &facts)?;
    let value = |number| values.get(number).unwrap_or_default();
    let mut env: BTreeMap<String, String> = container.env.clone();
    for (name, number) in variables {
        let text = String::from_utf8_lossy(value(number)).into_owned();
        env.insert(name.clone(), text);
    }
    body.set_env(env);
    for (path, file, number) in files {
        let owner = (u64::from(file.uid), u64::from(file.gid));
        body.files.put(&path, file.mode, owner, value(number));
    }
    Ok(())
}
