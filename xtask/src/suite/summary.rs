//! What came of the checks and tests, added up, and told at the end.

use std::fmt::Write;
use std::time::Duration;

/// A test or check that failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Failure {
    /// `package/target: test name`, or the check's name.
    pub(crate) name: String,
    /// Where to see it: a log file, or the reason itself.
    pub(crate) see: String,
}

/// What came of one check or one test binary.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(crate) struct Outcome {
    /// How many passed.
    pub(crate) passed: usize,
    /// How many were skipped or ignored.
    pub(crate) skipped: usize,
    /// Which were skipped and why, for those that said so.
    pub(crate) reasons: Vec<String>,
    /// Those that failed.
    pub(crate) failed: Vec<Failure>,
    /// The names of those that failed first and passed when run again.
    pub(crate) flaky: Vec<String>,
}

impl Outcome {
    /// A check counts as one test.
    pub(crate) fn of_check(name: &str, failure: Option<String>) -> Outcome {
        let mut outcome = Outcome::default();
        match failure {
            None => outcome.passed = 1,
            Some(see) => outcome.failed.push(Failure {
                name: name.to_owned(),
                see,
            }),
        }
        outcome
    }
}

/// All outcomes together.
#[derive(Debug, Default)]
pub(crate) struct Summary {
    total: Outcome,
}

impl Summary {
    /// Adds one outcome.
    pub(crate) fn add(&mut self, outcome: Outcome) {
        self.total.passed += outcome.passed;
        self.total.skipped += outcome.skipped;
        self.total.reasons.extend(outcome.reasons);
        self.total.failed.extend(outcome.failed);
        self.total.flaky.extend(outcome.flaky);
    }

    /// Whether nothing failed.
    pub(crate) fn is_good(&self) -> bool {
        self.total.failed.is_empty()
    }

    /// The summary; its last line is `N passed, N failed`, with `, N skipped` if any was.
    pub(crate) fn text(&self, took: Duration) -> String {
        let Outcome {
            passed,
            skipped,
            reasons,
            failed,
            flaky,
        } = &self.total;
        let mut text = String::new();
        for reason in reasons {
            let _ = writeln!(text, "skipped: {reason}");
        }
        for Failure { name, see } in failed {
            let _ = writeln!(text, "failed: {name} (see {see})");
        }
        for name in flaky {
            let _ = writeln!(text, "flaky: {name} passed on its second run");
        }
        let seconds = took.as_secs();
        let _ = writeln!(text, "took {} min {} s", seconds / 60, seconds % 60);
        let _ = write!(text, "{passed} passed, {} failed", failed.len());
        if *skipped > 0 {
            let _ = write!(text, ", {skipped} skipped");
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{Failure, Outcome, Summary};

    #[test]
    fn the_last_line_tells_the_counts_and_the_lines_before_it_what_failed() {
        let mut summary = Summary::default();
        summary.add(Outcome::of_check("format", None));
        summary.add(Outcome {
            passed: 3,
            skipped: 2,
            reasons: vec!["image/layers: not root".into()],
            failed: vec![Failure {
                name: "model/sim: it settles".into(),
                see: "target/test-logs/model-sim.log".into(),
            }],
            flaky: vec!["net/lib: it is up".into()],
        });
        assert!(!summary.is_good());
        let expected = "skipped: image/layers: not root\n\
                        failed: model/sim: it settles (see target/test-logs/model-sim.log)\n\
                        flaky: net/lib: it is up passed on its second run\n\
                        took 2 min 5 s\n\
                        4 passed, 1 failed, 2 skipped";
        assert_eq!(summary.text(Duration::from_secs(125)), expected);
    }

    #[test]
    fn without_skipped_ones_the_last_line_does_not_name_them() {
        let mut summary = Summary::default();
        summary.add(Outcome::of_check("tidy", None));
        assert!(summary.is_good());
        assert!(summary.text(Duration::ZERO).ends_with("1 passed, 0 failed"));
    }
}
