//! Which files are meant, as Compose finds them: what the command line says, the variables COMPOSE_FILE and its like, else
//! the folder and those above it.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use layby_manifest::{COMPOSE_NAMES, env_file_variables};

use super::{STDIN, parent_of, read_bounded};
use crate::cli;
use crate::out::tell;

/// What is meant.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Meant {
    /// The folder that paths in the manifests start from.
    pub(super) folder: PathBuf,
    /// The files, in order; none: what the folder has.
    pub(super) files: Vec<PathBuf>,
    /// The files of variables, in order; none: `.env`.
    pub(super) env_files: Vec<PathBuf>,
}

/// What `options` mean to somebody in the folder `here` with these variables.
///
/// # Errors
/// A folder that is not there, or a file of variables that cannot be read.
pub(super) fn meant(
    options: &cli::Manifest,
    here: &Path,
    variable: &impl Fn(&str) -> Option<String>,
) -> Result<Meant> {
    let path = options.path.as_ref().map(|path| here.join(path));
    let project = options.project_directory.as_ref();
    let start = match project.map(|dir| here.join(dir)).or(path.clone()) {
        Some(start) if !start.is_dir() && project.is_none() => here.to_owned(),
        Some(start) => start,
        None => here.to_owned(),
    };
    let start = start
        .canonicalize()
        .with_context(|| format!("cannot read {}", start.display()))?;
    let mut env_files = options.env_files.clone();
    if let (true, Some(listed)) = (env_files.is_empty(), variable("COMPOSE_ENV_FILES")) {
        env_files = listed.split(',').map(|file| file.trim().into()).collect();
    }
    let given = match (&path, options.files.is_empty()) {
        (Some(path), _) if path.is_dir() => Some(Vec::new()),
        (Some(path), _) => Some(vec![path.clone()]),
        (None, false) => Some(options.files.clone()),
        (None, true) => None,
    };
    let files = match given {
        Some(files) => files,
        None => listed(&start, here, &env_files, variable)?,
    };
    let folder = match (files.first(), project) {
        (Some(first), None) if first.as_os_str() != STDIN => {
            let first = here.join(first);
            match first.is_dir() {
                true => first
                    .canonicalize()
                    .with_context(|| format!("cannot read {}", first.display()))?,
                false => parent_of(&first)?,
            }
        }
        (None, _) if path.is_none() => above(&start),
        _ => start,
    };
    Ok(Meant {
        folder,
        files,
        env_files,
    })
}

/// The files of the variable COMPOSE_FILE, which a file of variables may set too.
fn listed(
    start: &Path,
    here: &Path,
    env_files: &[PathBuf],
    variable: &impl Fn(&str) -> Option<String>,
) -> Result<Vec<PathBuf>> {
    let own = [start.join(".env")];
    let sources = match env_files.is_empty() {
        true => own.iter().filter(|file| file.is_file()).cloned().collect(),
        false => env_files.to_vec(),
    };
    let find = |name: &str| -> Result<Option<String>> {
        if let Some(value) = variable(name) {
            return Ok(Some(value));
        }
        for source in sources.iter().rev() {
            let bytes = read_bounded(&here.join(source))?;
            // What is wrong with it the node says.
            let mut variables = env_file_variables(&bytes, &named_in(&bytes, variable));
            if let Some(value) = variables.remove(name).filter(|value| !value.is_empty()) {
                return Ok(Some(value));
            }
        }
        Ok(None)
    };
    let Some(files) = find("COMPOSE_FILE")? else {
        return Ok(Vec::new());
    };
    let separator = find("COMPOSE_PATH_SEPARATOR")?.unwrap_or_else(|| ":".to_owned());
    let files = files
        .split(separator.as_str())
        .filter(|file| !file.is_empty());
    Ok(files.map(PathBuf::from).collect())
}

/// Those of the caller's variables whose names stand in a file.
fn named_in(bytes: &[u8], variable: &impl Fn(&str) -> Option<String>) -> BTreeMap<String, String> {
    let text = String::from_utf8_lossy(bytes);
    let names = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    let names = names.filter(|name| !name.is_empty());
    names
        .filter_map(|name| Some((name.to_owned(), variable(name)?)))
        .collect()
}

/// The folder itself where it has a manifest, else the next one above that has a Compose file, else the folder itself.
fn above(folder: &Path) -> PathBuf {
    let has_compose = |folder: &Path| COMPOSE_NAMES.iter().any(|name| folder.join(name).is_file());
    if has_compose(folder) || has_kubernetes(folder) {
        return folder.to_owned();
    }
    match folder.ancestors().skip(1).find(|above| has_compose(above)) {
        Some(above) => {
            tell!("The Compose file is in {}.", above.display());
            above.to_owned()
        }
        None => folder.to_owned(),
    }
}

/// Whether the folder has YAML that looks like Kubernetes'.
fn has_kubernetes(folder: &Path) -> bool {
    let names = yaml_files(folder).unwrap_or_default();
    names.iter().any(|name| is_kubernetes(&folder.join(name)))
}

/// Whether a file looks like Kubernetes'.
fn is_kubernetes(file: &Path) -> bool {
    if is_json(file) {
        return true; // any other was left out
    }
    let text = read_bounded(file).unwrap_or_default();
    let mut lines = text.split(|byte| *byte == b'\n');
    lines.any(|line| line.starts_with(b"apiVersion:"))
}

fn is_json(file: &Path) -> bool {
    file.extension().is_some_and(|ending| ending == "json")
}

/// Whether a JSON file is an object of Kubernetes. Any other (`package.json`) is no manifest, and nobody's business.
fn is_kubernetes_json(file: &Path) -> bool {
    #[derive(serde::Deserialize)]
    struct Head {
        #[serde(rename = "apiVersion")]
        _version: String,
        #[serde(rename = "kind")]
        _kind: String,
    }
    let text = read_bounded(file).unwrap_or_default();
    serde_json::from_slice::<Head>(&text).is_ok()
}

/// The first few of these names.
fn listed_short(names: &[&str]) -> String {
    const SHOWN: usize = 5;
    let more = names.len().saturating_sub(SHOWN);
    let shown = names[..names.len() - more].join(", ");
    match more {
        0 => shown,
        more => format!("{shown} and {more} more"),
    }
}

/// The files of a folder that may be its manifest: the Compose file and what is laid over it, else all YAML, and what JSON is
/// Kubernetes'.
///
/// # Errors
/// The folder cannot be read.
pub(super) fn manifests_in(folder: &Path) -> Result<Vec<String>> {
    let names = yaml_files(folder)?;
    let is_compose =
        |name: &str| name.starts_with("compose.") || name.starts_with("docker-compose.");
    if let Some(compose) = names
        .iter()
        .find(|name| COMPOSE_NAMES.contains(&name.as_str()))
    {
        let others = names.iter().filter(|name| !is_compose(name));
        let others = others.filter(|name| is_kubernetes(&folder.join(name)));
        let others: Vec<&str> = others.map(String::as_str).collect();
        if let [first, ..] = others[..] {
            tell!(
                "warning: {} has a {compose} and Kubernetes YAML ({}): only the Compose file is read; `-f {first}` reads the other",
                folder.display(),
                listed_short(&others)
            );
        }
        return Ok(names.into_iter().filter(|name| is_compose(name)).collect());
    }
    // A long file that is no manifest by its name is some other program's; the node would say what is missing.
    let is_long = |name: &String| {
        let file = folder.join(name).metadata();
        file.is_ok_and(|file| file.len() > super::MANIFEST_MAX_BYTES)
    };
    Ok(names
        .into_iter()
        .filter(|name| is_compose(name) || !is_long(name))
        .collect())
}

/// The names of the YAML files in a folder, and of its JSON files that are Kubernetes'.
fn yaml_files(folder: &Path) -> Result<Vec<String>> {
    let cannot = || format!("cannot read the folder {}", folder.display());
    if !folder.is_dir() {
        bail!("{} is not a folder", folder.display());
    }
    let mut names = Vec::new();
    for entry in fs::read_dir(folder).with_context(cannot)? {
        let entry = entry.with_context(cannot)?;
        let Ok(name) = entry.file_name().into_string() else {
            continue;
        };
        let file = entry.path();
        let is_yaml = name.ends_with(".yaml") || name.ends_with(".yml");
        if file.is_file() && (is_yaml || is_json(&file) && is_kubernetes_json(&file)) {
            names.push(name);
        }
    }
    names.sort();
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn none(_: &str) -> Option<String> {
        None
    }

    /// A folder `top` with a Compose file, and `top/below`.
    fn folders() -> (tempfile::TempDir, PathBuf, PathBuf) {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let top = dir.path().canonicalize().expect("its path");
        let below = top.join("below");
        fs::create_dir(&below).expect("a folder");
        fs::write(top.join("compose.yaml"), "services: {}").expect("a file");
        (dir, top, below)
    }

    #[test]
    fn a_compose_file_is_found_in_the_folders_above() {
        let (_dir, top, below) = folders();
        let options = cli::Manifest::default();
        let found = |here: &Path| meant(&options, here, &none).expect("to find it").folder;
        assert_eq!(found(&below), top);
        fs::write(below.join("k.yaml"), "kind: Pod\napiVersion: v1\n").expect("a file");
        assert_eq!(found(&below), below, "it has a manifest of its own");
    }

    #[test]
    fn json_of_kubernetes_is_a_manifest_and_other_json_is_not() {
        let (_dir, _, below) = folders();
        for (name, text) in [
            ("pod.json", r#"{"kind": "Pod", "apiVersion": "v1"}"#),
            ("package.json", r#"{"name": "shop", "version": "1"}"#),
            ("broken.json", r#"{"kind": "Pod", "apiVersion": "v1""#),
            ("x.yaml", "a: 1"),
        ] {
            fs::write(below.join(name), text).expect("a file");
        }
        let names = manifests_in(&below).expect("to read it");
        assert_eq!(names, ["pod.json", "x.yaml"]);
        fs::write(below.join("compose.yaml"), "services: {}").expect("a file");
        let names = manifests_in(&below).expect("to read it");
        assert_eq!(names, ["compose.yaml"]);
    }

    #[test]
    fn a_folder_that_is_named_is_the_one_that_is_meant() {
        let (_dir, top, below) = folders();
        let options = cli::Manifest {
            path: Some("below".into()),
            ..cli::Manifest::default()
        };
        let found = meant(&options, &top, &none).expect("to find it");
        assert_eq!((found.folder, found.files.len()), (below, 0));
    }

    #[test]
    fn the_first_file_says_where_paths_start_unless_a_folder_is_named() {
        let (_dir, top, below) = folders();
        let mut options = cli::Manifest {
            files: vec!["../compose.yaml".into(), "b.yaml".into()],
            ..cli::Manifest::default()
        };
        let found = |options: &cli::Manifest| meant(options, &below, &none).expect("to find it");
        assert_eq!(found(&options).folder, top);
        options.project_directory = Some(".".into());
        assert_eq!(found(&options).folder, below);
        options.project_directory = None;
        options.files = vec!["..".into()];
        assert_eq!(
            found(&options).folder,
            top,
            "a folder is where its own paths start"
        );
        options.files = vec![STDIN.into()];
        assert_eq!(found(&options).folder, below);
    }

    #[test]
    fn variables_and_dot_env_name_files() {
        let (_dir, top, below) = folders();
        let options = cli::Manifest::default();
        let variable = |name: &str| match name {
            "COMPOSE_FILE" => Some("below/a.yaml;compose.yaml".to_owned()),
            "COMPOSE_PATH_SEPARATOR" => Some(";".to_owned()),
            _ => None,
        };
        let found = meant(&options, &top, &variable).expect("to find them");
        assert_eq!(found.folder, below);
        assert_eq!(
            found.files,
            ["below/a.yaml", "compose.yaml"].map(PathBuf::from)
        );
        for dot_env in [
            "COMPOSE_FILE=../compose.yaml\n",
            // What else is wrong with it changes nothing of that.
            "A=$NOWHERE\nNO LINE=1\nCOMPOSE_FILE=$UP/compose.yaml\n",
        ] {
            fs::write(below.join(".env"), dot_env).expect("a file");
            let variable = |name: &str| (name == "UP").then(|| "..".to_owned());
            let found = meant(&options, &below, &variable).expect("to find it");
            assert_eq!(
                found.files,
                ["../compose.yaml"].map(PathBuf::from),
                "{dot_env}"
            );
        }
    }
}
