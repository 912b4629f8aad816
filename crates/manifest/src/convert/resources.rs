//! What a container may use and asks for (`v1.ResourceRequirements`).

use layby_model::power::LADDER;
use layby_model::spec::{ContainerSpec, Resources};

use crate::convert::App;
use crate::convert::quantity::{bytes, cpu};
use crate::convert::tree::Map;
use crate::draft::Draft;
use crate::report::Report;
use crate::tree::cut;

/// Writes it. A power is written as the limits that it stands for.
pub(super) fn write(
    app: &App<'_>,
    draft: &Draft,
    container: &ContainerSpec,
    report: &mut Report,
) -> Map {
    let mut said = container.resources;
    if let Some(power) = &draft.spec.power {
        of_power(app, draft, power, &mut said, report);
    }
    within(app, draft, &mut said, report);
    let amounts = |cpu_milli: Option<u64>, memory_bytes: Option<u64>| {
        Map::new()
            .some_text("cpu", cpu_milli.map(cpu))
            .some_text("memory", memory_bytes.map(bytes))
    };
    let limits = amounts(said.cpu_limit_milli, said.memory_limit_bytes);
    let limits = devices(app, draft, container, report)
        .into_iter()
        .fold(limits, |limits, (kind, count)| {
            limits.text(&kind, count.to_string())
        });
    let requests = amounts(said.cpu_request_milli, said.memory_request_bytes);
    Map::new().put("requests", requests).put("limits", limits)
}

fn of_power(app: &App<'_>, draft: &Draft, power: &str, said: &mut Resources, report: &mut Report) {
    let known = LADDER.iter().find(|(name, ..)| *name == power);
    let why = match known {
        Some((_, cpu_milli, memory_bytes)) => {
            said.cpu_limit_milli = Some(*cpu_milli);
            said.memory_limit_bytes = Some(*memory_bytes);
            format!(
                "is written as the limits that {power} stands for: {} of CPU, {} of memory",
                cpu(*cpu_milli),
                bytes(*memory_bytes)
            )
        }
        None => format!(
            "is lost: {:?} is a power of one node; say its limits in \"deploy.resources\"",
            cut(power)
        ),
    };
    app.said.lost(draft, &["x-layby.power"], &why, report);
}

/// A cluster refuses who asks for more than it may use.
fn within(app: &App<'_>, draft: &Draft, said: &mut Resources, report: &mut Report) {
    let pairs = [
        (&mut said.cpu_request_milli, said.cpu_limit_milli),
        (&mut said.memory_request_bytes, said.memory_limit_bytes),
    ];
    for (request, limit) in pairs {
        if let (Some(asked), Some(limit)) = (*request, limit)
            && asked > limit
        {
            *request = Some(limit);
            let at = ["deploy.resources.reservations", "mem_reservation"];
            let why = "asks for more than the limit: the limit is asked for";
            app.said.lost(draft, &at, why, report);
        }
    }
}

/// How many devices of each kind are asked for. Which they are, the cluster says.
fn devices(
    app: &App<'_>,
    draft: &Draft,
    container: &ContainerSpec,
    report: &mut Report,
) -> Vec<(String, usize)> {
    let mut kinds: Vec<(String, usize)> = Vec::new();
    let mut is_told = false;
    for device in &container.options.cdi_devices {
        let (kind, name) = device.split_once('=').unwrap_or((device, ""));
        match kinds.iter_mut().find(|(known, _)| known == kind) {
            Some((_, count)) => *count += 1,
            None => kinds.push((kind.to_owned(), 1)),
        }
        is_told |= name.parse::<usize>().is_err();
    }
    if !kinds.is_empty() {
        let at = ["deploy.resources.reservations.devices", "gpus", "devices"];
        let which = match is_told {
            true => "; which of them, and all of them, cannot be asked for",
            false => "",
        };
        let why =
            format!("becomes a number of devices, which a plugin of the cluster gives out{which}");
        app.said.lost(draft, &at, &why, report);
    }
    kinds
}
