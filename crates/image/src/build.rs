//! Building an image from a Dockerfile and a context directory.
//!
//! Each step that adds files makes a layer whose content alone is its cache key (see `content`), so an unchanged
//! build only reads and hashes its files. The stages that the wanted one does not need are not built.

mod args;
mod content;
mod copy;
mod draft;
pub mod run;
mod stage;
mod time;
mod view;

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;
use std::path::Path;

use self::draft::Draft;
use self::stage::StageBuilder;
use self::view::{Node, View};
use crate::dockerfile::{self, Dockerfile, Kind, MAX_DOCKERFILE_BYTES, words};
use crate::dockerignore::Ignore;
use crate::error::io_error;
use crate::{Error, Image, Reference, Store, layout};

/// What to build.
#[derive(Debug, Clone, Default)]
pub struct BuildOptions {
    /// The Dockerfile, relative to the context; `None`: `Dockerfile`.
    pub dockerfile: Option<String>,
    /// Build arguments. `SOURCE_DATE_EPOCH` sets the time stamps in the image (default 0).
    pub args: BTreeMap<String, String>,
    /// The stage to build; `None`: the last.
    pub target: Option<String>,
    /// The name to give to the image. Without one it is kept only as long as its digest is in use (see `Store::gc`).
    pub tag: Option<String>,
    /// How errors name the Dockerfile, such as `examples/mnist/Dockerfile`; empty: as `dockerfile`. Where it ends with
    /// `dockerfile`, what stands before that names the context.
    pub file_name_shown: String,
}

/// What happens during a build.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BuildEvent {
    /// An instruction was carried out.
    Step {
        /// Its place, from 1.
        number: u32,
        /// How many there are.
        of: u32,
        /// The instruction as written, in one line.
        text: String,
        /// Whether its layer was taken from the cache (also for steps that make no layer).
        cached: bool,
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
    pub(crate) epoch_s: u64,
    /// The same as RFC 3339.
    pub(crate) created: String,
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
    let tag: Option<Reference> = options.tag.as_deref().map(str::parse).transpose()?;
    let epoch = options
        .args
        .get("SOURCE_DATE_EPOCH")
        .map_or("0", String::as_str);
    let epoch_s: u64 = epoch
        .parse()
        .ok()
        .filter(|epoch| *epoch < time::MAX_EPOCH_S)
        .ok_or_else(|| {
            Error::Build(format!(
                "SOURCE_DATE_EPOCH is {epoch:?}, which is no number of seconds"
            ))
        })?;
    let view = View::of_context(context);
    // Where the context was sent from says more than where it happens to lie.
    let context_shown = match shown.strip_suffix(name) {
        _ if options.file_name_shown.is_empty() => context.display().to_string(),
        Some("") => ".".to_owned(),
        Some(folder) => folder.trim_end_matches('/').to_owned(),
        None => context.display().to_string(),
    };
    let text = read_text(&view, name)?
        .ok_or_else(|| Error::Build(format!("there is no {name} in {context_shown}")))?;
    let file = dockerfile::parse(&text).map_err(|error| Error::Dockerfile {
        file: shown.to_owned(),
        line: error.line,
        message: error.message,
    })?;
    let ignore = match read_text(&view, &format!("{name}.dockerignore"))? {
        Some(text) => Ignore::parse(&text),
        None => Ignore::parse(&read_text(&view, ".dockerignore")?.unwrap_or_default()),
    };
    let _adding = store.adding()?;
    let build = Build {
        store,
        options,
        file: &file,
        shown,
        context: &view,
        context_shown: format!("the build context {context_shown}"),
        ignore: &ignore,
        globals: args::global_args(&file, options, shown)?,
        epoch_s,
        created: time::rfc3339(epoch_s),
    };
    for (line, note) in &file.notes {
        progress(BuildEvent::Output(format!("{shown}:{line}: {note}")));
    }
    for unknown in args::unknown_args(&file, options) {
        progress(BuildEvent::Output(format!(
            "the build argument {unknown} is not used by {shown}"
        )));
    }
    let draft = build.stages(progress)?;
    let descriptor = draft.commit(store, &build.created)?;
    if let Some(tag) = tag {
        store.put_in_index(&descriptor, &[tag])?;
    }
    store.layers(&descriptor.digest)?;
    store.get(&descriptor.digest)
}

impl Build<'_> {
    /// Builds the wanted stage and those that it needs.
    fn stages(&self, progress: &mut dyn FnMut(BuildEvent)) -> Result<Draft, Error> {
        let bases: Result<Vec<String>, Error> = self
            .file
            .stages
            .iter()
            .map(|stage| self.base_of(stage))
            .collect();
        let bases = bases?;
        let target = self.target()?;
        let needed = self.needed(target, &bases);
        let steps = needed
            .iter()
            .map(|index| 1 + self.file.stages[*index].instructions.len());
        let of = u32::try_from(steps.sum::<usize>()).unwrap_or(u32::MAX);
        let mut number = 0;
        let mut done: BTreeMap<usize, Draft> = BTreeMap::new();
        for index in needed {
            let stage = &self.file.stages[index];
            let base = &bases[index];
            let draft =
                match stage_named(self.file, base, index).and_then(|earlier| done.get(&earlier)) {
                    Some(earlier) => earlier.clone(),
                    None => self.base_image(stage, base)?,
                };
            let mut step = |text: &str, cached: bool| {
                number += 1;
                progress(BuildEvent::Step {
                    number,
                    of,
                    text: text.to_owned(),
                    cached,
                });
            };
            step(&stage.text, true);
            let mut builder = StageBuilder::new(self, index, draft);
            for instruction in &stage.instructions {
                let cached = builder.carry_out(instruction, &done)?;
                step(&instruction.text, cached);
            }
            done.insert(index, builder.into_draft());
        }
        done.remove(&target)
            .ok_or_else(|| Error::Build("there is no stage to build".to_owned()))
    }

    /// The FROM's image with variables put in.
    fn base_of(&self, stage: &dockerfile::Stage) -> Result<String, Error> {
        let lookup = |name: &str| self.globals.get(name).cloned();
        let expand = |word: &str| {
            words::expand(word, self.file.escape, &lookup)
                .map_err(|reason| self.error(stage.line, format!("FROM {word}: {reason}")))
        };
        if let Some(platform) = &stage.platform {
            let platform = expand(platform)?;
            let ours = format!("linux/{}", layout::architecture());
            if platform != ours && !platform.starts_with(&format!("{ours}/")) {
                let text = format!(
                    "FROM --platform={platform} cannot be built here; this machine is {ours}"
                );
                return Err(self.error(stage.line, text));
            }
        }
        let base = expand(&stage.base)?;
        if base.is_empty() {
            let text = format!(
                "FROM {} names no image: its variables are empty",
                stage.base
            );
            return Err(self.error(stage.line, text));
        }
        Ok(base)
    }

    fn base_image(&self, stage: &dockerfile::Stage, base: &str) -> Result<Draft, Error> {
        if base == "scratch" {
            return Ok(Draft::scratch());
        }
        let image = self.image(stage.line, "FROM", base)?;
        let draft = Draft::of_image(self.store, &image.digest)?;
        if draft.has_triggers() {
            let text = format!("FROM {base} has ONBUILD triggers, which this builder does not run");
            return Err(self.error(stage.line, text));
        }
        Ok(draft)
    }

    /// An image of the store that an instruction names.
    pub(crate) fn image(&self, line: u32, keyword: &str, reference: &str) -> Result<Image, Error> {
        self.store.resolve(reference).map_err(|error| match error {
            Error::NotFound { .. } | Error::BadReference { .. } => self.error(
                line,
                format!("{keyword} {reference}: {error}; load it with `layby image load`"),
            ),
            other => other,
        })
    }

    fn target(&self) -> Result<usize, Error> {
        let count = self.file.stages.len();
        match &self.options.target {
            None => Ok(count - 1),
            Some(name) => stage_named(self.file, name, count).ok_or_else(|| {
                let names = self
                    .file
                    .stages
                    .iter()
                    .filter_map(|stage| stage.name.as_deref());
                let names: Vec<&str> = names.collect();
                Error::Build(format!(
                    "there is no stage {name:?} in {}; it has: {}",
                    self.shown,
                    names.join(", ")
                ))
            }),
        }
    }

    /// The stages that the target needs, itself included, in order.
    fn needed(&self, target: usize, bases: &[String]) -> BTreeSet<usize> {
        let mut needed = BTreeSet::new();
        let mut open = vec![target];
        while let Some(index) = open.pop() {
            if !needed.insert(index) {
                continue;
            }
            open.extend(stage_named(self.file, &bases[index], index));
            for instruction in &self.file.stages[index].instructions {
                if let Kind::Copy(copy) = &instruction.kind
                    && let Some(from) = &copy.from
                {
                    open.extend(stage_named(self.file, from, index));
                }
            }
        }
        needed
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
