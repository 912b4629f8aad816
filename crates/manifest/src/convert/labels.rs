//! Labels and annotations: those that Kubernetes recommends, those that networks are told by, and Compose's own.

use layby_model::spec::ServiceSpec;

use crate::convert::App;
use crate::convert::policy;
use crate::convert::said::shown;
use crate::convert::tree::Map;
use crate::draft::Draft;
use crate::report::Report;
use crate::tree::cut;

/// The recommended label for what something is (Kubernetes, "Recommended Labels").
pub(super) const NAME: &str = "app.kubernetes.io/name";
/// That for what it is part of.
const PART_OF: &str = "app.kubernetes.io/part-of";

/// The labels of an object.
pub(super) fn of_object(service: Option<&str>, app: &str) -> Map {
    Map::new().some_text(NAME, service).text(PART_OF, app)
}

/// The labels by which the pods of a service are found.
pub(super) fn selector(spec: &ServiceSpec) -> Map {
    Map::new().text(NAME, spec.name.as_str())
}

/// The labels of the pods of a service.
pub(super) fn of_pod(app: &App<'_>, spec: &ServiceSpec) -> Map {
    let labels = of_object(Some(spec.name.as_str()), app.name);
    policy::labels(app, spec)
        .into_iter()
        .fold(labels, |labels, label| labels.text(&label, "true"))
}

/// The labels that Compose gives containers or services, as annotations: their values may be anything.
pub(super) fn as_annotations(
    app: &App<'_>,
    draft: &Draft,
    paths: &[&str],
    report: &mut Report,
) -> Map {
    let mut annotations = Map::new();
    let mut seen = Vec::new();
    for path in paths {
        for (key, value, place) in app.said.pairs(draft, path) {
            if !is_key(&key) {
                let message = format!(
                    "the label {:?} of {} is lost: no annotation can be called so",
                    cut(&key),
                    shown(draft)
                );
                report.warn(&place, message);
            } else if !seen.contains(&key) && !key.starts_with("layby.dev/") {
                annotations = annotations.text(&key, value);
                seen.push(key);
            }
        }
    }
    annotations
}

/// Whether an annotation can be called so: `[DNS NAME/]NAME` (apimachinery's "qualified name").
pub(super) fn is_key(key: &str) -> bool {
    let inner = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    let is_word = |text: &str| {
        (1..=63).contains(&text.len())
            && text.starts_with(|c: char| c.is_ascii_alphanumeric())
            && text.ends_with(|c: char| c.is_ascii_alphanumeric())
            && text.chars().all(inner)
    };
    match key.split_once('/') {
        Some((domain, name)) => {
            let is_label = |label: &str| layby_model::names::is_dns_label(label);
            domain.len() <= 253 && domain.split('.').all(is_label) && is_word(name)
        }
        None => is_word(key),
    }
}

/// Whether a label's key can end with this name.
pub(super) fn is_name(name: &str) -> bool {
    !name.contains('/') && is_key(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_a_word_with_a_domain_or_without() {
        for good in [
            "a",
            "traefik.http.routers.web.rule",
            "com.example/a_b",
            "A-1",
        ] {
            assert!(is_key(good), "{good}");
        }
        for bad in [
            "",
            "a b",
            "a/b/c",
            "/a",
            "_a",
            "a.",
            "Com.Example/a",
            &"a".repeat(64),
        ] {
            assert!(!is_key(bad), "{bad}");
        }
    }
}
