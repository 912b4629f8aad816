//! File name patterns as Go's `filepath.Match` has them, with `.dockerignore`'s `**` on top.
//!
//! Matching keeps the set of places in the pattern that a text may have come to, so that no pattern is slow.

/// A parsed pattern.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Pattern {
    tokens: Vec<Token>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Token {
    Literal(char),
    /// `?`: anything but `/`.
    One,
    /// `*`: any number of anything but `/`.
    Run,
    /// `**`: any number of anything.
    Anything,
    /// `**/`: nothing, or anything that ends in `/`. Always followed by `Directories`.
    PerhapsDirectories,
    Directories,
    /// `[a-z]`, `[^a-z]`: never `/`.
    Class {
        negated: bool,
        ranges: Vec<(char, char)>,
    },
}

/// Whether the text is a pattern rather than a plain name.
pub(crate) fn is_pattern(text: &str) -> bool {
    text.contains(['*', '?', '[', '\\'])
}

impl Pattern {
    /// Parses; `None` for a class that is not closed or a `\` at the end.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let mut tokens = Vec::new();
        let mut chars = text.chars().peekable();
        while let Some(c) = chars.next() {
            match c {
                '*' if chars.next_if_eq(&'*').is_some() => {
                    while chars.next_if_eq(&'*').is_some() {}
                    if chars.next_if_eq(&'/').is_some() {
                        tokens.extend([Token::PerhapsDirectories, Token::Directories]);
                    } else {
                        tokens.push(Token::Anything);
                    }
                }
                '*' => tokens.push(Token::Run),
                '?' => tokens.push(Token::One),
                '\\' => tokens.push(Token::Literal(chars.next()?)),
                '[' => {
                    let negated = chars.next_if_eq(&'^').is_some();
                    let mut ranges = Vec::new();
                    loop {
                        let low = match chars.next()? {
                            ']' if !ranges.is_empty() => break,
                            '\\' => chars.next()?,
                            c => c,
                        };
                        let high = match chars.next_if_eq(&'-') {
                            Some(_) => match chars.next()? {
                                '\\' => chars.next()?,
                                ']' => return None,
                                c => c,
                            },
                            None => low,
                        };
                        ranges.push((low, high));
                    }
                    tokens.push(Token::Class { negated, ranges });
                }
                c => tokens.push(Token::Literal(c)),
            }
        }
        Some(Self { tokens })
    }

    /// Whether the whole text matches.
    pub(crate) fn matches(&self, text: &str) -> bool {
        let mut now = vec![false; self.tokens.len() + 1];
        self.reach(&mut now, 0);
        for c in text.chars() {
            let mut next = vec![false; self.tokens.len() + 1];
            for (at, token) in self.tokens.iter().enumerate().filter(|(at, _)| now[*at]) {
                match token {
                    Token::Literal(literal) if *literal == c => self.reach(&mut next, at + 1),
                    Token::One if c != '/' => self.reach(&mut next, at + 1),
                    Token::Run if c != '/' => self.reach(&mut next, at),
                    Token::Anything => self.reach(&mut next, at),
                    Token::Directories => {
                        next[at] = true;
                        if c == '/' {
                            self.reach(&mut next, at + 1);
                        }
                    }
                    Token::Class { negated, ranges } if c != '/' => {
                        let inside = ranges.iter().any(|(low, high)| (low..=high).contains(&&c));
                        if inside != *negated {
                            self.reach(&mut next, at + 1);
                        }
                    }
                    _ => {}
                }
            }
            now = next;
        }
        now[self.tokens.len()]
    }

    /// Marks a place, and those that can be reached from it without reading anything.
    fn reach(&self, places: &mut [bool], mut at: usize) {
        loop {
            places[at] = true;
            match self.tokens.get(at) {
                Some(Token::Run | Token::Anything) => at += 1,
                Some(Token::PerhapsDirectories) => {
                    places[at + 1] = true;
                    at += 2;
                }
                _ => return,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_match_as_in_go_and_docker() {
        for (pattern, yes, no) in [
            ("*.go", &["a.go", ".go"][..], &["a.go.x", "d/a.go"][..]),
            ("a?c", &["abc", "aéc"], &["ac", "a/c"]),
            ("[a-c]x", &["ax", "cx"], &["dx", "x"]),
            ("[^a-c]x", &["dx"], &["ax", "/x"]),
            ("[]a]", &["a", "]"], &["b"]),
            (r"\*a", &["*a"], &["ba"]),
            ("**/x", &["x", "a/x", "a/b/x"], &["ax", "x/a"]),
            ("a/**", &["a/b", "a/b/c"], &["a", "b/a"]),
            ("a/**/b", &["a/b", "a/x/b", "a/x/y/b"], &["a/xb", "ab"]),
            ("**", &["a", "a/b"], &[]),
            ("a**b", &["ab", "a/b", "axxb"], &["ac"]),
            ("**/*.md", &["x.md", "d/x.md"], &["x.mdx"]),
            ("", &[""], &["a"]),
        ] {
            let parsed = Pattern::parse(pattern).unwrap();
            for text in yes {
                assert!(parsed.matches(text), "{pattern} matches {text}");
            }
            for text in no {
                assert!(!parsed.matches(text), "{pattern} does not match {text}");
            }
        }
        for broken in ["[a", "a\\", "[a-", "[a-]", "["] {
            assert_eq!(Pattern::parse(broken), None, "{broken}");
        }
    }

    #[test]
    fn no_pattern_takes_exponential_time() {
        let pattern = Pattern::parse(&"*a".repeat(500)).unwrap();
        assert!(!pattern.matches(&"a".repeat(499)));
        assert!(pattern.matches(&"a".repeat(600)));
    }
}
