//! Words of an instruction: splitting them, quotes, and `$variables` (Docker's shell lexer).

mod pattern;

use pattern::Pattern;

/// The deepest nesting of `${a:-${b:-...}}`.
const MAX_DEPTH: u32 = 20;

/// Splits at white space outside of quotes. Quotes and escapes stay in the words.
pub fn split(text: &str, escape: char) -> Vec<String> {
    let mut words = Vec::new();
    let mut word = String::new();
    let mut quote: Option<char> = None;
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match quote {
            None if c.is_whitespace() => {
                if !word.is_empty() {
                    words.push(std::mem::take(&mut word));
                }
                continue;
            }
            None if c == '"' || c == '\'' => quote = Some(c),
            Some(open) if c == open => quote = None,
            _ => {}
        }
        word.push(c);
        if c == escape && quote != Some('\'') {
            word.extend(chars.next());
        }
    }
    if !word.is_empty() {
        words.push(word);
    }
    words
}

/// Takes quotes and escapes away and puts variables in: `$name`, `${name}`, `${name:-word}`, `${name-word}`,
/// `${name:+word}`, `${name+word}`, `${name:?message}`, `${name?message}`, `${name#pattern}`, `${name##pattern}`,
/// `${name%pattern}`, `${name%%pattern}`, `${name/pattern/word}`, `${name//pattern/word}`. Variables that are not set
/// are empty.
///
/// # Errors
/// Says what is wrong with the word; it does not name the instruction.
pub fn expand(
    word: &str,
    escape: char,
    lookup: &dyn Fn(&str) -> Option<String>,
) -> Result<String, String> {
    Expander::new(word, escape, true, lookup).run(&[], 0)
}

/// Puts variables into the text of a heredoc, where quotes are just characters.
///
/// # Errors
/// As [`expand`].
pub fn expand_text(
    text: &str,
    escape: char,
    lookup: &dyn Fn(&str) -> Option<String>,
) -> Result<String, String> {
    Expander::new(text, escape, false, lookup).run(&[], 0)
}

struct Expander<'a> {
    chars: Vec<char>,
    at: usize,
    escape: char,
    /// Whether quotes quote.
    quotes: bool,
    /// Whether escapes stay: the text is a pattern, which has its own use for them.
    keeps_escapes: bool,
    lookup: &'a dyn Fn(&str) -> Option<String>,
}

impl<'a> Expander<'a> {
    fn new(
        text: &str,
        escape: char,
        quotes: bool,
        lookup: &'a dyn Fn(&str) -> Option<String>,
    ) -> Self {
        Self {
            chars: text.chars().collect(),
            at: 0,
            escape,
            quotes,
            keeps_escapes: false,
            lookup,
        }
    }

    fn next(&mut self) -> Option<char> {
        let c = self.chars.get(self.at).copied();
        self.at += usize::from(c.is_some());
        c
    }

    fn peek(&self) -> Option<char> {
        self.chars.get(self.at).copied()
    }

    /// Expands until one of `ends` (which is taken) or, without any, to the end of the word.
    fn run(&mut self, ends: &[char], depth: u32) -> Result<String, String> {
        let mut out = String::new();
        loop {
            let Some(c) = self.next() else {
                return match ends.first() {
                    Some(end) => Err(format!("a {end:?} is missing")),
                    None => Ok(out),
                };
            };
            match c {
                _ if ends.contains(&c) => return Ok(out),
                '\'' if self.quotes => self.single_quoted(&mut out)?,
                '"' if self.quotes => self.double_quoted(&mut out, depth)?,
                '$' => self.variable(&mut out, depth)?,
                _ if c == self.escape => {
                    if self.keeps_escapes {
                        out.push(c);
                    }
                    // A single escape at the very end stays.
                    out.push(self.next().unwrap_or(c));
                }
                _ => out.push(c),
            }
        }
    }

    fn single_quoted(&mut self, out: &mut String) -> Result<(), String> {
        loop {
            match self.next() {
                Some('\'') => return Ok(()),
                Some(c) => out.push(c),
                None => return Err("a single quote is not closed".to_owned()),
            }
        }
    }

    fn double_quoted(&mut self, out: &mut String, depth: u32) -> Result<(), String> {
        loop {
            match self.next() {
                Some('"') => return Ok(()),
                Some('$') => self.variable(out, depth)?,
                Some(c) if c == self.escape => match self.next() {
                    Some(next) if next == '"' || next == '$' || next == self.escape => {
                        out.push(next)
                    }
                    Some(next) => out.extend([c, next]),
                    None => return Err("a double quote is not closed".to_owned()),
                },
                Some(c) => out.push(c),
                None => return Err("a double quote is not closed".to_owned()),
            }
        }
    }

    /// After a `$`.
    fn variable(&mut self, out: &mut String, depth: u32) -> Result<(), String> {
        if self.peek() != Some('{') {
            let name = self.name();
            if name.is_empty() {
                out.push('$');
            } else {
                out.push_str(&(self.lookup)(&name).unwrap_or_default());
            }
            return Ok(());
        }
        self.at += 1;
        if depth >= MAX_DEPTH {
            return Err(format!("variables are nested more than {MAX_DEPTH} deep"));
        }
        let name = self.name();
        if name.is_empty() {
            return Err("`${` is not followed by a name".to_owned());
        }
        let value = (self.lookup)(&name);
        let length = value.as_ref().map_or(0, String::len);
        let mut modifier = self.next();
        // With a colon, an empty variable counts as one that is not set.
        let value = if modifier == Some(':') {
            modifier = self.next();
            if modifier == Some('}') {
                return Err(format!("`${{{name}:}}` has no modifier"));
            }
            value.filter(|value| !value.is_empty())
        } else {
            value
        };
        match modifier {
            Some('}') => out.push_str(&value.unwrap_or_default()),
            Some('-') => {
                let word = self.run(&['}'], depth + 1)?;
                out.push_str(&value.unwrap_or(word));
            }
            Some('+') => {
                let word = self.run(&['}'], depth + 1)?;
                if value.is_some() {
                    out.push_str(&word);
                }
            }
            Some('?') => {
                let message = self.run(&['}'], depth + 1)?;
                match value {
                    Some(value) => out.push_str(&value),
                    None if message.is_empty() => return Err(format!("{name} is not set")),
                    None => return Err(format!("{name}: {message}")),
                }
            }
            Some(sign @ ('#' | '%')) => {
                check_length(&name, length)?;
                let is_longest = self.peek() == Some(sign);
                self.at += usize::from(is_longest);
                let pattern = self.pattern(&['}'], depth)?;
                let value = value.unwrap_or_default();
                out.push_str(match sign {
                    '#' => pattern.without_prefix(&value, is_longest),
                    _ => pattern.without_suffix(&value, is_longest),
                });
            }
            Some('/') => {
                check_length(&name, length)?;
                let all = self.peek() == Some('/');
                self.at += usize::from(all);
                let pattern = self.pattern(&['/', '}'], depth)?;
                // Without a second slash what matches is taken out.
                let ended = self.chars.get(self.at - 1) == Some(&'}');
                let word = match ended {
                    true => String::new(),
                    false => self.run(&['}'], depth + 1)?,
                };
                out.push_str(&pattern.replaced(&value.unwrap_or_default(), &word, all));
            }
            Some(other) => {
                return Err(format!(
                    "the modifier {other:?} of ${{{name}}} is not supported"
                ));
            }
            None => return Err(format!("`${{{name}` is not closed")),
        }
        Ok(())
    }

    fn pattern(&mut self, ends: &[char], depth: u32) -> Result<Pattern, String> {
        self.keeps_escapes = true;
        let text = self.run(ends, depth + 1);
        self.keeps_escapes = false;
        Pattern::parse(&text?, self.escape)
    }

    fn name(&mut self) -> String {
        let mut name = String::new();
        while let Some(c) = self.peek() {
            let fits =
                c == '_' || c.is_ascii_alphabetic() || (!name.is_empty() && c.is_ascii_digit());
            if !fits {
                break;
            }
            name.push(c);
            self.at += 1;
        }
        name
    }
}

fn check_length(name: &str, length: usize) -> Result<(), String> {
    if length > pattern::MAX_CHARS {
        let most = pattern::MAX_CHARS;
        return Err(format!(
            "{name} is longer than {most} characters, so no pattern is looked for in it"
        ));
    }
    Ok(())
}
