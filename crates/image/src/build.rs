//! Building an image from a Dockerfile and a context directory.
//!
//! Each step that adds files makes a layer. What COPY adds is known before it is done, so its content alone is its
//! cache key (see `content`); of RUN only what it begins with is known: the files below, its command, its environment
//! and its mounts (see `step`). Secrets are in neither. So an unchanged build only reads and hashes its files, and
//! not even that where its context is kept (`contexts`). The stages that the wanted one does not need are not built; those that do not need each other are built side by side.

pub mod agents;
mod archive;
mod args;
pub(crate) mod cache;
mod chmod;
mod content;
mod copy;
mod draft;
mod fetch;
mod files;
mod mounts;
mod plan;
pub mod run;
mod schedule;
mod scope;
pub(crate) mod secrets;
mod stage;
mod step;
mod stop;
mod time;
mod upper;
mod view;

use std::collections::BTreeMap;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use self::agents::Agent;
use self::draft::Draft;
use self::run::{Place, RunNetwork, RunStep};
use self::view::{Node, View};
use crate::client::Puller;
use crate::contexts::Known;
use crate::dockerfile::{self, Dockerfile, MAX_DOCKERFILE_BYTES};
use crate::dockerignore::Ignore;
use crate::error::io_error;
use crate::fence::Reach;
use crate::{Error, Image, Reference, Source, Store, layout, unnamed};

/// What to build.
#[derive(Clone, Default)]
pub struct BuildOptions {
    /// The Dockerfile, relative to the context; `None`: `Dockerfile`.
    pub dockerfile: Option<String>,
    /// The Dockerfile's text, instead of a file of the context.
    pub inline: Option<String>,
    /// Build arguments. `SOURCE_DATE_EPOCH` sets the time stamps in the image. Without it the image says 1970, so that
    /// the same input has the same digest; the files that RUN wrote have the time of that.
    pub args: BTreeMap<String, String>,
    /// The stage to build; `None` or empty: the last.
    pub target: Option<String>,
    /// The name to give to the image. Without one it is kept for a day, and as long as its digest is in use (see
    /// `Store::gc`).
    pub tag: Option<String>,
    /// Further names.
    pub tags: Vec<String>,
    /// For whom it is built, and so where it has its names from.
    pub source: Source,
    /// How errors name the Dockerfile, such as `examples/mnist/Dockerfile`; empty: as `dockerfile`. Where it ends with
    /// `dockerfile`, what stands before that names the context.
    pub file_name_shown: String,
    /// Labels to add to the image's.
    pub labels: BTreeMap<String, String>,
    /// What `FROM` and `--from` mean by these names.
    pub contexts: BTreeMap<String, NamedContext>,
    /// What need not be read of folders, among the context and those in `contexts`.
    pub known: BTreeMap<PathBuf, Arc<Known>>,
    /// Secrets by their id. They are in memory only, and in no key, layer, event or error.
    pub secrets: BTreeMap<String, Vec<u8>>,
    /// SSH agents by their id; a step that mounts one reaches it while it runs. They are in no key.
    pub agents: BTreeMap<String, Agent>,
    /// Whose the results of steps are that mount secrets or agents: nobody else gets them from the cache.
    pub steps_owner: String,
    /// The owner shares nothing that a step keeps with others: neither folders of the type `cache`, nor the results of steps
    /// that mounted one or were given a proxy.
    pub is_apart: bool,
    /// Whether every step is carried out, also one that the cache has.
    pub no_cache: bool,
    /// The network of RUN where it names none.
    pub network: RunNetwork,
    /// Further lines of `/etc/hosts` in RUN: name and address.
    pub hosts: Vec<(String, String)>,
    /// What to build for, `linux/arm64`; `None`: the machine. Only the machine's own can have RUN.
    pub platform: Option<String>,
    /// From where ADD may fetch.
    pub reach: Reach,
    /// Carries out RUN; `None`: RUN is an error.
    pub runner: Option<Arc<dyn RunStep>>,
    /// The longest that a RUN may take; `None`: as long as it likes.
    pub step_timeout: Option<Duration>,
    /// Hears when a step waits for another build.
    pub place: Option<Arc<dyn Place>>,
    /// Brings images that are not in the store; `None`: they are an error.
    pub pull: Option<Puller>,
    /// Looks for images in the store. `None`: each name means what the store says.
    pub find: Option<Find>,
    /// Set it when nobody wants the image any more: the build ends soon.
    pub stop: Arc<AtomicBool>,
}

/// Says which image of the store a name means, if any; why it may not be used, as [`Error::Build`].
pub type Find = Arc<dyn Fn(&str) -> Result<Image, Error> + Send + Sync>;

/// A source of files beside the build context.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NamedContext {
    /// A folder; its `.dockerignore` counts.
    Folder(PathBuf),
    /// An image.
    Image(String),
}

/// What happens during a build. Steps are numbered through all stages; those of several stages come interleaved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BuildEvent {
    /// An instruction that may take long is being carried out.
    Started {
        /// Its place, from 1.
        number: u32,
        /// How many there are.
        of: u32,
        /// The stage's name, or its number.
        stage: String,
        /// The instruction as written, in one line.
        text: String,
    },
    /// An instruction was carried out.
    Step {
        /// Its place, from 1.
        number: u32,
        /// How many there are.
        of: u32,
        /// The stage's name, or its number.
        stage: String,
        /// The instruction as written, in one line.
        text: String,
        /// Whether its layer was taken from the cache (also for steps that make no layer).
        cached: bool,
    },
    /// A line that the command of a step wrote.
    Line {
        /// The step.
        number: u32,
        /// Its stage.
        stage: String,
        /// The line, without its end.
        text: String,
    },
    /// The command of a step failed; the build's error follows.
    Failed {
        /// The step.
        number: u32,
        /// Its stage.
        stage: String,
        /// The instruction.
        text: String,
        /// All that it wrote, at most the last 256 KiB.
        output: String,
    },
    /// A note for the user.
    Output(String),
}

/// What all stages of a build share.
pub(crate) struct Build<'a> {
    pub(crate) store: &'a Store,
    pub(crate) options: &'a BuildOptions,
    pub(crate) file: &'a Dockerfile,
    /// How errors name the Dockerfile.
    pub(crate) shown: &'a str,
    pub(crate) context: &'a View,
    /// How errors name the context.
    pub(crate) context_shown: String,
    pub(crate) ignore: &'a Ignore,
    /// `ARG`s before the first `FROM`, and the platform's, with their values.
    pub(crate) globals: BTreeMap<String, String>,
    /// `SOURCE_DATE_EPOCH`, where it is given.
    pub(crate) epoch_s: Option<u64>,
    /// What `created` says, RFC 3339.
    pub(crate) created: String,
    /// What it is built for.
    pub(crate) platform: String,
    /// Nobody wants the image any more, or a stage failed.
    pub(crate) stop: Arc<AtomicBool>,
}

/// Builds the image, stores it, and unpacks its layers, so that it can start at once.
///
/// # Errors
/// [`Error::Dockerfile`] for all that can be told by a line, `FILE:LINE: INSTRUCTION ...`.
pub fn build(
    store: &Store,
    context: &Path,
    options: &BuildOptions,
    progress: &mut dyn FnMut(BuildEvent),
) -> Result<Image, Error> {
    let name = options.dockerfile.as_deref().unwrap_or("Dockerfile");
    let shown = match options.file_name_shown.as_str() {
        "" => name,
        shown => shown,
    };
    let names: Result<Vec<Reference>, Error> = (options.tag.iter().chain(&options.tags))
        .map(|name| name.parse())
        .collect();
    let names = names?;
    let epoch_s = epoch(options)?;
    let view = View::of_kept(context, options.known.get(context));
    // Where the context was sent from says more than where it happens to lie.
    let context_shown = match shown.strip_suffix(name) {
        _ if options.file_name_shown.is_empty() => context.display().to_string(),
        Some("") => ".".to_owned(),
        Some(folder) => folder.trim_end_matches('/').to_owned(),
        None => context.display().to_string(),
    };
    let text = match &options.inline {
        Some(text) => text.clone(),
        None => read_text(&view, name)?
            .ok_or_else(|| Error::Build(format!("there is no {name} in {context_shown}")))?,
    };
    let file = dockerfile::parse(&text).map_err(|error| Error::Dockerfile {
        file: shown.to_owned(),
        line: error.line,
        message: error.message,
    })?;
    let ignore = ignore_of(&view, Some(name))?;
    let _adding = store.adding()?;
    let platform = match &options.platform {
        Some(platform) => platform.clone(),
        None => format!("linux/{}", layout::architecture()),
    };
    if platform.split('/').next() != Some("linux") {
        return Err(Error::Build(format!(
            "{platform:?} is no platform that can be built for; say linux/amd64, linux/arm64, ..."
        )));
    }
    let build = Build {
        store,
        options,
        file: &file,
        shown,
        context: &view,
        context_shown: format!("the build context {context_shown}"),
        ignore: &ignore,
        globals: args::global_args(&file, options, &platform, shown)?,
        epoch_s,
        created: time::rfc3339(epoch_s.unwrap_or(0)),
        platform,
        stop: Arc::default(),
    };
    for (line, note) in &file.notes {
        progress(BuildEvent::Output(format!("{shown}:{line}: {note}")));
    }
    for unknown in args::unknown_args(&file, options) {
        progress(BuildEvent::Output(format!(
            "the build argument {unknown} is not used by {shown}"
        )));
    }
    let plan = plan::plan(&build, &mut |note| progress(BuildEvent::Output(note)))?;
    let built = schedule::run(&build, &plan, progress);
    if let Err(Error::Changed { .. }) = &built {
        options.known.values().for_each(|known| known.distrust());
    }
    let mut draft = built?;
    for (name, value) in &options.labels {
        draft.add("Labels", name, value.as_str().into());
    }
    let descriptor = draft.commit(store, &build.created)?;
    match names.is_empty() {
        true => unnamed::note(store, &descriptor.digest)?,
        false => store.put_in_index(&descriptor, &names, &options.source)?,
    }
    store.layers(&descriptor.digest)?;
    store.get(&descriptor.digest)
}

fn epoch(options: &BuildOptions) -> Result<Option<u64>, Error> {
    let given = options.args.get("SOURCE_DATE_EPOCH");
    let parsed = given.map(|text| {
        let epoch_s = text.parse().ok();
        let epoch_s = epoch_s.filter(|epoch_s| *epoch_s < time::MAX_EPOCH_S);
        epoch_s.ok_or_else(|| {
            Error::Build(format!(
                "SOURCE_DATE_EPOCH is {text:?}, which is no number of seconds"
            ))
        })
    });
    parsed.transpose()
}

impl Build<'_> {
    fn base_image(
        &self,
        stage: &dockerfile::Stage,
        base: &str,
        note: &mut dyn FnMut(String),
    ) -> Result<Draft, Error> {
        let image = self.image(stage.line, "FROM", base, note)?;
        let draft = Draft::of_image(self.store, &image.digest)?;
        if let Some(platform) = draft.platform()
            && !self.platform.starts_with(&platform)
            && stage.platform.is_none()
        {
            note(format!(
                "{}:{}: {base} is an image for {platform}, not for {}",
                self.shown, stage.line, self.platform
            ));
        }
        Ok(draft)
    }

    /// An image of the store that an instruction names; pulled, if it is not there and that is possible.
    pub(crate) fn image(
        &self,
        line: u32,
        keyword: &str,
        reference: &str,
        note: &mut dyn FnMut(String),
    ) -> Result<Image, Error> {
        let mut found = match &self.options.find {
            Some(find) => find(reference),
            None => self.store.resolve(reference),
        };
        if let (Err(Error::NotFound { .. }), Some(puller)) = (&found, &self.options.pull) {
            note(format!("pulling {reference}"));
            let pulled = reference.parse().and_then(|parsed| puller.pull(&parsed));
            found = Ok(pulled.map_err(|error| {
                let reasons = chain(&error);
                self.error(line, format!("{keyword} {reference}: {reasons}"))
            })?);
        }
        if let Ok(image) = &found {
            self.tell_whose(keyword, reference, image, note);
        }
        found.map_err(|error| match error {
            Error::NotFound { .. } | Error::BadReference { .. } => self.error(
                line,
                format!("{keyword} {reference}: {error}; load it with `layby image load`"),
            ),
            Error::Build(why) => self.error(line, format!("{keyword} {reference}: {why}")),
            other => other,
        })
    }

    /// Says of an image that it was built here for somebody else, where its name does not.
    fn tell_whose(&self, keyword: &str, name: &str, image: &Image, note: &mut dyn FnMut(String)) {
        let Ok(parsed) = name.parse::<Reference>() else {
            return;
        };
        let Some(whom) = image.built_for.get(&parsed.to_string()) else {
            return;
        };
        let own = match &self.options.source {
            Source::For(own) => own.as_str(),
            Source::Here | Source::Registry => "",
        };
        if own != whom && !says_whose(&parsed, whom, own) {
            note(format!(
                "{keyword} {name} is what was built here for {whom} under that name: `layby image rm {name}` frees it"
            ));
        }
    }

    /// Whether this machine runs programs of the platform that is built for.
    fn runs_platform(&self) -> bool {
        let ours = format!("linux/{}", layout::architecture());
        self.platform == ours || self.platform.starts_with(&format!("{ours}/"))
    }

    /// An error at a line of the Dockerfile.
    pub(crate) fn error(&self, line: u32, message: String) -> Error {
        Error::Dockerfile {
            file: self.shown.to_owned(),
            line,
            message,
        }
    }
}

/// What a context leaves out: by the Dockerfile's own file if it has one, else by `.dockerignore`.
fn ignore_of(context: &View, dockerfile: Option<&str>) -> Result<Ignore, Error> {
    let own = match dockerfile {
        Some(name) => read_text(context, &format!("{name}.dockerignore"))?,
        None => None,
    };
    match own {
        Some(text) => Ok(Ignore::parse(&text)),
        None => Ok(Ignore::parse(
            &read_text(context, ".dockerignore")?.unwrap_or_default(),
        )),
    }
}

/// Whether an image's name says for whom it was built: `<whom>-...`.
pub fn is_called_after(name: &Reference, whom: &str) -> bool {
    let short = name.short();
    let rest = short.strip_prefix(whom);
    !short.contains('/') && rest.is_some_and(|rest| rest.starts_with('-'))
}

/// Whether an image's name says to `own`, if that is somebody, that it was built for `whom`: what `shop` has built as
/// `shop-api-worker` looks like their own to `shop-api`.
pub fn says_whose(name: &Reference, whom: &str, own: &str) -> bool {
    let looks_own = !own.is_empty() && own.len() > whom.len() && is_called_after(name, own);
    is_called_after(name, whom) && !looks_own
}

/// An error with all that caused it.
fn chain(error: &Error) -> String {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}

/// The stage before `before` that a name or a number means. The last of a name counts.
pub(crate) fn stage_named(file: &Dockerfile, name: &str, before: usize) -> Option<usize> {
    let wanted = name.to_ascii_lowercase();
    let named = file.stages[..before]
        .iter()
        .rposition(|stage| stage.name.as_ref() == Some(&wanted));
    named.or_else(|| name.parse().ok().filter(|number| *number < before))
}

/// Reads a text file of the context; `None` when it is not there.
fn read_text(context: &View, name: &str) -> Result<Option<String>, Error> {
    let outside = || Error::Build(format!("{name} lies outside of the build context"));
    let parts = view::clean(name).ok_or_else(outside)?;
    let failed = io_error("read", Path::new(name));
    let read = || {
        let Some(node) = context.resolve(&parts)?.node else {
            return Ok(None);
        };
        read_bounded(&node).map(Some)
    };
    let bytes: Option<Vec<u8>> = read().map_err(failed)?;
    let Some(bytes) = bytes else {
        return Ok(None);
    };
    if bytes.len() as u64 > MAX_DOCKERFILE_BYTES {
        return Err(Error::Build(format!(
            "{name} is longer than {MAX_DOCKERFILE_BYTES} bytes"
        )));
    }
    let text =
        String::from_utf8(bytes).map_err(|_| Error::Build(format!("{name} is not UTF-8 text")))?;
    Ok(Some(text))
}

fn read_bounded(node: &Node) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let file = std::fs::File::open(node.path())?;
    file.take(MAX_DOCKERFILE_BYTES + 1)
        .read_to_end(&mut bytes)?;
    Ok(bytes)
}
