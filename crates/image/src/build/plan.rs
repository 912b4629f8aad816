//! What a build has to do: which stages are needed, on what, in which order; before any of it is done.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use super::draft::Draft;
use super::{Build, NamedContext, stage_named};
use crate::dockerfile::{self, Instruction, Kind, Stage, mount, words};
use crate::{Error, layout};

/// The stages to build, in the order of the Dockerfile.
pub(super) struct Plan {
    pub(super) stages: Vec<Planned>,
    /// The place of the wanted one among the Dockerfile's.
    pub(super) target: usize,
    /// Of all steps.
    pub(super) steps: u32,
}

/// One stage to build.
pub(super) struct Planned {
    /// Its place among the Dockerfile's stages.
    pub(super) index: usize,
    /// What it is called in messages: its name, or its number.
    pub(super) name: String,
    pub(super) base: Base,
    /// The base's ONBUILD triggers, then its own.
    pub(super) instructions: Vec<Instruction>,
    /// How many of them are triggers.
    pub(super) triggers: usize,
    /// The stages that have to be built, too.
    pub(super) needs: BTreeSet<usize>,
    /// The number of its FROM among all steps, from 1.
    pub(super) first_number: u32,
}

/// What a stage begins with.
pub(super) enum Base {
    Scratch,
    /// An earlier stage.
    Stage(usize),
    /// An image.
    Image(Box<Draft>),
}

/// What the files of a `--from` are.
pub(super) enum From<'a> {
    Stage(usize),
    /// A folder that the build was given beside its context.
    Folder(&'a Path),
    /// An image's name.
    Image(&'a str),
}

/// Plans the build of the wanted stage.
pub(super) fn plan(build: &Build, note: &mut dyn FnMut(String)) -> Result<Plan, Error> {
    let bases: Result<Vec<String>, Error> = (build.file.stages.iter())
        .map(|stage| base_of(build, stage))
        .collect();
    let bases = bases?;
    let target = target(build)?;
    let mut open = vec![target];
    let mut planned: BTreeMap<usize, Planned> = BTreeMap::new();
    while let Some(index) = open.pop() {
        if planned.contains_key(&index) {
            continue;
        }
        let stage = plan_stage(build, index, &bases[index], note)?;
        open.extend(&stage.needs);
        planned.insert(index, stage);
    }
    let mut number = 1;
    let mut stages: Vec<Planned> = planned.into_values().collect();
    for stage in &mut stages {
        stage.first_number = number;
        number += 1 + u32::try_from(stage.instructions.len()).unwrap_or(0);
    }
    Ok(Plan {
        stages,
        target,
        steps: number - 1,
    })
}

fn plan_stage(
    build: &Build,
    index: usize,
    base: &str,
    note: &mut dyn FnMut(String),
) -> Result<Planned, Error> {
    let stage = &build.file.stages[index];
    let mut triggers = Vec::new();
    let base = match source_of(build, base, index) {
        From::Stage(earlier) => {
            let of_base = build.file.stages[earlier].instructions.iter();
            triggers.extend(of_base.filter_map(|instruction| match &instruction.kind {
                Kind::OnBuild(text) => Some(text.clone()),
                _ => None,
            }));
            Base::Stage(earlier)
        }
        From::Folder(_) => {
            let text = format!(
                "FROM {base} names a build context that is a folder; only COPY --from can take files of it"
            );
            return Err(build.error(stage.line, text));
        }
        From::Image(_) if base == "scratch" => Base::Scratch,
        From::Image(image) => {
            let mut draft = build.base_image(stage, image, note)?;
            triggers = draft.take_triggers();
            Base::Image(Box::new(draft))
        }
    };
    let mut instructions = Vec::new();
    for text in triggers {
        let parsed = dockerfile::parse_trigger(&text, stage.line, build.file.escape);
        instructions.push(parsed.map_err(|reason| {
            build.error(
                stage.line,
                format!("the ONBUILD trigger {text:?} of {}: {reason}", stage.base),
            )
        })?);
    }
    let triggers = instructions.len();
    instructions.extend(stage.instructions.iter().cloned());
    let mut needs = BTreeSet::new();
    if let Base::Stage(earlier) = base {
        needs.insert(earlier);
    }
    for instruction in &instructions {
        for from in froms(instruction) {
            if let From::Stage(earlier) = source_of(build, &from, index) {
                needs.insert(earlier);
            }
        }
    }
    Ok(Planned {
        index,
        name: stage.name.clone().unwrap_or_else(|| index.to_string()),
        base,
        instructions,
        triggers,
        needs,
        first_number: 0,
    })
}

/// What `FROM` and `--from` mean by a name: a context of that name, a stage before this one, or an image.
pub(super) fn source_of<'a>(build: &Build<'a>, name: &'a str, index: usize) -> From<'a> {
    match build.options.contexts.get(name) {
        Some(NamedContext::Folder(folder)) => return From::Folder(folder),
        Some(NamedContext::Image(image)) => return From::Image(image),
        None => {}
    }
    match stage_named(build.file, name, index) {
        Some(earlier) => From::Stage(earlier),
        None => From::Image(name),
    }
}

/// All that an instruction takes files from, beside the build context.
fn froms(instruction: &Instruction) -> Vec<String> {
    match &instruction.kind {
        Kind::Copy(copy) => copy.from.iter().cloned().collect(),
        Kind::Run(run) => run
            .mounts
            .iter()
            .filter_map(|text| mount::from_of(text))
            .collect(),
        _ => Vec::new(),
    }
}

/// The FROM's image with variables put in.
fn base_of(build: &Build, stage: &Stage) -> Result<String, Error> {
    let lookup = |name: &str| build.globals.get(name).cloned();
    let expand = |word: &str| {
        words::expand(word, build.file.escape, &lookup)
            .map_err(|reason| build.error(stage.line, format!("FROM {word}: {reason}")))
    };
    if let Some(platform) = &stage.platform {
        let platform = expand(platform)?;
        let ours = [
            format!("linux/{}", layout::architecture()),
            build.platform.clone(),
        ];
        let fits = |ours: &String| platform == *ours || platform.starts_with(&format!("{ours}/"));
        if !ours.iter().any(fits) {
            let text = format!(
                "FROM --platform={platform} cannot be built here; this machine is {}",
                ours[0]
            );
            return Err(build.error(stage.line, text));
        }
    }
    let base = expand(&stage.base)?;
    if base.is_empty() {
        let text = format!(
            "FROM {} names no image: its variables are empty",
            stage.base
        );
        return Err(build.error(stage.line, text));
    }
    Ok(base)
}

fn target(build: &Build) -> Result<usize, Error> {
    let count = build.file.stages.len();
    let named = build.options.target.as_ref();
    let Some(name) = named.filter(|name| !name.is_empty()) else {
        return Ok(count - 1);
    };
    stage_named(build.file, name, count).ok_or_else(|| {
        let names = build.file.stages.iter();
        let names: Vec<&str> = names.filter_map(|stage| stage.name.as_deref()).collect();
        let has = match names[..] {
            [] if count == 1 => "its only stage has no name, and is number 0".to_owned(),
            [] => format!("none has a name: say a number from 0 to {}", count - 1),
            _ => format!("it has: {}", names.join(", ")),
        };
        Error::Build(format!(
            "there is no stage {name:?} in {}; {has}",
            build.shown
        ))
    })
}
