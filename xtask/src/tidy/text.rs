//! Rules for every text file.

use super::Finding;
use super::tree::SourceFile;

/// Folders of the machines on which this is worked on. Put together here, so that this file keeps
/// its own rule.
const MACHINE_PATHS: [&str; 3] = [
    concat!("/wo", "rk/"),
    concat!("/tmp", "/t/"),
    concat!("/tmp", "/brief/"),
];

const LEFT_TO_FIX: &str = concat!("FIX", "ME");

/// Checks one file.
pub(crate) fn check(file: &SourceFile) -> Vec<Finding> {
    let mut findings = nothing_is_left_to_fix(file);
    findings.extend(no_machine_paths(file));
    findings
}

fn nothing_is_left_to_fix(file: &SourceFile) -> Vec<Finding> {
    file.lines()
        .filter(|(_, line)| line.contains(LEFT_TO_FIX))
        .map(|(number, _)| {
            let message = format!("{LEFT_TO_FIX} does not go to main: do it, or file an issue");
            Finding::new(&file.path, number, message)
        })
        .collect()
}

/// A path is one from the root if nothing of a path stands before it.
fn no_machine_paths(file: &SourceFile) -> Vec<Finding> {
    let is_absolute = |line: &str, path: &str| {
        line.match_indices(path).any(|(at, _)| {
            let before = line[..at].chars().next_back();
            before.is_none_or(|char| char.is_whitespace() || "\"'`=:(,".contains(char))
        })
    };
    let mut findings = Vec::new();
    for (number, line) in file.lines() {
        for path in MACHINE_PATHS {
            if is_absolute(line, path) {
                let message = format!("{path} is a path of one machine: use a relative one");
                findings.push(Finding::new(&file.path, number, message));
            }
        }
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::{LEFT_TO_FIX, MACHINE_PATHS, check};
    use crate::tidy::tree::SourceFile;

    fn lines(text: String) -> Vec<usize> {
        let path = "docs/page.md".to_owned();
        let findings = check(&SourceFile { path, text });
        findings.iter().map(|finding| finding.line).collect()
    }

    #[test]
    fn what_is_left_to_fix_is_found() {
        assert_eq!(lines(format!("good\n// {LEFT_TO_FIX}: later\n")), [2]);
    }

    #[test]
    fn paths_of_a_machine_are_found_and_others_are_not() {
        let path = MACHINE_PATHS[0];
        assert_eq!(
            lines(format!("see {path}notes\n\"{path}x\"\n{path}")),
            [1, 2, 3]
        );
        assert_eq!(lines(format!("bundle{path}upper {{bundle}}{path}")), [0; 0]);
    }
}
