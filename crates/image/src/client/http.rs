//! Requests to one registry: authorised, redirected by our own rules, and told apart where they fail.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use http::{HeaderMap, HeaderName, Method, Request, Response, header};
use serde::Deserialize;
use ureq::tls::{Certificate, PemItem, RootCerts, TlsConfig, parse_pem};
use ureq::unversioned::transport::DefaultConnector;
use ureq::{Agent, Body, SendBody};

use super::auth;
use super::challenge;
use super::error::{Again, Failure, Fault};
use super::host::{self, Base};
use super::{Credentials, Options};
use crate::error::io_error;
use crate::fence::Fence;

/// The most redirects that are followed.
const MAX_REDIRECTS: u32 = 5;
/// How long connecting may take.
const CONNECT: Duration = Duration::from_secs(15);
/// The most of an error's body that is read, in bytes.
const MAX_REFUSAL_BYTES: u64 = 16 << 10;
/// Where Debian, Fedora, SUSE and Alpine keep the certificates that the machine trusts.
const BUNDLES: [&str; 4] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];
/// Where Docker and podman look for a registry's own.
const CERTS_D: [&str; 2] = ["/etc/docker/certs.d", "/etc/containers/certs.d"];

/// A registry, and what it let us in by.
pub(super) struct Session<'a> {
    transport: Transport,
    base: Base,
    credentials: Option<Credentials>,
    pub(super) options: &'a Options,
    /// The Authorization header by scope. A token that has run out shows as 401 and is fetched anew.
    granted: Mutex<HashMap<String, String>>,
}

/// Sends single requests.
pub(super) struct Transport {
    agent: Agent,
    cancel: Arc<AtomicBool>,
}

/// What a request carries; made anew for each attempt.
pub(super) enum Payload<'a> {
    /// No body.
    Nothing,
    /// A short one.
    Bytes(&'a [u8]),
    /// A part of a file.
    Part {
        path: &'a Path,
        from: u64,
        length: u64,
        /// Hears how much of the part went out.
        sent: &'a dyn Fn(u64),
    },
}

/// A request's fixed parts.
pub(super) struct Ask<'a> {
    pub(super) method: Method,
    pub(super) url: String,
    pub(super) headers: Vec<(HeaderName, String)>,
    pub(super) body: Payload<'a>,
    /// What it needs to be allowed.
    pub(super) scope: &'a str,
}

impl<'a> Session<'a> {
    /// Prepares to speak with a registry. Only with `insecure` it is asked already, to find out what it speaks.
    pub(super) fn new(registry: &str, options: &'a Options) -> Result<Self, Failure> {
        let mut session = Self {
            transport: Transport::new(registry, options)?,
            base: host::base(registry, false),
            credentials: options.credentials.clone(),
            options,
            granted: Mutex::default(),
        };
        if options.insecure && session.base.scheme == "https" {
            let probe = session.url("");
            let spoken = session
                .transport
                .once(&Method::GET, &probe, &[], &Payload::Nothing);
            if spoken.is_err() {
                session.base = host::base(registry, true);
            }
        }
        Ok(session)
    }

    /// The URL of a path below `/v2/`.
    pub(super) fn url(&self, path: &str) -> String {
        format!("{}://{}/v2/{path}", self.base.scheme, self.base.authority)
    }

    /// Asks for nothing but to be let in.
    pub(super) fn ping(&self) -> Result<(), Failure> {
        let response = self.options.retry.run(&self.options.cancel, || {
            self.send(&Ask {
                method: Method::GET,
                url: self.url(""),
                headers: Vec::new(),
                body: Payload::Nothing,
                scope: "",
            })
        })?;
        match response.status().as_u16() {
            200 => Ok(()),
            404 => Err(Failure::final_(
                Fault::Broken,
                "is no registry: it has no /v2/",
            )),
            _ => Err(refusal(response, "")),
        }
    }

    /// Sends one request, met challenges and redirects included. Any status but 401 is the caller's to judge; so is
    /// trying again.
    pub(super) fn send(&self, ask: &Ask<'_>) -> Result<Response<Body>, Failure> {
        let mut url = ask.url.clone();
        let mut redirects = 0;
        let mut asked = false;
        loop {
            let at_home = self.is_home(&url);
            let mut headers = ask.headers.clone();
            if at_home && let Some(value) = self.granted().get(ask.scope) {
                headers.push((header::AUTHORIZATION, value.clone()));
            }
            let response = self
                .transport
                .once(&ask.method, &url, &headers, &ask.body)?;
            let status = response.status().as_u16();
            if status == 401 && at_home && !asked {
                asked = true;
                self.authorise(
                    response.headers(),
                    ask.scope,
                    headers.len() > ask.headers.len(),
                )?;
                continue;
            }
            if status == 401 {
                return Err(refusal(response, ""));
            }
            if matches!(status, 301 | 302 | 303 | 307 | 308)
                && matches!(ask.method, Method::GET | Method::HEAD)
            {
                redirects += 1;
                if redirects > MAX_REDIRECTS {
                    return Err(Failure::final_(Fault::Broken, "sends in circles"));
                }
                url = self.location(&url, response.headers())?;
                continue;
            }
            return Ok(response);
        }
    }

    /// Where a Location header leads. Never from https to http.
    pub(super) fn location(&self, from: &str, headers: &HeaderMap) -> Result<String, Failure> {
        let location = headers
            .get(header::LOCATION)
            .and_then(|value| value.to_str().ok());
        let joined = location.and_then(|location| host::join(from, location));
        let broken = |reason: String| Failure::final_(Fault::Broken, reason);
        let url =
            joined.ok_or_else(|| broken("sends elsewhere without saying where".to_owned()))?;
        let (_, authority) = host::origin(&url).unwrap_or_default();
        if host::is_loopback(&authority) && !host::is_loopback(&self.base.authority) {
            let authority = shown_text(&authority);
            return Err(broken(format!(
                "sends on to {authority}, which is this machine"
            )));
        }
        if from.starts_with("https:") && !url.starts_with("https:") {
            return Err(broken(format!(
                "sends on to {} without TLS (is it behind a proxy that does not tell it X-Forwarded-Proto?)",
                shown_text(&authority)
            )));
        }
        Ok(url)
    }

    fn authorise(&self, headers: &HeaderMap, scope: &str, had: bool) -> Result<(), Failure> {
        let challenges = headers.get_all(header::WWW_AUTHENTICATE).iter();
        let challenge = challenge::read(challenges.filter_map(|value| value.to_str().ok()));
        let Some(challenge) = challenge else {
            let reason = "answered 401 Unauthorized, and asks for it in no way that is known";
            return Err(Failure::final_(Fault::Unauthorized, reason));
        };
        if had && challenge == challenge::Challenge::Basic {
            let reason = "does not take the credentials that there are for it";
            return Err(Failure::final_(Fault::Unauthorized, reason));
        }
        let credentials = self.credentials.as_ref();
        let value = auth::meet(&self.transport, &self.base, &challenge, credentials, scope)?;
        self.granted().insert(scope.to_owned(), value);
        Ok(())
    }

    fn is_home(&self, url: &str) -> bool {
        host::origin(url).is_some_and(|(scheme, authority)| {
            scheme == self.base.scheme && authority == self.base.authority.to_ascii_lowercase()
        })
    }

    fn granted(&self) -> std::sync::MutexGuard<'_, HashMap<String, String>> {
        // Nothing panics while it is held.
        self.granted.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Transport {
    fn new(registry: &str, options: &Options) -> Result<Self, Failure> {
        let tls = TlsConfig::builder()
            .root_certs(roots(registry, &options.ca_files)?)
            .disable_verification(options.insecure)
            .build();
        let stall = Duration::from_millis(options.stall_ms.max(1));
        let mut config = Agent::config_builder()
            .tls_config(tls)
            .http_status_as_error(false)
            .max_redirects(0)
            .user_agent(concat!("layby/", env!("CARGO_PKG_VERSION")))
            .timeout_resolve(Some(CONNECT))
            .timeout_connect(Some(CONNECT))
            .timeout_recv_response(Some(stall))
            .timeout_per_read(Some(stall))
            .timeout_per_write(Some(stall))
            .max_idle_connections_per_host(options.parallel.max(1));
        if host::is_loopback(&host::base(registry, false).authority) {
            config = config.proxy(None);
        }
        let home = host::base(registry, false).authority;
        let mut reach = options.reach.clone();
        // A registry on this machine leads where it likes: it is here already.
        reach.node |= host::is_loopback(&home);
        let home = Some(host::host_of(&home).to_owned());
        let fence = Fence { reach, home };
        Ok(Self {
            agent: Agent::with_parts(config.build(), DefaultConnector::default(), fence),
            cancel: Arc::clone(&options.cancel),
        })
    }

    /// One request and its answer, whatever the status; no redirect is followed.
    pub(super) fn once(
        &self,
        method: &Method,
        url: &str,
        headers: &[(HeaderName, String)],
        body: &Payload<'_>,
    ) -> Result<Response<Body>, Failure> {
        if self.cancel.load(Ordering::Relaxed) {
            return Err(Failure::cancelled());
        }
        let mut request = Request::builder().method(method).uri(url);
        for (name, value) in headers {
            request = request.header(name, value);
        }
        let bad = |_| Failure::final_(Fault::Broken, "sends on to what is no address");
        let answer = match body {
            Payload::Nothing if matches!(*method, Method::POST | Method::PUT | Method::PATCH) => {
                self.agent.run(request.body(&[0_u8; 0][..]).map_err(bad)?)
            }
            Payload::Nothing => self.agent.run(request.body(()).map_err(bad)?),
            Payload::Bytes(bytes) => self.agent.run(request.body(*bytes).map_err(bad)?),
            Payload::Part {
                path,
                from,
                length,
                sent,
            } => {
                let mut part = Part {
                    file: open_at(path, *from)?.take(*length),
                    told: 0,
                    sent: *sent,
                    cancel: &self.cancel,
                };
                let request = request.header(header::CONTENT_LENGTH, *length);
                let body = SendBody::from_reader(&mut part);
                self.agent.run(request.body(body).map_err(bad)?)
            }
        };
        answer.map_err(|error| match self.cancel.load(Ordering::Relaxed) {
            true => Failure::cancelled(),
            false => unreachable(error),
        })
    }
}

fn open_at(path: &Path, from: u64) -> Result<File, Failure> {
    let opened = || {
        let mut file = File::open(path)?;
        file.seek(SeekFrom::Start(from))?;
        Ok(file)
    };
    opened().map_err(|error| Failure::Local(io_error("read", path)(error)))
}

/// A part of a file on its way out.
struct Part<'a> {
    file: io::Take<File>,
    told: u64,
    sent: &'a dyn Fn(u64),
    cancel: &'a AtomicBool,
}

impl Read for Part<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.cancel.load(Ordering::Relaxed) {
            return Err(io::Error::other("cancelled"));
        }
        let n = self.file.read(buffer)?;
        self.told += n as u64;
        (self.sent)(self.told);
        Ok(n)
    }
}

/// The certificate authorities that are trusted: `$SSL_CERT_FILE` or the system's, those named, and the registry's
/// own by Docker's rule (`certs.d/HOST/*.crt`). Without any, Mozilla's that are built in.
fn roots(registry: &str, further: &[PathBuf]) -> Result<RootCerts, Failure> {
    if host::is_loopback(&host::base(registry, false).authority) {
        return Ok(RootCerts::WebPki);
    }
    let mut certificates: Vec<Certificate<'static>> = Vec::new();
    let named = std::env::var_os("SSL_CERT_FILE").filter(|value| !value.is_empty());
    let system = named.map(PathBuf::from).or_else(|| {
        let mut bundles = BUNDLES.iter().map(PathBuf::from);
        bundles.find(|bundle| bundle.exists())
    });
    let own = CERTS_D.iter().flat_map(|dir| {
        let folder = Path::new(dir).join(registry);
        let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
        entries
            .map(|entry| entry.path())
            .filter(|path| path.extension().is_some_and(|extension| extension == "crt"))
    });
    let mut own: Vec<PathBuf> = own.collect();
    own.sort_unstable();
    for path in system.iter().chain(&own).chain(further) {
        let pem = std::fs::read(path)
            .map_err(|error| Failure::Local(io_error("read the certificates of", path)(error)))?;
        // One that cannot be read makes fewer trusted, not more.
        certificates.extend(parse_pem(&pem).filter_map(|item| match item {
            Ok(PemItem::Certificate(certificate)) => Some(certificate),
            _ => None,
        }));
    }
    Ok(match certificates.is_empty() {
        true => RootCerts::WebPki,
        false => RootCerts::new_with_certs(&certificates),
    })
}

/// What a failed exchange means.
pub(super) fn unreachable(error: ureq::Error) -> Failure {
    let text = shown_text(&error.to_string());
    let passing = |text: String| Failure::passing(Fault::Unreachable, text);
    match error {
        ureq::Error::HostNotFound => Failure::final_(
            Fault::Unreachable,
            "cannot be reached: there is no such host",
        ),
        ureq::Error::Tls(_) | ureq::Error::Rustls(_) => {
            Failure::final_(Fault::Unreachable, distrust(&text))
        }
        ureq::Error::Io(error) => match error.kind() {
            io::ErrorKind::InvalidData => Failure::final_(Fault::Unreachable, distrust(&text)),
            // What the library says of TLS is a link to its manual.
            io::ErrorKind::UnexpectedEof => {
                passing("broke off in the midst of an answer".to_owned())
            }
            _ => {
                let text = format!("cannot be reached: {}", shown_text(&error.to_string()));
                // What getaddrinfo says has neither kind nor number; waiting rarely helps it.
                let looked_up = error.raw_os_error().is_none() && text.contains("lookup");
                match looked_up {
                    true => Failure::final_(Fault::Unreachable, text),
                    false => passing(text),
                }
            }
        },
        // Our own fence.
        ureq::Error::Other(why) => Failure::final_(
            Fault::Broken,
            format!(
                "sends on to where nothing is asked: {}",
                shown_text(&why.to_string())
            ),
        ),
        ureq::Error::Timeout(_) => passing("did not answer in time".to_owned()),
        ureq::Error::BadUri(_) | ureq::Error::Http(_) | ureq::Error::LargeResponseHeader(..) => {
            Failure::final_(Fault::Broken, format!("cannot be spoken to: {text}"))
        }
        _ => passing(format!("broke off: {text}")),
    }
}

fn distrust(text: &str) -> String {
    format!(
        "shows no certificate that is trusted here ({text}); put its authority into {}/HOST/ca.crt",
        CERTS_D[0]
    )
}

/// An error as registries write it (distribution-spec, "Error Codes").
#[derive(Deserialize)]
struct Refusal {
    errors: Vec<Reason>,
}

#[derive(Deserialize)]
struct Reason {
    #[serde(default)]
    code: String,
    #[serde(default)]
    message: String,
}

/// What an answer that is none of the expected ones means. `before` may say what it was about.
pub(super) fn refusal(response: Response<Body>, before: &str) -> Failure {
    let status = response.status();
    let asked = retry_after(response.headers());
    let mut body = Vec::new();
    let read = response
        .into_body()
        .into_reader()
        .take(MAX_REFUSAL_BYTES)
        .read_to_end(&mut body);
    let said = match (read, serde_json::from_slice::<Refusal>(&body)) {
        (Ok(_), Ok(refusal)) => {
            let first = refusal.errors.into_iter().next();
            first.map(|reason| match reason.message.is_empty() {
                true => reason.code,
                false => reason.message,
            })
        }
        _ => None,
    };
    let mut text = match before {
        "" => String::new(),
        before => format!("{before} "),
    };
    text.push_str("answered ");
    text.push_str(status.as_str());
    if let Some(title) = status.canonical_reason() {
        text.push(' ');
        text.push_str(title);
    }
    if let Some(said) = said
        .map(|said| shown_text(&said))
        .filter(|said| !said.is_empty())
    {
        text.push_str(": ");
        text.push_str(&said);
    }
    let busy = |text| Failure::Registry {
        fault: Fault::Busy,
        reason: text,
        again: asked.map_or(Again::Yes, Again::After),
    };
    match status.as_u16() {
        401 => Failure::final_(Fault::Unauthorized, text),
        403 => Failure::final_(Fault::Denied, text),
        404 => Failure::final_(Fault::NotFound, text),
        408 | 429 | 500 | 502 | 503 | 504 => busy(text),
        _ => Failure::final_(Fault::Refused, text),
    }
}

/// Retry-After in seconds (RFC 9110, section 10.2.3); a date is taken for the usual pause.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let value = headers.get(header::RETRY_AFTER)?.to_str().ok()?;
    value.trim().parse().ok().map(Duration::from_secs)
}

/// Foreign text, fit to be shown in one line.
pub(super) fn shown_text(text: &str) -> String {
    let clean = text.chars().map(|c| if c.is_control() { ' ' } else { c });
    let clean: String = clean.take(300).collect();
    clean.trim().to_owned()
}
