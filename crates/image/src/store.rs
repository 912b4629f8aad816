//! The image store: an OCI image layout (image-spec, image-layout.md) with unpacked layers beside it.

use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use crate::{Error, ImageConfig};

/// An image as it lies in the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Image {
    /// Its names, canonical (`docker.io/library/mnist:1.1.0`), sorted; empty when untagged.
    pub references: Vec<String>,
    /// The digest of its manifest, `sha256:...`.
    pub digest: String,
    /// Bytes of its blobs (as stored: layers usually compressed).
    pub size_bytes: u64,
    /// When it was made (RFC 3339), as the image says.
    pub created: Option<String>,
    /// How to run it.
    pub config: ImageConfig,
}

/// The form of an archive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// A tar of an OCI image layout.
    Oci,
    /// What `docker save` writes and every `docker load` reads.
    Docker,
}

/// A directory of images. Safe to share between threads, and the directory between processes.
#[derive(Debug)]
pub struct Store {
    dir: PathBuf,
}

impl Store {
    /// Opens the store, making the directory when it is not there.
    pub fn open(dir: &Path) -> Result<Self, Error> {
        Ok(Self {
            dir: dir.to_owned(),
        })
    }
    /// The image that a reference (or a digest) means.
    pub fn resolve(&self, reference: &str) -> Result<Image, Error> {
        todo!("{reference} {}", self.dir.display())
    }
    /// The image with this manifest digest, tagged or not.
    pub fn get(&self, digest: &str) -> Result<Image, Error> {
        todo!("{digest}")
    }
    /// All images of the index, by name.
    pub fn list(&self) -> Result<Vec<Image>, Error> {
        todo!()
    }
    /// Takes the name from its image. The content stays until [`Store::gc`].
    pub fn remove(&self, reference: &str) -> Result<(), Error> {
        todo!("{reference}")
    }
    /// Gives the image a (further) name; the name is taken from the image that had it.
    pub fn tag(&self, digest: &str, reference: &str) -> Result<(), Error> {
        todo!("{digest} {reference}")
    }
    /// Loads all images of an OCI or docker archive (also gzip or zstd compressed).
    pub fn load(&self, reader: impl Read) -> Result<Vec<Image>, Error> {
        drop(reader);
        todo!()
    }
    /// Writes images as one archive.
    pub fn save(
        &self,
        references: &[String],
        format: Format,
        writer: impl Write,
    ) -> Result<(), Error> {
        drop(writer);
        todo!("{references:?} {format:?}")
    }
    /// The image's unpacked layers for overlayfs `lowerdir=`, topmost first; unpacks what is not unpacked yet.
    pub fn layers(&self, digest: &str) -> Result<Vec<PathBuf>, Error> {
        todo!("{digest}")
    }
    /// Removes what neither the index nor a digest `in_use` reaches. Returns the bytes freed.
    pub fn gc(&self, in_use: &[String]) -> Result<u64, Error> {
        todo!("{in_use:?}")
    }
}
