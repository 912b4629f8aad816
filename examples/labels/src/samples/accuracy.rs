//! How well a text was recognised.

/// Character error rate: how many characters are to be inserted, deleted or replaced to make the truth of what was
/// recognised, for each character of the truth. Runs of white space count as one space, lines as no more.
pub fn character_error_rate(truth: &str, recognised: &str) -> f64 {
    let truth = flat(truth);
    let errors = strsim::levenshtein(&truth, &flat(recognised));
    errors as f64 / (truth.chars().count().max(1)) as f64
}

fn flat(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::character_error_rate;

    #[test]
    fn errors_are_counted_for_each_character_of_the_truth() {
        assert_eq!(character_error_rate("Total Fat 8g", "Total  Fat\n8g"), 0.0);
        assert_eq!(character_error_rate("abcd", "abxd"), 0.25);
        assert_eq!(character_error_rate("abcd", ""), 1.0);
        assert_eq!(character_error_rate("", ""), 0.0);
    }
}
