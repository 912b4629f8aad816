//! The networks that apps share.

use std::collections::BTreeSet;

use rusqlite::{Row as SqlRow, params};

use super::{Store, StoreError};

/// A network of the node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Network {
    /// Its name, as manifests give it.
    pub(crate) name: String,
    /// The apps that may join; none: any.
    pub(crate) apps: BTreeSet<String>,
    /// Who made it.
    pub(crate) made_by: String,
    /// When, in milliseconds since 1970.
    pub(crate) created_ms: i64,
}

impl Store {
    /// All of them, by name.
    pub(crate) async fn networks(&self) -> Result<Vec<Network>, StoreError> {
        self.call(|db| {
            let text = "SELECT name, apps, made_by, created_ms FROM networks ORDER BY name";
            db.prepare_cached(text)?.query_map([], network)?.collect()
        })
        .await
    }

    /// Makes one; of one that is there, only who may join is changed. `false`: there are `most` of them already.
    pub(crate) async fn set_network(
        &self,
        network: Network,
        most: u32,
    ) -> Result<bool, StoreError> {
        self.call(move |db| {
            let apps: Vec<&String> = network.apps.iter().collect();
            let apps = serde_json::to_string(&apps).unwrap_or_default();
            let changed = db.execute(
                "INSERT INTO networks (name, apps, made_by, created_ms) SELECT ?1, ?2, ?3, ?4
                 WHERE (SELECT count(*) FROM networks WHERE name <> ?1) < ?5
                 ON CONFLICT (name) DO UPDATE SET apps = excluded.apps",
                params![
                    network.name,
                    apps,
                    network.made_by,
                    network.created_ms,
                    most
                ],
            )?;
            Ok(changed == 1)
        })
        .await
    }

    /// Removes one; one that is not there is fine.
    pub(crate) async fn remove_network(&self, name: String) -> Result<(), StoreError> {
        self.call(move |db| {
            db.execute("DELETE FROM networks WHERE name = ?1", [name])?;
            Ok(())
        })
        .await
    }
}

fn network(row: &SqlRow<'_>) -> rusqlite::Result<Network> {
    let apps: String = row.get(1)?;
    Ok(Network {
        name: row.get(0)?,
        // What cannot be read lets nobody join whom it is not for.
        apps: serde_json::from_str(&apps).unwrap_or_else(|_| BTreeSet::from([String::new()])),
        made_by: row.get(2)?,
        created_ms: row.get(3)?,
    })
}
