//! Saving images as one archive. Blobs are checked while they are copied out.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Read, Write};

use serde::Serialize;
use tar::{EntryType, Header};

use crate::digest::{self, Hashing};
use crate::error::io_error;
use crate::layout::{self, CONTAINERD_NAME, Descriptor, Index, Manifest, REF_NAME};
use crate::{Error, Format, Reference, Store};

/// One entry of a docker archive's manifest.json.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct DockerImage {
    config: String,
    repo_tags: Vec<String>,
    layers: Vec<String>,
}

/// Writes the images; names that are digests are saved without a name.
pub(crate) fn save(
    store: &Store,
    references: &[String],
    format: Format,
    writer: impl Write,
) -> Result<(), Error> {
    if references.is_empty() {
        return Err(Error::Archive("no image was named to be saved".to_owned()));
    }
    // Nothing that is being saved may be collected meanwhile.
    let _reading = store.adding()?;
    let mut images: Vec<(Descriptor, Manifest, Vec<Reference>)> = Vec::new();
    for text in references {
        let image = store.resolve(text)?;
        let name: Option<Reference> = match digest::hex_of(text) {
            Some(_) => None,
            None => Some(text.parse()?),
        };
        let name = name.filter(|name| name.digest.is_none());
        match images
            .iter_mut()
            .find(|(known, ..)| known.digest == image.digest)
        {
            Some((.., names)) => names.extend(name),
            None => {
                let (manifest, descriptor) = store.read_manifest(&image.digest)?;
                images.push((descriptor, manifest, name.into_iter().collect()));
            }
        }
    }
    let mut tar = tar::Builder::new(writer);
    match format {
        Format::Oci => save_oci(store, &images, &mut tar)?,
        Format::Docker => save_docker(store, &images, &mut tar)?,
    }
    let mut writer = tar.into_inner().map_err(Error::ArchiveWrite)?;
    writer.flush().map_err(Error::ArchiveWrite)
}

fn save_oci(
    store: &Store,
    images: &[(Descriptor, Manifest, Vec<Reference>)],
    tar: &mut tar::Builder<impl Write>,
) -> Result<(), Error> {
    let mut index = Index::default();
    for (descriptor, _, names) in images {
        if names.is_empty() {
            index.manifests.push(descriptor.clone());
        }
        for name in names {
            let mut entry = descriptor.clone();
            // containerd and Docker look at the first, skopeo and buildah at the second.
            entry.annotations = Some(BTreeMap::from([
                (CONTAINERD_NAME.to_owned(), name.to_string()),
                (REF_NAME.to_owned(), name.to_string()),
            ]));
            index.manifests.push(entry);
        }
    }
    put_file(tar, "oci-layout", layout::OCI_LAYOUT.as_bytes())?;
    put_file(tar, "index.json", &layout::to_json(&index))?;
    let mut written = BTreeSet::new();
    for (descriptor, manifest, _) in images {
        for part in [descriptor, &manifest.config]
            .into_iter()
            .chain(&manifest.layers)
        {
            put_blob(store, tar, &part.digest, &mut written)?;
        }
    }
    Ok(())
}

fn save_docker(
    store: &Store,
    images: &[(Descriptor, Manifest, Vec<Reference>)],
    tar: &mut tar::Builder<impl Write>,
) -> Result<(), Error> {
    let mut documents = Vec::new();
    let mut written = BTreeSet::new();
    for (_, manifest, names) in images {
        for part in [&manifest.config].into_iter().chain(&manifest.layers) {
            put_blob(store, tar, &part.digest, &mut written)?;
        }
        documents.push(DockerImage {
            config: blob_path(&manifest.config.digest),
            // Docker shows these as they are.
            repo_tags: names.iter().map(Reference::short).collect(),
            layers: manifest
                .layers
                .iter()
                .map(|layer| blob_path(&layer.digest))
                .collect(),
        });
    }
    put_file(tar, "manifest.json", &layout::to_json(&documents))
}

fn blob_path(digest: &str) -> String {
    format!("blobs/{}", digest.replacen(':', "/", 1))
}

fn put_file(tar: &mut tar::Builder<impl Write>, path: &str, bytes: &[u8]) -> Result<(), Error> {
    let mut header = header(bytes.len() as u64);
    tar.append_data(&mut header, path, bytes)
        .map_err(Error::ArchiveWrite)
}

fn put_blob(
    store: &Store,
    tar: &mut tar::Builder<impl Write>,
    digest: &str,
    written: &mut BTreeSet<String>,
) -> Result<(), Error> {
    if !written.insert(digest.to_owned()) {
        return Ok(());
    }
    let file = store.open_blob(digest)?;
    let path = store.blob_path(digest)?;
    let size_bytes = file.metadata().map_err(io_error("look at", &path))?.len();
    let mut reader = Remembering {
        inner: Hashing::new(file),
        error: None,
    };
    let mut header = header(size_bytes);
    let appended = tar.append_data(
        &mut header,
        blob_path(digest),
        (&mut reader).take(size_bytes),
    );
    if let Some(error) = reader.error {
        return Err(io_error("read", &path)(error));
    }
    appended.map_err(Error::ArchiveWrite)?;
    let (_, found, _) = reader.inner.finish();
    if found != digest {
        return Err(Error::Corrupt {
            what: format!("the blob {digest}"),
            expected: digest.to_owned(),
            found,
        });
    }
    Ok(())
}

/// Keeps an error of the reading side, so that it is not taken for one of the writing side.
struct Remembering<R> {
    inner: R,
    error: Option<io::Error>,
}

impl<R: Read> Read for Remembering<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.inner.read(buffer).inspect_err(|error| {
            self.error = Some(io::Error::new(error.kind(), error.to_string()));
        })
    }
}

/// The same image gives the same archive: no times, no owners.
fn header(size_bytes: u64) -> Header {
    let mut header = Header::new_gnu();
    header.set_entry_type(EntryType::Regular);
    header.set_size(size_bytes);
    header.set_mode(0o644);
    header.set_mtime(0);
    header.set_uid(0);
    header.set_gid(0);
    header
}
