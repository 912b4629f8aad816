//! What of the node a token reaches that is limited to some apps, or is no admin's: images, volumes and folders.
//!
//! An app has the images that were built for it, those that its services and jobs name or run, and the repositories of the
//! node's registry that begin with its name. What was pulled may be run by all, as it could be pulled again; whatever
//! else is on the node is the node's. Who may not have an image is told what it is told of one that is not here, in the same
//! words: its name is asked for at its registry, and what comes from there leaves the name to those who have it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use layby_image::build::is_called_after;
use layby_image::{Image, ImageName, Reference, Source};
use layby_model::engine::RunSpec;
use layby_model::mounts::MountSource;
use layby_model::spec::{AppSpec, ServiceSpec};

use crate::api::types::Problem;
use crate::deploy::images;
use crate::plane::Plane;
use crate::tokens::Rights;

/// What is known of images when somebody asks for one.
pub(crate) struct Reach {
    rights: Rights,
    plane: Arc<Plane>,
    /// The apps that are another's.
    others: BTreeSet<String>,
    /// What the store's names mean, and where they come from.
    names: BTreeMap<String, ImageName>,
    /// The names in what the apps run, but those in `apart`; and the digests.
    named: BTreeSet<String>,
    run: BTreeSet<String>,
    /// What names mean for the apps by what they run, where that was pulled: whatever others give the name to.
    apart: BTreeMap<String, String>,
    /// What names mean that were pulled for who asks since this was looked at.
    pulled: Mutex<BTreeMap<String, String>>,
}

impl Reach {
    /// Somebody's.
    pub(crate) async fn of(plane: &Arc<Plane>, rights: &Rights) -> Result<Arc<Self>, Problem> {
        let mut reach = Self {
            rights: rights.clone(),
            plane: Arc::clone(plane),
            others: BTreeSet::new(),
            names: BTreeMap::new(),
            named: BTreeSet::new(),
            run: BTreeSet::new(),
            apart: BTreeMap::new(),
            pulled: Mutex::default(),
        };
        if rights.is_whole() {
            return Ok(Arc::new(reach));
        }
        let mut run = Vec::new();
        for row in plane.store.services().await? {
            if rights.covers(row.service.app.as_str()) {
                let revisions = row.live.iter().chain([&row.target]);
                revisions.for_each(|revision| run.extend(reach.run_by(&revision.spec)));
            } else {
                reach.others.insert(row.service.app.to_string());
            }
        }
        for (id, shelf) in &plane.jobs.shown().shelves {
            if rights.covers(id.app.as_str()) {
                let jobs = shelf.job.iter();
                jobs.for_each(|job| run.extend(reach.run_by(&job.spec)));
            } else {
                reach.others.insert(id.app.to_string());
            }
        }
        let looked = tokio::task::spawn_blocking(move || reach.look(run)).await;
        Ok(Arc::new(looked.map_err(images::broke_off)??))
    }

    /// The same as things are now.
    pub(crate) async fn renewed(&self) -> Result<Arc<Self>, Problem> {
        let new = Self::of(&self.plane, &self.rights).await?;
        new.pulled().clone_from(&self.pulled());
        Ok(new)
    }

    /// Notes what was pulled by a name for who asks.
    pub(crate) fn note_pulled(&self, name: &str, digest: &str) {
        if !self.rights.is_whole() {
            self.pulled().insert(self.plain(name), digest.to_owned());
        }
    }

    fn pulled(&self) -> MutexGuard<'_, BTreeMap<String, String>> {
        // Nothing panics while it is held.
        self.pulled.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Looks into the store. Blocks.
    fn look(mut self, run: Vec<(String, String)>) -> Result<Self, layby_image::Error> {
        let names = self.plane.images.names()?.into_iter();
        self.names = names.map(|name| (name.reference.clone(), name)).collect();
        for (name, digest) in run {
            let known = self.names.get(&name);
            let is_other = known.is_some_and(|known| known.digest != digest);
            let origin = || self.plane.images.origin(&digest);
            // What came from there by this name makes nobody have what others call so.
            if is_other && origin().as_ref() == Some(&name) {
                self.apart.insert(name, digest.clone());
            } else {
                self.named.insert(name);
            }
            self.run.insert(digest);
        }
        Ok(self)
    }

    /// The node.
    pub(crate) fn plane(&self) -> &Plane {
        &self.plane
    }

    /// The names and digests of what a revision or job runs.
    fn run_by(&self, spec: &RunSpec) -> Vec<(String, String)> {
        let containers = spec.service.all_containers();
        let names = containers.map(|container| self.plain(&container.image));
        names.zip(spec.images.iter().cloned()).collect()
    }

    /// Whether an image of this name may be asked for: not one of other apps' repositories of the node's registry, whatever is
    /// in there. What the name means then is for [`Reach::find`].
    ///
    /// # Errors
    /// 403.
    pub(crate) fn use_image(&self, name: &str) -> Result<(), Problem> {
        match self.repository(&self.plain(name)) {
            Some(own) if !self.rights.covers(first_part(&own)) => Err(self.not_its(name)),
            Some(_) | None => Ok(()),
        }
    }

    /// The image that a name or digest means for who asks; one that it may not have is not there. Blocks.
    pub(crate) fn find(&self, name: &str) -> Result<Image, layby_image::Error> {
        let store = &self.plane.images;
        let plain = self.plain(name);
        if self.rights.is_whole() {
            return store.resolve(&plain);
        }
        if let Some(digest) = self.pulled().get(&plain) {
            return store.get(digest);
        }
        match self.meaning(&plain) {
            Some(digest) => store.get(digest),
            None => Err(self.not_found(name)),
        }
    }

    /// The digest that a name means for who asks.
    fn meaning<'a>(&'a self, plain: &'a str) -> Option<&'a str> {
        let repository = self.repository(plain);
        if let Some(own) = &repository
            && !self.rights.covers(first_part(own))
        {
            return None;
        }
        match (self.names.get(plain), digest_of(plain)) {
            (Some(known), _) if self.is_open(known) => Some(&known.digest),
            (Some(_), _) => self.apart.get(plain).map(String::as_str),
            (None, None) => None,
            (None, Some(digest)) => {
                let registry = &self.plane.desk.registry;
                let has = self.run.contains(digest)
                    || self.names_of(digest).any(|name| self.is_open(name))
                    || repository.is_some_and(|own| registry.holds(&own.repository, digest));
                has.then_some(digest)
            }
        }
    }

    /// What is said of an image that is not there.
    fn not_found(&self, name: &str) -> layby_image::Error {
        let plain = self.plain(name);
        if let Some(digest) = digest_of(&plain) {
            let (reference, similar) = (digest.to_owned(), Vec::new());
            return layby_image::Error::NotFound { reference, similar };
        }
        let wanted: Reference = match plain.parse() {
            Ok(wanted) => wanted,
            Err(error) => return error,
        };
        let seen = self.names.values().filter(|name| self.is_open(name));
        layby_image::Error::NotFound {
            reference: wanted.short(),
            similar: layby_image::similar(&wanted, seen.map(|name| name.reference.as_str())),
        }
    }

    /// What a person means by a name or an id (see [`layby_image::Store::meant`]), of what may be seen.
    ///
    /// # Errors
    /// Several images may be meant.
    pub(crate) async fn meant(&self, text: &str) -> Result<String, Problem> {
        let text = self.plane.desk.registry.hosts().canonical(text);
        if self.rights.is_whole() {
            let store = Arc::clone(&self.plane.images);
            let meant = tokio::task::spawn_blocking(move || store.meant(&text)).await;
            return Ok(meant.map_err(images::broke_off)??);
        }
        let seen = self.names.values().filter(|name| self.is_open(name));
        let seen = seen.map(|name| (Some(&*name.reference), &*name.digest));
        let run = self.run.iter().map(|digest| (None, digest.as_str()));
        Ok(layby_image::meant_among(&text, seen.chain(run))?)
    }

    /// What helps who is limited to some apps, and lacks an image.
    pub(crate) fn hint(&self, name: &str) -> Option<String> {
        let may = || {
            format!(
                "check its name, give it a build, or let an admin give it a name of the app: `layby image tag {name} {}`",
                self.own_names()
            )
        };
        let is_named = digest_of(&self.plain(name)).is_none();
        (is_named && !self.rights.is_whole()).then(may)
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
            (None, None) => self.called_after(&plain).is_some(),
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

    /// The same of a name that somebody chose: a new one that is rather called after another app, `shop-api-worker` where there is
    /// an app `shop-api`, is not for `shop`.
    ///
    /// # Errors
    /// As [`Reach::build`].
    pub(crate) fn build_as(&self, name: &str) -> Result<(), Problem> {
        self.build(name)?;
        let plain = self.plain(name);
        let is_new = self.repository(&plain).is_none() && !self.names.contains_key(&plain);
        if is_new && self.is_anothers(&plain) {
            let problem = self.rights.denied(&format!("the image {name}"));
            return Err(problem.hint(format!("call what is built {}", self.own_names())));
        }
        Ok(())
    }

    /// Whether an app that is another's has a longer name than the own ones that a name begins with.
    fn is_anothers(&self, plain: &str) -> bool {
        let own = self.called_after(plain).map_or(0, str::len);
        let longer = |app: &&String| app.len() > own;
        plain.parse().is_ok_and(|name| {
            let mut others = self.others.iter().filter(longer);
            others.any(|app| is_called_after(&name, app))
        })
    }

    /// For whom an image of these names is built that is no service's: of who is limited to some apps for the one that they are
    /// called after, so that it has them from then on.
    ///
    /// # Errors
    /// As [`Reach::build_as`]; 409: they are of several apps.
    pub(crate) fn builds_for(&self, names: &[String]) -> Result<Source, Problem> {
        names.iter().try_for_each(|name| self.build_as(name))?;
        if self.rights.is_whole() {
            return Ok(Source::Here);
        }
        let owners = names
            .iter()
            .filter_map(|name| self.owner(&self.plain(name)));
        let owners: BTreeSet<&str> = owners.collect();
        let mut owners = owners.into_iter();
        match (owners.next(), owners.next()) {
            (None, _) => Ok(Source::Here),
            (Some(app), None) => Ok(Source::For(app.to_owned())),
            (Some(app), Some(other)) => {
                let text = format!("one image cannot have names of the apps {app} and {other}");
                Err(Problem::conflict(text).hint("build it once for each of them"))
            }
        }
    }

    /// The app that has the image of a name, or would have it by that name. In a repository an image is whose that is.
    fn owner<'a>(&'a self, plain: &str) -> Option<&'a str> {
        match (self.repository(plain), self.names.get(plain)) {
            (Some(_), _) => None,
            (None, Some(known)) => match &known.source {
                Source::For(app) => Some(app),
                Source::Here | Source::Registry => None,
            },
            (None, None) => self.called_after(plain),
        }
    }

    /// The app after which a name is called as an app's images are that are given none: `<app>-...`, of no registry and nobody's
    /// there. Of `shop` and `shop-api` the longer one.
    fn called_after(&self, plain: &str) -> Option<&str> {
        let apps = self.rights.apps().into_iter().flatten();
        let name: Reference = plain.parse().ok()?;
        let all = apps.filter(|app| is_called_after(&name, app));
        all.max_by_key(|app| app.len()).map(String::as_str)
    }

    /// Whether who asks is limited to some apps.
    pub(crate) fn is_limited(&self) -> bool {
        !self.rights.is_whole()
    }

    /// Whose the results of build steps are that saw a secret or an SSH agent, and of who is limited the folders that steps fill:
    /// those of who is limited to other apps are not for the rest, nor theirs for it.
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
    pub(crate) fn see(&self, image: &Image, name: &str) -> Result<(), layby_image::Error> {
        match self.has(image) {
            true => Ok(()),
            false => Err(self.not_found(name)),
        }
    }

    /// An error in looking for an image, without the names that are not to be seen.
    pub(crate) fn tellable(&self, name: &str, error: layby_image::Error) -> layby_image::Error {
        match error {
            layby_image::Error::NotFound { .. } if !self.rights.is_whole() => self.not_found(name),
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

    /// Whether a name may be taken from its image: one that may be given, or that was built for one of the apps.
    ///
    /// # Errors
    /// 403, saying which may.
    pub(crate) fn forget(&self, name: &str) -> Result<(), Problem> {
        let known = self.names.get(&self.plain(name));
        match known.is_some_and(|known| self.is_built(known)) {
            true => Ok(()),
            false => self.name(name),
        }
    }

    /// The names of an image that may be seen.
    pub(crate) fn shown(&self, names: Vec<String>) -> Vec<String> {
        let mut names = names;
        let is_seen = |name: &str| self.names.get(name).is_some_and(|name| self.is_open(name));
        names.retain(|name| self.rights.is_whole() || is_seen(name));
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
            MountSource::Volume { name, external, .. } => volumes.push((name, *external)),
            MountSource::Tmpfs { .. } | MountSource::Scratch { .. } | MountSource::Files { .. } => {
            }
        }
    }
    if rights.is_whole() {
        return Ok(());
    }
    let known = plane.access.volumes().await?;
    for (name, is_external) in volumes {
        let volume = known.iter().find(|volume| volume.name == **name);
        let covers = volume.map(|volume| rights.covers_owner(volume.app.as_ref()));
        // Of one that must be there already the same is said whether it is not, or is another's.
        if !covers.unwrap_or(!is_external) {
            return Err(rights.denied(&format!("the volume {name}")));
        }
    }
    let reach = Reach::of(plane, rights).await?;
    images_of(&reach, app)
}

/// Whether somebody may name the images of this app, as it is, and build those that it builds.
///
/// # Errors
/// 403: one is another's.
pub(crate) fn images_of(reach: &Reach, app: &AppSpec) -> Result<(), Problem> {
    for service in &app.services {
        for container in service.all_containers() {
            let name = images::name(&app.name, service, container);
            match &container.build {
                None => reach.use_image(&name)?,
                Some(build) => {
                    match container.image.is_empty() {
                        true => reach.build(&name)?,
                        false => reach.build_as(&name)?,
                    }
                    build.tags.iter().try_for_each(|tag| reach.build_as(tag))?;
                }
            }
        }
    }
    Ok(())
}
