//! The registry's tags as images of the node: what was pushed is already pulled.

use super::digest::Digest;
use super::hosts::Hosts;
use super::manifests;
use super::repository::{self, Record, Repository};
use super::route::Name;
use crate::layout::{
    CONFIG_TYPE, DOCKER_CONFIG_TYPE, DOCKER_LIST_TYPE, Descriptor, INDEX_TYPE, Manifest,
    architecture,
};
use crate::{Error, Reference, Store};

/// How deep an index may lie in others.
const MAX_DEPTH: u32 = 3;

/// The image that a manifest is, or that an index has for this machine. `None`: it is no image that could run here.
pub(super) fn of(
    store: &Store,
    repository: &Repository<'_>,
    record: &Record,
) -> Result<Option<Descriptor>, Error> {
    find(store, repository, record, 0)
}

fn find(
    store: &Store,
    repository: &Repository<'_>,
    record: &Record,
    depth: u32,
) -> Result<Option<Descriptor>, Error> {
    let path = store.blob_path(&record.sha256)?;
    let bytes = crate::blob::read_bounded(&path)?;
    if record.media_type != INDEX_TYPE && record.media_type != DOCKER_LIST_TYPE {
        return Ok(readable(store, record, &bytes));
    }
    let Ok(document) = manifests::parse(&bytes) else {
        return Ok(None);
    };
    for entry in document.manifests.iter().flatten() {
        let here = entry.platform.as_ref().is_none_or(|platform| {
            platform.os == "linux" && platform.architecture == architecture()
        });
        if !here || depth == MAX_DEPTH {
            continue;
        }
        let Some(digest) = Digest::parse(&entry.digest) else {
            continue;
        };
        if let Some(record) = repository.manifest(&digest)?
            && let Some(image) = find(store, repository, &record, depth + 1)?
        {
            return Ok(Some(image));
        }
    }
    Ok(None)
}

/// The descriptor of an image that the store can read whole. Artifacts, images with layers elsewhere and the like are
/// no less welcome, but nothing that runs.
fn readable(store: &Store, record: &Record, bytes: &[u8]) -> Option<Descriptor> {
    let manifest = Manifest::from_json(bytes, "a manifest").ok()?;
    if ![CONFIG_TYPE, DOCKER_CONFIG_TYPE].contains(&manifest.config.media_type.as_str()) {
        return None;
    }
    for layer in &manifest.layers {
        if !store.blob_path(&layer.digest).ok()?.exists() {
            return None;
        }
    }
    let config = store.read_config(&manifest).ok()?;
    (config.diff_ids.len() == manifest.layers.len())
        .then(|| Descriptor::new(&record.media_type, &record.sha256, record.size))
}

/// Gives the tag's name to its image, or takes the name away. The caller keeps the garbage collection off.
pub(super) fn enter(
    store: &Store,
    hosts: &Hosts,
    name: &Name,
    tag: &str,
    image: Option<&Descriptor>,
) -> Result<(), Error> {
    let text = format!("{}/{}:{tag}", hosts.name, name.as_str());
    let reference: Reference = text.parse()?;
    match image {
        Some(image) => store.put_in_index(image, &[reference]),
        None => match store.remove(&text) {
            Ok(()) | Err(Error::NotFound { .. }) => Ok(()),
            Err(error) => Err(error),
        },
    }
}

/// Takes a tag away, its name first: after a crash between the two the tag has its name again, and never the other way
/// round. `false`: there is no such tag.
pub(super) fn untag(store: &Store, hosts: &Hosts, name: &Name, tag: &str) -> Result<bool, Error> {
    let _adding = store.adding()?;
    enter(store, hosts, name, tag, None)?;
    Repository::new(store, name).remove_tag(tag)
}

/// Makes the index of images say what the tags say: a crash may have come between the two.
pub(super) fn mend(store: &Store, hosts: &Hosts) -> Result<(), Error> {
    let _adding = store.adding()?;
    let index = store.index()?;
    for name in repository::all(store)? {
        let repository = Repository::new(store, &name);
        for tag in repository.tags()? {
            let to = repository
                .tag(&tag)?
                .and_then(|to| Digest::parse(&to.digest));
            let Some(to) = to else { continue };
            let record = repository.manifest(&to)?;
            let image = match &record {
                Some(record) => of(store, &repository, record)?,
                None => None,
            };
            let text = format!("{}/{}:{tag}", hosts.name, name.as_str());
            let entered = index.manifests.iter().find(|e| e.ref_name() == Some(&text));
            let same = entered.map(|e| &e.digest) == image.as_ref().map(|image| &image.digest);
            if !same {
                enter(store, hosts, &name, &tag, image.as_ref())?;
            }
        }
    }
    Ok(())
}
