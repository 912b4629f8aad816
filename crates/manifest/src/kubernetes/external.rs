//! Services of the type ExternalName: names of the app for hosts elsewhere.

use crate::draft::{Draft, Placed, not_a_label};
use crate::report::Report;
use crate::tree::cut;
use layby_model::names::is_dns_label;

/// Lets all services of the app know these names, each with the host that it stands for.
pub(crate) fn give(
    names: Vec<Placed<(String, String)>>,
    drafts: &mut [Draft],
    report: &mut Report,
) {
    for Placed {
        value: (name, host),
        place,
    } in names
    {
        if !is_dns_label(&name) {
            report.error(&place, not_a_label("Service", &name));
            continue;
        }
        let owner = drafts.iter().find(|draft| {
            let spec = &draft.spec;
            let mut aliases = spec.aliases.iter();
            spec.name.as_str() == name || aliases.any(|alias| alias.as_str() == name)
        });
        if let Some(owner) = owner {
            let message = format!(
                "the Service {:?} stands for the host {:?}, but service {:?} has that name",
                cut(&name),
                cut(&host),
                owner.spec.name.as_str()
            );
            report.error(&place, message);
            continue;
        }
        for draft in &mut *drafts {
            draft
                .spec
                .sandbox
                .elsewhere
                .insert(name.clone(), host.clone());
        }
    }
}
