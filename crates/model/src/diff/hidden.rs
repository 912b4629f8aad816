//! Which values are not for everyone's eyes, though they stand in a spec: that they differ is told, what they are is not.

/// What stands in the place of such a value.
pub(super) const HIDDEN: &str = "(not shown)";

/// Words that make a variable's name that of a secret, as a whole word of it: `DB_PASSWORD`, `apiKey`.
const WORDS: &[&str] = &[
    "auth",
    "cert",
    "credential",
    "credentials",
    "key",
    "pass",
    "passphrase",
    "passwd",
    "password",
    "pin",
    "private",
    "pwd",
    "salt",
    "secret",
    "secrets",
    "session",
    "signature",
    "token",
    "tokens",
];

/// Whether the value of a variable of this name, such as this one, is to be hidden.
pub(super) fn is_hidden(name: &str, value: &str) -> bool {
    looks_secret(name) || bears_password(value)
}

fn looks_secret(name: &str) -> bool {
    let lower = name.to_ascii_lowercase();
    let joined = [
        "apikey",
        "password",
        "passwd",
        "secret",
        "token",
        "credential",
        "privatekey",
    ];
    let words = || words(name);
    joined.iter().any(|word| lower.contains(word))
        || words().any(|word| WORDS.contains(&word.as_str()))
}

/// The words of a name: parted by what is no letter, and where a capital follows a small letter.
fn words(name: &str) -> impl Iterator<Item = String> {
    let mut words = vec![String::new()];
    let mut before_is_small = false;
    for c in name.chars() {
        if !c.is_ascii_alphabetic() || before_is_small && c.is_ascii_uppercase() {
            words.push(String::new());
        }
        before_is_small = c.is_ascii_lowercase();
        if c.is_ascii_alphabetic()
            && let Some(word) = words.last_mut()
        {
            word.push(c.to_ascii_lowercase());
        }
    }
    words.into_iter()
}

/// A URL with a password in it (RFC 3986, section 3.2.1).
fn bears_password(value: &str) -> bool {
    let Some((_, rest)) = value.split_once("://") else {
        return false;
    };
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    authority
        .rsplit_once('@')
        .is_some_and(|(user, _)| user.contains(':'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_named_like_a_secret_or_is_a_url_with_a_password_is_hidden() {
        for (name, value, hidden) in [
            ("DB_PASSWORD", "x", true),
            ("apiKey", "x", true),
            ("GITHUB_TOKEN", "x", true),
            ("PGPASSWORD", "x", true),
            ("AWS_ACCESS_KEY_ID", "x", true),
            ("DATABASE_URL", "postgres://app:s3cret@db:5432/shop", true),
            ("DATABASE_URL", "postgres://app@db:5432/shop?x=a:b@c", false),
            ("KEYBOARD", "de", false),
            ("LOG_LEVEL", "debug", false),
            ("MONKEY", "george", false),
            ("COMPASS", "north", false),
        ] {
            assert_eq!(is_hidden(name, value), hidden, "{name}={value}");
        }
    }
}
