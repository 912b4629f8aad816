//! Heredocs: text that stands in the Dockerfile itself, below the RUN, COPY or ADD that names its end (`<<EOF`).

use super::words::split;

/// One heredoc, its lines as they stand there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Heredoc {
    /// The word that ends it; COPY makes a file of that name.
    pub name: String,
    /// Whether COPY puts variables in: the word was not quoted.
    pub expands: bool,
    /// `<<-`: tabs at the beginning of its lines were taken away.
    pub is_indented: bool,
    /// Its lines, each with a line end.
    pub text: String,
}

/// The heredocs that a line opens, in order, still without text.
pub(super) fn opened(line: &str, escape: char) -> Vec<Heredoc> {
    split(line, escape)
        .iter()
        .filter_map(|word| open(word))
        .collect()
}

/// Reads one word: `<<EOF`, `<<-EOF`, `<<"EOF"`, with a file descriptor before it if need be.
pub(super) fn open(word: &str) -> Option<Heredoc> {
    let rest = word.trim_start_matches(|c: char| c.is_ascii_digit());
    let rest = rest.strip_prefix("<<")?;
    let (is_indented, rest) = match rest.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, rest),
    };
    let name = rest.replace(['"', '\''], "");
    if name.is_empty() || rest.contains('<') {
        return None;
    }
    Some(Heredoc {
        expands: name == rest,
        name,
        is_indented,
        text: String::new(),
    })
}

impl Heredoc {
    /// Takes one more line; says whether it was the last.
    pub(super) fn take(&mut self, line: &str) -> bool {
        let line = match self.is_indented {
            true => line.trim_start_matches('\t'),
            false => line,
        };
        if line == self.name {
            return true;
        }
        self.text.push_str(line);
        self.text.push('\n');
        false
    }

    /// As it stands below its instruction.
    pub(crate) fn written(&self) -> String {
        format!("{}{}", self.text, self.name)
    }
}
