//! The CLI's side of the API: HTTP/1.1 on the node's socket, or over TLS.

use std::io;
use std::path::Path;

use anyhow::{Context, Result, anyhow};
use futures_util::TryStreamExt;
use http_body_util::{BodyExt, BodyStream, Full, StreamBody, combinators::BoxBody};
use hyper::body::{Bytes, Frame, Incoming};
use hyper::header::{AUTHORIZATION, HeaderName, HeaderValue, LINK};
use hyper::http::request::Builder;
use hyper::upgrade::Upgraded;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use layby_control::api::types::{Problem, VersionView};
pub(crate) use layby_image::percent::encode;
use serde::de::DeserializeOwned;
use tokio::io::{AsyncBufRead, AsyncBufReadExt, AsyncRead, BufReader};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::{self, client::IntoClientRequest};
use tokio_util::io::{ReaderStream, StreamReader};

use crate::exit::{Code, Exit};
use crate::transport::{Stream, Transport};

type Body = BoxBody<Bytes, io::Error>;

/// A node. Each request has a connection of its own.
#[derive(Debug, Clone)]
pub(crate) struct Client {
    node: Transport,
}

/// One of the values that can follow a `?`.
pub(crate) type Query<'a> = (&'a str, String);

/// A header that a request has beside what all have.
pub(crate) type Head = (HeaderName, HeaderValue);

impl Client {
    /// The node whose API is on `socket`; `data_dir` is named in errors.
    pub(crate) fn new(socket: &Path, data_dir: &Path) -> Self {
        Self::by(Transport::Socket {
            socket: socket.to_owned(),
            data_dir: data_dir.to_owned(),
        })
    }

    /// The node that is reached so.
    pub(crate) fn by(node: Transport) -> Self {
        Self { node }
    }

    /// What the user calls a node elsewhere; `None`: it is on this machine.
    pub(crate) fn elsewhere(&self) -> Option<&str> {
        self.node.elsewhere()
    }

    /// Whether a node answers. One elsewhere does, or it is an error: without it, nothing is to be done here instead.
    ///
    /// # Errors
    /// One runs, but this user may not use it; or the one elsewhere cannot be reached, or refuses.
    pub(crate) async fn answers(&self) -> Result<bool> {
        let absent = |error: &anyhow::Error| {
            let exit = error.downcast_ref::<Exit>();
            exit.is_some_and(|exit| exit.code == Code::NotFound)
        };
        let asked = async || self.send(Method::GET, "/v1/version", &[], empty()).await;
        if self.elsewhere().is_some() {
            return asked().await.map(|_| true);
        }
        match self.node.connect().await {
            Err(error) if absent(&error) => Ok(false),
            Err(error) => Err(error),
            Ok(_) => Ok(asked().await.is_ok()),
        }
    }

    /// Where the node's gateway listens, as `address:port`.
    ///
    /// # Errors
    /// As [`Client::send`].
    pub(crate) async fn gateway(&self) -> Result<String> {
        let version: VersionView = self.get("/v1/version", &[]).await?;
        Ok(version.http)
    }

    /// `GET path`, read as JSON.
    ///
    /// # Errors
    /// As [`Client::send`]; or the answer is not what was expected.
    pub(crate) async fn get<T: DeserializeOwned>(
        &self,
        path: &str,
        query: &[Query<'_>],
    ) -> Result<T> {
        json(self.send(Method::GET, path, query, empty()).await?).await
    }

    /// `GET path`, read as a list in JSON; with the cursor of the next page, if there is one.
    ///
    /// # Errors
    /// As [`Client::get`].
    pub(crate) async fn get_page<T: DeserializeOwned>(
        &self,
        path: &str,
        query: &[Query<'_>],
    ) -> Result<(Vec<T>, Option<String>)> {
        let response = self.send(Method::GET, path, query, empty()).await?;
        let link = response.headers().get(LINK);
        let next = link.and_then(|link| cursor(link.to_str().ok()?));
        Ok((json(response).await?, next))
    }

    /// `POST path` with a JSON body or none, read as JSON.
    ///
    /// # Errors
    /// As [`Client::get`].
    pub(crate) async fn post<T: DeserializeOwned>(
        &self,
        path: &str,
        query: &[Query<'_>],
    ) -> Result<T> {
        json(self.send(Method::POST, path, query, empty()).await?).await
    }

    /// `POST path` with a JSON body, read as JSON.
    ///
    /// # Errors
    /// As [`Client::get`].
    pub(crate) async fn post_json<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &impl serde::Serialize,
    ) -> Result<T> {
        let body = json_body(body)?;
        json(self.send(Method::POST, path, &[], body).await?).await
    }

    /// `POST path`; that it was accepted is all that matters.
    ///
    /// # Errors
    /// As [`Client::send`].
    pub(crate) async fn order(&self, path: &str, query: &[Query<'_>]) -> Result<()> {
        self.send(Method::POST, path, query, empty())
            .await
            .map(drop)
    }

    /// `DELETE path`; that it was done is all that matters.
    ///
    /// # Errors
    /// As [`Client::send`].
    pub(crate) async fn forget(&self, path: &str, query: &[Query<'_>]) -> Result<()> {
        self.send(Method::DELETE, path, query, empty())
            .await
            .map(drop)
    }

    /// `DELETE path`, read as JSON.
    ///
    /// # Errors
    /// As [`Client::get`].
    pub(crate) async fn delete<T: DeserializeOwned>(
        &self,
        path: &str,
        query: &[Query<'_>],
    ) -> Result<T> {
        json(self.send(Method::DELETE, path, query, empty()).await?).await
    }

    /// `POST path` with `body` streamed, read as JSON.
    ///
    /// # Errors
    /// As [`Client::get`].
    pub(crate) async fn upload<T: DeserializeOwned>(
        &self,
        path: &str,
        query: &[Query<'_>],
        body: impl AsyncRead + Send + Sync + 'static,
    ) -> Result<T> {
        json(self.send(Method::POST, path, query, streamed(body)).await?).await
    }

    /// The same, with further headers.
    ///
    /// # Errors
    /// As [`Client::get`].
    pub(crate) async fn upload_with<T: DeserializeOwned>(
        &self,
        path: &str,
        query: &[Query<'_>],
        head: &[Head],
        body: impl AsyncRead + Send + Sync + 'static,
    ) -> Result<T> {
        let body = streamed(body);
        json(
            self.send_with(Method::POST, path, query, head, body)
                .await?,
        )
        .await
    }

    /// `POST path` with further headers; the answer's bytes as they come.
    ///
    /// # Errors
    /// As [`Client::send`].
    pub(crate) async fn download_by_post(
        &self,
        path: &str,
        query: &[Query<'_>],
        head: &[Head],
    ) -> Result<impl AsyncRead + Send + Unpin + use<>> {
        let sent = self.send_with(Method::POST, path, query, head, empty());
        Ok(reader(sent.await?))
    }

    /// `POST path` with `body` streamed; the answer's lines as they come.
    ///
    /// # Errors
    /// As [`Client::send`].
    pub(crate) async fn upload_for_lines(
        &self,
        path: &str,
        query: &[Query<'_>],
        body: impl AsyncRead + Send + Sync + 'static,
    ) -> Result<Lines> {
        Ok(lines(
            self.send(Method::POST, path, query, streamed(body)).await?,
        ))
    }

    /// `POST path`; the answer's lines as they come.
    ///
    /// # Errors
    /// As [`Client::send`].
    pub(crate) async fn post_lines(&self, path: &str, query: &[Query<'_>]) -> Result<Lines> {
        Ok(lines(self.send(Method::POST, path, query, empty()).await?))
    }

    /// `PUT path` with a JSON body, read as JSON.
    ///
    /// # Errors
    /// As [`Client::get`].
    pub(crate) async fn put_json<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &impl serde::Serialize,
    ) -> Result<T> {
        let body = json_body(body)?;
        json(self.send(Method::PUT, path, &[], body).await?).await
    }

    /// `POST path` with a JSON body; the answer's lines as they come.
    ///
    /// # Errors
    /// As [`Client::send`].
    pub(crate) async fn post_for_lines(
        &self,
        path: &str,
        query: &[Query<'_>],
        body: &impl serde::Serialize,
    ) -> Result<Lines> {
        let body = json_body(body)?;
        Ok(lines(self.send(Method::POST, path, query, body).await?))
    }

    /// `GET path`; the answer's lines as they come.
    ///
    /// # Errors
    /// As [`Client::send`].
    pub(crate) async fn get_lines(&self, path: &str, query: &[Query<'_>]) -> Result<Lines> {
        Ok(lines(self.send(Method::GET, path, query, empty()).await?))
    }

    /// `GET path`; the answer's bytes as they come.
    ///
    /// # Errors
    /// As [`Client::send`].
    pub(crate) async fn download(
        &self,
        path: &str,
        query: &[Query<'_>],
    ) -> Result<impl AsyncRead + Send + Unpin + use<>> {
        Ok(reader(self.send(Method::GET, path, query, empty()).await?))
    }

    /// `PUT path` with `body` streamed; that it was done is all that matters.
    ///
    /// # Errors
    /// As [`Client::send`].
    pub(crate) async fn put(
        &self,
        path: &str,
        query: &[Query<'_>],
        body: impl AsyncRead + Send + Sync + 'static,
    ) -> Result<()> {
        self.send(Method::PUT, path, query, streamed(body))
            .await
            .map(drop)
    }

    /// `GET path` as a WebSocket of Kubernetes' channel protocol.
    ///
    /// # Errors
    /// As [`Client::send`].
    pub(crate) async fn web_socket(
        &self,
        path: &str,
        query: &[Query<'_>],
    ) -> Result<WebSocketStream<Box<dyn Stream>>> {
        let stream = self.node.connect().await?;
        let url = format!("ws://{}{path}{}", self.node.host(), encode_query(query));
        let mut request = url.into_client_request()?;
        let protocol = HeaderValue::from_static("v5.channel.k8s.io");
        let headers = request.headers_mut();
        headers.insert("sec-websocket-protocol", protocol);
        if let Some(token) = self.node.authorization() {
            headers.insert(AUTHORIZATION, token.clone());
        }
        match tokio_tungstenite::client_async(request, stream).await {
            Ok((socket, _)) => Ok(socket),
            Err(tungstenite::Error::Http(answer)) => {
                let body = answer.body().clone().unwrap_or_default();
                Err(problem_of(answer.status(), &body))
            }
            Err(error) => Err(error).context("the node closed the connection: see its log"),
        }
    }

    /// `GET path` with the connection taken over for `protocol`.
    ///
    /// # Errors
    /// As [`Client::send`].
    pub(crate) async fn upgrade(
        &self,
        path: &str,
        query: &[Query<'_>],
        protocol: &str,
    ) -> Result<TokioIo<Upgraded>> {
        let stream = TokioIo::new(self.node.connect().await?);
        let (mut sender, connection) = hyper::client::conn::http1::handshake(stream).await?;
        tokio::spawn(connection.with_upgrades());
        let request = self
            .request(Method::GET, path, query)
            .header("connection", "Upgrade")
            .header("upgrade", protocol)
            .body(empty())?;
        let response = sender.send_request(request).await;
        let response = response.context("the node closed the connection: see its log")?;
        if response.status() != StatusCode::SWITCHING_PROTOCOLS {
            return Err(problem(response).await);
        }
        Ok(TokioIo::new(hyper::upgrade::on(response).await?))
    }

    /// The head of a request, but for what its body is.
    fn request(&self, method: Method, path: &str, query: &[Query<'_>]) -> Builder {
        let request = Request::builder()
            .method(method)
            .uri(format!("{path}{}", encode_query(query)))
            .header("host", self.node.host())
            .header("accept", "application/x-ndjson, application/json");
        match self.node.authorization() {
            Some(token) => request.header(AUTHORIZATION, token),
            None => request,
        }
    }

    /// Sends a request and turns an error answer (RFC 9457) into an [`Exit`].
    async fn send(
        &self,
        method: Method,
        path: &str,
        query: &[Query<'_>],
        body: Body,
    ) -> Result<Response<Incoming>> {
        self.send_with(method, path, query, &[], body).await
    }

    async fn send_with(
        &self,
        method: Method,
        path: &str,
        query: &[Query<'_>],
        head: &[Head],
        body: Body,
    ) -> Result<Response<Incoming>> {
        let stream = self.node.connect().await?;
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
        tokio::spawn(connection);
        let mut request = self
            .request(method, path, query)
            .header("content-type", "application/json");
        for (name, value) in head {
            request = request.header(name, value);
        }
        let request = request.body(body)?;
        let response = sender
            .send_request(request)
            .await
            .context("the node closed the connection: see its log")?;
        if response.status().is_success() {
            Ok(response)
        } else {
            Err(problem(response).await)
        }
    }
}

/// Lines of JSON as they come.
pub(crate) struct Lines(Box<dyn AsyncBufRead + Send + Unpin>);

impl Lines {
    /// The next one; `None` at the end.
    ///
    /// # Errors
    /// The connection broke, or the line is not what was expected.
    pub(crate) async fn next<T: DeserializeOwned>(&mut self) -> Result<Option<T>> {
        let mut line = String::new();
        loop {
            line.clear();
            if self
                .0
                .read_line(&mut line)
                .await
                .context("the node closed the connection: see its log")?
                == 0
            {
                return Ok(None);
            }
            if !line.trim().is_empty() {
                return serde_json::from_str(&line)
                    .map(Some)
                    .with_context(|| format!("the node said {line:?}"));
            }
        }
    }
}

fn json_body(body: &impl serde::Serialize) -> Result<Body> {
    let bytes = Bytes::from(serde_json::to_vec(body)?);
    Ok(Full::new(bytes).map_err(|never| match never {}).boxed())
}

fn empty() -> Body {
    Full::new(Bytes::new())
        .map_err(|never| match never {})
        .boxed()
}

fn streamed(body: impl AsyncRead + Send + Sync + 'static) -> Body {
    StreamBody::new(ReaderStream::with_capacity(body, 64 * 1024).map_ok(Frame::data)).boxed()
}

fn reader(response: Response<Incoming>) -> impl AsyncBufRead + Send + Unpin + use<> {
    let frames = TryStreamExt::map_err(BodyStream::new(response.into_body()), io::Error::other)
        .try_filter_map(|frame| async { Ok(frame.into_data().ok()) });
    StreamReader::new(Box::pin(frames))
}

fn lines(response: Response<Incoming>) -> Lines {
    Lines(Box::new(BufReader::new(reader(response))))
}

async fn json<T: DeserializeOwned>(response: Response<Incoming>) -> Result<T> {
    let body = response
        .into_body()
        .collect()
        .await
        .context("the node closed the connection: see its log")?
        .to_bytes();
    serde_json::from_slice(&body)
        .with_context(|| format!("the node said {:?}", String::from_utf8_lossy(&body)))
}

async fn problem(response: Response<Incoming>) -> anyhow::Error {
    let status = response.status();
    match response.into_body().collect().await {
        Ok(body) => problem_of(status, &body.to_bytes()),
        Err(error) => error.into(),
    }
}

fn problem_of(status: StatusCode, body: &[u8]) -> anyhow::Error {
    let problem: Problem = match serde_json::from_slice(body) {
        Ok(problem) => problem,
        Err(_) => {
            return anyhow!(
                "the node answered {status}: is it of another version? (`layby version`)"
            );
        }
    };
    let code = match status {
        StatusCode::NOT_FOUND => Code::NotFound,
        StatusCode::GATEWAY_TIMEOUT => Code::TimedOut,
        _ => Code::Failed,
    };
    let message = match problem.hint {
        Some(hint) => format!("{}\n  {hint}", problem.detail),
        None => problem.detail,
    };
    let exit = Exit {
        is_conflict: status == StatusCode::CONFLICT,
        problem: problem.code,
        ..Exit::new(code, message)
    };
    exit.into()
}

/// The cursor that a `Link` header (RFC 8288) leads on with.
fn cursor(link: &str) -> Option<String> {
    let target = link.strip_prefix('<')?.split_once(">; rel=\"next\"")?.0;
    let mut pairs = target.split_once('?')?.1.split('&');
    let found = pairs.find_map(|pair| pair.strip_prefix("cursor="));
    found.map(str::to_owned)
}

/// `?a=b&c=d` in the form of RFC 3986; nothing for no values.
fn encode_query(query: &[Query<'_>]) -> String {
    let mut text = String::new();
    for (key, value) in query {
        text.push(if text.is_empty() { '?' } else { '&' });
        text.push_str(key);
        text.push('=');
        text.push_str(&encode(value));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_next_page_is_where_the_link_leads() {
        let link = "</v1/audit?who=me&cursor=MTI>; rel=\"next\"";
        assert_eq!(cursor(link).as_deref(), Some("MTI"));
        for none in [
            "",
            "</v1/audit?who=me>; rel=\"next\"",
            "</v1/audit?cursor=a>; rel=\"prev\"",
        ] {
            assert_eq!(cursor(none), None, "{none}");
        }
    }

    #[test]
    fn a_query_is_percent_encoded() {
        let query = [("file", "a b/ä".to_owned()), ("build", "true".to_owned())];
        assert_eq!(encode_query(&query), "?file=a%20b%2F%C3%A4&build=true");
        assert_eq!(encode_query(&[]), "");
    }
}
