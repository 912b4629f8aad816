//! Secrets and configs in the store, as they are kept: encrypted. Nothing here can open one.

use layby_model::AppName;
use layby_model::engine::RunSpec;
use layby_model::secret::{Scope, SecretRef, ValueKind, refs};
use rusqlite::{Connection, OptionalExtension, Transaction, TransactionBehavior, params};

use super::rows::unreadable;
use super::{Store, StoreError};
use crate::secrets::{Key, Place, kind_text};

/// A version of a value, without it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ValueRow {
    /// Where it stands.
    pub(crate) place: Place,
    /// A manifest brought it.
    pub(crate) declared: bool,
    /// It is there; else only its number is.
    pub(crate) is_kept: bool,
    /// When it was set (RFC 3339).
    pub(crate) created_at: String,
    /// Who set it.
    pub(crate) made_by: String,
}

/// A version to write.
#[derive(Debug, Clone)]
pub(crate) struct SealedValue {
    /// Where it is to stand.
    pub(crate) place: Place,
    /// A manifest brings it.
    pub(crate) declared: bool,
    /// What is written: encrypted for its place.
    pub(crate) sealed: Vec<u8>,
}

impl Store {
    /// Every version that there is or was, without the values: by app, kind, name, and version.
    pub(crate) async fn values(&self) -> Result<Vec<ValueRow>, StoreError> {
        self.call(|db| {
            db.prepare_cached(
                "SELECT app, kind, name, version, declared, sealed IS NOT NULL, created_at, made_by
                 FROM secrets ORDER BY app, kind, name, version",
            )?
            .query_map([], |row| {
                Ok(ValueRow {
                    place: place(row)?,
                    declared: row.get(4)?,
                    is_kept: row.get(5)?,
                    created_at: row.get(6)?,
                    made_by: row.get(7)?,
                })
            })?
            .collect()
        })
        .await
    }

    /// One version, encrypted; `None`: there is none such.
    pub(crate) async fn sealed(&self, place: Place) -> Result<Option<Vec<u8>>, StoreError> {
        self.call(move |db| {
            db.query_row(
                "SELECT sealed FROM secrets WHERE app = ?1 AND kind = ?2 AND name = ?3 AND version = ?4",
                params![place.app, kind_text(place.kind), place.name, place.version],
                |row| row.get(0),
            )
            .optional()
            .map(Option::flatten)
        })
        .await
    }

    /// What shows which key is the right one; `None`: none is needed yet.
    pub(crate) async fn key_proof(&self) -> Result<Option<Vec<u8>>, StoreError> {
        self.call(|db| {
            db.query_row("SELECT proof FROM master_key", [], |row| row.get(0))
                .optional()
        })
        .await
    }

    /// Writes versions, all or none, and the proof of their key.
    pub(crate) async fn add_values(
        &self,
        values: Vec<SealedValue>,
        made_by: &str,
        proof: Vec<u8>,
    ) -> Result<(), StoreError> {
        let now = crate::clock::wall().to_string();
        let made_by = made_by.to_owned();
        self.call(move |db| {
            let tx = db.transaction_with_behavior(TransactionBehavior::Immediate)?;
            tx.execute(
                "INSERT INTO master_key (one, proof) VALUES (1, ?1) ON CONFLICT DO NOTHING",
                [proof],
            )?;
            for value in &values {
                let place = &value.place;
                tx.execute(
                    "INSERT INTO secrets (app, kind, name, version, declared, sealed, created_at, made_by)
                     VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
                    params![
                        place.app,
                        kind_text(place.kind),
                        place.name,
                        place.version,
                        value.declared,
                        value.sealed,
                        now,
                        made_by
                    ],
                )?;
            }
            tx.commit()
        })
        .await
    }

    /// Encrypts all that is kept with another key, all or nothing. `false`: something does not open with the old one,
    /// and nothing was changed.
    pub(crate) async fn rekey(&self, old: Key, new: Key) -> Result<bool, StoreError> {
        self.call(move |db| {
            let tx = db.transaction_with_behavior(TransactionBehavior::Immediate)?;
            let changed = rekey(&tx, &old, &new)?;
            match changed {
                true => tx.commit()?,
                false => tx.rollback()?,
            }
            Ok(changed)
        })
        .await
    }

    /// Forgets the values of some names, and keeps their numbers; which were there.
    pub(crate) async fn forget_values(
        &self,
        app: &str,
        names: Vec<(ValueKind, String)>,
    ) -> Result<Vec<String>, StoreError> {
        let app = app.to_owned();
        self.call(move |db| {
            let tx = db.transaction_with_behavior(TransactionBehavior::Immediate)?;
            let mut gone = Vec::new();
            for (kind, name) in names {
                let emptied = tx.execute(
                    "UPDATE secrets SET sealed = NULL
                     WHERE app = ?1 AND kind = ?2 AND name = ?3 AND sealed IS NOT NULL",
                    params![app, kind_text(kind), name],
                )?;
                if emptied > 0 {
                    gone.push(name);
                }
            }
            drop_numbers(&tx)?;
            tx.commit()?;
            Ok(gone)
        })
        .await
    }

    /// Forgets every value, and which key they had.
    pub(crate) async fn forget_all_values(&self) -> Result<(), StoreError> {
        self.call(|db| {
            let tx = db.transaction_with_behavior(TransactionBehavior::Immediate)?;
            tx.execute("UPDATE secrets SET sealed = NULL", [])?;
            drop_numbers(&tx)?;
            tx.execute("DELETE FROM master_key", [])?;
            tx.commit()
        })
        .await
    }

    /// Forgets versions that no kept revision and no job names and that are not the newest of their names.
    pub(crate) async fn prune_values(&self) -> Result<(), StoreError> {
        self.call(|db| {
            let tx = db.transaction_with_behavior(TransactionBehavior::Immediate)?;
            let named = named(&tx)?;
            let old: Vec<Place> = tx
                .prepare(
                    "SELECT app, kind, name, version FROM secrets AS s WHERE version <
                         (SELECT max(version) FROM secrets WHERE app = s.app AND kind = s.kind AND name = s.name)",
                )?
                .query_map([], place)?
                .collect::<rusqlite::Result<_>>()?;
            let mut forget = tx.prepare(
                "DELETE FROM secrets WHERE app = ?1 AND kind = ?2 AND name = ?3 AND version = ?4",
            )?;
            for place in old.iter().filter(|place| !named.contains(place)) {
                forget.execute(params![
                    place.app,
                    kind_text(place.kind),
                    place.name,
                    place.version
                ])?;
            }
            drop(forget);
            tx.commit()
        })
        .await
    }
}

fn place(row: &rusqlite::Row<'_>) -> rusqlite::Result<Place> {
    let kind: String = row.get(1)?;
    let kind = match kind.as_str() {
        "config" => ValueKind::Config,
        // The table takes no third.
        _ => ValueKind::Secret,
    };
    Ok(Place {
        app: row.get(0)?,
        kind,
        name: row.get(2)?,
        version: row.get(3)?,
    })
}

pub(super) fn rekey(tx: &Transaction<'_>, old: &Key, new: &Key) -> rusqlite::Result<bool> {
    let places: Vec<Place> = tx
        .prepare("SELECT app, kind, name, version FROM secrets WHERE sealed IS NOT NULL")?
        .query_map([], place)?
        .collect::<rusqlite::Result<_>>()?;
    let mut get = tx.prepare(
        "SELECT sealed FROM secrets WHERE app = ?1 AND kind = ?2 AND name = ?3 AND version = ?4",
    )?;
    let mut put = tx.prepare(
        "UPDATE secrets SET sealed = ?5 WHERE app = ?1 AND kind = ?2 AND name = ?3 AND version = ?4",
    )?;
    for place in &places {
        let kind = kind_text(place.kind);
        let row = params![place.app, kind, place.name, place.version];
        let sealed: Vec<u8> = get.query_row(row, |row| row.get(0))?;
        let Ok(value) = old.open(place, &sealed) else {
            return Ok(false);
        };
        let sealed = new.seal(place, value.bytes());
        put.execute(params![place.app, kind, place.name, place.version, sealed])?;
    }
    tx.execute("UPDATE master_key SET proof = ?1", [new.proof()])?;
    Ok(true)
}

/// Of names without a value, only the last number is worth a row.
fn drop_numbers(tx: &Transaction<'_>) -> rusqlite::Result<()> {
    tx.execute(
        "DELETE FROM secrets AS s WHERE sealed IS NULL AND version <
             (SELECT max(version) FROM secrets WHERE app = s.app AND kind = s.kind AND name = s.name)",
        [],
    )
    .map(|_| ())
}

/// All versions that kept revisions, jobs and their runs name.
fn named(db: &Connection) -> rusqlite::Result<Vec<Place>> {
    let mut named = Vec::new();
    let mut specs = db.prepare(
        "SELECT app, spec FROM revisions UNION ALL SELECT app, spec FROM jobs
         UNION ALL SELECT app, spec FROM job_runs WHERE spec IS NOT NULL",
    )?;
    let mut rows = specs.query([])?;
    while let Some(row) = rows.next()? {
        let (app, spec): (String, String) = (row.get(0)?, row.get(1)?);
        let app = AppName::new(&app).map_err(unreadable)?;
        let spec: RunSpec = serde_json::from_str(&spec).map_err(unreadable)?;
        named.extend(refs(&spec.service).filter_map(|secret| Place::of(&app, secret)));
    }
    named.sort_unstable();
    named.dedup();
    Ok(named)
}

impl Place {
    /// What a deployed revision of `app` names; `None`: it names no version.
    pub(crate) fn of(app: &AppName, secret: &SecretRef) -> Option<Self> {
        Some(Self {
            app: match secret.scope? {
                Scope::App => app.to_string(),
                Scope::Node => String::new(),
            },
            kind: secret.kind,
            name: secret.name.clone(),
            version: secret.version?,
        })
    }
}
