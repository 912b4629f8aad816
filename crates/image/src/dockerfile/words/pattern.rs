//! Patterns of `${name#pattern}` and its kin: `*` and `?` as in a shell.

/// Longer values and patterns are refused: matching takes the square of their lengths.
pub(super) const MAX_CHARS: usize = 4096;

/// A parsed pattern.
pub(super) struct Pattern(Vec<Token>);

enum Token {
    Literal(char),
    One,
    Run,
}

impl Pattern {
    pub(super) fn parse(text: &str, escape: char) -> Result<Self, String> {
        if text.len() > MAX_CHARS {
            return Err(format!("a pattern is longer than {MAX_CHARS} characters"));
        }
        let mut tokens = Vec::new();
        let mut chars = text.chars();
        while let Some(c) = chars.next() {
            tokens.push(match c {
                '*' => Token::Run,
                '?' => Token::One,
                c if c == escape => Token::Literal(chars.next().unwrap_or(c)),
                c => Token::Literal(c),
            });
        }
        Ok(Self(tokens))
    }

    /// The value without what matches at its beginning.
    pub(super) fn without_prefix<'a>(&self, value: &'a str, is_longest: bool) -> &'a str {
        let found = self.lengths(value);
        match if is_longest {
            found.last()
        } else {
            found.first()
        } {
            Some(length) => &value[*length..],
            None => value,
        }
    }

    /// The value without what matches at its end.
    pub(super) fn without_suffix<'a>(&self, value: &'a str, is_longest: bool) -> &'a str {
        let reaches_end =
            |start: &usize| self.lengths(&value[*start..]).last() == Some(&(value.len() - start));
        let mut starts = starts(value);
        let found = match is_longest {
            true => starts.find(reaches_end),
            false => starts.rev().find(reaches_end),
        };
        found.map_or(value, |start| &value[..start])
    }

    /// The value with the first match, or all, replaced; always the longest from the left.
    pub(super) fn replaced(&self, value: &str, word: &str, all: bool) -> String {
        let mut out = String::new();
        let mut at = 0;
        while at < value.len() {
            let length = self
                .lengths(&value[at..])
                .last()
                .copied()
                .filter(|length| *length > 0);
            match length {
                Some(length) => {
                    out.push_str(word);
                    at += length;
                    if !all {
                        break;
                    }
                }
                None => {
                    let next = value[at..].chars().next().map_or(1, char::len_utf8);
                    out.push_str(&value[at..at + next]);
                    at += next;
                }
            }
        }
        out.push_str(value.get(at..).unwrap_or_default());
        out
    }

    /// The lengths in bytes of all beginnings of the value that the pattern matches, ascending.
    fn lengths(&self, value: &str) -> Vec<usize> {
        let mut lengths = Vec::new();
        let mut places = vec![false; self.0.len() + 1];
        self.reach(&mut places, 0);
        for (at, c) in value.char_indices() {
            if places[self.0.len()] {
                lengths.push(at);
            }
            let mut next = vec![false; self.0.len() + 1];
            for (place, token) in self
                .0
                .iter()
                .enumerate()
                .filter(|(place, _)| places[*place])
            {
                match token {
                    Token::Literal(literal) if *literal == c => self.reach(&mut next, place + 1),
                    Token::Literal(_) => {}
                    Token::One => self.reach(&mut next, place + 1),
                    Token::Run => self.reach(&mut next, place),
                }
            }
            places = next;
            if !places.contains(&true) {
                return lengths;
            }
        }
        if places[self.0.len()] {
            lengths.push(value.len());
        }
        lengths
    }

    fn reach(&self, places: &mut [bool], mut at: usize) {
        places[at] = true;
        while matches!(self.0.get(at), Some(Token::Run)) {
            at += 1;
            places[at] = true;
        }
    }
}

/// Where a match may begin, the end included.
fn starts(value: &str) -> impl DoubleEndedIterator<Item = usize> {
    value.char_indices().map(|(at, _)| at).chain([value.len()])
}
