//! Building one image out of an upload, and telling how it goes.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use layby_image::build::NamedContext;
use layby_image::build::agents::Agent;
use layby_image::build::run::{Place, RunNetwork};
use layby_image::{BuildEvent, BuildOptions, Image, Source, build};
use tokio::sync::mpsc;

use super::told::Told;
use super::upload::Upload;
use crate::agents::Link;
use crate::api::types::{BuildBody, Event, Problem};
use crate::plane::Plane;
use crate::reach::Reach;

/// The longest that a RUN may take where nothing else is asked for: one that waits for ever must not hold its place.
const STEP_TIMEOUT: Duration = Duration::from_secs(3600);
/// What names an image among the further contexts of a build.
const IMAGE: &str = "docker-image://";
/// What names the n-th context that was sent.
const SENT: &str = "context/";

/// What to build.
pub(crate) struct Order<'a> {
    /// The place of its context among those that were sent.
    pub(crate) context: usize,
    /// What it is called in the events.
    pub(crate) service: &'a str,
    /// For whom.
    pub(crate) source: Source,
    /// Who lends its SSH agents.
    pub(crate) agents: Option<Link>,
    /// How.
    pub(crate) body: BuildBody,
}

/// Builds an image, and gives it its names.
///
/// It ends soon after this is dropped: whoever waited for it is gone, or the node ends.
///
/// # Errors
/// What the builder says; a context or secret that was not sent.
pub(crate) async fn run(
    plane: &Plane,
    upload: Arc<Upload>,
    order: Order<'_>,
    reach: &Arc<Reach>,
    events: &mpsc::Sender<Event>,
) -> Result<Image, Problem> {
    let Order { service, body, .. } = order;
    let folder = upload
        .context(order.context)
        .ok_or_else(|| not_sent(&body.folder))?;
    let ssh = body.ssh.clone();
    let mut options = options(plane, &upload, body)?;
    options.source = order.source;
    options.agents = agents(ssh, order.agents.as_ref());
    options.steps_owner = reach.steps_owner();
    options.is_apart = reach.is_limited();
    let finding = Arc::clone(reach);
    options.find = Some(Arc::new(move |name| {
        let may = finding.use_image(name);
        may.map_err(|problem| layby_image::Error::Build(problem.detail))?;
        finding.find(name)
    }));
    let stop = StopOnDrop(Arc::clone(&options.stop));
    options.pull = Some(
        plane
            .registries
            .puller(Arc::clone(reach), Arc::clone(&options.stop)),
    );
    if plane.builds_wait() {
        let event = Event::Build {
            service: service.to_owned(),
            text: "waits until one of the other images is built".to_owned(),
        };
        // Whoever listens no more does not want it told.
        let _ = events.send(event).await;
    }
    let slot = plane.build_slot().await;
    options.place = Some(Arc::clone(&slot) as Arc<dyn Place>);
    let (store, service) = (Arc::clone(&plane.images), service.to_owned());
    let mut told = Told::new(events.clone());
    let built = tokio::task::spawn_blocking(move || {
        // The upload has to be there until the build is done, and the place is taken as long.
        let (_upload, _slot) = (upload, slot);
        build::build(&store, &folder, &options, &mut |event| {
            told.tell(shown(&service, event));
        })
    });
    let built = built.await.map_err(|error| {
        Problem::failed(format!(
            "the builder broke off; please report this: {error}"
        ))
    })?;
    drop(stop);
    Ok(built?)
}

/// The agents that are lent, by the ids that this build has for them.
fn agents(ids: Vec<String>, link: Option<&Link>) -> BTreeMap<String, Agent> {
    let places = ids.into_iter().zip(0..);
    let own = places.filter(|(id, _)| !id.is_empty());
    own.filter_map(|(id, place)| Some((id, link?.agent(place))))
        .collect()
}

/// Asks a build to end.
struct StopOnDrop(Arc<AtomicBool>);

impl Drop for StopOnDrop {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

fn options(plane: &Plane, upload: &Upload, body: BuildBody) -> Result<BuildOptions, Problem> {
    let shown = match (&body.dockerfile_shown, &body.dockerfile) {
        (Some(shown), _) => shown.clone(),
        (None, dockerfile) => {
            let name = dockerfile.as_deref().unwrap_or("Dockerfile");
            match body.folder.trim_end_matches('/') {
                "" | "." => name.to_owned(),
                folder => format!("{folder}/{name}"),
            }
        }
    };
    let hosts = plane.desk.registry.hosts();
    let mut options = BuildOptions {
        dockerfile: body.dockerfile,
        inline: body.dockerfile_inline,
        args: body.args,
        target: body.target,
        tags: body.tags.iter().map(|tag| hosts.canonical(tag)).collect(),
        file_name_shown: shown,
        labels: body.labels,
        no_cache: body.no_cache,
        platform: body.platform,
        known: upload.known(),
        runner: plane.runner.clone(),
        step_timeout: Some(
            body.step_timeout_ms
                .map_or(STEP_TIMEOUT, Duration::from_millis),
        ),
        reach: plane.config.reach(),
        network: match body.network.as_deref() {
            None | Some("default") => RunNetwork::Default,
            Some("none") => RunNetwork::None,
            Some("host") => RunNetwork::Host,
            Some(other) => {
                let text =
                    format!("there is no network {other:?} for a build: use default or none");
                return Err(Problem::bad_request(text));
            }
        },
        ..BuildOptions::default()
    };
    for (name, source) in body.contexts {
        let context = match (source.strip_prefix(IMAGE), source.strip_prefix(SENT)) {
            (Some(image), _) => NamedContext::Image(image.to_owned()),
            (_, Some(number)) => {
                let number = number.parse().ok();
                let folder = number.and_then(|number| upload.context(number));
                NamedContext::Folder(folder.ok_or_else(|| not_sent(&name))?)
            }
            (None, None) => {
                let text =
                    format!("the build context {name} is neither {IMAGE}NAME nor was it sent");
                return Err(Problem::bad_request(text));
            }
        };
        options.contexts.insert(name, context);
    }
    for (number, id) in body.secrets.into_iter().enumerate() {
        // Another build's of the same upload.
        if id.is_empty() {
            continue;
        }
        let value = upload.secrets.get(number).ok_or_else(|| {
            Problem::bad_request(format!("the value of the build secret {id:?} was not sent"))
        })?;
        options.secrets.insert(id, value.to_vec());
    }
    Ok(options)
}

fn not_sent(what: &str) -> Problem {
    let text =
        format!("the build context {what} was not sent: the node's images changed meanwhile");
    Problem::conflict(text).hint("run it again")
}

/// Which of several stages a step is of; one that has no name is told by the step's number well enough.
fn in_stage(stage: &str) -> String {
    match stage.parse::<u32>() {
        Ok(_) => String::new(),
        Err(_) => format!("[{stage}] "),
    }
}

fn shown(service: &str, event: BuildEvent) -> Event {
    let service = service.to_owned();
    match event {
        BuildEvent::Started {
            number,
            of,
            stage,
            text,
        } => Event::Build {
            service,
            text: format!("{number}/{of} {}{text}", in_stage(&stage)),
        },
        BuildEvent::Step {
            number,
            of,
            stage,
            text,
            cached,
        } => {
            let cached = if cached { "(cached)" } else { "(done)" };
            Event::Build {
                service,
                text: format!("{number}/{of} {}{text} {cached}", in_stage(&stage)),
            }
        }
        BuildEvent::Line { number, text, .. } => Event::BuildOutput {
            service,
            step: number,
            text,
        },
        BuildEvent::Failed { text, output, .. } => Event::BuildFailed {
            service,
            text,
            output,
        },
        BuildEvent::Output(text) => Event::Build { service, text },
    }
}
