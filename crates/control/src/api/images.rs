//! Images of the node's store.

use std::io::{self, Write};
use std::sync::Arc;

use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::http::{StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use layby_image::registry::Hosts;
use layby_image::{Format, Image, Reference};
use layby_model::error_chain;

use super::body::MaySay;
use super::page::Page;
use super::pipe;
use super::query::{self, Pairs};
use super::types::{ImageDetail, ImageView, LayerView, Problem, PruneBody, PruneView};
use super::{Shared, Who};
use crate::deploy::images;
use crate::plane::Plane;
use crate::reach::Reach;
use crate::store::Revision;

/// Every image of the store.
#[utoipa::path(
    get,
    path = "/v1/images",
    params(
        ("limit" = Option<u32>, Query, description = "So many at most; all otherwise", minimum = 1, maximum = 1000),
        ("cursor" = Option<String>, Query, description = "Go on after the page whose `Link` named this"),
    ),
    responses(
        (status = 200, body = [ImageView], headers(("Link" = Option<String>, description = "The next page (RFC 8288, `rel=\"next\"`), if there is one"))),
    )
)]
pub(super) async fn list(
    State(plane): Shared,
    who: Who,
    uri: Uri,
    pairs: Pairs,
) -> Result<Response, Problem> {
    let page = Page::or_whole(&pairs)?;
    let reach = Reach::of(&plane, &who.rights).await?;
    let mut images = blocking(&plane, |store| store.list()).await?;
    images.retain(|image| reach.has(image));
    if page.is_cut() {
        images.sort_by(|a, b| a.digest.cmp(&b.digest));
    }
    let (images, link) = page.cut(images, &uri, |image| image.digest.clone());
    let views: Vec<ImageView> = images
        .into_iter()
        .map(|image| seen(&reach, image))
        .collect();
    Ok((link, Json(views)).into_response())
}

/// An image with those of its names that may be seen.
fn seen(reach: &Reach, image: Image) -> ImageView {
    let references = reach.shown(image.references);
    let mut built_for = image.built_for;
    built_for.retain(|name, _| references.contains(name));
    view(&Image {
        references,
        built_for,
        ..image
    })
}

/// Takes a name from its image.
#[utoipa::path(
    delete,
    path = "/v1/images",
    params(("reference" = String, Query)),
    responses(
        (status = 204, description = "It is gone"),
        (status = 404, body = Problem, content_type = "application/problem+json"),
        (status = 409, body = Problem, content_type = "application/problem+json", description = "A service runs it"),
    )
)]
pub(super) async fn remove(
    State(plane): Shared,
    who: Who,
    pairs: Pairs,
) -> Result<StatusCode, Problem> {
    let named = required(&pairs)?;
    let reach = Reach::of(&plane, &who.rights).await?;
    reach.forget(&named)?;
    let reference = reach.meant(&named).await?;
    let hosts = plane.desk.registry.hosts();
    let name = reference.clone();
    let image = seen_by(&reach, &reference, move |store| store.resolve(&name)).await?;
    // By its digest it loses all of its names.
    let all = reference == image.digest;
    let is_last = all || image.references.len() <= 1;
    for row in plane.store.services().await? {
        for revision in row.live.iter().chain([&row.target]) {
            let why = match used(revision, &image, &reference, hosts) {
                Some(_) if is_last => "",
                Some(true) => " by this name",
                Some(false) | None => continue,
            };
            let app = row.service.app.as_str();
            // Of other apps who is limited to some is told nothing.
            let (whose, hint) = match who.rights.covers(app) {
                true => (row.service.to_string(), format!("`layby down {app}` first")),
                false => (
                    "another app".to_owned(),
                    "an admin can take it down".to_owned(),
                ),
            };
            let text = format!("{whose} runs the image {reference}{why}");
            return Err(Problem::conflict(text).hint(hint));
        }
    }
    let names = match all {
        true => image.references,
        false => vec![reference.clone()],
    };
    let task_plane = Arc::clone(&plane);
    blocking(&plane, move |store| {
        for name in names {
            task_plane.desk.forget(store, &name)?;
        }
        match (reference == image.digest).then(|| store.remove(&reference)) {
            // What had names has gone with them.
            None | Some(Ok(()) | Err(layby_image::Error::NotFound { .. })) => Ok(()),
            Some(Err(error)) => Err(error),
        }
    })
    .await?;
    plane.collector.ring();
    Ok(StatusCode::NO_CONTENT)
}

/// Whether a revision runs the image by this name; `None`: it does not run it.
fn used(revision: &Revision, image: &Image, name: &str, hosts: &Hosts) -> Option<bool> {
    let parsed = |name: &str| hosts.canonical(name).parse::<Reference>().ok();
    let name = parsed(name);
    let containers = &revision.spec.service.containers;
    let mut run = (containers.iter().zip(&revision.spec.images))
        .filter(|(_, digest)| **digest == image.digest)
        .map(|(container, _)| parsed(&container.image) == name)
        .peekable();
    run.peek()?;
    Some(run.any(|by_name| by_name))
}

/// Lets go of what no revision needs, and says what went.
#[utoipa::path(
    post,
    path = "/v1/images/prune",
    request_body = Option<PruneBody>,
    responses(
        (status = 200, body = PruneView),
        (status = 400, body = Problem, content_type = "application/problem+json"),
        (status = 409, body = Problem, content_type = "application/problem+json", description = "Builds or deploys are under way"),
    )
)]
pub(super) async fn prune(
    State(plane): Shared,
    MaySay(body): MaySay<PruneBody>,
) -> Result<Json<PruneView>, Problem> {
    Ok(Json(crate::prune::prune(&plane, body).await?))
}

/// Loads all images of an OCI or docker archive. Those with a name of the node's own registry can be pulled there.
#[utoipa::path(
    post,
    path = "/v1/images/load",
    request_body(content_type = "application/x-tar"),
    responses(
        (status = 200, body = [ImageView]),
        (status = 422, body = Problem, content_type = "application/problem+json"),
        (status = 507, body = Problem, content_type = "application/problem+json", description = "The disk is full"),
    )
)]
pub(super) async fn load(
    State(plane): Shared,
    body: Body,
) -> Result<Json<Vec<ImageView>>, Problem> {
    let reader = pipe::reader(body);
    // A collection waits for loads; deploys are not to wait for it meanwhile.
    let _kept = plane.collector.keep().await;
    let store = Arc::clone(&plane.images);
    let loaded = plane.at_clients_pace(move || store.load(reader)).await;
    let images = loaded.await.map_err(broke_off)??;
    for image in &images {
        images::push_own(&plane, &image.digest, &image.references).await?;
    }
    plane.desk.pushed();
    // As they are called now: one name of the registry stands for all that it has.
    let again = blocking(&plane, move |store| {
        let images = images.iter().map(|image| store.get(&image.digest));
        images.collect::<Result<Vec<Image>, _>>()
    });
    Ok(Json(again.await?.iter().map(view).collect()))
}

/// Writes images as one archive.
#[utoipa::path(
    get,
    path = "/v1/images/save",
    params(
        ("reference" = Vec<String>, Query, description = "The images"),
        ("format" = Option<String>, Query, description = "`oci` or `docker` (the default)"),
    ),
    responses(
        (status = 200, content_type = "application/x-tar", description = "The archive"),
        (status = 404, body = Problem, content_type = "application/problem+json"),
    )
)]
pub(super) async fn save(
    State(plane): Shared,
    who: Who,
    pairs: Pairs,
) -> Result<Response, Problem> {
    required(&pairs)?;
    let reach = Reach::of(&plane, &who.rights).await?;
    let mut references = Vec::new();
    for name in query::all(&pairs, "reference") {
        references.push(reach.meant(&name).await?);
    }
    let format = match query::get(&pairs, "format") {
        None | Some("docker") => Format::Docker,
        Some("oci") => Format::Oci,
        Some(other) => {
            let text = format!("there is no archive format {other:?}: use oci or docker");
            return Err(Problem::bad_request(text));
        }
    };
    // Whether they are there is said before the answer begins.
    for name in &references {
        let named = name.clone();
        let image = seen_by(&reach, name, move |store| store.resolve(&named)).await?;
        reach.see(&image, name)?;
    }
    let (mut writer, body) = pipe::writer();
    let store = Arc::clone(&plane.images);
    // What is being read is not to be collected.
    let kept = plane.collector.keep().await;
    let save = move || {
        let saved = store.save(&references, format, &mut writer);
        let ended = saved.map_err(|error| error_chain(&error));
        let ended = ended.and_then(|()| writer.flush().map_err(|error| error.to_string()));
        if let Err(error) = &ended {
            tracing::warn!(error, "an archive was broken off");
        }
        writer.end(ended.map_err(io::Error::other));
        drop(kept);
    };
    drop(plane.at_clients_pace(save).await);
    Ok(([(header::CONTENT_TYPE, "application/x-tar")], body).into_response())
}

/// Everything that an image says of itself.
#[utoipa::path(
    get,
    path = "/v1/images/inspect",
    params(("reference" = String, Query)),
    responses(
        (status = 200, body = ImageDetail),
        (status = 404, body = Problem, content_type = "application/problem+json"),
    )
)]
pub(super) async fn inspect(
    State(plane): Shared,
    who: Who,
    pairs: Pairs,
) -> Result<Json<ImageDetail>, Problem> {
    let reach = Reach::of(&plane, &who.rights).await?;
    let reference = reach.meant(&required(&pairs)?).await?;
    let name = reference.clone();
    let found = seen_by(&reach, &name, move |store| store.inspect(&reference)).await?;
    reach.see(&found.image, &name)?;
    let layers = found.layers.into_iter().map(|layer| LayerView {
        digest: layer.digest,
        diff_id: layer.diff_id,
        media_type: layer.media_type,
        size_bytes: layer.size_bytes,
    });
    Ok(Json(ImageDetail {
        image: seen(&reach, found.image),
        media_type: found.media_type,
        config_digest: found.config_digest,
        config: found.config,
        layers: layers.collect(),
    }))
}

/// Gives an image a further name.
#[utoipa::path(
    post,
    path = "/v1/images/tag",
    params(
        ("reference" = String, Query, description = "The image"),
        ("to" = String, Query, description = "The name; another image that has it loses it. One of the node's own registry can be pulled there"),
    ),
    responses(
        (status = 204, description = "It has it"),
        (status = 404, body = Problem, content_type = "application/problem+json"),
        (status = 422, body = Problem, content_type = "application/problem+json"),
    )
)]
pub(super) async fn tag(
    State(plane): Shared,
    who: Who,
    pairs: Pairs,
) -> Result<StatusCode, Problem> {
    let reach = Reach::of(&plane, &who.rights).await?;
    let hosts = plane.desk.registry.hosts();
    let reference = reach.meant(&required(&pairs)?).await?;
    let to = query::get(&pairs, "to").map(|to| hosts.canonical(to));
    let to = to.ok_or_else(|| Problem::bad_request("say which name to give: &to=NAME"))?;
    reach.name(&to)?;
    let _kept = plane.collector.keep().await;
    let task_plane = Arc::clone(&plane);
    let (own, name) = (Arc::clone(&reach), reference.clone());
    seen_by(&own, &name, move |store| {
        let image = store.resolve(&reference)?;
        reach.see(&image, &reference)?;
        task_plane.desk.tag(store, &image.digest, &to)
    })
    .await?;
    plane.desk.pushed();
    Ok(StatusCode::NO_CONTENT)
}

pub(super) fn required(pairs: &Pairs) -> Result<String, Problem> {
    let reference = query::get(pairs, "reference");
    let missing = || Problem::bad_request("say which image: ?reference=NAME");
    reference.map(str::to_owned).ok_or_else(missing)
}

/// Looks for the image of this name in the store, as somebody who may not see all of it.
async fn seen_by<T: Send + 'static>(
    reach: &Arc<Reach>,
    name: &str,
    work: impl FnOnce(&layby_image::Store) -> Result<T, layby_image::Error> + Send + 'static,
) -> Result<T, Problem> {
    let (task, name) = (Arc::clone(reach), name.to_owned());
    blocking(reach.plane(), move |store| {
        work(store).map_err(|error| task.tellable(&name, error))
    })
    .await
}

/// Runs something on the image store, off the async threads.
async fn blocking<T: Send + 'static>(
    plane: &Plane,
    work: impl FnOnce(&layby_image::Store) -> Result<T, layby_image::Error> + Send + 'static,
) -> Result<T, Problem> {
    let store = Arc::clone(&plane.images);
    let done = tokio::task::spawn_blocking(move || work(&store)).await;
    Ok(done.map_err(broke_off)??)
}

pub(super) fn broke_off(error: tokio::task::JoinError) -> Problem {
    Problem::failed(error_chain(&error))
}

pub(super) fn view(image: &Image) -> ImageView {
    ImageView {
        references: image.references.iter().map(|name| short(name)).collect(),
        digest: image.digest.clone(),
        size_bytes: image.size_bytes,
        created: image.created.clone(),
        since: image
            .since
            .and_then(|since| jiff::Timestamp::try_from(since).ok())
            .map(|since| since.to_string()),
        built_for: image
            .built_for
            .iter()
            .map(|(name, whom)| (short(name), whom.clone()))
            .collect(),
        platform: image.platform.clone(),
    }
}

/// A name as people write it.
fn short(name: &str) -> String {
    name.parse().map_or_else(
        |_| name.to_owned(),
        |reference: Reference| reference.short(),
    )
}
