//! What a start finds: every bundle is taken over, or cleared away.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::net::Ipv4Addr;
use std::path::Path;
use std::sync::Arc;

use futures_util::{StreamExt, stream};
use layby_model::engine::EngineError;
use layby_model::options::NetworkMode;
use layby_model::{ReplicaId, error_chain};
use layby_runtime::{Bundle, freezer, sandbox};

use super::blocking::blocking;
use super::record::{HasEnded, Record};
use super::{Shared, containers, ended, replica};
use crate::lifecycle::Actual;
use crate::roster::Entry;

/// How many bundles are looked at at once.
const AT_ONCE: usize = 16;

/// A bundle that was found.
pub(super) struct Found {
    id: ReplicaId,
    /// `None`: it is half made.
    record: Option<Record>,
}

/// Looks at every bundle, and changes nothing. Blocks.
///
/// # Errors
/// [`EngineError::Failed`] if there is one that cannot be read, or that another version of Layby made. Its containers
/// may run and serve: they are not this node's to end.
pub(super) fn survey(replicas_dir: &Path) -> Result<Vec<Found>, EngineError> {
    let explain = |error: io::Error| {
        let path = replicas_dir.display();
        EngineError::Failed(format!("cannot read the folder {path}: {error}"))
    };
    let mut found = Vec::new();
    for entry in fs::read_dir(replicas_dir).map_err(explain)? {
        let bundle = entry.map_err(explain)?.path();
        let name = bundle.file_name().and_then(|name| name.to_str());
        let Some(id) = name.and_then(|name| name.parse::<ReplicaId>().ok()) else {
            tracing::warn!("{} is no replica of this node", bundle.display());
            continue;
        };
        let record = Record::read(&bundle).map_err(|error| {
            let path = bundle.display();
            let todo = match error.kind() {
                io::ErrorKind::Unsupported => {
                    "start the version of Layby that made it, or end it there with \"layby node stop --all\""
                }
                _ => "see to it that this can be read, and start again",
            };
            EngineError::Failed(format!(
                "the replica in {path} cannot be taken over: {error}: {todo}"
            ))
        })?;
        // The shim writes its number when it has prepared all: what has none was never ordered to run. But of one that
        // ended by itself nothing else may be left.
        let prepared = Bundle::new(&bundle).pid().exists();
        found.push(Found {
            id,
            record: record.filter(|record| prepared || record.ended.is_some()),
        });
    }
    Ok(found)
}

/// The apps of what was found.
pub(super) fn apps(found: &[Found]) -> BTreeSet<String> {
    let records = found.iter().filter_map(|found| found.record.as_ref());
    records
        .map(|record| record.service.app.to_string())
        .collect()
}

/// Takes over what was found, and begins each replica's task.
pub(super) async fn reopen(shared: &Arc<Shared>, found: Vec<Found>) -> Result<(), EngineError> {
    let attached = shared.network.attached();
    stream::iter(found)
        .for_each_concurrent(AT_ONCE, |Found { id, record }| {
            let name = id.to_string();
            let address = attached.iter().find(|(of, _)| *of == name);
            let network = record.as_ref().map(|record| record.network);
            let address = match network.unwrap_or_default() {
                NetworkMode::Own => address.map(|(_, address)| *address),
                NetworkMode::None | NetworkMode::Host => Some(Ipv4Addr::LOCALHOST),
            };
            async move {
                if let Some(entry) = take_over(shared, id, record, address).await {
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
            tracing::warn!(
                "cannot take {name} from the network: {}",
                error_chain(&error)
            );
        }
    }
    Ok(())
}

/// Takes one bundle over; `None`: it was half made, and is cleared away.
async fn take_over(
    shared: &Arc<Shared>,
    id: ReplicaId,
    record: Option<Record>,
    address: Option<Ipv4Addr>,
) -> Option<Entry> {
    let bundle = shared.bundle(id);
    let Some(record) = record else {
        destroy(id, &bundle).await;
        return None;
    };
    let mut entry = Entry::new(record.service, record.revision, record.generation);
    entry.address = address.map(Into::into);
    entry.volumes = record.volumes;
    let name = id.to_string();
    shared.network.set_name_servers(&name, record.name_servers);
    if let Err(why) = find(shared, id, &mut entry).await {
        // One that ended by itself needs no shim to lie there; its task clears the rest away.
        let Some(HasEnded {
            end,
            in_a_row,
            containers,
            init,
        }) = record.ended
        else {
            replica::lose(&mut entry, why);
            destroy(id, &bundle).await;
            return Some(entry);
        };
        shared.set_shim(id, None);
        entry.actual = Actual::Stopped;
        entry.containers = containers;
        entry.init = init;
        entry.ended = Some(end);
        entry.ended_in_a_row = in_a_row;
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
    entry.containers = containers(&state.containers);
    entry.init = containers(&state.init);
    entry.ended = ended(&state);
    entry.ended_in_a_row = state.ended_in_a_row;
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
