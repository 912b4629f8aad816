//! Names of objects: what Compose calls something, as Kubernetes lets it be called.

use std::collections::BTreeMap;

use crate::draft::label_of;

/// Names that were given, each to one thing.
#[derive(Debug, Default)]
pub(super) struct Names(BTreeMap<String, String>);

impl Names {
    /// The name of what is called `text` and told from others by `identity`: a DNS label of at most `room` characters, and nobody else's.
    pub(super) fn give(&mut self, text: &str, identity: &str, room: usize) -> String {
        let label = label_of(text).unwrap_or_else(|| "unnamed".to_owned());
        let mut name = cut(&label, room);
        let mut number = 1;
        while self.0.get(&name).is_some_and(|other| other != identity) {
            number += 1;
            let ending = format!("-{number}");
            name = format!("{}{ending}", cut(&label, room - ending.len()));
        }
        self.0.insert(name.clone(), identity.to_owned());
        name
    }
}

/// A label with at most so many characters.
pub(super) fn cut(label: &str, room: usize) -> String {
    let label = label.get(..room).unwrap_or(label);
    label.trim_end_matches('-').to_owned()
}

/// The name of a Service: a label that begins with a letter (RFC 1035, which clusters before 1.34 go by).
pub(super) fn service(label: &str) -> String {
    match label.starts_with(|c: char| c.is_ascii_digit()) {
        true => cut(&format!("s-{label}"), 63),
        false => label.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_a_label_of_one_thing() {
        let mut names = Names::default();
        assert_eq!(names.give("nginx.conf", "/a/nginx.conf", 63), "nginx-conf");
        assert_eq!(names.give("nginx.conf", "/a/nginx.conf", 63), "nginx-conf");
        assert_eq!(
            names.give("nginx_conf", "/b/nginx.conf", 63),
            "nginx-conf-2"
        );
        assert_eq!(names.give(&"x".repeat(80), "x", 52).len(), 52);
        assert_eq!(names.give("___", "y", 63), "unnamed");
        assert_eq!(service("1web"), "s-1web");
        assert_eq!(service("web"), "web");
    }
}
