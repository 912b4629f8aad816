//! Encrypting one value: XChaCha20-Poly1305 (draft-irtf-cfrg-xchacha-03), bound to the row that it stands in.

use std::fmt;

use chacha20poly1305::aead::{Aead, AeadCore, KeyInit, OsRng, Payload};
use chacha20poly1305::{XChaCha20Poly1305, XNonce};
use layby_model::secret::{SecretValue, ValueKind};

/// The bytes of a nonce, which stands before each ciphertext.
const NONCE_BYTES: usize = 24;

/// What a proof says, for whoever has the right key.
const PROOF: &[u8] = b"layby";
/// What a proof is bound to.
const PROOF_PLACE: &[u8] = b"layby master key 1";

/// A master key; wiped when it is dropped.
#[derive(Clone)]
pub(crate) struct Key(SecretValue);

/// The bytes are not what this key, in this place, has encrypted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct NotOurs;

/// The place of a value: what its ciphertext is bound to, so that no row can stand for another.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Place {
    /// Empty: the node.
    pub(crate) app: String,
    pub(crate) kind: ValueKind,
    pub(crate) name: String,
    pub(crate) version: u32,
}

impl Place {
    fn bytes(&self) -> Vec<u8> {
        let kind = kind_text(self.kind);
        // No part has a zero byte in it.
        let Self {
            app, name, version, ..
        } = self;
        format!("layby value 1\0{kind}\0{app}\0{name}\0{version}").into_bytes()
    }
}

/// The word for a kind, in the store too.
pub(crate) fn kind_text(kind: ValueKind) -> &'static str {
    match kind {
        ValueKind::Secret => "secret",
        ValueKind::Config => "config",
    }
}

impl Key {
    /// The bytes of a key.
    pub(crate) const BYTES: usize = 32;

    /// Takes a key over. `None`: it is not of the right length.
    pub(crate) fn new(bytes: SecretValue) -> Option<Self> {
        (bytes.bytes().len() == Self::BYTES).then_some(Self(bytes))
    }

    /// A new key.
    pub(crate) fn random() -> Self {
        Self(SecretValue::new(
            XChaCha20Poly1305::generate_key(&mut OsRng).to_vec(),
        ))
    }

    /// The key itself.
    pub(crate) fn bytes(&self) -> &[u8] {
        self.0.bytes()
    }

    /// Encrypts a value for its place.
    pub(crate) fn seal(&self, place: &Place, value: &[u8]) -> Vec<u8> {
        self.encrypt(&place.bytes(), value)
    }

    /// Decrypts what was encrypted for this place.
    pub(crate) fn open(&self, place: &Place, sealed: &[u8]) -> Result<SecretValue, NotOurs> {
        self.decrypt(&place.bytes(), sealed)
    }

    /// What shows later whether a key is this one.
    pub(crate) fn proof(&self) -> Vec<u8> {
        self.encrypt(PROOF_PLACE, PROOF)
    }

    /// Whether this key made that proof.
    pub(crate) fn made(&self, proof: &[u8]) -> bool {
        let said = self.decrypt(PROOF_PLACE, proof);
        said.is_ok_and(|said| said.bytes() == PROOF)
    }

    fn encrypt(&self, aad: &[u8], msg: &[u8]) -> Vec<u8> {
        let nonce = XChaCha20Poly1305::generate_nonce(&mut OsRng);
        let mut sealed = nonce.to_vec();
        // It fails beyond 256 GiB only.
        let encrypted = self.cipher().encrypt(&nonce, Payload { msg, aad });
        sealed.extend(encrypted.unwrap_or_default());
        sealed
    }

    fn decrypt(&self, aad: &[u8], sealed: &[u8]) -> Result<SecretValue, NotOurs> {
        let (nonce, msg) = sealed.split_at_checked(NONCE_BYTES).ok_or(NotOurs)?;
        let payload = Payload { msg, aad };
        let opened = self.cipher().decrypt(XNonce::from_slice(nonce), payload);
        opened.map(SecretValue::new).map_err(|_| NotOurs)
    }

    fn cipher(&self) -> XChaCha20Poly1305 {
        // Its length was checked.
        XChaCha20Poly1305::new(self.0.bytes().into())
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a master key")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place() -> Place {
        Place {
            app: "shop".to_owned(),
            kind: ValueKind::Secret,
            name: "db".to_owned(),
            version: 1,
        }
    }

    /// The example of draft-irtf-cfrg-xchacha-03, appendix A.3.1.
    #[test]
    fn the_cipher_is_the_one_of_the_draft() {
        let bytes = |hex: &str| -> Vec<u8> {
            (0..hex.len() / 2)
                .map(|n| u8::from_str_radix(&hex[2 * n..2 * n + 2], 16).expect("hex"))
                .collect()
        };
        let key = Key::new(SecretValue::new((0x80..0xa0).collect())).expect("a key");
        let aad = bytes("50515253c0c1c2c3c4c5c6c7");
        let nonce: Vec<u8> = (0x40..0x58).collect();
        let plain =
            b"Ladies and Gentlemen of the class of '99: If I could offer you only one tip for \
                      the future, sunscreen would be it.";
        let cipher = bytes(
            "bd6d179d3e83d43b9576579493c0e939572a1700252bfaccbed2902c21396cbb731c7f1b0b4aa6440bf3a82f4eda7e39\
             ae64c6708c54c216cb96b72e1213b4522f8c9ba40db5d945b11b69b982c1bb9e3f3fac2bc369488f76b2383565d3fff9\
             21f9664c97637da9768812f615c68b13b52ec0875924c1c7987947deafd8780acf49",
        );
        let sealed: Vec<u8> = nonce.into_iter().chain(cipher).collect();
        let opened = key.decrypt(&aad, &sealed).expect("opened");
        assert_eq!(opened.bytes(), plain);
    }

    #[test]
    fn a_value_opens_in_its_own_place_with_its_own_key_alone() {
        let key = Key::random();
        let sealed = key.seal(&place(), b"hunter2");
        assert!(!sealed.windows(7).any(|part| part == b"hunter2"));
        assert_eq!(
            key.open(&place(), &sealed).expect("opened").bytes(),
            b"hunter2"
        );
        assert_eq!(Key::random().open(&place(), &sealed), Err(NotOurs));
        for other in [
            Place {
                app: "blog".to_owned(),
                ..place()
            },
            Place {
                name: "db2".to_owned(),
                ..place()
            },
            Place {
                kind: ValueKind::Config,
                ..place()
            },
            Place {
                version: 2,
                ..place()
            },
        ] {
            assert_eq!(key.open(&other, &sealed), Err(NotOurs), "{other:?}");
        }
    }

    #[test]
    fn a_value_that_was_tampered_with_does_not_open() {
        let key = Key::random();
        let sealed = key.seal(&place(), b"hunter2");
        for n in 0..sealed.len() {
            let mut other = sealed.clone();
            other[n] ^= 1;
            assert_eq!(key.open(&place(), &other), Err(NotOurs), "byte {n}");
            assert_eq!(key.open(&place(), &sealed[..n]), Err(NotOurs), "{n} bytes");
        }
    }

    #[test]
    fn the_same_value_never_looks_the_same() {
        let key = Key::random();
        assert_ne!(key.seal(&place(), b"a"), key.seal(&place(), b"a"));
        assert!(key.made(&key.proof()));
        assert!(!Key::random().made(&key.proof()));
        assert_eq!(format!("{key:?}"), "a master key");
    }
}
