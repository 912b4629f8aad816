//! Tags that the node itself gives: an image of its store becomes one of a repository, as if it had been pushed.

use std::sync::PoisonError;

use super::digest::Digest;
use super::manifests::MAX_ENTRIES;
use super::repository::{Record, Repository, Tag};
use super::route::{self, Name};
use super::{Registry, images};
use crate::{Error, Reference};

/// Who pushed what the node found.
const SELF: &str = "root";

impl Registry {
    /// Gives the image with the manifest digest `image` a name of this registry, by which it can be pulled from now on:
    /// `to` is what [`super::Hosts::repository`] gave. It is not told as a push is: that is the caller's. Blocks.
    ///
    /// # Errors
    /// There is no such image, the name is no tag's, or the disk.
    pub fn adopt(&self, image: &str, to: &Reference, who: &str) -> Result<(), Error> {
        let bad = |reason| Error::BadReference {
            reference: to.short(),
            reason,
        };
        let (Some(tag), None) = (&to.tag, &to.digest) else {
            return Err(bad("a name that is given to an image cannot hold a digest"));
        };
        let name = Name::parse(&to.repository);
        let name = name.map_err(|_| bad("the registry takes no repository of this name"))?;
        let tag = route::tag(tag).map_err(|_| bad("the registry takes no tag of this name"))?;
        self.enter(image, &name, &tag, who)
            .map_err(|error| match error {
                Entering::Full => {
                    bad("its repository, or the registry, has as much as it may have: delete some of it first")
                }
                Entering::Failed(error) => error,
            })
    }

    /// Makes tags of the names of this registry that images have without one: those that came with another node's state.
    pub(super) fn adopt_names(&self) -> Result<(), Error> {
        for entry in self.store.index()?.manifests {
            let name = entry.ref_name().unwrap_or_default();
            let own = name.parse::<Reference>().ok();
            let Some(own) = own.filter(|own| own.registry == self.hosts.name) else {
                continue;
            };
            let known = match (Name::parse(&own.repository), &own.tag) {
                (Ok(name), Some(tag)) => Repository::new(&self.store, &name).tag(tag)?.is_some(),
                (Ok(_), None) | (Err(_), _) => true,
            };
            if known {
                continue;
            }
            if let Err(error) = self.adopt(&entry.digest, &own, SELF) {
                let error: &dyn std::error::Error = &error;
                tracing::warn!(
                    error,
                    name,
                    "an image cannot be pulled from the registry by its name"
                );
            }
        }
        Ok(())
    }

    fn enter(&self, image: &str, name: &Name, tag: &str, who: &str) -> Result<(), Entering> {
        let store = &self.store;
        let _turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        let _adding = store.adding()?;
        let (manifest, descriptor) = store.read_manifest(image)?;
        let repository = Repository::new(store, name);
        let digest = known(image)?;
        let is_new = repository.manifest(&digest)?.is_none();
        let is_new_tag = repository.tag(tag)?.is_none();
        if is_new && repository.manifests()?.len() >= MAX_ENTRIES
            || is_new_tag && repository.tags()?.len() >= MAX_ENTRIES
            || !repository.may_be_made()?
        {
            return Err(Entering::Full);
        }
        for part in manifest.layers.iter().chain([&manifest.config]) {
            if !store.has_blob(&part.digest, part.size) {
                return Err(Entering::Failed(Error::Malformed {
                    what: format!("the image {image}"),
                    reason: format!("its part {} is not on this node", part.digest),
                }));
            }
            repository.add_blob(&known(&part.digest)?, &part.digest)?;
        }
        let record = Record {
            sha256: image.to_owned(),
            media_type: descriptor.media_type.clone(),
            size: descriptor.size,
            // What runs is an image, and says nothing about another one.
            subject: None,
            artifact_type: None,
            annotations: None,
        };
        repository.add_manifest(&digest, &record)?;
        let to = Tag::now(&digest, who);
        images::set_tag(store, &self.hosts, name, tag, &to, Some(&descriptor))?;
        Ok(())
    }
}

enum Entering {
    /// The repository may not have more.
    Full,
    Failed(Error),
}

impl From<Error> for Entering {
    fn from(error: Error) -> Self {
        Self::Failed(error)
    }
}

fn known(digest: &str) -> Result<Digest, Error> {
    Digest::parse(digest).ok_or_else(|| Error::BadReference {
        reference: digest.to_owned(),
        reason: "it is not sha256: and 64 lower case hex digits",
    })
}
