//! The vault: the store's values with the key that opens them.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use layby_model::engine::BoxFuture;
use layby_model::fail::{self, Point};
use layby_model::secret::{Scope, SecretError, SecretRef, SecretSource, SecretValue, ValueKind};
use layby_model::{AppName, error_chain};

use super::key::{self, KeyError};
use super::seal::{Key, Place};
use crate::api::types::Problem;
use crate::config::MasterKey;
use crate::error::Error;
use crate::store::{SealedValue, Store, StoreError};

/// Where secrets are.
pub(crate) struct Vault {
    store: Store,
    place: MasterKey,
    /// `None`: no secret was ever kept.
    key: Mutex<Option<Key>>,
    /// Held from the look at the newest version until the next one is written, and while the key is changed.
    turn: tokio::sync::Mutex<()>,
    /// Held from the look at the newest versions until what names them is written, and while old ones are forgotten. Deploys
    /// have their turn for that; whoever takes both takes this one last.
    pins: tokio::sync::Mutex<()>,
}

/// A value to keep.
#[derive(Debug, Clone)]
pub(crate) struct NewValue {
    /// `None`: the node's.
    pub(crate) app: Option<AppName>,
    pub(crate) kind: ValueKind,
    pub(crate) name: String,
    pub(crate) value: SecretValue,
    /// A manifest brings it.
    pub(crate) declared: bool,
}

/// What became of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Kept {
    pub(crate) scope: Scope,
    pub(crate) kind: ValueKind,
    pub(crate) name: String,
    /// Its newest version.
    pub(crate) version: u32,
    /// It is another value than before, or there was none.
    pub(crate) is_new: bool,
}

impl Vault {
    /// Opens the vault; `forget`: without what is in it.
    ///
    /// # Errors
    /// There are secrets, and the key in its place does not open them. Nothing is changed then.
    pub(crate) async fn open(store: Store, place: MasterKey, forget: bool) -> Result<Self, Error> {
        if forget {
            store.forget_all_values().await?;
        }
        let proof = store.key_proof().await?;
        let key = match proof {
            Some(proof) => Some(key::find(&place, &proof)?),
            None => None,
        };
        Ok(Self {
            store,
            place,
            key: Mutex::new(key),
            turn: tokio::sync::Mutex::default(),
            pins: tokio::sync::Mutex::default(),
        })
    }

    /// No version is forgotten while this is held.
    pub(crate) async fn pins(&self) -> tokio::sync::MutexGuard<'_, ()> {
        self.pins.lock().await
    }

    /// The key for what another node's state brings; no secret is kept and the key is not changed while the guard is held.
    pub(crate) async fn to_be_filled(
        &self,
    ) -> Result<(tokio::sync::MutexGuard<'_, ()>, Key), Problem> {
        let turn = self.turn.lock().await;
        let key = self.key_or_first()?;
        Ok((turn, key))
    }

    fn key(&self) -> Option<Key> {
        let key = self.key.lock().unwrap_or_else(PoisonError::into_inner);
        key.clone()
    }

    fn set_key(&self, key: Key) {
        *self.key.lock().unwrap_or_else(PoisonError::into_inner) = Some(key);
    }

    /// The key; made when this is the first secret.
    fn key_or_first(&self) -> Result<Key, KeyError> {
        if let Some(key) = self.key() {
            return Ok(key);
        }
        let key = key::first(&self.place)?;
        self.set_key(key.clone());
        Ok(key)
    }

    /// Keeps values, all or none; one that is just what the newest version is makes no new one.
    pub(crate) async fn keep(
        &self,
        values: Vec<NewValue>,
        made_by: &str,
    ) -> Result<Vec<Kept>, Problem> {
        if values.is_empty() {
            return Ok(Vec::new());
        }
        let _turn = self.turn.lock().await;
        let key = self.key_or_first()?;
        let mut newest = BTreeMap::new();
        for row in self.store.values().await? {
            let Place {
                app,
                kind,
                name,
                version,
            } = row.place;
            newest.insert((app, kind, name), (version, row.is_kept));
        }
        let mut kept = Vec::new();
        let mut new = Vec::new();
        for value in values {
            let mut place = Place {
                app: value
                    .app
                    .as_ref()
                    .map_or_else(String::new, AppName::to_string),
                kind: value.kind,
                name: value.name,
                version: 0,
            };
            let known = newest.get(&(place.app.clone(), place.kind, place.name.clone()));
            let (version, is_kept) = known.copied().unwrap_or_default();
            place.version = version;
            let is_same = is_kept && self.holds(&key, &place, &value.value).await?;
            if !is_same {
                place.version = version + 1;
                let sealed = key.seal(&place, value.value.bytes());
                new.push(SealedValue {
                    sealed,
                    declared: value.declared,
                    place: place.clone(),
                });
            }
            kept.push(Kept {
                scope: match value.app {
                    Some(_) => Scope::App,
                    None => Scope::Node,
                },
                kind: place.kind,
                name: place.name,
                version: place.version,
                is_new: !is_same,
            });
        }
        if !new.is_empty() {
            self.store.add_values(new, made_by, key.proof()).await?;
            fail::at(Point::AfterKeep);
        }
        Ok(kept)
    }

    async fn holds(&self, key: &Key, place: &Place, value: &SecretValue) -> Result<bool, Problem> {
        let sealed = self.store.sealed(place.clone()).await?;
        let sealed = sealed.unwrap_or_default();
        let known = key.open(place, &sealed);
        Ok(known.is_ok_and(|known| known == *value))
    }

    /// The value in a place; `None`: there is none.
    pub(crate) async fn open_value(
        &self,
        place: &Place,
    ) -> Result<Option<SecretValue>, SecretError> {
        let failed = |error: StoreError| SecretError::Failed(error_chain(&error));
        let Some(sealed) = self.store.sealed(place.clone()).await.map_err(failed)? else {
            return Ok(None);
        };
        // While the key is changed, what was read before is opened with the one from before.
        let key = self.key();
        let opened = key.and_then(|key| key.open(place, &sealed).ok());
        if opened.is_some() {
            return Ok(opened);
        }
        let _turn = self.turn.lock().await;
        let sealed = self.store.sealed(place.clone()).await.map_err(failed)?;
        let (Some(key), Some(sealed)) = (self.key(), sealed) else {
            return Ok(None);
        };
        match key.open(place, &sealed) {
            Ok(value) => Ok(Some(value)),
            Err(_) => Err(SecretError::NotFound(format!(
                "the {} {} (version {}) does not open: the node's database was tampered with or is damaged; set it again",
                super::seal::kind_text(place.kind),
                place.name,
                place.version
            ))),
        }
    }

    /// Encrypts all with a new key. Cut anywhere, the next start finds the right one.
    pub(crate) async fn rotate(&self) -> Result<(), Problem> {
        let _turn = self.turn.lock().await;
        let Some(old) = self.key() else {
            let text = "there are no secrets yet, and so no key to change";
            return Err(Problem::conflict(text).hint("`layby secret set NAME` makes one"));
        };
        let new = key::prepare_next(&self.place)?;
        fail::at(Point::AfterNextKey);
        let changed = self.store.rekey(old.clone(), new.clone()).await;
        fail::at(Point::AfterRekey);
        // What the store says counts, also after an error: one of the keys is to go, and it must be the right one. Where
        // it says nothing, both stay, and the next start sees.
        let proof = self.store.key_proof().await?.unwrap_or_default();
        if new.made(&proof) {
            self.set_key(new);
            return Ok(key::install(&self.place)?);
        }
        if old.made(&proof) {
            key::give_up_next(&self.place);
        }
        match changed {
            Ok(_) => Err(Problem::failed(
                "a secret does not open with the node's key, so the key was not changed: remove that secret, or set it again",
            )),
            Err(error) => Err(error.into()),
        }
    }

    /// The value that a deployed revision of `app` names.
    async fn value(&self, app: &AppName, wanted: &SecretRef) -> Result<SecretValue, SecretError> {
        let unknown = || {
            let kind = super::seal::kind_text(wanted.kind);
            let version = wanted.version.unwrap_or(0);
            SecretError::NotFound(format!(
                "the {kind} {} (version {version}) is not there any more: set it again, then deploy",
                wanted.name
            ))
        };
        let place = Place::of(app, wanted).ok_or_else(unknown)?;
        self.open_value(&place).await?.ok_or_else(unknown)
    }
}

impl SecretSource for Vault {
    fn reveal<'a>(
        &'a self,
        app: &'a AppName,
        wanted: &'a SecretRef,
    ) -> BoxFuture<'a, Result<SecretValue, SecretError>> {
        Box::pin(self.value(app, wanted))
    }
}

impl From<KeyError> for Problem {
    fn from(error: KeyError) -> Self {
        match error {
            KeyError::Io { .. } => Self::failed(error_chain(&error)),
            KeyError::Gone { .. }
            | KeyError::Wrong { .. }
            | KeyError::Exposed { .. }
            | KeyError::Malformed { .. }
            | KeyError::NoNext => Self::conflict(error.to_string()),
        }
    }
}

/// A handle for the engine.
pub(crate) fn source(vault: &Arc<Vault>) -> std::sync::Weak<dyn SecretSource> {
    let vault: Arc<dyn SecretSource> = Arc::clone(vault) as _;
    Arc::downgrade(&vault)
}
