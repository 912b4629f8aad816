//! The node's certificate: its own, made once and kept in its data directory, or one that is given and read again when it
//! changes.

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::net::IpAddr;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair};
use tokio::sync::watch;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::server::{ClientHello, ResolvesServerCert};
use tokio_rustls::rustls::sign::CertifiedKey;

use crate::tls::fingerprint;

/// How often it is looked whether the files have changed.
const LOOK: Duration = Duration::from_secs(5);
/// The largest certificate or key file, in bytes.
const MAX_BYTES: u64 = 1 << 20;

/// A certificate with its key, as it is now.
#[derive(Debug)]
pub(super) struct Certificate {
    cert: PathBuf,
    key: PathBuf,
    now: RwLock<Arc<CertifiedKey>>,
    fingerprint: watch::Sender<String>,
}

impl Certificate {
    /// The node's own, made if there is none yet.
    ///
    /// # Errors
    /// The files cannot be made or read.
    pub(super) fn own(data_dir: &Path, domain: &str, listen: IpAddr) -> Result<Self> {
        let dir = data_dir.join("tls");
        let (cert, key) = (dir.join("cert.pem"), dir.join("key.pem"));
        if !(cert.exists() && key.exists()) {
            make(&dir, &cert, &key, domain, listen)
                .with_context(|| format!("cannot make a certificate in {}", dir.display()))?;
        }
        Self::of_files(&cert, &key)
    }

    /// One of two PEM files: the chain, the node's own first, and its key.
    ///
    /// # Errors
    /// One of them cannot be read, or they do not belong together.
    pub(super) fn of_files(cert: &Path, key: &Path) -> Result<Self> {
        let now = read(cert, key)?;
        Ok(Self {
            fingerprint: watch::Sender::new(of(&now)),
            cert: cert.to_owned(),
            key: key.to_owned(),
            now: RwLock::new(Arc::new(now)),
        })
    }

    /// Its SHA-256, as it is now.
    pub(super) fn fingerprint(&self) -> watch::Receiver<String> {
        self.fingerprint.subscribe()
    }

    /// Reads the files again whenever they change; what is wrong with new ones is told, and the old ones stay.
    pub(super) async fn follow(&self) {
        let mut seen = self.marks();
        loop {
            tokio::time::sleep(LOOK).await;
            let marks = self.marks();
            if marks != seen {
                seen = marks;
                self.read_again();
            }
        }
    }

    fn read_again(&self) {
        match read(&self.cert, &self.key) {
            Ok(new) => {
                self.fingerprint.send_replace(of(&new));
                *self.now.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(new);
                let fingerprint = self.fingerprint.borrow();
                tracing::info!(fingerprint = %*fingerprint, "the API has another certificate");
            }
            Err(error) => {
                tracing::warn!("the API's certificate stays as it was: {error:#}");
            }
        }
    }

    /// What tells that a file is another one.
    fn marks(&self) -> [Option<(u64, i64, i64, u64)>; 2] {
        [&self.cert, &self.key].map(|path| {
            let data = fs::metadata(path).ok()?;
            Some((data.ino(), data.mtime(), data.mtime_nsec(), data.len()))
        })
    }
}

impl ResolvesServerCert for Certificate {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let now = self.now.read().unwrap_or_else(PoisonError::into_inner);
        Some(Arc::clone(&now))
    }
}

fn of(key: &CertifiedKey) -> String {
    key.cert
        .first()
        .map(|cert| fingerprint(cert))
        .unwrap_or_default()
}

fn read(cert: &Path, key: &Path) -> Result<CertifiedKey> {
    let certs = CertificateDer::pem_slice_iter(&bytes(cert)?).collect::<Result<Vec<_>, _>>();
    let certs = certs.with_context(|| format!("{} is no PEM file", cert.display()))?;
    if certs.is_empty() {
        bail!("{} holds no certificate", cert.display());
    }
    let der = PrivateKeyDer::from_pem_slice(&bytes(key)?)
        .with_context(|| format!("{} holds no private key in PEM", key.display()))?;
    CertifiedKey::from_der(certs, der, &ring::default_provider()).with_context(|| {
        format!(
            "the certificate {} and the key {} do not belong together",
            cert.display(),
            key.display()
        )
    })
}

fn bytes(path: &Path) -> Result<Vec<u8>> {
    use std::io::Read;
    let mut bytes = Vec::new();
    File::open(path)
        .and_then(|file| file.take(MAX_BYTES).read_to_end(&mut bytes))
        .with_context(|| format!("cannot read {}", path.display()))?;
    Ok(bytes)
}

/// A certificate that the node signs itself. Clients know it by its fingerprint, or take it as an authority.
fn make(dir: &Path, cert: &Path, key: &Path, domain: &str, listen: IpAddr) -> Result<()> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(dir)?;
    let mut names = vec![
        "localhost".to_owned(),
        "127.0.0.1".to_owned(),
        "::1".to_owned(),
    ];
    let host = fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let host = host.trim();
    for name in [host.to_owned(), domain.to_owned(), listen.to_string()] {
        let usable = name.parse::<IpAddr>().is_ok_and(|ip| !ip.is_unspecified())
            || name.split('.').all(layby_model::names::is_dns_label);
        if usable && !names.contains(&name) {
            names.push(name);
        }
    }
    let mut params = CertificateParams::new(names)?;
    let mut name = DistinguishedName::new();
    name.push(DnType::CommonName, "Layby");
    params.distinguished_name = name;
    let pair = KeyPair::generate()?;
    let signed = params.self_signed(&pair)?;
    // The key first: a certificate without it is made anew, with another key.
    write(key, pair.serialize_pem().as_bytes())?;
    write(cert, signed.pem().as_bytes())
}

/// Aside, then in place: it is whole or not there.
fn write(path: &Path, content: &[u8]) -> Result<()> {
    let aside = path.with_extension("new");
    let mut file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&aside)?;
    file.write_all(content)?;
    file.sync_all()?;
    Ok(fs::rename(&aside, path)?)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    const HERE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

    fn now(certificate: &Certificate) -> String {
        certificate.fingerprint().borrow().clone()
    }

    #[test]
    fn a_certificate_is_made_once_and_its_key_is_for_nobody_else() {
        let dir = tempfile::tempdir().expect("a folder");
        let made = Certificate::own(dir.path(), "localhost", HERE).expect("to make one");
        let again = Certificate::own(dir.path(), "localhost", HERE).expect("to read it");
        assert_eq!(now(&made), now(&again));
        assert_eq!(now(&made).len(), 64);
        let key = fs::metadata(dir.path().join("tls/key.pem")).expect("a key");
        assert_eq!(key.permissions().mode() & 0o777, 0o600);
    }

    #[test]
    fn another_certificate_is_taken_and_a_broken_one_is_not() {
        let dir = tempfile::tempdir().expect("a folder");
        let other = tempfile::tempdir().expect("a folder");
        let certificate = Certificate::own(dir.path(), "localhost", HERE).expect("to make one");
        let new = Certificate::own(other.path(), "localhost", HERE).expect("to make one");
        let first = now(&certificate);
        fs::copy(&new.cert, &certificate.cert).expect("to copy");
        certificate.read_again();
        assert_eq!(now(&certificate), first, "the key is not of this one");
        fs::copy(&new.key, &certificate.key).expect("to copy");
        certificate.read_again();
        assert_eq!(now(&certificate), now(&new));
        fs::write(&certificate.cert, "nonsense").expect("to write");
        certificate.read_again();
        assert_eq!(now(&certificate), now(&new));
    }
}
