//! TLS to a node elsewhere: whose certificate is trusted, and why.

use std::fmt::Write as _;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context, Result, bail};
use sha2::{Digest, Sha256};
use tokio_rustls::rustls::client::WebPkiServerVerifier;
use tokio_rustls::rustls::client::danger::{
    HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier,
};
use tokio_rustls::rustls::crypto::{
    CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature,
};
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use tokio_rustls::rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme,
};

/// Where systems keep the authorities that they trust; the first that is there counts.
const SYSTEM_ROOTS: [&str; 4] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

/// The SHA-256 of a certificate (DER), in hexadecimal digits.
pub(crate) fn fingerprint(certificate: &[u8]) -> String {
    let mut text = String::new();
    for byte in Sha256::digest(certificate) {
        let _ = write!(text, "{byte:02x}"); // a String takes all
    }
    text
}

/// A fingerprint as people paste it: with or without colons, `SHA256:` before it, in either case.
///
/// # Errors
/// It is none.
pub(crate) fn parse_fingerprint(text: &str) -> Result<String, String> {
    let lower = text.trim().to_ascii_lowercase();
    let digits = lower
        .strip_prefix("sha256:")
        .unwrap_or(&lower)
        .replace(':', "");
    match digits.len() == 64 && digits.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        true => Ok(digits),
        false => {
            Err("a fingerprint is the SHA-256 of a certificate: 64 hexadecimal digits".to_owned())
        }
    }
}

/// What a verifier saw.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Seen {
    /// The certificate's fingerprint.
    pub(crate) fingerprint: String,
    /// An authority that the system trusts vouches for it.
    pub(crate) vouched: bool,
}

/// Filled in a handshake.
pub(crate) type Sight = Arc<Mutex<Option<Seen>>>;

/// Takes the certificate with this fingerprint, and no other; what was shown instead is in `sight`.
///
/// # Errors
/// TLS cannot be set up.
pub(crate) fn pinned(fingerprint: &str, sight: Sight) -> Result<ClientConfig> {
    configure(Arc::new(ByEye {
        wanted: Some(fingerprint.to_owned()),
        authorities: None,
        sight,
        provider: Arc::new(ring::default_provider()),
    }))
}

/// Takes any certificate, and says in `sight` which it was: nothing may be sent over such a connection.
///
/// # Errors
/// TLS cannot be set up.
pub(crate) fn looking(sight: Sight) -> Result<ClientConfig> {
    let authorities = system_roots().ok().and_then(|roots| verifier(roots).ok());
    configure(Arc::new(ByEye {
        wanted: None,
        authorities,
        sight,
        provider: Arc::new(ring::default_provider()),
    }))
}

/// Takes what one of these authorities (PEM) vouches for.
///
/// # Errors
/// There is none among them.
pub(crate) fn by_authority(pem: &[u8]) -> Result<ClientConfig> {
    configure(verifier(roots(pem)?)?)
}

/// Takes what an authority vouches for that the system trusts.
///
/// # Errors
/// The system has none.
pub(crate) fn by_system() -> Result<ClientConfig> {
    configure(verifier(system_roots()?)?)
}

fn configure(verifier: Arc<dyn ServerCertVerifier>) -> Result<ClientConfig> {
    let provider = Arc::new(ring::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .dangerous()
        .with_custom_certificate_verifier(verifier)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config)
}

fn verifier(roots: RootCertStore) -> Result<Arc<WebPkiServerVerifier>> {
    let provider = Arc::new(ring::default_provider());
    Ok(WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider).build()?)
}

fn system_roots() -> Result<RootCertStore> {
    let named = std::env::var_os("SSL_CERT_FILE");
    let named = named.as_ref().map(Path::new).into_iter();
    let mut places = named.chain(SYSTEM_ROOTS.iter().map(Path::new));
    let Some(place) = places.find(|place| place.exists()) else {
        bail!("this system has no list of certificate authorities: name one with --ca FILE");
    };
    let pem = std::fs::read(place).with_context(|| format!("cannot read {}", place.display()))?;
    roots(&pem)
}

fn roots(pem: &[u8]) -> Result<RootCertStore> {
    let certs = CertificateDer::pem_slice_iter(pem).collect::<Result<Vec<_>, _>>();
    let mut roots = RootCertStore::empty();
    let (added, _) = roots.add_parsable_certificates(certs.context("it is no PEM file")?);
    match added {
        0 => bail!("it holds no certificate"),
        _ => Ok(roots),
    }
}

/// Looks at the certificate itself, by its fingerprint.
#[derive(Debug)]
struct ByEye {
    /// `None`: whatever is shown.
    wanted: Option<String>,
    authorities: Option<Arc<WebPkiServerVerifier>>,
    sight: Sight,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for ByEye {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let shown = fingerprint(end_entity);
        let is_wanted = self.wanted.as_ref().is_none_or(|wanted| *wanted == shown);
        let vouched = self.authorities.as_ref().is_some_and(|authorities| {
            authorities
                .verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now)
                .is_ok()
        });
        let seen = Seen {
            fingerprint: shown,
            vouched,
        };
        *self.sight.lock().unwrap_or_else(PoisonError::into_inner) = Some(seen);
        match is_wanted {
            true => Ok(ServerCertVerified::assertion()),
            false => Err(CertificateError::ApplicationVerificationFailure.into()),
        }
    }

    // Whoever shows the certificate has to prove that its key is theirs.
    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, cert, dss, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, cert, dss, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider
            .signature_verification_algorithms
            .supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fingerprint_may_be_pasted_in_any_form() {
        let plain = fingerprint(b"");
        assert!(plain.starts_with("e3b0c44298fc1c14"));
        let pairs: Vec<String> = plain
            .as_bytes()
            .chunks(2)
            .map(|pair| String::from_utf8_lossy(pair).to_uppercase())
            .collect();
        for form in [plain.clone(), pairs.join(":"), format!("SHA256:{plain}\n")] {
            assert_eq!(parse_fingerprint(&form), Ok(plain.clone()), "{form}");
        }
        for bad in ["", "abc", &plain[1..], &"g".repeat(64)] {
            assert!(parse_fingerprint(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_file_without_a_certificate_is_no_authority() {
        assert!(by_authority(b"nonsense").is_err());
        assert!(by_authority(b"").is_err());
    }
}
