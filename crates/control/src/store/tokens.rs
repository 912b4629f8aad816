//! Tokens in the store.

use std::collections::BTreeSet;

use jiff::Timestamp;
use rusqlite::{Connection, params};

use super::rows::unreadable;
use super::{Store, StoreError};
use crate::tokens::Role;

/// A token as it is kept: what it is good for, and the hash of its secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Token {
    /// Its name: what clients give as the user.
    pub(crate) name: String,
    /// The SHA-256 of its secret.
    pub(crate) hash: [u8; 32],
    /// It may read.
    pub(crate) pull: bool,
    /// It may write and delete.
    pub(crate) push: bool,
    /// In which repositories; `*` stands for any characters.
    pub(crate) repository: String,
    /// What it may do with the node; `None`: nothing, it is for the registry alone.
    pub(crate) role: Option<Role>,
    /// Only with these apps; `None`: with all.
    pub(crate) apps: Option<BTreeSet<String>>,
    /// When it was made.
    pub(crate) created_at: Timestamp,
    /// When it ends; `None`: never.
    pub(crate) expires_at: Option<Timestamp>,
}

impl Store {
    /// Every token, by name.
    pub(crate) async fn tokens(&self) -> Result<Vec<Token>, StoreError> {
        self.call(|db| tokens(db)).await
    }

    /// Adds a token. `false`: one of that name is there.
    pub(crate) async fn add_token(&self, token: Token) -> Result<bool, StoreError> {
        self.call(move |db| {
            let added = db.execute(
                "INSERT INTO tokens (name, hash, pull, push, repository, created_at, expires_at, role, apps)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9) ON CONFLICT DO NOTHING",
                params![
                    token.name,
                    token.hash,
                    token.pull,
                    token.push,
                    token.repository,
                    token.created_at.to_string(),
                    token.expires_at.map(|at| at.to_string()),
                    token.role.map(Role::text),
                    (token.apps.as_ref()).map(|apps| serde_json::json!(apps).to_string())
                ],
            )?;
            Ok(added == 1)
        })
        .await
    }

    /// Takes a token away. `false`: there is none of that name.
    pub(crate) async fn remove_token(&self, name: &str) -> Result<bool, StoreError> {
        let name = name.to_owned();
        self.call(move |db| Ok(db.execute("DELETE FROM tokens WHERE name = ?1", [name])? == 1))
            .await
    }
}

/// All tokens, by name.
pub(super) fn tokens(db: &Connection) -> rusqlite::Result<Vec<Token>> {
    db.prepare_cached(
        "SELECT name, hash, pull, push, repository, created_at, expires_at, role, apps FROM tokens ORDER BY name",
    )?
    .query_map([], |row| {
        let time = |text: String| text.parse::<Timestamp>().map_err(unreadable);
        Ok(Token {
            name: row.get(0)?,
            hash: row.get(1)?,
            pull: row.get(2)?,
            push: row.get(3)?,
            repository: row.get(4)?,
            created_at: time(row.get(5)?)?,
            expires_at: row.get::<_, Option<String>>(6)?.map(time).transpose()?,
            // A role that this Layby does not know is none.
            role: (row.get::<_, Option<String>>(7)?).and_then(|text| Role::of(&text)),
            apps: (row.get::<_, Option<String>>(8)?)
                .map(|text| serde_json::from_str(&text).map_err(unreadable))
                .transpose()?,
        })
    })?
    .collect()
}
