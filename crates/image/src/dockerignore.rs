//! Which files of a build context are left out (docs.docker.com, build context, .dockerignore files).

use crate::glob::Pattern;

/// A parsed `.dockerignore`. The last rule that matches a path, or a directory that it lies in, decides.
#[derive(Debug, Clone, Default)]
pub struct Ignore {
    text: String,
    rules: Vec<Rule>,
}

#[derive(Debug, Clone)]
struct Rule {
    /// `!pattern`: keeps what it matches.
    keeps: bool,
    pattern: Pattern,
}

impl Ignore {
    /// Parses the file's text. Comments, empty lines and lines that are no pattern are left out.
    pub fn parse(text: &str) -> Self {
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        let rules = text.lines().filter_map(|line| {
            if line.starts_with('#') {
                return None;
            }
            rule(line)
        });
        Self {
            rules: rules.collect(),
            text: text.to_owned(),
        }
    }

    /// What it was parsed from.
    pub(crate) fn text(&self) -> &str {
        &self.text
    }

    /// The same of single patterns, as `--exclude` gives them.
    pub(crate) fn of_patterns(patterns: &[String]) -> Self {
        Self {
            rules: patterns.iter().filter_map(|text| rule(text)).collect(),
            text: patterns.join("\n"),
        }
    }

    /// Whether nothing is left out.
    pub(crate) fn is_empty(&self) -> bool {
        self.rules.is_empty()
    }

    /// Whether the path (relative to the context, with `/`) is left out.
    ///
    /// For a directory this means that nothing below it can be kept, so that it need not be entered: where a
    /// `!` rule may bring something back the answer is no, and [`Ignore::leaves_out`] has the rule's word.
    pub fn excludes(&self, path: &str, is_dir: bool) -> bool {
        self.leaves_out(path) && !(is_dir && self.rules.iter().any(|rule| rule.keeps))
    }

    /// Whether the rules leave out this very path, file or directory.
    pub fn leaves_out(&self, path: &str) -> bool {
        let mut left_out = false;
        for rule in &self.rules {
            // A rule that would change nothing need not be matched.
            if rule.keeps == left_out && with_parents(path).any(|path| rule.pattern.matches(path)) {
                left_out = !rule.keeps;
            }
        }
        left_out
    }
}

fn rule(line: &str) -> Option<Rule> {
    let line = line.trim();
    let (keeps, line) = match line.strip_prefix('!') {
        Some(rest) => (true, rest.trim()),
        None => (false, line),
    };
    let cleaned = clean(line);
    let pattern = Pattern::parse(&cleaned).filter(|_| !cleaned.is_empty())?;
    Some(Rule { keeps, pattern })
}

/// The path and each directory that it lies in.
fn with_parents(path: &str) -> impl Iterator<Item = &str> {
    std::iter::successors(Some(path), |path| {
        path.rsplit_once('/').map(|(parent, _)| parent)
    })
}

/// Go's `filepath.Clean`, without a leading `/`: `./a//b/../c/` is `a/c`.
fn clean(text: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in text.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop();
            }
            part => parts.push(part),
        }
    }
    parts.join("/")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_left_out_by_dockers_rules() {
        for (text, out, kept) in [
            ("", &[][..], &["a"][..]),
            ("# a\n\n \nb", &["b"], &["a", "# a"]),
            (
                "target",
                &["target", "target/debug/x"],
                &["src/target", "targets"],
            ),
            ("target/", &["target", "target/x"], &["x"]),
            ("/target", &["target"], &["a/target"]),
            ("./a//b/../c", &["a/c"], &["a/b"]),
            (
                "*/temp*",
                &["a/temporary.txt", "a/temp/x"],
                &["temp", "a/b/temp"],
            ),
            ("**/*.go", &["a.go", "d/e/a.go"], &["a.rs"]),
            ("*.md\n!README.md", &["x.md"], &["README.md", "d/x.md"]),
            (
                "*.md\n!README*.md\nREADME-secret.md",
                &["README-secret.md"],
                &["README-x.md"],
            ),
            ("!README.md\n*.md", &["README.md"], &["x"]),
            (
                "node_modules\n!node_modules/keep",
                &["node_modules/a"],
                &["node_modules/keep/x"],
            ),
            ("*\n!src", &["a", "b/c"], &["src", "src/main.rs"]),
            (" spaced \n! spaced/x", &["spaced"], &["spaced/x"]),
            ("\u{feff}bom", &["bom"], &[]),
            ("[broken\nfine", &["fine"], &["[broken"]),
            (".", &[], &["a", "."]),
            ("**", &["a", "a/b"], &[]),
        ] {
            let ignore = Ignore::parse(text);
            for path in out {
                assert!(ignore.excludes(path, false), "{text:?} leaves out {path}");
            }
            for path in kept {
                assert!(!ignore.excludes(path, false), "{text:?} keeps {path}");
            }
        }
    }

    #[test]
    fn a_directory_is_entered_when_something_below_may_be_kept() {
        assert!(Ignore::parse("a").excludes("a", true));
        let ignore = Ignore::parse("a\n!a/b");
        assert!(!ignore.excludes("a", true));
        assert!(ignore.leaves_out("a"));
    }
}
