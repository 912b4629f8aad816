//! Which files are watched, and for whom.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use layby_image::dockerignore::Ignore;
use layby_manifest::{Manifest, Watch, WatchAction, WatchRule};
use layby_model::mounts::MountSource;
use layby_model::spec::ServiceSpec;

use crate::out::tell;
use crate::parcel::Manifests;

/// What no rule ever means: what git keeps, what editors leave for a moment, and what in a copy would take away another.
const PASSING: &str = "**/.git\n**/*~\n**/.*.sw?\n**/.*.sw??\n**/4913\n**/.#*\n**/#*#\n**/*___jb_tmp___\n**/*___jb_old___\n**/.wh.*\n";

/// A service and what is watched for it.
#[derive(Debug)]
pub(super) struct Watched {
    /// `app/service`.
    pub(super) id: String,
    /// What the lines call it.
    pub(super) name: String,
    pub(super) rules: Vec<Rule>,
}

impl Watched {
    /// Whether something is done with its replicas, which takes that they are awake.
    pub(super) fn is_held(&self) -> bool {
        let in_place = |rule: &Rule| !matches!(rule.action, WatchAction::Rebuild);
        self.rules.iter().any(in_place)
    }
}

/// One rule, with its paths as they are on this machine.
#[derive(Debug)]
pub(super) struct Rule {
    /// The file or folder, without links.
    pub(super) root: PathBuf,
    pub(super) is_file: bool,
    pub(super) action: WatchAction,
    /// Where it is in the containers; of a file, the file itself.
    pub(super) target: Option<String>,
    pub(super) initial_sync: bool,
    passing: Ignore,
    ignore: Ignore,
    include: Option<Ignore>,
    /// The build context, and what it leaves out.
    context: Option<(PathBuf, Ignore)>,
}

impl Rule {
    fn new(rule: &WatchRule, root: PathBuf, context: Option<(PathBuf, Ignore)>) -> Self {
        let is_file = root.is_file();
        let target = rule.target.as_ref().map(|target| {
            // As it is written: it may be a link to one of another name.
            let written = Path::new(&rule.path).file_name();
            let name = written.or(root.file_name()).unwrap_or_default();
            let name = name.to_string_lossy();
            match is_file && target.ends_with('/') {
                true => format!("{target}{name}"),
                false => target.trim_end_matches('/').to_owned(),
            }
        });
        let patterns = |list: &[String]| Ignore::parse(&list.join("\n"));
        Self {
            is_file,
            action: rule.action.clone(),
            target,
            initial_sync: rule.initial_sync,
            passing: Ignore::parse(PASSING),
            ignore: patterns(&rule.ignore),
            include: (!rule.include.is_empty()).then(|| patterns(&rule.include)),
            context,
            root,
        }
    }

    /// The folder below which all that it means is.
    pub(super) fn folder(&self) -> &Path {
        match self.is_file {
            true => self.root.parent().unwrap_or(&self.root),
            false => &self.root,
        }
    }

    /// Whether a change of this very path is one that the rule means.
    pub(super) fn means(&self, path: &Path) -> bool {
        if self.is_file {
            return path == self.root;
        }
        let Some(below) = below(&self.root, path) else {
            return false;
        };
        let included = self.include.as_ref();
        let of_context = self.context.as_ref();
        included.is_none_or(|include| include.leaves_out(&below))
            && !self.passing.leaves_out(&below)
            && !self.ignore.leaves_out(&below)
            && of_context.is_none_or(|(folder, ignore)| {
                !self::below(folder, path).is_some_and(|below| ignore.leaves_out(&below))
            })
    }

    /// Whether it may mean something in this folder.
    pub(super) fn enters(&self, folder: &Path) -> bool {
        if self.is_file || !folder.starts_with(&self.root) {
            return false;
        }
        let Some(below) = below(&self.root, folder) else {
            return true; // its own
        };
        let of_context = self.context.as_ref();
        !self.passing.excludes(&below, true)
            && !self.ignore.excludes(&below, true)
            && of_context.is_none_or(|(context, ignore)| {
                !self::below(context, folder).is_some_and(|below| ignore.excludes(&below, true))
            })
    }

    /// Where a path that it means is in the containers, without a leading `/`.
    pub(super) fn target_of(&self, path: &Path) -> Option<PathBuf> {
        let target = PathBuf::from(self.target.as_ref()?.trim_start_matches('/'));
        match self.is_file {
            true => Some(target),
            false => Some(target.join(path.strip_prefix(&self.root).ok()?)),
        }
    }
}

/// The way from a folder to what lies in it, as patterns have it; `None`: it does not, or is the folder itself.
fn below(folder: &Path, path: &Path) -> Option<String> {
    let below = path.strip_prefix(folder).ok()?;
    (below != Path::new("")).then(|| below.to_string_lossy().into_owned())
}

/// What a manifest wants watched. `here`: the node is on this machine, and what it binds lies here, too.
///
/// # Errors
/// Nothing is to be watched; a path is not there.
pub(super) fn watched(
    manifests: &Manifests,
    manifest: &Manifest,
    here: bool,
) -> Result<Vec<Watched>> {
    let mut all = Vec::new();
    for Watch { service, rules } in &manifest.watches {
        let services = &manifest.app.services;
        let Some(spec) = services.iter().find(|one| one.name == *service) else {
            continue;
        };
        let mut kept = Vec::new();
        for rule in rules {
            let path = manifests.folder.join(&rule.path);
            // For people without the `./` in it.
            let path: PathBuf = path.components().collect();
            let root = path
                .canonicalize()
                .with_context(|| format!("cannot watch {} for {service}", path.display()))?;
            if let Some(bound) = bound(spec, &root).filter(|_| here && rule.action.copies()) {
                tell!(
                    "{service} has {bound} mounted: {} is not copied there",
                    root.display()
                );
                continue;
            }
            kept.push(Rule::new(rule, root, context(manifests, spec)?));
        }
        if !kept.is_empty() {
            all.push(Watched {
                id: format!("{}/{service}", manifest.app.name),
                name: service.to_string(),
                rules: kept,
            });
        }
    }
    if all.is_empty() {
        bail!(
            "nothing is to be watched: no service that is meant has rules in `develop: {{watch: [...]}}` (Compose Develop Specification)"
        );
    }
    Ok(all)
}

/// A folder of the machine that a service has mounted and that a path lies in, or the other way round: a copy would only
/// change the file that it was made of.
fn bound<'a>(spec: &'a ServiceSpec, root: &Path) -> Option<&'a str> {
    let mounts = spec
        .containers
        .iter()
        .flat_map(|container| &container.mounts);
    let mut binds = mounts.filter_map(|mount| match &mount.source {
        MountSource::Bind { path, .. } => Some(path.as_str()),
        MountSource::Volume { .. }
        | MountSource::Tmpfs { .. }
        | MountSource::Scratch { .. }
        | MountSource::Files { .. } => None,
    });
    binds.find(|bind| {
        let bind = Path::new(bind);
        let bind = bind.canonicalize().unwrap_or_else(|_| bind.to_owned());
        root.starts_with(&bind) || bind.starts_with(root)
    })
}

/// The folder that a service is built from, and what its `.dockerignore` leaves out.
fn context(manifests: &Manifests, spec: &ServiceSpec) -> Result<Option<(PathBuf, Ignore)>> {
    let Some(build) = spec
        .containers
        .first()
        .and_then(|first| first.build.as_ref())
    else {
        return Ok(None);
    };
    let folder = manifests.folder.join(&build.context);
    let Ok(folder) = folder.canonicalize() else {
        return Ok(None); // whoever builds it says so
    };
    let dockerfile = build.dockerfile.as_deref().unwrap_or("Dockerfile");
    let names = [
        format!("{dockerfile}.dockerignore"),
        ".dockerignore".to_owned(),
    ];
    let file = names
        .map(|name| folder.join(name))
        .into_iter()
        .find(|file| file.is_file());
    let text = file.map(fs::read_to_string).transpose();
    let text = text
        .context("cannot read the .dockerignore")?
        .unwrap_or_default();
    Ok(Some((folder, Ignore::parse(&text))))
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A rule on a folder (or, where the path has a point in it, a file) that need not be there.
    pub(in crate::commands::watch) fn rule(
        path: &str,
        action: WatchAction,
        ignore: &[&str],
        include: &[&str],
    ) -> Rule {
        let texts = |list: &[&str]| list.iter().map(|text| (*text).to_owned()).collect();
        let rule = WatchRule {
            path: path.to_owned(),
            action,
            target: Some("/app".to_owned()),
            ignore: texts(ignore),
            include: texts(include),
            initial_sync: false,
        };
        let mut made = Rule::new(&rule, PathBuf::from(path), None);
        made.is_file = path.contains('.');
        made
    }

    #[test]
    fn patterns_say_what_is_meant_relative_to_the_path() {
        let table: [(&[&str], &[&str], &str, bool); 12] = [
            (&[], &[], "a.py", true),
            (&[], &[], ".git/HEAD", false),
            (&[], &[], "deep/.git/HEAD", false),
            (&[], &[], ".gitignore", true),
            (&[], &[], "x/.a.py.swp", false),
            (&[], &[], "a.py~", false),
            (&[], &[], "layer/.wh.data", false),
            (&[], &["**/.wh.*"], ".wh.", false),
            (&["node_modules/"], &[], "node_modules/x/y.js", false),
            (&["**/*.md", "!keep.md"], &[], "keep.md", true),
            (&[], &["**/*.py"], "deep/a.py", true),
            (&["gen"], &["**/*.py"], "gen/a.py", false),
        ];
        for (ignore, include, path, meant) in table {
            let rule = rule("/src", WatchAction::Sync, ignore, include);
            let full = Path::new("/src").join(path);
            assert_eq!(
                rule.means(&full),
                meant,
                "{path} by {ignore:?} and {include:?}"
            );
        }
        let folder = rule("/src", WatchAction::Sync, &["node_modules/"], &["**/*.py"]);
        assert!(!folder.means(Path::new("/src/a.js")) && !folder.means(Path::new("/src")));
        assert!(folder.enters(Path::new("/src")) && folder.enters(Path::new("/src/deep")));
        assert!(!folder.enters(Path::new("/src/node_modules")));
        assert!(!folder.enters(Path::new("/other")));
    }

    #[test]
    fn a_link_to_a_file_keeps_its_own_name() {
        let dir = tempfile::tempdir().expect("a folder");
        let file = dir.path().join("config.dev.yaml");
        fs::write(&file, "").expect("a file");
        let rule = WatchRule {
            path: "./config.yaml".to_owned(),
            action: WatchAction::Sync,
            target: Some("/etc/app/".to_owned()),
            ignore: Vec::new(),
            include: Vec::new(),
            initial_sync: false,
        };
        let made = Rule::new(&rule, file.clone(), None);
        let target = made.target_of(&file);
        assert_eq!(target, Some("etc/app/config.yaml".into()));
    }

    #[test]
    fn what_a_context_leaves_out_is_not_watched_either() {
        let mut rule = rule("/app/src", WatchAction::Sync, &[], &[]);
        rule.context = Some(("/app".into(), Ignore::parse("src/gen\n**/*.log")));
        assert!(rule.means(Path::new("/app/src/a")));
        assert!(
            !rule.means(Path::new("/app/src/gen/a")) && !rule.means(Path::new("/app/src/a.log"))
        );
        assert!(!rule.enters(Path::new("/app/src/gen")));
    }

    #[test]
    fn a_file_goes_where_the_rule_says_and_what_is_in_a_folder_below() {
        let folder = rule("/src", WatchAction::Sync, &[], &[]);
        let target = folder.target_of(Path::new("/src/x/a"));
        assert_eq!(target, Some("app/x/a".into()));
        let file = rule("/src/conf.yaml", WatchAction::Sync, &[], &[]);
        assert_eq!(
            file.target_of(Path::new("/src/conf.yaml")),
            Some("app".into())
        );
        assert!(file.means(Path::new("/src/conf.yaml")) && !file.means(Path::new("/src/other")));
    }
}
