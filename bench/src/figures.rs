//! Figures out of repeated measurements: medians, since these are what is promised.

use std::time::Duration;

/// Repeated measurements of one thing.
#[derive(Debug, Default, Clone)]
pub(crate) struct Samples(Vec<f64>);

impl Samples {
    /// Adds a duration, kept in milliseconds.
    pub(crate) fn push(&mut self, sample: Duration) {
        self.0.push(sample.as_secs_f64() * 1e3);
    }

    /// Adds those of `other`.
    pub(crate) fn extend(&mut self, other: &Self) {
        self.0.extend(&other.0);
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    /// The median in milliseconds; NaN of nothing.
    pub(crate) fn median(&self) -> f64 {
        self.quantile(0.5)
    }

    /// The value below which the share `q` of them lies.
    pub(crate) fn quantile(&self, q: f64) -> f64 {
        let mut sorted = self.0.clone();
        sorted.sort_by(f64::total_cmp);
        let last = sorted.len().saturating_sub(1) as f64;
        sorted
            .get((last * q).round() as usize)
            .copied()
            .unwrap_or(f64::NAN)
    }
}

/// Prints a line of the table: what, what was measured, what is promised, and whether that is kept.
pub(crate) fn line(what: &str, measured: f64, unit: &str, at_most: f64) {
    let verdict = if measured <= at_most { "ok" } else { "MISSED" };
    println!("{what:<58} {measured:>9.2} {unit:<4} at most {at_most:>6} {verdict}");
}

/// The same where more is better.
pub(crate) fn line_at_least(what: &str, measured: f64, unit: &str, at_least: f64) {
    let verdict = if measured >= at_least { "ok" } else { "MISSED" };
    println!("{what:<58} {measured:>9.2} {unit:<4} at least {at_least:>5} {verdict}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_the_middle() {
        let mut samples = Samples::default();
        for ms in [5, 1, 3] {
            samples.push(Duration::from_millis(ms));
        }
        assert_eq!(
            (samples.median(), samples.quantile(0.0), samples.len()),
            (3.0, 1.0, 3)
        );
        assert!(Samples::default().median().is_nan());
    }
}
