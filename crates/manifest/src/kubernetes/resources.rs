//! `resources` of a container (`v1.ResourceRequirements`), extended ones included.

use layby_model::spec::Resources;

use crate::device::{MAX_COUNT, first, is_kind};
use crate::fields::{Fields, number, parsed};
use crate::power::{self, Limited};
use crate::report::Report;
use crate::tree::cut;
use crate::units::{kubernetes_cpu_milli, kubernetes_memory};

/// The most devices of a container.
const MAX_DEVICES: usize = 1_000;

/// What a container may use and asks for.
#[derive(Debug, Default)]
pub(crate) struct Said {
    pub(crate) resources: Resources,
    /// Its devices by CDI.
    pub(crate) devices: Vec<String>,
    /// Where its limits of CPU or memory stand first.
    pub(crate) limited: Option<Limited>,
}

/// Takes `resources` off a container.
pub(crate) fn read(container: &mut Fields, report: &mut Report) -> Said {
    let mut resources = Resources::default();
    let Some(mut fields) = container.map("resources", report) else {
        return Said::default();
    };
    let limits = amounts(&mut fields, "limits", report);
    let requests = amounts(&mut fields, "requests", report);
    resources.memory_limit_bytes = limits.memory_bytes;
    resources.cpu_limit_milli = limits.cpu_milli;
    resources.memory_request_bytes = requests.memory_bytes;
    resources.cpu_request_milli = requests.cpu_milli;
    fields.unsupported(&["claims"], report);
    fields.finish(report);
    // Requests for devices are the limits again, where both are said.
    let devices = match limits.devices.is_empty() {
        true => requests.devices,
        false => limits.devices,
    };
    Said {
        resources,
        devices,
        limited: limits.limited,
    }
}

#[derive(Default)]
struct Amounts {
    memory_bytes: Option<u64>,
    cpu_milli: Option<u64>,
    devices: Vec<String>,
    limited: Option<Limited>,
}

fn amounts(resources: &mut Fields, key: &'static str, report: &mut Report) -> Amounts {
    let Some(mut fields) = resources.map(key, report) else {
        return Amounts::default();
    };
    let limited = power::limited(&fields, &["memory", "cpu"]);
    let mut amounts = Amounts {
        memory_bytes: fields.parsed("memory", report, kubernetes_memory).flatten(),
        cpu_milli: fields.parsed("cpu", report, kubernetes_cpu_milli).flatten(),
        devices: Vec::new(),
        limited,
    };
    fields.unsupported(&["ephemeral-storage"], report);
    for entry in fields.rest() {
        let name = fields.name(&cut(&entry.key));
        if entry.key.starts_with("hugepages-") {
            let message = format!("{name} is not supported yet and is ignored");
            report.warn(&entry.place, message);
        } else if is_kind(&entry.key) {
            // The first so many devices of the kind: nothing here counts which are taken.
            let count = parsed(&entry.value, &name, report, |text| {
                number(text, &(0..=MAX_COUNT))
            });
            let devices = count.map_or_else(Vec::new, |count| first(&entry.key, Some(count)));
            if amounts.devices.len() + devices.len() > MAX_DEVICES {
                let message = format!("{} asks for more than {MAX_DEVICES} devices", fields.what);
                report.error(&entry.place, message);
                continue;
            }
            amounts.devices.extend(devices);
        } else {
            fields.put_back(entry);
        }
    }
    fields.finish(report);
    amounts
}
