//! The rows of jobs and of runs, and every statement that reads or writes them.

use std::collections::BTreeMap;
use std::sync::Arc;

use layby_model::engine::RunSpec;
use layby_model::job::{AttemptEnd, Outcome, RunId, Stop};
use layby_model::replica::Exit;
use layby_model::{AppName, ReplicaId, ServiceId};
use rusqlite::types::Type;
use rusqlite::{Connection, OptionalExtension, Transaction, params};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::rows::unreadable;
use super::{NewRevision, Store, StoreError};
use crate::clock::wall_ms;

/// So many ended runs of a service are kept: no manifest says how many.
const KEPT_OF_SERVICE: u32 = 20;

/// A job with its runs; or the runs of a service (`layby run`), with no job.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Shelf {
    /// The job.
    pub(crate) job: Option<JobRow>,
    /// The runs, the oldest first.
    pub(crate) runs: Vec<RunRow>,
}

/// A job as it was deployed.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct JobRow {
    /// What it runs.
    pub(crate) spec: Arc<RunSpec>,
    /// It does not run until it is resumed.
    pub(crate) suspended: bool,
    /// It is on its way out.
    pub(crate) removing: bool,
    /// Who takes it down.
    pub(crate) removed_by: Option<String>,
    /// It is to run once, and has not yet.
    pub(crate) pending: bool,
    /// Due times up to this moment were seen to, in milliseconds since 1970.
    pub(crate) seen_ms: u64,
    /// Who deployed it.
    pub(crate) made_by: String,
    /// When.
    pub(crate) made_ms: u64,
}

/// One run.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct RunRow {
    /// Its number.
    pub(crate) run: RunId,
    /// It is of a service.
    pub(crate) of_service: bool,
    /// What it runs; `None` once it is over.
    pub(crate) spec: Option<Arc<RunSpec>>,
    /// Why it was made.
    pub(crate) cause: Cause,
    /// By whom.
    pub(crate) made_by: String,
    /// The moment of the schedule that it is for.
    pub(crate) due_ms: Option<u64>,
    /// The command, where it is not the job's own.
    pub(crate) command: Option<Vec<String>>,
    /// Somebody is to be at its other end.
    pub(crate) held: bool,
    /// When it was made.
    pub(crate) made_ms: u64,
    /// Why it is to end early.
    pub(crate) stopping: Option<Stop>,
    /// Who said so.
    pub(crate) stopped_by: Option<String>,
    /// When it was over.
    pub(crate) ended_ms: Option<u64>,
    /// What came of it.
    pub(crate) outcome: Option<Outcome>,
    /// Its attempts, the oldest first.
    pub(crate) attempts: Vec<AttemptRow>,
}

/// Why a run was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Cause {
    /// Its job was due.
    Schedule,
    /// Its job was deployed.
    Deploy,
    /// Somebody said so.
    Command,
}

/// One attempt of a run.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct AttemptRow {
    /// Its replica.
    pub(crate) replica: ReplicaId,
    /// When it was made.
    pub(crate) made_ms: u64,
    /// The engine has taken the order for it.
    pub(crate) launched: bool,
    /// Its number, in an indexed job.
    pub(crate) number: Option<u32>,
    /// How it ended.
    pub(crate) end: Option<EndRow>,
}

/// How an attempt ended.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct EndRow {
    /// When that was seen.
    pub(crate) ended_ms: u64,
    /// Its exit; `None`: it never ran, or nobody knows.
    pub(crate) exit: Option<Exit>,
    /// No further attempt can end in another way.
    pub(crate) hopeless: bool,
    /// Why it did not run, or not to its end.
    pub(crate) message: Option<String>,
}

impl EndRow {
    /// What it means for the run.
    pub(crate) fn end(&self) -> AttemptEnd {
        match self.exit {
            Some(Exit { code: 0, .. }) if self.message.is_none() => AttemptEnd::Well,
            _ if self.hopeless => AttemptEnd::Hopelessly,
            _ => AttemptEnd::Badly,
        }
    }
}

/// A run to make.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct NewRun {
    /// Of which job or service.
    pub(crate) of: ServiceId,
    /// It is of a service.
    pub(crate) of_service: bool,
    /// What it runs.
    pub(crate) spec: Arc<RunSpec>,
    /// Why.
    pub(crate) cause: Cause,
    /// By whom.
    pub(crate) made_by: String,
    /// The moment of the schedule that it is for: due times up to it are seen to.
    pub(crate) due_ms: Option<u64>,
    /// The command, where it is not the job's own.
    pub(crate) command: Option<Vec<String>>,
    /// Somebody is to be at its other end.
    pub(crate) held: bool,
}

impl Store {
    /// Every job, and every service that has runs.
    pub(crate) async fn shelves(&self) -> Result<BTreeMap<ServiceId, Shelf>, StoreError> {
        self.call(|db| shelves(db)).await
    }

    /// One of them; empty if there is none.
    pub(crate) async fn shelf(&self, id: &ServiceId) -> Result<Shelf, StoreError> {
        let id = id.clone();
        self.call(move |db| read(db, &id)).await
    }

    /// What the jobs run, by their names; those on their way out too.
    pub(crate) async fn jobs(&self) -> Result<BTreeMap<ServiceId, JobRow>, StoreError> {
        let shelves = self.shelves().await?.into_iter();
        Ok(shelves
            .filter_map(|(id, shelf)| Some((id, shelf.job?)))
            .collect())
    }

    /// The newest generation that anything was given: no order for a job was of a newer one.
    pub(crate) async fn generation(&self) -> Result<u64, StoreError> {
        self.call(|db| {
            let value: i64 = db.query_row(
                "SELECT value FROM meta WHERE key = 'generation'",
                [],
                |row| row.get(0),
            )?;
            Ok(value.unsigned_abs())
        })
        .await
    }

    /// Makes a run.
    pub(crate) async fn make_run(&self, new: NewRun) -> Result<RunId, StoreError> {
        let now_ms = wall_ms();
        self.call(move |db| {
            let tx = db.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)?;
            let run = insert_run(&tx, &new, now_ms)?;
            tx.commit()?;
            Ok(run)
        })
        .await
    }

    /// Due times of a job up to `seen_ms` were seen to.
    pub(crate) async fn see_due(&self, id: &ServiceId, seen_ms: u64) -> Result<(), StoreError> {
        self.change_job(
            id,
            "UPDATE jobs SET seen_ms = ?3 WHERE app = ?1 AND job = ?2",
            seen_ms,
        )
        .await
    }

    /// Suspends a job, or resumes it: then what was due meanwhile is not made up. `now_ms`: when.
    pub(crate) async fn suspend(&self, id: &ServiceId, suspend: bool) -> Result<(), StoreError> {
        let statement = match suspend {
            true => "UPDATE jobs SET suspended = 1, seen_ms = ?3 WHERE app = ?1 AND job = ?2",
            false => "UPDATE jobs SET suspended = 0, seen_ms = ?3 WHERE app = ?1 AND job = ?2",
        };
        self.change_job(id, statement, wall_ms()).await
    }

    async fn change_job(
        &self,
        id: &ServiceId,
        statement: &'static str,
        value: u64,
    ) -> Result<(), StoreError> {
        let id = id.clone();
        self.call(move |db| {
            db.execute(
                statement,
                params![id.app.as_str(), id.service.as_str(), int(value)],
            )
            .map(drop)
        })
        .await
    }

    /// Marks jobs of an app (one, or all) as on their way out, and ends the runs of its services.
    pub(crate) async fn begin_job_removal(
        &self,
        app: &AppName,
        only: Option<&ServiceId>,
        by: &str,
    ) -> Result<(), StoreError> {
        let (app, only) = (app.clone(), only.map(|id| id.service.to_string()));
        let by = by.to_owned();
        self.call(move |db| {
            let tx = db.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)?;
            tx.execute(
                "UPDATE jobs SET removing = 1, removed_by = ?3 WHERE app = ?1 AND (?2 IS NULL OR job = ?2)",
                params![app.as_str(), only, by],
            )?;
            tx.execute(
                "UPDATE job_runs SET stopping = ?3
                 WHERE app = ?1 AND (?2 IS NULL OR job = ?2) AND ended_ms IS NULL AND stopping IS NULL",
                params![app.as_str(), only, text(&Stop::Removed)?],
            )?;
            tx.commit()
        })
        .await
    }

    /// Forgets a job or a service with all its runs.
    pub(crate) async fn remove_shelf(&self, id: &ServiceId) -> Result<(), StoreError> {
        let id = id.clone();
        self.call(move |db| {
            let tx = db.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)?;
            for table in ["jobs", "job_runs", "job_numbers"] {
                tx.execute(
                    &format!("DELETE FROM {table} WHERE app = ?1 AND job = ?2"),
                    [id.app.as_str(), id.service.as_str()],
                )?;
            }
            tx.commit()
        })
        .await
    }

    /// Notes an attempt that is about to be made.
    pub(crate) async fn begin_attempt(
        &self,
        id: &ServiceId,
        run: RunId,
        replica: ReplicaId,
        number: Option<u32>,
    ) -> Result<(), StoreError> {
        let (id, now_ms) = (id.clone(), wall_ms());
        self.call(move |db| {
            db.execute(
                "INSERT INTO job_attempts (replica, app, job, run, made_ms, number) VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
                params![
                    replica.to_string(),
                    id.app.as_str(),
                    id.service.as_str(),
                    run.0,
                    int(now_ms),
                    number
                ],
            )
            .map(drop)
        })
        .await
    }

    /// The engine has taken the order for an attempt.
    pub(crate) async fn launch_attempt(&self, replica: ReplicaId) -> Result<(), StoreError> {
        self.call(move |db| {
            db.execute(
                "UPDATE job_attempts SET launched = 1 WHERE replica = ?1",
                [replica.to_string()],
            )
            .map(drop)
        })
        .await
    }

    /// Writes how an attempt ended.
    pub(crate) async fn end_attempt(
        &self,
        replica: ReplicaId,
        end: EndRow,
    ) -> Result<(), StoreError> {
        self.call(move |db| {
            db.execute(
                "UPDATE job_attempts SET ended_ms = ?2, code = ?3, oom = ?4, hopeless = ?5, message = ?6
                 WHERE replica = ?1",
                params![
                    replica.to_string(),
                    int(end.ended_ms),
                    end.exit.map(|exit| exit.code),
                    end.exit.is_some_and(|exit| exit.oom),
                    end.hopeless,
                    end.message
                ],
            )
            .map(drop)
        })
        .await
    }

    /// Writes that a run is to end early. The first reason stays.
    pub(crate) async fn halt_run(
        &self,
        id: &ServiceId,
        run: RunId,
        stop: Stop,
        by: Option<&str>,
    ) -> Result<(), StoreError> {
        let (id, by) = (id.clone(), by.map(str::to_owned));
        self.call(move |db| {
            db.execute(
                "UPDATE job_runs SET stopping = ?4, stopped_by = ?5
                 WHERE app = ?1 AND job = ?2 AND run = ?3 AND ended_ms IS NULL AND stopping IS NULL",
                params![id.app.as_str(), id.service.as_str(), run.0, text(&stop)?, by],
            )
            .map(drop)
        })
        .await
    }

    /// Writes that a run is over.
    pub(crate) async fn end_run(
        &self,
        id: &ServiceId,
        run: RunId,
        outcome: Outcome,
    ) -> Result<(), StoreError> {
        let (id, now_ms) = (id.clone(), wall_ms());
        self.call(move |db| {
            db.execute(
                "UPDATE job_runs SET spec = NULL, ended_ms = ?4, outcome = ?5 WHERE app = ?1 AND job = ?2 AND run = ?3",
                params![
                    id.app.as_str(),
                    id.service.as_str(),
                    run.0,
                    int(now_ms),
                    text(&outcome)?
                ],
            )
            .map(drop)
        })
        .await
    }

    /// Forgets runs that are over.
    pub(crate) async fn forget_runs(
        &self,
        id: &ServiceId,
        runs: Vec<RunId>,
    ) -> Result<(), StoreError> {
        let id = id.clone();
        self.call(move |db| {
            let tx = db.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)?;
            for run in runs {
                tx.execute(
                    "DELETE FROM job_runs WHERE app = ?1 AND job = ?2 AND run = ?3 AND ended_ms IS NOT NULL",
                    params![id.app.as_str(), id.service.as_str(), run.0],
                )?;
            }
            tx.commit()
        })
        .await
    }
}

impl Shelf {
    /// How many ended runs of either kind are kept.
    pub(crate) fn kept(&self) -> layby_model::job::JobSpec {
        let job = self.job.as_ref();
        let own = job.and_then(|job| job.spec.service.job.clone());
        own.unwrap_or(layby_model::job::JobSpec {
            keep_succeeded: KEPT_OF_SERVICE,
            keep_failed: KEPT_OF_SERVICE,
            ..Default::default()
        })
    }

    /// The run with this number.
    pub(crate) fn run(&self, run: RunId) -> Option<&RunRow> {
        self.runs.iter().find(|row| row.run == run)
    }

    /// The runs that are not over.
    pub(crate) fn active(&self) -> impl Iterator<Item = &RunRow> {
        self.runs.iter().filter(|run| run.ended_ms.is_none())
    }
}

/// Deploys a job: one whose settings have changed runs anew, unless it has a schedule or is suspended. Its row is there
/// already or not.
pub(super) fn insert_job(tx: &Transaction<'_>, new: &NewRevision) -> rusqlite::Result<()> {
    let Some(job) = &new.spec.service.job else {
        return Ok(());
    };
    tx.execute(
        "INSERT INTO jobs (app, job, spec, suspended, pending, seen_ms, made_by, made_ms)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?6)
         ON CONFLICT DO UPDATE SET spec = ?3, suspended = ?4, pending = ?5, seen_ms = ?6, made_by = ?7, made_ms = ?6",
        params![
            new.service.app.as_str(),
            new.service.service.as_str(),
            text(&new.spec)?,
            job.suspended,
            job.schedule.is_none(),
            int(wall_ms()),
            new.made_by
        ],
    )
    .map(drop)
}

/// What runs and may run of jobs: the images of it are in use.
pub(super) const IMAGES: &str =
    "SELECT DISTINCT image.value FROM jobs, json_each(jobs.spec, '$.images') AS image
     UNION SELECT DISTINCT image.value FROM job_runs, json_each(job_runs.spec, '$.images') AS image
     WHERE job_runs.spec IS NOT NULL";

fn insert_run(tx: &Transaction<'_>, new: &NewRun, now_ms: u64) -> rusqlite::Result<RunId> {
    let (app, job) = (new.of.app.as_str(), new.of.service.as_str());
    let run: u32 = tx.query_row(
        "INSERT INTO job_numbers (app, job, run) VALUES (?1, ?2, 1)
         ON CONFLICT DO UPDATE SET run = run + 1 RETURNING run",
        [app, job],
        |row| row.get(0),
    )?;
    tx.execute(
        "INSERT INTO job_runs (app, job, run, of_service, spec, cause, made_by, due_ms, command, held, made_ms)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11)",
        params![
            app,
            job,
            run,
            new.of_service,
            text(&*new.spec)?,
            text(&new.cause)?,
            new.made_by,
            new.due_ms.map(int),
            new.command.as_ref().map(text).transpose()?,
            new.held,
            int(now_ms)
        ],
    )?;
    match new.cause {
        Cause::Schedule => tx.execute(
            "UPDATE jobs SET seen_ms = ?3 WHERE app = ?1 AND job = ?2",
            params![app, job, new.due_ms.map(int)],
        )?,
        Cause::Deploy => tx.execute(
            "UPDATE jobs SET pending = 0 WHERE app = ?1 AND job = ?2",
            [app, job],
        )?,
        Cause::Command => 0,
    };
    Ok(RunId(run))
}

/// All jobs, and all services that have runs.
pub(super) fn shelves(db: &Connection) -> rusqlite::Result<BTreeMap<ServiceId, Shelf>> {
    let names: Vec<(String, String)> = db
        .prepare_cached("SELECT app, job FROM jobs UNION SELECT app, job FROM job_runs")?
        .query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?
        .collect::<rusqlite::Result<_>>()?;
    let mut shelves = BTreeMap::new();
    for (app, job) in names {
        let id: ServiceId = format!("{app}/{job}").parse().map_err(unreadable)?;
        let shelf = read(db, &id)?;
        shelves.insert(id, shelf);
    }
    Ok(shelves)
}

fn read(db: &Connection, id: &ServiceId) -> rusqlite::Result<Shelf> {
    let names = [id.app.as_str(), id.service.as_str()];
    let job = db
        .prepare_cached(
            "SELECT spec, suspended, removing, pending, seen_ms, made_by, made_ms, removed_by FROM jobs WHERE app = ?1 AND job = ?2",
        )?
        .query_row(names, |row| {
            Ok(JobRow {
                spec: Arc::new(of_text(row.get(0)?)?),
                suspended: row.get(1)?,
                removing: row.get(2)?,
                removed_by: row.get(7)?,
                pending: row.get(3)?,
                seen_ms: row.get::<_, i64>(4)?.unsigned_abs(),
                made_by: row.get(5)?,
                made_ms: row.get::<_, i64>(6)?.unsigned_abs(),
            })
        })
        .optional()?;
    let mut runs: Vec<RunRow> = db
        .prepare_cached(
            "SELECT run, of_service, spec, cause, made_by, due_ms, command, held, made_ms, stopping,
                 stopped_by, ended_ms, outcome
             FROM job_runs WHERE app = ?1 AND job = ?2 ORDER BY run",
        )?
        .query_map(names, read_run)?
        .collect::<rusqlite::Result<_>>()?;
    for run in &mut runs {
        run.attempts = db
            .prepare_cached(
                "SELECT replica, made_ms, ended_ms, code, oom, hopeless, message, launched, number
                 FROM job_attempts WHERE app = ?1 AND job = ?2 AND run = ?3 ORDER BY replica",
            )?
            .query_map(params![names[0], names[1], run.run.0], read_attempt)?
            .collect::<rusqlite::Result<_>>()?;
    }
    Ok(Shelf { job, runs })
}

fn read_run(row: &rusqlite::Row<'_>) -> rusqlite::Result<RunRow> {
    let spec: Option<String> = row.get(2)?;
    let command: Option<String> = row.get(6)?;
    let stopping: Option<String> = row.get(9)?;
    let outcome: Option<String> = row.get(12)?;
    Ok(RunRow {
        run: RunId(row.get(0)?),
        of_service: row.get(1)?,
        spec: spec.map(of_text).transpose()?.map(Arc::new),
        cause: of_text(row.get(3)?)?,
        made_by: row.get(4)?,
        due_ms: row.get::<_, Option<i64>>(5)?.map(i64::unsigned_abs),
        command: command.map(of_text).transpose()?,
        held: row.get(7)?,
        made_ms: row.get::<_, i64>(8)?.unsigned_abs(),
        stopping: stopping.map(of_text).transpose()?,
        stopped_by: row.get(10)?,
        ended_ms: row.get::<_, Option<i64>>(11)?.map(i64::unsigned_abs),
        outcome: outcome.map(of_text).transpose()?,
        attempts: Vec::new(),
    })
}

fn read_attempt(row: &rusqlite::Row<'_>) -> rusqlite::Result<AttemptRow> {
    let replica: String = row.get(0)?;
    let ended_ms: Option<i64> = row.get(2)?;
    let (code, oom): (Option<i32>, bool) = (row.get(3)?, row.get(4)?);
    let (hopeless, message) = (row.get(5)?, row.get(6)?);
    Ok(AttemptRow {
        replica: replica.parse().map_err(unreadable)?,
        made_ms: row.get::<_, i64>(1)?.unsigned_abs(),
        launched: row.get(7)?,
        number: row.get(8)?,
        end: ended_ms.map(|ended_ms| EndRow {
            ended_ms: ended_ms.unsigned_abs(),
            exit: code.map(|code| Exit { code, oom }),
            hopeless,
            message,
        }),
    })
}

/// A value as JSON text.
fn text(value: &impl Serialize) -> rusqlite::Result<String> {
    serde_json::to_string(value).map_err(unreadable)
}

fn of_text<T: DeserializeOwned>(text: String) -> rusqlite::Result<T> {
    serde_json::from_str(&text)
        .map_err(|error| rusqlite::Error::FromSqlConversionFailure(0, Type::Text, Box::new(error)))
}

fn int(ms: u64) -> i64 {
    i64::try_from(ms).unwrap_or(i64::MAX)
}
