//! One attempt of one probe.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use layby_model::ReplicaId;
use layby_model::engine::{Engine, EngineError};
use layby_model::spec::ProbeAction;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;

use super::{Check, grpc, tls};

/// So much of an HTTP answer is read: its status line is all that counts.
const ANSWER_BYTES: usize = 512;

/// An attempt that failed.
#[derive(Debug)]
pub(super) struct Failed {
    /// What happened, in words that follow "the probe".
    pub(super) text: String,
    /// Nobody was there to answer yet.
    pub(super) early: bool,
}

/// Makes one attempt, within the probe's timeout; connecting may take `connect` of it. What came of it is said
/// in words either way.
pub(super) async fn ask(
    engine: &dyn Engine,
    replica: ReplicaId,
    address: IpAddr,
    check: &Check,
    connect: Duration,
) -> Result<String, Failed> {
    let timeout = Duration::from_millis(check.probe.timeout_ms.max(1));
    let attempt = async {
        match &check.probe.action {
            ProbeAction::Http {
                port,
                path,
                host,
                headers,
                tls,
            } => {
                let addr = SocketAddr::new(address, *port);
                let stream = open(addr, connect.min(timeout)).await?;
                let get = Get {
                    url: format!("{}://{addr}{path}", scheme(*tls)),
                    addr,
                    path,
                    host: host.as_deref(),
                    headers,
                };
                if !tls {
                    return get.ask(stream).await;
                }
                match tls::connect(stream, address, get.host).await {
                    Ok(stream) => get.ask(stream).await,
                    Err(why) => Err(get.failed(&why)),
                }
            }
            ProbeAction::Grpc { port, service } => {
                let addr = SocketAddr::new(address, *port);
                let mut stream = open(addr, connect.min(timeout)).await?;
                let asked = grpc::check(&mut stream, &addr.to_string(), service).await;
                let text = |said: &str| format!("gRPC {addr}: {said}");
                asked.map(|()| text("SERVING")).map_err(|why| Failed {
                    text: text(&why),
                    early: false,
                })
            }
            ProbeAction::Tcp { port } => {
                let addr = SocketAddr::new(address, *port);
                open(addr, connect.min(timeout)).await?;
                Ok(format!("TCP {addr}: connected"))
            }
            ProbeAction::Exec { argv } => exec(engine, replica, check, argv).await,
        }
    };
    match tokio::time::timeout(timeout, attempt).await {
        Ok(answer) => answer,
        Err(_) => Err(Failed {
            text: format!(
                "{}: no answer within {} ms",
                what(check),
                check.probe.timeout_ms
            ),
            early: false,
        }),
    }
}

async fn open(addr: SocketAddr, within: Duration) -> Result<TcpStream, Failed> {
    let failed = |why: String| Failed {
        text: format!("TCP {addr}: {why}"),
        early: true,
    };
    match tokio::time::timeout(within, TcpStream::connect(addr)).await {
        Ok(Ok(stream)) => Ok(stream),
        Ok(Err(error)) => Err(failed(error.to_string())),
        Err(_) => Err(failed(format!(
            "no connection within {} ms",
            within.as_millis()
        ))),
    }
}

fn scheme(tls: bool) -> &'static str {
    match tls {
        true => "https",
        false => "http",
    }
}

/// A GET by HTTP/1.1 (RFC 9112): one request, then the connection closes.
struct Get<'a> {
    url: String,
    addr: SocketAddr,
    path: &'a str,
    host: Option<&'a str>,
    headers: &'a [(String, String)],
}

impl Get<'_> {
    fn failed(&self, why: &str) -> Failed {
        Failed {
            text: format!("GET {}: {why}", self.url),
            early: false,
        }
    }

    async fn ask(&self, mut stream: impl AsyncRead + AsyncWrite + Unpin) -> Result<String, Failed> {
        let Self {
            url,
            addr,
            path,
            host,
            headers,
        } = self;
        let failed = |why: &str| self.failed(why);
        let own = |name: &str| headers.iter().find(|(n, _)| n.eq_ignore_ascii_case(name));
        let mut request = format!("GET {path} HTTP/1.1\r\n");
        if own("host").is_none() {
            let host = host.map_or_else(|| addr.to_string(), str::to_owned);
            request.push_str(&format!("Host: {host}\r\n"));
        }
        if own("user-agent").is_none() {
            request.push_str("User-Agent: layby-probe\r\n");
        }
        for (name, value) in *headers {
            request.push_str(&format!("{name}: {value}\r\n"));
        }
        request.push_str("Accept: */*\r\nConnection: close\r\n\r\n");
        let io = |error: std::io::Error| failed(&error.to_string());
        stream.write_all(request.as_bytes()).await.map_err(io)?;

        let mut answer = Vec::with_capacity(ANSWER_BYTES);
        let mut limited = (&mut stream).take(ANSWER_BYTES as u64);
        while !answer.contains(&b'\n') {
            if limited.read_buf(&mut answer).await.map_err(io)? == 0 {
                break;
            }
        }
        let line = answer.split(|b| *b == b'\n').next().unwrap_or_default();
        let line = String::from_utf8_lossy(line);
        let line = line.trim_end();
        match status(line) {
            Some(200..=399) => Ok(format!("GET {url}: {line}")),
            Some(_) => Err(failed(line)),
            None if line.is_empty() => Err(failed("the connection was closed without an answer")),
            None => Err(failed(&format!("not an HTTP answer: {line:?}"))),
        }
    }
}

/// The status code of a status line (RFC 9112, section 4).
fn status(line: &str) -> Option<u16> {
    let (version, rest) = line.split_once(' ')?;
    if !version.starts_with("HTTP/1.") {
        return None;
    }
    rest.get(..3)?.parse().ok()
}

async fn exec(
    engine: &dyn Engine,
    replica: ReplicaId,
    check: &Check,
    argv: &[String],
) -> Result<String, Failed> {
    let container = Some(check.container.as_str());
    match engine
        .exec(replica, container, argv, check.probe.timeout_ms)
        .await
    {
        Ok(output) if output.code == 0 => Ok(format!("{}: exit code 0", what(check))),
        Ok(output) => {
            let text = String::from_utf8_lossy(&output.output);
            let said: String = text.trim().chars().take(200).collect();
            let said = if said.is_empty() {
                String::new()
            } else {
                format!(": {said}")
            };
            Err(Failed {
                text: format!("{}: exit code {}{said}", what(check), output.code),
                early: false,
            })
        }
        Err(error) => Err(Failed {
            text: format!("{}: {error}", what(check)),
            early: matches!(error, EngineError::NotFound(_)),
        }),
    }
}

/// The probe in a few words.
fn what(check: &Check) -> String {
    match &check.probe.action {
        ProbeAction::Http { port, path, .. } => format!("GET :{port}{path}"),
        ProbeAction::Tcp { port } => format!("TCP :{port}"),
        ProbeAction::Grpc { port, .. } => format!("gRPC :{port}"),
        ProbeAction::Exec { argv } => format!("command {:?}", argv.join(" ")),
    }
}

#[cfg(test)]
mod tests {
    use super::status;

    #[test]
    fn a_status_line_gives_its_code() {
        assert_eq!(status("HTTP/1.1 200 OK"), Some(200));
        assert_eq!(status("HTTP/1.0 503"), Some(503));
        for bad in [
            "",
            "HTTP/1.1",
            "HTTP/2 200",
            "SSH-2.0-x 200",
            "HTTP/1.1 2x0",
        ] {
            assert_eq!(status(bad), None, "{bad:?}");
        }
    }
}
