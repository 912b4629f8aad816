//! Digests as registries take them: SHA-256, and SHA-512 (image-spec, descriptor.md, "Registered Algorithms").

use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use sha2::{Digest as _, Sha512};

/// A well formed digest of an algorithm that is known. Content lies in the store under its SHA-256 alone; a SHA-512 is
/// another name for it in one repository.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Digest(String);

impl Digest {
    /// Reads `sha256:<64 hex digits>` or `sha512:<128 hex digits>`, in lower case.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let (algorithm, hex) = text.split_once(':')?;
        let length = match algorithm {
            "sha256" => 64,
            "sha512" => 128,
            _ => return None,
        };
        let lower_hex = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
        (hex.len() == length && hex.bytes().all(lower_hex)).then(|| Self(text.to_owned()))
    }

    /// As it is written.
    pub(super) fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether it is the digest that the store itself uses.
    pub(super) fn is_sha256(&self) -> bool {
        self.0.starts_with("sha256:")
    }

    /// As a file name.
    pub(super) fn file_name(&self) -> String {
        self.0.replacen(':', "-", 1)
    }

    /// The digest with this file name.
    pub(super) fn from_file_name(name: &str) -> Option<Self> {
        Self::parse(&name.replacen('-', ":", 1))
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The SHA-512 of bytes.
pub(super) fn sha512(bytes: &[u8]) -> String {
    written(Sha512::new_with_prefix(bytes))
}

/// The SHA-512 of a file.
pub(super) fn sha512_of_file(path: &Path) -> io::Result<String> {
    let mut hasher = Sha512::new();
    read_all(path, |bytes| hasher.update(bytes))?;
    Ok(written(hasher))
}

/// Reads a file to its end, piece by piece.
pub(super) fn read_all(path: &Path, mut each: impl FnMut(&[u8])) -> io::Result<()> {
    let mut file = File::open(path)?;
    let mut buffer = vec![0; 256 << 10];
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(()),
            n => each(&buffer[..n]),
        }
    }
}

fn written(hasher: Sha512) -> String {
    let hex: String = (hasher.finalize().iter())
        .map(|byte| format!("{byte:02x}"))
        .collect();
    format!("sha512:{hex}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_well_formed_digests_of_known_algorithms_are_taken() {
        let (short, long) = ("a".repeat(64), "0".repeat(128));
        for good in [format!("sha256:{short}"), format!("sha512:{long}")] {
            let digest = Digest::parse(&good).expect("well formed");
            assert_eq!(digest.as_str(), good);
            assert_eq!(Digest::from_file_name(&digest.file_name()), Some(digest));
        }
        for bad in [
            format!("sha256:{long}"),
            format!("sha512:{short}"),
            format!("sha256:{}", "A".repeat(64)),
            format!("md5:{short}"),
            format!("sha256:../{}", "a".repeat(61)),
            "sha256:baddigeststring".to_owned(),
            String::new(),
        ] {
            assert_eq!(Digest::parse(&bad), None, "{bad}");
        }
    }
}
