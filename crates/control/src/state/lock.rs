//! A file that only a passphrase opens: Argon2id (RFC 9106) makes a key of it, XChaCha20-Poly1305 encrypts piece after
//! piece. Each piece's nonce has its number and whether it is the last (the STREAM construction), so that none can be
//! left out, moved or cut off; the header with the parameters is bound to every piece.

use std::io::{self, Read, Write};

use argon2::{Algorithm, Argon2, Params, Version};
use chacha20poly1305::aead::rand_core::RngCore;
use chacha20poly1305::aead::{Aead, KeyInit, OsRng, Payload};
use chacha20poly1305::{XChaCha20Poly1305, XNonce};
use layby_model::secret::SecretValue;

/// What such a file begins with.
const MAGIC: &[u8; 14] = b"layby-state-1\n";
const SALT: usize = 16;
const PREFIX: usize = 19;
const HEADER: usize = MAGIC.len() + 12 + SALT + PREFIX;
/// How much is encrypted at a time, in bytes.
const PIECE: usize = 64 << 10;
const TAG: usize = 16;
/// The shortest passphrase, in bytes.
pub(crate) const MIN_PASSPHRASE: usize = 8;
/// What a file may ask for at most: 256 MiB, so many passes, so many lanes. A node that runs has to have it beside all else.
const MOST: Cost = Cost {
    memory_kib: 256 << 10,
    passes: 16,
    lanes: 16,
};

/// What trying a passphrase costs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Cost {
    pub(crate) memory_kib: u32,
    pub(crate) passes: u32,
    pub(crate) lanes: u32,
}

impl Cost {
    /// The second choice of RFC 9106: 64 MiB, three passes.
    pub(crate) const USUAL: Self = Self {
        memory_kib: 64 << 10,
        passes: 3,
        lanes: 4,
    };
}

fn cipher(passphrase: &SecretValue, salt: &[u8], cost: Cost) -> io::Result<XChaCha20Poly1305> {
    let Cost {
        memory_kib,
        passes,
        lanes,
    } = cost;
    let params = Params::new(memory_kib, passes, lanes, Some(32));
    let params = params.map_err(|error| io::Error::other(error.to_string()))?;
    let argon = Argon2::new(Algorithm::Argon2id, Version::V0x13, params);
    // Wiped when it is dropped.
    let mut key = vec![0; 32];
    argon
        .hash_password_into(passphrase.bytes(), salt, &mut key)
        .map_err(|error| io::Error::other(error.to_string()))?;
    let key = SecretValue::new(key);
    Ok(XChaCha20Poly1305::new(key.bytes().into()))
}

fn nonce(prefix: &[u8], number: u32, last: bool) -> XNonce {
    let mut nonce = XNonce::default();
    nonce[..PREFIX].copy_from_slice(prefix);
    nonce[PREFIX..PREFIX + 4].copy_from_slice(&number.to_be_bytes());
    nonce[PREFIX + 4] = u8::from(last);
    nonce
}

/// Encrypts what is written to it.
pub(crate) struct Sealer<W: Write> {
    to: W,
    cipher: XChaCha20Poly1305,
    header: Vec<u8>,
    piece: Vec<u8>,
    number: u32,
}

impl<W: Write> Sealer<W> {
    pub(crate) fn new(mut to: W, passphrase: &SecretValue, cost: Cost) -> io::Result<Self> {
        let mut header = MAGIC.to_vec();
        for number in [cost.memory_kib, cost.passes, cost.lanes] {
            header.extend(number.to_le_bytes());
        }
        let mut random = [0; SALT + PREFIX];
        OsRng.fill_bytes(&mut random);
        header.extend(random);
        let cipher = cipher(passphrase, &random[..SALT], cost)?;
        to.write_all(&header)?;
        Ok(Self {
            to,
            cipher,
            header,
            piece: Vec::with_capacity(PIECE),
            number: 0,
        })
    }

    fn seal(&mut self, last: bool) -> io::Result<()> {
        let nonce = nonce(&self.header[HEADER - PREFIX..], self.number, last);
        let payload = Payload {
            msg: &self.piece,
            aad: &self.header,
        };
        let sealed = self.cipher.encrypt(&nonce, payload);
        let sealed = sealed.map_err(|_| io::Error::other("a piece could not be encrypted"))?;
        let length = u32::try_from(sealed.len()).map_err(io::Error::other)?;
        self.to.write_all(&length.to_le_bytes())?;
        self.to.write_all(&sealed)?;
        self.piece.clear();
        let next = self.number.checked_add(1);
        self.number = next.ok_or_else(|| io::Error::other("the state is too large"))?;
        Ok(())
    }

    /// Writes the last piece, and hands the file back.
    pub(crate) fn finish(mut self) -> io::Result<W> {
        self.seal(true)?;
        self.to.flush()?;
        Ok(self.to)
    }
}

impl<W: Write> Write for Sealer<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.piece.len() == PIECE {
            self.seal(false)?;
        }
        let taken = bytes.len().min(PIECE - self.piece.len());
        self.piece.extend_from_slice(&bytes[..taken]);
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Decrypts what is read from it; nothing of a piece is handed out before the whole piece was found to be right.
pub(crate) struct Opener<R: Read> {
    from: R,
    cipher: XChaCha20Poly1305,
    header: Vec<u8>,
    piece: Vec<u8>,
    at: usize,
    number: u32,
    last: bool,
}

fn wrong() -> io::Error {
    io::Error::new(
        io::ErrorKind::InvalidData,
        "the passphrase is another one, or the file was changed or cut",
    )
}

impl<R: Read> Opener<R> {
    pub(crate) fn new(mut from: R, passphrase: &SecretValue) -> io::Result<Self> {
        let mut header = vec![0; HEADER];
        let read = from.read_exact(&mut header);
        if read.is_err() || !header.starts_with(MAGIC) {
            let text = "it is no state that `layby state export` wrote";
            return Err(io::Error::new(io::ErrorKind::InvalidData, text));
        }
        let number = |n: usize| {
            let at = MAGIC.len() + 4 * n;
            u32::from_le_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]])
        };
        let cost = Cost {
            memory_kib: number(0),
            passes: number(1),
            lanes: number(2),
        };
        if cost.memory_kib > MOST.memory_kib || cost.passes > MOST.passes || cost.lanes > MOST.lanes
        {
            return Err(wrong());
        }
        let salt = &header[HEADER - PREFIX - SALT..HEADER - PREFIX];
        let cipher = cipher(passphrase, salt, cost)?;
        Ok(Self {
            from,
            cipher,
            header,
            piece: Vec::new(),
            at: 0,
            number: 0,
            last: false,
        })
    }

    fn open(&mut self) -> io::Result<()> {
        let mut length = [0; 4];
        self.from.read_exact(&mut length).map_err(|_| wrong())?;
        let length = u32::from_le_bytes(length) as usize;
        if length > PIECE + TAG {
            return Err(wrong());
        }
        let mut sealed = vec![0; length];
        self.from.read_exact(&mut sealed).map_err(|_| wrong())?;
        let opened = [false, true].into_iter().find_map(|last| {
            let nonce = nonce(&self.header[HEADER - PREFIX..], self.number, last);
            let payload = Payload {
                msg: &sealed,
                aad: &self.header,
            };
            let piece = self.cipher.decrypt(&nonce, payload).ok()?;
            Some((piece, last))
        });
        let (piece, last) = opened.ok_or_else(wrong)?;
        if last && self.from.read(&mut [0])? > 0 {
            return Err(wrong()); // somebody has put more behind its end
        }
        self.piece = piece;
        self.at = 0;
        self.last = last;
        self.number = self.number.checked_add(1).ok_or_else(wrong)?;
        Ok(())
    }
}

impl<R: Read> Read for Opener<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.at == self.piece.len() {
            if self.last {
                return Ok(0);
            }
            self.open()?;
        }
        let taken = buffer.len().min(self.piece.len() - self.at);
        buffer[..taken].copy_from_slice(&self.piece[self.at..self.at + taken]);
        self.at += taken;
        Ok(taken)
    }
}

#[cfg(test)]
pub(crate) const CHEAP: Cost = Cost {
    memory_kib: 64,
    passes: 1,
    lanes: 1,
};

#[cfg(test)]
mod tests {
    use super::*;

    fn passphrase(text: &str) -> SecretValue {
        SecretValue::new(text.as_bytes().to_vec())
    }

    fn sealed(bytes: &[u8]) -> Vec<u8> {
        let mut sealer =
            Sealer::new(Vec::new(), &passphrase("correct horse"), CHEAP).expect("begun");
        sealer.write_all(bytes).expect("written");
        sealer.finish().expect("finished")
    }

    fn opened(file: &[u8], text: &str) -> io::Result<Vec<u8>> {
        let mut all = Vec::new();
        Opener::new(file, &passphrase(text))?.read_to_end(&mut all)?;
        Ok(all)
    }

    #[test]
    fn what_was_sealed_opens_with_its_passphrase_whole_and_unchanged_alone() {
        for size in [0, 1, PIECE, PIECE + 1, 3 * PIECE] {
            let bytes: Vec<u8> = (0..size).map(|n| (n % 251) as u8).collect();
            let file = sealed(&bytes);
            assert_eq!(
                opened(&file, "correct horse").expect("opened"),
                bytes,
                "{size}"
            );
            assert!(opened(&file, "wrong horse").is_err());
            assert!(opened(&file[..file.len() - 1], "correct horse").is_err());
            let more = [file.as_slice(), b"junk"].concat();
            assert!(opened(&more, "correct horse").is_err());
        }
        let file = sealed(&vec![7; 2 * PIECE]);
        // Cut at the end of a piece.
        let cut = HEADER + 4 + PIECE + TAG;
        assert!(opened(&file[..cut], "correct horse").is_err());
        for at in [0, MAGIC.len() + 20, HEADER + 5, file.len() - 1] {
            let mut other = file.clone();
            other[at] ^= 1;
            assert!(opened(&other, "correct horse").is_err(), "byte {at}");
        }
    }
}
