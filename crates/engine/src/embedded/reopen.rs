//! What a start finds: every bundle is taken over, or cleared away.

use std::fs;
use std::net::Ipv4Addr;
use std::path::Path;
use std::sync::Arc;

use futures_util::{StreamExt, stream};
use layby_model::ReplicaId;
use layby_model::engine::EngineError;
use layby_runtime::{Bundle, freezer, sandbox};

use super::blocking::{blocking, sentence};
use super::record::Record;
use super::{Shared, containers, replica};
use crate::lifecycle::Actual;
use crate::roster::Entry;

/// How many bundles are looked at at once.
const AT_ONCE: usize = 16;

/// Takes over all there is, and begins each replica's task.
pub(super) async fn reopen(shared: &Arc<Shared>) -> Result<(), EngineError> {
    let bundles = fs::read_dir(&shared.replicas_dir).map_err(|error| {
        let path = shared.replicas_dir.display();
        EngineError::Failed(format!("cannot read the folder {path}: {error}"))
    })?;
    let found = bundles.flatten().filter_map(|bundle| {
        let id = bundle.file_name().to_str()?.parse::<ReplicaId>().ok();
        if id.is_none() {
            tracing::warn!("{} is no replica of this node", bundle.path().display());
        }
        id
    });
    let found: Vec<ReplicaId> = found.collect();
    let attached = shared.network.attached();
    let attached = attached.map_err(|error| EngineError::Failed(sentence(&error)))?;

    stream::iter(found)
        .for_each_concurrent(AT_ONCE, |id| {
            let name = id.to_string();
            let address = attached.iter().find(|(of, _)| *of == name);
            let address = address.map(|(_, address)| *address);
            async move {
                if let Some(entry) = take_over(shared, id, address).await {
                    shared.roster.adopt(id, entry);
                    // What changed since it was asked was told to nobody.
                    replica::look(shared, id);
                    tokio::spawn(replica::run(Arc::clone(shared), id));
                }
            }
        })
        .await;

    for (name, _) in attached {
        let known = name.parse().ok().and_then(|id| shared.roster.get(id));
        if known.is_none()
            && let Err(error) = shared.network.detach(&name).await
        {
            tracing::warn!("cannot take {name} from the network: {}", sentence(&error));
        }
    }
    Ok(())
}

/// Takes one bundle over; `None`: it was half made, and is cleared away.
async fn take_over(
    shared: &Arc<Shared>,
    id: ReplicaId,
    address: Option<Ipv4Addr>,
) -> Option<Entry> {
    let bundle = shared.bundle(id);
    let record = match Record::read(&bundle) {
        Ok(record) => record,
        Err(error) => {
            tracing::warn!("cannot read the record of replica {id}: {error}");
            None
        }
    };
    // The shim writes its number when it has prepared all: what has none was never ordered to run.
    let prepared = Bundle::new(&bundle).pid().exists();
    let Some(record) = record.filter(|_| prepared) else {
        destroy(id, &bundle).await;
        return None;
    };
    let mut entry = Entry::new(record.service, record.revision, record.generation);
    entry.address = address.map(Into::into);
    if let Err(why) = find(shared, id, &mut entry).await {
        replica::lose(&mut entry, why);
        destroy(id, &bundle).await;
    }
    Some(entry)
}

/// Finds out how a replica is. The error says why it is lost.
async fn find(shared: &Arc<Shared>, id: ReplicaId, entry: &mut Entry) -> Result<(), String> {
    let shim = replica::connect(shared, id).await;
    let shim = shim.map_err(|trouble| trouble.message)?;
    if entry.address.is_none() {
        return Err(format!("replica {id} has lost its network"));
    }
    let state = shim.state().unwrap_or_default();
    entry.containers = containers(&state);
    entry.run = state.run;
    entry.actual = if state.running {
        running_or_frozen(&shared.cgroup(id))?
    } else {
        Actual::Stopped
    };
    Ok(())
}

fn running_or_frozen(cgroup: &str) -> Result<Actual, String> {
    let frozen = freezer::is_frozen(cgroup).map_err(|error| error.sentence())?;
    if frozen {
        return Ok(Actual::Frozen);
    }
    // The last node may have ended in the midst of freezing it.
    freezer::thaw(cgroup).map_err(|error| error.sentence())?;
    Ok(Actual::Running)
}

async fn destroy(id: ReplicaId, bundle: &Path) {
    let bundle = bundle.to_owned();
    if let Err(errors) = blocking(move || sandbox::destroy(&bundle)).await {
        for error in errors {
            tracing::warn!("while clearing replica {id} away: {}", error.sentence());
        }
    }
}
