//! Stores of every earlier format, brought to the newest: nothing in them is lost.
//!
//! `old/N.sql` holds rows as a store of format N was given them. A new migration comes with such a file for the format
//! before it.

use rusqlite::Connection;
use rusqlite_migration::Migrations;
use tempfile::TempDir;

use super::Store;
use super::format::MIGRATIONS;
use layby_model::{RevisionId, Wakefulness};

const ROWS: &[(usize, &str)] = &[
    (1, include_str!("old/1.sql")),
    (2, include_str!("old/2.sql")),
    (3, include_str!("old/3.sql")),
];

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
