//! `$(VAR)` in `env`, `command` and `args`, as the kubelet expands it.

use std::collections::BTreeMap;

use layby_model::mounts::MountSource;
use layby_model::secret::ValueSource;
use layby_model::spec::ContainerSpec;

/// What stands for the name of a pod of a StatefulSet, until it is known which pod: nothing that is meant says it.
pub(crate) const POD: &str = "\u{1}pod\u{1}";
/// The same for the name of the app.
pub(crate) const NAMESPACE: &str = "\u{1}namespace\u{1}";
/// The longest that a value may grow.
const MAX_BYTES: usize = 1 << 20;
/// The most parts that a value may come to.
const MAX_PARTS: usize = 1_000;

/// Variables, each put together of its parts.
pub(crate) type Variables = BTreeMap<String, Vec<ValueSource>>;

/// Fills in `$(VAR)` from `variables`. One that is not there is left as it is written; `$$` is `$`
/// (`v1.Container`, fields `command` and `args`). What would grow too long is left as it is, too.
pub(crate) fn parts(text: &str, variables: &Variables) -> Vec<ValueSource> {
    let mut expanded = Vec::new();
    let mut rest = text;
    while let Some(start) = rest.find('$') {
        push(&mut expanded, &rest[..start]);
        let after = &rest[start + 1..];
        if let Some(after) = after.strip_prefix('$') {
            push(&mut expanded, "$");
            rest = after;
        } else if let Some((name, after)) = after
            .strip_prefix('(')
            .and_then(|after| after.split_once(')'))
        {
            match variables.get(name) {
                Some(parts) => {
                    for part in parts {
                        match part {
                            ValueSource::Text(text) => push(&mut expanded, text),
                            other => expanded.push(other.clone()),
                        }
                    }
                    if length(&expanded) > MAX_BYTES || expanded.len() > MAX_PARTS {
                        return vec![ValueSource::Text(text.to_owned())];
                    }
                }
                None => push(&mut expanded, &format!("$({name})")),
            }
            rest = after;
        } else {
            push(&mut expanded, "$");
            rest = after;
        }
    }
    push(&mut expanded, rest);
    expanded
}

/// A word of a command. `Err`: the variable that it names is known only when a replica is made.
pub(crate) fn word(text: &str, variables: &Variables) -> Result<String, ()> {
    let mut all = String::new();
    for part in parts(text, variables) {
        match part {
            ValueSource::Text(text) => all.push_str(&text),
            ValueSource::Secret(_) | ValueSource::Replica(_) => return Err(()),
        }
    }
    Ok(all)
}

/// A `subPathExpr`. Each variable that it names has to be there (`v1.VolumeMount`), and known before a replica is.
pub(crate) fn path(text: &str, variables: &Variables) -> Result<String, String> {
    let escaped = text.replace("$$", "");
    let mut named = escaped.split("$(").skip(1);
    let is_there = |rest: &str| {
        let name = rest.split_once(')').map(|(name, _)| name);
        name.is_some_and(|name| variables.contains_key(name))
    };
    if !named.all(is_there) {
        return Err("a path of variables that the container has".to_owned());
    }
    let known = "a path of variables that are known before a replica is made";
    word(text, variables).map_err(|()| known.to_owned())
}

/// Puts `text` wherever `mark` stands for it.
pub(crate) fn tell(container: &mut ContainerSpec, mark: &str, text: &str) {
    let told = |known: &mut String| {
        if known.contains(mark) {
            *known = known.replace(mark, text);
        }
    };
    let part = |source: &mut ValueSource| match source {
        ValueSource::Text(text) => told(text),
        ValueSource::Secret(_) | ValueSource::Replica(_) => {}
    };
    container.env.values_mut().for_each(told);
    let composed = container.composed_env.values_mut();
    composed.flatten().for_each(part);
    let words = container
        .entrypoint
        .iter_mut()
        .chain(&mut container.command);
    words.flatten().for_each(told);
    for mount in &mut container.mounts {
        match &mut mount.source {
            MountSource::Files { files, .. } => {
                files.iter_mut().for_each(|file| part(&mut file.content));
            }
            MountSource::Volume { subpath, .. } => subpath.iter_mut().for_each(told),
            MountSource::Bind { path, .. } => told(path),
            MountSource::Scratch { .. } | MountSource::Tmpfs { .. } => {}
        }
    }
}

fn push(parts: &mut Vec<ValueSource>, text: &str) {
    match parts.last_mut() {
        _ if text.is_empty() => {}
        Some(ValueSource::Text(last)) => last.push_str(text),
        _ => parts.push(ValueSource::Text(text.to_owned())),
    }
}

fn length(parts: &[ValueSource]) -> usize {
    let length = |part: &ValueSource| match part {
        ValueSource::Text(text) => text.len(),
        ValueSource::Secret(_) | ValueSource::Replica(_) => 0,
    };
    parts.iter().map(length).sum()
}

#[cfg(test)]
mod tests {
    use layby_model::secret::SecretRef;

    use super::*;

    #[test]
    fn variables_are_expanded_as_the_kubelet_does() {
        let one = vec![ValueSource::Text("1".to_owned())];
        let variables = Variables::from([("A".to_owned(), one)]);
        let cases = [
            ("$(A)-$(A)", "1-1"),
            ("$(B)", "$(B)"),
            ("$$(A)", "$(A)"),
            ("$A $ $(", "$A $ $("),
            ("a", "a"),
        ];
        for (text, expected) in cases {
            assert_eq!(word(text, &variables), Ok(expected.to_owned()), "{text}");
        }
    }

    #[test]
    fn a_secret_is_a_part_of_a_value_and_of_no_command() {
        let secret = ValueSource::Secret(SecretRef::new("db/password"));
        let variables = Variables::from([("P".to_owned(), vec![secret.clone()])]);
        let text = |text: &str| ValueSource::Text(text.to_owned());
        let found = parts("pg://u:$(P)@db", &variables);
        assert_eq!(found, [text("pg://u:"), secret, text("@db")]);
        assert_eq!(word("--password=$(P)", &variables), Err(()));
    }
}
