//! The API on HTTPS: `layby serve --api ADDR`.

mod certificate;

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::{Context, Result};
use axum::Router;
use layby_control::ApiAddress;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::ring;

use crate::cli::ApiListener;
use crate::connections::{self, Limits};
use crate::parent::{self, Handed};
use crate::paths::Paths;
use certificate::Certificate;

/// The name under which a parent is given the listener to hold.
const NAME: &str = "https";

/// Streams of logs and events are long: a team's tools keep many open.
const LIMITS: Limits = Limits {
    connections: 1_024,
    per_address: 256,
    strangers: 512, // the rest is for those who are known
    strangers_per_address: 32,
    head: std::time::Duration::from_secs(30),
    handshake: std::time::Duration::from_secs(10),
};

/// The listener, open, with its certificate.
pub(crate) struct Https {
    listener: TcpListener,
    addr: SocketAddr,
    certificate: Arc<Certificate>,
}

/// Opens the listener, if there is to be one.
///
/// # Errors
/// The place cannot be had, or the certificate or key cannot be read or made.
pub(crate) async fn open(
    options: &ApiListener,
    paths: &Paths,
    domain: &str,
    handed: &mut Handed,
) -> Result<Option<Https>> {
    // A parent that calls a socket the API's wants the API there.
    let named = handed.named_addr(parent::API);
    let Some(asked) = named.or(options.api) else {
        handed.let_go(NAME);
        return Ok(None);
    };
    let certificate = match (&options.api_cert, &options.api_key) {
        (Some(cert), Some(key)) => Certificate::of_files(cert, key)?,
        _ => Certificate::own(&paths.data_dir, domain, asked.ip())?,
    };
    let listener = bind(asked, handed).await?;
    Ok(Some(Https {
        addr: listener.local_addr()?,
        listener,
        certificate: Arc::new(certificate),
    }))
}

async fn bind(asked: SocketAddr, handed: &mut Handed) -> Result<TcpListener> {
    let there = |addr: SocketAddr| match asked.port() {
        0 => addr.ip() == asked.ip(), // any port: also the one of before
        _ => addr == asked,
    };
    let named = handed.named_tcp(parent::API);
    let own = handed.own_tcp(NAME);
    let own = own.filter(|socket| socket.local_addr().is_ok_and(there));
    if let Some(listener) = named.or(own).or_else(|| handed.tcp(asked)) {
        listener.set_nonblocking(true)?;
        return Ok(TcpListener::from_std(listener)?);
    }
    let listener = TcpListener::bind(asked).await;
    let listener = listener
        .with_context(|| format!("the API cannot listen on {asked}: name another --api"))?;
    handed.let_go(NAME); // one at another place
    handed.hold(NAME, &listener);
    Ok(listener)
}

/// An API that is being served.
pub(crate) struct Serving {
    close: watch::Sender<bool>,
    ended: JoinHandle<()>,
}

impl Https {
    /// Where it is and how it is known, as the API itself says.
    pub(crate) fn address(&self) -> ApiAddress {
        ApiAddress {
            addr: self.addr,
            fingerprint: self.certificate.fingerprint(),
        }
    }

    /// Begins to serve.
    ///
    /// # Errors
    /// The certificate does not fit TLS.
    pub(crate) fn serve(self, router: Router) -> Result<Serving> {
        let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_cert_resolver(Arc::clone(&self.certificate) as _);
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let (close, closing) = watch::channel(false);
        let shake = move |stream| acceptor.accept(stream);
        tracing::info!(addr = %self.addr, fingerprint = %*self.certificate.fingerprint().borrow(), "the API is on HTTPS");
        let certificate = self.certificate;
        let ended = tokio::spawn(async move {
            tokio::select! {
                () = connections::serve(self.listener, router, LIMITS, shake, closing) => {}
                () = certificate.follow() => {}
            }
        });
        Ok(Serving { close, ended })
    }
}

impl Serving {
    /// Takes no more connections; those that are just being answered may go on for `grace`.
    pub(crate) async fn end(self, grace: std::time::Duration) {
        self.close.send_replace(true);
        let abort = self.ended.abort_handle();
        let _ = tokio::time::timeout(grace, self.ended).await; // those who still follow a log are cut
        abort.abort();
    }
}
