//! Stores of every earlier format, brought to the newest: nothing in them is lost.
//!
//! `old/N.sql` holds rows as a store of format N was given them. A new migration comes with such a file for the format
//! before it.

use rusqlite::Connection;
use rusqlite_migration::Migrations;
use tempfile::TempDir;

use super::format::MIGRATIONS;
use super::{AuditQuery, Cause, NewRun, Store};
use crate::tokens::Role;
use layby_model::job::Outcome;
use layby_model::share::Share;
use layby_model::{RevisionId, ServiceId, Wakefulness};

const ROWS: &[(usize, &str)] = &[
    (1, include_str!("old/1.sql")),
    (2, include_str!("old/2.sql")),
    (3, include_str!("old/3.sql")),
    (12, include_str!("old/12.sql")),
    (15, include_str!("old/15.sql")),
];

/// 2026-11-30 in milliseconds since 1970: when most things in the rows happened.
const THEN_MS: u64 = 1_796_000_000_000;

/// A store of format `format` with these rows.
fn store_of(dir: &TempDir, format: usize, rows: &str) -> Store {
    let path = dir.path().join("layby.db");
    let mut db = Connection::open(&path).expect("a database");
    let migrations = Migrations::from_slice(&MIGRATIONS[..format]);
    migrations.to_latest(&mut db).expect("an old format");
    db.execute_batch(rows).expect("rows of that format");
    drop(db);
    Store::open(&path).expect("a store of the newest format")
}

#[tokio::test]
async fn every_earlier_format_is_read_whole() {
    for &(format, rows) in ROWS {
        let dir = TempDir::new().expect("a folder");
        let store = store_of(&dir, format, rows);
        let services = store.services().await.expect("rows");
        let [row] = &services[..] else {
            panic!("format {format}: {services:#?}");
        };
        assert_eq!(row.service.to_string(), "shop/web");
        assert!(row.enabled && !row.removing && row.target_failed);
        assert_eq!(
            (row.replicas, row.wanted),
            (3, Wakefulness::Dozing),
            "format {format}"
        );
        assert_eq!((row.target.id, row.generation), (RevisionId(2), 5));
        let live = row.live.as_ref().expect("a live one");
        assert_eq!(live.id, RevisionId(1));
        let spec = &live.spec.service;
        assert_eq!((spec.port, spec.drain_ms), (Some(8000), 30_000));
        assert_eq!(spec.containers[0].env["GREETING"], "hello world");
        assert_ne!(live.spec, row.target.spec);
        let failure = row.last_failure.as_ref().expect("a failure");
        assert_eq!(failure.log, ["listening"]);
        assert!(row.address.is_some(), "format {format}");
        let tokens = store.tokens().await.expect("tokens");
        let names: Vec<&str> = tokens.iter().map(|token| token.name.as_str()).collect();
        assert_eq!(names, if format >= 2 { &["ci"][..] } else { &[] });
        assert_eq!(store.images().await.expect("digests").len(), 1);
    }
}

#[tokio::test]
async fn what_came_after_the_third_format_is_kept() {
    for &(format, rows) in ROWS.iter().filter(|(format, _)| *format > 3) {
        kept(format, rows).await;
    }
}

async fn kept(format: usize, rows: &str) {
    let dir = TempDir::new().expect("a folder");
    let store = store_of(&dir, format, rows);
    let web: ServiceId = "shop/web".parse().expect("an id");
    let row = store.services().await.expect("rows").remove(0);
    assert_eq!(
        (row.failed_attempts, row.share),
        (2, Some(Share::Percent(10)))
    );
    assert_eq!(row.boots_ms, [900, 1_200]);
    let service = &row.target.spec.service;
    assert_eq!(
        (service.retries, service.progress_deadline_ms),
        (Some(1), Some(120_000))
    );
    let history = store.history(&web).await.expect("records");
    assert!(history[0].failure.is_some() && history[0].made_by.as_deref() == Some("ann"));
    assert_eq!(store.powers().await.expect("powers")[0].name, "huge");
    assert_eq!(store.newest_event().await.expect("events"), Some(7));
    let record = AuditQuery {
        since: None,
        who: None,
        before: None,
        limit: 10,
    };
    assert_eq!(store.audit(record).await.expect("a record").len(), 1);
    let token = store.tokens().await.expect("tokens").remove(0);
    assert_eq!(token.role, Some(Role::Deploy));
    assert!(token.apps.is_some_and(|apps| apps.contains("shop")));
    let hour = i64::try_from(THEN_MS / 3_600_000).expect("an hour");
    assert_eq!(store.usage(&web, hour).await.expect("usage").samples, 4);
    assert!(store.key_proof().await.expect("a proof").is_some());
    let values = store.values().await.expect("values");
    let names: Vec<&str> = values.iter().map(|row| row.place.name.as_str()).collect();
    assert_eq!(names, ["db_password", "settings"]);
    // A service that names a version of a secret keeps it.
    store.prune_values().await.expect("to prune");
    assert_eq!(store.values().await.expect("values").len(), 2);
}

#[tokio::test]
async fn jobs_of_an_earlier_format_are_kept_with_their_runs() {
    for &(format, rows) in ROWS.iter().filter(|(format, _)| *format > 3) {
        jobs_kept(format, rows).await;
    }
}

async fn jobs_kept(format: usize, rows: &str) {
    let dir = TempDir::new().expect("a folder");
    let store = store_of(&dir, format, rows);
    let backup: ServiceId = "shop/backup".parse().expect("an id");
    let shelf = store.shelf(&backup).await.expect("a shelf");
    let job = shelf.job.as_ref().expect("a job");
    assert!(job.suspended && !job.pending && job.spec.service.job.is_some());
    let [over, going] = &shelf.runs[..] else {
        panic!("{:#?}", shelf.runs);
    };
    assert_eq!((over.outcome, &over.spec), (Some(Outcome::Failed), &None));
    let end = over.attempts[0].end.as_ref().expect("an end");
    assert_eq!(end.exit.map(|exit| exit.code), Some(3));
    assert_eq!((going.due_ms, going.outcome), (Some(THEN_MS), None));
    // Whether the engine took the order was not noted at first: it is given again.
    let attempt = &going.attempts[0];
    assert!(attempt.launched == (format >= 13) && attempt.end.is_none());
    let next = store.make_run(NewRun {
        of: backup,
        of_service: false,
        spec: std::sync::Arc::clone(&job.spec),
        cause: Cause::Command,
        made_by: "ann".to_owned(),
        due_ms: None,
        command: None,
        held: false,
    });
    assert_eq!(next.await.expect("a run").0, 3, "numbers go on");
}

#[tokio::test]
async fn an_empty_store_of_every_earlier_format_becomes_the_same() {
    let schema = |path: &std::path::Path| -> Vec<String> {
        let db = Connection::open(path).expect("a database");
        let mut tables = db
            .prepare("SELECT sql FROM sqlite_schema WHERE sql IS NOT NULL ORDER BY name")
            .expect("a statement");
        let rows = tables.query_map([], |row| row.get(0)).expect("rows");
        rows.collect::<Result<_, _>>().expect("texts")
    };
    let mut newest: Option<Vec<String>> = None;
    for format in 1..=MIGRATIONS.len() {
        let dir = TempDir::new().expect("a folder");
        drop(store_of(&dir, format, ""));
        let found = schema(&dir.path().join("layby.db"));
        let newest = newest.get_or_insert_with(|| found.clone());
        assert_eq!(*newest, found, "format {format}");
    }
}
