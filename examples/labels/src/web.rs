//! The web application: pages made on the server. Without JavaScript everything works; with it, progress shows by itself.

pub mod assets;
pub mod export;
pub mod fault;
pub mod form;
pub mod guard;
pub mod list;
pub mod metered;
pub mod page;
pub mod picture;
pub mod queue;
pub mod rules;
pub mod thumbnails;
pub mod upload;

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::extract::{DefaultBodyLimit, State};
use axum::http::StatusCode;
use axum::middleware;
use axum::routing::{get, post};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::library::Library;
use crate::moment::now_ms;
use crate::queue::Queue;
use crate::store::StoreError;
use crate::web::fault::Fault;
use crate::web::thumbnails::Thumbnails;

/// How long requests under way may take after the signal to end.
pub const DRAIN_MAX: Duration = Duration::from_secs(10);

/// How old the index may be when a list is shown; then it is asked what others wrote, and shown next time.
const REFRESH_MS: u64 = 30_000;

/// The largest form but an upload: a corrected text and all fields.
const FORM_MAX_BYTES: usize = 1 << 20;

/// How many pictures are sent at the same time: each is in memory until the last of it is sent.
const ORIGINALS_AT_ONCE: usize = 4;

/// What all handlers share.
#[derive(Clone)]
pub struct App(Arc<Inner>);

struct Inner {
    library: Arc<Library>,
    queue: Arc<Queue>,
    thumbnails: Thumbnails,
    uploads: Semaphore,
    originals: Arc<Semaphore>,
    making: Arc<Semaphore>,
    open: AtomicBool,
    /// Why it is not open.
    problem: Mutex<String>,
    refreshed_ms: AtomicU64,
}

/// What takes so much memory that it is done in turn.
#[derive(Debug, Clone, Copy)]
enum Turns {
    /// Sending a picture as it is.
    Originals,
    /// Making a small one of it.
    Thumbnails,
}

impl App {
    /// Not open until [`open`] has made the index.
    pub fn new(library: Arc<Library>, queue: Arc<Queue>) -> App {
        App(Arc::new(Inner {
            library,
            queue,
            thumbnails: Thumbnails::default(),
            uploads: Semaphore::new(upload::AT_ONCE),
            originals: Arc::new(Semaphore::new(ORIGINALS_AT_ONCE)),
            making: Arc::new(Semaphore::new(1)),
            open: AtomicBool::new(false),
            problem: Mutex::new("the store has not been asked yet".into()),
            refreshed_ms: AtomicU64::new(0),
        }))
    }

    fn library(&self) -> &Arc<Library> {
        &self.0.library
    }

    fn queue(&self) -> &Arc<Queue> {
        &self.0.queue
    }

    fn uploads(&self) -> &Semaphore {
        &self.0.uploads
    }

    async fn turn(&self, of: Turns) -> Result<OwnedSemaphorePermit, Fault> {
        let turns = match of {
            Turns::Originals => &self.0.originals,
            Turns::Thumbnails => &self.0.making,
        };
        let turn = Arc::clone(turns).acquire_owned().await;
        turn.map_err(|_| Fault::Failed)
    }

    fn is_open(&self) -> bool {
        self.0.open.load(Ordering::SeqCst)
    }

    fn problem(&self) -> String {
        self.0
            .problem
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    fn set_open(&self, with: Result<(), StoreError>) {
        match with {
            Ok(()) => {
                self.0.refreshed_ms.store(now_ms(), Ordering::SeqCst);
                self.0.open.store(true, Ordering::SeqCst);
            }
            Err(error) => {
                eprintln!("warning: {}", fault::sentence(&error));
                *self
                    .0
                    .problem
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner) = fault::sentence(&error);
            }
        }
    }

    /// Asks the store for what others wrote, if that was long ago. Nobody waits for it.
    fn refresh_soon(&self) {
        let last = self.0.refreshed_ms.load(Ordering::SeqCst);
        let now = now_ms();
        let is_mine = now.saturating_sub(last) > REFRESH_MS
            && self
                .0
                .refreshed_ms
                .compare_exchange(last, now, Ordering::SeqCst, Ordering::SeqCst)
                .is_ok();
        if is_mine {
            let library = Arc::clone(self.library());
            tokio::task::spawn_blocking(move || {
                if let Err(error) = library.load() {
                    eprintln!("warning: {}", fault::sentence(&error));
                }
            });
        }
    }

    /// Does what blocks.
    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Library) -> T + Send + 'static,
    ) -> Result<T, Fault> {
        let library = Arc::clone(self.library());
        let done = tokio::task::spawn_blocking(move || work(&library)).await;
        done.map_err(|panic| {
            eprintln!("error: {panic}");
            Fault::Failed
        })
    }
}

/// Makes the index, again and again until the store answers; `first` is done before it.
pub async fn open(app: &App, first: impl Fn() -> Result<(), StoreError> + Clone + Send + 'static) {
    let mut pause = Duration::from_millis(200);
    loop {
        let first = first.clone();
        let loaded = app
            .blocking(move |library| first().and_then(|()| library.load()))
            .await;
        app.set_open(loaded.unwrap_or(Ok(())));
        if app.is_open() {
            println!(
                "{} pictures are known",
                app.library().look(crate::index::Index::len)
            );
            return;
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(Duration::from_secs(5));
    }
}

/// All routes.
pub fn router(app: App) -> Router {
    let pages = Router::new()
        .route("/", get(list::show))
        .route("/queue", get(queue::show))
        .route("/queue.json", get(queue::json))
        .route("/pictures/{sha256}", get(picture::show).post(picture::edit))
        .route("/pictures/{sha256}/again", post(picture::read_again))
        .route("/pictures/{sha256}/original", get(picture::original))
        .route("/pictures/{sha256}/thumbnail", get(picture::thumbnail))
        .route("/export.csv", get(export::csv))
        .route("/export.json", get(export::json))
        .layer(DefaultBodyLimit::max(FORM_MAX_BYTES))
        .route(
            "/upload",
            get(upload::show)
                .post(upload::take)
                .layer(DefaultBodyLimit::max(upload::BODY_MAX_BYTES)),
        )
        .layer(middleware::from_fn_with_state(
            app.clone(),
            guard::only_when_open,
        ));
    pages
        .route("/rules", get(rules::show))
        .route("/healthz", get(healthz))
        .route("/assets/{name}", get(assets::asset))
        .fallback(|| async { Fault::NotFound })
        .method_not_allowed_fallback(|| async { Fault::Method })
        .layer(middleware::from_fn(guard::only_own_forms))
        .layer(middleware::from_fn(guard::headers))
        .with_state(app)
}

/// `ok` once the index is made. The store is not asked: it may sleep.
async fn healthz(State(app): State<App>) -> (StatusCode, String) {
    if app.is_open() {
        (StatusCode::OK, "ok".into())
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, app.problem())
    }
}
