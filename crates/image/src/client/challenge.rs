//! The WWW-Authenticate header, read strictly (RFC 9110, section 11.6.1; distribution's token specification).

/// What a registry asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Challenge {
    /// User and password.
    Basic,
    /// A token from elsewhere.
    Bearer {
        /// Where tokens are given out.
        realm: String,
        /// Which service they are for.
        service: Option<String>,
    },
}

/// The challenge to meet of all that the headers hold: a token rather than a password. `None`: none that is known.
pub(super) fn read<'a>(headers: impl Iterator<Item = &'a str>) -> Option<Challenge> {
    let mut found = None;
    for header in headers {
        for (scheme, parameters) in schemes(header)? {
            let get = |name: &str| {
                let mut known = parameters.iter().filter(|(key, _)| key == name);
                known.next().map(|(_, value)| value.clone())
            };
            if scheme == "bearer"
                && let Some(realm) = get("realm")
            {
                let service = get("service");
                return Some(Challenge::Bearer { realm, service });
            }
            if scheme == "basic" {
                found = Some(Challenge::Basic);
            }
        }
    }
    found
}

type Scheme = (String, Vec<(String, String)>);

/// The schemes of one header with their parameters, keys in lower case; `None` when it is malformed.
fn schemes(header: &str) -> Option<Vec<Scheme>> {
    let mut rest = header.trim();
    let mut schemes: Vec<Scheme> = Vec::new();
    while !rest.is_empty() {
        let (word, behind) = token(rest)?;
        // Behind a comma stands either a further parameter or another scheme.
        let after = behind.trim_start();
        let last = match after.strip_prefix('=') {
            Some(value) => {
                let (value, behind) = value_of(value.trim_start())?;
                let (_, parameters) = schemes.last_mut()?;
                let key = word.to_ascii_lowercase();
                if parameters.iter().any(|(known, _)| *known == key) {
                    return None;
                }
                parameters.push((key, value));
                behind
            }
            None => {
                schemes.push((word.to_ascii_lowercase(), Vec::new()));
                // A scheme's first parameter follows a space; nothing but a comma can follow otherwise.
                if !after.is_empty() && !after.starts_with(',') {
                    if after.len() == behind.len() {
                        return None;
                    }
                    rest = after;
                    continue;
                }
                after
            }
        };
        rest = last.trim_start();
        match rest.strip_prefix(',') {
            Some(behind) => rest = behind.trim_start_matches([',', ' ', '\t']),
            None if rest.is_empty() => {}
            None => return None,
        }
    }
    Some(schemes)
}

/// A token (RFC 9110, section 5.6.2) and what is behind it.
fn token(text: &str) -> Option<(&str, &str)> {
    let is_token = |c: char| c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c);
    let end = text.find(|c| !is_token(c)).unwrap_or(text.len());
    (end > 0).then(|| text.split_at(end))
}

/// A parameter's value, as a token or in quotes.
fn value_of(text: &str) -> Option<(String, &str)> {
    let Some(quoted) = text.strip_prefix('"') else {
        return token(text).map(|(value, behind)| (value.to_owned(), behind));
    };
    let mut value = String::new();
    let mut chars = quoted.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return Some((value, &quoted[at + 1..])),
            '\\' => value.push(chars.next()?.1),
            c if c.is_control() => return None,
            c => value.push(c),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(header: &str) -> Option<Challenge> {
        read([header].into_iter())
    }

    fn bearer(realm: &str, service: Option<&str>) -> Option<Challenge> {
        Some(Challenge::Bearer {
            realm: realm.to_owned(),
            service: service.map(str::to_owned),
        })
    }

    #[test]
    fn what_registries_send_is_understood() {
        for (header, challenge) in [
            (
                r#"Bearer realm="https://auth.docker.io/token",service="registry.docker.io",scope="repository:a/b:pull,push""#,
                bearer("https://auth.docker.io/token", Some("registry.docker.io")),
            ),
            (r#"bearer realm="https://x/t""#, bearer("https://x/t", None)),
            (r#"Basic realm="Registry Realm""#, Some(Challenge::Basic)),
            ("Basic", Some(Challenge::Basic)),
            (
                r#"Basic realm="x", Bearer realm="https://x/t" , service=y"#,
                bearer("https://x/t", Some("y")),
            ),
            (r#"Negotiate, Basic realm="\"q\"""#, Some(Challenge::Basic)),
            ("Negotiate", None),
        ] {
            assert_eq!(one(header), challenge, "{header}");
        }
        assert_eq!(
            read([r#"Basic realm="x""#, r#"Bearer realm="https://x/t""#].into_iter()),
            bearer("https://x/t", None)
        );
    }

    #[test]
    fn what_is_malformed_is_refused() {
        for header in [
            "",
            "Bearer",
            r#"Bearer realm="https://x"#,
            r#"Bearer realm="https://x" service="y""#,
            r#"Bearer realm="https://x",realm="https://evil""#,
            "Bearer realm=https://x",
            r#"realm="https://x""#,
            "Bearer realm=\"https://x\u{1}\"",
            r#"Bearer service="y""#,
        ] {
            assert_eq!(one(header), None, "{header}");
        }
    }
}
