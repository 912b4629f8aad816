//! The span of time of a log's lines.

use layby_model::engine::LogQuery;

/// From when to when lines are wanted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Span {
    since_ms: Option<u64>,
    until_ms: Option<u64>,
}

impl Span {
    pub(crate) fn of(query: &LogQuery) -> Self {
        Self {
            since_ms: query.since_ms,
            until_ms: query.until_ms,
        }
    }

    /// Whether a line of this moment is in it.
    pub(crate) fn has(self, at_ms: u64) -> bool {
        self.since_ms.is_none_or(|since| at_ms >= since) && !self.is_over(at_ms)
    }

    /// Whether it is over at this moment.
    pub(crate) fn is_over(self, at_ms: u64) -> bool {
        self.until_ms.is_some_and(|until| at_ms >= until)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_span_begins_with_since_and_ends_before_until() {
        let span = Span {
            since_ms: Some(10),
            until_ms: Some(20),
        };
        let has: Vec<bool> = [9, 10, 19, 20].into_iter().map(|ms| span.has(ms)).collect();
        assert_eq!(has, [false, true, true, false]);
        assert!(Span::default().has(0) && !Span::default().is_over(u64::MAX));
    }
}
