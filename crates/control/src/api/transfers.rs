//! Images from and to other registries, followed as they go.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use axum::extract::State;
use axum::response::Response;
use layby_image::client::{self, Options, Platform, Progress, Step};
use layby_image::{Error, Reference};
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TrySendError;
use tokio_stream::wrappers::ReceiverStream;

use super::images::{broke_off, required, view};
use super::lines::lines;
use super::query::{self, Pairs};
use super::types::{Problem, TransferEvent};
use super::{Shared, Who};
use crate::plane::{CLIENT_IDLE, Plane};
use crate::reach::Reach;

/// So many events may wait for a slow reader.
const EVENTS: usize = 256;

/// Pulls an image from its registry. Whoever goes before it is done breaks it off.
#[utoipa::path(
    post,
    path = "/v1/images/pull",
    params(
        ("reference" = String, Query),
        ("platform" = Option<String>, Query, description = "`os/architecture[/variant]`; otherwise the machine's"),
        ("insecure" = Option<bool>, Query, description = "Plain HTTP, or a certificate that nobody signed, will do"),
    ),
    responses(
        (status = 200, content_type = "application/x-ndjson", description = "Lines of `TransferEvent`"),
        (status = 400, body = Problem, content_type = "application/problem+json"),
        (status = 422, body = Problem, content_type = "application/problem+json"),
    )
)]
pub(super) async fn pull(State(plane): Shared, pairs: Pairs) -> Result<Response, Problem> {
    let reference: Reference = required(&pairs)?.parse()?;
    let platform: Option<Platform> = query::get(&pairs, "platform").map(str::parse).transpose()?;
    if plane.registries.is_own(&reference) {
        return Err(own(&reference));
    }
    let insecure = query::flag(&pairs, "insecure");
    run(plane, move |plane, teller| {
        let mut options = options(plane, &reference, insecure, teller)?;
        options.platform = platform;
        let tell = |progress| teller.progress(progress);
        let image = client::pull(&plane.images, &reference, &options, &tell)?;
        Ok(TransferEvent::Done {
            reference: reference.short(),
            digest: image.digest.clone(),
            image: Some(view(&image)),
        })
    })
    .await
}

/// Pushes an image to a registry.
#[utoipa::path(
    post,
    path = "/v1/images/push",
    params(
        ("reference" = String, Query, description = "The image"),
        ("to" = Option<String>, Query, description = "Under which name; otherwise its own"),
        ("insecure" = Option<bool>, Query, description = "Plain HTTP, or a certificate that nobody signed, will do"),
    ),
    responses(
        (status = 200, content_type = "application/x-ndjson", description = "Lines of `TransferEvent`"),
        (status = 404, body = Problem, content_type = "application/problem+json"),
        (status = 422, body = Problem, content_type = "application/problem+json"),
    )
)]
pub(super) async fn push(
    State(plane): Shared,
    who: Who,
    pairs: Pairs,
) -> Result<Response, Problem> {
    let reach = Reach::of(&plane, &who.rights).await?;
    let source = reach.meant(&required(&pairs)?).await?;
    let (store, name) = (Arc::clone(&plane.images), source.clone());
    let found = tokio::task::spawn_blocking(move || store.resolve(&name)).await;
    let found = found.map_err(broke_off)?;
    let image = found.map_err(|error| reach.tellable(&source, error))?;
    reach.see(&image, &source)?;
    let to = match (query::get(&pairs, "to"), &image.references[..]) {
        (Some(to), _) => to,
        (None, [name]) if source == image.digest => name,
        (None, _) if source == image.digest => {
            let text = format!("under which name {source} is to be pushed was not said");
            return Err(Problem::bad_request(text).hint("`layby image push IMAGE NAME`"));
        }
        (None, _) => &source,
    };
    // Elsewhere the node would push with its own logins.
    reach.name(to)?;
    if let Some(own) = plane.desk.registry.hosts().repository(to) {
        return give(plane, source, own).await;
    }
    let to: Reference = to.parse()?;
    let insecure = query::flag(&pairs, "insecure");
    run(plane, move |plane, teller| {
        let options = options(plane, &to, insecure, teller)?;
        let tell = |progress| teller.progress(progress);
        let digest = client::push(&plane.images, &source, &to, &options, &tell)?;
        Ok(TransferEvent::Done {
            reference: to.short(),
            digest,
            image: None,
        })
    })
    .await
}

/// Nothing has to be sent to the node's own registry: the image gets its name there.
async fn give(plane: Arc<Plane>, source: String, to: Reference) -> Result<Response, Problem> {
    run(plane, move |plane, _| {
        let digest = plane.images.resolve(&source)?.digest;
        plane.desk.tag(&plane.images, &digest, &to.to_string())?;
        plane.desk.pushed();
        Ok(TransferEvent::Done {
            reference: to.short(),
            digest,
            image: None,
        })
    })
    .await
}

fn own(reference: &Reference) -> Problem {
    let text = format!(
        "{} is of this node's own registry: what is there is an image of the node already",
        reference.short()
    );
    Problem::bad_request(text)
        .hint("`layby image ls` shows it, `layby image tag` gives another name")
}

fn options(
    plane: &Plane,
    reference: &Reference,
    insecure: bool,
    teller: &Teller,
) -> Result<Options, Error> {
    let options = plane
        .registries
        .options(&reference.registry, &reference.repository)?;
    Ok(Options {
        insecure: options.insecure || insecure,
        cancel: Arc::clone(&teller.cancel),
        ..options
    })
}

/// Does the work on a thread of its own, and answers with what it tells.
async fn run(
    plane: Arc<Plane>,
    work: impl FnOnce(&Plane, &Teller) -> Result<TransferEvent, Error> + Send + 'static,
) -> Result<Response, Problem> {
    let (events, stream) = mpsc::channel(EVENTS);
    let teller = Teller {
        events,
        cancel: Arc::default(),
        runtime: Handle::current(),
    };
    let kept = plane.collector.keep().await;
    let task = Arc::clone(&plane);
    let transfer = move || {
        let ended = work(&task, &teller).unwrap_or_else(|error| TransferEvent::Error {
            problem: error.into(),
        });
        drop(kept);
        teller.send(ended);
    };
    drop(plane.at_clients_pace(transfer).await);
    Ok(lines(ReceiverStream::new(stream)))
}

/// Tells what happens to each part, from several threads.
struct Teller {
    events: mpsc::Sender<TransferEvent>,
    cancel: Arc<AtomicBool>,
    runtime: Handle,
}

impl Teller {
    /// A reader that is slow misses how far it is, but not what happens.
    fn progress(&self, progress: Progress) {
        let counts = matches!(progress.step, Step::Bytes { .. });
        let event = event(progress);
        if !counts {
            self.send(event);
        } else if let Err(TrySendError::Closed(_)) = self.events.try_send(event) {
            self.cancel.store(true, Ordering::Relaxed);
        }
    }

    /// A reader that is gone, or takes nothing for long, breaks it off.
    fn send(&self, event: TransferEvent) {
        let sent = async { tokio::time::timeout(CLIENT_IDLE, self.events.send(event)).await };
        if !matches!(self.runtime.block_on(sent), Ok(Ok(()))) {
            self.cancel.store(true, Ordering::Relaxed);
        }
    }
}

fn event(progress: Progress) -> TransferEvent {
    let (step, done, of, reason) = match progress.step {
        Step::Waiting { of } => ("waiting", 0, of, None),
        Step::Held => ("held", 0, 0, None),
        Step::Bytes { done, of } => ("bytes", done, of, None),
        Step::Again { reason } => ("again", 0, 0, Some(reason)),
        Step::Done => ("done", 0, 0, None),
        Step::Unpacked => ("unpacked", 0, 0, None),
        Step::Mounted => ("mounted", 0, 0, None),
    };
    TransferEvent::Part {
        digest: progress.digest,
        step: step.to_owned(),
        done_bytes: done,
        of_bytes: of,
        reason,
    }
}
