//! The licences of everything that is built: an exact list, so that a new one is a decision.

use super::Finding;
use super::graph::Graph;

/// SPDX identifiers that may be relied on. None of the GPL family is here.
const ALLOWED: [&str; 16] = [
    "0BSD",
    "Apache-2.0",
    "Apache-2.0 WITH LLVM-exception",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "BSL-1.0",
    "CC0-1.0",
    // Of data, not of code: Mozilla's list of certificate authorities.
    "CDLA-Permissive-2.0",
    "ISC",
    "MIT",
    "MIT-0",
    "MPL-2.0",
    "Unicode-3.0",
    "Unlicense",
    "Zlib",
    // Like BSD's with four clauses, but without the one about advertising.
    "bzip2-1.0.6",
];

/// Packages that bring a licence's text and not its name: package, version, and what the text is.
/// Read it anew for another version.
const READ: [(&str, &str, &str); 1] = [("rust-criu", "0.6.1", "MIT")];

/// Checks the licence of every package.
pub(crate) fn check(graph: &Graph) -> Vec<Finding> {
    let mut findings = Vec::new();
    for package in &graph.packages {
        let of = format!("{} {}", package.name, package.version);
        let read = READ
            .iter()
            .find(|(name, version, _)| *name == package.name && *version == package.version)
            .map(|(_, _, licence)| *licence);
        let message = match package.license.as_deref().or(read) {
            None => format!(
                "{of} names no licence: read its text and note it in \
                 xtask/src/tidy/licences.rs, or use another crate"
            ),
            Some(expression) if is_allowed(expression) => continue,
            Some(expression) => format!(
                "{of} is under {expression}, which is not in the list of \
                 xtask/src/tidy/licences.rs: use another crate, or decide to add it"
            ),
        };
        findings.push(Finding::new("Cargo.lock", 1, message));
    }
    findings
}

/// Whether an SPDX expression can be met with licences of the list. Also reads the old form with a
/// slash, which means "or". What cannot be read is not allowed.
fn is_allowed(expression: &str) -> bool {
    let spaced = expression
        .replace('/', " OR ")
        .replace('(', " ( ")
        .replace(')', " ) ");
    let mut words = spaced.split_whitespace().peekable();
    let met = either(&mut words);
    met == Some(true) && words.next().is_none()
}

type Words<'a> = std::iter::Peekable<std::str::SplitWhitespace<'a>>;

fn either(words: &mut Words<'_>) -> Option<bool> {
    let mut met = both(words)?;
    while words.next_if_eq(&"OR").is_some() {
        met |= both(words)?;
    }
    Some(met)
}

fn both(words: &mut Words<'_>) -> Option<bool> {
    let mut met = one(words)?;
    while words.next_if_eq(&"AND").is_some() {
        met &= one(words)?;
    }
    Some(met)
}

fn one(words: &mut Words<'_>) -> Option<bool> {
    let word = words.next()?;
    if word == "(" {
        let met = either(words)?;
        return words.next_if_eq(&")").map(|_| met);
    }
    let mut licence = word.to_owned();
    if words.next_if_eq(&"WITH").is_some() {
        licence = format!("{word} WITH {}", words.next()?);
    }
    Some(ALLOWED.contains(&licence.as_str()))
}

#[cfg(test)]
mod tests {
    use super::{check, is_allowed};
    use crate::tidy::graph::tests::graph;

    #[test]
    fn expressions_are_met_by_one_alternative_and_by_all_parts_of_it() {
        for good in [
            "MIT",
            "MIT/Apache-2.0",
            "GPL-3.0-only OR MIT",
            "MIT AND (GPL-2.0-only OR Zlib)",
            "(MIT OR Apache-2.0) AND Unicode-3.0",
            "Apache-2.0 WITH LLVM-exception",
        ] {
            assert!(is_allowed(good), "{good}");
        }
        for bad in [
            "GPL-3.0-only",
            "AGPL-3.0-only OR GPL-3.0-only",
            "MIT AND GPL-3.0-only",
            "MIT WITH Something",
            "(MIT",
            "MIT MIT",
            "",
        ] {
            assert!(!is_allowed(bad), "{bad}");
        }
    }

    #[test]
    fn a_package_without_an_allowed_licence_is_found() {
        let mut graph = graph(&["a"], &[("a", "b"), ("a", "c")]);
        graph.packages[1].license = Some("AGPL-3.0-only".into());
        graph.packages[2].license = None;
        let found: Vec<String> = check(&graph).iter().map(ToString::to_string).collect();
        assert_eq!(found.len(), 2);
        assert!(
            found[0].contains("b 1.0.0 is under AGPL-3.0-only"),
            "{found:?}"
        );
        assert!(found[1].contains("c 1.0.0 names no licence"), "{found:?}");
    }
}
