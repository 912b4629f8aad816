//! `$(VAR)` in `env`, `command` and `args`, as the kubelet expands it.

use std::collections::BTreeMap;

/// The longest that a value may grow.
const MAX_BYTES: usize = 1 << 20;

/// Fills in `$(VAR)` from `variables`. One that is not there is left as it is written; `$$` is `$`
/// (`v1.Container`, fields `command` and `args`). What would grow too long is left as it is, too.
pub(crate) fn expand(text: &str, variables: &BTreeMap<String, String>) -> String {
    let mut expanded = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(start) = rest.find('$') {
        expanded.push_str(&rest[..start]);
        let after = &rest[start + 1..];
        if let Some(after) = after.strip_prefix('$') {
            expanded.push('$');
            rest = after;
        } else if let Some((name, after)) = after
            .strip_prefix('(')
            .and_then(|after| after.split_once(')'))
        {
            match variables.get(name) {
                Some(value) if expanded.len() + value.len() <= MAX_BYTES => {
                    expanded.push_str(value);
                }
                Some(_) => return text.to_owned(),
                None => expanded.extend(["$(", name, ")"]),
            }
            rest = after;
        } else {
            expanded.push('$');
            rest = after;
        }
    }
    expanded.push_str(rest);
    expanded
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_are_expanded_as_the_kubelet_does() {
        let variables = BTreeMap::from([("A".to_owned(), "1".to_owned())]);
        let cases = [
            ("$(A)-$(A)", "1-1"),
            ("$(B)", "$(B)"),
            ("$$(A)", "$(A)"),
            ("$A $ $(", "$A $ $("),
            ("a", "a"),
        ];
        for (text, expected) in cases {
            assert_eq!(expand(text, &variables), expected, "{text}");
        }
    }
}
