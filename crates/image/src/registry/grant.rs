//! What somebody may do in the registry.

/// What one request may do. Who asks was found out before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grant {
    /// Who asks: a token's name, or `root` over the local socket. `None`: nobody said.
    pub who: Option<String>,
    /// May read.
    pub pull: bool,
    /// May write and delete.
    pub push: bool,
    /// In which repositories: a name in which each `*` stands for any characters, or several with commas between.
    pub repositories: String,
}

impl Grant {
    /// Everything, for who is as good as root.
    pub fn root() -> Self {
        Self {
            who: Some("root".to_owned()),
            pull: true,
            push: true,
            repositories: "*".to_owned(),
        }
    }

    /// For who did not say who they are.
    pub fn anonymous(pull: bool) -> Self {
        Self {
            who: None,
            pull,
            push: false,
            repositories: "*".to_owned(),
        }
    }

    /// Whether it may read from this repository.
    pub fn may_pull(&self, repository: &str) -> bool {
        self.pull && any_matches(&self.repositories, repository)
    }

    /// Whether it may ask what this repository has: every client looks before it pushes what may be there.
    pub fn may_look(&self, repository: &str) -> bool {
        (self.pull || self.push) && any_matches(&self.repositories, repository)
    }

    /// Whether it may write to this repository.
    pub fn may_push(&self, repository: &str) -> bool {
        self.push && any_matches(&self.repositories, repository)
    }
}

/// Whether `text` is what one of these patterns says.
fn any_matches(patterns: &str, text: &str) -> bool {
    patterns.split(',').any(|pattern| matches(pattern, text))
}

/// Whether `text` is what `pattern` says, each `*` standing for any characters. Linear in the text for each `*`.
fn matches(pattern: &str, text: &str) -> bool {
    let mut parts = pattern.split('*');
    let Some(mut rest) = parts.next().and_then(|first| text.strip_prefix(first)) else {
        return false;
    };
    if !pattern.contains('*') {
        return rest.is_empty();
    }
    let Some(last) = parts.next_back() else {
        return true;
    };
    for part in parts {
        match rest.find(part) {
            Some(at) => rest = &rest[at + part.len()..],
            None => return false,
        }
    }
    rest.ends_with(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_stands_for_any_characters_and_nothing_else_does() {
        for (pattern, text, fits) in [
            ("*", "", true),
            ("*", "a/b", true),
            ("team/*", "team/app", true),
            ("team/*", "team", false),
            ("team/*", "other/team/app", false),
            ("*/app", "team/sub/app", true),
            ("a*b*c", "aXbXbc", true),
            ("a*a", "a", false),
            ("app", "app", true),
            ("app", "app2", false),
            ("a.c", "abc", false),
            ("", "a", false),
        ] {
            assert_eq!(matches(pattern, text), fits, "{pattern} {text}");
        }
    }

    #[test]
    fn a_grant_is_for_its_repositories_only() {
        let grant = Grant {
            push: false,
            repositories: "team/*".to_owned(),
            ..Grant::root()
        };
        assert!(grant.may_pull("team/app") && !grant.may_pull("app"));
        assert!(!grant.may_push("team/app"));
        assert!(!Grant::anonymous(false).may_pull("app"));
        assert!(!Grant::anonymous(false).may_look("app"));
    }
}
