//! Splits a command line into words as Compose does for `command: some text`.

/// A command line, split.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Split {
    pub(crate) words: Vec<String>,
    /// The first unquoted word that only a shell would understand, such as `&&`.
    pub(crate) operator: Option<String>,
}

/// Splits by the quoting rules of POSIX (Shell Command Language, section 2.2). No expansion is done:
/// no shell reads the line.
///
/// # Errors
/// If a quote is not closed, or the line ends with a backslash: says which.
pub(crate) fn split(line: &str) -> Result<Split, String> {
    let mut words = Vec::new();
    let mut operator = None;
    let mut word: Option<String> = None;
    let mut quoted = false;
    let mut chars = line.chars();
    while let Some(c) = chars.next() {
        match c {
            c if c.is_whitespace() => {
                if let Some(done) = word.take() {
                    note_operator(&done, quoted, &mut operator);
                    words.push(done);
                }
                quoted = false;
            }
            '\'' => {
                quoted = true;
                let text = word.get_or_insert_default();
                loop {
                    match chars.next() {
                        Some('\'') => break,
                        Some(c) => text.push(c),
                        None => return Err("the quote ' is not closed".to_owned()),
                    }
                }
            }
            '"' => {
                quoted = true;
                let text = word.get_or_insert_default();
                loop {
                    match chars.next() {
                        Some('"') => break,
                        Some('\\') => match chars.next() {
                            Some('\n') => {}
                            Some(c @ ('"' | '\\' | '$' | '`')) => text.push(c),
                            Some(c) => text.extend(['\\', c]),
                            None => return Err("the quote \" is not closed".to_owned()),
                        },
                        Some(c) => text.push(c),
                        None => return Err("the quote \" is not closed".to_owned()),
                    }
                }
            }
            '\\' => match chars.next() {
                Some('\n') => {}
                Some(c) => {
                    quoted = true;
                    word.get_or_insert_default().push(c);
                }
                None => return Err("it ends with a backslash".to_owned()),
            },
            c => word.get_or_insert_default().push(c),
        }
    }
    if let Some(done) = word {
        note_operator(&done, quoted, &mut operator);
        words.push(done);
    }
    Ok(Split { words, operator })
}

fn note_operator(word: &str, quoted: bool, operator: &mut Option<String>) {
    let operators = ["&&", "||", "|", "&", ";", ">", ">>", "<", "2>&1"];
    let is_operator = operators.contains(&word) || word.len() > 1 && word.ends_with(';');
    if !quoted && is_operator && operator.is_none() {
        *operator = Some(word.to_owned());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_split_and_quotes_kept_together() {
        let cases: [(&str, &[&str]); 7] = [
            ("a b  c", &["a", "b", "c"]),
            ("  ", &[]),
            (
                "sh -c 'echo \"hi\" there'",
                &["sh", "-c", "echo \"hi\" there"],
            ),
            (r#"a "b \" $c" d\ e"#, &["a", "b \" $c", "d e"]),
            ("''", &[""]),
            ("a\\\n b", &["a", "b"]),
            (r#"--x="1 2"'3'"#, &["--x=1 23"]),
        ];
        for (line, words) in cases {
            assert_eq!(split(line).unwrap().words, words, "{line}");
        }
        for bad in ["'a", "\"a", "a\\"] {
            assert!(split(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn what_only_a_shell_understands_is_noticed() {
        assert_eq!(split("a && b").unwrap().operator.as_deref(), Some("&&"));
        assert_eq!(split("a; b").unwrap().operator.as_deref(), Some("a;"));
        assert_eq!(split("a '&&' b").unwrap().operator, None);
    }
}
