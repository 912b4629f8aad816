//! The embedded registry: OCI Distribution Specification 1.1, over the node's own image store.
//!
//! What is pushed is in the store, and so already pulled: a tag's image goes by the name `registry.<domain>/<name>:<tag>`
//! in its index. Blobs are streamed to and from the disk; file work is done on threads that may block.

mod adopt;
mod blobs;
mod body;
mod digest;
mod grant;
mod held;
mod hosts;
mod images;
mod listing;
mod manifests;
mod range;
mod refusal;
mod repository;
mod route;
mod upload;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use http::header::{ALLOW, CONTENT_TYPE};
use http::request::Parts;
use http::{HeaderName, HeaderValue, Method, Request, Response, StatusCode};
use tokio::sync::Semaphore;

pub use body::{Incoming, Outgoing};
pub use grant::Grant;
pub(crate) use held::{forget, held, holdings};
pub use hosts::Hosts;
pub use refusal::TurnedAway;
use refusal::{Code, Refusal};
use route::Route;
use upload::Uploads;

use crate::{Error, Store};

const CONTENT_DIGEST: HeaderName = HeaderName::from_static("docker-content-digest");
const UPLOAD_ID: HeaderName = HeaderName::from_static("docker-upload-uuid");
const API_VERSION: HeaderName = HeaderName::from_static("docker-distribution-api-version");

/// So many threads may work for the registry at a time: others of the node share them, and a disk that is slow to bring
/// a large blob down must not take them all.
const DISK_THREADS: usize = 4;

/// Between two looks whether the garbage is still being collected.
const COLLECTING: Duration = Duration::from_millis(20);

/// A tag was set by a push, or by the node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Moved {
    /// The repository.
    pub repository: String,
    /// The tag.
    pub tag: String,
    /// The digest of the manifest or index that it leads to now.
    pub digest: String,
    /// The digest of the image that it means on this machine; `None`: it is nothing that runs here.
    pub image: Option<String>,
    /// Who pushed.
    pub who: String,
}

/// What a registry is made with.
pub struct RegistryConfig {
    /// Its names.
    pub hosts: Hosts,
    /// Told of each tag that was set, once that lasts; must not block.
    pub on_move: Arc<dyn Fn(Moved) + Send + Sync>,
    /// Unpack the layers of pushed images in the background, one image at a time (as root).
    pub unpack: bool,
}

/// The registry over a store.
pub struct Registry {
    store: Arc<Store>,
    hosts: Hosts,
    uploads: Arc<Uploads>,
    on_move: Arc<dyn Fn(Moved) + Send + Sync>,
    /// Held while manifests and tags are changed.
    turn: Arc<Mutex<()>>,
    disk: Arc<Semaphore>,
    unpacking: Option<Arc<Semaphore>>,
}

impl Registry {
    /// Opens the registry of a store, and mends what a crash left half done. Blocks.
    ///
    /// # Errors
    /// What is there cannot be read.
    pub fn open(store: Arc<Store>, config: RegistryConfig) -> Result<Self, Error> {
        let uploads = Arc::new(Uploads::default());
        uploads.sweep(&store)?;
        uploads.recover(&store)?;
        images::mend(&store, &config.hosts)?;
        let registry = Self {
            store,
            hosts: config.hosts,
            uploads,
            on_move: config.on_move,
            turn: Arc::default(),
            disk: Arc::new(Semaphore::new(DISK_THREADS)),
            unpacking: config.unpack.then(|| Arc::new(Semaphore::new(1))),
        };
        registry.adopt_names()?;
        Ok(registry)
    }

    /// The names under which it is meant.
    pub fn hosts(&self) -> &Hosts {
        &self.hosts
    }

    /// Answers one request. A path that the API does not have is answered 404.
    pub async fn handle(&self, request: Request<Incoming>, grant: &Grant) -> Response<Outgoing> {
        let (parts, body) = request.into_parts();
        let done = match route::read(parts.uri.path()) {
            Ok(Some(route)) => self.dispatch(route, &parts, body, grant).await,
            Ok(None) => Err(Refusal::new(
                Code::Unsupported,
                format!("there is no {} in the registry's API", parts.uri.path()),
            )
            .status(StatusCode::NOT_FOUND)),
            // Who may do nothing is not told what is well formed.
            Err(_) if grant.who.is_none() && !grant.pull => Err(Refusal::who_are_you()),
            Err(refusal) => Err(refusal),
        };
        let mut response = done.unwrap_or_else(Refusal::into_response);
        with(&mut response, API_VERSION, "registry/2.0");
        response
    }

    async fn dispatch(
        &self,
        route: Route,
        parts: &Parts,
        body: Incoming,
        grant: &Grant,
    ) -> Result<Response<Outgoing>, Refusal> {
        allowed(&route, parts, grant)?;
        let method = &parts.method;
        let reads = matches!(*method, Method::GET | Method::HEAD);
        match route {
            Route::Base if reads => {
                let mut response = answer(StatusCode::OK);
                with(&mut response, CONTENT_TYPE, "application/json");
                *response.body_mut() = body::whole("{}".into());
                Ok(response)
            }
            Route::Base => Err(no_such_method(parts, "GET, HEAD")),
            Route::Catalog if reads => listing::catalog(self, parts, grant).await,
            Route::Catalog => Err(no_such_method(parts, "GET")),
            Route::Tags(name) if reads => listing::tags(self, name, parts).await,
            Route::Tags(_) => Err(no_such_method(parts, "GET")),
            Route::Referrers(name, subject) if reads => {
                manifests::referrers(self, name, subject, parts).await
            }
            Route::Referrers(..) => Err(no_such_method(parts, "GET")),
            Route::Manifest(name, named) => match *method {
                Method::GET | Method::HEAD => manifests::read(self, name, named, parts).await,
                Method::PUT => manifests::write(self, name, named, parts, body, grant).await,
                Method::DELETE => manifests::delete(self, name, named).await,
                _ => Err(no_such_method(parts, "GET, HEAD, PUT, DELETE")),
            },
            Route::Blob(name, digest) => match *method {
                Method::GET | Method::HEAD => blobs::read(self, name, digest, parts).await,
                Method::DELETE => blobs::delete(self, name, digest).await,
                _ => Err(no_such_method(parts, "GET, HEAD, DELETE")),
            },
            Route::Uploads(name) => match *method {
                Method::POST => blobs::begin(self, name, parts, body, grant).await,
                _ => Err(no_such_method(parts, "POST")),
            },
            Route::Upload(name, id) => match *method {
                Method::GET | Method::HEAD => blobs::state(self, name, id).await,
                Method::PATCH => blobs::chunk(self, name, id, parts, body).await,
                Method::PUT => blobs::end(self, name, id, parts, body).await,
                Method::DELETE => blobs::cancel(self, name, id).await,
                _ => Err(no_such_method(parts, "GET, PATCH, PUT, DELETE")),
            },
        }
    }

    /// Takes a tag away, and its name from the store's index. `false`: there is no such tag. Blocks.
    ///
    /// # Errors
    /// The disk.
    pub fn untag(&self, repository: &str, tag: &str) -> Result<bool, Error> {
        let Ok(name) = route::Name::parse(repository) else {
            return Ok(false);
        };
        let _turn = self
            .turn
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        images::untag(&self.store, &self.hosts, &name, tag)
    }

    /// Forgets uploads that nobody went on with for a day. Blocks.
    ///
    /// # Errors
    /// The disk.
    pub fn sweep(&self) -> Result<(), Error> {
        self.uploads.sweep(&self.store)
    }

    /// Who pushed a tag last; empty where nobody knows. Blocks.
    pub fn pushed_by(&self, repository: &str, tag: &str) -> String {
        let name = route::Name::parse(repository).ok();
        let found = name.and_then(|name| {
            let repository = repository::Repository::new(&self.store, &name);
            repository.tag(tag).ok().flatten()
        });
        found.map(|tag| tag.pushed_by).unwrap_or_default()
    }

    /// Whether a repository holds this manifest. Blocks.
    pub fn holds(&self, repository: &str, digest: &str) -> bool {
        let (name, digest) = (
            route::Name::parse(repository),
            digest::Digest::parse(digest),
        );
        let (Ok(name), Some(digest)) = (name, digest) else {
            return false;
        };
        let repository = repository::Repository::new(&self.store, &name);
        repository
            .manifest(&digest)
            .is_ok_and(|found| found.is_some())
    }

    /// Does what may block on a thread that may.
    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<T, Refusal> + Send + 'static,
    ) -> Result<T, Refusal> {
        let turn = Arc::clone(&self.disk).acquire_owned().await;
        let work = move || {
            let _turn = turn;
            work()
        };
        let done = tokio::task::spawn_blocking(work).await;
        done.map_err(|error| Refusal::new(Code::Unknown, format!("the work broke off: {error}")))?
    }

    /// As `blocking`, with the garbage collection kept off; waits for it before it takes a thread, so that those who only
    /// read need not wait too.
    async fn adding<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<T, Refusal> + Send + 'static,
    ) -> Result<T, Refusal> {
        let adding = loop {
            let store = Arc::clone(&self.store);
            let tried = self.blocking(move || Ok(store.try_adding()?)).await?;
            match tried {
                Some(adding) => break adding,
                None => tokio::time::sleep(COLLECTING).await,
            }
        };
        self.blocking(move || {
            let _adding = adding;
            work()
        })
        .await
    }

    /// Unpacks an image's layers while nobody waits for them yet.
    fn unpack(&self, digest: String) {
        let Some(turn) = self.unpacking.clone() else {
            return;
        };
        let store = Arc::clone(&self.store);
        tokio::spawn(async move {
            let _turn = turn.acquire_owned().await;
            // Only a head start: whoever needs the layers unpacks them, and says what is wrong.
            let _ = tokio::task::spawn_blocking(move || store.layers(&digest)).await;
        });
    }
}

/// Whether the grant is good for the request.
fn allowed(route: &Route, parts: &Parts, grant: &Grant) -> Result<(), Refusal> {
    let reads = matches!(parts.method, Method::GET | Method::HEAD);
    let (name, allowed) = match route {
        // Clients learn here how to log in, and whether their password is right.
        Route::Base => ("", grant.who.is_some()),
        Route::Catalog => ("", grant.pull),
        Route::Manifest(name, _) | Route::Blob(name, _) if parts.method == Method::HEAD => {
            (name.as_str(), grant.may_look(name.as_str()))
        }
        Route::Tags(name)
        | Route::Manifest(name, _)
        | Route::Blob(name, _)
        | Route::Referrers(name, _)
            if reads =>
        {
            (name.as_str(), grant.may_pull(name.as_str()))
        }
        Route::Tags(name)
        | Route::Manifest(name, _)
        | Route::Blob(name, _)
        | Route::Referrers(name, _)
        | Route::Uploads(name)
        | Route::Upload(name, _) => (name.as_str(), grant.may_push(name.as_str())),
    };
    match (&grant.who, allowed) {
        (_, true) => Ok(()),
        (None, false) => Err(Refusal::who_are_you()),
        (Some(who), false) => {
            let verb = if reads { "read" } else { "write to" };
            let text = format!("the token {who} may not {verb} {name}");
            Err(Refusal::new(Code::Denied, text))
        }
    }
}

fn no_such_method(parts: &Parts, takes: &str) -> Refusal {
    let text = format!(
        "{} takes {takes}, and no {}",
        parts.uri.path(),
        parts.method
    );
    Refusal::new(Code::Unsupported, text).header(ALLOW, takes)
}

/// An answer without a body.
fn answer(status: StatusCode) -> Response<Outgoing> {
    let mut response = Response::new(body::empty());
    *response.status_mut() = status;
    response
}

/// Adds a header. What cannot be one is left out: all that comes from outside was checked before.
fn with(response: &mut Response<Outgoing>, name: HeaderName, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        response.headers_mut().append(name, value);
    }
}
