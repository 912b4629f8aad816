//! What makes a service a job, in both formats: when it runs, and what means nothing to one.

use croner::parser::{CronParser, Seconds, Year};
use layby_model::job::Concurrency;
use layby_model::spec::Strategy;

use crate::draft::Draft;
use crate::fields::Expected;
use crate::report::Report;
use crate::tree::cut;

/// A cron expression of five fields, or a word such as `@daily`.
pub(crate) fn cron(text: &str) -> Result<String, Expected> {
    let parser = CronParser::builder()
        .seconds(Seconds::Disallowed)
        .year(Year::Disallowed)
        .build();
    match parser.parse(text) {
        Ok(_) => Ok(text.to_owned()),
        Err(_) => Err(
            "a cron expression such as \"0 3 * * *\" (minute, hour, day of the month, month, day of the week)"
                .to_owned(),
        ),
    }
}

/// What happens when it is due while a run goes on.
pub(crate) fn concurrency(text: &str) -> Result<Concurrency, Expected> {
    match text {
        "Allow" | "allow" => Ok(Concurrency::Allow),
        "Forbid" | "forbid" => Ok(Concurrency::Forbid),
        "Replace" | "replace" => Ok(Concurrency::Replace),
        _ => Err("Allow, Forbid or Replace".to_owned()),
    }
}

/// Takes off a job what only a service can have: nothing leads to it, and nobody asks it how it is.
pub(crate) fn strip(draft: &mut Draft, report: &mut Report) {
    let name = cut(draft.spec.name.as_str());
    let mut ignored = |what: &str| {
        let message = format!("job {name:?}: {what} is ignored: it counts for services only");
        report.warn(&draft.place, message);
    };
    let spec = &mut draft.spec;
    if !spec.published.is_empty() {
        ignored("a published port");
    }
    if spec.deploy_on_push {
        ignored("deploying on a push");
    }
    if spec.autoscale.take().is_some() {
        ignored("how it is scaled");
    }
    if spec.replicas != 1 {
        ignored("a number of replicas");
    }
    let mut containers = spec.containers.iter();
    if containers.any(|c| c.readiness.is_some() || c.liveness.is_some() || c.startup.is_some()) {
        ignored("a probe or health check");
    }
    for container in &mut spec.containers {
        (container.readiness, container.liveness, container.startup) = (None, None, None);
        container.no_healthcheck = true;
    }
    spec.published.clear();
    draft.published_at.clear();
    spec.port = None;
    spec.ports.clear();
    spec.deploy_on_push = false;
    spec.replicas = 1;
    spec.strategy = Strategy::StartFirst;
    spec.restart = layby_model::spec::RestartPolicy::Never;
}
