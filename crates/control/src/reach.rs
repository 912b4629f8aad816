//! What of the node a token reaches that is limited to some apps, or is no admin's: images, volumes and folders.
//!
//! An app has the images that were built for it, those that its services and jobs name or run, and the repositories of the
//! node's registry that begin with its name. What was pulled may be run by all, as it could be pulled again; whatever
//! else is on the node is the node's.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use layby_image::{Image, ImageName, Reference, Source};
use layby_model::engine::RunSpec;
use layby_model::mounts::MountSource;
use layby_model::spec::{AppSpec, ServiceSpec};

use crate::api::types::Problem;
use crate::deploy::images;
use crate::plane::Plane;
use crate::tokens::Rights;

/// What is known of images when somebody asks for one.
#[derive(Clone)]
pub(crate) struct Reach {
    rights: Rights,
    plane: Arc<Plane>,
    /// What the store's names mean, and where they come from.
    names: BTreeMap<String, ImageName>,
    /// The names in what the apps run, and the digests.
    named: BTreeSet<String>,
    run: BTreeSet<String>,
}

impl Reach {
    /// Somebody's.
    pub(crate) async fn of(plane: &Arc<Plane>, rights: &Rights) -> Result<Arc<Self>, Problem> {
        let mut reach = Self {
            rights: rights.clone(),
            plane: Arc::clone(plane),
            names: BTreeMap::new(),
            named: BTreeSet::new(),
            run: BTreeSet::new(),
        };
        if rights.is_whole() {
            return Ok(Arc::new(reach));
        }
        for row in plane.store.services().await? {
            if rights.covers(row.service.app.as_str()) {
                let revisions = row.live.iter().chain([&row.target]);
                revisions.for_each(|revision| reach.runs(&revision.spec));
            }
        }
        for (id, shelf) in &plane.jobs.shown().shelves {
            if rights.covers(id.app.as_str()) {
                let jobs = shelf.job.iter();
                jobs.for_each(|job| reach.runs(&job.spec));
            }
        }
        let store = Arc::clone(&plane.images);
        let names = tokio::task::spawn_blocking(move || store.names()).await;
        let names = names.map_err(images::broke_off)??.into_iter();
        reach.names = names.map(|name| (name.reference.clone(), name)).collect();
        Ok(Arc::new(reach))
    }

    /// The node.
    pub(crate) fn plane(&self) -> &Plane {
        &self.plane
    }

    fn runs(&mut self, spec: &RunSpec) {
        let containers = spec.service.all_containers();
        let names = containers.map(|container| self.plain(&container.image));
        let names: Vec<String> = names.collect();
        self.named.extend(names);
        self.run.extend(spec.images.iter().cloned());
    }

    /// Whether an image may be used by this name or digest. What is not here may be: it will be pulled. May read a file.
    ///
    /// # Errors
    /// 403: it is another app's, or the node's.
    pub(crate) fn use_image(&self, name: &str) -> Result<(), Problem> {
        match self.may_use(name) {
            true => Ok(()),
            false => Err(self.not_its(name)),
        }
    }

    fn may_use(&self, name: &str) -> bool {
        if self.rights.is_whole() {
            return true;
        }
        let plain = self.plain(name);
        let repository = self.repository(&plain);
        if let Some(own) = &repository
            && !self.rights.covers(first_part(own))
        {
            return false;
        }
        let known = self.names.get(&plain);
        match (known, digest_of(&plain)) {
            (Some(known), _) => self.is_open(known),
            (None, None) => true,
            (None, Some(digest)) => {
                let registry = &self.plane.desk.registry;
                self.run.contains(digest)
                    || self.names_of(digest).any(|name| self.is_open(name))
                    || repository.is_some_and(|own| registry.holds(&own.repository, digest))
                    || self.plane.images.get(digest).is_err()
            }
        }
    }

    /// Whether an app may build an image of this name, which then loses it. A new name has to begin with the app's: what is
    /// built under one that a registry has is what others get who mean that.
    ///
    /// # Errors
    /// 403: it is another app's, or the node's, or was pulled, or could be.
    pub(crate) fn build(&self, name: &str) -> Result<(), Problem> {
        let plain = self.plain(name);
        let is_free = match (self.repository(&plain), self.names.get(&plain)) {
            (Some(own), _) => self.rights.covers(first_part(&own)),
            (None, Some(known)) => self.is_built(known),
            (None, None) => self.is_called_after_app(&plain),
        };
        if self.rights.is_whole() || is_free {
            return Ok(());
        }
        let apps = self.rights.apps().into_iter().flatten();
        let may: Vec<String> = apps.map(|app| format!("{app}-NAME")).collect();
        let problem = self.rights.denied(&format!("the image {name}"));
        Err(problem.hint(format!(
            "call what is built {} or {}",
            may.join(" or "),
            self.own_names()
        )))
    }

    /// Whether a name is such as an app's images have that are given none: `<app>-...`, of no registry and nobody's there.
    fn is_called_after_app(&self, plain: &str) -> bool {
        let short = plain.parse().map(|name: Reference| name.short());
        let short = short.unwrap_or_default();
        let mut apps = self.rights.apps().into_iter().flatten();
        !short.contains('/')
            && apps.any(|app| {
                let rest = short.strip_prefix(app.as_str());
                rest.is_some_and(|rest| rest.starts_with('-'))
            })
    }

    /// Whose the results of build steps are that saw a secret or an SSH agent: those of who is limited to other apps are not
    /// for the rest, nor theirs for it.
    pub(crate) fn steps_owner(&self) -> String {
        match self.rights.apps() {
            None => "node".to_owned(),
            Some(apps) => {
                let apps: Vec<&str> = apps.iter().map(String::as_str).collect();
                format!("apps {}", apps.join(" "))
            }
        }
    }

    /// Whether the apps have this image, by its name or since they run it.
    pub(crate) fn has(&self, image: &Image) -> bool {
        let by_name = |name: &ImageName| {
            let app = self.repository(&name.reference);
            self.is_built(name)
                || self.named.contains(&name.reference)
                || app.is_some_and(|own| self.rights.covers(first_part(&own)))
        };
        self.rights.is_whole()
            || self.run.contains(&image.digest)
            || self.names_of(&image.digest).any(by_name)
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

    /// An error without the names that are not to be seen.
    pub(crate) fn tellable(&self, error: layby_image::Error) -> layby_image::Error {
        match error {
            layby_image::Error::NotFound { reference, similar } => layby_image::Error::NotFound {
                reference,
                similar: self.shown(similar),
            },
            other => other,
        }
    }

    /// Whether a name may be given or taken: one in the registry that begins with an app's.
    ///
    /// # Errors
    /// 403, saying which may.
    pub(crate) fn name(&self, name: &str) -> Result<(), Problem> {
        let own = self.repository(&self.plain(name));
        if self.rights.is_whole() || own.is_some_and(|own| self.rights.covers(first_part(&own))) {
            return Ok(());
        }
        let problem = self.rights.denied(&format!("the image name {name}"));
        Err(problem.hint(format!("it may have {}", self.own_names())))
    }

    /// The names of an image that may be seen.
    pub(crate) fn shown(&self, names: Vec<String>) -> Vec<String> {
        let mut names = names;
        names.retain(|name| self.may_use(name));
        names
    }

    /// Whether an image may be used by a name that the store knows. Who may deploy may have the node pull, and so may use
    /// what somebody else had pulled.
    fn is_open(&self, name: &ImageName) -> bool {
        match self.repository(&name.reference) {
            Some(own) => self.rights.covers(first_part(&own)),
            None => {
                name.source == Source::Registry
                    || self.is_built(name)
                    || self.named.contains(&name.reference)
            }
        }
    }

    /// Whether the image was built for one of the apps.
    fn is_built(&self, name: &ImageName) -> bool {
        match &name.source {
            Source::For(app) => self.rights.covers(app),
            Source::Here | Source::Registry => false,
        }
    }

    fn names_of<'a>(&'a self, digest: &'a str) -> impl Iterator<Item = &'a ImageName> {
        let names = self.names.values();
        names.filter(move |name| name.digest == digest)
    }

    /// The repository of the node's registry that a name is of.
    fn repository(&self, name: &str) -> Option<Reference> {
        self.plane.desk.registry.hosts().repository(name)
    }

    /// A name in the one form that the store has.
    fn plain(&self, name: &str) -> String {
        let name = self.plane.desk.registry.hosts().canonical(name);
        let parsed: Result<Reference, _> = match name.starts_with("sha256:") {
            true => return name,
            false => name.parse(),
        };
        parsed.map_or(name, |reference| reference.to_string())
    }

    fn not_its(&self, name: &str) -> Problem {
        let problem = self.rights.denied(&format!("the image {name}"));
        problem.hint(format!(
            "build it in the app, or let an admin give it a name of the app: `layby image tag {name} {}`",
            self.own_names()
        ))
    }

    fn own_names(&self) -> String {
        let apps = self.rights.apps().into_iter().flatten();
        let may: Vec<String> = apps.map(|app| format!("registry/{app}/NAME")).collect();
        may.join(" or ")
    }
}

/// Whose a repository is: the app that its name begins with.
fn first_part(own: &Reference) -> &str {
    own.repository.split('/').next().unwrap_or_default()
}

/// The digest that a plain name is, or ends with.
fn digest_of(plain: &str) -> Option<&str> {
    match plain.rsplit_once('@') {
        Some((_, digest)) => Some(digest),
        None => plain.starts_with("sha256:").then_some(plain),
    }
}

/// Whether somebody may deploy this app, as it is.
///
/// # Errors
/// 403: the app, or an image or volume it names, is another's, or it mounts folders of the machine.
pub(crate) async fn deploy(
    plane: &Arc<Plane>,
    rights: &Rights,
    app: &AppSpec,
) -> Result<(), Problem> {
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
    images_of(plane, rights, app).await
}

/// Whether somebody may run the images of this app, as it is, and build those that it builds.
///
/// # Errors
/// 403: one is another's.
pub(crate) async fn images_of(
    plane: &Arc<Plane>,
    rights: &Rights,
    app: &AppSpec,
) -> Result<(), Problem> {
    let reach = Reach::of(plane, rights).await?;
    for service in &app.services {
        for container in service.all_containers() {
            let name = images::name(&app.name, service, container);
            match &container.build {
                None => reach.use_image(&name)?,
                Some(build) => {
                    reach.build(&name)?;
                    build.tags.iter().try_for_each(|tag| reach.name(tag))?;
                }
            }
        }
    }
    Ok(())
}
