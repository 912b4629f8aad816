//! Modes as `--chmod` gives them: octal, or symbolic as for chmod(1).

/// What symbolic modes without `u`, `g` or `o` leave alone.
const UMASK: u32 = 0o022;

/// A parsed mode.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Chmod {
    /// All of it.
    Octal(u32),
    /// Changes, one after the other.
    Symbolic(Vec<Change>),
}

/// `who`, `how` and `what` of `go-w`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Change {
    /// The bits of those whom it concerns.
    who: u32,
    how: char,
    what: What,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum What {
    /// For each class; `X` too?
    Bits { bits: u32, executable: bool },
    /// What another class has: `g=u`.
    Copy(u32),
}

impl Chmod {
    /// Reads a mode; `None` when it is none.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        if text.bytes().all(|byte| byte.is_ascii_digit()) {
            let mode = u32::from_str_radix(text, 8).ok()?;
            return (mode <= 0o7777).then_some(Self::Octal(mode));
        }
        let mut changes = Vec::new();
        for clause in text.split(',') {
            let first = clause.find(['+', '-', '='])?;
            let (whom, mut rest) = clause.split_at(first);
            let mut who = 0;
            for class in whom.chars() {
                who |= match class {
                    'u' => 0o4700,
                    'g' => 0o2070,
                    'o' => 0o1007,
                    'a' => 0o7777,
                    _ => return None,
                };
            }
            if who == 0 {
                who = 0o7777 & !UMASK;
            }
            while let Some(how) = rest.chars().next() {
                let end = rest[1..]
                    .find(['+', '-', '='])
                    .map_or(rest.len(), |at| at + 1);
                changes.push(Change {
                    who,
                    how,
                    what: What::parse(&rest[1..end])?,
                });
                rest = &rest[end..];
            }
        }
        Some(Self::Symbolic(changes))
    }

    /// The mode that a file or directory gets that had `mode`.
    pub(crate) fn applied(&self, mode: u32, is_dir: bool) -> u32 {
        let changes = match self {
            Self::Octal(mode) => return *mode,
            Self::Symbolic(changes) => changes,
        };
        changes.iter().fold(mode, |mode, change| {
            let bits = match &change.what {
                What::Bits { bits, executable } => {
                    let any = *executable && (is_dir || mode & 0o111 != 0);
                    bits | if any { 0o111 } else { 0 }
                }
                What::Copy(shift) => ((mode >> shift) & 7) * 0o111,
            };
            let bits = bits & change.who;
            match change.how {
                '+' => mode | bits,
                '-' => mode & !bits,
                // Set-id bits of a directory stay, as chmod(1) has it.
                _ if is_dir => (mode & !(change.who & 0o1777)) | bits,
                _ => (mode & !change.who) | bits,
            }
        })
    }
}

impl What {
    fn parse(text: &str) -> Option<Self> {
        match text {
            "u" => return Some(Self::Copy(6)),
            "g" => return Some(Self::Copy(3)),
            "o" => return Some(Self::Copy(0)),
            _ => {}
        }
        let (mut bits, mut executable) = (0, false);
        for c in text.chars() {
            match c {
                'r' => bits |= 0o444,
                'w' => bits |= 0o222,
                'x' => bits |= 0o111,
                'X' => executable = true,
                's' => bits |= 0o6000,
                't' => bits |= 0o1000,
                _ => return None,
            }
        }
        Some(Self::Bits { bits, executable })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes_are_changed_as_by_chmod() {
        for (text, from, is_dir, to) in [
            ("755", 0o600, false, 0o755),
            ("0644", 0o7777, false, 0o644),
            ("u+x", 0o644, false, 0o744),
            ("+x", 0o644, false, 0o755),
            ("+w", 0o444, false, 0o644),
            ("a+w", 0o444, false, 0o666),
            ("go-rwx", 0o755, false, 0o700),
            ("u=rwX,go=rX", 0o600, false, 0o644),
            ("u=rwX,go=rX", 0o700, false, 0o755),
            ("u=rwX,go=rX", 0o600, true, 0o755),
            ("g=u", 0o740, false, 0o770),
            ("u+s,+t", 0o755, false, 0o5755),
            ("a=", 0o755, false, 0),
            ("u=rw-x+x", 0o000, false, 0o700),
        ] {
            let parsed = Chmod::parse(text).expect(text);
            assert_eq!(parsed.applied(from, is_dir), to, "{text} on {from:o}");
        }
        for text in ["", "u", "q+x", "u+q", "99999", "u+x,"] {
            assert_eq!(Chmod::parse(text), None, "{text}");
        }
    }
}
