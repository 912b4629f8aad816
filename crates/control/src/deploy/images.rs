//! Images of a deploy: which have to be built, building them, and what their names mean now.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use layby_image::build::says_whose;
use layby_image::{Image, Reference, Source};
use layby_model::AppName;
use layby_model::mounts::Mount;
use layby_model::spec::{AppSpec, BuildSpec, ContainerSpec, ServiceSpec};
use tokio::sync::mpsc;

use super::build;
use super::upload::Upload;
use crate::agents::Link;
use crate::api::types::{AgentView, BuildBody, ContextView, Event, Problem, SecretView};
use crate::plane::Plane;
use crate::reach::Reach;

/// What is to be built, and what has to be sent for it.
#[derive(Debug, Default)]
pub(crate) struct Wanted {
    pub(crate) builds: Vec<Build>,
    /// Each once, in order.
    pub(crate) contexts: Vec<ContextView>,
    /// The same.
    pub(crate) secrets: Vec<SecretView>,
    /// The same, of SSH agents.
    pub(crate) agents: Vec<AgentView>,
}

/// One image to build.
#[derive(Debug)]
pub(crate) struct Build {
    /// For which service.
    pub(crate) service: String,
    /// The name that it gets.
    pub(crate) tag: String,
    /// Its context's place among those sent.
    pub(crate) context: usize,
    /// How. Its secrets are all that were sent, by place.
    pub(crate) body: BuildBody,
    spec: BuildSpec,
}

/// The name of a container's image: where a manifest gives only a build, `<app>-<service>`.
pub(crate) fn name(app: &AppName, service: &ServiceSpec, container: &ContainerSpec) -> String {
    let is_first = service.containers.first() == Some(container);
    match () {
        () if !container.image.is_empty() => container.image.clone(),
        () if is_first => format!("{app}-{}", service.name),
        // It was a service of its own, in the network of this one.
        () => format!("{app}-{}", container.name),
    }
}

/// What has to be built: all that always is, or everything when `force`d, and images that are missing. One that was built for
/// another app is no image of this one, whatever it is called.
pub(crate) async fn builds(plane: &Plane, app: &AppSpec, force: bool) -> Result<Wanted, Problem> {
    let mut wanted = Wanted::default();
    let mut containers = app.services.iter().flat_map(ServiceSpec::all_containers);
    let of_others = match containers.any(|container| container.build.is_some()) {
        true => of_others(plane, &app.name).await?,
        false => BTreeSet::new(),
    };
    for service in &app.services {
        for container in service.all_containers() {
            let Some(spec) = &container.build else {
                continue;
            };
            let tag = name(&app.name, service, container);
            let is_wanted = force
                || spec.always
                || of_others.contains(&plain(plane, &tag))
                || resolve(plane, &tag).await?.is_err();
            let mut known = wanted.builds.iter();
            if is_wanted && !known.any(|build| build.tag == tag && build.spec == *spec) {
                wanted.add(
                    service.name.as_str(),
                    tag,
                    spec,
                    container.platform.as_ref(),
                );
            }
        }
    }
    // Which of the secrets are whose is known only when all are.
    let count = wanted.secrets.len();
    for build in &mut wanted.builds {
        let mut ids = vec![String::new(); wanted.agents.len()];
        for agent in &build.spec.ssh {
            let place = wanted
                .agents
                .iter()
                .position(|view| *view == AgentView::of(agent));
            place
                .and_then(|place| ids.get_mut(place))
                .into_iter()
                .for_each(|id| id.clone_from(&agent.id));
        }
        build.body.ssh = ids;
        let mut ids = vec![String::new(); count];
        for secret in &build.spec.secrets {
            let view = SecretView::of(secret);
            let place = wanted.secrets.iter().position(|known| *known == view);
            place
                .and_then(|place| ids.get_mut(place))
                .into_iter()
                .for_each(|id| id.clone_from(&secret.id));
        }
        build.body.secrets = ids;
    }
    Ok(wanted)
}

/// The names of what was built for other apps than this one.
async fn of_others(plane: &Plane, app: &AppName) -> Result<BTreeSet<String>, Problem> {
    let store = Arc::clone(&plane.images);
    let names = tokio::task::spawn_blocking(move || store.names()).await;
    let names = names.map_err(broke_off)??.into_iter();
    let others = names.filter(|name| match &name.source {
        Source::For(whom) => whom != app.as_str(),
        Source::Here | Source::Registry => false,
    });
    Ok(others.map(|name| name.reference).collect())
}

/// A name as the store has it.
fn plain(plane: &Plane, name: &str) -> String {
    let name = plane.desk.registry.hosts().canonical(name);
    let parsed: Result<Reference, _> = name.parse();
    parsed.map_or(name, |reference| reference.to_string())
}

impl Wanted {
    fn add(&mut self, service: &str, tag: String, spec: &BuildSpec, platform: Option<&String>) {
        let context = place(
            &mut self.contexts,
            ContextView {
                path: spec.context.clone(),
                dockerfile: spec.dockerfile.clone(),
            },
        );
        let mut contexts = BTreeMap::new();
        for (name, source) in &spec.contexts {
            let source = match source.contains("://") {
                true => source.clone(),
                false => {
                    let folder = ContextView {
                        path: source.clone(),
                        dockerfile: None,
                    };
                    format!("context/{}", place(&mut self.contexts, folder))
                }
            };
            contexts.insert(name.clone(), source);
        }
        for secret in &spec.secrets {
            place(&mut self.secrets, SecretView::of(secret));
        }
        for agent in &spec.ssh {
            place(&mut self.agents, AgentView::of(agent));
        }
        let inline = spec.dockerfile_inline.as_ref();
        self.builds.push(Build {
            service: service.to_owned(),
            context,
            body: BuildBody {
                folder: spec.context.clone(),
                dockerfile: spec.dockerfile.clone(),
                dockerfile_inline: inline.cloned(),
                dockerfile_shown: inline.map(|_| format!("dockerfile_inline of {service}")),
                args: spec.args.clone(),
                target: spec.target.clone(),
                tags: [&tag].into_iter().chain(&spec.tags).cloned().collect(),
                labels: spec.labels.clone(),
                contexts,
                secrets: Vec::new(),
                ssh: Vec::new(),
                agents: None,
                network: spec.network.clone(),
                no_cache: spec.no_cache,
                platform: platform.cloned(),
                step_timeout_ms: None,
            },
            tag,
            spec: spec.clone(),
        });
    }
}

/// The place of an item, which is added if it is not there.
fn place<T: PartialEq>(items: &mut Vec<T>, item: T) -> usize {
    let known = items.iter().position(|known| *known == item);
    known.unwrap_or_else(|| {
        items.push(item);
        items.len() - 1
    })
}

/// Builds images of an app one after another, and tells how it goes. What their names mean then is found by [`image`].
pub(crate) async fn run(
    plane: &Arc<Plane>,
    upload: Arc<Upload>,
    app: &AppName,
    builds: Vec<Build>,
    agents: Option<&Link>,
    reach: &Arc<Reach>,
    events: &mpsc::Sender<Event>,
) -> Result<(), Problem> {
    for one in builds {
        let upload = Arc::clone(&upload);
        let names = one.body.tags.clone();
        let (at, service) = (one.context, &one.service);
        let source = Source::For(app.to_string());
        let order = build::Order {
            context: at,
            service,
            source,
            agents: agents.cloned(),
            body: one.body,
        };
        let image = build::run(plane, upload, order, reach, events).await?;
        push_own(plane, &image.digest, &names).await?;
    }
    Ok(())
}

/// Lets an image be pulled by those of its names that are of the node's own registry.
pub(crate) async fn push_own(
    plane: &Arc<Plane>,
    digest: &str,
    names: &[String],
) -> Result<(), Problem> {
    let hosts = plane.desk.registry.hosts();
    let own = names
        .iter()
        .map(|name| (name.clone(), hosts.canonical(name)));
    let own: Vec<(String, String)> = own
        .filter(|(_, own)| hosts.repository(own).is_some())
        .collect();
    let (task_plane, digest) = (Arc::clone(plane), digest.to_owned());
    let push = move || {
        let (desk, images) = (&task_plane.desk, &task_plane.images);
        own.iter().try_for_each(|(name, own)| {
            desk.tag(images, &digest, own)?;
            match name == own {
                true => Ok(()),
                // Nobody would find it by this one any more.
                false => match images.remove(name) {
                    Err(layby_image::Error::NotFound { .. }) => Ok(()),
                    removed => removed,
                },
            }
        })
    };
    let pushed = tokio::task::spawn_blocking(push).await;
    Ok(pushed.map_err(broke_off)??)
}

/// The image that a name means now.
///
/// # Errors
/// The image's problem: it is not there (which is named with similar ones), or cannot be read.
pub(crate) async fn image(plane: &Plane, reference: &str) -> Result<Image, Problem> {
    Ok(resolve(plane, reference).await??)
}

/// The image that a name means for somebody now. The outer error is the node's, the inner one the image's.
pub(super) async fn found(
    reach: &Arc<Reach>,
    name: &str,
) -> Result<Result<Image, layby_image::Error>, Problem> {
    let (reach, name) = (Arc::clone(reach), name.to_owned());
    let found = tokio::task::spawn_blocking(move || reach.find(&name));
    found.await.map_err(broke_off)
}

/// What is lost with each replica without the manifest's saying so: the volumes that images declare, and on which
/// nothing is mounted. An image that is not there yet says nothing.
pub(super) async fn unkept(
    reach: &Arc<Reach>,
    app: &AppName,
    services: &[ServiceSpec],
) -> Vec<String> {
    let mut texts = Vec::new();
    for service in services {
        for container in service.all_containers() {
            let name = name(app, service, container);
            let Ok(Ok(image)) = found(reach, &name).await else {
                continue;
            };
            let declared = image.config.volumes.iter();
            for path in declared.filter(|path| !is_mounted(path, &container.mounts)) {
                texts.push(format!(
                    "{app}/{}: the image {name} declares a volume at {path}; what is written there goes with each replica: mount a named volume to keep it",
                    service.name
                ));
            }
        }
    }
    texts
}

/// What of an app runs what was built here for another one, where neither the manifest nor the name says so. Such a name may
/// have been given by whoever may deploy that other app only.
pub(super) async fn borrowed(
    reach: &Arc<Reach>,
    app: &AppName,
    services: &[ServiceSpec],
) -> Vec<String> {
    let mut texts = Vec::new();
    for service in services {
        let containers = service.all_containers();
        for container in containers.filter(|container| container.build.is_none()) {
            let name = name(app, service, container);
            let (Ok(Ok(image)), Ok(parsed)) = (found(reach, &name).await, name.parse()) else {
                continue;
            };
            let plain = plain(reach.plane(), &name);
            let whom = image.built_for.get(&plain);
            let whom = whom.filter(|whom| **whom != *app.as_str());
            if let Some(whom) = whom.filter(|whom| !says_whose(&parsed, whom, app.as_str())) {
                texts.push(format!(
                    "{app}/{}: the image {name} is what was built here for the app {whom} under that name; `layby image rm {name}` frees it",
                    service.name
                ));
            }
        }
    }
    texts
}

/// Whether something is mounted at a path, or above it.
fn is_mounted(path: &str, mounts: &[Mount]) -> bool {
    let path = Path::new(path);
    mounts.iter().any(|mount| path.starts_with(&mount.target))
}

/// The outer error is the node's, the inner one the image's.
pub(super) async fn resolve(
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

pub(crate) fn broke_off(error: tokio::task::JoinError) -> Problem {
    Problem::failed(format!(
        "the image store broke off; please report this: {error}"
    ))
}

#[cfg(test)]
mod tests {
    use layby_model::mounts::MountSource;

    use super::*;

    #[test]
    fn a_name_says_whose_an_image_is_but_to_those_whose_own_it_looks() {
        for (name, whom, own, says) in [
            ("shop-web:1", "shop", "blog", true),
            ("shop-api-worker:1", "shop-api", "shop", true),
            ("shop-api-worker:1", "shop", "shop-api", false),
            ("shop-api-worker:1", "shop", "", true),
            ("web:1", "shop", "blog", false),
        ] {
            let parsed = name.parse().expect("a name");
            assert_eq!(says_whose(&parsed, whom, own), says, "{name} {whom} {own}");
        }
    }

    #[test]
    fn a_mount_keeps_what_is_at_its_target_and_below() {
        let at = |target: &str| Mount {
            source: MountSource::Tmpfs {
                size_bytes: None,
                mode: None,
                no_exec: false,
            },
            target: target.to_owned(),
            read_only: false,
        };
        for (path, target, mounted) in [
            ("/data", "/data", true),
            ("/data/", "/data", true),
            ("/data/db", "/data", true),
            ("/data", "/data/db", false),
            ("/database", "/data", false),
        ] {
            assert_eq!(is_mounted(path, &[at(target)]), mounted, "{path} {target}");
        }
        assert!(!is_mounted("/data", &[]));
    }
}
