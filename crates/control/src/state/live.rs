//! Taking a state out of a node that runs, and putting one into it.

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use futures_util::future::join_all;
use layby_image::Image;
use layby_model::secret::SecretValue;
use layby_model::{AppName, error_chain};
use tokio::sync::OwnedMutexGuard;

use super::file::{self, Opened, Taken};
use super::lock::Cost;
use super::{StateError, image_views, imported};
use crate::api::Who;
use crate::api::types::{EventKind, ImportedView, Problem, StateView};
use crate::deploy::{self, images};
use crate::plane::Plane;
use crate::secrets::Key;
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
/// when all of the file was found to be right and everything else that can fail was done or tried. `turn` is held to the end.
///
/// # Errors
/// 409: there is something, and it is not to be replaced. 422: the file is not right, or the passphrase is another one. What
/// is refused after the take-down began says so.
pub(crate) async fn import(
    plane: &Arc<Plane>,
    passphrase: SecretValue,
    replace: bool,
    from: impl Read + Send + 'static,
    who: &Who,
    turn: OwnedMutexGuard<()>,
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
        drop((kept, turn));
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
    let (vault, key) = plane.vault.to_be_filled().await?;
    // Not held while services go; that it was changed meanwhile is seen below.
    drop(vault);
    let opened = rekey(opened, key).await?;
    let (opened, taken) = match replace {
        true => {
            plane.store.rehearse(opened.copy()).await?;
            // Nothing new comes from here until the state is here.
            let closed = Closed::begin(plane).await;
            let done = async {
                take_down_all(plane, who).await?;
                take_over(plane, opened, true).await
            };
            let done = done.await.map_err(half_way);
            drop(closed);
            done?
        }
        false => take_over(plane, opened, false).await?,
    };
    // It is here: what fails now is told, and stops nothing.
    let mut warnings = Vec::new();
    if let Some(theirs) = opened.logins {
        let registries = plane.registries.clone();
        let adopt = move || registries.adopt(theirs.bytes());
        let adopted = tokio::task::spawn_blocking(adopt).await;
        let failed = match adopted {
            Ok(done) => done.err().map(|error| error_chain(&error)),
            Err(error) => Some(error.to_string()),
        };
        warnings.extend(failed.map(|why| super::no_logins(&why)));
    }
    let count = opened.content.services.len() + opened.content.jobs.len();
    let text = format!("the state of a node was put in (services and jobs: {count})");
    let (kind, name) = (EventKind::StateImported, Some(who.name.as_str()));
    plane.events.note(kind, None, None, text, name);
    for Image {
        digest, references, ..
    } in &opened.loaded
    {
        if let Err(problem) = images::push_own(plane, digest, references).await {
            warnings.push(format!(
                "the image {digest} has no name in the node's registry ({}): push it again",
                problem.detail
            ));
        }
    }
    plane.desk.pushed();
    let store = Arc::clone(&plane.images);
    let mut content = opened.content;
    let needs = std::mem::take(&mut content.images);
    let views = tokio::task::spawn_blocking(move || image_views(needs, &store)).await;
    let needs = views.unwrap_or_else(|error| {
        warnings.push(format!(
            "which images are missing could not be found out ({error}): `layby ls` shows what does not run"
        ));
        Vec::new()
    });
    let loaded = opened.loaded.len();
    Ok(imported(
        content,
        loaded,
        needs,
        taken.kept_tokens,
        warnings,
    ))
}

/// Encrypts the secrets of a state with the node's key, if they are not.
async fn rekey(mut opened: Opened, key: Key) -> Result<Opened, Problem> {
    if opened.key.bytes() == key.bytes() {
        return Ok(opened);
    }
    let rekeyed = tokio::task::spawn_blocking(move || {
        let keys = (opened.key.clone(), key.clone());
        snapshot::rekey(&opened.copy(), |_| Ok::<_, StoreError>(keys))?;
        opened.key = key;
        Ok::<_, StoreError>(opened)
    });
    Ok(rekeyed.await.map_err(images::broke_off)??)
}

/// No revision and no job is written while it is there.
struct Closed<'a>(&'a Plane);

impl<'a> Closed<'a> {
    async fn begin(plane: &'a Plane) -> Self {
        // Who writes just now comes first, and is taken down with the rest.
        let _turn = plane.deploys.lock().await;
        plane.replacing.store(true, Ordering::Release);
        Self(plane)
    }
}

impl Drop for Closed<'_> {
    fn drop(&mut self) {
        self.0.replacing.store(false, Ordering::Release);
    }
}

/// Takes down every app of this node, all at a time; tells the first thing that went wrong when all are done.
async fn take_down_all(plane: &Arc<Plane>, who: &Who) -> Result<(), Problem> {
    let services = plane.all_drivers().into_iter().map(|(id, _)| id.app);
    let shown = plane.jobs.shown();
    let jobs = shown.shelves.keys().map(|id| id.app.clone());
    let apps: BTreeSet<AppName> = services.chain(jobs).collect();
    let downs = apps.iter().map(|app| deploy::down(plane, app, who));
    for done in join_all(downs).await {
        match done {
            // Somebody else was faster.
            Err(problem) if problem.status == 404 => {}
            done => drop(done?),
        }
    }
    Ok(())
}

/// The one write that makes the state this node's. Who drives services and jobs is told in the same turn, and nothing fails
/// after the write.
async fn take_over(
    plane: &Arc<Plane>,
    opened: Opened,
    replace: bool,
) -> Result<(Opened, TakenOver), Problem> {
    let _turn = plane.deploys.lock().await;
    let (vault, key) = plane.vault.to_be_filled().await?;
    let opened = rekey(opened, key).await?;
    let tokens = plane.doorman.turn().await;
    let taken = plane.store.take_over(opened.copy(), replace).await?;
    let mut taken = taken.ok_or_else(occupied)?;
    tokens.admit(std::mem::take(&mut taken.tokens));
    drop(vault);
    plane.count_replicas(&taken.replicas);
    plane.jobs.reload().await;
    for row in std::mem::take(&mut taken.services) {
        deploy::tell_driver(plane, row).await;
    }
    Ok((opened, taken))
}

/// What is said when it ends between the two.
fn half_way(mut problem: Problem) -> Problem {
    problem.detail = format!(
        "{} (what was here is taken down, or still on its way, and nothing was put in: wait until `layby ls` shows nothing, then run it again)",
        problem.detail
    );
    problem
}

/// Where the node keeps what is gone with its next start.
fn temporary(plane: &Plane) -> PathBuf {
    plane.config.data_dir.join("tmp")
}

fn occupied() -> Problem {
    Problem::conflict(
        "this node has services, jobs or secrets, and a state is put into one that has none (nothing was changed)",
    )
    .hint("`layby state import FILE --replace` takes them down first; volumes stay")
}
