//! Taking a state out of a node that runs, and putting one into it.

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::path::PathBuf;
use std::sync::Arc;

use layby_image::Image;
use layby_model::AppName;
use layby_model::secret::SecretValue;
use serde_json::{Map, Value};

use super::file::{self, Opened, Taken};
use super::lock::Cost;
use super::{StateError, image_views};
use crate::api::Who;
use crate::api::types::{EventKind, ImportedView, Problem, StateView};
use crate::deploy::{self, images};
use crate::plane::Plane;
use crate::registries::LOGINS;
use crate::store::{StoreError, TakenOver, snapshot};

/// What would be taken out.
pub(crate) async fn look(plane: &Plane) -> Result<StateView, Problem> {
    let content = plane.store.content().await?;
    let store = Arc::clone(&plane.images);
    let looked = tokio::task::spawn_blocking(move || super::view(content, &store));
    looked.await.map_err(images::broke_off)
}

/// A state that was taken, to be written out.
pub(crate) struct Parcel {
    taken: Taken,
    images: Arc<layby_image::Store>,
    with_images: bool,
    passphrase: SecretValue,
}

impl Parcel {
    /// Writes it. Blocks, at the pace of who takes it.
    ///
    /// # Errors
    /// [`StateError`]; what was written until then opens with no passphrase.
    pub(crate) fn write(self, to: impl Write) -> Result<(), StateError> {
        let images = (&*self.images, self.with_images);
        file::write(&self.taken, images, &self.passphrase, Cost::USUAL, to)
    }
}

/// Takes the state of this node, as it is now.
///
/// # Errors
/// The passphrase is too short, or the store or the key cannot be read.
pub(crate) async fn export(
    plane: &Plane,
    passphrase: SecretValue,
    with_images: bool,
) -> Result<Parcel, Problem> {
    file::check(&passphrase)?;
    let (data_dir, key) = (
        plane.config.data_dir.clone(),
        plane.config.master_key.clone(),
    );
    let dir = file::aside(&temporary(plane))?;
    let taken = tokio::task::spawn_blocking(move || file::take(&data_dir, &key, dir));
    Ok(Parcel {
        taken: taken.await.map_err(images::broke_off)??,
        images: Arc::clone(&plane.images),
        with_images,
        passphrase,
    })
}

/// Puts a state into this node: all of it at once, or nothing but its images. With `replace` what is here is taken down first,
/// when all of the file was found to be right.
///
/// # Errors
/// 409: there is something, and it is not to be replaced. 422: the file is not right, or the passphrase is another one.
pub(crate) async fn import(
    plane: &Arc<Plane>,
    passphrase: SecretValue,
    replace: bool,
    from: impl Read + Send + 'static,
    who: &Who,
) -> Result<ImportedView, Problem> {
    file::check(&passphrase)?;
    if !replace && plane.store.content().await?.is_something() {
        return Err(occupied());
    }
    // From the first image that comes until what needs it is written.
    let kept = plane.collector.keep().await;
    let dir = file::aside(&temporary(plane))?;
    let store = Arc::clone(&plane.images);
    let opened = move || file::open(dir, || Ok(store), &passphrase, from);
    let opened = plane.at_clients_pace(opened).await.await;
    let opened = opened.map_err(images::broke_off)??;
    // To its end, also when whoever asked goes.
    let (task_plane, who) = (Arc::clone(plane), who.clone());
    let work = async move {
        let put = put(&task_plane, opened, replace, &who).await;
        drop(kept);
        put
    };
    plane.carry_out(work).await
}

async fn put(
    plane: &Arc<Plane>,
    opened: Opened,
    replace: bool,
    who: &Who,
) -> Result<ImportedView, Problem> {
    if replace {
        take_down_all(plane, who).await?;
    }
    let (opened, taken) = take_over(plane, opened, replace).await?;
    plane.jobs.reload().await;
    for row in plane.store.services().await? {
        deploy::tell_driver(plane, row).await;
    }
    let count = opened.content.services.len() + opened.content.jobs.len();
    let text = format!("the state of a node was put in (services and jobs: {count})");
    let (kind, name) = (EventKind::StateImported, Some(who.name.as_str()));
    plane.events.note(kind, None, None, text, name);
    for Image {
        digest, references, ..
    } in &opened.loaded
    {
        images::push_own(plane, digest, references).await?;
    }
    plane.desk.pushed();
    let store = Arc::clone(&plane.images);
    let needs = opened.content.images;
    let views = tokio::task::spawn_blocking(move || image_views(needs, &store));
    let mut missing = views.await.map_err(images::broke_off)?;
    missing.retain(|image| image.size_bytes.is_none());
    Ok(ImportedView {
        services: opened.content.services,
        jobs: opened.content.jobs,
        loaded: u32::try_from(opened.loaded.len()).unwrap_or(u32::MAX),
        missing,
        kept_tokens: taken.kept_tokens,
    })
}

/// Takes down every app of this node.
async fn take_down_all(plane: &Arc<Plane>, who: &Who) -> Result<(), Problem> {
    let services = plane.all_drivers().into_iter().map(|(id, _)| id.app);
    let shown = plane.jobs.shown();
    let jobs = shown.shelves.keys().map(|id| id.app.clone());
    let apps: BTreeSet<AppName> = services.chain(jobs).collect();
    for app in apps {
        match deploy::down(plane, &app, who).await {
            // Somebody else was faster.
            Err(problem) if problem.status == 404 => {}
            done => drop(done?),
        }
    }
    Ok(())
}

/// The one write that makes the state this node's, and what else has to be as it says from then on.
async fn take_over(
    plane: &Arc<Plane>,
    opened: Opened,
    replace: bool,
) -> Result<(Opened, TakenOver), Problem> {
    let _turn = plane.deploys.lock().await;
    let (_vault, key) = plane.vault.to_be_filled().await?;
    let copy = opened.copy();
    let rekeyed = tokio::task::spawn_blocking(move || {
        snapshot::rekey(&opened.copy(), |_| {
            Ok::<_, StoreError>((opened.key.clone(), key))
        })?;
        Ok::<_, StoreError>(opened)
    });
    let opened = rekeyed.await.map_err(images::broke_off)??;
    let tokens = plane.doorman.turn().await;
    let taken = plane.store.take_over(copy, replace).await?;
    let taken = taken.ok_or_else(occupied)?;
    tokens.admit(plane.store.tokens().await?);
    plane.count_replicas(&taken.replicas);
    if let Some(theirs) = &opened.logins {
        let data_dir = plane.config.data_dir.clone();
        let own = std::fs::read(data_dir.join(LOGINS)).unwrap_or_default();
        let merged = merged(&own, theirs);
        let placed = file::put_logins(&merged, opened.dir.path(), &data_dir);
        placed.map_err(|error| {
            Problem::failed(format!(
                "all is put in but the logins at other registries, which could not be written: {error}"
            ))
        })?;
    }
    Ok((opened, taken))
}

/// Where the node keeps what is gone with its next start.
fn temporary(plane: &Plane) -> PathBuf {
    plane.config.data_dir.join("tmp")
}

fn occupied() -> Problem {
    Problem::conflict(
        "this node has services, jobs or secrets, and a state is put into one that has none",
    )
    .hint("`layby state import FILE --replace` takes them down first; volumes stay")
}

/// Logins in the form of a Docker configuration (`auths`); where both have one, the node's own stays.
fn merged(own: &[u8], theirs: &SecretValue) -> SecretValue {
    let read = |bytes: &[u8]| serde_json::from_slice::<Map<String, Value>>(bytes).ok();
    let (Some(mut own), Some(theirs_read)) = (read(own), read(theirs.bytes())) else {
        return theirs.clone();
    };
    let auths = own
        .entry("auths")
        .or_insert_with(|| Value::Object(Map::new()));
    let more = theirs_read.get("auths").and_then(Value::as_object);
    if let (Some(auths), Some(more)) = (auths.as_object_mut(), more) {
        for (registry, login) in more {
            auths
                .entry(registry.clone())
                .or_insert_with(|| login.clone());
        }
    }
    SecretValue::new(serde_json::to_vec(&own).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn logins_of_the_node_itself_stay_and_others_come_to_them() {
        let theirs = SecretValue::new(br#"{"auths":{"a":{"auth":"1"},"b":{"auth":"2"}}}"#.to_vec());
        let own = br#"{"auths":{"a":{"auth":"own"}}}"#;
        let merged: Value =
            serde_json::from_slice(super::merged(own, &theirs).bytes()).expect("JSON");
        assert_eq!(merged["auths"]["a"]["auth"], "own");
        assert_eq!(merged["auths"]["b"]["auth"], "2");
        assert_eq!(super::merged(b"", &theirs).bytes(), theirs.bytes());
    }
}
