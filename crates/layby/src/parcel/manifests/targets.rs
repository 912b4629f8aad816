//! `up [PATH] [SERVICE...]`: which of the words is a path, and which are services.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use layby_manifest::service_names;

use super::{Manifests, Picked};
use crate::cli::{Manifest, What};

impl Manifests {
    /// Reads those that `what` means, with the services that it names.
    ///
    /// # Errors
    /// As [`Manifests::read`]; a word is neither a path nor a service.
    pub(crate) fn read_what(what: What) -> Result<Self> {
        let What {
            mut manifest,
            targets,
            no_deps,
            scale,
        } = what;
        let mut services = targets;
        if let Some(first) = services.first()
            && is_place(first, &manifest)
        {
            manifest.path = Some(PathBuf::from(services.remove(0)));
        }
        let read = Self::read(&manifest);
        let read = match services.first() {
            Some(first) => {
                read.with_context(|| format!("{first:?} is no path, and as for a service"))
            }
            None => read,
        };
        let mut manifests = read?;
        if no_deps && services.is_empty() {
            bail!("--no-deps goes with the names of services: without any, all are deployed");
        }
        manifests.picked = Picked {
            services,
            no_deps,
            scale,
        };
        Ok(manifests)
    }
}

/// Whether the first word says where the manifest is. What looks like a name is one if a service of the manifest here has
/// it, whatever folders there are.
fn is_place(word: &str, options: &Manifest) -> bool {
    if !options.files.is_empty() || options.project_directory.is_some() {
        return false; // it is said already
    }
    let is_file = word.ends_with(".yaml") || word.ends_with(".yml");
    if word.contains('/') || matches!(word, "." | "..") || is_file {
        return true;
    }
    Path::new(word).exists() && !is_service_here(word, options)
}

/// Whether a service of the manifest that is meant without a path has this name.
fn is_service_here(word: &str, options: &Manifest) -> bool {
    Manifests::read(options).is_ok_and(|manifests| {
        let (files, options) = manifests.as_read();
        service_names(&files, &options)
            .iter()
            .any(|name| name == word)
    })
}
