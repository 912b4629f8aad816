//! `lifecycle` (`v1.Lifecycle`): one handler after the start, and one before the stop.

use layby_model::hook::Hook;
use layby_model::spec::ContainerSpec;

use crate::convert::App;
use crate::convert::tree::{Map, texts};
use crate::draft::Draft;
use crate::report::Report;

/// Writes it.
pub(super) fn lifecycle(
    app: &App<'_>,
    draft: &Draft,
    container: &ContainerSpec,
    report: &mut Report,
) -> Map {
    let mut handler = |key: &str, hooks: &[Hook]| handler(app, draft, key, hooks, report);
    let post_start = handler("post_start", &container.post_start);
    let pre_stop = handler("pre_stop", &container.pre_stop);
    Map::new()
        .put("postStart", post_start)
        .put("preStop", pre_stop)
}

/// One hook as it is; several, or one with variables or a folder of its own, as a line of the shell.
fn handler(app: &App<'_>, draft: &Draft, key: &str, hooks: &[Hook], report: &mut Report) -> Map {
    let mut lines = Vec::new();
    let mut alone = None;
    for hook in hooks {
        let Hook::Exec {
            command,
            user,
            env,
            working_dir,
            privileged,
        } = hook
        else {
            // Compose has no other ones.
            continue;
        };
        if user.is_some() || *privileged {
            let why = "runs as the container does: a handler has no user or privileges of its own";
            app.said.lost(draft, &[key], why, report);
        }
        if env.is_empty() && working_dir.is_none() && hooks.len() == 1 {
            alone = Some(command.clone());
        }
        let folder = working_dir
            .iter()
            .map(|path| format!("cd {} &&", quoted(path)));
        let variables = env
            .iter()
            .map(|(key, value)| format!("{key}={}", quoted(value)));
        let words = command.iter().map(|word| quoted(word));
        let line: Vec<String> = folder.chain(variables).chain(words).collect();
        lines.push(format!("({})", line.join(" ")));
    }
    let command = match (alone, &lines[..]) {
        (Some(command), _) => command,
        (None, []) => return Map::new(),
        (None, lines) => {
            let why = "becomes one line of /bin/sh, which the image must have";
            app.said.lost(draft, &[key], why, report);
            let line = lines.join(" && ");
            vec!["/bin/sh".to_owned(), "-c".to_owned(), line]
        }
    };
    let exec = Map::new().put("command", texts(command));
    Map::new().put("exec", exec)
}

/// A word as the shell reads it (POSIX, "Shell Command Language", 2.2).
pub(super) fn quoted(word: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "/._-=:,@%+".contains(c);
    match !word.is_empty() && word.chars().all(is_plain) {
        true => word.to_owned(),
        false => format!("'{}'", word.replace('\'', r"'\''")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_is_one_word_to_the_shell() {
        assert_eq!(quoted("a/b"), "a/b");
        assert_eq!(quoted(""), "''");
        assert_eq!(quoted("it's $1"), r"'it'\''s $1'");
    }
}
