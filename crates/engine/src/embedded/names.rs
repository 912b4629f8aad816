//! Names: how those that control publishes reach the network.

use std::sync::{Arc, Weak};
use std::time::Duration;

use layby_model::error_chain;
use layby_model::route::NameTable;
use tokio::sync::watch;

use super::Shared;

/// From one try to bring names into force to the next.
const AGAIN: Duration = Duration::from_secs(1);

/// Brings each table of names that is sent into force, as long as the engine is there and somebody may send any. The
/// value that the channel began with is none: what was in force before stays so.
pub(super) async fn follow(engine: Weak<Shared>, mut tables: watch::Receiver<Arc<NameTable>>) {
    while tables.changed().await.is_ok() {
        loop {
            let (names, aliases, datagrams) = {
                let table = tables.borrow_and_update();
                (names(&table), aliases(&table), table.datagrams.clone())
            };
            let Some(shared) = engine.upgrade() else {
                return;
            };
            shared.network.set_aliases(aliases).await;
            shared.network.set_datagrams(datagrams).await;
            let Err(error) = shared.network.set_names(names).await else {
                // The next names do not wait for it.
                tokio::spawn(remove_unused(shared));
                break;
            };
            drop(shared);
            tracing::warn!(
                "names are not up to date, trying again: {}",
                error_chain(&error)
            );
            tokio::time::sleep(AGAIN).await;
        }
    }
}

async fn remove_unused(shared: Arc<Shared>) {
    if let Err(error) = shared.network.remove_unused().await {
        tracing::warn!("while the network was tidied: {}", error_chain(&error));
    }
}

fn names(table: &NameTable) -> layby_net::AppNames {
    table.apps.clone()
}

fn aliases(table: &NameTable) -> layby_net::AppAliases {
    table.elsewhere.clone()
}
