//! Paths in Compose files of other folders: made relative to the folder of the file that names them.

use crate::tree::{Entry, Node, Value};

/// The folder of a file: what stands before its last `/`; empty for one beside the manifest.
pub(crate) fn folder(file: &str) -> &str {
    file.rsplit_once('/').map_or("", |(folder, _)| folder)
}

/// `path` as seen from where `folder` is seen, without `.` and what `..` takes back.
pub(crate) fn join(folder: &str, path: &str) -> String {
    if path.starts_with('/') {
        return path.to_owned();
    }
    let mut parts: Vec<&str> = Vec::new();
    for part in folder.split('/').chain(path.split('/')) {
        match (part, parts.last()) {
            ("" | ".", _) => {}
            ("..", Some(&last)) if last != ".." => {
                parts.pop();
            }
            (part, _) => parts.push(part),
        }
    }
    let rooted = if folder.starts_with('/') { "/" } else { "" };
    format!("{rooted}{}", parts.join("/"))
}

/// The way from the folder `from` to the folder `to`, both relative to the same one.
pub(crate) fn relative(from: &str, to: &str) -> String {
    if to.starts_with('/') {
        return to.to_owned();
    }
    let parts = |folder: &str| -> Vec<String> {
        let parts = folder.split('/').filter(|part| !part.is_empty());
        parts.map(str::to_owned).collect()
    };
    let (from, to) = (parts(from), parts(to));
    let same = from.iter().zip(&to).take_while(|(a, b)| a == b).count();
    let up = std::iter::repeat_n("..", from.len() - same);
    up.chain(to[same..].iter().map(String::as_str))
        .collect::<Vec<_>>()
        .join("/")
}

/// Moves the paths of a whole file into `folder`.
pub(crate) fn document(document: &mut Node, folder: &str) {
    for entry in entries(document) {
        match entry.key.as_str() {
            "services" => entries(&mut entry.value).for_each(|e| service(&mut e.value, folder)),
            "secrets" | "configs" => {
                for one in entries(&mut entry.value) {
                    each_key(&mut one.value, &["file"], |node| path(node, folder));
                }
            }
            "volumes" => {
                for one in entries(&mut entry.value) {
                    each_key(&mut one.value, &["driver_opts"], |options| {
                        each_key(options, &["device"], |node| dotted(node, folder));
                    });
                }
            }
            "include" => items(&mut entry.value, |item| match item.value {
                Value::Scalar { .. } => path(item, folder),
                _ => each_key(item, &["path", "project_directory", "env_file"], |node| {
                    items(node, |item| path(item, folder));
                }),
            }),
            _ => {}
        }
    }
}

/// Moves the paths of a service into `folder`.
pub(crate) fn service(service: &mut Node, folder: &str) {
    if folder.is_empty() {
        return;
    }
    for entry in entries(service) {
        match entry.key.as_str() {
            "build" => match entry.value.value {
                Value::Scalar { .. } => context(&mut entry.value, folder),
                _ => {
                    each_key(&mut entry.value, &["context"], |node| context(node, folder));
                    each_key(&mut entry.value, &["additional_contexts"], |contexts| {
                        entries(contexts).for_each(|e| dotted(&mut e.value, folder));
                        items(contexts, |item| after_equals(item, folder));
                    });
                }
            },
            "env_file" | "label_file" => items(&mut entry.value, |item| match item.value {
                Value::Scalar { .. } => path(item, folder),
                _ => each_key(item, &["path"], |node| path(node, folder)),
            }),
            "volumes" => items(&mut entry.value, |item| match item.value {
                Value::Scalar { .. } => dotted(item, folder),
                _ => each_key(item, &["source"], |node| dotted(node, folder)),
            }),
            "extends" => each_key(&mut entry.value, &["file"], |node| path(node, folder)),
            "develop" => each_key(&mut entry.value, &["watch"], |watch| {
                items(watch, |item| {
                    each_key(item, &["path"], |node| path(node, folder))
                });
            }),
            _ => {}
        }
    }
}

fn entries(node: &mut Node) -> impl Iterator<Item = &mut Entry> {
    match &mut node.value {
        Value::Map(entries) => entries.iter_mut(),
        Value::Null | Value::Scalar { .. } | Value::List(_) => [].iter_mut(),
    }
}

fn each_key(node: &mut Node, keys: &[&str], mut change: impl FnMut(&mut Node)) {
    entries(node)
        .filter(|entry| keys.contains(&entry.key.as_str()))
        .for_each(|entry| change(&mut entry.value));
}

/// The items of a list; a scalar stands for a list of it alone.
fn items(node: &mut Node, mut change: impl FnMut(&mut Node)) {
    match &mut node.value {
        Value::List(items) => items.iter_mut().for_each(change),
        Value::Scalar { .. } => change(node),
        Value::Null | Value::Map(_) => {}
    }
}

/// What is a path, whatever it looks like.
fn path(node: &mut Node, folder: &str) {
    change(node, |text| {
        match text.starts_with(['/', '~']) || text.is_empty() {
            true => None,
            false => Some(join(folder, text)),
        }
    });
}

/// What is a path where it begins with a dot, and a name otherwise.
fn dotted(node: &mut Node, folder: &str) {
    change(node, |text| dotted_text(text, folder));
}

fn dotted_text(text: &str, folder: &str) -> Option<String> {
    let (source, rest) = match text.split_once(':') {
        Some((source, rest)) => (source, format!(":{rest}")),
        None => (text, String::new()),
    };
    let moved = format!("{}{rest}", with_dot(join(folder, source)));
    source.starts_with('.').then_some(moved)
}

/// `NAME=PATH`.
fn after_equals(node: &mut Node, folder: &str) {
    change(node, |text| {
        let (name, path) = text.split_once('=')?;
        Some(format!("{name}={}", dotted_text(path, folder)?))
    });
}

/// A build context: a path, unless it is the address of something.
fn context(node: &mut Node, folder: &str) {
    change(node, |text| {
        let far = text.contains("://") || text.starts_with("git@");
        (!far && !text.starts_with(['/', '~'])).then(|| with_dot(join(folder, text)))
    });
}

/// A path that is known for one by how it begins.
fn with_dot(path: String) -> String {
    match path.starts_with(['.', '/']) {
        true => path,
        false => format!("./{path}"),
    }
}

fn change(node: &mut Node, moved: impl FnOnce(&str) -> Option<String>) {
    if let Value::Scalar { text, .. } = &mut node.value
        && let Some(moved) = moved(text)
    {
        *text = moved;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_joined_and_taken_apart() {
        for (folder, path, whole) in [
            ("", "a/b", "a/b"),
            ("x", "./b", "x/b"),
            ("x/y", "../b", "x/b"),
            ("x", "../../b", "../b"),
            ("../x", "b", "../x/b"),
            ("x", "/b", "/b"),
            ("/x", "../b", "/b"),
        ] {
            assert_eq!(join(folder, path), whole, "{folder} and {path}");
        }
        for (from, to, way) in [
            ("", "", ""),
            ("", "x/y", "x/y"),
            ("x", "y", "../y"),
            ("x/y", "x", ".."),
        ] {
            assert_eq!(relative(from, to), way, "from {from} to {to}");
        }
        assert_eq!(folder("a/b.yaml"), "a");
        assert_eq!(folder("b.yaml"), "");
    }
}
