//! What a store is made of, for whoever takes it to another machine: its services, and the images that they need.

use std::collections::BTreeMap;

use layby_model::engine::RunSpec;
use rusqlite::Connection;

use super::rows::unreadable;
use super::{Store, StoreError};

/// What there is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Content {
    /// The services, as `app/service`.
    pub(crate) services: Vec<String>,
    /// The jobs, as `app/job`.
    pub(crate) jobs: Vec<String>,
    /// So many secrets.
    pub(crate) secrets: u32,
    /// The images, by digest.
    pub(crate) images: Vec<Need>,
}

impl Content {
    /// Whether an app or a secret is in it.
    pub(crate) fn is_something(&self) -> bool {
        !self.services.is_empty() || !self.jobs.is_empty() || self.secrets > 0
    }
}

/// An image that a kept revision, a job or a run needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Need {
    /// Its name, as the newest that needs it has it.
    pub(crate) name: String,
    /// The digest of its manifest.
    pub(crate) digest: String,
    /// The services and jobs, as `app/service`.
    pub(crate) used_by: Vec<String>,
    /// What is live or to be, or a job, needs it; else only a revision to go back to.
    pub(crate) is_current: bool,
}

impl Store {
    /// What there is.
    pub(crate) async fn content(&self) -> Result<Content, StoreError> {
        self.call(|db| read(db)).await
    }
}

/// The same of a store that is open.
pub(super) fn read(db: &Connection) -> rusqlite::Result<Content> {
    let names = |sql: &str| -> rusqlite::Result<Vec<String>> {
        db.prepare(sql)?.query_map([], |row| row.get(0))?.collect()
    };
    let mut images: BTreeMap<String, Need> = BTreeMap::new();
    // What is current comes last, and names what it shares with others.
    let mut specs = db.prepare(
        "SELECT r.app || '/' || r.service, r.spec, r.revision IS s.live OR r.revision = s.target AS current, r.revision
             FROM revisions AS r JOIN services AS s USING (app, service)
         UNION ALL SELECT app || '/' || job, spec, 1, 0 FROM jobs
         UNION ALL SELECT app || '/' || job, spec, 1, 0 FROM job_runs WHERE spec IS NOT NULL
         ORDER BY 3, 4",
    )?;
    let mut rows = specs.query([])?;
    while let Some(row) = rows.next()? {
        let (of, spec, is_current): (String, String, bool) =
            (row.get(0)?, row.get(1)?, row.get(2)?);
        let spec: RunSpec = serde_json::from_str(&spec).map_err(unreadable)?;
        let mut names = spec
            .service
            .all_containers()
            .map(|container| &container.image);
        for digest in spec.images {
            let name = names.next().map_or("", String::as_str);
            let need = images.entry(digest.clone()).or_insert_with(|| Need {
                name: String::new(),
                digest,
                used_by: Vec::new(),
                is_current,
            });
            need.is_current |= is_current;
            if !name.is_empty() {
                name.clone_into(&mut need.name);
            }
            if !need.used_by.contains(&of) {
                need.used_by.push(of.clone());
            }
        }
    }
    let mut images: Vec<Need> = images.into_values().collect();
    images.sort_by(|a, b| (&a.name, &a.digest).cmp(&(&b.name, &b.digest)));
    Ok(Content {
        services: names("SELECT app || '/' || service FROM services ORDER BY 1")?,
        jobs: names("SELECT app || '/' || job FROM jobs ORDER BY 1")?,
        secrets: db.query_row(
            "SELECT count(DISTINCT app || '/' || kind || '/' || name) FROM secrets WHERE sealed IS NOT NULL",
            [],
            |row| row.get(0),
        )?,
        images,
    })
}
