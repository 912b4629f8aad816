//! The power of a service: a name for limits, and so never beside limits.

use crate::draft::Placed;
use crate::fields::Fields;
use crate::report::Report;
use crate::tree::Place;

/// A limit of CPU or memory that a manifest says.
#[derive(Debug)]
pub(crate) struct Limited {
    /// What it is called in messages.
    name: String,
    place: Place,
}

/// The first of these keys that is there and not taken off yet.
pub(crate) fn limited(fields: &Fields, keys: &[&str]) -> Option<Limited> {
    keys.iter().find_map(|key| {
        let place = fields.has(key).then(|| fields.place_of(key))??;
        let name = fields.name(key);
        Some(Limited { name, place })
    })
}

/// Takes the power of `what`, called `name` in messages. Which powers there are, the node knows.
pub(crate) fn read(
    power: Option<Placed<String>>,
    name: &str,
    what: &str,
    limited: Option<Limited>,
    report: &mut Report,
) -> Option<String> {
    let power = power?;
    if power.value.is_empty() {
        report.error(
            &power.place,
            format!("{name} of {what} is empty: name a power, such as small"),
        );
        return None;
    }
    if let Some(limited) = limited {
        let message = format!(
            "{name} of {what} and {} (line {}) both limit it: keep one of them",
            limited.name, limited.place.line
        );
        report.error(&power.place, message);
        return None;
    }
    Some(power.value)
}
