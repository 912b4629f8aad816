//! The top-level `secrets`. Builds may read them; services cannot yet.

use std::collections::BTreeMap;

use crate::fields::Fields;
use crate::report::Report;
use crate::tree::{Place, cut};

/// Where a secret comes from, on the caller's side.
#[derive(Debug)]
pub(crate) enum Secret {
    File(String),
    Environment(String),
    /// It is not right, as the report says.
    Wrong,
}

/// Takes `secrets` off the top of a Compose file.
pub(crate) fn read(top: &mut Fields, report: &mut Report) -> BTreeMap<String, Secret> {
    let Some(mut map) = top.map("secrets", report) else {
        return BTreeMap::new();
    };
    map.accept_extensions();
    let mut secrets = BTreeMap::new();
    for entry in map.rest() {
        let what = format!("the secret {:?}", cut(&entry.key));
        let place = entry.place;
        let value = match Fields::open(entry.value, what, report) {
            Some(fields) => secret(fields, &place, report),
            None => Secret::Wrong,
        };
        secrets.insert(entry.key, value);
    }
    secrets
}

fn secret(mut fields: Fields, place: &Place, report: &mut Report) -> Secret {
    let is_outside = ["driver", "external"].iter().any(|key| fields.has(key));
    let file = fields.text("file", report);
    let variable = fields.text("environment", report);
    fields.refuse(
        &[
            ("driver", "give the secret as \"file\" or \"environment\""),
            ("external", "give the secret as \"file\" or \"environment\""),
        ],
        report,
    );
    fields.accept(&["labels", "name"]);
    fields.unsupported(&["driver_opts", "template_driver"], report);
    fields.accept_extensions();
    let what = fields.what.clone();
    fields.finish(report);
    match (file, variable) {
        (Some(file), None) if !file.is_empty() => Secret::File(file),
        (None, Some(variable)) if !variable.is_empty() => Secret::Environment(variable),
        // Said above.
        _ if is_outside => Secret::Wrong,
        _ => {
            let message = format!("{what} must have one of \"file\" and \"environment\"");
            report.error(place, message);
            Secret::Wrong
        }
    }
}
