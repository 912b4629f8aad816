//! Errors as text: what crosses a border of the model, or is shown to people, is one line.

/// An error with its causes in one line, each after a colon.
pub fn error_chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("the file could not be read")]
    struct Outer(#[source] std::io::Error);

    #[test]
    fn the_causes_follow_in_order() {
        let error = Outer(std::io::Error::other("no such file"));
        assert_eq!(
            error_chain(&error),
            "the file could not be read: no such file"
        );
    }
}
