//! What of the node a token reaches that is limited to some apps, or is no admin's: images, volumes and folders.
//!
//! An app has the images that its services run and the repositories of the node's registry that begin with its name. The
//! other images are everybody's, but those that another app builds or has in the registry.

use std::collections::BTreeMap;
use std::sync::Arc;

use layby_image::registry::Hosts;
use layby_image::{Image, Reference};
use layby_model::mounts::MountSource;
use layby_model::spec::{AppSpec, ServiceSpec};

use crate::api::types::Problem;
use crate::deploy::images;
use crate::plane::Plane;
use crate::store::Row;
use crate::tokens::Rights;

/// What is known of images when somebody asks for one.
#[derive(Debug, Clone)]
pub(crate) struct Reach {
    rights: Rights,
    hosts: Hosts,
    /// The names of images that apps build, and whose they are.
    built: BTreeMap<String, String>,
    /// The digests of images that apps run.
    run: BTreeMap<String, Vec<String>>,
}

impl Reach {
    /// Somebody's.
    pub(crate) async fn of(plane: &Plane, rights: &Rights) -> Result<Arc<Self>, Problem> {
        let rows = match rights.is_whole() {
            true => Vec::new(),
            false => plane.store.services().await?,
        };
        let hosts = plane.desk.registry.hosts().clone();
        Ok(Arc::new(Self::new(rights.clone(), hosts, &rows)))
    }

    fn new(rights: Rights, hosts: Hosts, rows: &[Row]) -> Self {
        let (mut built, mut run) = (BTreeMap::new(), BTreeMap::<_, Vec<String>>::new());
        for row in rows {
            let app = &row.service.app;
            for revision in row.live.iter().chain([&row.target]) {
                let service = &revision.spec.service;
                for container in service.all_containers() {
                    if container.build.is_some() {
                        let name = images::name(app, service, container);
                        built.insert(plain(&hosts, &name), app.to_string());
                    }
                }
                for digest in &revision.spec.images {
                    run.entry(digest.clone()).or_default().push(app.to_string());
                }
            }
        }
        Self {
            rights,
            hosts,
            built,
            run,
        }
    }

    /// Whether an image may be used by this name, or made to have it.
    ///
    /// # Errors
    /// 403: it is another app's.
    pub(crate) fn use_image(&self, name: &str) -> Result<(), Problem> {
        if self.rights.is_whole() {
            return Ok(());
        }
        let owner = match self.repository_app(name) {
            Some(app) => Some(app),
            None => self.built.get(&plain(&self.hosts, name)).cloned(),
        };
        match owner {
            Some(app) if !self.rights.covers(&app) => {
                Err(self.rights.denied(&format!("the image {name}")))
            }
            Some(_) | None => Ok(()),
        }
    }

    /// Whether the apps have this image, by its name or since they run it.
    pub(crate) fn has(&self, image: &Image) -> bool {
        let by_name = |name: &String| {
            let app = self.repository_app(name);
            app.is_some_and(|app| self.rights.covers(&app)) || self.builds(name)
        };
        let runs = self.run.get(&image.digest).into_iter().flatten();
        self.rights.is_whole()
            || image.references.iter().any(by_name)
            || runs.into_iter().any(|app| self.rights.covers(app))
    }

    /// The same as an error.
    ///
    /// # Errors
    /// 404, as if it were not there.
    pub(crate) fn see(&self, image: &Image, name: &str) -> Result<(), Problem> {
        match self.has(image) {
            true => Ok(()),
            false => Err(layby_image::Error::NotFound {
                reference: name.to_owned(),
                similar: Vec::new(),
            }
            .into()),
        }
    }

    /// Whether a name may be given or taken: one in the registry that begins with an app's.
    ///
    /// # Errors
    /// 403, saying which may.
    pub(crate) fn name(&self, name: &str) -> Result<(), Problem> {
        let app = self.repository_app(name);
        if self.rights.is_whole() || app.is_some_and(|app| self.rights.covers(&app)) {
            return Ok(());
        }
        let apps = self.rights.apps().into_iter().flatten();
        let may: Vec<String> = apps.map(|app| format!("registry/{app}/NAME")).collect();
        let problem = self.rights.denied(&format!("the image name {name}"));
        Err(problem.hint(format!("it may have {}", may.join(" or "))))
    }

    /// The names of an image that may be seen.
    pub(crate) fn shown(&self, names: Vec<String>) -> Vec<String> {
        let mut names = names;
        names.retain(|name| self.use_image(name).is_ok());
        names
    }

    fn builds(&self, name: &str) -> bool {
        let app = self.built.get(&plain(&self.hosts, name));
        app.is_some_and(|app| self.rights.covers(app))
    }

    /// The app whose repository of the node's registry a name is of; its first part, also where that is no app.
    fn repository_app(&self, name: &str) -> Option<String> {
        let own = self.hosts.repository(&self.hosts.canonical(name))?;
        let first = own.repository.split('/').next();
        first.map(str::to_owned)
    }
}

/// A name in one form.
fn plain(hosts: &Hosts, name: &str) -> String {
    let name = hosts.canonical(name);
    let parsed: Result<Reference, _> = name.parse();
    parsed.map_or(name, |reference| reference.to_string())
}

/// Whether somebody may deploy this app, as it is.
///
/// # Errors
/// 403: the app, or an image or volume it names, is another's, or it mounts folders of the machine.
pub(crate) async fn deploy(plane: &Plane, rights: &Rights, app: &AppSpec) -> Result<(), Problem> {
    rights.require(app.name.as_str())?;
    if rights.is_admin() {
        return Ok(());
    }
    let containers = || app.services.iter().flat_map(ServiceSpec::all_containers);
    let mut volumes = Vec::new();
    for mount in containers().flat_map(|container| &container.mounts) {
        match &mount.source {
            MountSource::Bind { path, .. } => {
                let text = format!(
                    "{} mounts {path} of the machine, which takes a token with the role admin",
                    app.name
                );
                return Err(Problem::not_allowed(text)
                    .hint("give it a named volume, or let an admin deploy it"));
            }
            MountSource::Volume { name, .. } => volumes.push(name),
            MountSource::Tmpfs { .. } | MountSource::Scratch { .. } | MountSource::Files { .. } => {
            }
        }
    }
    if rights.is_whole() {
        return Ok(());
    }
    let known = plane.access.volumes().await?;
    for name in volumes {
        let of_other = known
            .iter()
            .any(|volume| volume.name == **name && !rights.covers_owner(volume.app.as_ref()));
        if of_other {
            return Err(rights.denied(&format!("the volume {name}")));
        }
    }
    let reach = Reach::of(plane, rights).await?;
    for service in &app.services {
        for container in service.all_containers() {
            let name = images::name(&app.name, service, container);
            reach.use_image(&name)?;
            let tags = container.build.iter().flat_map(|build| &build.tags);
            tags.into_iter().try_for_each(|tag| reach.name(tag))?;
        }
    }
    Ok(())
}
