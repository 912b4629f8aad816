//! Rules for Rust sources.

use super::Finding;
use super::tree::SourceFile;

/// The most lines of a file.
const LINES_MAX: usize = 800;

/// Files that were longer when the rule came, and how long they may be. It only shrinks.
const LONG_FILES: [(&str, usize); 0] = [];

/// Files that must stay small, because they only wire: path and the most lines.
const SMALL_FILES: [(&str, usize); 2] = [
    ("crates/layby/src/main.rs", 59),
    ("crates/layby/src/serve.rs", 249),
];

/// The one crate with `unsafe` in it.
const UNSAFE_CRATE: &str = "crates/runtime/";

/// The one crate that must not look at a clock: there, time is an argument.
const CLOCKLESS: &str = "crates/model/src/";

/// Checks one file.
pub(crate) fn check(file: &SourceFile) -> Vec<Finding> {
    let mut findings = opens_with_its_purpose(file);
    findings.extend(is_not_too_long(file, &LONG_FILES));
    findings.extend(no_leftovers(file));
    findings.extend(exceptions_have_reasons(file));
    findings.extend(unsafe_stays_in_its_crate(file));
    findings.extend(the_model_has_no_clock(file));
    findings
}

fn opens_with_its_purpose(file: &SourceFile) -> Vec<Finding> {
    if file.text.starts_with("//! ") {
        return Vec::new();
    }
    let message = "the first line must be `//! ` and what the module is for";
    vec![Finding::new(&file.path, 1, message)]
}

fn is_not_too_long(file: &SourceFile, exceptions: &[(&str, usize)]) -> Vec<Finding> {
    let lines = file.text.lines().count();
    let own = SMALL_FILES.iter().chain(exceptions);
    let own = own.clone().find(|(path, _)| *path == file.path);
    let most = own.map_or(LINES_MAX, |(_, most)| *most);
    if lines <= most {
        return Vec::new();
    }
    let message = format!("{lines} lines, at most {most}: split it, one noun to a file");
    vec![Finding::new(&file.path, most + 1, message)]
}

/// An exception that is larger than its file, or whose file is gone, has to go, too.
pub(crate) fn exceptions_shrink(files: &[SourceFile]) -> Vec<Finding> {
    shrink(files, &LONG_FILES)
}

fn shrink(files: &[SourceFile], exceptions: &[(&str, usize)]) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (path, most) in exceptions {
        let file = files.iter().find(|file| file.path == *path);
        let lines = file.map_or(0, |file| file.text.lines().count());
        if lines < *most {
            let message = format!("has {lines} lines now: lower its exception of {most}");
            findings.push(Finding::new(path, 1, message));
        }
    }
    findings
}

fn no_leftovers(file: &SourceFile) -> Vec<Finding> {
    let macros = [
        concat!("to", "do!("),
        concat!("db", "g!("),
        concat!("unimpl", "emented!("),
    ];
    let mut findings = Vec::new();
    for (number, line) in file.lines() {
        for name in macros.iter().filter(|name| code(line).contains(*name)) {
            let message = format!("`{name}...)` does not go to main: finish it or take it out");
            findings.push(Finding::new(&file.path, number, message));
        }
    }
    findings
}

/// `#[allow(...)]` and `#[expect(...)]`, over several lines too, must hold a `reason = "..."`.
fn exceptions_have_reasons(file: &SourceFile) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (number, line) in file.lines() {
        let trimmed = line.trim_start();
        let opens = ["#[allow(", "#![allow(", "#[expect(", "#![expect("];
        if !opens.iter().any(|open| trimmed.starts_with(open)) {
            continue;
        }
        let mut attribute = String::new();
        for part in file.text.lines().skip(number - 1) {
            attribute.push_str(part);
            if part.contains(")]") {
                break;
            }
        }
        if !attribute.contains("reason = \"") {
            let message = "say why: add `reason = \"...\"`, or better, follow the lint";
            findings.push(Finding::new(&file.path, number, message));
        }
    }
    findings
}

fn unsafe_stays_in_its_crate(file: &SourceFile) -> Vec<Finding> {
    if file.path.starts_with(UNSAFE_CRATE) {
        return Vec::new();
    }
    let word = concat!("un", "safe");
    let forms = ["{", "fn ", "impl ", "trait ", "extern "];
    let forms = forms.map(|form| format!("{word} {form}"));
    file.lines()
        .filter(|(_, line)| forms.iter().any(|form| code(line).contains(form.as_str())))
        .map(|(number, _)| {
            let message = format!("`{word}` is kept in {UNSAFE_CRATE}: put the call there");
            Finding::new(&file.path, number, message)
        })
        .collect()
}

fn the_model_has_no_clock(file: &SourceFile) -> Vec<Finding> {
    let clocks = ["Instant::now", "SystemTime::now", "thread_rng", "rand::"];
    let mut findings = Vec::new();
    if file.path.starts_with(CLOCKLESS) {
        for (number, line) in file.lines() {
            for clock in clocks.iter().filter(|clock| code(line).contains(**clock)) {
                let message = format!("`{clock}` in the model: take time and chance as arguments");
                findings.push(Finding::new(&file.path, number, message));
            }
        }
    }
    findings
}

/// A line without its comment. A `//` inside of a string cuts too much off, which hides no code
/// that these rules look for.
fn code(line: &str) -> &str {
    line.split("//").next().unwrap_or(line)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(path: &str, text: impl Into<String>) -> SourceFile {
        SourceFile {
            path: path.into(),
            text: text.into(),
        }
    }

    fn lines(findings: Vec<Finding>) -> Vec<usize> {
        findings.iter().map(|finding| finding.line).collect()
    }

    #[test]
    fn a_module_without_its_purpose_is_found() {
        let good = file("a.rs", "//! Names.\n");
        assert_eq!(opens_with_its_purpose(&good), []);
        assert_eq!(
            lines(opens_with_its_purpose(&file("a.rs", "use x;\n"))),
            [1]
        );
    }

    #[test]
    fn a_long_file_is_found_unless_it_is_an_exception() {
        let long = file("a.rs", "x\n".repeat(801));
        assert_eq!(lines(is_not_too_long(&long, &[])), [801]);
        assert_eq!(is_not_too_long(&long, &[("a.rs", 801)]), []);
        let wiring = file("crates/layby/src/main.rs", "x\n".repeat(60));
        assert_eq!(lines(is_not_too_long(&wiring, &[])), [60]);
    }

    #[test]
    fn an_exception_must_shrink_with_its_file() {
        let files = [file("a.rs", "x\n".repeat(900))];
        assert_eq!(shrink(&files, &[("a.rs", 900)]), []);
        assert_eq!(shrink(&files, &[("a.rs", 950)]).len(), 1);
        assert_eq!(shrink(&files, &[("gone.rs", 900)]).len(), 1);
    }

    #[test]
    fn leftovers_are_found_in_code_and_not_in_comments() {
        let text = format!("{0}x);\n// {0}x)\n", concat!("db", "g!("));
        assert_eq!(lines(no_leftovers(&file("a.rs", text))), [1]);
    }

    #[test]
    fn a_silenced_lint_without_reason_is_found() {
        let text =
            "#[allow(dead_code)]\n#[expect(\n  unused,\n  reason = \"later\"\n)]\n#[derive(A)]";
        assert_eq!(lines(exceptions_have_reasons(&file("a.rs", text))), [1]);
    }

    #[test]
    fn unsafe_code_outside_of_its_crate_is_found() {
        let text = format!("let a = {} {{ b() }};\n", concat!("un", "safe"));
        let outside = file("crates/net/src/a.rs", text.clone());
        assert_eq!(lines(unsafe_stays_in_its_crate(&outside)), [1]);
        let inside = file("crates/runtime/src/a.rs", text);
        assert_eq!(unsafe_stays_in_its_crate(&inside), []);
    }

    #[test]
    fn a_clock_in_the_model_is_found() {
        let text = "let now = Instant::now(); // Instant::now\n";
        let model = file("crates/model/src/plan.rs", text);
        assert_eq!(lines(the_model_has_no_clock(&model)), [1]);
        assert_eq!(
            the_model_has_no_clock(&file("crates/net/src/a.rs", text)),
            []
        );
    }
}
