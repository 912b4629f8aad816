//! What users do with secrets: set, list and remove them. No way leads out again.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::http::StatusCode;
use layby_model::secret::{
    MAX_VALUE_BYTES, Scope, SecretRef, SecretValue, ValueKind, is_value_name, refs, unpin,
};
use layby_model::spec::ServiceSpec;
use layby_model::{AppName, ServiceId};
use tokio::sync::mpsc;

use super::pin;
use super::seal::Place;
use super::vault::{Kept, NewValue};
use crate::api::Who;
use crate::api::types::{Event, EventKind, KeptSecret, Problem};
use crate::deploy::{self, Committed};
use crate::plane::Plane;
use crate::store::{NewRevision, StoreError, ValueRow};

/// The most values that are set at once.
const MAX_AT_ONCE: usize = 1_000;
/// The most secrets and configs of a node, versions not counted.
const MAX_NAMES: usize = 20_000;

/// Values to set.
#[derive(Debug)]
pub(crate) struct Setting {
    /// `None`: the node's.
    pub(crate) app: Option<AppName>,
    pub(crate) values: BTreeMap<String, SecretValue>,
    /// The services that use them get new revisions.
    pub(crate) deploy: bool,
    /// Nobody waits for those.
    pub(crate) detach: bool,
}

/// Sets secrets, all or none, and gives every service that uses one a new revision.
pub(crate) async fn set(
    plane: &Arc<Plane>,
    setting: Setting,
    who: Who,
) -> Result<mpsc::Receiver<Event>, Problem> {
    check(&setting)?;
    let Setting {
        app,
        values,
        deploy,
        detach,
    } = setting;
    room(plane, app.as_ref(), &values).await?;
    let new = values.into_iter().map(|(name, value)| NewValue {
        app: app.clone(),
        kind: ValueKind::Secret,
        name,
        value,
        declared: false,
    });
    let kept = plane.vault.keep(new.collect(), &who.name).await?;
    for one in kept.iter().filter(|one| one.is_new) {
        let text = format!("{}, version {}", one.name, one.version);
        plane.events.note(
            EventKind::SecretSet,
            app.clone(),
            None,
            text,
            Some(&who.name),
        );
    }
    let committed = match deploy {
        true => redeploy(plane, app.as_ref(), &kept, &who).await?,
        false => Vec::new(),
    };
    if let Err(error) = prune(plane).await {
        tracing::warn!(%error, "old versions of secrets are still there");
    }
    let nobodys = app.as_ref().filter(|app| !is_there(plane, app));
    let warning = nobodys.map(|app| {
        format!("there is no app {app} on this node (yet): what is deployed as {app} will find it")
    });
    let app = app.map(|app| app.to_string());
    Ok(deploy::stream(plane, move |events| async move {
        if let Some(text) = warning {
            let _ = events.send(Event::Warning { text }).await;
        }
        for one in kept {
            let event = Event::Secret {
                app: app.clone(),
                name: one.name,
                version: one.version,
                is_new: one.is_new,
            };
            let _ = events.send(event).await;
        }
        Ok(deploy::wait(committed, detach, &events).await)
    }))
}

/// Whether an app has services or jobs.
fn is_there(plane: &Plane, app: &AppName) -> bool {
    let has_services = plane.all_drivers().iter().any(|(id, _)| id.app == *app);
    let shown = plane.jobs.shown();
    has_services || shown.shelves.keys().any(|id| id.app == *app)
}

fn check(setting: &Setting) -> Result<(), Problem> {
    if setting.values.is_empty() {
        return Err(Problem::bad_request("there is nothing to set"));
    }
    if setting.values.len() > MAX_AT_ONCE {
        let text = format!("more than {MAX_AT_ONCE} secrets at once: set some first");
        return Err(Problem::bad_request(text));
    }
    for (name, value) in &setting.values {
        if !is_value_name(name) {
            return Err(Problem::bad_request(bad_name(name)));
        }
        if value.bytes().len() > MAX_VALUE_BYTES {
            let text = format!(
                "the secret {name} is larger than {} KiB",
                MAX_VALUE_BYTES >> 10
            );
            return Err(Problem::new(
                StatusCode::PAYLOAD_TOO_LARGE,
                "too-large",
                text,
            ));
        }
    }
    Ok(())
}

fn bad_name(name: &str) -> String {
    format!(
        "{name:?} cannot name a secret: use up to 253 letters, digits, '_', '.' and '-', not beginning with a point \
         (GROUP/KEY for a key of a group)"
    )
}

async fn room(
    plane: &Plane,
    app: Option<&AppName>,
    values: &BTreeMap<String, SecretValue>,
) -> Result<(), Problem> {
    let owner = app.map_or_else(String::new, AppName::to_string);
    let rows = plane.store.values().await?;
    let mut names: Vec<(&str, &str)> = rows
        .iter()
        .map(|row| (row.place.app.as_str(), row.place.name.as_str()))
        .chain(values.keys().map(|name| (owner.as_str(), name.as_str())))
        .collect();
    names.sort_unstable();
    names.dedup();
    if names.len() > MAX_NAMES {
        let text = format!("the node has {MAX_NAMES} secrets already: remove some first");
        return Err(Problem::conflict(text));
    }
    Ok(())
}

/// Gives every service that is to run with an older version a new revision.
async fn redeploy(
    plane: &Arc<Plane>,
    app: Option<&AppName>,
    kept: &[Kept],
    who: &Who,
) -> Result<Vec<Committed>, Problem> {
    let turn = plane.deploys.lock().await;
    let rows = plane.store.services().await?;
    let mut news = Vec::new();
    for row in rows.iter().filter(|row| !row.removing) {
        if app.is_some_and(|app| *app != row.service.app) {
            continue;
        }
        let current = deploy::current(row).1;
        let mut causes: Vec<String> = Vec::new();
        let mut spec = (*current.spec).clone();
        for one in kept {
            let is_older = |secret: &SecretRef| {
                secret.kind == one.kind
                    && secret.name == one.name
                    && secret.scope == Some(one.scope)
                    && secret.version != Some(one.version)
            };
            if refs(&spec.service).any(is_older) {
                unpin(&mut spec.service, &is_older);
                causes.push(format!("secret {} version {}", one.name, one.version));
            }
        }
        if !causes.is_empty() {
            news.push(NewRevision {
                service: row.service.clone(),
                spec,
                cause: Some(causes.join(", ")),
                unscale: false,
                made_by: who.name.clone(),
                enables: false,
                anew: false,
                // What a canary was tried out on goes on with what is newer.
                share: row.share.clone(),
            });
        }
    }
    deploy::commit_in_turn(plane, &turn, news).await
}

/// Forgets versions that nobody names, but for the newest ones.
pub(crate) async fn prune(plane: &Plane) -> Result<(), StoreError> {
    // What was pinned is written by then.
    let _turn = plane.deploys.lock().await;
    let _pins = plane.vault.pins().await;
    plane.store.prune_values().await
}

/// Every secret, without its value.
pub(crate) async fn list(plane: &Plane, app: Option<&AppName>) -> Result<Vec<KeptSecret>, Problem> {
    let values = plane.store.values().await?;
    let users = users(plane, &values).await?;
    let mut secrets: Vec<KeptSecret> = Vec::new();
    for value in values {
        let Place {
            app: owner,
            kind,
            name,
            version,
        } = value.place;
        let is_asked = app.is_none_or(|app| owner == app.as_str());
        if kind != ValueKind::Secret || !value.is_kept || !is_asked {
            continue;
        }
        let owner = Some(owner).filter(|owner| !owner.is_empty());
        // The versions of one come one after another, the newest last.
        let older = secrets.pop_if(|last| last.app == owner && last.name == name);
        let uses = uses(&users, owner.as_deref(), &name);
        let behind = uses.iter().filter_map(|(user, has)| {
            let has = has.filter(|has| *has != version)?;
            Some((user.clone(), has))
        });
        secrets.push(KeptSecret {
            behind: behind.collect(),
            used_by: uses.into_keys().collect(),
            versions: older.map_or(0, |older| older.versions) + 1,
            app: owner,
            name,
            version,
            set_at: value.created_at,
            set_by: value.made_by,
        });
    }
    Ok(secrets)
}

/// What each service runs with or is to, what each job would run with now, and what their runs run with.
async fn users(
    plane: &Plane,
    values: &[ValueRow],
) -> Result<Vec<(ServiceId, ServiceSpec)>, StoreError> {
    let mut users = Vec::new();
    for row in plane.store.services().await? {
        let revisions = row.live.iter().chain([&row.target]);
        let specs = revisions.map(|revision| (row.service.clone(), revision.spec.service.clone()));
        users.extend(specs);
    }
    for (id, shelf) in plane.store.shelves().await? {
        let job = shelf.job.as_ref();
        // Its newest versions are named when it runs.
        let job = job.map(|job| pin::as_now(values, &id.app, &job.spec.service));
        let runs = shelf.active().filter_map(|run| run.spec.as_ref());
        let runs = runs.map(|spec| spec.service.clone());
        users.extend(job.into_iter().chain(runs).map(|spec| (id.clone(), spec)));
    }
    Ok(users)
}

/// The services and jobs that use a secret, each with the version that it has: that of what is live, before that of what is to be.
fn uses(
    users: &[(ServiceId, ServiceSpec)],
    app: Option<&str>,
    name: &str,
) -> BTreeMap<String, Option<u32>> {
    let scope = match app {
        Some(_) => Scope::App,
        None => Scope::Node,
    };
    let is_it = |secret: &&SecretRef| {
        secret.kind == ValueKind::Secret && secret.name == name && secret.scope == Some(scope)
    };
    let mut uses = BTreeMap::new();
    let may = |id: &ServiceId| app.is_none_or(|app| id.app.as_str() == app);
    for (id, spec) in users.iter().filter(|(id, _)| may(id)) {
        if let Some(secret) = refs(spec).find(is_it) {
            uses.entry(id.to_string()).or_insert(secret.version);
        }
    }
    uses
}

/// Removes a secret with all its versions.
///
/// # Errors
/// There is none, or a service or a job uses it.
pub(crate) async fn remove(
    plane: &Plane,
    app: Option<&AppName>,
    name: &str,
    who: &Who,
) -> Result<(), Problem> {
    // Nothing is deployed meanwhile that names it.
    let _turn = plane.deploys.lock().await;
    let values = plane.store.values().await?;
    let users = users(plane, &values).await?;
    let users = uses(&users, app.map(AppName::as_str), name);
    if !users.is_empty() {
        let users: Vec<String> = users.into_keys().collect();
        let text = format!("the secret {name} is used by {}", users.join(", "));
        return Err(Problem::conflict(text)
            .hint("deploy them without it, or take them down, then remove it"));
    }
    let owner = app.map_or("", AppName::as_str);
    let names = vec![(ValueKind::Secret, name.to_owned())];
    if plane.store.forget_values(owner, names).await?.is_empty() {
        let text = match app {
            Some(app) => format!("the app {app} has no secret {name}"),
            None => format!("the node has no secret {name}"),
        };
        return Err(Problem::new(StatusCode::NOT_FOUND, "not-found", text)
            .hint("`layby secret ls` shows what there is; --app APP names one of an app"));
    }
    plane.events.note(
        EventKind::SecretRemoved,
        app.cloned(),
        None,
        name.to_owned(),
        Some(&who.name),
    );
    Ok(())
}

/// Encrypts all secrets with a new key.
pub(crate) async fn rotate_key(plane: &Plane, who: &Who) -> Result<(), Problem> {
    plane.vault.rotate().await?;
    let text = "all secrets are encrypted with a new key".to_owned();
    plane
        .events
        .note(EventKind::KeyRotated, None, None, text, Some(&who.name));
    Ok(())
}

/// Forgets what the manifest of an app has brought, once none of its services and jobs is left.
pub(crate) async fn forget_declared(plane: &Plane, app: &AppName) -> Result<(), Problem> {
    let rows = plane.store.services().await?;
    let jobs = plane.store.jobs().await?;
    if rows.iter().any(|row| row.service.app == *app) || jobs.keys().any(|id| id.app == *app) {
        return Ok(());
    }
    let mut declared: BTreeMap<(ValueKind, String), bool> = BTreeMap::new();
    for row in plane.store.values().await? {
        if row.place.app == app.as_str() && row.is_kept {
            // What a user has set over it is the user's.
            declared.insert((row.place.kind, row.place.name), row.declared);
        }
    }
    let names = declared.into_iter().filter(|(_, declared)| *declared);
    let names: Vec<_> = names.map(|(name, _)| name).collect();
    if !names.is_empty() {
        plane.store.forget_values(app.as_str(), names).await?;
    }
    Ok(())
}
