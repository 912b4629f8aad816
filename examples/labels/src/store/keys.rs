//! How objects are named. Those of one picture stand together, and sort by their time.

use crate::digest::Digest;

/// Below it, the pictures as they were uploaded.
pub const ORIGINALS: &str = "originals/";
/// Below it, that they were uploaded.
pub const UPLOADS: &str = "uploads/";
/// Below it, what they were read as.
pub const READINGS: &str = "readings/";
/// Below it, what analysts changed.
pub const EDITS: &str = "edits/";

/// The picture itself.
pub fn original(sha256: &Digest) -> String {
    format!("{ORIGINALS}{sha256}")
}

/// That it was uploaded.
pub fn upload(sha256: &Digest) -> String {
    format!("{UPLOADS}{sha256}.json")
}

/// One reading of it.
pub fn reading(sha256: &Digest, at_ms: u64, content: &[u8]) -> String {
    format!("{READINGS}{}", of_picture(sha256, at_ms, content))
}

/// One edit of it.
pub fn edit(sha256: &Digest, at_ms: u64, content: &[u8]) -> String {
    format!("{EDITS}{}", of_picture(sha256, at_ms, content))
}

/// A moment sorts as a text; the content tells two of the same moment apart.
fn of_picture(sha256: &Digest, at_ms: u64, content: &[u8]) -> String {
    format!("{sha256}/{at_ms:015}-{}.json", Digest::of(content).short())
}

/// Which picture a key is about.
pub fn picture(key: &str) -> Option<Digest> {
    let rest = [ORIGINALS, UPLOADS, READINGS, EDITS]
        .iter()
        .find_map(|prefix| key.strip_prefix(prefix))?;
    rest.split(['/', '.']).next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::{edit, original, picture, reading, upload};
    use crate::digest::Digest;

    #[test]
    fn every_key_names_its_picture_and_those_of_a_picture_sort_by_time() {
        let sha256 = Digest::of(b"a picture");
        let keys = [
            original(&sha256),
            upload(&sha256),
            reading(&sha256, 5, b"x"),
            edit(&sha256, 5, b"y"),
        ];
        for key in &keys {
            assert_eq!(picture(key).as_ref(), Some(&sha256), "{key}");
        }
        assert!(edit(&sha256, 9, b"a") < edit(&sha256, 10, b"a"));
        assert_ne!(edit(&sha256, 9, b"a"), edit(&sha256, 9, b"b"));
        assert_eq!(picture("thumbs/x"), None);
    }
}
