//! What is in the file: first a tar with the key, the store and the logins, then, where it has images, an OCI layout as
//! a second one. All of it is one stream of encrypted pieces ([`super::lock`]), written and read by the piece.

use std::fs::{self, File};
use std::io::{self, Cursor, Read, Write};
use std::path::{Path, PathBuf};

use layby_image::{Format, Image, ImageName, Source, Store as Images};
use layby_model::secret::SecretValue;
use serde::{Deserialize, Serialize};
use tar::{Archive, Builder, EntryType, Header};
use tempfile::TempDir;

use super::StateError;
use super::lock::{Cost, MIN_PASSPHRASE, Opener, Sealer};
use crate::api::types::StateImage;
use crate::config::MasterKey;
use crate::registries::LOGINS;
use crate::secrets::{Key, key_of};
use crate::store::{Content, snapshot};

/// The store's name, in the file as in a data directory.
pub(super) const STORE: &str = "layby.db";
/// The key that the secrets in the file are encrypted with.
const KEY: &str = "key";
/// What is known of the images, whether they are in the file or not (JSON).
const IMAGES: &str = "images.json";
/// The most that a login file may have, and what is known of images, in bytes.
const MAX_DOCUMENT: u64 = 16 << 20;
/// What the names of folders for unfinished states begin with.
const ASIDE: &str = "state-";
/// A block of a tar, in bytes.
const BLOCK: usize = 512;

/// What is known of images.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
struct Known {
    /// Their content follows.
    content: bool,
    /// Where other registries have them: digest and reference.
    origins: Vec<(String, String)>,
    /// Where they have their names from.
    names: Vec<Named>,
}

/// A name of an image that was pulled, or built for an app.
#[derive(Debug, Serialize, Deserialize)]
struct Named {
    name: String,
    digest: String,
    /// `None`: it was pulled.
    built_for: Option<String>,
}

/// A state that is to be taken out, as it was at one moment.
pub(super) struct Taken {
    dir: TempDir,
    key: Key,
    logins: PathBuf,
    pub(super) content: Content,
}

impl Taken {
    fn copy(&self) -> PathBuf {
        self.dir.path().join(STORE)
    }
}

/// Copies the store of `data_dir`, which a node may be using, to `dir`, and encrypts its secrets with a key of its own.
pub(super) fn take(data_dir: &Path, key: &MasterKey, dir: TempDir) -> Result<Taken, StateError> {
    let copy = dir.path().join(STORE);
    let new = Key::random();
    snapshot::take(&data_dir.join(STORE), &copy)?;
    snapshot::migrate(&copy)?;
    snapshot::rekey(&copy, |proof| {
        Ok::<_, StateError>((key_of(key, proof)?, new.clone()))
    })?;
    Ok(Taken {
        content: snapshot::content(&copy)?,
        dir,
        key: new,
        logins: data_dir.join(LOGINS),
    })
}

/// Refuses a passphrase that is easily found.
pub(super) fn check(passphrase: &SecretValue) -> Result<(), StateError> {
    match passphrase.bytes().len() < MIN_PASSPHRASE {
        true => Err(StateError::Short),
        false => Ok(()),
    }
}

/// Writes a state; with `with_content` the images in `images` too, as far as they are there.
pub(super) fn write(
    taken: &Taken,
    (images, with_content): (&Images, bool),
    passphrase: &SecretValue,
    cost: Cost,
    to: impl Write,
) -> Result<(), StateError> {
    let failed = |source| StateError::Io {
        what: "the state could not be written".to_owned(),
        source,
    };
    let views = super::image_views(taken.content.images.clone(), images);
    let names = match with_content {
        true => names(&views, images),
        false => Vec::new(),
    };
    let origin = |view: StateImage| Some((view.digest, view.origin?));
    let known = Known {
        content: !names.is_empty(),
        origins: views.into_iter().filter_map(origin).collect(),
        names: match with_content {
            true => sources(&names, images)?,
            false => Vec::new(),
        },
    };
    let sealer = Sealer::new(to, passphrase, cost).map_err(failed)?;
    let mut tar = Builder::new(sealer);
    let written = (|| {
        append(&mut tar, KEY, taken.key.bytes())?;
        append(&mut tar, IMAGES, &serde_json::to_vec(&known)?)?;
        tar.append_path_with_name(taken.copy(), STORE)?;
        match fs::read(&taken.logins) {
            Ok(logins) => append(&mut tar, LOGINS, SecretValue::new(logins).bytes())?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        tar.into_inner()
    })();
    let mut sealer = written.map_err(failed)?;
    if known.content {
        images.save(&names, Format::Oci, &mut sealer)?;
    }
    sealer.finish().map(drop).map_err(failed)
}

/// What images are saved by: all their names, else their digests. Those that are not there cannot be saved.
fn names(views: &[StateImage], images: &Images) -> Vec<String> {
    let here = views
        .iter()
        .filter_map(|view| images.get(&view.digest).ok());
    let names = here.flat_map(|image| match image.references.is_empty() {
        true => vec![image.digest],
        false => image.references,
    });
    names.collect()
}

/// Where these names are from, but for those that were given to images here.
fn sources(names: &[String], images: &Images) -> Result<Vec<Named>, StateError> {
    let all = images.names()?.into_iter();
    let saved = all.filter(|name| names.contains(&name.reference));
    let named = saved.filter_map(|name| {
        let built_for = match name.source {
            Source::Here => return None,
            Source::Registry => None,
            Source::For(app) => Some(app),
        };
        Some(Named {
            name: name.reference,
            digest: name.digest,
            built_for,
        })
    });
    Ok(named.collect())
}

fn append(tar: &mut Builder<impl Write>, name: &str, bytes: &[u8]) -> io::Result<()> {
    let mut header = Header::new_gnu();
    header.set_size(bytes.len() as u64);
    header.set_mode(0o600);
    tar.append_data(&mut header, name, bytes)
}

/// Opens the first piece of a file.
pub(super) fn begins(passphrase: &SecretValue, from: impl Read) -> Result<(), StateError> {
    let opened = Opener::new(from, passphrase);
    let read = opened.and_then(|mut opener| opener.read(&mut [0]));
    read.map(drop)
        .map_err(|error| StateError::Wrong(error.to_string()))
}

/// A state that is to be put back, whole and right, and brought to the newest format.
pub(super) struct Opened {
    pub(super) dir: TempDir,
    /// What its secrets are encrypted with.
    pub(super) key: Key,
    pub(super) logins: Option<SecretValue>,
    pub(super) content: Content,
    /// The images that came with it, which are in the store by now.
    pub(super) loaded: Vec<Image>,
}

impl Opened {
    pub(super) fn copy(&self) -> PathBuf {
        self.dir.path().join(STORE)
    }
}

/// Reads a file to its very end. What it is made of is put into `dir`, and its images into the store that `images` opens.
pub(super) fn open(
    dir: TempDir,
    images: impl FnOnce() -> Result<std::sync::Arc<Images>, StateError>,
    passphrase: &SecretValue,
    from: impl Read,
) -> Result<Opened, StateError> {
    let wrong = |error: io::Error| StateError::Wrong(error.to_string());
    let copy = dir.path().join(STORE);
    let (mut key, mut logins, mut known) = (None, None, Known::default());
    let opener = Opener::new(from, passphrase).map_err(wrong)?;
    let mut archive = Archive::new(opener);
    for entry in archive.entries().map_err(wrong)? {
        let mut entry = entry.map_err(wrong)?;
        if entry.header().entry_type() != EntryType::Regular {
            continue;
        }
        let name = entry.path().map_err(wrong)?.to_string_lossy().into_owned();
        let mut document = |most: u64| {
            let mut bytes = Vec::new();
            let read = (&mut entry).take(most).read_to_end(&mut bytes);
            read.map(|_| SecretValue::new(bytes)).map_err(wrong)
        };
        match name.as_str() {
            KEY => key = Key::new(document(1024)?),
            LOGINS => logins = Some(document(MAX_DOCUMENT)?),
            IMAGES => {
                let read = serde_json::from_slice(document(MAX_DOCUMENT)?.bytes());
                known = read.map_err(|error| StateError::Wrong(error.to_string()))?;
            }
            STORE => {
                let written = File::create(&copy).and_then(|mut file| {
                    io::copy(&mut entry, &mut file)?;
                    file.sync_all()
                });
                written.map_err(wrong)?;
            }
            // Of a newer Layby; what this one needs is there.
            _ => {}
        }
    }
    let key = key.ok_or_else(|| StateError::Wrong("it has no key".to_owned()))?;
    if !copy.exists() {
        return Err(StateError::Wrong("it has no store".to_owned()));
    }
    snapshot::migrate(&copy)?;
    let content = snapshot::content(&copy)?;
    let mut rest = archive.into_inner();
    let mut loaded = Vec::new();
    match (known.content, next_archive(&mut rest).map_err(wrong)?) {
        (true, Some(first)) => {
            let images = images()?;
            loaded = images.load(Cursor::new(first).chain(&mut rest))?;
            for (digest, reference) in &known.origins {
                // One that is not in the file, or that nobody can read, has no origin.
                let _ = images.note_origin(digest, reference);
            }
            for name in known.names {
                images.set_source(&ImageName {
                    reference: name.name,
                    digest: name.digest,
                    source: name.built_for.map_or(Source::Registry, Source::For),
                })?;
            }
        }
        (true, None) => return Err(StateError::Wrong("it ends before its images".to_owned())),
        (false, _) => {}
    }
    // To its very end: a file that was cut is not right.
    io::copy(&mut rest, &mut io::sink()).map_err(wrong)?;
    Ok(Opened {
        dir,
        key,
        logins,
        content,
        loaded,
    })
}

/// Skips the blocks of zeros that a tar ends with; the first block of what follows, if anything does.
fn next_archive(from: &mut impl Read) -> io::Result<Option<[u8; BLOCK]>> {
    loop {
        let mut block = [0; BLOCK];
        let mut filled = 0;
        while filled < BLOCK {
            match from.read(&mut block[filled..])? {
                0 => return Ok(None),
                n => filled += n,
            }
        }
        if block.iter().any(|byte| *byte != 0) {
            return Ok(Some(block));
        }
    }
}

/// Removes what was left of folders that [`aside`] made by somebody who was killed.
pub(super) fn sweep(parent: &Path) -> io::Result<()> {
    for entry in fs::read_dir(parent)?.flatten() {
        if entry.file_name().to_string_lossy().starts_with(ASIDE) {
            fs::remove_dir_all(entry.path())?;
        }
    }
    Ok(())
}

/// A folder for root alone in `parent`, on the disk of the data, gone when it is dropped.
pub(super) fn aside(parent: &Path) -> Result<TempDir, StateError> {
    let made = fs::create_dir_all(parent)
        .and_then(|()| tempfile::Builder::new().prefix(ASIDE).tempdir_in(parent));
    made.map_err(|source| StateError::Io {
        what: format!("cannot make a folder in {}", parent.display()),
        source,
    })
}
