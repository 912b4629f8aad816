//! `layby convert`: a Compose file as Kubernetes YAML. No node is asked, and nothing but the output is changed.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{ErrorKind, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use layby_manifest::{BOUND_MAX_BYTES, Bound, ConvertOptions, Converted};

use crate::cli::Convert;
use crate::out::{say, tell};
use crate::parcel::{Manifests, way};

/// What files with keys in them have in common (RFC 7468).
const KEY: &[u8] = b"PRIVATE KEY-----";

/// Writes what `options` ask for, and tells what is lost.
///
/// # Errors
/// The file is not what it should be; or the output is there already, or cannot be written.
pub(crate) fn convert(options: &Convert) -> Result<()> {
    if let Some(output) = &options.output {
        check(output)?;
    }
    let converted = read(options)?;
    let files = match &options.output {
        None => Vec::new(),
        Some(output) => outputs(output, &converted),
    };
    if !options.force {
        refuse(&files)?;
    }
    for warning in &converted.warnings {
        tell!("warning: {warning}");
    }
    match &options.output {
        None => say!("{}", whole(&converted).trim_end_matches('\n')),
        Some(_) => write(&files)?,
    }
    tell!("{}", summary(&converted, options.output.as_deref()));
    Ok(())
}

/// Reads the file and all that it names, and converts it.
fn read(options: &Convert) -> Result<Converted> {
    let mut manifests = Manifests::read(&options.manifest.clone().at(options.place.clone()))?;
    let mut how = ConvertOptions {
        namespace: options.namespace.clone(),
        domain: options.domain.clone(),
        back: back(options.output.as_deref(), &manifests.folder),
        bound: None,
    };
    let mut is_named = false;
    loop {
        let (files, mut read) = manifests.as_read();
        read.folder_path = Some(manifests.folder.display().to_string());
        read.named_files = is_named.then(|| files.0.clone());
        let converted = layby_manifest::convert(&files, &read, &how)?;
        if !converted.more.is_empty() {
            // Those that manifests are made of come first; once none is missing, what services have files of.
            is_named = layby_manifest::needed(&files, &read).is_empty();
            manifests.add(&converted.more)?;
        } else if !converted.bound.is_empty() {
            how.bound = Some(look(&manifests.folder, &converted.bound));
        } else {
            return Ok(converted);
        }
    }
}

/// The way from the folder that is written into to that of the manifests.
fn back(output: Option<&Path>, folder: &Path) -> String {
    let Some(output) = output.and_then(|output| std::path::absolute(output).ok()) else {
        return String::new();
    };
    let into = match is_folder(&output) {
        true => output.as_path(),
        false => output.parent().unwrap_or(&output),
    };
    match way(into, folder) {
        way if way.is_empty() => way,
        way => format!("{way}/"),
    }
}

/// What paths lead to that services mount, links followed. Files below the manifests' `folder` are the app's own; others are the
/// machine's.
fn look(folder: &Path, paths: &[String]) -> BTreeMap<String, Bound> {
    let folder = folder.canonicalize().unwrap_or_else(|_| folder.to_owned());
    let each = |path: &String| {
        let file = Path::new(path).canonicalize().ok()?;
        let metadata = fs::metadata(&file).ok()?;
        if !metadata.is_file() {
            return Some((path.clone(), Bound::Other));
        }
        let is_short = metadata.len() <= BOUND_MAX_BYTES;
        let all_read = metadata.permissions().mode() & 0o004 != 0;
        let bound = match (all_read, file.starts_with(&folder) && is_short) {
            (false, _) => Bound::Private,
            (true, false) => Bound::Machine,
            (true, true) => match fs::read(&file) {
                Ok(content) if has(&content, KEY) => Bound::Private,
                Ok(content) => Bound::File(content),
                Err(_) => Bound::Machine,
            },
        };
        Some((path.clone(), bound))
    };
    paths.iter().filter_map(each).collect()
}

fn has(content: &[u8], part: &[u8]) -> bool {
    content.windows(part.len()).any(|window| window == part)
}

fn whole(converted: &Converted) -> String {
    let texts = converted.objects.iter().map(|one| one.text.as_str());
    texts.collect::<Vec<_>>().join("---\n")
}

/// The files to write, each with what goes into it.
fn outputs(output: &Path, converted: &Converted) -> Vec<(PathBuf, String)> {
    if !is_folder(output) {
        return vec![(output.to_owned(), whole(converted))];
    }
    let objects = converted.objects.iter();
    objects
        .map(|one| (output.join(one.file_name()), one.text.clone()))
        .collect()
}

/// Whether an output is a folder: as it is, else as its name looks.
fn is_folder(output: &Path) -> bool {
    let is_slashed = output.as_os_str().to_string_lossy().ends_with('/');
    let ending = output.extension().and_then(|ending| ending.to_str());
    match fs::metadata(output) {
        Ok(metadata) => metadata.is_dir(),
        Err(_) => is_slashed || !matches!(ending, Some("yaml" | "yml")),
    }
}

/// Refuses an output whose name is likely none that was meant.
fn check(output: &Path) -> Result<()> {
    if output.exists() {
        return Ok(());
    }
    let (shown, text) = (output.display(), output.as_os_str().to_string_lossy());
    if is_folder(output) {
        if output.extension().is_some() && !text.ends_with('/') {
            bail!(
                "{shown} looks like neither a YAML file nor a folder: a file ends with .yaml or .yml, and a new folder is named with a / at its end"
            );
        }
        return Ok(());
    }
    let parent = output
        .parent()
        .filter(|parent| !parent.as_os_str().is_empty());
    match parent.filter(|parent| !parent.is_dir()) {
        Some(parent) => bail!(
            "{shown} cannot be written: there is no folder {}",
            parent.display()
        ),
        None => Ok(()),
    }
}

/// Refuses to replace what is there.
fn refuse(files: &[(PathBuf, String)]) -> Result<()> {
    let there = files
        .iter()
        .filter(|(file, _)| file.symlink_metadata().is_ok());
    let there: Vec<String> = there.map(|(file, _)| file.display().to_string()).collect();
    let what = match &there[..] {
        [] => return Ok(()),
        [one] => format!("{one} is"),
        [first, others @ ..] => format!("{first} and {} other files are", others.len()),
    };
    bail!(
        "{what} there already, and nothing was written: name another output, or replace what is there with --force"
    )
}

fn write(files: &[(PathBuf, String)]) -> Result<()> {
    for (file, text) in files {
        let cannot = || format!("cannot write {}", file.display());
        if let Some(folder) = file.parent() {
            match fs::create_dir_all(folder) {
                Err(error) if error.kind() != ErrorKind::AlreadyExists => {
                    return Err(error).with_context(cannot);
                }
                Ok(()) | Err(_) => {}
            }
        }
        let mut open = File::create(file).with_context(cannot)?;
        open.write_all(text.as_bytes()).with_context(cannot)?;
    }
    Ok(())
}

/// How many objects of which kinds there are, how much is lost, and what comes next.
fn summary(converted: &Converted, output: Option<&Path>) -> String {
    let mut kinds: Vec<(&str, usize)> = Vec::new();
    for object in &converted.objects {
        match kinds.iter_mut().find(|(kind, _)| *kind == object.kind) {
            Some((_, count)) => *count += 1,
            None => kinds.push((object.kind, 1)),
        }
    }
    let kinds = kinds.iter().map(|(kind, count)| match count {
        1 => format!("1 {kind}"),
        count => format!("{count} {}", several(kind)),
    });
    let kinds = kinds.collect::<Vec<_>>().join(", ");
    let to = output.map(|output| format!(" to {}", output.display()));
    let to = to.unwrap_or_default();
    match converted.warnings.len() {
        0 => format!("Wrote {kinds}{to}; nothing is lost."),
        1 => format!("Wrote {kinds}{to}; the warning says what is lost or becomes something else."),
        count => {
            format!(
                "Wrote {kinds}{to}; {count} warnings say what is lost or becomes something else."
            )
        }
    }
}

/// A kind of which there are several.
fn several(kind: &str) -> String {
    match kind.strip_suffix('y') {
        Some(stem) => format!("{stem}ies"),
        None if kind.ends_with('s') => format!("{kind}es"),
        None => format!("{kind}s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_output_is_a_folder_or_a_file_as_it_is_or_looks() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let at = |name: &str| dir.path().join(name);
        fs::create_dir(at("there.yaml")).expect("a folder");
        fs::write(at("file"), "").expect("a file");
        for (name, expected) in [
            ("there.yaml", true),
            ("file", false),
            ("app.yaml", false),
            ("app.yml", false),
            ("k8s", true),
            ("k8s.yaml/", true),
        ] {
            assert_eq!(is_folder(&at(name)), expected, "{name}");
        }
        for (name, is_fine) in [
            ("app.yaml", true),
            ("k8s", true),
            ("new/k8s", true),
            ("out.d/", true),
            ("file", true),
            ("out.txt", false),
            ("new/app.yaml", false),
        ] {
            assert_eq!(check(&at(name)).is_ok(), is_fine, "{name}");
        }
    }

    #[test]
    fn a_file_of_the_app_comes_along_and_a_key_or_the_machines_own_does_not() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let app = dir.path().join("app");
        fs::create_dir(&app).expect("a folder");
        let file = |path: PathBuf, text: &str, mode: u32| {
            fs::write(&path, text).expect("a file");
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).expect("its mode");
            path.display().to_string()
        };
        let own = file(app.join("site.conf"), "listen 80", 0o644);
        let hidden = file(app.join("token"), "t", 0o600);
        let key = file(app.join("tls.key"), "-----BEGIN PRIVATE KEY-----\n", 0o644);
        let machines = file(dir.path().join("hosts"), "::1", 0o644);
        let linked = app.join("linked.conf");
        std::os::unix::fs::symlink(dir.path().join("hosts"), &linked).expect("a link");
        let linked = linked.display().to_string();
        let folder = app.display().to_string();
        let missing = app.join("missing").display().to_string();
        let paths = [&own, &hidden, &key, &machines, &linked, &folder, &missing];
        let paths = paths.map(String::clone);
        let found = look(&app, &paths);
        assert_eq!(found.get(&own), Some(&Bound::File(b"listen 80".to_vec())));
        assert_eq!(found.get(&hidden), Some(&Bound::Private));
        assert_eq!(found.get(&key), Some(&Bound::Private));
        assert_eq!(found.get(&machines), Some(&Bound::Machine));
        assert_eq!(found.get(&linked), Some(&Bound::Machine));
        assert_eq!(found.get(&folder), Some(&Bound::Other));
        assert_eq!(found.get(&missing), None);
    }
}
