//! What the app is called.

use layby_model::names::AppName;

use crate::draft::{Placed, label_of, not_a_label};
use crate::report::Report;
use crate::tree::{Place, cut};

/// The caller's name for it, else the manifest's, else the folder's.
pub(crate) fn name(
    asked: Option<&String>,
    folder: &str,
    written: &[Placed<String>],
    report: &mut Report,
) -> Option<AppName> {
    let nowhere = Place::whole("");
    if let Some(name) = asked {
        return checked(name, &nowhere, report);
    }
    if let Some((first, others)) = written.split_first() {
        for other in others {
            if other.value != first.value {
                let message = format!(
                    "the namespace {:?} differs from {:?} in {}: one app is one namespace. Put the objects of each into files of their own, and \
                     `layby up -f FILE` each; or take all of them as one app with --app NAME",
                    cut(&other.value),
                    cut(&first.value),
                    first.place.short()
                );
                report.error(&other.place, message);
            }
        }
        return checked(&first.value, &first.place, report);
    }
    let name = label_of(folder).and_then(|label| AppName::new(&label).ok());
    if name.is_none() {
        let message = format!(
            "no name for the app can be made of the folder's name {:?}: give one with --app",
            cut(folder)
        );
        report.error(&nowhere, message);
    }
    name
}

fn checked(name: &str, place: &Place, report: &mut Report) -> Option<AppName> {
    match AppName::new(name) {
        Ok(name) => Some(name),
        Err(_) => {
            report.error(place, not_a_label("app", name));
            None
        }
    }
}
