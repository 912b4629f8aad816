//! The image store: an OCI image layout (image-spec, image-layout.md) with unpacked layers beside it.
//!
//! ```text
//! oci-layout  index.json  blobs/sha256/<hex>   the layout: what is an image here is what index.json names
//! layers/<hex of the diff id>/                 unpacked layers, in overlayfs form
//! diffs/<hex of a layer's blob>                its diff id, once somebody has looked
//! cache/<hex of the key>                       which layer a build step made
//! cache-mounts/<hex of the id>/                what `RUN --mount=type=cache` keeps from build to build
//! origins/<hex of a manifest>                  which other registry is known to have that image
//! contexts/<hex of owner and place>/           build contexts as they were sent last (see `contexts.rs`)
//! registry/                                    which repository has what (see `registry/repository.rs`)
//! tmp/  trash/  locks/                         unfinished things; what is being deleted; flock files
//! ```
//! Everything appears under its name only when it is whole and on disk, so a crash loses nothing that was there.

mod index;

pub use index::{ImageName, Source, meant_among, similar};

use std::collections::BTreeMap;
use std::fs::{self, DirBuilder, File};
use std::io::{Read, Write};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use crate::blob::{self, BlobWriter, Spooled};
use crate::build::secrets;
use crate::client::Platform;
use crate::config::Parsed;
use crate::error::{io_error, storing};
use crate::layout::{self, Descriptor, Index, MANIFEST_TYPE, Manifest};
use crate::{
    Error, ImageConfig, Measured, PruneOptions, Pruned, Reference, archive, digest, gc, layer,
    lock, origin, prune,
};

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
    /// When it came to be in the store; `None`: the file system does not say.
    pub since: Option<SystemTime>,
    /// Those of its names that were built here for somebody, and for whom ([`Source::For`]).
    pub built_for: BTreeMap<String, String>,
    /// What it is for, as the image says: `linux/amd64`.
    pub platform: Option<String>,
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
    /// Opens the store, making the directory (0700) when it is not there. Leftovers of a crash are swept away.
    pub fn open(dir: &Path) -> Result<Self, Error> {
        let store = Self {
            dir: dir.to_owned(),
        };
        for part in [
            "",
            "blobs/sha256",
            "layers",
            "diffs",
            "trash",
            "cache",
            "cache-mounts",
            "contexts",
            "unnamed",
            "origins",
            "tmp",
            "locks",
        ] {
            let path = dir.join(part);
            let made = DirBuilder::new().recursive(true).mode(0o700).create(&path);
            made.map_err(storing("the image store", &path))?;
        }
        if let Some(_alone) = lock::try_exclusive(&store.locks_dir(), lock::CONTENT)? {
            gc::empty_dir(&store.temp_dir())?;
            // Nobody moves anything there now.
            if let Some(_deleting) = lock::try_exclusive(&store.locks_dir(), lock::TRASH)? {
                gc::empty_dir(&store.trash_dir())?;
            }
        }
        secrets::sweep();
        let _adding = store.adding()?;
        let _index = lock::exclusive(&store.locks_dir(), lock::INDEX)?;
        for (name, text) in [
            ("oci-layout", layout::OCI_LAYOUT.as_bytes()),
            ("index.json", &layout::to_json(&Index::default())),
        ] {
            let path = dir.join(name);
            if !path.exists() {
                blob::replace_file(&store.temp_dir(), &path, text, "the image store")?;
            }
        }
        Ok(store)
    }

    /// The image that a reference means: `mnist`, `mnist:1.1.0`, `mnist@sha256:...` or just `sha256:...`.
    ///
    /// # Errors
    /// [`Error::NotFound`] names up to three images with a like name.
    pub fn resolve(&self, reference: &str) -> Result<Image, Error> {
        if digest::hex_of(reference).is_some() {
            return self.get(reference);
        }
        let wanted: Reference = reference.parse()?;
        let index = self.index()?;
        let name = wanted.to_string();
        let entry = index
            .manifests
            .iter()
            .find(|entry| entry.ref_name() == Some(&name));
        // A digest may be an index's, which only the name it was pulled by leads on from.
        match (entry, &wanted.digest) {
            (Some(entry), _) => self.image(&entry.digest, &index),
            (None, Some(digest)) => self.image(digest, &index),
            (None, None) => Err(Error::NotFound {
                reference: wanted.short(),
                similar: similar(&wanted, index.names()),
            }),
        }
    }

    /// What a person's text means: an id (at least 6 hex digits that only one image's digest begins with, with or without
    /// `sha256:`) is that digest; anything else, and what is a name, is as it was given.
    ///
    /// # Errors
    /// [`Error::BadReference`]: several digests begin so.
    pub fn meant(&self, text: &str) -> Result<String, Error> {
        let index = self.index()?;
        let known = index.manifests.iter();
        meant_among(text, known.map(|entry| (entry.ref_name(), &*entry.digest)))
    }

    /// The image with this manifest digest, tagged or not.
    pub fn get(&self, digest: &str) -> Result<Image, Error> {
        self.image(digest, &self.index()?)
    }

    /// All images of the index, by name.
    pub fn list(&self) -> Result<Vec<Image>, Error> {
        let index = self.index()?;
        let mut digests: Vec<&str> = index
            .manifests
            .iter()
            .map(|entry| entry.digest.as_str())
            .collect();
        digests.sort_unstable();
        digests.dedup();
        let images: Result<Vec<Image>, Error> = digests
            .iter()
            .map(|digest| self.image(digest, &index))
            .collect();
        let mut images = images?;
        images.sort_by(|a, b| (&a.references, &a.digest).cmp(&(&b.references, &b.digest)));
        Ok(images)
    }

    /// Takes the name from its image; given a digest, takes all of its names. The content stays until [`Store::gc`].
    pub fn remove(&self, reference: &str) -> Result<(), Error> {
        let (name, shown) = if digest::hex_of(reference).is_some() {
            (reference.to_owned(), reference.to_owned())
        } else {
            let parsed: Reference = reference.parse()?;
            (parsed.to_string(), parsed.short())
        };
        let _adding = self.adding()?;
        let not_found = self.update_index(|index| {
            let before = index.manifests.len();
            index
                .manifests
                .retain(|entry| entry.ref_name() != Some(&name) && entry.digest != name);
            (index.manifests.len() == before).then(|| match reference.parse() {
                Ok(parsed) => similar(&parsed, index.names()),
                Err(_) => Vec::new(),
            })
        })?;
        match not_found {
            None => Ok(()),
            Some(similar) => Err(Error::NotFound {
                reference: shown,
                similar,
            }),
        }
    }

    /// Gives the image a (further) name; the name is taken from the image that had it.
    pub fn tag(&self, digest: &str, reference: &str) -> Result<(), Error> {
        let reference: Reference = reference.parse()?;
        if reference.digest.is_some() {
            return Err(Error::BadReference {
                reference: reference.to_string(),
                reason: "a name that is given to an image cannot hold a digest",
            });
        }
        let _adding = self.adding()?;
        let (_, descriptor) = self.read_manifest(digest)?;
        self.put_in_index(&descriptor, &[reference], &Source::Here)
    }

    /// Loads all images of an OCI or docker archive (also gzip or zstd compressed).
    ///
    /// # Errors
    /// When anything in it is broken nothing is loaded.
    pub fn load(&self, reader: impl Read) -> Result<Vec<Image>, Error> {
        archive::load(self, reader, &archive::Limits::default())
    }

    /// Writes images as one archive.
    pub fn save(
        &self,
        references: &[String],
        format: Format,
        writer: impl Write,
    ) -> Result<(), Error> {
        archive::save(self, references, format, writer)
    }

    /// The image's unpacked layers for overlayfs `lowerdir=`, topmost first; unpacks what is not unpacked yet.
    ///
    /// Never empty: an image without layers has one empty directory.
    pub fn layers(&self, digest: &str) -> Result<Vec<PathBuf>, Error> {
        let (manifest, _) = self.read_manifest(digest)?;
        let diff_ids = self.read_config(&manifest)?.diff_ids;
        layer::unpacked(self, &manifest.layers, &diff_ids)
    }

    /// Lets go of names, build caches and untagged manifests as the options say, and collects. See [`PruneOptions`].
    pub fn prune(&self, options: &PruneOptions) -> Result<Pruned, Error> {
        self.prune_measured(options, self.measure()?, || ())
    }

    /// How much everything takes. It looks at every file, and nobody need be kept away meanwhile.
    pub fn measure(&self) -> Result<Measured, Error> {
        prune::measure(self)
    }

    /// As [`Store::prune`], where most is measured already. `moved` is called when all is out of the way that goes, and others
    /// need not be kept away any more: deleting takes long.
    pub fn prune_measured(
        &self,
        options: &PruneOptions,
        measured: Measured,
        moved: impl FnOnce(),
    ) -> Result<Pruned, Error> {
        prune::prune(self, options, measured, moved)
    }

    /// The reference by which another registry is known to have the image: it was pulled from there, or pushed there.
    /// `None`: it was built or loaded here.
    pub fn origin(&self, digest: &str) -> Option<String> {
        origin::of(self, digest)
    }

    /// Says where an image has a name from that it got by being loaded. A name that means another image by now is left alone.
    pub fn set_source(&self, name: &ImageName) -> Result<(), Error> {
        let _adding = self.adding()?;
        let (_, descriptor) = self.read_manifest(&name.digest)?;
        let is_so = |known: &ImageName| {
            (&known.reference, &known.digest) == (&name.reference, &name.digest)
        };
        match self.names()?.iter().any(is_so) {
            true => self.put_in_index(&descriptor, &[name.reference.parse()?], &name.source),
            false => Ok(()),
        }
    }

    /// Notes that another registry has the image, by this reference, as far as somebody says who knows.
    pub fn note_origin(&self, digest: &str, reference: &str) -> Result<(), Error> {
        let _adding = self.adding()?;
        self.read_manifest(digest)?;
        origin::note(self, digest, &reference.parse()?)
    }

    /// Notes that an image is used now: pruning takes first what was not used for the longest time.
    pub fn touch(&self, digest: &str) -> Result<(), Error> {
        let path = self.blob_path(digest)?;
        let file = File::open(&path).map_err(io_error("open", &path))?;
        let now = SystemTime::now();
        file.set_modified(now)
            .map_err(io_error("set the time of", &path))
    }

    /// Removes what neither the index nor a manifest digest `in_use` reaches. Returns the bytes of the blobs removed.
    ///
    /// Builds and loads wait for it.
    ///
    /// # Errors
    /// [`Error::Busy`] when some are under way and are not done in a moment.
    pub fn gc(&self, in_use: &[String]) -> Result<u64, Error> {
        self.gc_then(in_use, || ())
    }

    /// The same; `moved` is called when all is out of the way that goes, and only deleting it is left.
    ///
    /// # Errors
    /// As [`Store::gc`].
    pub fn gc_then(&self, in_use: &[String], moved: impl FnOnce()) -> Result<u64, Error> {
        gc::collect(self, in_use, moved)
    }

    fn image(&self, digest: &str, index: &Index) -> Result<Image, Error> {
        let (manifest, descriptor) = self.read_manifest(digest)?;
        let parsed = self.read_config(&manifest)?;
        let entries = index.manifests.iter();
        let named = entries.filter(|entry| entry.digest == digest);
        let named =
            named.filter_map(|entry| Some((entry.ref_name()?.to_owned(), Source::of(entry))));
        let (mut references, mut built_for) = (Vec::new(), BTreeMap::new());
        for (name, source) in named {
            if let Source::For(whom) = source {
                built_for.insert(name.clone(), whom);
            }
            references.push(name);
        }
        references.sort_unstable();
        // Whoever uses it changes all times but this one.
        let made = fs::metadata(self.blob_path(digest)?).and_then(|found| found.created());
        let parts = manifest
            .layers
            .iter()
            .chain([&manifest.config, &descriptor]);
        Ok(Image {
            since: made.ok(),
            built_for,
            references,
            digest: digest.to_owned(),
            size_bytes: parts.map(|part| part.size).sum(),
            created: parsed.created,
            platform: (parsed.platform.as_ref())
                .map(|platform| Platform::from(platform).to_string()),
            config: parsed.config,
        })
    }

    // What follows is for the other modules of the crate.

    /// Reads the manifest with this digest, checked, and its descriptor.
    pub(crate) fn read_manifest(&self, digest: &str) -> Result<(Manifest, Descriptor), Error> {
        let path = self.blob_path(digest)?;
        if !path.exists() {
            return Err(Error::NotFound {
                reference: digest.to_owned(),
                similar: Vec::new(),
            });
        }
        let what = format!("the manifest {digest}");
        let bytes = blob::read_document(&path, digest, &what)?;
        let manifest = Manifest::from_json(&bytes, &what)?;
        let media_type = if manifest.media_type.is_empty() {
            MANIFEST_TYPE
        } else {
            &manifest.media_type
        };
        let descriptor = Descriptor::new(media_type, digest, bytes.len() as u64);
        Ok((manifest, descriptor))
    }

    pub(crate) fn read_config(&self, manifest: &Manifest) -> Result<Parsed, Error> {
        let digest = &manifest.config.digest;
        let what = format!("the image config {digest}");
        let bytes = blob::read_document(&self.blob_path(digest)?, digest, &what)?;
        Parsed::from_json(&bytes, &what)
    }

    /// Where the blob is, or would be.
    pub(crate) fn blob_path(&self, digest: &str) -> Result<PathBuf, Error> {
        let hex = digest::hex_of(digest).ok_or_else(|| Error::BadReference {
            reference: digest.to_owned(),
            reason: "it is not sha256: and 64 lower case hex digits",
        })?;
        Ok(self.blobs_dir().join(hex))
    }

    /// Gives a whole blob its name. Overwrites, so that storing something again mends a corrupt blob.
    pub(crate) fn commit(&self, spooled: Spooled) -> Result<(String, u64), Error> {
        let path = self.blob_path(&spooled.digest)?;
        let placed = spooled.path.persist(&path);
        placed.map_err(|error| storing("a blob", &path)(error.error))?;
        blob::sync_dir_of(&path)?;
        Ok((spooled.digest, spooled.size_bytes))
    }

    /// Brings everything that was written so far to the disk.
    pub(crate) fn sync(&self) -> Result<(), Error> {
        let dir = self.temp_dir();
        let opened = File::open(&dir).map_err(io_error("open", &dir))?;
        rustix::fs::syncfs(&opened).map_err(|error| storing("an image", &dir)(error.into()))
    }

    /// Gives a whole blob its name, after [`Store::sync`] and before [`Store::sync_names`].
    pub(crate) fn place(&self, spooled: Spooled) -> Result<(), Error> {
        let path = self.blob_path(&spooled.digest)?;
        let placed = spooled.path.persist(&path);
        placed.map_err(|error| storing("a blob", &path)(error.error))
    }

    /// Makes the names of blobs and layers last.
    pub(crate) fn sync_names(&self) -> Result<(), Error> {
        blob::sync_dir_of(&self.blobs_dir().join("blob"))?;
        blob::sync_dir_of(&self.layers_dir().join("layer"))
    }

    /// Whether a blob of that size is there. What reads it checks its digest.
    pub(crate) fn has_blob(&self, digest: &str, size_bytes: u64) -> bool {
        let found = self
            .blob_path(digest)
            .ok()
            .and_then(|path| fs::metadata(path).ok());
        found.is_some_and(|found| found.is_file() && found.len() == size_bytes)
    }

    /// A document that is there and has its digest.
    pub(crate) fn read_blob(&self, digest: &str) -> Option<Vec<u8>> {
        let path = self.blob_path(digest).ok().filter(|path| path.exists())?;
        blob::read_document(&path, digest, "a document").ok()
    }

    /// Stores bytes as a blob; cheap when they are there already.
    pub(crate) fn put_bytes(&self, bytes: &[u8], what: &str) -> Result<(String, u64), Error> {
        let digest = digest::of(bytes);
        let path = self.blob_path(&digest)?;
        if fs::read(&path).is_ok_and(|there| there == bytes) {
            return Ok((digest, bytes.len() as u64));
        }
        let mut writer = BlobWriter::new(&self.temp_dir(), what)?;
        writer.put(bytes)?;
        self.commit(writer.finish()?)
    }

    /// As [`Store::adding`], if nothing is being collected now.
    pub(crate) fn try_adding(&self) -> Result<Option<File>, Error> {
        lock::try_shared(&self.locks_dir(), lock::CONTENT)
    }

    /// Keeps the garbage collection away: from content that nothing refers to yet, and from temporary files.
    pub(crate) fn adding(&self) -> Result<File, Error> {
        lock::shared(&self.locks_dir(), lock::CONTENT)
    }

    pub(crate) fn open_blob(&self, digest: &str) -> Result<File, Error> {
        let path = self.blob_path(digest)?;
        File::open(&path).map_err(io_error("open", &path))
    }

    pub(crate) fn blobs_dir(&self) -> PathBuf {
        self.dir.join("blobs/sha256")
    }

    pub(crate) fn layers_dir(&self) -> PathBuf {
        self.dir.join("layers")
    }

    /// Where it is noted what a layer's blob holds.
    pub(crate) fn diff_path(&self, digest: &str) -> Result<PathBuf, Error> {
        let blob = self.blob_path(digest)?;
        Ok(self.diffs_dir().join(blob.file_name().unwrap_or_default()))
    }

    pub(crate) fn diffs_dir(&self) -> PathBuf {
        self.dir.join("diffs")
    }

    pub(crate) fn trash_dir(&self) -> PathBuf {
        self.dir.join("trash")
    }

    pub(crate) fn cache_dir(&self) -> PathBuf {
        self.dir.join("cache")
    }

    pub(crate) fn unnamed_dir(&self) -> PathBuf {
        self.dir.join("unnamed")
    }

    pub(crate) fn origins_dir(&self) -> PathBuf {
        self.dir.join("origins")
    }

    pub(crate) fn registry_dir(&self) -> PathBuf {
        self.dir.join("registry")
    }

    pub(crate) fn cache_mounts_dir(&self) -> PathBuf {
        self.dir.join("cache-mounts")
    }

    pub(crate) fn contexts_dir(&self) -> PathBuf {
        self.dir.join("contexts")
    }

    pub(crate) fn temp_dir(&self) -> PathBuf {
        self.dir.join("tmp")
    }

    pub(crate) fn locks_dir(&self) -> PathBuf {
        self.dir.join("locks")
    }
}
