//! `develop`: what is done when files of the developer change (Compose Develop Specification). The node does none of it: who
//! watches is the command line.

use std::collections::BTreeMap;

use layby_model::names::ServiceName;

use crate::compose::project::Project;
use crate::compose::{command, pairs};
use crate::fields::{Expected, Fields};
use crate::report::Report;

/// The most rules of a service.
const MAX_RULES: usize = 100;

/// What is done when files of the developer change, for one service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Watch {
    /// Which.
    pub service: ServiceName,
    /// Its rules, in the order of the file.
    pub rules: Vec<WatchRule>,
}

/// Files that are watched, and what is done when one changes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WatchRule {
    /// The file or folder, relative to the manifest's folder or absolute.
    pub path: String,
    /// What is done.
    pub action: WatchAction,
    /// Where it is in the containers, absolute: said of each rule that copies, and of no other.
    pub target: Option<String>,
    /// What is left out, relative to `path`, as in a `.dockerignore`.
    pub ignore: Vec<String>,
    /// Nothing else counts, if any are said: relative to `path`, by the same rules.
    pub include: Vec<String>,
    /// All that is there is copied at the beginning, too.
    pub initial_sync: bool,
}

/// What is done when a file changes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WatchAction {
    /// The image is built, and rolled out.
    Rebuild,
    /// The containers are restarted.
    Restart,
    /// The file is copied into the containers.
    Sync,
    /// That, and the containers are restarted.
    SyncRestart,
    /// It is copied, and a command is run in the containers.
    SyncExec(WatchExec),
}

/// A command that is run after a copy.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct WatchExec {
    /// The program and its arguments.
    pub command: Vec<String>,
    /// Whom it runs as; `None`: as the container.
    pub user: Option<String>,
    /// Where it starts; `None`: where the container did.
    pub working_dir: Option<String>,
    /// Variables beside the container's.
    pub env: BTreeMap<String, String>,
}

/// An action as it is written, without what belongs to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Word {
    Rebuild,
    Restart,
    Sync,
    SyncRestart,
    SyncExec,
}

impl WatchAction {
    /// Whether files are copied into the containers.
    pub fn copies(&self) -> bool {
        match self {
            Self::Sync | Self::SyncRestart | Self::SyncExec(_) => true,
            Self::Rebuild | Self::Restart => false,
        }
    }
}

impl Word {
    fn read(text: &str) -> Result<Self, Expected> {
        match text {
            "rebuild" => Ok(Self::Rebuild),
            "restart" => Ok(Self::Restart),
            "sync" => Ok(Self::Sync),
            "sync+restart" => Ok(Self::SyncRestart),
            "sync+exec" => Ok(Self::SyncExec),
            _ => Err("rebuild, restart, sync, sync+exec or sync+restart".to_owned()),
        }
    }

    fn copies(self) -> bool {
        match self {
            Self::Sync | Self::SyncRestart | Self::SyncExec => true,
            Self::Rebuild | Self::Restart => false,
        }
    }
}

/// Takes `develop` off a service; `builds`: it says how its image is built.
pub(crate) fn read(
    service: &mut Fields,
    builds: bool,
    project: &Project<'_>,
    report: &mut Report,
) -> Vec<WatchRule> {
    let Some(mut develop) = service.map("develop", report) else {
        return Vec::new();
    };
    let mut rules = Vec::new();
    let name = develop.name("watch");
    for item in develop.list("watch", report).unwrap_or_default() {
        if rules.len() >= MAX_RULES {
            report.error(
                &item.place,
                format!("{name} has more than {MAX_RULES} rules"),
            );
            break;
        }
        let fields = Fields::open(item, format!("an item of {name}"), report);
        rules.extend(fields.and_then(|fields| rule(fields, builds, project, report)));
    }
    develop.accept_extensions();
    develop.finish(report);
    rules
}

fn rule(
    mut rule: Fields,
    builds: bool,
    project: &Project<'_>,
    report: &mut Report,
) -> Option<WatchRule> {
    let (place, what) = (rule.place.clone(), rule.what.clone());
    let has_action = rule.has("action");
    let word = rule.parsed("action", report, Word::read);
    let path = rule.text("path", report).filter(|path| !path.is_empty());
    if word.is_some_and(|word| !word.copies()) {
        for key in ["target", "initial_sync"] {
            if let Some(entry) = rule.entry(key)
                && entry.value.scalar() != Some("false")
            {
                let message = format!("{} is ignored: the rule copies nothing", rule.name(key));
                report.warn(&entry.place, message);
            }
        }
    }
    let target = rule.text("target", report).filter(|path| !path.is_empty());
    let mut patterns = |key: &'static str, report: &mut Report| {
        let texts = rule.text_or_texts(key, report).unwrap_or_default();
        texts.into_iter().map(|text| text.value).collect::<Vec<_>>()
    };
    let (ignore, include) = (patterns("ignore", report), patterns("include", report));
    let initial_sync = rule.flag("initial_sync", report).unwrap_or(false);
    let has_exec = rule.has("exec");
    let exec = exec(&mut rule, project, report);
    rule.accept_extensions();
    rule.finish(report);
    let missing = match (word, &path) {
        (_, None) => Some("path"),
        (None, _) if !has_action => Some("action"),
        (Some(word), _) if word.copies() && target.is_none() => Some("target"),
        (Some(Word::SyncExec), _) if !has_exec => Some("exec"),
        _ => None,
    };
    if let Some(key) = missing {
        report.error(&place, format!("{what} has no {key:?}"));
        return None;
    }
    if word == Some(Word::Rebuild) && !builds {
        let message = format!("{what} is to rebuild an image, and the service has no \"build\"");
        report.error(&place, message);
        return None;
    }
    let action = match word? {
        Word::Rebuild => WatchAction::Rebuild,
        Word::Restart => WatchAction::Restart,
        Word::Sync => WatchAction::Sync,
        Word::SyncRestart => WatchAction::SyncRestart,
        Word::SyncExec => WatchAction::SyncExec(exec?),
    };
    Some(WatchRule {
        path: project.at_home(&path?),
        action,
        target: target.map(|target| format!("/{}", target.trim_start_matches('/'))),
        ignore,
        include,
        initial_sync,
    })
}

/// Takes `exec` off a rule; `None`: it has none, or no command in it.
fn exec(rule: &mut Fields, project: &Project<'_>, report: &mut Report) -> Option<WatchExec> {
    let mut fields = rule.map("exec", report)?;
    let command = command::read(&mut fields, "command", report).unwrap_or_default();
    let mut env = BTreeMap::new();
    let name = fields.name("environment");
    if let Some(node) = fields.take("environment") {
        pairs::variables(node, &name, project.variables, &mut env, report);
    }
    let exec = WatchExec {
        command,
        user: fields.text("user", report),
        working_dir: fields.text("working_dir", report),
        env,
    };
    if let Some(entry) = fields.entry("privileged")
        && entry.value.scalar() != Some("false")
    {
        let message = format!(
            "{} is ignored: the command has the rights of its container",
            fields.name("privileged")
        );
        report.warn(&entry.place, message);
    }
    fields.accept_extensions();
    let (place, what) = (fields.place.clone(), fields.what.clone());
    fields.finish(report);
    if exec.command.is_empty() {
        report.error(&place, format!("{what} has no \"command\""));
        return None;
    }
    Some(exec)
}
