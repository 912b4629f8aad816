//! The embedded registry's place on the node: who may use it, where it is mounted, and what a push sets off.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::{ConnectInfo, Request, State};
use axum::response::Response;
use http_body_util::BodyExt;
use layby_image::registry::{Grant, Hosts, Moved, Registry, RegistryConfig};
use layby_model::names::ServiceName;
use layby_model::route::{Limits, Mode, ServiceRoute, Upstream};
use layby_model::{AppName, ReplicaId, ServiceId};
use tokio::sync::watch;

use crate::api::Known;
use crate::config::RegistrySettings;
use crate::plane::Plane;
use crate::tables::{Entry, Tables};

/// The app whose name no manifest may have: the node's own services are in it.
pub(crate) const OWN_APP: &str = "layby";

/// Who pushed what the node itself gave a name.
const SELF: &str = "root";

/// The registry and what belongs to it.
pub(crate) struct Desk {
    pub(crate) registry: Registry,
    pub(crate) pushes: Arc<Pushes>,
}

/// Pushes that somebody may wait for.
#[derive(Debug)]
pub(crate) struct Pushes {
    /// How many tags were set.
    pub(crate) moved: watch::Sender<u64>,
    /// For so many of them, what they set off has been written.
    pub(crate) handled: watch::Sender<u64>,
}

impl Desk {
    /// Opens the registry over the node's images.
    pub(crate) async fn open(
        settings: &RegistrySettings,
        domain: &str,
        images: Arc<layby_image::Store>,
    ) -> Result<Self, DeskError> {
        let pushes = Arc::new(Pushes {
            moved: watch::Sender::new(0),
            handled: watch::Sender::new(0),
        });
        let hosts = Hosts::new(domain, settings.listen);
        let told = Arc::clone(&pushes);
        let unpack = settings.unpack;
        let opened = tokio::task::spawn_blocking(move || {
            let config = RegistryConfig {
                hosts,
                on_move: Arc::new(move |moved| {
                    note(&moved);
                    told.moved.send_modify(|count| *count += 1);
                }),
                unpack,
            };
            Registry::open(images, config)
        });
        let registry = opened.await.map_err(|_| DeskError::BrokeOff)??;
        Ok(Self { registry, pushes })
    }
}

impl Desk {
    /// Gives an image a name. With one of this registry it is pushed there, in effect: by root, as over the socket. What
    /// waits for pushes looks for it when [`Desk::pushed`] is called. Blocks.
    pub(crate) fn tag(
        &self,
        images: &layby_image::Store,
        digest: &str,
        name: &str,
    ) -> Result<(), layby_image::Error> {
        match self.registry.hosts().repository(name) {
            Some(own) => self.registry.adopt(digest, &own, SELF),
            None => images.tag(digest, name),
        }
    }

    /// Takes a name from its image. One that comes from a tag of this registry goes with the tag. Blocks.
    pub(crate) fn forget(
        &self,
        images: &layby_image::Store,
        name: &str,
    ) -> Result<(), layby_image::Error> {
        match self.registry.hosts().repository(name) {
            Some(own) if own.digest.is_none() => match &own.tag {
                Some(tag) => self.registry.untag(&own.repository, tag).map(drop),
                None => images.remove(name),
            },
            Some(_) | None => images.remove(name),
        }
    }

    /// Something may have been pushed.
    pub(crate) fn pushed(&self) {
        self.pushes.moved.send_modify(|count| *count += 1);
    }
}

/// Writes into the node's log who let a tag lead where.
fn note(moved: &Moved) {
    tracing::info!(
        repository = moved.repository,
        tag = moved.tag,
        digest = moved.digest,
        image = moved.image,
        who = moved.who,
        "a tag of the registry was set"
    );
}

/// Why the registry could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum DeskError {
    /// Its folders could not be read.
    #[error("the registry's folders could not be read")]
    Images(#[from] layby_image::Error),
    /// Opening it broke off.
    #[error("opening the registry broke off; please report this")]
    BrokeOff,
}

/// Lets the gateway answer for the registry's host name.
pub(crate) fn route(tables: &Tables, hosts: &Hosts) {
    let Some(listen) = hosts.listen else { return };
    let (Ok(app), Ok(service)) = (AppName::new(OWN_APP), ServiceName::new("registry")) else {
        return;
    };
    let ip = match listen.ip().is_unspecified() {
        true if listen.is_ipv4() => std::net::Ipv4Addr::LOCALHOST.into(),
        true => std::net::Ipv6Addr::LOCALHOST.into(),
        false => listen.ip(),
    };
    let entry = Entry {
        paths: Vec::new(),
        hosts: vec![hosts.name.clone()],
        listeners: Vec::new(),
        route: ServiceRoute {
            mode: Mode::Serve {
                // No replica has this id: they count from 1.
                upstreams: vec![Upstream {
                    replica: ReplicaId(0),
                    ip,
                    concurrency: None,
                }],
                canary: None,
            },
            port: Some(listen.port()),
            limits: Limits::default(),
            is_scaled: false,
        },
        named: None, // containers reach it as any client does
    };
    tables.set(&ServiceId::new(app, service), entry);
}

/// The registry for whoever comes over the network: with a token, or as far as nobody needs one.
pub(crate) fn router(plane: Arc<Plane>) -> Router {
    Router::new().fallback(over_network).with_state(plane)
}

pub(crate) async fn over_network(State(plane): State<Arc<Plane>>, request: Request) -> Response {
    let peer = request.extensions().get::<ConnectInfo<SocketAddr>>();
    let peer = peer.map(|info| info.0.ip());
    let grant = match plane.doorman.grant(request.headers(), peer) {
        Ok(grant) => grant,
        Err(refusal) => return refusal.into_response().map(Body::new),
    };
    if grant.who.is_some() {
        Known::of(request.extensions());
    }
    answer(&plane, request, &grant).await
}

/// The registry for whoever may use the node's socket, who is as good as root.
pub(crate) async fn over_socket(State(plane): State<Arc<Plane>>, request: Request) -> Response {
    answer(&plane, request, &Grant::root()).await
}

async fn answer(plane: &Plane, request: Request, grant: &Grant) -> Response {
    let request = request.map(|body| {
        let boxed =
            |error: axum::Error| Box::new(error) as Box<dyn std::error::Error + Send + Sync>;
        body.map_err(boxed).boxed_unsync()
    });
    plane
        .desk
        .registry
        .handle(request, grant)
        .await
        .map(Body::new)
}
