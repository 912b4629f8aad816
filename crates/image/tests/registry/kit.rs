//! A registry in a temporary directory, and requests to it.

use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{HeaderMap, Request, StatusCode};
use http_body::{Body, Frame};
use http_body_util::{BodyExt, Full};
use layby_image::Store;
use layby_image::registry::{Grant, Hosts, Incoming, Moved, Registry, RegistryConfig};
use serde_json::{Value, json};
use sha2::{Digest, Sha256, Sha512};
use tempfile::TempDir;

pub(crate) const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
pub(crate) const INDEX: &str = "application/vnd.oci.image.index.v1+json";
pub(crate) const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
pub(crate) const LAYER: &str = "application/vnd.oci.image.layer.v1.tar";

/// A registry, deleted at the end.
pub(crate) struct World {
    pub(crate) dir: TempDir,
    pub(crate) store: Arc<Store>,
    pub(crate) registry: Registry,
    pub(crate) moved: Arc<Mutex<Vec<Moved>>>,
}

/// An answer, whole.
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl World {
    pub(crate) fn new() -> Self {
        let dir = TempDir::new().expect("a folder");
        Self::over(dir)
    }

    /// The registry that a folder holds, opened as at the start of a node.
    pub(crate) fn over(dir: TempDir) -> Self {
        let store = Arc::new(Store::open(&dir.path().join("store")).expect("a store"));
        let moved: Arc<Mutex<Vec<Moved>>> = Arc::default();
        let told = Arc::clone(&moved);
        let config = RegistryConfig {
            hosts: Hosts::new("localhost", None),
            on_move: Arc::new(move |one| told.lock().expect("no poison").push(one)),
            unpack: false,
        };
        let registry = Registry::open(Arc::clone(&store), config).expect("a registry");
        Self {
            dir,
            store,
            registry,
            moved,
        }
    }

    /// The node is killed and started again.
    pub(crate) fn restart(self) -> Self {
        let Self { dir, .. } = self;
        Self::over(dir)
    }

    pub(crate) async fn send(&self, request: Request<Incoming>, grant: &Grant) -> Answer {
        let (parts, body) = self.registry.handle(request, grant).await.into_parts();
        Answer {
            status: parts.status,
            headers: parts.headers,
            body: body.collect().await.expect("a whole body").to_bytes(),
        }
    }

    /// One request of somebody who may do everything.
    pub(crate) async fn ask(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> Answer {
        self.send(request(method, path, headers, whole(body)), &Grant::root())
            .await
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.ask("GET", path, &[], b"").await
    }

    /// Pushes a blob in one request, and gives its digest.
    pub(crate) async fn blob(&self, name: &str, bytes: &[u8]) -> String {
        let digest = sha256(bytes);
        let path = format!("/v2/{name}/blobs/uploads/?digest={digest}");
        let answer = self.ask("POST", &path, &[], bytes).await;
        assert_eq!(answer.status, 201, "{}", answer.text());
        digest
    }

    /// Begins an upload, and gives its place.
    pub(crate) async fn upload(&self, name: &str) -> String {
        let path = format!("/v2/{name}/blobs/uploads/");
        let answer = self.ask("POST", &path, &[], b"").await;
        assert_eq!(answer.status, 202, "{}", answer.text());
        answer.header("location").to_owned()
    }

    pub(crate) async fn put(&self, name: &str, reference: &str, manifest: &Value) -> Answer {
        let kind = manifest["mediaType"].as_str().expect("a type");
        let path = format!("/v2/{name}/manifests/{reference}");
        let body = manifest.to_string();
        self.ask("PUT", &path, &[("content-type", kind)], body.as_bytes())
            .await
    }

    /// Pushes an image with one layer, and gives its manifest.
    pub(crate) async fn image(&self, name: &str, tag: &str, text: &str) -> Value {
        let layer = tar_of(text);
        let config = json!({
            "architecture": architecture(), "os": "linux", "config": {"Cmd": [text]},
            "rootfs": {"type": "layers", "diff_ids": [sha256(&layer)]},
        });
        let config = config.to_string().into_bytes();
        self.blob(name, &layer).await;
        self.blob(name, &config).await;
        let manifest = json!({
            "schemaVersion": 2, "mediaType": MANIFEST,
            "config": descriptor(CONFIG, &config),
            "layers": [descriptor(LAYER, &layer)],
        });
        let answer = self.put(name, tag, &manifest).await;
        assert_eq!(answer.status, 201, "{}", answer.text());
        manifest
    }
}

impl Answer {
    pub(crate) fn header(&self, name: &str) -> &str {
        let value = self.headers.get(name);
        let value = value.unwrap_or_else(|| panic!("no {name} in {:?}", self.headers));
        value.to_str().expect("text")
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|_| panic!("no JSON: {}", self.text()))
    }

    /// The code of the error that it is.
    pub(crate) fn code(&self) -> String {
        let json = self.json();
        let error = &json["errors"][0];
        assert!(
            error["message"]
                .as_str()
                .is_some_and(|text| !text.is_empty())
        );
        error["code"].as_str().expect("a code").to_owned()
    }
}

pub(crate) fn request(
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: Incoming,
) -> Request<Incoming> {
    let mut request = Request::builder().method(method).uri(path);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    request.body(body).expect("a request")
}

pub(crate) fn whole(bytes: &[u8]) -> Incoming {
    let body = Full::new(Bytes::copy_from_slice(bytes));
    body.map_err(|never| match never {}).boxed_unsync()
}

/// A body that breaks off after these bytes.
pub(crate) fn cut(bytes: &[u8]) -> Incoming {
    Cut(Some(Bytes::copy_from_slice(bytes))).boxed_unsync()
}

/// A body of what is sent, which breaks off when the sender is dropped.
pub(crate) fn fed() -> (tokio::sync::mpsc::UnboundedSender<Bytes>, Incoming) {
    let (sender, receiver) = tokio::sync::mpsc::unbounded_channel();
    (sender, Fed(receiver).boxed_unsync())
}

struct Fed(tokio::sync::mpsc::UnboundedReceiver<Bytes>);

impl Body for Fed {
    type Data = Bytes;
    type Error = Box<dyn std::error::Error + Send + Sync>;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        self.0.poll_recv(context).map(|sent| {
            Some(match sent {
                Some(bytes) => Ok(Frame::data(bytes)),
                None => Err("the connection was reset".into()),
            })
        })
    }
}

struct Cut(Option<Bytes>);

impl Body for Cut {
    type Data = Bytes;
    type Error = Box<dyn std::error::Error + Send + Sync>;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        Poll::Ready(Some(match self.0.take() {
            Some(bytes) => Ok(Frame::data(bytes)),
            None => Err("the connection was reset".into()),
        }))
    }
}

pub(crate) fn sha256(bytes: &[u8]) -> String {
    format!("sha256:{}", hex(&Sha256::digest(bytes)))
}

pub(crate) fn sha512(bytes: &[u8]) -> String {
    format!("sha512:{}", hex(&Sha512::digest(bytes)))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

pub(crate) fn descriptor(kind: &str, bytes: &[u8]) -> Value {
    json!({"mediaType": kind, "digest": sha256(bytes), "size": bytes.len()})
}

pub(crate) fn digest_of(manifest: &Value) -> String {
    sha256(manifest.to_string().as_bytes())
}

pub(crate) fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

fn tar_of(text: &str) -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    header.set_size(text.len() as u64);
    header.set_mode(0o644);
    tar.append_data(&mut header, "file", text.as_bytes())
        .expect("to append");
    tar.into_inner().expect("to finish")
}
