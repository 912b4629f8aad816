//! Reads what a test binary prints, line by line, as the test harness of Rust prints it. Tests
//! without that harness print the same lines: `test NAME ... ok` and `test result: ...`.

use std::collections::BTreeSet;

/// What has been read so far.
#[derive(Debug, Default)]
pub(crate) struct Output {
    passed: usize,
    ignored: usize,
    failed: BTreeSet<String>,
    /// Passed tests that said `SKIPPED:`, by name.
    skipped: BTreeSet<String>,
    /// All `SKIPPED:` lines outside of a test: what was left out stands in no other count.
    left_out: usize,
    reasons: Vec<String>,
    /// The sums of all `test result:` lines: passed, ignored.
    results: Option<(usize, usize)>,
    section: Section,
}

/// Which part of the output a line belongs to. With `--show-output` the harness shows, after the
/// tests, what the passed ones printed, then what the failed ones did.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
enum Section {
    #[default]
    Tests,
    /// What the named passed test printed; the name is empty between two of them.
    Passed(String),
    Failed,
}

/// The counts in the end.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Counts {
    /// How many passed and were not skipped.
    pub(crate) passed: usize,
    /// How many said `SKIPPED:` or are ignored.
    pub(crate) skipped: usize,
    /// Why, for those that said so.
    pub(crate) reasons: Vec<String>,
    /// The names of those that failed.
    pub(crate) failed: Vec<String>,
}

impl Output {
    /// Takes one line, and says whether it is worth showing: what passed tests printed is not.
    pub(crate) fn take(&mut self, line: &str) -> bool {
        // A passed test may itself have run tests, and shown their result.
        let is_shown = matches!(&self.section, Section::Passed(test) if !test.is_empty());
        if line.starts_with("test result: ") && !is_shown {
            self.section = Section::Tests;
            self.take_result(line);
            return true;
        }
        match (line, &mut self.section) {
            ("successes:", _) => {
                self.section = Section::Passed(String::new());
                return false;
            }
            ("failures:", _) => self.section = Section::Failed,
            (_, Section::Tests) => {
                self.take_test(line);
                if let Some(reason) = skipped(line) {
                    self.left_out += 1;
                    self.reasons.push(reason.to_owned());
                }
            }
            (_, Section::Passed(test)) => {
                if let Some(name) = shown_test(line) {
                    *test = name.to_owned();
                } else if let Some(reason) = skipped(line) {
                    self.reasons.push(format!("{test}: {reason}"));
                    self.skipped.insert(test.clone());
                    return true;
                }
                return false;
            }
            (_, Section::Failed) => {}
        }
        true
    }

    /// What it came to. A binary that failed without naming a test, or ended (well, even) before it
    /// said its result, is itself what failed.
    pub(crate) fn counts(mut self, good_exit: bool) -> Counts {
        if self.failed.is_empty() && (self.results.is_none() || !good_exit) {
            self.failed.insert("(the test binary itself)".to_owned());
        }
        let (passed, ignored) = self.results.unwrap_or((self.passed, self.ignored));
        let skipped = self.skipped.len().min(passed);
        Counts {
            passed: passed - skipped,
            skipped: skipped + self.left_out + ignored,
            reasons: self.reasons,
            failed: self.failed.into_iter().collect(),
        }
    }

    /// `test NAME ... ok`, and the like.
    fn take_test(&mut self, line: &str) {
        let Some((name, verdict)) = line
            .strip_prefix("test ")
            .and_then(|rest| rest.rsplit_once(" ... "))
        else {
            return;
        };
        match verdict.split([' ', ',', '<']).next() {
            Some("ok") => self.passed += 1,
            Some("ignored") => self.ignored += 1,
            Some("FAILED") => {
                self.failed.insert(name.to_owned());
            }
            _ => {}
        }
    }

    /// `test result: ok. 3 passed; 0 failed; 1 ignored; ...`; doctests print one for each crate.
    fn take_result(&mut self, line: &str) {
        let count = |word: &str| {
            let before = line.split(word).next().unwrap_or_default();
            let number = before.rsplit([' ', '.', ';']).next().unwrap_or_default();
            number.parse().unwrap_or(0)
        };
        let (passed, ignored) = self.results.unwrap_or_default();
        self.results = Some((passed + count(" passed"), ignored + count(" ignored")));
    }
}

/// The reason of a `SKIPPED: reason` line.
fn skipped(line: &str) -> Option<&str> {
    line.trim_start().strip_prefix("SKIPPED: ")
}

/// The name in `---- NAME stdout ----`, the head of what a test printed.
fn shown_test(line: &str) -> Option<&str> {
    line.strip_prefix("---- ")?.strip_suffix(" stdout ----")
}

#[cfg(test)]
mod tests {
    use super::{Counts, Output};

    fn read(text: &str, good_exit: bool) -> (Counts, Vec<&str>) {
        let mut output = Output::default();
        let shown = text.lines().filter(|line| output.take(line)).collect();
        (output.counts(good_exit), shown)
    }

    #[test]
    fn passed_failed_and_ignored_tests_are_counted_and_named() {
        let (counts, _) = read(
            "running 4 tests\n\
             test one::is_good ... ok\n\
             test two::is_bad ... FAILED\n\
             test three ... ignored, takes an hour\n\
             test four - should panic ... ok\n\
             failures:\n\
             ---- two::is_bad stdout ----\n\
             assertion failed; SKIPPED: is only a word here\n\
             failures:\n    two::is_bad\n\
             test result: FAILED. 2 passed; 1 failed; 1 ignored; 0 measured; 0 filtered out\n",
            false,
        );
        let expected = Counts {
            passed: 2,
            skipped: 1,
            reasons: Vec::new(),
            failed: vec!["two::is_bad".into()],
        };
        assert_eq!(counts, expected);
    }

    #[test]
    fn a_passed_test_that_says_skipped_counts_as_skipped_and_only_that_line_is_shown() {
        let (counts, shown) = read(
            "test a ... ok\ntest b ... ok\n\
             successes:\n\
             ---- a stdout ----\nchatter\nSKIPPED: not root\nSKIPPED: no nft\n\
             ---- b stdout ----\nmore chatter\ntest result: ok. 9 passed; 9 failed\n\
             successes:\n    a\n    b\n\
             test result: ok. 2 passed; 0 failed; 0 ignored; 0 measured\n",
            true,
        );
        assert_eq!((counts.passed, counts.skipped), (1, 1));
        assert_eq!(counts.reasons, ["a: not root", "a: no nft"]);
        assert_eq!(shown[2..4], ["SKIPPED: not root", "SKIPPED: no nft"]);
        assert_eq!(shown.len(), 5, "{shown:?}");
    }

    #[test]
    fn what_is_left_out_as_a_whole_is_skipped_beside_those_that_passed() {
        let (counts, _) = read(
            "test fake::a ... ok\nSKIPPED: the embedded engine: not root\n\
             test result: ok. 1 passed; 0 failed; 0 ignored\n",
            true,
        );
        assert_eq!((counts.passed, counts.skipped), (1, 1));
        assert_eq!(counts.reasons, ["the embedded engine: not root"]);
    }

    #[test]
    fn a_binary_that_ends_without_a_result_has_failed_itself() {
        let (counts, _) = read(
            "test a ... ok\nthread 'main' has overflowed its stack\n",
            false,
        );
        assert_eq!(counts.passed, 1);
        assert_eq!(counts.failed, ["(the test binary itself)"]);
    }

    #[test]
    fn a_binary_that_fails_after_a_good_result_has_failed_itself() {
        let text = "test a ... ok\ntest result: ok. 1 passed; 0 failed; 0 ignored\n";
        let (counts, _) = read(text, false);
        assert_eq!(counts.failed, ["(the test binary itself)"]);
        assert_eq!(read(text, true).0.failed, [""; 0]);
        // A test that ends the whole process, however well, hides those behind it.
        assert_eq!(read("test a ... ok\n", true).0.failed.len(), 1);
    }

    #[test]
    fn the_results_of_several_crates_are_added() {
        let (counts, _) = read(
            "test result: ok. 2 passed; 0 failed; 0 ignored\n\
             test result: ok. 3 passed; 0 failed; 1 ignored\n",
            true,
        );
        assert_eq!((counts.passed, counts.skipped), (5, 1));
    }
}
