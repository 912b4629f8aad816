//! Loading an archive. The order of its members is arbitrary, so each is spooled as it comes, and named at the end.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read};

use serde::Deserialize;
use tar::EntryType;

use crate::blob::{self, BlobWriter, Spooled};
use crate::config::Parsed;
use crate::error::io_error;
use crate::layer::{Compression, decompressed};
use crate::layout::{
    self, CONFIG_TYPE, CONTAINERD_NAME, Descriptor, Index, LAYER_TYPE, MANIFEST_TYPE,
    MAX_DOCUMENT_BYTES, Manifest,
};
use crate::tarball::{Reader, components};
use crate::{Error, Image, Reference, Source, Store};

/// How large an archive may be once decompressed.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    /// Most bytes of all members together.
    pub(crate) bytes: u64,
    /// Most members.
    pub(crate) entries: u64,
}

impl Default for Limits {
    /// 128 GiB and 20,000 members.
    fn default() -> Self {
        Self {
            bytes: 128 << 30,
            entries: 20_000,
        }
    }
}

/// One entry of a docker archive's manifest.json.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct DockerImage {
    config: String,
    repo_tags: Option<Vec<String>>,
    layers: Option<Vec<String>>,
}

/// What the archive holds, spooled.
#[derive(Default)]
struct Members {
    /// The digest of each file by its path.
    digests: HashMap<String, String>,
    /// Links by their path, resolved to a path (old docker archives share layers that way).
    links: HashMap<String, String>,
    /// Content by digest.
    spooled: HashMap<String, Spooled>,
}

/// An image of the archive whose parts are all there.
struct Found {
    manifest: Descriptor,
    /// Blobs to name: layers first, the manifest last.
    blobs: Vec<String>,
    config_digest: String,
    names: Vec<Reference>,
}

/// Loads all images of an archive.
pub(crate) fn load(store: &Store, reader: impl Read, limits: &Limits) -> Result<Vec<Image>, Error> {
    let _adding = store.adding()?;
    let plain = decompressed(reader).map_err(read_error)?;
    let mut members = spool(store, plain, limits)?;
    let mut found = Vec::new();
    if members.has("oci-layout") && members.has("index.json") {
        found = find_oci(&members)?;
    }
    if members.has("manifest.json") {
        add_docker(store, &mut members, &mut found)?;
    }
    if found.is_empty() {
        return Err(Error::Archive(
            "it holds no image: neither an OCI layout (oci-layout, index.json) nor a docker archive (manifest.json)"
                .to_owned(),
        ));
    }
    let mut images = Vec::new();
    for image in &found {
        for digest in &image.blobs {
            if let Some(spooled) = members.spooled.remove(digest) {
                store.commit(spooled)?;
            }
        }
        // Before anybody can name it: a layer that cannot be unpacked is the archive's fault, and is told to who brought it.
        store.layers(&image.manifest.digest)?;
        store.put_in_index(&image.manifest, &image.names, &Source::Here)?;
    }
    for image in &found {
        images.push(store.get(&image.manifest.digest)?);
    }
    Ok(images)
}

fn spool(store: &Store, plain: impl Read, limits: &Limits) -> Result<Members, Error> {
    let mut members = Members::default();
    let mut tar = Reader::new(plain);
    let mut bytes = 0;
    let mut entries = 0;
    while let Some(entry) = tar.next_entry().map_err(read_error)? {
        entries += 1;
        if entries > limits.entries {
            return Err(Error::Archive(format!(
                "it has more than {} members",
                limits.entries
            )));
        }
        let Some(path) = plain_path(&entry.path) else {
            return Err(Error::Archive(format!(
                "its member {:?} has a path that leads out of it or is no text",
                String::from_utf8_lossy(&entry.path)
            )));
        };
        match entry.kind {
            EntryType::Regular | EntryType::Continuous if entry.sparse.is_some() => {
                return Err(Error::Archive(format!(
                    "its member {path} is a file with holes, which is not supported"
                )));
            }
            EntryType::Regular | EntryType::Continuous => {
                let mut writer =
                    BlobWriter::new(&store.temp_dir(), &format!("{path} of the archive"))?;
                writer.copy_from(&mut (&mut tar).take(limits.bytes - bytes + 1), read_error)?;
                let spooled = writer.finish()?;
                bytes += spooled.size_bytes;
                if bytes > limits.bytes {
                    return Err(Error::Archive(format!(
                        "it is larger than {} bytes",
                        limits.bytes
                    )));
                }
                if let Some(hex) = path.strip_prefix("blobs/sha256/")
                    && spooled.digest.trim_start_matches("sha256:") != hex
                {
                    return Err(Error::Corrupt {
                        what: format!("the archive's {path}"),
                        expected: format!("sha256:{hex}"),
                        found: spooled.digest,
                    });
                }
                members.digests.insert(path, spooled.digest.clone());
                members.spooled.insert(spooled.digest.clone(), spooled);
            }
            EntryType::Symlink => {
                let dir = path.rsplit_once('/').map_or("", |(dir, _)| dir);
                let target = String::from_utf8_lossy(&entry.link).into_owned();
                if let Some(target) = join_inside(dir, &target) {
                    members.links.insert(path, target);
                }
            }
            EntryType::Link => {
                if let Some(target) = plain_path(&entry.link) {
                    members.links.insert(path, target);
                }
            }
            // Directories say nothing; nothing else belongs into an archive, and nothing is made of it.
            _ => {}
        }
    }
    // To the end, so that a compressed archive's own checksum is checked and its sender not cut off.
    tar.drain().map_err(read_error)?;
    Ok(members)
}

impl Members {
    fn has(&self, path: &str) -> bool {
        self.digests.contains_key(path)
    }

    /// The digest of the member at a path, by way of at most a few links.
    fn digest_at(&self, path: &str) -> Result<&str, Error> {
        let mut path = path;
        for _ in 0..8 {
            if let Some(digest) = self.digests.get(path) {
                return Ok(digest);
            }
            match self.links.get(path) {
                Some(target) => path = target,
                None => break,
            }
        }
        Err(Error::Archive(format!(
            "it names {path:?}, which is not in it"
        )))
    }

    fn spooled(&self, digest: &str) -> Result<&Spooled, Error> {
        let missing = || Error::Archive(format!("the blob {digest} is not in it"));
        self.spooled.get(digest).ok_or_else(missing)
    }

    fn read(&self, digest: &str) -> Result<Vec<u8>, Error> {
        let spooled = self.spooled(digest)?;
        if spooled.size_bytes > MAX_DOCUMENT_BYTES {
            return Err(Error::Archive(format!(
                "the document {digest} is longer than {MAX_DOCUMENT_BYTES} bytes"
            )));
        }
        blob::read_bounded(&spooled.path)
    }

    fn document(&self, path: &str) -> Result<Vec<u8>, Error> {
        self.read(self.digest_at(path)?)
    }
}

/// The images that an OCI layout's index names.
fn find_oci(members: &Members) -> Result<Vec<Found>, Error> {
    let index: Index = layout::parse(&members.document("index.json")?, "the archive's index.json")?;
    let mut found: Vec<Found> = Vec::new();
    for entry in &index.manifests {
        let Some(manifest) = for_this_machine(members, entry, 0)? else {
            continue;
        };
        let name = entry
            .annotation(CONTAINERD_NAME)
            .or_else(|| entry.ref_name());
        let name: Option<Reference> = name.map(str::parse).transpose()?;
        // The same image stands there once for each of its names.
        if let Some(known) = found
            .iter_mut()
            .find(|image| image.manifest.digest == manifest.digest)
        {
            known.names.extend(name);
            continue;
        }
        let bytes = members.read(&manifest.digest)?;
        let parts = Manifest::from_json(&bytes, "a manifest of the archive")?;
        let descriptor =
            Descriptor::new(&manifest.media_type, &manifest.digest, bytes.len() as u64);
        found.push(check(
            members,
            descriptor,
            &parts,
            name.into_iter().collect(),
        )?);
    }
    if found.is_empty() && !index.manifests.is_empty() {
        return Err(Error::Archive(format!(
            "none of its images is for linux/{}",
            layout::architecture()
        )));
    }
    Ok(found)
}

/// The manifest that an entry of an index leads to; `None` when it is for another kind of machine.
fn for_this_machine(
    members: &Members,
    entry: &Descriptor,
    depth: u32,
) -> Result<Option<Descriptor>, Error> {
    if let Some(platform) = &entry.platform
        && (platform.os != "linux" || platform.architecture != layout::architecture())
    {
        return Ok(None);
    }
    if !entry.is_index() {
        return Ok(Some(entry.clone()));
    }
    if depth > 3 {
        return Err(Error::Archive(
            "its indexes are nested too deeply".to_owned(),
        ));
    }
    let nested: Index = layout::parse(&members.read(&entry.digest)?, "an index of the archive")?;
    for entry in &nested.manifests {
        if let Some(manifest) = for_this_machine(members, entry, depth + 1)? {
            return Ok(Some(manifest));
        }
    }
    Ok(None)
}

/// Checks that all parts of an image are there and fit each other.
fn check(
    members: &Members,
    manifest: Descriptor,
    parts: &Manifest,
    names: Vec<Reference>,
) -> Result<Found, Error> {
    let config = Parsed::from_json(
        &members.read(&parts.config.digest)?,
        "an image config of the archive",
    )?;
    if config.diff_ids.len() != parts.layers.len() {
        return Err(Error::Archive(format!(
            "an image has {} layers in its manifest, {} in its config",
            parts.layers.len(),
            config.diff_ids.len()
        )));
    }
    let mut blobs = Vec::new();
    for part in parts.layers.iter().chain([&parts.config]) {
        members.spooled(&part.digest)?;
        blobs.push(part.digest.clone());
    }
    blobs.push(manifest.digest.clone());
    Ok(Found {
        manifest,
        blobs,
        config_digest: parts.config.digest.clone(),
        names,
    })
}

/// Adds the images of a docker archive's manifest.json. One that the OCI index named already only gains names:
/// since Docker 25 an archive is both.
fn add_docker(store: &Store, members: &mut Members, found: &mut Vec<Found>) -> Result<(), Error> {
    let what = "the archive's manifest.json";
    let images: Vec<DockerImage> = layout::parse(&members.document("manifest.json")?, what)?;
    for image in images {
        let names: Result<Vec<Reference>, Error> = image
            .repo_tags
            .iter()
            .flatten()
            .map(|tag| tag.parse())
            .collect();
        let mut names = names?;
        let config_path = plain_path(image.config.as_bytes()).unwrap_or_default();
        let config_digest = members.digest_at(&config_path)?.to_owned();
        if let Some(known) = found
            .iter_mut()
            .find(|known| known.config_digest == config_digest)
        {
            names.retain(|name| !known.names.contains(name));
            known.names.extend(names);
            continue;
        }
        let mut layers = Vec::new();
        for path in image.layers.iter().flatten() {
            let path = plain_path(path.as_bytes()).unwrap_or_default();
            let digest = members.digest_at(&path)?.to_owned();
            layers.push(layer_descriptor(members.spooled(&digest)?)?);
        }
        let config = Descriptor::new(
            CONFIG_TYPE,
            &config_digest,
            members.spooled(&config_digest)?.size_bytes,
        );
        let manifest = Manifest::new(config, layers);
        let bytes = layout::to_json(&manifest);
        let mut writer = BlobWriter::new(&store.temp_dir(), "the manifest of a docker archive")?;
        writer.put(&bytes)?;
        let spooled = writer.finish()?;
        let descriptor = Descriptor::new(MANIFEST_TYPE, &spooled.digest, spooled.size_bytes);
        members.spooled.insert(spooled.digest.clone(), spooled);
        found.push(check(members, descriptor, &manifest, names)?);
    }
    Ok(())
}

/// `docker save` writes layers plain, other tools also compressed.
fn layer_descriptor(spooled: &Spooled) -> Result<Descriptor, Error> {
    let mut first = [0; 6];
    let mut file = File::open(&spooled.path).map_err(io_error("open", &spooled.path))?;
    let n = file
        .read(&mut first)
        .map_err(io_error("read", &spooled.path))?;
    let suffix = Compression::of(&first[..n]).media_suffix();
    let media_type = format!("{LAYER_TYPE}{suffix}");
    Ok(Descriptor::new(
        &media_type,
        &spooled.digest,
        spooled.size_bytes,
    ))
}

/// A member's path without `./` and `/` at its beginning; `None` when it leads outside.
fn plain_path(path: &[u8]) -> Option<String> {
    let parts = components(path)?;
    String::from_utf8(parts.join(&b'/')).ok()
}

/// Where a symbolic link in `dir` leads; `None` when outside of the archive.
fn join_inside(dir: &str, target: &str) -> Option<String> {
    let mut parts: Vec<&str> = if target.starts_with('/') {
        Vec::new()
    } else {
        dir.split('/').filter(|part| !part.is_empty()).collect()
    };
    for part in target.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop()?;
            }
            part => parts.push(part),
        }
    }
    Some(parts.join("/"))
}

/// What the tar reader finds wrong is the archive's fault; the rest is the reader's.
fn read_error(error: io::Error) -> Error {
    match error.kind() {
        io::ErrorKind::InvalidData | io::ErrorKind::InvalidInput => {
            Error::Archive(error.to_string())
        }
        io::ErrorKind::UnexpectedEof => Error::Archive("it ends too early".to_owned()),
        _ => Error::ArchiveRead(error),
    }
}
