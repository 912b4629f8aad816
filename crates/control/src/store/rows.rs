//! The rows of the store, and every statement that reads or writes them.

use std::collections::BTreeSet;
use std::sync::Arc;

use layby_model::deadline;
use layby_model::engine::RunSpec;
use layby_model::share::Share;
use layby_model::spec::ServiceSpec;
use layby_model::{RevisionId, ServiceId, Wakefulness};
use rusqlite::{Connection, OptionalExtension, Transaction, params};

use super::{Store, StoreError, history, jobs};
use crate::api::types::Failure;

/// So many revisions of a service are kept beside the live one and the target.
const KEPT_REVISIONS: u32 = 50;

/// How many virtual addresses the node's range holds (a /20, but its first and last).
const ADDRESSES: u32 = 4094;

/// What should be true of one service.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Row {
    /// Which.
    pub(crate) service: ServiceId,
    /// It may have replicas.
    pub(crate) enabled: bool,
    /// It is on its way out: when its last replica is gone, so is this row.
    pub(crate) removing: bool,
    /// Who takes it down.
    pub(crate) removed_by: Option<String>,
    /// The revision deployed last.
    pub(crate) target: Revision,
    /// The revision that serves.
    pub(crate) live: Option<Revision>,
    /// The target will not go live.
    pub(crate) target_failed: bool,
    /// So many attempts of the target failed; it gets another one unless `target_failed`.
    pub(crate) failed_attempts: u32,
    /// The target is a canary, which gets this share of the requests.
    pub(crate) share: Option<Share>,
    /// How long the last rollouts took to be ready, in milliseconds, the newest last.
    pub(crate) boots_ms: Vec<u64>,
    /// Replicas while awake.
    pub(crate) replicas: u32,
    /// What `layby scale` said of them; `None`: they are as many as the revision says.
    pub(crate) scale: Option<u32>,
    /// How awake it was wanted when that was last written.
    pub(crate) wanted: Wakefulness,
    /// Counts up with every change that a user makes; greater than that of any row deleted before.
    pub(crate) generation: u64,
    /// Why the last failed target, or the last attempt of this one, failed; gone when one goes live.
    pub(crate) last_failure: Option<Failure>,
    /// The number of its virtual address in the node's range, from 1 on; `None`: none was left when it came.
    pub(crate) address: Option<u32>,
}

/// One revision, as it was deployed.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Revision {
    /// Its number.
    pub(crate) id: RevisionId,
    /// What it runs.
    pub(crate) spec: Arc<RunSpec>,
    /// How long its rollout may take while nothing of it moves, in milliseconds: said, or learned when it was made.
    pub(crate) deadline_ms: u64,
    /// Why it was made; `None`: an older version of Layby made it, which did not note it.
    pub(crate) cause: Option<String>,
    /// When it was made (RFC 3339); those that were made together have the same moment.
    pub(crate) made_at: String,
    /// Who made it; `None`: an older version of Layby did not note it.
    pub(crate) made_by: Option<String>,
}

/// A revision to deploy.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct NewRevision {
    /// Of which service.
    pub(crate) service: ServiceId,
    /// What it runs.
    pub(crate) spec: RunSpec,
    /// Why it is made, in words that follow "revision n: ".
    pub(crate) cause: Option<String>,
    /// What `layby scale` said holds no longer: the manifest has another number of replicas than before.
    pub(crate) unscale: bool,
    /// Whoever makes it: a user, or the token of a push.
    pub(crate) made_by: String,
    /// It enables a service that somebody has disabled; `false`: that stays as it is.
    pub(crate) enables: bool,
    /// It is made even where nothing differs from what is there.
    pub(crate) anew: bool,
    /// The part of the requests that it is to be tried out on, beside what is live; `None`: it goes live.
    pub(crate) share: Option<Share>,
}

/// A decision of a driver; it is written only if the row's generation is still the one it was made with.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Decision {
    /// The target serves from now on, awake.
    GoLive {
        /// The target.
        revision: RevisionId,
        /// How long it took to be ready, in milliseconds; `None`: that was not seen from its beginning.
        boot_ms: Option<u64>,
    },
    /// An attempt of the target failed; it gets another one.
    Retry {
        /// The target.
        revision: RevisionId,
        /// Why.
        failure: Box<Failure>,
    },
    /// The target will not serve; this many replicas are wanted again.
    Fail {
        /// The target.
        revision: RevisionId,
        /// Why.
        failure: Box<Failure>,
        /// The live revision's number of replicas.
        replicas: u32,
    },
    /// How awake the service is wanted.
    Wakefulness(Wakefulness),
}

impl Row {
    /// Who called the target off, if somebody did.
    pub(crate) fn aborted_by(&self) -> Option<&str> {
        let failure = self.last_failure.as_ref().filter(|_| self.target_failed);
        failure?.aborted_by.as_deref()
    }
}

impl Store {
    /// Counts this start of the control plane; greater than all before.
    pub(crate) async fn begin_life(&self) -> Result<u32, StoreError> {
        self.call(|db| {
            db.query_row(
                "UPDATE meta SET value = value + 1 WHERE key = 'life' RETURNING value",
                [],
                |row| row.get(0),
            )
        })
        .await
    }

    /// Every service.
    pub(crate) async fn services(&self) -> Result<Vec<Row>, StoreError> {
        self.call(|db| services(db)).await
    }

    /// One service.
    pub(crate) async fn service(&self, id: &ServiceId) -> Result<Option<Row>, StoreError> {
        let id = id.clone();
        self.call(move |db| read(db, &id)).await
    }

    /// The digests of the images of every revision that is kept.
    pub(crate) async fn images(&self) -> Result<Vec<String>, StoreError> {
        self.call(|db| images(db)).await
    }

    /// Forgets all but the newest `keep` of each service's earlier revisions that were made before some time; never the
    /// live one or the target. Gives what was forgotten, as `app/service revision n`, and the images of those that are
    /// left. With `dry_run`, nothing is changed.
    pub(crate) async fn prune_revisions(
        &self,
        keep: Option<u32>,
        before: Option<jiff::Timestamp>,
        dry_run: bool,
    ) -> Result<(Vec<String>, Vec<String>), StoreError> {
        self.call(move |db| {
            let tx = db.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)?;
            let mut gone = Vec::new();
            if let Some(keep) = keep {
                let before = before.map(|at| at.to_string());
                let mut forget = tx.prepare(
                    "DELETE FROM revisions WHERE (app, service, revision) IN (
                         SELECT app, service, revision FROM (
                             SELECT r.app, r.service, r.revision, r.created_at,
                                 row_number() OVER (PARTITION BY r.app, r.service ORDER BY r.revision DESC) AS place
                             FROM revisions AS r JOIN services AS s USING (app, service)
                             WHERE r.revision IS NOT s.live AND r.revision <> s.target)
                         WHERE place > ?1 AND (?2 IS NULL OR created_at < ?2))
                     RETURNING app || '/' || service || ' revision ' || revision",
                )?;
                gone = forget
                    .query_map(params![keep, before], |row| row.get(0))?
                    .collect::<rusqlite::Result<_>>()?;
            }
            let images = images(&tx)?;
            match dry_run {
                true => tx.rollback()?,
                false => tx.commit()?,
            }
            Ok((gone, images))
        })
        .await
    }

    /// Makes new revisions the targets of their services, and new jobs, all or none. Gives the rows of the services.
    pub(crate) async fn deploy(&self, revisions: Vec<NewRevision>) -> Result<Vec<Row>, StoreError> {
        let now = crate::clock::wall().to_string();
        self.call(move |db| {
            let tx = db.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)?;
            let mut rows = Vec::new();
            for revision in &revisions {
                if revision.spec.service.job.is_some() {
                    jobs::insert_job(&tx, revision)?;
                    continue;
                }
                insert_revision(&tx, revision, &now)?;
                rows.extend(read(&tx, &revision.service)?);
            }
            tx.commit()?;
            Ok(rows)
        })
        .await
    }

    /// Writes a decision made with a row of this generation and number of replicas. `false`: the row has changed since; look
    /// again.
    pub(crate) async fn decide(
        &self,
        id: &ServiceId,
        (generation, replicas): (u64, u32),
        decision: Decision,
    ) -> Result<bool, StoreError> {
        let id = id.clone();
        self.call(move |db| {
            let tx = db.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)?;
            let written = write_decision(&tx, &id, (generation, replicas), &decision)?;
            tx.commit()?;
            Ok(written)
        })
        .await
    }

    /// Switches services on or off, all at once, each with so many replicas if a number is given. Gives the rows of those for
    /// which that is a change; one on its way out is left alone.
    pub(crate) async fn switch(
        &self,
        ids: Vec<(ServiceId, Option<u32>)>,
        enabled: bool,
    ) -> Result<Vec<Row>, StoreError> {
        self.call(move |db| {
            let tx = db.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)?;
            let mut rows = Vec::new();
            for (id, replicas) in &ids {
                let generation = next_generation(&tx)?;
                let changed = tx.execute(
                    "UPDATE services SET enabled = ?3, generation = ?4, replicas = ifnull(?5, replicas)
                     WHERE app = ?1 AND service = ?2 AND enabled <> ?3 AND NOT removing",
                    params![
                        id.app.as_str(),
                        id.service.as_str(),
                        enabled,
                        generation,
                        replicas
                    ],
                )?;
                if changed == 1 {
                    rows.extend(read(&tx, id)?);
                }
            }
            tx.commit()?;
            Ok(rows)
        })
        .await
    }

    /// Marks a service as on its way out by somebody's word, and gives the row as it then is.
    pub(crate) async fn begin_removal(
        &self,
        id: &ServiceId,
        by: &str,
    ) -> Result<Option<Row>, StoreError> {
        let (id, by) = (id.clone(), by.to_owned());
        self.call(move |db| {
            let tx = db.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)?;
            let generation = next_generation(&tx)?;
            tx.execute(
                "UPDATE services SET enabled = 0, removing = 1, generation = ?3, removed_by = ?4
                 WHERE app = ?1 AND service = ?2",
                params![id.app.as_str(), id.service.as_str(), generation, by],
            )?;
            let row = read(&tx, &id)?;
            tx.commit()?;
            Ok(row)
        })
        .await
    }

    /// Forgets a service and its revisions.
    pub(crate) async fn remove(&self, id: &ServiceId) -> Result<(), StoreError> {
        let id = id.clone();
        self.call(move |db| {
            db.execute(
                "DELETE FROM services WHERE app = ?1 AND service = ?2",
                params![id.app.as_str(), id.service.as_str()],
            )
            .map(|_| ())
        })
        .await
    }
}

fn images(db: &Connection) -> rusqlite::Result<Vec<String>> {
    db.prepare_cached(&format!(
        "SELECT DISTINCT image.value FROM revisions, json_each(revisions.spec, '$.images') AS image UNION {}",
        jobs::IMAGES
    ))?
    .query_map([], |row| row.get(0))?
    .collect()
}

fn insert_revision(tx: &Transaction<'_>, new: &NewRevision, now: &str) -> rusqlite::Result<()> {
    let (app, service) = (new.service.app.as_str(), new.service.service.as_str());
    let spec = serde_json::to_string(&new.spec).map_err(unreadable)?;
    let newest: Option<u32> = tx
        .query_row(
            "SELECT target FROM services WHERE app = ?1 AND service = ?2",
            [app, service],
            |row| row.get(0),
        )
        .optional()?;
    let revision = newest.unwrap_or(0) + 1;
    let before = read(tx, &new.service)?;
    let enabled = enabled_after(before.as_ref(), &new.spec.service, new.enables);
    let on = before.as_ref().filter(|row| row.enabled);
    let replicas = new.spec.service.replicas_beside(on.map(|row| row.replicas));
    let share = new.share.as_ref().map(serde_json::to_string).transpose();
    let share = share.map_err(unreadable)?;
    let address = match newest {
        Some(_) => None, // it has one, and keeps it
        None => next_address(tx)?,
    };
    tx.execute(
        "INSERT INTO services
             (app, service, enabled, removing, target, live, target_failed, replicas, wanted, generation, address)
         VALUES (?1, ?2, ?8, 0, ?3, NULL, 0, ?4, 'awake', ?5, ?6)
         ON CONFLICT DO UPDATE SET target = ?3, target_failed = 0, failed_attempts = 0, share = ?9,
             generation = ?5, enabled = ?8,
             scale = iif(?7, NULL, scale), replicas = coalesce(iif(?7, NULL, scale), ?4)",
        params![
            app,
            service,
            revision,
            replicas.max(1), // what it has when it is enabled
            next_generation(tx)?,
            address,
            new.unscale,
            enabled,
            share
        ],
    )?;
    history::overtake(tx, &new.service, now)?;
    let deadline_ms = deadline::soft_ms(
        new.spec.service.progress_deadline_ms,
        &boots_ms(tx, &new.service)?,
    );
    tx.execute(
        "INSERT INTO revisions (app, service, revision, spec, created_at, deadline_ms, outcome, cause, made_by)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, 'rolling', ?7, ?8)",
        params![
            app,
            service,
            revision,
            spec,
            now,
            i64::try_from(deadline_ms).unwrap_or(i64::MAX),
            new.cause,
            new.made_by
        ],
    )?;
    tx.execute(
        "DELETE FROM revisions WHERE app = ?1 AND service = ?2 AND revision + ?4 < ?3 AND revision IS NOT
             (SELECT live FROM services WHERE app = ?1 AND service = ?2)",
        params![app, service, revision, KEPT_REVISIONS],
    )?;
    Ok(())
}

/// Whether a service is enabled once a revision is made: settings without replicas disable it, those that ask for some
/// again enable it, and otherwise it stays as somebody has switched it.
pub(crate) fn enabled_after(row: Option<&Row>, new: &ServiceSpec, enables: bool) -> bool {
    let wants = new.replicas > 0;
    match row {
        Some(row) if wants == (row.target.spec.service.replicas > 0) => row.enabled || enables,
        Some(_) | None => wants,
    }
}

fn write_decision(
    tx: &Transaction<'_>,
    id: &ServiceId,
    (generation, replicas): (u64, u32),
    decision: &Decision,
) -> rusqlite::Result<bool> {
    let generation = i64::try_from(generation).unwrap_or(i64::MAX);
    let (app, service) = (id.app.as_str(), id.service.as_str());
    // What scales by load changes its number without a generation: as many as were enough then may be too few.
    let row = format!("app = ?1 AND service = ?2 AND generation = ?3 AND replicas = {replicas}");
    let (changed, outcome) = match decision {
        Decision::GoLive { revision, boot_ms } => {
            let mut boots_ms = boots_ms(tx, id)?;
            boot_ms
                .iter()
                .for_each(|boot| deadline::remember(&mut boots_ms, *boot));
            let boots_ms = serde_json::to_string(&boots_ms).map_err(unreadable)?;
            let changed = tx.execute(
                &format!(
                    "UPDATE services SET live = target, wanted = 'awake', last_failure = NULL, failed_attempts = 0,
                         share = NULL, boots_ms = ?5 WHERE {row} AND target = ?4"
                ),
                params![app, service, generation, revision.0, boots_ms],
            )?;
            (changed, Some((revision, "live", None)))
        }
        Decision::Retry { revision, failure } => {
            let failure = serde_json::to_string(failure).map_err(unreadable)?;
            let changed = tx.execute(
                &format!(
                    "UPDATE services SET failed_attempts = failed_attempts + 1, last_failure = ?5
                     WHERE {row} AND target = ?4"
                ),
                params![app, service, generation, revision.0, failure],
            )?;
            (changed, None)
        }
        Decision::Fail {
            revision,
            failure,
            replicas,
        } => {
            let failure = serde_json::to_string(failure).map_err(unreadable)?;
            let changed = tx.execute(
                &format!(
                    "UPDATE services SET target_failed = 1, share = NULL, last_failure = ?5, replicas = ?6 WHERE {row} AND target = ?4"
                ),
                params![app, service, generation, revision.0, failure, replicas],
            )?;
            (changed, Some((revision, "failed", Some(failure))))
        }
        Decision::Wakefulness(wanted) => (
            tx.execute(
                &format!("UPDATE services SET wanted = ?4 WHERE {row}"),
                params![app, service, generation, wanted.to_string()],
            )?,
            None,
        ),
    };
    if let (1, Some((revision, outcome, failure))) = (changed, outcome) {
        history::end(tx, id, *revision, outcome, failure.as_deref())?;
    }
    Ok(changed == 1)
}

/// How long the last rollouts of a service took to be ready.
fn boots_ms(tx: &Transaction<'_>, id: &ServiceId) -> rusqlite::Result<Vec<u64>> {
    let text: String = tx.query_row(
        "SELECT boots_ms FROM services WHERE app = ?1 AND service = ?2",
        [id.app.as_str(), id.service.as_str()],
        |row| row.get(0),
    )?;
    serde_json::from_str(&text).map_err(unreadable)
}

/// Generations are counted for the whole node, so that a service made anew never has an older one than
/// an engine may remember.
pub(super) fn next_generation(tx: &Transaction<'_>) -> rusqlite::Result<i64> {
    tx.query_row(
        "UPDATE meta SET value = value + 1 WHERE key = 'generation' RETURNING value",
        [],
        |row| row.get(0),
    )
}

/// The number of a virtual address that no service has, given as late as can be after it was freed: somebody may still
/// know it by its last owner's name. `None`: all are taken.
fn next_address(tx: &Transaction<'_>) -> rusqlite::Result<Option<u32>> {
    let last: u32 = tx.query_row("SELECT value FROM meta WHERE key = 'address'", [], |row| {
        row.get(0)
    })?;
    let taken: BTreeSet<u32> = tx
        .prepare_cached("SELECT address FROM services WHERE address IS NOT NULL")?
        .query_map([], |row| row.get(0))?
        .collect::<rusqlite::Result<_>>()?;
    let mut candidates = (0..ADDRESSES).map(|step| (last + step) % ADDRESSES + 1);
    let Some(next) = candidates.find(|number| !taken.contains(number)) else {
        return Ok(None);
    };
    tx.execute("UPDATE meta SET value = ?1 WHERE key = 'address'", [next])?;
    Ok(Some(next))
}

/// All services.
pub(super) fn services(db: &Connection) -> rusqlite::Result<Vec<Row>> {
    let names: Vec<(String, String)> = db
        .prepare_cached("SELECT app, service FROM services ORDER BY app, service")?
        .query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?
        .collect::<rusqlite::Result<_>>()?;
    names
        .into_iter()
        .map(|(app, service)| {
            let id = format!("{app}/{service}").parse().map_err(unreadable)?;
            read(db, &id)?.ok_or(rusqlite::Error::QueryReturnedNoRows)
        })
        .collect()
}

pub(super) fn read(db: &Connection, id: &ServiceId) -> rusqlite::Result<Option<Row>> {
    let found = db
        .prepare_cached(
            "SELECT enabled, removing, target, live, target_failed, replicas, wanted, generation, last_failure, address,
                 scale, failed_attempts, share, boots_ms, removed_by
             FROM services WHERE app = ?1 AND service = ?2",
        )?
        .query_row([id.app.as_str(), id.service.as_str()], |row| {
            let target: u32 = row.get(2)?;
            let live: Option<u32> = row.get(3)?;
            let wanted: String = row.get(6)?;
            let failure: Option<String> = row.get(8)?;
            Ok(Row {
                service: id.clone(),
                enabled: row.get(0)?,
                removing: row.get(1)?,
                removed_by: row.get(14)?,
                target: read_revision(db, id, target)?,
                live: live.map(|live| read_revision(db, id, live)).transpose()?,
                target_failed: row.get(4)?,
                replicas: row.get(5)?,
                wanted: serde_json::from_value(wanted.into()).map_err(unreadable)?,
                generation: row.get::<_, i64>(7)?.unsigned_abs(),
                last_failure: failure
                    .map(|text| serde_json::from_str(&text).map_err(unreadable))
                    .transpose()?,
                address: row.get(9)?,
                scale: row.get(10)?,
                failed_attempts: row.get(11)?,
                share: (row.get::<_, Option<String>>(12)?)
                    .map(|text| serde_json::from_str(&text).map_err(unreadable))
                    .transpose()?,
                boots_ms: serde_json::from_str(&row.get::<_, String>(13)?).map_err(unreadable)?,
            })
        });
    found.optional()
}

fn read_revision(db: &Connection, id: &ServiceId, revision: u32) -> rusqlite::Result<Revision> {
    db.prepare_cached(
        "SELECT spec, deadline_ms, cause, created_at, made_by FROM revisions WHERE app = ?1 AND service = ?2 AND revision = ?3",
    )?
    .query_row(
        params![id.app.as_str(), id.service.as_str(), revision],
        |row| {
            let spec: String = row.get(0)?;
            let deadline_ms: i64 = row.get(1)?;
            Ok(Revision {
                id: RevisionId(revision),
                spec: Arc::new(serde_json::from_str(&spec).map_err(unreadable)?),
                deadline_ms: deadline_ms.unsigned_abs(),
                cause: row.get(2)?,
                made_at: row.get(3)?,
                made_by: row.get(4)?,
            })
        },
    )
}

pub(super) fn unreadable(error: impl std::error::Error + Send + Sync + 'static) -> rusqlite::Error {
    rusqlite::Error::FromSqlConversionFailure(0, rusqlite::types::Type::Text, Box::new(error))
}
