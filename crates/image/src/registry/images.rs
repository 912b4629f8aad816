//! The registry's tags as images of the node: what was pushed is already pulled.

use super::digest::Digest;
use super::hosts::Hosts;
use super::manifests;
use super::repository::{self, Record, Repository, Tag};
use super::route::Name;
use crate::layout::{
    CONFIG_TYPE, DOCKER_CONFIG_TYPE, DOCKER_LIST_TYPE, Descriptor, INDEX_TYPE, Index, Manifest,
    architecture,
};
use crate::{Error, Reference, Source, Store};

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
        return readable(store, repository, record, &bytes);
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

/// The descriptor of an image that the store can read whole, and whose parts are all the repository's: what others have
/// in the store is not for whoever knows its digest. Artifacts, images with layers elsewhere and the like are no less
/// welcome, but nothing that runs.
fn readable(
    store: &Store,
    repository: &Repository<'_>,
    record: &Record,
    bytes: &[u8],
) -> Result<Option<Descriptor>, Error> {
    let Ok(manifest) = Manifest::from_json(bytes, "a manifest") else {
        return Ok(None);
    };
    if ![CONFIG_TYPE, DOCKER_CONFIG_TYPE].contains(&manifest.config.media_type.as_str()) {
        return Ok(None);
    }
    for part in manifest.layers.iter().chain([&manifest.config]) {
        let own = match Digest::parse(&part.digest) {
            Some(digest) => repository.blob(&digest)?,
            None => None,
        };
        if own.is_none() || !store.blob_path(&part.digest)?.exists() {
            return Ok(None);
        }
    }
    let Ok(config) = store.read_config(&manifest) else {
        return Ok(None);
    };
    let fits = config.diff_ids.len() == manifest.layers.len();
    Ok(fits.then(|| Descriptor::new(&record.media_type, &record.sha256, record.size)))
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
        Some(image) => store.put_in_index(image, &[reference], &Source::Here),
        None => match store.remove(&text) {
            Ok(()) | Err(Error::NotFound { .. }) => Ok(()),
            Err(error) => Err(error),
        },
    }
}

/// Lets a tag lead to a manifest and gives its name to the image, or does neither. The caller keeps the garbage
/// collection off.
pub(super) fn set_tag(
    store: &Store,
    hosts: &Hosts,
    name: &Name,
    tag: &str,
    to: &Tag,
    image: Option<&Descriptor>,
) -> Result<(), Error> {
    let repository = Repository::new(store, name);
    let before = repository.tag(tag)?;
    repository.set_tag(tag, to)?;
    let entered = enter(store, hosts, name, tag, image);
    if entered.is_err() {
        match before {
            Some(before) => repository.set_tag(tag, &before)?,
            None => repository.remove_tag(tag).map(drop)?,
        }
    }
    entered
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
            // What cannot be read or entered is this tag's trouble, and not that of the whole node.
            if let Err(error) = mend_tag(store, hosts, &index, &name, &tag) {
                let error: &dyn std::error::Error = &error;
                tracing::warn!(
                    error,
                    repository = name.as_str(),
                    tag,
                    "where a tag of the registry leads could not be read: push it again"
                );
            }
        }
    }
    Ok(())
}

fn mend_tag(
    store: &Store,
    hosts: &Hosts,
    index: &Index,
    name: &Name,
    tag: &str,
) -> Result<(), Error> {
    let repository = Repository::new(store, name);
    let to = repository.tag(tag)?;
    let Some(to) = to.and_then(|to| Digest::parse(&to.digest)) else {
        return Ok(());
    };
    let image = match repository.manifest(&to)? {
        Some(record) => of(store, &repository, &record)?,
        None => None,
    };
    let text = format!("{}/{}:{tag}", hosts.name, name.as_str());
    let entered = index.manifests.iter().find(|e| e.ref_name() == Some(&text));
    if entered.map(|e| &e.digest) != image.as_ref().map(|image| &image.digest) {
        enter(store, hosts, name, tag, image.as_ref())?;
    }
    Ok(())
}
