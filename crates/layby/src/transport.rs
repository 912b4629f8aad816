//! The way to a node: its socket on this machine, or TLS to one elsewhere.

mod cut;

use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use hyper::Uri;
use hyper::header::HeaderValue;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::ClientConfig;
use tokio_rustls::rustls::pki_types::ServerName;

use self::cut::Cut;
use crate::contexts::{Context, Trust};
use crate::exit::{Code, Exit};
use crate::tls::{self, Seen, Sight};

/// How long a node elsewhere may take until a connection to it stands.
const CONNECT: Duration = Duration::from_secs(15);

/// A connection to a node.
pub(crate) trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// How a node is reached.
#[derive(Debug, Clone)]
pub(crate) enum Transport {
    /// On this machine.
    Socket {
        /// The API's socket.
        socket: PathBuf,
        /// The node's data directory, which errors name.
        data_dir: PathBuf,
    },
    /// Elsewhere.
    Https(Arc<Remote>),
}

/// A node elsewhere.
pub(crate) struct Remote {
    at: Address,
    /// What the user calls it.
    name: String,
    authorization: HeaderValue,
    config: Arc<ClientConfig>,
    /// What was shown in the last handshake.
    sight: Sight,
    pinned: Option<String>,
}

/// Without the token, which belongs in no message.
impl std::fmt::Debug for Remote {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Remote")
            .field("at", &self.at)
            .finish_non_exhaustive()
    }
}

/// Where a node is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Address {
    /// A name or an IP address, that of IPv6 without brackets.
    pub(crate) host: String,
    /// 443 unless the URL says otherwise.
    pub(crate) port: u16,
}

impl Address {
    /// From `https://host[:port][/]`.
    ///
    /// # Errors
    /// It is no such URL.
    pub(crate) fn of(url: &str) -> Result<Self> {
        let wrong = || format!("{url:?} is no node's URL: write it as https://HOST[:PORT]");
        let uri: Uri = url.parse().with_context(wrong)?;
        let plain = uri.scheme_str() == Some("https") && uri.query().is_none();
        let authority = uri.authority().filter(|authority| {
            let text = authority.as_str();
            // What is no number is no port, and not one that was left out.
            let is_port = authority.port_u16().is_some() || text.ends_with(authority.host());
            !text.contains('@') && is_port
        });
        match (plain, matches!(uri.path(), "" | "/"), authority) {
            (true, true, Some(authority)) => Ok(Self {
                host: authority
                    .host()
                    .trim_matches(['[', ']'])
                    .to_ascii_lowercase(),
                port: authority.port_u16().unwrap_or(443),
            }),
            _ => bail!(wrong()),
        }
    }

    /// As a URL, in one form.
    pub(crate) fn url(&self) -> String {
        format!("https://{}", self.authority())
    }

    /// As `host[:port]`.
    fn authority(&self) -> String {
        let host = match self.host.parse::<IpAddr>() {
            Ok(IpAddr::V6(six)) => format!("[{six}]"),
            Ok(IpAddr::V4(_)) | Err(_) => self.host.clone(),
        };
        match self.port {
            443 => host,
            port => format!("{host}:{port}"),
        }
    }

    /// A connection, encrypted as `config` says.
    async fn connect(&self, config: &Arc<ClientConfig>) -> io::Result<impl Stream + use<>> {
        let name = ServerName::try_from(self.host.clone()).map_err(io::Error::other)?;
        let config = Arc::clone(config);
        let connect = async {
            let stream = TcpStream::connect((self.host.as_str(), self.port)).await?;
            // Small requests are not to wait for company.
            let _ = stream.set_nodelay(true);
            let stream = TlsConnector::from(config).connect(name, stream).await?;
            Ok(Cut(stream))
        };
        let connected = tokio::time::timeout(CONNECT, connect).await;
        connected.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
    }

    /// What certificate is shown there. Nothing else is said over this connection.
    ///
    /// # Errors
    /// Nobody answers there, or not with TLS.
    pub(crate) async fn look(&self) -> Result<Seen> {
        let sight = Sight::default();
        let config = Arc::new(tls::looking(Arc::clone(&sight))?);
        let connected = self.connect(&config).await;
        connected.with_context(|| format!("no node answers at {}", self.url()))?;
        let seen = sight.lock().unwrap_or_else(PoisonError::into_inner).take();
        seen.with_context(|| format!("{} showed no certificate", self.url()))
    }
}

impl Remote {
    /// The node of a context.
    ///
    /// # Errors
    /// The context cannot be used.
    pub(crate) fn new(name: &str, context: &Context) -> Result<Self> {
        let sight = Sight::default();
        let config = match &context.trust {
            Trust::Fingerprint(fingerprint) => tls::pinned(fingerprint, Arc::clone(&sight))?,
            Trust::Authority(pem) => tls::by_authority(pem.as_bytes())?,
            Trust::System => tls::by_system()?,
        };
        let authorization = HeaderValue::try_from(format!("Bearer {}", context.token));
        let mut authorization = authorization.context("the token is none: it is one line")?;
        authorization.set_sensitive(true);
        Ok(Self {
            at: Address::of(&context.url)?,
            name: name.to_owned(),
            authorization,
            config: Arc::new(config),
            sight,
            pinned: match &context.trust {
                Trust::Fingerprint(fingerprint) => Some(fingerprint.clone()),
                Trust::Authority(_) | Trust::System => None,
            },
        })
    }

    async fn connect(&self) -> Result<Box<dyn Stream>> {
        match self.at.connect(&self.config).await {
            Ok(stream) => Ok(Box::new(stream)),
            Err(error) => Err(self.unreachable(&error)),
        }
    }

    fn unreachable(&self, error: &io::Error) -> anyhow::Error {
        let (name, url) = (&self.name, self.at.url());
        let seen = self
            .sight
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        if let (Some(pinned), Some(seen)) = (&self.pinned, seen)
            && *pinned != seen.fingerprint
        {
            let message = format!(
                "the node {name} at {url} shows another certificate than before: nothing was sent\n  \
                 now:    {}\n  before: {pinned}\n  \
                 if whoever runs it says that it is the new one: `layby login {url} --name {name} --fingerprint {}`",
                seen.fingerprint, seen.fingerprint
            );
            return Exit::new(Code::Failed, message).into();
        }
        if error.kind() == io::ErrorKind::InvalidData {
            let message = format!(
                "the certificate of the node {name} at {url} is not trusted ({error}): nothing was sent"
            );
            return Exit::new(Code::Failed, message).into();
        }
        let message = format!(
            "the node {name} at {url} does not answer ({error}): does it run with `layby serve --api`?"
        );
        Exit::new(Code::NotFound, message).into()
    }
}

impl Transport {
    /// Opens a connection.
    ///
    /// # Errors
    /// No node runs there, this user may not use it, or it is not the one that is meant.
    pub(crate) async fn connect(&self) -> Result<Box<dyn Stream>> {
        match self {
            Self::Socket { socket, data_dir } => match UnixStream::connect(socket).await {
                Ok(stream) => Ok(Box::new(stream)),
                Err(error) => Err(local_unreachable(data_dir, &error)),
            },
            Self::Https(remote) => remote.connect().await,
        }
    }

    /// What requests name as their host.
    pub(crate) fn host(&self) -> String {
        match self {
            Self::Socket { .. } => "layby".to_owned(),
            Self::Https(remote) => remote.at.authority(),
        }
    }

    /// What requests show.
    pub(crate) fn authorization(&self) -> Option<&HeaderValue> {
        match self {
            Self::Socket { .. } => None,
            Self::Https(remote) => Some(&remote.authorization),
        }
    }

    /// What the user calls a node elsewhere; `None`: it is on this machine.
    pub(crate) fn elsewhere(&self) -> Option<&str> {
        match self {
            Self::Socket { .. } => None,
            Self::Https(remote) => Some(&remote.name),
        }
    }
}

fn local_unreachable(data_dir: &Path, error: &io::Error) -> anyhow::Error {
    let dir = data_dir.display();
    if error.kind() == io::ErrorKind::PermissionDenied {
        let message =
            format!("the node of {dir} is for root and the group layby: run this as one of them");
        return Exit::new(Code::Failed, message).into();
    }
    let message = format!("no node runs for {dir}: start one with `layby serve` or `layby up`");
    Exit::new(Code::NotFound, message).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_nodes_url_has_a_host_and_perhaps_a_port() {
        for (url, host, port, plain) in [
            (
                "https://Node.example",
                "node.example",
                443,
                "https://node.example",
            ),
            (
                "https://node.example:8443/",
                "node.example",
                8443,
                "https://node.example:8443",
            ),
            ("https://[::1]:9", "::1", 9, "https://[::1]:9"),
            ("https://10.0.0.1", "10.0.0.1", 443, "https://10.0.0.1"),
        ] {
            let address = Address::of(url).expect(url);
            assert_eq!((&*address.host, address.port), (host, port), "{url}");
            assert_eq!(address.url(), plain);
        }
        for bad in [
            "http://a",
            "https://",
            "https://a/b",
            "https://a?b",
            "https://u:p@a",
            "a",
            "https://a:b",
        ] {
            assert!(Address::of(bad).is_err(), "{bad}");
        }
    }
}
