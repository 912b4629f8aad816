//! Which other registry is known to have an image: from where it was pulled, or to where it was pushed.
//!
//! Each is a file named after the digest of the image's manifest, with a reference in it. It goes when the image does.

use crate::{Error, Reference, Store, blob, digest};

/// The longest reference that is read, in bytes.
const MAX_BYTES: u64 = 4 << 10;

/// Notes where an image can be had.
pub(crate) fn note(store: &Store, digest: &str, at: &Reference) -> Result<(), Error> {
    let path = store
        .origins_dir()
        .join(digest::hex_of(digest).unwrap_or_default());
    let text = at.to_string();
    blob::replace_file(
        &store.temp_dir(),
        &path,
        text.as_bytes(),
        "where an image is from",
    )
}

/// Where an image can be had; `None`: nobody knows of such a place.
pub(crate) fn of(store: &Store, digest: &str) -> Option<String> {
    let path = store.origins_dir().join(digest::hex_of(digest)?);
    let bytes = blob::read_up_to(&path, MAX_BYTES).ok()?;
    let text = String::from_utf8(bytes).ok()?;
    text.parse::<Reference>().is_ok().then_some(text)
}
