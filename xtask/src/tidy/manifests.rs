//! Rules for Cargo.toml.

use super::Finding;
use super::tree::SourceFile;

/// In every table of dependencies, the lines between two blank ones are sorted: two branches that
/// each add one then seldom meet in the same line.
pub(crate) fn dependencies_are_sorted(file: &SourceFile) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut inside = false;
    let mut last = "";
    for (number, line) in file.lines() {
        if line.starts_with('[') {
            inside = line.trim_end_matches(']').ends_with("dependencies");
            last = "";
        } else if line.is_empty() || line.starts_with('#') {
            last = "";
        } else if inside && let Some(name) = name(line) {
            if name < last {
                let message = format!("{name} comes before {last}: sort the dependencies");
                findings.push(Finding::new(&file.path, number, message));
            }
            last = name;
        }
    }
    findings
}

/// The dependency's name in a line that starts one; `None` in a line that goes on.
fn name(line: &str) -> Option<&str> {
    let name = line.split(['.', ' ', '=']).next()?;
    let first = name.chars().next()?;
    first.is_ascii_alphanumeric().then_some(name)
}

#[cfg(test)]
mod tests {
    use super::dependencies_are_sorted;
    use crate::tidy::tree::SourceFile;

    #[test]
    fn unsorted_dependencies_are_found_and_other_tables_are_left_alone() {
        let text = "[package]\nname = \"x\"\nedition = \"y\"\n\n\
                    [dependencies]\nb.workspace = true\nc = { features = [\n    \"a\",\n] }\n\
                    a = \"1\"\n\n# Others\na = \"1\"\n\
                    [dev-dependencies]\nz = \"1\"\ny = \"1\"\n";
        let file = SourceFile {
            path: "Cargo.toml".into(),
            text: text.into(),
        };
        let findings = dependencies_are_sorted(&file);
        let lines: Vec<usize> = findings.iter().map(|finding| finding.line).collect();
        assert_eq!(lines, [10, 16]);
        assert_eq!(
            findings[0].message,
            "a comes before c: sort the dependencies"
        );
    }
}
