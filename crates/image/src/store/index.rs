//! index.json: which images the store has, and under which names.

use std::collections::BTreeMap;
use std::path::PathBuf;

use crate::layout::{self, Descriptor, Index, MAX_STORE_INDEX_BYTES, REF_NAME, SOURCE};
use crate::{Error, Reference, Store, blob, digest, lock};

/// An id of fewer digits could be anything.
const MIN_ID_DIGITS: usize = 6;
/// What the annotation of a name says that was pulled.
const PULLED: &str = "registry";
/// What it begins with for an image that was built for somebody.
const BUILT_FOR: &str = "for:";

/// Where an image has one of its names from. It is kept beside the name, and changes with what the name means.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Source {
    /// It was loaded here, tagged, or built for nobody in particular: whoever has the store gave it.
    #[default]
    Here,
    /// It was pulled, from the registry that the name is of.
    Registry,
    /// It was built here for somebody, called as the store's user calls those.
    For(String),
}

/// A name that the store knows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageName {
    /// The name, canonical.
    pub reference: String,
    /// The digest of the manifest that it means.
    pub digest: String,
    /// Where it has it from.
    pub source: Source,
}

impl Source {
    fn annotation(&self) -> Option<String> {
        match self {
            Self::Here => None,
            Self::Registry => Some(PULLED.to_owned()),
            Self::For(whom) => Some(format!("{BUILT_FOR}{whom}")),
        }
    }

    pub(super) fn of(entry: &Descriptor) -> Self {
        match entry.annotation(SOURCE) {
            Some(PULLED) => Self::Registry,
            Some(text) => match text.strip_prefix(BUILT_FOR) {
                Some(whom) => Self::For(whom.to_owned()),
                None => Self::Here,
            },
            None => Self::Here,
        }
    }
}

impl Store {
    /// All names.
    ///
    /// # Errors
    /// index.json cannot be read.
    pub fn names(&self) -> Result<Vec<ImageName>, Error> {
        let entries = self.index()?.manifests.into_iter();
        let names = entries.filter_map(|entry| {
            Some(ImageName {
                reference: entry.ref_name()?.to_owned(),
                source: Source::of(&entry),
                digest: entry.digest,
            })
        });
        Ok(names.collect())
    }

    /// What index.json says now.
    pub(crate) fn index(&self) -> Result<Index, Error> {
        layout::parse(
            &blob::read_up_to(&self.index_path(), MAX_STORE_INDEX_BYTES)?,
            "index.json of the image store",
        )
    }

    /// Enters an image into the index: under each name, which are from `source`, or without one when there are none.
    pub(crate) fn put_in_index(
        &self,
        image: &Descriptor,
        names: &[Reference],
        source: &Source,
    ) -> Result<(), Error> {
        // It only looks less used than it is where this fails.
        let _ = self.touch(&image.digest);
        self.update_index(|index| enter(index, image, names, source))
    }

    /// Gives a name to what was pulled by it. With `spares` one that means what was not pulled stays as it is.
    pub(crate) fn name_pulled(
        &self,
        image: &Descriptor,
        name: &Reference,
        spares: bool,
    ) -> Result<(), Error> {
        // As above.
        let _ = self.touch(&image.digest);
        let text = name.to_string();
        self.update_index(|index| {
            let mut known = index.manifests.iter();
            let known = known.find(|entry| entry.ref_name() == Some(&text));
            let is_given = known.is_some_and(|entry| Source::of(entry) != Source::Registry);
            if !(spares && is_given) {
                enter(index, image, std::slice::from_ref(name), &Source::Registry);
            }
        })
    }

    /// Takes a name from the index if it still means this image. The caller keeps the garbage collection away.
    pub(crate) fn forget_name(&self, name: &str, digest: &str) -> Result<bool, Error> {
        self.update_index(|index| {
            let before = index.manifests.len();
            index.manifests.retain(|entry| {
                entry.ref_name().unwrap_or_default() != name || entry.digest != digest
            });
            index.manifests.len() < before
        })
    }

    /// Changes index.json, alone; the caller keeps the garbage collection away (see `adding`).
    pub(super) fn update_index<T>(&self, change: impl FnOnce(&mut Index) -> T) -> Result<T, Error> {
        let _locked = lock::exclusive(&self.locks_dir(), lock::INDEX)?;
        let before = self.index()?;
        let mut after = before.clone();
        let result = change(&mut after);
        if after != before {
            let bytes = layout::to_json(&after);
            // What is written must be readable again, or the store would be lost.
            if bytes.len() as u64 > MAX_STORE_INDEX_BYTES {
                return Err(Error::IndexFull);
            }
            blob::replace_file(&self.temp_dir(), &self.index_path(), &bytes, "index.json")?;
        }
        Ok(result)
    }

    pub(super) fn index_path(&self) -> PathBuf {
        self.dir.join("index.json")
    }
}

/// Enters an image under names, which lose what they meant; or without one when there are none.
fn enter(index: &mut Index, image: &Descriptor, names: &[Reference], source: &Source) {
    let names: Vec<String> = names.iter().map(Reference::to_string).collect();
    index.manifests.retain(|entry| match entry.ref_name() {
        Some(name) => !names.iter().any(|new| new == name),
        None => entry.digest != image.digest,
    });
    for name in &names {
        let mut entry = image.clone();
        let mut annotations = BTreeMap::from([(REF_NAME.to_owned(), name.clone())]);
        annotations.extend(source.annotation().map(|text| (SOURCE.to_owned(), text)));
        entry.annotations = Some(annotations);
        index.manifests.push(entry);
    }
    let known = index
        .manifests
        .iter()
        .any(|entry| entry.digest == image.digest);
    if !known {
        index.manifests.push(image.clone());
    }
    index
        .manifests
        .sort_by(|a, b| (a.ref_name(), &a.digest).cmp(&(b.ref_name(), &b.digest)));
}

/// What a person means by a text where these names and digests are known (see [`Store::meant`]).
///
/// # Errors
/// [`Error::BadReference`]: several digests begin so.
pub fn meant_among<'a>(
    text: &str,
    known: impl Iterator<Item = (Option<&'a str>, &'a str)> + Clone,
) -> Result<String, Error> {
    let hex = text.strip_prefix("sha256:").unwrap_or(text);
    let is_hex = hex.bytes().all(|c| matches!(c, b'0'..=b'9' | b'a'..=b'f'));
    if !is_hex || !(MIN_ID_DIGITS..=64).contains(&hex.len()) {
        return Ok(text.to_owned());
    }
    let name = text.parse::<Reference>().ok().map(|name| name.to_string());
    let mut names = known.clone().filter_map(|(name, _)| name);
    if name.is_some_and(|name| names.any(|known| known == name)) {
        return Ok(text.to_owned());
    }
    let id = format!("sha256:{hex}");
    let mut found = (known.map(|(_, digest)| digest)).filter(|digest| digest.starts_with(&id));
    let Some(first) = found.next() else {
        // One that has no name may be meant by all of its digest.
        let whole = digest::hex_of(&id).is_some();
        return Ok(if whole { id } else { text.to_owned() });
    };
    match found.all(|digest| digest == first) {
        true => Ok(first.to_owned()),
        false => Err(Error::BadReference {
            reference: text.to_owned(),
            reason: "the digests of several images begin so; write more of it",
        }),
    }
}

/// Up to three of these names that could have been meant: another tag, or a name with the same beginning.
pub fn similar<'a>(wanted: &Reference, names: impl Iterator<Item = &'a str>) -> Vec<String> {
    let last = |reference: &Reference| {
        reference
            .repository
            .rsplit('/')
            .next()
            .unwrap_or("")
            .to_owned()
    };
    let wanted_last = last(wanted);
    let known = names.filter_map(|name| name.parse().ok());
    let mut scored: Vec<(u8, String)> = known
        .filter_map(|known: Reference| {
            let known_last = last(&known);
            let score = if known.repository == wanted.repository
                && known.registry == wanted.registry
            {
                0
            } else if known_last == wanted_last {
                1
            } else if known_last.starts_with(&wanted_last) || wanted_last.starts_with(&known_last) {
                2
            } else {
                return None;
            };
            Some((score, known.short()))
        })
        .collect();
    scored.sort_unstable();
    scored.into_iter().take(3).map(|(_, name)| name).collect()
}
