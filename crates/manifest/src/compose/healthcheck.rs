//! `healthcheck`: when a service may be given requests.

use layby_model::spec::{Probe, ProbeAction};

use crate::fields::{Fields, parsed, texts};
use crate::report::Report;
use crate::tree::{Node, Value};
use crate::units::duration_ms;

/// Docker's interval and timeout where nothing is said, in milliseconds.
const DEFAULT_MS: u64 = 30_000;

/// What a healthcheck asks for.
#[derive(Debug, Default)]
pub(crate) struct Healthcheck {
    pub(crate) readiness: Option<Probe>,
    /// The image's own is switched off.
    pub(crate) disabled: bool,
}

/// Reads `healthcheck`.
pub(crate) fn read(service: &mut Fields, report: &mut Report) -> Healthcheck {
    let Some(mut fields) = service.map("healthcheck", report) else {
        return Healthcheck::default();
    };
    let place = fields.place.clone();
    let disabled = fields.flag("disable", report).unwrap_or(false);
    let name = fields.name("test");
    let given = fields.take("test");
    let has_test = given
        .as_ref()
        .is_some_and(|node| !matches!(&node.value, Value::List(items) if items.is_empty()));
    let test = given.and_then(|node| test(&node, &name, report));
    let period_ms = fields.parsed("interval", report, duration_ms);
    let timeout_ms = fields.parsed("timeout", report, duration_ms);
    let retries = fields.count("retries", 0..=1_000_000, report);
    // Both are about the time until the first success, in which failures do not count here anyway
    // and nothing is waited for between two tries.
    fields.parsed("start_period", report, duration_ms);
    fields.parsed("start_interval", report, duration_ms);
    fields.accept_extensions();
    fields.finish(report);
    let readiness = match test {
        _ if disabled => None,
        Some(Test::Command(argv)) => Some(Probe {
            action: ProbeAction::Exec { argv },
            initial_delay_ms: 0,
            period_ms: period_ms.filter(|ms| *ms > 0).unwrap_or(DEFAULT_MS),
            timeout_ms: timeout_ms.filter(|ms| *ms > 0).unwrap_or(DEFAULT_MS),
            success_threshold: 1,
            failure_threshold: retries.filter(|retries| *retries > 0).unwrap_or(3),
            stop_grace_ms: None,
        }),
        Some(Test::Disabled) => {
            return Healthcheck {
                readiness: None,
                disabled: true,
            };
        }
        None if !has_test => {
            report.warn(
                &place,
                format!("healthcheck of {} has no \"test\": it is ignored, the image's own stays as it is", service.what),
            );
            None
        }
        None => None,
    };
    Healthcheck {
        readiness,
        disabled,
    }
}

enum Test {
    Command(Vec<String>),
    Disabled,
}

/// A command line for the shell, or `[NONE]`, `[CMD, word...]`, `[CMD-SHELL, line]`; what stands behind that line are the shell's
/// arguments, as Docker has it. An empty list says nothing.
fn test(node: &Node, name: &str, report: &mut Report) -> Option<Test> {
    let shell = |line: &str| Test::Command(["/bin/sh", "-c", line].map(str::to_owned).into());
    let Value::List(items) = &node.value else {
        return parsed(node, name, report, |text| Ok(shell(text)));
    };
    let words = texts(items, name, report);
    match words.split_first() {
        None => None,
        Some((kind, _)) if kind == "NONE" => Some(Test::Disabled),
        Some((kind, argv)) if kind == "CMD" && !argv.is_empty() => {
            Some(Test::Command(argv.to_vec()))
        }
        Some((kind, [line])) if kind == "CMD-SHELL" => Some(shell(line)),
        Some((kind, lines)) if kind == "CMD-SHELL" && !lines.is_empty() => {
            let message = format!(
                "{name} has {} lines behind \"CMD-SHELL\": the shell runs the first alone, and has the others as its arguments; join them with && into one",
                lines.len()
            );
            report.warn(&node.place, message);
            let words = ["/bin/sh", "-c"].map(str::to_owned).into_iter();
            Some(Test::Command(words.chain(lines.iter().cloned()).collect()))
        }
        Some(_) => {
            let message = format!(
                "{name} must be a command line, or begin with \"CMD\", \"CMD-SHELL\" or \"NONE\""
            );
            report.error(&node.place, message);
            None
        }
    }
}
