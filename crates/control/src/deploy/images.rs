//! Images of a deploy: which have to be built, building them, and what their names mean now.

use std::collections::BTreeMap;
use std::sync::Arc;

use layby_image::{BuildEvent, BuildOptions, Image, build};
use layby_model::AppName;
use layby_model::spec::{AppSpec, BuildSpec, ContainerSpec, ServiceSpec};
use tokio::runtime::Handle;
use tokio::sync::mpsc;

use super::upload::Upload;
use crate::api::types::{ContextView, Event, Problem};
use crate::plane::{CLIENT_IDLE, Plane};

/// One image to build.
#[derive(Debug, Clone)]
pub(crate) struct Build {
    /// For which service.
    pub(crate) service: String,
    /// The name that it gets.
    pub(crate) tag: String,
    /// How.
    pub(crate) spec: BuildSpec,
    /// Its context's place among those sent.
    pub(crate) context: usize,
}

/// The name of a container's image: where a manifest gives only a build, `<app>-<service>`.
pub(crate) fn name(app: &AppName, service: &ServiceSpec, container: &ContainerSpec) -> String {
    if container.image.is_empty() {
        format!("{app}-{}", service.name)
    } else {
        container.image.clone()
    }
}

/// What has to be built: all that always is, or everything when `force`d, and images that are missing.
pub(crate) async fn builds(
    plane: &Plane,
    app: &AppSpec,
    force: bool,
) -> Result<Vec<Build>, Problem> {
    let mut contexts: Vec<ContextView> = Vec::new();
    let mut builds: Vec<Build> = Vec::new();
    for service in &app.services {
        for container in &service.containers {
            let Some(spec) = &container.build else {
                continue;
            };
            let tag = name(&app.name, service, container);
            let wanted = force || spec.always || resolve(plane, &tag).await?.is_err();
            if !wanted || builds.iter().any(|b| b.tag == tag && b.spec == *spec) {
                continue;
            }
            let context = view(spec);
            let known = contexts.iter().position(|c| *c == context);
            let place = known.unwrap_or_else(|| {
                contexts.push(context);
                contexts.len() - 1
            });
            builds.push(Build {
                service: service.name.to_string(),
                tag,
                spec: spec.clone(),
                context: place,
            });
        }
    }
    Ok(builds)
}

/// The contexts that builds need, each once, in order.
pub(crate) fn contexts(builds: &[Build]) -> Vec<ContextView> {
    let by_place: BTreeMap<usize, ContextView> =
        builds.iter().map(|b| (b.context, view(&b.spec))).collect();
    by_place.into_values().collect()
}

/// Builds images one after another, and tells how it goes. What their names mean then is found by [`image`].
pub(crate) async fn run(
    plane: &Plane,
    upload: Arc<Upload>,
    builds: Vec<Build>,
    events: &mpsc::Sender<Event>,
) -> Result<(), Problem> {
    for one in builds {
        let Some(folder) = upload.context(one.context) else {
            return Err(Problem::conflict(format!(
                "the build context {} for the image {} was not sent: the node's images changed meanwhile",
                one.spec.context, one.tag
            ))
            .hint("run it again"));
        };
        let dockerfile = one.spec.dockerfile.clone();
        let shown = dockerfile.as_deref().unwrap_or("Dockerfile");
        let options = BuildOptions {
            file_name_shown: match one.spec.context.trim_end_matches('/') {
                "" | "." => shown.to_owned(),
                context => format!("{context}/{shown}"),
            },
            dockerfile,
            args: one.spec.args,
            target: one.spec.target,
            tag: Some(one.tag),
            ..BuildOptions::default()
        };
        let (store, events) = (Arc::clone(&plane.images), events.clone());
        // The upload has to be there until the build is done, whoever still waits for it.
        let keep = Arc::clone(&upload);
        let work = move || {
            let _keep = keep;
            let mut told = Told::new(events);
            build::build(&store, &folder, &options, &mut |event| {
                told.tell(Event::Build {
                    service: one.service.clone(),
                    text: text(&event),
                });
            })
        };
        let built = plane.at_clients_pace(work).await;
        built.await.map_err(broke_off)??;
    }
    Ok(())
}

/// Tells events from a blocking thread, to a client that may not listen (any more).
struct Told {
    events: mpsc::Sender<Event>,
    runtime: Handle,
    /// The client stalled: it is waited for no more.
    stalled: bool,
}

impl Told {
    fn new(events: mpsc::Sender<Event>) -> Self {
        Self {
            events,
            runtime: Handle::current(),
            stalled: false,
        }
    }

    fn tell(&mut self, event: Event) {
        if self.stalled {
            return;
        }
        let taken = async { tokio::time::timeout(CLIENT_IDLE, self.events.send(event)).await };
        self.stalled = self.runtime.block_on(taken).is_err();
    }
}

/// The image that a name means now.
///
/// # Errors
/// The image's problem: it is not there (which is named with similar ones), or cannot be read.
pub(crate) async fn image(plane: &Plane, reference: &str) -> Result<Image, Problem> {
    Ok(resolve(plane, reference).await??)
}

/// The outer error is the node's, the inner one the image's.
async fn resolve(
    plane: &Plane,
    reference: &str,
) -> Result<Result<Image, layby_image::Error>, Problem> {
    let (store, reference) = (
        Arc::clone(&plane.images),
        plane.desk.registry.hosts().canonical(reference),
    );
    let resolved = tokio::task::spawn_blocking(move || store.resolve(&reference));
    resolved.await.map_err(broke_off)
}

fn broke_off(error: tokio::task::JoinError) -> Problem {
    Problem::failed(format!(
        "the image store broke off; please report this: {error}"
    ))
}

fn view(spec: &BuildSpec) -> ContextView {
    ContextView {
        path: spec.context.clone(),
        dockerfile: spec.dockerfile.clone(),
    }
}

fn text(event: &BuildEvent) -> String {
    match event {
        BuildEvent::Started {
            number, of, text, ..
        } => format!("{number}/{of} {text}"),
        BuildEvent::Step {
            number,
            of,
            text,
            cached,
            ..
        } => {
            let cached = if *cached { " (cached)" } else { "" };
            format!("{number}/{of} {text}{cached}")
        }
        BuildEvent::Line { text, .. } | BuildEvent::Output(text) => text.clone(),
        BuildEvent::Failed { text, .. } => format!("{text} failed"),
    }
}
